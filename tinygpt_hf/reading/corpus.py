"""Represent the text of a run: its files are found and hashed once, and its documents split into training and validation.

    corpus = Corpus(data, seed, reporter)
    texts, held_out = corpus.sample(100_000_000)      # for a tokenizer; hashes the files on the way
    corpus.facts                                      # what determines the documents, as JSON

The text is read twice: once to sample and hash it, once to tokenize it (rows/placed.py). There are three exceptions. Parquet
files are hashed separately, because they are read from their end. An archive longer than decoding.LONG is unpacked again for
its tail. Such a text with a weight is read once per repetition.
"""

import hashlib
import itertools
import os
from collections.abc import Iterator
from functools import cached_property

from tinygpt_hf.reading import sources, split
from tinygpt_hf.reading.decoding import CHUNK, LongText, pieces_of
from tinygpt_hf.reading.formats import long_text
from tinygpt_hf.reading.reporter import SILENT, Reporter
from tinygpt_hf.reading.sample import EvenSample
from tinygpt_hf.reading.sources import Source
from tinygpt_hf.reading.turns import document_texts, message_texts
from tinygpt_hf.settings.arguments import DataArguments

HELD_OUT_BYTES = 1_000_000  # held-out text on which a tokenizer's compression is measured
LOOKED_AT = 64  # documents of each source searched for conversations


class Corpus:
    """The text that `data` names. Files are searched only when needed, since existing rows need no text."""

    def __init__(self, data: DataArguments, seed: int = 0, reporter: Reporter = SILENT):
        self.data, self.seed, self.reporter = data, seed, reporter
        self._hashes: dict[str, str] = {}
        self._sampled: tuple[int, list[str], list[str]] | None = None
        self.training_bytes = 0  # approximate size of the training text read by `sample`

    @property
    def is_named(self) -> bool:
        """Return whether the settings name a text."""
        return bool(self.data.train_file or self.data.dataset_name or self.data.sources)

    @cached_property
    def sources(self) -> list[Source]:
        """Return the sources of the training text, with their files."""
        return [sources.with_files(source) for source in sources.training_sources(self.data, self.seed)]

    @cached_property
    def validation(self) -> Source | None:
        """Return the source of the validation files, or None."""
        return sources.with_files(sources.validation_source(self.data)) if self.data.validation_file else None

    @property
    def all_sources(self) -> list[Source]:
        """Return all sources, of training and validation."""
        return [*self.sources, *([self.validation] if self.validation else [])]

    @cached_property
    def remarks(self) -> list[str]:
        """Return messages about files and splits that are not read."""
        return sources.remarks(self.all_sources)

    @property
    def size(self) -> int | None:
        """Return the total bytes of all files; None if progress cannot be measured in bytes."""
        if any(source.dataset_name or source.max_samples or source.remote for source in self.all_sources):
            return None
        return sum(os.path.getsize(file.path) for source in self.all_sources for file in sources.files_of(source))

    @cached_property
    def source_facts(self) -> list[dict]:
        """Return what determines the training documents, as JSON."""
        return [sources.fingerprint(source, self._hash_of) for source in self.sources]

    @cached_property
    def facts(self) -> dict:
        """Return what determines all documents and their split, as JSON."""
        if self.validation:
            return {"sources": self.source_facts, "validation": sources.fingerprint(self.validation, self._hash_of)}
        how = {"how": self.data.validation_split, "percentage": self.data.validation_split_percentage}
        return {"sources": self.source_facts, "split": how}

    def choose_split(self, documents: Iterator[dict]) -> tuple[str, Iterator[dict]]:
        """Return the split method of a source ("hash" or "tail") and its documents."""
        if self.validation:
            return "hash", documents  # with a percentage of 0
        return split.choose_split(documents, self.data.validation_split)

    @property
    def percentage(self) -> float:
        """Return the percentage of the training text that is held out."""
        return 0 if self.data.validation_file else self.data.validation_split_percentage

    def parts_of(self, document: dict, how: str, source: Source) -> Iterator[tuple[str, dict]]:
        """Yield ("train" | "validation", document or a part of it), repeated by the weight of its source."""
        for part, piece in split.split(document, how, self.percentage):
            times = split.repetitions(piece, source.weight)
            for _ in range(min(times, 1) if part == "validation" else times):
                yield part, piece

    def holds_conversations(self) -> bool:
        """Check whether any source has a conversation among its first documents."""
        looked_at = (itertools.islice(sources.documents(source, in_pieces=True), LOOKED_AT) for source in self.sources)
        return any("messages" in document for document in itertools.chain.from_iterable(looked_at))

    def sample(self, max_bytes: int) -> tuple[list[str], list[str]]:
        """Return (about `max_bytes` of training texts, about a megabyte of held-out texts), conversations with their roles.

        The sample is spread evenly over the text; of a streamed text it is the beginning. The last sample is cached.
        """
        if self._sampled and self._sampled[0] == max_bytes:
            return self._sampled[1:]
        self.reporter.stage("reading", self.size)
        hashing, sample, held_out = _Hashing(self.reporter), EvenSample(max_bytes), _HeldOutSample()
        for source, how, document in self._whole_documents(hashing):
            text = document.get("text")
            if isinstance(text, LongText) and not text.is_surveyed and source.weight == 1 and not self.data.streaming:
                begun = sample.add_pieces(text.pieces())
                border = split.border(document, how, self.percentage)
                sample.cut(begun, border)
                held_out.add({"text": text[border:]})
                continue
            for part, piece in self.parts_of(document, how, source):
                if part == "validation":
                    held_out.add(piece)
                    continue
                for words in _as_texts(piece):
                    sample.add(words)
                    if self.data.streaming and sample.is_full:
                        break
            if self.data.streaming and sample.is_full:
                break
        for document in sources.documents(self.validation, in_pieces=True) if self.validation else ():
            held_out.add(document)
            if held_out.is_full:
                break
        self._hashes |= hashing.hashes()
        self.training_bytes = sample.seen
        self._sampled = max_bytes, sample.texts, held_out.texts
        return self._sampled[1:]

    def _whole_documents(self, reporter: Reporter) -> Iterator[tuple[Source, str, dict]]:
        """Yield (source, split method, document) of the training text, not split or repeated."""
        for source in self.sources:
            how, documents = self.choose_split(sources.documents(source, in_pieces=True, reporter=reporter))
            yield from ((source, how, document) for document in documents)

    def _hash_of(self, path: str) -> str:
        if path not in self._hashes:
            if not self._hashes:
                self.reporter.stage("reading", self.size)
            hashing = _Hashing(self.reporter)
            if (text := self._long_text(path, hashing)) is not None:
                for _ in text.pieces():  # also measures its length
                    pass
            else:
                with open(path, "rb") as file:
                    while data := file.read(CHUNK):
                        hashing.read(path, len(data), data)
            self._hashes |= hashing.hashes()
            self._hashes.setdefault(path, hashlib.sha256().hexdigest())  # of an empty file nothing was read
        return self._hashes[path]

    def _long_text(self, path: str, reporter: Reporter) -> LongText | None:
        """Return a file's text if it is read in pieces and its length is not known yet, else None."""
        for source in self.all_sources:
            if any(file.path == path for file in sources.files_of(source)):
                return long_text(path, source.how, reporter)
        return None


