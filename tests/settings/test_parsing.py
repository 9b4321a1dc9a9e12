"""YAML, flags and Python values are converted alike; flags override YAML; all problems are reported at once."""

import copy
import dataclasses
import pickle
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt_hf.errors import UsageError, UsageErrors
from tinygpt_hf.reading.sources import training_sources
from tinygpt_hf.settings.arguments import (
    DataArguments,
    ModelArguments,
    PathText,
    TokenizerArguments,
    TrainingArguments,
)
from tinygpt_hf.settings.conversion import base_type, check_types
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.settings.inference import GenerateArguments
from tinygpt_hf.settings.layering import alternatives, default_of, holds
from tinygpt_hf.settings.parsing import fields_of, parse, to_yaml

TRAINING = (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)


@pytest.fixture
def config(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def problems(argv, groups=TRAINING) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse(groups, argv)
    error = caught.value
    lines = [str(e) for e in error.errors] if isinstance(error, UsageErrors) else [str(error)]
    assert all(" (expected " in line and "\n" not in line for line in lines)
    return lines


# Conversion.

WORDS = [
    ("training", "learning_rate", "3e-4", 3e-4),
    ("training", "learning_rate", "1", 1.0),
    ("training", "learning_rate", ".5", 0.5),
    ("training", "max_steps", "1e3", 1000),
    ("training", "max_steps", "1_000", 1000),
    ("training", "max_steps", "none", None),
    ("training", "seed", "010", 10),
    ("training", "torch_compile", "yes", True),
    ("training", "torch_compile", "no", False),
    ("training", "torch_compile", "On", True),
    ("training", "mixed_precision", "no", "no"),
    ("training", "optim", "adamw", "adamw"),
    ("training", "resume_from_checkpoint", "none", "none"),
    ("data", "validation_split", "none", None),
    ("data", "dataset_revision", "0123456", "0123456"),
    ("data", "dataset_revision", "1e5", "1e5"),
    ("data", "dataset_config_name", "2024-01-01", "2024-01-01"),
    ("data", "dataset_config_name", "1:30", "1:30"),
    ("data", "dataset_name", "42", "42"),
    ("data", "train_file", "one.txt", ["one.txt"]),
    ("data", "validation_split_percentage", "2.5", 2.5),
]


@pytest.mark.parametrize(("section", "name", "word", "value"), WORDS, ids=[f"{n}={w}" for _, n, w, _ in WORDS])
def test_values_mean_the_same_in_a_file_as_flags_and_in_python(config, section, name, word, value):
    from_file = parse(TRAINING, ["--config", config(f"{section}:\n  {name}: {word}\n")])
    for argv in ([f"--{name}", word], [f"--{name}={word}"], [f"--{name.replace('_', '-')}", word]):
        from_flag = parse(TRAINING, argv)
        group = fields_of(TRAINING)[name][0]
        assert getattr(from_flag[group], name) == value
        assert type(getattr(from_flag[group], name)) is type(value)
        assert from_file[group] == from_flag[group]
    from_python = group(**{name: word})
    assert check_types(from_python) == [] and from_python == from_flag[group]


BAD_WORDS = [
    ("training", "learning_rate", "fast"),
    ("training", "learning_rate", ".nan"),
    ("training", "learning_rate", "1e999"),
    ("training", "max_steps", "2.5"),
    ("training", "max_steps", "9" * 5000),
    ("training", "max_steps", "9" * 30),
    ("training", "max_steps", "true"),
    ("training", "torch_compile", "maybe"),
    ("training", "optim", "adam"),
    ("data", "max_train_samples", "1e30"),
    ("model", "rope_parameters", "10000"),
    ("model", "rope_parameters", "[" * 5000),
]


@pytest.mark.parametrize(("section", "name", "word"), BAD_WORDS, ids=[f"{n}={w[:9]}" for _, n, w in BAD_WORDS])
def test_invalid_values_are_errors_everywhere(config, section, name, word):
    (line,) = problems([f"--{name}={word}"])
    assert line.startswith(f"--{name} is ") and word[:5] in line
    assert [*map(str, check_types(fields_of(TRAINING)[name][0](**{name: word})))] == [line]
    (line,) = problems(["--config", config(f"{section}:\n  {name}: {word}\n")])
    assert "c.yaml" in line


def test_text_that_yaml_would_convert_must_be_quoted(config):
    for word in ("no", "true", "1.10"):
        (line,) = problems(["--config", config(f"data:\n  dataset_config_name: {word}\n")])
        assert "put it in quotes" in line.lower()
        quoted = parse(TRAINING, ["--config", config(f"data:\n  dataset_config_name: '{word}'\n")])
        assert quoted[DataArguments].dataset_config_name == word


def test_an_empty_value_is_the_default_and_an_empty_list_entry_is_an_error(config):
    assert parse(TRAINING, ["--config", config("training:\n  adam_beta2:\n")])[TrainingArguments].adam_beta2 == 0.95
    (line,) = problems(["--config", config("data:\n  train_file: [a.txt, null]\n")])
    assert "data.train_file is empty" in line


def test_lists_and_mappings(config):
    file = parse(
        TRAINING, ["--config", config("data: {train_file: [a, b c]}\nmodel: {rope_parameters: {rope_theta: 1e6}}")]
    )
    flag = parse(TRAINING, ["--train_file", "a", "b c", "--rope_parameters", '{"rope_theta": 1e6}'])
    assert file[DataArguments].train_file == flag[DataArguments].train_file == ["a", "b c"]
    assert file[ModelArguments].rope_parameters == flag[ModelArguments].rope_parameters == {"rope_theta": 1e6}
    sources = [{"train_file": "a.txt", "weight": 2.0}, {"dataset_name": "toyland"}]
    text = '[{"train_file": "a.txt", "weight": 2.0}, {"dataset_name": "toyland"}]'
    assert parse(TRAINING, ["--sources", text])[DataArguments].sources == sources
    assert parse(TRAINING, ["--config", config(f"data: {{sources: {text}}}")])[DataArguments].sources == sources
    (line,) = problems(["--config", config("training: {max_steps: [1, 2]}")])
    assert "max_steps is [1, 2]" in line


def test_bool_flags():
    value = lambda argv: parse(TRAINING, argv)[TrainingArguments].overwrite  # noqa: E731
    assert value(["--overwrite"]) and value(["--overwrite", "true"]) and value(["--overwrite=yes"])
    assert not value(["--overwrite", "false"]) and not value(["--no_overwrite"]) and not value(["--no-overwrite"])
    assert not parse(TRAINING, ["--no-shift-rows"])[DataArguments].shift_rows
    assert parse(TRAINING, ["--overwrite", "--seed", "3"])[TrainingArguments].seed == 3
    (line,) = problems(["--no_overwrite=false"])
    assert "Write --overwrite false" in line


@pytest.mark.parametrize("flag,word,right", [("torch_compile", "atuo", "auto"), ("overwrite", "ture", "true")])
def test_a_misspelled_value_of_a_bool_flag_is_named(flag, word, right):
    (line,) = problems([f"--{flag}", word])
    assert line.startswith(f"--{flag} is '{word}'") and line.endswith(f"Did you mean {right}?")


@pytest.mark.parametrize("flag", ["--output_dir", "--train_file", "--seed", "--config"])
def test_a_flag_without_value_does_not_swallow_the_next_flag(flag):
    for words in ([flag], [flag, "--overwrite"]):
        (line,) = problems(words)
        assert line.startswith(f"{flag} has no value")
    assert parse(TRAINING, ["--output_dir=--overwrite"])[TrainingArguments].output_dir == "--overwrite"
    assert parse(TRAINING, ["--sample_prompts", "-1"])[TrainingArguments].sample_prompts == ["-1"]


def test_words_without_dashes_are_errors():
    given = parse((GenerateArguments,), ["runs/a", "--prompt", "Hi"])
    assert given[GenerateArguments].model == "runs/a" and given[GenerateArguments].prompt == "Hi"
    assert parse((GenerateArguments,), ["--model", "runs/a"])[GenerateArguments].model == "runs/a"
    assert parse((GenerateArguments,), ["--explain", "none"])[GenerateArguments].model == "none"  # a folder's name


@pytest.mark.parametrize(
    ("argv", "groups", "words"),
    [
        (["runs"], TRAINING, "unexpected word 'runs'"),
        (["-x"], (GenerateArguments,), "unexpected word '-x'"),
        (["a", "b"], (GenerateArguments,), "unexpected word 'b'"),
        (["a", "--model", "b"], (GenerateArguments,), "--model is given twice"),
        (["--output_dir", "caf\udce9", "--seed"], TRAINING, "\\udce9' is not valid UTF-8"),
        (["--seed", "1", "--seed", "2"], TRAINING, "--seed is given twice"),
        (["--n_layer", "3", "--num_hidden_layers", "3"], TRAINING, "given twice"),
        (["--config", __file__, "--config", __file__], TRAINING, "--config is given twice"),
        (["--learning-rat", "1"], TRAINING, "--learning-rat (expected one that --help lists). Did you mean --learning_rate?"),
        (["--n_layers=2"], TRAINING, "Did you mean --n_layer?"),
        (["--zzzz"], TRAINING, "See --help"),
        (["--config", "none.yaml"], TRAINING, "does not exist"),
        (["--config", str(Path(__file__).parent)], TRAINING, "cannot be read"),
    ],
)  # fmt: skip
def test_invalid_words_are_one_error_each(argv, groups, words):
    assert words in problems(argv, groups)[0]


# Names.


def test_old_names_are_accepted_but_not_together_with_new_ones(config):
    assert parse(TRAINING, ["--n_layer", "3", "--n-embd=48"])[ModelArguments].num_hidden_layers == 3
    file = config("model:\n  n_layer: 5\n  n_head: 2\n")
    assert parse(TRAINING, ["--config", file])[ModelArguments].num_hidden_layers == 5
    assert parse(TRAINING, ["--config", file, "--num_hidden_layers", "7"])[ModelArguments].num_hidden_layers == 7
    (line,) = problems(["--config", config("model:\n  n_layer: 5\n  num_hidden_layers: 5\n")])
    assert "model.num_hidden_layers repeats" in line and "model.n_layer" in line


def test_all_problems_of_file_and_flags_are_reported_at_once(config):
    path = config(
        "model:\n  hiden_size: 3\n  learning_rate: 1\ndata: 7\ntrainig:\n  seed: 1\nseed: 4\n"
        "training:\n  max_steps: many\n  optim: adam\n"
    )
    lines = problems(["--config", path, "--wieght_decay", "a", "b", "--sed", "1"])
    for words in (
        "unknown setting --wieght_decay (expected one that --help lists). Did you mean --weight_decay?",
        "unknown setting --sed (expected one that --help lists). Did you mean --seed?",
        "model.hiden_size is not a setting (expected a setting of `model:`). Did you mean hidden_size?",
        "model.learning_rate is not a setting (expected a setting of `model:`). Move it under `training:`.",
        "`data` is 7",
        "unknown section `trainig` (expected one of",
        "Move it under `training:`",
        "training.max_steps is 'many'",
        "training.optim is 'adam' (expected one of muon, adamw",
    ):
        assert words in "\n".join(lines)
    assert len(lines) == 9


def test_train_tokenizer_accepts_a_training_config(config):
    from tinygpt_hf.commands import COMMANDS

    path = config(
        "model: {n_layer: 2}\ndata: {block_size: 64}\ntokenizer: {vocab_size: 300}\ntraining: {max_steps: 3, seed: 7}\n"
    )
    for name in ("train", "train-tokenizer"):
        read = parse(COMMANDS[name].groups, ["--config", path])
        assert read[DataArguments].block_size == 64 and read[TokenizerArguments].vocab_size == 300
    wrong = ["--config", config("training: {sed: 1}")]
    assert "Did you mean seed?" in problems(wrong, COMMANDS["train-tokenizer"].groups)[0]


def test_flags_override_the_file_and_the_file_overrides_defaults(config):
    path = config("training:\n  seed: 7\n  max_steps: 5\n")
    read = parse(TRAINING, ["--seed", "9", "--config", path])
    training = read[TrainingArguments]
    assert (training.seed, training.max_steps, training.warmup_steps) == (9, 5, None)
    assert read.given["seed"] == "--seed" and "training.max_steps" in read.given["max_steps"]
    assert "warmup_steps" not in read.given and read.config == path


def test_an_empty_file_and_a_byte_order_mark_are_fine(config):
    assert parse(TRAINING, ["--config", config("")]) == parse(TRAINING, [])
    assert parse(TRAINING, ["--config", config("\ufefftraining: {seed: 1}")])[TrainingArguments].seed == 1


# to_yaml and back.

printable = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda s: s.lower() not in ("none", "null"))


