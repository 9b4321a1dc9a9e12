"""`tinygpt tokenize`: the same rows from any number of processes, after a kill, and in pieces; `train` checks them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded import Recorded

from tinygpt_hf import cli, storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows import build as packing
from tinygpt_hf.rows import placed
from tinygpt_hf.rows.build import prepare_rows
from tinygpt_hf.rows.preparation import find_rows, find_tokenizer, tokenize
from tinygpt_hf.rows.store import Rows
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments
from tinygpt_hf.tokenizing import encode as encoding
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

BYTES = TokenizerArguments(tokenizer_type="byte")


@pytest.fixture
def corpus(tmp_path):
    """Write texts and conversations, one line each."""
    path = tmp_path / "t.jsonl"
    with open(path, "w") as file:
        for k in range(400):
            file.write(
                json.dumps({"text": f"Story {k} of Anna and Pip.\n\tThey found ball {k * k} 🙂 <|endoftext|>"}) + "\n"
            )
            chat = [{"role": "user", "content": f"What is {k}?"}, {"role": "assistant", "content": f"It is {k}."}] * 3
            file.write(json.dumps({"messages": chat}) + "\n")
    return DataArguments(train_file=[str(path)], block_size=100)


def content(folder: Path) -> dict:
    """Read all files below a folder as bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_rows_are_the_same_for_any_number_of_processes(corpus, tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 3000)
    foreign = train_tokenizer(["a b"], "byte")  # a template that is not ours is rendered in the processes too
    foreign.chat_template = foreign.chat_template.replace("{%- endfor -%}", "{%- endfor -%}{#- ours, nearly -#}")
    for name, tokenizer in {"ours": tiny_tokenizer, "foreign": foreign}.items():
        found = []
        for num_proc, here in ((1, 4), (2, 1)):  # all here; one here, then in other processes
            monkeypatch.setattr(encoding, "BATCHES_HERE", here)
            folder = tmp_path / f"{name}-{num_proc}"
            prepare_rows(Corpus(replace(corpus, num_proc=num_proc)), tokenizer, folder)
            found.append(content(folder))
        assert found[0] == found[1] and len(found[0]) == 8
        assert json.loads(found[0]["train/shard-000000/manifest.json"])["conversations"]["cut"] > 0


class Killed(BaseException):
    """An end of writing like a kill, which no error handler catches."""


@pytest.mark.parametrize("when", [1, 2, 5])
def test_a_killed_call_resumes_to_the_same_rows(corpus, tmp_path, tiny_tokenizer, monkeypatch, when):
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 3000)
    monkeypatch.setattr(packing, "SHARD_IDS", 5000)
    data = replace(corpus, num_proc=1)
    prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "whole" / "rows")
    encoded = []

    class Dying(storage.System):
        """Stop when the `when`th training shard is about to be published, after its validation shard."""

        def rename(self, old, new):
            if new.parent.name == "train" and new.name == f"shard-{when:06d}":
                raise Killed
            super().rename(old, new)

    def counting(documents, *parts_of_one, **rest):
        encoded.append(0 if parts_of_one else len(documents))
        return encode(documents, *parts_of_one, **rest)

    encode = encoding.encode
    with monkeypatch.context() as patch:
        patch.setattr(storage, "system", Dying())
        with pytest.raises(Killed):
            prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "cut" / "rows")
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["tmp-rows.unfinished"]
    storage.remove_temporary(tmp_path / "cut")  # what a run does to its folder when it starts
    monkeypatch.setattr(encoding, "encode", counting)
    prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "cut" / "rows")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert 0 < sum(encoded) < 800 - 40 * when  # finished work is not repeated


