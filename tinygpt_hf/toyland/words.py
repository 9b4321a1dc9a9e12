"""The words toyland can write, read off its frames, pools and tables without telling a single story."""

import re
from random import Random

from tinygpt_hf.toyland import dialogues as talk
from tinygpt_hf.toyland import stories
from tinygpt_hf.toyland import tasks as small
from tinygpt_hf.toyland.facts import KNOWN, TOPICS
from tinygpt_hf.toyland.grammar import PRONOUNS, Member, article, frame
from tinygpt_hf.toyland.lexicon import plural
from tinygpt_hf.toyland.world import BOYS, COLORS, DAYS, GIRLS, KIN, NUMBERS

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def words_of(text: str) -> set[str]:
    """The word forms of a text in lower case; Tom's counts as tom."""
    return {word.removesuffix("'s") for word in WORD.findall(text.lower())}


def vocabulary() -> frozenset[str]:
    """Every word form the generator can write."""
    texts: list[str] = []
    spoken = {"A": BOYS + GIRLS, "B": BOYS + GIRLS, "C": BOYS + GIRLS, "K": KIN, "G": KIN}
    common = {**spoken, "age": stories.AGES, "home": stories.HOMES, "hair": stories.HAIR}

    def collect(frames: list[tuple], roles: dict[str, list[Member]]) -> None:
        for part in (part for parts in frames for part in parts):
            if isinstance(part, str):
                texts.append(part)
            elif part[0] == 4:
                plural = {member.plural for member in roles.get(part[1], [])} or {part[1] != "s"}
                texts.extend(part[2][tense + number] for tense in (0, 2) for number in plural)
            elif part[1] in roles:
                texts.extend(member.forms[part[2] if part[0] == -1 else ""] for member in roles[part[1]])

    for plot in stories.plots():
        roles = dict(common)
        for keys, pool in plot.choices:
            for place, key in enumerate(keys if keys.isupper() else (keys,)):
                roles[key] = [choice[place] for choice in pool]
        collect([parts for _, variants in plot.steps for variant in variants for parts in variant], roles)
        # a story on request names its object as one thing
        texts.extend(member.forms["a"] for member in roles[plot.key[1]] if "a" in member.forms)
        for ask in plot.asks:
            collect([ask.question, ask.clause, ask.answer], roles)
    collect([parts for variant in stories.openings() for parts in variant], common)
    for step, ask in stories.preludes().values():
        collect([step, ask.question, ask.clause, ask.answer], common)
    collect([frame(text) for pair in talk.NEVER_TOLD.values() for text in pair], common)
    texts += [word for words in PRONOUNS.values() for word in words] + COLORS + DAYS + NUMBERS[1:] + ["and"]
    texts += [sentence for topic in TOPICS for sentence in topic] + [text for known in KNOWN for text in known[:2]]
    texts += [text.replace("{clause}", "").replace("{clause_question}", "") for text in talk.ASKED] + [talk.UNKNOWN]
    for exchanges in (small.IDENTITY, small.GREETINGS, small.MOODS, small.CLOSINGS, small.STRANGE):
        texts += [text for exchange in exchanges for text in exchange]
    texts += [
        *small.OPPOSITE,
        *small.GROUP,
        *small.GROUPS,
        *map(article, small.THINGS),
        *small.WORDS,
        *small.ANIMALS,
        *small.SIZES,
    ]
    texts += [
        *small.DEEDS,
        *small.PLURALS,
        *map(plural, small.PLURALS),
        *small.SPELLED,
        *(word[0] for word in small.SPELLED),
    ]
    rng = Random(0)  # the fixed words around a task's own, from a few of each
    for make in small.TASKS:
        texts += [text for _ in range(20) for turn in [make(rng, False)] for text in (turn.user, turn.assistant)]
    texts += [text for turn in small.introduction(rng) for text in (turn.user, turn.assistant)]
    texts += [turn.user for _ in range(8) for turn in talk.story_on_request(rng, False)]
    texts += [turn.user for _ in range(8) for turn in talk.belongings(rng)] + talk.SPOTS
    texts.append("here is a story read this your name")
    return frozenset(word for text in texts for word in words_of(text))
