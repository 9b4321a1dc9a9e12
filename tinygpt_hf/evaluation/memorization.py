"""How much of what a model wrote it had read: the share of its sequences of 32 characters that stand in the training text.

    found = copies(texts, held_out, tokenizer, rows / "train")
    found["copied"] / found["sequences"]                        # beside it the same for held-out text

White space counts as one space. 32 characters are about six English words, mean the same for every tokenizer and script, and
shorter ones recur in any text; the share of held-out text tells how much recurs anyway. The training text is read from its rows
(`tokens.bin`, `documents.bin`) piece by piece, so memory is bounded; of more than ten million tokens an even part is searched.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_hf.rows.store import Rows

LENGTH = 32  # a power of two
MOST_TOKENS = 10_000_000
PIECE_TOKENS = 1 << 18
OVERLAP = 4 * LENGTH  # a character is four tokens at most
HELD_OUT_CHARACTERS = 20_000
BETWEEN = "\uffff"  # between two documents: no character, so no sequence crosses
_FACTOR = 0x9E3779B97F4A7C15  # odd: 2^64 over the golden ratio
_FILTER_BITS = 20


def copies(texts: list[str], held_out: list[str], tokenizer, rows: Path) -> dict[str, int]:
    """Counts of sequences, and of those among them that the training rows in the folder `rows` hold.

    `short`: the texts of fewer than 32 characters, searched whole.
    """
    short = {text for text in map(_clean, texts) if 0 < len(text) < LENGTH}
    sequences = {"": _sequences(texts), "held_out_": _sequences(held_out)}
    wanted = {sequence for found in sequences.values() for sequence in found}
    found, searched, tokens = _search(wanted, short, tokenizer, Rows(rows))
    counts = {"length": LENGTH, "tokens": tokens, "searched_tokens": searched}
    counts |= {"short": len(short), "short_copied": len(short & found)}
    for name, every in sequences.items():
        counts |= {f"{name}sequences": len(every), f"{name}copied": sum(sequence in found for sequence in every)}
    return counts


def opening_texts(tokenizer, rows: Path, characters: int = HELD_OUT_CHARACTERS) -> list[str]:
    """The first documents of a row folder as text."""
    piece = next(_pieces(tokenizer, Rows(rows), 1)[0], "")
    return piece[:characters].split(BETWEEN)


def _sequences(texts: list[str]) -> list[str]:
    return [text[k : k + LENGTH] for text in map(_clean, texts) for k in range(len(text) - LENGTH + 1)]


def _clean(text: str) -> str:
    return " ".join(text.replace(BETWEEN, "").split())


def _search(wanted: set[str], short: set[str], tokenizer, rows: Rows) -> tuple[set[str], int, int]:
    """(those of `wanted` and `short` that stand in the rows, tokens searched, tokens there are)."""
    tokens = rows.num_tokens
    if not wanted | short:
        return set(), 0, tokens
    hashes = np.unique(_hashes("".join(sorted(wanted)))[::LENGTH])
    passes = np.zeros(1 << _FILTER_BITS, dtype=bool)  # most hashes of the text end here
    passes[hashes >> np.uint64(64 - _FILTER_BITS)] = True
    every = -(-tokens // MOST_TOKENS)
    found, searched = set(), 0
    pieces, sizes = _pieces(tokenizer, rows, every)
    for piece, size in zip(pieces, sizes, strict=True):
        text = " ".join(piece.split())
        searched += size
        found |= {one for one in short - found if one in text}
        if len(text) < LENGTH:
            continue
        seen = _hashes(text)
        places = np.flatnonzero(passes[seen >> np.uint64(64 - _FILTER_BITS)])
        places = places[np.isin(seen[places], hashes)]
        _, first = np.unique(seen[places], return_index=True)
        found |= {text[place : place + LENGTH] for place in places[first].tolist()} & wanted
    return found, searched, tokens


def _hashes(text: str) -> np.ndarray:
    """A 64-bit hash of each sequence of LENGTH characters, (len(text) - LENGTH + 1,): of twice the length at every turn."""
    value = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    length, factor = 1, _FACTOR
    while length < LENGTH:
        value = value[:-length] * np.uint64(factor) + value[length:]  # wraps around
        length, factor = 2 * length, factor * factor % 2**64
    return (value ^ value >> np.uint64(29)) * np.uint64(_FACTOR)  # the filter looks at the upper bits


def _pieces(tokenizer, rows: Rows, every: int) -> tuple[Iterator[str], list[int]]:
    """Every `every`-th piece of the rows as text, documents divided by BETWEEN; and the tokens of each."""
    begins = range(0, rows.num_tokens, PIECE_TOKENS * every)

    def read() -> Iterator[str]:
        for begin in begins:
            end = min(begin + PIECE_TOKENS + OVERLAP, rows.num_tokens)
            borders = rows.documents_between(begin, end) - begin
            parts = [part.tolist() for part in np.split(rows.between(begin, end), borders[borders > 0])]
            yield BETWEEN.join(tokenizer.batch_decode(parts, skip_special_tokens=True))

    return read(), [min(PIECE_TOKENS, rows.num_tokens - begin) for begin in begins]
