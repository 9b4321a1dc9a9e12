"""`tinygpt tokenize`: the same rows from any number of processes, after a kill, in pieces; `train` takes or refuses them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinygpt_hf import cli, storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import decoding
from tinygpt_hf.rows import build as packing
from tinygpt_hf.rows import journal
from tinygpt_hf.rows.build import prepare_rows
from tinygpt_hf.rows.preparation import find_rows, find_tokenizer, tokenize
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments
from tinygpt_hf.tokenizing import encode as encoding
from tinygpt_hf.tokenizing import parallel as workers
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

BYTES = TokenizerArguments(tokenizer_type="byte")


@pytest.fixture
def corpus(tmp_path):
    """Texts and conversations, one line each."""
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
    """Everything below a folder, to the byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_rows_are_the_same_for_any_number_of_processes(corpus, tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 3000)
    foreign = train_tokenizer(["a b"], "byte")  # a template that is not ours is rendered in the processes too
    foreign.chat_template = foreign.chat_template.replace("{%- endfor -%}", "{%- endfor -%}{#- ours, nearly -#}")
    for name, tokenizer in {"ours": tiny_tokenizer, "foreign": foreign}.items():
        found = []
        for num_proc, here in ((1, 4), (2, 0), (3, 2)):
            monkeypatch.setattr(workers, "BATCHES_HERE", here)
            folder = tmp_path / f"{name}-{num_proc}"
            prepare_rows(replace(corpus, num_proc=num_proc), tokenizer, folder)
            found.append(content(folder))
        assert found[0] == found[1] == found[2] and len(found[0]) == 8
        assert json.loads(found[0]["train/manifest.json"])["conversations"]["cut"] > 0


class Killed(BaseException):
    """Ends the writing as a kill does: nothing that would catch an error sees it."""


@pytest.mark.parametrize("when", [1, 2, 5])
def test_what_was_killed_goes_on_and_ends_the_same(corpus, tmp_path, tiny_tokenizer, monkeypatch, when):
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 3000)
    monkeypatch.setattr(packing, "MARK_BYTES", 5000)
    data = replace(corpus, num_proc=1)
    prepare_rows(data, tiny_tokenizer, tmp_path / "whole" / "rows")
    marks, encoded = [], []

    def killing(folder, decided_by, items, writers):
        journal_of(folder, decided_by, items, writers)
        marks.append(items)
        if len(marks) == when:
            for writer in writers.values():  # written after the journal
                writer._tokens.write(b"\1\2\3")
                writer._mask.write(b"\7")
            raise Killed

    def counting(documents, *rest):
        encoded.append(len(documents))
        return encode(documents, *rest)

    journal_of, encode = journal.write_journal, workers.encode
    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_journal", killing)
        with pytest.raises(Killed):
            prepare_rows(data, tiny_tokenizer, tmp_path / "cut" / "rows")
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["tmp-rows.unfinished"]
    storage.remove_temporary(tmp_path / "cut")  # what a run does to its folder when it starts
    monkeypatch.setattr(workers, "encode", counting)
    prepare_rows(data, tiny_tokenizer, tmp_path / "cut" / "rows")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert sum(encoded) == 800 - marks[-1] > 0  # what was done is not done again


@pytest.mark.parametrize("change", ["text", "split", "tokenizer", "damage", "short"])
def test_what_was_begun_with_something_else_is_begun_anew(corpus, tmp_path, tiny_tokenizer, monkeypatch, change):
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 3000)
    monkeypatch.setattr(packing, "MARK_BYTES", 5000)
    data = replace(corpus, num_proc=1)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "check_parts", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            prepare_rows(data, tiny_tokenizer, tmp_path / "cut" / "rows")
    unfinished, tokenizer = tmp_path / "cut" / "tmp-rows.unfinished", tiny_tokenizer
    assert (unfinished / "journal.json").is_file()
    if change == "text":
        with open(corpus.train_file[0], "a") as file:
            file.write('{"text": "more"}\n')
    elif change == "split":
        data = replace(data, validation_split_percentage=30)
    elif change == "tokenizer":
        tokenizer = train_tokenizer(["x"], "byte")
    elif change == "damage":
        (unfinished / "journal.json").write_text('{"decided_by": {}, "writers": 3}')
    else:
        os.truncate(unfinished / "train" / "tokens.bin", 5)
    prepare_rows(data, tokenizer, tmp_path / "cut" / "rows")
    prepare_rows(data, tokenizer, tmp_path / "whole" / "rows")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_stream_that_breaks_off_leaves_what_it_brought(corpus, tmp_path, tiny_tokenizer, monkeypatch):
    def broken(*_):
        raise RunError("the dataset broke off")

    monkeypatch.setattr(packing, "check_parts", broken)
    with pytest.raises(RunError):
        prepare_rows(corpus, tiny_tokenizer, tmp_path / "run" / "rows")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["tmp-rows.unfinished"]


