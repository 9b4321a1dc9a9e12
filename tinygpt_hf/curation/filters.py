"""Steps of cleaning: each looks at one document alone and keeps it, or drops it and says why. Nothing is lost silently.

    view = View(mended(document, settings)[0])
    verdict(view, settings)                 # None: keep; else Drop("short_lines", "0.81 of its lines are short; at most 0.67")

Text that is kept is kept byte for byte, but for the steps that mend it: NFC, control characters, masking. Sources of the rules:
C4 (Raffel et al. 2020), Gopher (Rae et al. 2021, appendix A.1), FineWeb (Penedo et al. 2024), Codex (Chen et al. 2021, section
3.1), SantaCoder (Ben Allal et al. 2023). Their thresholds were chosen for pages of the web; `settings/corpus.py` holds ours.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tinygpt_hf.curation.language import language_scores
from tinygpt_hf.curation.pii import found, masked
from tinygpt_hf.reading.formats import BLANK_LINES
from tinygpt_hf.settings.corpus import CorpusArguments

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # category Cc but tab, line feed, carriage return
BULLETS = ("•", "‣", "▪", "●", "○", "◦", "- ", "* ", "+ ")
ELLIPSES = ("...", "…")
LINE_ENDS = tuple(".!?:;\"'”’»…)。！？」』।؟۔|*")  # the last two close a table row and an emphasis
SHORT_LINE = 30
MOST_WORDS = 1_000_000  # of a longer text only so many are searched for repeated words in a row: that takes memory
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
BOILERPLATE = re.compile(
    "javascript|lorem ipsum|terms of use|terms of service|privacy policy|cookie policy|uses cookies|use of cookies|"
    "use cookies|all rights reserved",
    re.IGNORECASE,
)
NO_SPACES = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"}  # words are not set apart
_NO_SCRIPT = {
    "Modifier",
    "Mathematical",
    "Fullwidth",
    "Halfwidth",
    "Micro",
    "Feminine",
    "Masculine",
    "Double",
    "Superscript",
}


class Drop(NamedTuple):
    """Why a document goes: the rule, and what it found."""

    rule: str
    reason: str


class View:
    """One document's text, with what several rules ask about it computed once."""

    def __init__(self, text: str, is_conversation: bool = False):
        self.text, self.is_conversation = text, is_conversation

    @classmethod
    def of(cls, document: dict) -> "View":
        """A conversation is seen as its messages one below the other."""
        return cls("\n".join(contents(document)), "messages" in document)

    @functools.cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without the space around them."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @functools.cached_property
    def paragraphs(self) -> list[str]:
        return [part for part in map(str.strip, BLANK_LINES.split(self.text)) if part]

    @functools.cached_property
    def characters(self) -> Counter:
        return Counter(self.text)

    @functools.cached_property
    def scripts(self) -> Counter:
        """Script -> number of letters."""
        counts: Counter = Counter()
        for character, number in self.characters.items():
            if script := script_of(character):
                counts[script] += number
        return counts

    @functools.cached_property
    def languages(self) -> dict[str, float]:
        """Code -> certainty, the likeliest first."""
        return language_scores(self.text)

    def share_of_scripts(self, wanted: set[str]) -> float:
        letters = self.scripts.total()
        return sum(self.scripts[script] for script in wanted) / letters if letters else 0.0


@functools.cache
def script_of(character: str) -> str | None:
    """`Latin`, `Cyrillic`, `Han` ... as the character's Unicode name begins; None for what is no letter."""
    if not character.isalpha():
        return None
    first = unicodedata.name(character, "other").split()[0].split("-")[0].capitalize()
    return "Han" if first == "Cjk" else "Other" if first in _NO_SCRIPT else first


def contents(document: dict) -> list[str]:
    """The texts of a document: its text, or those of its messages."""
    return [document["text"]] if "text" in document else [message["content"] for message in document["messages"]]


def mended(document: dict, settings: CorpusArguments) -> tuple[dict, Counter]:
    """The document after the steps that change text, and how often each changed a text or met personal data."""
    counts: Counter = Counter()

    def mend(text: str) -> str:
        if settings.nfc and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            counts["nfc"] += 1
        if settings.control_characters == "remove" and CONTROLS.search(text):
            text = CONTROLS.sub("", text)
            counts["control_characters"] += 1
        hits = found(text)
        counts.update(f"personal_{kind}" for _, _, kind in hits)
        if settings.mask and any(kind in settings.mask for _, _, kind in hits):
            text = masked(text, set(settings.mask), hits)
        return text

    if "text" in document:
        return {**document, "text": mend(document["text"])}, counts
    messages = [{**message, "content": mend(message["content"])} for message in document["messages"]]
    return {**document, "messages": messages}, counts


