"""The text of a run as one value: its files found once, hashed once, and which documents are held out.

    corpus = Corpus(data, seed, reporter)
    texts, held_out = corpus.sample(100_000_000)      # for a tokenizer; while it reads, it hashes
    corpus.facts                                      # what decides the documents, as JSON
    for part, document in corpus.documents(): ...     # ("train" | "validation", document), repeated by weight

So the text is passed over twice: once to sample and hash it, once to tokenize. Three things take a further look: parquet, which
is read from its end, is hashed by itself; an archive longer than decoding.LONG is unpacked again for its tail; a text like that
with a weight is read as often as the weight says.
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

HELD_OUT_BYTES = 1_000_000  # of held-out text that a tokenizer is measured on
LOOKED_AT = 64  # documents of a source that say whether it has conversations


class Corpus:
    """The text that `data` names. Nothing is looked for before it is asked for: rows that are there need no text."""

    def __init__(self, data: DataArguments, seed: int = 0, reporter: Reporter = SILENT):
        self.data, self.seed, self.reporter = data, seed, reporter
        self._hashes: dict[str, str] = {}
        self._sampled: tuple[int, list[str], list[str]] | None = None
        self.training_bytes = 0  # of the training part as far as it was sampled, about

    @property
    def is_named(self) -> bool:
        """Do the settings name a text?"""
        return bool(self.data.train_file or self.data.dataset_name or self.data.sources)

    @cached_property
    def sources(self) -> list[Source]:
        """The sources of the training text, their files looked for now."""
        return [sources.settled(source) for source in sources.training_sources(self.data, self.seed)]

    @cached_property
    def validation(self) -> Source | None:
        """The validation files, if there are any."""
        return sources.settled(sources.validation_source(self.data)) if self.data.validation_file else None

    @property
    def every(self) -> list[Source]:
        """All sources."""
        return [*self.sources, *([self.validation] if self.validation else [])]

    @cached_property
    def remarks(self) -> list[str]:
        """What is not read, or not as it should be, in words."""
        return sources.remarks(self.every)

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where they do not tell how far the reading is."""
        return sources.total_bytes(self.every)

    @cached_property
    def source_facts(self) -> list[dict]:
        """What decides the documents of the training text, as JSON."""
        return [sources.fingerprint(source, self._hash_of) for source in self.sources]

    @cached_property
    def facts(self) -> dict:
        """What decides all documents, and which of them are held out, as JSON."""
        if self.validation:
            return {"sources": self.source_facts, "validation": sources.fingerprint(self.validation, self._hash_of)}
        how = {"how": self.data.validation_split, "percentage": self.data.validation_split_percentage}
        return {"sources": self.source_facts, "split": how}

    def documents(self) -> Iterator[tuple[str, dict]]:
        """("train" | "validation", document or a part of one) of everything, each as often as its source's weight says."""
        for source in self.sources:
            found = sources.documents(source, in_pieces=True, reporter=self.reporter)
            how, found = self.chosen_split(found)
            for document in found:
                yield from self.parts_of(document, how, source)
        if self.validation:
            for document in sources.documents(self.validation, in_pieces=True, reporter=self.reporter):
                yield "validation", document

    def chosen_split(self, documents: Iterator[dict]) -> tuple[str, Iterator[dict]]:
        """How documents of a source are held out, and the documents again."""
        if self.validation:
            return "hash", documents  # of which nothing is
        return split.choose_split(documents, self.data.validation_split)

    @property
    def percentage(self) -> float:
        """The share of the training text that is held out."""
        return 0 if self.data.validation_file else self.data.validation_split_percentage

    def parts_of(self, document: dict, how: str, source: Source) -> Iterator[tuple[str, dict]]:
        """("train" | "validation", document or a part of it), as often as its source's weight says."""
        for part, piece in split.split([document], how, self.percentage):
            times = split.repetitions(piece, source.weight)
            for _ in range(min(times, 1) if part == "validation" else times):
                yield part, piece

    def holds_conversations(self) -> bool:
        """Are there conversations at the beginning of a source?"""
        looked_at = (itertools.islice(sources.documents(source, in_pieces=True), LOOKED_AT) for source in self.sources)
        return any("messages" in document for document in itertools.chain.from_iterable(looked_at))

    def sample(self, max_bytes: int) -> tuple[list[str], list[str]]:
        """(texts of the training part worth about `max_bytes`, held-out texts worth about a megabyte): conversations turn by
        turn with their roles. Taken evenly; of a text that is streamed, whose end is far, from its beginning. The last sample is
        kept: a plan and the tokenizer it leads to look at the same one.
        """
        if self._sampled and self._sampled[0] == max_bytes:
            return self._sampled[1:]
        self.reporter.stage("reading", self.size)
        hashing, sample, held_out = _Hashing(self.reporter), EvenSample(max_bytes), _Opening()
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
        """(source, how documents are held out, document) of the training text, nothing divided or repeated."""
        for source in self.sources:
            how, found = self.chosen_split(sources.documents(source, in_pieces=True, reporter=reporter))
            yield from ((source, how, document) for document in found)

    def _hash_of(self, path: str) -> str:
        if path not in self._hashes:
            if not self._hashes:
                self.reporter.stage("reading", self.size)
            hashing = _Hashing(self.reporter)
            if (text := self._long_text(path, hashing)) is not None:
                for _ in text.pieces():  # its length is learned on the way
                    pass
            else:
                with open(path, "rb") as file:
                    while data := file.read(CHUNK):
                        hashing.read(path, len(data), data)
            self._hashes |= hashing.hashes()
            self._hashes.setdefault(path, hashlib.sha256().hexdigest())  # of an empty file nothing was read
        return self._hashes[path]

    def _long_text(self, path: str, reporter: Reporter) -> LongText | None:
        """The text of a file that will be read in pieces, and whose length nobody knows."""
        for source in self.every:
            if any(file.path == path for file in sources.files_of(source)):
                return long_text(path, source.how, reporter)
        return None


class _Hashing(Reporter):
    """Hashes files while they are read from their first byte to their last."""

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
        """The sha256 of the files that were read whole, and once."""
        return {path: d.hexdigest() for path, (d, size) in self._begun.items() if size == os.path.getsize(path)}


class _Opening:
    """Held-out texts until they are worth a megabyte, each its first million characters at most."""

    def __init__(self):
        self.texts: list[str] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        return self._size >= HELD_OUT_BYTES

    def add(self, document: dict) -> None:
        for text in _as_texts(document, tell=False):
            if self.is_full:
                return
            if text:
                self.texts.append(text[:HELD_OUT_BYTES])
                self._size += len(self.texts[-1].encode())


def _as_texts(document: dict, tell: bool = True) -> Iterator[str]:
    if "text" in document:
        return pieces_of(document["text"], tell)
    said = [text for message in document["messages"] for text in (message["role"], *message_texts(message))]
    return iter(["\n".join([*said, *document_texts({**document, "messages": []})])])
