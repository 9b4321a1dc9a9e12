"""Text is read exactly, in a fixed order, from every kind of file, folder, URL and dataset."""

import bz2
import contextlib
import functools
import gzip
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
from hub_server import HubServer, Repository
from pyarrow import parquet
from recorded import Recorded

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import decoding, discovery
from tinygpt_hf.reading.discovery import skipped_endings
from tinygpt_hf.reading.sources import (
    Source,
    documents,
    fingerprint,
    remarks,
    training_sources,
    validation_source,
    with_files,
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


PACKED = {
    "": bytes, ".gz": gzip.compress, ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}  # fmt: skip


@pytest.mark.parametrize("archive", PACKED)
@pytest.mark.parametrize("ending", FORMATS)
def test_every_table_and_its_archives_give_the_texts_unchanged(tmp_path, ending, archive):
    path = tmp_path / f"t{ending}{archive}"
    path.write_bytes(PACKED[archive](FORMATS[ending](TEXTS)))
    rows = list(documents(Source(files=(str(path),))))
    assert [d["text"] for d in rows] == TEXTS
    assert all(str(path) in d["origin"] for d in rows) and len({d["origin"] for d in rows}) == len(TEXTS)
    assert read(path, max_samples=3) == TEXTS[:3]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv"])
def test_a_byte_order_mark_is_removed(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + FORMATS[ending](["a", "b"]))
    assert read(path) == ["a", "b"]


@pytest.mark.parametrize("ending", [".txt", ".md", ".py", ".txt.gz", ".md.zst", ".TXT"])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, ending):
    text = "line \r\n\r\n\tcode\r\n\n\n  end\u2028 \x0b"
    path = tmp_path / f"t{ending}"
    path.write_bytes(PACKED.get(path.suffix, bytes)(text.encode()))
    assert read(path) == [text]


def test_cutting_at_blank_lines_or_a_marker_keeps_all_other_text(tmp_path):
    path, code = tmp_path / "t.txt", tmp_path / "t.py"
    path.write_bytes(b"\n\none\ntwo  \n\n    def indented():\n\treturn 1\n \t\n\r\n\r\nlast\r\nline\r\n\r\n")
    parts = ["one\ntwo  ", "    def indented():\n\treturn 1", "last\r\nline"]
    assert read(path, document_separator="blank_line") == parts
    path.write_text("one\n<|endoftext|>\n two<|endoftext|>\n\n<|endoftext|>", newline="")
    assert read(path, document_separator="<|endoftext|>") == ["one\n", "\n two"]
    code.write_text("a\n\nb\n")
    assert read(code, document_separator="blank_line") == ["a\n\nb\n"], "code is not cut"


def test_columns(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"content": "c", "body": "b"}) + "\n")
    assert read(path) == ["c"] and read(path, text_column="body") == ["b"]
    assert "has the columns content, body (expected the column 'x'" in refused(path, text_column="x")


def test_a_table_of_one_row_group_is_read_page_by_page(tmp_path):
    texts = [os.urandom(2000).hex() for _ in range(6_000)]  # 24 MB that pack to half of it
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "t.parquet", compression="zstd")
    assert parquet.ParquetFile(tmp_path / "t.parquet").num_row_groups == 1
    before, held, found = pyarrow.total_allocated_bytes(), [], []
    for document in documents(Source(files=(str(tmp_path / "t.parquet"),))):
        held.append(pyarrow.total_allocated_bytes() - before)
        found.append(document["text"])
    assert found == texts and max(held) < 12e6


# Folders, globs, lists.


