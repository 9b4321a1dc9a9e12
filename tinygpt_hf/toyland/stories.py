"""Stories: a plot is cast, then told step by step; what it tells can be asked.

`tell(rng, held_out, short)` -> `Story`. Which (who, what) pairs are held out is fixed for all seeds by `is_held_out`: a
train story never brings one of them together, a held-out story always does.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from random import Random

from tinygpt_hf.toyland.grammar import Member, Telling, both, frame, phrase, unfold
from tinygpt_hf.toyland.plots_animals import ANIMALS
from tinygpt_hf.toyland.plots_children import CHILDREN
from tinygpt_hf.toyland.plots_days import DAYS_OUT
from tinygpt_hf.toyland.plots_tales import TALES
from tinygpt_hf.toyland.world import BOYS, GIRLS, KIN, POOLS

SHARED = """
thanksB | "Thank you, {B}," <say:A> {A}. | {A} <thank> {B}. | {A} <give> {B} a big hug.
    | "You are a good friend," <say:A> {A}.
thanksK | "Thank you, {K}," <say:A> {A}. | {A} <thank> {K}. | {A} <hug> {K}. | "You are the best, {K}," <say:A> {A}.
thanksA | "Thank you, {A}," <say:B> {B}. | {B} <thank> {A}. | {B} <give> {A} a big hug.
    | "You are very kind, {A}," <say:B> {B}.
happyA | {A} <be> happy again. | {A} <smile> and <clap>. | Now {A} <be> very happy.
    | {A} <jump> up and down and <laugh>.
friends | Now {AB} <be> best friends. | {AB} <play> together all day. | {AB} <laugh> and <go> home together.
    | From that day on, {AB} <play> together every day. | {A} <have> a lot of fun with {B}.
    | It <be:s> good to have a friend.
