"""Read the names, nouns and verbs of toyland (`data/words.txt`) and inflect them by spelling rules and exceptions.

>>> plural("mouse"), verbs()["carry"]
('mice', ('carried', 'carries'))
"""

from functools import cache

from tinygpt_hf.toyland.tables import entries


def _words(section: str) -> dict[str, list[str]]:
    return {key: value.split() for key, value in entries("words", section)}


NAMES_M, NAMES_F, KIN_F, KIN_M = _words("names").values()  # kin are used as names: Mom, Grandpa
NOUNS = _words("nouns")  # count nouns by category
PLURAL = dict(entries("words", "plurals"))


def plural(noun: str) -> str:
    """Return the plural of a count noun: mouse -> mice, berry -> berries, bus -> buses, ball -> balls."""
    return PLURAL.get(noun) or _add_s(noun)


def _add_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "go")) else "s")


@cache
def verbs() -> dict[str, tuple[str, str]]:
    """Return the past tense and the third person of each verb by its base form: verbs()["go"] == ("went", "goes")."""
    lists = dict(entries("words", "verbs"))
    past = dict(pair.split() for pair in lists["irregular"].split(" | "))
    for verb in lists["regular"].split():
        if verb.endswith("y") and verb[-2] not in "aeiou":
            past[verb] = verb[:-1] + "ied"
        else:
            stem = verb + verb[-1] if verb in lists["doubled"].split() else verb
            past[verb] = stem + ("d" if verb.endswith("e") else "ed")
    return {base: (form, _add_s(base)) for base, form in past.items()}
