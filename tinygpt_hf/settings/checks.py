"""Check settings and report all problems at once, before anything slow starts or is written.

First the types and choices, which Python dataclasses do not check; then the bounds of numbers; then combinations of settings.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Callable
from typing import Any

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.conversion import check_types, seconds_of
from tinygpt_hf.settings.corpus import KINDS, CorpusArguments
from tinygpt_hf.settings.defaults import shaped
from tinygpt_hf.settings.hub import check_repository
from tinygpt_hf.settings.layering import conflicts, unmet_needs
from tinygpt_hf.settings.parsing import fields_of, raise_together

SMALLEST_BPE = 260  # 256 bytes and 4 special tokens
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
MIN_STREAM_ROWS = 6  # one row in each of 6 windows: the first, two in use, three ahead
LARGEST_BPE = 10_000_000  # the trainer allocates memory for all of it at once
# metadata of `setting(...)` -> (words for an error, check)
BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_least": ("at least", lambda value, bound: value >= bound),
    "above": ("more than", lambda value, bound: value > bound),
    "at_most": ("at most", lambda value, bound: value <= bound),
    "below": ("less than", lambda value, bound: value < bound),
}


def check_settings(*groups) -> None:
    """Check dataclass instances and convert their fields to the right types. Raises all problems as one UsageError."""
    errors: list[UsageError] = []
    valid: dict[type, Any] = {}
    for group in groups:
        ill_typed = check_types(group)
        errors += ill_typed
        if not ill_typed:
            valid[type(group)] = group
            errors += _check_bounds(group)
            errors += _problems(*_CHECKS.get(type(group), lambda _: [])(group))
    flat, values = fields_of(tuple(valid)), {}
    for group in valid.values():
        values |= {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
    errors += conflicts(values, flat, {}) + unmet_needs(values, flat)
    if ModelArguments in valid and DataArguments in valid:
        errors += _problems(*_model_and_data(valid[ModelArguments], valid[DataArguments]))
    raise_together(errors)


def _problems(*rules: tuple[Any, str, str, str]) -> list[UsageError]:
    """Return an error for each (is_wrong, problem, expected, action) whose first item is true."""
    return [UsageError(*words) for is_wrong, *words in rules if is_wrong]


def _check_bounds(group) -> list[UsageError]:
    """Check the bounds of numbers (`setting(..., at_least=1)`)."""
    errors = []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        limits = [(name, field.metadata[name]) for name in BOUNDS if name in field.metadata]
        if isinstance(value, (int, float)) and not all(BOUNDS[name][1](value, bound) for name, bound in limits):
            expected = ", ".join(f"{BOUNDS[name][0]} {bound:g}" for name, bound in limits)
            errors.append(UsageError(f"--{field.name} is {value}", expected, f"see --help for --{field.name}"))
    return errors


def _model_and_data(model: ModelArguments, data: DataArguments) -> list[tuple]:
    longest = model.max_position_embeddings
    return [
        (longest is not None and data.block_size > longest, f"--block_size is {data.block_size}",
         f"at most {longest}, the model's context (--max_position_embeddings)",
         f"use --block_size {longest} or less, or leave --max_position_embeddings out"),
    ]  # fmt: skip


def _model(model: ModelArguments) -> list[tuple]:
    model = shaped(model)
    heads, key_heads, width = model.num_attention_heads, model.num_key_value_heads, model.hidden_size
    rope = model.rope_parameters or {}
    kind, theta = rope.get("rope_type", "default"), rope.get("rope_theta", 10_000)
    is_positive = isinstance(theta, (int, float)) and 0 < theta < float("inf")
    rules = [
        (kind not in ROPE_TYPES, f"--rope_parameters has the rope_type {kind!r}", f"one of {', '.join(ROPE_TYPES)}",
         "choose one of them"),
        (not is_positive, f"--rope_parameters has the rope_theta {theta!r}", "above 0", "try 10000"),
    ]  # fmt: skip
    if heads is None or width is None or min(heads, width, key_heads or 1) < 1:
        return rules  # the shape of existing weights, or out of bounds
    if model.head_dim is None and width % heads:
        nearest = next(h for h in range(min(heads, width), 0, -1) if width % h == 0)
        problem = f"--hidden_size {width} is not a multiple of --num_attention_heads {heads}"
        rules.append(
            (True, problem, "heads of equal width", f"try --num_attention_heads {nearest}, or give --head_dim")
        )
    if key_heads and heads % key_heads:
        nearest = next(k for k in range(min(key_heads, heads), 0, -1) if heads % k == 0)
        problem = f"--num_attention_heads {heads} is not a multiple of --num_key_value_heads {key_heads}"
        expected = "a multiple: every key/value head serves the same number of heads"
        rules.append((True, problem, expected, f"try --num_key_value_heads {nearest}"))
    return rules


def _data(data: DataArguments) -> list[tuple]:
    smallest = MIN_STREAM_ROWS * data.block_size
    return [
        (data.validation_split_percentage == 0 and not data.validation_file and not data.rows,
         "--validation_split_percentage is 0", "some text for validation", "raise it or give --validation_file"),
        (data.stream_window is not None and data.stream_window < smallest, f"--stream_window is {data.stream_window}",
         f"at least {MIN_STREAM_ROWS} rows of {data.block_size} tokens", f"use {smallest} or more"),
        (data.document_separator == "", "--document_separator is empty", "`blank_line` or a marker", "leave it out"),
    ]  # fmt: skip


def _tokenizer(tokenizer: TokenizerArguments) -> list[tuple]:
    kind, size = tokenizer.tokenizer_type, tokenizer.vocab_size
    is_possible = size is None or kind not in (None, "bpe") or SMALLEST_BPE <= size <= LARGEST_BPE
    return [
        (not is_possible, f"--vocab_size is {size}",
         f"{SMALLEST_BPE} to {LARGEST_BPE}: 256 bytes and 4 special tokens come before the first merge",
         f"use at least {SMALLEST_BPE}, e.g. 4096, or --tokenizer_type byte"),
    ]  # fmt: skip


def _training(training: TrainingArguments) -> list[tuple]:
    kind, _, number = training.nonfinite.partition(":")
    is_skip = kind == "skip" and number.isascii() and number.isdigit()
    budget = training.time_budget
    rules = [
        (budget is not None and not seconds_of(budget), f"--time_budget is {budget!r}", "a time, such as 90s, 8m or 1h30m",
         "try --time_budget 8m"),
        (training.save_total_limit < 2, f"--save_total_limit is {training.save_total_limit}",
         "2 or more, so that a damaged newest checkpoint loses nothing", "use 2 or more"),
        (training.lora_r and importlib.util.find_spec("peft") is None,
         "peft is not installed", "the package, for --lora_r", "run pip install 'tinygpt_hf[tune]'"),
        (training.report_to and importlib.util.find_spec(training.report_to) is None,
         f"{training.report_to} is not installed", "the package, for --report_to", "run pip install 'tinygpt_hf[track]'"),
        (training.nonfinite != "stop" and not is_skip,
         f"--nonfinite is {training.nonfinite!r}", "`stop` or `skip:N`", "try skip:10"),
        (training.license is not None and not LICENSE.fullmatch(training.license), f"--license is {training.license!r}",
         "a license identifier of the Hub, in lower case", "try apache-2.0, mit, cc-by-4.0"),
    ]  # fmt: skip
    rules += [
        (not LANGUAGE.fullmatch(language), f"--language is {language!r}", "ISO 639 codes, `code` or `multilingual`",
         "try --language en") for language in training.language
    ]  # fmt: skip
    try:
        if training.push_to_hub or training.hub_model_id is not None:
            check_repository(training.hub_model_id, "--hub_model_id")
    except UsageError as error:
        rules.append((True, error.problem, error.expected, error.action))
    return rules


def _corpus(corpus: CorpusArguments) -> list[tuple]:
    return [
        (corpus.mask != ["all"] and not set(corpus.mask) <= set(KINDS), f"--mask is {corpus.mask}",
         f"some of {', '.join(KINDS)}, or all", "try --mask email phone"),
    ]  # fmt: skip


_CHECKS: dict[type, Callable[[Any], list[tuple]]] = {
    ModelArguments: _model, DataArguments: _data, TokenizerArguments: _tokenizer, TrainingArguments: _training,
    CorpusArguments: _corpus,
}  # fmt: skip