def verdict(view: View, settings: CorpusArguments) -> Drop | None:
    """The first rule that drops the document, with its reason; None: keep it."""
    for name, rule in RULES.items():
        if view.is_conversation and name not in FOR_CONVERSATIONS:
            continue
        if reason := rule(view, settings):
            return Drop(name, reason)
    return None


def _over(value: float, most: float | None, what: str) -> str | None:
    """A reason where a limit is set and passed."""
    return f"{what} {value:.3g}, at most {most:g} wanted" if most is not None and value > most else None


def _under(value: float, least: float | None, what: str) -> str | None:
    return f"{what} {value:.3g}, at least {least:g} wanted" if least is not None and value < least else None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def empty(view: View, s: CorpusArguments) -> str | None:
    """Nothing but white space teaches nothing; no setting keeps it."""
    return None if view.words else "no word in it"


def length(view: View, s: CorpusArguments) -> str | None:
    """Characters (Gopher counts 50 to 100,000 words; small models learn from shorter texts, and from whole books)."""
    size = len(view.text)
    return _under(size, s.min_characters, "characters:") or _over(size, s.max_characters, "characters:")


def control(view: View, s: CorpusArguments) -> str | None:
    """Control characters, where documents with them are to be dropped."""
    if s.control_characters == "drop" and (match := CONTROLS.search(view.text)):
        return f"it holds U+{ord(match[0]):04X}"
    return None


def script(view: View, s: CorpusArguments) -> str | None:
    """Share of letters in the wanted scripts: exact, as the names of Unicode's characters are."""
    if not s.scripts:
        return None
    share = view.share_of_scripts({name.capitalize() for name in s.scripts})
    return _under(share, s.min_script_share, f"share of letters in {', '.join(s.scripts)}:")


def language(view: View, s: CorpusArguments) -> str | None:
    """Certainty that the text is in one of the wanted languages (C4: 0.99, FineWeb: 0.65, each by its own detector)."""
    if not s.languages:
        return None
    likeliest, score = next(iter(view.languages.items()))
    certainty = sum(view.languages.get(code, 0.0) for code in dict.fromkeys(s.languages))
    what = f"it looks like {likeliest} ({score:.3g}); {' or '.join(s.languages)}:"
    return _under(certainty, s.min_language_score, what)


def mean_word(view: View, s: CorpusArguments) -> str | None:
    """Mean length of words (Gopher: 3 to 10); scripts without spaces have no words to measure."""
    if s.min_mean_word is None and s.max_mean_word is None or view.share_of_scripts(NO_SPACES) > 0.3:
        return None
    mean = _share(sum(map(len, view.words)), len(view.words))
    return _under(mean, s.min_mean_word, "mean word:") or _over(mean, s.max_mean_word, "mean word:")


def symbols(view: View, s: CorpusArguments) -> str | None:
    """# signs or ellipses per word (Gopher: 0.1)."""
    if s.max_symbol_ratio is None:
        return None
    number = max(view.text.count("#"), sum(view.text.count(mark) for mark in ELLIPSES))
    return _over(_share(number, len(view.words)), s.max_symbol_ratio, "symbols per word:")


def alphabetic_words(view: View, s: CorpusArguments) -> str | None:
    """Share of words with a letter (Gopher: 0.8)."""
    if not s.min_alphabetic_words:
        return None
    number = sum(any(map(str.isalpha, word)) for word in view.words)
    return _under(_share(number, len(view.words)), s.min_alphabetic_words, "words with a letter:")


def stop_words(view: View, s: CorpusArguments) -> str | None:
    """Common English words (Gopher: 2 of 8)."""
    if not s.min_stop_words:
        return None
    return _under(len(STOP_WORDS & {word.lower() for word in view.words}), s.min_stop_words, "common words:")


def _lines(part: Callable[[str], bool], view: View) -> float:
    return _share(sum(map(part, view.lines)), len(view.lines))


def bullet_lines(view: View, s: CorpusArguments) -> str | None:
    """Lines that open with a bullet (Gopher: 0.9)."""
    return _over(_lines(lambda line: line.startswith(BULLETS), view), s.max_bullet_lines, "bullet lines:")


def ellipsis_lines(view: View, s: CorpusArguments) -> str | None:
    """Lines that end in an ellipsis (Gopher: 0.3)."""
    return _over(_lines(lambda line: line.endswith(ELLIPSES), view), s.max_ellipsis_lines, "ellipsis lines:")


def punctuated_lines(view: View, s: CorpusArguments) -> str | None:
    """Lines that end in punctuation (FineWeb: 0.12); C4 keeps such lines only. One or two lines are no menu."""
    if len(view.lines) < 3:
        return None
    return _under(_lines(lambda line: line.endswith(LINE_ENDS), view), s.min_punctuated_lines, "punctuated lines:")


