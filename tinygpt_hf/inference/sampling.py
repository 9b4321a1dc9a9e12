"""From logits to one token: the distribution that is shown is the one that is drawn from.

    probabilities = next_token_distribution(logits, Sampling(temperature=0.8, top_k=50), seen_ids)      # (V,) sums to 1
    token = choose(probabilities, generator)

The steps and their order are those of the library's `generate`: repetition penalty, temperature, top-k, top-p, min-p.
"""

from dataclasses import dataclass

import torch

from tinygpt_hf.errors import UsageError, UsageErrors


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
    logits: torch.Tensor, sampling: Sampling, seen_ids: list[int] | torch.Tensor | None = None
) -> torch.Tensor:
    """The probabilities (V,) a token is drawn with, in float32, from the logits (V,) of one position.

    `seen_ids` are the tokens before it, prompt included, for the repetition penalty. At temperature 0 the likeliest
    token has probability 1.
    """
    scores = logits.detach().float()  # (V,)
    if sampling.repetition_penalty != 1.0 and seen_ids is not None and len(seen_ids):
        seen = torch.as_tensor(seen_ids, device=scores.device).unique()
        seen = seen[seen < len(scores)]
        before = scores[seen]
        weakened = torch.where(before < 0, before * sampling.repetition_penalty, before / sampling.repetition_penalty)
        scores = scores.index_put((seen,), weakened)
    if sampling.temperature == 0:
        return torch.zeros_like(scores).index_fill_(0, scores.argmax(), 1.0)
    # the largest at 0, which no temperature moves but one that is 0 in float32
    scores = (scores - scores.max()) / max(sampling.temperature, 1e-30)
    if 0 < sampling.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(sampling.top_k).values[-1], float("-inf"))
    if sampling.top_p < 1:
        ordered, order = scores.sort()  # rising
        outside = ordered.softmax(0).cumsum(0) <= 1 - sampling.top_p
        outside[-1] = False
        scores = scores.masked_fill(torch.zeros_like(outside).scatter(0, order, outside), float("-inf"))
    if sampling.min_p > 0:
        probabilities = scores.softmax(0)
        scores = scores.masked_fill(probabilities < sampling.min_p * probabilities.max(), float("-inf"))
    return scores.softmax(0)


def choose(probabilities: torch.Tensor, generator: torch.Generator) -> int:
    """Draw one token: one uniform number each, on the CPU, in float64, so a seed means the same on every device."""
    heaped = probabilities.double().cpu().cumsum(0)  # (V,)
    point = torch.rand((), generator=generator, dtype=torch.float64) * heaped[-1]
    index = int(torch.searchsorted(heaped, point, right=True))
    return min(index, int(probabilities.nonzero()[-1]))  # rounding may lift the point to the very end


def seeded(seed: int, number: int) -> torch.Generator:
    """The random numbers of sample (or answer) `number` under `seed`; `seed + number` would be shared by neighbours."""
    import numpy as np

    state = np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)
