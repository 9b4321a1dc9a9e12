"""Rows whose text is still being read: the rows `tokenize` would make, in windows of R rows, each final once it is there.

    train/window-000000/     rows 0 to R-1 of the text, a row folder as store.py has it
    train/window-000001/     the next R; its first id is the last of the window before, so every id is a target once
    train/end.json           how many windows and rows there are, once the text has ended
    validation/              the documents held out before the first window was full

Training shows one window after another, the rows of each in an order of its own (order.windowed_rows_at). Text, tokenizer and
R decide a window, to the byte. Its manifest says where the text goes on behind it, so reading begins again at any window: after
a kill, and for one that was deleted to save space, of which the manifest stays.

    rows = WindowedRows(folder, block_size)
    rows.at(first, count, block_size, False, seed)       # as Rows
"""

from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError
from tinygpt_hf.rows import order
from tinygpt_hf.rows.store import IGNORED, Rows, RowWriter, rows_per_epoch

END = "end.json"
AHEAD = 3  # windows made before they are wanted; they stay until they have been shown
OPEN = 2  # windows held open: a step may lie across two


def window_folder(train: Path, number: int) -> Path:
    """Where a window lies."""
    return train / f"window-{number:06d}"


def window_manifest(train: Path, number: int) -> dict | None:
    """What is known of a window, also of one that was deleted; None where it was never made, or its manifest is damaged."""
    return _sound_json(window_folder(train, number) / storage.MANIFEST)


def read_end(train: Path) -> dict | None:
    """{"windows", "rows"} once the text has ended."""
    return _sound_json(train / END)


def write_end(train: Path, windows: int, rows: int) -> None:
    """Note that the text has ended; where that is known, it must be the same end."""
    end, known = {"windows": windows, "rows": rows}, read_end(train)
    if known is not None and known != end:
        raise RunError(f"the text has {rows} rows now, it had {known['rows']}; restore it, or begin anew")
    storage.write_json(train / END, {**end, storage.OWN_HASH: storage.value_hash(end)})


def _sound_json(path: Path) -> dict | None:
    try:
        found = storage.read_json(path)
    except (OSError, RunError):
        return None
    sound = isinstance(found, dict) and found.pop(storage.OWN_HASH, None) == storage.value_hash(found)
    return found if sound else None


def delete_window(train: Path, number: int) -> None:
    """Give back the space of a window; its manifest stays."""
    folder = window_folder(train, number)
    for name in (window_manifest(train, number) or {}).get("files", {}):
        if (folder / name).is_file():
            storage.system.remove(folder / name)


def abandon(writer: RowWriter) -> None:
    """Leave nothing of rows that were begun."""
    writer.__exit__(RunError, RunError("not finished"), None)


