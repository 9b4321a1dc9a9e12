"""Measure grammar as the field does: of two sentences that differ in one fault, which does a model find likelier?

    pairs = read_pairs("blimp/anaphor_gender_agreement.jsonl")
    measured = minimal_pairs(model, tokenizer, pairs)
    measured["accuracy"], measured["by_paradigm"]["anaphor_gender_agreement"]

A pair is a mapping with `sentence_good`, `sentence_bad` and `UID`, the name of its paradigm, as in BLiMP (Warstadt et al. 2020).
A sentence's score is the sum of its tokens' log-probabilities after a start token: the tokenizer's bos, else its eos, which
separates documents. The likelier sentence is chosen; a tie counts half, so chance is 0.5. `accuracy` is the mean over paradigms,
`low` and `high` its 95 % interval.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.intervals import share
from tinygpt_hf.evaluation.metrics import IGNORED, MOST_LOGITS, token_scores
from tinygpt_hf.inference.generation import context_length
from tinygpt_hf.reading.formats import first_words, is_utf8

FIELDS = ("sentence_good", "sentence_bad", "UID")
EXPECTED = '{"sentence_good": "...", "sentence_bad": "...", "UID": "..."}'
# Nats. Closer scores are a tie: float32 sums are rounded differently in batches of different sizes, by less than this.
TIE = 1e-3


def read_pairs(path: str | Path) -> list[dict[str, str]]:
    """Read a file of pairs, one JSON object per line; other fields are left out. A line that is no pair is a `UsageError`."""
    return read_lines(path, checked_pair, EXPECTED, "pairs")


def read_lines(path: str | Path, checked: Callable[[dict, str], Any], expected: str, what: str = "items") -> list:
    """Read a file of JSON objects, one a line, each as `checked(object, where it stands)`; `expected`: what one looks like."""
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", expected, "check it") from None
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where} is no JSON ({first_words(error)})", expected, "fix or remove it") from None
        if not isinstance(row, dict):
            raise UsageError(f"{where} holds a {type(row).__name__}", expected, "fix or remove it")
        found.append(checked(row, where))
    if not found:
        raise UsageError(f"{path} holds no {what}", expected, "check the file")
    return found


def checked_pair(row: dict, where: str) -> dict[str, str]:
    """Return the fields of a pair; a row that lacks one is a `UsageError`."""
    return {field: text_of(row, field, where, EXPECTED) for field in FIELDS}


def text_of(row: dict, field: str, where: str, expected: str) -> str:
    """Return a field of a row that must hold text."""
    text = row.get(field)
    if not isinstance(text, str) or not text.strip() or not is_utf8(text):
        raise UsageError(f"{where} has no text in {field}", expected, "fix or remove it")
    return text


def minimal_pairs(model, tokenizer, pairs: Sequence[dict[str, str]], batch_size: int = 64) -> dict:
    """Measure a causal language model: {"accuracy", "low", "high", "pairs", "by_paradigm": {UID: accuracy}}; NaN without a pair."""
    judged = outcomes(model, tokenizer, pairs, batch_size)
    return by_group([pair["UID"] for pair in pairs], judged) | {"pairs": len(pairs)}


def by_group(groups: Sequence[str], judged: Sequence[float]) -> dict:
    """Return the accuracy of outcomes, a mean over groups, with its interval and that of each group."""
    outcomes_of: dict[str, list[float]] = {}
    for name, outcome in zip(groups, judged, strict=True):
        outcomes_of.setdefault(name, []).append(outcome)
    accuracy, low, high = share(outcomes_of)
    by_paradigm = {name: sum(results) / len(results) for name, results in sorted(outcomes_of.items())}
    return {"accuracy": accuracy, "low": low, "high": high, "by_paradigm": by_paradigm}


def outcomes(model, tokenizer, pairs: Sequence[dict[str, str]], batch_size: int = 64) -> list[float]:
    """Judge each pair: 1.0 where the good sentence is likelier, 0.0 where the bad one is, 0.5 for a tie."""
    both = [(pair["sentence_good"], pair["sentence_bad"]) for pair in pairs]
    return first_is_likeliest(model, tokenizer, both, batch_size)


def first_is_likeliest(model, tokenizer, choices: Sequence[tuple[str, ...]], batch_size: int = 64) -> list[float]:
    """Judge texts to choose from, of which the first is right: 1.0 where it is the likeliest, its part where several are."""
    scores = sentence_scores(model, tokenizer, [text for texts in choices for text in texts], batch_size)
    judged = []
    for texts in choices:
        least = max(scores[text] for text in texts) - TIE
        best = [scores[text] > least for text in texts]
        judged.append(best[0] / sum(best))
    return judged


def sentence_scores(model, tokenizer, sentences: Iterable[str], batch_size: int = 64) -> dict[str, float]:
    """Score each distinct sentence: the sum of its tokens' log-probabilities after the start token, in nats.

    Sentences of the same number of tokens share a batch, so nothing is padded. Of one longer than the model's context, each later
    token is predicted from at least half a context. The model is used in the mode it is in.
    """
    start, room, vocabulary = start_token(tokenizer), context_length(model), model.config.get_text_config().vocab_size
    scores = dict.fromkeys(sentences, 0.0)
    by_length: dict[int, list[tuple[str, list[int], list[int]]]] = {}
    for sentence in scores:
        ids = tokenizer(sentence, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for inputs, targets in _windows([start, *ids[:-1]], ids, room or len(ids)):
            by_length.setdefault(len(inputs), []).append((sentence, inputs, targets))
    by_length.pop(0, None)  # a sentence without tokens keeps its 0
    for length, group in by_length.items():
        rows = max(1, min(batch_size, MOST_LOGITS // (length * vocabulary)))
        for first in range(0, len(group), rows):
            named, inputs, targets = zip(*group[first : first + rows], strict=True)
            nats, _, _ = token_scores(model, inputs, targets)  # (B, T)
            for sentence, total in zip(named, nats.double().sum(1).tolist(), strict=True):
                scores[sentence] -= total
    return scores


def _windows(inputs: list[int], targets: list[int], room: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut a sentence into windows of at most `room` tokens that predict each target once."""
    yield inputs[:room], targets[:room]
    for begin in range(room, len(inputs), max(1, room // 2)):
        end = min(begin + max(1, room // 2), len(inputs))
        yield inputs[end - room : end], [IGNORED] * (room - (end - begin)) + targets[begin:end]


def start_token(tokenizer) -> int:
    """Return the token that stands before a text: bos, else eos."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise UsageError("the tokenizer has no bos and no eos token", "a token to begin with", "name one of them")
