"""Describe a text for the planner, from an even sample: its size, its tokens at several vocabularies, how hard it is to predict.

text = survey(corpus, TokenizerArguments(), 10_000_000)
text.tokens(2048)                    # of the training part, with a vocabulary of 2048
"""

import json
import time
from dataclasses import dataclass

import numpy as np

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.baselines import xz_bits_per_byte
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.sample import PIECE_CHARACTERS
from tinygpt_hf.rows.build import Prepared
from tinygpt_hf.settings.arguments import TokenizerArguments
from tinygpt_hf.settings.checks import SMALLEST_BPE
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

VOCABULARIES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LEARNED, TESTED = 2_000_000, 200_000  # bytes of the sample that a trial tokenizer is trained and measured on
LARGEST_TRIAL = 1 << 13  # a larger vocabulary needs more text than the trial has
EXCERPT, EXCERPT_VOCABULARY = 600_000, 1024  # bytes of the excerpt, and its vocabulary
LEAST_XZ = 0.1  # bits per byte; held-out text that was all there before needs none
FEWER_XZ = 0.05  # xz needs more bits per byte after a shorter text: exponent of the length
ENDLESS = 10**12  # bytes of a stream of unknown length


@dataclass(frozen=True)
class Text:
    """A text as the planner sees it.

    `num_bytes`: of the training part, UTF-8; `held_out`: bytes of the validation part; `repeated`: share of duplicates in the
    sample; `bytes_per_token`: by vocabulary size; `encoding`: seconds to tokenize a byte; `in_pieces`: documents are mostly as
    long as books; `xz`: bits per byte of held-out text when xz has read an excerpt of the training part; `early`: bits per byte
    of a small model after each of `scaling.EARLY_STEPS` that it reached in time.
    """

    num_bytes: int
    held_out: int
    repeated: float
    bytes_per_token: dict[int, float]
    encoding: float
    in_pieces: bool = False
    xz: float = 0.0
    early: tuple[float, ...] = ()

    def tokens(self, vocabulary: int) -> int:
        """Return the tokens of the training part."""
        return max(1, round(self.num_bytes / self.bytes_per_token[vocabulary]))


@dataclass(frozen=True)
class Excerpt:
    """An excerpt of a text as token ids of a tokenizer of its own, to train and to test a small model.

    `bytes_per_token`: of the tested part; `xz`: bits per byte of the tested part when xz has read the learned part, scaled to
    `EXCERPT` learned bytes.
    """

    learned: np.ndarray
    tested: np.ndarray
    vocab_size: int
    bytes_per_token: float
    xz: float


def survey(corpus: Corpus, settings: TokenizerArguments, max_bytes: int, tokenizer=None) -> tuple[Text, Excerpt]:
    """Read a sample of at most `max_bytes` once and describe it. `tokenizer`: the run's, if it exists already."""
    texts, held_out = corpus.sample(max_bytes)
    sampled = sum(len(text.encode()) for text in texts)
    if not sampled:
        raise UsageError("the text is empty", "text to train on", "name files that hold some")
    learned, rest = _parts(texts)
    tested = _beginning(held_out or rest or learned, TESTED)
    kind = settings.tokenizer_type or "bpe"
    if tokenizer is None and kind == "bpe":
        sizes = (settings.vocab_size,) if settings.vocab_size else VOCABULARIES
        largest = min(max(sizes), LARGEST_TRIAL)
        trial = train_tokenizer(learned, "bpe", largest, settings.min_frequency).backend_tokenizer
    else:
        tokenizer = tokenizer or train_tokenizer(learned, kind)
        sizes, trial = (len(tokenizer),), tokenizer.backend_tokenizer
    begun = time.perf_counter()
    whole = trial.get_vocab_size()
    per_token = {whole: _bytes_per_token(trial, tested)}
    encoding = (time.perf_counter() - begun) / sum(len(text.encode()) for text in tested)
    if len(sizes) > 1:
        per_token |= {size: _bytes_per_token(_smaller(trial, size), tested) for size in sizes if size < whole}
        per_token |= {
            size: per_token[whole] * (1 + 0.12 * np.log2(size / whole)) for size in sizes if size > whole == largest
        }  # vocabularies too large for the trial: extrapolated as measured on books
    unique = len({hash(text) for text in texts})
    size = max(corpus.training_bytes, corpus.size or ENDLESS) if corpus.data.streaming else corpus.training_bytes
    text = Text(
        size,
        sum(len(text.encode()) for text in held_out),
        1 - unique / len(texts),
        {size: float(value) for size, value in per_token.items()},
        encoding,
        sum(map(len, texts)) / len(texts) > PIECE_CHARACTERS / 2,
    )
    return text, _excerpt(learned, held_out or tested)


def survey_rows(rows: Prepared, tokenizer) -> tuple[Text, Excerpt]:
    """Describe a text of which only tokenized rows exist."""
    train, validation = rows.train, rows.validation
    per_token = max(train.num_bytes, 1) / train.num_tokens
    learned, tested = (
        tokenizer.decode(part.between(0, min(part.num_tokens, round(size / per_token))).tolist())
        for part, size in ((train, EXCERPT), (validation, TESTED))
    )
    text = Text(train.num_bytes, validation.num_bytes, 0.0, {len(tokenizer): per_token}, 0.0)
    return text, _excerpt([learned], [tested])


def _parts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Split into (an even selection of about `LEARNED` bytes, the rest)."""
    every = max(1, sum(map(len, texts)) // LEARNED)
    return texts[::every], [text for number, text in enumerate(texts) if number % every]


def _beginning(texts: list[str], size: int) -> list[str]:
    """Return the first `size` characters of all texts together."""
    taken: list[str] = []
    for text in texts:
        if size <= 0:
            break
        taken.append(text[:size])
        size -= len(text)
    return taken


def _bytes_per_token(trial, texts: list[str]) -> float:
    encoded = trial.encode_batch_fast(texts, add_special_tokens=False)
    return sum(len(text.encode()) for text in texts) / max(1, sum(map(len, encoded)))


def _smaller(trial, size: int):
    """Return the tokenizer cut to its first `size` tokens, which is what training a smaller one would give: merges are ordered."""
    from tokenizers import Tokenizer

    facts = json.loads(trial.to_str())
    model = facts["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < size}
    model["merges"] = model["merges"][: max(0, size - SMALLEST_BPE)]
    return Tokenizer.from_str(json.dumps(facts))


def _excerpt(learned: list[str], tested: list[str]) -> Excerpt:
    """Make an excerpt: texts taken evenly, tokenized by a tokenizer of their own, so it does not depend on the run's."""
    chosen = np.linspace(
        0, len(learned) - 1, max(1, min(len(learned), len(learned) * EXCERPT // sum(map(len, learned))))
    )
    learned = [learned[place] for place in chosen.astype(int)]
    trial = train_tokenizer(learned, "bpe", EXCERPT_VOCABULARY).backend_tokenizer

    def ids(texts: list[str]) -> np.ndarray:
        return np.array([token for part in trial.encode_batch_fast(texts) for token in part.ids], dtype=np.int64)

    trained_on, tried_on = ids(learned), ids(tested)
    per_token = sum(len(text.encode()) for text in tested) / max(1, len(tried_on))
    piece = "".join(learned).encode()
    xz = xz_bits_per_byte("".join(tested).encode()[:TESTED], piece) * min(1.0, len(piece) / EXCERPT) ** FEWER_XZ
    return Excerpt(trained_on, tried_on, trial.get_vocab_size(), per_token, max(LEAST_XZ, xz))
