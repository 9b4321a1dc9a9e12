"""A list in a .json file is read entry by entry: equal to json.loads, errors with positions, bounded memory."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from recorded import Recorded

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.decoding import TextFile
from tinygpt_hf.reading.formats import file_documents
from tinygpt_hf.reading.json_list import JsonList

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3))
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t: ")])


def listed(path) -> list:
    source = TextFile(str(path))
    with source.open() as file:
        return list(JsonList(source, file))


@effort(max_examples=150)
@given(
    entries=st.lists(VALUES, max_size=5),
    separators=SEPARATORS,
    is_ascii=st.booleans(),
    around=st.sampled_from(["", "\n ", "  \t\r\n" * 5]),
    chunk=st.integers(1, 9),
)
def test_the_entries_are_those_of_json_loads(tmp_path_factory, entries, separators, is_ascii, around, chunk):
    path = tmp_path_factory.getbasetemp() / "list.json"
    text = around + json.dumps(entries, separators=separators, ensure_ascii=is_ascii) + around
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "CHUNK", chunk)
        assert listed(path) == json.loads(text)


@effort(max_examples=150)
@given(
    entries=st.lists(VALUES, min_size=1, max_size=4),
    place=st.integers(0, 10**6),
    change=st.sampled_from(["", "]", "}", ",", '"', "\\", "x", "\n", "[", "1"]),
    chunk=st.sampled_from([1, 2, 7, 1 << 20]),
)
def test_what_json_loads_refuses_is_refused_and_nothing_else(tmp_path_factory, entries, place, change, chunk):
    text = json.dumps(entries)
    place = 1 + place % len(text)  # after the bracket that begins a list
    text = text[:place] + change + text[place + (not change) :]
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "CHUNK", chunk)
        try:
            expected = json.loads(text)
        except ValueError:
            with pytest.raises(UsageError, match="is not valid JSON"):
                listed(path)
        else:
            assert listed(path) == expected


def test_entries_before_an_error_are_read(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("[]")
    assert list(file_documents(str(path))) == []
    path.write_text('[{"text": "a"},\n"b')
    documents = file_documents(str(path))
    assert next(documents)["text"] == "a"
    with pytest.raises(UsageError):
        next(documents)


def test_memory_holds_a_window_and_a_broken_entry_is_noticed_without_the_rest(tmp_path):
    path = tmp_path / "t.json.gz"
    entry = json.dumps({"text": "word " * 20_000})
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("[" + ",".join([entry] * 200) + "]")  # 20 MB
    tracemalloc.start()
    try:
        assert sum(len(document["text"]) for document in file_documents(str(path))) == 200 * 100_000
        assert tracemalloc.get_traced_memory()[1] < 12 * 10**6
    finally:
        tracemalloc.stop()
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write('[{"text": oh no},' + ",".join([entry] * 400) + "]")
    heard = Recorded()
    with pytest.raises(UsageError, match="entry 0 is not valid JSON"):
        list(file_documents(str(path), reporter=heard))
    assert sum(heard.reads) < path.stat().st_size / 2
