"""Documents -> token ids -> rows, with nothing lost: every token lands in exactly one row.

`<|endoftext|>` follows every document. Text is encoded on all cores (parallel.py); memory is bounded by some megabytes per core
and the longest document; a text file longer than decoding.LONG is never held. After a kill it goes on (journal.py).
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading import split as corpus
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.reading.decoding import LongText, pieces_of
from tinygpt_hf.rows import journal
from tinygpt_hf.rows.store import IGNORED, Rows, RowWriter
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing.encode import Encoded, cut_long
from tinygpt_hf.tokenizing.parallel import encode_all
from tinygpt_hf.tokenizing.tokenizer import tokenizer_hash

BATCH_CHARACTERS = 1 << 20  # per call of the tokenizer, or per message to a process
MARK_BYTES = 1 << 26  # of text between two entries of the journal
PARTS = ("train", "validation")


@dataclass
class Prepared:
    """Rows for training and validation. `encoded`: the tokens the text came to, counted before they were written; None for
    rows that were there already. `notes`: what was found out about the text now, in words."""

    train: Any  # Rows, or what reads rows in another way: BestFitRows, StreamedRows
    validation: Rows | None
    encoded: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def reused(self) -> bool:
        return self.encoded is None

    @property
    def kept(self) -> int:
        """Tokens at rest."""
        return self.train.num_tokens + (self.validation.num_tokens if self.validation else 0)

    @property
    def remarks(self) -> list[str]:
        """What was not taken as it stood, in words."""
        manifests = [rows.manifest for rows in (self.train, self.validation) if rows]
        count = lambda name: sum(m.get("conversations", {}).get(name, 0) for m in manifests)  # noqa: E731
        found = []
        if count("cut"):
            found.append(
                f"{count('cut')} over-long conversations cut behind an answer ({count('turns_cut')} turns left out)"
            )
        if count("too_long"):
            found.append(f"{count('too_long')} conversations are longer than a row all the same")
        if replaced := sum(m.get("replaced", 0) for m in manifests):
            found.append(f"{replaced} faults of the encoding replaced")
        return found + self.notes


def row_facts(data: DataArguments, tokenizer, seed: int) -> dict:
    """What decides the rows, as JSON: kept in their manifests, so that stale rows are noticed and the change is named."""
    facts: dict[str, Any] = {
        "sources": [sources.fingerprint(source) for source in sources.training_sources(data, seed)]
    }
    if data.validation_file:
        facts["validation"] = sources.fingerprint(sources.validation_source(data))
    else:
        facts["split"] = {"how": data.validation_split, "percentage": data.validation_split_percentage}
    facts["tokenizer"] = tokenizer_hash(tokenizer)
    facts["block_size"] = data.block_size  # it decides where conversations are cut
    return facts


def open_rows(folder: Path) -> Prepared:
    """Rows made earlier."""
    validation = folder / "validation"
    return Prepared(Rows(folder / "train"), Rows(validation) if validation.exists() else None)


def changed_facts(folder: Path, facts: dict, missing: bool = True) -> list[str]:
    """What differs between the rows in `folder` and `facts`, in words; empty where nothing does. Not `missing`: a fact that only
    one of them states is no difference.
    """
    known = Rows(folder / "train").manifest
    names = ["sources", "validation", "split", "tokenizer", *(["block_size"] if "conversations" in known else [])]
    return changes(known, facts, [name for name in names if missing or (name in known and name in facts)])


def prepare_rows(
    data: DataArguments,
    tokenizer,
    folder: Path,
    seed: int = 0,
    progress: Callable[[int, int, float | None], None] = lambda done, tokens, share: None,
) -> Prepared:
    """Tokenize the text that `data` names into `folder`/train and `folder`/validation, both complete or neither.

    `progress(bytes of text done, tokens so far, share of the files that was read or None)` is called after every batch. A
    killed call leaves a temporary folder, with which the next one goes on; the rows are the same, byte for byte, and do not
    depend on `data.num_proc` either.
    """
    facts = row_facts(data, tokenizer, seed)
    decided_by = {**facts, "format": journal.FORMAT, "vocab_size": len(tokenizer)}
    read, total = [0], _total_bytes(data, seed)

    def seen(count: int) -> None:
        read[0] += count

    with storage.new_folder(folder, resumable=True) as tmp:
        known = journal.read_journal(tmp, decided_by) or {"items": 0, "writers": {}}
        writers = {
            part: journal.ResumableWriter(tmp / part, len(tokenizer), dict(facts), known["writers"].get(part))
            for part in PARTS
        }
        with writers["train"], writers["validation"]:
            items = itertools.islice(long_items(_parts(data, seed, seen), tokenizer), known["items"], None)
            done, marked = known["items"], 0
            batches = encode_all(
                batched(items), lambda batch: [d for _, d in batch], tokenizer, data.block_size + 1, data.num_proc
            )
            for batch, found in batches:
                for (part, document), encoded in zip(batch, found, strict=True):
                    write_document(writers[part], document, encoded)
                done += len(batch)
                size, tokens = _size(writers)
                marked = marked or size
                if size - marked >= MARK_BYTES:
                    journal.write_journal(tmp, decided_by, done, writers)
                    marked = size
                progress(size, tokens, min(1.0, read[0] / total) if total else None)
        check_parts(writers, data)
        (tmp / journal.JOURNAL).unlink(missing_ok=True)
    size, tokens = _size(writers)
    progress(size, tokens, 1.0)
    return Prepared(Rows(folder / "train"), Rows(folder / "validation"), encoded=tokens)


def _size(writers: Mapping[str, RowWriter]) -> tuple[int, int]:
    """(bytes of text, tokens) so far."""
    return (
        sum(w.facts.get("num_bytes", 0) for w in writers.values()),
        sum(w.num_tokens for w in writers.values()),
    )


def write_document(writer: RowWriter, document: dict, encoded: Encoded) -> None:
    """Add an encoded document, or a part of one, to rows."""
    writer.add(encoded.ids, encoded.mask, document.get("begins", True))
    count_document(writer.facts, document, encoded)


def count_document(facts: dict, document: dict, encoded: Encoded) -> None:
    """Add what a document, or a part of one, is to the facts of the rows it goes into."""
    facts["num_bytes"] = facts.get("num_bytes", 0) + encoded.num_bytes
    if "messages" in document:
        counts = facts.setdefault("conversations", {"count": 0, "cut": 0, "turns_cut": 0, "too_long": 0})
        counts["count"] += 1
        counts["cut"] += encoded.turns_cut > 0
        counts["turns_cut"] += encoded.turns_cut
        counts["too_long"] += encoded.too_long
    if document.get("replaced"):
        facts["replaced"] = facts.get("replaced", 0) + document["replaced"]


def _total_bytes(data: DataArguments, seed: int) -> int | None:
    return sources.total_bytes(sources.all_sources(data, seed))


def long_items(documents: Iterable[tuple[str, dict]], tokenizer) -> Iterator[tuple[str, dict]]:
    """The documents, a long text as several: `begins` and `ends` say which is the first and the last."""
    for part, document in documents:
        if not isinstance(document.get("text"), LongText):
            yield part, document
            continue
        pieces = cut_long(document["text"], tokenizer)
        piece = next(pieces)
        for begins in itertools.chain([True], itertools.repeat(False)):
            following = next(pieces, None)
            item = {"text": piece, "origin": document["origin"], "begins": begins, "ends": following is None}
            yield part, item | ({"replaced": document["replaced"]} if begins and "replaced" in document else {})
            if following is None:
                break
            piece = following


def batched(items: Iterable[tuple]) -> Iterator[list[tuple]]:
    """The same (part, document, ...) tuples in lists that are worth a call of the tokenizer."""
    batch: list[tuple] = []
    characters = 0
    for item in items:
        batch.append(item)
        document = item[1]
        texts = [document["text"]] if "text" in document else [m["content"] for m in document["messages"]]
        characters += sum(map(len, texts)) + 64
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def check_parts(writers: Mapping[str, RowWriter], data: DataArguments) -> None:
    """Refuse rows for training or validation that are too few to be of use."""
    train, validation = writers["train"], writers["validation"]
    needed = data.block_size + 1
    if train.num_tokens < needed:
        raise UsageError(
            f"the training text has {train.num_tokens} tokens",
            f"at least {needed} for one row",
            "use more text or a smaller --block_size",
        )
    if data.validation_file and validation.num_tokens < 2:
        raise UsageError(
            f"the validation text has {validation.num_tokens} tokens",
            "at least 2",
            "use more --validation_file",
        )
    if validation.num_tokens < 2:
        chats = train.facts.get("conversations", {}).get("count", 0)  # they have no tail
        tail = (
            ", use --validation_split tail," if chats < train.num_documents and data.validation_split != "tail" else ""
        )
        raise UsageError(
            f"none of the {train.num_documents} documents fell into the {data.validation_split_percentage:g} % held out",
            "some text for validation",
            f"raise --validation_split_percentage{tail} or give --validation_file",
        )
    for part, writer in writers.items():
        if writer.num_tokens == writer.num_masked:
            raise UsageError(f"no token of the {part} data may be learnt", "assistant turns", "check the messages")


def _parts(
    data: DataArguments, seed: int, seen: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[str, dict]]:
    """("train" | "validation", document) of everything that is to become rows, repeated by weight."""
    for source in sources.training_sources(data, seed):
        found, how = sources.documents(source, in_pieces=True, seen=seen), data.validation_split
        if not data.validation_file:
            how, found = corpus.choose_split(found, how)
        for document in found:
            yield from parts_of(document, how, data, source.weight)
    if data.validation_file:
        for document in sources.documents(sources.validation_source(data), in_pieces=True, seen=seen):
            yield "validation", document


def parts_of(document: dict, how: str | None, data: DataArguments, weight: float) -> Iterator[tuple[str, dict]]:
    """("train" | "validation", document or a part of it), as often as its source's weight says."""
    percentage = 0 if data.validation_file else data.validation_split_percentage
    for part, piece in corpus.split([document], how, percentage):
        times = corpus.repetitions(piece, weight)
        for _ in range(min(times, 1) if part == "validation" else times):
            yield part, piece


