"""Generate small multiple-choice tasks from a seed: agreement, copying, brackets, arithmetic, recall.

    basics("copying", 2)       items: (choices, the right one first; paradigm)

Choices are balanced, so guessing reaches one over their number.

>>> basics("arithmetic", 1)[0].texts[0]
'1 + 9 = 10, 5 + 6 = 11, 8 + 3 = 11.'
"""

import re
from pathlib import Path
from random import Random
from typing import NamedTuple

from tinygpt_hf.toyland.tables import parsed

BASICS = ("agreement", "copying", "brackets", "arithmetic", "recall")
SIZE = 200
CLOSING = {"(": ")", "[": "]", "{": "}"}


class Item(NamedTuple):
    """The choices of an item, the right one first, and its paradigm."""

    texts: tuple[str, ...]
    group: str


def basics(task: str, size: int = SIZE, seed: int = 0) -> list[Item]:
    """Generate `size` different items of a task."""
    table = parsed((Path(__file__).parent / "data" / "basics.txt").read_text(encoding="utf-8"))
    words = {key: line.split() for key, line in (line.split(": ") for line in table["words"])}
    rng, items = Random(f"basics/{task}/{seed}"), dict[str, Item]()
    frames = [
        (name, frame)
        for name, every in (line.split(": ") for line in table["agreement"])
        for frame in every.split(" | ")
    ]
    while len(items) < size:
        match task:
            case "agreement":
                name, frame = frames[len(items) % len(frames)]
                one, other = rng.sample(range(len(words["singular"])), 2)
                frame = frame.format(s=words["singular"][one], p=words["plural"][other])
                item = Item(tuple(re.sub(r"\[(.*?)\|(.*?)\]", side, frame) for side in (r"\1", r"\2")), name)
            case "copying":
                item = _copying(rng.sample(words["things"], 4))
            case "brackets":
                item = _brackets(rng)
            case "arithmetic":
                item = _arithmetic(rng)
            case "recall":
                item = _recall(rng, rng.sample(words["names"], 4), rng.sample(words["things"], 4))
        items.setdefault(item.texts[0], item)
    return list(items.values())


def _copying(things: list[str]) -> Item:
    before = f"{', '.join(things)}. {', '.join(things[:3])}, "
    return Item(tuple(f"{before}{thing}." for thing in reversed(things)), "copying")


def _brackets(rng: Random) -> Item:
    """Generate a balanced prefix of brackets; the choices are the next closing bracket."""
    signs, opened = [], []
    while len(signs) < 4 or not opened or len(signs) < 12 and rng.random() < 0.7:
        if opened and rng.random() < 0.45:
            signs.append(CLOSING[opened.pop()])
        else:
            opened.append(rng.choice("([{"))
            signs.append(opened[-1])
    right = CLOSING[opened[-1]]
    choices = [right, *(sign for sign in CLOSING.values() if sign != right)]
    return Item(tuple(" ".join([*signs, sign]) for sign in choices), "brackets")


def _arithmetic(rng: Random) -> Item:
    sums = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(3)]
    before = ", ".join(f"{one} + {two} = {one + two}" for one, two in sums[:2])
    (one, two), right = sums[2], sum(sums[2])
    # four consecutive numbers; the right one is at a random position among them
    least = max(1, right - rng.randint(0, 3))
    choices = [right, *(number for number in range(least, least + 4) if number != right)]
    return Item(tuple(f"{before}, {one} + {two} = {number}." for number in choices), "arithmetic")


def _recall(rng: Random, names: list[str], things: list[str]) -> Item:
    facts = " ".join(f"{name} has the {thing}." for name, thing in zip(names, things, strict=True))
    k = rng.randrange(4)
    choices = [names[k], *(name for name in names if name != names[k])]
    return Item(tuple(f"{facts} Who has the {things[k]}? {name} has the {things[k]}." for name in choices), "recall")
