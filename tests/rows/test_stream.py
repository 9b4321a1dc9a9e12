"""Training while the text is read: the rows equal those of `tokenize`, also after failures of process, disk and network."""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from parquet_server import serving
from pyarrow import parquet
from recorded import Recorded

from tinygpt_hf import storage
from tinygpt_hf.cli import main
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows import order, placed
from tinygpt_hf.rows import stream as streaming
from tinygpt_hf.rows.batches import StepBatches
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.build import prepare_rows
from tinygpt_hf.rows.preparation import find_rows, holds_conversations
from tinygpt_hf.rows.store import IGNORED
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.rows.writer import delete_shard, read_end, shard_folder, shard_manifest
from tinygpt_hf.settings.arguments import DataArguments

T = 16


def texts(number: int, seed: int = 1) -> list[str]:
    chooser = random.Random(seed)
    nouns = ("dog", "ball", "girl", "tree", "boat", "king", "🙂", "\r\n\tif")
    return [" ".join(chooser.choices(nouns, k=chooser.randrange(1, 60))) + f" {k}" for k in range(number)]


def chats(number: int) -> list[list[dict]]:
    return [
        [{"role": "user", "content": text[:20] + "?"}, {"role": "assistant", "content": text[:40] + "!"}]
        for text in texts(number)
    ]


def written(path: Path, rows: list[dict]) -> list[str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path)]


@contextlib.contextmanager
def stream(data: DataArguments, tokenizer, folder: Path, seed: int = 0, said: list | None = None):
    with contextlib.ExitStack() as closing:
        heard = Recorded()
        heard.said = said if said is not None else []
        yield find_rows(Corpus(data, seed, heard), tokenizer, folder, closing)


def test_the_first_rows_are_shown(tmp_path, capsys):
    texts_file = written(tmp_path / "d.jsonl", [{"text": text} for text in texts(100)])
    words = ["--train_file", *texts_file, "--streaming", "--show_rows", "2", "--output_dir", str(tmp_path / "run")]
    small = "--tokenizer_type byte --block_size 32 --hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --max_steps 1"
    assert main(["train", *words, *small.split(), "--device", "cpu"]) == 0
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("row ")]
    assert len(shown) == 2 and texts(100)[0][:10] in shown[0].replace("\\r\\n\\t", "\r\n\t")


def read_all(data: DataArguments, tokenizer, folder: Path):
    """Build every window and return the open rows."""
    with stream(data, tokenizer, folder) as rows:
        first = 0
        while rows.train.size is None:
            assert rows.train.wait_for_rows(first, 1) is None
            if rows.train.size is None or first < rows.train.size - rows.train.window_rows:
                first += rows.train.window_rows
        assert rows.train.wait_for_rows(0, rows.train.size) is None
    return rows


def window_rows(monkeypatch, rows: int) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TOKENS", rows * T)


def bytes_of(train: Path) -> dict[str, bytes]:
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(train.rglob("*.bin"))}


