"""Text comes in byte for byte, in an order that is always the same, from every kind of file, folder, URL and dataset."""

import bz2
import contextlib
import functools
import gzip
import hashlib
import http.server
import json
import lzma
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from recorded import Recorded

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading import discovery as file_search
from tinygpt_hf.reading.discovery import find_files
from tinygpt_hf.reading.sources import (
    Source,
    documents,
    fingerprint,
    remarks,
    settled,
    skipped,
    training_sources,
    validation_source,
)
from tinygpt_hf.settings.arguments import DataArguments

TEXTS = ["one\r\ntwo  ", "\tthree\n\n", " four 四 🙂 \u00a0", 'a "quoted", line', "NA", "12", "null", ""]
MESSAGES = [{"role": "user", "content": "Hi\r\n"}, {"role": "assistant", "content": "Hello "}]


def read(*files, **options) -> list[str]:
    return [d.get("text", d.get("messages")) for d in documents(Source(files=tuple(map(str, files)), **options))]


def refused(*files, **options) -> str:
    with pytest.raises(UsageError) as caught:
        read(*files, **options)
    line = str(caught.value)
    assert " (expected " in line and "\n" not in line
    return line


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def table_of(texts) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({"number": list(range(len(texts))), "text": texts}), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    ".jsonl": lambda texts: "".join(json.dumps({"n": 1, "text": t}) + "\n" for t in texts).encode(),
    ".ndjson": lambda texts: "\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts).encode(),
    ".json": lambda texts: json.dumps([{"text": t} for t in texts], indent=1).encode(),
    ".csv": lambda texts: ("n,text\r\n" + "".join(f"1,{quoted(t)}\r\n" for t in texts)).encode(),
    ".tsv": lambda texts: ("text\tn\n" + "".join(f"{quoted(t)}\t1\n" for t in texts)).encode(),
    ".parquet": table_of,
}


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("ending", FORMATS)
def test_every_table_and_its_gzip_give_the_texts_unchanged(tmp_path, ending, gz):
    data = FORMATS[ending](TEXTS)
    path = tmp_path / f"t{ending}{gz}"
    path.write_bytes(gzip.compress(data) if gz else data)
    found = list(documents(Source(files=(str(path),))))
    assert [d["text"] for d in found] == TEXTS
    assert all(str(path) in d["origin"] for d in found) and len({d["origin"] for d in found}) == len(TEXTS)
    assert read(path, max_samples=3) == TEXTS[:3]


@pytest.mark.parametrize("ending", [*FORMATS, ".txt", ".md"])
def test_zstd_is_read_like_gzip(tmp_path, ending):
    data = FORMATS[ending](TEXTS) if ending in FORMATS else b"one\r\ntwo"
    packed = pyarrow.compress(data, codec="zstd", asbytes=True)
    path = tmp_path / f"t{ending}.zst"
    path.write_bytes(packed)
    assert read(path) == (TEXTS if ending in FORMATS else ["one\r\ntwo"])
    for broken in (packed[:-5], b"no zstd at all", packed[:4] + b"\xff" * 20):
        path.write_bytes(broken)
        assert "cannot be read" in refused(path)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv"])
def test_a_byte_order_mark_is_no_text(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + FORMATS[ending](["a", "b"]))
    assert read(path) == ["a", "b"]


@pytest.mark.parametrize("ending", [".txt", ".md", ".py", ".txt.gz", ".TXT"])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, ending):
    text = "line \r\n\r\n\tcode\r\n\n\n  end\u2028 \x0b"
    path = tmp_path / f"t{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    assert read(path) == [text]


def test_blank_lines_cut_a_text_and_take_nothing_else(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\n\none\ntwo  \n\n    def indented():\n\treturn 1\n \t\n\r\n\r\nlast\r\nline\r\n\r\n")
    assert read(path, document_separator="blank_line") == [
        "one\ntwo  ",
        "    def indented():\n\treturn 1",
        "last\r\nline",
    ]


def test_a_marker_cuts_a_text_and_takes_nothing_else(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("one\n<|endoftext|>\n two<|endoftext|>\n\n<|endoftext|>", newline="")
    assert read(path, document_separator="<|endoftext|>") == ["one\n", "\n two"]
    code = tmp_path / "t.py"
    code.write_text("a\n\nb\n")
    assert read(code, document_separator="blank_line") == ["a\n\nb\n"]


def test_columns(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"content": "c", "body": "b"}) + "\n")
    assert read(path) == ["c"] and read(path, text_column="body") == ["b"]
    assert "has the columns content, body (expected the column 'x'" in refused(path, text_column="x")
    path.write_text('{"body": "b"}\n')
    assert "instruction with output, text, content). Name one with --text_column" in refused(path)
    path.write_text('{"text": 3}\n')
    assert "holds a int under text" in refused(path)
    path.write_text('{"text": null}\n')
    assert "holds nothing under text" in refused(path)