"""

# What a story may say of its child before it begins: (step, ask). Where it says nothing, nobody can know.
PRELUDES = {
    "age": (
        "{A} <be> {age} years old.",
        "number: How old <be:A> {A}? / how old {A} <be> -> {A} <be> {age} years old. [{age}]",
    ),
    "home": (
        "{A} <live> {home}.",
        "where: Where <do:A> {A} live? / where {A} <live> -> {A} <live> {home}. [{home}]",
    ),
}
HOMES = [
    phrase(words.strip())
    for words in """in a small town, in a big city, in a little village, on a farm, near the sea,
    near a lake, in a white house, in a red house, on a hill, on an island, near the forest, near the station""".split(
        ","
    )
]
AGES = [phrase(words) for words in "four five six seven eight nine ten".split()]
OPENINGS = """Once there <be:s> a little {kid:A} named {A}. | There once <be:s> a {kid:A} named {A}.
    | {A} <be> a kind {kid:A}.
    | {A} <be> a little {kid:A} with {hair} hair.
    | {A} <be> a clever {kid:A}. | {A} <have> a big family. | {A} <be> a happy {kid:A}."""
CONNECTIVES = {"Then", "Now", "Soon", "So", "But", "It", "They", "There"}
HAIR = [phrase(words) for words in "red black brown long short dark".split()]


@dataclass(frozen=True)
class Ask:
    """One thing to ask of a story: question, the same as part of a sentence, answer, what a right answer contains."""

    kind: str
    question: tuple
    clause: tuple
    answer: tuple
    accept: tuple[tuple, ...]


@dataclass(frozen=True)
class Plot:
    name: str
    people: tuple[str, ...]
    choices: tuple[tuple[str, list], ...]  # ("T", pool) or ("DF", pool of pairs)
    groups: tuple[str, ...]
    steps: tuple[tuple[bool, tuple], ...]  # (needed, variants); a variant is a tuple of frames, one per sentence
    asks: tuple[Ask, ...]
    about_a: tuple[Ask, ...]  # the asks that name the first child, so that they can be asked of a stranger

    @property
    def key(self) -> tuple[str, str]:
        """The cast members whose combination is held out."""
        first = self.people[0]
        return first, next(keys for keys, _ in self.choices if keys != first)[0]


def _variants(text: str) -> tuple:
    return tuple(tuple(frame(sentence.strip()) for sentence in one.split(" // ")) for one in text.split(" | "))


def _ask(line: str) -> Ask:
    kind, question, clause, answer, accept = re.fullmatch(r"(\w+): (.*) / (.*) -> (.*) \[(.*)\]", line).groups()
    return Ask(kind, frame(question), frame(clause), frame(answer), tuple(frame(words) for words in accept.split("; ")))


def _keys(*parts: tuple) -> set[str]:
    return {piece[1] for frame_parts in parts for piece in frame_parts if not isinstance(piece, str)}


def _plot(lines: list[str], shared: dict[str, tuple]) -> Plot:
    name, people, choices = (part.strip() for part in lines[0].split("|"))
    steps = []
    for line in lines[1:]:
        if line[0] in "+-":
            steps.append((line[0] == "+", _variants(line[2:])))
        elif line[0] == "@":
            steps.append((False, shared[line[1:].strip()]))
    asks = tuple(_ask(line[2:]) for line in lines[1:] if line[0] == "?")
    pools = tuple((keys, POOLS[pool]) for keys, pool in (choice.split("=") for choice in choices.split()))
    used = set().union(*(_keys(*variant) for _, variants in steps for variant in variants))
    groups = tuple(sorted(key for key in used if len(key) == 2 and key.isupper()))
    cast = tuple(people.split())
    about_a = tuple(ask for ask in asks if "A" in _keys(ask.question) and ask.kind != "whose")
    return Plot(name, cast, pools, groups, tuple(steps), asks, about_a)


@cache
def plots() -> tuple[Plot, ...]:
    """Every plot, read once."""
    shared = {}
    for line in unfold(SHARED):
        name, _, variants = line.partition(" | ")
        shared[name.strip()] = _variants(variants)
    blocks = "\n".join((CHILDREN, DAYS_OUT, ANIMALS, TALES)).split("\n= ")[1:]
    return tuple(_plot(unfold(block), shared) for block in blocks)


@cache
def openings() -> tuple:
    return _variants(" ".join(unfold(OPENINGS)))


@cache
def preludes() -> dict[str, tuple[tuple, Ask]]:
    return {name: (frame(step), _ask(ask)) for name, (step, ask) in PRELUDES.items()}


@cache
def is_held_out(*words: str) -> bool:
    """Whether this combination is kept for measuring: one in ten, by a hash that no seed changes."""
    return hashlib.blake2b("+".join(words).encode(), digest_size=8).digest()[0] % 10 == 0


@dataclass
class Story:
    plot: Plot
    telling: Telling
    sentences: list[str]
    key: tuple[str, str]
    asks: list[Ask]
    unsaid: list[str]  # preludes this story leaves out

    def text(self) -> str:
        return " ".join(self.sentences)

    def say(self, parts: tuple, capital: bool = True) -> str:
        """One sentence, or part of one, about the story that stands alone."""
        self.telling.forget()
        return self.telling.sentence(parts, capital)


def pick(rng: Random, items):
    return items[int(rng.random() * len(items))]


def child(rng: Random, *others: Member) -> Member:
    """A child whose name is none of the others'; the second child of a story is never of the first one's gender."""
    pool = BOYS + GIRLS if len(others) != 1 else GIRLS if others[0].gender == "m" else BOYS
    while (found := pick(rng, pool)) in others:
        pass
    return found


def cast_plot(rng: Random, plot: Plot, held_out: bool) -> tuple[dict[str, Member], tuple[str, str]]:
    """Fill the roles so that the key combination is held out, or no child and key object of it are."""
    first, second = plot.key
    while True:
        cast: dict[str, Member] = {}
        for role in plot.people:
            if role in "ABC":
                cast[role] = child(rng, *cast.values())
            elif role == "K":
                cast["K"] = pick(rng, KIN)
            elif role == "G":
                cast["G"] = pick(rng, KIN[1::2])
        for keys, pool in plot.choices:
            for key, member in zip(keys if keys.isupper() else (keys,), pick(rng, pool), strict=True):
                cast[key] = member
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
    """A story of some plot. Short: only the steps it cannot do without, as dialogues need."""
    plot = pick(rng, plots())
    cast, words = cast_plot(rng, plot, held_out)
    telling = Telling(cast, past=rng.random() < 0.75, rng=rng, pronouns=0.3 if short else 0.7)
    asks, unsaid = list(plot.asks), list(PRELUDES)
    sentences = []
    if any("A" in key for key in _keys(*plot.steps[0][1][0])):
        chance = rng.random()
        if short and chance < 0.24:
            name = unsaid.pop(chance < 0.12)
            cast["age"], cast["home"] = pick(rng, AGES), pick(rng, HOMES)
            step, ask = preludes()[name]
            sentences.append(telling.sentence(step))
            asks.append(ask)
        elif not short and chance < 0.5:
            cast["age"], cast["home"], cast["hair"] = pick(rng, AGES), pick(rng, HOMES), pick(rng, HAIR)
            step = (
                pick(rng, openings()[0 if telling.past else 2 :])[0]
                if chance < 0.3
                else preludes()["age" if chance < 0.4 else "home"][0]
            )
            sentences.append(telling.sentence(step))
    for _, variants in _chosen(rng, plot, short):
        variant = pick(rng, variants)
        for _ in range(3):
            if sentences and _repeats(sentences[-1], variant[0][0]):
                variant = pick(rng, variants)
        sentences += [telling.sentence(parts) for parts in variant]
    return Story(plot, telling, sentences, words, asks, unsaid)


def _repeats(sentence: str, start: object) -> bool:
    """Whether a sentence that starts so would repeat the last one's Then, Now, Soon or the like."""
    first = start.split(" ", 1)[0] if type(start) is str else ""
    return first in CONNECTIVES and sentence.startswith(first + " ")


def _chosen(rng: Random, plot: Plot, short: bool) -> list[tuple[bool, tuple]]:
    """The steps this telling takes. A long one always has its ending, and six steps or more."""
    optional = 0.12 if short else 0.5 + 0.3 * rng.random()
    steps = plot.steps
    taken = [needed or rng.random() < optional for needed, _ in steps]
    if not short:
        taken[-1] = True
        while sum(taken) < min(6, len(steps)):
            taken[int(rng.random() * len(steps))] = True
    return [step for step, take in zip(steps, taken, strict=True) if take]
