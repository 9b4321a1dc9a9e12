"""From logits to one token: the distribution that is shown is the one that is drawn from.

    probabilities = next_token_distribution(logits, Sampling(temperature=0.8, top_k=50), seen)  # (..., V), sums to 1
    tokens = draw(logits, Sampling(temperature=0.8, top_k=50), [seeded(seed, number), ...])      # one for each row (B, V)

The steps and their order are those of the library's `generate`: repetition penalty, temperature, top-k, top-p, min-p.
"""

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tinygpt_hf.errors import RunError, UsageError, UsageErrors

NEVER = float("-inf")  # the score of what cannot be drawn
TINY = 1e-6  # a temperature below which scores may be more than float32 holds
NARROW = 256  # numbers of a row that are heaped one by one sooner than by a tensor


@dataclass
class Sampling:
    """How a token is chosen. `check()` reports every setting that cannot be."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def check(self) -> None:
        """Raise the errors of all settings at once."""
        errors = []
        for name, holds, wanted, hint in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 or more", "0.8; 0 takes the likeliest token"),
            ("top_k", self.top_k >= 0, "0 or more", "50; 0 leaves all tokens in"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1", "0.95; 1 leaves all tokens in"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1", "0.05; 0 leaves all tokens in"),
            ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100, "between 0.01 and 100", "1.1; 1 is off"),
        ):
            if not holds:
                seen = f"{name} is {getattr(self, name)}"
                errors.append(UsageError(seen, f"a number {wanted}", f"try {hint}"))
        if errors:
            raise errors[0] if len(errors) == 1 else UsageErrors(errors)


def next_token_distribution(
    logits: torch.Tensor, sampling: Sampling, seen: list[int] | torch.Tensor | None = None
) -> torch.Tensor:
    """The probabilities (..., V) a token is drawn with, in float32, from the logits (..., V) of one position.

    `seen` are the tokens before it, prompt included, for the repetition penalty: ids, or a mask over all (..., V). At
    temperature 0 the likeliest token has probability 1.
    """
    scores = _penalized(logits.detach().float(), sampling.repetition_penalty, seen)
    if sampling.temperature == 0:
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    return _distribution(scores, sampling, sampling.top_k)


def _distribution(scores: torch.Tensor, sampling: Sampling, top_k: int) -> torch.Tensor:
    if sampling.temperature < TINY:  # the largest at 0, which no temperature moves
        scores = scores - scores.amax(-1, keepdim=True)
    scores = scores / max(sampling.temperature, 1e-30)
    if 0 < top_k < scores.shape[-1]:
        scores = torch.where(scores < scores.topk(top_k).values[..., -1:], NEVER, scores)
    if sampling.top_p < 1:
        ordered, order = scores.sort()  # rising
        outside = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        outside[..., -1] = False
        scores = torch.where(torch.zeros_like(outside).scatter_(-1, order, outside), NEVER, scores)
    if sampling.min_p > 0:
        probabilities = scores.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        scores = torch.where(probabilities < least, NEVER, scores)
    return scores.softmax(-1)


def _penalized(scores: torch.Tensor, penalty: float, seen: list[int] | torch.Tensor | None) -> torch.Tensor:
    if penalty == 1.0 or seen is None or not len(seen):
        return scores
    if not (isinstance(seen, torch.Tensor) and seen.dtype == torch.bool):
        ids = torch.as_tensor(seen, device=scores.device)
        seen = torch.zeros_like(scores, dtype=torch.bool).index_fill_(-1, ids[ids < scores.shape[-1]], True)
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


@torch.no_grad()
def draw(
    logits: torch.Tensor, sampling: Sampling, chances: list[Iterator[float]], seen: torch.Tensor | None = None
) -> list[int]:
    """A token for each row of the logits (B, V), by its own random numbers: the rows of a batch know nothing of each other."""
    scores = _penalized(logits.float(), sampling.repetition_penalty, seen)
    if sampling.temperature == 0:
        best = scores.max(-1)
        _check_number(best.values.sum().item())
        return best.indices.tolist()
    numbers, k = [next(own) for own in chances], sampling.top_k
    if 0 < k < scores.shape[-1]:
        top = scores.topk(k + 1)
        if all(last > out for last, out in top.values[:, k - 1 :].tolist()):  # no other is as likely as the last one
            ids = top.indices[:, :k].sort(-1).values  # as they stand in the vocabulary, so that a number means the same
            found = choose(_distribution(scores.gather(-1, ids), sampling, 0), numbers)
            return [row[place] for row, place in zip(ids.tolist(), found, strict=True)]
    return choose(_distribution(scores, sampling, k), numbers)


def choose(probabilities: torch.Tensor, chances: list[float]) -> list[int]:
    """A token of each row (B, V) by a number in [0, 1) each: on the CPU, in float64, so a seed means the same on every device."""
    if probabilities.shape[1] > NARROW:
        heaps = probabilities.cpu().double().cumsum(-1).numpy()
    else:
        heaps = [list(itertools.accumulate(row)) for row in probabilities.tolist()]
    found = []
    for row, (heap, chance) in enumerate(zip(heaps, chances, strict=True)):
        point = chance * float(heap[-1])
        _check_number(point)
        place = bisect.bisect_right(heap, point)
        # rounding may lift a point to the very end
        found.append(place if place < len(heap) else int(probabilities[row].nonzero()[-1]))
    return found


def _check_number(value: float) -> None:
    if math.isnan(value):
        raise RunError("the model's logits are no numbers (NaN): its weights are damaged or its training diverged")


def seeded(seed: int, number: int) -> Iterator[float]:
    """The random numbers of sample (or answer) `number` under `seed`; `seed + number` would be shared by neighbors."""
    import numpy as np

    state = np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) % 2**63)
    while True:  # many at once are the same numbers, and cost as much as one
        yield from torch.rand(64, generator=generator, dtype=torch.float64).tolist()
