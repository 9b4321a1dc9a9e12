"""Every declared pair of alternatives, in one layer and in two, in both orders."""

import dataclasses
import json
import typing

import pytest
import yaml

from tinygpt_hf.commands import TRAINING
from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.conversion import base_type, choices_of
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.settings.layering import alternatives, default_of
from tinygpt_hf.settings.parsing import fields_of, parse

COMMANDS = (TRAINING, (DataArguments, CorpusArguments))
PAIRS = [(groups, *pair) for groups in COMMANDS for pair in alternatives(fields_of(groups))]
BOTH_WAYS = [(groups, *pair[::step]) for groups, *pair in PAIRS for step in (1, -1)]


def chosen(field: dataclasses.Field):
    """Return a value that is not the default."""
    kind, inner = base_type(field.type)
    if choices_of(field.type):
        return next(word for word in choices_of(field.type) if word != field.default)
    if kind is list:
        return [{"train_file": "a.txt"}] if typing.get_args(inner)[0] is dict else ["a.txt"]
    default = default_of(field)
    return {bool: not default, int: 300, float: 0.25, dict: {"rope_theta": 5.0}}.get(kind, "word")


def said(groups, condition: str) -> dict:
    """Return a layer with only this setting."""
    name, _, word = condition.partition("=")
    return {name: word or chosen(fields_of(groups)[name][1])}


def flags(layer: dict) -> list[str]:
    words = []
    for name, value in layer.items():
        words += [
            f"--{name}",
            *(value if value == ["a.txt"] else [value if isinstance(value, str) else json.dumps(value)]),
        ]
    return words


def in_file(groups, layer: dict, path) -> list[str]:
    sections: dict[str, dict] = {}
    for name, value in layer.items():
        sections.setdefault(fields_of(groups)[name][0].section, {})[name] = value
    path.write_text(yaml.safe_dump(sections))
    return ["--config", str(path)]


def ids(pairs) -> list[str]:
    return [f"{one}-{other}" for _, one, other in pairs]


def test_declared_alternatives_are_found():
    names = {(one, other) for _, one, other in PAIRS}
    assert len(names) > 35
    assert {("max_steps", "num_train_epochs"), ("train_file", "dataset_name"), ("tokenizer_name", "vocab_size"),
            ("model_name_or_path", "hidden_size"), ("vocab_size", "tokenizer_type=char")} <= names  # fmt: skip


@pytest.mark.parametrize("place", ["file", "flags", "python"])
@pytest.mark.parametrize(("groups", "one", "other"), PAIRS, ids=ids(PAIRS))
def test_two_alternatives_in_one_layer_are_an_error(groups, one, other, place, tmp_path):
    layer = said(groups, one) | said(groups, other)
    with pytest.raises(UsageError, match="are both given .*one of them") as caught:
        if place == "python":
            flat = fields_of(groups)
            check_settings(*(g(**{n: v for n, v in layer.items() if flat[n][0] is g}) for g in groups))
        else:
            parse(groups, flags(layer) if place == "flags" else in_file(groups, layer, tmp_path / "c.yaml"))
    assert all(name in str(caught.value) for name in layer)


@pytest.mark.parametrize(("groups", "first", "last"), BOTH_WAYS, ids=ids(BOTH_WAYS))
def test_a_later_layer_replaces_alternatives_with_a_note(groups, first, last, tmp_path):
    file, line = said(groups, first), said(groups, last)
    read = parse(groups, [*in_file(groups, file, tmp_path / "c.yaml"), *flags(line)])
    ((name, _),), ((winner, value),) = file.items(), line.items()
    group, field = fields_of(groups)[name]
    assert getattr(read[group], name) == default_of(field) and name not in read.given
    assert getattr(read[fields_of(groups)[winner][0]], winner) == value
    assert read.note == f"{tmp_path / 'c.yaml'}: {name} gives way to --{winner}"
    alone = parse(groups, flags(line))
    assert [read[g] for g in groups] == [alone[g] for g in groups] and alone.note is None


NEEDING = [(groups, name, need) for groups in COMMANDS for name, (_, field) in fields_of(groups).items()
           for need in field.metadata.get("needs", ()) if need.partition("=")[0] in fields_of(groups)]  # fmt: skip


@pytest.mark.parametrize(("groups", "name", "need"), NEEDING, ids=ids(NEEDING))
def test_a_setting_without_one_it_needs_is_an_error_or_removed_with_it(groups, name, need, tmp_path):
    flat, both = fields_of(groups), said(groups, name) | said(groups, need)
    with pytest.raises(UsageError, match=f"--{name} is given without --{need.split('=')[0]}|without --dataset_name or"):
        check_settings(*(g(**{n: v for n, v in said(groups, name).items() if flat[n][0] is g}) for g in groups))
    config = in_file(groups, both, tmp_path / "c.yaml")
    assert parse(groups, config).note is None
    needed = need.partition("=")[0]
    off = {bool: "false"}.get(base_type(flat[needed][1].type)[0], "none")
    if needed != "sources":  # a list cannot be unset by a flag
        read = parse(groups, [*config, f"--{needed}={off}"])
        assert read.note == f"{tmp_path / 'c.yaml'}: {name} gives way to --{needed}" and name not in read.given


def test_dependent_settings_are_removed_together_with_one_note(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "model: {model_name_or_path: base}\n"
        "data: {dataset_name: toyland, dataset_config_name: text, max_train_samples: 5, streaming: true, stream_window: 9999}\n"
        "training: {lora_r: 4, lora_alpha: 8, max_steps: 7}\n"
    )
    read = parse(
        TRAINING, ["--config", str(config), "--train_file", "a", "--num_train_epochs", "2", "--hidden_size", "64"]
    )
    assert read.note == (
        f"{config}: model_name_or_path, lora_r and lora_alpha give way to --hidden_size; "
        "dataset_name, dataset_config_name and max_train_samples give way to --train_file; "
        "streaming, max_steps and stream_window give way to --num_train_epochs"
    )
    assert read[DataArguments] == DataArguments(train_file=["a"])
    assert read[ModelArguments] == ModelArguments(hidden_size=64)
    assert read[TrainingArguments] == TrainingArguments(num_train_epochs=2.0)


def test_defaults_do_not_conflict_and_other_settings_stay(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data: {dataset_split: train, streaming: false, text_column: body, train_file: [a]}\n"
                      "tokenizer: {tokenizer_name: t, min_frequency: 2}\n")  # fmt: skip
    read = parse(TRAINING, ["--config", str(config), "--num_train_epochs", "1", "--train_file", "b"])
    assert read.note is None
    assert read[DataArguments] == DataArguments(train_file=["b"], text_column="body")
    assert read[TokenizerArguments] == TokenizerArguments(tokenizer_name="t")
    config.write_text("training: {max_steps: 5}")
    assert parse(TRAINING, ["--config", str(config), "--num_train_epochs", "none"])[TrainingArguments].max_steps == 5
