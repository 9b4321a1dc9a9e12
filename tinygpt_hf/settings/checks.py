"""What can be wrong with settings: all of it found at once, before anything slow or written.

Types and choices first, which Python does not check where a dataclass is made (a file and the command line went through the
same converter already), then what can be wrong with settings that are each well-formed.
"""

import dataclasses
import importlib.util
import os
import re
import typing
from collections.abc import Callable
from typing import Any

from tinygpt_hf.errors import UsageError, UsageErrors
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.defaults import LENGTHS, shaped
from tinygpt_hf.settings.hub import check_repository
from tinygpt_hf.settings.parsing import base_type, convert, shown

SMALLEST_BPE = 260  # 256 bytes and 4 special tokens
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
SMALLEST_STREAM = 6  # rows, in as many windows: the first, two that are shown, three ahead
LARGEST_BPE = 10_000_000  # the trainer reserves memory for all of it at once
AT_LEAST_ONE = {
    ModelArguments: ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
                     "intermediate_size", "max_position_embeddings"),
    DataArguments: ("block_size", "max_train_samples", "num_proc"),
    TokenizerArguments: ("min_frequency", "max_train_bytes"),
    TrainingArguments: ("max_steps", "max_train_tokens", "per_device_train_batch_size", "per_device_eval_batch_size",
                        "gradient_accumulation_steps", "logging_steps", "lora_r"),
}  # fmt: skip
NOT_NEGATIVE = {
    DataArguments: ("show_rows",),
    ModelArguments: ("initializer_range", "attention_dropout", "hidden_dropout"),
    TrainingArguments: ("learning_rate", "muon_learning_rate", "weight_decay", "warmup_steps", "decay_steps", "max_grad_norm",
                        "eval_steps", "eval_rows", "save_steps", "sample_tokens", "min_learning_rate_ratio", "seed", "adam_beta1",
                        "adam_beta2", "adam_epsilon", "muon_momentum", "dataloader_num_workers", "lora_dropout"),
}  # fmt: skip
BELOW_ONE = {
    ModelArguments: ("attention_dropout", "hidden_dropout"),
    TrainingArguments: ("adam_beta1", "adam_beta2", "muon_momentum", "lora_dropout"),
}


def check_settings(*groups) -> None:
    """Raise every problem of the given dataclass instances together; what is well-formed gets the type of its field.

    A `Path` becomes text, and one file where several are meant a list of it: `DataArguments(train_file=Path("my.txt"))`.
    """
    errors: list[UsageError] = []
    sound = []
    for group in groups:
        ill_typed = check_types(group)
        errors += ill_typed
        if not ill_typed:
            sound.append(group)
            errors += _ranges(group)
            errors += _CHECKS.get(type(group), lambda _: [])(group)
    by_type = {type(group): group for group in sound}
    if ModelArguments in by_type and TrainingArguments in by_type:
        if by_type[TrainingArguments].lora_r and not by_type[ModelArguments].model_name_or_path:
            errors.append(
                UsageError(
                    "--lora_r is given without --model_name_or_path",
                    "a trained base for the adapters",
                    "name one, or leave --lora_r out to train all weights",
                )
            )
    if DataArguments in by_type and TrainingArguments in by_type:
        if by_type[DataArguments].streaming and by_type[TrainingArguments].num_train_epochs is not None:
            errors.append(
                UsageError(
                    "--num_train_epochs is given with --streaming",
                    "a length in steps or tokens: how many rows there are is known only at the end",
                    "use --max_steps or --max_train_tokens",
                )
            )
    if ModelArguments in by_type and DataArguments in by_type:
        model, data = by_type[ModelArguments], by_type[DataArguments]
        longest = model.max_position_embeddings
        if longest is not None and data.block_size > longest:
            errors.append(
                UsageError(
                    f"--block_size is {data.block_size}",
                    f"at most {longest}, the model's context (--max_position_embeddings)",
                    f"use --block_size {longest} or less, or leave --max_position_embeddings out",
                )
            )
    if errors:
        raise errors[0] if len(errors) == 1 else UsageErrors(errors)


def check_types(group) -> list[UsageError]:
    """Give every field of a dataclass instance the type it says it has, as the command line would; returns what has none."""
    errors = []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        try:
            setattr(group, field.name, _typed(value, field.type, f"--{field.name}"))
        except UsageError as error:
            errors.append(error)
    return errors