def test_a_table_of_one_row_group_is_read_page_by_page(tmp_path):
    texts = [os.urandom(2000).hex() for _ in range(12_000)]  # 48 MB that pack to half of it
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "t.parquet", compression="zstd")
    assert parquet.ParquetFile(tmp_path / "t.parquet").num_row_groups == 1
    before, held, found = pyarrow.total_allocated_bytes(), [], []
    for document in documents(Source(files=(str(tmp_path / "t.parquet"),))):
        held.append(pyarrow.total_allocated_bytes() - before)
        found.append(document["text"])
    assert found == texts and max(held) < 16e6


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_conversations(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    if ending == ".parquet":
        parquet.write_table(pyarrow.table({"messages": [MESSAGES]}), path)
    else:
        path.write_text(json.dumps([{"messages": MESSAGES}] if ending == ".json" else {"messages": MESSAGES}))
    assert read(path) == [MESSAGES]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "is no list of messages"),
        ([{"role": "assistant", "content": "x"}], "message 1 has the role 'assistant' where 'user' is due"),
        ([MESSAGES[0], MESSAGES[0]], "message 2 has the role 'user'"),
        ([{"role": "user"}], "message 1 has no text under `content`"),
        ([{"role": "user", "content": " "}], "message 1 is empty"),
        (["Hi"], "message 1 has no text"),
        ([{"role": "user", "content": "\ud800"}], "half of a surrogate pair"),
    ],
)
def test_broken_conversations_name_their_line(tmp_path, messages, words):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"messages": MESSAGES}) + "\n" + json.dumps({"messages": messages}) + "\n")
    line = refused(path)
    assert words in line and f"{path}, line 2" in line


# Folders, globs, lists.


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    assert "pipe.txt is a pipe, device or socket (expected a file" in refused(tmp_path / "pipe.txt")
    assert "/dev/zero is a pipe, device or socket" in refused("/dev/zero")
    for name in ("loop.txt", "gone.txt"):
        assert f"{name} is a link that leads nowhere" in refused(tmp_path / name)
    assert "is a link that leads nowhere" in refused(tmp_path)  # in a folder it is not passed over either


