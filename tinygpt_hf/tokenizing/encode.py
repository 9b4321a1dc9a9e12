"""Encode documents as token ids: `encode` here, `encode_all` on all cores.

Text is encoded as characters only: what looks like a special token in it is spelled out. `<|endoftext|>` follows every document.
A conversation that is longer than a row is cut behind an answer, so that no row ends in the middle of a turn for want of room.
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
from tinygpt_hf.tokenizing.rendering import is_learned

PIECE_CHARACTERS = 1 << 15  # a long text is encoded in pieces of about this size, cut where that cannot change a token
GROUP_CHARACTERS = 1 << 20  # encoded in one call
BATCHES_HERE = 4  # encoded in our own process first: a small corpus is done before another process could start
# GPT-2's pattern never joins a line end to what stands before it, nor a space that something visible follows
_BORDER = re.compile(r"[\n ](?=\S)")


@dataclass
class Encoded:
    """The ids of a document, or of a part of one; which of them are learned (None: all); UTF-8 bytes of the text that is."""

    ids: np.ndarray  # uint32
    mask: np.ndarray | None
    num_bytes: int
    turns_cut: int = 0  # messages left out behind the last one kept
    too_long: bool = False  # a conversation that is longer than a row all the same


@dataclass
class PlainTokenizer:
    """What decides ids, of any fast tokenizer, and no more: it is sent to other processes, which load no Transformers."""

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
    """Return what is sent of a tokenizer."""
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
    """Yield (batch, its encoded documents) for every batch, in order, whatever the number of processes."""
    work = functools.partial(encode, tokenizer=plain(tokenizer), longest=longest)
    return ordered_map(work, batches, num_proc, here=BATCHES_HERE, argument=documents_of)


def encode(documents: list[dict], tokenizer, longest: int) -> list[Encoded]:
    """Each document's ids. One whose `ends` is false goes on in the next: nothing follows it.

    `longest`: ids that a conversation may have, its separator among them.
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
        # what the tokenizer gives back takes a hundred times the room of the ids in it
        for group in grouped(texts, len, GROUP_CHARACTERS):
            found = encode_texts(tokenizer, group, typed)
            known |= {(text, typed): np.array(ids, dtype=np.uint32) for text, ids in zip(group, found, strict=True)}
    made = []
    for document, pieces in zip(documents, prepared, strict=True):
        encoded = _joined(pieces, known, tokenizer, document)
        if "messages" in document and len(encoded.ids) > longest:
            encoded = _cut_conversation(document, tokenizer, longest, encoded)
        made.append(encoded)
    return made


def _chat_pieces(tokenizer, document: dict) -> list[tuple[str, bool, bool]]:
    try:
        return chat_pieces(tokenizer, document["messages"], tools=document.get("tools"))
    except UsageError as error:
        where = f"{document['origin']}: " if "origin" in document else ""
        raise UsageError(f"{where}{error.problem}", error.expected, error.action) from None


def _joined(pieces, known: dict, tokenizer, document: dict) -> Encoded:
    found = [known[piece, typed] for piece, _, typed in pieces]
    learned = [flag for _, flag, _ in pieces]
    if document.get("ends", True):
        found.append(np.array([tokenizer.eos_token_id], dtype=np.uint32))
        learned.append(False)
    ids = np.concatenate(found) if found else np.zeros(0, dtype=np.uint32)
    mask = None if "text" in document else np.repeat(np.array(learned, dtype=bool), [len(part) for part in found])
    num_bytes = sum(len(piece.encode()) for piece, flag, typed in pieces if flag and typed)
    return Encoded(ids, mask, num_bytes)


def _cut_conversation(document: dict, tokenizer, longest: int, whole: Encoded) -> Encoded:
    """The longest beginning that ends with an answer and fits; at least the first exchange of which something is learned."""
    messages = document["messages"]
    ends = [
        k
        for k, message in enumerate(messages)
        if k and message["role"] == "user" and messages[k - 1]["role"] == "assistant"
    ]
    ends = [end for end in ends if any(map(is_learned, messages[:end]))]

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
    """A long text in pieces that encode to the very tokens of the whole.

    A piece begins with the line end or space before something visible: there GPT-2's pattern begins a new word whatever
    stands before, so byte-level tokenizers may be cut. Texts for other tokenizers stay whole.
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
    """The same for a text that is not held, a few megabytes at a time; for other tokenizers it must be held."""
    if not is_byte_level(tokenizer):
        yield str(text)
        return
    rest = ""
    for piece in pieces_of(text):
        known = max(0, len(rest) - 1)  # whether its last character is a border was not known yet
        rest += piece
        borders = [found.start() for found in _BORDER.finditer(rest, max(known, len(rest) - PIECE_CHARACTERS))]
        borders = borders or [found.start() for found in _BORDER.finditer(rest, known)]
        if borders and borders[-1]:
            yield rest[: borders[-1]]
            rest = rest[borders[-1] :]
    yield rest


def is_byte_level(tokenizer) -> bool:
    """GPT-2's pattern, or our char tokenizer, to which every character is a word."""
    core = tokenizer.backend_tokenizer
    if core.normalizer is not None or core.pre_tokenizer is None:
        return False
    words = json.loads(core.pre_tokenizer.__getstate__())
    if words["type"] == "ByteLevel":
        return words["use_regex"] and not words["add_prefix_space"]
    return words["type"] == "Split" and words["pattern"] == {"Regex": r"[\s\S]"}
