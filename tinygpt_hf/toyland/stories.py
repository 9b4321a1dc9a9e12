"""Generate stories: choose a plot and its cast, and write the plot's steps, together with questions about the story.

`tell(rng, held_out, short)` -> `Story`. `is_held_out` fixes, for all seeds, which pairs of a child and an object are held out.
A training story contains none of them, a held-out story always one. `data/plots.txt` holds the plots, `data/pools.txt` the
people, things, animals and places.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random

from tinygpt_hf.toyland.grammar import Member, Telling, both, frame, person, phrase, place, thing
from tinygpt_hf.toyland.lexicon import KIN_F, KIN_M, NAMES_F, NAMES_M
from tinygpt_hf.toyland.tables import Exchange, entries, exchange, table

BOYS, GIRLS = [person(name, "m") for name in NAMES_M], [person(name, "f") for name in NAMES_F]
KIN = [person(name, "f") for name in KIN_F] + [person(name, "m") for name in KIN_M]
CONNECTIVES = {"Then", "Now", "Soon", "So", "But", "It", "They", "There"}
KINDS = {"pl": ("pl", "n"), "mass": ("mass", "n"), "he": ("sg", "m"), "she": ("sg", "f"), "who": ("sg", "x")}

Choice = tuple[Member, ...]


def listed(pool: str) -> list[str]:
    """Return the words or phrases of a pool's first line."""
    head, _, content = table("pools")[pool][0].partition(": ")
    return content.split(" | ") if head == "phrase" else content.split()


COLORS, NUMBERS, DAYS, TOYS = listed("color"), listed("number"), listed("day"), listed("toy")


def _members(entry: str) -> list[Choice]:
    """Parse one "head: words" entry of a pool: phrases, places, or things with each of their adjectives."""
    head, _, content = entry.partition(": ")
    if head == "phrase":
        return [(phrase(words),) for words in content.split(" | ")]
    if head in ("in", "at", "near"):
        return [(place(noun, head),) for noun in content.split()]
    first, *rest = head.split()
    (kind, gender), adjectives = (KINDS[first], rest) if first in KINDS else (("sg", "n"), [first, *rest])
    adjectives = {"*": COLORS, "-": [""]}.get(adjectives[0], adjectives)
    return [(thing(noun, adjective, kind, gender),) for noun in content.split() for adjective in adjectives]


@cache
def pool(name: str) -> list[Choice]:
    """Return the choices of a pool. A choice is a tuple of cast members that belong together, as a rabbit and a carrot."""
    return [sum(choice, ()) for line in table("pools")[name] for choice in product(*map(_members, line.split(" + ")))]


@dataclass(frozen=True)
class Plot:
    """A plot: its roles, the choices to fill them, its steps and its questions."""

    name: str
    people: tuple[str, ...]
    choices: tuple[tuple[str, list[Choice]], ...]  # ("T", pool) or ("DF", pool of pairs)
    groups: tuple[str, ...]
    steps: tuple[tuple[bool, tuple], ...]  # (is required, variants); a variant is a tuple of frames, one per sentence
    asks: tuple[Exchange, ...]
    about_a: tuple[Exchange, ...]  # questions that name the first child, and so can be asked about another child

    @property
    def key(self) -> tuple[str, str]:
        """Roles whose combination may be held out."""
        first = self.people[0]
        return first, next(keys for keys, _ in self.choices if keys != first)[0]


def _variants(text: str) -> tuple:
    return tuple(tuple(frame(sentence.strip()) for sentence in one.split(" // ")) for one in text.split(" | "))


def _keys(*parts: tuple) -> set[str]:
    return {piece.key for frame_parts in parts for piece in frame_parts if not isinstance(piece, str)}


def _ask(line: str) -> Exchange:
    kind, question, clause, answer, accept = exchange(line)
    return Exchange(kind, frame(question), frame(clause), frame(answer), tuple(map(frame, accept)))


def _plot(name: str, cast: str, *lines: str) -> Plot:
    people, choices = (part.split() for part in cast.removeprefix("cast: ").split(" | "))
    endings, steps, asks = dict(entries("shared", "endings")), [], []
    for line in lines:
        if line[0] == "?":
            asks.append(_ask(line[2:]))
        else:
            steps.append((line[0] == "+", _variants(endings[line[1:]] if line[0] == "@" else line[2:])))
    used = set().union(*(_keys(*variant) for _, variants in steps for variant in variants))
    return Plot(
        name,
        tuple(people),
        tuple((keys, pool(pool_name)) for keys, pool_name in (choice.split("=") for choice in choices)),
        tuple(sorted(key for key in used if len(key) == 2 and key.isupper())),
        tuple(steps),
        tuple(asks),
        tuple(ask for ask in asks if "A" in _keys(ask.question) and ask.kind != "whose"),
    )


@cache
def plots() -> tuple[Plot, ...]:
    """Read all plots."""
    return tuple(_plot(name, *lines) for name, lines in table("plots").items())


