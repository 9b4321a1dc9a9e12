"""Bits per byte that a model will reach, by its size and what it reads, and the batch and regularization that go with them.

The law has the form of Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), in bytes: a floor, a term that falls with the
parameters of the layers, one that falls with the bytes read. Bytes read again count less each time, as in Muennighoff et al.
2023 (https://arxiv.org/abs/2305.16264). How hard a text is to guess scales all three: a small model's first steps on it, beside the
same steps on books, tell it. What xz finds repeated in a text, more steps learn too. The numbers are in scaling.json, which
benchmarks/scaling.py makes. Rates follow from the width: settings/defaults.py.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MOST_EPOCHS, HALVED = 16.0, 10.0  # of a small model; half as many at so many parameters a token of the text
MOST_PARAMETERS = 30  # for each token of the text
MANY_EPOCHS, DROPOUT = 4.0, 0.1
DECAY, LARGEST_DECAY = 0.07, 0.8
STEP_TOKENS, OF_TOKENS, BATCH_POWER = 2048, 1_000_000, 0.383  # a step of so many, of so many in all, and how it grows
STEPS_OF_AN_EPOCH = 10  # at least
WORST = 8.0  # bits per byte: all bytes alike
EARLY_STEPS = (16, 48)  # of the small model that tries a text: as far as time allows
FARTHEST = 40  # times the bytes of those steps: until then a text that xz makes small keeps its faster pace
LONG = 3000  # steps from which on a longer memory pays


@cache
def table() -> dict:
    """The numbers of the law."""
    return json.loads(Path(__file__).with_name("scaling.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Expected:
    """Bits per byte on held-out text: what is expected, and the bounds it lies within nine times of ten."""

    bits_per_byte: float
    low: float
    high: float


def expected(
    early: tuple[float, ...], xz: float, parameters: int, vocabulary: int, num_bytes: float, unique_bytes: float
) -> Expected:
    """What a model comes to with so many parameters in its layers, after so many bytes of a text of so many.

    `early`: bits per byte of a small model after `EARLY_STEPS` on the text, as far as it came; `xz`: those of xz. A larger
    vocabulary helps as long as the text shows each of its tokens often enough.
    """
    law, fresh = table(), effective(num_bytes, unique_bytes)
    size, words, tokens = law["size"], law["words"], law["vocabulary"]
    loss = law["floor"] + size["factor"] * parameters ** -size["power"] + words["factor"] * fresh ** -words["power"]
    useful = min(vocabulary, min(num_bytes, unique_bytes) / tokens["bytes_each"])
    loss *= hardness(early, xz, fresh) * (max(useful, 256) / tokens["at"]) ** -tokens["power"]
    loss = min(loss, WORST)
    spread = math.exp(1.645 * law["deviations"][len(early)])
    return Expected(loss, loss / spread, loss * spread)


def hardness(early: tuple[float, ...], xz: float, num_bytes: float) -> float:
    """How hard a text is to guess for a model that read so many bytes of it, 1 for the books of the table."""
    if not early:
        return 1.0
    law = table()
    books, repetition = law["early"], law["xz"]
    level = early[-1] / books["bits"][len(early) - 1]
    read = min(FARTHEST, max(1.0, num_bytes / books["bytes"]))
    return level * read ** (repetition["power"] * math.log(xz / repetition["at"]))


def effective(read: float, unique: float) -> float:
    """Fresh bytes that reading so many of a text of so many is worth."""
    again = read / unique - 1
    if again <= 0:
        return read
    repeats = table()["repeats"]
    return unique * (1 + repeats * (1 - math.exp(-again / repeats)))


def rows_per_step(tokens: float, block_size: int, unique: float = math.inf) -> int:
    """Rows of a step in a run over so many tokens, a power of two: larger steps for longer runs (Bjorck et al. 2024,
    https://arxiv.org/abs/2409.19913, find the exponent), smaller ones for a text of few tokens."""
    wanted = STEP_TOKENS * max(1.0, tokens / OF_TOKENS) ** BATCH_POWER
    return 2 ** max(0, round(math.log2(min(wanted, unique / STEPS_OF_AN_EPOCH) / block_size)))


def memory(steps: int) -> dict[str, float]:
    """Momenta of a long run; a short one has no time for a long memory, as settings/defaults.py has it."""
    return {"adam_beta1": 0.9, "muon_momentum": 0.95} if steps >= LONG else {}


def most_epochs(parameters_per_token: float) -> float:
    """How often a text may be read before it is learned by heart rather than understood: the larger the model, the less often."""
    return max(MANY_EPOCHS, MOST_EPOCHS / (1 + parameters_per_token / HALVED))


def regularization(epochs: float, parameters_per_token: float) -> dict[str, float]:
    """Weight decay and dropout: none for what is read about once; more of both the more often, and the larger the model is beside
    the text (Kim et al. 2025, https://arxiv.org/abs/2509.14786)."""
    decay = 0.0
    if epochs > 1.5:
        decay = min(LARGEST_DECAY, DECAY * max(1.0, parameters_per_token) ** 0.5 * min(1.0, epochs / MANY_EPOCHS))
    return {"weight_decay": round(decay, 3), "hidden_dropout": DROPOUT if epochs > MANY_EPOCHS else 0.0}