def test_a_link_to_a_folder_above_shows_no_file_twice(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z/t.txt").write_text("once")
    (tmp_path / "z/again").symlink_to(tmp_path)
    (tmp_path / "a.txt").symlink_to(tmp_path / "z/t.txt")
    assert read(tmp_path / "**/*.txt") == ["once"] and read(tmp_path / "z") == ["once"] == read(tmp_path)


def test_links_are_followed_in_folders_and_globs_alike(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/t.txt").write_text("behind a link")
    (tmp_path / "here/deep").mkdir(parents=True)
    (tmp_path / "here/deep/link").symlink_to(tmp_path / "elsewhere")
    for number in range(3):  # loops: not followed for ever
        (tmp_path / f"here/loop{number}").symlink_to(tmp_path / "here")
    for name in ("here", "here/deep/**/*", "her*", "here/deep/*"):
        assert read(tmp_path / name) == ["behind a link"]


def test_source_code_and_archives_of_any_case_are_read_and_the_others_counted(tmp_path):
    (tmp_path / "in").mkdir()
    code = "a.dart b.cu c.zig d.m e.mjs f.scss g.vue h.f90 i.proto j.ps1 k.cxx l.PY".split()
    packed = {"m.txt.GZ": gzip.compress, "n.md.bz2": bz2.compress, "o.jl.XZ": lzma.compress}
    for name in [*code, *packed, "p.jpg", "q.JPG", "r.tar.xz", "Makefile", "s.py", "t.png"]:
        text = b"" if name == "s.py" else name.encode()
        (tmp_path / "in" / name).write_bytes(packed.get(name, bytes)(text))
    (tmp_path / "in/.git").mkdir()
    (tmp_path / "in/.git/x.jpg").write_text("hidden")
    for name in ("in", "in/*", "**/*"):
        assert read(tmp_path / name) == [*code, *packed]
        others = {".jpg": 2, ".tar.xz": 1, "none": 1, ".png": 1}
        assert skipped([Source(files=(str(tmp_path / name),))]) == others
    assert skipped([Source(files=(str(tmp_path / "in/a.dart"),))]) == {}
    for name, data in {
        "t.txt.bz2": b"no bz2",
        "t.txt.xz": b"no xz",
        "u.txt.xz": lzma.compress(b"x" * 999)[:40],
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "cannot be read" in refused(tmp_path / name)


def test_of_a_prepared_corpus_a_glob_finds_the_data_only(tmp_path):
    for name, text in {"data/d-0": "kept", "excluded/e-0": "dropped"}.items():
        path = tmp_path / "corpus" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(table_of([text]))
    (tmp_path / "corpus/corpus.json").write_text(json.dumps({"format": "tinygpt-corpus-1"}))
    (tmp_path / "corpus/README.md").write_text("its card")
    for name in ("", "corpus", "corpus/*/*.parquet", "corpus/*", "corp*", "*/*/*", "**/*.parquet", "corpus/data/*"):
        assert read(tmp_path / name) == ["kept"], name
    assert read(tmp_path / "corpus/excluded/*") == read(tmp_path / "corpus/excluded") == ["dropped"]
    assert read(tmp_path / "corpus/README.md") == ["its card"]


def test_a_file_that_is_not_what_its_ending_says(tmp_path):
    for data, words in {
        gzip.compress(b"x"): "is a gzip archive",
        pyarrow.compress(b"x", codec="zstd", asbytes=True): "is a zstd archive",
        b"PK\x03\x04...": "is a zip archive",
        table_of(["a"]): "is a parquet file",
        b"%PDF-1.7": "is a PDF file",
    }.items():
        for name in ("t.txt", "t.jsonl", "t.csv", "t.md"):
            (tmp_path / name).write_bytes(data)
            assert words in refused(tmp_path / name)
    (tmp_path / "t.parquet").write_text("only text, but longer than a footer")
    assert "(expected a .parquet file" in refused(tmp_path / "t.parquet")


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "SMALL_ENOUGH", 10**6)
    line = json.dumps({"text": "a" * 100}).encode() + b"\n"
    for name, data in {
        "t.jsonl.gz": gzip.compress(line * 40_000),
        "t.jsonl.zst": pyarrow.compress(line * 40_000, codec="zstd", asbytes=True),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "unpacks to more than" in refused(tmp_path / name)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(line * 400))
    assert len(read(tmp_path / "t.jsonl.gz")) == 400


def test_a_line_of_megabytes_is_read(tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "word " * 10**6}) + "\n")
    assert read(tmp_path / "t.jsonl") == ["word " * 10**6]


def test_folders_and_globs_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b/2.txt", "a.md", "b/1.jsonl", "c.bin", ".hidden.txt", ".git/x.txt", "b/10.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"text": "1.jsonl"}' if name.endswith("jsonl") else Path(name).name)
    assert read(tmp_path) == ["a.md", "1.jsonl", "10.txt", "2.txt"]
    assert read(tmp_path / "b/*.txt") == ["10.txt", "2.txt"]
    assert read(tmp_path / "**/*") == ["a.md", "1.jsonl", "10.txt", "2.txt"]
    assert read(tmp_path / "b/2.txt", tmp_path / "a.md") == ["2.txt", "a.md"]


def test_a_name_with_glob_signs_that_exists_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("here")
    assert read(tmp_path / "a[1].txt") == ["here"]


