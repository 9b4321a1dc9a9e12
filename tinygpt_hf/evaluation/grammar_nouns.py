"""Noun phrases: determiner, adjectives, noun, what follows it; names, pronouns; several joined by and.

The promise that matters: a singular count noun has a determiner, its number fits the determiner, a pronoun has the
case of its place, and every noun phrase says what verb it agrees with.
"""

from tinygpt_hf.evaluation import grammar_idioms as idioms
from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_adjectives import Adjectives
from tinygpt_hf.evaluation.grammar_chart import by_first_word, ends, memo
from tinygpt_hf.evaluation.grammar_words import DEF, MASS, PL, SG

_QUANTITIES = by_first_word(closed.QUANTITIES)
_LONG_PREPOSITIONS = by_first_word(idioms.LONG_PREPOSITIONS)
_CONDITIONAL_SG = ("dear", "little", "old", "poor", "young", "big", "brave", "clever", "silly", "happy")
# Nouns that stand before another noun: "apple tree", "toy box". Any singular noun of things, food and places may,
# but not people, animals or times, which would let "the dog cat" through.
_FIRST_OF_TWO = frozenset(
    """
    apple pear plum peach cherry orange lemon banana berry grape melon carrot potato tomato onion pumpkin bean pea
    corn cookie sandwich egg pie cake pizza bread cheese soup rice honey jam butter milk water juice tea fruit
    vegetable toy ball kite train boat car truck rocket game book paper wool wood metal glass snow rain sand mud
    grass straw hay school park zoo farm beach garden forest village city town kitchen bedroom bathroom house yard
    door window bed table wall roof floor street road bridge birthday party picnic race music art math story picture
    letter number word color bus bike ship plane fire sun moon star cloud storm flower rose leaf tree rock stone
    river lake sea ocean pond coffee teddy baby doll computer phone police post bath shower hand foot head hair
    tooth ear eye market shop library museum station barn winter summer spring autumn bakery ice chocolate family
    candy lunch dinner breakfast key shell feather gem candle clock mirror camera wind fairy king rainbow popcorn
    salad shoe hat coat rubber plastic stick wooden gold silver treasure cardboard football soccer baseball jungle
    desert language mountain hill castle tractor engine wheel robot puppet balloon drum piano guitar circus fair
    harbor island
    """.split()
)
_ANIMALS = frozenset(
    """fish dog cat bird bee horse cow pig sheep duck mouse ant spider rabbit
    chicken animal butterfly frog owl pet""".split()
)
_OF_ANIMALS = frozenset(
    """
    ""food house houses bed bowl bone tank nest seed hole holes web webs net pond ride farm family hive feather
    feathers egg eggs toy park shop store pen bell hill cage tail trainer doctor soup sandwich lover tower
    """
    "".split()
)
_DATED = frozenset("summer winter spring autumn school birthday market snow party rain christmas".split())
_ABOUT_SCHOOL = frozenset(
    "like likes liked love loves loved start starts started finish finished leave left about".split()
)
_DAYTIMES = frozenset("morning afternoon evening night".split())
_IN_THE_DAY = frozenset("sun sky air light star stars wind walk song songs bus train snack breeze".split())