def test_missing_paths_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.bin").write_bytes(b"x")
    for name, words in {
        "pipe.txt": "pipe.txt is a pipe, device or socket", "/dev/zero": "/dev/zero is a pipe, device or socket",
        "loop.txt": "loop.txt is a link that leads nowhere", "gone.txt": "gone.txt is a link that leads nowhere",
        "": "is a link that leads nowhere",  # also inside a folder
        "none.txt": "none.txt does not exist", "*.csv": "*.csv matches no text file", "in": "holds no text file",
        "in/x.bin": "x.bin has an unknown ending (expected one of .csv",
    }.items():  # fmt: skip
        assert words in refused(tmp_path / name)
    Path(os.fsdecode(bytes(tmp_path) + b"/in/caf\xe9.txt")).write_text("x")
    assert r"caf\udce9.txt' is not valid UTF-8" in refused(tmp_path / "in")


def test_a_link_to_a_parent_folder_repeats_no_file(tmp_path):
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
    for number in range(3):  # loops end
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
        assert skipped_endings([str(tmp_path / name)]) == others
    assert skipped_endings([str(tmp_path / "in/a.dart")]) == {}


def test_of_a_prepared_corpus_a_glob_finds_the_data_only(tmp_path, monkeypatch):
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
    for folder, names in {tmp_path: (".", "*/*/*"), tmp_path / "corpus": (".", "*/*", "data")}.items():
        monkeypatch.chdir(folder)
        assert [read(name) for name in names] == [["kept"]] * len(names)


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


def test_folders_and_globs_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b/2.txt", "a.md", "b/1.jsonl", "c.bin", ".hidden.txt", ".git/x.txt", "b/10.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"text": "1.jsonl"}' if name.endswith("jsonl") else Path(name).name)
    assert read(tmp_path) == ["a.md", "1.jsonl", "10.txt", "2.txt"]
    assert read(tmp_path / "b/*.txt") == ["10.txt", "2.txt"]
    assert read(tmp_path / "**/*") == ["a.md", "1.jsonl", "10.txt", "2.txt"]
    assert read(tmp_path / "b/2.txt", tmp_path / "a.md") == ["2.txt", "a.md"]
    (tmp_path / "a[1].txt").write_text("here")
    assert read(tmp_path / "a[1].txt") == ["here"], "a name with glob signs that exists is a file"


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
        ({"sources": [{"train_fil": "a"}]}, "data.sources, entry 1: "),
        ({"sources": [{"train_file": "a"}, {"train_file": "a", "weight": 0}]}, "entry 2: weight is 0"),
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
    def toyland(seed=3, **settings) -> list[dict]:
        (source,) = training_sources(DataArguments(dataset_name="toyland", **settings), seed=seed)
        return list(documents(source))

    first = toyland(max_train_samples=5)
    assert len(first) == 5 and first == toyland(max_train_samples=5) != toyland(seed=4, max_train_samples=5)
    for settings in ({"max_train_samples": None}, {"max_train_samples": 5, "dataset_split": "test"}):
        with pytest.raises(UsageError, match="toyland has no"):
            toyland(**settings)


def test_a_fingerprint_depends_on_content_not_location(tmp_path):
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


class Files(http.server.SimpleHTTPRequestHandler):
    """Serve a folder; `has_dates`: say when a file changed. What was asked for is kept in `asked`."""

    has_dates = True
    asked: list[str] = []

    def log_message(self, *args):
        pass

    def send_header(self, name, value):
        if self.has_dates or name != "Last-Modified":
            super().send_header(name, value)

    def send_head(self):
        self.asked.append(f"{self.command} {self.path}")
        return self.send_error(500) if "broken" in self.path else super().send_head()


class Undated(Files):
    has_dates = False


