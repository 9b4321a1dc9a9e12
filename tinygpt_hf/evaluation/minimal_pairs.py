"""Measure grammar as the field does: of two sentences that differ in one fault, which does a model find likelier?

    pairs = read_pairs("blimp/anaphor_gender_agreement.jsonl")
    measured = minimal_pairs(model, tokenizer, pairs)
    measured["accuracy"], measured["by_paradigm"]["anaphor_gender_agreement"]

A pair is a mapping with `sentence_good`, `sentence_bad` and `UID`, the name of its paradigm, as in BLiMP (Warstadt et al. 2020).
A sentence's score is the sum of its tokens' log-probabilities after a start token: the tokenizer's bos, else its eos, which
separates documents. The likelier sentence is chosen; a tie counts half, so chance is 0.5. `accuracy` is the mean over paradigms.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.metrics import MOST_LOGITS, token_scores
from tinygpt_hf.inference.generation import context_length
from tinygpt_hf.reading.formats import first_words, is_utf8

FIELDS = ("sentence_good", "sentence_bad", "UID")
EXPECTED = '{"sentence_good": "...", "sentence_bad": "...", "UID": "..."}'
# Nats. Closer scores are a tie: float32 sums are rounded differently in batches of different sizes, by less than this.
TIE = 1e-3


def read_pairs(path: str | Path) -> list[dict[str, str]]:
    """Read a file of pairs, one JSON object per line; other fields are left out. A line that is no pair is a `UsageError`."""
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", "minimal pairs", "check it") from None
    pairs = [_pair(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise UsageError(f"{path} holds no pairs", EXPECTED, "check the file")
    return pairs


def _pair(line: bytes, where: str) -> dict[str, str]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON ({first_words(error)})", EXPECTED, "fix or remove it") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where} holds a {type(row).__name__}", EXPECTED, "fix or remove it")
    for field in FIELDS:
        text = row.get(field)
        if not isinstance(text, str) or not text.strip() or not is_utf8(text):
            raise UsageError(f"{where} has no text in {field}", EXPECTED, "fix or remove it")
    return {field: row[field] for field in FIELDS}


def minimal_pairs(model, tokenizer, pairs: Sequence[dict[str, str]], batch_size: int = 64) -> dict:
    """Measure a causal language model: {"accuracy", "pairs", "by_paradigm": {UID: accuracy}}; NaN where there is no pair."""
    judged: dict[str, list[float]] = {}
    for pair, outcome in zip(pairs, outcomes(model, tokenizer, pairs, batch_size), strict=True):
        judged.setdefault(pair["UID"], []).append(outcome)
    by_paradigm = {name: sum(results) / len(results) for name, results in sorted(judged.items())}
    accuracy = sum(by_paradigm.values()) / len(by_paradigm) if by_paradigm else math.nan
    return {"accuracy": accuracy, "pairs": len(pairs), "by_paradigm": by_paradigm}


def outcomes(model, tokenizer, pairs: Sequence[dict[str, str]], batch_size: int = 64) -> list[float]:
    """Judge each pair: 1.0 where the good sentence is likelier, 0.0 where the bad one is, 0.5 for a tie."""
    both = [(pair["sentence_good"], pair["sentence_bad"]) for pair in pairs]
    scores = sentence_scores(model, tokenizer, [sentence for pair in both for sentence in pair], batch_size)
    differences = [scores[good] - scores[bad] for good, bad in both]
    return [0.5 if abs(difference) < TIE else float(difference > 0) for difference in differences]


def sentence_scores(model, tokenizer, sentences: Iterable[str], batch_size: int = 64) -> dict[str, float]:
    """Score each distinct sentence: the sum of its tokens' log-probabilities after the start token, in nats.

    Sentences of the same number of tokens share a batch, so nothing is padded. The model is used in the mode it is in.
    """
    start, room, vocabulary = _start_token(tokenizer), context_length(model), model.config.get_text_config().vocab_size
    scores = dict.fromkeys(sentences, 0.0)
    by_length: dict[int, list[tuple[str, list[int]]]] = {}
    for sentence in scores:
        ids = tokenizer(sentence, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if room and len(ids) > room:
            problem, expected = f"a sentence has {len(ids)} tokens", f"at most {room}, the model's context"
            raise UsageError(problem, expected, f"leave out the pair of: {sentence[:60]}")
        by_length.setdefault(len(ids), []).append((sentence, ids))
    by_length.pop(0, None)  # a sentence without tokens keeps its 0
    for length, group in by_length.items():
        rows = max(1, min(batch_size, MOST_LOGITS // (length * vocabulary)))
        for first in range(0, len(group), rows):
            batch = group[first : first + rows]
            targets = [ids for _, ids in batch]  # (B, T)
            nats, _, _ = token_scores(model, [[start, *ids[:-1]] for ids in targets], targets)  # (B, T)
            for (sentence, _), total in zip(batch, nats.double().sum(1).tolist(), strict=True):
                scores[sentence] = -total
    return scores


def _start_token(tokenizer) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise UsageError("the tokenizer has no bos and no eos token", "a token to begin with", "name one of them")
