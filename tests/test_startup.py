"""Asking for help is quick: neither torch nor transformers nor datasets are imported, by any door."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt_hf.commands import COMMANDS
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "numpy", "huggingface_hub", "rich", "jinja2")
BOUND = 10.0  # seconds of computing; half of one is the promise, the rest is for a slow machine

RUN = """
import json, runpy, sys, time
door, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_path(door, run_name="__main__") if door.endswith(".py") else runpy.run_module(door, run_name="__main__")
except SystemExit as end:
    status = end.code
print("\\n" + json.dumps([status, sorted(m for m in sys.modules if "." not in m), time.process_time()]))
"""

DOORS = {
    "tinygpt": ["tinygpt_hf.cli", "--help"],
    **{f"tinygpt {name}": ["tinygpt_hf.cli", name, "--help"] for name in COMMANDS},
    "python -m tinygpt_hf": ["tinygpt_hf", "train", "--help"],
    "run_clm.py": [str(ROOT / "run_clm.py"), "--help"],
    "train_tokenizer.py": [str(ROOT / "train_tokenizer.py"), "--help"],
    "chat.py": [str(ROOT / "chat.py"), "--help"],
}
COMMAND_OF = {
    "python -m tinygpt_hf": "train",
    "run_clm.py": "train",
    "train_tokenizer.py": "train-tokenizer",
    "chat.py": "chat",
}


@pytest.fixture(scope="module")
def answers():
    found = {}
    for door, argv in DOORS.items():
        done = subprocess.run([sys.executable, "-c", RUN, *argv], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stderr == ""
        text, _, facts = done.stdout.rstrip("\n").rpartition("\n")
        found[door] = (text, *json.loads(facts))
    return found


@pytest.mark.parametrize("door", DOORS)
def test_help_is_free(answers, door):
    text, status, modules, seconds = answers[door]
    assert status == 0 and text.startswith("usage: tinygpt")
    assert [name for name in HEAVY if name in modules] == []
    assert seconds < BOUND


@pytest.mark.parametrize("door", [door for door in DOORS if door != "tinygpt"])
def test_every_setting_of_a_command_is_in_its_help(answers, door):
    command = COMMANDS[COMMAND_OF.get(door, door.removeprefix("tinygpt "))]
    text = answers[door][0]
    words = text.split()
    for group in command.groups:
        assert group.__doc__.strip().splitlines()[0] in text
        for field in dataclasses.fields(group):
            shown = field.name.upper() if field.metadata.get("positional") else f"--{field.name}"
            assert shown in words and field.metadata["help"] in text
            if field.default not in (dataclasses.MISSING, None, False, ""):
                assert f"{field.metadata['help']} (default {field.default})" in text
    assert ("--config" in words) == command.uses_config
    assert command.example in text and command.help in text
    assert max(map(len, text.splitlines())) < 160


def test_the_old_names_are_in_the_help(answers):
    text = answers["run_clm.py"][0]
    assert all(f"(also --{old})" in text for old in ModelArguments.aliases)


def test_importing_the_package_is_free():
    code = "import sys, json, tinygpt_hf; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in HEAVY if name in json.loads(done.stdout)] == []


# ModelArguments repeats TinyGPTConfig, because help may not import transformers.

FILLED_BY_THE_RECIPE = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"}  # the tokenizer's
NOT_OF_THE_SHAPE = {"use_cache"}
OF_THE_RECIPE = {"model_name_or_path"}
LEFT_TO_THE_BLOCK_SIZE = {"max_position_embeddings"}  # None here: block_size, if the settings leave it out
LEFT_TO_A_RULE = {
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "tie_word_embeddings",
}  # settings/defaults.py


def test_model_arguments_are_the_fields_of_the_configuration():
    from transformers import PreTrainedConfig

    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    inherited = {f.name for f in dataclasses.fields(PreTrainedConfig)} - set(TinyGPTConfig.__annotations__)
    ours = {f.name: f.default for f in dataclasses.fields(TinyGPTConfig) if f.name not in inherited}
    known = {f.name: f.default for f in dataclasses.fields(ModelArguments)}
    assert set(ours) - FILLED_BY_THE_RECIPE - NOT_OF_THE_SHAPE == set(known) - OF_THE_RECIPE
    for name in set(known) - OF_THE_RECIPE - LEFT_TO_THE_BLOCK_SIZE - LEFT_TO_A_RULE:
        assert known[name] == ours[name] and type(known[name]) is type(ours[name]), name
    assert all(known[name] is None for name in LEFT_TO_THE_BLOCK_SIZE | OF_THE_RECIPE | LEFT_TO_A_RULE)
    assert ModelArguments.aliases == {old: new for old, new in TinyGPTConfig.attribute_map.items()}


def test_the_choices_are_those_of_the_configuration():
    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    theirs = TinyGPTConfig.__annotations__
    for field in dataclasses.fields(ModelArguments):
        if "Literal" in str(field.type):
            assert field.type == theirs[field.name]


PROMISED = """--output_dir --overwrite --train_file --validation_file --dataset_name --dataset_config_name
--dataset_split --text_column --streaming --max_train_samples --validation_split_percentage --block_size --tokenizer_name
--model_name_or_path --vocab_size --min_frequency --tokenizer_type --max_steps --num_train_epochs --max_train_tokens
--per_device_train_batch_size --per_device_eval_batch_size --gradient_accumulation_steps --learning_rate --weight_decay
--optim --lr_scheduler_type --warmup_steps --max_grad_norm --mixed_precision --device --torch_compile
--gradient_checkpointing --seed --logging_steps --eval_steps --save_steps --save_total_limit --resume_from_checkpoint"""


def test_the_flags_others_rely_on_exist():
    groups = (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)
    known = {f"--{f.name}" for group in groups for f in dataclasses.fields(group)}
    assert set(PROMISED.split()) <= known