def values_for(annotation):
    if type(None) in typing.get_args(annotation):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return st.none() | values_for(inner[0])
    if typing.get_origin(annotation) is Literal:
        return st.sampled_from(typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Union:
        return st.one_of(*map(values_for, typing.get_args(annotation)))
    if typing.get_origin(annotation) is list:
        entry = st.fixed_dictionaries({"text_column": printable, "weight": st.floats(0.1, 9)})
        return (
            st.lists(entry, min_size=1)
            if typing.get_args(annotation)[0] is dict
            else st.lists(values_for(typing.get_args(annotation)[0]), max_size=3)
        )
    return {
        str: printable,
        PathText: printable.filter(lambda word: not set(word) & set("~$")),
        bool: st.booleans(),
        int: st.integers(-(2**63) + 1, 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        dict: st.dictionaries(st.sampled_from(["rope_theta", "factor"]), st.floats(0, 1e9), min_size=1),
    }[annotation]


def instances(group):
    return st.builds(group, **{f.name: values_for(f.type) for f in dataclasses.fields(group)})


@pytest.mark.parametrize("word", ["0E0", "1e5", "+3", "-.5", ".inf", "3e-4", "1_000", "0x1f", "7"])
def test_strings_that_look_like_numbers_stay_strings(tmp_path, word):
    data = DataArguments(sources=[{"text_column": word}])
    (tmp_path / "run.yaml").write_text(to_yaml([data]))
    assert parse([DataArguments], ["--config", str(tmp_path / "run.yaml")])[DataArguments] == data


@settings(max_examples=40)
@given(groups=st.tuples(*map(instances, TRAINING)))
def test_settings_survive_yaml_and_type_checks_unchanged(tmp_path_factory, groups):
    path = tmp_path_factory.mktemp("yaml") / "run.yaml"
    flat, values = fields_of(TRAINING), {name: value for group in groups for name, value in vars(group).items()}
    for one, other in alternatives(flat):
        if holds(one, values, flat) and holds(other, values, flat):
            group, values[one] = groups[TRAINING.index(flat[one][0])], default_of(flat[one][1])
            setattr(group, one, values[one])
    path.write_text(to_yaml(list(groups)), encoding="utf-8", newline="")
    read = parse(TRAINING, ["--config", str(path)])
    assert [read[group] for group in TRAINING] == list(groups)
    for group in groups:
        before = dataclasses.asdict(group)
        assert check_types(group) == [] and dataclasses.asdict(group) == before


@dataclass
class Words:
    """Settings with one text field."""

    section: ClassVar[str] = "data"
    word: str = dataclasses.field(default="", metadata={"help": "any"})


@settings(max_examples=150)
@given(word=printable)
@example("1e5").via("a number to YAML 1.2, a word to 1.1")
@example("1.0e5")
@example("010")
@example("=")
@example("<<")
@example("0x1F")
@example("a: b # c")
@example(" \t\r\n\x85\u2028\ufeff\x00")
def test_any_text_survives_yaml(tmp_path_factory, word):
    path = tmp_path_factory.mktemp("yaml") / "run.yaml"
    path.write_text(to_yaml([Words(word)]), encoding="utf-8", newline="")
    assert parse((Words,), ["--config", str(path)])[Words].word == word


# Values from Python.


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (TrainingArguments(optim="sgd"), "--optim is 'sgd' (expected one of muon, adamw"),
        (TrainingArguments(mixed_precision="fp8"), "--mixed_precision is 'fp8' (expected one of auto, no, bf16,"),
        (TrainingArguments(max_steps=True), "--max_steps is True (expected a whole number"),
        (TrainingArguments(max_steps=2.5), "--max_steps is 2.5 (expected a whole number"),
        (TrainingArguments(max_steps=[3]), "--max_steps is [3] (expected one int"),
        (TrainingArguments(muon_learning_rate=None), "--muon_learning_rate is empty (expected float"),
        (TrainingArguments(learning_rate=False), "--learning_rate is False (expected a number"),
        (TrainingArguments(learning_rate=float("inf")), "--learning_rate is inf (expected a number"),
        (TrainingArguments(overwrite=2), "--overwrite is 2 (expected one of true, false"),
        (TrainingArguments(optim=None), "--optim is empty (expected one of muon, adamw"),
        (TrainingArguments(output_dir=5), "--output_dir is 5 (expected text"),
        (TrainingArguments(output_dir=b"x"), "--output_dir is b'x' (expected text"),
        (DataArguments(train_file=5), "--train_file is 5 (expected text"),
        (DataArguments(train_file={"a.txt"}), "--train_file is {'a.txt'} (expected text"),
        (DataArguments(train_file=["a.txt", None]), "--train_file is empty (expected str"),
        (DataArguments(sources=["a.txt"]), "--sources is 'a.txt' (expected a mapping"),
        (ModelArguments(rope_parameters=[1]), "--rope_parameters is [1] (expected a mapping"),
        (ModelArguments(hidden_size="wide"), "--hidden_size is 'wide' (expected a whole number"),
        (TokenizerArguments(tokenizer_type="word"), "--tokenizer_type is 'word' (expected one of bpe, char, byte"),
    ],
)
def test_python_is_checked_like_the_command_line(group, words):
    (error,) = check_types(group)
    assert words in str(error)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (DataArguments(train_file="my.txt"), "train_file", ["my.txt"]),
        (DataArguments(train_file=Path("a") / "my.txt"), "train_file", ["a/my.txt"]),
        (DataArguments(train_file=("a", Path("b"))), "train_file", ["a", "b"]),
        (DataArguments(train_file=["none"]), "train_file", ["none"]),
        (DataArguments(text_column="none"), "text_column", "none"),
        (DataArguments(sources={"train_file": (Path("a"), "b")}), "sources", [{"train_file": ["a", "b"]}]),
        (DataArguments(rows=Path("rows")), "rows", "rows"),
        (TrainingArguments(output_dir=Path("runs/mine")), "output_dir", "runs/mine"),
        (TrainingArguments(learning_rate=1), "learning_rate", 1.0),
        (TrainingArguments(max_steps=3.0), "max_steps", 3),
        (TrainingArguments(mixed_precision=False), "mixed_precision", "no"),
        (TrainingArguments(language="en"), "language", ["en"]),
        (TrainingArguments(resume_from_checkpoint=True), "resume_from_checkpoint", "auto"),
        (ModelArguments(rope_parameters={"rope_theta": "1e6"}), "rope_parameters", {"rope_theta": 1e6}),
        (CorpusArguments(output_dir=Path("corpora"), mask="email"), "mask", ["email"]),
        (CorpusArguments(max_mean_word=False), "max_mean_word", "off"),
    ],
)
def test_python_values_are_converted_to_field_types(group, name, value):
    assert check_types(group) == []
    assert getattr(group, name) == value and type(getattr(group, name)) is type(value)


