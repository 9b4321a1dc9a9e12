"""Read documents one by one from files, folders, URLs and datasets.

A document is {"text": str} or {"messages": [...]}, with its file and position under "origin". formats.py describes the file
formats, discovery.py the search for files.

    for document in documents(Source(files=("books", "https://host/more.txt.gz"))): ...
"""

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.reading.decoding import first_words
from tinygpt_hf.reading.discovery import File, files_below, find_files, skipped_endings
from tinygpt_hf.reading.formats import Reading, file_documents, row_document
from tinygpt_hf.reading.python_text import PREFIX, PythonText, is_resumable, row_of
from tinygpt_hf.reading.reporter import SILENT, Reporter, retried
from tinygpt_hf.reading.tables import without_nulls
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.parsing import convert

MOST_REPETITIONS = 1000  # a larger weight is taken for a typing error
SPLITS = "dataset_dict.json"  # the file in a saved DatasetDict that lists its splits
LISTED = 20  # files named in the manifest of each window of a stream
OPENING = 64  # documents hashed to identify an IterableDataset
NOTED_EVERY = 1000  # rows between two resume points of a dataset
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each retry of a dataset
DATA_ERRORS = (ValueError, TypeError, LookupError, MemoryError)  # errors of the data, which a retry cannot fix


@dataclass(frozen=True)
class Source:
    """Files or a dataset that documents are read from.

    `weight` is how often each document is used. `found` holds the files once they were searched (`with_files`).
    """

    files: tuple[str, ...] = ()
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    dataset_split: str = "train"
    dataset_revision: str | None = None
    text_column: str | None = None
    document_separator: str | None = None
    streaming: bool = False
    max_samples: int | None = None
    weight: float = 1.0
    seed: int = 0
    encoding_errors: str = "strict"
    found: tuple[File, ...] | None = None

    @property
    def remote(self) -> bool:
        """Return whether it is streamed parquet behind URLs, which is read by row groups and never downloaded as a whole."""
        if not (self.streaming and self.files):
            return False
        urls = [urlparse(name) for name in self.files]
        return all(url.scheme in ("http", "https") and url.path.endswith(".parquet") for url in urls)

    @property
    def how(self) -> Reading:
        """Return the settings with which its files are read."""
        return Reading(self.text_column, self.document_separator, self.encoding_errors)

    @property
    def name(self) -> str:
        """Return the name shown in messages, without secrets."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return redacted(self.dataset_name or self.files[0] + more)


@dataclass(frozen=True)
class ResumePoint:
    """A resume point before row `rows`; `state` is the dataset's state there, `hash` the hash of that row."""

    rows: int = 0
    state: dict | None = None
    hash: str | None = None


def training_sources(data: DataArguments, seed: int = 0) -> list[Source]:
    """List the sources that the settings name; raises UsageError if they contradict each other."""
    if data.sources:
        if data.train_file or data.dataset_name:
            raise UsageError(
                "data.sources is given beside train_file or dataset_name", "one of them", "move it into the list"
            )
        known = {f.name for f in fields(Source)} - {"files", "max_samples", "seed", "found"} | {
            "train_file",
            "max_train_samples",
        }
        sources = []
        for number, entry in enumerate(data.sources, 1):
            unknown = set(entry) - known if isinstance(entry, dict) else {repr(entry)}
            if unknown:
                raise UsageError(
                    f"data.sources, entry {number}: {', '.join(map(str, sorted(unknown)))}",
                    f"one of {', '.join(sorted(known))}",
                    "fix it",
                )
            where = f"data.sources, entry {number}: "
            types = {f.name: f.type for f in fields(DataArguments)} | {"weight": float}
            values = {name: convert(value, types[name], where + name) for name, value in entry.items()}
            weight = values.pop("weight", 1.0)
            if not 0 < weight <= MOST_REPETITIONS:
                raise UsageError(f"{where}weight is {weight:g}", f"above 0, at most {MOST_REPETITIONS}", "try 0.5")
            entry_data = replace(data, sources=None, **values)
            sources += [replace(source, weight=weight) for source in training_sources(entry_data, seed)]
        return sources
    if data.document_separator == "":
        raise UsageError("document_separator is empty", "`blank_line` or a marker", "leave it out")
    if data.train_file and data.dataset_name:
        raise UsageError("--train_file and --dataset_name are both given", "one of them", "use data.sources for a mix")
    if not data.train_file and not data.dataset_name:
        raise UsageError("there is no text to read", "--train_file or --dataset_name", "try --dataset_name toyland")
    located = _located(data.train_file) if data.train_file else {"dataset_name": data.dataset_name}
    copied = ("dataset_config_name", "dataset_split", "dataset_revision", "streaming")
    options = {name: getattr(data, name) for name in copied}
    seed = seed if data.dataset_name == "toyland" else 0  # only toyland's documents depend on it
    return [Source(**located, **options, **_how(data), max_samples=data.max_train_samples, seed=seed)]