# The rows are those of `tokenize`.


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=64, max_size=120),
    rows=st.integers(5, 40),
    weight=st.sampled_from([1.0, 0.5, 2.5]),
    as_chats=st.booleans(),
)
def test_the_windows_hold_the_rows_of_tokenize(tmp_path_factory, tiny_tokenizer, lengths, rows, weight, as_chats):
    folder = tmp_path_factory.mktemp("stream")
    chooser = random.Random(sum(lengths))
    found = [{"text": "".join(chooser.choices("ab \n🙂", k=length)) + "x"} for length in lengths]
    if as_chats:
        ask = {"role": "user", "content": "Tell!"}
        found = [{"messages": [ask, {"role": "assistant", "content": d["text"][:20] + "."}]} for d in found]
    source = {"train_file": written(folder / "d.jsonl", found), "weight": weight}
    data = DataArguments(
        sources=[source], block_size=T, validation_split="hash", validation_split_percentage=50, num_proc=1
    )
    with pytest.MonkeyPatch.context() as patch:
        window_rows(patch, rows)
        try:
            streamed = read_all(dataclasses.replace(data, streaming=True), tiny_tokenizer, folder / "streamed")
        except UsageError as error:
            assert "none of the" in str(error)  # held out before the first window was full
            assume(False)
    whole = prepare_rows(Corpus(data), tiny_tokenizer, folder / "whole")

    number = whole.train.count(T)
    assert streamed.train.size == number and read_end(folder / "streamed" / "train")["rows"] == number
    every = np.arange(number)
    for ours, theirs in zip(streamed.train.batch(every, T), whole.train.batch(every, T), strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(streamed.train.position_ids(every, T), whole.train.position_ids(every, T))
    held = streamed.validation.num_tokens  # what was held out before the first window was full
    assert np.array_equal(streamed.validation.tokens, whole.validation.tokens[:held])


def test_a_stream_is_cut_into_the_rows_of_tokenize_also_inside_a_long_text(tmp_path, tiny_tokenizer, monkeypatch):
    from tinygpt_hf.reading import decoding

    monkeypatch.setattr(decoding, "LONG", 1000)
    monkeypatch.setattr(decoding, "CHUNK", 500)
    (tmp_path / "long.txt").write_text("\n".join(texts(300)))
    data = DataArguments(
        train_file=[str(tmp_path / "long.txt")],
        validation_file=written(tmp_path / "v.jsonl", [{"text": "held out"}]),
        block_size=T,
    )
    window_rows(monkeypatch, 7)
    streamed = read_all(dataclasses.replace(data, streaming=True), tiny_tokenizer, tmp_path / "streamed")
    whole = prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "whole")
    every = np.arange(whole.train.count(T))
    assert streamed.train.size == len(every) > 100
    assert np.array_equal(streamed.train.batch(every, T)[1], whole.train.batch(every, T)[1])
    assert np.array_equal(streamed.validation.tokens, whole.validation.tokens)


# What a stream takes beside one source that is wrapped.


@pytest.mark.parametrize("as_chats", [False, True])
@pytest.mark.parametrize("bound", [None, 6 * 20 * T])
def test_whole_documents_are_packed_shard_by_shard(tmp_path, tiny_tokenizer, monkeypatch, as_chats, bound):
    """Every target is used once per epoch, documents that fit are whole, and rebuilt rows are the same."""
    window_rows(monkeypatch, 20)
    found = [{"messages": chat} for chat in chats(150)] if as_chats else [{"text": text} for text in texts(150)]
    held_out = written(tmp_path / "v.jsonl", found[:3])
    data = DataArguments(
        train_file=written(tmp_path / "d.jsonl", found), validation_file=held_out, block_size=T, num_proc=1
    )
    whole = prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "whole").train
    data = dataclasses.replace(data, streaming=True, packing="bestfit", stream_window=bound)
    shown, targets = [], []
    with stream(data, tiny_tokenizer, tmp_path / "rows") as rows:
        first = 0
        while rows.train.size is None or first < rows.train.size:
            assert rows.train.wait_for_rows(first, 1) is None
            if rows.train.size is None or first < rows.train.size:
                shown.append(RowView(rows.train, T, seed=3).row_ids([first])[0])
                targets.append(rows.train.batch(shown[-1:], T)[1][0])
                assert (rows.train.position_ids(shown[-1:], T) >= 0).all()
            first += 1
        train = rows.train.folder
    assert sorted(shown) == list(range(rows.train.size))
    learned = np.concatenate(targets)
    expected = whole.tokens[1:] if whole.is_target is None else whole.tokens[1:][whole.is_target[1:]]
    assert sorted(learned[learned != IGNORED].tolist()) == sorted(expected.tolist())
    sizes = [BestFitRows(f, T).count(T) for f in sorted(train.glob("shard-*")) if (f / "tokens.bin").exists()]
    assert bound or sum(sizes) == rows.train.size
    with stream(
        data, tiny_tokenizer, tmp_path / "rows"
    ) as again:  # existing windows are found, deleted ones are rebuilt
        for first in range(0, rows.train.size, 7):
            assert again.train.wait_for_rows(first, 1) is None
            row = RowView(again.train, T, seed=3).row_ids([first])
            assert row == shown[first : first + 1]
            assert np.array_equal(again.train.batch(row, T)[1][0], targets[first])


