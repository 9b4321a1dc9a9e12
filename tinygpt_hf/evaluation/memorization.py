"""How much of what a model wrote it had read: the share of its sequences of 32 characters that stand in the training text.

    counts = copies(texts, held_out, tokenizer, rows / "train")
    counts["copied"] / counts["sequences"]                      # beside it the same for held-out text

White space counts as one space. 32 characters are about six English words, mean the same for every tokenizer and script, and
shorter ones recur in any text; the share of held-out text tells how much recurs anyway. The training text is read from its rows
(`tokens.bin`, `documents.bin`) piece by piece, so memory is bounded; of more than ten million tokens an even part is searched.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_hf import storage

LENGTH = 32
MOST_TOKENS = 10_000_000
PIECE_TOKENS = 1 << 18
OVERLAP = 4 * LENGTH  # a character is four tokens at most
HELD_OUT_CHARACTERS = 20_000
BETWEEN = "\uffff"  # between two documents: no character, so no sequence crosses


def copies(texts: list[str], held_out: list[str], tokenizer, rows: Path) -> dict[str, int]:
    """Count sequences, and those among them that the training rows in the folder `rows` hold.

    `short`: the texts of fewer than 32 characters, searched as they are.
    """
    short = {text for text in map(_clean, texts) if 0 < len(text) < LENGTH}
    sequences = {"": _sequences(texts), "held_out_": _sequences(held_out)}
    copied, searched = _search({sequence for every in sequences.values() for sequence in every}, short, tokenizer, rows)
    counts = {"length": LENGTH, "tokens": storage.read_json(rows / "manifest.json")["num_tokens"]}
    counts |= {"searched_tokens": searched, "short": len(short), "short_copied": len(short & copied)}
    for name, every in sequences.items():
        counts |= {f"{name}sequences": len(every), f"{name}copied": sum(sequence in copied for sequence in every)}
    return counts


def opening_texts(tokenizer, rows: Path, characters: int = HELD_OUT_CHARACTERS) -> list[str]:
    """Decode the first documents of a row folder."""
    _, piece = next(_pieces(tokenizer, rows), (0, ""))
    return piece[:characters].split(BETWEEN)


def _sequences(texts: list[str]) -> list[str]:
    return [text[k : k + LENGTH] for text in map(_clean, texts) for k in range(len(text) - LENGTH + 1)]


def _clean(text: str) -> str:
    return " ".join(text.replace(BETWEEN, "").split())


def _search(sequences: set[str], short: set[str], tokenizer, rows: Path) -> tuple[set[str], int]:
    """Return (those of `sequences` and `short` that stand in the rows, tokens searched).

    A sequence covers one of the text's blocks of half its length, wherever it begins: only around blocks that occur in
    some sequence is anything compared.
    """
    half, copied, searched = LENGTH // 2, set[str](), 0
    blocks = {sequence[k : k + half] for sequence in sequences for k in range(half + 1)}
    for size, piece in _pieces(tokenizer, rows) if sequences or short else ():
        text = " ".join(piece.split())
        searched += size
        copied |= {one for one in short - copied if one in text}
        for begin in range(0, len(text), half):
            if text[begin : begin + half] in blocks:
                around = range(max(0, begin - half), begin + 1)
                copied |= sequences.intersection(text[k : k + LENGTH] for k in around)
    return copied, searched


def _pieces(tokenizer, rows: Path) -> Iterator[tuple[int, str]]:
    """Yield (tokens, text) of pieces spread evenly over the rows, documents divided by BETWEEN."""
    dtype = np.dtype(storage.read_json(rows / "manifest.json")["dtype"])
    tokens = np.memmap(rows / "tokens.bin", dtype=dtype, mode="r")
    starts = np.memmap(rows / "documents.bin", dtype=np.uint64, mode="r")
    for begin in range(0, len(tokens), PIECE_TOKENS * -(-len(tokens) // MOST_TOKENS)):
        end = min(begin + PIECE_TOKENS + OVERLAP, len(tokens))
        first, last = np.searchsorted(starts, np.array([begin, end], dtype=np.uint64))
        borders = np.asarray(starts[first:last]).astype(np.int64) - begin
        parts = [part.tolist() for part in np.split(np.asarray(tokens[begin:end]), borders[borders > 0])]
        size = min(PIECE_TOKENS, len(tokens) - begin)
        yield size, BETWEEN.join(tokenizer.batch_decode(parts, skip_special_tokens=True))
