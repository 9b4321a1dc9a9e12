"""Adjectives before a noun and after a verb, with degree and comparison: "very big", "taller than Tom"."""

from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_chart import Chart, ends, memo


class Adjectives(Chart):
    @memo
    def prenominal(self, i: int, definite: bool) -> int:
        """One adjective before a noun, with its degree word: "very big", "bigger", "more beautiful"."""
        word, j = self.words[i], i
        found = 0
        if word.text in closed.CLOSED_ADJECTIVES and (definite or word.text in ("other", "whole", "first", "last")):
            found |= 2 << i
        if word.deg or word.text in ("very", "so", "too", "really", "quite", "more", "most", "as"):
            short = word.text in ("more", "most") and closed.one_syllable(self.texts[i + 1])
            if (word.text != "most" or definite) and not short:
                j, word = i + 1, self.words[i + 1]
                if word.text == "very" or word.deg:
                    j, word = j + 1, self.words[j + 1]
        if word.adj and word.text not in closed.PREDICATIVE_ONLY and word.text not in closed.CLOSED_ADJECTIVES:
            found |= 2 << j
        if j == i and (word.er or (word.est and definite)):
            found |= 2 << i
        if self.texts[i] in ("much", "even") and self.words[i + 1].er:
            found |= 4 << i
        return found

    @memo
    def adjective_phrase(self, i: int) -> int:
        """An adjective as a complement: "very happy to see you", "as big as a house", "too small", "five years old"."""
        found = self._one_adjective(i)
        whole = found
        for j in ends(found):
            if self.texts[j] in ("and", "but", "or"):
                whole |= self.adjective_phrase(j + 1)
                if self.texts[j + 1] in ("very", "not"):
                    whole |= self.adjective_phrase(j + 2)
            elif self.texts[j] == ",":
                whole |= self._adjective_list(j)
        return whole

    @memo
    def _adjective_list(self, i: int) -> int:
        """`, cold and wet` or `, cold, and wet` after a first adjective."""
        found = 0
        if self.texts[i] == "," and self.texts[i + 1] in ("and", "but"):
            found |= self._one_adjective(i + 2)
        elif self.texts[i] == ",":
            for j in ends(self._one_adjective(i + 1)):
                if self.texts[j] in ("and", "but", "or"):
                    found |= self._one_adjective(j + 1)
                found |= self._adjective_list(j)
        return found

    @memo
    def _one_adjective(self, i: int) -> int:
        texts, words = self.texts, self.words
        found = 0
        j, degree = i, set()
        while words[j].deg or texts[j] in closed.DEGREES or texts[j] in ("not", "a", "more"):
            if texts[j] == "a":
                if texts[j + 1] not in ("little", "bit", "lot"):
                    break
                degree.add("a")
                j += 2
                continue
            if texts[j] in ("more", "most") and closed.one_syllable(texts[j + 1]):
                break
            if texts[j] == "not" and j > i:
                break
            degree.add(texts[j])
            j += 1
            if j - i > 3:
                break
        word = words[j]
        plain = word.adj and word.text not in closed.CLOSED_ADJECTIVES
        compared = word.er or ("more" in degree and plain)
        if plain or (word.er and not degree & {"very", "too", "so", "as", "more"}):
            k = j + 1
            bare = 2 << j if not degree & {"more"} or compared else 0
            if word.text == "full" or word.text in closed.OF_ADJECTIVES:
                bare |= self.after_of(k)
            if texts[k] == "to" and (word.text in closed.TO_ADJECTIVES or word.er or degree & {"too"}):
                bare |= self.vp(k + 1, "base", "") | self.vp(k + 1, "base", "n")
            if texts[k] == "enough":
                bare |= 2 << k | (self.vp(k + 2, "base", "") if texts[k + 1] == "to" else 0)
                if texts[k + 1] == "for":
                    bare |= self.object(k + 2)
            if word.text in closed.THAT_ADJECTIVES:
                start = k + 1 if texts[k] == "that" else k
                bare |= self.clause(start, "P") | self.clause(start, "N")
                bare |= self.wh_clause(k)
            if "so" in degree and texts[k] == "that":
                bare |= self.clause(k + 1, "P") | self.clause(k + 1, "N")
            if texts[k] == "for" and texts[i] == "too":
                bare |= self.object(k + 1)
            if "as" in degree:
                bare &= ~(2 << j)
                if texts[k] == "as":
                    bare |= self.compared_to(k + 1)
            if word.text == "busy":
                bare |= self.vp(k, "ing", "")
            found |= bare
            if compared and texts[k] == "than":
                found |= self.compared_to(k + 1)
            if texts[k] == "and" and words[k + 1].er and word.er:  # "bigger and bigger"
                found |= 4 << k
        if word.est or (texts[j] == "the" and words[j + 1].est):
            k = j + (texts[j] == "the")
            found |= 2 << k
            if texts[k + 1] in ("of", "in"):
                found |= self.object(k + 2)
        if texts[i] in closed.NUMBERS | {"one", "a"} and texts[i + 1] in closed.UNITS:  # "five years old"
            if texts[i + 2] in ("old", "tall", "long", "high", "deep", "wide", "away"):
                found |= 8 << i
        return found

    @memo
    def compared_to(self, i: int) -> int:
        """What follows "than" or "as": a noun phrase, with or without its auxiliary; "ever", "before", "possible"."""
        found = self.object(i)
        one, sg, pl = self.noun_phrase(i, "n")
        for j in ends(one | sg | pl):
            if self.texts[j] in ("can", "could", "is", "was", "does", "did", "do", "are", "were", "am", "had"):
                found |= 2 << j
        if self.texts[i] == "new":
            found |= 2 << i
        if self.texts[i] in ("ever", "before", "usual", "possible", "always"):
            found |= 2 << i
            if self.texts[i + 1] == "before":
                found |= 4 << i
        return found | self.prepositional(i, False)
