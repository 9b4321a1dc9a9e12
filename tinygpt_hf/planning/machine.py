"""What a step costs: floating-point operations by arithmetic, seconds by what was measured here, or from a table of hardware.

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
    """The numbers in the matrices of all layers."""
    attention = 2 * config.hidden_size * config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    mlp = (3 if config.mlp_type == "gated" else 2) * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + mlp)


def parameters(config) -> int:
    """The numbers a model learns, norms and biases, a thousandth of them, aside."""
    return hidden_parameters(config) + (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size


def operations(config, training: TrainingArguments, block_size: int) -> float:
    """Floating-point operations of a step of one process: products forward and backward, attention, and Muon's rounds."""
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


@dataclass(frozen=True)
class Pace:
    """What a step of one shape takes here: seconds, and of an evaluation seconds per token."""

    config: Any
    training: TrainingArguments
    block_size: int
    step_seconds: float
    evaluation_seconds: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return operations(self.config, self.training, self.block_size) / self.step_seconds


class Machine:
    """Predicts the seconds of a step: operations over a rate, which rises with the width of the model as far as it was measured."""

    memory: int | None = None  # bytes, where it is another machine than this one

    def __init__(self, paces: list[Pace], processes: int = 1):
        self.processes = processes
        self._points = sorted((math.log(pace.config.hidden_size), pace.rate) for pace in paces)
        whole = sum(pace.evaluation_seconds * pace.block_size for pace in paces)
        rows = [pace.training.per_device_train_batch_size * pace.training.gradient_accumulation_steps for pace in paces]
        steps = sum(pace.step_seconds / size for pace, size in zip(paces, rows, strict=True))
        self._evaluation = whole / steps  # of a token, as a share of what training takes for it

    def rate(self, width: int) -> float:
        """Operations per second of a process at this width."""
        place = math.log(width)
        low = max((point for point in self._points if point[0] <= place), default=self._points[0])
        high = min((point for point in self._points if point[0] >= place), default=self._points[-1])
        share = (place - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0.0
        return low[1] + share * (high[1] - low[1])

    def seconds(self, config, training: TrainingArguments, block_size: int) -> float:
        """What a step takes."""
        return operations(config, training, block_size) / self.rate(config.hidden_size)

    def evaluation_seconds(self, config, training: TrainingArguments, block_size: int) -> float:
        """What a token takes to evaluate, over all processes."""
        rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
        of_step = self.seconds(config, training, block_size) / (rows * block_size)
        return self._evaluation * of_step / self.processes


class NamedMachine(Machine):
    """Hardware from a table: so many FLOP/s at its best, of which a model as narrow as `width` gets a part."""

    def __init__(self, name: str):
        known, parts = hardware(), re.fullmatch(r"([a-z]+[0-9]+)(?:x([1-9][0-9]*))?", name.lower())
        kind, count = parts.groups() if parts else ("", None)
        if kind not in known:
            raise UsageError(
                f"--hardware is {name}", f"one of {', '.join(known)}; h100x8 is eight of one", "choose one"
            )
        facts = known[kind]
        self.processes, self.memory = int(count or 1), int(facts["memory"])
        self._flops, self._evaluation = facts["flops"] * facts["utilization"], 1 / 3

    def rate(self, width: int) -> float:
        return self._flops * min(1.0, width / 768)


def hardware() -> dict:
    """The table of named hardware: FLOP/s, the share of them that training reaches, memory, and where the figures are from."""
    return json.loads(Path(__file__).with_name("hardware.json").read_text(encoding="utf-8"))
