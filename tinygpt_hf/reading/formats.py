"""One file -> documents. Text is passed on byte for byte: nothing is stripped, no line ending is changed.

| ending                        | read as                                                               |
|---|---|
| .txt                          | one document, or cut at `document_separator`                          |
| .jsonl .ndjson .json          | one JSON object per line (.json: also one list), likewise            |
| .csv .tsv .parquet            | one row a document, its columns as in schemas.py                      |
| .md .py and other source code | one document                                                          |

Each also with .gz, .bz2, .xz or .zst behind it. What is no text (binary, UTF-16, a broken archive or table) is a `UsageError`
naming the place.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.decoding import ARCHIVES, LongText, TextFile, first_words, read_errors
from tinygpt_hf.reading.json_list import JsonList
from tinygpt_hf.reading.reporter import SILENT, Reporter
from tinygpt_hf.reading.schemas import COLUMNS, CONVERSATIONS, MEANINGFUL, row_content
from tinygpt_hf.reading.turns import MEDIA, BrokenConversation, document_texts

TABLES = {".csv", ".tsv", ".parquet"}
LINES = {".jsonl", ".ndjson", ".json"}
TEXTS = {".txt", ".text"}
WHOLE = set(
    """
    .md .mdx .qmd .rmd .rst .adoc .org .tex .html .htm .xhtml .xml .css .scss .sass .less .vue .svelte .ipynb
    .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cuh .m .mm .metal .glsl .hlsl .wgsl .zig .rs .go .swift .kt .kts .java .scala
    .groovy .gradle .cs .fs .fsx .vb .dart .js .mjs .cjs .jsx .ts .mts .tsx .php .rb .pl .pm .py .pyi .pyx .lua .tcl .r .jl
    .f .f90 .f95 .f03 .for .pas .adb .ads .cob .asm .s .sv .svh .vhd .vhdl .hs .ml .mli .elm .ex .exs .erl .hrl .clj .cljs
    .lisp .el .scm .rkt .nim .sol .sql .sh .bash .zsh .fish .awk .ps1 .psm1 .bat .cmake .mk .tf .proto .graphql .thrift
    .yaml .yml .toml .ini .cfg .conf .vim
    """.split()
)
KNOWN_ENDINGS = (
    " ".join(sorted(TEXTS | LINES | TABLES)) + " .md .py and other source code, each also .gz, .bz2, .xz or .zst"
)
BLANK_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")  # the indentation of what follows stays with it


def ending_of(name: str) -> str | None:
    """The known ending of a file name, in lower case and without that of an archive; None for all others."""
    name = name.lower()
    for archive in ARCHIVES:
        name = name.removesuffix(archive)
    ending = Path(name).suffix
    return ending if ending in TEXTS | LINES | TABLES | WHOLE else None


def is_utf8(words: str) -> bool:
    """Can it be written down? Not with half a surrogate pair: a file name of other bytes, a broken escape in JSON."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_documents(
    path: str,
    text_column: str | None = None,
    separator: str | None = None,
    encoding_errors: str = "strict",
    in_pieces: bool = False,
    reporter: Reporter = SILENT,
    keep_broken: bool = False,
) -> Iterator[dict]:
    """The documents of one file, in its order.

    `in_pieces`: a text file of more than decoding.LONG bytes comes as a `LongText`, which nobody holds. `reporter` hears of
    the bytes of the file that are read. `replaced` in a document: faults of its UTF-8 that encoding_errors="replace" took out.
    `keep_broken`: see `row_document`.
    """
    ending = ending_of(path)

    def document_of(row: dict, origin: str) -> dict:
        return row_document(row, text_column, origin, keep_broken)

    source = TextFile(path, encoding_errors, reporter)
    with read_errors(path):
        if Path(path).stat().st_size == 0:
            raise _empty(path)
        if ending == ".parquet":
            found = _parquet(source, text_column, document_of)
        elif ending in TABLES:
            found = _csv(source, document_of, "\t" if ending == ".tsv" else ",")
        elif ending in LINES:
            found = _json(source, document_of, may_be_list=ending == ".json")
        elif separator is not None and ending in TEXTS:
            found = _parts(source, separator)
        else:
            found = _text(source, in_pieces)
        for document in found:
            replaced = source.take_replaced()
            yield {**document, "replaced": replaced} if replaced else document


