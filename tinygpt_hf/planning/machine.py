"""Predict the cost of a training step: operations by arithmetic, seconds from steps measured here or from a hardware table.

machine = Machine([pace_of_128, pace_of_256])
machine.seconds(config, training, block_size=256)    # of a step of another shape
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import TrainingArguments

ROUNDS = 5  # of Newton-Schulz, in Muon


def hidden_parameters(config) -> int:
    """Count the parameters in the matrices of all layers (without embeddings)."""
    attention = 2 * config.hidden_size * config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    mlp = (3 if config.mlp_type == "gated" else 2) * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + mlp)


def parameters(config) -> int:
    """Count the parameters of a model, without norms and biases (a thousandth of them)."""
    return hidden_parameters(config) + (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size


def operations(config, training: TrainingArguments, block_size: int) -> float:
    """Count the floating-point operations of a step of one process: products forward and backward, attention, Muon's rounds."""
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    products = 6 * (hidden_parameters(config) + config.vocab_size * width)
    attention = 12 * config.num_hidden_layers * heads * block_size
    total = rows * block_size * (products + attention)
    if training.optim == "muon":
        keys = config.num_key_value_heads * config.head_dim
        inner = [config.intermediate_size] * (3 if config.mlp_type == "gated" else 2)
        for other in (heads, heads, keys, keys, *inner):
            small, large = sorted((width, other))
            total += config.num_hidden_layers * ROUNDS * (4 * small**2 * large + 2 * small**3)
    return total


def logits(config, training: TrainingArguments, block_size: int) -> int:
    """Count the logits of a step of one process: one for each token and each entry of the vocabulary."""
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return rows * block_size * config.vocab_size


@dataclass(frozen=True)
class Pace:
    """The measured time of a shape: seconds of a training step, and seconds per token of an evaluation."""

    config: Any
    training: TrainingArguments
    block_size: int
    step_seconds: float
    evaluation_seconds: float

    @property
    def operations(self) -> float:
        """Return the floating-point operations of the step."""
        return operations(self.config, self.training, self.block_size)

    @property
    def logits(self) -> int:
        """Return the number of logits of the step."""
        return logits(self.config, self.training, self.block_size)


class Machine:
    """Predict the seconds of a step: operations over a rate, which is interpolated between the measured widths, plus a time for
    each logit.

    `larger`: the first shape with a larger vocabulary. The two times give the time of a logit, whose softmax costs more than its
    operations say when the model is narrow.
    """

    memory: int | None = None  # bytes; None: this machine's

    def __init__(self, paces: list[Pace], processes: int = 1, larger: Pace | None = None):
        self.processes = processes
        self._logit = _seconds_per_logit(paces[0], larger) if larger else 0.0
        self._points = sorted(
            (math.log(pace.config.hidden_size), pace.operations / (pace.step_seconds - self._logit * pace.logits))
            for pace in paces
        )
        whole = sum(pace.evaluation_seconds * pace.block_size for pace in paces)
        rows = [pace.training.per_device_train_batch_size * pace.training.gradient_accumulation_steps for pace in paces]
        steps = sum(pace.step_seconds / size for pace, size in zip(paces, rows, strict=True))
        self._evaluation = whole / steps  # time per token, as a share of the training time per token

    def rate(self, width: int) -> float:
        """Interpolate the operations per second of a process at this width."""
        place = math.log(width)
        low = max((point for point in self._points if point[0] <= place), default=self._points[0])
        high = min((point for point in self._points if point[0] >= place), default=self._points[-1])
        share = (place - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0.0
        return low[1] + share * (high[1] - low[1])

    def seconds(self, config, training: TrainingArguments, block_size: int) -> float:
        """Predict the seconds of a step."""
        products = operations(config, training, block_size) / self.rate(config.hidden_size)
        return products + self._logit * logits(config, training, block_size)

    def evaluation_seconds(self, config, training: TrainingArguments, block_size: int) -> float:
        """Predict the seconds per token of an evaluation over all processes."""
        rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
        of_step = self.seconds(config, training, block_size) / (rows * block_size)
        return self._evaluation * of_step / self.processes


def _seconds_per_logit(small: Pace, large: Pace) -> float:
    """Solve seconds = operations / rate + logits * x of two vocabularies for x, at least 0 and at most half of the step."""
    determinant = small.operations * large.logits - large.operations * small.logits
    seconds = (small.operations * large.step_seconds - large.operations * small.step_seconds) / determinant
    return min(max(seconds, 0.0), small.step_seconds / small.logits / 2)


class NamedMachine(Machine):
    """Hardware from the table: its FLOP/s at its measured utilization, less for models narrower than 768."""

    def __init__(self, name: str):
        known, parts = hardware(), re.fullmatch(r"([a-z]+[0-9]+)(?:x([1-9][0-9]*))?", name.lower())
        kind, count = parts.groups() if parts else ("", None)
        if kind not in known:
            raise UsageError(
                f"--hardware is {name}", f"one of {', '.join(known)}; h100x8 is eight of one", "choose one"
            )
        facts = known[kind]
        self.processes, self.memory = int(count or 1), int(facts["memory"])
        self._flops, self._evaluation, self._logit = facts["flops"] * facts["utilization"], 1 / 3, 0.0

    def rate(self, width: int) -> float:
        return self._flops * min(1.0, width / 768)


def hardware() -> dict:
    """Load the table of named hardware: FLOP/s, utilization in training, memory, and the source of the figures."""
    return json.loads(Path(__file__).with_name("hardware.json").read_text(encoding="utf-8"))
