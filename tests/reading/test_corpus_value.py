"""A corpus is searched once, hashed once and read twice; its facts and sample equal those of separate readings."""

import builtins
import gzip
import hashlib
import io
import json

import pytest
from recorded import Recorded

from tinygpt_hf import cli
from tinygpt_hf.reading import decoding
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.reporter import SILENT
from tinygpt_hf.reading.sources import fingerprint
from tinygpt_hf.rows.placed import PlacedDocuments
from tinygpt_hf.rows.preparation import tokenize
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Count the bytes read from each file below tmp_path."""
    read: dict[str, int] = {}

    class Counted(io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            read[str(self.name)] = read.get(str(self.name), 0) + count
            return count

    real = builtins.open

    def opened(path, mode="r", *rest, **more):
        if mode == "rb" and str(path).startswith(str(tmp_path / "text")):
            return Counted(path) if rest or more else io.BufferedReader(Counted(path))
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(builtins, "open", opened)
    return read


KINDS = {
    "one long text": {"a.txt": "Some words of a text that goes on.\n" * 3000},
    "long texts by hash": {f"{k}.txt": f"Text {k} goes on.\n" * 300 for k in range(80)},
    "lines": {"a.jsonl": "".join(json.dumps({"text": f"text {k} " * 20}) + "\n" for k in range(500))},
    "short texts": {f"{k}.md": f"Page {k}\n" * 50 for k in range(100)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trained", [True, False])
def test_the_text_is_read_twice(tmp_path, counted, monkeypatch, kind, trained, tiny_tokenizer):
    (tmp_path / "text").mkdir()
    for name, text in KINDS[kind].items():
        (tmp_path / "text" / name).write_text(text)
    monkeypatch.setattr(decoding, "LONG", 4000)
    monkeypatch.setattr(decoding, "CHUNK", 1000)
    settings = TokenizerArguments(tokenizer_type="char")
    if not trained:
        tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
        settings = TokenizerArguments(tokenizer_name=str(tmp_path / "tokenizer"))
    heard = Recorded()
    data = DataArguments(train_file=[str(tmp_path / "text")], block_size=32, num_proc=1, validation_split_percentage=5)
    tokenize(Corpus(data, 0, heard), settings, tmp_path / "rows")
    size = sum(len(text.encode()) for text in KINDS[kind].values())
    read = sum(counted.values())
    assert 2 * size <= read <= 2.1 * size + 2 * 1000 * len(KINDS[kind])  # where a slice begins inside a piece
    assert heard.stages == ["reading", *(["training the tokenizer"] if trained else []), "tokenizing"]


@pytest.mark.parametrize("ending", [".txt", ".txt.gz", ".jsonl", ".md"])
@pytest.mark.parametrize("how", ["tail", "hash"])
@pytest.mark.parametrize("long", [True, False])
def test_one_reading_gives_the_same_as_separate_readings(tmp_path, monkeypatch, ending, how, long):
    """Hashes equal those of the files, and the sample is the training part, for texts of any length."""
    texts = [f"\ufeffText {k} é🙂 goes on.\r\n" * 100 for k in range(12)]
    for k, text in enumerate(texts):
        data = json.dumps({"text": text}).encode() if ending == ".jsonl" else text.encode()
        (tmp_path / f"{k}{ending}").write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    if long:
        monkeypatch.setattr(decoding, "LONG", 2000)
        monkeypatch.setattr(decoding, "CHUNK", 700)
    data = DataArguments(train_file=[str(tmp_path)], validation_split=how, validation_split_percentage=50)
    corpus = Corpus(data)
    sample, held_out = corpus.sample(10**7)
    parts: dict[str, list] = {"train": [], "validation": []}
    for (part, document), _ in PlacedDocuments(Corpus(data), None, SILENT, False):
        parts[part].append("".join(decoding.pieces_of(document["text"])))
    assert "".join(sample) == "".join(parts["train"]) and "".join(held_out) == "".join(parts["validation"])
    assert all(parts.values())
    assert corpus.source_facts == [fingerprint(source) for source in Corpus(data).sources]
    for file in corpus.source_facts[0]["files"]:
        assert file["sha256"] == hashlib.sha256((tmp_path / file["name"]).read_bytes()).hexdigest()


def test_files_added_later_are_not_read(tmp_path):
    (tmp_path / "a.txt").write_text("words " * 100)
    corpus = Corpus(DataArguments(train_file=[str(tmp_path)]))
    before = corpus.size
    (tmp_path / "b.txt").write_text("more")
    found = [document["origin"] for (_, document), _ in PlacedDocuments(corpus, None, SILENT, False)]
    assert corpus.size == before and found == [str(tmp_path / "a.txt")] * 2


def test_a_broken_long_text_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(decoding, "LONG", 1000)
    (tmp_path / "t.txt").write_bytes(b"words " * 1000 + b"\xff" + b" more" * 1000)
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(b"words " * 100_000)[:-20])
    for name, words in (("t.txt", "is not valid UTF-8 (line 1, byte 6000 is 0xff)"), ("t.txt.gz", "cannot be read (")):
        command = f"tokenize --tokenizer_type byte --output_dir {tmp_path}/d --train_file {tmp_path}/{name}"
        assert cli.main(command.split()) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1 and not (tmp_path / "d").exists()
