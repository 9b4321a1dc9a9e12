"""How sure a number is: 95 % intervals over the text it was measured on, the same every time.

    low, high = interval(sums, lambda total: total[..., 0] / total[..., 1])     # `sums`: a row of sums for each block of the text
    mean, low, high = share({"agreement": [1.0, 0.0, 0.5]})                     # outcomes of items, by group

They say how much the number would differ on another text of the same kind. They do not say how much it would differ had the
model been trained again with another seed, nor on text of another kind.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

DRAWS, SEED = 2000, 0
Z = 1.959963984540054  # of the normal distribution, 95 % lie within so many standard deviations


def interval(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Find the 95 % percentile bootstrap interval of a function of sums over blocks; NaN for fewer than two blocks.

    `sums` (N, C): what each block adds; `statistic` takes totals (..., C). Blocks are drawn again whole, so that a ratio stays one
    of sums. What the drawing itself adds on average (to a calibration error, which cannot be negative, say) is taken off.
    """
    count = len(sums)
    if count < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(SEED).integers(count, size=(DRAWS, count)) + count * np.arange(DRAWS)[:, None]
    times = np.bincount(drawn.ravel(), minlength=DRAWS * count).reshape(DRAWS, count)  # how often each block was drawn
    with np.errstate(invalid="ignore", divide="ignore"):  # where there is nothing, or infinitely much, it is NaN
        drawn = statistic(times @ np.asarray(sums, dtype=np.float64))
        low, high = np.quantile(drawn - drawn.mean() + statistic(np.sum(sums, 0)), (0.025, 0.975))
    return float(low), float(high)


def share(outcomes: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Return the mean over groups of the mean outcome (0 to 1) in each, and its 95 % interval (Wilson's).

    Groups stay as large as they are. The interval is that of as many right-or-wrong items as have the variance found, so it has a
    width also where every item was right.
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
