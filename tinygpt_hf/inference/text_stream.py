"""Token ids -> text in pieces, each shown as soon as it is certain and never before.

    decoder = TextDecoder(tokenizer, previous_id=prompt_ids[-1])
    decoder.add(id)               # "" while a character is incomplete, then the whole character
    decoder.flush()               # what never became complete, as U+FFFD

The pieces joined are the text of the ids as a continuation of the prompt; special tokens are not text.
`StopStrings` holds back what might become a stop string, so no part of one is ever shown.
"""

import codecs
import copy
import json
import re

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes bytes as characters: printable Latin-1 as itself, the others from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + k): byte for k, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


class TextDecoder:
    """Decode one token at a time.

    Tokens that stand for bytes (byte-level BPE, and the byte fallback of the others) go through an incremental UTF-8
    decoder, so a character cut over tokens appears once, whole. Other tokens are decoded behind the token before them,
    which keeps the spaces that some tokenizers drop at the beginning of a text.
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

    def behind(self, previous_id: int) -> "TextDecoder":
        """Another decoder with the same tokenizer, for a text that begins behind this token."""
        other = copy.copy(self)
        other._previous, other._utf8 = previous_id, codecs.getincrementaldecoder("utf-8")(errors="replace")
        return other

    def bytes_of(self, id: int) -> bytes | None:
        """The bytes a token stands for, or None for a token of text. Special tokens stand for none."""
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
            return b""  # a row of the embedding that no token uses
        if self._byte_level:
            return bytes(_ALPHABET[c] for c in token) if all(c in _ALPHABET for c in token) else token.encode()
        match = _BYTE_TOKEN.fullmatch(token) if self._byte_fallback else None
        return bytes([int(match[1], 16)]) if match else None

    def add(self, id: int) -> str:
        """The text that has become certain with this token."""
        known = self.bytes_of(id)
        if id in self._special:
            piece = self.flush()  # nothing after it can complete a character before it
        elif known is not None:
            piece = self._utf8.decode(known)
        else:
            piece = self.flush() + self._behind_previous(id)
        self._previous = id
        return piece

    def flush(self) -> str:
        """The end of the text, or of a run of bytes: an incomplete character becomes U+FFFD."""
        piece = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return piece

    def shown(self, id: int) -> str:
        """One token for a table: text, \\xNN for bytes that are no whole character, a special token's name."""
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
    """Pass text on until one of `stops` appears in it, also across pieces; nothing of the stop is passed."""

    def __init__(self, stops: list[str]):
        self.found: str | None = None
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def add(self, piece: str) -> str:
        """What may be shown now. After a stop string (`found`) nothing more comes."""
        if not self._stops:
            return piece
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if hits:
            position, self.found = min(hits)
            self._held = ""
            return text[:position]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was held back, when the text ends without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that a stop string could begin with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _decoder_steps(tokenizer) -> set[str]:
    """The kinds of step in the decoder of a fast tokenizer, as tokenizer.json names them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return set()
    described = json.loads(backend.decoder.__getstate__())
    return {step["type"] for step in [described, *described.get("decoders", [])]}