class NounPhrases(Adjectives):
    @memo
    def nbar(self, i: int, definite: bool) -> tuple[int, int, int]:
        """Adjectives and noun: ends by number (singular count, plural, mass)."""
        word = self.words[i]
        sg = pl = mass = 0
        if word.sg or word.pl or word.mass:
            sg, pl, mass = (2 << i if has else 0 for has in (word.sg, word.pl, word.mass))
            after = self.words[i + 1]
            noun = (after.sg or after.pl or after.mass) and not after.adj and after.text != word.text
            first = (
                word.text in _FIRST_OF_TWO
                or (word.text in _DAYTIMES and after.text in _IN_THE_DAY)
                or (word.text in _ANIMALS and after.text in _OF_ANIMALS)
            )
            if not word.sg and not (after.sg or after.pl):  # "milk bottle", not "milk juice"
                noun = False
            if after.text in closed.TIME_NOUNS and word.text not in _DATED:
                noun = False
            if (word.sg or word.mass) and first and noun:
                s, p, m = self.nbar(i + 1, definite)
                sg, pl, mass = sg | s, pl | p, mass | m
        for j in ends(self.prenominal(i, definite)):
            aged = self.texts[i] == "old" and self.texts[j] in closed.UNITS and self.texts[i - 1] in closed.NUMBERS
            starts = [j] if not aged else []  # "six years old", not "six old years"
            if self.texts[j] in (",", "and", "but", "or"):
                k = j + 1 + (self.texts[j] == "," and self.texts[j + 1] == "and")
                if self.prenominal(k, definite):
                    starts.append(k)
            if self.texts[j] == "one":
                sg |= 2 << j
            elif self.texts[j] == "ones":
                pl |= 2 << j
            if definite and self.texts[j] in closed.NUMBERS:
                pl |= self.nbar(j + 1, definite)[1]
            for k in starts:
                s, p, m = self.nbar(k, definite)
                sg, pl, mass = sg | s, pl | p, mass | m
        return sg, pl, mass

    # ---------------------------------------------------------------- determiners and heads
    @memo
    def specifiers(self, i: int) -> tuple[tuple[int, int], ...]:
        """(end, what may follow) for every determiner at i, the empty one included."""
        text, found = self.texts[i], [(i, PL | MASS)]
        for phrase in _QUANTITIES.get(text, ()):
            if self.texts[i : i + len(phrase)] == phrase:
                found.append((i + len(phrase), closed.QUANTITIES[phrase]))
        if text in closed.DETERMINERS:
            allowed = closed.DETERMINERS[text]
            found.append((i + 1, allowed))
            after = self.texts[i + 1]
            if allowed & DEF:
                if after in closed.NUMBERS:
                    found.append((i + 2, PL | DEF))
                elif after in ("few", "many"):
                    found.append((i + 2, PL | DEF))
                elif after == "one":
                    found.append((i + 2, SG | DEF))
            elif after in ("other", "more") and text in ("some", "many", "no", "any", "one"):
                found.append((i + 2, allowed))
            if text in closed.PREDETERMINERS:
                found += [(j, a & ~SG | (MASS if a & MASS else 0) | (SG if text != "both" else 0))
                          for j, a in self.specifiers(i + 1) if a & DEF]  # fmt: skip
        elif text in closed.NUMBERS:
            k = i + 1
            while self.texts[k] in closed.NUMBERS or (self.texts[k] == "and" and self.texts[k - 1] == "hundred"):
                k += 1
            found.append((k + (self.texts[k] in ("more", "other")), PL))
        elif text.isdigit():
            found.append((i + 1, SG if text == "1" else PL))
        elif text == "other":
            found.append((i + 1, PL | MASS))
        return tuple(found)

    @memo
    def head(self, i: int) -> tuple[int, int]:
        """A noun phrase down to its noun, without what follows: ends by agreement (is, are)."""
        text, word = self.texts[i], self.words[i]
        s = p = 0
        for j, allowed in self.specifiers(i):
            sg, pl, mass = self.nbar(j, bool(allowed & DEF))
            s |= (sg if allowed & SG else 0) | (mass if allowed & MASS else 0)
            p |= pl if allowed & PL else 0
            if j > i and allowed & (SG | DEF) and text not in closed.POSSESSIVES:
                if self.texts[j] == "one" and text not in ("a", "an", "one"):
                    s |= 2 << j
                elif self.texts[j] == "ones" and allowed & PL:
                    p |= 2 << j
            if j > i and allowed & DEF and self.texts[j] == "others":
                p |= 2 << j
            if j == i + 1 and text == "the" and self.texts[j] in closed.ORDINALS | {"other", "same", "last", "next"}:
                s |= 2 << j
            if j > i and text in closed.POSSESSIVES:  # "my friend Tom", "her dog, Max" is left to the comma rule
                for k in ends(sg):
                    if self.words[k].name and self.texts[k - 1] in closed.PEOPLE:
                        s |= 2 << k
        if word.name:
            s |= 2 << i
        if text in closed.TITLES and self.words[i + 1].name:
            s |= 4 << i
        if text in _CONDITIONAL_SG and self.words[i + 1].name and i > 0:
            s |= 4 << i
        if text in closed.INDEFINITES:
            s |= 2 << i
            after = self.words[i + 1]
            if self.texts[i + 1] == "else":
                s |= 4 << i
            if after.adj or after.deg or after.er:
                s |= self.adjective_phrase(i + 1)
        if text == "no" and self.texts[i + 1] == "one":
            s |= 4 << i
        if text in closed.QUANTIFIER_PRONOUNS:
            agreement = closed.QUANTIFIER_PRONOUNS[text]
            s, p = (s | 2 << i if "s" in agreement else s), (p | 2 << i if "p" in agreement else p)
        if text in ("lots", "plenty") or (text == "a" and self.texts[i + 1] in ("lot", "few", "little", "bit")):
            p, s = p | (2 if text != "a" else 4) << i, s | (2 if text != "a" else 4) << i
        if text in ("a", "one") and self.texts[i + 1] == "hundred":
            p |= 4 << i
        if text in closed.NUMBERS and self.texts[i + 1] in ("comes", "is"):  # "six comes after five"
            s |= 2 << i
        if text in closed.NUMBERS | {"one"} and self.texts[i + 1] in ("plus", "minus", "times"):  # "two plus three"
            s |= self.head(i + 2)[1] | self.head(i + 2)[0]
        if text.isdigit():
            p |= 2 << i
            s |= 2 << i
        if text == "what":  # "what he wanted"
            s |= self.free_relative(i)
        return self._possessed(s, p)

    def _possessed(self, s: int, p: int) -> tuple[int, int]:
        """Tom's dog, the boys' ball, my mother's friend's house."""
        pending = s | p
        pending_seen = 0
        while pending & ~pending_seen:
            fresh, pending_seen = pending & ~pending_seen, pending_seen | pending
            for j in ends(fresh):
                if (self.texts[j] == "'s" and 1 << j & (s | p)) or (self.texts[j] == "'" and 1 << j & p):
                    k = j + 1
                    if self.texts[k] in closed.NUMBERS:
                        p |= self.nbar(k + 1, True)[1]
                    sg, pl, mass = self.nbar(k, True)
                    s, p = s | sg | mass, p | pl
            pending = s | p
        return s, p

    @memo
    def free_relative(self, i: int) -> int:
        found = 0
        for tense in "PN":
            found |= self.clause(i + 1, tense, "n")
        return found

    # ---------------------------------------------------------------- what follows a noun
    @memo
    def modified(self, i: int) -> tuple[int, int]:
        """A noun phrase with what follows its noun, not coordinated: ends by agreement."""
        s, p = self.head(i)
        if s:
            s |= self._after_noun(s, "s", i)
        if p:
            p |= self._after_noun(p, "p", i)
        if "more" in self.texts[i : i + 2]:  # "more books than her brother"
            than = self.over(self.word(s | p, "than"), self.compared_to)
            s, p = s | than, p | than
        return s, p

    def _after_noun(self, mask: int, agreement: str, start: int) -> int:
        found, fresh = mask, mask
        for _ in range(3):
            more = 0
            for j in ends(fresh):
                more |= self.postmodifier(j, agreement, self.words[start].name and j == start + 1)
            fresh = more & ~found
            if not fresh:
                break
            found |= fresh
        return found

    @memo
    def postmodifier(self, i: int, agreement: str, name: bool) -> int:
        """of the king; in the box; who had no hat; to play with; called Max; playing in the sun."""
        text, found = self.texts[i], 0
        if text in (",", "who", "that", "which"):
            found |= self.relative(i, agreement, name)
        if name:
            return found
        before = self.texts[i - 1]
        if text == "of":
            found |= self.partitive(i) if before in closed.QUANTIFIER_PRONOUNS else self.after_of(i)
        elif text == "to":
            if before in closed.TO_NOUNS:
                found |= self.vp(i + 1, "base", "") | self.vp(i + 1, "base", "n")
        elif text in ("named", "called"):
            if self.words[i + 1].name:
                found |= 4 << i
        elif text in ("filled", "covered", "made") and self.texts[i + 1] in ("with", "of", "in", "from", "by"):
            found |= self.object(i + 2)
        elif text == "full":
            found |= self.after_of(i + 1)
        elif text == "like" or text in closed.PREPOSITIONS or text in _LONG_PREPOSITIONS:
            if text not in ("of", "until", "till", "during", "since", "into", "onto", "off", "past"):
                found |= self.prepositional(i, False)
        elif self.words[i].verbs.get("ing"):
            found |= self.vp(i, "ing", "") & ~(2 << i)
        if before == "way" and text in ("home", "back", "there", "here", "up", "down", "out"):
            found |= 2 << i
        if text == "else" and before in ("what", "who", "where"):
            found |= 2 << i
        elif text in ("where", "when") and before in ("place", "day", "time", "house", "room", "tree", "park", "spot"):
            found |= self.clause(i + 1, "P") | self.clause(i + 1, "N")
        if before in (
            "time",
            "day",
            "moment",
            "thing",
            "one",
            "everything",
            "all",
            "something",
            "anything",
            "nothing",
        ) or (text in ("i", "he", "she", "we", "they", "you", "it")):
            if text in ("i", "he", "she", "we", "they", "you", "it"):
                found |= self.clause(i, "P", "n") | self.clause(i, "N", "n")
        return found

    @memo
    def relative(self, i: int, agreement: str, name: bool) -> int:
        """that ran away; who he liked; with commas: `, who was tired,`."""
        comma = self.texts[i] == ","
        j = i + comma
        if self.texts[j] not in ("who", "that", "which") or (comma and self.texts[j] == "that"):
            return 0
        if name and not comma:
            return 0
        found = 0
        for tense in "PN":
            found |= self.vp(j + 1, tense + agreement, "") | self.clause(j + 1, tense, "n")
        if comma:
            closed_by_comma = self.word(found, ",")
            return closed_by_comma | found & 1 << self.n
        return found

    def partitive(self, i: int) -> int:
        """one of the dogs; some of them; most of my bread: something definite, and plural where one counts."""
        before, after = self.texts[i - 1], self.texts[i + 1]
        if not (
            closed.DETERMINERS.get(after, 0) & DEF or after in ("us", "you", "them", "it") or self.words[i + 1].name
        ):
            return 0
        one, s, p = self.noun_phrase(i + 1, "a")
        return p if before in closed.NUMBERS | {"one", "each", "both", "many", "several", "few", "another"} else p | s

    def after_of(self, i: int) -> int:
        return self.object(i + 1) | self.vp(i + 1, "ing", "") if self.texts[i] == "of" else 0

    # ---------------------------------------------------------------- whole noun phrases
    @memo
    def single(self, i: int, case: str) -> tuple[int, int, int]:
        """One noun phrase or pronoun in a case, not coordinated: ends by agreement (am, is, are)."""
        s, p = self.modified(i)
        one = 0
        pronoun = closed.PRONOUNS.get(self.texts[i])
        if pronoun and case in pronoun[0]:
            if pronoun[1] == "1":
                one = 2 << i
            if "s" in pronoun[1]:
                s |= 2 << i
                if self.texts[i] in ("that", "this", "mine", "yours"):
                    s |= self._after_noun(2 << i, "s", i) if self.texts[i + 1] in ("of", "in", "on") else 0
            if "p" in pronoun[1]:
                p |= 2 << i
                if self.texts[i] in ("we", "us", "you", "they", "them") and self.texts[i + 1] in ("all", "both", "two"):
                    p |= 4 << i
                if self.texts[i] in ("those", "these"):
                    p |= self._after_noun(2 << i, "p", i)
        if self.texts[i] in ("only", "just", "almost", "about", "nearly", "even", "exactly"):
            nxt = self.texts[i + 1]
            if (
                nxt in closed.NUMBERS
                or nxt in ("one", "a", "an", "the")
                or (self.words[i + 1].name and self.texts[i] in ("only", "just", "even"))
            ):
                return self.single(i + 1, case)
        if case == "n" and self.texts[i] == "a" and self.texts[i + 1] in ("little", "bit"):
            s, p = s & ~(4 << i), p & ~(4 << i)
        if self.texts[i] == "school" and (
            i == 0 or self.texts[i - 1] in _ABOUT_SCHOOL or self.texts[i + 1] in ("was", "is")
        ):
            s |= 2 << i
        if case == "a" and self.texts[i] == "each":
            s &= ~(2 << i)
            if self.texts[i + 1] == "other":
                s |= 4 << i
        return one, s, p

    @memo
    def _and_more(self, i: int, case: str, listed: bool = False) -> int:
        """`and Mia`, `, Mia and Sam`, `, Mia, and Sam` after a first noun phrase."""
        text, found = self.texts[i], 0
        if text in ("and", "or"):
            k = i + 1 + (self.texts[i + 1] == "then")
            one, s, p = self.single(k, case)
            found = one | s | p
            if self.texts[k] == "a" and self.texts[k + 1] in ("little", "bit", "lot"):
                found &= ~(4 << k)
            if self.texts[k] in ("all", "both", "most", "more", "enough", "any", "each"):
                found &= ~(2 << k)
        elif text == ",":
            if self.texts[i + 1] in ("and", "or"):  # a comma before "and" only after two or more
                return self._and_more(i + 1, case) if listed else 0
            if self.texts[i + 1] not in ("me", "i"):
                one, s, p = self.single(i + 1, case)
                found = self.over(one | s | p, self._and_more, case, True)
        return found

    @memo
    def noun_phrase(self, i: int, case: str) -> tuple[int, int, int]:
        """A noun phrase: case "n" (he) or "a" (him); ends by the verb it takes: am, is, are."""
        one, s, p = self.single(i, case)
        first = s | p
        if self.texts[i] in ("i", "me"):
            first = 0  # "I and Tom" is not how one says it
        joined = self.over(first, self._and_more, case)
        if self.texts[i] == "both":
            one_s_p = self.single(i + 1, case)
            joined |= self.over(one_s_p[1] | one_s_p[2], self._and_more, case)
        return one, s, p | joined

    @memo
    def object(self, i: int) -> int:
        """A noun phrase as an object."""
        one, s, p = self.noun_phrase(i, "a")
        return one | s | p
