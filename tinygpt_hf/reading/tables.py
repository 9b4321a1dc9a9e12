"""Tables -> rows: .csv and .tsv with the standard library, .parquet with pyarrow.

How a .csv is written is found out in its first megabyte: the delimiter is the one that gives the header a column that is read, the
quoting the first that fits every line. Nothing is guessed: where none fits, the line is named.
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

LOOKED_AT = 1 << 20  # characters that say how a table is written
DELIMITERS = (",", ";", "\t", "|")
DOUBLED: dict = {"quoting": csv.QUOTE_MINIMAL}  # "say ""hi"""
ESCAPED: dict = {"quoting": csv.QUOTE_MINIMAL, "escapechar": "\\", "doublequote": False}  # "say \"hi\""
UNQUOTED: dict = {"quoting": csv.QUOTE_NONE}  # a quotation mark is text


def csv_rows(source: TextFile, text_column: str | None, document_of: Callable, is_tsv: bool) -> Iterator[dict]:
    """Read with the standard library: pandas, below `datasets`, takes the text `NA` for nothing and `12` for a number."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    path = source.path

    def decoded(file) -> Iterator[str]:
        for number, line in enumerate(source.lines(file), 1):
            yield from io.StringIO(source.decode(line, f"{path}, line {number}"), newline="")  # a bare \r ends one too

    with source.open() as file:
        source.refuse_other_kinds(file.peek(8)[:8])
        lines = decoded(file)
        opening, size = [], 0
        while size < LOOKED_AT and (line := next(lines, None)) is not None:
            opening.append(line)
            size += len(line)
        table = csv.reader(itertools.chain(opening, lines), strict=True, **_written(opening, text_column, is_tsv))
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
                _refuse_twins(path, columns, text_column)
                continue
            if len(cells) != len(columns):
                wanted = f"{len(columns)}, as in the first"
                raise UsageError(f"{where} has {len(cells)} cells", wanted, "quote the text or fix the line")
            yield document_of(dict(zip(columns, cells, strict=True)), f"{path}, row {count}")
            count += 1
    if not columns:
        raise UsageError(f"{path} is empty", "text", "check the file")


def _written(opening: list[str], text_column: str | None, is_tsv: bool) -> dict:
    """Find out how a table is written, as options of csv.reader, from its first lines."""
    header, is_whole = opening[:1], sum(map(len, opening)) < LOOKED_AT
    delimiters = ("\t",) if is_tsv else DELIMITERS
    wanted = ((text_column,),) if text_column else SHAPES
    heads = {delimiter: _rows(header, delimiter, DOUBLED, False) or [[]] for delimiter in delimiters}
    named = [delimiter for delimiter in delimiters if any(set(names) <= set(heads[delimiter][0]) for names in wanted)]
    delimiter = (named or delimiters)[0]
    if not any('"' in line for line in opening):
        return {"delimiter": delimiter, **DOUBLED}
    doubled, escaped, plain = (_rows(opening, delimiter, way, is_whole) for way in (DOUBLED, ESCAPED, UNQUOTED))
    way, cells = DOUBLED, [cell for row in plain or () for cell in row if cell]
    stray = rf'(?<![\\{delimiter}\n])"(?![{delimiter}\r\n]|\Z)'  # neither escaped nor at the border of a cell
    if is_tsv and plain and not (doubled and _is_quoted(opening, doubled, plain)):
        way = UNQUOTED  # as the format has it, unless somebody quotes by a rule
    elif not doubled and escaped and not re.search(stray, "\n" + "".join(opening)):
        way = ESCAPED
    elif not doubled and any(cell[0] == '"' in cell[1:] for cell in cells) and not any(map(_is_marked, cells)):
        way = UNQUOTED
    return {"delimiter": delimiter, **way}


def _rows(lines: list[str], delimiter: str, way: dict, is_whole: bool) -> list[list[str]] | None:
    """Read lines this way; None where they do not fit it. Where they are not the whole file, the last row may be cut."""
    rows: list[list[str]] = []
    try:
        for cells in filter(None, csv.reader(lines, delimiter=delimiter, strict=True, **way)):
            if rows and len(cells) != len(rows[0]):
                return None
            rows.append(cells)
    except csv.Error as error:
        if is_whole or str(error) != "unexpected end of data":
            return None
    return rows


def _is_quoted(opening: list[str], quoted: list[list[str]], plain: list[list[str]]) -> bool:
    """Tell whether the quotation marks of a .tsv are no text: the header has them, or a tab or line end needed them, or in every
    column all cells have them or none."""
    is_needed = '""' in "".join(opening) or any("\t" in cell or "\n" in cell for cells in quoted for cell in cells)
    columns = zip(*plain[1:], strict=True)
    return is_needed or '"' in opening[0] or all(len(set(map(_is_marked, column))) == 1 for column in columns)


def _is_marked(cell: str) -> bool:
    return cell[:1] == '"' == cell[-1:]


def _refuse_twins(path: str, columns: list[str], text_column: str | None) -> None:
    """Refuse a table of which one of two columns of one name would be read."""
    for name in (text_column, *COLUMNS, *MEANINGFUL):
        if columns.count(name) > 1:
            raise UsageError(f"{path} has {columns.count(name)} columns called {name}", "one", "rename the others")


def parquet_rows(source: TextFile, text_column: str | None, document_of: Callable) -> Iterator[dict]:
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
        _refuse_twins(path, names, text_column)
        columns = [name for name in ([text_column] if text_column else COLUMNS) if name in names] or names
        chosen = text_column in names and (text_column,) not in SHAPES  # it may hold turns, as a list or as a string
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


def without_nulls(row: dict) -> dict:
    """Return a row of an Arrow table without the nulls inside its values: they stand for fields that other rows have."""
    return {name: _without_nulls(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}


def _without_nulls(value):
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value
