"""What a loss is worth: the same validation tokens scored by models a page of counting makes, and by a file compressor.

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
MOST_TRAIN_TOKENS = 20_000_000  # counting them takes some gigabytes and half a minute; more change little
XZ_PREFIX = 1 << 22  # bytes of training text xz may look back on; it takes about a second per MB, twice


@dataclass(frozen=True)
class Baseline:
    """Nats per token, the bits per byte they amount to, and how many training tokens were counted."""

    name: str
    loss: float
    bits_per_byte: float
    train_tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


def baselines(train_ids, validation_ids, vocab_size: int, num_bytes: int, scored=None) -> list[Baseline]:
    """Uniform, unigram and trigram over flat arrays of token ids; `num_bytes` are the UTF-8 bytes of what is predicted.

    `scored`: whether each validation token counts, as bools; None where all do. All are context either way. Of more than
    20 million training tokens the last are counted.
    """
    train = np.asarray(train_ids[-MOST_TRAIN_TOKENS:]).astype(np.int64)
    validation = np.asarray(validation_ids).astype(np.int64)
    if len(validation) < 2 or len(train) < 3:
        seen = f"there are {len(train)} training and {len(validation)} validation tokens"
        raise UsageError(seen, "at least 3 and 2", "use more text")
    unigram, trigram = ngram_nats(train, validation, vocab_size)
    uniform = np.full(len(validation) - 1, math.log(vocab_size))
    found = []
    chosen = slice(None) if scored is None else np.asarray(scored, dtype=bool)[1:]
    scores = {"uniform": (uniform, 0), "unigram": (unigram, len(train)), "trigram": (trigram, len(train))}
    for name, (nats, counted) in scores.items():
        nats = nats[chosen]
        in_all = float(nats.sum())
        found.append(Baseline(name, mean_loss(in_all, nats.size), bits_per_byte(in_all, num_bytes), counted))
    return found


def ngram_nats(train: np.ndarray, validation: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """-ln p of every validation token but the first, (N - 1,) each, under the unigram and the trigram model of `train`.

    The second token has one token of context, so its trigram probability is the bigram's.
    """
    V = vocab_size
    counts = np.bincount(train, minlength=V)
    kinds = np.count_nonzero(counts)
    p1 = (np.maximum(counts - DISCOUNT, 0) + DISCOUNT * kinds / V) / len(train)  # (V,)

    targets, before = validation[1:], validation[:-1]  # (N-1,)
    unigram = p1[targets]
    bigram = _interpolated(train[:-1], train[1:], before, targets, unigram, V)
    # a context of two tokens is one number: its place among the pairs the training text has
    pairs, places = np.unique(train[:-1] * V + train[1:], return_inverse=True)
    asked = before[:-1] * V + targets[:-1]  # the pair before each target from the third token on
    place = np.searchsorted(pairs, asked).clip(max=len(pairs) - 1)
    place = np.where(pairs[place] == asked, place, len(pairs))  # one past the end: a pair never seen
    trigram = bigram.copy()
    trigram[1:] = _interpolated(places[:-1], train[2:], place, targets[1:], bigram[1:], V)
    return -np.log(unigram), -np.log(trigram)


def _interpolated(contexts, followers, asked_contexts, asked, lower, V) -> np.ndarray:
    """p(asked | asked_context) by absolute discounting of the counts (context, follower), interpolated with `lower`."""
    num_contexts = int(max(contexts.max(), asked_contexts.max(initial=0))) + 1
    seen, times = np.unique(contexts * V + followers, return_counts=True)
    of_context = np.bincount(contexts, minlength=num_contexts)  # n(context)
    kinds = np.bincount(seen // V, minlength=num_contexts)  # different followers of the context
    keys = asked_contexts * V + asked
    place = np.searchsorted(seen, keys).clip(max=len(seen) - 1)
    n = np.where(seen[place] == keys, times[place], 0)
    total = of_context[asked_contexts]
    known = np.maximum(total, 1)
    mixed = np.maximum(n - DISCOUNT, 0) / known + DISCOUNT * kinds[asked_contexts] / known * lower
    return np.where(total > 0, mixed, lower)  # a context never seen says nothing


def xz_bits_per_byte(validation: bytes, train: bytes = b"") -> float:
    """Bits per byte of the validation text under xz, which may look back on `train` (at most its last 4 MiB).

    With `train` it is what the validation text adds to the size of the compressed training text; without, the size of
    the validation text compressed alone.
    """
    if not validation:
        raise UsageError("the validation text is empty", "some text", "use more text")
    train = train[-XZ_PREFIX:]
    added = _xz_size(train + validation) - (_xz_size(train) if train else 0)
    return added * 8 / len(validation)


def _xz_size(data: bytes) -> int:
    """Size under the preset of `xz -6` with a dictionary that spans the data, without the container around it."""
    dictionary = max(1 << 16, 1 << (len(data) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": min(dictionary, 1 << 27)}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))
