"""Grade short answers to questions by comparing words."""

import re
from collections.abc import Sequence

WORDS = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")


def is_right(answer: str, reference: str, accept: Sequence[str], question: str) -> bool:
    """Tell whether `answer` means the same as `reference`.

    It does if its words equal the reference's. It also does if it contains one of the key phrases `accept` and all its
    other words come from the reference or the question.
    """
    words, expected = _words(answer), _words(reference)
    text = f" {' '.join(words)} "
    has_key = any(f" {' '.join(_words(phrase))} " in text for phrase in accept)
    return words == expected or (has_key and {*words} <= {*expected, *_words(question)})


def _words(text: str) -> list[str]:
    return WORDS.findall(text.lower())