def test_files_that_are_not_there(tmp_path):
    assert "none.txt does not exist" in refused(tmp_path / "none.txt")
    assert "*.txt matches no text file" in refused(tmp_path / "*.txt")
    assert "holds no text file" in refused(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"x")
    assert "x.bin has an unknown ending; known: .csv" in refused(tmp_path / "x.bin")
    (Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt"))).write_text("x")
    assert r"caf\udce9.txt' is no UTF-8" in refused(tmp_path)


# What is no text.


@pytest.mark.parametrize(
    "ending", [".txt", ".txt.gz", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".csv.gz", ".parquet.gz"]
)
def test_bad_files_are_one_line(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    wrap = gzip.compress if ending.endswith(".gz") else bytes
    path.write_bytes(b"")
    assert f"{path} is empty" in refused(path)
    for data in (
        "text\nhello\n".encode("utf-16"),
        bytes(range(256)) * 9,
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"caf\xe9 text,x\n",
    ):
        path.write_bytes(wrap(data))
        assert str(path) in refused(path)
    if ending.endswith(".gz"):
        path.write_bytes(b"no gzip at all")
        assert "cannot be read" in refused(path)
        whole = gzip.compress(FORMATS[".csv"](TEXTS) * 50 if "csv" in ending else b"hello " * 5000)
        path.write_bytes(whole[: len(whole) // 2])
        assert "cannot be read" in refused(path)
        path.write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
        assert "cannot be read" in refused(path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.txt", b"abc\xff", "byte 3 is 0xff"),
        ("t.txt", b"\xef\xbb\xbfabc\xff", "byte 6 is 0xff"),
        ("t.txt", b"\xff\xfea\x00", "iconv -f UTF-16"),
        ("t.txt", b"a\x00b", "NUL bytes"),
        ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is no JSON"),
        ("t.jsonl", b'{"text": "a"}\n"just text"\n', "line 2 holds a str (expected a JSON object"),
        ("t.jsonl", b'{"text": "\\ud83d"}\n', "half of a surrogate pair"),
        ("t.jsonl", b"[" * 100_000, "is no JSON"),
        ("t.json", b'[{"text": "a"}, 3]', "entry 1 holds a int"),
        ("t.json", b'[{"text": "a"}', "is no JSON"),
        ("t.csv", b"text,n\na,1\nb\n", "line 3 has 1 cells (expected 2"),
        ("t.csv", b'text\n"never ends\n', "is broken (unexpected end of data)"),
        ("t.csv", b"text\na\x00b\n", "binary"),
        ("t.csv", b"text\ncaf\xe9\n", "no UTF-8"),
        ("t.csv", b"\n\n", "is empty"),
        ("t.csv", b"body\nx\n", "has the columns body; one of messages, conversations"),
        ("t.parquet", b"PAR1 nothing PAR1", "(expected a .parquet file"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    assert words in refused(path)


@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_a_damaged_parquet_file_is_one_line(tmp_path, compression):
    path = tmp_path / "t.parquet"
    parquet.write_table(
        pyarrow.table({"text": [f"text {k} " * 20 for k in range(2000)]}), path, compression=compression
    )
    data = bytearray(path.read_bytes())
    begin, end = len(data) // 4, len(data) // 2
    data[begin:end] = b"\xa5" * (end - begin)
    path.write_bytes(data)
    assert "t.parquet" in refused(path)


def test_a_long_cell_is_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text\n" + "x" * 300_000 + "\n")
    assert read(path) == ["x" * 300_000]


# Mixes and contradictions.


def test_a_weighted_mix(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    entries = [
        {"train_file": str(tmp_path / "a.txt"), "weight": "2"},
        {"dataset_name": "toyland", "max_train_samples": "3", "weight": 0.5},
    ]
    first, second = training_sources(DataArguments(sources=entries), seed=7)
    assert (first.weight, first.files, first.seed) == (2.0, (str(tmp_path / "a.txt"),), 0)
    assert (second.weight, second.dataset_name, second.max_samples, second.seed) == (0.5, "toyland", 3, 7)
    assert [d["text"] for d in documents(first)] == ["a"] and len(list(documents(second))) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "there is no text to read"),
        ({"train_file": ["a"], "dataset_name": "b"}, "both given"),
        ({"sources": [{"train_file": "a"}], "dataset_name": "b"}, "beside train_file or dataset_name"),
        ({"sources": [{"train_fil": "a"}]}, "data.sources, entry 1: train_fil; known: dataset_config_name"),
        ({"sources": [{"train_file": "a"}, {"train_file": "a", "weight": 0}]}, "entry 2: weight is 0; above 0"),
        ({"sources": [{"train_file": "a", "weight": 1e9}]}, "weight is 1e+09"),
        ({"sources": [{"train_file": "a", "weight": float("nan")}]}, "weight is nan"),
        ({"sources": [{"train_file": "a", "weight": "much"}]}, "weight is 'much' (expected a number"),
        ({"sources": [{"train_file": "a", "max_train_samples": "few"}]}, "max_train_samples is 'few'"),
        ({"sources": ["a.txt"]}, "entry 1: 'a.txt'"),
        ({"sources": [{"weight": 1}]}, "there is no text to read"),
        ({"train_file": ["a"], "document_separator": ""}, "document_separator is empty"),
    ],
)
def test_contradictions_are_refused(settings, words):
    with pytest.raises(UsageError, match="expected") as caught:
        training_sources(DataArguments(**settings))
    assert words in str(caught.value)


def test_toyland_by_name():
    (source,) = training_sources(DataArguments(dataset_name="toyland", max_train_samples=5), seed=3)
    found = list(documents(source))
    assert len(found) == 5 and found == list(documents(source))
    assert found != list(
        documents(training_sources(DataArguments(dataset_name="toyland", max_train_samples=5), seed=4)[0])
    )
    for settings in ({"max_train_samples": None}, {"max_train_samples": 5, "dataset_split": "test"}):
        with pytest.raises(UsageError, match="toyland has no"):
            list(documents(training_sources(DataArguments(dataset_name="toyland", **settings))[0]))


def test_a_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.txt").write_text("same")
    of = lambda name, **more: fingerprint(Source(files=(str(tmp_path / name / "t.txt"),), **more))  # noqa: E731
    before = of("a")
    assert before == of("b") and json.loads(json.dumps(before)) == before
    assert of("a", weight=2.0) != before and of("a", document_separator="blank_line") != before
    (tmp_path / "b" / "t.txt").write_text("diff")
    assert of("b") != before


def test_a_fingerprint_of_a_local_dataset_holds_its_files(tmp_path):
    (tmp_path / "d/x").mkdir(parents=True)
    of = lambda **more: fingerprint(Source(dataset_name=str(tmp_path / "d"), **more))  # noqa: E731
    for streaming in (False, True):
        (tmp_path / "d/x/a.jsonl").write_text('{"text": "one"}\n')
        before = of(streaming=streaming)
        assert before == of(streaming=streaming) and json.loads(json.dumps(before)) == before
        (tmp_path / "d/x/a.jsonl").write_text('{"text": "four"}\n')
        assert of(streaming=streaming) != before
    assert [file["name"] for file in of()["files"]] == ["x/a.jsonl"]
    assert "files" not in fingerprint(Source(dataset_name="toyland"))


def test_the_validation_source_is_read_like_the_training_text(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("a\n\nb")
    data = DataArguments(
        train_file=["x"], validation_file=[str(path)], document_separator="blank_line", max_train_samples=1
    )
    assert [d["text"] for d in documents(validation_source(data))] == ["a", "b"]


# The network, played on loopback.


@contextlib.contextmanager
def served(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if "broken" in self.path:
            self.send_error(500)
        else:
            super().do_GET()


@pytest.fixture
def online(monkeypatch):
    """The libraries may reach loopback; everything else of a test's environment stays as it is."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_urls_are_downloaded_once_and_read_like_files(tmp_path, online):
    (tmp_path / "t.txt").write_bytes(b"over\r\nthe wire\t")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(FORMATS[".csv"](["x", "y"])))
    with served(functools.partial(QuietFiles, directory=str(tmp_path))) as address:
        assert read(f"{address}/t.txt") == ["over\r\nthe wire\t"]
        assert read(f"{address}/t.csv.gz?download=true", tmp_path / "t.txt") == ["x", "y", "over\r\nthe wire\t"]
        first = find_files((f"{address}/t.txt",))
        assert first == find_files((f"{address}/t.txt",)) and first[0].path.endswith("t.txt")
        assert fingerprint(Source(files=(f"{address}/t.txt",)))["files"][0]["size"] == 15
        assert "cannot be downloaded" in refused(f"{address}/none.txt") and "404" in refused(f"{address}/none.txt")
        assert "cannot be downloaded" in refused(f"{address}/broken.txt")
        assert "unknown ending" in refused(f"{address}/t.bin")
    assert "cannot be downloaded" in refused(f"{address}/gone.txt")


def test_documents_from_a_url_say_so_without_its_secrets_nor_a_path_of_this_machine(tmp_path, online):
    (tmp_path / "t.csv").write_text("text\nx\ny\n")
    with served(functools.partial(QuietFiles, directory=str(tmp_path))) as address:
        source = settled(Source(files=(f"{address}/t.csv?token=abcdefgh",)))
        name = f"{address}/t.csv?token=<redacted>"
        assert [d["origin"] for d in documents(source)] == [f"{name}, row 0", f"{name}, row 1"]
        (file,) = fingerprint(source)["files"]
        assert file["name"] == name and file["size"] == 9


class NoDates(QuietFiles):
    def send_header(self, name, value):
        if name != "Last-Modified":
            super().send_header(name, value)


@pytest.mark.parametrize("handler", [QuietFiles, NoDates])
def test_a_url_whose_text_changed_is_downloaded_again(tmp_path, online, handler):
    path = tmp_path / "t.txt"
    with served(functools.partial(handler, directory=str(tmp_path))) as address:
        for text, second in (("one", 10), ("two", 20)):  # of one length
            path.write_text(text)
            os.utime(path, (second, second))
            file_search._download.cache_clear()  # another process
            assert read(f"{address}/t.txt") == [text]


def test_a_url_is_asked_once_and_loaded_once(tmp_path, online):
    asked = []

    class Counted(QuietFiles):
        def send_head(self):
            asked.append(self.command)
            return super().send_head()

    (tmp_path / "t.txt").write_text("text")
    with served(functools.partial(Counted, directory=str(tmp_path))) as address:
        for _ in range(3):
            file_search._download.cache_clear()
            assert [read(f"{address}/t.txt") for _ in range(2)] == [["text"]] * 2
    assert asked.count("GET") == 1


def test_without_the_network_the_copy_of_an_earlier_time_is_read_and_that_is_said(tmp_path, online):
    (tmp_path / "t.txt").write_text("text")
    with served(functools.partial(QuietFiles, directory=str(tmp_path))) as address:
        source = Source(files=(f"{address}/t.txt",))
        before = fingerprint(source)
        assert remarks([source]) == []
    file_search._download.cache_clear()
    assert fingerprint(source) == before and read(f"{address}/t.txt") == ["text"]
    (line,) = remarks([source])
    assert line.startswith(f"{address}/t.txt cannot be asked (") and "): the copy of 20" in line


def test_offline_is_said(tmp_path):
    assert "ffline" in refused("http://127.0.0.1:9/t.txt")


HUB_CARD = """---
configs:
- config_name: small
  data_files: train.jsonl
- config_name: chats
  data_files: chats.jsonl
---
"""
HUB_FILES = {
    "README.md": HUB_CARD.encode(),
    "train.jsonl": b'{"text": "one\\r\\n"}\n{"text": "two"}\n{"text": "three"}\n',
    "chats.jsonl": (json.dumps({"messages": MESSAGES}) + "\n").encode(),
}


class TinyHub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's address scheme as `load_dataset` asks for one public dataset."""

    commit = "1" * 40

    def log_message(self, *args):
        pass

    def reply(self, code, body=b"{}", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, api, files = (
            self.path.partition("?")[0],
            "/api/datasets/somebody/small",
            "/datasets/somebody/small/resolve/",
        )
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in HUB_FILES.items()
        ]
        if path.startswith(f"{api}/tree/") and path.count("/") == 6:
            self.reply(200, json.dumps(entries).encode(), Content_Type="application/json")
        elif path == api or path.startswith(f"{api}/revision/"):
            facts = {
                "id": "somebody/small",
                "sha": self.commit,
                "siblings": [{"rfilename": name} for name in HUB_FILES],
            }
            self.reply(200, json.dumps(facts).encode(), Content_Type="application/json")
        elif path.startswith(files) and path.rpartition("/")[2] in HUB_FILES:
            data, code = HUB_FILES[path.rpartition("/")[2]], 200
            headers = {
                "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
                "X-Repo-Commit": self.commit,
                "Accept-Ranges": "bytes",
            }
            if wanted := self.headers.get("Range"):
                begin, _, end = wanted.removeprefix("bytes=").partition("-")
                begin, end = int(begin), min(int(end or len(data) - 1), len(data) - 1)
                headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
                data, code = data[begin : end + 1], 206
            self.reply(code, data, **headers)
        else:
            self.reply(404, X_Error_Code="EntryNotFound" if files in path else "RepoNotFound")


HUB_READER = """
import json
from tinygpt_hf.reading.sources import Source, documents
from tinygpt_hf.errors import UsageError
for streaming in (False, True):
    for config in ("small", "chats"):
        source = Source(dataset_name="somebody/small", dataset_config_name=config, streaming=streaming)
        print(json.dumps(list(documents(source))))
for wrong in ({"dataset_name": "somebody/none"}, {"dataset_split": "x"}, {"dataset_split": "x", "streaming": True}, {}):
    try:
        names = {"dataset_name": "somebody/small", "dataset_config_name": "small" if wrong else "none"}
        list(documents(Source(**{**names, **wrong})))
    except UsageError as error:
        print(json.dumps(str(error)))
"""


def test_a_dataset_of_the_hub_by_name_whole_and_streamed(tmp_path):
    with served(TinyHub) as address:
        offline = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        environment = {**os.environ, **offline, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", HUB_READER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small, chats, streamed, streamed_chats, *errors = map(json.loads, done.stdout.splitlines())
    assert [d["text"] for d in small] == ["one\r\n", "two", "three"]
    assert small[1]["origin"] == "somebody/small, row 1"
    assert [d["messages"] for d in chats] == [MESSAGES]
    assert (streamed, streamed_chats) == (small, chats)
    assert len(errors) == 4 and all("cannot be loaded (" in e and "check --dataset_name" in e for e in errors)


def test_a_dataset_that_breaks_off_is_a_failure_at_run_time(monkeypatch):
    import datasets

    def rows():
        yield {"text": "a"}
        raise ConnectionResetError("gone")

    broken = datasets.IterableDataset.from_generator(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: broken)
    heard = Recorded()
    found = documents(Source(dataset_name="somebody/large", streaming=True), reporter=heard)
    assert next(found)["text"] == "a"
    with pytest.raises(RunError, match="broke off after 1 rows"):
        next(found)
    assert heard.rests == [1, 2, 4, 8, 16, 32] and heard.said[0].endswith(
        "broke off after 1 rows (gone); trying again in 1 s"
    )


@pytest.mark.parametrize("streaming", [True, False])
def test_a_fault_of_the_data_is_not_tried_again(monkeypatch, streaming):
    import datasets

    def rows():
        yield {"text": "a"}
        raise ValueError("no such type") if streaming else ConnectionResetError("gone")

    broken = datasets.IterableDataset.from_generator(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: broken)
    heard = Recorded()
    with pytest.raises(RunError, match="broke off after 1 rows"):
        list(documents(Source(dataset_name="somebody/large", streaming=streaming), reporter=heard))
    assert not heard.rests


def test_a_dataset_is_asked_for_with_all_its_names(monkeypatch):
    import datasets

    asked = []
    table = datasets.Dataset.from_dict({"body": ["a", "b", "c"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: asked.append((args, options)) or table)
    settings = {"dataset_name": "a/b", "dataset_config_name": "c", "dataset_split": "test", "dataset_revision": "r"}
    (source,) = training_sources(DataArguments(**settings, text_column="body", max_train_samples=2), seed=5)
    assert [d["text"] for d in documents(source)] == ["a", "b"]
    assert asked == [(("a/b", "c"), {"split": "test", "revision": "r", "streaming": False})]
    assert fingerprint(source) == {**settings, "text_column": "body", "max_samples": 2}


def test_offline_a_dataset_is_refused_in_one_line():
    with pytest.raises(UsageError, match="the dataset 'somebody/none' cannot be loaded"):
        list(documents(Source(dataset_name="somebody/none")))


def test_a_dataset_that_could_be_opened_before_is_tried_again(monkeypatch):
    import datasets

    answers = [
        ConnectionError("down"),
        ConnectionError("down"),
        datasets.Dataset.from_dict({"text": ["a"]}).to_iterable_dataset(),
    ]

    def load_dataset(*args, **options):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source, heard = Source(dataset_name="somebody/large", streaming=True), Recorded()
    assert [d["text"] for d in documents(source, reporter=heard, opened=True)] == ["a"] and heard.rests == [1, 2]