def training_texts(data: DataArguments, seed: int = 0) -> Iterator[str]:
    """The text a tokenizer may learn from: the training part, conversations turn by turn with their roles."""
    return (text for part, document in _parts(data, seed) if part == "train" for text in _as_texts(document))


def validation_texts(data: DataArguments, seed: int = 0) -> Iterator[str]:
    """The text it has not seen."""
    return (text for part, document in _parts(data, seed) if part == "validation" for text in _as_texts(document))


def _as_texts(document: dict) -> Iterator[str]:
    if "text" in document:
        return pieces_of(document["text"])
    return iter(["\n".join(f"{message['role']}\n{message['content']}" for message in document["messages"])])


def shown_rows(rows: Rows, tokenizer, count: int, block_size: int) -> list[str]:
    """The first rows as a person reads them, one line each. In conversations what is learnt stands between ⟦ and ⟧."""
    lines = []
    for index in range(min(count, rows.count(block_size))):
        filled = int((rows.places([index], block_size) >= 0).sum())  # behind them is padding
        input_ids, labels = (array[0, :filled] for array in rows.batch([index], block_size))
        learnt = labels != IGNORED
        if rows.mask is None:
            text = tokenizer.decode(input_ids)
        else:
            ids = np.append(input_ids, labels[-1:][learnt[-1:]])
            flags = np.insert(learnt, 0, False)[: len(ids)]  # an id is learnt where it is the target of the one before
            runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(flags)) + 1)
            words = [(tokenizer.decode(ids[run]), flags[run[0]]) for run in runs]
            text = "".join(f"⟦{word}⟧" if flag else word for word, flag in words)
        lines.append(f"row {index}, {int(learnt.sum())} of {block_size} tokens learnt: {text}")
    return lines