class _Hashing(Reporter):
    """A reporter that computes the sha256 of files while they are read."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter
        self._begun: dict[str, tuple] = {}

    def say(self, line: str) -> None:
        self._reporter.say(line)

    def read(self, path: str, count: int, data=None) -> None:
        self._reporter.read(path, count)
        if data is not None:
            digest, size = self._begun.get(path) or (hashlib.sha256(), 0)
            digest.update(data)
            self._begun[path] = digest, size + count

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of each file that was read completely and only once."""
        return {path: d.hexdigest() for path, (d, size) in self._begun.items() if size == os.path.getsize(path)}


class _HeldOutSample:
    """The first held-out texts, up to HELD_OUT_BYTES, each cut to as many characters."""

    def __init__(self):
        self.texts: list[str] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        return self._size >= HELD_OUT_BYTES

    def add(self, document: dict) -> None:
        for text in _as_texts(document, report=False):
            if self.is_full:
                return
            if text:
                self.texts.append(text[:HELD_OUT_BYTES])
                self._size += len(self.texts[-1].encode())


def _as_texts(document: dict, report: bool = True) -> Iterator[str]:
    if "text" in document:
        return pieces_of(document["text"], report)
    turns = [text for message in document["messages"] for text in (message["role"], *message_texts(message))]
    return iter(["\n".join([*turns, *document_texts({**document, "messages": []})])])
