"""Turn logits into a distribution and draw tokens from it.

    probabilities = next_token_distribution(logits, Sampling(temperature=0.8, top_k=50), seen)     # (..., V), sums to 1
    tokens = draw(logits, Sampling(temperature=0.8, top_k=50), [uniform_numbers(seed, number), ...])  # one per row (B, V)

The order of the steps is that of Transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p.
"""

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tinygpt_hf.errors import RunError, UsageError, UsageErrors

NEG_INF = float("-inf")
MIN_TEMPERATURE = 1e-6  # below it, scores divided by the temperature may overflow float32
SMALL_VOCABULARY = 256  # up to this size, Python sums a row faster than a tensor operation


@dataclass
class Sampling:
    """Sampling settings, named as in Transformers' `GenerationConfig`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def check(self) -> None:
        """Raise one error that lists every invalid setting."""
        errors = []
        for name, holds, expected, hint in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 or more", "0.8; 0 takes the likeliest token"),
            ("top_k", self.top_k >= 0, "0 or more", "50; 0 leaves all tokens in"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1", "0.95; 1 leaves all tokens in"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1", "0.05; 0 leaves all tokens in"),
            ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100, "between 0.01 and 100", "1.1; 1 is off"),
        ):
            if not holds:
                problem = f"{name} is {getattr(self, name)}"
                errors.append(UsageError(problem, f"a number {expected}", f"try {hint}"))
        if errors:
            raise errors[0] if len(errors) == 1 else UsageErrors(errors)


def next_token_distribution(
    logits: torch.Tensor, sampling: Sampling, seen: list[int] | torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the float32 probabilities (..., V) of the next token from logits (..., V).

    `seen` holds the previous tokens, prompt included, for the repetition penalty: ids, or a boolean mask (..., V). At
    temperature 0 the likeliest token has probability 1.
    """
    scores = _apply_repetition_penalty(logits.detach().float(), sampling.repetition_penalty, seen)
    if sampling.temperature == 0:
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    return _distribution(scores, sampling, sampling.top_k)


def _distribution(scores: torch.Tensor, sampling: Sampling, top_k: int) -> torch.Tensor:
    if sampling.temperature < MIN_TEMPERATURE:  # shift the largest score to 0, which no temperature changes
        scores = scores - scores.amax(-1, keepdim=True)
    scores = scores / max(sampling.temperature, 1e-30)
    if 0 < top_k < scores.shape[-1]:
        scores = torch.where(scores < scores.topk(top_k).values[..., -1:], NEG_INF, scores)
    if sampling.top_p < 1:
        ordered, order = scores.sort()  # ascending
        outside = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        outside[..., -1] = False
        scores = torch.where(torch.zeros_like(outside).scatter_(-1, order, outside), NEG_INF, scores)
    if sampling.min_p > 0:
        probabilities = scores.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        scores = torch.where(probabilities < least, NEG_INF, scores)
    return scores.softmax(-1)


def _apply_repetition_penalty(
    scores: torch.Tensor, penalty: float, seen: list[int] | torch.Tensor | None
) -> torch.Tensor:
    if penalty == 1.0 or seen is None or not len(seen):
        return scores
    if not (isinstance(seen, torch.Tensor) and seen.dtype == torch.bool):
        ids = torch.as_tensor(seen, device=scores.device)
        seen = torch.zeros_like(scores, dtype=torch.bool).index_fill_(-1, ids[ids < scores.shape[-1]], True)
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


@torch.no_grad()
def draw(
    logits: torch.Tensor, sampling: Sampling, uniforms: list[Iterator[float]], seen: torch.Tensor | None = None
) -> list[int]:
    """Draw a token for each row of the logits (B, V) with the row's own random numbers, independent of the other rows."""
    scores = _apply_repetition_penalty(logits.float(), sampling.repetition_penalty, seen)
    if sampling.temperature == 0:
        best = scores.max(-1)
        _check_number(best.values.sum().item())
        return best.indices.tolist()
    points, k = [next(own) for own in uniforms], sampling.top_k
    if 0 < k < scores.shape[-1]:
        top = scores.topk(k + 1)
        if all(last > out for last, out in top.values[:, k - 1 :].tolist()):  # no tie at rank k
            ids = top.indices[:, :k].sort(-1).values  # in vocabulary order, as on the full distribution
            found = sample_rows(_distribution(scores.gather(-1, ids), sampling, 0), points)
            return [row[index] for row, index in zip(ids.tolist(), found, strict=True)]
    return sample_rows(_distribution(scores, sampling, k), points)


def sample_rows(probabilities: torch.Tensor, uniforms: list[float]) -> list[int]:
    """Sample a token from each row (B, V) by inverting its CDF at a number in [0, 1).

    Sums are computed on the CPU in float64, so a seed gives the same tokens on every device.
    """
    if probabilities.shape[1] > SMALL_VOCABULARY:
        cumulative_rows = probabilities.cpu().double().cumsum(-1).numpy()
    else:
        cumulative_rows = [list(itertools.accumulate(row)) for row in probabilities.tolist()]
    found = []
    for row, (cumulative, uniform) in enumerate(zip(cumulative_rows, uniforms, strict=True)):
        point = uniform * float(cumulative[-1])
        _check_number(point)
        index = bisect.bisect_right(cumulative, point)
        # rounding may put the point at the end of the sums
        found.append(index if index < len(cumulative) else int(probabilities[row].nonzero()[-1]))
    return found


def _check_number(value: float) -> None:
    if math.isnan(value):
        raise RunError("the model's logits are no numbers (NaN): its weights are damaged or its training diverged")


def uniform_numbers(seed: int, number: int) -> Iterator[float]:
    """Yield uniform random numbers in [0, 1) for sample `number` under `seed`.

    Not `seed + number`: sample 1 of seed 0 and sample 0 of seed 1 would be equal.
    """
    import numpy as np

    state = np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) % 2**63)
    while True:  # drawing 64 at once gives the same numbers and costs as much as one
        yield from torch.rand(64, generator=generator, dtype=torch.float64).tolist()
