"""Find documents that repeat earlier ones: full texts and paragraphs by hash, near duplicates by MinHash and LSH (datasketch).

    near = NearDuplicates(0.75, folder)
    near.matches(shingles, signature)            # [(3, 0.91)]: Jaccard similarity 0.91 with document 3
    near.add(shingles, signature)                # stores it as document 4
    near.across([0, 3], [1, 2, 4])               # {4: (3, 0.91)}: those of 1, 2, 4 that nearly equal 0 or 3

Two documents are near duplicates if the Jaccard similarity of their shingles (Broder 1997) is at least the threshold. A
shingle is 5 words in a row, as in FineWeb. LSH proposes candidate pairs (Indyk and Motwani 1998): a pair exactly at the
threshold with probability 0.99 or more, a more similar pair with a higher one. Candidates are compared exactly, so there are
no false positives. `across` uses an inverted index and misses no pair, so that no near duplicate crosses the split.

Symbols count as words, since `3 < 4` differs from `3 > 4`. Punctuation does not, since editions of a text differ in it.

Memory: about 0.1 kB per document and paragraph hash; about 10 kB per document for near duplicates (signature and LSH tables).
Shingles are kept in a file, 4 bytes each. `across` holds 8 bytes per held-out shingle, at most 160 MB and a document.
"""

import hashlib
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.tokenizing.process_map import grouped

SHINGLE_WORDS = 5
PERMUTATIONS = 128
RECALL = 0.99  # for a pair exactly at the threshold
MARGIN = 4 * (0.25 / PERMUTATIONS) ** 0.5  # four standard deviations of an estimated similarity, at most
PUNCTUATION = r".,;:?'\"¡¿«»\u2010-\u205e\u3000-\u303f"
WORDS = re.compile(  # each Han character, kana and symbol is one word
    rf"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+|[^\w\s{PUNCTUATION}]"
)
SHORTEST_PARAGRAPH = 40  # characters; shorter paragraphs such as "Yes." or "Chapter 2" are not compared
PIECE = 10_000  # shingles hashed at once: 5 MB
HELD_AT_ONCE = 20_000_000  # shingles of held-out documents in one index: 160 MB


def check_datasketch() -> None:
    """Raise UsageError if datasketch is not installed."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise UsageError(
            "datasketch is not installed", "it, to find near duplicates", "run pip install 'tinygpt_hf[data]', "
            "or --near_duplicates off"
        ) from None  # fmt: skip


def text_hash(text: str) -> int:
    """Hash a text to 8 bytes: among 100 million texts, two collide with probability 1 in 3,700."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def paragraph_hashes(paragraphs: list[str]) -> list[tuple[int, int]]:
    """Return (hash, characters) of each paragraph that is long enough to be compared."""
    return [(text_hash(part), len(part)) for part in paragraphs if len(part) >= SHORTEST_PARAGRAPH]


def shingles_of(text: str) -> np.ndarray:
    """Return the set of 5-word shingles, ignoring case, as sorted 32-bit hashes (S,); fewer words are one shingle."""
    words = WORDS.findall(text.lower()) or [text]
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    hashes = (zlib.crc32(" ".join(words[k : k + SHINGLE_WORDS]).encode()) for k in range(count))
    return np.unique(np.fromiter(hashes, np.uint32, count))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the Jaccard similarity of two sets of shingles."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


class Signatures:
    """A maker of MinHash signatures, (128,) uint32, equal in every process and on every machine."""

    def __init__(self):
        from datasketch import MinHash

        self._empty = MinHash(PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")

    def of(self, shingles: np.ndarray) -> np.ndarray:
        minhash = self._empty.copy()
        for start in range(0, len(shingles), PIECE):
            minhash.update_batch(shingles[start : start + PIECE])
        return minhash.hashvalues

    def wrapped(self, signature: np.ndarray):
        """Return the signature as a datasketch MinHash."""
        minhash = self._empty.copy()
        minhash.hashvalues = signature
        return minhash


def bands(threshold: float) -> tuple[int, int]:
    """Choose (bands, rows) of LSH with as many rows as RECALL at the threshold allows, for the fewest false candidates."""
    for rows in range(PERMUTATIONS // 2, 0, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1


class NearDuplicates:
    """An index of documents that finds near duplicates; its shingles are kept in a file in `folder`."""

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
        """Yield (number of an earlier document, similarity) at or above the threshold, highest estimate first."""
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
        """Add a document and return its number."""
        number = len(self._known)
        self._index.insert(number, self._signatures.wrapped(signature))
        self._known.append(signature.tobytes())
        self._file.seek(0, 2)
        self._file.write(shingles.tobytes())
        self._ends.append(self._ends[-1] + len(shingles))
        return number

    def across(self, held_out: Sequence[int], others: Sequence[int]) -> dict[int, tuple[int, float]]:
        """Map each of `others` that nearly equals a held-out document to (the first such document, similarity).

        Exact: no pair is missed.
        """
        matches: dict[int, tuple[int, float]] = {}
        for postings in self._postings(held_out):
            for number in others:
                if number not in matches and (match := self._first_match(self._shingles(number), postings)):
                    matches[number] = match
        return matches

    def _postings(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield inverted indexes of some documents each: (P,) sorted uint64 of shingle and document number."""
        for group in grouped(numbers, self._size, HELD_AT_ONCE):
            postings, end = np.empty(sum(map(self._size, group)), np.uint64), 0
            for number in group:
                begin, end = end, end + self._size(number)
                postings[begin:end] = self._shingles(number).astype(np.uint64) << 32 | number
            postings.sort()
            yield postings

    def _first_match(self, shingles: np.ndarray, postings: np.ndarray) -> tuple[int, float] | None:
        """Return (number, similarity) of the first document in the index at or above the threshold, or None.

        A match shares at least `least` shingles, so it contains one of any size - least + 1 of them. Looking up the rarest
        ones gives the fewest candidates (prefix filtering: Bayardo, Ma and Srikant 2007).
        """
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
