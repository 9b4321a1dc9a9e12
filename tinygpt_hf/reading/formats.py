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

import contextlib
import csv
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.decoding import ARCHIVES, LongText, TextFile
from tinygpt_hf.reading.json_list import JsonList
from tinygpt_hf.reading.schemas import COLUMNS, CONVERSATIONS, MEANINGFUL, MEDIA, BrokenConversation, row_content

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


def first_words(error: BaseException) -> str:
    """The first line of what a library complains about."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def file_documents(
    path: str,
    text_column: str | None = None,
    separator: str | None = None,
    encoding_errors: str = "strict",
    in_pieces: bool = False,
    seen: Callable[[int], None] = lambda count: None,
    keep_broken: bool = False,
) -> Iterator[dict]:
    """The documents of one file, in its order.

    `in_pieces`: a text file of more than decoding.LONG bytes comes as a `LongText`, which nobody holds. `seen` is called with
    the bytes of the file that were read. `replaced` in a document: faults of its UTF-8 that encoding_errors="replace" took out.
    `keep_broken`: see `row_document`.
    """
    ending = ending_of(path)

    def document_of(row: dict, origin: str) -> dict:
        return row_document(row, text_column, origin, keep_broken)

    source = TextFile(path, encoding_errors, seen)
    with _read_errors(path):
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

    `keep_broken`: a conversation that is none comes as the row's JSON for a text, with the fault under `broken`.
    """
    try:
        content = row_content(row, text_column, origin)
    except RecursionError:
        raise UsageError(f"{origin} is nested too deeply", "text or messages", "fix or remove it") from None
    except BrokenConversation as error:
        if not keep_broken:
            raise
        fault = error.problem.removeprefix(origin).lstrip(": ")
        shown = {*COLUMNS, *MEANINGFUL, text_column} - {*MEDIA}
        read = {name: value for name, value in row.items() if name in shown}
        return {"text": _as_json(read), "origin": origin, "broken": fault}
    texts = [content] if isinstance(content, str) else [message["content"] for message in content]
    if not all(map(is_utf8, texts)):
        raise UsageError(f"{origin} holds half of a surrogate pair", "text", r"remove \ud800 to \udfff in it")
    return {"text" if isinstance(content, str) else "messages": content, "origin": origin}


def _as_json(row: dict) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False, default=str)
        return text if is_utf8(text) else json.dumps(row, default=str)
    except RecursionError:
        return "(nested too deeply to be written)"


@contextlib.contextmanager
def _read_errors(path: str):
    """What opening and decompressing may raise, as one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(
            f"{path} cannot be read ({first_words(error)})", "a readable file", "check the file"
        ) from error


def _empty(path: str) -> UsageError:
    return UsageError(f"{path} is empty", "text", "check the file")


def _text(source: TextFile, in_pieces: bool) -> Iterator[dict]:
    first = TextFile(source.path) if in_pieces else source  # a long one is read again
    with first.open() as file:
        source.refuse_other_kinds(file.peek(8)[:8])
        data = source.up_to(file, decoding.LONG) if in_pieces else source.whole(file)
    if in_pieces and len(data) > decoding.LONG:
        text = LongText(source)
    else:
        text = source.decode(data, source.path, lines=0)
        if in_pieces:
            source.seen(Path(source.path).stat().st_size)
    if not len(text):
        raise _empty(source.path)
    yield {"text": text, "origin": source.path}


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
        if path.lower().endswith(ARCHIVES):
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
                yield document_of(row, f"{path}, row {count}")
                count += 1
            position = size * count // max(table.metadata.num_rows, 1)
            if not path.lower().endswith(ARCHIVES):
                source.seen(position - told)
            told = position
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read after row {count} ({first_words(error)})",
            "a .parquet file",
            "check the file",
        ) from error
