"""Measure memorization: the share of 32-character sequences in generated text that occur in the training text.

    counts = copies(texts, held_out, tokenizer, rows / "train")
    counts["copied"] / counts["sequences"]                      # compare with "held_out_copied" / "held_out_sequences"
    counts["longest"], counts["longest_span"]                   # the longest copied span of one text

Runs of white space count as one space. 32 characters are about six English words. Held-out text shows how many sequences
recur by chance. The training text is decoded from its rows piece by piece, in bounded memory; beyond ten million tokens,
evenly spaced pieces are searched.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.generation import complete_all, context_length
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.rows.store import Rows

LENGTH = 32
MAX_TOKENS = 10_000_000
PIECE_TOKENS = 1 << 18
PER_CHARACTER = 4  # tokens per character, at most
MAX_OVERLAP = 1 << 16  # tokens by which pieces overlap; a longer span may be found in two parts
SAMPLES, NEW_TOKENS = 64, 128
HELD_OUT_CHARACTERS = 20_000
SEPARATOR = "\uffff"  # a noncharacter put between documents, so that no sequence crosses them


def copies(texts: list[str], held_out: list[str], tokenizer, rows: Path) -> dict:
    """Count the sequences of texts, and how many of them occur in the training rows in the folder `rows`.

    `short` counts the texts below 32 characters, which are searched as a whole. `longest` is the length of
    `longest_span`, the longest part of one of `texts` found in the rows; 0 if no sequence is.
    """
    short = {text for text in map(_clean, texts) if 0 < len(text) < LENGTH}
    sequences = {"": _sequences(texts), "held_out_": _sequences(held_out)}
    unique = {sequence for every in sequences.values() for sequence in every}
    copied, span, searched = _search(unique, short, list(map(_clean, texts)), tokenizer, rows)
    counts = {"length": LENGTH, "tokens": Rows(rows).num_tokens, "longest": len(span), "longest_span": span}
    counts |= {"searched_tokens": searched, "short": len(short), "short_copied": len(short & copied)}
    for name, every in sequences.items():
        counts |= {f"{name}sequences": len(every), f"{name}copied": sum(sequence in copied for sequence in every)}
    return counts


def check_rows(folder: Path) -> None:
    """Raise a `UsageError` unless the folder is a run with its training rows."""
    if not any((folder / "rows" / part).is_dir() for part in ("train", "validation")):
        problem = f"{folder} holds no training rows to look for copies in"
        raise UsageError(problem, "a run folder with rows/", "leave --memorization out")


def memorized(model, tokenizer, folder: Path) -> dict:
    """Count the sequences that a run's model copies from its training rows when it continues held-out openings.

    Only the continuations count. They are sampled with temperature 0.8, top-k 50 and a fixed seed.
    """
    train, held_out = (first_rows(folder / "rows" / part) for part in ("train", "validation"))
    openings, length = Rows(held_out), (context_length(model) or 1 << 30)
    prompts = [openings.opening(k).tolist() for k in range(min(SAMPLES, openings.num_documents))]
    sampling, longest = Sampling(temperature=0.8, top_k=50), min(NEW_TOKENS, length)
    samples = complete_all(model, tokenizer, prompts, sampling, max_new_tokens=longest, seed=0)
    return copies(samples, opening_texts(tokenizer, held_out), tokenizer, train) | {"samples": len(samples)}


def first_rows(rows: Path) -> Path:
    """Return the folder of the rows; for a stream, its first remaining window."""
    return min(rows.glob("window-*"), default=rows)


def opening_texts(tokenizer, rows: Path, characters: int = HELD_OUT_CHARACTERS) -> list[str]:
    """Decode the first `characters` of a row folder, split into documents."""
    _, piece = next(_pieces(tokenizer, Rows(rows)), (0, ""))
    return piece[:characters].split(SEPARATOR)


def _sequences(texts: list[str]) -> list[str]:
    return [text[k : k + LENGTH] for text in map(_clean, texts) for k in range(len(text) - LENGTH + 1)]


def _clean(text: str) -> str:
    return " ".join(text.replace(SEPARATOR, "").split())


def _search(sequences: set[str], short: set[str], texts: list[str], tokenizer, rows: Path) -> tuple[set[str], str, int]:
    """Return (`sequences` and `short` texts found in the rows, the longest span of `texts` found, tokens searched).

    Any sequence covers an aligned block of half its length. So the search compares sequences only around aligned blocks
    that occur in some sequence.
    """
    half, copied, longest, searched = LENGTH // 2, set[str](), "", 0
    blocks = {sequence[k : k + half] for sequence in sequences for k in range(half + 1)}
    begins: dict[str, list[tuple[str, int]]] = {}  # sequence -> its positions (text, offset) in `texts`
    for sample in dict.fromkeys(texts):
        for k in range(len(sample) - LENGTH + 1):
            begins.setdefault(sample[k : k + LENGTH], []).append((sample, k))
    overlap = min(PER_CHARACTER * max([LENGTH, *map(len, texts)]), MAX_OVERLAP)
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
                    for sample, at in begins.get(sequence, ()):
                        longest = _longer(longest, sample, at, text, k)
    return copied, longest.strip(), searched


def _longer(longest: str, sample: str, at: int, text: str, k: int) -> str:
    """Return the common span that begins in `sample` at `at` and in `text` at `k` if it is longer than `longest`."""
    size = len(longest) + 1
    if sample[at : at + size] != text[k : k + size] or at + size > len(sample):
        return longest
    while at + size < len(sample) and k + size < len(text) and sample[at + size] == text[k + size]:
        size += 1
    return sample[at : at + size]


def _pieces(tokenizer, rows: Rows, overlap: int = 0) -> Iterator[tuple[int, str]]:
    """Yield (tokens, text) of evenly spaced pieces of the rows, with SEPARATOR between documents."""
    for begin in range(0, rows.num_tokens, PIECE_TOKENS * max(1, -(-rows.num_tokens // MAX_TOKENS))):
        end = min(begin + PIECE_TOKENS + overlap, rows.num_tokens)
        borders = rows.documents_between(begin, end) - begin
        parts = np.split(rows.between(begin, end), borders[borders > 0])
        size = min(PIECE_TOKENS, rows.num_tokens - begin)
        yield size, SEPARATOR.join(tokenizer.batch_decode(parts, skip_special_tokens=True))
