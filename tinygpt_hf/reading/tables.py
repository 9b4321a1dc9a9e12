"""Read the rows of tables: .csv and .tsv with the standard library, .parquet with pyarrow.

The format of a .csv is detected in its first megabyte. The delimiter is the one that gives the header a known column, and the
quoting is the first style that fits every line. If none fits, the error names the line.
"""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.decoding import TextFile, first_words
from tinygpt_hf.reading.schemas import COLUMNS, CONVERSATIONS, MEANINGFUL, SHAPES
from tinygpt_hf.reading.turns import MEDIA

LOOKED_AT = 1 << 20  # characters used to detect the format
DELIMITERS = (",", ";", "\t", "|")
DOUBLED: dict = {"quoting": csv.QUOTE_MINIMAL}  # "say ""hi"""
ESCAPED: dict = {"quoting": csv.QUOTE_MINIMAL, "escapechar": "\\", "doublequote": False}  # "say \"hi\""
UNQUOTED: dict = {"quoting": csv.QUOTE_NONE}  # a quotation mark is text


def csv_rows(source: TextFile, text_column: str | None, document_of: Callable, is_tsv: bool) -> Iterator[dict]:
    """Yield the documents of a .csv or .tsv file.

    It uses the standard library because pandas (in `datasets`) reads the text `NA` as missing and `12` as a number.
    """
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    path = source.path

    def decoded(file) -> Iterator[str]:
        for number, line in enumerate(source.lines(file), 1):
            yield from io.StringIO(
                source.decode(line, f"{path}, line {number}"), newline=""
            )  # also splits at a bare \r

    with source.open() as file:
        source.refuse_other_kinds(file.peek(8)[:8])
        lines = decoded(file)
        opening, size = [], 0
        while size < LOOKED_AT and (line := next(lines, None)) is not None:
            opening.append(line)
            size += len(line)
        table = csv.reader(itertools.chain(opening, lines), strict=True, **_detect(opening, text_column, is_tsv))
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
                _check_unique(path, columns, text_column)
                continue
            if len(cells) != len(columns):
                wanted = f"{len(columns)}, as in the first"
                raise UsageError(f"{where} has {len(cells)} cells", wanted, "quote the text or fix the line")
            yield document_of(dict(zip(columns, cells, strict=True)), f"{path}, row {count}")
            count += 1
    if not columns:
        raise UsageError(f"{path} is empty", "text", "check the file")


def _detect(opening: list[str], text_column: str | None, is_tsv: bool) -> dict:
    """Detect delimiter and quoting from the first lines; returns options of csv.reader."""
    header, is_whole = opening[:1], sum(map(len, opening)) < LOOKED_AT
    delimiters = ("\t",) if is_tsv else DELIMITERS
    wanted = ((text_column,),) if text_column else SHAPES
    heads = {delimiter: _rows(header, delimiter, DOUBLED, False) or [[]] for delimiter in delimiters}
    named = [delimiter for delimiter in delimiters if any(set(names) <= set(heads[delimiter][0]) for names in wanted)]
    delimiter = (named or delimiters)[0]
    if not any('"' in line for line in opening):
        return {"delimiter": delimiter, **DOUBLED}
    doubled, escaped, plain = (_rows(opening, delimiter, style, is_whole) for style in (DOUBLED, ESCAPED, UNQUOTED))
    style, cells = DOUBLED, [cell for row in plain or () for cell in row if cell]
    stray = rf'(?<![\\{delimiter}\n])"(?![{delimiter}\r\n]|\Z)'  # neither escaped nor at the edge of a cell
    if is_tsv and plain and not (doubled and _is_quoted(opening, doubled, plain)):
        style = UNQUOTED  # the standard for .tsv
    elif not doubled and escaped and not re.search(stray, "\n" + "".join(opening)):
        style = ESCAPED
    elif not doubled and any(cell[0] == '"' in cell[1:] for cell in cells) and not any(map(_has_quotes, cells)):
        style = UNQUOTED
    return {"delimiter": delimiter, **style}


def _rows(lines: list[str], delimiter: str, style: dict, is_whole: bool) -> list[list[str]] | None:
    """Parse lines in a quoting style; None if they do not fit it. Unless `is_whole`, the last row may be cut."""
    rows: list[list[str]] = []
    try:
        for cells in filter(None, csv.reader(lines, delimiter=delimiter, strict=True, **style)):
            if rows and len(cells) != len(rows[0]):
                return None
            rows.append(cells)
    except csv.Error as error:
        if is_whole or str(error) != "unexpected end of data":
            return None
    return rows


def _is_quoted(opening: list[str], quoted: list[list[str]], plain: list[list[str]]) -> bool:
    """Check whether quotation marks in a .tsv enclose cells, rather than being text.

    They do if the header has them, or if a cell with a tab or line end needs them. They also do if each column has them in all
    cells or in none.
    """
    is_needed = '""' in "".join(opening) or any("\t" in cell or "\n" in cell for cells in quoted for cell in cells)
    columns = zip(*plain[1:], strict=True)
    return is_needed or '"' in opening[0] or all(len(set(map(_has_quotes, column))) == 1 for column in columns)


def _has_quotes(cell: str) -> bool:
    return cell[:1] == '"' == cell[-1:]


def _check_unique(path: str, columns: list[str], text_column: str | None) -> None:
    """Raise UsageError if a column to be read occurs twice."""
    for name in (text_column, *COLUMNS, *MEANINGFUL):
        if columns.count(name) > 1:
            raise UsageError(f"{path} has {columns.count(name)} columns called {name}", "one", "rename the others")


def parquet_rows(source: TextFile, text_column: str | None, document_of: Callable) -> Iterator[dict]:
    """Yield the documents of a .parquet file, reading only the needed columns.

    A compressed file is decompressed in memory, because parquet is read from its end.
    """
    import pyarrow
    from pyarrow import parquet

    path, count, reported = source.path, 0, 0
    size = Path(path).stat().st_size
    try:
        if source.is_packed:
            with source.open() as file:
                table = parquet.ParquetFile(pyarrow.BufferReader(source.read_all(file)))
        else:
            # reads page by page; else a row group, perhaps the whole table, would be read at once
            table = parquet.ParquetFile(path, pre_buffer=False, buffer_size=decoding.CHUNK)
        names = table.schema_arrow.names
        _check_unique(path, names, text_column)
        columns = [name for name in ([text_column] if text_column else COLUMNS) if name in names] or names
        chosen = text_column in names and (text_column,) not in SHAPES  # may hold turns, as a list or a string
        if chosen or any(set(shape) <= set(columns) for shape in CONVERSATIONS):
            columns += [name for name in MEANINGFUL if name in names and name not in columns]
        has_media = not set(MEDIA).isdisjoint(columns)
        for batch in table.iter_batches(batch_size=8 if has_media else 256, columns=columns):
            for row in batch.to_pylist():
                yield document_of(without_nulls(row), f"{path}, row {count}")
                count += 1
            position = size * count // max(table.metadata.num_rows, 1)
            if not source.is_packed:
                source.reporter.read(path, position - reported)
            reported = position
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read after row {count} ({first_words(error)})",
            "a .parquet file",
            "check the file",
        ) from error


def without_nulls(row: dict) -> dict:
    """Drop the nulls inside the values of an Arrow row, which stand for fields that only other rows have."""
    return {name: _without_nulls(value) for name, value in row.items()}


def _without_nulls(value):
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value