def test_lists_are_not_shared_between_instances():
    DataArguments().train_file.append("x")
    assert DataArguments().train_file == []


# Paths.


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "a$b"))
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("b", raising=False)
    return str(tmp_path / "a$b")


PATHS = [
    ("~/x", "{home}/x"), ("~", "{home}"), ("$DATA/x", "/data/x"), ("${DATA}x/$DATA", "/datax//data"), ("a~/x", "a~/x"),
    ("~nobody_has_this_name/x", "~nobody_has_this_name/x"), ("alice/model", "alice/model"), ("toyland", "toyland"),
    ("https://host/~a/$DATA", "https://host/~a/$DATA"), ("cash$.txt", "cash$.txt"), ("~a$/x", "~a$/x"),
]  # fmt: skip


def is_path(field) -> bool:
    return any(part == PathText for part in (field.type, *typing.get_args(field.type)))


@pytest.mark.parametrize(("word", "expected"), PATHS)
def test_home_and_variables_are_expanded_in_every_path_setting(home, config, word, expected):
    expected = expected.format(home=home)
    for name, (group, field) in fields_of(TRAINING).items():
        value = [expected] if base_type(field.type)[0] is list else expected
        if is_path(field):
            for argv in ([f"--{name}={word}"], ["--config", config(f"{group.section}:\n  {name}: '{word}'\n")]):
                assert getattr(parse(TRAINING, argv)[group], name) == value
            for python in (word, Path(word), [word])[: 3 if isinstance(value, list) else 2]:
                made = group(**{name: python})
                if "://" not in word:  # a Path merges the two slashes
                    assert check_types(made) == [] and getattr(made, name) == value


