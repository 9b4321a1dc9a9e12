"""Evaluate a model on minimal pairs: a good sentence should be likelier than a minimally different bad one.

    pairs = read_pairs("blimp/anaphor_gender_agreement.jsonl")
    results = minimal_pairs(model, tokenizer, pairs)
    results["accuracy"], results["by_paradigm"]["anaphor_gender_agreement"]

Pairs have BLiMP's format (Warstadt et al. 2020): `sentence_good`, `sentence_bad` and `UID`, the name of the paradigm. A
sentence's score is its log-probability after a start token: the tokenizer's bos, else its eos. A tie counts half, so
chance is 0.5. `accuracy` is the mean over paradigms, `low` and `high` its 95 % interval.
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
BATCH = 64  # rows
TIE = 1e-3  # nats; scores that differ by less are a tie, since float32 rounding depends on the batch size
Row = tuple[list[int], list[int]]  # the inputs, and for each its target or -100


def read_pairs(path: str | Path) -> list[dict[str, str]]:
    """Read pairs from a file with one JSON object per line; raise a `UsageError` for an invalid line."""
    return read_lines(path, parse_pair, EXPECTED, "pairs")


def read_lines(path: str | Path, parse: Callable[[dict, str], Any], expected: str, what: str = "items") -> list:
    """Read a file with one JSON object per line, and return `parse(object, location)` of each.

    Raises a `UsageError` that shows `expected`, an example of a line, if the file or a line is invalid.
    """
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", expected, "check it") from None
    items = []
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
        items.append(parse(row, where))
    if not items:
        raise UsageError(f"{path} holds no {what}", expected, "check the file")
    return items


def parse_pair(row: dict, where: str) -> dict[str, str]:
    """Return the fields of a pair; raise a `UsageError` if one is missing."""
    return {field: text_of(row, field, where, EXPECTED) for field in FIELDS}


def text_of(row: dict, field: str, where: str, expected: str) -> str:
    """Return a text field of a row; raise a `UsageError` if it is missing, blank or not valid UTF-8."""
    text = row.get(field)
    if not isinstance(text, str) or not text.strip() or not is_utf8(text):
        raise UsageError(f"{where} has no text in {field}", expected, "fix or remove it")
    return text


def minimal_pairs(model, tokenizer, pairs: Sequence[dict[str, str]]) -> dict:
    """Return {"accuracy", "low", "high", "pairs", "by_paradigm": {UID: accuracy}} of a causal language model.

    The numbers are NaN without pairs.
    """
    choices = [(pair["sentence_good"], pair["sentence_bad"]) for pair in pairs]
    results = choice_outcomes(model, tokenizer, choices)
    return by_group([pair["UID"] for pair in pairs], results) | {"pairs": len(pairs)}


def by_group(groups: Sequence[str], outcomes: Sequence[float]) -> dict:
    """Return the mean over groups of the groups' accuracies, its 95 % interval, and the accuracy of each group."""
    outcomes_of: dict[str, list[float]] = {}
    for name, outcome in zip(groups, outcomes, strict=True):
        outcomes_of.setdefault(name, []).append(outcome)
    accuracy, low, high = share(outcomes_of)
    by_paradigm = {name: sum(results) / len(results) for name, results in sorted(outcomes_of.items())}
    return {"accuracy": accuracy, "low": low, "high": high, "by_paradigm": by_paradigm}


def choice_outcomes(model, tokenizer, choices: Sequence[tuple[str, ...]], batch_size: int = BATCH) -> list[float]:
    """Return 1.0 for each tuple of texts whose first is the likeliest, else 0.0; 1/n if it ties with n - 1 others."""
    scores = sentence_scores(model, tokenizer, [text for texts in choices for text in texts], batch_size)
    results = []
    for texts in choices:
        threshold = max(scores[text] for text in texts) - TIE
        is_best = [scores[text] > threshold for text in texts]
        results.append(is_best[0] / sum(is_best))
    return results


def sentence_scores(model, tokenizer, sentences: Iterable[str], batch_size: int = BATCH) -> dict[str, float]:
    """Return the log-probability in nats of each distinct sentence after the start token.

    In a sentence longer than the model's context, later tokens have at least half a context before them. Call `model.eval()`
    first.
    """
    start, room = start_token(tokenizer), context_length(model)
    scores = dict.fromkeys(sentences, 0.0)
    named, rows = [], []
    for sentence in scores:
        ids = tokenizer(sentence, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for row in _windows([start, *ids[:-1]], ids, room or len(ids)) if ids else ():
            named.append(sentence)
            rows.append(row)
    for k, nats, _ in row_scores(model, rows, batch_size):
        scores[named[k]] -= nats
    return scores


def row_scores(model, rows: Sequence[Row], batch_size: int = BATCH) -> Iterator[tuple[int, float, bool]]:
    """Yield (number, nats, whether each of its targets is the likeliest token) of rows, in any order.

    A batch holds rows of equal length, so nothing is padded.
    """
    vocabulary = model.config.get_text_config().vocab_size
    by_length: dict[int, list[int]] = {}
    for number, (inputs, _) in enumerate(rows):
        by_length.setdefault(len(inputs), []).append(number)
    for length, numbers in by_length.items():
        size = max(1, min(batch_size, MOST_LOGITS // (length * vocabulary)))
        for batch in (numbers[first : first + size] for first in range(0, len(numbers), size)):
            nats, predicted, labels = token_scores(model, *zip(*(rows[k] for k in batch), strict=True))  # (B, T)
            is_right = ((predicted == labels) | (labels == IGNORED)).all(1)
            yield from zip(batch, nats.double().sum(1).tolist(), is_right.tolist(), strict=True)


def _windows(inputs: list[int], targets: list[int], room: int) -> Iterator[Row]:
    """Split a sentence into windows of at most `room` tokens that predict each target once."""
    yield inputs[:room], targets[:room]
    for begin in range(room, len(inputs), max(1, room // 2)):
        end = min(begin + max(1, room // 2), len(inputs))
        yield inputs[end - room : end], [IGNORED] * (room - (end - begin)) + targets[begin:end]


def start_token(tokenizer) -> int:
    """Return the start token: bos, else eos. Raises a `UsageError` if the tokenizer has neither."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise UsageError("the tokenizer has no bos and no eos token", "a token to begin with", "name one of them")
