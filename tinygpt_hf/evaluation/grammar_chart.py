"""The ground the grammar stands on: words with every reading they have, and sets of places where a phrase can end.

A rule is a method `rule(i, ...)` that answers one integer: bit j is set when the phrase that starts at word i can end
before word j. Alternatives are OR, sequence is `self.over(ends_of_the_first, next_rule)`, and `@memo` keeps each answer
for the sentence, so the whole grammar is one chart filled from the top.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tinygpt_hf.evaluation import grammar_words as closed

Rule = Callable[..., Any]
_NO_FRAMES: frozenset[str] = frozenset()
_ENDS: dict[int, tuple[int, ...]] = {}


class Word:
    """One word of a sentence with every reading English and the lexicon give it."""

    __slots__ = (
        "text",
        "name",
        "sg",
        "pl",
        "mass",
        "adj",
        "er",
        "est",
        "adv",
        "place",
        "time",
        "deg",
        "interj",
        "verbs",
    )

    def __init__(self, text: str, tags: frozenset[str] = frozenset(), names: bool = True, common: bool = True):
        self.text = text
        self.name = names and (
            "name:m" in tags or "name:f" in tags or text in closed.KIN or text in closed.PROPER
        )  # fmt: skip
        self.sg, self.pl, self.mass = (common and tag in tags for tag in ("noun:sg", "noun:pl", "noun:mass"))
        self.adj = common and "adj" in tags and text not in closed.DETERMINERS and text not in closed.NUMBERS
        if text in closed.BARE_PLACES - {"work", "sea", "land"} and self.sg:
            self.mass = False  # "to bed", but not "under bed": the prepositional rule knows these
        self.sg |= common and text == "time"  # "a long time"
        self.mass |= common and text in closed.SEASONS  # "Winter is cold", "in summer"
        self.adj |= common and text == "well" and "adv" in tags  # "she was well again"
        self.er, self.est, self.adv = (common and tag in tags for tag in ("adj:er", "adj:est", "adv"))
        self.place, self.time, self.deg = (common and tag in tags for tag in ("adv:place", "adv:time", "adv:deg"))
        self.interj = common and ("interj" in tags or text in closed.INTERJECTIONS)
        self.verbs: dict[str, frozenset[str]] = {}
        if common and any(tag.startswith("verb:") for tag in tags):
            self.sg |= text in closed.DEEDS and "verb:base:" in " ".join(tags)
            self.pl |= text in ("hugs", "kisses", "dreams", "wishes", "walks", "rides", "drinks", "bites", "tricks")
        if common:
            frames: dict[str, set[str]] = {}
            for tag in tags:
                if tag.startswith("verb:"):
                    _, form, frame = tag.split(":")
                    quoting = frame == "clause" and text in closed.QUOTE_ONLY
                    frames.setdefault(form, set()).add("quote" if quoting else frame)
            for forms, more in closed.SPECIAL_VERBS:
                for form, spelled in zip(closed.FORMS, forms, strict=True):
                    if spelled == text and (form in frames or text in ("let", "lets", "letting")):
                        frames.setdefault(form, set()).update(more)
            if text == "going":
                frames.setdefault("ing", set()).add("to")
            for form in frames.keys() - {"base"}:
                frames[form].discard("go-and")  # "go and see", but "went and see" is wrong
            self.verbs = {form: frozenset(some) for form, some in frames.items()}


END = Word("")


def ends(mask: int) -> tuple[int, ...]:
    """The places in a set of ends: ends(0b1010) == (1, 3)."""
    found = _ENDS.get(mask)
    if found is None:
        found = _ENDS[mask] = tuple(j for j in range(mask.bit_length()) if mask >> j & 1)
    return found


def memo(rule: Callable) -> Callable:
    """Answer each question of one sentence once."""
    name = rule.__name__

    def remembered(self, *args):
        table = self.table
        key = (name, args)
        if key in table:
            return table[key]
        table[key] = answer = rule(self, *args)
        return answer

    remembered.__name__ = name
    return remembered


class Chart:
    """The words of one sentence (end mark taken off) and what has been worked out about them."""

    # rules of higher layers that lower ones call
    after_of: Rule
    clause: Rule
    noun_phrase: Rule
    object: Rule
    passive: Rule
    prepositional: Rule
    vp: Rule
    wh_clause: Rule

    def __init__(self, words: list[Word]):
        self.n = len(words)
        self.words = [*words, END, END, END, END]
        self.texts = tuple(word.text for word in self.words)
        self.table: dict[tuple, Any] = {}

    def over(self, mask: int, rule: Callable[..., int], *args: Any) -> int:
        """Where `rule` can end when it starts at any place of the mask."""
        found = 0
        for j in ends(mask):
            found |= rule(j, *args)
        return found

    def word(self, mask: int, *texts: str) -> int:
        """One of these words after any place of the mask."""
        found = 0
        for j in ends(mask):
            if self.texts[j] in texts:
                found |= 2 << j
        return found

    def phrases(self, i: int, table: Mapping[str, list[tuple[str, ...]]]) -> int:
        """Any of the fixed phrases in a table made by `by_first_word`."""
        found = 0
        for phrase in table.get(self.texts[i], ()):
            if self.texts[i : i + len(phrase)] == phrase:
                found |= 1 << i + len(phrase)
        return found

    def reach(self) -> int:
        """How many words from the left some phrase made sense of: for the reason why a sentence was turned down."""
        best = 0
        for answer in self.table.values():
            for mask in answer if isinstance(answer, tuple) else (answer,):
                if isinstance(mask, int):
                    best = max(best, mask.bit_length() - 1)
        return min(best, self.n)


def by_first_word(phrases) -> dict[str, list[tuple[str, ...]]]:
    """Fixed phrases by their first word, so that looking one up is one dictionary access."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for phrase in phrases:
        table.setdefault(phrase[0], []).append(tuple(phrase))
    return table


def frames_of(word: Word, form: str) -> frozenset[str]:
    return word.verbs.get(form, _NO_FRAMES)
