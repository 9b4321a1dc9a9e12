"""Generate English sentences from frames and a cast, in the past or present tense.

A frame is text with two kinds of slots:

    {form:X}  the cast member X in some form. Without a form: its name, "Tom" or "the dog".
              he him his   a pronoun if it is unambiguous, otherwise X in full
              a an         "a ball", "a red ball" (some for mass and plural)     the   "the ball"
              n cn ns      "ball", "red ball", "balls"     c   "red"     's   "Tom's"     at to   a place as phrase
    <verb>    the verb in the story's tense, agreeing with the cast member just before it, or with X: <be:X>;
              <be:s> singular, <be:p> plural. <not see> is "did not see"; <be!> is always present (direct speech).

>>> cast = {"A": person("tom", "m"), "T": thing("egg", "old")}
>>> Telling(cast, past=True).sentence(frame("{A} <have> {an:T}, and {he:A} <not want> to drop {him:T}."))
'Tom had an old egg, and he did not want to drop it.'
"""

import re
from dataclasses import dataclass, field
from functools import cache
from random import Random

from tinygpt_hf.toyland.lexicon import plural as plural_of
from tinygpt_hf.toyland.lexicon import verbs
from tinygpt_hf.toyland.tables import entries

CASES = ("he", "him", "his")  # subject, object, possessive
PRONOUNS = {
    gender: dict(zip(CASES, words.split(), strict=True))
    for gender, words in {"m": "he him his", "f": "she her her", "n": "it it its", "p": "they them their"}.items()
}
# past singular, past plural, present singular, present plural
AUXILIARY = {lemma: tuple(forms.split(" | ")) for lemma, forms in entries("words", "auxiliaries")}


def article(words: str) -> str:
    """Put "a" or "an" before words, by their first letter, which is right for all words of the tables."""
    return ("an " if words[0] in "aeiou" else "a ") + words


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A member of a cast, with all its written forms. Members are compared by identity."""

    forms: dict[str, str]
    gender: str  # m f n p, or x: never replaced by a pronoun
    plural: bool = False
    word: str = ""  # the word that decides which combinations are held out


def person(name: str, gender: str) -> Member:
    """Make a person with a name; gender is m or f."""
    written = name.capitalize()
    kid = "boy" if gender == "m" else "girl"
    return Member({"": written, "'s": written + "'s", "n": written, "kid": kid}, gender, word=name)


def thing(noun: str, adjective: str = "", kind: str = "sg", plain: str = "n") -> Member:
    """Make a thing or an animal; kind is sg, pl (shoes) or mass (milk), `plain` the gender of a singular."""
    described = f"{adjective} {noun}" if adjective else noun
    some = "some {}".format if kind != "sg" else article
    forms = {
        "": f"the {noun}", "the": f"the {noun}", "'s": f"the {noun}'s", "a": some(noun), "an": some(described),
        "n": noun, "cn": described, "ns": plural_of(noun) if kind == "sg" else noun, "c": adjective,
    }  # fmt: skip
    return Member(forms, "p" if kind == "pl" else plain, kind == "pl", noun)


def place(noun: str, preposition: str) -> Member:
    """Make a place: "to the park", "in the park"."""
    the = f"the {noun}"
    forms = {"": the, "the": the, "n": noun, "at": f"{preposition} {the}", "to": f"to {the}", "a": article(noun)}
    return Member(forms, "x", word=noun)


def phrase(words: str) -> Member:
    """Make a fixed phrase, such as "under the bed"."""
    return Member({"": words, "n": words}, "x", word=words)


def both(first: Member, second: Member) -> Member:
    """Join two members: "Tom and Mia", they."""
    written = f"{first.forms['']} and {second.forms['']}"
    return Member({"": written, "'s": written + "'s"}, "p", True, written)


def conjugated(lemma: str) -> tuple[str, ...]:
    """Return past singular, past plural, present singular and present plural; negated if the lemma begins with "not "."""
    negated, lemma = lemma.startswith("not "), lemma.removeprefix("not ")
    if lemma in AUXILIARY:
        return tuple(f"{form} not" for form in AUXILIARY[lemma]) if negated else AUXILIARY[lemma]
    if negated:
        return tuple(f"{form} not {lemma}" for form in AUXILIARY["do"])
    past, third = verbs()[lemma]
    return past, past, third, lemma


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot for a member of the cast, in one of its forms or as a pronoun."""

    key: str
    form: str