def validation_source(data: DataArguments) -> Source:
    """Return the source of --validation_file."""
    return Source(**_located(data.validation_file), **_how(data))


def _how(data: DataArguments) -> dict:
    return {name: getattr(data, name) for name in ("text_column", "document_separator", "encoding_errors")}


def _located(names: list[str]) -> dict:
    """Return the fields of a Source for a list of files: a dataset in Python or saved to disk, else files."""
    for name in names:
        if isinstance(name, PythonText) or _is_saved(name):
            if len(names) > 1:
                raise UsageError(f"{name} is given beside other files", "a dataset alone", "use data.sources for a mix")
            return {"dataset_name": name}
        if name.startswith(PREFIX):
            wanted = "a text that can be read again"
            raise UsageError(f"the text was {name}, a Python object", wanted, "give it again: train(data=...)")
    return {"files": tuple(names)}


def _is_saved(name: str) -> bool:
    """Check for a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    folder = Path(name)
    return (folder / SPLITS).is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def with_files(source: Source) -> Source:
    """Return the source with its list of files fixed, so that later files are not added."""
    return source if source.dataset_name or source.remote else replace(source, found=tuple(files_of(source)))


def fingerprint(source: Source, hash_of: Callable[[str], str] = storage.file_hash) -> dict:
    """Return what determines the documents of a source, as JSON without secrets.

    Files, also those of a local dataset, are identified by name, size and sha256, other datasets by their name. Streamed files
    are not read in advance, so they are identified by name and size only.
    """
    facts = {f.name: getattr(source, f.name) for f in fields(source) if getattr(source, f.name) != f.default}
    facts.pop("found", None)
    local = source.dataset_name and source.dataset_name != "toyland" and os.path.isdir(source.dataset_name)
    if isinstance(source.dataset_name, PythonText):
        return facts | {"files": [_content(source)]}
    if source.remote:
        files = [(None, url) for url in source.files]
    elif local:
        paths = sorted(files_below(source.dataset_name))
        files = [(path, os.path.relpath(path, source.dataset_name)) for path in paths]
    else:
        files = [(path, name if name != path else Path(path).name) for path, name, _ in files_of(source)]
    if source.streaming and files:
        named = [{"name": name, "size": os.path.getsize(path) if path else None} for path, name in files]
        facts |= {"files": named[:LISTED], "num_files": len(named), "listing": storage.value_hash(named)}
    elif files:
        facts["files"] = [
            {"name": name, "size": os.path.getsize(path), "sha256": hash_of(path)} for path, name in files
        ]
    return redacted(facts)


def _content(source: Source) -> dict:
    """Return the name, size and sha256 of a Python text; of a stream, of its first documents."""
    digest, size = hashlib.sha256(), 0
    for document in itertools.islice(documents(source), OPENING if source.streaming else None):
        content = json.dumps(document.get("text", document.get("messages")), sort_keys=True).encode()
        digest.update(content + b"\n")
        size += len(content)
    name = f"{source.dataset_name} {digest.hexdigest()[:8]}"
    return {"name": name, "size": None if source.streaming else size, "sha256": digest.hexdigest()}


def remarks(every: list[Source]) -> list[str]:
    """List messages about files and splits that are not read."""
    lines = [file.note for source in every for file in files_of(source) if file.note]
    lines += [note for source in every if (note := _unread_splits(source))]
    if others := skipped_endings(name for source in every if not source.dataset_name for name in source.files):
        words = ", ".join(f"{ending} ({number})" for ending, number in others.items())
        lines.append(f"files not read for their endings: {words}")
    return lines


def _unread_splits(source: Source) -> str | None:
    name = source.dataset_name
    if isinstance(name, PythonText):
        return name.note
    if name and (Path(name) / SPLITS).is_file():
        others = [split for split in storage.read_json(Path(name) / SPLITS)["splits"] if split != source.dataset_split]
        return f"splits not read: {', '.join(others)} (--validation_file {name}/SPLIT reads one)" if others else None
    return None


def files_of(source: Source) -> Iterable[File]:
    """Return the files of a source; none for a dataset or for streamed URLs."""
    if source.dataset_name or source.remote:
        return ()
    return find_files(source.files) if source.found is None else source.found


def documents(
    source: Source,
    in_pieces: bool = False,
    reporter: Reporter = SILENT,
    keep_broken: bool = False,
    begin: ResumePoint = ResumePoint(),
    opened: bool = False,
) -> Iterator[dict]:
    """Yield all documents of a source in a fixed order; `in_pieces` and `keep_broken` as in `Reading`.

    A document may have a `place`, from which another call can `begin`. With `opened` the source was opened before, so a
    failure to open it is retried as a network error.
    """
    how = replace(source.how, in_pieces=in_pieces, keep_broken=keep_broken)
    if source.dataset_name == "toyland":
        every = _toyland(source)
    elif source.dataset_name or source.remote:
        every = _dataset(source, how, begin, reporter, opened)
    else:
        files = files_of(source)
        every = (_named(document, file) for file in files for document in file_documents(file.path, how, reporter))
    return itertools.islice(every, None if source.max_samples is None else max(0, source.max_samples - begin.rows))


def _named(document: dict, file: File) -> dict:
    return {**document, "origin": file.name + document["origin"].removeprefix(file.path)}


def _toyland(source: Source) -> Iterator[dict]:
    from tinygpt_hf.toyland import corpus as toyland

    if source.dataset_split not in ("train", "heldout"):
        raise UsageError(f"toyland has no split {source.dataset_split!r}", "train or heldout", "check --dataset_split")
    if source.max_samples is None:
        raise UsageError("toyland has no end", "how many documents to write", "try --max_train_samples 20000")
    kinds = {None: ("story", "facts", "dialogue"), "text": ("story", "facts"), "dialogues": ("dialogue",)}
    if source.dataset_config_name not in kinds:
        problem = f"toyland has no configuration {source.dataset_config_name!r}"
        raise UsageError(problem, "text or dialogues, or none for both", "check --dataset_config_name")
    wanted = kinds[source.dataset_config_name]
    for document in toyland.documents(source.seed, sys.maxsize, source.dataset_split):
        if document["kind"] in wanted:
            yield {**document, "origin": f"toyland:{document['id']}"}


def _dataset(source: Source, how: Reading, begin: ResumePoint, reporter: Reporter, opened: bool) -> Iterator[dict]:
    """Yield the documents of a dataset; if a streamed one fails, it is opened again at the same row, after WAITS."""
    name, number = source.name, begin.rows
    dataset, rows, place = None, None, {}

    def next_row():
        nonlocal begin, dataset, rows, opened, place
        if rows is None:
            dataset, rows = _rows_from(source, begin, reporter)
            rows, opened = itertools.islice(rows, number - begin.rows, None), True
        is_due = source.streaming and number >= begin.rows + NOTED_EVERY and is_resumable(dataset)
        state = dataset.state_dict() if is_due else None
        row = next(rows, None)
        if state is not None:
            begin = ResumePoint(number, state, _row_hash(row))
            place = {"place": begin}
        return row

    def judge(error: Exception, wait: float | None) -> float:
        nonlocal rows
        if not opened:
            raise UsageError(
                f"the dataset {name!r} cannot be loaded ({first_words(error)})",
                "a reachable dataset with that configuration and split",
                "check --dataset_name, --dataset_config_name, --dataset_split and the network",
            ) from error
        reason = f"the dataset {name!r} broke off after {number} rows ({first_words(error)})"
        if wait is None or not source.streaming or isinstance(error, DATA_ERRORS):
            raise RunError(reason) from error
        reporter.say(f"note: {reason}; trying again in {wait:g} s")
        rows = None
        return wait

    while (row := retried(next_row, WAITS, judge, reporter.rest)) is not None:
        origin = f"{name}, row {number}"
        row = without_nulls(row_of(row, origin))
        yield row_document(row, how.text_column, origin, how.keep_broken, how.encoding_errors) | place
        number, place = number + 1, {}


def _rows_from(source: Source, begin: ResumePoint, reporter: Reporter) -> tuple[Any, Iterator]:
    """Return (the dataset, its rows from `begin` on).

    If the saved state does not lead to that row, the dataset is read from its beginning and rows are skipped.
    """
    dataset = open_dataset(source)
    if begin.state is not None:
        dataset.load_state_dict(begin.state)
        rows = iter(dataset)
        first = next(rows, None)
        if begin.hash in (None, _row_hash(first)):
            return dataset, itertools.chain(() if first is None else (first,), rows)
        reporter.say(f"note: {source.name} cannot be resumed at row {begin.rows}: reading it from the beginning")
        dataset = open_dataset(source)
    return dataset, itertools.islice(iter(dataset), begin.rows, None)


def _row_hash(row) -> str:
    return hashlib.sha256(repr(row).encode(errors="replace")).hexdigest()[:16]


def open_dataset(source: Source):
    """Open the dataset of a source, as an iterable of rows."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    name = source.dataset_name
    if isinstance(name, PythonText):
        return name.opened(source.streaming)
    if name and _is_saved(name):
        saved = load_from_disk(name)
        dataset = saved[source.dataset_split] if isinstance(saved, DatasetDict) else saved
        return dataset.to_iterable_dataset() if source.streaming else dataset
    what = [name, source.dataset_config_name]
    options = {"split": source.dataset_split, "revision": source.dataset_revision}
    if source.remote:
        what, options = ["parquet"], {"data_files": list(source.files), "split": "train"}
    return load_dataset(*what, **options, streaming=source.streaming)
