"""Take an even sample of a text of unknown length, in one pass and bounded memory.

sample = EvenSample(100_000_000)
sample.add("a document")                  # for each document
sample.texts                              # at most 100 MB, spread evenly from the first document to the last
"""

from collections.abc import Iterable

PIECE_CHARACTERS = 1 << 14  # longer texts are sampled in pieces, in proportion to their length


class EvenSample:
    """An even sample of at most `max_bytes`.

    It keeps every piece until the budget is full, then every second piece, every fourth, and so on. Long texts are divided
    into many pieces, so that none can fill the budget.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._length = max(1, min(PIECE_CHARACTERS, max_bytes // 256))
        self._kept: list[tuple[int, int, str]] = []  # piece number, its first character in its document, the piece
        self._size, self._step, self._number = 0, 1, 0

    @property
    def is_full(self) -> bool:
        return self._step > 1 or self._size >= self.max_bytes

    @property
    def texts(self) -> list[str]:
        """Return the sampled pieces, in order."""
        return [piece for _, _, piece in self._kept]

    @property
    def seen(self) -> int:
        """Return the approximate number of bytes added so far."""
        return self._size * self._step

    def add(self, text: str, place: int = 0) -> None:
        """Add a text, or the part of one that begins at character `place`."""
        for start in range(0, len(text), self._length):
            if self._number % self._step == 0:
                piece = text[start : start + self._length]
                self._kept.append((self._number, place + start, piece))
                self._size += len(piece.encode())
                self._thin()
            self._number += 1

    def add_pieces(self, pieces: Iterable[str]) -> int:
        """Add one long text; returns the number of its first piece, for `cut`."""
        begun, place = self._number, 0
        for piece in pieces:
            self.add(piece, place)
            place += len(piece)
        return begun

    def cut(self, begun: int, border: int) -> None:
        """Drop all but the first `border` characters of the last text, which starts at piece `begun`."""
        last = [(number, place, piece) for number, place, piece in self._kept if number >= begun]
        self._kept = self._kept[: len(self._kept) - len(last)]
        self._kept += [(n, place, piece[: border - place]) for n, place, piece in last if place < border]
        self._number = max([begun, *(number + 1 for number, place, _ in last if place < border)])
        self._size = sum(len(piece.encode()) for _, _, piece in self._kept)

    def _thin(self) -> None:
        while self._size > self.max_bytes and len(self._kept) > 1:
            self._step *= 2
            self._kept = [kept for kept in self._kept if kept[0] % self._step == 0]
            self._size = sum(len(piece.encode()) for _, _, piece in self._kept)
