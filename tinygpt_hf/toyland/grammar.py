"""Make English by rule: a sentence frame and a cast become one well-formed sentence, in past or present.

A frame is text with two kinds of holes.

    {form:X}  the cast member X in some form. Without a form: its name, "Tom" or "the dog".
              he him his   a pronoun where it can mean only X, otherwise X in full
              a an         "a ball", "a red ball" (some for mass and plural)     the   "the ball"
              n cn ns      "ball", "red ball", "balls"     c   "red"     's   "Tom's"     at to   a place as phrase
    <verb>    the verb in the tense of the telling, agreeing with the cast member just before it, or with X: <be:X>;
              <be:s> singular, <be:p> plural. <not see> is "did not see"; <be!> is present in any telling (speech).

>>> cast = {"A": person("tom", "m"), "T": thing("egg", "old")}
>>> Telling(cast, past=True).sentence(frame("{A} <have> {an:T}, and {he:A} <not want> to drop {him:T}."))
'Tom had an old egg, and he did not want to drop it.'
"""

import re
from dataclasses import dataclass
from functools import cache
from random import Random

from tinygpt_hf.toyland.lexicon import plural as plural_of
from tinygpt_hf.toyland.lexicon import verbs
from tinygpt_hf.toyland.tables import entries

PRONOUNS = {  # subject, object, possessive
    "m": ("he", "him", "his"),
    "f": ("she", "her", "her"),
    "n": ("it", "it", "its"),
    "p": ("they", "them", "their"),
}
CASES = {"he": 0, "him": 1, "his": 2}
# past singular, past plural, present singular, present plural
AUXILIARY = {lemma: tuple(forms.split(" | ")) for lemma, forms in entries("words", "auxiliaries")}


def article(words: str) -> str:
    """Put a or an before words, by their first letter: nothing drawn from begins with a silent h or a spoken y."""
    return ("an " if words[0] in "aeiou" else "a ") + words


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """Hold one member of a cast with all its written forms ready. Compared by identity: two Toms are two."""

    forms: dict[str, str]
    gender: str  # m f n p, or x: never replaced by a pronoun
    plural: bool = False
    word: str = ""  # what held-out combinations are counted by


def person(name: str, gender: str) -> Member:
    """Make a person with a name of their own. gender: m or f."""
    written = name.capitalize()
    kid = "boy" if gender == "m" else "girl"
    return Member({"": written, "'s": written + "'s", "n": written, "kid": kid}, gender, word=name)


def thing(noun: str, adjective: str = "", kind: str = "sg", plain: str = "n") -> Member:
    """Make a thing or an animal. kind: sg, pl (shoes) or mass (milk)."""
    described = f"{adjective} {noun}" if adjective else noun
    some = "some {}".format if kind != "sg" else article
    forms = {
        "": f"the {noun}", "the": f"the {noun}", "'s": f"the {noun}'s", "a": some(noun), "an": some(described),
        "n": noun, "cn": described, "ns": plural_of(noun) if kind == "sg" else noun, "c": adjective,
    }  # fmt: skip
    return Member(forms, "p" if kind == "pl" else plain, kind == "pl", noun)


def place(noun: str, preposition: str) -> Member:
    """Make a place one goes to and is at: to the park, in the park."""
    the = f"the {noun}"
    forms = {"": the, "the": the, "n": noun, "at": f"{preposition} {the}", "to": f"to {the}", "a": article(noun)}
    return Member(forms, "x", word=noun)


def phrase(words: str) -> Member:
    """Make a fixed phrase: under the bed."""
    return Member({"": words, "n": words}, "x", word=words)


def both(first: Member, second: Member) -> Member:
    """Make two members one: Tom and Mia, they."""
    written = f"{first.forms['']} and {second.forms['']}"
    return Member({"": written, "'s": written + "'s"}, "p", True, written)


