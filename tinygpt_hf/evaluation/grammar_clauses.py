"""Clauses: subject and verb that agree, existential "there", adverbials in front, subordinate clauses, questions."""

from tinygpt_hf.evaluation import grammar_idioms as idioms
from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_chart import by_first_word, ends, memo
from tinygpt_hf.evaluation.grammar_verbs import VerbPhrases

_OPENERS_LONG = by_first_word(idioms.OPENERS_LONG)
_TEMPORAL = by_first_word(idioms.TEMPORAL)
_CAUSAL = by_first_word(idioms.CAUSAL)
_EXISTING = {"lived": "P", "came": "P", "stood": "P", "lives": "Ns", "grew": "P", "sat": "P"}

_NEVER_TOLD = frozenset("rain snow happen glow melt shine cost seem need".split())  # nobody is told to rain
_AFTER_PLACE = frozenset("he she it they we i you the comes come is are was were goes go lies stands".split())


class Clauses(VerbPhrases):
    # ---------------------------------------------------------------- subject and verb
    @memo
    def subject(self, i: int) -> tuple[int, int, int]:
        """A subject: ends by the verb it takes."""
        one, s, p = self.noun_phrase(i, "n")
        if self.words[i].verbs.get("ing") and (i == 0 or self.texts[i - 1] not in ("is", "was")):
            s |= self.vp(i, "ing", "")
        return one, s, p

    @memo
    def clause(self, i: int, tense: str, gap: str = "") -> int:
        """Subject and finite verb in a tense (P past, N not past), adverbials in front and after, no coordination."""
        if i >= self.n:
            return 0
        if gap:
            return self.nucleus(i, tense, gap)
        found = 0
        for j in ends(self.fronted(i, tense)):
            found |= self.nucleus(j, tense, "") | (self.inverted_place(j, tense) if j > i else 0)
        found |= self.there(i, tense)
        return self.with_subordinates(found, tense)

    @memo
    def nucleus(self, i: int, tense: str, gap: str) -> int:
        found = 0
        for agreement, mask in zip("1sp", self.subject(i), strict=True):
            for j in ends(mask):
                found |= self.vp(j, tense + agreement, gap)
        if not gap:
            found |= self.there(i, tense)
        return found

    def with_subordinates(self, mask: int, tense: str) -> int:
        found, fresh = mask, mask
        for _ in range(2):
            more = 0
            for j in ends(fresh):
                more |= self.subordinate(j, tense)
                if self.texts[j] == ",":
                    more |= self.subordinate(j + 1, tense)
            fresh = more & ~found
            found |= more
            if not fresh:
                break
        return found

    @memo
    def subordinate(self, i: int, tense: str) -> int:
        """because he was late; when she came home. A clause of time keeps the tense of the main clause."""
        start = i + 1 if self.texts[i] in ("just", "only", "even", "not", "right", "always") else i
        if self.texts[i] in ("long", "shortly", "soon") and self.texts[i + 1] in ("after", "before"):
            start = i + 1
        found = self.over(self.phrases(i, _TEMPORAL), self.clause, tense)
        if start > i:
            found |= self.over(self.phrases(start, _TEMPORAL), self.clause, tense)
        for j in ends(self.phrases(i, _CAUSAL)):
            if self.texts[i] != "like":
                found |= self.clause(j, "P") | self.clause(j, "N")
        return found

    @memo
    def fronted(self, i: int, tense: str) -> int:
        """Where the subject can start: here, or after adverbials in front ("One day,", "When it rained,")."""
        found, fresh = 1 << i, 1 << i
        for _ in range(3):
            more = 0
            for j in ends(fresh):
                more |= self._one_in_front(j, tense)
            fresh = more & ~found
            found |= more
            if not fresh:
                break
        return found

    @memo
    def _one_in_front(self, i: int, tense: str) -> int:
        text, word = self.texts[i], self.words[i]
        plain = self.phrases(i, _OPENERS_LONG)
        for j in ends(self.time_phrase(i)):  # "two days later", but not "two days" alone
            lasting = self.texts[j - 1] in closed.TIME_NOUNS_PLURAL - {"times"}
            plain |= 1 << j if not lasting or text in ("these", "all") else 0
        if text in ("here", "there"):
            plain |= 2 << i if self.texts[i + 1] in _AFTER_PLACE or self.words[i + 1].name else 0
        elif text in closed.OPENERS or word.time or (word.adv and text.endswith("ly")):
            plain |= 2 << i
        if text in ("up", "down", "away", "off", "out", "back", "in") and self.texts[i + 1] not in (",", "and"):
            plain |= 2 << i
        if text in closed.PREPOSITIONS or text in (
            "next",
            "high",
            "deep",
            "far",
            "back",
            "right",
            "because",
            "instead",
        ):
            plain |= self.prepositional(i, False)
            if text in ("before", "after", "by", "without"):
                plain |= self.vp(i + 1, "ing", "")
        if text in ("very", "so") and self.texts[i + 1] in (
            "soon",
            "often",
            "slowly",
            "quickly",
            "carefully",
            "quietly",
        ):
            plain |= 4 << i
        with_comma = plain | self.subordinate(i, tense)
        if text == "while":
            with_comma |= self.vp(i + 1, "ing", "")
        if text == "to":
            with_comma |= self.vp(i + 1, "base", "")
        if word.adv or (word.place and text != "home"):
            with_comma |= 2 << i
        return plain & ~(1 << i) | self.word(with_comma, ",")

    @memo
    def there(self, i: int, tense: str) -> int:
        """There was a dog; there are two cats in the tree; once there lived a king."""
        if self.texts[i] != "there":
            return 0
        found = 0
        for j in ends(self.middle(i + 1)):
            text = self.texts[j]
            auxiliary = closed.AUXILIARIES.get(text)
            if auxiliary and auxiliary[0] in ("be", "s"):
                for agreement in "sp":
                    if tense + agreement in auxiliary[1]:
                        found |= self.over(self.negated(j + 1), self.existing, agreement)
            elif auxiliary and auxiliary[0] == "modal" and any(form[0] == tense for form in auxiliary[1]):
                for k in ends(self.word(self.negated(j + 1), "be")):
                    found |= self.existing(k, "s") | self.existing(k, "p")
            elif text in ("had", "has", "have") and self.texts[j + 1] == "been":
                found |= self.existing(j + 2, "s") | self.existing(j + 2, "p")
            elif text == "used" and self.texts[j + 1 : j + 3] == ("to", "be"):
                found |= self.existing(j + 3, "s") | self.existing(j + 3, "p")
            elif text in _EXISTING and _EXISTING[text][0] == tense:
                found |= self.existing(j + 1, "s") | self.existing(j + 1, "p")
        return found

    @memo
    def existing(self, i: int, agreement: str) -> int:
        found = 0
        for start in {i, i + 1} if self.texts[i] in ("once", "also", "only", "just", "still", "always", "now") else {i}:
            one, s, p = self.noun_phrase(start, "a")
            if self.texts[start] in closed.PRONOUNS and self.texts[start] not in closed.DETERMINERS:
                continue
            if agreement == "s":  # "there was a cat and a dog"
                first = self.single(start, "a")[1]
                p = self.over(first, self._and_more, "a")
                found |= s | p
            else:
                found |= p
        return self.over(found | self.over(found, self.vp, "ing", ""), self.adjuncts) | self.over(found, self.passive)

    @memo
    def inverted_place(self, i: int, tense: str) -> int:
        """In the box was a key; here comes the bus; up went the kite. Only with a noun, after a place in front."""
        if i == 0 or self.texts[i - 1] == ",":
            return 0
        before = self.texts[i - 1]
        text = self.texts[i]
        somewhere = closed.PREPOSITIONS | closed.PLACE_WORDS | closed.PARTICLES | {"next", "nearby", "upstairs"}
        if not somewhere.intersection(self.texts[max(0, i - 6) : i]):
            return 0
        found = 0
        if self.texts[i + 1] in ("he", "she", "it", "they", "we", "i", "you"):
            return 0
        one, s, p = self.noun_phrase(i + 1, "n")
        directional = before in ("here", "there", "away", "up", "down", "out", "in", "off", "back", "along", "over")
        forms = closed.AUXILIARIES.get(text)
        if forms and forms[0] in ("be", "s"):
            found |= (s if tense + "s" in forms[1] else 0) | (p if tense + "p" in forms[1] else 0)
        elif directional and text in ("comes", "goes", "lies", "stands"):
            found |= s if tense == "N" else 0
        elif directional and text in ("come", "go"):
            found |= p if tense == "N" else 0
        elif text in (
            "came",
            "went",
            "flew",
            "sat",
            "stood",
            "ran",
            "jumped",
            "lived",
            "lay",
            "hopped",
            "popped",
            "fell",
        ):
            found |= s | p if tense == "P" else 0
        return self.over(found, self.adjuncts)

    # ---------------------------------------------------------------- statements
    @memo
    def statement(self, i: int) -> int:
        """Clauses joined by and, but, so, or."""
        found = self.clause(i, "P") | self.clause(i, "N")
        whole = found
        for j in ends(found):
            whole |= self._and_clause(j)
        return whole

    @memo
    def _and_clause(self, i: int) -> int:
        text = self.texts[i]
        if text in closed.COORDINATORS:
            k = i + 2 if text in ("and", "but") and self.texts[i + 1] == "so" else i + 1
            found = self.statement(k)
            if text == "so" and self.texts[k] == "that":
                found |= self.statement(k + 1)
            if text == "and":
                found |= self.so_did(k)
            if text == "so" or self.texts[k] in ("do", "please", "let"):
                found |= self.imperative(k) & (1 << self.n)
            return found
        if text == ",":
            if self.texts[i + 1] in closed.COORDINATORS:
                return self._and_clause(i + 1)
            found = 0
            for j in ends(self.clause(i + 1, "P") | self.clause(i + 1, "N")):
                after = j + (self.texts[j] == ",")
                if self.texts[after] == "and":
                    found |= self._and_clause(after)
            return found
        return 0

    @memo
    def so_did(self, i: int) -> int:
        """so did Tom; neither could I."""
        if self.texts[i] not in ("so", "neither"):
            return 0
        auxiliary = closed.AUXILIARIES.get(self.texts[i + 1])
        if not auxiliary or auxiliary[0] in ("s", "d", "perfect"):
            return 0
        return self._inverted_subject(i + 2, auxiliary[1])

    # ---------------------------------------------------------------- questions
    def _inverted_subject(self, i: int, forms) -> int:
        one, s, p = self.noun_phrase(i, "n")
        agreements = {form[1] for form in forms if form[0] in "PN" and len(form) == 2}
        return (one if "1" in agreements else 0) | (s if "s" in agreements else 0) | (p if "p" in agreements else 0)

    @memo
    def inverted(self, i: int, gap: str) -> int:
        """Auxiliary, subject, rest: "did you see it", "is he happy", "can't we go"."""
        auxiliary = closed.AUXILIARIES.get(self.texts[i])
        if not auxiliary or auxiliary[0] in ("perfect",):
            return 0
        kind, forms = auxiliary
        j = i + 1 + (self.texts[i + 1] == "n't")
        tense = "P" if any(form[0] == "P" for form in forms) else "N"
        if not any(len(form) == 2 for form in forms):
            return 0
        found = 0
        if kind in ("be", "s"):
            for agreement in "1sp":
                if tense + agreement in forms:
                    mask = dict(zip("1sp", self.noun_phrase(j, "n"), strict=True))[agreement]
                    for k in ends(mask):
                        found |= self.over(self.negated(k), self.predicate, gap, tense + agreement)
            if self.texts[j] == "there" and not gap:
                for agreement in "sp":
                    if tense + agreement in forms:
                        found |= self.existing(j + 1, agreement)
            elif self.texts[j] == "there" and gap == "n":
                found |= self.adjuncts(j + 1)
        subject = self._inverted_subject(j, forms)
        if kind in ("do", "modal", "d"):
            for k in ends(subject):
                found |= self.over(self.negated(k), self.vp, "base", gap)
            if self.texts[j] == "there" and self.texts[j + 1] == "be":
                found |= self.existing(j + 2, "s") | self.existing(j + 2, "p")
        if kind in ("have", "s"):
            for k in ends(subject):
                found |= self.over(self.negated(k), self.vp, "part", gap)
        return found

    @memo
    def wh(self, i: int) -> tuple[tuple[int, str, str], ...]:
        """(end, gap, agreement of the word as a subject) for every question phrase at i."""
        text, found = self.texts[i], []
        j = i + 1 + (self.texts[i + 1] == "else")
        if text in ("what", "who", "whom"):
            found.append((j, "n", "s" if text != "whom" else ""))
        if text in ("what", "which", "whose"):
            sg, pl, mass = self.nbar(i + 1, True)
            found += [(k, "n", "s") for k in ends(sg | mass)] + [(k, "n", "p") for k in ends(pl)]
            if text == "which":
                found += [(i + 1, "n", "sp")]
                found += [(i + 2, "n", "s")] if self.texts[i + 1] == "one" else []
            if self.texts[i + 1] in ("time", "day"):
                found.append((i + 2, "", ""))
            if self.texts[i + 1] in ("color", "colour"):
                found.append((i + 2, "a", ""))
            if text == "which" and self.texts[i + 1] == "of":
                found += [(k, "n", "s") for k in ends(self.partitive(i + 1))]
        if text in ("where", "when", "why", "how"):
            found += [
                (j, gap, "") for gap in {"where": ("", "p"), "when": ("", "p"), "how": ("", "a")}.get(text, ("",))
            ]
        if text == "how":
            after = self.words[i + 1]
            if self.texts[i + 1] in ("many", "much"):
                sg, pl, mass = self.nbar(i + 2, False)
                found += [(k, "n", "p") for k in ends(pl)] if self.texts[i + 1] == "many" else []
                if self.texts[i + 2] in closed.TIME_NOUNS_PLURAL:
                    found.append((i + 3, "", ""))
                found += [(k, "n", "s") for k in ends(mass)] if self.texts[i + 1] == "much" else []
                found += [(i + 2, "n", "p" if self.texts[i + 1] == "many" else "s"), (i + 2, "", ""), (i + 2, "a", "")]
            elif after.adj:
                found.append((i + 2, "a", ""))
            if after.adv or self.texts[i + 1] in ("far", "long", "often", "fast"):
                found += [(i + 2, "", ""), (i + 2, "p", "")]
        if text in ("to", "with", "from", "for", "in", "at", "on") and self.texts[i + 1] in closed.WH:
            found += [(k, "", "") for k, gap, _ in self.wh(i + 1) if gap == "n"]
        return tuple(found)

    @memo
    def question(self, i: int) -> int:
        found = self.inverted(i, "")
        for j, gap, agreement in self.wh(i):
            found |= self.inverted(j, gap)
            for one in agreement:
                found |= self.vp(j, "P" + one, "") | self.vp(j, "N" + one, "")
        if self.texts[i] in ("what", "how") and self.texts[i + 1] == "about":
            found |= self.object(i + 2) | self.vp(i + 2, "ing", "")
        if self.texts[i : i + 2] == ("why", "not"):
            found |= self.vp(i + 2, "base", "")
        whole = found
        if self.texts[i] == "where":
            whole |= self.word(found, "to", "from")
        for j in ends(found):
            whole |= self.subordinate(j, "P") | self.subordinate(j, "N")
            if self.texts[j] in ("and", "or", "but"):
                whole |= self.question(j + 1)
            elif self.texts[j] == "," and self.texts[j + 1] in ("and", "or", "but"):
                whole |= self.question(j + 2)
        return whole

    @memo
    def wh_clause(self, i: int) -> int:
        """A question inside a sentence: "where the ball was", "what to do", "if he was home"."""
        found = 0
        if self.texts[i] in ("if", "whether"):
            found |= self.clause(i + 1, "P") | self.clause(i + 1, "N")
        for j, gap, agreement in self.wh(i):
            found |= self.clause(j, "P", gap) | self.clause(j, "N", gap)
            if gap == "p":
                found |= self.clause(j, "P", "p") | self.clause(j, "N", "p")
            for one in agreement:
                found |= self.vp(j, "P" + one, "") | self.vp(j, "N" + one, "")
            if self.texts[j] == "to" and self.texts[i] != "why":
                found |= self.vp(j + 1, "base", gap)
        return found | (self.word(found, "to", "from") if self.texts[i] == "where" else 0)

    # ---------------------------------------------------------------- commands
    @memo
    def imperative(self, i: int) -> int:
        """Come here; do not run; let's play; please be quiet and sit down."""
        texts = self.texts
        starts = 1 << i
        if texts[i] in ("please", "just", "always", "never", "now", "then", "first", "quick", "next"):
            starts |= 2 << i | (4 << i if texts[i + 1] == "," else 0)
        for subordinated in ends(self.subordinate(i, "N")):
            starts |= 2 << subordinated if texts[subordinated] == "," else 0
        found = 0
        for j in ends(starts):
            found |= self.vp(j, "base", "") if texts[j] not in _NEVER_TOLD else 0
            if texts[j] == "do" and texts[j + 1] in ("n't", "not"):
                found |= self.vp(j + 2, "base", "")
            if texts[j] == "let" and texts[j + 1] in ("'us", "us"):
                k = j + 2 + (texts[j + 2] == "not")
                found |= self.vp(k, "base", "")
        found = self.with_subordinates(found, "N")
        whole = found
        for j in ends(found):
            k = j + (texts[j] == ",")
            if texts[k] in ("and", "but", "or", "so", "then"):
                whole |= self.imperative(k + 1) | self.statement(k + 1)
        return whole
