"""Encode documents as token ids: `encode` in this process, `encode_all` on all cores.

Special tokens in a text are encoded as plain characters. `<|endoftext|>` is added after every document. A conversation that is
longer than a row is cut after an answer, so that it does not end within a turn.
"""

import bisect
import functools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import LongText, pieces_of
from tinygpt_hf.tokenizing.chat_template import chat_pieces, encode_texts
from tinygpt_hf.tokenizing.process_map import grouped, ordered_map
from tinygpt_hf.tokenizing.rendering import is_trained_on

PIECE_CHARACTERS = 1 << 15  # size of the pieces of a long text, cut where that changes no token
GROUP_CHARACTERS = 1 << 20  # encoded in one call
BATCHES_HERE = 4  # encoded in this process first: a small corpus needs no other processes
# GPT-2's pattern always starts a new word at a line end or space that is followed by a visible character
_BORDER = re.compile(r"[\n ](?=\S)")


@dataclass
class Encoded:
    """The token ids of a document or of a part of one."""

    ids: np.ndarray  # (T,), uint32
    mask: np.ndarray | None  # (T,), bool: the ids to train on; None: all
    num_bytes: int  # UTF-8 bytes of the text to train on
    turns_cut: int = 0  # messages removed at the end of a conversation
    too_long: bool = False  # a conversation longer than a row even after that


@dataclass
class PlainTokenizer:
    """The parts of a fast tokenizer that encoding needs, to send to worker processes, which do not import Transformers."""

    core: str
    chat_template: object
    name_or_path: str
    special_tokens_map: dict
    all_special_tokens: list[str]
    eos_token_id: int
    backend_tokenizer: Any = field(init=False, repr=False)

    def __post_init__(self):
        from tokenizers import Tokenizer

        self.backend_tokenizer = Tokenizer.from_str(self.core)

    @property
    def added_tokens_decoder(self) -> dict:
        return self.backend_tokenizer.get_added_tokens_decoder()


def plain(tokenizer) -> PlainTokenizer:
    """Return the PlainTokenizer of any fast tokenizer."""
    return PlainTokenizer(
        core=tokenizer.backend_tokenizer.to_str(),
        chat_template=tokenizer.chat_template,
        name_or_path=str(tokenizer.name_or_path),
        special_tokens_map=json.loads(json.dumps(tokenizer.special_tokens_map, default=str)),
        all_special_tokens=list(map(str, tokenizer.all_special_tokens)),
        eos_token_id=tokenizer.eos_token_id,
    )


def encode_all(
    batches: Iterable, documents_of: Callable, tokenizer, longest: int, num_proc: int | None
) -> Generator[tuple]:
    """Yield (batch, list of Encoded) for every batch in order. `documents_of(batch)` returns its documents."""
    work = functools.partial(encode, tokenizer=plain(tokenizer), longest=longest)
    return ordered_map(work, batches, num_proc, here=BATCHES_HERE, argument=documents_of)


def encode(documents: list[dict], tokenizer, longest: int) -> list[Encoded]:
    """Encode documents. One with `ends` false continues in the next, so it gets no end-of-text token.

    `longest`: maximum number of ids of a conversation, including the end-of-text token.
    """
    prepared = []
    for document in documents:
        if "text" in document:
            pieces = [(piece, True, True) for piece in cut_text(document["text"], tokenizer)]
        else:
            pieces = _chat_pieces(tokenizer, document)
        prepared.append(pieces)
    known: dict[tuple[str, bool], np.ndarray] = {}
    for typed in (True, False):
        texts = list(dict.fromkeys(piece for pieces in prepared for piece, _, t in pieces if t == typed))
        # the tokenizer's results take a hundred times the memory of their ids
        for group in grouped(texts, len, GROUP_CHARACTERS):
            found = encode_texts(tokenizer, group, typed)
            known |= {(text, typed): np.array(ids, dtype=np.uint32) for text, ids in zip(group, found, strict=True)}
    results = []
    for document, pieces in zip(documents, prepared, strict=True):
        encoded = _joined(pieces, known, tokenizer, document)
        if "messages" in document and len(encoded.ids) > longest:
            encoded = _cut_conversation(document, tokenizer, longest, encoded)
        results.append(encoded)
    return results


