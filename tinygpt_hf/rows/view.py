"""The one way rows are read, however they lie: prepared, streamed or packed by best fit.

    view = RowView(rows, block_size=256, shift=True, seed=42)
    input_ids, labels = view.batch(range(first, first + count))     # (B, T) int64, as Rows.batch
    position_ids = view.position_ids(range(first, first + count))
    view.row_ids(...), view.covers(first, count), len(view)

Ids are global positions of training: the epoch, and with it the cut, is position // len(view), and the row follows from the seed
(order.py). Without a seed rows stand as they lie: so validation is read.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from tinygpt_hf.rows import order
from tinygpt_hf.rows.store import Rows


class RowView:
    """Rows of `block_size` inputs and as many targets. `shift`: the text is cut at another offset in every epoch."""

    def __init__(self, rows: Rows, block_size: int, shift: bool = False, seed: int | None = None):
        self.rows, self.block_size, self.shift, self.seed = rows, block_size, shift, seed

    def __len__(self) -> int:
        """Rows in one epoch; of a text that is still being read, those that are there for sure."""
        return self.rows.count(self.block_size, self.shift)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """Are the rows at these positions there, and do they stay while the one at position `shown` is shown? Of a text that is
        still being read they may not be."""
        return self.rows.covers(first, count, shown)

    def row_ids(self, ids: Iterable[int]) -> list[int]:
        """The numbers of the rows at these positions, counted from the beginning of the text."""
        return self._rows_at(ids)[1].tolist()

    def batch(self, ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """The rows at these positions as (input_ids, labels)."""
        parts = [self.rows.batch(*where) for where in self._by_epoch(ids)]
        input_ids, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return input_ids, labels

    def position_ids(self, ids: Iterable[int]) -> np.ndarray:
        """How far each of their inputs lies behind the beginning of its document."""
        return np.concatenate([self.rows.position_ids(*where) for where in self._by_epoch(ids)])

    def _rows_at(self, ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        positions = np.fromiter(ids, dtype=np.int64)
        if self.seed is None:
            return np.zeros_like(positions), positions
        return self.rows.at(positions, self.block_size, self.shift, self.seed)

    def _by_epoch(self, ids: Iterable[int]) -> Iterator[tuple[np.ndarray, int, int]]:
        """(rows, their length, where the cut begins), an epoch after the other; `ids` do not fall."""
        epochs, rows = self._rows_at(ids)
        for epoch in np.unique(epochs):
            offset = order.epoch_offset(self.block_size, self.seed or 0, int(epoch)) if self.shift else 0
            yield rows[epochs == epoch], self.block_size, offset
