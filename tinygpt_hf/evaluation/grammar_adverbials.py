"""What is said about the whole action: where, when, how, with whom, what for."""

from tinygpt_hf.evaluation import grammar_idioms as idioms
from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar_chart import by_first_word, ends, memo
from tinygpt_hf.evaluation.grammar_nouns import NounPhrases

_LONG_PREPOSITIONS = by_first_word(idioms.LONG_PREPOSITIONS)
_SET_PHRASES = by_first_word(idioms.SET_PREPOSITIONAL)
_EVENTS = (
    frozenset("party race picnic trip show storm game rain song story school end then now one".split()) | closed.DAYS
)
DIRECTIONS = (
    closed.PARTICLES | closed.PLACE_WORDS | {"upstairs", "downstairs", "nearby", "far", "under", "above", "below"}
)
ADVERBS_IN_COMPARISON = frozenset(
    "faster harder better higher closer longer louder sooner later further deeper".split()
)
_FINAL = frozenset(
    """
    too again together alone instead either well hard fast high early late far twice once soon later
    now then today tomorrow yesterday tonight anymore forever everywhere somewhere anywhere nearby straight aloud
    apart ahead still yet already always often sometimes around outside inside afterwards there here upstairs
    downstairs home away back up down over out in off on along by through across anyway low near closer nearer
    somehow though indeed maybe altogether everyday nonstop sideways backwards forwards deep loud next
    """.split()
)
_GRADED = frozenset("little early late soon often".split())
_LIKING = frozenset(
    "like likes liked love loves loved go went goes come came comes finish finished eat ate win won".split()
)
_MOODS = frozenset(
    "tired happy sad hungry wet dirty angry alone safe proud scared excited cold afraid thirsty sleepy muddy".split()
)
_MOTION = frozenset(
    """
    go goes went come comes came going coming sit sits sat stand stands stood lie lies lay return returns returned
    walk walks walked run runs ran sleep sleeps slept wake wakes woke returned
    """.split()
)
_TRAVEL = _MOTION | frozenset(
    """
    bring brings brought take takes took taken carry carries carried drive drives drove ride rides rode hurry hurries
    hurried fly flies flew send sends sent lead leads led get gets got gone pull pulled push pushed follow followed
    stay stays stayed skip skipped hop hopped crawl crawled swim swam march marched dance danced rush rushed jump
    jumped drag dragged invite invited walking running riding flying driving taking bringing way back carrying arrive
    arrived call called race raced travel traveled travels is was are were be 's found chase chased roll rolled
    """.split()
)
_LOOSE_PARTICLES = closed.PARTICLES - {"away", "back", "around", "along"}


