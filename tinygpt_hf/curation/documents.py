"""Clean documents one by one on all cores, in order; the result does not depend on the number of processes."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tinygpt_hf.curation.deduplication import Signatures, paragraph_hashes, shingles_of, text_hash
from tinygpt_hf.curation.filters import Rejection, TextStats, apply_rules, normalize
from tinygpt_hf.reading.turns import document_texts, message_texts
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.tokenizing.process_map import grouped, ordered_map

BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 2_000_000


@dataclass
class Cleaned:
    """A document after cleaning: rejected, or normalized with the features that later steps compare."""

    document: dict
    copies: int
    size: int  # bytes of text
    changes: Counter
    rejection: Rejection | None = None
    language: str | None = None  # None if languages are not checked
    characters: Counter | None = None
    key: int = 0
    paragraphs: list[tuple[int, int]] = field(default_factory=list)
    length: int = 0
    shingles: Any = None  # (S,) uint32
    signature: Any = None  # (128,) uint32


class Cleaner:
    """A callable that applies the per-document steps of cleaning to a batch; it can be pickled."""

    def __init__(self, settings: CorpusArguments):
        self._settings = settings
        self._signatures = Signatures() if settings.near_duplicates != "off" else None

    def __reduce__(self):
        return Cleaner, (self._settings,)

    def __call__(self, batch: list[tuple[dict, int]]) -> list[Cleaned]:
        return [self._clean(document, copies) for document, copies in batch]

    def _clean(self, document: dict, copies: int) -> Cleaned:
        rejection = document.get("rejection")  # set earlier for a weight below 1 or a broken conversation
        normalized, changes = document, Counter()
        if self._settings.mask or not rejection:
            normalized, changes = normalize(document, self._settings)
        stats = TextStats(normalized)
        rejection = rejection or apply_rules(stats, self._settings)
        if rejection:
            # excluded/ gets the original text that the rule measured, unless personal data must be masked
            shown = normalized if self._settings.mask else document
            return Cleaned(shown, copies, _size(shown), changes, rejection)
        return self.describe(normalized, changes, stats, copies)

    def describe(self, document: dict, changes: Counter, stats: TextStats, copies: int = 1) -> Cleaned:
        """Compute the hashes, paragraphs and shingles by which a kept document is compared with others."""
        cleaned = Cleaned(document, copies, _size(document), changes)
        cleaned.characters, cleaned.length = stats.characters, len(stats.text)
        turns: list = [(message["role"], *message_texts(message)) for message in document.get("messages", [])]
        turns += document.get("tools", [])
        cleaned.key = text_hash(json.dumps(turns or stats.text))
        if self._settings.languages:
            cleaned.language = next(iter(stats.languages))
        if self._settings.max_seen_paragraphs is not None:
            cleaned.paragraphs = paragraph_hashes(stats.paragraphs)
        if self._signatures is not None:
            cleaned.shingles = shingles_of(stats.text)
            cleaned.signature = self._signatures.of(cleaned.shingles)
        return cleaned


def clean_documents(
    weighted: Iterable[tuple[dict, int]], settings: CorpusArguments, num_proc: int | None
) -> Iterator[Cleaned]:
    """Clean (document, copies) pairs in order: the first batch in this process, the others in a pool."""
    batches = grouped(weighted, lambda pair: sum(map(len, document_texts(pair[0]))), BATCH_CHARACTERS, BATCH_DOCUMENTS)
    for _, cleaned in ordered_map(Cleaner(settings), batches, num_proc):
        yield from cleaned


def _size(document: dict) -> int:
    return sum(len(text.encode()) for text in document_texts(document))
