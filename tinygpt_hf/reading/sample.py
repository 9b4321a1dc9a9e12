"""An even sample of a text whose length nobody knows, in one pass and bounded memory.

sample = EvenSample(100_000_000)
sample.add("a document")                  # as often as there are documents
sample.texts                              # worth about so many bytes, from the first document to the latest
"""

from collections.abc import Iterable

PIECE_CHARACTERS = 1 << 14  # a longer text is sampled in pieces, so that it weighs what its length is


class EvenSample:
    """Keep every text until the budget is full, then every second one, every fourth, and so on: the kept ones always lie evenly
    from the first text to the latest. Long texts count as many short ones, so that none can fill the budget."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._length = max(1, min(PIECE_CHARACTERS, max_bytes // 256))
        self._kept: list[tuple[int, int, str]] = []  # number of the piece, its place in its document, the piece
        self._size, self._step, self._number = 0, 1, 0

    @property
    def is_full(self) -> bool:
        return self._step > 1 or self._size >= self.max_bytes

    @property
    def texts(self) -> list[str]:
        """What was kept, in order."""
        return [piece for _, _, piece in self._kept]

    @property
    def seen(self) -> int:
        """About how many bytes were taken in all: those kept lie evenly among them."""
        return self._size * self._step

    def add(self, text: str, place: int = 0) -> None:
        """Take a text, or the part of one that begins at character `place`."""
        for start in range(0, len(text), self._length):
            if self._number % self._step == 0:
                piece = text[start : start + self._length]
                self._kept.append((self._number, place + start, piece))
                self._size += len(piece.encode())
                self._thin()
            self._number += 1

    def add_pieces(self, pieces: Iterable[str]) -> int:
        """Take one long text; return the number that `cut` takes."""
        begun, place = self._number, 0
        for piece in pieces:
            self.add(piece, place)
            place += len(piece)
        return begun

    def cut(self, begun: int, border: int) -> None:
        """Of the text that was taken last, from piece `begun` on, only the first `border` characters count."""
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
