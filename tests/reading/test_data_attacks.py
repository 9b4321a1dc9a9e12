"""Hostile data: one line and a status, nothing executed, and nothing allocated on the word of a file."""

import gzip
import json
import time

import numpy as np
import pytest

from tinygpt_hf import cli, storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.formats import file_documents
from tinygpt_hf.reading.sources import Source, documents
from tinygpt_hf.rows.store import Rows, RowWriter
from tinygpt_hf.tokenizing.tokenizer import load_tokenizer


def refused(path, column=None, kind=UsageError) -> str:
    with pytest.raises(kind) as caught:
        list(file_documents(str(path), column))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000
    return line


def test_a_dataset_never_runs_code(tmp_path, capsys):
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
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


HOSTILE_FEATURES = {"info": {"features": {"text": {"_type": "Pickled", "__reduce__": ["os.system", ["id"]]}}}}


@pytest.mark.parametrize("metadata", ["pickle", "features", "pandas", "extension"])
def test_metadata_of_a_parquet_file_is_never_run(tmp_path, metadata):
    import pickle

    import pyarrow
    from pyarrow import parquet

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


def test_broken_and_huge_rows_of_json_and_csv_are_one_line_or_read(tmp_path):
    for name, text in {
        "deep.jsonl": '{"text": ' + "[" * 10**5,
        "deeper.jsonl": '{"a":' * 10**5,
        "deep.json": "[" * 10**6,
        "keys.jsonl": json.dumps({f"k{k}": 1 for k in range(10**6)}),
        "number.jsonl": '{"text": ' + "9" * 10**5 + "}",
        "columns.csv": ",".join(map(str, range(10**5))) + "\n" + "," * (10**5 - 1) + "\n",
        "quote.csv": 'text\n"' + "a" * 10**6,
    }.items():
        (tmp_path / name).write_text(text)
        assert name in refused(tmp_path / name)
    (tmp_path / "cell.csv").write_text('text\n"' + "a\n" * 10**6 + '"\n')
    (document,) = file_documents(str(tmp_path / "cell.csv"))
    assert len(document["text"]) == 2 * 10**6


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.parquet.gz", "a.md.gz"])
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, name):
    import tracemalloc

    monkeypatch.setattr(decoding, "LARGEST", 10**6)
    path = tmp_path / name
    head = {"a.json.gz": b'["', "a.csv.gz": b'text\n"'}.get(name, b"")
    path.write_bytes(gzip.compress(head + b"a" * 50 * 10**6))
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


@pytest.mark.parametrize(
    "changes",
    [
        {"num_tokens": 10**15},
        {"num_tokens": 6},
        {"num_tokens": -1},
        {"num_tokens": 7.0},
        {"num_tokens": "7"},
        {"num_documents": 10**15},
        {"num_documents": None},
        {"num_target_tokens": 10**30},
        {"dtype": "object"},
        {"dtype": "uint32"},
        {"dtype": ["a"]},
        {"vocab_size": 2**20},
        {"vocab_size": True},
        {"files": {}},
        {"files": []},
        {"files": None},
        {"format": [1]},
    ],
    ids=str,
)
def test_a_manifest_that_lies_about_its_rows_is_one_line(rows, changes):
    manifest = json.loads((rows / "manifest.json").read_text())
    (rows / "manifest.json").write_text(json.dumps(manifest | changes))
    if changes == {"files": {}}:  # it only leaves the mask out, which changes what is learnt, not what is read
        assert Rows(rows).mask is None
        return
    with pytest.raises((RunError, UsageError)) as caught:
        Rows(rows)
    assert "\n" not in str(caught.value) and str(rows) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", "[" * 10**5, ""])
def test_a_manifest_that_is_none_is_one_line(rows, text):
    (rows / "manifest.json").write_text(text)
    with pytest.raises((RunError, UsageError)) as caught:
        Rows(rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("starts", [[0, 4, 4], [4, 0, 7], [0, 9, 7], [0, 4, 2**63], [1, 4, 7], [0, 4, 8]])
def test_documents_out_of_order_or_beyond_the_tokens_are_noticed(rows, starts):
    (rows / "documents.bin").write_bytes(np.array(starts, dtype=np.uint64).tobytes())
    with pytest.raises(RunError, match="documents.bin is out of order"):
        Rows(rows)


def test_ids_outside_the_vocabulary_are_noticed_before_the_model_sees_them(rows):
    (rows / "tokens.bin").write_bytes(np.array([5, 6, 7, 300, 8, 9, 0], dtype=np.uint16).tobytes())
    assert storage.damage(rows) is not None
    with pytest.raises(RunError, match="outside its vocabulary"):
        Rows(rows).batch([0], 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["added_tokens"][0].update(id=-1),
        lambda t: t["model"]["merges"].append(["q", "zzzzz"]),
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # a panic in Rust
        lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}),
        lambda t: t.update(model={"type": "BPE", "vocab": {}, "merges": 5}),
        lambda t: t.clear(),
    ],
)  # fmt: skip
def test_a_hostile_tokenizer_is_one_line(tmp_path, tiny_tokenizer, change):
    tiny_tokenizer.save_pretrained(tmp_path)
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    change(found)
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(UsageError) as caught:
        load_tokenizer(str(tmp_path))
    assert "no tokenizer could be loaded" in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_that_claims_a_billion_tokens_or_pads_to_a_billion_allocates_nothing(
    tmp_path, tiny_tokenizer, capsys
):
    tiny_tokenizer.save_pretrained(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"]["vocab"]["Ġzebra"] = 10**9
    found["model"]["vocab"]["Z"] = 4 * 10**9
    pad = {"strategy": {"Fixed": 10**12}, "direction": "Left", "pad_to_multiple_of": None}
    found["padding"] = pad | {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|pad|>"}
    path.write_text(json.dumps(found))
    (tmp_path / "a.txt").write_text("Zebras " * 200)
    words = ["--train_file", str(tmp_path / "a.txt"), "--tokenizer_name", str(tmp_path / "t"), "--max_steps", "1"]
    started = time.process_time()
    assert cli.main(["train", *words, "--block_size", "8", "--output_dir", str(tmp_path / "run")]) == 2
    assert "numbers its" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert time.process_time() - started < 10