def test_every_file_or_folder_setting_is_a_path(home):
    from tinygpt_hf.commands import COMMANDS

    named = {
        (name, f.name) for name, command in COMMANDS.items() for g in command.groups for f in dataclasses.fields(g)
    }
    paths = {(name, f.name) for name, command in COMMANDS.items() for g in command.groups for f in dataclasses.fields(g)
             if is_path(f)}  # fmt: skip
    words = ("_file", "_dir", "_path", "rows", "model", "tokenizer_name", "dataset_name", "resume_from_checkpoint")
    of_the_hub = {("pull", "model")}
    numbers = {(name, field) for name, field in named if field in ("show_rows", "eval_rows", "shift_rows")}
    assert {pair for pair in named if pair[1].endswith(words)} - numbers - of_the_hub <= paths
    assert ("evaluate", "data") in paths


def test_a_path_is_expanded_once(home, tmp_path):
    Path(home).mkdir()
    read = parse(TRAINING, ["--output_dir=~/new/run"])[TrainingArguments]
    assert read.output_dir == f"{home}/new/run"
    assert check_types(read) == [] and read.output_dir == f"{home}/new/run"
    (tmp_path / "run.yaml").write_text(to_yaml([read]))
    assert parse(TRAINING, ["--config", str(tmp_path / "run.yaml")])[TrainingArguments] == read


