"""The order of rows: a permutation per epoch, computed from the position alone, and shared among processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf.rows.order import epoch_offset, permuted, rows_at, share


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 50))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    order = permuted(np.arange(size), size, seed, epoch)
    assert sorted(order) == list(range(size))


def test_any_position_can_be_computed_alone():
    whole = permuted(np.arange(1000), 1000, seed=7, epoch=3)
    assert [int(permuted(np.array([k]), 1000, 7, 3)[0]) for k in range(0, 1000, 37)] == whole[::37].tolist()


def test_the_order_does_not_change_between_versions():
    assert permuted(np.arange(10), 10, seed=42, epoch=0).tolist() == [0, 1, 5, 3, 8, 2, 6, 7, 4, 9]
    epochs, rows = rows_at(np.arange(8, 12), 10, seed=42)
    assert epochs.tolist() == [0, 0, 1, 1] and rows[:2].tolist() == [4, 9]


def test_epochs_and_seeds_differ_and_look_random():
    a = permuted(np.arange(5000), 5000, 1, 0)
    for other in (permuted(np.arange(5000), 5000, 1, 1), permuted(np.arange(5000), 5000, 2, 0), np.arange(5000)):
        assert abs(np.corrcoef(a, other)[0, 1]) < 0.06  # the standard error is 0.014
        assert (a == other).sum() < 10  # one match is expected


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 60), cuts=st.lists(st.integers(0, 50), max_size=8))
def test_the_stream_does_not_depend_on_the_step_size(size, cuts):
    def flat(first, count):
        return list(
            zip(*(part.tolist() for part in rows_at(np.arange(first, first + count), size, seed=5)), strict=True)
        )

    first, pieces = 0, []
    for count in cuts:
        pieces += flat(first, count)
        first += count
    assert pieces == flat(0, first)


@pytest.mark.parametrize("count", [0, 1, 5, 8, 24])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_shares_cover_a_step_once_in_order(count, parts):
    covered = [p for k in range(parts) for first, n in [share(100, count, parts, k)] for p in range(first, first + n)]
    assert covered == list(range(100, 100 + count))


def test_offsets_cover_the_block():
    assert {epoch_offset(8, 3, epoch) for epoch in range(200)} == set(range(1, 9))
