"""Write minimal pairs in toyland's words: a sentence, and the same with one error, as `evaluation/minimal_pairs.py` reads them.

    pairs(seed, size)      {"sentence_good", "sentence_bad", "UID"}: five paradigms in turn, no pair twice

Each sentence brings together a child and a toy that meet in no training document. `data/pairs.txt` holds the frames.

>>> pairs(1, 5)[2]["sentence_bad"]
'Felix could not saw the train.'
"""

import re
from collections.abc import Iterator
from random import Random

from tinygpt_hf.toyland.grammar import PRONOUNS, article
from tinygpt_hf.toyland.lexicon import plural
from tinygpt_hf.toyland.stories import BOYS, COLORS, GIRLS, TOYS, is_held_out, pick
from tinygpt_hf.toyland.tables import table

SEVERAL = "ball kite drum boat plane".split()  # the toys that toyland also knows in the plural

FRAMES = list(table("pairs").items())  # (paradigm, its frames)


def pairs(seed: int, size: int) -> list[dict[str, str]]:
    """Write `size` different pairs, one paradigm after the other; a larger size begins with the pairs of a smaller one."""
    rng, made = Random(f"toyland/pairs/{seed}"), {}
    while len(made) < size:
        paradigm, frames = FRAMES[len(made) % len(FRAMES)]
        good, bad = _filled(rng, pick(rng, frames))
        made.setdefault(good, {"sentence_good": good, "sentence_bad": bad, "UID": paradigm})
    return list(made.values())


def _filled(rng: Random, frame: str) -> Iterator[str]:
    """Yield the right sentence and the wrong one of a frame, with the same words drawn for its holes."""
    toys = SEVERAL if "{ns}" in frame else TOYS
    while not is_held_out((child := pick(rng, BOYS + GIRLS)).word, toy := pick(rng, toys)):
        pass
    friend, color = pick(rng, GIRLS if child.gender == "m" else BOYS), pick(rng, COLORS)
    he, him, his = PRONOUNS[child.gender].values()
    she, _, her = PRONOUNS[friend.gender].values()
    words = {"A": child.forms[""], "B": friend.forms[""], "he": he, "him": him, "his": his, "she": she, "her": her}
    words |= {"n": toy, "ns": plural(toy), "c": color, "a": article(color).split()[0]}
    words["not_a"] = "a" if words["a"] == "an" else "an"
    return (re.sub(r"\[(.*?)\|(.*?)\]", side, frame).format(**words) for side in (r"\1", r"\2"))
