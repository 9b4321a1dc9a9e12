"""Train while the text is being read (`--streaming`): a thread tokenizes it a few shards ahead of training.

A shard (writer.py) is one window of the text. Training uses the windows one after another, with the rows of each shuffled
(order.windowed_rows_at). A shard depends on the text alone, not on timing, because training waits for it. A failing network
is retried (sources.py); if it stays down, training continues to the last row available, saves, and ends.

    with contextlib.ExitStack() as closing:
        rows = open_stream(corpus, tokenizer, folder, reading=True, closing=closing)    # waits for the first shard
        rows.train.covers(first, count) or rows.train.wait_for_rows(first, count)             # waits for these rows
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.reporter import Reporter
from tinygpt_hf.rows import order
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.build import Prepared, ShardBuilder, row_facts
from tinygpt_hf.rows.store import IGNORED, Rows, rows_per_epoch, shard_folders
from tinygpt_hf.rows.writer import delete_shard, read_end, shard_folder, shard_manifest, write_end
from tinygpt_hf.settings.arguments import DataArguments

WINDOW_TOKENS = 1 << 22  # tokens that are shuffled together: 8 MB, some seconds of tokenizing
AHEAD = 3  # shards read ahead of training
OPEN = 2  # shards kept open: a step may use two
KEPT = AHEAD + 3  # shards on disk when space is bounded: the first, one or two for a step, and those read ahead
LEAVING = 10.0  # seconds to wait for the thread to end while it waits for the network


def window_rows(data: DataArguments) -> int:
    """Return the number of rows in a shard."""
    tokens = min(WINDOW_TOKENS, data.stream_window // KEPT) if data.stream_window else WINDOW_TOKENS
    return max(1, tokens // data.block_size)


def check_window(data: DataArguments, rows_per_step: int) -> None:
    """Raise UsageError if --stream_window is too small: a step may use two shards, but not three."""
    share = 4 / 3 if data.packing == "bestfit" else 1  # shards of whole documents may be a quarter shorter
    if data.stream_window is not None and rows_per_step * share > window_rows(data):
        raise UsageError(
            f"--stream_window is {data.stream_window}, which makes windows of {window_rows(data)} rows",
            f"at least the {rows_per_step} rows of a step",
            f"use {KEPT * -int(-rows_per_step * share // 1) * data.block_size} or more",
        )


def stream_facts(facts: dict, data: DataArguments) -> dict:
    """Return what determines the shards, as JSON; it is stored in the manifest of each."""
    packed = {"packing": "bestfit"} if data.packing == "bestfit" else {}
    return facts | {"window_rows": window_rows(data)} | packed


def changed_stream(first: dict, facts: dict, data: DataArguments) -> list[str]:
    """List the differences between the manifest of the first shard and the current text and settings."""
    now = {"packing": data.packing, **stream_facts(facts, data)}
    known = {"packing": "wrap", **first}
    return ["stream_window" if name == "window_rows" else name for name in changes(known, now, now)]


def open_stream(corpus: Corpus, tokenizer, folder: Path, reading: bool, closing: contextlib.ExitStack) -> Prepared:
    """Return the rows in `folder` as soon as the first window and the validation rows exist.

    With `reading` a thread of this process builds them, and the following windows until `closing` closes. The other processes
    of a run only read the shards.
    """
    known = shard_manifest(folder / "train", 0)
    reader = None
    if reading:
        reader = StreamReader(corpus, tokenizer, folder)
        (folder / "train").mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / "train", folder / "validation"):
            storage.remove_temporary(place)
        closing.callback(reader.close)
        reader.wait_for_first()
    train = StreamedRows(folder, corpus.data, reader)
    prepared = Prepared(train, Rows(folder / "validation"), encoded=None if known else train.first.num_tokens)
    prepared.notes = corpus.remarks if reading else []
    return prepared


class StreamedRows:
    """A growing list of rows in the shards of `folder`/train, with the same methods as Rows.

    The shards are built by the `reader` of this process or, if it is None, by another process.
    """

    def __init__(self, folder: Path, data: DataArguments, reader: "StreamReader | None" = None):
        self.folder, self._block_size, self._packed = folder / "train", data.block_size, data.packing == "bestfit"
        self._reader = reader
        self._open: dict[int, Rows] = {}
        self.first = first = self._shard(0)  # represents all shards in reports
        self.manifest, self.files, self.is_masked = first.manifest, first.files, first.is_masked
        self.num_tokens, self.num_documents = first.num_tokens, first.num_documents
        self.window_rows: int = self.manifest["window_rows"]
        self._borders = [0]  # with best-fit packing: the number of rows before each shard
        self._end: dict | None = None

    @property
    def size(self) -> int | None:
        """Return the number of rows; None until the text has ended."""
        self._end = self._end or read_end(self.folder)
        return self._end["rows"] if self._end else None

    def latest(self, count: int) -> np.ndarray:
        """Return the last `count` ids of the first shard."""
        return self.first.latest(count)

    def total(self, *names: str) -> int:
        """Return a count from the manifest of the first shard; `names` is the path to it."""
        return self.first.total(*names)

    def count(self, block_size: int, shifted: bool = False) -> int:
        """Return the number of rows in one epoch, or in the first shard before the end of the text is known."""
        return self.size or self.first.count(block_size)

    def borders(self, behind: int) -> np.ndarray:
        """Return the first row of each shard, up to the shard of row `behind`, and the row after the last of them.

        Once the text has ended, all shards are included. With best-fit packing only existing shards have known sizes, so the
        next one is assumed to reach to `behind`.
        """
        size = self.size
        if self._packed:
            while (size or behind + 1) > self._borders[-1] and (
                known := shard_manifest(self.folder, len(self._borders) - 1)
            ):
                self._borders.append(known["rows"])
            missing = [] if size == self._borders[-1] else [max(behind, self._borders[-1]) + 1]
            return np.array([*self._borders, *missing])
        borders = np.arange(0, (size or behind + 1) + self.window_rows, self.window_rows)
        return np.append(borders[:-1], size) if size else borders

    def windows_at(self, first: int, count: int) -> list[tuple[int, int]]:
        """List the (epoch, shard) of positions [first, first + count), in order; shards of epoch 0 may not exist yet."""
        positions = np.arange(first, first + count)
        epochs, places = np.divmod(positions, self.size) if self.size else (np.zeros_like(positions), positions)
        windows = np.searchsorted(self.borders(int(places.max())), places, side="right") - 1
        return [(int(e), int(w)) for e, w in np.unique(np.stack([epochs, windows]), axis=1).T]

    def window_range(self, first: int, count: int) -> range:
        """Return the shards of positions [first, first + count), numbered consecutively over the epochs."""
        windows = self.windows_at(first, count)
        (first_epoch, first_window), (last_epoch, last_window) = windows[0], windows[-1]
        per_epoch = self._end["windows"] if self._end else 0
        return range(first_epoch * per_epoch + first_window, last_epoch * per_epoch + last_window + 1)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """Check that the rows at these positions are ready, and stay while the row at position `shown` is in use."""
        if shown is not None and self.window_range(first, count)[-1] > self.window_range(shown, 1)[0] + AHEAD:
            return False
        return all(self.is_complete(number) for _, number in self.windows_at(first, count))

    def is_complete(self, number: int) -> bool:
        """Check that a shard is complete and undamaged; without a reader, that its files exist."""
        if self._reader:
            return number in self._reader.ready
        known, folder = shard_manifest(self.folder, number), shard_folder(self.folder, number)
        return known is not None and all((folder / name).is_file() for name in known["files"])

    def wait_for_rows(self, first: int, count: int, asked: Callable[[], bool] = lambda: False) -> Exception | None:
        """Wait for the rows at these positions; returns None once they are ready, or the error that prevents them.

        Returns None early if `asked()` becomes true. Earlier rows are not needed again, so their shards may be deleted.
        """
        return self._reader.wait_for(self, first, count, asked) if self._reader else None

    def at(self, positions: np.ndarray, block_size: int, shifted: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (epoch, row) for each of these training positions; each shard's rows are permuted separately."""
        borders = self.borders(int(np.max(positions)))
        return order.windowed_rows_at(positions, borders, seed, self.size)

    def batch(self, indices, block_size: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return rows `indices` as (input_ids, labels), each (B, T) int64."""
        input_ids = np.zeros((len(indices), block_size), dtype=np.int64)
        labels = np.full_like(input_ids, IGNORED)
        for place, rows, inside in self._by_shard(indices):
            input_ids[place], labels[place] = rows.batch(inside, block_size)
        return input_ids, labels

    def position_ids(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """Return the position of each input inside its document, (B, T) int64."""
        positions = np.zeros((len(indices), block_size), dtype=np.int64)
        for place, rows, inside in self._by_shard(indices):
            positions[place] = rows.position_ids(inside, block_size)
        return positions

    def _by_shard(self, indices):
        """Yield (positions in `indices`, the shard's rows, row numbers inside the shard) for each shard."""
        indices = np.asarray(indices, dtype=np.int64)
        borders = self.borders(int(indices.max()))
        numbers = np.searchsorted(borders, indices, side="right") - 1
        for number in np.unique(numbers):
            place = np.flatnonzero(numbers == number)
            yield place, self._shard(int(number)), indices[place] - borders[number]

    def _shard(self, number: int) -> Rows:
        folder, known = shard_folder(self.folder, number), self._open.pop(number, None)
        rows = known or (BestFitRows(folder, self._block_size) if self._packed else Rows(folder))
        self._open = {**dict(list(self._open.items())[-OPEN + 1 :]), number: rows}
        return rows

    def forget(self, number: int) -> None:
        """Close a shard before it is deleted."""
        self._open.pop(number, None)

    def verify(self) -> None:
        """Do nothing: the reader checks each shard before it is used."""


class StreamReader(Reporter):
    """A background thread that builds the shards, and the requests of the training thread.

    Progress is reported until the first window is ready.
    """

    def __init__(self, corpus: Corpus, tokenizer, folder: Path):
        self._corpus, self._data, self._folder = corpus, corpus.data, folder
        self._train, self._reporter = folder / "train", corpus.reporter
        self._facts = stream_facts(row_facts(corpus, tokenizer), corpus.data)
        capacity = corpus.data.block_size * self._facts["window_rows"] + 1
        self._builder = ShardBuilder(corpus, tokenizer, folder, self._facts, capacity)
        self._changed = threading.Condition()
        self._wanted = range(1)  # windows needed now, numbered consecutively over the epochs
        self.ready: set[int] = set()  # windows built or checked by this process, and not deleted
        self._leftover = {int(path.parent.name[-6:]) for path in self._train.glob("*/tokens.bin")}
        self._error: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    # Called by the training thread.

    def wait_for_first(self) -> None:
        """Wait until the first window and the validation rows exist; raises the error of the reading thread."""
        if not self._is_ready(0):
            self._reporter.stage("tokenizing", self._corpus.size)
            self._start(range(1))
            with self._changed:
                self._changed.wait_for(lambda: self._error or 0 in self.ready)
        self._reporter = Reporter()
        if self._error:
            raise self._error

    def wait_for(self, rows: StreamedRows, first: int, count: int, asked: Callable[[], bool]) -> Exception | None:
        """Wait for the rows at these positions, as described at `StreamedRows.wait_for_rows`."""
        while True:
            wanted = rows.window_range(first, count)
            if self._thread is None:
                self._start(wanted)
            with self._changed:
                if wanted != self._wanted or self._leftover:
                    self._wanted = wanted
                    self._changed.notify_all()
                    self._delete_used(rows, wanted)
                if rows.covers(first, count) or asked():
                    return None
                if self._error is not None:  # in the middle of a run, an error in the text is no usage error
                    return RunError(str(self._error)) if isinstance(self._error, UsageError) else self._error
                self._changed.wait(0.2)

    def _delete_used(self, rows: StreamedRows, wanted: range) -> None:
        """Delete the windows that are not needed soon, if disk space is bounded; the first one stays."""
        leftover, self._leftover = self._leftover, set()
        if self._data.stream_window is None:
            return
        end = read_end(self._train)
        soon = range(wanted.start, wanted.stop + AHEAD)
        kept = {0} | {number % end["windows"] if end else number for number in soon}
        for number in (self.ready | leftover) - kept:
            self.ready.discard(number)
            rows.forget(number)
            delete_shard(self._train, number)

    def close(self) -> None:
        """End the thread and delete its unfinished shard."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LEAVING)
        for folder in (self._train, self._folder / "validation", self._folder):
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails unless the folder is empty

    def _start(self, wanted: range) -> None:
        self._wanted = wanted
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    # Called by the reading thread.

    def _run(self) -> None:
        try:
            self._read(self._wanted.start)
        except Exception as error:  # raised or returned where the training thread waits for rows
            self._error = error
        finally:
            self._notify()

    def _may_go_on(self, number: int) -> bool:
        """Wait until window `number`, numbered over the epochs, may be built; returns False once the run has ended."""
        with self._changed:
            while not self._closed and number >= self._wanted.stop + AHEAD:
                self._changed.wait()
            return not self._closed

    def _read(self, number: int) -> None:
        while self._may_go_on(number):
            number = max(number, self._wanted.start)  # earlier windows were only needed for their resume points
            end = self._end(number)
            window = number % end["windows"] if end else number
            if self._is_ready(window):
                number += 1
                self._notify()
                continue
            while window and shard_manifest(self._train, window - 1) is None:
                number, window = number - 1, window - 1  # without that manifest the resume point is unknown
            with contextlib.closing(self._builder.shards(window, self)) as built:
                for window in built:
                    self.ready.add(window)
                    self._notify()
                    number += 1
                    if not self._may_go_on(number) or self._is_ready(window + 1) or self._may_skip(number):
                        break

    def _may_skip(self, number: int) -> bool:
        """Check that window `number` comes before the wanted ones, and that their resume point is known."""
        start, end = self._wanted.start, read_end(self._train)
        before = (start % end["windows"] if end else start) - 1
        return number < start and (before < 0 or shard_manifest(self._train, before) is not None)

    def _end(self, number: int) -> dict | None:
        """Return the end of the text if known; writes it again if only the last window's manifest has it."""
        before = shard_manifest(self._train, number - 1) if number else None
        if before is not None and before["next"] is None and read_end(self._train) is None:
            rows = rows_per_epoch(before["num_tokens"], self._data.block_size)
            write_end(self._train, number, before.get("rows") or (number - 1) * self._facts["window_rows"] + rows)
        return read_end(self._train)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_ready(self, window: int) -> bool:
        if window in self.ready:
            return True
        if window == 0 and not shard_folders(self._folder / "validation"):
            return False
        folder = shard_folder(self._train, window)
        damage = storage.find_damage(folder)
        if damage and not damage.endswith(".bin is missing") and folder.is_dir():
            self.say(f"note: {folder} is damaged ({damage}): building it again")
            storage.remove_tree(folder)
        if damage is None:
            self.ready.add(window)
        return damage is None

    def say(self, line: str) -> None:
        self._corpus.reporter.say(line)

    def read(self, path: str, count: int, data=None) -> None:
        self._reporter.read(path, count)

    def encoded(self, size: int, tokens: int) -> None:
        """Report progress; raises RunError once the run has ended, which stops the thread at the next batch."""
        if self._closed:
            raise RunError("the run has ended")
        self._reporter.encoded(size, tokens)

    def rest(self, seconds: float) -> None:
        """Wait `seconds`; raises RunError if the run ends meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=seconds)
            if self._closed:
                raise RunError("the run has ended")