def test_a_weighted_mixture_reads_its_sources_in_turns(tmp_path, tiny_tokenizer, monkeypatch):
    window_rows(monkeypatch, 10)
    sources_ = [
        {"train_file": written(tmp_path / "a.jsonl", [{"text": f"a{k}"} for k in range(200)]), "weight": 2.0},
        {"train_file": written(tmp_path / "b.jsonl", [{"text": f"b{k} {k}"} for k in range(60)]), "weight": 0.5},
        {"train_file": written(tmp_path / "c.jsonl", [{"text": "c " * 900}])},
    ]
    held_out = written(tmp_path / "v.jsonl", [{"text": "held out"}])
    data = DataArguments(sources=sources_, validation_file=held_out, block_size=T, num_proc=1)
    whole = prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "whole").train
    data = dataclasses.replace(data, streaming=True, stream_window=6 * 10 * T)
    rows = read_all(dataclasses.replace(data, stream_window=None), tiny_tokenizer, tmp_path / "kept").train
    labels = rows.batch(range(rows.size), T)[1]
    words = tiny_tokenizer.decode([rows.first.tokens[0], *labels[labels != IGNORED]]).split("<|endoftext|>")[:-1]
    documents = [tiny_tokenizer.decode(whole.document(k)[:-1]) for k in range(whole.num_documents)]
    assert sorted(words) == sorted(documents)  # those of `tokenize`, with the same counts
    letters = "".join(word[0] for word in words)
    assert letters.startswith("aa") and {"a", "b", "c"} <= set(letters[:12]) and set(letters[-20:]) == {"a"}
    with stream(data, tiny_tokenizer, tmp_path / "rows") as bounded:  # any shard of a mixture can be rebuilt
        for first in (0, rows.size // 2, rows.size - 1, rows.size + rows.size // 3):
            assert bounded.train.wait_for_rows(first, 1) is None
            row = [first % rows.size]
            assert np.array_equal(bounded.train.batch(row, T)[1], rows.batch(row, T)[1])


@pytest.fixture
def corpus(tmp_path) -> DataArguments:
    files = written(tmp_path / "d.jsonl", [{"text": text} for text in texts(150)])
    return DataArguments(train_file=files, block_size=T, streaming=True, validation_split_percentage=20, num_proc=1)


def test_a_deleted_window_is_rebuilt_to_the_byte(tmp_path, tiny_tokenizer, corpus, monkeypatch):
    window_rows(monkeypatch, 10)
    rows = read_all(corpus, tiny_tokenizer, tmp_path / "rows")
    train, made = rows.train.folder, bytes_of(rows.train.folder)
    windows = read_end(train)["windows"]
    assert windows > 10
    for number in (0, 1, 2, 40, windows - 1):
        for way in (delete_shard, lambda train, k: shutil.rmtree(shard_folder(train, k)), damaged):
            if number == 0 and way is delete_shard:
                continue  # never deleted
            way(train, number)
            with stream(corpus, tiny_tokenizer, tmp_path / "rows") as again:
                assert again.train.wait_for_rows(number * 10, 1) is None and again.train.covers(number * 10, 1)
            assert bytes_of(train) == made, number
    assert not list(tmp_path.rglob("tmp-*"))


def damaged(train: Path, number: int) -> None:
    path = shard_folder(train, number) / "tokens.bin"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


@pytest.fixture
def made(tmp_path, tiny_tokenizer, corpus, monkeypatch) -> Path:
    """Build the windows of a text up to its end; returns their folder."""
    window_rows(monkeypatch, 10)
    return read_all(corpus, tiny_tokenizer, tmp_path / "rows").train.folder


def test_a_changed_text_is_refused_and_the_old_text_continues(tmp_path, tiny_tokenizer, corpus, made):
    before, old = bytes_of(made), Path(corpus.train_file[0]).read_text()
    delete_shard(made, 3)
    Path(corpus.train_file[0]).write_text(old.replace("dog", "cat"))  # names and sizes are the same
    for _ in range(2):  # as often as it is tried
        with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
            assert "the text has changed since window 3" in str(rows.train.wait_for_rows(30, 1))
    Path(corpus.train_file[0]).write_text(old)
    with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
        assert rows.train.wait_for_rows(30, 1) is None
    assert bytes_of(made) == before and not list(tmp_path.rglob("tmp-*"))


@pytest.mark.parametrize("lines", [100, 200])
def test_a_shorter_or_longer_text_does_not_change_the_end(tmp_path, tiny_tokenizer, corpus, made, monkeypatch, lines):
    end, facts = read_end(made), shard_manifest(made, 0)["sources"][0]
    monkeypatch.setattr(sources, "fingerprint", lambda source, hash_of: facts)
    written(Path(corpus.train_file[0]), [{"text": text} for text in texts(lines)])
    last = end["windows"] - 1
    for number in range(last if lines == 200 else 40, last + 1):
        delete_shard(made, number)
    with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
        failed = rows.train.wait_for_rows(10 * last, 1)
    assert "the text has" in str(failed) and read_end(made) == end


def test_the_disk_bound_holds_if_the_first_window_is_lost(tmp_path, tiny_tokenizer, corpus):
    bounded = dataclasses.replace(corpus, stream_window=6 * 6 * T)
    with stream(bounded, tiny_tokenizer, tmp_path / "rows") as rows:
        for first in range(0, 300, 6):
            assert rows.train.wait_for_rows(first, 6) is None
        train = rows.train.folder
    (shard_folder(train, 0) / "tokens.bin").unlink()
    with stream(bounded, tiny_tokenizer, tmp_path / "rows") as rows:
        assert rows.train.wait_for_rows(300, 6) is None
        there = sorted(int(path.parent.name[-6:]) for path in train.glob("shard-*/tokens.bin"))
    assert there[0] == 0 and 50 in there and len(there) <= 6


@pytest.mark.parametrize(("number", "text"), [(0, None), (3, "[]"), (3, "{"), (0, '{"next": null}')])
def test_a_window_without_a_valid_manifest_is_rebuilt(tmp_path, tiny_tokenizer, corpus, made, number, text):
    before, manifest = bytes_of(made), shard_folder(made, number) / "manifest.json"
    manifest.unlink() if text is None else manifest.write_text(text)
    with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
        assert rows.train.wait_for_rows(number * 10, 1) is None
    assert bytes_of(made) == before and shard_manifest(made, number)["window"] == number


@pytest.mark.parametrize("text", [None, "[]", '{"windows": 3, "rows": 30}'])
def test_a_lost_end_file_is_written_again(tmp_path, tiny_tokenizer, corpus, made, text):
    end = read_end(made)
    (made / "end.json").unlink() if text is None else (made / "end.json").write_text(text)
    with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
        assert rows.train.wait_for_rows(end["rows"] - 1, 2) is None  # into the second epoch
    assert read_end(made) == end


def test_prefetched_windows_stay_until_they_are_used(tmp_path, tiny_tokenizer, corpus, made):
    with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
        size = rows.train.size
        assert rows.train.wait_for_rows(0, size) is None
        assert rows.train.covers(30, 10, shown=0) and not rows.train.covers(40, 10, shown=9)
        assert rows.train.covers(size, 10, shown=size - 21) and not rows.train.covers(size + 20, 10, shown=size - 21)


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, tiny_tokenizer, corpus, monkeypatch):
    class Full(storage.System):
        def write(self, file, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "system", Full())
    with pytest.raises(OSError, match="No space"):
        with stream(corpus, tiny_tokenizer, tmp_path / "rows"):
            pass
    assert not (tmp_path / "rows").exists()


