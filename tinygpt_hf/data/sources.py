"""Files, folders, URLs and datasets -> documents, one at a time, each saying where it comes from.

A document is {"text": str} or {"messages": [...]}, with "origin": a few words that lead back to it. Text is passed on byte for
byte: nothing is stripped, no line ending is changed.

| ending                        | read as                                                              |
|---|---|
| .txt                          | one document, or cut at `document_separator`                         |
| .jsonl .ndjson .json          | one JSON object per line (.json: also one list), column text/messages |
| .csv .tsv .parquet            | one row a document, through `datasets`                               |
| .md .py and other source code | one document                                                         |

Each also with .gz behind it; a folder is searched for these endings, in the order of the names.
"""

import glob
import gzip
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlparse

from tinygpt_hf import safeio
from tinygpt_hf.data.chat_format import check_messages
from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments

TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
LINES = {".jsonl", ".ndjson", ".json"}
TEXTS = {".txt", ".text"}
WHOLE = set(".md .rst .tex .html .py .pyi .ipynb .js .ts .jsx .tsx .java .c .h .cc .cpp .hpp .rs .go .rb .php .cs".split())
WHOLE |= set(".swift .kt .scala .sh .sql .r .jl .lua .pl .hs .ml .css .yaml .yml .toml .xml".split())
COLUMNS = ("text", "content", "messages")  # tried in this order


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


def training_sources(data: DataArguments, seed: int = 0) -> list[Source]:
    """The sources these settings name; settings that contradict each other are refused."""
    if data.sources:
        if data.train_file or data.dataset_name:
            raise UsageError("data.sources is given beside train_file or dataset_name", "one of them", "move it into the list")
        known = {f.name for f in fields(Source)} - {"files", "max_samples", "seed"} | {"train_file", "max_train_samples"}
        sources = []
        for number, entry in enumerate(data.sources, 1):
            unknown = set(entry) - known if isinstance(entry, dict) else {repr(entry)}
            if unknown:
                raise UsageError(
                    f"data.sources, entry {number}: {', '.join(map(str, sorted(unknown)))}", f"known: {', '.join(sorted(known))}", "mend it"
                )
            merged = replace(data, sources=None, **{k: v for k, v in entry.items() if k != "weight"})
            weight = entry.get("weight", 1.0)
            if not isinstance(weight, (int, float)) or weight <= 0:
                raise UsageError(f"data.sources, entry {number}: weight {weight!r}", "a number above 0", "e.g. 0.5")
            files = [merged.train_file] if isinstance(merged.train_file, str) else merged.train_file
            sources += [replace(s, weight=float(weight)) for s in training_sources(replace(merged, train_file=files), seed)]
        return sources
    if data.train_file and data.dataset_name:
        raise UsageError("--train_file and --dataset_name are both given", "one of them", "use data.sources for a mix")
    if not data.train_file and not data.dataset_name:
        raise UsageError("there is no text to read", "--train_file or --dataset_name was wanted", "e.g. --dataset_name toyland")
    if data.streaming and (data.train_file or data.dataset_name == "toyland"):
        raise UsageError("--streaming is set for local text", "it is for Hub datasets; files are always streamed", "remove it")
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
            seed=seed,
        )
    ]


def validation_source(data: DataArguments) -> Source:
    """The source behind --validation_file."""
    return Source(
        files=tuple(data.validation_file), text_column=data.text_column, document_separator=data.document_separator
    )


def fingerprint(source: Source) -> dict:
    """What decides the documents, as JSON: for files their names, sizes and sha256; for datasets their full name."""
    facts = {f.name: getattr(source, f.name) for f in fields(source) if getattr(source, f.name) != f.default}
    if source.files:
        facts["files"] = [
            {"name": Path(path).name, "size": os.path.getsize(path), "sha256": safeio.file_hash(Path(path))}
            for path in find_files(source.files)
        ]
    return facts


def find_files(names: tuple[str, ...]) -> list[str]:
    """Files, globs, folders and URLs as a list of local files. Folders are searched recursively; URLs are downloaded once."""
    found: list[str] = []
    for name in names:
        if urlparse(name).scheme in ("http", "https"):
            found.append(_download(name))
        elif os.path.isdir(name):
            inside = sorted(str(p) for p in Path(name).rglob("*") if p.is_file() and _ending(str(p)) and not _hidden(p, name))
            if not inside:
                raise UsageError(f"the folder {name} holds no text file", f"endings: {_known_endings()}", "name another one")
            found += inside
        elif os.path.isfile(name):
            if not _ending(name):
                raise UsageError(f"{name} has an unknown ending", f"known: {_known_endings()}", "rename the file")
            found.append(name)
        else:
            matches = sorted(m for m in glob.glob(name, recursive=True) if os.path.isfile(m) and _ending(m))
            if not matches:
                what = "matches no text file" if glob.has_magic(name) else "does not exist"
                raise UsageError(f"{name} {what}", "files, globs, folders or URLs of text were wanted", "check the path")
            found += matches
    return found


def _hidden(path: Path, root: str) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _known_endings() -> str:
    return " ".join(sorted({*TEXTS, *LINES, *TABLES})) + " .md .py and other source code, each also .gz"


def _ending(name: str) -> str | None:
    ending = Path(name.removesuffix(".gz")).suffix.lower()
    return ending if ending in TEXTS | LINES | set(TABLES) | WHOLE else None