def _chat_pieces(tokenizer, document: dict) -> list[tuple[str, bool, bool]]:
    try:
        return chat_pieces(tokenizer, document["messages"], tools=document.get("tools"))
    except UsageError as error:
        where = f"{document['origin']}: " if "origin" in document else ""
        raise UsageError(f"{where}{error.problem}", error.expected, error.action) from None


def _joined(pieces, known: dict, tokenizer, document: dict) -> Encoded:
    found = [known[piece, typed] for piece, _, typed in pieces]
    targets = [is_target for _, is_target, _ in pieces]
    if document.get("ends", True):
        found.append(np.array([tokenizer.eos_token_id], dtype=np.uint32))
        targets.append(False)
    ids = np.concatenate(found) if found else np.zeros(0, dtype=np.uint32)
    mask = None if "text" in document else np.repeat(np.array(targets, dtype=bool), [len(part) for part in found])
    num_bytes = sum(len(piece.encode()) for piece, is_target, typed in pieces if is_target and typed)
    return Encoded(ids, mask, num_bytes)


def _cut_conversation(document: dict, tokenizer, longest: int, whole: Encoded) -> Encoded:
    """Return the longest beginning of a conversation that ends with an answer and fits in `longest` ids.

    At least the first exchange that is trained on is kept.
    """
    messages = document["messages"]
    ends = [
        k
        for k, message in enumerate(messages)
        if k and message["role"] == "user" and messages[k - 1]["role"] == "assistant"
    ]
    ends = [end for end in ends if any(map(is_trained_on, messages[:end]))]

    def beginning(end: int) -> Encoded:
        (encoded,) = encode([{**document, "messages": messages[:end]}], tokenizer, 1 << 62)
        return encoded

    if ends:
        fitting = bisect.bisect_right(ends, longest, key=lambda end: len(beginning(end).ids))
        end = ends[max(0, fitting - 1)]
        whole = beginning(end)
        whole.turns_cut = len(messages) - end
    whole.too_long = len(whole.ids) > longest
    return whole


def cut_text(text: str, tokenizer) -> list[str]:
    """Cut a long text into pieces that encode to the same tokens as the whole.

    Each piece begins with a line end or space before a visible character, where GPT-2's pattern always starts a new word.
    Texts for tokenizers with another pattern are not cut.
    """
    if len(text) <= 2 * PIECE_CHARACTERS or not is_byte_level(tokenizer):
        return [text]
    pieces, start = [], 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        border = _BORDER.search(text, start + PIECE_CHARACTERS)
        if border is None:
            break
        pieces.append(text[start : border.start()])
        start = border.start()
    return [*pieces, text[start:]]


def cut_long(text: LongText, tokenizer) -> Iterator[str]:
    """Yield pieces as `cut_text` does, reading a few megabytes at a time. Other tokenizers need the text in memory."""
    if not is_byte_level(tokenizer):
        yield str(text)
        return
    rest = ""
    for piece in pieces_of(text):
        known = max(0, len(rest) - 1)  # its last character may be a border: that depends on the next one
        rest += piece
        borders = [found.start() for found in _BORDER.finditer(rest, max(known, len(rest) - PIECE_CHARACTERS))]
        borders = borders or [found.start() for found in _BORDER.finditer(rest, known)]
        if borders and borders[-1]:
            yield rest[: borders[-1]]
            rest = rest[borders[-1] :]
    yield rest


def is_byte_level(tokenizer) -> bool:
    """Return True if the tokenizer has GPT-2's pattern, or is our char tokenizer, which splits at every character."""
    core = tokenizer.backend_tokenizer
    if core.normalizer is not None or core.pre_tokenizer is None:
        return False
    words = json.loads(core.pre_tokenizer.__getstate__())
    if words["type"] == "ByteLevel":
        return words["use_regex"] and not words["add_prefix_space"]
    return words["type"] == "Split" and words["pattern"] == {"Regex": r"[\s\S]"}
