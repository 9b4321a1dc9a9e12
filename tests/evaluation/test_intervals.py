"""Test that 95 % intervals contain the true value in about 95 % of the trials, and that they are deterministic."""

import math

import numpy as np
import pytest

from tinygpt_hf.evaluation.compare import paired
from tinygpt_hf.evaluation.intervals import interval, share

TRIALS = 200


def blocks(rng, count=60):
    """Draw nats and bytes of blocks of different sizes and difficulties, with a true ratio of 2."""
    sizes = rng.integers(50, 150, count)
    return np.stack([rng.gamma(8, sizes * 2 / 8), sizes], 1)


def covered(find, truth: float) -> float:
    """Return the share of trials whose interval contains the true value."""
    found = [find(np.random.default_rng(trial)) for trial in range(TRIALS)]
    return sum(low <= truth <= high for low, high in found) / TRIALS


def test_the_interval_of_a_ratio_of_sums_holds_the_truth_about_95_times_of_100():
    assert 0.9 <= covered(lambda rng: interval(blocks(rng), lambda total: total[..., 0] / total[..., 1]), 2.0) <= 0.99


def test_the_interval_of_a_paired_difference_does_too_and_is_narrower_than_either_model_alone():
    def one(rng):
        text = blocks(rng)
        hard = text[:, 0] * math.log(2)
        better = hard - 0.1 * math.log(2) * text[:, 1] + rng.normal(0, 3, len(text))
        return paired(better, hard, text[:, 1])

    results = [one(np.random.default_rng(trial)) for trial in range(TRIALS)]
    assert 0.9 <= sum(result.low <= -0.1 <= result.high for result in results) / TRIALS <= 0.99
    assert np.mean([result.verdict == "A is better" for result in results]) > 0.95
    low, high = interval(blocks(np.random.default_rng(0)), lambda total: total[..., 0] / total[..., 1])
    assert results[0].high - results[0].low < (high - low) / 3


def test_where_there_is_no_difference_one_is_shown_in_about_5_trials_of_100():
    def one(rng):
        text = blocks(rng)
        return paired(text[:, 0] + rng.normal(0, 9, len(text)), text[:, 0] + rng.normal(0, 9, len(text)), text[:, 1])

    shown = [one(np.random.default_rng(trial)).verdict != "no difference shown" for trial in range(TRIALS)]
    assert 0.0 < np.mean(shown) < 0.11


def test_shares_have_wilsons_interval_and_a_width_also_at_the_end():
    mean, low, high = share({"": [1.0] * 8 + [0.0] * 2})
    assert (mean, low, high) == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert share({"": [1.0] * 50})[1:] == (pytest.approx(0.9286, abs=1e-4), 1.0)
    assert covered(lambda rng: share({"": (rng.random(100) < 0.9).tolist()})[1:], 0.9) >= 0.9
    unequal = lambda rng: share({p: (rng.random(40) < p).tolist() for p in (0.2, 0.7, 1.0)})[1:]  # noqa: E731
    assert covered(unequal, 1.9 / 3) >= 0.9
    assert share({"a": [1.0], "b": [0.0] * 9})[0] == 0.5
    assert all(map(math.isnan, share({})))


def test_a_single_block_gives_nan():
    assert all(map(math.isnan, interval(np.ones((1, 2)), lambda total: total[..., 0])))
    assert interval(np.ones((2, 1)), lambda total: total[..., 0]) == (2.0, 2.0)
