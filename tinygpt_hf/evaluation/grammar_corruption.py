"""Breaking good sentences on purpose, where English makes a word, its place or its form obligatory.

`corrupt` decides from word classes alone (the lexicon's tags and closed lists), never by asking the checker, so that
the share of its products a checker turns down says something about the checker. A place is taken only when no reading
of the words leaves the result good: dropping "big" or swapping two names is no corruption, and "fish" may be plural.

drop      a determiner before an unambiguous singular count noun; that noun after its determiner; the verb after he,
          she, we, they or I; a preposition between an intransitive verb and a determiner; the "to" after a verb that
          needs it; the pronoun object of a verb that is only transitive
swap      a determiner and its noun; a subject pronoun and its verb; a preposition and its determiner; an auxiliary and
          the verb after a pronoun; a verb and the "to" before it
disagree  a verb with its singular or plural subject; a noun with a, an, every, two ...; a pronoun's case; the form of
          a verb after a modal, "to" or "didn't"; a and an
"""

import random
import re
from collections.abc import Iterator, Mapping

from tinygpt_hf.evaluation import grammar_words as closed

_ARTICLES = ("the", "a", "an", "my", "your", "our", "their", "its", "every")
_NOMINATIVE = ("he", "she", "we", "they", "i")
_TO_ACCUSATIVE = {"he": "him", "she": "her", "we": "us", "they": "them", "i": "me"}
_TO_NOMINATIVE = {"him": "he", "them": "they", "us": "we", "me": "I"}
_MODALS = ("can", "could", "will", "would", "should", "must", "might")
_WRONG_NUMBER = {"was": "were", "were": "was", "is": "are", "are": "is", "has": "have", "have": "has", "does": "do",
                 "do": "does", "am": "are", "don't": "doesn't", "doesn't": "don't", "isn't": "aren't",
                 "wasn't": "weren't", "weren't": "wasn't", "aren't": "isn't"}  # fmt: skip
_BEFORE_OBJECT = ("at", "to", "with", "for", "from", "near", "behind", "beside", "under", "on", "in", "into", "over")
_CAUSES = frozenset(
    "let lets make makes made help helps helped see sees saw hear hears heard watch watched feel felt".split()
)
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")
Edit = tuple[str, int, int, str]  # kind, start and end in the sentence, the new text


def corrupt(sentence: str, rng: random.Random, lexicon: Mapping[str, frozenset[str]]) -> tuple[str, str] | None:
    """One broken version of the sentence as (kind, sentence), or None when no safe place is found."""
    edits = list(_edits(sentence, lexicon))
    if not edits:
        return None
    kind = rng.choice(sorted({edit[0] for edit in edits}))
    _, start, end, new = rng.choice([edit for edit in edits if edit[0] == kind])
    return kind, _spell(sentence, start, end, new)


def _spell(sentence: str, start: int, end: int, new: str) -> str:
    """Put the new text in place, and see to spaces and to the capital of a sentence that starts there."""
    first = (
        start == 0 or re.search(r'(^|[.!?] |[.!?]" )"?$', sentence[:start]) or re.search(r'[,] "$', sentence[:start])
    )
    old_capital = sentence[start].isupper()
    if not new:
        if sentence[end : end + 1] == " ":
            end += 1
        elif sentence[start - 1 : start] == " ":
            start -= 1
    broken = sentence[:start] + new + sentence[end:]
    if first and old_capital and start < len(broken):
        broken = broken[:start] + broken[start].upper() + broken[start + 1 :]
    return broken


class _Place:
    """A word in the sentence: its text, where it stands, what the lexicon says, and whether it opens a clause."""

    def __init__(self, match: re.Match, sentence: str, lexicon: Mapping[str, frozenset[str]]):
        self.text, self.start, self.end = match.group().lower(), match.start(), match.end()
        self.written = match.group()
        self.tags = lexicon.get(self.text, frozenset())
        self.closed = (
            self.text in closed.DETERMINERS or self.text in closed.PRONOUNS or self.text in closed.PREPOSITIONS
        )
        self.touches_next = sentence[self.end : self.end + 1] == " " and sentence[self.end + 1 : self.end + 2].isalpha()
        self.opens = self.start == 0 or sentence[self.start - 1] == '"' or sentence[self.start - 2] in ".!?"
        self.name = bool(self.tags & {"name:m", "name:f"}) and self.written[0].isupper()

    def only(self, *tags: str) -> bool:
        return bool(self.tags) and not self.closed and all(tag in tags or tag.startswith(tags) for tag in self.tags)

    def forms(self) -> set[str]:
        return {tag.split(":")[1] for tag in self.tags if tag.startswith("verb:")}

    def frames(self) -> set[str]:
        return {tag.split(":")[2] for tag in self.tags if tag.startswith("verb:")}

    def is_verb(self) -> bool:
        return bool(self.tags) and not self.closed and all(tag.startswith("verb:") for tag in self.tags)