def test_a_few_long_texts_need_a_validation_file(tmp_path, tiny_tokenizer, corpus, monkeypatch):
    window_rows(monkeypatch, 10)
    (tmp_path / "book.txt").write_text(" ".join(texts(200)))
    book = dataclasses.replace(corpus, train_file=[str(tmp_path / "book.txt")])
    with pytest.raises(UsageError, match="longer than the first window .*ive --validation_file"):
        with stream(book, tiny_tokenizer, tmp_path / "rows"):
            pass


def test_a_step_larger_than_a_window_needs_more_disk_and_leaves_nothing(tmp_path, corpus, capsys):
    streaming.check_window(dataclasses.replace(corpus, stream_window=36 * T), 6)
    with pytest.raises(UsageError, match=rf"at least the 7 rows of a step\). Use {6 * 7 * T} or more"):
        streaming.check_window(dataclasses.replace(corpus, stream_window=36 * T), 7)
    words = [
        "--train_file",
        *corpus.train_file,
        "--streaming",
        "--stream_window",
        "576",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    small = "--tokenizer_type byte --block_size 16 --per_device_train_batch_size 7 --max_steps 1 --device cpu"
    assert main(["train", *words, *small.split()]) == 2
    assert "Use 672 or more" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_conversations_are_detected_without_the_text(tmp_path, tiny_tokenizer, corpus):
    talks = dataclasses.replace(corpus, train_file=written(tmp_path / "c.jsonl", [{"messages": c} for c in chats(150)]))
    for data, wanted in ((corpus, False), (talks, True)):
        folder = tmp_path / f"rows-{wanted}"
        read_all(data, tiny_tokenizer, folder)
        assert holds_conversations(Corpus(dataclasses.replace(data, train_file=["gone.jsonl"])), folder) == wanted


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"block_size": 8}, "block_size"),
        ({"stream_window": 500}, "stream_window"),
        ({"validation_split_percentage": 10}, "split"),
        ({"max_train_samples": 100}, "sources"),
    ],
)
def test_stale_windows_are_refused(tmp_path, tiny_tokenizer, corpus, change, named):
    read_all(corpus, tiny_tokenizer, tmp_path / "rows")
    with pytest.raises(UsageError, match=f"made from other .*{named}"):
        with stream(dataclasses.replace(corpus, **change), tiny_tokenizer, tmp_path / "rows"):
            pass