@pytest.mark.parametrize("change", ["text", "split", "tokenizer", "damage", "short", "old"])
def test_unfinished_rows_of_other_settings_are_discarded(corpus, tmp_path, tiny_tokenizer, monkeypatch, change):
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 3000)
    monkeypatch.setattr(packing, "SHARD_IDS", 5000)
    data = replace(corpus, num_proc=1)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "check_parts", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "cut" / "rows")
    unfinished, tokenizer = tmp_path / "cut" / "tmp-rows.unfinished", tiny_tokenizer
    first = unfinished / "train" / "shard-000000"
    assert first.is_dir()
    if change == "text":
        with open(corpus.train_file[0], "a") as file:
            file.write('{"text": "more"}\n')
    elif change == "split":
        data = replace(data, validation_split_percentage=30)
    elif change == "tokenizer":
        tokenizer = train_tokenizer(["x"], "byte")
    elif change == "damage":
        (first / "manifest.json").write_text('{"writers": 3}')
    elif change == "short":
        os.truncate(first / "tokens.bin", 5)
    else:  # the journal of a version that had no shards
        shutil.rmtree(first)
        (unfinished / "journal.json").write_text("{}")
        (unfinished / "train" / "tokens.bin").write_bytes(b"123")
    prepare_rows(Corpus(data), tokenizer, tmp_path / "cut" / "rows")
    prepare_rows(Corpus(data), tokenizer, tmp_path / "whole" / "rows")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_failing_stream_keeps_the_shards_it_finished(corpus, tmp_path, tiny_tokenizer, monkeypatch):
    def broken(*_):
        raise RunError("the dataset broke off")

    monkeypatch.setattr(packing, "check_parts", broken)
    with pytest.raises(RunError):
        prepare_rows(Corpus(corpus), tiny_tokenizer, tmp_path / "run" / "rows")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["tmp-rows.unfinished"]


# A text too long to hold.


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
@pytest.mark.parametrize("percentage", [0, 10])
def test_a_text_read_in_pieces_gives_the_rows_of_the_whole_text(tmp_path, tiny_text, monkeypatch, kind, percentage):
    tokenizer = train_tokenizer([tiny_text] * 3, kind, 320)
    path = tmp_path / "t.txt"
    path.write_bytes("".join(f"line {k} é🙂 of  Anna\r\n\n\t{k * k}" for k in range(700)).encode())
    data = DataArguments(train_file=[str(path)], validation_split_percentage=percentage, block_size=50, num_proc=1)
    if not percentage:
        data = replace(data, validation_file=[str(path)])
    prepare_rows(Corpus(data), tokenizer, tmp_path / "whole")
    monkeypatch.setattr(decoding, "LONG", 1000)
    for chunk in (97, 1000):
        monkeypatch.setattr(decoding, "CHUNK", chunk)
        heard = Recorded()
        prepared = prepare_rows(Corpus(data, 0, heard), tokenizer, tmp_path / f"pieces-{chunk}")
        assert content(tmp_path / f"pieces-{chunk}") == content(tmp_path / "whole")
        assert (
            prepared.train.num_documents == 1 and (seen := heard.encodings) == sorted(seen) and 0.9 < seen[-1][2] < 1.3
        )


@pytest.mark.parametrize("how", ["tail", "hash"])
def test_progress_counts_each_byte_once(tmp_path, tiny_tokenizer, monkeypatch, how):
    for k in range(9):
        (tmp_path / f"{k}.txt").write_text(f"text {k}: {k * k * k} " * 700)
    total = sum(path.stat().st_size for path in tmp_path.glob("*.txt"))
    for name in ("LONG", "CHUNK"):
        monkeypatch.setattr(decoding, name, 1000)
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 1000)
    data = DataArguments(train_file=[str(tmp_path)], validation_split=how, validation_split_percentage=40, num_proc=1)
    heard = Recorded()
    prepare_rows(Corpus(data, 0, heard), tiny_tokenizer, tmp_path / "rows")
    assert len(heard.encodings) > 50 and all(abs(share - done / total) < 0.1 for done, _, share in heard.encodings)


