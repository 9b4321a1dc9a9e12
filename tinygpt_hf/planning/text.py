"""What a text is to a plan: how much of it there is, how it falls into tokens, how hard it is to guess; from an even sample.

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
LEARNED, TESTED = 2_000_000, 200_000  # bytes of the sample that a trial vocabulary is learned from, and measured on
LARGEST_TRIAL = 1 << 13  # more needs more text than the trial has
EXCERPT, EXCERPT_VOCABULARY = 600_000, 1024  # bytes of the excerpt, and the tokens it is made of
FEWER_XZ = 0.09  # of fewer bytes, xz makes more bits each: by this power
ENDLESS = 10**12  # bytes of a stream whose end nobody knows


@dataclass(frozen=True)
class Text:
    """`num_bytes`: of the training part, UTF-8; `held_out`: of the rest; `repeated`: the share of the sample that is there twice;
    `bytes_per_token`: by the size of the vocabulary; `encoding`: seconds that a byte takes to tokenize; `in_pieces`: most texts
    are as long as books; `xz`: bits per byte of an excerpt under xz; `early`: those that a small model reaches in its first steps
    on the excerpt, as far as it came."""

    num_bytes: int
    held_out: int
    repeated: float
    bytes_per_token: dict[int, float]
    encoding: float
    in_pieces: bool = False
    xz: float = 0.0
    early: tuple[float, ...] = ()

    def tokens(self, vocabulary: int) -> int:
        """How many tokens the training part has."""
        return max(1, round(self.num_bytes / self.bytes_per_token[vocabulary]))


@dataclass(frozen=True)
class Excerpt:
    """A part of a text as token ids, whatever tokenizer it gets, to learn and to be tested on; `bytes_per_token`: of the latter;
    `xz`: bits per byte under xz, as if it had `EXCERPT` bytes."""

    learned: np.ndarray
    tested: np.ndarray
    vocab_size: int
    bytes_per_token: float
    xz: float


def survey(corpus: Corpus, settings: TokenizerArguments, max_bytes: int, tokenizer=None) -> tuple[Text, Excerpt]:
    """Look at a sample of the text, read once. `tokenizer`: the one that will be used, where it is there already."""
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
        }  # of a vocabulary that the trial is too small for, as books have it
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
    """The same of a text that is there as rows alone."""
    train, validation = rows.train, rows.validation
    per_token = max(train.num_bytes, 1) / train.num_tokens
    learned, tested = (
        tokenizer.decode(part.between(0, min(part.num_tokens, round(size / per_token))).tolist())
        for part, size in ((train, EXCERPT), (validation, TESTED))
    )
    text = Text(train.num_bytes, validation.num_bytes, 0.0, {len(tokenizer): per_token}, 0.0)
    return text, _excerpt([learned], [tested])


def _parts(texts: list[str]) -> tuple[list[str], list[str]]:
    """(texts worth about `LEARNED` bytes, taken evenly; others)."""
    every = max(1, sum(map(len, texts)) // LEARNED)
    return texts[::every], [text for number, text in enumerate(texts) if number % every]


def _beginning(texts: list[str], size: int) -> list[str]:
    """The first characters, so many in all."""
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
    """The tokenizer with the first `size` tokens: merges are learned one by one, so the first ones are those of a smaller one."""
    from tokenizers import Tokenizer

    facts = json.loads(trial.to_str())
    model = facts["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < size}
    model["merges"] = model["merges"][: max(0, size - SMALLEST_BPE)]
    return Tokenizer.from_str(json.dumps(facts))


def _excerpt(learned: list[str], tested: list[str]) -> Excerpt:
    """Take texts evenly, and cut them into tokens of their own: the same ones whatever the model's will be."""
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
    xz = xz_bits_per_byte(piece) * min(1.0, len(piece) / EXCERPT) ** FEWER_XZ
    return Excerpt(trained_on, tried_on, trial.get_vocab_size(), per_token, xz)