@dataclass(frozen=True, slots=True)
class Verb:
    """A slot for a verb that agrees with the member `key`, or is singular (s) or plural (p), with its four forms."""

    key: str
    forms: tuple[str, ...]


SLOT = re.compile(r"\{([^}]*)\}|<([^>]*)>")


@cache
def frame(text: str) -> tuple[str | Slot | Verb, ...]:
    """Parse a frame into literal text and slots."""
    parts: list[str | Slot | Verb] = []
    last, subject, slot = 0, None, None
    for match in SLOT.finditer(text):
        literal = text[last : match.start()]
        if literal:
            parts.append(literal)
        last = match.end()
        if match[1] is not None:
            form, _, key = match[1].rpartition(":")
            if key.endswith("'s"):
                form, key = "'s", key[:-2]
            slot = key
            if text[last : last + 2] == " <":
                subject = key
            parts.append(Slot(key, form))
        else:
            lemma, _, key = match[2].partition(":")
            present, lemma = lemma.endswith("!"), lemma.removesuffix("!")
            forms = conjugated(lemma)
            parts.append(Verb(key or subject or slot or "s", forms[2:] + forms[2:] if present else forms))
    if text[last:]:
        parts.append(text[last:])
    return tuple(parts)


@dataclass(eq=False, slots=True)
class Telling:
    """The state of a story being generated: cast, tense, and the members mentioned last, which decide on pronouns."""

    cast: dict[str, Member]
    past: bool
    rng: Random | None = None
    pronouns: float = 0.0  # probability that a sentence with the subject of the last one begins with a pronoun
    before: list[Member] = field(default_factory=list)
    now: list[Member] = field(default_factory=list)
    subject: Member | None = None

    def forget(self) -> None:
        """Clear the context, so that the next sentence has no pronoun for an earlier member."""
        self.before, self.now, self.subject = [], [], None

    def sentence(self, parts: tuple, capital: bool = True) -> str:
        """Generate the next sentence from a parsed frame."""
        cast, topic, tense = self.cast, self.subject, 0 if self.past else 2
        self.before, self.now, self.subject = self.now, (now := []), None
        out = []
        for part in parts:
            if type(part) is str:
                out.append(part)
            elif type(part) is Verb:
                plural = cast[part.key].plural if part.key in cast else part.key == "p"
                out.append(part.forms[tense + plural])
            else:
                member, form = cast[part.key], part.form
                if form in CASES:
                    if self._is_unambiguous(member, form):
                        out.append(PRONOUNS[member.gender][form])
                    else:
                        out.append(member.forms["'s" if form == "his" else ""])
                elif member is topic and part is parts[0] and self._continues(form, parts[1], member):
                    out.append(PRONOUNS[member.gender]["he"])
                else:
                    out.append(member.forms[form])
                if not now:
                    self.subject = member
                now.append(member)
        text = "".join(out)
        first = 1 if text[0] == '"' else 0
        return text[:first] + text[first].upper() + text[first + 1 :] if capital else text

    def _continues(self, form: str, following: object, member: Member) -> bool:
        """Decide at random whether a sentence that begins with the last one's subject begins with a pronoun."""
        name_and_verb = form == "" and type(following) is not str or following == " "
        allowed = name_and_verb and member.gender != "n" and self.rng is not None
        return allowed and self._is_unambiguous(member, "he") and self.rng.random() < self.pronouns

    def _is_unambiguous(self, member: Member, form: str) -> bool:
        """Tell whether a pronoun can refer only to this member, given this sentence so far and the one before."""
        gender, now, before = member.gender, self.now, self.before
        if gender == "x" or member not in now and member not in before:
            return False
        if any(other.gender == gender and other is not member for other in now):
            return False
        rivals = any(other.gender == gender and other is not member for other in before)
        return not rivals or (self.subject is member and form != "him")
