"""Texts that came before: whole documents and paragraphs by hash, nearly equal documents by MinHash and LSH (datasketch).

    near = NearDuplicates(0.75, folder)
    near.matches(shingles, signature)            # [(3, 0.91)]: document 3 has 91 % of their 5 words in a row in common
    near.add(shingles, signature)                # it is document 4 now
    near.across([0, 3], [1, 2, 4])               # {4: (3, 0.91)}: of 1, 2, 4 those nearly equal to 0 or 3, without exception

Two documents are near duplicates if the Jaccard similarity of their shingles (Broder 1997), 5 words in a row as in FineWeb, is
at least the threshold. LSH proposes pairs (Indyk and Motwani 1998): one exactly at the threshold is proposed with probability
0.99 or more, one above it more surely. What is proposed is then compared exactly, so no pair below the threshold is called equal.
`across` leaves nothing to chance: it asks an inverted index, so that no pair lies across a split.

A sign is a word: `3 < 4` is not `3 > 4`. Marks of punctuation are none, as editions of one text differ in their quotes and commas.

Memory: 8 bytes a document and a paragraph by hash, about 0.1 kB with Python's set around them; for near duplicates about 10 kB a
document (signature and LSH tables). The shingles themselves lie in a file, 4 bytes each; of the held-out ones, 8 bytes each are
held by `across`, at most 160 MB at once (or one document).
"""

import hashlib
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tinygpt_hf.errors import UsageError

SHINGLE_WORDS = 5
PERMUTATIONS = 128
RECALL = 0.99  # of a pair exactly at the threshold
MARGIN = 4 * (0.25 / PERMUTATIONS) ** 0.5  # four standard deviations of an estimated similarity, at the worst
PUNCTUATION = r".,;:?'\"¡¿«»\u2010-\u205e\u3000-\u303f"
WORDS = re.compile(  # Han, kana and signs one by one
    rf"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+|[^\w\s{PUNCTUATION}]"
)
SHORTEST_PARAGRAPH = 40  # characters; "Yes." and "Chapter 2" are no copies
PIECE = 10_000  # shingles hashed at once: 5 MB
HELD_AT_ONCE = 20_000_000  # shingles of held-out documents in one index: 160 MB


def check_datasketch() -> None:
    """Refuse near duplicates where the library is not installed."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise UsageError(
            "datasketch is not installed", "it, to find near duplicates", "run pip install 'tinygpt_hf[data]', "
            "or --near_duplicates off"
        ) from None  # fmt: skip


def text_hash(text: str) -> int:
    """8 bytes that stand for a text: among 100 million texts, two share them by chance once in 3,700 times."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def paragraph_hashes(paragraphs: list[str]) -> list[tuple[int, int]]:
    """(hash, characters) of the paragraphs long enough to be copies of each other."""
    return [(text_hash(part), len(part)) for part in paragraphs if len(part) >= SHORTEST_PARAGRAPH]


def shingles_of(text: str) -> np.ndarray:
    """The set of all 5 words in a row, upper and lower case alike, as sorted 32-bit hashes (S,); fewer words are one shingle."""
    words = WORDS.findall(text.lower()) or [text]
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    hashes = (zlib.crc32(" ".join(words[k : k + SHINGLE_WORDS]).encode()) for k in range(count))
    return np.unique(np.fromiter(hashes, np.uint32, count))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared shingles / all shingles of two documents."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


