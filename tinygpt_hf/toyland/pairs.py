"""Generate minimal pairs in toyland's vocabulary: a sentence, and the same with one error (see evaluation/minimal_pairs.py).

    pairs(seed, size)      {"sentence_good", "sentence_bad", "UID"}: five paradigms in turn, all pairs different

Each sentence has a held-out combination of a child and a toy. `data/pairs.txt` holds the frames.

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

SEVERAL = "ball kite drum boat plane".split()  # toys that toyland also has in the plural

FRAMES = list(table("pairs").items())  # (paradigm, its frames)


def pairs(seed: int, size: int) -> list[dict[str, str]]:
    """Generate `size` different pairs, paradigms in turn. A larger size begins with the pairs of a smaller one."""
    rng, found = Random(f"toyland/pairs/{seed}"), {}
    while len(found) < size:
        paradigm, frames = FRAMES[len(found) % len(FRAMES)]
        good, bad = _fill(rng, pick(rng, frames))
        found.setdefault(good, {"sentence_good": good, "sentence_bad": bad, "UID": paradigm})
    return list(found.values())


def _fill(rng: Random, frame: str) -> Iterator[str]:
    """Yield the good and the bad sentence of a frame, with the same random words."""
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
