"""Compute 95 % confidence intervals of measured numbers, with a fixed seed.

    low, high = interval(sums, lambda total: total[..., 0] / total[..., 1])     # `sums`: a row of sums for each block of the text
    mean, low, high = share({"agreement": [1.0, 0.0, 0.5]})                     # outcomes of items, by group

They cover the choice of text: how much the number would differ on other text of the same kind. They do not cover training
with another seed, nor text of another kind.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

DRAWS, SEED = 2000, 0
Z = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def interval(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of a statistic of sums over blocks; NaN for fewer than two blocks.

    `sums` (N, C) holds the sums of each block; `statistic` maps totals (..., C) to values. Blocks are resampled with
    replacement. The bootstrap bias, such as that of a calibration error, is subtracted.
    """
    count = len(sums)
    if count < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(SEED).integers(count, size=(DRAWS, count)) + count * np.arange(DRAWS)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=DRAWS * count).reshape(DRAWS, count)  # of each block in each draw
    with np.errstate(invalid="ignore", divide="ignore"):  # empty or infinite totals give NaN
        values = statistic(counts @ np.asarray(sums, dtype=np.float64))
        low, high = np.quantile(values - values.mean() + statistic(np.sum(sums, 0)), (0.025, 0.975))
    return float(low), float(high)


def share(outcomes: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Return the mean over groups of the groups' mean outcomes (0 to 1), with a 95 % Wilson score interval.

    The interval is computed for the number of binary items that would have the observed variance. It has a positive width
    even if every item is right.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in outcomes.values() if len(group)]
    if not groups:
        return float("nan"), float("nan"), float("nan")
    mean = float(np.mean([group.mean() for group in groups]))
    variance = sum(group.var() / len(group) for group in groups) / len(groups) ** 2
    items = mean * (1 - mean) / variance if variance else sum(map(len, groups))
    middle = (mean + Z**2 / (2 * items)) / (1 + Z**2 / items)
    half = Z / (1 + Z**2 / items) * (mean * (1 - mean) / items + Z**2 / (4 * items**2)) ** 0.5
    return mean, max(0.0, middle - half), min(1.0, middle + half)