# A text too long to hold.


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
@pytest.mark.parametrize("percentage", [0, 10])
def test_a_text_read_in_pieces_gives_the_rows_of_the_whole(tmp_path, tiny_text, monkeypatch, kind, percentage):
    tokenizer = train_tokenizer([tiny_text] * 3, kind, 320)
    path = tmp_path / "t.txt"
    path.write_bytes("".join(f"line {k} é🙂 of  Anna\r\n\n\t{k * k}" for k in range(700)).encode())
    data = DataArguments(train_file=[str(path)], validation_split_percentage=percentage, block_size=50, num_proc=1)
    if not percentage:
        data = replace(data, validation_file=[str(path)])
    prepare_rows(data, tokenizer, tmp_path / "whole")
    monkeypatch.setattr(decoding, "LONG", 1000)
    for chunk in (97, 1000):
        monkeypatch.setattr(decoding, "CHUNK", chunk)
        seen: list = []
        note = lambda done, tokens, share, seen=seen: seen.append(share)  # noqa: E731
        prepared = prepare_rows(data, tokenizer, tmp_path / f"pieces-{chunk}", 0, note)
        assert content(tmp_path / f"pieces-{chunk}") == content(tmp_path / "whole")
        assert prepared.train.num_documents == 1 and seen == sorted(seen) and seen[-1] == 1


@pytest.mark.parametrize("how", ["tail", "hash"])
def test_the_bar_does_not_count_readings_that_only_look(tmp_path, tiny_tokenizer, monkeypatch, how):
    for k in range(9):
        (tmp_path / f"{k}.txt").write_text(f"text {k}: {k * k * k} " * 700)
    total = sum(path.stat().st_size for path in tmp_path.glob("*.txt"))
    for name in ("LONG", "CHUNK"):
        monkeypatch.setattr(decoding, name, 1000)
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 1000)
    data = DataArguments(train_file=[str(tmp_path)], validation_split=how, validation_split_percentage=40, num_proc=1)
    seen: list = []
    prepare_rows(data, tiny_tokenizer, tmp_path / "rows", 0, lambda done, tokens, share: seen.append((done, share)))
    assert len(seen) > 50 and all(abs(share - done / total) < 0.1 for done, share in seen)


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
    """What a call gives back takes a hundred times the room of its ids, so no call may get a whole book."""
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


# Processes that fail.


DIES = "import os; os.kill(os.getpid(), 9)"
FAILS = 'print(\'{"fault": "MemoryError: "}\', flush=True); open(0).read()'


@pytest.mark.parametrize("characters", [3000, 1 << 20], ids=["many batches", "one batch"])
@pytest.mark.parametrize("program,words", [(DIES, "ended with status -9"), (FAILS, "failed: MemoryError")])
def test_a_process_that_dies_or_fails_is_one_line(
    tmp_path, corpus, tiny_tokenizer, monkeypatch, program, words, characters
):
    monkeypatch.setattr(workers, "BATCHES_HERE", 0)
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", characters)
    monkeypatch.setattr(workers, "PROGRAM", program)
    with pytest.raises(RunError) as caught:
        prepare_rows(replace(corpus, num_proc=2), tiny_tokenizer, tmp_path / "rows")
    assert f"a process that tokenizes {words}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_process_that_was_dead_before_it_was_given_anything_is_one_line(
    tmp_path, corpus, tiny_tokenizer, monkeypatch
):
    def late(self, documents):
        for process in self.processes:
            process.wait()
        return submit(self, documents)

    submit = workers.Workers.submit
    monkeypatch.setattr(workers.Workers, "submit", late)
    monkeypatch.setattr(workers, "BATCHES_HERE", 0)
    monkeypatch.setattr(workers, "PROGRAM", DIES)
    with pytest.raises(RunError, match="a process that tokenizes ended with status -9"):
        prepare_rows(replace(corpus, num_proc=2), tiny_tokenizer, tmp_path / "rows")


# The command, and what train makes of its rows.


def command(*words) -> int:
    return cli.main(["tokenize", *map(str, words)])


def test_the_command_makes_what_train_takes(corpus, tmp_path, capsys):
    (path,) = corpus.train_file
    words = ["--train_file", path, "--tokenizer_type", "byte", "--block_size", 100, "--output_dir", tmp_path / "d"]
    assert command(*words, "--show_rows", 2) == 0
    out = capsys.readouterr().out
    assert "rows: kept" in out and "over-long conversations cut behind an answer" in out
    assert "\nrow 0, " in out and "\nrow 1, " in out and "row 2" not in out and "⟦" in out
    assert sorted(p.name for p in (tmp_path / "d").iterdir() if p.name != ".lock") == ["rows", "tokenizer"]
    assert command(*words) == 0 and "there already, nothing changed" in capsys.readouterr().out
    for given in (tmp_path / "d", tmp_path / "d" / "rows"):
        data = DataArguments(rows=str(given), block_size=100)
        for settings in (TokenizerArguments(), BYTES):
            tokenizer = find_tokenizer(tmp_path / "none", data, settings, None, 0)
            assert len(tokenizer) == 260 and find_rows(data, tokenizer, tmp_path / "none").reused
        with pytest.raises(UsageError, match="trained with other tokenizer_type"):
            find_tokenizer(tmp_path / "none", data, TokenizerArguments(tokenizer_type="char"), None, 0)


