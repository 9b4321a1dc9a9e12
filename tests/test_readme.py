"""Every command in the README and the docs is one the tools take, every file it names exists, every Python line compiles."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from tinygpt_hf.commands import COMMANDS
from tinygpt_hf.settings.parsing import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# not ours
OTHERS = {"git", "cd", "pip", "python3", "source", "curl", "transformers", "vllm", "llama-server", "ollama", "sbatch"}
DOORS = {"run_clm.py": "train", "train_tokenizer.py": "train-tokenizer", "chat.py": "chat"}


def blocks(language: str) -> list[str]:
    return [block for page in PAGES for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)]


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_there_is_something_to_check():
    assert len(commands()) >= 12 and len(blocks("python")) >= 1


@pytest.mark.parametrize("line", commands())
def test_the_command_is_taken(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    while "=" in words[0] and not words[0].startswith("-"):
        words.pop(0)  # a variable of the environment
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        return
    if words[0] in OTHERS or words[:3] in (
        ["python", "-m", "venv"],
        ["python", "-m", "vllm.entrypoints.openai.api_server"],
    ):
        return
    if words[:2] == ["accelerate", "launch"] or words[0] == "torchrun":
        words = words[next(k for k, word in enumerate(words) if word.endswith(".py") or word == "-m") :]
        if words[0] == "-m":
            assert words[1] == "tinygpt_hf.cli"
            words = ["tinygpt", *words[2:]]
    if Path(words[0]).name == "python":
        words = words[1:]
    if words[0].startswith(("benchmarks/", "examples/")):
        assert not strange_flags(ROOT / words[0], words[1:])
        return
    if words == ["tinygpt", "--help"]:
        return
    name = DOORS.get(words[0]) or words[1]
    assert words[0] in (*DOORS, "tinygpt") and name in COMMANDS, line
    rest = words[1:] if words[0] in DOORS else words[2:]
    if "--help" not in rest:
        parse(COMMANDS[name].groups, rest, uses_config=COMMANDS[name].uses_config)


def strange_flags(script: Path, words: list[str]) -> list[str]:
    """The flags among `words` that a program does not know; it is read, not run: it may want what is not installed here."""
    text = script.read_text()
    if "from measuring import" in text:  # which has the flags that benchmarks share
        text += script.with_name("measuring.py").read_text()
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    known = {arg.value for call in calls for arg in call.args if isinstance(arg, ast.Constant)}
    return [word for word in words if word.startswith("--") and word not in known]


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_knows_the_flags_it_shows(script):
    usage = ast.get_docstring(ast.parse(script.read_text())).replace("\\\n", " ").splitlines()
    shown = [line.split(script.name)[1].split() for line in usage if f"{script.name} " in line]
    assert shown and not [strange_flags(script, words) for words in shown if strange_flags(script, words)]


@pytest.mark.parametrize("source", blocks("python"))
def test_the_python_compiles(source):
    compile(source, "README.md", "exec")


def test_what_the_page_on_data_shows_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for source in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.S):
        exec(compile(source, "data.md", "exec"), {})
    runs = {path.parent.name for path in tmp_path.glob("runs/*/model.safetensors")}
    assert runs == {"list", "chats", "dataset", "dict", "stream", "saved"}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
