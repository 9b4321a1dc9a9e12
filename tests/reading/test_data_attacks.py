"""Hostile data: one line and a status, nothing executed, and no memory allocated by the claims of a file."""

import bz2
import gzip
import json
import lzma

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.formats import file_documents
from tinygpt_hf.reading.sources import Source, documents
from tinygpt_hf.rows.store import Rows, RowWriter


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def table_of(texts, **options) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({"text": texts}), sink, **options)
    return sink.getvalue().to_pybytes()


def damaged(data: bytes) -> bytes:
    quarter = len(data) // 4
    return data[:quarter] + b"\xa5" * quarter + data[2 * quarter :]


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TALK = {"messages": MESSAGES}


def second_line(messages) -> bytes:
    return (json.dumps(TALK) + "\n" + json.dumps({"messages": messages}) + "\n").encode()


LONG_TEXTS = [f"text {k} " * 20 for k in range(2000)]
HELLO = gzip.compress(b"hello " * 5000)
# (names of files, what they hold, the word that matters in the one line they are refused with)
HOSTILE = [
    # content that does not match the ending
    ("t.txt t.md t.jsonl t.csv", gzip.compress(b"x"), "is a gzip archive"),
    ("t.txt t.md t.jsonl t.csv", zstd(b"x"), "is a zstd archive"),
    ("t.txt t.md t.jsonl t.csv", b"PK\x03\x04...", "is a zip archive"),
    ("t.txt t.md t.jsonl t.csv", table_of(["a"]), "is a parquet file"),
    ("t.txt t.md t.jsonl t.csv", b"%PDF-1.7", "is a PDF file"),
    ("t.txt t.md t.jsonl t.json t.csv t.tsv", "text\nhello\n".encode("utf-16"), "is UTF-16"),
    ("t.txt t.md t.jsonl t.json t.csv t.tsv", bytes(range(256)) * 9, "t."),
    ("t.txt t.md t.jsonl t.json t.csv t.tsv", b"\x89PNG\r\n\x1a\n\x00\x00", "not valid UTF-8"),
    ("t.txt t.md t.jsonl t.json t.csv t.tsv t.parquet t.csv.gz t.parquet.gz t.txt.xz", b"", "is empty"),
    ("t.parquet", b"PAR1 nothing PAR1", "a .parquet file"),
    ("t.parquet", b"only text, but longer than a footer", "a .parquet file"),
    # broken archives and tables
    ("t.txt.gz t.csv.gz t.txt.bz2 t.txt.xz t.txt.zst t.parquet.gz", b"no archive at all", "cannot be read"),
    ("t.txt.gz t.csv.gz t.parquet.gz", HELLO[: len(HELLO) // 2], "cannot be read"),
    ("t.txt.gz t.csv.gz t.parquet.gz", HELLO[:20] + b"\xff" * 20 + HELLO[40:], "cannot be read"),
    ("t.txt.gz", gzip.compress(b"a\x00b"), "binary"),
    ("t.csv.gz", gzip.compress(b"caf\xe9 text,x\n"), "not valid UTF-8"),
    ("t.parquet.gz", gzip.compress(b"caf\xe9 text"), "a .parquet file"),
    ("t.txt.xz", lzma.compress(b"x" * 999)[:40], "cannot be read"),
    ("t.txt.bz2", bz2.compress(b"x" * 999)[:30], "cannot be read"),
    ("t.txt.zst t.jsonl.zst t.parquet.zst", zstd(b"x" * 999)[:-5], "cannot be read"),
    ("t.txt.zst", zstd(b"x" * 999)[:4] + b"\xff" * 20, "cannot be read"),
    ("t.parquet", damaged(table_of(LONG_TEXTS)), "t.parquet"),
    ("t.parquet", damaged(table_of(LONG_TEXTS, compression="none")), "t.parquet"),
    # bytes that are not text, with their position
    ("t.txt", b"abc\xff", "byte 3 is 0xff"),
    ("t.txt", b"\xef\xbb\xbfabc\xff", "byte 6 is 0xff"),
    ("t.txt", b"\xff\xfea\x00", "iconv -f UTF-16"),
    ("t.txt", b"\xff\xfe\x00\x00a\x00\x00\x00", "iconv -f UTF-32"),
    ("t.txt", b"a\x00b", "NUL bytes"),
    # empty text, or several texts
    ("t.txt t.md t.jsonl", b"", "is empty"),
    ("t.txt t.md", b"\xef\xbb\xbf", "is empty"),
    (
        "t.txt",
        b"\n \t\r\n" * 99,
        "holds nothing but white space (expected text). Remove it, or let prepare-corpus drop",
    ),
    ("t.txt", b"a<|endoftext|>b", "--document_separator '<|endoftext|>' to cut it there"),
    ("t.txt.gz", gzip.compress(b"a" * 999 + b"<|endoftext|>"), "or --document_separator whole_file"),
    ("t.csv", b"text\na\x00b\n", "binary"),
    ("t.csv", b"text\na\n\ncaf\xe9\n", "line 4 is not valid UTF-8 (byte 3 is 0xe9)"),
    ("t.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', "line 2 is not valid UTF-8 (byte 13 is 0xe9)"),
    ("t.json", b'[{"text": "a"},\n{"text": "caf\xe9"}]', "is not valid UTF-8 (line 2, byte 29 is 0xe9)"),
    ("t.jsonl", b'{"text": "\\ud83d"}\n', "half of a surrogate pair"),
    # JSON
    ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not valid JSON"),
    ("t.jsonl", b'{"text": "a"}\n"just text"\n', "line 2 holds a str (expected a JSON object"),
    ("t.jsonl", b"[" * 100_000, "is not valid JSON"),
    ("t.jsonl", b'{"text": ' + b"[" * 10**5, "is not valid JSON"),
    ("t.jsonl", b'{"a":' * 10**5, "is not valid JSON"),
    ("t.jsonl", b'{"text": ' + b"9" * 10**5 + b"}", "is not valid JSON"),
    ("t.jsonl", json.dumps({f"k{k}": 1 for k in range(10**5)}).encode(), "has the columns k0, k1"),
    ("t.json", b"[" * 10**6, "is not valid JSON"),
    ("t.json", b'[{"text": "a"}, 3]', "entry 1 holds a int"),
    ("t.json", b'[{"text": "a"}, null]', "entry 1 holds a NoneType (expected a JSON object"),
    ("t.json", b'[{"text": "a"},\n {"b": 1},\n {"text" "c"}\n]', "t.json, entry 1 has the columns b"),
    ("t.json", b'[{"text": "a"},\n {"text" "c"}\n]', "entry 1 is not valid JSON (Expecting ':' delimiter, line 2)"),
    ("t.json", b'[{"text": "a"},\n {"text": "b"', "entry 1 is not valid JSON (Expecting ',' delimiter, line 2)"),
    ("t.json", b'[{"text": "a"}\n', "entry 1 is not valid JSON (Expecting ',' delimiter, line 2)"),
    ("t.json", b'[{"text": "a"}\n{"text": "b"}]', "entry 1 is not valid JSON (Expecting ',' delimiter, line 2)"),
    ("t.json", b'[{"text": "a"},\n]', "entry 1 is not valid JSON (Expecting value, line 2)"),
    ("t.json", b'[{"text": "a"}]\n[]', "entry 1 is not valid JSON (Extra data, line 2)"),
    ("t.json", b'[{"text": "a"},\n"b', "entry 1 is not valid JSON (Unterminated string starting at, line 2)"),
    ("t.json", b'[{"text": "a"},\n' + b"[" * 10**6, "entry 1 is not valid JSON (maximum recursion depth exceeded"),
    ("t.json", b'[{"text": "a"}, ' + b"9" * 10**5, "entry 1 is not valid JSON (Exceeds the limit"),
    # cells
    ("t.csv", b"text,n\na,1\nb\n", "line 3 has 1 cells (expected 2"),
    ("t.csv", b'text\n"never ends\n', "is broken (unexpected end of data)"),
    ("t.csv", b'text\n"' + b"a" * 10**6, "is broken (unexpected end of data)"),
    ("t.csv", b"\n\n", "is empty"),
    ("t.csv", b"body\nx\n", "has the columns body (expected one of messages, conversations"),
    ("t.csv", ",".join(map(str, range(10**5))).encode() + b"\n" + b"," * (10**5 - 1) + b"\n", "has the columns 0, 1"),
    # columns and conversations
    ("t.jsonl", b'{"body": "b"}\n', "text, content). Name one with --text_column"),
    ("t.jsonl", b'{"text": 3}\n', "holds a int under text"),
    (
        "t.jsonl",
        b'{"text": null}\n',
        "holds nothing under text (expected text). Name another --text_column, or let prepare-corpus",
    ),
    ("t.jsonl", b'{"text": {"content": "a"}}\n', "holds a dict under text"),
    ("t.jsonl", second_line([]), "line 2: is not a list of messages"),
    ("t.jsonl", second_line(["Hi"]), "line 2: message 1 has no text"),
    ("t.jsonl", second_line([{"role": "user"}]), "line 2: message 1 has no text under `content`"),
    ("t.jsonl", second_line([{"role": "user", "content": " "}]), "line 2: message 1 is empty"),
    ("t.jsonl", second_line(MESSAGES[1:]), "line 2: message 1 has the role 'assistant' where 'user' is due"),
    ("t.jsonl", second_line(MESSAGES[:1] * 2), "line 2: message 2 has the role 'user'"),
    ("t.jsonl", second_line([{"role": "user", "content": "\ud800"}]), "line 2 holds half of a surrogate pair"),
]


def refused(path) -> str:
    with pytest.raises(UsageError) as caught:
        list(file_documents(str(path)))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000 and str(path) in line and " (expected " in line
    return line


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[f"{names} {words}" for names, _, words in HOSTILE])
def test_a_hostile_file_is_refused_in_one_line_with_its_place(tmp_path, number):
    names, data, words = HOSTILE[number]
    for name in names.split():
        (tmp_path / name).write_bytes(data)
        assert words in refused(tmp_path / name)


def test_a_cell_larger_than_the_librarys_own_limit_is_read(tmp_path):
    (tmp_path / "cell.csv").write_text('text\n"' + "a\n" * 10**5 + '"\n')
    (document,) = file_documents(str(tmp_path / "cell.csv"))
    assert len(document["text"]) == 2 * 10**5  # the library takes 131,072


def test_a_dataset_never_runs_code(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    mark = tmp_path / "EXECUTED"
    code = f"open({str(mark)!r}, 'w').write('x')\n"
    for name in ("mine.py", "dataset.py", "__init__.py", "conftest.py", "setup.py"):
        (folder / name).write_text(code)
    for name in (str(folder), str(folder / "mine.py")):
        with pytest.raises(UsageError) as caught:
            list(documents(Source(dataset_name=name)))
        assert "cannot be loaded" in str(caught.value) and "\n" not in str(caught.value)
    assert [d["text"] for d in documents(Source(files=(str(folder / "mine.py"),)))] == [code]  # as text it may be read
    assert not mark.exists()


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


HOSTILE_FEATURES = {"info": {"features": {"text": {"_type": "Pickled", "__reduce__": ["os.system", ["id"]]}}}}


@pytest.mark.parametrize("metadata", ["pickle", "features", "pandas", "extension"])
def test_metadata_of_a_parquet_file_is_never_run(tmp_path, metadata):
    import pickle

    mark, path = tmp_path / "EXECUTED", tmp_path / "d" / "a.parquet"
    path.parent.mkdir()
    trap = pickle.dumps(Trap(mark))
    table = pyarrow.table({"text": ["Hello"]})
    if metadata == "extension":
        field = pyarrow.field(
            "text",
            pyarrow.string(),
            metadata={b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": trap},
        )
        table = pyarrow.table({"text": ["Hello"]}, schema=pyarrow.schema([field]))
    else:
        words = {
            "pickle": {b"huggingface": trap, b"pandas": trap},
            "features": {b"huggingface": json.dumps(HOSTILE_FEATURES).encode()},
            "pandas": {b"pandas": b"[" * 10**5},
        }[metadata]
        table = table.replace_schema_metadata(words)
    parquet.write_table(table, path)
    assert [d["text"] for d in file_documents(str(path))] == ["Hello"]
    try:
        assert [d["text"] for d in documents(Source(dataset_name=str(path.parent)))] == ["Hello"]
    except (UsageError, RunError) as error:
        assert "\n" not in str(error)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.parquet.gz"])
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, name):
    import tracemalloc

    monkeypatch.setattr(decoding, "LARGEST", 10**6)
    path = tmp_path / name
    head = {"a.json.gz": b'["', "a.csv.gz": b'text\n"'}.get(name, b"")
    path.write_bytes(gzip.compress(head + b"a" * 20 * 10**6))
    assert path.stat().st_size < 10**5
    tracemalloc.start()
    try:
        assert "unpacks to more in one piece" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.fixture
def rows(tmp_path):
    with RowWriter(tmp_path / "rows", vocab_size=300) as writer:
        writer.add([5, 6, 7, 0], [0, 1, 1, 1])
        writer.add([8, 9, 0])
    return tmp_path / "rows"


LIES = [
    {"num_tokens": 10**15}, {"num_tokens": 6}, {"num_tokens": -1}, {"num_tokens": 7.0}, {"num_tokens": "7"},
    {"num_documents": 10**15}, {"num_documents": None}, {"num_target_tokens": 10**30}, {"dtype": "object"},
    {"dtype": "uint32"}, {"dtype": ["a"]}, {"vocab_size": 2**20}, {"vocab_size": True}, {"files": []}, {"files": None},
    {"format": [1]},
]  # fmt: skip


def test_an_invalid_manifest_is_one_line(rows):
    manifest = json.loads((rows / "manifest.json").read_text())
    for text in (*(json.dumps(manifest | lie) for lie in LIES), "[]", "5", "null", "{", "[" * 10**5, ""):
        (rows / "manifest.json").write_text(text)
        with pytest.raises((RunError, UsageError)) as caught:
            Rows(rows)
        assert "\n" not in str(caught.value) and str(rows) in str(caught.value), text[:80]
    (rows / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    assert not Rows(rows).is_masked  # it only leaves the mask out, which changes what is trained on, not what is read


@pytest.mark.parametrize("starts", [[0, 4, 4], [4, 0, 7], [0, 9, 7], [0, 4, 2**63], [1, 4, 7], [0, 4, 8]])
def test_documents_out_of_order_or_beyond_the_tokens_are_noticed(rows, starts):
    (rows / "documents.bin").write_bytes(np.array(starts, dtype=np.uint64).tobytes())
    with pytest.raises(RunError, match="documents.bin is out of order"):
        Rows(rows)


def test_ids_outside_the_vocabulary_are_noticed_before_the_model_sees_them(rows):
    (rows / "tokens.bin").write_bytes(np.array([5, 6, 7, 300, 8, 9, 0], dtype=np.uint16).tobytes())
    assert storage.find_damage(rows) is not None
    with pytest.raises(RunError, match="outside its vocabulary"):
        Rows(rows).batch([0], 4)
