"""Generate small tasks and small talk, which need no story.

`data/tasks.txt` and `data/talk.txt` hold the wording. Facts (sums, opposites, days) are the same in both splits. Combinations of
words (to repeat, to reverse, to count) are held out as in stories.
"""

from random import Random

from tinygpt_hf.toyland.grammar import article
from tinygpt_hf.toyland.lexicon import NOUNS, plural
from tinygpt_hf.toyland.stories import BOYS, COLORS, DAYS, GIRLS, NUMBERS, TOYS, is_held_out, listed, pick
from tinygpt_hf.toyland.tables import Exchange, entries, exchange, table

WORDING = {
    name: exchange(line, kind) for kind in ("task", "color", "name", "story") for name, line in entries("tasks", kind)
}
SAID = {
    kind: [exchange(line, kind) for line in table("talk")[kind]]
    for kind in ("identity", "greeting", "talk", "unknown", "closing")
}
KNOWN = [exchange(line, "fact") for line in table("facts")["questions"]]
TASKS = (*(name for name, ask in WORDING.items() if ask.kind in ("task", "color")), "known", "known")
PAIRS = [tuple(pair.split()) for pair in dict(entries("tasks", "opposites"))["pairs"].split(" | ")]
OPPOSITE = {
    one: other for pair in reversed(PAIRS) for one, other in (pair, pair[::-1])
}  # of two pairs with a common word, the first wins
GROUP = {word: group for group, words in entries("tasks", "groups") for word in words.split()}
PLURALS, SPELLED, SIZES = (words.split() for _, words in entries("tasks", "words"))
THINGS = NOUNS["toy"][:14] + NOUNS["treasure"] + NOUNS["fruit"] + NOUNS["thing"] + NOUNS["clothes"]
WORDS = THINGS + NOUNS["farm"] + NOUNS["pet"] + NOUNS["wild"] + NOUNS["bird"] + COLORS
ANIMALS = NOUNS["farm"] + NOUNS["wild"][:10] + NOUNS["pet"]
DEEDS = listed("deed")


def worded_exchange(rng: Random, name: str, values: dict[str, str]) -> Exchange:
    """Fill the placeholders of one entry of `data/tasks.txt`, with a random wording."""
    kind, question, _, answer, accept = WORDING[name]
    if " | " in question:
        question = pick(rng, question.split(" | "))
    return Exchange(kind, question, "", answer, accept).filled(values)


def fixed_exchange(rng: Random, kind: str, skip: int = 0) -> Exchange:
    """Draw one of the fixed exchanges of a kind, without the first `skip`."""
    return pick(rng, SAID[kind][skip:])


def task(rng: Random, held_out: bool) -> Exchange:
    """Draw a small task."""
    name = pick(rng, TASKS)
    return pick(rng, KNOWN) if name == "known" else worded_exchange(rng, name, _values(rng, name, held_out))


def _values(rng: Random, name: str, held_out: bool) -> dict[str, str]:
    """Draw values for the placeholders of a task."""
    match name:
        case "sum":
            one = 1 + int(rng.random() * 9)
            two = 1 + int(rng.random() * (10 - one))
            return dict(one=NUMBERS[one], two=NUMBERS[two], total=NUMBERS[one + two])
        case "number":
            before = 1 + int(rng.random() * 9)
            return dict(before=NUMBERS[before], after=NUMBERS[before + 1])
        case "day":
            before = int(rng.random() * 7)
            return dict(before=DAYS[before], after=DAYS[(before + 1) % 7])
        case "opposite":
            word, other = pick(rng, list(OPPOSITE.items()))
            return dict(word=word, other=other)
        case "group":
            word, group = pick(rng, list(GROUP.items()))
            return dict(word={"a color": word, "a day": word.capitalize()}.get(group, article(word)), group=group)
        case "plural":
            word = pick(rng, PLURALS)
            return dict(word=word, words=plural(word), number=pick(rng, NUMBERS[2:6]))
        case "letter":
            word = pick(rng, SPELLED)
            return dict(word=word, letter=word[0].upper())
        case "count":
            *things, last = map(article, _drawn(rng, held_out, THINGS, 2 + int(rng.random() * 3)))
            return dict(words=f"{', '.join(things)} and {last}", number=NUMBERS[len(things) + 1])
        case "reverse":
            one, two = _drawn(rng, held_out, WORDS, 2)
            return dict(one=one, two=two)
        case "repeat":
            while True:
                animal, deed = pick(rng, ANIMALS), pick(rng, DEEDS)
                if is_held_out(animal, deed) == held_out:
                    return dict(size=pick(rng, SIZES), animal=animal, deed=deed)
        case "mine":
            things, colors = _drawn(rng, held_out, TOYS, 2), rng.sample(COLORS, 2)
            one, two = (article(f"{color} {thing}") for color, thing in zip(colors, things, strict=True))
            asked, color = pick(rng, list(zip(things, colors, strict=True)))
            return dict(one=one, two=two, asked=asked, color=color)
    raise ValueError(f"no task {name}")


def _drawn(rng: Random, held_out: bool, words: list[str], count: int) -> list[str]:
    """Draw `count` different words of which the first two are, or are not, held out together."""
    while True:
        drawn = rng.sample(words, count)
        if is_held_out(*drawn[:2]) == held_out:
            return drawn


def introduction(rng: Random) -> list[Exchange]:
    """Generate a turn in which the user says a name, and perhaps one that asks for it."""
    name = pick(rng, BOYS + GIRLS).forms[""]
    turns = [worded_exchange(rng, "introduction", {"name": name})]
    return turns + [worded_exchange(rng, "recall", {"name": name})] if rng.random() < 0.7 else turns
