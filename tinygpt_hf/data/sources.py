"""Files, folders, URLs and datasets -> documents, one at a time, each saying where it comes from.

A document is {"text": str} or {"messages": [...]}, with "origin": a few words that lead back to it. What a file of each kind
holds is told in file_formats.py; a folder is searched for these endings, in the order of the names.

    for document in documents(Source(files=("books", "https://host/more.txt.gz"))): ...
"""

import contextlib
import glob
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlparse

from tinygpt_hf import safeio
from tinygpt_hf.data.corpus_files import documents_only
from tinygpt_hf.data.file_formats import KNOWN_ENDINGS, ending_of, file_documents, first_words, is_utf8, row_document
from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.parsing import convert

MOST_REPETITIONS = 1000  # a larger weight is a slip


@dataclass(frozen=True)
class Source:
    """One place documents come from: files, or a dataset. `weight`: how often each of its documents is used."""

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


def training_sources(data: DataArguments, seed: int = 0) -> list[Source]:
    """The sources these settings name; settings that contradict each other are refused."""
    if data.sources:
        if data.train_file or data.dataset_name:
            raise UsageError(
                "data.sources is given beside train_file or dataset_name", "one of them", "move it into the list"
            )
        known = {f.name for f in fields(Source)} - {"files", "max_samples", "seed"} | {
            "train_file",
            "max_train_samples",
        }
        sources = []
        for number, entry in enumerate(data.sources, 1):
            unknown = set(entry) - known if isinstance(entry, dict) else {repr(entry)}
            if unknown:
                raise UsageError(
                    f"data.sources, entry {number}: {', '.join(map(str, sorted(unknown)))}",
                    f"known: {', '.join(sorted(known))}",
                    "mend it",
                )
            where = f"data.sources, entry {number}: "
            types = {f.name: f.type for f in fields(DataArguments)} | {"weight": float}
            values = {name: convert(value, types[name], where + name) for name, value in entry.items()}
            weight = values.pop("weight", 1.0)
            if not 0 < weight <= MOST_REPETITIONS:
                raise UsageError(f"{where}weight is {weight:g}", f"above 0, at most {MOST_REPETITIONS}", "e.g. 0.5")
            sources += [
                replace(s, weight=weight) for s in training_sources(replace(data, sources=None, **values), seed)
            ]
        return sources
    if data.document_separator == "":
        raise UsageError("document_separator is empty", "`blank_line` or a marker was wanted", "leave it out")
    if data.train_file and data.dataset_name:
        raise UsageError("--train_file and --dataset_name are both given", "one of them", "use data.sources for a mix")
    if not data.train_file and not data.dataset_name:
        raise UsageError(
            "there is no text to read", "--train_file or --dataset_name was wanted", "e.g. --dataset_name toyland"
        )
    if data.streaming and (data.train_file or data.dataset_name == "toyland"):
        raise UsageError(
            "--streaming is set for local text", "it is for Hub datasets; files are always streamed", "remove it"
        )
    return [
        Source(
            files=tuple(data.train_file),
            dataset_name=data.dataset_name,
            dataset_config_name=data.dataset_config_name,
            dataset_split=data.dataset_split,
            dataset_revision=data.dataset_revision,
            text_column=data.text_column,
            document_separator=data.document_separator,
            streaming=data.streaming,
            max_samples=data.max_train_samples,
            seed=seed if data.dataset_name == "toyland" else 0,  # other documents do not depend on it
            encoding_errors=data.encoding_errors,
        )
    ]


def validation_source(data: DataArguments) -> Source:
    """The source behind --validation_file."""
    return Source(
        files=tuple(data.validation_file),
        text_column=data.text_column,
        document_separator=data.document_separator,
        encoding_errors=data.encoding_errors,
    )


def fingerprint(source: Source) -> dict:
    """What decides the documents, as JSON: for files their names, sizes and sha256; for datasets their full name; no secrets."""
    facts = {f.name: getattr(source, f.name) for f in fields(source) if getattr(source, f.name) != f.default}
    if source.files:
        facts["files"] = [
            {"name": Path(path).name, "size": os.path.getsize(path), "sha256": safeio.file_hash(Path(path))}
            for path in find_files(source.files)
        ]
    return redacted(facts)


