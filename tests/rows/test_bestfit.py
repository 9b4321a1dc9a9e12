"""Best-fit packing: every token once, documents that fit are whole, few rows, and a plan that never changes."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt_hf.rows.batches import StepBatches
from tinygpt_hf.rows.bestfit import BestFitRows, best_fit
from tinygpt_hf.rows.store import IGNORED, Rows, RowWriter
from tinygpt_hf.rows.view import RowView

END = 0
# words are 1 and up, every document ends with the separator, and some are conversations: little of them is learned
text = st.lists(st.integers(1, 99), max_size=30)
corpora = st.lists(st.tuples(text, st.booleans()), min_size=1, max_size=25)


def write(folder: Path, corpus) -> Path:
    """Generate documents as (words, whether it is a conversation)."""
    with RowWriter(folder, vocab_size=100) as writer:
        for words, chat in corpus:
            bits = [k >= len(words) // 2 for k in range(len(words))]
            writer.add([*words, END], [*bits, False] if chat else None)
    return folder


def bits_of(corpus) -> list[bool]:
    """Compute whether each id may be a target, without the row store."""
    return [
        bit
        for words, chat in corpus
        for bit in ([*(k >= len(words) // 2 for k in range(len(words))), False] if chat else [True] * (len(words) + 1))
    ]


def places_of(rows, T) -> list[list[int]]:
    """Return the input positions of each row; padding may only be at the end."""
    found = rows.places(range(rows.count(T)), T).tolist()
    for row in found:
        assert len(row) == T and sorted(row, key=lambda place: place < 0) == row
    return [[place for place in row if place >= 0] for row in found]


def slow_best_fit(lengths, room) -> list[int]:
    """Place one item after another into the fullest bin that takes it; returns how full the bins are."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [filled for filled in bins if filled + length <= room]
        if fitting:
            bins.remove(max(fitting))
        bins.append(length + max(fitting, default=0))
    return sorted(bins)


def fewest_bins(lengths, room) -> int:
    """Find the smallest number of bins by trying everything."""

    def place(rest, bins):
        if not rest:
            return len(bins)
        found = place(rest[1:], [*bins, rest[0]])
        for k, filled in enumerate(bins):
            if filled + rest[0] <= room and filled not in bins[:k]:
                found = min(found, place(rest[1:], [*bins[:k], filled + rest[0], *bins[k + 1 :]]))
        return found

    return place(sorted(lengths, reverse=True), [])


@settings(max_examples=150, deadline=None)
@given(corpus=corpora, T=st.integers(1, 24), window=st.integers(1, 30))
def test_every_token_is_in_one_row_and_documents_that_fit_are_whole(tmp_path_factory, corpus, T, window):
    folder = write(tmp_path_factory.mktemp("rows") / "r", corpus)
    rows, ids = BestFitRows(folder, T, window), [id for words, _ in corpus for id in [*words, END]]
    places = places_of(rows, T)
    assert sorted(itertools.chain(*places)) == list(range(len(ids) - 1))

    may = bits_of(corpus)
    input_ids, labels = rows.batch(range(len(places)), T)
    assert Counter(input_ids[rows.places(range(len(places)), T) >= 0].tolist()) == Counter(ids[:-1])
    learned = labels[labels != IGNORED].tolist()
    assert Counter(learned) == Counter(id for id, bit in zip(ids[1:], may[1:], strict=True) if bit)
    assert len(learned) == rows.num_targets

    row_of = {place: number for number, row in enumerate(places) for place in row}
    end = 0
    for words, _ in corpus:
        begin, end = end, end + len(words) + 1
        targets = [place for place in range(begin, end) if place and may[place]]
        if len(words) + 1 <= T:
            assert len({row_of[place - 1] for place in targets}) <= 1
    for row in places:
        assert row == sorted(row)  # a row keeps the order of the text


@settings(max_examples=150, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), max_size=60), spare=st.integers(0, 40))
def test_bins_equal_a_slow_reference_implementation(lengths, spare):
    room = max(lengths, default=1) + spare
    bins = best_fit(np.array(lengths, dtype=np.int64), room)
    filled = sorted(np.bincount(bins, np.array(lengths)).astype(int).tolist())
    assert filled == slow_best_fit(lengths, room)
    assert all(a + b > room for a, b in itertools.pairwise(filled))  # no two bins would fit into one


@settings(max_examples=80, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), max_size=8))
def test_the_number_of_bins_is_within_the_bound(lengths):
    bins = len(set(best_fit(np.array(lengths, dtype=np.int64), 12).tolist()))
    assert bins <= 11 / 9 * fewest_bins(lengths, 12) + 4 and bins <= 2 * sum(lengths) / 12 + 1