@pytest.mark.parametrize("text", ["a" * 5000, "a \n b", " " * 3000 + "x", "x" * 500 + " y", "\n\n\nz" * 900])
def test_pieces_of_a_long_text_are_the_text(tmp_path, tiny_tokenizer, monkeypatch, text):
    path = tmp_path / "t.txt"
    path.write_text(text)
    monkeypatch.setattr(decoding, "CHUNK", 7)
    pieces = list(encoding.cut_long(decoding.LongText(decoding.TextFile(str(path))), tiny_tokenizer))
    assert "".join(pieces) == text and all(pieces)
    plain = lambda t: tiny_tokenizer(t, add_special_tokens=False)["input_ids"]  # noqa: E731
    assert [i for piece in pieces for i in plain(piece)] == plain(text)


def test_a_long_document_goes_to_the_tokenizer_in_parts(tiny_tokenizer, monkeypatch):
    """The result of a call takes a hundred times the memory of its ids, so no call may get a whole book."""
    chat = [{"role": "user", "content": "Why? " * 40}, {"role": "assistant", "content": "So. " * 30}]
    documents = [{"text": "".join(f"one {k}\n" for k in range(60_000))}, {"messages": chat}, {"text": "short"}]
    whole = encoding.encode(documents, tiny_tokenizer, 1000)
    sizes, encode_texts = [], encoding.encode_texts

    def noted(tokenizer, texts, typed):
        sizes.append(sum(map(len, texts)))
        return encode_texts(tokenizer, texts, typed)

    monkeypatch.setattr(encoding, "encode_texts", noted)
    monkeypatch.setattr(encoding, "GROUP_CHARACTERS", 1000)
    parts = encoding.encode(documents, tiny_tokenizer, 1000)
    assert max(sizes) <= 1000 + 2 * encoding.PIECE_CHARACTERS < sum(sizes) / 4
    for one, other in zip(whole, parts, strict=True):
        assert one.ids.dtype == other.ids.dtype == np.uint32 and one.ids.tolist() == other.ids.tolist()
        assert (one.mask is None) == (other.mask is None) and np.array_equal(one.mask, other.mask)
        assert one.num_bytes == other.num_bytes


# The command, and what train makes of its rows.


def command(*words) -> int:
    return cli.main(["tokenize", *map(str, words)])


def test_the_command_writes_rows_for_train(corpus, tmp_path, capsys):
    (path,) = corpus.train_file
    words = ["--train_file", path, "--tokenizer_type", "byte", "--block_size", 100, "--output_dir", tmp_path / "d"]
    assert command(*words, "--show_rows", 2) == 0
    out = capsys.readouterr().out
    assert "rows: kept" in out and "over-long conversations cut after an answer" in out
    assert "\nrow 0, " in out and "\nrow 1, " in out and "row 2" not in out and "⟦" in out
    assert sorted(p.name for p in (tmp_path / "d").iterdir() if p.name != ".lock") == ["rows", "tokenizer"]
    assert command(*words) == 0 and "rows: reused, nothing changed" in capsys.readouterr().out
    for given in (tmp_path / "d", tmp_path / "d" / "rows"):
        data = DataArguments(rows=str(given), block_size=100)
        for settings in (TokenizerArguments(), BYTES):
            tokenizer = find_tokenizer(tmp_path / "none", Corpus(data), settings)
            assert len(tokenizer) == 260 and find_rows(Corpus(data), tokenizer, tmp_path / "none").reused
        with pytest.raises(UsageError, match="trained with other tokenizer_type"):
            find_tokenizer(tmp_path / "none", Corpus(data), TokenizerArguments(tokenizer_type="char"))


def test_the_command_shows_rows_of_the_requested_packing(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"{k:060}"}) + "\n" for k in range(200)))
    words = ["--train_file", path, "--tokenizer_type", "byte", "--block_size", 100, "--show_rows", 2]
    shown = {}
    for packing_of in ("wrap", "bestfit"):
        assert command(*words, "--packing", packing_of, "--output_dir", tmp_path / packing_of) == 0
        shown[packing_of] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("row ")]
    assert "100 of 100 tokens learned" in shown["wrap"][0]
    assert all(" 61 of 100 tokens learned: " in line for line in shown["bestfit"][1:]) and len(shown["bestfit"]) == 2


