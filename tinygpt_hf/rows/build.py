"""Tokenize documents into shards of rows, without losing a token.

`<|endoftext|>` follows every document. Text is encoded on all cores. Memory is bounded by some megabytes per core and the
longest document; a text file longer than decoding.LONG is read in pieces.

    builder = ShardBuilder(corpus, tokenizer, folder, facts, capacity=SHARD_IDS)
    for number in builder.shards(0): ...      # folder/train/shard-000000 is final, and its held-out shard
"""

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.reporter import Reporter
from tinygpt_hf.rows.placed import BEGINNING, PlacedDocuments, batched, long_items
from tinygpt_hf.rows.store import IGNORED, Rows, shard_folders
from tinygpt_hf.rows.writer import ShardWriter, shard_manifest
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing.encode import encode_all
from tinygpt_hf.tokenizing.tokenizer import tokenizer_hash

SHARD_IDS = 1 << 24  # ids per shard: about 70 MB of text, the most that a killed process loses
UNBOUNDED = 1 << 62


@dataclass
class Prepared:
    """Rows for training and validation.

    `encoded` is the number of tokens counted during tokenizing, None for rows that already existed. `notes` are warnings
    about the text.
    """

    train: Any  # Rows, BestFitRows or StreamedRows
    validation: Rows | None
    encoded: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def reused(self) -> bool:
        return self.encoded is None

    @property
    def kept(self) -> int:
        """Return the number of stored tokens."""
        return self.train.num_tokens + (self.validation.num_tokens if self.validation else 0)

    @property
    def remarks(self) -> list[str]:
        """Return messages about text that was cut, replaced or not read."""

        def total(*names: str) -> int:
            return sum(rows.total(*names) for rows in (self.train, self.validation) if rows)

        messages = []
        if cut := total("conversations", "cut"):
            turns = total("conversations", "turns_cut")
            messages.append(f"{cut} over-long conversations cut after an answer ({turns} turns left out)")
        if too_long := total("conversations", "too_long"):
            messages.append(f"{too_long} conversations are still longer than a row")
        if replaced := total("replaced"):
            messages.append(f"{replaced} invalid UTF-8 sequences replaced")
        return messages + self.notes


def row_facts(corpus: Corpus, tokenizer) -> dict:
    """Return what determines the rows, as JSON. It is stored in the manifests to detect and name later changes."""
    # conversations are cut to the row length
    return {**corpus.facts, "tokenizer": tokenizer_hash(tokenizer), "block_size": corpus.data.block_size}


def open_rows(folder: Path) -> Prepared:
    """Open existing rows; raises UsageError for rows made with --streaming."""
    validation = folder / "validation"
    if "window_rows" in (shard_manifest(folder / "train", 0) or {}):
        expected = "rows of a complete text"
        raise UsageError(
            f"the rows in {folder} were made with --streaming", expected, "make them with `tinygpt tokenize`"
        )
    return Prepared(Rows(folder / "train"), Rows(validation) if validation.exists() else None)


def changed_facts(folder: Path, facts: dict, missing: bool = True) -> list[str]:
    """List the differences between the rows in `folder` and `facts`; without `missing`, a fact absent on one side is equal."""
    rows = Rows(folder / "train")
    chats = any("conversations" in manifest for manifest in rows.manifests)
    names = ["sources", "validation", "split", "tokenizer", *(["block_size"] if chats else [])]
    return changes(rows.manifest, facts, [n for n in names if missing or (n in rows.manifest and n in facts)])


def prepare_rows(corpus: Corpus, tokenizer, folder: Path) -> Prepared:
    """Tokenize a corpus into `folder`/train and `folder`/validation, both complete or neither.

    A killed call leaves a temporary folder, and the next call continues from its shards. The result is the same to the byte,
    and does not depend on `num_proc`.
    """
    facts = row_facts(corpus, tokenizer)
    corpus.reporter.stage("tokenizing", corpus.size)
    with storage.new_folder(folder, resumable=True) as tmp:
        builder = ShardBuilder(corpus, tokenizer, tmp, facts, SHARD_IDS)
        for _ in builder.shards(builder.finished_shards()):
            pass
        check_parts(_manifests(tmp / "train"), _manifests(tmp / "validation"), corpus.data)
    corpus.reporter.encoded(builder.size, builder.tokens)
    return Prepared(Rows(folder / "train"), Rows(folder / "validation"), encoded=builder.tokens)


