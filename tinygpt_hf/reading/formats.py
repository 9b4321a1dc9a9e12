"""One file -> documents. Text is passed on byte for byte: nothing is stripped, no line ending is changed.

| ending                        | read as                                                               |
|---|---|
| .txt                          | one document, or cut at `document_separator`                          |
| .jsonl .ndjson .json          | one JSON object per line (.json: also one list), likewise            |
| .csv .tsv .parquet            | one row a document (tables.py), its columns as in schemas.py          |
| .md .py and other source code | one document                                                          |

Each also with .gz, .bz2, .xz or .zst behind it. What is no text (binary, UTF-16, a broken archive or table) is a `UsageError`
naming the place.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.decoding import ARCHIVES, LongText, TextFile, first_words, read_errors
from tinygpt_hf.reading.json_list import JsonList, one_of_each
from tinygpt_hf.reading.reporter import SILENT, Reporter
from tinygpt_hf.reading.schemas import COLUMNS, MEANINGFUL, row_content
from tinygpt_hf.reading.tables import csv_rows, parquet_rows
from tinygpt_hf.reading.turns import MEDIA, BrokenRow, document_texts

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
WHOLE_FILE = "whole_file"  # a document_separator that cuts nothing
MARKER = "<|endoftext|>"  # between the documents of a .txt, as many corpora have it; text of its own hardly ever
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


@dataclass(frozen=True)
class Reading:
    """How files are read: the settings of those names.

    `in_pieces`: a text file of more than decoding.LONG bytes comes as a `LongText`, which nobody holds. `keep_broken`: what holds
    no text or no conversation comes with the fault under `broken`, a conversation as the row's JSON for a text.
    """

    text_column: str | None = None
    document_separator: str | None = None
    encoding_errors: str = "strict"
    in_pieces: bool = False
    keep_broken: bool = False

    def is_cut(self, ending: str | None) -> bool:
        """Tell whether a file of this ending is cut into documents."""
        return ending in TEXTS and self.document_separator not in (None, WHOLE_FILE)

    def text_file(self, path: str, reporter: Reporter) -> TextFile:
        """Make the file as text; a marker nobody asked about is refused in it."""
        is_looked_for = ending_of(path) in TEXTS and self.document_separator in (None, "blank_line")
        return TextFile(path, self.encoding_errors, reporter, MARKER if is_looked_for else None)


def file_documents(path: str, how: Reading = Reading(), reporter: Reporter = SILENT) -> Iterator[dict]:
    """The documents of one file, in its order.

    `reporter` hears of the bytes of the file that are read. `replaced` in a document: faults of its UTF-8 that
    encoding_errors="replace" took out.
    """
    ending = ending_of(path)

    def document_of(row: dict, origin: str) -> dict:
        return row_document(row, how.text_column, origin, how.keep_broken, how.encoding_errors)

    source = how.text_file(path, reporter)
    with read_errors(path):
        if Path(path).stat().st_size == 0:
            raise _empty(path)
        if ending == ".parquet":
            found = parquet_rows(source, how.text_column, document_of)
        elif ending in TABLES:
            found = csv_rows(source, how.text_column, document_of, is_tsv=ending == ".tsv")
        elif ending in LINES:
            found = _json(source, document_of, may_be_list=ending == ".json")
        elif how.is_cut(ending):
            found = _parts(source, how.document_separator)
        else:
            found = _text(source, how, may_be_blank=ending not in TEXTS)
        for document in found:
            replaced = source.take_replaced()
            yield {**document, "replaced": replaced} if replaced else document


def row_document(
    row: dict, text_column: str | None, origin: str, keep_broken: bool = False, encoding_errors: str = "strict"
) -> dict:
    """The document in one row of a table: its text or its messages. Bytes are text in UTF-8; `keep_broken` as in `Reading`."""
    source = TextFile(origin, encoding_errors)
    for name in [text_column] if text_column else COLUMNS:
        if isinstance(row.get(name), bytes):
            row = {**row, name: source.decode(row[name], f"{origin}, {name}")}
    try:
        document = row_content(row, text_column, origin)
    except RecursionError:
        raise UsageError(f"{origin} is nested too deeply", "text or messages", "fix or remove it") from None
    except BrokenRow as error:
        if not keep_broken:
            raise
        fault = error.problem.removeprefix(origin).lstrip(": ")
        shown = {*COLUMNS, *MEANINGFUL, text_column} - {*MEDIA}
        read = {name: value for name, value in row.items() if name in shown}
        return {"text": _as_json(read), "origin": origin, "broken": fault, "rule": error.rule}
    if not all(map(is_utf8, document_texts(document))):
        raise UsageError(f"{origin} holds half of a surrogate pair", "text", r"remove \ud800 to \udfff in it")
    return {**document, "origin": origin} | ({"replaced": source.replaced} if source.replaced else {})


def _as_json(row: dict) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False, default=str)
        return text if is_utf8(text) else json.dumps(row, default=str)
    except RecursionError:
        return "(nested too deeply to be written)"


def _empty(path: str, inside: str = "") -> UsageError:
    if inside:
        return UsageError(
            f"{path} holds {inside}", "text", "remove it, or let prepare-corpus drop and count such files"
        )
    return UsageError(f"{path} is empty", "text", "check the file")


def _text(source: TextFile, how: Reading, may_be_blank: bool) -> Iterator[dict]:
    text = _long_text(source) if how.in_pieces else None
    if text is None:
        with source.open() as file:
            source.refuse_other_kinds(file.peek(8)[:8])
            text = source.decode(source.whole(file), source.path, lines=0)
        source.refuse_marker(text)
    elif source.encoding_errors != "strict":  # what was replaced in it is told with it
        len(text)
        source.replaced += text.survey.replaced
    document = {"text": text, "origin": source.path}
    if isinstance(text, str) and (not text or not (may_be_blank or text.strip())):
        if not (text and how.keep_broken):
            raise _empty(source.path, "nothing but white space" if text else "")
        document |= {"broken": "nothing but white space", "rule": BrokenRow.rule}
    yield document


def _long_text(source: TextFile) -> LongText | None:
    """The text of a file that unpacks to more than decoding.LONG bytes, which nobody holds; of others None."""
    if not source.is_packed:
        return LongText(source) if Path(source.path).stat().st_size > decoding.LONG else None
    first = TextFile(source.path)
    with first.open() as file:
        first.refuse_other_kinds(file.peek(8)[:8])
        return LongText(source) if len(first.up_to(file, decoding.LONG)) > decoding.LONG else None


def long_text(path: str, how: Reading, reporter: Reporter) -> LongText | None:
    """The text of a file that `file_documents` would give in pieces, before its length is known; of others None."""
    ending = ending_of(path)
    if ending in TABLES | LINES or how.is_cut(ending):
        return None
    with read_errors(path):
        found = _long_text(how.text_file(path, reporter))
    return None if found is None or found.is_surveyed else found


def _parts(source: TextFile, separator) -> Iterator[dict]:
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
                    row = json.loads(source.decode(line, where), object_pairs_hook=one_of_each)
                except (ValueError, RecursionError) as error:
                    wanted = "one JSON object per line"
                    raise UsageError(f"{where} is no JSON ({first_words(error)})", wanted, "fix or remove it") from None
                yield _object(row, document_of, where)


def _object(row, document_of: Callable, origin: str) -> dict:
    if not isinstance(row, dict):
        raise UsageError(f"{origin} holds a {type(row).__name__}", "a JSON object", 'try {"text": "..."}')
    return document_of(row, origin)