def test_stale_rows_are_refused_and_the_change_named(corpus, tmp_path):
    tokenizer, rows, report = tokenize(Corpus(corpus), BYTES, tmp_path / "d")
    assert not rows.reused and report["vocabulary"] == 260
    data = replace(corpus, rows=str(tmp_path / "d"))
    assert find_rows(Corpus(data), tokenizer, tmp_path / "none").reused

    def refused(**changes) -> str:
        with pytest.raises(UsageError) as caught:
            find_rows(Corpus(replace(data, **changes)), tokenizer, tmp_path / "none")
        return str(caught.value)

    line = refused(validation_split_percentage=7.0)
    assert "made from other split (validation_split_percentage 5.0, now 7.0) (expected rows of these settings" in line
    assert "made from other block_size (" in refused(block_size=50)
    assert "made from other block_size (" in refused(block_size=50, train_file=[])
    assert "made from other sources (document_separator not set, now x)" in refused(document_separator="x")
    with open(corpus.train_file[0], "a") as file:
        file.write('{"text": "more"}\n')
    assert "made from other sources (t.jsonl)" in refused()


def test_bad_input_leaves_nothing(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("few words")
    words = ["--tokenizer_type", "byte", "--output_dir", tmp_path / "d"]
    assert command("--train_file", tmp_path / "t.txt", *words) == 2
    assert "at least 257 for one row" in capsys.readouterr().err and not (tmp_path / "d").exists()
    assert command("--train_file", tmp_path / "t.txt", *words, "--rows", "x") == 2
    assert command("--train_file", tmp_path / "t.txt", *words, "--num_proc", 0) == 2
    assert not (tmp_path / "d").exists()


START = """
import signal, sys
from tinygpt_hf import cli, storage
from tinygpt_hf.reading import decoding
from tinygpt_hf.rows import build, placed
from tinygpt_hf.tokenizing import encode as encoding
decoding.LONG, decoding.CHUNK, placed.BATCH_CHARACTERS, build.SHARD_IDS, encoding.BATCHES_HERE = 4096, 4096, 4096, 65536, 1

class Waiting(storage.System):
    def rename(self, old, new):
        if new.name == "shard-000002":
            print("two shards are there", flush=True)
            signal.pause()
        super().rename(old, new)

if sys.argv.pop(1) == "waiting":
    storage.system = Waiting()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_command_resumes(tmp_path):
    text = "".join(f"{k * k} balls\n" for k in range(50_000))
    (tmp_path / "t.txt").write_text(text)
    words = ["tokenize", "--train_file", str(tmp_path / "t.txt"), "--tokenizer_type", "char", "--num_proc", "2"]
    start, words = [sys.executable, "-c", START], [*words, "--output_dir", str(tmp_path / "cut")]
    with subprocess.Popen([*start, "waiting", *words], stdout=subprocess.PIPE, text=True) as process:
        assert "two shards are there\n" in process.stdout
        process.kill()
    unfinished = tmp_path / "cut" / "tmp-rows.unfinished"
    assert process.returncode == -9 and len(list(unfinished.glob("train/shard-*"))) == 2
    assert subprocess.run([*start, "", *words], stdout=subprocess.DEVNULL).returncode == 0
    assert not unfinished.exists()
    vocabulary = json.loads((tmp_path / "cut" / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    letters = {i: letter for letter, i in vocabulary.items()}
    found = []
    for part in ("train", "validation"):
        tokens = Rows(tmp_path / "cut" / "rows" / part).tokens
        found.append("".join(map(letters.get, tokens[:-1].tolist())))
    assert "".join(found) == text
