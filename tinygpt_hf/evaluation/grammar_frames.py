"""What a verb takes: one rule for each frame the lexicon names, and for the constructions single verbs have.

A gap says what is missing because it stands in front: "n" a noun phrase (What did you see _?), "p" a place (Where is
Tom _?), "a" an adjective (How old are you _?).
"""

from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_adverbials import DIRECTIONS, Adverbials
from tinygpt_hf.evaluation.grammar_chart import ends, memo


class Frames(Adverbials):
    def object_or_gap(self, i: int, gap: str) -> int:
        return 1 << i if gap == "n" else self.object(i)

    @memo
    def complement(self, i: int, frames: frozenset[str], gap: str) -> int:
        found = 0
        for frame in frames:
            rule, _, argument = frame.partition("-")
            found |= getattr(self, "_frame_" + rule)(i, gap, argument)
        return found

    def _frame_intr(self, i: int, gap: str, _: str) -> int:
        return 1 << i if not gap else 0

    def _frame_trans(self, i: int, gap: str, _: str) -> int:
        if gap == "n":
            return 1 << i
        return self.object(i) if not gap else 0

    def _frame_ditrans(self, i: int, gap: str, _: str) -> int:
        """gave Mia a ball; gave it to Mia."""
        found = 0
        for j in ends(self.object(i)) if gap in ("", "n") else ():
            if gap:
                found |= 1 << j if self.texts[i] != "it" else 0
            elif self._can_receive(i, j):
                found |= self._given(j)
            if self.texts[j] in ("to", "for"):
                found |= self.object_or_gap(j + 1, gap)
        if gap == "n" and self.texts[i] in ("to", "for"):
            found |= self.object(i + 1)
        return found

    def _can_receive(self, i: int, j: int) -> bool:
        """Whether words i to j name somebody: "gave Mia a ball", not "gave a ball Mia" or "put the ball the box"."""
        if self.texts[i] == "it" and self.texts[i - 1] in ("find", "finds", "found", "take", "takes", "took"):
            return False
        return any(
            word.name or word.text in closed.LIVING or word.text in closed.INDEFINITES
            for word in self.words[i:j]
        ) or (j == i + 1 and self.texts[i] in closed.PRONOUNS)  # fmt: skip

    def _given(self, j: int) -> int:
        """The thing given, after the one who gets it: not a lone pronoun, name, color or, after a noun, quantity."""
        word, found = self.words[j], self.object(j)
        lone = word.text in closed.PRONOUNS and word.text not in ("this", "that", "these", "those")
        if lone or (word.text in closed.QUANTIFIER_PRONOUNS and self.texts[j - 1] not in closed.PRONOUNS):
            found &= ~(2 << j)
        return 0 if word.name and self.texts[j + 1] != "'s" or word.text in closed.COLORS else found

    def _frame_pp(self, i: int, gap: str, _: str) -> int:
        if gap == "p":
            return 1 << i | self._directions(i)
        if gap == "n":
            return self.prepositional(i, True) | self.over(self._directions(i), self.prepositional, True)
        return self.place(i) if not gap else 0

    def _directions(self, i: int) -> int:
        return 2 << i if self.texts[i] in DIRECTIONS else 0

    def _frame_transpp(self, i: int, gap: str, _: str) -> int:
        if gap == "p":
            return self.object(i)
        if gap == "n":
            return self.place(i) | self.over(self.object(i), self.prepositional, True)
        if gap:
            return 0
        return self.over(self.object(i), self.place)

    def _frame_clause(self, i: int, gap: str, _: str) -> int:
        if gap == "n":  # "What do you think it is?"
            return self.clause(i, "P", "n") | self.clause(i, "N", "n")
        if gap:
            return 0
        start = i + 1 if self.texts[i] == "that" else i
        return self.clause(start, "P") | self.clause(start, "N") | self.quotation(i)

    def quotation(self, i: int) -> int:
        """`, "..."` after a verb of saying."""
        return 4 << i if self.texts[i] == "," and self.texts[i + 1] == '"' else 0

    def _frame_quote(self, i: int, gap: str, _: str) -> int:
        return (self.quotation(i) | self.wh_clause(i)) if not gap else 0

    def _frame_to(self, i: int, gap: str, _: str) -> int:
        j = i + 1 if self.texts[i] == "not" else i
        return self.vp(j + 1, "base", gap) if self.texts[j] == "to" else 0

    def _frame_adj(self, i: int, gap: str, _: str) -> int:
        if gap == "a":
            return 1 << i
        return self.adjective_phrase(i) if not gap else 0

    def _frame_ing(self, i: int, gap: str, _: str) -> int:
        return self.vp(i, "ing", gap)

    def _frame_go(self, i: int, gap: str, kind: str) -> int:
        if kind == "and":  # "come and see", "go and play"
            return self.vp(i + 1, "base", gap) if self.texts[i] == "and" else 0
        return self.vp(i, "ing", gap)

    def _frame_transto(self, i: int, gap: str, _: str) -> int:
        if gap == "n":
            found = self.vp(i + 1, "base", "") if self.texts[i] == "to" else 0
            return found | self.over(self.word(self.object(i), "to"), self.vp, "base", "n")
        middle = self.object(i)
        middle |= self.word(middle, "not")
        return self.over(self.word(middle, "to"), self.vp, "base", gap) if not gap else 0

    def _frame_transclause(self, i: int, gap: str, _: str) -> int:
        found = 0
        if self.texts[i] == "that":
            return 0
        for j in ends(self.object_or_gap(i, gap)):
            start = j + 1 if self.texts[j] == "that" else j
            found |= self.clause(start, "P") | self.clause(start, "N") | self.quotation(j)
        return found if gap in ("", "n") else 0

    def _frame_prt(self, i: int, gap: str, particle: str) -> int:
        return 2 << i if self.texts[i] == particle and not gap else 0

    def _frame_transprt(self, i: int, gap: str, particle: str) -> int:
        if gap == "n":
            return 2 << i if self.texts[i] == particle else 0
        if gap:
            return 0
        found = self.word(self.object(i), particle)
        if self.texts[i] in ("it", "them") and self.texts[i + 1] == "all" and self.texts[i + 2] == particle:
            found |= 8 << i  # "ate it all up"
        if self.texts[i] == particle:
            s, p = self.modified(i + 1)
            both = self.noun_phrase(i + 1, "a")[2]
            if self.texts[i + 1] not in closed.PRONOUNS or self.texts[i + 1] in closed.DETERMINERS:
                found |= s | p | both
        return found

    def _frame_prep(self, i: int, gap: str, preposition: str) -> int:
        if self.texts[i] != preposition:
            return 0
        if gap == "n":
            return 2 << i
        return (self.object(i + 1) | self.vp(i + 1, "ing", "") | self.wh_clause(i + 1)) if not gap else 0

    def _frame_np(self, i: int, gap: str, kind: str) -> int:
        """A noun phrase and what it does, is or is called: "let him go", "make it red", "call her Mia"."""
        found = 0
        for j in ends(self.object_or_gap(i, gap)):
            if kind in ("base", "ing"):
                found |= self.vp(j, kind, "")
            elif kind == "adj":
                found |= self.adjective_phrase(j) if self.texts[i] not in ("a", "an") else 0
            elif kind == "np":
                lone = self.texts[j] in closed.PRONOUNS or self.texts[j] in closed.COLORS
                found |= self.object(j) if not lone else 0
            elif kind == "wh":
                found |= self.wh_clause(j)
            elif self.texts[j] == kind:
                found |= self.object(j + 1)
        if gap == "n" and kind in ("base", "ing"):
            found |= self.over(self.object(i), self.vp, kind, "n")
        return found if gap in ("", "n") else 0

    def _frame_base(self, i: int, gap: str, _: str) -> int:
        return self.vp(i, "base", gap)

    def _frame_wh(self, i: int, gap: str, particle: str) -> int:
        if particle:
            return self.wh_clause(i + 1) if self.texts[i] == particle and not gap else 0
        return self.wh_clause(i) if not gap else 0

    def _frame_how(self, i: int, gap: str, _: str) -> int:
        return self.vp(i + 2, "base", gap) if self.texts[i : i + 2] == ("how", "to") else 0

    def _frame_like(self, i: int, gap: str, _: str) -> int:
        if self.texts[i] != "like":
            return 0
        return 2 << i if gap == "n" else (self.object(i + 1) | self.vp(i + 1, "ing", "")) if not gap else 0

    def _frame_part(self, i: int, gap: str, _: str) -> int:
        return self.passive(i) if not gap else 0

    def _frame_so(self, i: int, gap: str, _: str) -> int:
        return 2 << i if self.texts[i] in ("so", "not") and not gap else 0

    def _frame_sayto(self, i: int, gap: str, _: str) -> int:
        return 0

    def _frame_posture(self, i: int, gap: str, _: str) -> int:
        """sat in the sun reading a book"""
        if gap:
            return 0
        return self.over(1 << i | self.adjunct(i), self.vp, "ing", "")

    def _frame_friends(self, i: int, gap: str, _: str) -> int:
        """stayed good friends"""
        j = i + (self.words[i].adj or self.texts[i] == "best")
        return 2 << j if self.texts[j] == "friends" and not gap else 0

    def _frame_race(self, i: int, gap: str, _: str) -> int:
        """ran a race"""
        return sum(1 << j for j in ends(self.object(i)) if self.texts[j - 1] in ("race", "races")) if not gap else 0

    def _frame_wait(self, i: int, gap: str, _: str) -> int:
        """wait for him to come"""
        if self.texts[i] != "for" or gap:
            return 0
        return self.over(self.word(self.object(i + 1), "to"), self.vp, "base", "")

    @memo
    def tail(self, i: int, frames: frozenset[str], gap: str) -> int:
        """What a verb takes and the adjuncts after it."""
        found = self.over(self.complement(i, frames, gap), self.adjuncts)
        if gap == "n":
            found |= self.over(self.complement(i, frames, ""), self.adjuncts_with_gap)
        quoted = frames & {"clause", "quote", "sayto", "transclause"}
        if quoted and not gap:  # `said to Mia, "..."`; `said softly, "..."`
            found |= self.over(self.adjuncts(i), self.quotation)
        return found
