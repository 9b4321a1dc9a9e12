"""Judge the coherence of a story: the same hero, fitting pronouns, the same thing, from the first sentence to the last.

    incoherence(story)            the reason it is not coherent, in words; "" if it is

Toyland's frames parse a sentence, which tells who is who in it. A story is coherent if
- its words are toyland's, its quotations close, and frames read all of its sentences, of which there are five or more;
- in one plot everybody keeps one name, pronouns have the gender of whom they mean, things, places and numbers stay the same;
- "the ball" was mentioned before, and a sentence from another plot names nobody and nothing new.
Grammar and tense are not judged. A story in words that no frame has cannot be judged, and counts as incoherent.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from tinygpt_hf.toyland import stories
from tinygpt_hf.toyland.corpus import vocabulary, words_of
from tinygpt_hf.toyland.grammar import PRONOUNS, Member, Slot, Verb

SHORTEST = 5  # sentences
PEOPLE = "ABCK"  # the roles that people with names fill: children, and Mom or Grandpa
GENDERS = {word: gender.replace("p", "n") for gender, cases in PRONOUNS.items() for word in cases.values()}
GENDERS |= {"boy": "m", "girl": "f"}
# Speech with what stands around it, or a plain sentence; and what may stand before any frame: "One rainy day, ", "Then ".
SENTENCE = re.compile(r' ?("[^"]*" [a-z][^".]*\.|[^".?!]*"[^"]*"|[^".?!]+[.?!])')
LEAD = r"(?:(?:One? [A-Z]\w+|[A-Z]\w*(?: [a-z]+){0,3}), |(?:Then|Now|Soon|So|But|There|First|Finally|At last) )?"
# How the forms of a hole are written, with any adjective; a pronoun may stand where a name, or "the", may.
NEW = dict.fromkeys(("a", "an"), r"(?:an?|some) (?:\w+ )?(\w+)") | {"cn": r"(?:\w+ )?(\w+)", "ns": r"(\w+)"}
FORMS = NEW | dict.fromkeys(("'s", "his"), r"(?:the )?(\w+?)(?:'s)?")
FORMS |= {"n": r"(\w+)", "at": r"(?:in|at|near) the (\w+)", "to": r"to the (\w+)"}

Hole = tuple[str, str, bool]  # role; "name", "noun" or "phrase"; whether it comes with "a" or an adjective
Cast = dict[str, tuple[str, str]]  # role -> a name, a noun or a phrase, and its gender; a phrase has none


class Reading(NamedTuple):
    """Hold what a sentence says, parsed with a frame of a plot."""

    plot: "Plot"
    named: Cast
    new: set[str]  # roles that come with "a" or an adjective
    meant: set[tuple[str, str]]  # (role, gender) of the pronouns


class Plot:
    """Turn the frames of a plot into patterns that parse sentences; without a plot, those any story may begin with."""

    def __init__(self, plot: stories.Plot | None = None):
        frames = [said for (said,) in stories.openings()] + [said for said, _ in stories.preludes().values()]
        self.pools: dict[str, Sequence[Member]] = {
            name: sum(stories.pool(name), ()) for name in ("age", "home", "hair")
        }
        if plot:
            frames = [frame for _, step in plot.steps for variant in step for frame in variant]
            for keys, choices in plot.choices:
                self.pools |= zip(keys if keys.isupper() else (keys,), zip(*choices, strict=True), strict=True)
        self.new = {part.key for frame in frames for part in frame if type(part) is Slot and part.form in NEW}
        self.patterns = [pattern for frame in dict.fromkeys(frames) for pattern in self._patterns(frame)]

    def _patterns(self, frame: tuple) -> Iterator[tuple[re.Pattern, list[Hole]]]:
        """Make a pattern of each sentence of a frame, and list the holes that its groups stand for."""
        marks = {str: "{1}", Verb: "v{0}v", Slot: "N{0}N"}
        text = "".join(marks[type(part)].format(number, part) for number, part in enumerate(frame))
        for sentence in SENTENCE.findall(text):
            holes: list[Hole] = []
            pieces = re.split(r"\b[vN](\d+)[vN]\b", re.escape(re.sub(f"^{LEAD}", "", sentence)))
            pieces[1::2] = [self._pattern(frame[int(number)], holes) for number in pieces[1::2]]
            yield re.compile(f"{LEAD}(?i:{''.join(pieces)})"), holes

    def _pattern(self, part: Slot | Verb, holes: list[Hole]) -> str:
        if isinstance(part, Verb):
            return f"(?:{'|'.join(part.forms)})"
        if len(part.key) == 2 and part.key.isupper():  # Tom and Mia
            both = [self._pattern(Slot(role, part.form), holes) for role in part.key]
            return f"(?:{' and '.join(both)}|they|them|their)"
        pool = self.pools.get(part.key)
        kind = "name" if not pool else "noun" if "the" in pool[0].forms else "phrase"
        holes.append((part.key if pool else part.key.replace("G", "K"), kind, part.form in NEW))
        phrases = "|".join(member.forms[""] for member in pool or ())
        return f"({phrases})" if kind == "phrase" else FORMS.get(part.form, r"(?:the )?(\w+)")

    def read(self, sentence: str) -> Iterator[Reading]:
        """Yield each reading of a sentence that the plot has; "the horse helps the horse" has none."""
        for pattern, holes in self.patterns:
            if match := pattern.fullmatch(sentence):
                filled = [(*hole, words) for hole, words in zip(holes, match.groups(), strict=True) if words]
                meant = {(role, GENDERS[word.lower()]) for role, _, _, word in filled if word.lower() in GENDERS}
                named = {(role, _being(kind, word)) for role, kind, _, word in filled if word.lower() not in GENDERS}
                roles, beings = {role for role, _ in named}, {being for _, being in named}
                if len(roles) == len(named) == len(beings) and None not in beings:
                    yield Reading(self, dict(named), {role for role, _, new, _ in filled if new}, meant)

    def goes_on(self, cast: Cast, reading: Reading, told: set[str]) -> Cast | None:
        """Return the cast of a story of this plot after its next sentence; None if that cannot be next."""
        cast, own = dict(cast), reading.plot in (self, _plots()[0])
        for role, being in reading.named.items():
            before = being[0] in told or not being[1]
            comes = before or role in PEOPLE or role in reading.new or role not in self.new
            if own and comes and role not in cast and (not being[1] or being not in cast.values()):
                cast[role] = being
            if (cast.get(role) != being) if own or role in PEOPLE else not before:
                return None
        for role, gender in reading.meant:
            if (cast.get(role, "??")[1] != gender) if own or role in PEOPLE else gender != "n":
                return None
        return cast


def incoherence(story: str, cut_off: bool = False) -> str:
    """Say why a story is not coherent; "" if it is. One that was cut off is judged up to its last sentence."""
    sentences = SENTENCE.findall(story)
    rest = story.removeprefix(" ".join(sentences)).strip()
    if rest and (not cut_off or rest == story.strip()):
        return f'no full sentence: "{rest[:60]}"'
    if cut_off and "".join(sentences).endswith('"'):
        sentences.pop()  # who says it may be missing
    if len(sentences) < SHORTEST:
        return f"a story has at least {SHORTEST} sentences"
    if unknown := words_of(" ".join(sentences)) - vocabulary():
        return f"unknown words: {', '.join(sorted(unknown))}"
    casts: dict[tuple, Cast] = {(plot,): {} for plot in _plots()[1:]}
    told: set[str] = set()
    for sentence in sentences:
        readings = [reading for plot in _plots() for reading in plot.read(sentence)]
        tried = [(plot, plot.goes_on(cast, one, told)) for (plot, *_), cast in casts.items() for one in readings]
        casts = {(plot, *sorted(cast.items())): cast for plot, cast in tried if cast is not None}
        if not casts:
            return f'what was told before does not go on with: "{sentence}"'
        told |= {_beings()[word][0] for word in words_of(sentence) if word in _beings()}
    return ""


@cache
def _plots() -> list[Plot]:
    return [Plot(), *map(Plot, stories.plots())]


@cache
def _beings() -> Cast:
    """Map each way to write a name or a noun to the name or the singular, and its gender."""
    beings = {child.forms[""]: (child.forms[""], child.gender) for child in stories.BOYS + stories.GIRLS + stories.KIN}
    things = [member for plot in _plots() for pool in plot.pools.values() for member in pool if "the" in member.forms]
    beings |= {thing.word: (thing.word, thing.gender.replace("p", "n")) for thing in things}
    return beings | {thing.forms.get("ns", ""): beings[thing.word] for thing in things if not thing.plural}


def _being(kind: str, words: str) -> tuple[str, str] | None:
    return (words, "") if kind == "phrase" else _beings().get(words.title() if kind == "name" else words.lower())
