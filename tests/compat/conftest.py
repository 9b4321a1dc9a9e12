"""Environments of their own for the clients that are too heavy for ours: made once, kept, made again when a pin changes."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "inference"))  # the servers of test_serving
HOME = Path(os.environ.get("TINYGPT_COMPAT_ENVS") or Path.home() / ".cache" / "tinygpt-compat")


def made_environment(name: str, packages: list[str], without: tuple[str, ...] = ()) -> str:
    """Make or find the environment `name` with these packages, less those in `without`; return its Python."""
    home, expected = HOME / name, json.dumps([packages, without])
    python, note = home / "bin" / "python", home / "made-of.json"
    HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(HOME / f"{name}.lock"):  # another suite may be making it
        if note.is_file() and note.read_text() == expected:
            return str(python)
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *packages], check=True)
        if without:
            subprocess.run([*pip, "uninstall", "--yes", *without], check=True)
        note.write_text(expected)  # last: an environment left half made is made again
    return str(python)


def run_elsewhere(python: str, script: str, *words: str, path: str = "", **variables: str) -> str:
    """Run a script by another environment's Python, which sees this package only on `path`; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [python, "-c", script, *words],
        env=kept | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"} | variables,
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def talkers(tmp_path_factory):
    """dialect -> (folder, model, tokenizer) of models that have something to say."""
    from talker import SHAPES, train_talker

    home = tmp_path_factory.mktemp("talkers")
    return {dialect: (home / dialect, *train_talker(home / dialect, dialect)) for dialect in SHAPES}