def test_the_command_shows_the_rows_of_the_packing_that_is_asked_for(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"{k:060}"}) + "\n" for k in range(200)))
    words = ["--train_file", path, "--tokenizer_type", "byte", "--block_size", 100, "--show_rows", 2]
    shown = {}
    for packing_of in ("wrap", "bestfit"):
        assert command(*words, "--packing", packing_of, "--output_dir", tmp_path / packing_of) == 0
        shown[packing_of] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("row ")]
    assert "100 of 100 tokens learnt" in shown["wrap"][0]
    assert all(" 61 of 100 tokens learnt: " in line for line in shown["bestfit"][1:]) and len(shown["bestfit"]) == 2


def test_rows_that_are_stale_are_refused_and_the_change_named(corpus, tmp_path):
    tokenizer, rows, report = tokenize(corpus, BYTES, tmp_path / "d", 0)
    assert not rows.reused and report["vocabulary"] == 260
    data = replace(corpus, rows=str(tmp_path / "d"))
    assert find_rows(data, tokenizer, tmp_path / "none").reused

    def refused(**changes) -> str:
        with pytest.raises(UsageError) as caught:
            find_rows(replace(data, **changes), tokenizer, tmp_path / "none")
        return str(caught.value)

    line = refused(validation_split_percentage=7.0)
    assert "made from other split (validation_split_percentage 5.0, now 7.0) (expected rows of these settings" in line
    assert "made from other block_size;" in refused(block_size=50)
    assert "made from other block_size;" in refused(block_size=50, train_file=[])
    assert "made from other sources (document_separator not set, now x);" in refused(document_separator="x")
    with open(corpus.train_file[0], "a") as file:
        file.write('{"text": "more"}\n')
    assert "made from other sources (t.jsonl);" in refused()


def test_bad_input_leaves_nothing(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("few words")
    words = ["--tokenizer_type", "byte", "--output_dir", tmp_path / "d"]
    assert command("--train_file", tmp_path / "t.txt", *words) == 2
    assert "one row needs 257" in capsys.readouterr().err and not (tmp_path / "d").exists()
    assert command("--train_file", tmp_path / "t.txt", *words, "--rows", "x") == 2
    assert command("--train_file", tmp_path / "t.txt", *words, "--num_proc", 0) == 2
    assert not (tmp_path / "d").exists()


START = """
import signal, sys
from tinygpt_hf import cli
from tinygpt_hf.reading import decoding
from tinygpt_hf.rows import journal
from tinygpt_hf.rows import build as packing
from tinygpt_hf.tokenizing import parallel as workers
decoding.LONG, decoding.CHUNK, packing.BATCH_CHARACTERS, packing.MARK_BYTES, workers.BATCHES_HERE = 4096, 4096, 4096, 65536, 1

def wait_before_the_second(*words):
    if written:
        print("rows lie behind the journal", flush=True)
        signal.pause()
    written.append(write_journal(*words))

written, write_journal = [], journal.write_journal
if sys.argv.pop(1) == "waiting":
    journal.write_journal = wait_before_the_second
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_command_goes_on(tmp_path):
    text = "".join(f"{k * k} balls\n" for k in range(50_000))
    (tmp_path / "t.txt").write_text(text)
    words = ["tokenize", "--train_file", str(tmp_path / "t.txt"), "--tokenizer_type", "char", "--num_proc", "2"]
    start, words = [sys.executable, "-c", START], [*words, "--output_dir", str(tmp_path / "cut")]
    with subprocess.Popen([*start, "waiting", *words], stdout=subprocess.PIPE, text=True) as process:
        assert "rows lie behind the journal\n" in process.stdout
        process.kill()
    mark = tmp_path / "cut" / "tmp-rows.unfinished" / "journal.json"
    assert process.returncode == -9 and mark.exists()
    assert subprocess.run([*start, "", *words], stdout=subprocess.DEVNULL).returncode == 0
    assert not mark.parent.exists()
    vocabulary = json.loads((tmp_path / "cut" / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    letters = {i: letter for letter, i in vocabulary.items()}
    found = []
    for part in ("train", "validation"):
        tokens = np.fromfile(tmp_path / "cut" / "rows" / part / "tokens.bin", dtype=np.uint16)
        found.append("".join(map(letters.get, tokens[:-1].tolist())))
    assert "".join(found) == text
