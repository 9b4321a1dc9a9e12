"""Inflect the open-class words of toyland (`data/words.txt`) and tag every form.

`lexicon()` maps a lower-case word form to its tags. Words of the closed classes (determiners, pronouns, be/have/do,
modals, prepositions, conjunctions, numerals) are not in it. Forms come from spelling rules; the file lists exceptions.

    name:m name:f | noun:sg noun:pl noun:mass | verb:<base|3sg|past|part|ing>:<frame> | adj adj:er adj:est
    adv adv:place adv:time adv:deg | interj

>>> sorted(lexicon()["mice"]), sorted(lexicon()["biggest"])
(['noun:pl'], ['adj:est'])
"""

from collections.abc import Iterable
from functools import cache

from tinygpt_hf.toyland.tables import entries


def _words(section: str) -> dict[str, list[str]]:
    return {key: value.split() for key, value in entries("words", section)}


NAMES_M, NAMES_F, KIN_F, KIN_M = _words("names").values()  # kin are used as names: Mom, Grandpa
NOUNS = _words("nouns")  # count nouns by what one can do with them
PLURAL = dict(entries("words", "plurals"))
SPELLING = _words("spelling")


def plural(noun: str) -> str:
    """Return the plural of a count noun: mouse -> mice, berry -> berries, bus -> buses, ball -> balls."""
    return PLURAL.get(noun) or _add_s(noun)


def _add_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "go")) else "s")


def _doubled(verb: str) -> str:
    return verb + verb[-1] if verb in SPELLING["doubled"] else verb


def _ed(verb: str) -> str:
    """Return the regular past: baked, carried, stopped."""
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return _doubled(verb) + "ed"


def _ing(verb: str) -> str:
    if verb in SPELLING:
        return SPELLING[verb][0]
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return _doubled(verb) + "ing"


@cache
def verbs() -> dict[str, dict[str, str]]:
    """Map each base to its five forms by name: verbs()["go"]["past"] == "went"."""
    forms = {}
    for key, _ in entries("words", "verbs"):
        base, past, part = key.split() if " " in key else (key, _ed(key), _ed(key))
        forms[base] = {"base": base, "3sg": _add_s(base), "ing": _ing(base), "past": past, "part": part}
    return forms


@cache
def lexicon() -> dict[str, frozenset[str]]:
    """Map each lower-case word form to its tags, for every open-class word of toyland."""
    tagged: list[tuple[str, Iterable[str]]] = [
        ("name:m", NAMES_M + KIN_M),
        ("name:f", NAMES_F + KIN_F),
        ("noun:sg", KIN_F + KIN_M),
    ]
    for nouns in NOUNS.values():
        tagged += [("noun:sg", nouns), ("noun:pl", map(plural, nouns))]
    tagged += [("noun:mass", nouns) for nouns in _words("mass").values()]
    for key, frames in entries("words", "verbs"):
        for form, word in verbs()[key.split()[0]].items():
            tagged += [(f"verb:{form}:{frame}", [word]) for frame in frames.split()]
    tags: dict[str, set[str]] = {}
    for tag, words in (*tagged, *_words("others").items()):
        for word in words:
            tags.setdefault(word, set()).add(tag)
    return {word: frozenset(names) for word, names in tags.items()}
