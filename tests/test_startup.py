"""Asking for help is quick: neither torch nor transformers nor datasets are imported, by any door."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt_hf.commands import COMMANDS
from tinygpt_hf.settings.arguments import ModelArguments

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "datasets", "tokenizers", "accelerate", "numpy", "huggingface_hub", "rich", "jinja2"}

ASK_EVERY_DOOR = """
import contextlib, io, json, runpy, sys
answers = {}
for door, words in json.loads(sys.argv[1]).items():
    sys.argv = words
    run = runpy.run_path if words[0].endswith(".py") else runpy.run_module
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            run(words[0], run_name="__main__")
        except SystemExit as end:
            answers[door] = end.code, out.getvalue()
print(json.dumps([answers, [name for name in sys.modules if "." not in name]]))
"""
SCRIPTS = {"run_clm.py": "train", "train_tokenizer.py": "train-tokenizer", "chat.py": "chat"}
DOORS = {
    "tinygpt": ["tinygpt_hf.cli", "--help"],
    **{f"tinygpt {name}": ["tinygpt_hf.cli", name, "--help"] for name in COMMANDS},
    "python -m tinygpt_hf": ["tinygpt_hf", "train", "--help"],
    **{script: [str(ROOT / script), "--help"] for script in SCRIPTS},
}


@pytest.fixture(scope="module")
def answers():
    """door -> (status, its help), all asked in one process, in which nothing heavy may have been loaded at the end."""
    words = [sys.executable, "-W", "ignore", "-c", ASK_EVERY_DOOR, json.dumps(DOORS)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    answers, modules = json.loads(done.stdout)
    assert done.stderr == "" and not HEAVY & set(modules)
    return answers


@pytest.mark.parametrize("door", DOORS)
def test_help_is_free_and_tells_every_setting(answers, door):
    status, text = answers[door]
    assert status == 0 and text.startswith("usage: tinygpt")
    if door == "tinygpt":
        return
    name = SCRIPTS.get(door, "train" if door.startswith("python") else door.removeprefix("tinygpt "))
    command, words = COMMANDS[name], text.split()
    names = [field.name for group in command.groups for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))  # one command line and one file hold the settings of all groups
    for group in command.groups:
        assert group.__doc__.strip().splitlines()[0] in text
        for field in dataclasses.fields(group):
            shown = field.name.upper() if field.metadata.get("positional") else f"--{field.name}"
            assert shown in words and field.metadata["help"] in text
            if field.default not in (dataclasses.MISSING, None, False, ""):
                assert f"{field.metadata['help']} (default {field.default})" in text
    if ModelArguments in command.groups:
        assert all(f"(also --{old})" in text for old in ModelArguments.aliases)
    assert ("--config" in words) == command.uses_config
    assert command.example in text and command.help in text
    assert max(map(len, text.splitlines())) < 160


# What only some commands use is imported where it is used: a training run that reads text files never pays for it.
SELDOM = {"datasets", "pandas", "pyarrow", "evaluate", "peft", "onnx", "fastapi", "gradio", "torchao", "kernels"}


def test_what_is_seldom_used_is_imported_where_it_is_used():
    def imported(file: Path) -> set[str]:
        """The packages that are imported with the file itself."""
        found = [
            n for n in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
        names = [a.name for n in found if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in found if isinstance(n, ast.ImportFrom) and not n.level]
        return {name.partition(".")[0] for name in names}

    files = [
        file for file in (ROOT / "tinygpt_hf").rglob("*.py") if "metric_modules" not in file.parts
    ]  # the library's
    assert "torch" in imported(ROOT / "tinygpt_hf" / "training" / "run.py")
    assert [str(file) for file in files if SELDOM & imported(file)] == []


# ModelArguments repeats TinyGPTConfig, because help may not import transformers.

NOT_OF_THE_SHAPE = {"use_cache", "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"}  # the tokenizer's
LEFT_TO_A_RULE = {
    "max_position_embeddings",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "tie_word_embeddings",
}


def test_model_arguments_are_the_fields_of_the_configuration():
    from transformers import PreTrainedConfig

    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    inherited = {f.name for f in dataclasses.fields(PreTrainedConfig)} - set(TinyGPTConfig.__annotations__)
    theirs = {
        f.name: f.default for f in dataclasses.fields(TinyGPTConfig) if f.name not in inherited | NOT_OF_THE_SHAPE
    }
    ours = {f.name: f for f in dataclasses.fields(ModelArguments) if f.name != "model_name_or_path"}
    assert set(ours) == set(theirs)
    for name, field in ours.items():
        expected = None if name in LEFT_TO_A_RULE else theirs[name]
        assert field.default == expected and type(field.default) is type(expected), name
        if "Literal" in str(field.type):
            assert field.type == TinyGPTConfig.__annotations__[name]
    assert ModelArguments.aliases == TinyGPTConfig.attribute_map