def test_paths_in_sources_are_expanded(home):
    data = DataArguments(sources=[{"train_file": ["~/a.txt", "$DATA/b.txt"]}, {"dataset_name": "$DATA/c"}])
    first, second = training_sources(data)
    assert first.files == (f"{home}/a.txt", "/data/b.txt") and second.dataset_name == "/data/c"


def test_an_unset_variable_in_a_path_is_an_error(home, config):
    for words in (["--output_dir=$b/x"], ["--train_file", "a", "${b}"], ["--config=$b/c.yaml"]):
        (line,) = problems(words)
        assert "names $b, which is not set" in line and "Set b" in line
    assert [error.problem for error in check_types(DataArguments(rows="$b"))] == ["--rows names $b, which is not set"]


def test_the_config_path_is_expanded(monkeypatch, tmp_path):
    (tmp_path / "c.yaml").write_text("training: {seed: 3}")
    monkeypatch.setenv("HOME", str(tmp_path))
    read = parse(TRAINING, ["--config=~/c.yaml"])
    assert read[TrainingArguments].seed == 3 and read.config == str(tmp_path / "c.yaml")


# Names of other trainers.

SAID = [
    ("training", "fp16", "true", "mixed_precision", "fp16"),
    ("training", "bf16", "true", "mixed_precision", "bf16"),
    ("training", "mixed_precision", "fp32", "mixed_precision", "no"),
    ("training", "optim", "adamw_torch", "optim", "adamw"),
    ("training", "lr_scheduler_type", "constant_with_warmup", "lr_scheduler_type", "constant"),
    ("training", "resume_from_checkpoint", "true", "resume_from_checkpoint", "auto"),
    ("training", "resume_from_checkpoint", "false", "resume_from_checkpoint", "none"),
    ("training", "max_steps", "-1", "max_steps", None),
    ("training", "use_cpu", "true", "device", "cpu"),
    ("training", "eval_strategy", "steps", "eval_steps", None),
    ("training", "evaluation_strategy", "steps", "eval_steps", None),
    ("training", "save_strategy", "steps", "save_steps", None),
    ("training", "report_to", "none", "report_to", None),
    ("training", "num_epochs", "2", "num_train_epochs", 2.0),
    ("training", "learning_rate", "3e-4", "learning_rate", 3e-4),
    ("data", "max_seq_length", "512", "block_size", 512),
    ("model", "base_model", "x/y", "model_name_or_path", "x/y"),
    ("model", "n_embd", "64", "hidden_size", 64),
]


