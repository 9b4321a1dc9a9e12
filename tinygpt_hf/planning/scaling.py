"""Predict the bits per byte of a model from its size and its training bytes, and choose batch size and regularization.

The law has the form of Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), in bytes: a floor, a term that falls with the
parameters of the layers, and one that falls with the training bytes. Repeated bytes count less each time, as in Muennighoff et
al. 2023 (https://arxiv.org/abs/2305.16264). The difficulty of a text scales all three. It is the loss of a small model after a few
steps, relative to the same steps on books. A text whose held-out part xz compresses better than that of books, once it has read
the training part, gets easier with more steps. The less a text is like books, the wider its interval. The coefficients are in
scaling.json, which benchmarks/scaling.py fits. The rates are in settings/defaults.py.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MOST_EPOCHS, HALVED = 16.0, 10.0  # epochs of a small model, and the parameters per token of the text that halve them
MOST_PARAMETERS = 30  # per token of the text
MANY_EPOCHS, DROPOUT = 4.0, 0.1
DECAY, LARGEST_DECAY = 0.07, 0.8
STEP_TOKENS, OF_TOKENS, BATCH_POWER = 2048, 1_000_000, 0.383  # batch of a run over 1M tokens, and its growth exponent
STEPS_OF_AN_EPOCH = 10  # at least
WORST = 8.0  # bits per byte of a uniform guess
EARLY_STEPS = (16, 48)  # steps of the small model after which its loss is measured, if time allows
FARTHEST = 4  # times the bytes of those steps, up to which a compressible text gets easier
TOKENS_PER_WIDTH = 64  # a vocabulary larger than this times the width helps no further
LONG = 3000  # steps from which longer momenta pay


@cache
def table() -> dict:
    """Load the coefficients of the law."""
    return json.loads(Path(__file__).with_name("scaling.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Expected:
    """Expected bits per byte on held-out text, with a 90 % interval."""

    bits_per_byte: float
    low: float
    high: float


def expected(
    early: tuple[float, ...],
    xz: float,
    parameters: int,
    width: int,
    vocabulary: int,
    num_bytes: float,
    unique_bytes: float,
) -> Expected:
    """Predict the bits per byte of a model with `parameters` in its layers after `num_bytes` of a text of `unique_bytes`.

    `early`: bits per byte of a small model on held-out text after each of the `EARLY_STEPS` it reached; `xz`: those of xz. A larger
    vocabulary helps while the text has enough occurrences of each token and the model is wide enough to tell them apart.
    """
    law = table()
    fresh = effective(num_bytes, unique_bytes, law["repeats"])
    size, words, tokens = law["size"], law["words"], law["vocabulary"]
    loss = law["floor"] + size["factor"] * parameters ** -size["power"] + words["factor"] * fresh ** -words["power"]
    useful = min(vocabulary, TOKENS_PER_WIDTH * width, min(num_bytes, unique_bytes) / tokens["bytes_each"])
    loss *= hardness(early, xz, fresh) * (max(useful, 256) / tokens["at"]) ** -tokens["power"]
    loss = min(loss, WORST)
    spread = math.exp(1.645 * deviation(early, xz))
    return Expected(loss, loss / spread, loss * spread)


def hardness(early: tuple[float, ...], xz: float, num_bytes: float) -> float:
    """Return the difficulty of a text for a model that has read `num_bytes` of it, 1 for the books of the table."""
    if not early:
        return 1.0
    law = table()
    books, repetition = law["early"], law["xz"]
    level = early[-1] / books["bits"][len(early) - 1]
    read = min(FARTHEST, max(1.0, num_bytes / books["bytes"]))
    return level * read ** (repetition["power"] * math.log(xz / repetition["at"]))


def deviation(early: tuple[float, ...], xz: float) -> float:
    """Return the standard deviation of the logarithm of a prediction: it grows with the difference to books, in what xz makes of
    the text and in how fast the small model learns it."""
    law = table()
    if not early:
        return law["deviations"][0]
    books = law["early"]["bits"]
    faster = math.log(early[-1] / early[0] / books[len(early) - 1] * books[0])
    shorter = math.log(xz / law["xz"]["at"])
    wider = law["xz"]["deviations"][len(early)]
    return math.hypot(law["deviations"][len(early)], law["early"]["deviation"] * faster, wider * shorter)


def effective(read: float, unique: float, repeats: float) -> float:
    """Return the number of fresh bytes that `read` bytes of a text of `unique` bytes are worth. `repeats` epochs after the first
    are worth 1 - 1/e of as many fresh ones; all further epochs are worth `repeats` fresh ones together."""
    again = read / unique - 1
    if again <= 0:
        return read
    return unique * (1 + repeats * (1 - math.exp(-again / repeats)))


def rows_per_step(tokens: float, block_size: int, unique: float = math.inf) -> int:
    """Choose the rows of a step, a power of two: more for longer runs (exponent of Bjorck et al. 2024,
    https://arxiv.org/abs/2409.19913), fewer for a text of few `unique` tokens."""
    wanted = STEP_TOKENS * max(1.0, tokens / OF_TOKENS) ** BATCH_POWER
    return 2 ** max(0, round(math.log2(min(wanted, unique / STEPS_OF_AN_EPOCH) / block_size)))


def memory(steps: int) -> dict[str, float]:
    """Return the momenta of a long run; the defaults (settings/defaults.py) are those of a short one."""
    return {"adam_beta1": 0.9, "muon_momentum": 0.95} if steps >= LONG else {}


def most_epochs(parameters_per_token: float) -> float:
    """Return the number of epochs before a model overfits: fewer for larger models."""
    return max(MANY_EPOCHS, MOST_EPOCHS / (1 + parameters_per_token / HALVED))


def regularization(epochs: float, parameters_per_token: float) -> dict[str, float]:
    """Choose weight decay and dropout: none for about one epoch, more for more epochs and for larger models relative to the
    text (Kim et al. 2025, https://arxiv.org/abs/2509.14786)."""
    decay = 0.0
    if epochs > 1.5:
        decay = min(LARGEST_DECAY, DECAY * max(1.0, parameters_per_token) ** 0.5 * min(1.0, epochs / MANY_EPOCHS))
    return {"weight_decay": round(decay, 3), "hidden_dropout": DROPOUT if epochs > MANY_EPOCHS else 0.0}
