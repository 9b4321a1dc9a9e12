"""Grade a short answer to a question from the texts alone."""

import re
from collections.abc import Sequence

WORDS = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")


def is_right(answer: str, reference: str, accept: Sequence[str], question: str) -> bool:
    """Tell whether `answer` says what `reference` says, perhaps in other words.

    Right is the reference itself; else an answer that holds one of the key phrases `accept`, and whose other words all
    come from the reference or the question: a right word beside a wrong one is wrong.
    """
    said, expected = _words(answer), _words(reference)
    text = f" {' '.join(said)} "
    holds_key = any(f" {' '.join(_words(phrase))} " in text for phrase in accept)
    return said == expected or (holds_key and {*said} <= {*expected, *_words(question)})


def _words(text: str) -> list[str]:
    """Split into words in lower case, without punctuation."""
    return WORDS.findall(text.lower())
