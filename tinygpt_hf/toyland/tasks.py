"""Draw small tasks and small talk: what the assistant does without a story.

A `Turn` is one exchange; `task(rng, held_out)` draws one. `data/tasks.txt` and `data/talk.txt` hold the wording. Closed
knowledge (sums, opposites, days) is the same everywhere; open combinations (which words to repeat, to turn around, to
count) are held out like the stories' are.
"""

from random import Random
from typing import NamedTuple

from tinygpt_hf.toyland.grammar import article
from tinygpt_hf.toyland.lexicon import NOUNS, plural
from tinygpt_hf.toyland.stories import BOYS, COLORS, DAYS, GIRLS, NUMBERS, TOYS, is_held_out, listed, pick
from tinygpt_hf.toyland.tables import Exchange, entries, exchange, table


class Turn(NamedTuple):
    """What the user says, what the assistant answers, of which kind, and what a right answer contains."""

    user: str
    assistant: str
    kind: str
    accept: tuple[str, ...]


WORDING = {
    name: exchange(line, kind) for kind in ("task", "color", "name", "story") for name, line in entries("tasks", kind)
}
SAID = {
    kind: [exchange(line, kind) for line in table("talk")[kind]]
    for kind in ("identity", "greeting", "talk", "unknown", "closing")
}
KNOWN = [exchange(line, "fact") for line in table("facts")["questions"]]
PAIRS = [tuple(pair.split()) for pair in dict(entries("tasks", "opposites"))["pairs"].split(" | ")]
# Which word answers "the opposite of" each: the first pair a word is found in counts.
OPPOSITE = {one: other for pair in reversed(PAIRS) for one, other in (pair, pair[::-1])}
GROUP = {word: group for group, words in entries("tasks", "groups") for word in words.split()}
PLURALS, SPELLED, SIZES = (words.split() for _, words in entries("tasks", "words"))
THINGS = NOUNS["toy"][:14] + NOUNS["treasure"] + NOUNS["fruit"] + NOUNS["thing"] + NOUNS["clothes"]
WORDS = THINGS + NOUNS["farm"] + NOUNS["pet"] + NOUNS["wild"] + NOUNS["bird"] + COLORS
ANIMALS = NOUNS["farm"] + NOUNS["wild"][:10] + NOUNS["pet"]
DEEDS = listed("deed")


def worded(rng: Random, name: str, /, **values: str) -> Turn:
    """Fill the holes of one task and choose among its wordings."""
    asked = WORDING[name].filled(**values)
    questions = asked.question.split(" | ")
    question = pick(rng, questions) if len(questions) > 1 else asked.question
    return Turn(question, asked.answer, asked.kind, asked.accept)


def said(rng: Random, kind: str, skip: int = 0) -> Turn:
    """Draw one of the fixed exchanges of a kind, after the first few."""
    return _turn(pick(rng, SAID[kind][skip:]))


def _turn(asked: Exchange) -> Turn:
    return Turn(asked.question, asked.answer, asked.kind, asked.accept)


def _sum(rng: Random, held_out: bool) -> Turn:
    first = 1 + int(rng.random() * 9)
    second = 1 + int(rng.random() * (10 - first))
    return worded(rng, "sum", one=NUMBERS[first], two=NUMBERS[second], total=NUMBERS[first + second])


def _next_number(rng: Random, held_out: bool) -> Turn:
    number = 1 + int(rng.random() * 9)
    return worded(rng, "number", before=NUMBERS[number], after=NUMBERS[number + 1])


def _next_day(rng: Random, held_out: bool) -> Turn:
    day = int(rng.random() * 7)
    return worded(rng, "day", before=DAYS[day], after=DAYS[(day + 1) % 7])


def _opposite(rng: Random, held_out: bool) -> Turn:
    word, other = pick(rng, list(OPPOSITE.items()))
    return worded(rng, "opposite", word=word, other=other)


def _group(rng: Random, held_out: bool) -> Turn:
    word, group = pick(rng, list(GROUP.items()))
    written = {"a color": word, "a day": word.capitalize()}.get(group, article(word))
    return worded(rng, "group", word=written, group=group)


def _plural(rng: Random, held_out: bool) -> Turn:
    word, number = pick(rng, PLURALS), pick(rng, NUMBERS[2:6])
    return worded(rng, "plural", word=word, words=plural(word), number=number)


def _letter(rng: Random, held_out: bool) -> Turn:
    word = pick(rng, SPELLED)
    return worded(rng, "letter", word=word, letter=word[0].upper())


def _drawn(rng: Random, held_out: bool, words: list[str], count: int) -> list[str]:
    """Draw so many different words whose first two are held out together, or are not."""
    while True:
        found = rng.sample(words, count)
        if is_held_out(*found[:2]) == held_out:
            return found


def _count(rng: Random, held_out: bool) -> Turn:
    *things, last = (article(word) for word in _drawn(rng, held_out, THINGS, 2 + int(rng.random() * 3)))
    return worded(rng, "count", words=f"{', '.join(things)} and {last}", number=NUMBERS[len(things) + 1])


def _reverse(rng: Random, held_out: bool) -> Turn:
    one, two = _drawn(rng, held_out, WORDS, 2)
    return worded(rng, "reverse", one=one, two=two)


def _repeat(rng: Random, held_out: bool) -> Turn:
    while True:
        animal, deed = pick(rng, ANIMALS), pick(rng, DEEDS)
        if is_held_out(animal, deed) == held_out:
            return worded(rng, "repeat", size=pick(rng, SIZES), animal=animal, deed=deed)


def _mine(rng: Random, held_out: bool) -> Turn:
    things, colors = _drawn(rng, held_out, TOYS, 2), rng.sample(COLORS, 2)
    one, two = (article(f"{color} {thing}") for color, thing in zip(colors, things, strict=True))
    asked, color = pick(rng, list(zip(things, colors, strict=True)))
    return worded(rng, "mine", one=one, two=two, asked=asked, color=color)


def _known(rng: Random, held_out: bool) -> Turn:
    return _turn(pick(rng, KNOWN))


# fmt: off
TASKS = (
    _sum, _next_number, _next_day, _opposite, _group, _plural, _letter, _count, _reverse, _repeat, _mine, _known, _known,
)  # fmt: on


def task(rng: Random, held_out: bool) -> Turn:
    """Draw one small task."""
    return pick(rng, TASKS)(rng, held_out)


def introduction(rng: Random) -> list[Turn]:
    """Let the user say a name, and perhaps ask for it again."""
    name = pick(rng, BOYS + GIRLS).forms[""]
    turns = [worded(rng, "introduction", name=name)]
    return turns + [worded(rng, "recall", name=name)] if rng.random() < 0.7 else turns