@pytest.mark.parametrize(("section", "theirs", "word", "ours", "value"), SAID, ids=[f"{t}={w}" for _, t, w, *_ in SAID])
def test_names_of_other_trainers_are_accepted_everywhere(config, section, theirs, word, ours, value):
    group = next(group for group in TRAINING if group.section == section)
    in_python = group(**{theirs: {"true": True, "false": False, "-1": -1, "512": 512}.get(word, word)})
    assert check_types(in_python) == []
    from_file = parse(TRAINING, ["--config", config(f"{section}:\n  {theirs}: {word}\n")])[group]
    from_flag = parse(TRAINING, [f"--{theirs}", word])[group]
    assert in_python == from_file == from_flag and getattr(in_python, ours, None) == value


HINTED = [
    ("training", "warmup_ratio", "0.1", "warmup_steps, a number of steps"),
    ("training", "eval_strategy", "epoch", "eval_steps"),
    ("training", "fp16", "false", "mixed_precision"),
    ("training", "gradient_checkpointing_kwargs", "1", "gradient_checkpointing"),
    ("training", "dataloader_workers", "2", "id you mean"),
    ("training", "report_to", "mlflow", "tensorboard, trackio, wandb"),
    ("training", "trust_remote_code", "true", "never run"),
    ("training", "optim", "adamw_8bit", "muon, adamw"),
    ("data", "packing", "true", "wrap, bestfit"),
    ("data", "max_length", "512", "block_size"),
]