class Signatures:
    """MinHash signatures (128,) uint32 with fixed permutations: the same in every process and on every machine."""

    def __init__(self):
        from datasketch import MinHash

        self._empty = MinHash(PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")

    def of(self, shingles: np.ndarray) -> np.ndarray:
        minhash = self._empty.copy()
        for start in range(0, len(shingles), PIECE):
            minhash.update_batch(shingles[start : start + PIECE])
        return minhash.hashvalues

    def wrapped(self, signature: np.ndarray):
        """The signature as datasketch's own object."""
        minhash = self._empty.copy()
        minhash.hashvalues = signature
        return minhash


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows) with the longest rows, so the fewest idle proposals, that propose a pair at the threshold surely enough."""
    for rows in range(PERMUTATIONS // 2, 0, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1


class NearDuplicates:
    """The documents added so far, and which of them a new one nearly equals. `folder` takes the file of shingles."""

    def __init__(self, threshold: float, folder: Path):
        from datasketch import MinHashLSH

        self.threshold = threshold
        self._signatures = Signatures()
        self._index = MinHashLSH(threshold, PERMUTATIONS, params=bands(threshold))
        self._known: list[bytes] = []
        self._ends = [0]
        self._file = open(folder / "shingles", "w+b")

    def __len__(self) -> int:
        return len(self._known)

    def matches(self, shingles: np.ndarray, signature: np.ndarray) -> Iterator[tuple[int, float]]:
        """(number of a document added before, its similarity), likeliest first; only those at or above the threshold."""
        numbers = self._index.query(self._signatures.wrapped(signature))
        likely = [
            (float(np.mean(np.frombuffer(self._known[number], np.uint32) == signature)), number) for number in numbers
        ]
        for estimate, number in sorted(likely, key=lambda pair: (-pair[0], pair[1])):
            if estimate < self.threshold - MARGIN:
                return
            if (similarity := jaccard(shingles, self._shingles(number))) >= self.threshold:
                yield number, similarity

    def add(self, shingles: np.ndarray, signature: np.ndarray) -> int:
        """Take a document in; returns its number."""
        number = len(self._known)
        self._index.insert(number, self._signatures.wrapped(signature))
        self._known.append(signature.tobytes())
        self._file.seek(0, 2)
        self._file.write(shingles.tobytes())
        self._ends.append(self._ends[-1] + len(shingles))
        return number

    def across(self, held_out: Sequence[int], others: Sequence[int]) -> dict[int, tuple[int, float]]:
        """Each of `others` that nearly equals a held-out document -> (number of the first such, similarity); all are compared."""
        found: dict[int, tuple[int, float]] = {}
        for postings in self._postings(held_out):
            for number in others:
                if number not in found and (match := self._first_match(self._shingles(number), postings)):
                    found[number] = match
        return found

    def _postings(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Inverted indexes of some documents each: shingle and number in one uint64, sorted (P,)."""
        start = 0
        while start < len(numbers):
            stop, size = start, 0
            while stop < len(numbers) and (stop == start or size + self._size(numbers[stop]) <= HELD_AT_ONCE):
                size += self._size(numbers[stop])
                stop += 1
            postings, end = np.empty(size, np.uint64), 0
            for number in numbers[start:stop]:
                begin, end = end, end + self._size(number)
                postings[begin:end] = self._shingles(number).astype(np.uint64) << 32 | number
            postings.sort()
            yield postings
            start = stop

    def _first_match(self, shingles: np.ndarray, postings: np.ndarray) -> tuple[int, float] | None:
        """A match shares at least `least` shingles, hence one of any size - least + 1: the rarest, so few are compared
        (prefix filtering: Bayardo, Ma and Srikant 2007)."""
        least = math.ceil(self.threshold * len(shingles) - 1e-6)
        low = shingles.astype(np.uint64) << 32
        begin, end = np.searchsorted(postings, low), np.searchsorted(postings, low | 0xFFFFFFFF, "right")
        rarest = np.argsort(end - begin, kind="stable")[: len(shingles) - least + 1]
        rarest = rarest[end[rarest] > begin[rarest]]
        if not len(rarest):
            return None
        for number in np.unique(np.concatenate([postings[begin[k] : end[k]] for k in rarest]) & 0xFFFFFFFF).tolist():
            if least <= self._size(number) and (
                (similarity := jaccard(shingles, self._shingles(number))) >= self.threshold
            ):
                return number, similarity
        return None

    def _size(self, number: int) -> int:
        return self._ends[number + 1] - self._ends[number]

    def _shingles(self, number: int) -> np.ndarray:
        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(4 * start)
        return np.frombuffer(self._file.read(4 * (end - start)), np.uint32)

    def close(self) -> None:
        self._file.close()


class Paragraphs:
    """Paragraphs of all documents so far."""

    def __init__(self):
        self._seen: set[int] = set()

    def seen_share(self, hashes: list[tuple[int, int]], characters: int) -> float:
        """Share of a document's characters in paragraphs of earlier documents."""
        return sum(length for key, length in hashes if key in self._seen) / max(characters, 1)

    def add(self, hashes: list[tuple[int, int]]) -> None:
        self._seen.update(key for key, _ in hashes)
