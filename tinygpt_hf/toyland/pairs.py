"""Minimal pairs in toyland's words: a sentence, and the same with one fault, as `evaluation/minimal_pairs.py` reads them.

    pairs(seed, size)      {"sentence_good", "sentence_bad", "UID"}: five paradigms in turn, no pair twice

Each sentence brings together a child and a toy that meet in no training document, so none of them was read in training.

>>> pairs(1, 5)[2]["sentence_bad"]
'Felix could not saw the train.'
"""

import re
from collections.abc import Iterator
from random import Random

from tinygpt_hf.toyland.grammar import PRONOUNS, article
from tinygpt_hf.toyland.lexicon import plural
from tinygpt_hf.toyland.stories import BOYS, COLORS, GIRLS, TOYS, is_held_out, pick

SEVERAL = "ball kite drum boat plane".split()  # the toys that toyland also knows in the plural

# [right|wrong] is all that the two sentences of a pair differ in. {A} is a child and {B} one of the other gender; {he}, {him}
# and {his} can mean only {A}, {she} and {her} only {B}. {n} is a toy, {ns} several of it, {c} its color; {a} is the article
# that goes before the color, {not_a} is the other one.
PARADIGMS = {
    "agreement": """
        {A} [has|have] {a} {c} {n}.
        {A} [wants|want] to play with the {n}.
        {A} [was|were] happy with the {n}.
        {A} [does|do] not find the {n}.
        {A} and {B} [were|was] happy with the {n}.
        {A} and {B} [play|plays] with the {n} every day.
        {A} and {B} [do|does] not find the {n}.
        {A}'s {n} [is|are] {c}.
        {A}'s {ns} [are|is] {c}.
        The {ns} behind {A} [were|was] {c}.
        There [are|is] two {ns} in {A}'s bag.""",
    "determiner": """
        {A} has [{a}|{not_a}] {c} {n}.
        {A} found [{a}|{not_a}] {c} {n} under the bed.
        {A} and {B} saw [an|a] old {n}.
        {A} got [a|an] new {n}.
        {A} gave {B} [a|many] {n}.
        {A} likes [every|many] {n}.
        {A} brought two [{ns}|{n}].
        {A} had many [{ns}|{n}].
        {A} has one [{n}|{ns}].
        {A} found [some|a] {ns}.""",
    "tense": """
        {A} did not [find|found] the {n}.
        {A} could not [see|saw] the {n}.
        {A} wanted to [fix|fixed] the {n}.
        {A} helped {B} to [find|found] the {n}.
        {A} was sad because {he} [lost|loses] the {n}.
        One day, {A} lost the {n} and [cried|cries].
        {A} took the {n} and [gave|gives] it to {B}.
        {A} finds the {n} and [gives|gave] it to {B}.
        Tomorrow {A} will [bring|brought] the {n}.
        Did {A} [find|finds] the {n}?""",
    "word_order": """
        {A} [has {a}|{a} has] {c} {n}.
        {A} found {a} [{c} {n}|{n} {c}] under the bed.
        {A} [did not|not did] find the {n}.
        {A} wants [to find|find to] the {n}.
        {A} gave [the {n}|{n} the] to {B}.
        {A} looked [under the|the under] bed and found the {n}.
        {A} was [very happy|happy very] with the {n}.
        {A} put the {n} [in the|the in] box.
        Then [{A} and|and {A}] {B} played with the {n}.
        Where [is {A}'s|{A}'s is] {n}?""",
    "pronoun": """
        {A} was sad because [{he}|{she}] lost the {n}.
        {A} was sad because [{he}|{him}] could not find the {n}.
        {A} loves [{his}|{her}] {c} {n}.
        {A} looked for the {n} in [{his}|{her}] room.
        {A} lost the {n}, and {B} helped [{him}|{he}].
        {A} had the {n}, but {B} did not see [{him}|{he}].
        {A} found the {n} and took [it|them] home.
        {A} found the {ns} and took [them|it] home.
        {A} dropped the {n}, and [it|they] was broken.
        "That is [my|me] {n}," said {A}.""",
}
FRAMES = [(name, [line.strip() for line in text.strip().splitlines()]) for name, text in PARADIGMS.items()]


def pairs(seed: int, size: int) -> list[dict[str, str]]:
    """Write `size` different pairs, one paradigm after the other; a larger size begins with the pairs of a smaller one."""
    rng, made = Random(f"toyland/pairs/{seed}"), {}
    while len(made) < size:
        paradigm, frames = FRAMES[len(made) % len(FRAMES)]
        good, bad = _filled(rng, pick(rng, frames))
        made.setdefault(good, {"sentence_good": good, "sentence_bad": bad, "UID": paradigm})
    return list(made.values())


def _filled(rng: Random, frame: str) -> Iterator[str]:
    """The right sentence and the wrong one of a frame, with the same words drawn for its holes."""
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
