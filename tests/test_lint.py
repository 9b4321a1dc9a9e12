"""The linter sees every source, and nothing that a run writes beside them changes what it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# what the README and the help write into, folders a user may choose, and two with the names of modules that the tests import
WRITTEN = (
    "runs/mine",
    "corpora/mine",
    "models/mine",
    "mine",
    "mine/tests",
    "build/lib/tinygpt_hf",
    "datasets",
    "hub_server",
)


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """The files a clone has, without the run folders kept there."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: which files are sources is not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and not name.startswith("tests/golden/home/")]
    return [name for name in names if (ROOT / name).is_file()]


def ruff(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_the_linter_sees_every_source(sources):
    _, listed = ruff(ROOT, "check", "--show-files", "--no-cache", ".")
    seen = {str(Path(line).relative_to(ROOT)) for line in listed.splitlines()}
    assert {name for name in sources if name.endswith(".py")} <= seen


def test_what_a_run_writes_changes_nothing(sources, tmp_path):
    for name in sources:
        if name.endswith((".py", ".toml")) or name == ".gitignore":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    checks = [["check", "--no-cache", "--output-format", "concise", "."], ["format", "--check", "--no-cache", "."]]
    before = [ruff(tmp_path, *words) for words in checks]
    for folder in WRITTEN:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "modeling_tinygpt.py").write_text("import torch, os\nx=1;y = 2")  # nobody laid it out
    assert [ruff(tmp_path, *words) for words in checks] == before
