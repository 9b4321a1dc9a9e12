"""The micro-batches of a step are its rows, for any number of processes, micro-batches and prefetching threads."""

import numpy as np
import pytest
import torch

from tinygpt_hf.rows import order
from tinygpt_hf.rows.batches import StepBatches
from tinygpt_hf.rows.store import IGNORED, Rows, RowWriter
from tinygpt_hf.rows.view import RowView

T, SEED = 8, 3


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "train"
    with RowWriter(folder, vocab_size=5000) as writer:
        writer.add(np.arange(1, 333))
    return Rows(folder)


def targets(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels.flatten() if label != IGNORED]


def slowly(rows, step: int, per_step: int, total: int, shift: bool) -> list[int]:
    """Compute the rows one position at a time."""
    found = []
    for position in range(step * per_step, min((step + 1) * per_step, total)):
        epochs, index = order.rows_at(np.array([position]), rows.count(T, shift), SEED)
        _, labels = rows.batch(index, T, order.epoch_offset(T, SEED, int(epochs[0])) if shift else 0)
        found += [int(label) for label in labels[0] if label != IGNORED]
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("processes,size", [(1, 6), (1, 4), (2, 3), (3, 1)])
def test_a_step_yields_its_rows_once_for_any_split(rows, processes, size, shift, workers):
    total = 100  # the last step is short: 100 = 16 * 6 + 4
    makers = [StepBatches(RowView(rows, T, shift, SEED), 6, total, (k, processes), workers) for k in range(processes)]
    for step in [0, 1, 2, 9, 3, 16]:  # a resumed run jumps
        got = [maker.at(step, size) for maker in makers]
        expected = slowly(rows, step, 6, total, shift)
        assert [target for batches, _ in got for target in targets(batches)] == expected
        assert {tokens for _, tokens in got} == {len(expected)}
        assert len({len(batches) for batches, _ in got}) == 1  # the same number on every process
        assert all(1 <= len(ids) <= size and ids.shape[1] == T for batches, _ in got for ids, _ in batches)


def test_prefetching_gives_the_same_tensors_and_a_step_can_be_repeated(rows):
    plain, ahead = (StepBatches(RowView(rows, T, True, SEED), 6, 60, workers=workers) for workers in (0, 2))
    for step in (0, 0, 1, 2, 2, 3):
        for (a, b), (c, d) in zip(plain.at(step, 4)[0], ahead.at(step, 4)[0], strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


def test_row_ids_are_those_of_the_step(rows):
    steps = StepBatches(RowView(rows, T, False, SEED), 6, 100)
    labels = {tuple(rows.batch([row], T)[1][0]) for row in steps.row_ids(5)}
    assert labels == {tuple(line.tolist()) for _, part in steps.at(5, 2)[0] for line in part}
    assert len(steps.row_ids(16)) == 4
