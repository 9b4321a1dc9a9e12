"""What counts as a sentence of simple English, from the grammar of English alone.

Statements, questions, commands, exclamations, interjections and names one calls, and narrative sentences around direct
speech. The grammar is four layers of one class, lowest first: words and ends of phrases (`grammar_chart`), noun phrases
(`grammar_nouns`), verb phrases (`grammar_verbs`), clauses (`grammar_clauses`); this file is the top. Rules over-accept
meanings ("the stone ate a song") and never forms ("him eat a apples").

    Sentence(words).utterance(".", speech=False)      -> bool
    Sentence(words).report([Quote(",")], ...)         -> bool
"""

from tinygpt_hf.evaluation import grammar_idioms as idioms
from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_chart import by_first_word, ends, memo
from tinygpt_hf.evaluation.grammar_clauses import Clauses

_INTERJECTIONS = by_first_word(idioms.INTERJECTIONS_LONG)
_CALLED = frozenset("children boys girls everyone everybody friend friends dear boy girl kids baby sweetie son".split())


class Sentence(Clauses):
    # ---------------------------------------------------------------- utterances
    def utterance(self, mark: str, speech: bool) -> bool:
        """Whether the words, ended by this mark, are one whole utterance. In speech a phrase alone can be one."""
        goal, calls = 1 << self.n, speech or mark != "."
        for i in ends(self.lead_in(0, calls, speech)):
            if i < self.n and self.closing(self.body(i, mark, speech), calls) & goal:
                return True
        if not calls:  # in a narrative, one calls somebody only to give a command
            for i in ends(self.lead_in(0, True, False)):
                if i < self.n and self.closing(self.imperative(i), True) & goal:
                    return True
        numbers = [text for text in self.texts[: self.n] if text != ","]
        if speech and len(numbers) > 2 and all(text in closed.NUMBERS | {"one", "go"} for text in numbers):
            return True  # "One, two, three, go!"
        return mark != "?" and bool(self.only_interjections(0, False) & goal)

    def body(self, i: int, mark: str, speech: bool) -> int:
        texts = self.texts
        if mark == "?":
            found = self.question(i)
            for tense in "PN":
                for j in ends(self.fronted(i, tense) & ~(1 << i) if texts[i] not in ("there", "here") else 0):
                    found |= self.question(j)
            if speech:
                found |= self.short_question(i)
            return found
        found = self.statement(i) | self.imperative(i) | self.short_answer(i, speech) | self.so_did(i) | self.thanks(i)
        if mark == "!":
            found |= self.exclamation(i)
        if speech:
            found |= self.fragment(i, mark)
        if texts[i] == '"' and i + 1 == self.n:
            found |= 1 << self.n
        return found

    @memo
    def interjection(self, i: int) -> int:
        found = self.phrases(i, _INTERJECTIONS)
        if self.words[i].interj:
            found |= 2 << i
        return found

    @memo
    def called(self, i: int) -> int:
        """The one spoken to: Tom; Tom and Mia; my friend; little bird; children."""
        found = 0
        if self.words[i].name or self.texts[i] in _CALLED or self.texts[i] in ("my", "little", "dear", "silly", "old"):
            s, p = self.head(i) if self.texts[i] not in _CALLED else (2 << i, 0)
            found |= s | p
        if self.texts[i] in closed.TITLES and self.words[i + 1].name:
            found |= 4 << i
        if self.words[i].adj or self.words[i].sg or self.words[i].pl:
            sg, pl, mass = self.nbar(i, False)
            found |= (sg & ~(2 << i) if self.texts[i] not in closed.PEOPLE else sg) | pl
        for j in ends(found):
            if self.texts[j] == "and" and self.words[j + 1].name:
                found |= 4 << j
        return found

    @memo
    def only_interjections(self, i: int, started: bool) -> int:
        """Hello, Tom; oh no; yes, please; good night, my friend."""
        found = 1 << i if started else 0
        for j in ends(self.interjection(i)):
            found |= 1 << j | self.only_interjections(j, True)
            if self.texts[j] == ",":
                found |= self.only_interjections(j + 1, True)
            found |= self.called(j)
            if self.texts[j] == ",":
                found |= self.called(j + 1)
        if self.words[i].name and not started:
            for j in ends(self.called(i)):
                if self.texts[j] == ",":
                    found |= self.only_interjections(j + 1, False)
                elif i == 0 and j == self.n:
                    found |= 1 << j
        return found

    @memo
    def lead_in(self, i: int, calls: bool, speech: bool) -> int:
        """Where the body can start: after "Yes,", "Oh, Tom,", "And", "Look,"."""
        found = 1 << i
        for j in ends(self.interjection(i)):
            if self.texts[j] == ",":
                found |= self.lead_in(j + 1, calls, speech)
            elif self.words[j].name:
                found |= self.over(self.word(self.called(j), ","), self.lead_in, calls, speech)
            if self.texts[i] in ("please", "oh", "wow", "maybe"):
                found |= 1 << j
        for j in ends(self.called(i) if calls else 0):
            if self.texts[j] == ",":
                found |= self.lead_in(j + 1, calls, speech)
        if i == 0 and self.texts[0] in ("and", "but", "so", "or", "then", "yet", "because" if speech else ""):
            found |= 2 << i
            if self.texts[1] == ",":
                found |= 4 << i
            for j in ends(self.interjection(1)):
                found |= 2 << j if self.texts[j] == "," else 0  # "And yes, it was there."
        return found

    def closing(self, mask: int, calls: bool) -> int:
        """After the body: ", Tom", ", please", ", thank you", ", too"."""
        found = mask
        for _ in range(2):
            for j in ends(found):
                if self.texts[j] == ",":
                    found |= (self.called(j + 1) if calls else 0) | self.interjection(j + 1)
                    if self.texts[j + 1] in ("too", "please", "though", "either", "then"):
                        found |= 4 << j
                elif self.texts[j] == "please":
                    found |= 2 << j
        return found

    @memo
    def short_answer(self, i: int, speech: bool) -> int:
        """Yes, I do; no, he can't; I did too."""
        found = 0
        pronoun = self.texts[i] in closed.PRONOUNS or self.texts[i] == "there"
        if not pronoun or not (speech or (i > 1 and self.texts[i - 1] == ",")):
            return 0
        if self.texts[i] == "there" and self.texts[i + 1] in ("is", "was", "are", "were"):
            return 4 << i | (8 << i if self.texts[i + 2] in ("not", "n't") else 0)
        for agreement, mask in zip("1sp", self.noun_phrase(i, "n"), strict=True):
            for j in ends(mask & 2 << i):
                auxiliary = closed.AUXILIARIES.get(self.texts[j])
                if auxiliary and not self.texts[j].startswith("'"):
                    if any(form[-1] == agreement and len(form) == 2 for form in auxiliary[1]):
                        if self.texts[j] not in ("ca", "wo") or self.texts[j + 1] == "n't":
                            found |= 2 << j
                            if self.texts[j + 1] in ("not", "n't", "too"):
                                found |= 4 << j
        return found

    @memo
    def thanks(self, i: int) -> int:
        """Thank you for the cake; thanks for helping me."""
        found = self.phrases(i, _INTERJECTIONS) if self.texts[i] == "thank" else 0
        if self.texts[i] == "thanks":
            found |= 2 << i
        return self.over(self.word(found, "for"), self._thing)

    def _thing(self, i: int) -> int:
        return self.over(self.object(i) | self.vp(i, "ing", ""), self.adjuncts)

    @memo
    def exclamation(self, i: int) -> int:
        """What a nice day; what big eyes you have; how lovely; how fast he runs."""
        found = 0
        if self.texts[i] == "what":
            if self.texts[i + 1] in ("a", "an"):
                start = self.nbar(i + 2, False)[0]
            else:
                sg, pl, mass = self.nbar(i + 1, False)
                start = pl | mass
            start = self._after_noun(start, "s", i) if start else 0
            found |= start
            for tense in "PN":
                found |= self.over(start, self.clause, tense, "n")
        elif self.texts[i] == "how":
            start = (2 << i + 1) if self.words[i + 1].adj or self.words[i + 1].adv else 0
            for tense in "PN":
                found |= start | self.over(start, self.clause, tense, "a") | self.over(start, self.clause, tense)
        return found

    @memo
    def fragment(self, i: int, mark: str) -> int:
        """A phrase that answers or exclaims, in direct speech only: "A red ball!", "In the garden.", "Very good!"."""
        if i > 0 and self.texts[i - 1] != ",":
            return 0
        found = self.adjective_phrase(i) | self.prepositional(i, False) | self.time_phrase(i)
        one, s, p = self.noun_phrase(i, "a")
        found |= s | p
        return found | self.adverb(i) | self.subordinate(i, "N") | self.subordinate(i, "P")

    @memo
    def short_question(self, i: int) -> int:
        """What? Where? Really? Tom? Ready?"""
        found = 2 << i if self.texts[i] in closed.WH or self.texts[i] in ("really", "ready", "okay", "yes", "me") else 0
        for j, _, _ in self.wh(i):
            found |= 1 << j
        found |= self.called(i) if self.words[i].name else 0
        return found | self.adjective_phrase(i) | (self.object(i) if self.texts[i] in ("a", "an", "the", "my") else 0)

    # ---------------------------------------------------------------- sentences with direct speech
    def around_speech(self, quotes: list[str], mark: str) -> bool:
        """A narrative sentence in which `"` stands for each quotation; `quotes` are their last characters.

        `"..." said Tom.`   `Tom said, "..."`   `"...," said Tom, "..."`   `"..."` alone.
        """
        goal, n = 1 << self.n, self.n
        quoted = [i for i, text in enumerate(self.texts) if text == '"']
        if self.n == 1:
            return quotes[0] in ".!?" and not mark
        if quoted[0] == 0:
            if quotes[0] == ".":
                return False
            found = self.attribution(1)
            if len(quoted) == 1:
                return bool(found & goal) and mark == "."
            rest = self.word(self.word(found, ","), '"') if quoted[1] == n - 1 else 0
            return bool(rest & goal) and quotes[1] in ".!?" and not mark
        if quoted != [n - 1] or quotes[0] not in ".!?" or mark:
            return False
        return any(self.statement(i) & goal for i in ends(self.lead_in(0, False, False)))

    @memo
    def attribution(self, i: int) -> int:
        """said Tom; he asked his mother; Mia shouted and ran to the door."""
        found = 0
        for tense in "PN":
            one, s, p = self.noun_phrase(i, "n")
            for agreement, mask in (("1", one), ("s", s), ("p", p)):
                for j in ends(mask):
                    for k in ends(self.middle(j)):
                        found |= self._said(k, tense, agreement)
            if self._reports(i, tense, "s") or self._reports(i, tense, "p"):
                pronoun = self.texts[i + 1] in ("i", "he", "she", "we", "they", "you", "it")
                one, s, p = (0, 0, 0) if pronoun else self.noun_phrase(i + 1, "n")
                said = (s if self._reports(i, tense, "s") else 0) | (p if self._reports(i, tense, "p") else 0)
                found |= self._then(said, tense)
        return found

    def _reports(self, i: int, tense: str, agreement: str) -> bool:
        form = "past" if tense == "P" else "3sg" if agreement == "s" else "base"
        word = self.words[i]
        return closed.REPORTING.get(word.text) == form or (
            word.text in closed.REPORTING and form in word.verbs and "clause" in word.verbs[form]
        )

    def _said(self, i: int, tense: str, agreement: str) -> int:
        if not self._reports(i, tense, agreement):
            return 0
        found = 2 << i
        if self.texts[i] in (
            "asked",
            "told",
            "asks",
            "tells",
            "answered",
            "warned",
            "begged",
            "ask",
            "tell",
            "answers",
        ):
            found |= self.object(i + 1)
        return self._then(found, tense, agreement)

    def _then(self, mask: int, tense: str, agreement: str = "s") -> int:
        """After the verb of saying: adverbials, a second action, a clause of time."""
        found = self.over(mask, self.adjuncts)
        for j in ends(found):
            if self.texts[j] == ",":
                found |= self.vp(j + 1, "ing", "")
            if self.texts[j] == "and" or (self.texts[j] == "," and self.texts[j + 1] == "and"):
                k = j + 1 + (self.texts[j] == ",")
                found |= self.vp(k, tense + agreement, "") | self.statement(k)
            if self.texts[j] in ("but", "so"):
                found |= self.statement(j + 1)
        return self.with_subordinates(found, tense)