def _manifests(folder: Path) -> list[dict]:
    return [storage.read_json(shard / storage.MANIFEST) for shard in shard_folders(folder)]


class ShardBuilder:
    """A builder of the training and validation shards of a corpus in `folder`.

    If `facts` has `window_rows`, the shards are streamed. Then sources are read in turns. Documents held out after the first
    shard are left out, because validation has already started.
    """

    def __init__(self, corpus: Corpus, tokenizer, folder: Path, facts: dict, capacity: int):
        self.corpus, self.data, self.tokenizer, self.folder, self.facts = corpus, corpus.data, tokenizer, folder, facts
        self.capacity, self.reporter = capacity, corpus.reporter
        self.streamed = "window_rows" in facts
        self.size = self.tokens = 0  # bytes of text and tokens encoded so far

    def finished_shards(self) -> int:
        """Return the number of shards that an earlier call finished; shards of other text or settings are deleted."""
        train, number = self.folder / "train", 0
        while (known := shard_manifest(train, number)) and all(
            known.get(name) == self.facts[name] for name in self.facts
        ):
            if known["next"] is None or storage.find_damage(train / f"shard-{number:06d}"):
                break
            number += 1
        for path in self.folder.iterdir():
            if path.name not in ("train", "validation") or not number:
                remove = storage.remove_tree if path.is_dir() else storage.system.remove
                remove(path)
        for shard in self.folder.glob("*/*"):
            if not shard.name.startswith("shard-") or int(shard.name[-6:]) >= number:
                storage.remove_tree(shard)
        for rows in (Rows(place) for place in self.folder.iterdir() if shard_folders(place)):
            self.size, self.tokens = self.size + rows.num_bytes, self.tokens + rows.num_tokens
        return number

    def shards(self, number: int, reporter: Reporter | None = None) -> Generator[int]:
        """Build shards from `number` on; yields the number of each shard when it is final."""
        self.reporter = reporter or self.reporter
        before = shard_manifest(self.folder / "train", number - 1) if number else None
        documents = PlacedDocuments(self.corpus, before, self.reporter, self.streamed)
        packed = self.data.block_size if self.streamed and self.data.packing == "bestfit" else None
        train = ShardWriter(self.folder / "train", number, self.capacity, self.facts, len(self.tokenizer), packed)
        held_out = self._held_out(number)
        try:
            with contextlib.closing(self._encoded(documents)) as encoded:
                for part, document, place, tokens in encoded:
                    if part == "train":
                        for following in train.add(document, tokens, place):
                            yield self._publish(train, held_out, documents, following)
                    elif held_out and not (self.streamed and train.number > 0):
                        list(held_out.add(document, tokens, BEGINNING))  # it is never full
            if train.number and not train.manifests:  # a shard begins only where text followed
                raise RunError("the text has become shorter since its rows were made; restore it")
            yield self._publish(train, held_out, documents, None)
        finally:
            train.abandon()
            if held_out:
                held_out.abandon()

    def _publish(
        self, train: ShardWriter, held_out: ShardWriter | None, documents: PlacedDocuments, following: dict | None
    ) -> int:
        """Publish a training shard after its held-out shard, and return its number; `following` as in `ShardWriter`."""
        if held_out and not (self.streamed and train.number > 0):
            if self.streamed:
                self._check_first(train, held_out, [reader.how for reader in documents.readers])
            if held_out.manifests:
                held_out.number = train.number
                held_out.publish(None)
        return train.publish(following)

    def _check_first(self, train: ShardWriter, held_out: ShardWriter, hows: list) -> None:
        """Refuse a stream without validation text in its first window, since later windows add none."""
        if "tail" in hows and _total(held_out.manifests, "num_tokens") < 2:
            raise UsageError(
                "the text is a few long documents, and longer than the first window",
                "validation text early in the stream: the tail of each is read last",
                "give --validation_file, or leave --streaming out",
            )
        check_parts(train.manifests, held_out.manifests, self.data)

    def _held_out(self, number: int) -> ShardWriter | None:
        """Open the writer of held-out documents, with the validation files already added; None if validation is complete."""
        folder = self.folder / "validation"
        if self.streamed and shard_folders(folder) and shard_manifest(self.folder / "train", 0) is not None:
            return None
        if self.streamed and folder.is_dir():  # the process was killed before the first shard was final
            storage.remove_tree(folder)
        facts = {name: value for name, value in self.facts.items() if name != "window_rows"}
        writer = ShardWriter(folder, number, UNBOUNDED, facts, len(self.tokenizer))
        if self.corpus.validation and number == 0:
            documents = sources.documents(self.corpus.validation, in_pieces=True, reporter=self.reporter)
            try:
                items = ((("validation", document), BEGINNING) for document in documents)
                for _, document, place, tokens in self._encoded(items):
                    list(writer.add(document, tokens, place))  # it is never full
            except BaseException:
                writer.abandon()
                raise
        return writer

    def _encoded(self, documents: Iterable) -> Generator[tuple]:
        """Yield (part, document or a piece of one, resume point, Encoded), in order."""
        items = long_items(documents, self.tokenizer)
        longest, processes = self.data.block_size + 1, self.data.num_proc
        for batch, encoded in encode_all(batched(items), _documents_of, self.tokenizer, longest, processes):
            for (part, document, place), tokens in zip(batch, encoded, strict=True):
                self.size += 0 if place["skip"] else tokens.num_bytes
                self.tokens += len(tokens.ids) - place["skip"]
                yield part, document, place, tokens
            self.reporter.encoded(self.size, self.tokens)