@contextlib.contextmanager
def served(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Let the libraries reach loopback; return a context that serves `tmp_path` and gives the address."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return lambda handler=Files: served(functools.partial(handler, directory=str(tmp_path)))


def another_process() -> None:
    discovery._download.cache_clear()


def test_urls_are_downloaded_once_and_read_like_files(tmp_path, online):
    (tmp_path / "t.txt").write_bytes(b"over\r\nthe wire\t")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(FORMATS[".csv"](["x", "y"])))
    Files.asked.clear()
    with online() as address:
        for _ in range(3):
            another_process()
            assert [read(f"{address}/t.txt") for _ in range(2)] == [["over\r\nthe wire\t"]] * 2
        assert Files.asked.count("GET /t.txt") == 1
        assert fingerprint(Source(files=(f"{address}/t.txt",)))["files"][0]["size"] == 15
        source = with_files(Source(files=(f"{address}/t.csv.gz?token=abcdefgh",)))
        name = f"{address}/t.csv.gz?token=<redacted>"
        rows = [(d["text"], d["origin"]) for d in documents(source)]
        assert rows == [("x", f"{name}, row 0"), ("y", f"{name}, row 1")], "no secret, no path of this machine"
        assert fingerprint(source)["files"][0]["name"] == name
        for wrong, words in {
            "none.txt": "404",
            "broken.txt": "cannot be downloaded",
            "t.bin": "unknown ending",
        }.items():
            assert words in refused(f"{address}/{wrong}")
    assert "cannot be downloaded" in refused(f"{address}/gone.txt")


@pytest.mark.parametrize("handler", [Files, Undated])
def test_a_url_whose_text_changed_is_downloaded_again(tmp_path, online, handler):
    path = tmp_path / "t.txt"
    with online(handler) as address:
        for text, second in (("one", 10), ("two", 20)):  # of one length
            path.write_text(text)
            os.utime(path, (second, second))
            another_process()
            assert read(f"{address}/t.txt") == [text]


def test_without_the_network_an_earlier_copy_is_read_with_a_remark(tmp_path, online):
    (tmp_path / "t.txt").write_text("text")
    with online() as address:
        source = Source(files=(f"{address}/t.txt",))
        before = fingerprint(source)
        assert remarks([source]) == []
    another_process()
    assert fingerprint(source) == before and read(f"{address}/t.txt") == ["text"]
    (line,) = remarks([source])
    assert line.startswith(f"{address}/t.txt cannot be reached (") and "): the copy of 20" in line


def test_offline_a_url_or_a_dataset_is_refused_in_one_line():
    assert "ffline" in refused("http://127.0.0.1:9/t.txt")
    with pytest.raises(UsageError, match="the dataset 'somebody/none' cannot be loaded"):
        list(documents(Source(dataset_name="somebody/none")))


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
    with HubServer() as hub:
        hub.repositories["datasets", "somebody/small"] = repository = Repository("somebody", private=False)
        repository.add("main", "put", HUB_FILES)
        online = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
        environment = {**os.environ, **online, "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", HUB_READER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small, chats, streamed, streamed_chats, *errors = map(json.loads, done.stdout.splitlines())
    assert [d["text"] for d in small] == ["one\r\n", "two", "three"]
    assert small[1]["origin"] == "somebody/small, row 1"
    assert [d["messages"] for d in chats] == [MESSAGES]
    assert (streamed, streamed_chats) == (small, chats)
    assert len(errors) == 4 and all("cannot be loaded (" in e and "Check --dataset_name" in e for e in errors)


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
def test_an_error_of_the_data_is_not_retried(monkeypatch, streaming):
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


def test_a_dataset_is_loaded_with_all_its_settings(monkeypatch):
    import datasets

    asked = []
    table = datasets.Dataset.from_dict({"body": ["a", "b", "c"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: asked.append((args, options)) or table)
    settings = {"dataset_name": "a/b", "dataset_config_name": "c", "dataset_split": "test", "dataset_revision": "r"}
    (source,) = training_sources(DataArguments(**settings, text_column="body", max_train_samples=2), seed=5)
    assert [d["text"] for d in documents(source)] == ["a", "b"]
    assert asked == [(("a/b", "c"), {"split": "test", "revision": "r", "streaming": False})]
    assert fingerprint(source) == {**settings, "text_column": "body", "max_samples": 2}


def test_a_dataset_that_was_opened_before_is_retried(monkeypatch):
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
