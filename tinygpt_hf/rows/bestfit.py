"""Pack whole documents into rows by best-fit decreasing, as a plan over stored token ids.

    rows = BestFitRows(folder, block_size=128)       # a folder written by RowWriter, read only
    input_ids, labels = rows.batch([0, 2], 128)      # as Rows.batch, but documents stay whole

A document that fits into a row of T inputs is never cut, and no token is dropped (Ding et al. 2024, "Fewer Truncations
Improve Language Modeling", arXiv 2404.10830). A longer document is cut into full rows of T and a remainder. Remainders and
short documents are placed longest first, each into the fullest row that still has room. Rows are padded at the end.

    ids      a b * c d e f * g *      T = 4, * the separator
    row 0    * c d e > c d e f        the first T targets of the long document
    row 1    a b * g > b * g *        two short documents; the second starts at the separator before it
    row 2    f . . . > * . . .        the remainder; padding is never a target

Every id but the very first is a target exactly once, as with packing by wrapping. A document starts with the input that
predicts its first id, which is the separator before it. If its first id is not a target (a conversation), it starts with
that id itself, as in a chat. Pieces inside a row keep the order of the text.

The plan depends only on the document boundaries and T, so it is computed when the rows are opened and never stored. It takes
12 bytes per document and 20 per full row of a long one. Documents are packed WINDOW at a time, grouped by length, so no
Python loop runs over single documents.
"""

from pathlib import Path

import numpy as np

from tinygpt_hf.rows.store import Rows

WINDOW = 1 << 18  # documents packed together; larger windows do not reduce padding further


class BestFitRows(Rows):
    """Rows of `block_size` that keep documents whole; token access is inherited from Rows."""

    def __init__(self, folder: Path, block_size: int, window: int = WINDOW):
        super().__init__(folder)
        if block_size < 1 or window < 1:
            raise ValueError(f"block_size {block_size} and window {window} must be 1 or more")
        self.block_size = block_size
        begins = np.append(self.first_inputs(0, self.num_documents), self.num_tokens - 1)  # the last id is no input
        # (pieces,) position of the first input; (pieces,) number of inputs; (rows + 1,) first piece of each row
        self._begins, self._lengths, self._rows = packed(begins, block_size, window)

    @property
    def padding(self) -> int:
        """Return the number of padding positions in one epoch."""
        return (len(self._rows) - 1) * self.block_size - int(self._lengths.sum(dtype=np.int64))

    @property
    def description(self) -> str:
        """Return one line for the training log: pieces, rows and share of padding."""
        rows = len(self._rows) - 1
        return (
            f"packing: {len(self._lengths)} pieces of {self.num_documents} documents in {rows} rows, "
            f"{self.padding / max(rows * self.block_size, 1):.2%} padding"
        )

    def count(self, block_size: int, shifted: bool = False) -> int:
        """Return the number of rows in one epoch."""
        self._check(block_size, shifted)
        return len(self._rows) - 1

    def places(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """Return the token positions of the inputs of rows `indices`, (B, T) int64, -1 for padding; targets are one further."""
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
    """Pack documents into rows of `T` inputs, `window` documents at a time. `borders`: (documents + 1,) input positions.

    Returns (first input of each piece, length of each piece, first piece of each row with the number of pieces appended).
    """
    begins, lengths, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for first in range(0, len(borders) - 1, window):
        here = borders[first : first + window + 1]
        size = np.diff(here)
        full = size // T  # full rows per document
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
    """Return the concatenation of arange(begins[k], begins[k] + lengths[k]) over all k."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(begins - before, lengths) + np.arange(int(lengths.sum()))


def best_fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """Assign each item to a bin of size `room` by best-fit decreasing; returns the bin of each item.

    Each item goes into the fullest bin that still has room, else into a new one. Items of equal length are placed together,
    so the cost grows with the number of distinct lengths. Ties are broken deterministically. Uses at most 11/9 OPT + 4 bins
    (Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing algorithms").
    """
    bins_of = np.empty(len(lengths), dtype=np.int64)
    items = np.argsort(-lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    free: dict[int, list[np.ndarray]] = {}  # room left -> bins with that much room
    occupied, bins, done = 0, 0, 0  # bit r of `occupied` is set if some bin has room r

    def put(chosen: np.ndarray, left: int) -> None:
        nonlocal occupied
        if len(chosen) and left:
            free.setdefault(left, []).append(chosen)
            occupied |= 1 << left

    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = done + count
        while done < end:
            fitting = occupied >> size
            if fitting:
                left = size + (fitting & -fitting).bit_length() - 1  # the smallest sufficient room
                chosen = free[left].pop()
                if not free[left]:
                    occupied ^= 1 << left
            else:
                left = room
                chosen = np.arange(bins, bins - (-(end - done) // (room // size)))
                bins += len(chosen)
            each = left // size  # a bin that just got an item is the fullest, so it takes as many as fit
            used = min(len(chosen), -(-(end - done) // each))
            taken = min(used * each, end - done)
            bins_of[items[done : done + taken]] = np.repeat(chosen[:used], each)[:taken]
            done += taken
            missing = used * each - taken  # the last bin may get fewer items
            whole = used - (missing > 0)
            put(chosen[used:], left)
            put(chosen[:whole], left - each * size)
            put(chosen[whole:used], left - (each - missing) * size)
    return bins_of
