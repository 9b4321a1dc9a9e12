"""Coherence of a story: could one cast, in one plot, have been told of in all its sentences?

    incoherence(story)            why it does not hold together, in words; "" where it does

A story is read from its beginning with the frames that toyland's plots are told in, and what is known of the cast is kept: who
the hero is, what the thing is, in which tense it is told. The next sentence has to fit, with the same name, with the pronouns of
its gender, with the same thing. So an unknown word, a quotation that does not close, a girl named Walter, a second name for the
hero or a ball that was a kite end the reading. A story told in other sentences than toyland's own cannot be read at all.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache

from tinygpt_hf.toyland import stories
from tinygpt_hf.toyland.grammar import CASES, PRONOUNS, Slot, Verb

SHORTEST = 5  # sentences in a story of toyland's
# One sentence without its end: what is left of a story where a limit of tokens cut it off.
UNFINISHED = re.compile(r'[^.?!"]*("[^"]*("[^.?!"]*)?)?')
LONGEST = 40  # characters of a name, a thing or a phrase
Cast = dict[str, frozenset]  # role -> the members it may still be filled with; "tense" -> 0 for past, 1 for present


def incoherence(story: str, cut_off: bool = False) -> str:
    """Why a story does not hold together, in words; "" where it does.

    `cut_off`: the story goes on behind its last whole sentence, and is judged up to there.
    """
    left, count = min((reader.read(story) for reader in _readers()), key=lambda read: len(read[0]))
    if left and not (cut_off and UNFINISHED.fullmatch(left)):
        return f'what was told before does not fit "{left[:60]}"'
    return "" if count >= SHORTEST else f"a story has at least {SHORTEST} sentences"


class PlotReader:
    """Reads stories of one plot backwards, from the text to the cast."""

    def __init__(self, plot: stories.Plot):
        frames = [parts for _, variants in plot.steps for variant in variants for parts in variant]
        frames += [parts for variant in stories.openings() for parts in variant]
        frames += [step for step, _ in stories.preludes().values()]
        self.frames, self.people = list(dict.fromkeys(frames)), plot.people
        pools = dict.fromkeys("ABC", stories.BOYS + stories.GIRLS) | dict.fromkeys("KG", stories.KIN)
        pools |= {name: [member for (member,) in stories.pool(name)] for name in ("age", "home", "hair")}
        for keys, choices in plot.choices:
            for place, key in enumerate(keys if keys.isupper() else (keys,)):
                pools[key] = [choice[place] for choice in choices]
        self.roles: Cast = {role: frozenset(pool) for role, pool in pools.items()} | {"tense": frozenset((0, 1))}
        self.written: dict[tuple[str, str], dict[str, set]] = {}  # (role, form) -> its words -> whom they may mean
        for role, pool in pools.items():
            for member in pool:
                for form, words in member.forms.items():
                    self.written.setdefault((role, form), {}).setdefault(words, set()).add(member)

    def read(self, story: str) -> tuple[str, int]:
        """What is left of a story from the first sentence on that does not fit, and how many sentences do."""
        todo: dict[tuple, Cast] = {(story, 0, frozenset()): {}}
        best = story, 0
        while todo and best[0]:
            (text, count, _), cast = todo.popitem()
            best = min(best, (text, count), key=lambda read: len(read[0]))
            small = re.sub("[A-Za-z]", lambda letter: letter[0].lower(), text, count=1)
            for parts in self.frames:
                for start in (text, small):  # a sentence begins with a capital, whatever its frame begins with
                    for rest, known in self._sentence(parts, start, cast, first=True):
                        if rest[:1] in ("", " "):
                            todo[rest[1:], count + 1, frozenset(known.items())] = known
        return best

    def _sentence(self, parts: tuple, text: str, cast: Cast, first: bool = False) -> Iterator[tuple[str, Cast]]:
        """Each way to read a frame off the beginning of a text: (the text behind it, what the cast can be then)."""
        if not parts:
            yield text, cast
            return
        part, others = parts[0], parts[1:]
        for words, told in self._ways(part, text, cast, first):
            if type(words) is tuple:
                yield from self._sentence(words + others, text, cast)
            elif text.startswith(words):
                known: Cast | None = cast
                for role, members in told.items():
                    known = None if known is None else self._narrowed(known, role, members)
                if known is not None:
                    yield from self._sentence(others, text[len(words) :], known)

    def _ways(self, part, text: str, cast: Cast, first: bool) -> Iterator[tuple[str | tuple, dict[str, set]]]:
        """What may stand for one part of a frame: words (or other parts), and what they tell of roles."""
        if type(part) is str:
            yield part, {}
            return
        role = part.key
        whole = role in self.roles  # else it is two: AB, Tom and Mia
        if type(part) is Verb:
            for place, form in enumerate(part.forms):
                told, plural = {"tense": {place // 2}}, bool(place % 2)
                if whole and text.startswith(form):
                    yield form, told | {role: {member for member in self.roles[role] if member.plural == plural}}
                elif not whole and plural == (role != "s"):
                    yield form, told
            return
        case = part.form if part.form in CASES else ""
        form = "'s" if case == "his" else "" if case else part.form
        if not whole:
            yield (Slot(role[0], ""), " and ", Slot(role[1], form)), {}
        if (first or case) and all(one in cast for one in ([role] if whole else role)):  # who was named before
            for gender, pronouns in PRONOUNS.items():
                if whole:
                    yield pronouns[case or "he"], {role: {member for member in cast[role] if member.gender == gender}}
                elif gender == "p":
                    yield pronouns[case or "he"], {}
        written = self.written.get((role, form), {})
        for words in _beginnings(text[:LONGEST]):
            if words in written:
                yield words, {role: written[words]}

    def _narrowed(self, cast: Cast, role: str, members: set) -> Cast | None:
        """The cast when a role is filled by one of these; None where that leaves nobody, or one name in two roles."""
        found = cast.get(role, self.roles[role]) & members
        if role in self.people:
            others = [cast[other] for other in self.people if other in cast and other != role]
            if {member.word for member in found} in [{member.word for member in other} for other in others]:
                return None
        return {**cast, role: found} if found else None


@lru_cache(maxsize=1000)
def _beginnings(text: str) -> list[str]:
    """The first word of a text, the first two, and so on; "Tom" as well as "Tom's"."""
    return [text[: word.end()] for word in re.finditer(r"\w+|'s", text)]


@cache
def _readers() -> list[PlotReader]:
    return [PlotReader(plot) for plot in stories.plots()]
