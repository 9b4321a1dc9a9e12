"""Make the small offline tasks: agreement, copying, brackets, arithmetic, recall. Made from a seed, the same everywhere.

    basics("copying", 2)       items: (texts to choose from, the right one first; its paradigm)

Every wrong choice occurs in the right place as often as the right one, so that chance is one over their number.

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
    """Texts to choose from, the right one first; the paradigm they belong to."""

    texts: tuple[str, ...]
    group: str


def basics(task: str, size: int = SIZE, seed: int = 0) -> list[Item]:
    """Make `size` different items of a task."""
    table = parsed((Path(__file__).parent / "data" / "basics.txt").read_text(encoding="utf-8"))
    words = {key: line.split() for key, line in (line.split(": ") for line in table["words"])}
    rng, made = Random(f"basics/{task}/{seed}"), dict[str, Item]()
    frames = [
        (name, frame)
        for name, every in (line.split(": ") for line in table["agreement"])
        for frame in every.split(" | ")
    ]
    while len(made) < size:
        match task:
            case "agreement":
                name, frame = frames[len(made) % len(frames)]
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
        made.setdefault(item.texts[0], item)
    return list(made.values())


def _copying(things: list[str]) -> Item:
    before = f"{', '.join(things)}. {', '.join(things[:3])}, "
    return Item(tuple(f"{before}{thing}." for thing in reversed(things)), "copying")


def _brackets(rng: Random) -> Item:
    """A few brackets, opened and closed as they should be; which one closes next?"""
    said, opened = [], []
    while len(said) < 4 or not opened or len(said) < 12 and rng.random() < 0.7:
        if opened and rng.random() < 0.45:
            said.append(CLOSING[opened.pop()])
        else:
            opened.append(rng.choice("([{"))
            said.append(opened[-1])
    right = CLOSING[opened[-1]]
    choices = [right, *(sign for sign in CLOSING.values() if sign != right)]
    return Item(tuple(" ".join([*said, sign]) for sign in choices), "brackets")


def _arithmetic(rng: Random) -> Item:
    sums = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(3)]
    before = ", ".join(f"{one} + {two} = {one + two}" for one, two in sums[:2])
    (one, two), right = sums[2], sum(sums[2])
    # the right one may be the first to the fourth of four numbers in a row
    least = max(1, right - rng.randint(0, 3))
    choices = [right, *(number for number in range(least, least + 4) if number != right)]
    return Item(tuple(f"{before}, {one} + {two} = {number}." for number in choices), "arithmetic")


def _recall(rng: Random, names: list[str], things: list[str]) -> Item:
    told = " ".join(f"{name} has the {thing}." for name, thing in zip(names, things, strict=True))
    asked = rng.randrange(4)
    choices = [names[asked], *(name for name in names if name != names[asked])]
    thing = things[asked]
    return Item(tuple(f"{told} Who has the {thing}? {name} has the {thing}." for name in choices), "recall")