def _edits(sentence: str, lexicon: Mapping[str, frozenset[str]]) -> Iterator[Edit]:
    places = [_Place(match, sentence, lexicon) for match in _WORD.finditer(sentence)]
    texts = [place.text for place in places]
    for k, place in enumerate(places):
        after = places[k + 1] if k + 1 < len(places) and place.touches_next else None
        before = places[k - 1] if k and places[k - 1].touches_next else None
        if after:
            yield from _noun_edits(place, after, places, k, lexicon)
            yield from _subject_edits(place, after, before, places, k, lexicon)
            yield from _preposition_edits(place, after, before, places, k)
            yield from _form_edits(place, after, before, lexicon)
        if before and place.text in _TO_NOMINATIVE and before.text in _BEFORE_OBJECT and not after:
            yield "disagree", place.start, place.end, _TO_NOMINATIVE[place.text]
        if (
            before
            and place.text in ("him", "them", "it", "me", "us")
            and before.is_verb()
            and before.frames() == {"trans"}
        ):
            subject = places[k - 2].text if k >= 2 else ""
            fronted = set(texts) & {"that", "what", "which", "who"}
            if subject in _NOMINATIVE and not fronted and (not after or after.text in ("and", "because")):
                yield "drop", place.start, place.end, ""


def _singular(place: _Place) -> bool:
    """A word that can be nothing but a singular count noun, and that English never uses bare."""
    bare = closed.BARE_PLACES | closed.BARE_TIMES | closed.BARE_MEANS | closed.TIME_NOUNS | closed.KIN | closed.TITLES
    return place.tags == {"noun:sg"} and not place.closed and place.text not in bare


def _noun_edits(place: _Place, after: _Place, places: list[_Place], k: int, lexicon) -> Iterator[Edit]:
    following = places[k + 2] if k + 2 < len(places) and after.touches_next else None
    alone = following is None or not (following.tags & {"noun:sg", "noun:pl", "noun:mass"} or following.name)
    if place.text in _ARTICLES and _singular(after) and alone:
        span = place.start, after.end
        yield "drop", place.start, place.end, ""
        yield "swap", *span, f"{after.written} {place.text}"
        plain_next = following is None or following.text in closed.PREPOSITIONS or "past" in following.forms()
        if plain_next and place.text in ("the", "a", "an", "my", "your", "our", "their", "every"):
            if not (following and following.tags & {"adj", "noun:sg"}):
                yield "drop", after.start, after.end, ""
        plural = _plural(after.text, lexicon)
        if plural and place.text in ("a", "an", "every"):
            yield "disagree", after.start, after.end, plural
    if place.text in closed.NUMBERS | {"many", "these", "those"} and after.tags == {"noun:pl"} and alone:
        singular = _singular_of(after.text, lexicon)
        if singular and lexicon[singular] == {"noun:sg"} and singular not in closed.UNITS:
            yield "disagree", after.start, after.end, singular
    if place.text in ("a", "an") and after.tags:
        yield "disagree", place.start, place.end, "an" if place.text == "a" else "a"