def conjugated(lemma: str) -> tuple[str, str, str, str]:
    """Return past singular, past plural, present singular, present plural; with "not " before it, the denials."""
    denied, lemma = lemma.startswith("not "), lemma.removeprefix("not ")
    if lemma in AUXILIARY:
        return tuple(f"{form} not" for form in AUXILIARY[lemma]) if denied else AUXILIARY[lemma]
    if denied:
        return tuple(f"{form} not {lemma}" for form in AUXILIARY["do"])
    forms = verbs()[lemma]
    return forms["past"], forms["past"], forms["3sg"], forms["base"]


HOLE = re.compile(r"\{([^}]*)\}|<([^>]*)>")


@cache
def frame(text: str) -> tuple:
    """Parse a frame once: literal strings, ("slot", form, key) and ("verb", four forms, key, present)."""
    parts, last, subject, slot = [], 0, None, None
    for hole in HOLE.finditer(text):
        literal = text[last : hole.start()]
        if literal:
            parts.append(literal)
        last = hole.end()
        if hole[1] is not None:
            form, _, key = hole[1].rpartition(":")
            if key.endswith("'s"):
                form, key = "'s", key[:-2]
            slot = key
            if text[last : last + 2] == " <":
                subject = key
            parts.append((CASES[form], key) if form in CASES else (-1, key, form))
        else:
            lemma, _, key = hole[2].partition(":")
            present, lemma = lemma.endswith("!"), lemma.removesuffix("!")
            forms = conjugated(lemma)
            parts.append((4, key or subject or slot or "s", forms[2:] + forms[2:] if present else forms))
    if text[last:]:
        parts.append(text[last:])
    return tuple(parts)


class Telling:
    """Tell one story: its cast, its tense, and who was just mentioned, so that a pronoun means only one."""

    __slots__ = ("before", "cast", "now", "past", "pronouns", "rng", "subject")

    def __init__(self, cast: dict[str, Member], past: bool, rng: Random | None = None, pronouns: float = 0.0):
        """pronouns: how often a sentence about the one the last sentence was about begins with he, she or they."""
        self.cast, self.past, self.rng, self.pronouns = cast, past, rng, pronouns
        self.before: list[Member] = []
        self.now: list[Member] = []
        self.subject: Member | None = None

    def forget(self) -> None:
        """Start afresh: what was said before is no context for a pronoun."""
        self.before, self.now, self.subject = [], [], None

    def sentence(self, parts: tuple, capital: bool = True) -> str:
        """Write the next sentence from a parsed frame."""
        cast, now = self.cast, self.now
        topic = self.subject
        self.before, self.now, self.subject = now, (now := []), None
        out = []
        for part in parts:
            if type(part) is str:
                out.append(part)
                continue
            code, key = part[0], part[1]
            if code == 4:
                plural = cast[key].plural if key in cast else key == "p"
                out.append(part[2][(0 if self.past else 2) + plural])
                continue
            member = cast[key]
            if code >= 0 and self._clear(member, code):
                out.append(PRONOUNS[member.gender][code])
            elif code == -1 and member is topic and part is parts[0] and self._continues(part, parts[1], member):
                out.append(PRONOUNS[member.gender][0])
            elif code == 2:
                out.append(member.forms["'s"])
            else:
                out.append(member.forms[part[2] if code == -1 else ""])
            if self.subject is None:
                self.subject = member
            now.append(member)
        text = "".join(out)
        if not capital:
            return text
        if text[0] == '"':
            return '"' + text[1].upper() + text[2:]
        return text[0].upper() + text[1:]

    def _continues(self, part: tuple, following: object, member: Member) -> bool:
        """Tell whether a sentence beginning with the topic of the last one begins with a pronoun: it may, and chance decides."""
        name_and_verb = part[2] == "" and type(following) is tuple or following == " "
        allowed = name_and_verb and member.gender != "n" and self.rng is not None
        return allowed and self._clear(member, 0) and self.rng.random() < self.pronouns

    def _clear(self, member: Member, case: int) -> bool:
        """Tell whether a pronoun can mean only this member, given this sentence so far and the one before."""
        now, before = self.now, self.before
        if member.gender == "x" or member not in now and member not in before:
            return False
        if any(other.gender == member.gender and other is not member for other in now):
            return False
        rivals = any(other.gender == member.gender and other is not member for other in before)
        return not rivals or (self.subject is member and case != 1)
