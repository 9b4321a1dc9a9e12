"""Near duplicates against brute force over all pairs, compared as sets of words."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf.curation import deduplication
from tinygpt_hf.curation.deduplication import MARGIN, NearDuplicates, Signatures, bands, jaccard, shingles_of

WORDS = [f"word{k}" for k in range(390)] + [*"<>=+-*/%&!"]


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    """Compute shingles by definition: all sequences of 5 words, where a symbol is a word."""
    words = re.findall(r"\w+|[<>=+*/%&!-]", text.lower())
    return {tuple(words[k : k + 5]) for k in range(max(1, len(words) - 4))}


def plain_jaccard(one: str, other: str) -> float:
    a, b = plain_shingles(one), plain_shingles(other)
    return len(a & b) / len(a | b)


def kept_by_code(texts: list[str], threshold: float, folder) -> list[int]:
    near, signatures, kept = NearDuplicates(threshold, folder), Signatures(), []
    for number, text in enumerate(texts):
        shingles = shingles_of(text)
        signature = signatures.of(shingles)
        if next(near.matches(shingles, signature), None) is None:
            near.add(shingles, signature)
            kept.append(number)
    near.close()
    return kept


def kept_by_brute_force(texts: list[str], threshold: float) -> list[int]:
    kept: list[int] = []
    for number, text in enumerate(texts):
        if all(plain_jaccard(text, texts[k]) < threshold for k in kept):
            kept.append(number)
    return kept


def corpus_of_copies(seed: int, originals: int = 40) -> list[str]:
    """Generate texts and copies with some words changed, with similarities from 0 to 1."""
    rng, texts = random.Random(seed), []
    for _ in range(originals):
        words = rng.choices(WORDS, k=rng.randint(30, 150))
        texts.append(" ".join(words))
        for _ in range(rng.randint(0, 3)):
            copy = list(words)
            for _ in range(rng.randint(0, 6)):
                copy[rng.randrange(len(copy))] = rng.choice(WORDS)
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize(("threshold", "seed"), [(0.5, 0), (0.5, 1), (0.75, 0), (0.75, 1), (0.9, 2), (1.0, 3)])
def test_the_same_documents_stay_as_by_brute_force(threshold, seed, tmp_path):
    texts = corpus_of_copies(seed)
    expected = kept_by_brute_force(texts, threshold)
    assert 0 < len(expected) < len(texts), "the corpus holds near duplicates"
    assert kept_by_code(texts, threshold, tmp_path) == expected


@settings(max_examples=100)
@given(one=st.lists(st.sampled_from(WORDS[:12]), min_size=1), other=st.lists(st.sampled_from(WORDS[:12]), min_size=1))
def test_jaccard_of_hashed_shingles_is_that_of_the_words(one, other):
    a, b = " ".join(one), " ".join(other)
    assert jaccard(shingles_of(a), shingles_of(b)) == pytest.approx(plain_jaccard(a, b))


def test_shingles_by_hand():
    assert len(shingles_of("one two three four five six seven")) == 3
    assert len(shingles_of("one two")) == 1
    assert np.array_equal(shingles_of("One, “two”; THREE – four five?"), shingles_of("one two three four five"))
    assert len(shingles_of("从前有座山山里")) == 3, "Han characters are words"
    assert len({tuple(shingles_of(f"Is 3 {sign} 4 true? Yes.")) for sign in "<>=+-*/%^&|!"}) == 12, "signs are words"
    assert len(shingles_of("+++")) == 1 and not np.array_equal(shingles_of("+++"), shingles_of("---"))


def test_a_signature_estimates_the_similarity():
    one = corpus_of_copies(1)[0].split()
    other = [*one[: len(one) // 2], *random.Random(2).choices(WORDS, k=len(one) // 2)]
    signatures, a, b = Signatures(), shingles_of(" ".join(one)), shingles_of(" ".join(other))
    assert abs(float(np.mean(signatures.of(a) == signatures.of(b))) - jaccard(a, b)) < MARGIN
    assert np.array_equal(signatures.of(a), Signatures().of(a)), "the same in every process"
    many = np.arange(25_000, dtype=np.uint32)  # are hashed in pieces
    assert np.array_equal(signatures.of(many), np.minimum(signatures.of(many[:9000]), signatures.of(many[9000:])))


def test_the_bands_reach_the_recall_at_the_threshold():
    for threshold in (0.3, 0.5, 0.75, 0.9, 1.0):
        number, rows = bands(threshold)
        assert number * rows <= 128 and 1 - (1 - threshold**rows) ** number >= 0.99


@pytest.mark.parametrize(("threshold", "at_once"), [(0.5, 10**6), (0.75, 300), (1.0, 1)])
def test_no_pair_across_a_split_is_missed(threshold, at_once, tmp_path, monkeypatch):
    """Independent of LSH and of the number of indexes, with a shingle that is in every second text."""
    monkeypatch.setattr(deduplication, "HELD_AT_ONCE", at_once)
    near, signatures, rng = NearDuplicates(threshold, tmp_path), Signatures(), random.Random(at_once)
    texts = [
        text + rng.choice(["", " you are a small friendly model"]) for text in corpus_of_copies(at_once, originals=25)
    ]
    texts += [f"{text} more" for text in texts[:5]] + texts[5:15]
    for text in texts:
        near.add(shingles_of(text), signatures.of(shingles_of(text)))
    held_out = sorted(rng.sample(range(len(texts)), len(texts) // 3))
    others = [number for number in range(len(texts)) if number not in held_out]
    expected = {}
    for number in others:
        alike = {k: plain_jaccard(texts[number], texts[k]) for k in held_out}
        if first := [k for k, similarity in alike.items() if similarity >= threshold]:
            expected[number] = (first[0], pytest.approx(alike[first[0]]))
    assert expected and near.across(held_out, others) == expected
    assert near.across([], others) == near.across(held_out, []) == {}
    near.close()


def test_a_pair_exactly_at_the_threshold_is_found_across_a_split(tmp_path):
    """7 shingles each, 6 shared, 8 in all: 0.75, where LSH misses one pair in hundreds."""
    near, signature = NearDuplicates(0.75, tmp_path), np.zeros(128, np.uint32)
    rng, pairs = np.random.default_rng(0), 3000
    for _ in range(pairs):
        shared = rng.integers(0, 2**32, 6, dtype=np.uint32)
        for own in rng.integers(0, 2**32, 2, dtype=np.uint32):
            near.add(np.unique([*shared, own]).astype(np.uint32), signature)
    assert near.across(range(0, 2 * pairs, 2), range(1, 2 * pairs, 2)) == {
        2 * k + 1: (2 * k, 0.75) for k in range(pairs)
    }
    near.close()