def _download(url: str) -> str:
    """The file behind a URL, cached by its address in the cache of `datasets`, under a name with the right ending."""
    from datasets import DownloadManager

    name = Path(urlparse(url).path).name
    if not _ending(name):
        raise UsageError(f"{url} has an unknown ending", f"known: {_known_endings()}", "download it and rename the file")
    try:
        local = DownloadManager().download(url)
    except (OSError, ValueError) as error:
        raise UsageError(f"{url} cannot be downloaded ({error})", "a reachable file was wanted", "check the address") from error
    named = Path(local + "-" + name)
    if not named.exists():
        named.symlink_to(local)
    return str(named)


def documents(source: Source) -> Iterator[dict]:
    """All documents of a source, in an order that is always the same."""
    if source.dataset_name == "toyland":
        found = _toyland(source)
    elif source.dataset_name:
        found = _dataset(source)
    else:
        found = itertools.chain.from_iterable(_file(path, source) for path in find_files(source.files))
    return itertools.islice(found, source.max_samples)


def _toyland(source: Source) -> Iterator[dict]:
    from tinygpt_hf.data import toyland

    if source.dataset_split not in ("train", "heldout"):
        raise UsageError(f"toyland has no split {source.dataset_split!r}", "train or heldout", "check --dataset_split")
    if source.max_samples is None:
        raise UsageError("toyland has no end", "how many documents to write was wanted", "e.g. --max_train_samples 20000")
    for document in toyland.documents(source.seed, source.max_samples, source.dataset_split):
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
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the dataset {source.dataset_name!r} cannot be loaded ({str(error).splitlines()[0][:200]})",
            "a reachable Hub dataset with that configuration and split was wanted",
            "check --dataset_name, --dataset_config_name, --dataset_split and the network",
        ) from error
    yield from _table(dataset, source, source.dataset_name)


def _file(path: str, source: Source) -> Iterator[dict]:
    ending = _ending(path)
    if ending in TABLES:
        from datasets import load_dataset

        if os.path.getsize(path) == 0:
            raise UsageError(f"{path} is empty", "text was wanted", "check the file")
        options = {"sep": "\t"} if ending == ".tsv" else {}
        try:
            table = load_dataset(TABLES[ending], data_files=path, split="train", streaming=True, **options)
            yield from _table(table, source, path)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{path} cannot be read ({str(error).splitlines()[0][:200]})", f"a {ending} file was wanted", "check the file"
            ) from error
    elif ending in LINES:
        yield from _json_lines(path, source)
    else:
        yield from _text(path, source, cut=ending in TEXTS)


def _table(table, source: Source, name: str) -> Iterator[dict]:
    for number, row in enumerate(table):
        yield _document(row, source, f"{name}, row {number}")


def _document(row: dict, source: Source, origin: str) -> dict:
    column = source.text_column or next((c for c in COLUMNS if c in row), None)
    if column is None or column not in row:
        raise UsageError(
            f"{origin} has the columns {', '.join(map(str, row))}",
            f"the column {source.text_column!r} was wanted" if source.text_column else f"one of {', '.join(COLUMNS)} was wanted",
            "name one with --text_column",
        )
    value = row[column]
    if isinstance(value, list):
        check_messages(value, origin)
        return {"messages": value, "origin": origin}
    if not isinstance(value, str):
        raise UsageError(f"{origin}: {column} is {type(value).__name__}", "text was wanted", "name another --text_column")
    return {"text": value, "origin": origin}


def _open(path: str):
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _decode(data: bytes, where: str) -> str:
    """UTF-8 with or without a byte order mark; anything else is refused with the remedy."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{where} is UTF-16", "UTF-8 was wanted", "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where} is no UTF-8 text (byte {error.start} is 0x{data[error.start]:02x})", "UTF-8 was wanted", "convert it with iconv"
        ) from None
    if "\x00" in text:
        raise UsageError(f"{where} is binary (it holds NUL bytes)", "text was wanted", "name a text file")
    return text


def _text(path: str, source: Source, cut: bool) -> Iterator[dict]:
    with _read_errors(path), _open(path) as file:
        text = _decode(file.read(), path)
    if not text:
        raise UsageError(f"{path} is empty", "text was wanted", "check the file")
    if not cut or source.document_separator is None:
        yield {"text": text, "origin": path}
        return
    if source.document_separator == "blank_line":
        parts = re.split(r"(?:\r?\n[ \t]*){2,}", text)
    else:
        parts = text.split(source.document_separator)
    for number, part in enumerate(parts):
        if part.strip():
            yield {"text": part, "origin": f"{path}, part {number}"}


def _json_lines(path: str, source: Source) -> Iterator[dict]:
    with _read_errors(path), _open(path) as file:
        head = file.read(64)
        is_list = path.removesuffix(".gz").endswith(".json") and head.lstrip().startswith(b"[")
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or not head:
            _decode(head, path)
            raise UsageError(f"{path} is empty", "text was wanted", "check the file")
        file.seek(0)
        if is_list:
            for number, row in enumerate(_parse_json(file.read(), path)):
                yield _object(row, source, f"{path}, entry {number}")
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(_parse_json(line, f"{path}, line {number}"), source, f"{path}, line {number}")


def _object(row, source: Source, origin: str) -> dict:
    if not isinstance(row, dict):
        raise UsageError(f"{origin} holds a {type(row).__name__}", "a JSON object was wanted", 'e.g. {"text": "..."}')
    return _document(row, source, origin)


def _parse_json(data: bytes, where: str):
    try:
        return json.loads(_decode(data, where))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON ({error})", "one JSON object per line was wanted", "mend or remove it") from None


class _read_errors:
    """OSErrors of opening and decompressing a file, as one line."""

    def __init__(self, path: str):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, (OSError, EOFError)):
            raise UsageError(f"{self.path} cannot be read ({error})", "a readable file was wanted", "check the file") from error