@cache
def openings() -> tuple:
    """Read the opening sentences of long stories; the first two exist only in the past tense."""
    return _variants(" | ".join(table("shared")["openings"]))


@cache
def preludes() -> dict[str, tuple[tuple, Exchange]]:
    """Read the sentences that may introduce a child before the story: name -> (sentence, question about it)."""
    lines = [(name, *text.split(" ? ")) for name, text in entries("shared", "preludes")]
    return {name: (frame(sentence), _ask(question)) for name, sentence, question in lines}


@cache
def is_held_out(*words: str) -> bool:
    """Tell whether a combination of words is held out: one in ten are, by a hash that does not depend on the seed."""
    return hashlib.blake2b("+".join(words).encode(), digest_size=8).digest()[0] % 10 == 0


@dataclass
class Story:
    """A generated story with its questions."""

    plot: Plot
    telling: Telling
    sentences: list[str]
    key: tuple[str, str]
    asks: list[Exchange]
    unsaid: list[str]  # preludes that are not in the story

    def text(self) -> str:
        return " ".join(self.sentences)

    def say(self, parts: tuple, capital: bool = True) -> str:
        """Generate a sentence, or part of one, about the story that needs no context."""
        self.telling.forget()
        return self.telling.sentence(parts, capital)


def pick(rng: Random, items):
    """Draw one element of a sequence."""
    return items[int(rng.random() * len(items))]


def child(rng: Random, *others: Member) -> Member:
    """Draw a child that is none of the others; the second child of a story has the other gender than the first."""
    children = BOYS + GIRLS
    if len(others) == 1:
        children = GIRLS if others[0].gender == "m" else BOYS
    while (drawn := pick(rng, children)) in others:
        pass
    return drawn


def cast_plot(rng: Random, plot: Plot, held_out: bool) -> tuple[dict[str, Member], tuple[str, str]]:
    """Draw a cast whose key combination is held out, or in which no child and key object are held out together."""
    first, second = plot.key
    while True:
        cast: dict[str, Member] = {}
        for role in plot.people:
            if role in "ABC":
                cast[role] = child(rng, *cast.values())
            elif role in "KG":
                cast[role] = pick(rng, KIN if role == "K" else KIN[1::2])
        for keys, choices in plot.choices:
            cast.update(zip(keys if keys.isupper() else (keys,), pick(rng, choices), strict=True))
        words = cast[first].word, cast[second].word
        if words[0] == words[1]:
            continue
        if held_out:
            if is_held_out(*words):
                break
        elif not any(is_held_out(cast[role].word, words[1]) for role in "ABCD" if role in cast):
            break
    for group in plot.groups:
        cast[group] = both(cast[group[0]], cast[group[1]])
    return cast, words


def tell(rng: Random, held_out: bool = False, short: bool = False) -> Story:
    """Generate a story with a random plot; a short one, for dialogues, has few optional steps."""
    plot = pick(rng, plots())
    cast, words = cast_plot(rng, plot, held_out)
    telling = Telling(cast, past=rng.random() < 0.75, rng=rng, pronouns=0.3 if short else 0.7)
    asks, unsaid, first = list(plot.asks), list(preludes()), None
    if any("A" in key for key in _keys(*plot.steps[0][1][0])):
        chance = rng.random()
        if chance < (0.24 if short else 0.5):
            cast["age"], cast["home"] = pick(rng, pool("age"))[0], pick(rng, pool("home"))[0]
        if short and chance < 0.24:
            first, ask = preludes()[unsaid.pop(chance < 0.12)]
            asks.append(ask)
        elif not short and chance < 0.5:
            cast["hair"] = pick(rng, pool("hair"))[0]
            if chance < 0.3:
                first = pick(rng, openings()[0 if telling.past else 2 :])[0]
            else:
                first = preludes()["age" if chance < 0.4 else "home"][0]
    sentences = [telling.sentence(first)] if first else []
    for _, variants in _chosen(rng, plot, short):
        variant = pick(rng, variants)
        for _ in range(3):
            if sentences and _repeats(sentences[-1], variant[0][0]):
                variant = pick(rng, variants)
        sentences += [telling.sentence(parts) for parts in variant]
    return Story(plot, telling, sentences, words, asks, unsaid)


def _repeats(sentence: str, start: object) -> bool:
    """Tell whether a sentence with this start would repeat the last one's first word, such as "Then" or "Soon"."""
    first = start.split(" ", 1)[0] if type(start) is str else ""
    return first in CONNECTIVES and sentence.startswith(first + " ")


def _chosen(rng: Random, plot: Plot, short: bool) -> list[tuple[bool, tuple]]:
    """Choose the steps of a story. A long one has its ending and at least six steps."""
    optional = 0.12 if short else 0.5 + 0.3 * rng.random()
    steps = plot.steps
    taken = [needed or rng.random() < optional for needed, _ in steps]
    if not short:
        taken[-1] = True
        while sum(taken) < min(6, len(steps)):
            taken[int(rng.random() * len(steps))] = True
    return [step for step, take in zip(steps, taken, strict=True) if take]