def short_lines(view: View, s: CorpusArguments) -> str | None:
    """Lines of 30 characters or fewer (FineWeb: 0.67); one or two lines are no list."""
    if len(view.lines) < 3 or view.share_of_scripts(NO_SPACES) > 0.3:
        return None
    return _over(_lines(lambda line: len(line) <= SHORT_LINE, view), s.max_short_lines, "short lines:")


def _repeated(parts: list[str]) -> tuple[float, float]:
    """Shares of parts, and of their characters, that stand above already."""
    seen, number, characters = set(), 0, 0
    for part in parts:
        if part in seen:
            number, characters = number + 1, characters + len(part)
        seen.add(part)
    return _share(number, len(parts)), _share(characters, sum(map(len, parts)))


def duplicate_lines(view: View, s: CorpusArguments) -> str | None:
    """Lines repeated within the document (Gopher: 0.3, of their characters 0.2)."""
    return _repetition(view.lines, s.max_duplicate_lines, "lines")


def duplicate_paragraphs(view: View, s: CorpusArguments) -> str | None:
    """Paragraphs repeated within the document (Gopher: 0.3, of their characters 0.2)."""
    return _repetition(view.paragraphs, s.max_duplicate_paragraphs, "paragraphs")


def _repetition(parts: list[str], most: float | None, what: str) -> str | None:
    if most is None or most >= 1:
        return None
    number, characters = _repeated(parts)
    return _over(number, most, f"repeated {what}:") or _over(
        characters, most * 2 / 3, f"characters of repeated {what}:"
    )


def top_ngram(view: View, s: CorpusArguments) -> str | None:
    """Characters in the commonest 2, 3, 4 words in a row (Gopher: 0.20, 0.18, 0.16); no repetition is none."""
    if s.max_top_ngram is None or s.max_top_ngram >= 1:
        return None
    words = view.words[:MOST_WORDS]
    whole = sum(map(len, words))
    for n, most in ((2, 1.0), (3, 0.9), (4, 0.8)):
        common = Counter(zip(*(words[k:] for k in range(n)), strict=False)).most_common(1)
        if common and common[0][1] > 1:
            share = _share(sum(map(len, common[0][0])) * common[0][1], whole)
            if reason := _over(share, s.max_top_ngram * most, f"characters of the commonest {n} words:"):
                return reason
    return None


def duplicate_ngrams(view: View, s: CorpusArguments) -> str | None:
    """Characters in 5 and 10 words in a row that came before, each character once (Gopher: 0.15 and 0.10)."""
    if s.max_duplicate_ngrams is None or s.max_duplicate_ngrams >= 1:
        return None
    words = view.words[:MOST_WORDS]
    whole = sum(map(len, words))
    for n, most in ((5, 1.0), (10, 2 / 3)):
        seen, covered, end = set(), 0, 0
        for place, ngram in enumerate(zip(*(words[k:] for k in range(n)), strict=False)):
            if ngram in seen:
                covered += sum(map(len, words[max(place, end) : place + n]))
                end = place + n
            else:
                seen.add(ngram)
        if reason := _over(_share(covered, whole), s.max_duplicate_ngrams * most, f"characters of repeated {n} words:"):
            return reason
    return None


def boilerplate(view: View, s: CorpusArguments) -> str | None:
    """Lines about the page instead of its subject (C4's list; C4 removes the lines, here the text stays or goes whole)."""
    if s.max_boilerplate_lines is None:
        return None
    return _over(
        _lines(lambda line: bool(BOILERPLATE.search(line)), view), s.max_boilerplate_lines, "boilerplate lines:"
    )


def line_length(view: View, s: CorpusArguments) -> str | None:
    """Longest and mean line (Codex: 1000 and 100): minified and generated code."""
    lengths = [len(line) for line in view.text.splitlines()] or [0]
    return _over(max(lengths), s.max_line_characters, "longest line:") or _over(
        sum(lengths) / len(lengths), s.max_mean_line, "mean line:"
    )


def alphanumeric(view: View, s: CorpusArguments) -> str | None:
    """Share of characters that are letters or digits (Codex: a low share marks data, not code; 0.25 as in SantaCoder)."""
    if not s.min_alphanumeric:
        return None
    number = sum(count for character, count in view.characters.items() if character.isalnum())
    return _under(_share(number, len(view.text)), s.min_alphanumeric, "letters and digits:")


# The others look at lines and repetition, which mean something else in a dialogue.
FOR_CONVERSATIONS = {"empty", "length", "control", "script", "language"}
RULES: dict[str, Callable[[View, CorpusArguments], str | None]] = {  # the cheap ones first
    rule.__name__: rule
    for rule in (
        empty, length, control, script, mean_word, symbols, alphabetic_words, stop_words, bullet_lines, ellipsis_lines,
        punctuated_lines, short_lines, boilerplate, line_length, alphanumeric, duplicate_lines, duplicate_paragraphs,
        language, top_ngram, duplicate_ngrams,
    )
}  # fmt: skip