class WindowedRows:
    """The windows in `folder`/train, read as one list of rows that grows. Row numbers count from the beginning of the text."""

    def __init__(self, folder: Path, block_size: int):
        self.folder = folder / "train"
        self.block_size = block_size
        self._open: dict[int, Rows] = {}
        self.first = self._window(0)
        self.manifest = self.first.manifest
        self.num_tokens, self.num_documents = self.first.num_tokens, self.first.num_documents
        self.window_rows: int = self.manifest["window_rows"]
        self.mask, self.tokens = self.first.mask, self.first.tokens  # the first window stands for all
        self._end: dict | None = None

    @property
    def size(self) -> int | None:
        """How many rows there are; None until the text has ended."""
        self._end = self._end or read_end(self.folder)
        return self._end["rows"] if self._end else None

    def count(self, block_size: int, shifted: bool = False) -> int:
        """Rows in one epoch; before the end is known, in the first window."""
        return self.size or self.first.count(block_size)

    def windows_of(self, first: int, count: int) -> list[tuple[int, int]]:
        """(epoch, window) of the rows at positions [first, first + count), in order; in epoch 0 the last may not exist."""
        pieces, position, end = [], first, first + count
        while position < end:
            epoch, row = divmod(position, self.size) if self.size else (0, position)
            number = row // self.window_rows
            behind = (number + 1) * self.window_rows
            pieces.append((epoch, number))
            position += (min(behind, self.size) if self.size else behind) - row
        return pieces

    def counted(self, first: int, count: int) -> range:
        """As `windows_of`, the windows counted on over the epochs."""
        found = self.windows_of(first, count)
        whole = -(-self.size // self.window_rows) if self.size else 0
        return range(found[0][0] * whole + found[0][1], found[-1][0] * whole + found[-1][1] + 1)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """As `Rows.covers`."""
        if shown is not None and self.counted(first, count)[-1] > self.counted(shown, 1)[0] + AHEAD:
            return False
        return all(self.is_there(number) for _, number in self.windows_of(first, count))

    def is_there(self, number: int) -> bool:
        """Is this window there?"""
        known = window_manifest(self.folder, number)
        folder = window_folder(self.folder, number)
        return known is not None and all((folder / name).is_file() for name in known["files"])

    def at(self, positions: np.ndarray, block_size: int, shifted: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Rows.at`: each window's rows are permuted among themselves."""
        end = self.size or int(np.max(positions)) + 1
        borders = np.arange(0, end + self.window_rows, self.window_rows)
        if self.size:
            borders[-1] = self.size
        return order.windowed_rows_at(positions, borders, seed, ended=self.size is not None)

    def batch(self, indices, block_size: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As `Rows.batch`."""
        input_ids = np.zeros((len(indices), block_size), dtype=np.int64)
        labels = np.full_like(input_ids, IGNORED)
        for place, rows, inside in self._by_window(indices):
            input_ids[place], labels[place] = rows.batch(inside, block_size)
        return input_ids, labels

    def position_ids(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """As `Rows.position_ids`."""
        found = np.zeros((len(indices), block_size), dtype=np.int64)
        for place, rows, inside in self._by_window(indices):
            found[place] = rows.position_ids(inside, block_size)
        return found

    def _by_window(self, indices):
        """(places in `indices`, the window's rows, their numbers in it) for each window."""
        numbers, inside = np.divmod(np.asarray(indices, dtype=np.int64), self.window_rows)
        for number in np.unique(numbers):
            place = np.flatnonzero(numbers == number)
            yield place, self._window(int(number)), inside[place]

    def _window(self, number: int) -> Rows:
        rows = self._open.pop(number, None) or Rows(window_folder(self.folder, number))
        self._open = {**dict(list(self._open.items())[-OPEN + 1 :]), number: rows}
        return rows

    def forget(self, number: int) -> None:
        """Hold a window open no longer: it is deleted."""
        self._open.pop(number, None)

    def verify(self) -> None:
        """Who reads the text checks each window before it is used."""


class WindowWriter:
    """Fills windows of `facts["window_rows"]` rows one after another, beginning with window `number`.

    A window becomes final only when it is known whether text follows.
    """

    def __init__(self, train: Path, number: int, block_size: int, facts: dict, vocab_size: int):
        self.train, self.number = train, number
        self._block_size, self._facts, self._vocab_size = block_size, facts, vocab_size
        self._window_rows: int = facts["window_rows"]
        self._ids = block_size * self._window_rows + 1  # of a full window
        self._writer: RowWriter | None = None
        self._last: tuple | None = (
            None  # of the last id: itself, may it be learnt, its item's place, its place in the item
        )

    def add(self, ids: np.ndarray, mask: np.ndarray | None, begins: bool, place: dict):
        """Add the ids of an item (a document, or a part of one). `place` says where the item is found again; of one found
        again, `place["skip"]` ids are left out: they went into windows that are there.

        Yields the number of each window that is full: once before it becomes final, so that the caller can see to what must be
        on the disk before it, and once behind.
        """
        mask = np.ones(len(ids), dtype=bool) if mask is None else mask
        start = place["skip"]
        while start < len(ids):
            if self._writer is not None and self._writer.num_tokens == self._ids:
                yield from self._full()
            if self._writer is None:
                self._begin()
            end = start + self._ids - self._writer.num_tokens
            self._writer.add(
                ids[start:end], mask[start:end], begins=(begins and start == 0) or not self._writer.num_tokens
            )
            start = min(end, len(ids))
            self._last = int(ids[start - 1]), bool(mask[start - 1]), place, start - 1

    def finish(self):
        """The text has ended: yields the number of the last window before and behind its becoming final."""
        if self._writer is None and self.number:  # a window begins only where text followed
            raise RunError(
                f"the text has become shorter since window {self.number - 1} of its rows was made; restore it"
            )
        rows = rows_per_epoch(self.writer.num_tokens, self._block_size)
        yield self.number
        self._publish(None, rows)
        yield self.number

    @property
    def writer(self) -> RowWriter:
        """Of the window that is being filled."""
        if self._writer is None:
            self._begin()
        return self._writer

    def _begin(self) -> None:
        """A window; its first id is the last of the one before."""
        folder = self.train / f"{storage.TEMPORARY}again-{self.number:06d}"  # seen to before it takes a window's place
        if folder.is_dir():
            storage.remove_tree(folder)
        self._writer = RowWriter(folder, self._vocab_size, {**self._facts, "window": self.number})
        self._writer.__enter__()
        if self._last is not None:
            last, learnt, *_ = self._last
            self._writer.add([last], [learnt])

    def _full(self):
        yield self.number
        *_, place, index = self._last
        self._publish({**place, "skip": index})
        yield self.number
        self.number += 1

    def _publish(self, behind: dict | None, rows: int | None = None) -> None:
        """Make the window final. One that is known, and was deleted or lost, must come to the same bytes. `rows` of the last."""
        writer, self._writer = self._writer, None
        writer.facts["next"] = behind
        writer.__exit__(None, None, None)
        folder, known = window_folder(self.train, self.number), window_manifest(self.train, self.number)
        files = storage.read_json(writer.folder / storage.MANIFEST)["files"]
        end = read_end(self.train)
        changed = known is not None and (known["files"], known["next"] is None) != (files, behind is None)
        if changed or (end is not None and (self.number + 1 == end["windows"]) != (behind is None)):
            storage.remove_tree(writer.folder)
            raise RunError(
                f"the text has changed since window {self.number} of its rows was made; restore it, or begin anew"
            )
        if behind is None:
            write_end(self.train, self.number + 1, self.number * self._window_rows + rows)
        if folder.is_dir():
            storage.remove_tree(folder)
        storage.system.rename(writer.folder, folder)
        storage.sync_folder(self.train)

    def abandon(self) -> None:
        """Leave nothing of the window that is being filled."""
        if self._writer is not None:
            abandon(self._writer)
            self._writer = None