def _documents_of(batch: list[tuple]) -> list[dict]:
    return [document for _, document, _ in batch]


def _total(manifests: list[dict], name: str) -> int:
    return sum(manifest[name] for manifest in manifests)


def check_length(tokens: int, block_size: int) -> None:
    """Raise UsageError if the training text is too short for one row."""
    if tokens <= block_size:
        wanted = f"at least {block_size + 1} for one row"
        raise UsageError(f"the training text has {tokens} tokens", wanted, "use more text or a smaller --block_size")


def check_parts(train: list[dict], validation: list[dict], data: DataArguments) -> None:
    """Raise UsageError if the training or validation shards with these manifests hold too few tokens or targets."""
    check_length(_total(train, "num_tokens"), data.block_size)
    documents = _total(train, "num_documents")
    held_out = _total(validation, "num_tokens")
    if data.validation_file and held_out < 2:
        raise UsageError(f"the validation text has {held_out} tokens", "at least 2", "use more --validation_file")
    if held_out < 2:
        chats = sum(manifest.get("conversations", {}).get("count", 0) for manifest in train)  # cannot be split by tail
        tail = ", use --validation_split tail," if not chats and data.validation_split != "tail" else ""
        raise UsageError(
            f"none of the {documents} documents fell into the {data.validation_split_percentage:g} % held out",
            "some text for validation",
            f"raise --validation_split_percentage{tail} or give --validation_file",
        )
    for part, manifests in (("train", train), ("validation", validation)):
        if _total(manifests, "num_target_tokens") == 0:
            raise UsageError(f"no token of the {part} data may be learned", "assistant turns", "check the messages")


def shown_rows(rows: Rows, tokenizer, count: int, block_size: int) -> list[str]:
    """Decode the first rows, one line each. In conversations the learned tokens stand between ⟦ and ⟧."""
    lines = []
    for index in range(min(count, rows.count(block_size))):
        filled = int((rows.places([index], block_size) >= 0).sum())  # inputs that are not padding
        input_ids, labels = (array[0, :filled] for array in rows.batch([index], block_size))
        learned = labels != IGNORED
        if not rows.is_masked:
            text = tokenizer.decode(input_ids)
        else:
            ids = np.append(input_ids, labels[-1:][learned[-1:]])
            flags = np.insert(learned, 0, False)[: len(ids)]  # an id is learned as the target of the one before
            runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(flags)) + 1)
            words = [(tokenizer.decode(ids[run]), flags[run[0]]) for run in runs]
            text = "".join(f"⟦{word}⟧" if flag else word for word, flag in words)
        lines.append(f"row {index}, {int(learned.sum())} of {block_size} tokens learned: {text}")
    return lines
