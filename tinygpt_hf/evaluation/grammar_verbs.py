"""Verb phrases: auxiliaries in their order, what follows be, the passive, several joined by and.

The form of a verb phrase is `base`, `part`, `ing`, or tense and agreement: P (past) or N (not past) with 1 (I), s (he)
or p (they). Gaps are those of `grammar_frames`.
"""

from tinygpt_hf.evaluation import grammar_idioms as idioms
from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_chart import by_first_word, ends, frames_of, memo
from tinygpt_hf.evaluation.grammar_frames import Frames

_OPENERS_LONG = by_first_word(idioms.OPENERS_LONG)
_LEXICAL = {"base": "base", "part": "part", "ing": "ing", "N1": "base", "Np": "base", "Ns": "3sg"}
_LEXICAL |= {"P1": "past", "Ps": "past", "Pp": "past"}


class VerbPhrases(Frames):
    @memo
    def vp(self, i: int, form: str, gap: str) -> int:
        """A verb phrase in a form, coordinated or not."""
        found = self.simple_vp(i, form, gap)
        if gap:
            return found
        whole = found
        for j in ends(found):
            whole |= self._and_vp(j, form)
        return whole

    @memo
    def _and_vp(self, i: int, form: str) -> int:
        """`and ran`, `, ran and hid`, `, but fell` after a first verb phrase."""
        text = self.texts[i]
        if text in ("and", "or", "but", "then"):
            j = i + 1
            if self.texts[j] in ("then", "so"):
                j += 1
            if text == "then" and form not in ("base",) and self.texts[i - 1] != ",":
                return 0
            return self.over(self._opened(j), self.vp, form, "")
        if text != ",":
            return 0
        if self.texts[i + 1] in ("and", "but", "or", "then"):
            return self._and_vp(i + 1, form)
        found = 0
        for j in ends(self.simple_vp(i + 1, form, "")):
            if self.texts[j] in ("and", ","):
                found |= self._and_vp(j, form)
        return found

    @memo
    def _opened(self, j: int) -> int:
        """After "and": an adverbial may come first: "and at last found it"."""
        found = 1 << j
        text = self.texts[j]
        if text in ("at", "in", "after", "once", "all", "soon", "for"):
            found |= self.phrases(j, _OPENERS_LONG)
        return found

    @memo
    def simple_vp(self, i: int, form: str, gap: str) -> int:
        found = 0
        lexical = _LEXICAL[form]
        for j in ends(self.middle(i)):
            frames = frames_of(self.words[j], lexical)
            if frames:
                found |= self.tail(j + 1, frames, gap)
                other = frames_of(self.words[j + 2], lexical) if self.texts[j + 1] == "and" else ()
                if not gap and "trans" in frames and "trans" in other:  # "washed and dried the cup"
                    found |= self.tail(j + 3, frozenset(("trans",)), gap)
            auxiliary = closed.AUXILIARIES.get(self.texts[j])
            if auxiliary and form in auxiliary[1]:
                found |= getattr(self, "_aux_" + auxiliary[0])(j + 1, form, gap)
            if self.texts[j] == "used" and form[0] == "P" and self.texts[j + 1] == "to":
                found |= self.vp(j + 2, "base", gap)
        return found

    @memo
    def negated(self, i: int) -> int:
        """After an auxiliary: nothing, "not" or "n't"; then adverbs."""
        found = self.middle(i)
        if self.texts[i] in ("not", "n't"):
            found |= self.middle(i + 1)
        return found

    def _left_out(self, i: int, gap: str) -> int:
        """ "but he could not": the verb phrase is understood."""
        if self.texts[i] in ("not", "n't") and not gap:
            return 2 << i | (self.adjunct(i + 1) & (1 << self.n) if self.texts[i + 1] != "to" else 0)
        return 0

    def _aux_be(self, i: int, form: str, gap: str) -> int:
        found = self.over(self.negated(i), self.predicate, gap, form) if form[0] in "PN" else 0
        if form[0] not in "PN":
            found = self.over(self.middle(i), self.predicate, gap, form)
            if self.texts[i] == "not":
                found |= self.predicate(i + 1, gap, form)
        else:
            found |= self._left_out(i, gap)
        return found

    def _aux_have(self, i: int, form: str, gap: str) -> int:
        found = self.tail(i, frozenset(("trans", "to", "transpp")), gap)
        if form in ("part", "ing"):
            return found | (self.vp(i, "part", gap) if form == "ing" else 0)
        if self.texts[i] == "better" and form[0] == "P":
            found |= self.over(self.negated(i + 1), self.vp, "base", gap)
        return found | self._aux_perfect(i, form, gap)

    def _aux_perfect(self, i: int, form: str, gap: str) -> int:
        if self.texts[i] == "got":  # "you've got a letter", "I have got to go"
            return self.tail(i + 1, frozenset(("trans", "to")), gap) | self.over(self.negated(i), self.vp, "part", gap)
        return self.over(self.negated(i), self.vp, "part", gap) | self._left_out(i, gap)

    def _aux_do(self, i: int, form: str, gap: str) -> int:
        bare = not gap and self.texts[i] not in closed.DETERMINERS and self.texts[i] not in closed.PRONOUNS
        bare = bare and self.texts[i] not in closed.INDEFINITES and not self.words[i].mass
        found = self.tail(i, frozenset(("do",)) if bare else frozenset(("trans", "do")), gap)
        if form[0] in "PN" and self.texts[i] in ("not", "n't"):
            found |= self.over(self.middle(i + 1), self.vp, "base", gap) | self._left_out(i, gap)
            found |= 4 << i if self.texts[i + 1] == "say" else 0  # "the story does not say"
        return found

    def _frame_do(self, i: int, gap: str, _: str) -> int:
        return 2 << i if self.texts[i] in ("well", "so", "better", "nothing") and not gap else 0

    def _aux_modal(self, i: int, form: str, gap: str) -> int:
        return self.over(self.negated(i), self.vp, "base", gap) | self._left_out(i, gap)

    def _aux_s(self, i: int, form: str, gap: str) -> int:
        return self._aux_be(i, form, gap) | self._aux_perfect(i, form, gap)

    def _aux_d(self, i: int, form: str, gap: str) -> int:
        return self._aux_modal(i, form, gap) | self._aux_perfect(i, form, gap)

    @memo
    def predicate(self, i: int, gap: str, form: str = "") -> int:
        """After be: an adjective, a noun phrase, a place, an -ing form, a passive."""
        found = self.vp(i, "ing", gap)
        if self.texts[i] == "about" and self.texts[i + 1] == "to":
            found |= self.vp(i + 2, "base", gap)
        if gap in ("n", "p", "a"):
            found |= self.adjuncts(i) | (self.adjuncts_with_gap(i) if gap == "n" else 0)
            if gap == "n":
                found |= self.over(self.passive_with_gap(i), self.adjuncts)
                found |= 2 << i if self.texts[i] in ("called", "named") else 0
            if gap == "p" or gap == "a":
                found |= self.passive(i)
            return found
        place = self.place(i) if self.texts[i] != "to" or form == "part" else 0
        core = self.adjective_phrase(i) | place | self.predicate_noun(i, form) | self._whose(i)
        if self.texts[i] == "that":
            core |= self.clause(i + 1, "P") | self.clause(i + 1, "N")
        if self.texts[i] == "to" and self.texts[i - 2] in closed.TO_NOUNS | {"dream", "best", "rule", "goal"}:
            core |= self.vp(i + 1, "base", "")
        core |= self.wh_clause(i) | self.time_phrase(i)
        if self.texts[i] in closed.NUMBERS and self.texts[i + 1] == "years":
            core &= ~(4 << i)  # "six years old", not "six years"
        if self.texts[i] == "gone":
            core |= 2 << i
        if self.texts[i] == "like":
            core |= self.object(i + 1)
        found |= self.over(core, self.adjuncts) | self.passive(i)
        if self.texts[i] == "for":
            found |= self.object(i + 1)
        for j in ends(core):  # "in the box and very happy", "big and in the way"
            if self.texts[j] in ("and", "but") and j > i:
                after = j + 1 + (self.texts[j + 1] == "not")
                if not self.texts[after].endswith("ing") or self.words[after].adj:
                    found |= self.over(self.adjective_phrase(after) | self.prepositional(after, False), self.adjuncts)
                found |= self.vp(after, "ing", "") | self.passive(after)
        return found

    def predicate_noun(self, i: int, form: str) -> int:
        """A noun phrase after be, of the subject's number: not "they were a dog"."""
        one, s, p = self.noun_phrase(i, "a")
        if form.endswith("p") and self.texts[i] in ("a", "an") and "you" not in self.texts[:i]:
            s = self._kept(s, lambda j: any(t in closed.COLLECTIVES for t in self.texts[i:j]))
        if form.endswith("1"):
            p = self._kept(p, lambda j: self.texts[i] in closed.NUMBERS or self.texts[j - 1] == "friends")
        found = one | s | p
        for j in ends(found):  # "it was Tom who broke it"
            if self.texts[j] in ("who", "that") and form[-1:] == "s":
                found |= self.relative(j, "s", False) | self.relative(j, "p", False)
        return found

    @staticmethod
    def _kept(mask: int, keep) -> int:
        found = 0
        for j in ends(mask):
            found |= 1 << j if keep(j) else 0
        return found

    def _whose(self, i: int) -> int:
        """It is Tom's; it is his."""
        if self.texts[i] == "his":
            return 2 << i
        s, p = self.head(i)
        return self.word(s, "'s")

    @memo
    def passive(self, i: int) -> int:
        """A participle whose object has become the subject: "was kicked", "was given a ball", "was picked up"."""
        found = 0
        for j in ends(self.middle(i)):
            word, k = self.words[j], j + 1
            if "part" not in word.verbs:
                continue
            for frame in word.verbs["part"]:
                rule, _, argument = frame.partition("-")
                if rule == "trans":
                    found |= 1 << k if word.text != "named" else 0
                elif rule == "ditrans":
                    found |= self.object(k) | (self.object(k + 1) if self.texts[k] in ("to", "for") else 0)
                elif rule == "transpp":
                    found |= self.place(k)
                elif rule == "transto":
                    start = k + (self.texts[k] == "not")
                    found |= self.vp(start + 1, "base", "") if self.texts[start] == "to" else 0
                elif rule == "transprt" and self.texts[k] == argument:
                    found |= 2 << k
                elif frame == "np-adj":
                    found |= self.adjective_phrase(k)
                elif frame == "np-np":
                    found |= self.object(k)
                elif rule == "transclause":
                    found |= self.clause(k + (self.texts[k] == "that"), "P")
        if self.texts[i] == "made" and self.texts[i + 1] in ("of", "from"):
            found |= self.object(i + 2)
        whole = self.over(found, self.adjuncts)
        for j in ends(whole):
            if self.texts[j] == "and":
                whole |= self.passive(j + 1)
        return whole

    def passive_with_gap(self, i: int) -> int:
        return self.adjuncts_with_gap(i + 1) if "trans" in frames_of(self.words[i], "part") else 0
