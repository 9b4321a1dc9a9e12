"""Choose the settings of a run that the user left open: the candidate with the lowest expected bits per byte for the time.

choice = choose(Question(model, data, tokenizer, training, text, machine, seconds=400))
choice.settings                      # {"vocab_size": 2048, "hidden_size": 128, ...}: only what was open
choice.lines                         # the plan as a table: what, how much, why
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import config_for
from tinygpt_hf.planning import scaling
from tinygpt_hf.planning.machine import Machine, hidden_parameters, operations, parameters
from tinygpt_hf.planning.memory import Needs
from tinygpt_hf.planning.plan import WARMUP, make_plan
from tinygpt_hf.planning.text import Text
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.defaults import VOCABULARY, filled
from tinygpt_hf.settings.layering import chosen
from tinygpt_hf.storage import format_size

SHAPES = (  # (layers, width), each about twice the work of the previous one
    (2, 64), (2, 96), (3, 128), (4, 192), (4, 256), (6, 320), (6, 384), (8, 512), (10, 640), (12, 768), (16, 1024),
    (20, 1280), (24, 1536),
)  # fmt: skip
CONTEXTS = ((0, 256), (100e6, 512), (1e9, 1024))  # (least training tokens, context)
SMALLEST_CONTEXT, FEWEST_ROWS = 32, 16  # for a very short text
SMALLEST_RUN = 50  # steps
DECAY = 0.6  # share of the steps over which the rate decays
MICRO_BATCH = 32  # rows; larger ones are no faster
FEW_TOKENS = 20_000  # a vocabulary is a candidate if the text has at least so many of its tokens


@dataclass(frozen=True)
class Question:
    """The input of the planner. `seconds`: time for the steps; None: the settings give the length. `open`: settings the user did
    not give. `needs`: estimates the memory of a configuration, settings and context; `memory`: free bytes."""

    model: ModelArguments
    data: DataArguments
    tokenizer: TokenizerArguments
    training: TrainingArguments
    text: Text
    machine: Machine
    seconds: float | None
    open: frozenset[str]
    needs: Callable[[Any, TrainingArguments, int], Needs]
    memory: int


@dataclass(frozen=True)
class Choice:
    """A planned run. `settings`: values for the open settings; `steps` of `step_seconds` each; `expected`: bits per byte with an
    interval; `groups`: all settings; `is_enough`: the text, not the time, limits the run; `memory`, `disk`: bytes of the run
    and of a checkpoint; `lines`: the plan as a table, (what, value, reason, settings)."""

    settings: dict[str, Any]
    steps: int
    step_seconds: float
    evaluation_seconds: float
    tokens: int
    epochs: float
    parameters: int
    vocabulary: int
    expected: scaling.Expected
    groups: tuple
    is_enough: bool
    memory: int = 0
    disk: int = 0
    operations: float = 0.0
    lines: list[tuple[str, str, str, tuple[str, ...]]] = field(default_factory=list, compare=False)
    advice: list[str] = field(default_factory=list, compare=False)

    @property
    def table(self) -> str:
        """Format the plan, one line per choice."""
        return "\n".join(f"  {what:<11} {value:<22} {why}".rstrip() for what, value, why, _ in self.lines)


def choose(question: Question) -> Choice:
    """Return the best candidate that fits the memory. Raises UsageError if the time or the memory is too small for any."""
    candidates = _candidates(question)
    found = [choice for candidate in candidates if (choice := _tried(question, candidate))]
    if not found:
        smallest = min(_step_seconds(question, candidate) for candidate in candidates)
        raise UsageError(
            f"{max(question.seconds or 0, 0):.0f} s are left for training",
            f"at least {math.ceil(smallest * SMALLEST_RUN)} s: {SMALLEST_RUN} steps of the smallest model",
            "raise --time_budget",
        )
    found.sort(key=lambda choice: choice.expected.bits_per_byte)
    best = None
    for choice in found:
        model, data, _, training = choice.groups
        config = config_for(model, data, choice.vocabulary)
        needs = question.needs(config, training, data.block_size)
        total = operations(config, training, data.block_size) * choice.steps * question.machine.processes
        best = replace(choice, memory=needs.fixed + needs.activations, disk=needs.checkpoint, operations=total)
        if best.memory <= question.memory:
            return replace(best, lines=_lines(question, best))
    assert best is not None
    raise UsageError(
        f"a step takes {format_size(best.memory)}",
        f"at most {format_size(question.memory)}, the memory that is free",
        "use a smaller model (--hidden_size, --num_hidden_layers), --per_device_train_batch_size or --block_size",
    )


def candidate_vocabularies(text: Text) -> list[int]:
    """List the vocabulary sizes that the text has enough tokens for, at least the smallest."""
    sizes = text.bytes_per_token
    return [size for size in sizes if text.tokens(size) >= FEW_TOKENS] or [min(sizes)]


def _candidates(question: Question) -> list[dict[str, Any]]:
    """List the candidates: every vocabulary with every shape, as far as they are open."""
    sizes = question.text.bytes_per_token
    if question.seconds is None:  # the defaults of settings/defaults.py
        return [{"vocab_size": VOCABULARY if VOCABULARY in sizes else next(iter(sizes))}]
    vocabularies: list[dict] = [{"vocab_size": size} for size in candidate_vocabularies(question.text)]
    shapes: list[dict] = [{"num_hidden_layers": layers, "hidden_size": width} for layers, width in SHAPES]
    if not {"num_hidden_layers", "hidden_size"} & question.open:
        shapes = [{}]
    return [vocabulary | shape for vocabulary in vocabularies for shape in shapes]


def _settled(question: Question, candidate: dict[str, Any], tokens: float) -> tuple[dict[str, Any], tuple]:
    """Return (values of the open settings, all settings) of a candidate for a run over about `tokens` tokens."""
    groups = question.model, question.data, question.tokenizer, question.training
    processes = question.machine.processes
    if question.seconds is None:
        return {}, _filled(groups)
    unique = question.text.tokens(candidate["vocab_size"])
    values = candidate | {"block_size": _context(tokens, unique), "lr_scheduler_type": "warmup_stable_decay"}
    if not question.model.model_name_or_path:
        block_size = values["block_size"] if "block_size" in question.open else question.data.block_size
        rows = scaling.rows_per_step(tokens, block_size, unique)
        micro = question.training.per_device_train_batch_size or max(1, min(MICRO_BATCH, rows // processes))
        values["per_device_train_batch_size"] = micro
        values["gradient_accumulation_steps"] = max(1, rows // (micro * processes))
        model = _filled(chosen(groups, _open(question, values)))[0]
        size = parameters(config_for(model, question.data, candidate["vocab_size"]))
        values |= scaling.memory(round(tokens / (rows * block_size)))
        values |= scaling.regularization(tokens / unique, size / unique)
    values = _open(question, values)
    return values, _filled(chosen(groups, values))


def _open(question: Question, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in question.open}


def _filled(groups: tuple) -> tuple:
    model, training = filled(groups[0], groups[3])
    return model, groups[1], groups[2], training


def _context(tokens: float, unique: int) -> int:
    """Choose the context: longer for longer runs, shorter for a very short text."""
    block_size = max(size for least, size in CONTEXTS if tokens >= least)
    while block_size > SMALLEST_CONTEXT and block_size * FEWEST_ROWS > unique:
        block_size //= 2
    return block_size


def _step_seconds(question: Question, candidate: dict[str, Any]) -> float:
    _, (model, data, _, training) = _settled(question, candidate, 0)
    return question.machine.seconds(config_for(model, data, candidate["vocab_size"]), training, data.block_size)


def _tried(question: Question, candidate: dict[str, Any]) -> Choice | None:
    """Plan a run with a candidate; None if fewer than `SMALLEST_RUN` steps fit, or if it is too large for the text."""
    vocabulary, machine = candidate["vocab_size"], question.machine
    unique, tokens, is_enough = question.text.tokens(vocabulary), 1e6, False
    for _ in range(3):  # the batch depends on the tokens, which depend on the batch
        values, groups = _settled(question, candidate, tokens)
        model, data, _, training = groups
        config = config_for(model, data, vocabulary)
        seconds = machine.seconds(config, training, data.block_size)
        of_step = data.block_size * machine.processes
        of_step *= training.per_device_train_batch_size * training.gradient_accumulation_steps
        if question.seconds is None:
            rows = max(1, unique // data.block_size)
            steps = make_plan(training, rows, data.block_size, machine.processes).max_steps
            break
        in_time = question.seconds / seconds
        in_text = scaling.most_epochs(parameters(config) / unique) * unique / of_step
        steps, is_enough = max(1, int(min(in_time, in_text))), in_text < in_time
        tokens = steps * of_step
    if question.seconds is not None and question.seconds / seconds < SMALLEST_RUN:
        return None
    is_smallest = candidate.get("hidden_size") in (None, SHAPES[0][1])
    if parameters(config) > scaling.MOST_PARAMETERS * unique and not is_smallest:
        return None
    length = {"warmup_steps": min(WARMUP, steps // 10), "decay_steps": max(1, round(DECAY * steps))}
    if question.seconds is not None:
        values |= _open(question, length)
    per_token, text = question.text.bytes_per_token[vocabulary], question.text
    return Choice(
        values,
        steps,
        seconds,
        machine.evaluation_seconds(config, training, data.block_size),
        steps * of_step,
        steps * of_step / unique,
        parameters(config),
        vocabulary,
        scaling.expected(
            text.early,
            text.xz,
            hidden_parameters(config),
            config.hidden_size,
            vocabulary,
            steps * of_step * per_token,
            unique * per_token,
        ),
        groups,
        is_enough,
    )


def _lines(question: Question, best: Choice) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Build the plan as a table: (what, value, reason, settings)."""
    model, data, _, training = best.groups
    text, machine, per_token = question.text, question.machine, question.text.bytes_per_token[best.vocabulary]
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps * machine.processes
    repeated = f"; {text.repeated:.0%} of it is there twice" if text.repeated >= 0.01 else ""
    enough = "the text is read as often as pays" if best.is_enough else "as many as the time allows"
    if question.seconds is None:
        enough = "as given"
    low, high = best.expected.low, best.expected.high
    tried = "too few words to try"
    if text.early:
        tried = f"a small model's first {scaling.EARLY_STEPS[len(text.early) - 1]} steps: {text.early[-1]:.2f} bits per byte"
    shape = "num_hidden_layers", "hidden_size"
    lines = [
        ("text", f"{text.num_bytes / 1e6:.2f} MB", f"{tried}{repeated}", ()),
        ("vocabulary", f"{best.vocabulary}", f"{per_token:.2f} bytes a token", ("vocab_size",)),
        ("model", f"{model.num_hidden_layers} x {model.hidden_size}", f"{best.parameters / 1e6:.2f}M parameters", shape),
        ("context", f"{data.block_size} tokens", "longer ones pay in longer runs", ("block_size",)),
        ("batch", f"{rows} rows", f"{rows * data.block_size} tokens a step", ("per_device_train_batch_size",)),
        ("steps", f"{best.steps}", f"of {best.step_seconds * 1000:.0f} ms; {enough}", ("decay_steps",)),
        ("epochs", f"{best.epochs:.2f}", f"{best.tokens / 1e6:.2f}M tokens of {best.tokens / best.epochs / 1e6:.2f}M", ()),
        ("rates", f"{training.learning_rate:g}, {training.muon_learning_rate:g}",
         "AdamW's falls with the width, Muon's stays", ("learning_rate", "muon_learning_rate")),
        ("decay", f"{training.weight_decay:g}", "rises with the epochs and the size", ("weight_decay",)),
        ("dropout", f"{model.hidden_dropout:g}", "for more than four epochs", ("hidden_dropout",)),
        ("expected", f"{best.expected.bits_per_byte:.2f} bits per byte", f"{low:.2f} to {high:.2f}, nine times of ten", ()),
    ]  # fmt: skip
    return [
        (what, value, why if not names or set(names) & question.open or question.seconds is None else "as given", names)
        for what, value, why, names in lines
    ]


def advise(question: Question, best: Choice) -> list[str]:
    """Say what would help most next: more time, more text, or a pretrained model."""
    if question.seconds is None:
        return []
    more_time = choose(replace(question, seconds=2 * question.seconds)).expected.bits_per_byte
    doubled = replace(question.text, num_bytes=2 * question.text.num_bytes)
    more_text = choose(replace(question, text=doubled)).expected.bits_per_byte
    words = [f"twice the time: {more_time:.2f}; twice the text: {more_text:.2f} bits per byte"]
    if not question.model.model_name_or_path:
        words.append(
            "for plain English or code, a model that others trained on far more text may serve better: "
            "--model_name_or_path HuggingFaceTB/SmolLM2-135M continues one"
        )
    return words