def _subject_edits(place: _Place, after: _Place, before: _Place | None, places, k: int, lexicon) -> Iterator[Edit]:
    finite = after.is_verb() and after.forms() & {"past", "3sg"} and "base" not in after.forms()
    auxiliary = after.text in ("is", "was", "are", "were", "am", "has", "had", "can", "could", "will", "did", "does")
    subject_free = before is None or before.text not in _CAUSES | {"than", "as"} | set(closed.PREPOSITIONS)
    if place.text in _NOMINATIVE and subject_free:
        asked = before is not None and before.text in closed.AUXILIARIES
        if finite or (auxiliary and after.text in ("is", "was", "are", "were", "am")):
            following = places[k + 2] if k + 2 < len(places) and after.touches_next else None
            if following is not None and not asked:
                if not (auxiliary and following.tags & {t for t in following.tags if t.startswith("verb:")}):
                    if following.text not in ("and", "or", "but"):
                        yield "drop", after.start, after.end, ""
        if (finite or auxiliary) and not asked:
            yield "disagree", place.start, place.end, _TO_ACCUSATIVE[place.text]
        if finite and after.text not in closed.REPORTING:
            yield (
                "swap",
                place.start,
                after.end,
                f"{after.written} {place.written if place.text == 'i' else place.text}",
            )
        if auxiliary and k + 2 < len(places) and after.touches_next and not asked:
            verb = places[k + 2]
            fits = "ing" in verb.forms() or (after.text in _MODALS and "base" in verb.forms() and verb.is_verb())
            if fits and verb.is_verb():
                yield "swap", after.start, verb.end, f"{verb.written} {after.text}"
    third = place.text in ("he", "she", "it") or (place.name and place.opens) or (
        k >= 1 and _singular(place) and before is not None and before.text in _ARTICLES and before.opens)  # fmt: skip
    plural = place.text in ("we", "they")
    if (third or plural) and subject_free and not (before and before.text in closed.AUXILIARIES | {"and": 0, "or": 0}):
        causer = {p.text for p in places[:k]} & _CAUSES
        if after.text in _WRONG_NUMBER and not causer and after.text not in ("have", "do", "are", "were") or (
            plural and after.text in _WRONG_NUMBER and after.text not in ("is", "was", "has", "does")
        ):  # fmt: skip
            yield "disagree", after.start, after.end, _WRONG_NUMBER[after.text]
        elif after.is_verb() and third and after.forms() == {"3sg"} and not causer:
            base = _base(after.text, lexicon)
            if base:
                yield "disagree", after.start, after.end, base
        elif after.is_verb() and plural and after.forms() == {"base"} and not causer:
            wrong = _third(after.text, lexicon)
            if wrong:
                yield "disagree", after.start, after.end, wrong


def _preposition_edits(place: _Place, after: _Place, before: _Place | None, places, k: int) -> Iterator[Edit]:
    if place.text in closed.PREPOSITIONS and after.text in ("the", "a", "an", "my", "our", "their", "every"):
        yield "swap", place.start, after.end, f"{after.text} {place.text}"
        if before and before.is_verb() and "part" in before.forms() | {"part"} and k + 2 < len(places):
            takes_none = not any(f.startswith(("trans", "ditrans", "adj", "clause")) for f in before.frames())
            if takes_none and places[k + 2].text not in closed.TIME_NOUNS and _singular(places[k + 2]):
                yield "drop", place.start, place.end, ""


def _form_edits(place: _Place, after: _Place, before: _Place | None, lexicon) -> Iterator[Edit]:
    takes_to = before is not None and before.is_verb() and "to" in before.frames()
    after_modal = place.text in _MODALS or place.text in ("didn't", "don't", "doesn't", "can't", "couldn't", "won't")
    if (place.text == "to" and takes_to or after_modal) and after.is_verb() and "base" in after.forms():
        wrong = _third(after.text, lexicon)
        if wrong:
            yield "disagree", after.start, after.end, wrong
    if place.text == "to" and takes_to and after.is_verb() and after.forms() == {"base"}:
        if before.text not in ("help", "helped", "helps", "come", "go", "came"):
            yield "drop", place.start, place.end, ""
            yield "swap", place.start, after.end, f"{after.text} to"


def _plural(word: str, lexicon) -> str | None:
    for candidate in (word + "s", word + "es", word[:-1] + "ies", word[:-1] + "ves", word[:-2] + "ves"):
        if lexicon.get(candidate) == {"noun:pl"}:
            return candidate
    return None


def _singular_of(word: str, lexicon) -> str | None:
    for candidate in (word[:-1], word[:-2], word[:-3] + "y", word[:-3] + "f", word[:-3] + "fe"):
        if "noun:sg" in lexicon.get(candidate, ()):
            return candidate
    return None


def _base(word: str, lexicon) -> str | None:
    for candidate in (word[:-1], word[:-2], word[:-3] + "y"):
        tags = lexicon.get(candidate, frozenset())
        if tags and all(tag.startswith("verb:base") for tag in tags):
            return candidate
    return None


def _third(word: str, lexicon) -> str | None:
    for candidate in (word + "s", word + "es", word[:-1] + "ies"):
        tags = lexicon.get(candidate, frozenset())
        if tags and all(tag.startswith("verb:3sg") for tag in tags):
            return candidate
    return None