def find_files(names: tuple[str, ...]) -> list[str]:
    """Files, globs, folders and URLs as a list of local files. Folders are searched recursively; URLs are downloaded once."""
    found: list[str] = []
    for name in names:
        if urlparse(name).scheme in ("http", "https"):
            found.append(_download(name))
        elif os.path.isdir(name):
            inside = [p for p in Path(name).rglob("*") if ending_of(str(p)) and not p.is_dir() and not _hidden(p, name)]
            inside = [p for p in documents_only(inside) if not (p.is_file() and p.stat().st_size == 0)]  # __init__.py
            inside = sorted(map(str, inside))
            if not inside:
                raise UsageError(
                    f"the folder {name} holds no text file", f"endings: {KNOWN_ENDINGS}", "name another one"
                )
            found += inside
        elif os.path.isfile(name):
            if not ending_of(name):
                raise UsageError(f"{name} has an unknown ending", f"known: {KNOWN_ENDINGS}", "rename the file")
            found.append(name)
        elif os.path.lexists(name):
            found.append(name)
        else:
            matches = sorted(_once(m for m in glob.glob(name, recursive=True) if os.path.isfile(m) and ending_of(m)))
            if not matches:
                what = "matches no text file" if glob.has_magic(name) else "does not exist"
                raise UsageError(
                    f"{name} {what}", "files, globs, folders or URLs of text were wanted", "check the path"
                )
            found += matches
    for path in found:
        if not is_utf8(path):
            raise UsageError(
                f"the file name {path!r} is no UTF-8", "a name that can be written down", "rename the file"
            )
        if not os.path.isfile(path):  # a pipe would be waited for, /dev/zero read for ever
            what = "a pipe, device or socket" if os.path.exists(path) else "a link that leads nowhere"
            raise UsageError(f"{path} is {what}", "a file was wanted", "write its text to a file, or name another one")
    return found


def _once(paths) -> Iterator[str]:
    """Each file by its shortest path: a link to a folder above it shows it again and again."""
    seen = set()
    for path in sorted(paths, key=len):
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path


def total_bytes(found: list[Source]) -> int | None:
    """The size of the files behind the sources; None where they do not tell how far the reading is."""
    if any(source.dataset_name or source.max_samples for source in found):
        return None
    return sum(os.path.getsize(path) for source in found for path in find_files(source.files))


def _hidden(path: Path, root: str) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _download(url: str) -> str:
    """The file behind a URL, cached by its address in the cache of `datasets`, under a name with the right ending."""
    from datasets import DownloadManager

    name = Path(urlparse(url).path).name
    if not ending_of(name):
        raise UsageError(f"{url} has an unknown ending", f"known: {KNOWN_ENDINGS}", "download it and rename the file")
    try:
        local = DownloadManager().download(url)
    except Exception as error:  # aiohttp, httpx and fsspec share no class of errors
        reason = first_words(error.__cause__ or error)
        raise UsageError(
            f"{url} cannot be downloaded ({reason})", "a reachable file was wanted", "check the address"
        ) from error
    named = Path(f"{local}-{name}")
    with contextlib.suppress(FileExistsError):
        named.symlink_to(os.path.basename(local))
    return str(named)


def documents(
    source: Source, in_pieces: bool = False, seen: Callable[[int], None] = lambda count: None
) -> Iterator[dict]:
    """All documents of a source, in an order that is always the same; see `file_documents` for `in_pieces` and `seen`."""
    if source.dataset_name == "toyland":
        found = _toyland(source)
    elif source.dataset_name:
        found = _dataset(source)
    else:
        found = itertools.chain.from_iterable(
            file_documents(path, source.text_column, source.document_separator, source.encoding_errors, in_pieces, seen)
            for path in find_files(source.files)
        )
    return itertools.islice(found, source.max_samples)


def _toyland(source: Source) -> Iterator[dict]:
    from tinygpt_hf.data import toyland

    if source.dataset_split not in ("train", "heldout"):
        raise UsageError(f"toyland has no split {source.dataset_split!r}", "train or heldout", "check --dataset_split")
    if source.max_samples is None:
        raise UsageError(
            "toyland has no end", "how many documents to write was wanted", "e.g. --max_train_samples 20000"
        )
    kinds = {None: ("story", "facts", "dialogue"), "text": ("story", "facts"), "dialogues": ("dialogue",)}
    if source.dataset_config_name not in kinds:
        seen = f"toyland has no configuration {source.dataset_config_name!r}"
        raise UsageError(seen, "text or dialogues, or none for both", "check --dataset_config_name")
    wanted = kinds[source.dataset_config_name]
    for document in toyland.documents(source.seed, sys.maxsize, source.dataset_split):
        if document["kind"] not in wanted:
            continue
        yield {**document, "origin": f"toyland:{document['id']}"}


def _dataset(source: Source) -> Iterator[dict]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(
            source.dataset_name,
            source.dataset_config_name,
            split=source.dataset_split,
            revision=source.dataset_revision,
            streaming=source.streaming,
        )
    except Exception as error:  # the libraries below raise a dozen classes for a name that is not there
        raise UsageError(
            f"the dataset {source.dataset_name!r} cannot be loaded ({first_words(error)})",
            "a reachable Hub dataset with that configuration and split was wanted",
            "check --dataset_name, --dataset_config_name, --dataset_split and the network",
        ) from error
    rows = iter(dataset)
    for number in itertools.count():
        try:
            row = next(rows, None)
        except Exception as error:
            raise RunError(
                f"the dataset {source.dataset_name!r} broke off after {number} rows ({first_words(error)})"
            ) from error
        if row is None:
            return
        yield row_document(row, source.text_column, f"{source.dataset_name}, row {number}")
