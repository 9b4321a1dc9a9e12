"""A wheel works: it is built, installed where the repository is out of reach, and every file of the package is in it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("tinygpt_hf", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
SHORT = (
    "--max_steps 4 --max_train_samples 300 --vocab_size 500 --block_size 64 --hidden_size 32 --num_hidden_layers 1 "
    "--num_attention_heads 2 --validation_split_percentage 10 --sample_tokens 4 --device cpu"
)


def run(*words, cwd: Path) -> str:
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel, and beside it only what is installed here: no link to this repository."""
    folder = tmp_path_factory.mktemp("wheel")
    # built from a copy: the folder `build` that is left behind would go into the next wheel
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source, cwd=folder)
    shutil.rmtree(source)

    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    # a folder named in a .pth file is searched, but its own .pth files, an editable install among them, are not read
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "beside.pth").write_text("\n".join(here) + "\n")
    (wheel,) = folder.glob("*.whl")
    run(*pip, "--python", folder / "venv/bin/python", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder / "venv/bin/python"


def files_of(package: Path) -> set[str]:
    """What lies in a folder, without what Python and file managers leave there."""
    paths = [path.relative_to(package) for path in package.rglob("*") if path.is_file()]
    return {str(path) for path in paths if "__pycache__" not in path.parts and not path.name.startswith(".")}


def test_every_file_is_installed(python, tmp_path):
    code = "import tinygpt_hf; print(tinygpt_hf.__file__)"
    code += "; from tinygpt_hf.evaluation.metrics import METRICS, load_metric; print([load_metric(n).name for n in METRICS])"
    where, metrics = run(python, "-c", code, cwd=tmp_path).splitlines()
    assert "perplexity" in metrics  # their modules are found by path
    assert Path(where).is_relative_to(python.parents[1]), f"{where} is not the wheel's"
    configs = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert files_of(Path(where).parent) == files_of(ROOT / "tinygpt_hf") | configs
    assert len(configs) > 5


def test_a_quickstart_runs_from_it(python, tmp_path):
    out = run(python.with_name("tinygpt"), "quickstart", "--output_dir", "q", *SHORT.split(), cwd=tmp_path)
    assert "Measured on held-out text" in out
