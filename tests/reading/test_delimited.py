"""Delimited tables: delimiter and quoting are detected when they are unambiguous, else the line is named."""

import csv
import gzip
import io

import pyarrow
import pytest
from pyarrow import parquet

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.formats import Reading, file_documents

TEXTS = ["plain", 'She said "hi".', "one, two; three|four", "", '"Quoted" at the start', "two\nlines"]


def written(rows: list[str], **how) -> bytes:
    sink = io.StringIO(newline="")
    csv.writer(sink, **how).writerows([("id", "text"), *enumerate(rows)])
    return sink.getvalue().encode()


def read(path, data: bytes, **how) -> list[str]:
    path.write_bytes(data)
    return [document["text"] for document in file_documents(str(path), Reading(**how))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_delimiter_and_quoting_are_found(tmp_path, delimiter, line_end, quoting):
    data = written(TEXTS, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    assert read(tmp_path / "t.csv", data) == TEXTS
    escaped = {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL}
    assert read(tmp_path / "t.csv", written(TEXTS, delimiter=delimiter, **escaped)) == TEXTS


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_quoted_tsv_is_read_as_quoted(tmp_path, quoting):
    texts = [*TEXTS, "a\ttab"]
    assert read(tmp_path / "t.tsv", written(texts, delimiter="\t", quoting=quoting)) == texts
    data = gzip.compress(written(texts * 9, delimiter="\t", quoting=quoting))
    assert read(tmp_path / "t.tsv.gz", data) == texts * 9


def test_in_other_tsv_a_quotation_mark_is_text(tmp_path):
    texts = ['"Come," she said.', '"All of it."', "no", '"', 'He said "no']
    rows = "".join(f"{number}\t{text}\n" for number, text in enumerate(texts))
    assert read(tmp_path / "t.tsv", f"id\ttext\n{rows}".encode()) == texts


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ('id,text\n1,"Hello" is a word\n2,no\n', ['"Hello" is a word', "no"]),
        ('id,text\n1,say "hi"\n', ['say "hi"']),
        ('Nr;Inhalt\n1;a, b\n2;"c; d"\n', ["a, b", "c; d"]),
    ],
)
def test_a_csv_with_quotation_marks_as_text_or_a_named_column(tmp_path, data, texts):
    column = "Inhalt" if "Inhalt" in data else None
    assert read(tmp_path / "t.csv", data.encode(), text_column=column) == texts


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", 'id,text\n1,"good"\n2,"bad" x\n', "line 3 is broken"),
        ("t.csv", "id;text\n1;a\n2;b;c\n", "line 3 has 3 cells (expected 2"),
        ("t.csv", "text,id,text\na,1,b\n", "has 2 columns called text (expected one)"),
        ("t.jsonl", '{"text": "a", "text": "b"}\n', "the field 'text' is there twice"),
        ("t.json", '[{"text": "a", "text": "b"}]', "the field 'text' is there twice"),
    ],
)
def test_ambiguous_tables_are_refused_with_the_position(tmp_path, name, data, words):
    with pytest.raises(UsageError) as caught:
        read(tmp_path / name, data.encode())
    assert words in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_duplicate_columns_that_are_not_read_are_allowed(tmp_path):
    assert read(tmp_path / "t.csv", b"x,x,text\n1,2,a\n") == ["a"]
    with pytest.raises(UsageError, match="2 columns called x"):
        read(tmp_path / "t.csv", b"x,x,text\n1,2,a\n", text_column="x")


def test_bytes_in_a_column_are_text_in_utf8(tmp_path):
    def table(*cells: bytes) -> bytes:
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table({"text": pyarrow.array(cells, pyarrow.binary())}), sink)
        return sink.getvalue().to_pybytes()

    assert read(tmp_path / "t.parquet", table("café".encode(), b"b")) == ["café", "b"]
    with pytest.raises(UsageError, match=r"t\.parquet, row 1, text is not valid UTF-8 \(byte 1 is 0xff\)"):
        read(tmp_path / "t.parquet", table(b"a", b"b\xff"))
    found = list(file_documents(str(tmp_path / "t.parquet"), Reading(encoding_errors="replace")))
    assert [(document["text"], document.get("replaced")) for document in found] == [("a", None), ("b\ufffd", 1)]