def _typed(value, annotation, where: str):
    """A value from Python as the type of a field. Words are read as on the command line; text is taken as it is."""
    kind, inner = base_type(annotation)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None:
        return convert(value, annotation, where)
    if kind is list:
        entry = typing.get_args(inner)[0]
        values = value if isinstance(value, (list, tuple)) else [value]
        return (
            convert(_plain(values), annotation, where) if entry is dict else [_typed(v, entry, where) for v in values]
        )
    if kind is str:
        if not isinstance(value, str):
            raise UsageError(f"{where} is {shown(value)}", "text", "put it in quotes")
        return value
    return convert(_plain(value), annotation, where)


def _plain(value):
    """A value with the paths and tuples in it as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _ranges(group) -> list[UsageError]:
    errors = []

    def complain(name: str, wanted: str) -> None:
        errors.append(UsageError(f"--{name} is {getattr(group, name)}", wanted, f"see --help for --{name}"))

    for name in AT_LEAST_ONE.get(type(group), ()):
        if getattr(group, name) is not None and getattr(group, name) < 1:
            complain(name, "at least 1")
    for name in NOT_NEGATIVE.get(type(group), ()):
        if getattr(group, name) is not None and getattr(group, name) < 0:
            complain(name, "0 or more")
    for name in BELOW_ONE.get(type(group), ()):
        if getattr(group, name) is not None and getattr(group, name) >= 1:
            complain(name, "less than 1")
    return errors


def _model(model: ModelArguments) -> list[UsageError]:
    errors = []
    model = shaped(model)
    heads, key_heads = model.num_attention_heads, model.num_key_value_heads
    if model.rms_norm_eps <= 0:
        errors.append(UsageError(f"--rms_norm_eps is {model.rms_norm_eps:g}", "more than 0", "try 1e-6"))
    rope = model.rope_parameters or {}
    if rope.get("rope_type", "default") not in ROPE_TYPES:
        seen = f"--rope_parameters has the rope_type {rope['rope_type']!r}"
        errors.append(UsageError(seen, f"one of {', '.join(ROPE_TYPES)}", "choose one of them"))
    theta = rope.get("rope_theta", 10_000)
    if not isinstance(theta, (int, float)) or not 0 < theta < float("inf"):
        errors.append(UsageError(f"--rope_parameters has the rope_theta {theta!r}", "above 0", "try 10000"))
    if heads is None or model.hidden_size is None:
        return errors  # of the weights it goes on from
    if min(heads, model.hidden_size, key_heads or 1) < 1:
        return errors  # said already
    if model.head_dim is None and model.hidden_size % heads:
        nearest = next(h for h in range(min(heads, model.hidden_size), 0, -1) if model.hidden_size % h == 0)
        errors.append(
            UsageError(
                f"--hidden_size {model.hidden_size} is no multiple of --num_attention_heads {heads}",
                "heads of equal width",
                f"try --num_attention_heads {nearest}, or give --head_dim",
            )
        )
    if key_heads and heads % key_heads:
        errors.append(
            UsageError(
                f"--num_attention_heads {heads} is no multiple of --num_key_value_heads {key_heads}",
                "a multiple: every key/value head serves the same number of heads",
                f"try --num_key_value_heads {next(k for k in range(min(key_heads, heads), 0, -1) if heads % k == 0)}",
            )
        )
    return errors


def _data(data: DataArguments) -> list[UsageError]:
    errors = []
    if not 0 <= data.validation_split_percentage < 100:
        errors.append(
            UsageError(
                f"--validation_split_percentage is {data.validation_split_percentage:g}",
                "0 to below 100",
                "try 5",
            )
        )
    if data.validation_split_percentage == 0 and not data.validation_file and not data.rows:
        errors.append(
            UsageError(
                "--validation_split_percentage is 0", "some text for validation", "raise it or give --validation_file"
            )
        )
    if data.streaming and data.rows:
        errors.append(
            UsageError(
                "--rows is given with --streaming",
                "one of them: rows that are there need no reading",
                "remove one of them",
            )
        )
    if data.stream_window is not None and not data.streaming:
        errors.append(UsageError("--stream_window is given without --streaming", "both or neither", "add --streaming"))
    if data.stream_window is not None and data.stream_window < SMALLEST_STREAM * data.block_size:
        errors.append(
            UsageError(
                f"--stream_window is {data.stream_window}",
                f"at least {SMALLEST_STREAM} rows of {data.block_size} tokens",
                f"use {SMALLEST_STREAM * data.block_size} or more",
            )
        )
    if data.document_separator == "":
        errors.append(UsageError("--document_separator is empty", "`blank_line` or a marker", "leave it out"))
    return errors


def _tokenizer(tokenizer: TokenizerArguments) -> list[UsageError]:
    if tokenizer.tokenizer_name and tokenizer.wanted:
        return [
            UsageError(
                "--tokenizer_name is given beside --tokenizer_type or --vocab_size",
                "an existing tokenizer or one to train",
                "remove one of them",
            )
        ]
    if tokenizer.vocab_size is not None and tokenizer.tokenizer_type in (None, "bpe"):
        if not SMALLEST_BPE <= tokenizer.vocab_size <= LARGEST_BPE:
            return [
                UsageError(
                    f"--vocab_size is {tokenizer.vocab_size}",
                    f"{SMALLEST_BPE} to {LARGEST_BPE}: 256 bytes and 4 special tokens come before the first merge",
                    f"use at least {SMALLEST_BPE}, e.g. 4096, or --tokenizer_type byte",
                )
            ]
    if tokenizer.vocab_size and tokenizer.tokenizer_type in ("char", "byte"):
        return [
            UsageError(
                f"--vocab_size is given for a {tokenizer.tokenizer_type} tokenizer",
                "no --vocab_size: it follows from the text",
                "remove --vocab_size or use --tokenizer_type bpe",
            )
        ]
    return []


def _training(training: TrainingArguments) -> list[UsageError]:
    errors = []
    given = [f"--{name} {getattr(training, name)}" for name in LENGTHS if getattr(training, name) is not None]
    if len(given) > 1:
        wanted = f"at most one of {', '.join(f'--{name}' for name in LENGTHS)}"
        errors.append(UsageError(" and ".join(given), wanted, "remove the others"))
    if training.num_train_epochs is not None and training.num_train_epochs <= 0:
        errors.append(UsageError(f"--num_train_epochs is {training.num_train_epochs}", "more than 0", "try 3"))
    if training.save_total_limit < 2:
        errors.append(
            UsageError(
                f"--save_total_limit is {training.save_total_limit}",
                "2 or more, so that a damaged newest checkpoint loses nothing",
                "use 2 or more",
            )
        )
    if training.lora_r and importlib.util.find_spec("peft") is None:
        errors.append(UsageError("peft is not installed", "it, for --lora_r", "run pip install 'tinygpt_hf[tune]'"))
    if training.lora_alpha is not None and training.lora_alpha <= 0:
        errors.append(UsageError(f"--lora_alpha is {training.lora_alpha:g}", "more than 0", "try 16"))
    for name in ("lora_alpha", "lora_dropout", "lora_merge"):
        if getattr(training, name) and training.lora_r is None:
            errors.append(UsageError(f"--{name} is given without --lora_r", "both or neither", "try --lora_r 8"))
    kind, _, number = training.nonfinite.partition(":")
    if training.nonfinite != "stop" and not (kind == "skip" and number.isascii() and number.isdigit()):
        errors.append(UsageError(f"--nonfinite is {training.nonfinite!r}", "`stop` or `skip:N`", "try skip:10"))
    if training.license is not None and not LICENSE.fullmatch(training.license):
        wanted = "an identifier of the Hub, in small letters"
        errors.append(UsageError(f"--license is {training.license!r}", wanted, "try apache-2.0, mit, cc-by-4.0"))
    for language in training.language:
        if not LANGUAGE.fullmatch(language):
            wanted = "ISO 639 codes, `code` or `multilingual`"
            errors.append(UsageError(f"--language is {language!r}", wanted, "try --language en"))
    try:
        if training.push_to_hub or training.hub_model_id is not None:
            check_repository(training.hub_model_id, "--hub_model_id")
    except UsageError as error:
        errors.append(error)
    if not training.push_to_hub and (training.hub_model_id is not None or training.hub_private_repo):
        name = "hub_model_id" if training.hub_model_id is not None else "hub_private_repo"
        errors.append(UsageError(f"--{name} is given without --push_to_hub", "both or neither", "add --push_to_hub"))
    if training.min_learning_rate_ratio > 1:
        errors.append(
            UsageError(f"--min_learning_rate_ratio is {training.min_learning_rate_ratio:g}", "0 to 1", "try 0.1")
        )
    return errors


_CHECKS: dict[type, Callable[[Any], list[UsageError]]] = {
    ModelArguments: _model, DataArguments: _data, TokenizerArguments: _tokenizer, TrainingArguments: _training,
}  # fmt: skip
