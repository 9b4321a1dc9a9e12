"""Collect the statistics of a corpus for corpus.json and the card, document by document, in bounded memory."""

import heapq
import re
from collections import Counter

from tinygpt_hf.curation.documents import Cleaned
from tinygpt_hf.curation.filters import script_of
from tinygpt_hf.errors import redacted
from tinygpt_hf.reading.turns import document_texts

SHOWN = 5  # longest and strangest documents listed
UNKNOWN_SHOWN = 40  # characters outside the tokenizer listed
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


class Facts:
    """Statistics of the documents read, dropped and kept; all sizes are in bytes of UTF-8."""

    def __init__(self):
        self.read, self.read_bytes = 0, 0
        self.replaced = 0  # invalid UTF-8 sequences that became U+FFFD
        self.kept, self.written, self.kept_bytes = 0, 0, 0  # `written` includes copies
        self.dropped: dict[str, list[int]] = {}
        self.changes: Counter = Counter()
        self.personal: Counter = Counter()
        self.lengths: Counter = Counter()
        self.scripts: Counter = Counter()
        self.languages: dict[str, list[int]] = {}  # code -> documents, bytes; with copies
        self.kept_characters: Counter = Counter()
        self.leaked = self.leaks_dropped = self.held_out = 0
        self.texts_only = True
        self.tokens: int | None = None
        self._longest: list[tuple[float, int, str]] = []
        self._strangest: list[tuple[float, int, str]] = []

    def count_read(self, document: dict) -> None:
        self.read += 1
        self.read_bytes += sum(len(text.encode()) for text in document_texts(document))
        self.replaced += document.get("replaced", 0)

    def count_dropped(self, rule: str, size: int) -> None:
        _add(self.dropped, rule, size)

    def count_kept(self, cleaned: Cleaned) -> None:
        """Count one kept document and its copies."""
        document, size, copies = cleaned.document, cleaned.size, cleaned.copies
        self.kept += 1
        self.written += copies
        self.kept_bytes += size * copies
        self.lengths[size.bit_length()] += copies
        self.texts_only &= "text" in document
        if cleaned.language:
            _add(self.languages, cleaned.language, size * copies, copies)
        for name, number in cleaned.changes.items():
            kind = name.removeprefix("personal_")
            (self.personal if kind != name else self.changes)[kind] += number
        letters = 0
        for character, number in cleaned.characters.items():
            if script := script_of(character):
                self.scripts[script] += number * copies
                letters += number
            elif character.isspace():
                letters += number
        self.kept_characters.update(cleaned.characters)
        strange = round(1 - letters / max(1, sum(cleaned.characters.values())), 3)
        origin = redacted(document["origin"])
        for top, value in ((self._longest, size), (self._strangest, strange)):
            top[:] = heapq.nlargest(SHOWN, [*top, (value, -self.kept, origin)])  # of equal values the earliest is kept

    def as_json(self) -> dict:
        """Return the statistics with the names of corpus.json."""
        histogram = {f"{2 ** (bits - 1) if bits else 0}": self.lengths[bits] for bits in sorted(self.lengths)}
        letters = max(1, self.scripts.total())
        return {
            "read": {"documents": self.read, "bytes": self.read_bytes, "encoding_errors": self.replaced},
            "kept": {"documents": self.kept, "with_copies": self.written, "bytes": self.kept_bytes}
            | ({"tokens": self.tokens} if self.tokens is not None else {}),
            "dropped": {r: {"documents": n, "bytes": b} for r, (n, b) in sorted(self.dropped.items())},
            "mended": dict(sorted(self.changes.items())),
            "personal_data": dict(sorted(self.personal.items())),
            "lengths": histogram,
            "scripts": {name: round(number / letters, 4) for name, number in self.scripts.most_common()},
            "languages": {c: {"documents": n, "bytes": b} for c, (n, b) in sorted(self.languages.items())},
            "longest": [{"origin": o, "bytes": v} for v, _, o in self._longest],
            "strangest": [{"origin": o, "share": v} for v, _, o in self._strangest],
        }


def _add(table: dict[str, list[int]], name: str, size: int, documents: int = 1) -> None:
    entry = table.setdefault(name, [0, 0])
    entry[0] += documents
    entry[1] += size


def unknown_characters(tokenizer, characters: Counter) -> dict:
    """Count the characters without a token, except white space, and list the most common ones.

    Such a character is encoded as the unknown token or as bytes (`<0x..>`), or does not round-trip. Byte-level tokenizers have
    none.
    """
    outside: Counter = Counter()
    for character, number in characters.items():
        if not character.isspace():
            ids = tokenizer.encode(character, add_special_tokens=False)
            lost = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
            as_bytes = all(BYTE_TOKEN.fullmatch(token) for token in tokenizer.convert_ids_to_tokens(ids))
            if lost or as_bytes or tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip() != character:
                outside[character] = number
    first = sorted(outside.items(), key=lambda pair: (-pair[1], pair[0]))[:UNKNOWN_SHOWN]
    commonest = {f"U+{ord(character):04X}": number for character, number in first}
    return {"distinct": len(outside), "occurrences": outside.total(), "commonest": commonest}
