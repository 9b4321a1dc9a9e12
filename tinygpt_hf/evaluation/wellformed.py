"""How much of a text is well-formed English, judged by a grammar and a lexicon and by nothing that writes text.

    checker = Checker(lexicon)                                   # word form -> tags, see below
    checker.is_wellformed("The dog ran to the park.")            # True
    checker.explain("The dog run to the park.")                  # no parse: makes sense up to "The dog"
    checker.share(stories).share                                 # the share of well-formed sentences

A sentence is well-formed when it is spelled and punctuated as English is (capital, end mark, closed quotes, one space
between words), every word is known, and the grammar of `grammar.py` has at least one reading of the whole of it.
Meaning is not judged. Open-class words come from the lexicon, which maps lower-case forms to tags: name:m, name:f,
noun:sg, noun:pl, noun:mass, verb:<base|3sg|past|part|ing>:<frame>, adj, adj:er, adj:est, adv, adv:place, adv:time,
adv:deg, interj.
`corrupt` breaks a good sentence on purpose: the share of broken sentences turned down is the checker's own mark.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tinygpt_hf.evaluation import grammar_idioms as idioms
from tinygpt_hf.evaluation import grammar_words as closed
from tinygpt_hf.evaluation.grammar import Sentence
from tinygpt_hf.evaluation.grammar_adverbials import ADVERBS_IN_COMPARISON
from tinygpt_hf.evaluation.grammar_chart import Word
from tinygpt_hf.evaluation.grammar_corruption import corrupt

__all__ = ["Checker", "WellFormedReport", "corrupt"]

_PIECE = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*|\d+|[.,!?]|'|\S")
_CONTRACTED = re.compile(r"(.+)(n't|'s|'m|'re|'ve|'ll|'d)$")
_SPACING = re.compile(r"\s{2,}|\s[.,!?]|^\s|\s$|[.,!?][A-Za-z]|[.,]{2}|,[.!?]|[.!?],|\t|\n")
_QUOTED = re.compile(r'"([^"]*)"')
_BARE_INFINITIVE = frozenset("let lets make makes made see sees saw hear hears heard watch watches watched".split())
_PAST_TIMES = frozenset(("yesterday", "ago"))


@dataclass
class WellFormedReport:
    """How many sentences were well-formed, and examples of those that were not, each with its reason."""

    sentences: int = 0
    well_formed: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.well_formed / self.sentences if self.sentences else 0.0


class _Unreadable(Exception):
    """Why a sentence cannot even be turned into words."""


class Checker:
    """Judges sentences with the words of one lexicon."""

    def __init__(self, lexicon: Mapping[str, frozenset[str]]):
        self._lexicon = lexicon
        self._words: dict[tuple[str, str], Word] = {}
        self._known = _closed_words()

    def sentences(self, text: str) -> list[str]:
        """The sentences of a story; a quotation stays with the words that report it, and is never cut in two."""
        found: list[str] = []
        for paragraph in text.split("\n"):
            found += self._split(paragraph.strip())
        return found

    def _split(self, text: str) -> list[str]:
        found, start, inside = [], 0, False
        for i, character in enumerate(text):
            if character == '"':
                inside = not inside
                if inside or i == 0 or text[i - 1] not in ".!?":
                    continue
                after = text[i + 1 :]
                if after and text[start:i].lstrip().startswith('"') and self._reports(after):
                    continue
                found.append(text[start : i + 1])
                start = i + 1
            elif character in ".!?" and not inside:
                if text[start:i].endswith(("Mr", "Mrs", "Dr")) and character == ".":
                    continue
                if text[i + 1 : i + 2] in (".", "!", "?"):
                    continue
                found.append(text[start : i + 1])
                start = i + 1
        found.append(text[start:])
        return [sentence.strip() for sentence in found if sentence.strip()]

    def _reports(self, after: str) -> bool:
        """Whether what follows a closed quotation reports it: `asked Tom.` or `Tom and his mother said.`"""
        if re.match(r"\s[a-z]", after):
            return True
        if not re.match(r"\s[A-Z]", after):
            return False
        words = re.findall(r"[\w']+", re.split(r"[.!?\"]", after, maxsplit=1)[0])[:6]
        verb = next((k for k, word in enumerate(words) if word.lower() in closed.REPORTING), 0)
        return verb > 0 and all(word.lower() not in closed.AUXILIARIES for word in words[:verb])

    def is_wellformed(self, sentence: str) -> bool:
        return self.explain(sentence) == ""

    def explain(self, sentence: str) -> str:
        """Why the sentence is not well-formed, in a few words; empty when it is."""
        try:
            return self._judge(sentence)
        except _Unreadable as reason:
            return str(reason)

    def share(self, texts: Iterable[str], skip_unfinished: bool = False, examples: int = 100) -> WellFormedReport:
        """Judge every sentence of the texts. `skip_unfinished` leaves out a last sentence without an end mark."""
        report = WellFormedReport()
        for text in texts:
            found = self.sentences(text)
            if skip_unfinished and found and not re.search(r'[.!?]"?$', found[-1]):
                found.pop()
            for sentence in found:
                report.sentences += 1
                reason = self.explain(sentence)
                if not reason:
                    report.well_formed += 1
                elif len(report.rejected) < examples:
                    report.rejected.append((sentence, reason))
        return report

    # ---------------------------------------------------------------- one sentence
    def _judge(self, sentence: str) -> str:
        bare = sentence.replace('"', "")
        if not bare.strip():
            return "no words"
        if _SPACING.search(re.sub(r"\b(Mr|Mrs|Dr)\.", r"\1", bare)) and not self._only_speech_marks(sentence):
            return "spacing or punctuation"
        if sentence.count('"') % 2:
            return "a quotation that is not closed"
        if '"' not in sentence:
            return self._plain(sentence, speech=False)
        ends: list[str] = []
        for match in _QUOTED.finditer(sentence):
            inside = match.group(1)
            before, after = sentence[: match.start()], sentence[match.end() :]
            if (before and not before.endswith(" ")) or (after and not re.match(r"\s\S|$", after)):
                return "spacing around a quotation"
            reason = self._speech(inside, continued=bool(ends))
            if reason:
                return f"in the quotation: {reason}"
            ends.append(inside.strip()[-1])
        frame = _QUOTED.sub('"', sentence)
        mark = frame[-1] if frame[-1] in ".!?" else ""
        if not mark and frame[-1] != '"':
            return "no end mark"
        words = self._read(frame[:-1] if mark else frame, not frame.startswith('"'))
        parsed = Sentence(words)
        if parsed.around_speech(ends, mark):
            return ""
        return self._no_parse(parsed)

    @staticmethod
    def _only_speech_marks(sentence: str) -> bool:
        """`"Hi," said Tom, "it is me."` has `,"` and `,` near quotes; look again with each quotation taken out."""
        frame = _QUOTED.sub("Q", sentence)
        return not _SPACING.search(frame) and not any(_SPACING.search(q) for q in _QUOTED.findall(sentence))

    def _speech(self, inside: str, continued: bool) -> str:
        if not inside or inside != inside.strip() or inside[-1] not in ".,!?":
            return "no end mark"
        pieces = self._split(inside)
        for k, piece in enumerate(pieces):
            last = k == len(pieces) - 1
            if last and piece.endswith(","):
                piece = piece[:-1] + "."
            reason = self._plain(piece, speech=True, continued=continued and k == 0)
            if reason:
                return reason
        return ""

    def _plain(self, sentence: str, speech: bool, continued: bool = False) -> str:
        mark = sentence[-1]
        if mark not in ".!?":
            return "no end mark"
        words = self._read(sentence[:-1], not continued)
        parsed = Sentence(words)
        if not parsed.utterance(mark, speech):
            return self._no_parse(parsed)
        return self._disagrees(parsed)

    @staticmethod
    def _no_parse(parsed: Sentence) -> str:
        reached = " ".join(parsed.texts[: parsed.reach()])
        return f'no parse: makes sense up to "{reached}"'

    def _disagrees(self, parsed: Sentence) -> str:
        """What a phrase cannot see: a/an, reflexives and who they go back to, yesterday with a present verb."""
        texts = parsed.texts
        for i, text in enumerate(texts[: parsed.n]):
            if text in ("a", "an") and i + 1 < parsed.n:
                if texts[i + 1] and texts[i + 1][0].isalnum() and closed.vowel_sound(texts[i + 1]) != (text == "an"):
                    return f'"{text}" before "{texts[i + 1]}"'
            allowed = closed.ANTECEDENTS.get(text)
            if allowed and not self._has_antecedent(parsed, i, text, allowed):
                return f'nothing for "{text}" to go back to'
            if text in _BARE_INFINITIVE and texts[i + 1] in ("him", "her", "them", "me", "us") and texts[i + 2] == "to":
                if "base" in parsed.words[i + 3].verbs:
                    return f'"to" after "{text} {texts[i + 1]}"'
            if text in _PAST_TIMES and not any(
                "past" in w.verbs or w.text in ("was", "were", "did", "had", "could", "would", "'d")
                for w in parsed.words
            ):
                return f'"{text}" without a verb in the past'
        return ""

    def _has_antecedent(self, parsed: Sentence, i: int, text: str, allowed: set[str]) -> bool:
        before = parsed.words[:i]
        if any(w.text in allowed for w in before):
            return True
        if text in ("yourself", "yourselves"):
            return not any(w.name or w.text in ("he", "she", "it", "they", "i", "we") for w in before)
        if text == "themselves":
            return any(w.pl for w in before)
        if text == "himself" or text == "herself":
            wanted = "name:m" if text == "himself" else "name:f"
            return any(wanted in self._lexicon.get(w.text, ()) or (w.sg and not w.name) for w in before)
        return any(w.sg or w.mass for w in before) if text == "itself" else False

    # ---------------------------------------------------------------- words
    def _read(self, text: str, capital: bool) -> list[Word]:
        """The words of a sentence without its end mark, contractions taken apart."""
        words: list[Word] = []
        pieces = _PIECE.findall(re.sub(r"\b(Mr|Mrs|Dr)\.", r"\1", text))
        for k, piece in enumerate(pieces):
            lower = piece.lower()
            if piece in (",", "'", '"'):
                words.append(self._word(piece, "mark"))
                continue
            if piece.isdigit():
                words.append(self._word(piece, "mark"))
                continue
            if not piece[0].isalpha():
                raise _Unreadable(f'unexpected "{piece}"')
            first = k == 0 and capital
            if first and not piece[0].isupper():
                raise _Unreadable("no capital at the start")
            if not (piece[1:].islower() or len(piece) == 1 or piece.startswith("I'")):
                raise _Unreadable(f'capitals inside "{piece}"')
            place = "first" if first else "capital" if piece[0].isupper() else "small"
            if "'" in lower and lower not in self._lexicon:
                host, rest = self._contracted(lower)
                if host == "let" and rest == "'us":
                    words += [self._word("let", place), self._word("'us", "mark")]
                    continue
                words += [self._word(host, "mark" if host in closed.AUXILIARIES else place), self._word(rest, "mark")]
            elif lower == "cannot":
                words += [self._word("can", place), self._word("not", "mark")]
            else:
                words.append(self._word(lower, place))
        return words

    @staticmethod
    def _contracted(lower: str) -> tuple[str, str]:
        if lower in closed.CONTRACTIONS:
            return closed.CONTRACTIONS[lower]
        match = _CONTRACTED.match(lower)
        if not match:
            raise _Unreadable(f'unknown word "{lower}"')
        host, rest = match.groups()
        if rest == "n't" and host not in closed.AUXILIARIES or host in ("ca", "wo", "can", "will", "am", "may"):
            raise _Unreadable(f'unknown word "{lower}"')
        if rest == "'m" and host != "i" or rest == "'re" and host not in ("you", "we", "they", "there", "what", "who"):
            raise _Unreadable(f'unknown word "{lower}"')
        return host, rest

    def _word(self, lower: str, place: str) -> Word:
        """The word at the start of a sentence (first), with a capital inside it, small, or without a choice (mark)."""
        key = (lower, place)
        found = self._words.get(key)
        if found is None:
            found = self._words[key] = self._look_up(lower, place)
        return found

    def _look_up(self, lower: str, place: str) -> Word:
        tags = self._lexicon.get(lower, frozenset())
        if place == "mark":
            return Word(lower, tags)
        name = bool(tags & {"name:m", "name:f"}) or lower in closed.PROPER
        kin = lower in closed.KIN or lower in closed.TITLES
        common = bool({t for t in tags if not t.startswith("name:")}) or lower in self._known
        parts = lower.split("-")
        if not tags and not name and not common:
            if len(parts) == 2 and all(p in closed.NUMBERS | closed.ORDINALS | {"one"} for p in parts):
                return Word("two")
            raise _Unreadable(f'unknown word "{lower}"')
        if place == "capital":
            if lower == "i":
                return Word(lower, tags)
            if not name and not kin:
                raise _Unreadable(f'a capital inside the sentence: "{lower.capitalize()}"')
            return Word(lower, tags, names=True, common=lower in closed.PROPER)
        if place == "small":
            if lower == "i" or (lower in closed.PROPER and lower not in ("may", "march")):
                raise _Unreadable(f'no capital: "{lower}"')
            if not common and (name or not kin):
                raise _Unreadable(f'no capital: "{lower}"')
            return Word(lower, tags, names=False)
        return Word(lower, tags)


def _closed_words() -> frozenset[str]:
    """Every word the grammar knows without a lexicon."""
    known = set(closed.DETERMINERS) | closed.NUMBERS | closed.ORDINALS | closed.CLOSED_ADJECTIVES | set(closed.PRONOUNS)
    known |= closed.INDEFINITES | closed.PREPOSITIONS | closed.COORDINATORS | set(closed.AUXILIARIES) | closed.WH
    known |= {
        "not",
        "than",
        "that",
        "there",
        "to",
        "else",
        "like",
        "please",
        "let",
        "used",
        "because",
        "if",
        "so",
        "then",
    }
    known |= {"while", "when", "although", "though", "unless", "whether", "too", "also", "again", "ago", "only", "just"}
    known |= {
        "very",
        "even",
        "ever",
        "never",
        "always",
        "ones",
        "others",
        "once",
        "twice",
        "as",
        "soon",
        "plus",
        "minus",
    }
    known |= {"times", "yet", "still", "already", "lot", "lots", "o'clock", "now", "here", "quite", "upon", "whenever"}
    for table in (idioms.LONG_PREPOSITIONS, idioms.SET_PREPOSITIONAL, idioms.OPENERS_LONG, idioms.INTERJECTIONS_LONG,
                  closed.QUANTITIES, idioms.TEMPORAL, idioms.CAUSAL):  # fmt: skip
        known |= {word for phrase in table for word in phrase}
    known |= set(closed.QUANTIFIER_PRONOUNS) | closed.INTERJECTIONS | {"of", "either", "neither"}
    known |= ADVERBS_IN_COMPARISON
    known |= {"thank", "thanks", "hello", "yes", "oh", "okay", "goodbye", "together", "maybe", "later", "almost", "bit"}
    return frozenset(known - {"ca", "wo"})
