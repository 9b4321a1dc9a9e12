"""Decode a stream of token ids into text, holding back incomplete characters and possible stop strings.

    decoder = TextDecoder(tokenizer, previous_id=prompt_ids[-1])
    decoder.add(id)               # "" while a character is incomplete, then the whole character
    decoder.flush()               # an incomplete character at the end, as U+FFFD

The joined pieces are the text that continues the prompt, without special tokens.
"""

import codecs
import copy
import json
import re

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's byte-level alphabet, character to byte: printable Latin-1, then U+0100 and up for other bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + k): byte for k, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


class TextDecoder:
    """An incremental decoder for one text.

    Tokens that stand for bytes (byte-level BPE or byte fallback) pass through an incremental UTF-8 decoder. So a character
    split over several tokens appears once it is complete. Other tokens are decoded together with the previous token,
    because some tokenizers drop a space at the beginning of a text.
    """

    def __init__(self, tokenizer, previous_id: int | None = None):
        self._tokenizer = tokenizer
        self._previous = previous_id
        self._special = set(tokenizer.all_special_ids)
        self._added = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items()}
        steps = _decoder_steps(tokenizer)
        self._byte_level = "ByteLevel" in steps
        self._byte_fallback = "ByteFallback" in steps
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._known: dict[int, bytes | None] = {}

    def continuing_after(self, previous_id: int) -> "TextDecoder":
        """Return a new decoder with the same tokenizer for a text that follows this token."""
        other = copy.copy(self)
        other._previous, other._utf8 = previous_id, codecs.getincrementaldecoder("utf-8")(errors="replace")
        return other

    def bytes_of(self, id: int) -> bytes | None:
        """Return the bytes a token stands for (none for a special token), or None if it stands for text."""
        if id not in self._known:
            self._known[id] = self._look_up(id)
        return self._known[id]

    def _look_up(self, id: int) -> bytes | None:
        if id in self._special:
            return b""
        if id in self._added:
            return self._added[id].encode()
        token = self._tokenizer.convert_ids_to_tokens(id)
        if token is None:
            return b""  # an unused row of the embedding
        if self._byte_level:
            return bytes(_ALPHABET[c] for c in token) if all(c in _ALPHABET for c in token) else token.encode()
        match = _BYTE_TOKEN.fullmatch(token) if self._byte_fallback else None
        return bytes([int(match[1], 16)]) if match else None

    def add(self, id: int) -> str:
        """Add a token and return the text that became final."""
        known = self.bytes_of(id)
        if id in self._special:
            piece = self.flush()  # no later token can complete a character before a special token
        elif known is not None:
            piece = self._utf8.decode(known)
        else:
            piece = self.flush() + self._behind_previous(id)
        self._previous = id
        return piece

    def flush(self) -> str:
        """Return an incomplete character as U+FFFD, or "" if there is none."""
        piece = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return piece

    def display(self, id: int) -> str:
        """Return one token for display: its text, \\xNN for bytes that are not valid UTF-8, or a special token's name."""
        if id in self._special:
            return self._tokenizer.convert_ids_to_tokens(id)
        known = self.bytes_of(id)
        return self._decode([id]) if known is None else known.decode("utf-8", errors="backslashreplace")

    def _behind_previous(self, id: int) -> str:
        if self._previous is None:
            return self._decode([id])
        before = self._decode([self._previous])
        both = self._decode([self._previous, id])
        return both[len(before) :] if both.startswith(before) else self._decode([id])

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class StopStrings:
    """A filter that passes streamed text on until a stop string appears. No part of the stop string is passed."""

    def __init__(self, stops: list[str]):
        self.found: str | None = None
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def add(self, piece: str) -> str:
        """Return the text that may be shown now. Once a stop string is `found`, this is always ""."""
        if not self._stops:
            return piece
        if self.found is not None:
            return ""
        text = self._held + piece
        matches = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if matches:
            position, self.found = min(matches)
            self._held = ""
            return text[:position]
        end = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return the text held back, when generation ends without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _decoder_steps(tokenizer) -> set[str]:
    """Return the types of the steps in a fast tokenizer's decoder, as named in tokenizer.json."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return set()
    described = json.loads(backend.decoder.__getstate__())
    return {step["type"] for step in [described, *described.get("decoders", [])]}