class Adverbials(NounPhrases):
    # ---------------------------------------------------------------- prepositions
    @memo
    def prepositions(self, i: int) -> int:
        found = self.phrases(i, _LONG_PREPOSITIONS)
        if self.texts[i] in closed.PREPOSITIONS or self.texts[i] == "like":
            found |= 2 << i
        return found

    @memo
    def prepositional(self, i: int, gap: bool) -> int:
        """in the box; next to him; by bike; without looking; right under the tree. With a gap: the bare preposition."""
        text = self.texts[i]
        if text in (
            "right",
            "just",
            "straight",
            "high",
            "deep",
            "far",
            "all",
            "almost",
            "only",
            "even",
            "always",
        ):
            shifted = self.prepositional(i + 1, gap) if self.texts[i + 1] != "of" else 0
            return shifted | (0 if gap else self.phrases(i, _SET_PHRASES)) | self._plain_prepositional(i, gap)
        return self._plain_prepositional(i, gap)

    @memo
    def _plain_prepositional(self, i: int, gap: bool) -> int:
        text = self.texts[i]
        if text == "of":
            return 0
        starts = self.prepositions(i)
        if gap:
            return starts & 2 << i if text not in ("during", "until", "as", "round", "past") else 0
        found = self.phrases(i, _SET_PHRASES)
        for j in ends(starts):
            if self.texts[j - 1] in ("until", "till", "during", "since"):
                found |= self._times(self.object(j))
            else:
                found |= self.object(j) | (self.time_phrase(j) if self.texts[j] in ("a", "an", "some", "many") else 0)
            after, last = self.texts[j], self.texts[j - 1]
            if last == "to" and after == "home":
                continue
            if after in closed.BARE_PLACES and last in ("to", "at", "in", "from", "after", "for", "into", "on", "of"):
                found |= 2 << j
            if after in closed.BARE_TIMES and last in ("for", "at", "before", "after", "until", "to", "during", "by"):
                found |= 2 << j
            if after in closed.BARE_MEANS and last in ("by", "on"):
                found |= 2 << j
            if last == "from" and self.texts[j + 1] == "to" and self.texts[j + 2] == after and self.words[j].sg:
                found |= 8 << j  # "from flower to flower"
            if last in closed.GERUND_PREPOSITIONS:
                found |= self.vp(j, "ing", "")
                if last == "with" and after in closed.POSSESSIVES:
                    found |= self._with_state(j)
            if last in ("about", "of", "at", "on"):
                found |= self.wh_clause(j)
            if after in (
                "here",
                "there",
                "above",
                "below",
                "behind",
                "inside",
                "outside",
                "now",
                "then",
                "far",
                "home",
            ):
                if last in ("from", "over", "in", "out", "up", "down", "until", "near", "by", "under"):
                    found |= 2 << j
        found |= self._joined_prepositional(found)
        return found

    def _joined_prepositional(self, mask: int) -> int:
        """over the hill and into the forest; through the door, up the stairs and into bed."""
        found = 0
        for j in ends(mask):
            if self.texts[j] in ("and", "or") and self.prepositions(j + 1):
                found |= self._plain_prepositional(j + 1, False)
            elif self.texts[j] == "," and self.prepositions(j + 1):
                for k in ends(self._plain_prepositional(j + 1, False)):
                    after = k + (self.texts[k] == ",")
                    if self.texts[after] == "and" and self.prepositions(after + 1):
                        found |= self._plain_prepositional(after + 1, False)
        return found

    def _times(self, mask: int) -> int:
        """Only the ends after a noun of time or an event: "until the morning", "during lunch", "since the party"."""
        found = 0
        for j in ends(mask):
            last = self.texts[j - 1]
            if last in closed.TIME_NOUNS | closed.TIME_NOUNS_PLURAL | closed.BARE_TIMES | _EVENTS:
                found |= 1 << j
        return found

    def _with_state(self, i: int) -> int:
        """with her eyes closed; with the dog running behind him."""
        found = 0
        for j in ends(self.object(i)):
            found |= self.adjective_phrase(j) | self.vp(j, "ing", "")
        return found

    # ---------------------------------------------------------------- times
    @memo
    def time_phrase(self, i: int) -> int:
        """every day; last night; the next morning; two days ago; all day long; one sunny day; three times."""
        text, found, starts = self.texts[i], 0, []
        if text in ("one", "every", "each", "last", "next", "this", "that", "some", "another", "all"):
            starts.append(i + 1)
        if text in ("the", "that", "this", "all", "one") and self.texts[i + 1] in (
            "next", "same", "following", "whole", "first", "last", "other", "very", "day", "night", "time", "the",
            "morning", "more", "second", "third", "afternoon", "evening",
        ):  # fmt: skip
            starts.append(i + 1 if self.texts[i + 1] in closed.TIME_NOUNS else i + 2)
        for j in starts:
            k = j
            seasons = closed.SEASONS | {"school"} if text in ("one", "every", "each", "the", "that") else ()
            while (self.words[k].adj and self.texts[k] not in closed.TIME_NOUNS and k < j + 4) or (
                self.texts[k] in seasons and self.texts[k + 1] in closed.TIME_NOUNS
            ):
                k += 1 + (self.texts[k + 1] in (",", "and"))
            if self.texts[k] in closed.TIME_NOUNS and not (text == "that" and self.texts[k] == "while"):
                found |= 2 << k
                after = self.texts[k + 1]
                if text == "the" and k == i + 1 and after not in ("before", "after"):
                    found &= ~(2 << k)  # "the day after", but "the morning" alone is no adverbial
                if after in (
                    "long",
                    "morning",
                    "afternoon",
                    "evening",
                    "night",
                    "after",
                    "before",
                    "ago",
                    "later",
                    "again",
                ):
                    found |= 4 << k
        if text in ("all", "both", "many", "these", "several", "a", "an", "some", "half") or text in closed.NUMBERS | {
            "one"
        }:
            k = i + 1
            if text == "a" and self.texts[k] in ("few", "couple", "hundred"):
                k += 1 + (self.texts[k + 1] == "of")
            if text == "half":
                k += self.texts[k] in ("a", "an")
            while self.words[k].adj or self.texts[k] in ("more", "whole", "very", "other", "little", "short"):
                k += 1
            unit = self.texts[k] in closed.TIME_NOUNS or self.texts[k] in closed.TIME_NOUNS_PLURAL
            if unit:
                short = (
                    text in ("a", "an")
                    and k == i + 1
                    and self.texts[k] not in ("minute", "moment", "hour", "while", "second")
                )
                if short and self.texts[k + 1] not in ("ago", "later", "before", "after"):
                    pass
                elif self.texts[k] in closed.TIME_NOUNS_PLURAL or text in ("a", "an", "one", "half"):
                    found |= 2 << k
                    if self.texts[k + 1] in ("ago", "later", "before", "long", "old", "after"):
                        found |= 4 << k
        if (
            text in ("once", "twice")
            and self.texts[i + 1] in ("a", "every")
            and self.texts[i + 2] in closed.TIME_NOUNS - {"time"}
        ):
            found |= 8 << i
        if text in closed.DAYS:
            found |= 2 << i | (4 << i if self.texts[i + 1] in closed.TIME_NOUNS else 0)
        if text in ("yesterday", "tomorrow", "late", "early") and self.texts[i + 1] in (
            "morning",
            "afternoon",
            "evening",
        ):
            found |= 4 << i
        if text in ("late", "early") and self.texts[i + 1] in ("in", "at", "that", "one", "on"):
            found |= self.prepositional(i + 1, False)
            found |= self.time_phrase(i + 1) if self.texts[i + 1] in ("that", "one") else 0
        if text == "day" and self.texts[i + 1 : i + 3] == ("after", "day"):
            found |= 8 << i
        return found

    # ---------------------------------------------------------------- adverbs
    @memo
    def middle(self, i: int) -> int:
        """Adverbs before the verb: "always", "quickly", "all"; none is fine too."""
        found, fresh = 1 << i, 1 << i
        for _ in range(2):
            more = 0
            for j in ends(fresh):
                text, word = self.texts[j], self.words[j]
                if text in closed.MIDDLE or (text.endswith("ly") and word.adv):
                    more |= 2 << j
                elif text in ("very", "so", "just", "almost") and self.texts[j + 1].endswith("ly"):
                    more |= 4 << j if self.words[j + 1].adv else 0
            fresh = more & ~found
            found |= more
        return found

    @memo
    def adverb(self, i: int) -> int:
        """An adverb after the verb, with its degree: "slowly", "very fast", "as fast as he could", "too"."""
        text, word, found = self.texts[i], self.words[i], 0
        if text in closed.DEGREES or word.deg or text in ("how", "not"):
            j = i + 1
            while self.texts[j] in closed.DEGREES - {"still"} and j < i + 2:
                j += 1
            inner = self.words[j]
            if text == "all" and self.texts[j] not in ("alone", "together", "around", "over", "day"):
                j, inner = i, self.words[i]
            if text != "how" and (
                inner.adv
                or self.texts[j] in _FINAL & {"hard", "fast", "high", "far", "long", "much", "still"} | _GRADED
            ):
                if self.texts[j] not in closed.NOT_FINAL:
                    end = 2 << j
                    if text == "as":
                        end = self.compared_to(j + 2) if self.texts[j + 1] == "as" else 0
                    elif self.texts[j + 1] == "that" and text == "so":
                        end |= self.clause(j + 2, "P") | self.clause(j + 2, "N")
                    elif self.texts[j + 1] == "to" and text == "too":
                        end |= self.vp(j + 2, "base", "")
                    found |= end
        if (word.adv or word.time) and text not in closed.NOT_FINAL and text not in ("ago", "much", "long"):
            found |= 2 << i
            if self.texts[i + 1] == "enough":
                found |= 4 << i | (self.vp(i + 3, "base", "") if self.texts[i + 2] == "to" else 0)
            if self.texts[i + 1] == "and" and self.words[i + 2].adv and self.texts[i + 2] not in closed.NOT_FINAL:
                found |= 8 << i
        if text in _FINAL and text not in DIRECTIONS:
            found |= 2 << i
        if text == "home" and not _TRAVEL.intersection(self.texts[:i]):
            found = 0
        if text in ("wrong", "right") and self.texts[i - 1] in ("guess", "guesses", "guessed", "go", "went", "goes"):
            found |= 2 << i
        if text in ("best", "most", "first") and _LIKING.intersection(self.texts[:i]):
            found |= 2 << i
        if text in ADVERBS_IN_COMPARISON or (word.er and self.texts[i + 1] == "than"):
            found |= 2 << i if text in ADVERBS_IN_COMPARISON else 0
            if self.texts[i + 1] == "than":
                found |= self.compared_to(i + 2)
            if self.texts[i + 1] == "and" and self.words[i + 2].er:
                found |= 8 << i
        if text == "more" and self.words[i + 1].adv:
            found |= 4 << i
            if self.texts[i + 2] == "than":
                found |= self.compared_to(i + 3)
        if text == "better" and self.texts[i + 1] == "than":
            found |= self.compared_to(i + 2)
        homeless = text == "home" and not _TRAVEL.intersection(self.texts[:i])
        if ((word.place and text not in _LOOSE_PARTICLES) or text in closed.PLACE_WORDS) and not homeless:
            found |= 2 << i
        return found

    @memo
    def adjunct(self, i: int) -> int:
        """One thing said about the whole action: where, when, how, with whom, what for."""
        text = self.texts[i]
        if i >= self.n or text in ("and", "but", "or", '"'):
            return 0
        found = self.adverb(i) | self.time_phrase(i)
        if text != "of":
            found |= self.prepositional(i, False)
        if text == "to":
            found |= self.vp(i + 1, "base", "")
        elif text == "," and self.words[i + 1].verbs.get("ing"):
            found |= self.vp(i + 1, "ing", "")
        elif text in _MOODS and _MOTION.intersection(self.texts[:i]):  # "went to bed tired but happy"
            found |= self.adjective_phrase(i)
        elif text == "," and self.texts[i + 1] == "but" and self.texts[i + 2] in _MOODS:
            found |= self.adjective_phrase(i + 2) if _MOTION.intersection(self.texts[:i]) else 0
        elif text == "," and self.texts[i + 1] in _MOODS and _MOTION.intersection(self.texts[:i]):
            found |= self.adjective_phrase(i + 1)
        elif text == "," and self.texts[i + 1] in ("too", "please", "again", "either", "as"):
            found |= 4 << i if self.texts[i + 1] != "as" else 0
        elif text == "again" and self.texts[i + 1 : i + 3] == ("and", "again"):
            found |= 8 << i
        elif text == "while" or (text in ("before", "after") and self.words[i + 1].verbs.get("ing")):
            found |= self.vp(i + 1, "ing", "")
        elif text in ("myself", "yourself", "himself", "herself", "itself", "ourselves", "themselves"):
            found |= 2 << i
        return found

    @memo
    def adjuncts(self, i: int) -> int:
        """Any number of adjuncts, none included."""
        found = 1 << i
        for j in ends(self.adjunct(i)):
            found |= self.adjuncts(j)
        return found

    @memo
    def adjuncts_with_gap(self, i: int) -> int:
        """Adjuncts one of which is a preposition whose noun stands in front: "play with _ in the park"."""
        found = self.over(self.prepositional(i, True), self.adjuncts) if self.texts[i] != "of" else 0
        for j in ends(self.adjunct(i)):
            found |= self.adjuncts_with_gap(j)
        return found

    @memo
    def place(self, i: int) -> int:
        """Where to or where: a prepositional phrase, "home", "away", "back to the house", "up and down"."""
        found = self.prepositional(i, False)
        if self.texts[i] in DIRECTIONS or self.words[i].place:
            found |= 2 << i
            if self.texts[i + 1] == "again":
                found |= 4 << i
            if self.texts[i] == "back" or self.texts[i + 1] not in closed.PARTICLES:
                found |= self.place(i + 1) if self.texts[i] not in ("here", "there") else 0
            if self.texts[i + 1] == "and":
                found |= self.place(i + 2)
        if self.texts[i] in ("somewhere", "everywhere", "anywhere", "nowhere"):
            found |= 2 << i
        if self.texts[i] in ("so", "too", "very", "that", "as", "not") and self.texts[i + 1] in ("far", "high", "deep"):
            found |= self.adverb(i) | (4 << i if self.texts[i] != "as" else 0)
        if self.texts[i] in ("higher", "closer", "nearer", "further", "deeper", "high", "low", "near", "slowly"):
            found |= 2 << i | self.place(i + 1)
            found |= self.adverb(i)
        elif self.words[i].adv and self.texts[i] not in closed.NOT_FINAL:
            found |= self.place(i + 1)
        return found