def test_stories_are_packed_with_little_padding():
    lengths = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, 20_000), 1, 256).astype(np.int64)
    bins = best_fit(lengths, 256)
    assert (bins.max() + 1) * 256 < 1.01 * lengths.sum()


@settings(max_examples=60, deadline=None)
@given(
    corpus=corpora.filter(lambda corpus: sum(len(words) + 1 for words, _ in corpus) > 1),
    T=st.integers(1, 16),
    packing=st.sampled_from(["wrap", "sliding", "bestfit"]),
    processes=st.integers(1, 3),
    size=st.integers(1, 3),
)
@example(corpus=[([1, 2, 3], False)], T=8, packing="bestfit", processes=3, size=1)  # two rows for three processes
def test_an_epoch_yields_every_token_once_on_any_number_of_processes(
    tmp_path_factory, corpus, T, packing, processes, size
):
    folder = write(tmp_path_factory.mktemp("rows") / "r", corpus)
    rows = BestFitRows(folder, T) if packing == "bestfit" else Rows(folder)
    sliding, per_step = packing == "sliding", size * processes
    epoch = rows.count(T, sliding)
    ids = [id for words, _ in corpus for id in [*words, END]]
    wanted = Counter(id for id, bit in zip(ids[1:], bits_of(corpus)[1:], strict=True) if bit)
    steps = [
        StepBatches(RowView(rows, T, sliding, 5), per_step, 2 * epoch, (k, processes), document_mask=True)
        for k in range(processes)
    ]
    seen, shown = Counter(), []
    for step in range(-(-2 * epoch // per_step)):
        for process in steps:
            for _, labels, positions in process.at(step, size)[0]:
                seen.update(labels[labels != IGNORED].tolist())
                assert labels.shape == positions.shape
        shown += steps[0].row_ids(step)
    assert seen == Counter({id: 2 * count for id, count in wanted.items()})  # two epochs
    assert sorted(shown[:epoch]) == sorted(shown[epoch:]) == list(range(epoch))


def test_the_packing_plan_does_not_change_between_versions(tmp_path):
    """Compare with recorded values, so that a run resumed under a later version finds the same rows."""
    corpus = [([k % 9 + 1] * (k * 7 % 11 + 1), False) for k in range(12)]
    rows = BestFitRows(write(tmp_path / "r", corpus), 8)
    assert rows.places(range(rows.count(8)), 8).tolist() == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [15, 16, 17, 18, 19, 20, 21, 22],
        [27, 28, 29, 30, 31, 32, 33, 34],
        [39, 40, 41, 42, 43, 44, 45, 46],
        [60, 61, 62, 63, 64, 65, 66, 67],
        [0, 50, 51, 52, 53, 54, 55, 56],
        [68, 69, 70, 71, 72, 73, 74, 75],
        [10, 11, 12, 13, 14, 47, 48, 49],
        [23, 24, 25, 26, 35, 36, 37, 38],
        [9, 57, 58, 59, 76, 77, -1, -1],
    ]


def test_a_long_document_fills_rows_and_its_remainder_is_packed(tmp_path):
    rows = BestFitRows(write(tmp_path / "r", [([1], False), ([2] * 9, False), ([3, 4], False)]), 4)
    input_ids, labels = rows.batch(range(rows.count(4)), 4)
    assert input_ids.tolist() == [[0, 2, 2, 2], [2, 2, 2, 2], [1, 0, 3, 4], [2, 2, 0, 0]]
    assert labels.tolist() == [[2, 2, 2, 2], [2, 2, 2, 2], [0, 3, 4, 0], [2, 0, IGNORED, IGNORED]]
    assert rows.padding == 2 and rows.description.endswith("in 4 rows, 12.50% padding")


def test_a_conversation_begins_with_its_own_first_id(tmp_path):
    rows = BestFitRows(write(tmp_path / "r", [([1, 2], False), ([3, 4], True), ([5, 6, 7], True)]), 4)
    input_ids, labels = rows.batch(range(rows.count(4)), 4)
    assert input_ids.tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 7, 0]]
    assert labels.tolist() == [[2, 0, -100, -100], [4, -100, -100, -100], [6, 7, -100, -100]]


def test_another_row_length_or_an_offset_is_refused(tmp_path):
    rows = BestFitRows(write(tmp_path / "r", [([1, 2], False)]), 4)
    for wrong in ((8, 0), (4, 1)):
        with pytest.raises(ValueError, match="packed for rows of 4"):
            rows.batch([0], *wrong)


def test_an_empty_text_has_no_rows(tmp_path):
    assert BestFitRows(write(tmp_path / "r", [([], False)]), 4).count(4) == 0
