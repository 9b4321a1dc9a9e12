"""Test that the baselines are distributions, equal a direct computation, and do not use validation tokens."""

import math
from itertools import product

import numpy as np
import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.baselines import DISCOUNT, baselines, ngram_nats, xz_bits_per_byte


def test_hand_computed_numbers():
    # train a b a b a c (0 1 0 1 0 2), V = 4; validation a b c
    unigram, trigram = ngram_nats(np.array([0, 1, 0, 1, 0, 2]), np.array([0, 1, 2]), 4)
    shared = DISCOUNT * 3 / 4 / 6  # three kinds of token, six tokens
    p_b, p_c = (2 - DISCOUNT) / 6 + shared, (1 - DISCOUNT) / 6 + shared
    assert np.allclose(unigram, [-math.log(p_b), -math.log(p_c)])
    # after a: b twice, c once -> p(b|a); after b: only a, twice -> c by the rest alone
    p_b_a = (2 - DISCOUNT) / 3 + DISCOUNT * 2 / 3 * p_b
    p_c_b = DISCOUNT * 1 / 2 * p_c
    # the pair a b was followed by a, twice
    p_c_ab = DISCOUNT * 1 / 2 * p_c_b
    assert np.allclose(trigram, [-math.log(p_b_a), -math.log(p_c_ab)])


def test_every_context_gives_probabilities_that_sum_to_one():
    V, rng = 6, np.random.default_rng(0)
    train = rng.integers(0, V - 1, 200)  # the last token of the vocabulary is never seen
    for a, b in product(range(V), repeat=2):
        nats = [ngram_nats(train, np.array([a, b, c]), V) for c in range(V)]
        assert sum(math.exp(-unigram[1]) for unigram, _ in nats) == pytest.approx(1)
        assert sum(math.exp(-trigram[1]) for _, trigram in nats) == pytest.approx(1)
    bigrams = [ngram_nats(train, np.array([a, c]), V)[1][0] for c in range(V)]
    assert sum(math.exp(-nats) for nats in bigrams) == pytest.approx(1)


def test_uniform_and_bits_per_byte():
    uniform, unigram, trigram = baselines([0, 1, 2, 3] * 10, [0, 1, 2, 3, 0], vocab_size=8, num_bytes=12)
    assert uniform.loss == pytest.approx(math.log(8))
    assert uniform.bits_per_byte == pytest.approx(3 * 4 / 12)  # four tokens of 3 bits in 12 bytes
    assert uniform.perplexity == pytest.approx(8)
    assert (uniform.train_tokens, unigram.train_tokens, trigram.train_tokens) == (0, 40, 40)
    assert trigram.loss < unigram.loss < uniform.loss


def test_order_helps_where_there_is_order():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 50, 20_000)
    _, unigram, trigram = baselines(noise[:18_000], noise[18_000:], 50, 2_000)
    assert abs(unigram.loss - math.log(50)) < 0.02
    assert trigram.loss > unigram.loss - 0.02  # in noise a longer context is no gain
    pattern = np.arange(20_000) % 50
    assert baselines(pattern[:18_000], pattern[18_000:], 50, 2_000)[2].loss < 0.05


def test_a_vocabulary_of_128k_does_not_overflow():
    ids = np.array([131_000, 130_999, 131_000, 130_999, 131_000], dtype=np.uint32)
    assert all(math.isfinite(b.loss) for b in baselines(ids, ids, 131_072, 20))


def test_xz_looks_back_on_the_training_text():
    text = bytes(np.random.default_rng(0).integers(0, 256, 5_000, dtype=np.uint8))
    assert xz_bits_per_byte(text) == pytest.approx(8, abs=0.1)  # noise does not shrink
    assert xz_bits_per_byte(text, train=text) < 0.2  # but it was all there before
    assert xz_bits_per_byte(b"the same words again, " * 200) < 0.3


def test_too_little_text_is_named():
    with pytest.raises(UsageError, match=r"1 validation tokens \(expected at least 3 and 2"):
        baselines([1, 2, 3, 4], [1], 8, 1)
    with pytest.raises(UsageError, match="empty"):
        xz_bits_per_byte(b"")


def test_baselines_of_conversations_score_what_the_assistant_says():
    rng = np.random.default_rng(0)
    train, validation = rng.integers(0, 7, 500), rng.integers(0, 7, 60)
    scored = rng.random(60) < 0.3
    results = baselines(train, validation, 7, 100, scored)
    unigram, trigram = ngram_nats(train, validation, 7)
    expected = [math.log(7), unigram[scored[1:]].mean(), trigram[scored[1:]].mean()]
    assert [b.loss for b in results] == pytest.approx(expected)
    assert results[0].bits_per_byte == pytest.approx(math.log2(7) * scored[1:].sum() / 100)