def row_document(row: dict, text_column: str | None, origin: str, keep_broken: bool = False) -> dict:
    """The document in one row of a table: its text or its messages.

    `keep_broken`: a conversation that is none, or says more than is read, comes as the row's JSON for a text, with the fault
    under `broken` and perhaps the name of what would be lost under `field`.
    """
    try:
        document = row_content(row, text_column, origin)
    except RecursionError:
        raise UsageError(f"{origin} is nested too deeply", "text or messages", "fix or remove it") from None
    except BrokenConversation as error:
        if not keep_broken:
            raise
        fault = error.problem.removeprefix(origin).lstrip(": ")
        shown = {*COLUMNS, *MEANINGFUL, text_column} - {*MEDIA}
        read = {name: value for name, value in row.items() if name in shown}
        return {"text": _as_json(read), "origin": origin, "broken": fault, "field": error.field}
    if not all(map(is_utf8, document_texts(document))):
        raise UsageError(f"{origin} holds half of a surrogate pair", "text", r"remove \ud800 to \udfff in it")
    return {**document, "origin": origin}


def without_nulls(row: dict) -> dict:
    """Return a row of an Arrow table without the nulls inside its values: they stand for fields that other rows have."""
    return {name: _without_nulls(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}


def _without_nulls(value):
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value


def _as_json(row: dict) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False, default=str)
        return text if is_utf8(text) else json.dumps(row, default=str)
    except RecursionError:
        return "(nested too deeply to be written)"


def _empty(path: str) -> UsageError:
    return UsageError(f"{path} is empty", "text", "check the file")


def _text(source: TextFile, in_pieces: bool) -> Iterator[dict]:
    text = _long_text(source) if in_pieces else None
    if text is None:
        with source.open() as file:
            source.refuse_other_kinds(file.peek(8)[:8])
            text = source.decode(source.whole(file), source.path, lines=0)
    elif source.encoding_errors != "strict":  # what was replaced in it is told with it
        len(text)
        source.replaced += text.survey.replaced
    if isinstance(text, str) and not text:
        raise _empty(source.path)
    yield {"text": text, "origin": source.path}


def _long_text(source: TextFile) -> LongText | None:
    """The text of a file that unpacks to more than decoding.LONG bytes, which nobody holds; of others None."""
    if not source.is_packed:
        return LongText(source) if Path(source.path).stat().st_size > decoding.LONG else None
    first = TextFile(source.path)
    with first.open() as file:
        first.refuse_other_kinds(file.peek(8)[:8])
        return LongText(source) if len(first.up_to(file, decoding.LONG)) > decoding.LONG else None


def long_text(path: str, separator: str | None, encoding_errors: str, reporter: Reporter) -> LongText | None:
    """The text of a file that `file_documents` would give in pieces, before its length is known; of others None."""
    ending = ending_of(path)
    if ending in TABLES | LINES or (separator is not None and ending in TEXTS):
        return None
    with read_errors(path):
        found = _long_text(TextFile(path, encoding_errors, reporter))
    return None if found is None or found.is_surveyed else found


def _parts(source: TextFile, separator: str) -> Iterator[dict]:
    """A text cut at blank lines or at a marker, read piece by piece: memory holds the longest part."""
    number, rest = 0, ""
    with source.open() as file:
        for piece in source.pieces(file):
            source.in_bounds(rest)
            *parts, rest = _cut(rest, piece, separator)
            for part in parts:
                if part.strip():
                    yield {"text": part, "origin": f"{source.path}, part {number}"}
                number += 1
    if separator == "blank_line":  # the white space at the end was held back
        rest = BLANK_LINES.split(rest)[0] if rest.strip() else ""
    if rest.strip():
        yield {"text": rest, "origin": f"{source.path}, part {number}"}


def _cut(rest: str, piece: str, separator: str) -> list[str]:
    """The parts that `rest`, which holds no border, and `piece` come to; the last one may go on.

    Only what is new is searched, so a long part costs its length once.
    """
    if separator == "blank_line":
        known = len(rest.rstrip(" \t\r\n"))  # no border begins before it
        text = rest + piece
        end = len(text.rstrip(" \t\r\n"))  # what follows may belong to a border that is not here yet
        borders = [found.span() for found in BLANK_LINES.finditer(text, known, end)]
    else:
        known, borders = max(0, len(rest) - len(separator) + 1), []
        text = rest + piece
        while (begin := text.find(separator, known)) >= 0:
            known = begin + len(separator)
            borders.append((begin, known))
    cuts = [0, *(place for border in borders for place in border), len(text)]
    return [text[begin:end] for begin, end in zip(cuts[::2], cuts[1::2], strict=True)]