def test_the_disk_bound_does_not_change_the_order(tmp_path, tiny_tokenizer, corpus):
    corpus = dataclasses.replace(corpus, max_train_samples=64)
    bounded = dataclasses.replace(corpus, stream_window=6 * 6 * T)
    with pytest.MonkeyPatch.context() as patch:
        window_rows(patch, 6)
        kept = read_all(corpus, tiny_tokenizer, tmp_path / "kept").train
    most = 0
    with stream(bounded, tiny_tokenizer, tmp_path / "bounded") as rows:
        assert rows.train.window_rows == 6
        for step in range(5 * kept.size // 8):  # two and a half epochs: the text is read again
            assert rows.train.wait_for_rows(step * 4, 4) is None
            one, other = (RowView(some, T, seed=9) for some in (rows.train, kept))
            assert one.row_ids(range(step * 4, step * 4 + 4)) == other.row_ids(range(step * 4, step * 4 + 4))
            assert np.array_equal(*(some.batch(range(step * 4, step * 4 + 4))[1] for some in (one, other)))
            there = [shard_folder(rows.train.folder, k) / "tokens.bin" for k in range(kept.size // 6 + 1)]
            most = max(most, sum(path.stat().st_size for path in there if path.exists()) // 2)
    assert 6 * 6 * T // 2 < most <= 6 * (6 * T + 1)  # windows share an id


@pytest.mark.parametrize("window", [1, 3, 7, 50, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_used_once_per_epoch_by_one_process(window, processes):
    borders = np.append(np.arange(0, 103, window), 103)

    class Numbered:
        def at(self, positions, block_size, shifted, seed):
            return order.windowed_rows_at(positions, borders, seed, 103)

        def batch(self, indices, block_size, offset):
            return np.zeros((len(indices), T), dtype=np.int64), np.repeat(np.asarray(indices)[:, None], T, axis=1)

    view = RowView(Numbered(), T, seed=5)
    makers = [StepBatches(view, 6, 206, (rank, processes)) for rank in range(processes)]
    by_process = [[], [], []]
    for step in range(-(-206 // 6)):
        for rank, maker in enumerate(makers):
            batches, _ = maker.at(step, 4)
            by_process[rank] += [int(row[0]) for _, labels in batches for row in labels if int(row[0]) != IGNORED]
    together = sorted(by_process[0] + by_process[1] + by_process[2])
    assert together == sorted(2 * list(range(103)))  # disjoint, and nothing is left out
    one, whole = view.row_ids(range(103)), 103 // window * window
    unknown = order.windowed_rows_at(np.arange(whole), borders, 5, None)[1]  # before the end is known
    assert unknown.tolist() == one[:whole]
    for begin in range(0, 103, window):
        assert sorted(one[begin : begin + window]) == list(range(begin, min(begin + window, 103)))


def test_errors_are_raised_before_anything_is_written(tmp_path, tiny_tokenizer, corpus):
    small = dataclasses.replace(corpus, max_train_samples=1, validation_split="hash", validation_split_percentage=99.9)
    none = dataclasses.replace(corpus, validation_split="hash", validation_split_percentage=0.001)
    for data, words in (
        (small, "training text has 0 tokens"),
        (none, "none of the"),
    ):
        with pytest.raises(UsageError, match=words):
            with stream(data, tiny_tokenizer, tmp_path / "rows"):
                pass
        assert not (tmp_path / "rows").exists()


def test_an_error_in_the_middle_of_the_text_ends_the_rows_there(tmp_path, tiny_tokenizer, corpus, monkeypatch):
    window_rows(monkeypatch, 10)
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 500)
    with open(corpus.train_file[0], "a") as file:
        file.write('{"text": 5}\n')
    with stream(corpus, tiny_tokenizer, tmp_path / "rows") as rows:
        first = 0
        while (failed := rows.train.wait_for_rows(first, 1)) is None:
            first += 10
    assert isinstance(failed, RunError) and "line 151" in str(failed) and first > 100


# Parquet that is read over a network.


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("served")
    tiny_tokenizer.save_pretrained(folder / "tokenizer")
    for number in range(24):
        table = pyarrow.table({"text": texts(50, seed=number)})
        parquet.write_table(table, folder / f"part-{number:02}.parquet", row_group_size=20)
    with serving(folder) as server:
        yield server


@pytest.fixture
def server(served):
    yield served
    served.left = None


SETTINGS = (
    "--streaming true --block_size 32 --stream_window 6144 --validation_split_percentage 20 --hidden_size 16 --num_hidden_layers 1 "
    "--num_attention_heads 2 --device cpu --mixed_precision no --logging_steps 1 --eval_steps 20 "
    "--save_steps 10 --sample_tokens 0 --max_steps 60 --num_proc 1"
).split()
PATIENCE = 120  # seconds, of which none is used where all is well
# datasets tries by itself first: 20 times, 5 s apart
PROGRAM = """
import os, sys
import datasets
datasets.config.STREAMING_READ_MAX_RETRIES, datasets.config.STREAMING_READ_RETRY_INTERVAL = 1, 0.01
from tinygpt_hf.rows import placed
from tinygpt_hf.reading import sources
placed.BATCH_CHARACTERS = 2000
sources.WAITS = tuple(map(float, os.environ["WAITS"].split()))
sources.NOTED_EVERY = 37
from tinygpt_hf import storage
from tinygpt_hf.cli import main
sys.exit(main(sys.argv[1:]))
"""


def words_of(server, folder: Path, rows: int = 8) -> list[str]:
    tokenizer = ["--tokenizer_name", str(server.folder / "tokenizer")]
    return [
        "train",
        "--train_file",
        *server.urls(),
        "--output_dir",
        str(folder),
        *tokenizer,
        *SETTINGS,
        "--per_device_train_batch_size",
        str(rows),
    ]


def train(server, folder: Path, waits: str = "0.1 0.1") -> tuple[int, str]:
    """Run a command in this process; returns (exit status, output)."""
    import datasets

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        patch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)
        patch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0.01)
        patch.setattr(sources, "WAITS", tuple(map(float, waits.split())))
        patch.setattr(sources, "NOTED_EVERY", 37)
        patch.setattr(placed, "BATCH_CHARACTERS", 2000)
        return main(words_of(server, folder)), said.getvalue()


def started(server, folder: Path, waits: str = "0.1 0.1", processes: int = 1) -> subprocess.Popen:
    """Start a command in one or two new processes."""
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--rdzv_backend", "c10d"]
    launch = [*launch, "--rdzv_endpoint", "127.0.0.1:0"] if processes > 1 else []
    environment = {**os.environ, "WAITS": waits, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launch, str(program), *words_of(server, folder, 8 // processes)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert log_of(one) == log_of(other)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert not list(one.rglob("tmp-*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, served) -> Path:
    """Run without any failure, for comparison."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    status, said = train(served, folder)
    assert status == 0 and "more text is read while the model trains" in said, said
    return folder


def test_training_starts_before_the_text_is_read(whole):
    windows = json.loads((whole / "run.json").read_text())["text"]["train"]
    assert not (whole / "rows" / "train" / "end.json").exists() and windows["num_tokens"] > 60 * 8 * 32


def when(found, then) -> None:
    """Call a function in a thread as soon as a condition is true."""

    def watch() -> None:
        while not found():
            time.sleep(0.01)
        then()

    threading.Thread(target=watch, daemon=True).start()


def cut(server, folder: Path, step: int) -> None:
    """Interrupt a response of the server once the run has reached this step."""
    when(lambda: last_step(folder) >= step, lambda: setattr(server, "left", 1500))


def test_a_temporary_network_failure_changes_nothing(tmp_path, server, whole):
    cut(server, tmp_path / "run", 12)
    refused = server.refused
    when(lambda: server.refused > refused + 10, lambda: setattr(server, "left", None))
    status, said = train(server, tmp_path / "run", "0.1 " * 3000)
    assert status == 0, said
    assert server.refused > refused + 10 and "broke off after" in said and "trying again in 0.1 s" in said
    assert_same_run(tmp_path / "run", whole)


def test_a_lasting_network_failure_ends_in_a_checkpoint_that_resumes(tmp_path, server, whole):
    before = 0
    for wanted in (12, 30):  # cut twice
        cut(server, tmp_path / "run", wanted)
        status, said = train(server, tmp_path / "run")
        assert status == 1, said
        step = log_of(tmp_path / "run")[-1]["step"]
        assert f"stopped after step {step}, saved; the same command goes on" in said.splitlines()[-1]
        assert said.count("error:") == 1 and "Traceback" not in said and "broke off after" in said.splitlines()[-1]
        assert (tmp_path / "run" / f"checkpoint-{step}").is_dir() and before < step < 60
        before, server.left = step, None
    status, said = train(server, tmp_path / "run")
    assert status == 0 and f"from step {step} " in said, said
    assert_same_run(tmp_path / "run", whole)


def last_step(folder: Path) -> int:
    path = folder / "log.jsonl"
    return path.read_text().count("grad_norm") if path.is_file() else 0


def wait_until(found, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
        time.sleep(0.01)


def test_a_killed_run_resumes(tmp_path, server, whole):
    process = started(server, tmp_path / "run")
    wait_until(lambda: last_step(tmp_path / "run") >= 33, process)
    process.kill()
    process.communicate()
    status, said = train(server, tmp_path / "run")
    assert status == 0 and "from step" in said, said
    assert_same_run(tmp_path / "run", whole)


def test_a_signal_while_waiting_for_the_network_saves_and_ends(tmp_path, server, whole):
    cut(server, tmp_path / "run", 12)
    process = started(server, tmp_path / "run", "1000000")
    lines = iter(process.stderr.readline, "")
    assert any("trying again in 1e+06 s" in line for line in lines)
    before = -1
    while last_step(tmp_path / "run") != before:  # it trains on the rows available
        before = last_step(tmp_path / "run")
        time.sleep(1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 143 and "SIGTERM" in said.splitlines()[-1], said
    step = last_step(tmp_path / "run")
    assert (tmp_path / "run" / f"checkpoint-{step}").is_dir()


def test_two_processes_train_as_one(tmp_path, server, whole):
    two = started(server, tmp_path / "run", processes=2)
    said = two.communicate(timeout=3 * PATIENCE)[1]
    assert two.returncode == 0, said
    pairs = list(zip(log_of(whole), log_of(tmp_path / "run"), strict=True))
    assert all(one.get("tokens") == both.get("tokens") for one, both in pairs)
    for one, both in pairs[:12]:  # rounding differs, and grows
        assert one["loss"] == pytest.approx(both["loss"], abs=1e-5)


def test_two_processes_end_together_after_a_lasting_network_failure(tmp_path, server, whole):
    cut(server, tmp_path / "run", 12)
    two = started(server, tmp_path / "run", processes=2)
    said = two.communicate(timeout=3 * PATIENCE)[1]
    step = log_of(tmp_path / "run")[-1]["step"]
    assert two.returncode == 1 and f"stopped after step {step}, saved; the same command goes on" in said
    assert (tmp_path / "run" / f"checkpoint-{step}").is_dir()
