"""Compare the counts of copied sequences with a plain search, and test the sampling of long texts."""

from pathlib import Path

import numpy as np
import pytest

from tinygpt_hf.evaluation import memorization
from tinygpt_hf.evaluation.memorization import LENGTH, copies
from tinygpt_hf.rows.store import RowWriter


class Letters:
    """A tokenizer whose ids are characters."""

    def batch_decode(self, batch, skip_special_tokens):
        return ["".join(map(chr, ids)) for ids in batch]


def letter_rows(folder: Path, documents: list[str]) -> Path:
    with RowWriter(folder, 1 << 20) as writer:
        for document in documents:
            writer.add([ord(c) for c in document])
    return folder


def plain_search(texts: list[str], documents: list[str]) -> tuple[int, int]:
    """Count (sequences, those in the documents) by plain search."""
    clean = [" ".join(document.split()) for document in documents]
    every = [" ".join(t.split())[k : k + LENGTH] for t in texts for k in range(len(" ".join(t.split())) - LENGTH + 1)]
    return len(every), sum(any(sequence in document for document in clean) for sequence in every)


def longest_common(texts: list[str], documents: list[str]) -> str:
    """Find the longest part of a text that occurs in a document, by plain search."""
    clean, best = [" ".join(document.split()) for document in documents], ""
    for text in (" ".join(text.split()) for text in texts):
        for k in range(len(text)):
            while k + len(best) < len(text) and any(text[k : k + len(best) + 1] in document for document in clean):
                best = text[k : k + len(best) + 1]
    return best.strip()


@pytest.mark.parametrize("piece", [1 << 18, 100])
def test_copies_are_those_a_plain_search_finds(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(memorization, "PIECE_TOKENS", piece)
    rng = np.random.default_rng(1)
    words = ["sun", "moon", "Straße", "日本", "🙂", "a", "e\u0301", "tree\n", "\t"]
    documents = [" ".join(rng.choice(words, 120)) for _ in range(6)]
    texts = [
        documents[2][50:150] + " never said before by anybody at all",
        documents[0][-20:] + documents[1][:20],
        "short",
        documents[3][5:25],
    ]
    held = [documents[4][3:90].replace(" ", "\n  "), "nothing of this stands in the training text, really"]
    counts = copies(texts, held, Letters(), letter_rows(tmp_path / "rows", documents))
    assert (counts["sequences"], counts["copied"]) == plain_search(texts, documents)
    assert (counts["held_out_sequences"], counts["held_out_copied"]) == plain_search(held, documents)
    assert (counts["short"], counts["short_copied"]) == (2, 1)
    assert 0 < counts["copied"] < counts["sequences"]
    span = longest_common(texts, documents)
    assert (counts["longest"], counts["longest_span"]) == (len(span), span)
    assert counts["tokens"] == counts["searched_tokens"] == sum(map(len, documents))


@pytest.mark.parametrize("length", [31, 32, 33, 150, 700])
@pytest.mark.parametrize("piece", [1 << 18, 200])
def test_a_planted_span_is_found_at_its_full_length(tmp_path, monkeypatch, piece, length):
    monkeypatch.setattr(memorization, "PIECE_TOKENS", piece)
    letters = np.random.default_rng(length).integers(ord("a"), ord("z") + 1, (8, 1000))
    documents = ["".join(map(chr, row)) for row in letters]
    planted = documents[5][77 : 77 + length]
    texts = ["0123456789" * 7 + planted + "9876543210" * 7, documents[2][:40]]
    counts = copies(texts, [], Letters(), letter_rows(tmp_path / "rows", documents))
    expected = max(planted, texts[1], key=len)
    assert (counts["longest"], counts["longest_span"]) == (len(expected), expected)
    assert counts["copied"] == max(0, length - LENGTH + 1) + 9
    # what goes from one document into the next is no copy
    across = copies([documents[0][-30:] + documents[1][:30]], [], Letters(), tmp_path / "rows")
    assert (across["longest"], across["copied"]) == (0, 0)


def test_of_a_long_text_an_even_part_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(memorization, "PIECE_TOKENS", 1000)
    monkeypatch.setattr(memorization, "MAX_TOKENS", 4000)
    rows = letter_rows(tmp_path / "rows", [f"document number {k} says that {k * 7919} is a number" for k in range(400)])
    counts = copies(["document number 3 says that 23757 is a number"], [], Letters(), rows)
    assert 2000 < counts["searched_tokens"] <= 4000 < counts["tokens"]
