"""The sample for a tokenizer: even, within its budget, and without the held-out tail of a text."""

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf.reading import sample
from tinygpt_hf.reading.sample import EvenSample


def sample_evenly(texts, max_bytes: int) -> list[str]:
    taken = EvenSample(max_bytes)
    for text in texts:
        taken.add(text)
    return taken.texts


def test_everything_is_kept_while_it_fits():
    texts = [f"text {k} é\n" for k in range(500)]
    assert list(sample_evenly(iter(texts), sum(len(t.encode()) for t in texts))) == texts


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=60), budget=st.integers(300, 20_000))
def test_the_sample_is_large_enough_and_fits(lengths, budget):
    texts = ["é" * n for n in lengths]
    total, kept = 2 * sum(lengths), sum(len(piece.encode()) for piece in sample_evenly(texts, budget))
    assert kept == total if total <= budget else kept <= budget
    if total > budget and len(set(lengths)) == 1:
        assert kept >= budget / 4


def test_the_sample_is_even_over_short_and_long_texts():
    short = [f"{k:05d}" for k in range(10_000)]
    numbers = [int(piece) for piece in sample_evenly(short, 5_000)]
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    assert len(steps) == 1 and len(numbers) * 5 > 2_500 and numbers[-1] > 10_000 - 2 * max(steps)

    long = [letter * 100_000 for letter in "abcd"]  # each alone is larger than the budget
    taken = "".join(sample_evenly(long, 20_000))
    shares = [taken.count(letter) / len(taken) for letter in "abcd"]
    assert 10_000 <= len(taken) <= 20_000 and all(abs(share - 0.25) < 0.02 for share in shares)


def test_the_memory_of_the_sample_is_bounded():
    held = []

    class Text(str):
        def __getitem__(self, part):
            piece = super().__getitem__(part)
            held.append(len(piece))
            return piece

    source = (Text("x" * 1000) for _ in range(5000))
    assert sum(map(len, sample_evenly(source, 50_000))) <= 50_000
    assert max(held) <= 1000

    tracemalloc.start()
    for _ in sample_evenly(("x" * 1000 + str(k) for k in range(20_000)), 100_000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # for 20 MB of text


def test_a_text_longer_than_a_piece_is_sampled_in_pieces():
    assert [len(p) for p in sample_evenly(["x" * (sample.PIECE_CHARACTERS + 5)], 10**9)] == [sample.PIECE_CHARACTERS, 5]


@pytest.mark.parametrize("border", [0, 1, 30, 99, 100])
def test_a_text_is_cut_after_it_was_read(border, monkeypatch):
    monkeypatch.setattr(sample, "PIECE_CHARACTERS", 7)
    text = "".join(chr(97 + k % 26) for k in range(100))
    taken, wanted = EvenSample(10**6), EvenSample(10**6)
    for each in (taken, wanted):
        each.add("before it")
    taken.cut(taken.add_pieces(text[k : k + 21] for k in range(0, 100, 21)), border)
    wanted.add(text[:border])
    for each in (taken, wanted):
        each.add("behind it")
    assert taken.texts == wanted.texts
