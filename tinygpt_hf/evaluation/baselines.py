"""Score the validation tokens by counting models and by a file compressor, to tell what a loss is worth.

    for baseline in baselines(train_ids, validation_ids, vocab_size, num_bytes):
        baseline.name, baseline.loss, baseline.bits_per_byte          # uniform, unigram, trigram

Every token but the first is scored, as the model's loss is; in conversations only what the assistant says. All three are true
distributions over the whole vocabulary (no token has probability 0), fixed on the training tokens alone:

    uniform    log V
    unigram    absolute discounting D = 0.75 down to uniform: what is taken off the counts goes to all tokens alike
    trigram    the same step twice more: p(c|ab) = max(n(abc) - D, 0) / n(ab) + D * kinds(ab.) / n(ab) * p(c|b)

`xz_bits_per_byte` compresses the text itself.
"""

import lzma
import math
from dataclasses import dataclass

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.metrics import bits_per_byte, mean_loss

DISCOUNT = 0.75  # Ney, Essen and Kneser's usual value; nothing here is tuned on the validation tokens
MOST_TRAIN_TOKENS = 20_000_000  # counting them takes a third of a gigabyte and some seconds; more change little
XZ_PREFIX = 1 << 22  # bytes of training text xz may look back on; it takes about a second per MB, twice


@dataclass(frozen=True)
class Baseline:
    """Hold nats per token, the bits per byte they amount to, and how many training tokens were counted."""

    name: str
    loss: float
    bits_per_byte: float
    train_tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


def baselines(train_ids, validation_ids, vocab_size: int, num_bytes: int, scored=None) -> list[Baseline]:
    """Score uniform, unigram and trigram on flat arrays of token ids; `num_bytes` are the UTF-8 bytes predicted.

    `scored`: whether each validation token counts, as bools; None where all do. All are context either way. Of more than
    20 million training tokens the last are counted.
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
    """Compute -ln p of every validation token but the first, (N - 1,) each, under the unigram and trigram model of `train`.

    The second token has one token of context, so its trigram probability is the bigram's.
    """
    V = vocab_size
    counts = np.bincount(train, minlength=V)
    kinds = np.count_nonzero(counts)
    p1 = (np.maximum(counts - DISCOUNT, 0) + DISCOUNT * kinds / V) / len(train)  # (V,)
    unigram = p1[validation[1:]]
    bigram = _interpolated(_ngrams(train, 2, V), _ngrams(validation, 2, V), unigram, V)
    trigram = bigram.copy()
    trigram[1:] = _interpolated(_ngrams(train, 3, V), _ngrams(validation, 3, V), bigram[1:], V)
    return -np.log(unigram), -np.log(trigram)


def _ngrams(ids: np.ndarray, n: int, V: int) -> np.ndarray:
    """Number the n-grams of a text in base V: what stands before the last token of one is its number // V."""
    count = len(ids) - n + 1
    numbers = ids[:count].astype(np.int64)
    for k in range(1, n):
        numbers *= V
        numbers += ids[k : k + count]
    return numbers


def _interpolated(seen: np.ndarray, asked: np.ndarray, lower: np.ndarray, V: int) -> np.ndarray:
    """Compute p(last token | those before) of the n-grams `asked`, by absolute discounting of those `seen` (which are sorted in
    place), interpolated with `lower`."""
    seen.sort()
    starts = np.flatnonzero(np.concatenate(([True], seen[1:] != seen[:-1])))
    grams, times = seen[starts], np.diff(starts, append=len(seen))
    contexts, first, kinds = np.unique(grams // V, return_index=True, return_counts=True)
    n = _values_of(asked, grams, times)
    total = _values_of(asked // V, contexts, np.add.reduceat(times, first))
    known = np.maximum(total, 1)
    mixed = np.maximum(n - DISCOUNT, 0) / known + DISCOUNT * _values_of(asked // V, contexts, kinds) / known * lower
    return np.where(total > 0, mixed, lower)  # an unknown context says nothing


def _values_of(asked: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Look up the values of sorted keys; 0 for those that are not there."""
    index = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    return np.where(keys[index] == asked, values[index], 0)


def xz_bits_per_byte(validation: bytes, train: bytes = b"") -> float:
    """Compute bits per byte of the validation text under xz, which may look back on `train` (at most its last 4 MiB).

    With `train` it is what the validation text adds to the size of the compressed training text; without, the size of
    the validation text compressed alone.
    """
    if not validation:
        raise UsageError("the validation text is empty", "some text", "use more text")
    train = train[-XZ_PREFIX:]
    added = _xz_size(train + validation) - (_xz_size(train) if train else 0)
    return added * 8 / len(validation)


def _xz_size(data: bytes) -> int:
    """Measure the size under `xz -6` with a dictionary that spans the data, without the container around it."""
    dictionary = max(1 << 16, 1 << (len(data) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": min(dictionary, 1 << 27)}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))
