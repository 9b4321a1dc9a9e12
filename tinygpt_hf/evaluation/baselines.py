"""Compute baseline losses on the validation tokens: n-gram models and the xz compressor.

    for baseline in baselines(train_ids, validation_ids, vocab_size, num_bytes):
        baseline.name, baseline.loss, baseline.bits_per_byte          # uniform, unigram, trigram

The same tokens are scored as for the model's loss: all but the first, in conversations only the assistant's. The models
are distributions over the whole vocabulary, estimated on the training tokens:

    uniform    log V
    unigram    absolute discounting with D = 0.75, interpolated with uniform
    trigram    the same, interpolated with the bigram: max(n(abc) - D, 0) / n(ab) + D * kinds(ab.) / n(ab) * p(c|b)

`xz_bits_per_byte` compresses the text itself.
"""

import lzma
import math
from dataclasses import dataclass

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.metrics import bits_per_byte, mean_loss

DISCOUNT = 0.75  # the usual value of Ney, Essen and Kneser (1994); not tuned on the validation tokens
MOST_TRAIN_TOKENS = 20_000_000  # counting them takes a third of a gigabyte and some seconds; more change little
XZ_PREFIX = 1 << 22  # bytes of training text given to xz; each MB is compressed twice, at about a second each


@dataclass(frozen=True)
class Baseline:
    """A baseline's loss in nats per token and in bits per byte, and the number of training tokens counted."""

    name: str
    loss: float
    bits_per_byte: float
    train_tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


def baselines(train_ids, validation_ids, vocab_size: int, num_bytes: int, scored=None) -> list[Baseline]:
    """Compute the uniform, unigram and trigram baselines on flat arrays of token ids.

    `num_bytes` is the number of UTF-8 bytes of the predicted text. `scored` is a boolean mask of the validation tokens to
    score (default: all); the others still serve as context. Only the last `MOST_TRAIN_TOKENS` training tokens are counted.
    """
    train, validation = np.asarray(train_ids[-MOST_TRAIN_TOKENS:]), np.asarray(validation_ids)
    if len(validation) < 2 or len(train) < 3:
        problem = f"there are {len(train)} training and {len(validation)} validation tokens"
        raise UsageError(problem, "at least 3 and 2", "use more text")
    unigram, trigram = ngram_nats(train, validation, vocab_size)
    uniform = np.full(len(validation) - 1, math.log(vocab_size))
    chosen = slice(None) if scored is None else np.asarray(scored, dtype=bool)[1:]
    results = []
    for name, nats, counted in (
        ("uniform", uniform, 0),
        ("unigram", unigram, len(train)),
        ("trigram", trigram, len(train)),
    ):
        total = float(nats[chosen].sum())
        loss = mean_loss(total, nats[chosen].size)
        results.append(Baseline(name, loss, bits_per_byte(total, num_bytes), counted))
    return results


def ngram_nats(train: np.ndarray, validation: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute -ln p (N - 1,) of all validation tokens but the first, under the unigram and the trigram model of `train`.

    The second token has only one token of context, so the bigram model scores it.
    """
    V = vocab_size
    counts = np.bincount(train, minlength=V)
    kinds = np.count_nonzero(counts)
    p1 = (np.maximum(counts - DISCOUNT, 0) + DISCOUNT * kinds / V) / len(train)  # (V,)
    unigram = p1[validation[1:]]
    bigram = _interpolate(_ngrams(train, 2, V), _ngrams(validation, 2, V), unigram, V)
    trigram = bigram.copy()
    trigram[1:] = _interpolate(_ngrams(train, 3, V), _ngrams(validation, 3, V), bigram[1:], V)
    return -np.log(unigram), -np.log(trigram)


def _ngrams(ids: np.ndarray, n: int, V: int) -> np.ndarray:
    """Encode the n-grams of a text as numbers in base V, so that the context of an n-gram is its number // V."""
    count = len(ids) - n + 1
    numbers = ids[:count].astype(np.int64)
    for k in range(1, n):
        numbers *= V
        numbers += ids[k : k + count]
    return numbers


def _interpolate(train: np.ndarray, queries: np.ndarray, lower: np.ndarray, V: int) -> np.ndarray:
    """Compute p(last token | context) of n-grams by absolute discounting, interpolated with the lower order `lower`.

    The n-grams `train` are sorted in place. An unseen context gets `lower`.
    """
    train.sort()
    starts = np.flatnonzero(np.concatenate(([True], train[1:] != train[:-1])))
    grams, counts = train[starts], np.diff(starts, append=len(train))
    contexts, first, kinds = np.unique(grams // V, return_index=True, return_counts=True)
    n = _look_up(queries, grams, counts)
    total = _look_up(queries // V, contexts, np.add.reduceat(counts, first))
    divisor = np.maximum(total, 1)
    weight = DISCOUNT * _look_up(queries // V, contexts, kinds) / divisor
    return np.where(total > 0, np.maximum(n - DISCOUNT, 0) / divisor + weight * lower, lower)


def _look_up(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values of sorted keys; 0 for missing ones."""
    index = np.searchsorted(keys, queries).clip(max=len(keys) - 1)
    return np.where(keys[index] == queries, values[index], 0)


def xz_bits_per_byte(validation: bytes, train: bytes = b"") -> float:
    """Compute the bits per byte of the validation text under xz.

    With `train` (its last 4 MiB are used), this is the growth of the compressed training text when the validation text is
    appended. Without, the validation text is compressed alone.
    """
    if not validation:
        raise UsageError("the validation text is empty", "some text", "use more text")
    train = train[-XZ_PREFIX:]
    added = _xz_size(train + validation) - (_xz_size(train) if train else 0)
    return added * 8 / len(validation)


def _xz_size(data: bytes) -> int:
    """Return the size under `xz -6` without container, with a dictionary as large as the data."""
    dictionary = max(1 << 16, 1 << (len(data) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": min(dictionary, 1 << 27)}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))
