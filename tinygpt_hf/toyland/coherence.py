"""Check the coherence of a story: names, genders, pronouns and objects must stay the same from beginning to end.

    incoherence(story)            the reason why it is not coherent, or "" if it is

Toyland's sentence frames parse the story and identify who is who. A story is coherent if
- it has five sentences or more, all its words are toyland's, its quotations close, and frames parse all its sentences;
- within one plot, everybody keeps one name, pronouns have the right gender, and things, places and numbers do not change;
- "the ball" was mentioned before, and sentences of other plots introduce nobody and nothing new.
Grammar and tense are not checked. A story that the frames cannot parse counts as incoherent.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from tinygpt_hf.toyland import stories
from tinygpt_hf.toyland.corpus import vocabulary, words_of
from tinygpt_hf.toyland.grammar import PRONOUNS, Member, Slot, Verb

SHORTEST = 5  # sentences
PEOPLE = "ABCK"  # roles of people with names: children, and relatives such as Mom or Grandpa
GENDERS = {word: gender.replace("p", "n") for gender, cases in PRONOUNS.items() for word in cases.values()}
GENDERS |= {"boy": "m", "girl": "f"}
# A sentence with or without direct speech; and phrases that may precede any frame: "One rainy day, ", "Then ".
SENTENCE = re.compile(r' ?("[^"]*" [a-z][^".]*\.|[^".?!]*"[^"]*"|[^".?!]+[.?!])')
LEAD = r"(?:(?:One? [A-Z]\w+|[A-Z]\w*(?: [a-z]+){0,3}), |(?:Then|Now|Soon|So|But|There|First|Finally|At last) )?"
# Patterns for the forms of a slot, with any adjective. A pronoun may replace a name or a phrase with "the".
NEW = dict.fromkeys(("a", "an"), r"(?:an?|some) (?:\w+ )?(\w+)") | {"cn": r"(?:\w+ )?(\w+)", "ns": r"(\w+)"}
FORMS = NEW | dict.fromkeys(("'s", "his"), r"(?:the )?(\w+?)(?:'s)?")
FORMS |= {"n": r"(\w+)", "at": r"(?:in|at|near) the (\w+)", "to": r"to the (\w+)"}

SlotKind = tuple[str, str, bool]  # role; "name", "noun" or "phrase"; whether it is introduced with "a" or an adjective
Cast = dict[str, tuple[str, str]]  # role -> (a name, a noun or a phrase, its gender); a phrase has gender ""


class Reading(NamedTuple):
    """A sentence parsed with a frame of a plot."""

    plot: "Plot"
    named: Cast
    new: set[str]  # roles introduced with "a" or an adjective
    pronouns: set[tuple[str, str]]  # (role, gender)


class Plot:
    """A parser for the sentences of a plot; without a plot, for openings and preludes, which any story may have."""

    def __init__(self, plot: stories.Plot | None = None):
        frames = [one for (one,) in stories.openings()] + [one for one, _ in stories.preludes().values()]
        self.pools: dict[str, Sequence[Member]] = {
            name: sum(stories.pool(name), ()) for name in ("age", "home", "hair")
        }
        if plot:
            frames = [frame for _, step in plot.steps for variant in step for frame in variant]
            for keys, choices in plot.choices:
                self.pools |= zip(keys if keys.isupper() else (keys,), zip(*choices, strict=True), strict=True)
        self.new = {part.key for frame in frames for part in frame if type(part) is Slot and part.form in NEW}
        self.patterns = [pattern for frame in dict.fromkeys(frames) for pattern in self._patterns(frame)]

    def _patterns(self, frame: tuple) -> Iterator[tuple[re.Pattern, list[SlotKind]]]:
        """Yield a regular expression for each sentence of a frame, with the slots that its groups match."""
        marks = {str: "{1}", Verb: "v{0}v", Slot: "N{0}N"}
        text = "".join(marks[type(part)].format(number, part) for number, part in enumerate(frame))
        for sentence in SENTENCE.findall(text):
            slots: list[SlotKind] = []
            pieces = re.split(r"\b[vN](\d+)[vN]\b", re.escape(re.sub(f"^{LEAD}", "", sentence)))
            pieces[1::2] = [self._pattern(frame[int(number)], slots) for number in pieces[1::2]]
            yield re.compile(f"{LEAD}(?i:{''.join(pieces)})"), slots

    def _pattern(self, part: Slot | Verb, slots: list[SlotKind]) -> str:
        if isinstance(part, Verb):
            return f"(?:{'|'.join(part.forms)})"
        if len(part.key) == 2 and part.key.isupper():  # Tom and Mia
            both = [self._pattern(Slot(role, part.form), slots) for role in part.key]
            return f"(?:{' and '.join(both)}|they|them|their)"
        pool = self.pools.get(part.key)
        kind = "name" if not pool else "noun" if "the" in pool[0].forms else "phrase"
        slots.append((part.key if pool else part.key.replace("G", "K"), kind, part.form in NEW))
        phrases = "|".join(member.forms[""] for member in pool or ())
        return f"({phrases})" if kind == "phrase" else FORMS.get(part.form, r"(?:the )?(\w+)")

    def read(self, sentence: str) -> Iterator[Reading]:
        """Yield each possible parse of a sentence. One thing cannot have two roles: "the horse helps the horse" has no parse."""
        for pattern, slots in self.patterns:
            if match := pattern.fullmatch(sentence):
                filled = [(*slot, words) for slot, words in zip(slots, match.groups(), strict=True) if words]
                pronouns = {(role, GENDERS[word.lower()]) for role, _, _, word in filled if word.lower() in GENDERS}
                named = {(role, _being(kind, word)) for role, kind, _, word in filled if word.lower() not in GENDERS}
                roles, beings = {role for role, _ in named}, {being for _, being in named}
                if len(roles) == len(named) == len(beings) and None not in beings:
                    yield Reading(self, dict(named), {role for role, _, new, _ in filled if new}, pronouns)

    def extend(self, cast: Cast, reading: Reading, mentioned: set[str]) -> Cast | None:
        """Return the cast of a story of this plot after its next sentence, or None if the sentence cannot be next."""
        cast, own = dict(cast), reading.plot in (self, _plots()[0])
        for role, being in reading.named.items():
            is_known = being[0] in mentioned or not being[1]
            may_enter = is_known or role in PEOPLE or role in reading.new or role not in self.new
            if own and may_enter and role not in cast and (not being[1] or being not in cast.values()):
                cast[role] = being
            if own or role in PEOPLE:
                if cast.get(role) != being:
                    return None
            elif not is_known:
                return None
        for role, gender in reading.pronouns:
            expected = cast.get(role, "??")[1] if own or role in PEOPLE else "n"
            if gender != expected:
                return None
        return cast


def incoherence(story: str, cut_off: bool = False) -> str:
    """Return the reason why a story is not coherent, or "". With `cut_off`, an incomplete last sentence is ignored."""
    sentences = SENTENCE.findall(story)
    rest = story.removeprefix(" ".join(sentences)).strip()
    if rest and (not cut_off or rest == story.strip()):
        return f'no full sentence: "{rest[:60]}"'
    if cut_off and "".join(sentences).endswith('"'):
        sentences.pop()  # the speaker may be missing
    if len(sentences) < SHORTEST:
        return f"a story has at least {SHORTEST} sentences"
    if unknown := words_of(" ".join(sentences)) - vocabulary():
        return f"unknown words: {', '.join(sorted(unknown))}"
    casts: dict[tuple, Cast] = {(plot,): {} for plot in _plots()[1:]}
    mentioned: set[str] = set()
    for sentence in sentences:
        readings = [reading for plot in _plots() for reading in plot.read(sentence)]
        extended = [(plot, plot.extend(cast, one, mentioned)) for (plot, *_), cast in casts.items() for one in readings]
        casts = {(plot, *sorted(cast.items())): cast for plot, cast in extended if cast is not None}
        if not casts:
            return f'it does not follow from the sentences before it: "{sentence}"'
        mentioned |= {_beings()[word][0] for word in words_of(sentence) if word in _beings()}
    return ""


@cache
def _plots() -> list[Plot]:
    return [Plot(), *map(Plot, stories.plots())]


@cache
def _beings() -> Cast:
    """Return each written form of a name or noun with its (name or singular, gender)."""
    beings = {child.forms[""]: (child.forms[""], child.gender) for child in stories.BOYS + stories.GIRLS + stories.KIN}
    things = [member for plot in _plots() for pool in plot.pools.values() for member in pool if "the" in member.forms]
    beings |= {thing.word: (thing.word, thing.gender.replace("p", "n")) for thing in things}
    return beings | {thing.forms.get("ns", ""): beings[thing.word] for thing in things if not thing.plural}


def _being(kind: str, words: str) -> tuple[str, str] | None:
    return (words, "") if kind == "phrase" else _beings().get(words.title() if kind == "name" else words.lower())
