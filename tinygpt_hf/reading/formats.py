"""Read the documents of one file. Text is kept exactly: white space and line endings are not changed.

| ending                        | read as                                                               |
|---|---|
| .txt                          | one document, or cut at `document_separator`                          |
| .jsonl .ndjson .json          | one document per JSON object, a line each (.json: also one list)      |
| .csv .tsv .parquet            | one document per row (tables.py), its columns as in schemas.py        |
| .md .py and other source code | one document                                                          |

Each may have .gz, .bz2, .xz or .zst appended. Content that is not text (binary, UTF-16, a broken archive or table) raises a
`UsageError` naming the position.
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
WHOLE_FILE = "whole_file"  # the document_separator that keeps a file whole
MARKER = "<|endoftext|>"  # separates documents in many .txt corpora, and hardly ever occurs in text
BLANK_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")  # does not match the indentation of the next line


def ending_of(name: str) -> str | None:
    """Return the ending of a file name in lower case, without .gz and the like; None if it is unknown."""
    name = name.lower()
    for archive in ARCHIVES:
        name = name.removesuffix(archive)
    ending = Path(name).suffix
    return ending if ending in TEXTS | LINES | TABLES | WHOLE else None


def is_utf8(words: str) -> bool:
    """Check that a string can be encoded as UTF-8: it has no lone surrogate, as from a bad file name or JSON escape."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Reading:
    """The settings with which files are read.

    `in_pieces`: a text file of more than decoding.LONG bytes is returned as a `LongText`. `keep_broken`: a row or file without
    text or a valid conversation is returned with the problem under `broken` and the row's JSON as its text.
    """

    text_column: str | None = None
    document_separator: str | None = None
    encoding_errors: str = "strict"
    in_pieces: bool = False
    keep_broken: bool = False

    def is_cut(self, ending: str | None) -> bool:
        """Check whether files with this ending are cut into documents."""
        return ending in TEXTS and self.document_separator not in (None, WHOLE_FILE)

    def text_file(self, path: str, reporter: Reporter) -> TextFile:
        """Return the file as text; a .txt with document markers is refused unless a setting says how to treat them."""
        refuse_marker = ending_of(path) in TEXTS and self.document_separator in (None, "blank_line")
        return TextFile(path, self.encoding_errors, reporter, MARKER if refuse_marker else None)


def file_documents(path: str, how: Reading = Reading(), reporter: Reporter = SILENT) -> Iterator[dict]:
    """Yield the documents of one file, in order.

    `reporter` gets the bytes read. A document has `replaced` if encoding_errors="replace" replaced invalid UTF-8 sequences.
    """
    ending = ending_of(path)

    def document_of(row: dict, origin: str) -> dict:
        return row_document(row, how.text_column, origin, how.keep_broken, how.encoding_errors)

    source = how.text_file(path, reporter)
    with read_errors(path):
        if Path(path).stat().st_size == 0:
            raise _empty(path)
        if ending == ".parquet":
            documents = parquet_rows(source, how.text_column, document_of)
        elif ending in TABLES:
            documents = csv_rows(source, how.text_column, document_of, is_tsv=ending == ".tsv")
        elif ending in LINES:
            documents = _json(source, document_of, may_be_list=ending == ".json")
        elif how.is_cut(ending):
            documents = _parts(source, how.document_separator)
        else:
            documents = _text(source, how, may_be_blank=ending not in TEXTS)
        for document in documents:
            replaced = source.take_replaced()
            yield {**document, "replaced": replaced} if replaced else document


def row_document(
    row: dict, text_column: str | None, origin: str, keep_broken: bool = False, encoding_errors: str = "strict"
) -> dict:
    """Convert one row of a table into a document with text or messages.

    Bytes are decoded as UTF-8. A row without either raises UsageError, unless `keep_broken` is set (see `Reading`).
    """
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
        problem = error.problem.removeprefix(origin).lstrip(": ")
        shown = {*COLUMNS, *MEANINGFUL, text_column} - {*MEDIA}
        row_text = _as_json({name: value for name, value in row.items() if name in shown})
        return {"text": row_text, "origin": origin, "broken": problem, "rule": error.rule}
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
            text = source.decode(source.read_all(file), source.path, lines=0)
        source.refuse_marker(text)
    elif source.encoding_errors != "strict":
        len(text)  # reads the text once, which counts the replaced sequences
        source.replaced += text.survey.replaced
    document = {"text": text, "origin": source.path}
    if isinstance(text, str) and (not text or not (may_be_blank or text.strip())):
        if not (text and how.keep_broken):
            raise _empty(source.path, "nothing but white space" if text else "")
        document |= {"broken": "nothing but white space", "rule": BrokenRow.rule}
    yield document


def _long_text(source: TextFile) -> LongText | None:
    """Return the text of a file that has more than decoding.LONG bytes when decompressed, else None."""
    if not source.is_packed:
        return LongText(source) if Path(source.path).stat().st_size > decoding.LONG else None
    first = TextFile(source.path)
    with first.open() as file:
        first.refuse_other_kinds(file.peek(8)[:8])
        return LongText(source) if len(first.read_up_to(file, decoding.LONG)) > decoding.LONG else None


def long_text(path: str, how: Reading, reporter: Reporter) -> LongText | None:
    """Return a file's text if `file_documents` gives it in pieces and its length is not known yet, else None."""
    ending = ending_of(path)
    if ending in TABLES | LINES or how.is_cut(ending):
        return None
    with read_errors(path):
        text = _long_text(how.text_file(path, reporter))
    return None if text is None or text.is_surveyed else text


def _parts(source: TextFile, separator) -> Iterator[dict]:
    """Yield the parts of a text cut at blank lines or at a marker; memory holds the longest part."""
    number, rest = 0, ""
    with source.open() as file:
        for piece in source.pieces(file):
            source.check_size(rest)
            *parts, rest = _cut(rest, piece, separator)
            for part in parts:
                if part.strip():
                    yield {"text": part, "origin": f"{source.path}, part {number}"}
                number += 1
    if separator == "blank_line":  # `_cut` leaves the white space at the end in `rest`
        rest = BLANK_LINES.split(rest)[0] if rest.strip() else ""
    if rest.strip():
        yield {"text": rest, "origin": f"{source.path}, part {number}"}


def _cut(rest: str, piece: str, separator: str) -> list[str]:
    """Cut `rest + piece` at the separators; `rest` holds none, and the last part may continue in the next piece.

    Only the new text is searched, so the cost is linear in the length of a part.
    """
    if separator == "blank_line":
        known = len(rest.rstrip(" \t\r\n"))  # no separator begins before it
        text = rest + piece
        end = len(text.rstrip(" \t\r\n"))  # white space after it may continue in the next piece
        borders = [match.span() for match in BLANK_LINES.finditer(text, known, end)]
    else:
        known, borders = max(0, len(rest) - len(separator) + 1), []
        text = rest + piece
        while (begin := text.find(separator, known)) >= 0:
            known = begin + len(separator)
            borders.append((begin, known))
    cuts = [0, *(position for border in borders for position in border), len(text)]
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
                    raise UsageError(
                        f"{where} is not valid JSON ({first_words(error)})", wanted, "fix or remove it"
                    ) from None
                yield _object(row, document_of, where)


def _object(row, document_of: Callable, origin: str) -> dict:
    if not isinstance(row, dict):
        raise UsageError(f"{origin} holds a {type(row).__name__}", "a JSON object", 'try {"text": "..."}')
    return document_of(row, origin)