@pytest.mark.parametrize(("section", "theirs", "word", "words"), HINTED, ids=[f"{t}={w}" for _, t, w, _ in HINTED])
def test_unsupported_names_of_other_trainers_get_advice(config, section, theirs, word, words):
    for argv in ([f"--{theirs}", word], ["--config", config(f"{section}:\n  {theirs}: {word}\n")]):
        (line,) = problems(argv)
        assert theirs in line and words in line
    group = next(group for group in TRAINING if group.section == section)
    with pytest.raises(UsageError, match=words):
        raise next(iter(check_types(group(**{theirs: {"true": True, "false": False}.get(word, word)}))))


def test_a_setting_given_twice_is_an_error(config):
    for argv in (["--lr=1", "--learning_rate=1"], ["--bf16", "--mixed_precision", "no"], ["--fp16", "--bf16"]):
        assert "given twice" in problems(argv)[0] or "repeats" in problems(argv)[0]
    assert "repeats" in problems(["--config", config("training: {bf16: true, mixed_precision: no}")])[0]
    for words in ({"lr": 1, "learning_rate": 1}, {"bf16": True, "mixed_precision": "no"}, {"fp16": True, "bf16": True}):
        with pytest.raises(UsageError, match="repeats"):
            TrainingArguments(**words)


def test_commands_without_the_setting_reject_its_alias():
    assert "unknown setting --bf16" in problems(["runs/x", "--bf16"], (GenerateArguments,))[0]


def test_unknown_names_in_python_are_errors_with_a_hint():
    with pytest.raises(UsageError, match="TrainingArguments has no setting wieght_decay .*Did you mean weight_decay?"):
        TrainingArguments(wieght_decay=0.1)
    with pytest.raises(UsageError, match="ModelArguments has no setting fp16"):
        ModelArguments(fp16=True)


def test_settings_are_still_plain_dataclasses():
    before = TrainingArguments("runs/x", lr=1, num_epochs=2)
    assert dataclasses.replace(before, seed=3).learning_rate == 1 and before.output_dir == "runs/x"
    assert pickle.loads(pickle.dumps(before)) == copy.deepcopy(before) == before
