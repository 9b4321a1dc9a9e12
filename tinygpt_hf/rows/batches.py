"""Build the micro-batches of one training step for one process, optionally reading ahead in threads.

steps = StepBatches(RowView(rows, 256, shift=True, seed=42), rows_per_step=64, total_rows=6400)
batches, tokens = steps.at(step, size=16)          # 4 pairs (input_ids, labels), each (16, 256); their supervised tokens
"""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from tinygpt_hf.rows import order
from tinygpt_hf.rows.store import IGNORED
from tinygpt_hf.rows.view import RowView

# input_ids and labels, labels already shifted, and with a document mask position_ids: all (B, T)
Batch = tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class StepBatches:
    """The training batches of one process, where `place` is (process index, number of processes).

    `workers` threads read that many steps ahead. The rows of a step depend on its number alone, so there is no state to save.
    """

    def __init__(
        self,
        view: RowView,
        rows_per_step: int,
        total_rows: int,
        place: tuple[int, int] = (0, 1),
        workers: int = 0,
        document_mask: bool = False,
    ):
        self.view, self._per_step, self._total = view, rows_per_step, total_rows
        self._process, self._processes = place
        self._workers, self._document_mask = workers, document_mask
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._ahead: dict[int, Future] = {}

    def at(self, step: int, size: int) -> tuple[list[Batch], int]:
        """Return this process's micro-batches of at most `size` rows, and the supervised tokens of all processes.

        Every process gets the same number of micro-batches. In a short last step an empty micro-batch is replaced by one row
        whose labels are all ignored. Each process counts the tokens of the whole step itself, which saves an all-reduce.
        """
        rows = self._ahead.pop(step).result() if step in self._ahead else self._read(step)
        if self._pool:
            self._ahead = {ahead: future for ahead, future in self._ahead.items() if ahead > step}
            for ahead in range(step + 1, step + 1 + self._workers):
                if self.span(ahead)[1] > 0 and ahead not in self._ahead and self.covered(ahead, step):
                    self._ahead[ahead] = self._pool.submit(self._read, ahead)
        begin, count = order.share(0, len(rows[0]), self._processes, self._process)
        parts = -(-self._per_step // (self._processes * size))
        batches = []
        for part in range(parts):
            first, number = order.share(begin, count, parts, part)
            batches.append(tuple(array[first : first + number] for array in rows) if number else self._empty_batch())
        return batches, int((rows[1] != IGNORED).sum())

    def row_ids(self, step: int) -> list[int]:
        """Return the row numbers of a step, over all processes."""
        return self.view.row_ids(self._ids(step))

    def span(self, step: int) -> tuple[int, int]:
        """Return the positions of a step as (first, count)."""
        first = step * self._per_step
        return first, min(self._per_step, self._total - first)

    def covered(self, step: int, shown: int | None = None) -> bool:
        """Check that the rows of a step are ready, and stay on disk while step `shown` is being trained on."""
        return self.view.covers(*self.span(step), None if shown is None else self.span(shown)[0])

    def _ids(self, step: int) -> range:
        first, count = self.span(step)
        return range(first, first + count)

    def _read(self, step: int) -> Batch:
        parts = self.view.batch(self._ids(step))
        if self._document_mask:
            parts = *parts, self.view.position_ids(self._ids(step))
        return tuple(map(torch.from_numpy, parts))

    def _empty_batch(self) -> Batch:
        zeros = torch.zeros((1, self.view.block_size), dtype=torch.long)
        batch = zeros, torch.full_like(zeros, IGNORED)
        return (*batch, zeros) if self._document_mask else batch
