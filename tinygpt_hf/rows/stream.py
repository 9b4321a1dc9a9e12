"""`--streaming`: a thread reads and tokenizes the text a few shards ahead of training; the shards are those of writer.py.

Training shows one shard, a window of the text, after another, the rows of each in an order of its own
(order.windowed_rows_at). Nothing depends on when the thread does what: a shard is waited for, and what is in it follows from the
text alone. A network that fails is tried again (sources.py); if it fails for good, training goes on to the last row that is
there, saves, and ends.

    with contextlib.ExitStack() as closing:
        rows = open_stream(corpus, tokenizer, folder, reading=True, closing=closing)    # the first shard is there
        rows.train.covers(first, count) or rows.train.lacking(first, count)             # waits for these rows
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
from tinygpt_hf.rows.build import Making, Prepared, row_facts
from tinygpt_hf.rows.store import IGNORED, Rows, rows_per_epoch, shard_folders
from tinygpt_hf.rows.writer import delete_shard, read_end, shard_folder, shard_manifest, write_end
from tinygpt_hf.settings.arguments import DataArguments

WINDOW_TOKENS = 1 << 22  # rows are shuffled among so many tokens: 8 MB, and some seconds of tokenizing
AHEAD = 3  # shards made before they are wanted; they stay until they have been shown
OPEN = 2  # shards held open: a step may lie across two
KEPT = AHEAD + 3  # shards on the disk when space is bounded: the first, the one or two of a step, and those ahead
LEAVING = 10.0  # seconds a reader that waits for the network is given to end


def window_rows(data: DataArguments) -> int:
    """Rows in a shard."""
    tokens = min(WINDOW_TOKENS, data.stream_window // KEPT) if data.stream_window else WINDOW_TOKENS
    return max(1, tokens // data.block_size)


def check_window(data: DataArguments, rows_per_step: int) -> None:
    """Refuse a bound on the disk that a step does not leave room for: it may lie across two shards, not across three. Shards of
    whole documents may be a quarter shorter."""
    share = 4 / 3 if data.packing == "bestfit" else 1
    if data.stream_window is not None and rows_per_step * share > window_rows(data):
        raise UsageError(
            f"--stream_window is {data.stream_window}, which makes windows of {window_rows(data)} rows",
            f"at least the {rows_per_step} rows of a step",
            f"use {KEPT * -int(-rows_per_step * share // 1) * data.block_size} or more",
        )


def stream_facts(facts: dict, data: DataArguments) -> dict:
    """What decides the shards, as JSON: kept in the manifest of each."""
    packed = {"packing": "bestfit"} if data.packing == "bestfit" else {}
    return facts | {"window_rows": window_rows(data)} | packed


def changed_stream(first: dict, facts: dict, data: DataArguments) -> list[str]:
    """What differs from what the first shard, known by its manifest, was made from, in words."""
    now = {"packing": data.packing, **stream_facts(facts, data)}
    known = {"packing": "wrap", **first}
    return ["stream_window" if name == "window_rows" else name for name in changes(known, now, now)]


def open_stream(corpus: Corpus, tokenizer, folder: Path, reading: bool, closing: contextlib.ExitStack) -> Prepared:
    """The rows in `folder`, once those of the first window and of the validation are there. `reading`: make them, and the
    windows that follow, until `closing` closes; the other processes of a run do not.
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
    """The shards in `folder`/train, read as one list of rows that grows: by the `reader` of this process, or by that of another
    one. Row numbers count from the beginning of the text."""

    def __init__(self, folder: Path, data: DataArguments, reader: "StreamReader | None" = None):
        self.folder, self._block_size, self._packed = folder / "train", data.block_size, data.packing == "bestfit"
        self._reader = reader
        self._open: dict[int, Rows] = {}
        self.first = self._shard(0)  # stands for all
        self.manifest, self.files, self.is_masked = self.first.manifest, self.first.files, self.first.is_masked
        self.num_tokens, self.num_documents, self.tokens = (
            self.first.num_tokens,
            self.first.num_documents,
            self.first.tokens,
        )
        self.window_rows: int = self.manifest["window_rows"]
        self._borders = [0]  # of whole documents, how many rows there are up to each shard
        self._end: dict | None = None

    @property
    def size(self) -> int | None:
        """How many rows there are; None until the text has ended."""
        self._end = self._end or read_end(self.folder)
        return self._end["rows"] if self._end else None

    def latest(self, count: int) -> np.ndarray:
        """As `Rows.latest`, of the first shard."""
        return self.first.latest(count)

    def total(self, *names: str) -> int:
        """As `Rows.total`, of the first shard."""
        return self.first.total(*names)

    def count(self, block_size: int, shifted: bool = False) -> int:
        """Rows in one epoch; before the end is known, in the first shard."""
        return self.size or self.first.count(block_size)

    def borders(self, behind: int) -> np.ndarray:
        """The first row of each shard up to the one of row `behind`, and where that ends; to the end of the text once it is
        known. Of whole documents those that are there are known, and the one that will be made next."""
        size = self.size
        if self._packed:
            while (size or behind + 1) > self._borders[-1] and (
                known := shard_manifest(self.folder, len(self._borders) - 1)
            ):
                self._borders.append(known["rows"])
            missing = [] if size == self._borders[-1] else [max(behind, self._borders[-1]) + 1]
            return np.array([*self._borders, *missing])
        found = np.arange(0, (size or behind + 1) + self.window_rows, self.window_rows)
        return np.append(found[:-1], size) if size else found

    def windows_of(self, first: int, count: int) -> list[tuple[int, int]]:
        """(epoch, shard) of the rows at positions [first, first + count), in order; in epoch 0 the last may not exist."""
        positions = np.arange(first, first + count)
        epochs, places = np.divmod(positions, self.size) if self.size else (np.zeros_like(positions), positions)
        windows = np.searchsorted(self.borders(int(places.max())), places, side="right") - 1
        return [(int(e), int(w)) for e, w in np.unique(np.stack([epochs, windows]), axis=1).T]

    def counted(self, first: int, count: int) -> range:
        """As `windows_of`, the shards counted on over the epochs."""
        found = self.windows_of(first, count)
        whole = self._end["windows"] if self._end else 0
        return range(found[0][0] * whole + found[0][1], found[-1][0] * whole + found[-1][1] + 1)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """As RowView.covers."""
        if shown is not None and self.counted(first, count)[-1] > self.counted(shown, 1)[0] + AHEAD:
            return False
        return all(self.is_there(number) for _, number in self.windows_of(first, count))

    def is_there(self, number: int) -> bool:
        """Is this shard there, and sound? Where another process reads, it has said so."""
        if self._reader:
            return number in self._reader.sound
        known, folder = shard_manifest(self.folder, number), shard_folder(self.folder, number)
        return known is not None and all((folder / name).is_file() for name in known["files"])

    def lacking(self, first: int, count: int, asked: Callable[[], bool] = lambda: False) -> Exception | None:
        """Wait for the rows at these positions: None once they are there, or where `asked` to wait no longer; else why they
        will not come. Rows before them are not shown again: theirs is the space that may be given back.
        """
        return self._reader.wait_for(self, first, count, asked) if self._reader else None

    def at(self, positions: np.ndarray, block_size: int, shifted: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Rows.at`: each shard's rows are permuted among themselves."""
        borders = self.borders(int(np.max(positions)))
        return order.windowed_rows_at(positions, borders, seed, self.size)

    def batch(self, indices, block_size: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As `Rows.batch`."""
        input_ids = np.zeros((len(indices), block_size), dtype=np.int64)
        labels = np.full_like(input_ids, IGNORED)
        for place, rows, inside in self._by_shard(indices):
            input_ids[place], labels[place] = rows.batch(inside, block_size)
        return input_ids, labels

    def position_ids(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """As `Rows.position_ids`."""
        found = np.zeros((len(indices), block_size), dtype=np.int64)
        for place, rows, inside in self._by_shard(indices):
            found[place] = rows.position_ids(inside, block_size)
        return found

    def _by_shard(self, indices):
        """(places in `indices`, the shard's rows, their numbers in it) for each shard."""
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
        """Hold a shard open no longer: it is deleted."""
        self._open.pop(number, None)

    def verify(self) -> None:
        """Who reads the text checks each shard before it is used."""


class StreamReader(Reporter):
    """The thread that reads, and what the thread that trains tells it. Until the first window is there, the bar is its own."""

    def __init__(self, corpus: Corpus, tokenizer, folder: Path):
        self._corpus, self._data, self._folder = corpus, corpus.data, folder
        self._train, self._reporter = folder / "train", corpus.reporter
        self._facts = stream_facts(row_facts(corpus, tokenizer), corpus.data)
        capacity = corpus.data.block_size * self._facts["window_rows"] + 1
        self._making = Making(corpus, tokenizer, folder, self._facts, capacity)
        self._changed = threading.Condition()
        self._wanted = range(1)  # from the window that is shown to the last one needed now, counted on over the epochs
        self.sound: set[int] = set()  # windows that were made or checked by this process, and are there
        self._found = {int(path.parent.name[-6:]) for path in self._train.glob("*/tokens.bin")}
        self._error: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    # The side that trains.

    def wait_for_first(self) -> None:
        """Return when the first window and the validation are there."""
        if not self._is_sound(0):
            self._reporter.stage("tokenizing", self._corpus.size)
            self._start(range(1))
            with self._changed:
                self._changed.wait_for(lambda: self._error or 0 in self.sound)
        self._reporter = Reporter()
        if self._error:
            raise self._error

    def wait_for(self, rows: StreamedRows, first: int, count: int, asked: Callable[[], bool]) -> Exception | None:
        """See `StreamedRows.lacking`."""
        while True:
            wanted = rows.counted(first, count)
            if self._thread is None:
                self._start(wanted)
            with self._changed:
                if wanted != self._wanted or self._found:
                    self._wanted = wanted
                    self._changed.notify_all()
                    self._give_back(rows, wanted)
                if rows.covers(first, count) or asked():
                    return None
                if self._error is not None:  # also a mistake in the text is found in the middle of the run
                    return RunError(str(self._error)) if isinstance(self._error, UsageError) else self._error
                self._changed.wait(0.2)

    def _give_back(self, rows: StreamedRows, wanted: range) -> None:
        """Delete the windows that are not wanted soon, where space is bounded; the first one stays."""
        found, self._found = self._found, set()
        if self._data.stream_window is None:
            return
        end = read_end(self._train)
        soon = range(wanted.start, wanted.stop + AHEAD)
        kept = {0} | {number % end["windows"] if end else number for number in soon}
        for number in (self.sound | found) - kept:
            self.sound.discard(number)
            rows.forget(number)
            delete_shard(self._train, number)

    def close(self) -> None:
        """End the thread; what is not final is removed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LEAVING)
        for folder in (self._train, self._folder / "validation", self._folder):
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing came of it

    def _start(self, wanted: range) -> None:
        self._wanted = wanted
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    # The thread that reads.

    def _run(self) -> None:
        try:
            self._read(self._wanted.start)
        except Exception as error:  # told where the rows are waited for
            self._error = error
        finally:
            self._tell()

    def _may_go_on(self, number: int) -> bool:
        """Wait until window `number`, counted on over the epochs, may be made; False if none will be wanted any more."""
        with self._changed:
            while not self._closed and number >= self._wanted.stop + AHEAD:
                self._changed.wait()
            return not self._closed

    def _read(self, number: int) -> None:
        while self._may_go_on(number):
            number = max(number, self._wanted.start)  # what is behind was needed for nothing but its end
            end = self._end(number)
            window = number % end["windows"] if end else number
            if self._is_sound(window):
                number += 1
                self._tell()
                continue
            while window and shard_manifest(self._train, window - 1) is None:
                number, window = number - 1, window - 1  # where it begins is not known
            with contextlib.closing(self._making.shards(window, self)) as made:
                for window in made:
                    self.sound.add(window)
                    self._tell()
                    number += 1
                    if not self._may_go_on(number) or self._is_sound(window + 1) or self._may_skip(number):
                        break

    def _may_skip(self, number: int) -> bool:
        """Is window `number` behind those that are wanted, and known where these begin?"""
        start, end = self._wanted.start, read_end(self._train)
        before = (start % end["windows"] if end else start) - 1
        return number < start and (before < 0 or shard_manifest(self._train, before) is not None)

    def _end(self, number: int) -> dict | None:
        """Where the text ends; written again from the last window where that is known of it alone."""
        before = shard_manifest(self._train, number - 1) if number else None
        if before is not None and before["next"] is None and read_end(self._train) is None:
            rows = rows_per_epoch(before["num_tokens"], self._data.block_size)
            write_end(self._train, number, before.get("rows") or (number - 1) * self._facts["window_rows"] + rows)
        return read_end(self._train)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_sound(self, window: int) -> bool:
        if window in self.sound:
            return True
        if window == 0 and not shard_folders(self._folder / "validation"):
            return False
        folder = shard_folder(self._train, window)
        damage = storage.damage(folder)
        if damage and not damage.endswith(".bin is missing") and folder.is_dir():
            self.say(f"note: {folder} is damaged ({damage}): it is made again")
            storage.remove_tree(folder)
        if damage is None:
            self.sound.add(window)
        return damage is None

    def say(self, line: str) -> None:
        self._corpus.reporter.say(line)

    def read(self, path: str, count: int, data=None) -> None:
        self._reporter.read(path, count)

    def encoded(self, size: int, tokens: int) -> None:
        """Told after every batch: nothing is made any more once the run has ended."""
        if self._closed:
            raise RunError("the run has ended")
        self._reporter.encoded(size, tokens)

    def rest(self, seconds: float) -> None:
        """Wait, unless the run ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=seconds)
            if self._closed:
                raise RunError("the run has ended")
