"""`--streaming`: a thread reads and tokenizes the text a few windows ahead of training (windows.py tells what it writes).

Nothing depends on when it does what: a window is waited for, and what is in it follows from the text alone. A network that
fails is tried again (sources.py); if it fails for good, training goes on to the last row that is there, saves, and ends.

    with contextlib.ExitStack() as closing:
        rows = open_stream(data, tokenizer, folder, seed, reading=True, closing=closing)    # the first window is there
        rows.train.covers(first, count) or rows.train.lacking(first, count)                 # waits for these rows
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading import split as corpus
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.rows import build as packing
from tinygpt_hf.rows.build import Prepared
from tinygpt_hf.rows.store import Rows, RowWriter, rows_per_epoch
from tinygpt_hf.rows.windows import (
    AHEAD,
    WindowedRows,
    WindowWriter,
    abandon,
    delete_window,
    read_end,
    window_folder,
    window_manifest,
    write_end,
)
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing.parallel import encode_all
from tinygpt_hf.tokenizing.tokenizer import tokenizer_hash

WINDOW_TOKENS = 1 << 22  # rows are shuffled among so many tokens: 8 MB, and some seconds of tokenizing
KEPT = AHEAD + 3  # windows on the disk when space is bounded: the first, the one or two of a step, and those ahead
LEAVING = 10.0  # seconds a reader that waits for the network is given to end


def window_rows(data: DataArguments) -> int:
    """Rows in a window."""
    tokens = min(WINDOW_TOKENS, data.stream_window // KEPT) if data.stream_window else WINDOW_TOKENS
    return max(1, tokens // data.block_size)


def check_window(data: DataArguments, rows_per_step: int) -> None:
    """Refuse a bound on the disk that a step does not leave room for."""
    if data.stream_window is not None and rows_per_step > window_rows(data):
        raise UsageError(
            f"--stream_window is {data.stream_window}, which makes windows of {window_rows(data)} rows",
            f"at least the {rows_per_step} rows of a step",
            f"use {KEPT * rows_per_step * data.block_size} or more",
        )


def the_source(data: DataArguments, seed: int) -> sources.Source:
    """The one source of these settings."""
    found = sources.training_sources(data, seed)
    if len(found) > 1:
        raise UsageError(
            f"--streaming is set for {len(found)} sources",
            "one: they would be shown one after another",
            "leave --streaming out: then all rows are shuffled",
        )
    return found[0]


def stream_facts(data: DataArguments, tokenizer, seed: int) -> dict:
    """What decides the windows, as JSON: kept in the manifest of each."""
    facts: dict[str, Any] = {"sources": [sources.fingerprint(the_source(data, seed))]}
    if data.validation_file:
        facts["validation"] = sources.fingerprint(sources.validation_source(data))
    else:
        facts["split"] = {"how": data.validation_split, "percentage": data.validation_split_percentage}
    return facts | {
        "tokenizer": tokenizer_hash(tokenizer),
        "block_size": data.block_size,
        "window_rows": window_rows(data),
    }


def open_stream(
    data: DataArguments,
    tokenizer,
    folder: Path,
    seed: int,
    reading: bool,
    closing: contextlib.ExitStack,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int, float | None], None] = lambda done, tokens, share: None,
) -> Prepared:
    """The rows in `folder`, once those of the first window and of the validation are there. `reading`: make them, and the
    windows that follow, until `closing` closes; the other processes of a run do not.
    """
    known = window_manifest(folder / "train", 0)
    if known is None and (folder / "train" / storage.MANIFEST).is_file():
        raise UsageError(
            f"the rows in {folder} were made without --streaming", "rows that grow", "leave --streaming out"
        )
    if known is not None:
        facts = stream_facts(data, tokenizer, seed)
        changed = ["stream_window" if name == "window_rows" else name for name in changes(known, facts, facts)]
        if changed:
            raise UsageError(
                f"the rows in {folder} were made from other {', '.join(changed)}",
                "the data of the run so far",
                "restore it, or start afresh with --overwrite or another --output_dir",
            )
    reader = None
    if reading:
        reader = StreamReader(data, tokenizer, folder, seed, say, progress)
        (folder / "train").mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / "train"):
            storage.remove_temporary(place)
        closing.callback(reader.close)
        reader.wait_for_first()
    train = StreamedRows(folder, data.block_size, reader)
    prepared = Prepared(train, Rows(folder / "validation"), encoded=None if known else train.first.num_tokens)
    prepared.notes = sources.remarks(sources.all_sources(data, seed)) if reading else []
    return prepared


class StreamedRows(WindowedRows):
    """Windows that are being made: by the `reader` of this process, or by that of another one."""

    def __init__(self, folder: Path, block_size: int, reader: "StreamReader | None"):
        super().__init__(folder, block_size)
        self._reader = reader

    def is_there(self, number: int) -> bool:
        """Is this window there, and sound? Where another process reads, it has said so."""
        return number in self._reader.sound if self._reader else super().is_there(number)

    def lacking(self, first: int, count: int, asked: Callable[[], bool] = lambda: False) -> Exception | None:
        """Wait for the rows at these positions: None once they are there, or where `asked` to wait no longer; else why they
        will not come. Rows before them are not shown again: theirs is the space that may be given back.
        """
        return self._reader.wait_for(self, first, count, asked) if self._reader else None


class StreamReader:
    """The thread that reads, and what the thread that trains tells it."""

    def __init__(self, data: DataArguments, tokenizer, folder: Path, seed: int, say, progress):
        self._data, self._tokenizer, self._folder, self._seed = data, tokenizer, folder, seed
        self._train, self._say, self._progress = folder / "train", say, progress
        self._source = the_source(data, seed)
        self._facts = stream_facts(data, tokenizer, seed)
        self._changed = threading.Condition()
        self._wanted = range(1)  # from the window that is shown to the last one needed now, counted on over the epochs
        self.sound: set[int] = set()  # windows that were made or checked by this process, and are there
        self._found = {int(path.parent.name.rpartition("-")[2]) for path in self._train.glob("window-*/tokens.bin")}
        self._error: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    # The side that trains.

    def wait_for_first(self) -> None:
        """Return when the first window and the validation are there."""
        if not self._is_sound(0):
            self._start(range(1))
            with self._changed:
                self._changed.wait_for(lambda: self._error or 0 in self.sound)
        self._progress = lambda done, tokens, share: None
        if self._error:
            raise self._error

    def wait_for(self, rows: WindowedRows, first: int, count: int, asked: Callable[[], bool]) -> Exception | None:
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

    def _give_back(self, rows: WindowedRows, wanted: range) -> None:
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
            delete_window(self._train, number)

    def close(self) -> None:
        """End the thread; what is not final is removed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LEAVING)
        for folder in (self._train, self._folder):
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
            while window and window_manifest(self._train, window - 1) is None:
                number, window = number - 1, window - 1  # where it begins is not known
            with contextlib.closing(self._made(window)) as made:
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
        return number < start and (before < 0 or window_manifest(self._train, before) is not None)

    def _end(self, number: int) -> dict | None:
        """Where the text ends; written again from the last window where that is known of it alone."""
        before = window_manifest(self._train, number - 1) if number else None
        if before is not None and before["next"] is None and read_end(self._train) is None:
            rows = rows_per_epoch(before["num_tokens"], self._data.block_size)
            write_end(self._train, number, (number - 1) * self._facts["window_rows"] + rows)
        return read_end(self._train)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_sound(self, window: int) -> bool:
        if window in self.sound:
            return True
        if window == 0 and not (self._folder / "validation").is_dir():
            return False
        folder = window_folder(self._train, window)
        damage = storage.damage(folder)
        if damage and not damage.endswith(".bin is missing") and folder.is_dir():
            self._say(f"note: {folder} is damaged ({damage}): it is made anew")
            storage.remove_tree(folder)
        if damage is None:
            self.sound.add(window)
        return damage is None

    def _made(self, window: int) -> Generator[int]:
        """Make windows from this one on; yields the number of each one that became final."""
        place = {"rows": 0, "state": None, "documents": 0, "items": 0, "skip": 0}
        if window:
            place = window_manifest(self._train, window - 1)["next"]
        how = self._how()
        facts = {**self._facts, "how": how}
        writer = WindowWriter(self._train, window, self._data.block_size, facts, len(self._tokenizer))
        validation = self._validation(facts) if window == 0 else None
        batches = self._encoded(self._items(how, place))

        def made(found: Iterator[int]) -> Iterator[int]:
            """The windows that the writer names before they are final, when they are."""
            nonlocal validation
            for number in found:
                if validation is not None:  # never changed once there is a window
                    if how == "tail" and validation.num_tokens < 2:
                        raise UsageError(
                            "the text is a few long documents, and longer than the first window",
                            "validation text early in the stream: the tail of each is read last",
                            "give --validation_file, or leave --streaming out",
                        )
                    packing.check_parts({"train": writer.writer, "validation": validation}, self._data)
                    published, validation = validation, None
                    published.__exit__(None, None, None)
                next(found, None)
                yield number

        try:
            for batch, found in batches:
                for (part, document, where), encoded in zip(batch, found, strict=True):
                    if part == "train":
                        if where["skip"] == 0:
                            packing.count_document(writer.writer.facts, document, encoded)
                        begins = document.get("begins", True)
                        yield from made(writer.add(encoded.ids, encoded.mask, begins, where))
                    elif validation is not None:
                        packing.write_document(validation, document, encoded)
                if self._closed:
                    return
                self._progress(writer.writer.facts.get("num_bytes", 0), writer.writer.num_tokens, None)
            yield from made(writer.finish())
        finally:
            batches.close()  # and with them the processes
            writer.abandon()
            if validation is not None:
                abandon(validation)

    def _how(self) -> str:
        """How documents are held out: as the first window's were, as is wanted, or as many as there are."""
        known = window_manifest(self._train, 0)
        if known is not None:
            return known["how"]
        documents = sources.documents(self._source, say=self._say, wait=self._rest)
        return corpus.choose_split(documents, self._data.validation_split)[0]

    def _validation(self, facts: dict) -> RowWriter | None:
        """Where held-out documents go, the whole validation file already in it; None where the validation is there."""
        folder = self._folder / "validation"
        if folder.is_dir() and window_manifest(self._train, 0) is not None:
            return None
        if folder.is_dir():  # the process was killed before the first window was final
            storage.remove_tree(folder)
        writer = RowWriter(folder, len(self._tokenizer), dict(facts))
        writer.__enter__()
        try:
            if self._data.validation_file:
                documents = sources.documents(sources.validation_source(self._data), in_pieces=True)
                items = packing.long_items((("validation", document) for document in documents), self._tokenizer)
                for batch, found in self._encoded(items):
                    for (_, document), encoded in zip(batch, found, strict=True):
                        packing.write_document(writer, document, encoded)
        except BaseException:
            abandon(writer)
            raise
        return writer

    def _encoded(self, items: Iterator[tuple]) -> Generator[tuple]:
        """(batch of items, what they are encoded to), in order."""
        documents_of = lambda batch: [document for _, document, *_ in batch]  # noqa: E731
        longest, processes = self._data.block_size + 1, self._data.num_proc
        return encode_all(packing.batched(items), documents_of, self._tokenizer, longest, processes)

    def _items(self, how: str, begin: dict) -> Iterator[tuple[str, dict, dict]]:
        """(part, document or part of one, where it is found again) from the place `begin` on."""
        first = last_noted = sources.Place(begin["rows"], begin["state"])
        since = 0  # documents since the place noted last

        def note(place: sources.Place) -> None:
            nonlocal last_noted, since
            last_noted, since = place, 0

        opened = window_manifest(self._train, 0) is not None
        documents = sources.documents(
            self._source, in_pieces=True, begin=first, note=note, say=self._say, wait=self._rest, opened=opened
        )
        for document in documents:
            number, since = since, since + 1
            again = last_noted is first and number <= begin["documents"]  # was read before
            if again and number < begin["documents"]:
                continue
            where = {"rows": last_noted.rows, "state": last_noted.state, "documents": number}
            parts = packing.parts_of(document, how, self._data, self._source.weight)
            for index, (part, item) in enumerate(packing.long_items(parts, self._tokenizer)):
                if not again or index >= begin["items"]:
                    skip = begin["skip"] if again and index == begin["items"] else 0
                    yield part, item, {**where, "items": index, "skip": skip}

    def _rest(self, seconds: float) -> None:
        """Wait, unless the run ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=seconds)
            if self._closed:
                raise RunError("the run has ended")