def _json(source: TextFile, document_of: Callable, may_be_list: bool) -> Iterator[dict]:
    path = source.path
    with source.open() as file:
        head = file.peek(64)[:64]
        if not head:
            raise _empty(path)
        source.refuse_other_kinds(head)
        if may_be_list and head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            for number, row in enumerate(JsonList(source, file)):
                yield _object(row, document_of, f"{path}, entry {number}")
            return
        for number, line in enumerate(source.lines(file), 1):
            if line.strip():
                where = f"{path}, line {number}"
                try:
                    row = json.loads(source.decode(line, where))
                except (ValueError, RecursionError) as error:
                    wanted = "one JSON object per line"
                    raise UsageError(f"{where} is no JSON ({first_words(error)})", wanted, "fix or remove it") from None
                yield _object(row, document_of, where)


def _object(row, document_of: Callable, origin: str) -> dict:
    if not isinstance(row, dict):
        raise UsageError(f"{origin} holds a {type(row).__name__}", "a JSON object", 'try {"text": "..."}')
    return document_of(row, origin)


def _csv(source: TextFile, document_of: Callable, separator: str) -> Iterator[dict]:
    """Read with the standard library: pandas, below `datasets`, takes the text `NA` for nothing and `12` for a number."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    path = source.path

    def lines(file) -> Iterator[str]:
        for number, line in enumerate(source.lines(file), 1):
            yield from io.StringIO(source.decode(line, f"{path}, line {number}"), newline="")  # a bare \r ends one too

    with source.open() as file:
        source.refuse_other_kinds(file.peek(8)[:8])
        table = csv.reader(lines(file), delimiter=separator, strict=True)
        columns: list[str] = []
        count = 0
        while True:
            where = f"{path}, line {table.line_num + 1}"
            try:
                cells = next(table, None)
            except csv.Error as error:
                raise UsageError(f"{where} is broken ({error})", "cells", 'quote like "say ""hi"""') from None
            if cells is None:
                break
            if not cells:  # an empty line
                continue
            if not columns:
                columns = cells
                continue
            if len(cells) != len(columns):
                wanted = f"{len(columns)}, as in the first"
                raise UsageError(f"{where} has {len(cells)} cells", wanted, "quote the text or fix the line")
            yield document_of(dict(zip(columns, cells, strict=True)), f"{path}, row {count}")
            count += 1
    if not columns:
        raise _empty(path)


def _parquet(source: TextFile, text_column: str | None, document_of: Callable) -> Iterator[dict]:
    """Batch by batch, only columns that are wanted. An archive, whose end cannot be read first, is unpacked in memory."""
    import pyarrow
    from pyarrow import parquet

    path, count, told = source.path, 0, 0
    size = Path(path).stat().st_size
    try:
        if source.is_packed:
            with source.open() as file:
                table = parquet.ParquetFile(pyarrow.BufferReader(source.whole(file)))
        else:
            # page by page: a row group may be the whole table, and would be read at once
            table = parquet.ParquetFile(path, pre_buffer=False, buffer_size=decoding.CHUNK)
        names = table.schema_arrow.names
        columns = [name for name in ([text_column] if text_column else COLUMNS) if name in names] or names
        chosen = text_column in names and pyarrow.types.is_nested(table.schema_arrow.field(text_column).type)
        if chosen or any(set(shape) <= set(columns) for shape in CONVERSATIONS):
            columns += [name for name in MEANINGFUL if name in names and name not in columns]
        few = not set(MEDIA).isdisjoint(columns)  # pictures are large
        for batch in table.iter_batches(batch_size=8 if few else 256, columns=columns):
            for row in batch.to_pylist():
                yield document_of(without_nulls(row), f"{path}, row {count}")
                count += 1
            position = size * count // max(table.metadata.num_rows, 1)
            if not source.is_packed:
                source.reporter.read(path, position - told)
            told = position
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read after row {count} ({first_words(error)})",
            "a .parquet file",
            "check the file",
        ) from error
