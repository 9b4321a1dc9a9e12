"""Is an answer right, and how much of what a model says did it read somewhere? Both from the texts alone."""

import re
from collections.abc import Iterable, Sequence

WORDS = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")
NGRAM = 8  # words: shorter sequences recur in any corpus of simple sentences


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORDS.findall(text.lower())


def is_right(answer: str, reference: str, accept: Sequence[str], question: str) -> bool:
    """Does `answer` say what `reference` says, perhaps in other words?

    Right is the reference itself; else an answer that holds one of the key phrases `accept`, and whose other words all
    come from the reference or the question: a right word beside a wrong one is wrong.
    """
    said = words_of(answer)
    if said == words_of(reference):
        return True
    allowed = {*words_of(reference), *words_of(question)}
    text = f" {' '.join(said)} "
    return any(f" {' '.join(words_of(phrase))} " in text for phrase in accept) and set(said) <= allowed


def ngrams(text: str, n: int = NGRAM) -> set[tuple[str, ...]]:
    """All sequences of n words of a text."""
    words = words_of(text)
    return {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}


def copy_rate(texts: Iterable[str], training_texts: Iterable[str], n: int = NGRAM) -> float:
    """The share of the texts' n-word sequences that stand word for word in the training texts."""
    wanted = [gram for text in texts for gram in ngrams(text, n)]
    missing = set(wanted)
    for text in training_texts:
        missing -= ngrams(text, n)
    return 1 - sum(gram in missing for gram in wanted) / len(wanted) if wanted else 0.0
