"""One file -> documents. Text is passed on byte for byte: nothing is stripped, no line ending is changed.

| ending                        | read as                                                               |
|---|---|
| .txt                          | one document, or cut at `document_separator`                          |
| .jsonl .ndjson .json          | one JSON object per line (.json: also one list), column text/messages |
| .csv .tsv .parquet            | one row a document                                                    |
| .md .py and other source code | one document                                                          |

Each also with .gz behind it. What is no text (binary, UTF-16, a broken archive or table) is a `UsageError` naming the place.
"""

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from tinygpt_hf.data.chat_format import check_messages
from tinygpt_hf.errors import UsageError

TABLES = {".csv", ".tsv", ".parquet"}
LINES = {".jsonl", ".ndjson", ".json"}
TEXTS = {".txt", ".text"}
WHOLE = set(
    ".md .rst .tex .html .py .pyi .ipynb .js .ts .jsx .tsx .java .c .h .cc .cpp .hpp .rs .go .rb .php .cs".split()
)
WHOLE |= set(".swift .kt .scala .sh .sql .r .jl .lua .pl .hs .ml .css .yaml .yml .toml .xml".split())
KNOWN_ENDINGS = " ".join(sorted(TEXTS | LINES | TABLES)) + " .md .py and other source code, each also .gz"
COLUMNS = ("text", "content", "messages")  # tried in this order
BLANK_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")  # the indentation of what follows stays with it
TO_UTF8 = "convert it: iconv -f ENCODING -t UTF-8 OLD > NEW"


def ending_of(name: str) -> str | None:
    """The known ending of a file name, without .gz; None for all others."""
    ending = Path(name.removesuffix(".gz")).suffix.lower()
    return ending if ending in TEXTS | LINES | TABLES | WHOLE else None


def is_utf8(words: str) -> bool:
    """Can it be written down? Not with half a surrogate pair: a file name of other bytes, a broken escape in JSON."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_words(error: Exception) -> str:
    """The first line of what a library complains about."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def file_documents(path: str, text_column: str | None = None, separator: str | None = None) -> Iterator[dict]:
    """The documents of one file, in its order."""
    ending = ending_of(path)
    with _read_errors(path):
        if Path(path).stat().st_size == 0:
            raise _empty(path)
        if ending == ".parquet":
            yield from _parquet(path, text_column)
        elif ending in TABLES:
            yield from _csv(path, text_column, "\t" if ending == ".tsv" else ",")
        elif ending in LINES:
            yield from _json(path, text_column, may_be_list=ending == ".json")
        else:
            yield from _text(path, separator if ending in TEXTS else None)


def row_document(row: dict, text_column: str | None, origin: str) -> dict:
    """The document in one row of a table: its text or its messages."""
    column = text_column or next((c for c in COLUMNS if c in row), None)
    if column is None or column not in row:
        wanted = f"the column {text_column!r}" if text_column else f"one of {', '.join(COLUMNS)}"
        raise UsageError(
            f"{origin} has the columns {', '.join(map(str, row))}",
            f"{wanted} was wanted",
            "name one with --text_column",
        )
    value = row[column]
    if isinstance(value, list):
        check_messages(value, origin)
    elif not isinstance(value, str):
        what = "nothing" if value is None else f"a {type(value).__name__}"
        raise UsageError(f"{origin} holds {what} under {column}", "text was wanted", "name another --text_column")
    texts = [value] if isinstance(value, str) else [message["content"] for message in value]
    if not all(map(is_utf8, texts)):
        raise UsageError(f"{origin} holds half of a surrogate pair", "text was wanted", r"mend \ud800 to \udfff in it")
    return {"text" if isinstance(value, str) else "messages": value, "origin": origin}


