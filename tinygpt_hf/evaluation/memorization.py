"""How much of what a model wrote it had read: the share of its sequences of 32 characters that stand in the training text.

    counts = copies(texts, held_out, tokenizer, rows / "train")
    counts["copied"] / counts["sequences"]                      # beside it the same for held-out text
    counts["longest"], counts["longest_span"]                   # what stands in one document, and in one text, at full length

White space counts as one space. 32 characters are about six English words, mean the same for every tokenizer and script, and
shorter ones recur in any text; the share of held-out text tells how much recurs anyway. The training text is read from its rows
(`tokens.bin`, `documents.bin`) piece by piece, so memory is bounded; of more than ten million tokens an even part is searched.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.generation import complete_all, context_length
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.rows.store import Rows

LENGTH = 32
MOST_TOKENS = 10_000_000
PIECE_TOKENS = 1 << 18
PER_CHARACTER = 4  # tokens, at most
LONGEST_OVERLAP = 1 << 16  # tokens by which pieces overlap: a longer span may be found in two parts
SAMPLES, NEW_TOKENS = 64, 128
HELD_OUT_CHARACTERS = 20_000
BETWEEN = "\uffff"  # between two documents: no character, so no sequence crosses


def copies(texts: list[str], held_out: list[str], tokenizer, rows: Path) -> dict:
    """Count sequences, and those among them that the training rows in the folder `rows` hold.

    `short`: the texts of fewer than 32 characters, searched as they are. `longest`: the characters of `longest_span`, the longest
    part of one of `texts` that stands in the rows; 0 where none of 32 does.
    """
    short = {text for text in map(_clean, texts) if 0 < len(text) < LENGTH}
    sequences = {"": _sequences(texts), "held_out_": _sequences(held_out)}
    wanted = {sequence for every in sequences.values() for sequence in every}
    copied, span, searched = _search(wanted, short, list(map(_clean, texts)), tokenizer, rows)
    counts = {"length": LENGTH, "tokens": Rows(rows).num_tokens, "longest": len(span), "longest_span": span}
    counts |= {"searched_tokens": searched, "short": len(short), "short_copied": len(short & copied)}
    for name, every in sequences.items():
        counts |= {f"{name}sequences": len(every), f"{name}copied": sum(sequence in copied for sequence in every)}
    return counts


def check_rows(folder: Path) -> None:
    """Refuse a model that is no run with its training rows beside it."""
    if not any((folder / "rows" / part).is_dir() for part in ("train", "validation")):
        problem = f"{folder} holds no training rows to look for copies in"
        raise UsageError(problem, "a run folder with rows/", "leave --memorization out")


def memorized(model, tokenizer, folder: Path) -> dict:
    """Count what samples of a run's model copy from its training rows: as it goes on from the beginnings of held-out documents.

    The beginnings are not counted. Sampled at temperature 0.8 among the 50 likeliest, the same every time.
    """
    train, held_out = (first_rows(folder / "rows" / part) for part in ("train", "validation"))
    openings, length = Rows(held_out), (context_length(model) or 1 << 30)
    prompts = [openings.opening(k).tolist() for k in range(min(SAMPLES, openings.num_documents))]
    made = complete_all(
        model, tokenizer, prompts, Sampling(temperature=0.8, top_k=50), max_new_tokens=min(NEW_TOKENS, length), seed=0
    )
    return copies(made, opening_texts(tokenizer, held_out), tokenizer, train) | {"samples": len(made)}


def first_rows(rows: Path) -> Path:
    """Find the rows in a folder; of a stream, in windows, the first that is kept."""
    return min(rows.glob("window-*"), default=rows)


def opening_texts(tokenizer, rows: Path, characters: int = HELD_OUT_CHARACTERS) -> list[str]:
    """Decode the first documents of a row folder."""
    _, piece = next(_pieces(tokenizer, Rows(rows)), (0, ""))
    return piece[:characters].split(BETWEEN)


def _sequences(texts: list[str]) -> list[str]:
    return [text[k : k + LENGTH] for text in map(_clean, texts) for k in range(len(text) - LENGTH + 1)]


def _clean(text: str) -> str:
    return " ".join(text.replace(BETWEEN, "").split())


def _search(sequences: set[str], short: set[str], texts: list[str], tokenizer, rows: Path) -> tuple[set[str], str, int]:
    """Return (those of `sequences` and `short` that stand in the rows, the longest span of `texts` that does, tokens searched).

    A sequence covers one of the text's blocks of half its length, wherever it begins: only around blocks that occur in
    some sequence is anything compared. Where a sequence of `texts` stands, a span longer than the longest yet may begin.
    """
    half, copied, longest, searched = LENGTH // 2, set[str](), "", 0
    blocks = {sequence[k : k + half] for sequence in sequences for k in range(half + 1)}
    begins: dict[str, list[tuple[str, int]]] = {}  # sequence -> where it stands in `texts`
    for said in dict.fromkeys(texts):
        for k in range(len(said) - LENGTH + 1):
            begins.setdefault(said[k : k + LENGTH], []).append((said, k))
    overlap = min(PER_CHARACTER * max([LENGTH, *map(len, texts)]), LONGEST_OVERLAP)
    for size, piece in _pieces(tokenizer, Rows(rows), overlap) if sequences or short else ():
        text = " ".join(piece.split())
        searched += size
        copied |= {one for one in short - copied if one in text}
        for begin in range(0, len(text), half):
            if text[begin : begin + half] not in blocks:
                continue
            for k in range(max(0, begin - half), begin + 1):
                if (sequence := text[k : k + LENGTH]) in sequences:
                    copied.add(sequence)
                    for said, at in begins.get(sequence, ()):
                        longest = _longer(longest, said, at, text, k)
    return copied, longest.strip(), searched


def _longer(longest: str, said: str, at: int, text: str, k: int) -> str:
    """Return the span that begins in `said` at `at` and in `text` at `k`, where it is longer than the longest yet."""
    size = len(longest) + 1
    if said[at : at + size] != text[k : k + size] or at + size > len(said):
        return longest
    while at + size < len(said) and k + size < len(text) and said[at + size] == text[k + size]:
        size += 1
    return said[at : at + size]


def _pieces(tokenizer, rows: Rows, overlap: int = 0) -> Iterator[tuple[int, str]]:
    """Yield (tokens, text) of pieces spread evenly over the rows, documents divided by BETWEEN."""
    for begin in range(0, rows.num_tokens, PIECE_TOKENS * max(1, -(-rows.num_tokens // MOST_TOKENS))):
        end = min(begin + PIECE_TOKENS + overlap, rows.num_tokens)
        borders = rows.documents_between(begin, end) - begin
        parts = [part.tolist() for part in np.split(rows.between(begin, end), borders[borders > 0])]
        size = min(PIECE_TOKENS, rows.num_tokens - begin)
        yield size, BETWEEN.join(tokenizer.batch_decode(parts, skip_special_tokens=True))
