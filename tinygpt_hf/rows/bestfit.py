"""Rows of whole documents: best-fit decreasing, as a plan over the rows at rest.

    rows = BestFitRows(folder, block_size=128)       # the folder a RowWriter wrote; nothing in it changes
    input_ids, labels = rows.batch([0, 2], 128)      # as Rows does, from documents kept together

A document that fits a row of T inputs is never cut, and nothing is ever cropped (Ding et al. 2024, "Fewer Truncations Improve
Language Modeling", arXiv 2404.10830). A longer one is cut into pieces of T, a row each, and a rest; rests and short documents,
longest first, go each into the row with the least room that still takes it. What stays free at the end of a row is padding.

    ids      a b * c d e f * g *      T = 4, * the separator
    row 0    * c d e > c d e f        of the long document the first T; the rest elsewhere
    row 1    a b * g > b * g *        two short ones, the second begun by the separator before it
    row 2    f . . . > * . . .        the rest; padding is never a target

Every id but the very first is a target exactly once, as when wrapped: a document is its targets (its separator the last of
them) and begins with the input that predicts the first, the separator before it. Where that is no target it begins with its
own first id, so a conversation begins as it does in a chat. Inside a row pieces stand as in the text.

The plan is a pure function of the documents' borders and T, made once when the rows are opened: nothing to store, nothing to
go stale. It takes 12 bytes per document and 20 per row of a long one; documents are packed WINDOW at a time, and work goes by
groups of one length, so that no loop runs over documents.
"""

from pathlib import Path

import numpy as np

from tinygpt_hf.rows.store import Rows

WINDOW = 1 << 18  # documents packed together: padding no longer shrinks with more


class BestFitRows(Rows):
    """A row folder read as rows of `block_size` that keep documents whole. Everything about the ids is as in Rows."""

    def __init__(self, folder: Path, block_size: int, window: int = WINDOW):
        super().__init__(folder)
        if block_size < 1 or window < 1:
            raise ValueError(f"block_size {block_size} and window {window} must be 1 or more")
        self.block_size = block_size
        begins = np.append(self.first_inputs(0, self.num_documents), self.num_tokens - 1)  # the last id is no input
        # (pieces,) where its inputs lie in the ids; (pieces,); (rows + 1,) the first piece of each row
        self._begins, self._lengths, self._rows = packed(begins, block_size, window)

    @property
    def padding(self) -> int:
        """Slots of an epoch that hold nothing."""
        return (len(self._rows) - 1) * self.block_size - int(self._lengths.sum(dtype=np.int64))

    @property
    def description(self) -> str:
        """One line for the person who trains."""
        rows = len(self._rows) - 1
        return (
            f"packing: {len(self._lengths)} pieces of {self.num_documents} documents in {rows} rows, "
            f"{self.padding / max(rows * self.block_size, 1):.2%} padding"
        )

    def count(self, block_size: int, shifted: bool = False) -> int:
        """How many rows one epoch has."""
        self._check(block_size, shifted)
        return len(self._rows) - 1

    def places(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """Where the inputs of the rows `indices` lie in the ids, (B, T) int64; -1 for padding. The target is the id behind."""
        self._check(block_size, offset)
        indices = np.asarray(indices, dtype=np.int64)
        first = self._rows[indices]
        number = self._rows[indices + 1] - first
        pieces = ranges(first, number)
        lengths = self._lengths[pieces].astype(np.int64)
        filled = np.bincount(np.repeat(np.arange(len(indices)), number), lengths, len(indices)).astype(np.int64)
        places = np.full((len(indices), block_size), -1, dtype=np.int64)
        rows = np.repeat(np.arange(len(indices)), filled)
        places[rows, ranges(np.zeros_like(filled), filled)] = ranges(self._begins[pieces], lengths)
        return places

    def _check(self, block_size: int, offset: int) -> None:
        if block_size != self.block_size or offset:
            raise ValueError(f"packed for rows of {self.block_size} without offset, not {block_size} at {int(offset)}")


def packed(borders: np.ndarray, T: int, window: int = WINDOW) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plan for documents of inputs between these places: where each piece begins, its length, and the first piece of each
    row and, at the end, how many there are. Documents are packed `window` at a time."""
    begins, lengths, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for first in range(0, len(borders) - 1, window):
        here = borders[first : first + window + 1]
        size = np.diff(here)
        full = size // T  # pieces that fill a row
        full_begins = np.repeat(here[:-1], full) + ranges(np.zeros_like(full), full) * T
        rests = np.flatnonzero(size % T)
        rest_begins, rest_lengths = (here[:-1] + full * T)[rests], (size % T)[rests]
        rows = best_fit(rest_lengths, T)
        order = np.argsort(rows, kind="stable")
        begins += [full_begins, rest_begins[order]]
        lengths += [np.full(len(full_begins), T, np.int32), rest_lengths[order].astype(np.int32)]
        counts += [np.ones(len(full_begins), np.int64), np.bincount(rows)]
    return np.concatenate(begins), np.concatenate(lengths), np.concatenate(counts).cumsum()


def ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The whole numbers begins[k], begins[k] + 1, ..., lengths[k] of them, for one k after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(begins - before, lengths) + np.arange(int(lengths.sum()))


def best_fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """The bin of each item by best-fit decreasing into bins of `room`: the fullest bin that still takes it, else a new one.

    Items of one length are placed together, so the work grows with the number of lengths, not of items. Of bins equally full
    one is as good as another; which is taken is fixed. At most 11/9 of the fewest bins possible and 4 more (Johnson et al.
    1974, "Worst-case performance bounds for simple one-dimensional packing algorithms"), and no two bins would fit into one.
    """
    bins_of = np.empty(len(lengths), dtype=np.int64)
    items = np.argsort(-lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    free: dict[int, list[np.ndarray]] = {}  # bins by the room they have left
    occupied, bins, done = 0, 0, 0  # bit r of `occupied`: is there a bin with room r?

    def put(some: np.ndarray, left: int) -> None:
        nonlocal occupied
        if len(some) and left:
            free.setdefault(left, []).append(some)
            occupied |= 1 << left

    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = done + count
        while done < end:
            fitting = occupied >> size
            if fitting:
                left = size + (fitting & -fitting).bit_length() - 1  # the least that is enough
                some = free[left].pop()
                if not free[left]:
                    occupied ^= 1 << left
            else:
                left = room
                some = np.arange(bins, bins - (-(end - done) // (room // size)))
                bins += len(some)
            each = left // size  # a bin just filled is the fullest, so it takes the next one too while it can
            used = min(len(some), -(-(end - done) // each))
            taken = min(used * each, end - done)
            bins_of[items[done : done + taken]] = np.repeat(some[:used], each)[:taken]
            done += taken
            missing = used * each - taken  # the last bin may have got fewer
            whole = used - (missing > 0)
            put(some[used:], left)
            put(some[:whole], left - each * size)
            put(some[whole:used], left - (each - missing) * size)
    return bins_of
