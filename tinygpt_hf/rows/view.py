"""Read rows by training position, whether they are prepared, streamed or packed by best fit.

    view = RowView(rows, block_size=256, shift=True, seed=42)
    input_ids, labels = view.batch(range(first, first + count))     # (B, T) int64, as Rows.batch
    position_ids = view.position_ids(range(first, first + count))
    view.row_ids(...), view.covers(first, count), len(view)

Ids are positions in the training stream. The epoch is position // len(view); it determines the offset, and with the seed the
row (order.py). Without a seed rows are read in stored order, as for validation.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from tinygpt_hf.rows import order
from tinygpt_hf.rows.store import Rows


class RowView:
    """Rows of `block_size` inputs and targets in training order; with `shift`, every epoch cuts the text at a new offset."""

    def __init__(self, rows: Rows, block_size: int, shift: bool = False, seed: int | None = None):
        self.rows, self.block_size, self.shift, self.seed = rows, block_size, shift, seed

    def __len__(self) -> int:
        """Return the number of rows in one epoch; for a stream that has not ended, in its first shard."""
        return self.rows.count(self.block_size, self.shift)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """Check that the rows at these positions are ready, and stay while the row at position `shown` is in use.

        Only streamed rows can be missing.
        """
        return self.rows.covers(first, count, shown)

    def row_ids(self, ids: Iterable[int]) -> list[int]:
        """Return the row numbers at these positions, counted from the beginning of the text."""
        return self._rows_at(ids)[1].tolist()

    def batch(self, ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows at these positions as (input_ids, labels), each (B, T) int64."""
        parts = [self.rows.batch(*arguments) for arguments in self._by_epoch(ids)]
        input_ids, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return input_ids, labels

    def position_ids(self, ids: Iterable[int]) -> np.ndarray:
        """Return the position of each input inside its document, (B, T) int64."""
        return np.concatenate([self.rows.position_ids(*arguments) for arguments in self._by_epoch(ids)])

    def _rows_at(self, ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        positions = np.fromiter(ids, dtype=np.int64)
        if self.seed is None:
            return np.zeros_like(positions), positions
        return self.rows.at(positions, self.block_size, self.shift, self.seed)

    def _by_epoch(self, ids: Iterable[int]) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yield (rows, block_size, offset) for each epoch in turn; `ids` must not decrease."""
        epochs, rows = self._rows_at(ids)
        for epoch in np.unique(epochs):
            offset = order.epoch_offset(self.block_size, self.seed or 0, int(epoch)) if self.shift else 0
            yield rows[epochs == epoch], self.block_size, offset
