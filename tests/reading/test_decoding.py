"""Decoding: pieces equal the whole text, errors have positions, and long texts are not held in memory."""

import gzip
import os
import re

import pyarrow
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pyarrow import parquet
from recorded import Recorded

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.decoding import LongText, TextFile
from tinygpt_hf.reading.sources import Source, documents
from tinygpt_hf.reading.split import content_hash


@effort(max_examples=150)
@given(
    text=st.text(st.sampled_from("ab\n\n\n\r \t|é四🙂\u3000"), max_size=60),
    separator=st.sampled_from(["blank_line", "|", "||", "a\n", "abab"]),
    chunk=st.integers(1, 9),
)
def test_cutting_by_pieces_equals_cutting_the_whole_text(tmp_path_factory, text, separator, chunk):
    path = tmp_path_factory.getbasetemp() / "cut.txt"
    path.write_bytes(text.encode())
    whole = re.split(r"\r?\n(?:[ \t]*\r?\n)+", text) if separator == "blank_line" else text.split(separator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "CHUNK", chunk)
        if text:
            found = list(documents(Source(files=(str(path),), document_separator=separator)))
            assert [d["text"] for d in found] == [part for part in whole if part.strip()]
            numbers = [int(d["origin"].rpartition(" ")[2]) for d in found]
            assert numbers == [k for k, part in enumerate(whole) if part.strip()]


@effort(max_examples=100)
@given(data=st.binary(max_size=40) | st.text(max_size=20).map(str.encode), chunk=st.integers(1, 9))
def test_pieces_join_to_the_text_and_errors_have_a_position(tmp_path_factory, data, chunk):
    path = tmp_path_factory.getbasetemp() / "pieces.txt"
    data = b"x" + data.replace(b"\0", b"")
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "CHUNK", chunk)
        loose = TextFile(str(path), "replace")
        with loose.open() as file:
            assert "".join(loose.pieces(file)) == data.decode(errors="replace")
        strict = TextFile(str(path))
        with strict.open() as file:
            try:
                expected = data.decode()
            except UnicodeDecodeError as error:
                with pytest.raises(UsageError) as caught:
                    list(strict.pieces(file))
                line = data[: error.start].count(b"\n") + 1
                assert f"(line {line}, byte {error.start} is 0x{data[error.start]:02x})" in str(caught.value)
                assert loose.replaced == data.decode(errors="replace").count("\ufffd") - data.count(b"\xef\xbf\xbd") > 0
            else:
                assert "".join(strict.pieces(file)) == expected and loose.replaced == 0


@pytest.mark.parametrize("archive", ["", ".gz", ".zst"])
def test_a_long_text_behaves_like_a_string(tmp_path, monkeypatch, archive):
    text = "".join(f"line {k} é🙂\r\n" for k in range(300))
    pack = {"": bytes, ".gz": gzip.compress, ".zst": lambda b: pyarrow.compress(b, codec="zstd", asbytes=True)}[archive]
    path = tmp_path / f"t.txt{archive}"
    path.write_bytes(pack(b"\xef\xbb\xbf" + text.encode()))
    monkeypatch.setattr(decoding, "CHUNK", 70)
    monkeypatch.setattr(decoding, "LONG", 1000)
    (document,) = documents(Source(files=(str(path),)), in_pieces=True)
    long = document["text"]
    assert isinstance(long, LongText) and len(long) == len(text) and str(long) == text
    for part in (slice(0, 5), slice(100, 700), slice(len(text) - 3, None), slice(7, 7), slice(-20, 10**6)):
        assert str(long[part]) == text[part] and len(long[part]) == len(text[part])
    assert str(long[50:900][30:60]) == text[50:900][30:60]
    assert content_hash({"text": long}, "x") == content_hash({"text": text}, "x")
    (document,) = documents(Source(files=(str(path),)))
    assert document["text"] == text  # without in_pieces the text is whole


def test_invalid_utf8_is_replaced_and_counted(tmp_path):
    files = {
        "t.txt": b"caf\xe9 \xef\xbf\xbd\n\n\xff",
        "t.jsonl": b'{"text": "caf\xe9 \xef\xbf\xbd"}\n{"text": "\xff"}\n',
        "t.json": b'[{"text": "caf\xe9 \xef\xbf\xbd"}, {"text": "\xff"}]',
        "t.csv": b"text\ncaf\xe9 \xef\xbf\xbd\n\xff\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        found = list(documents(Source(files=(str(tmp_path / name),), encoding_errors="replace")))
        assert "".join(d["text"] for d in found).replace("\n", "") == "caf\ufffd \ufffd\ufffd"
        assert sum(d.get("replaced", 0) for d in found) == 2, name
        with pytest.raises(UsageError, match="is 0xe9.*--encoding_errors replace"):
            list(documents(Source(files=(str(tmp_path / name),))))


def test_reported_bytes_add_up_to_the_file_size(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LONG", 1000)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({"text": ["some text"] * 900}), sink)
    for name, data in {
        "t.txt": b"hello world\n" * 900,
        "t.txt.gz": gzip.compress(os.urandom(5000).hex().encode()),
        "t.jsonl": b'{"text": "a b c"}\n' * 900,
        "t.parquet": sink.getvalue().to_pybytes(),
    }.items():
        (tmp_path / name).write_bytes(data)
        heard = Recorded()
        for document in documents(Source(files=(str(tmp_path / name),)), in_pieces=True, reporter=heard):
            if isinstance(document.get("text"), LongText):
                half = len(document["text"]) // 2
                for part in (document["text"][:half], document["text"][half:]):
                    list(part.pieces())
        assert 0.5 * len(data) <= sum(heard.reads) <= 1.6 * len(data), name