@contextlib.contextmanager
def _read_errors(path: str):
    """What opening and decompressing may raise, as one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} cannot be read ({first_words(error)})", "a sound, readable file was wanted", "check the file"
        ) from error


def _open(path: str):
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _empty(path: str) -> UsageError:
    return UsageError(f"{path} is empty", "text was wanted", "check the file")


def _refuse_utf16(head: bytes, where: str) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{where} is UTF-16", "UTF-8 was wanted", TO_UTF8.replace("ENCODING", "UTF-16"))


def _decode(data: bytes, where: str) -> str:
    """UTF-8 with or without a byte order mark; anything else is refused with the remedy."""
    _refuse_utf16(data, where)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + len(data) - len(error.object)} is 0x{error.object[error.start]:02x}"
        raise UsageError(f"{where} is no UTF-8 text ({place})", "UTF-8 was wanted", TO_UTF8) from None
    if "\x00" in text:
        raise UsageError(f"{where} is binary (it holds NUL bytes)", "text was wanted", "name a text file")
    return text


def _text(path: str, separator: str | None) -> Iterator[dict]:
    with _open(path) as file:
        text = _decode(file.read(), path)
    if not text:
        raise _empty(path)
    if separator is None:
        yield {"text": text, "origin": path}
        return
    for number, part in enumerate(BLANK_LINES.split(text) if separator == "blank_line" else text.split(separator)):
        if part.strip():
            yield {"text": part, "origin": f"{path}, part {number}"}


def _json(path: str, text_column: str | None, may_be_list: bool) -> Iterator[dict]:
    with _open(path) as file:
        head = file.read(64)
        if not head:
            raise _empty(path)
        _refuse_utf16(head, path)
        file.seek(0)
        if may_be_list and head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            for number, row in enumerate(_parsed(file.read(), path)):
                yield _object(row, text_column, f"{path}, entry {number}")
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(_parsed(line, f"{path}, line {number}"), text_column, f"{path}, line {number}")


def _parsed(data: bytes, where: str):
    try:
        return json.loads(_decode(data, where))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where} is no JSON ({first_words(error)})", "one JSON object per line was wanted", "mend or remove it"
        ) from None


def _object(row, text_column: str | None, origin: str) -> dict:
    if not isinstance(row, dict):
        raise UsageError(f"{origin} holds a {type(row).__name__}", "a JSON object was wanted", 'e.g. {"text": "..."}')
    return row_document(row, text_column, origin)


def _csv(path: str, text_column: str | None, separator: str) -> Iterator[dict]:
    """Read with the standard library: pandas, below `datasets`, takes the text `NA` for nothing and `12` for a number."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    with _open(path) as file:
        _refuse_utf16(file.read(2), path)
        file.seek(0)
        table = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=separator, strict=True)
        columns: list[str] = []
        count = 0
        while True:
            where = f"{path}, line {table.line_num + 1}"
            try:
                cells = next(table, None)
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"{where} or below is no UTF-8 ({error.reason})", "UTF-8 was wanted", TO_UTF8
                ) from None
            except csv.Error as error:
                raise UsageError(
                    f"{where} is broken ({error})", "cells were wanted", 'quote like "say ""hi"""'
                ) from None
            if cells is None:
                break
            if not cells:  # an empty line
                continue
            if any("\x00" in cell for cell in cells):
                raise UsageError(f"{where} is binary (it holds NUL bytes)", "text was wanted", "name a text file")
            if not columns:
                columns = cells
                continue
            if len(cells) != len(columns):
                wanted = f"{len(columns)} were wanted, as in the first"
                raise UsageError(f"{where} has {len(cells)} cells", wanted, "quote the text or mend the line")
            yield row_document(dict(zip(columns, cells, strict=True)), text_column, f"{path}, row {count}")
            count += 1
    if not columns:
        raise _empty(path)


def _parquet(path: str, text_column: str | None) -> Iterator[dict]:
    """Batch by batch, only the column that is wanted. A gzip archive, whose end cannot be read first, is unpacked in memory."""
    import pyarrow
    from pyarrow import parquet

    count = 0
    try:
        table = parquet.ParquetFile(pyarrow.BufferReader(_open(path).read()) if path.endswith(".gz") else path)
        names = table.schema_arrow.names
        column = text_column or next((c for c in COLUMNS if c in names), None)
        for batch in table.iter_batches(batch_size=256, columns=[column] if column in names else names):
            for row in batch.to_pylist():
                yield row_document(row, text_column, f"{path}, row {count}")
                count += 1
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read ({first_words(error)})", "a .parquet file was wanted", "check the file"
        ) from error
