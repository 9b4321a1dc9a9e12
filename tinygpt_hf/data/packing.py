"""Documents -> token ids -> rows, with nothing lost: every token lands in exactly one row.

`<|endoftext|>` follows every document. Text is encoded as characters only: what looks like a special token in it is spelt out.
Texts are encoded in batches, on all cores, by the Rust side of `tokenizers`; memory is bounded by a batch (and the longest text).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygpt_hf import safeio
from tinygpt_hf.data import corpus, sources
from tinygpt_hf.data.chat_format import chat_pieces, encode_texts
from tinygpt_hf.data.rows import Rows, RowWriter
from tinygpt_hf.data.tokenizer import tokenizer_hash
from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments

BATCH_CHARACTERS = 1 << 20  # per call of the tokenizer: enough to keep all cores busy
PIECE_CHARACTERS = 1 << 15  # a long text is encoded in pieces of about this size, cut where that cannot change a token
# GPT-2's pattern never joins a line end to what stands before it, nor a space that something visible follows
_BORDER = re.compile(r"[\n ](?=\S)")
PARTS = ("train", "validation")


@dataclass
class Prepared:
    """Rows for training and validation. `encoded`: the tokens the text came to, counted before they were written; None for
    rows that were there already."""

    train: Rows
    validation: Rows | None
    encoded: int | None = None

    @property
    def reused(self) -> bool:
        return self.encoded is None

    @property
    def kept(self) -> int:
        """Tokens at rest."""
        return self.train.num_tokens + (self.validation.num_tokens if self.validation else 0)


def row_facts(data: DataArguments, tokenizer, seed: int) -> dict:
    """What decides the rows, as JSON: kept in their manifests, so that stale rows are noticed and the change is named."""
    facts = {"sources": [sources.fingerprint(source) for source in sources.training_sources(data, seed)]}
    if data.validation_file:
        facts["validation"] = sources.fingerprint(sources.validation_source(data))
    else:
        facts["split"] = {"how": data.validation_split, "percentage": data.validation_split_percentage}
    facts["tokenizer"] = tokenizer_hash(tokenizer)
    return facts


def open_rows(folder: Path) -> Prepared:
    """Rows made earlier."""
    validation = folder / "validation"
    return Prepared(Rows(folder / "train"), Rows(validation) if validation.exists() else None)


def changed_facts(folder: Path, facts: dict) -> list[str]:
    """What differs between the rows in `folder` and `facts`, in words; empty where nothing does."""
    known = Rows(folder / "train").manifest
    return [name for name in ("sources", "validation", "split", "tokenizer") if known.get(name) != facts.get(name)]


def prepare_rows(
    data: DataArguments,
    tokenizer,
    folder: Path,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, tokens: None,
) -> Prepared:
    """Tokenize the text that `data` names into `folder`/train and `folder`/validation, both complete or neither.

    `progress(bytes of text done, tokens so far)` is called after every batch.
    """
    facts = row_facts(data, tokenizer, seed)
    size = [0, 0]
    with safeio.new_folder(folder) as tmp:
        writers = {part: RowWriter(tmp / part, len(tokenizer), dict(facts)) for part in PARTS}
        with writers["train"], writers["validation"]:
            for part, text_bytes, ids, mask in _encoded(_parts(data, seed), tokenizer):
                writers[part].add(ids, mask)
                writers[part].facts["num_bytes"] = writers[part].facts.get("num_bytes", 0) + text_bytes
                size[0] += text_bytes
                size[1] += len(ids)
                if writers["train"].num_documents % 256 == 0 or text_bytes > BATCH_CHARACTERS:
                    progress(size[0], size[1])
            progress(size[0], size[1])
        _check(writers, data)
    return Prepared(Rows(folder / "train"), Rows(folder / "validation"), encoded=size[1])


def _check(writers: dict[str, RowWriter], data: DataArguments) -> None:
    train, validation = writers["train"], writers["validation"]
    needed = data.block_size + 1
    if train.num_tokens < needed:
        raise UsageError(
            f"the training text has {train.num_tokens} tokens",
            f"one row needs {needed}",
            "use more text or a smaller --block_size",
        )
    if data.validation_file and validation.num_tokens < 2:
        raise UsageError(
            f"the validation text has {validation.num_tokens} tokens",
            "at least 2 were wanted",
            "use more --validation_file",
        )
    if validation.num_tokens < 2:
        raise UsageError(
            f"none of the {train.num_documents} documents fell into the {data.validation_split_percentage:g} % held out",
            "validation needs some text",
            "raise --validation_split_percentage, use --validation_split tail, or give --validation_file",
        )
    for part, writer in writers.items():
        if writer.num_tokens == writer.num_masked:
            raise UsageError(
                f"no token of the {part} data may be learnt", "assistant turns were wanted", "check the messages"
            )


def _parts(data: DataArguments, seed: int) -> Iterator[tuple[str, dict]]:
    """("train" | "validation", document) of everything that is to become rows, repeated by weight."""
    for source in sources.training_sources(data, seed):
        found = sources.documents(source)
        if data.validation_file:
            divided: Iterable = (("train", document) for document in found)
        else:
            how, found = corpus.choose_split(found, data.validation_split)
            divided = corpus.split(found, how, data.validation_split_percentage)
        for part, document in divided:
            times = corpus.repetitions(document, source.weight)
            for _ in range(min(times, 1) if part == "validation" else times):
                yield part, document
    if data.validation_file:
        for document in sources.documents(sources.validation_source(data)):
            yield "validation", document


def training_texts(data: DataArguments, seed: int = 0) -> Iterator[str]:
    """The text a tokenizer may learn from: the training part, conversations turn by turn with their roles."""
    return (_as_text(document) for part, document in _parts(data, seed) if part == "train")


def validation_texts(data: DataArguments, seed: int = 0) -> Iterator[str]:
    """The text it has not seen."""
    return (_as_text(document) for part, document in _parts(data, seed) if part == "validation")


def _as_text(document: dict) -> str:
    if "text" in document:
        return document["text"]
    return "\n".join(f"{message['role']}\n{message['content']}" for message in document["messages"])


def _encoded(
    documents: Iterable[tuple[str, dict]], tokenizer
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray | None]]:
    """(part, bytes of text that is learnt, ids, mask or None) per document, encoded batch by batch."""
    batch: list[tuple[str, list[tuple[str, bool, bool]], bool]] = []
    characters = 0
    for part, document in documents:
        if "text" in document:
            pieces = [(piece, True, True) for piece in cut_text(document["text"], tokenizer)]
        else:
            pieces = chat_pieces(tokenizer, document["messages"])
        batch.append((part, pieces, "text" in document))
        characters += sum(len(piece) for piece, _, _ in pieces)
        if characters >= BATCH_CHARACTERS:
            yield from _encode_batch(batch, tokenizer)
            batch, characters = [], 0
    yield from _encode_batch(batch, tokenizer)


def _encode_batch(batch, tokenizer) -> Iterator[tuple[str, int, np.ndarray, np.ndarray | None]]:
    known: dict[tuple[str, bool], list[int]] = {}
    for typed in (True, False):
        texts = list(dict.fromkeys(piece for _, pieces, _ in batch for piece, _, t in pieces if t == typed))
        known |= {(text, typed): ids for text, ids in zip(texts, encode_texts(tokenizer, texts, typed), strict=True)}
    end = [tokenizer.eos_token_id]
    for part, pieces, is_text in batch:
        encoded = [known[piece, typed] for piece, _, typed in pieces]
        learnt = sum(len(piece.encode()) for piece, learnt, typed in pieces if learnt and typed)
        ids = np.array([i for ids in [*encoded, end] for i in ids], dtype=np.int64)
        mask = None
        if not is_text:
            bits = [np.full(len(ids), learnt) for ids, (_, learnt, _) in zip(encoded, pieces, strict=True)]
            mask = np.concatenate([*bits, np.zeros(1, dtype=bool)])
        yield part, learnt, ids, mask


def cut_text(text: str, tokenizer) -> list[str]:
    """A long text in pieces that encode to the very tokens of the whole.

    A piece begins with the line end or space before something visible: there GPT-2's pattern begins a new word whatever
    stands before, so byte-level tokenizers may be cut. Texts for other tokenizers stay whole.
    """
    if len(text) <= 2 * PIECE_CHARACTERS or not _is_byte_level(tokenizer):
        return [text]
    pieces, start = [], 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        border = _BORDER.search(text, start + PIECE_CHARACTERS)
        if border is None:
            break
        pieces.append(text[start : border.start()])
        start = border.start()
    return [*pieces, text[start:]]


def _is_byte_level(tokenizer) -> bool:
    """GPT-2's pattern, or our char tokenizer, to which every character is a word."""
    core = tokenizer.backend_tokenizer
    if core.normalizer is not None or core.pre_tokenizer is None:
        return False
    words = json.loads(core.pre_tokenizer.__getstate__())
    if words["type"] == "ByteLevel":
        return words["use_regex"] and not words["add_prefix_space"]
    return words["type"] == "Split" and words["pattern"] == {"Regex": r"[\s\S]"}
