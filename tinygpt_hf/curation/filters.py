"""Normalize a document, and keep it or reject it with a reason, by rules that look at this document alone.

    stats = TextStats(normalize(document, settings)[0])
    apply_rules(stats, settings)     # None: keep; else Rejection("short_lines", "short lines: 0.81, expected at most 0.67")

Kept text changes only by `normalize`: NFC, control characters, masking. Sources of the rules: C4 (Raffel et al. 2020), Gopher
(Rae et al. 2021, appendix A.1), FineWeb (Penedo et al. 2024), Codex (Chen et al. 2021, section 3.1), SantaCoder (Ben Allal et
al. 2023). Their thresholds were chosen for web pages; `settings/corpus.py` has ours.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tinygpt_hf.curation.language import language_scores
from tinygpt_hf.curation.pii import find_personal_data, mask_personal_data
from tinygpt_hf.reading.formats import BLANK_LINES
from tinygpt_hf.reading.turns import document_texts
from tinygpt_hf.settings.corpus import CorpusArguments

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # category Cc without tab, line feed, carriage return
BULLETS = ("•", "‣", "▪", "●", "○", "◦", "- ", "* ", "+ ")
ELLIPSES = ("...", "…")
LINE_ENDS = tuple(".!?:;\"'”’»…)。！？」』।؟۔|*")  # the last two close a table row and an emphasis
SHORT_LINE = 30
MOST_WORDS = 1_000_000  # n-grams are counted in the first million words only, to bound memory
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
BOILERPLATE = re.compile(
    "javascript|lorem ipsum|terms of use|terms of service|privacy policy|cookie policy|uses cookies|use of cookies|"
    "use cookies|all rights reserved",
    re.IGNORECASE,
)
NO_SPACES = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"}  # no spaces between words
NO_SCRIPT = set("Modifier Mathematical Fullwidth Halfwidth Micro Feminine Masculine Double Superscript".split())


class Rejection(NamedTuple):
    """The rule that rejected a document, and the reason with the measured value."""

    rule: str
    reason: str


class TextStats:
    """The text of one document with cached statistics for the rules; messages are joined by line feeds."""

    def __init__(self, document: dict):
        self.text, self.is_conversation = "\n".join(document_texts(document)), "messages" in document

    @functools.cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @functools.cached_property
    def lines(self) -> list[str]:
        """Return the stripped lines that are not blank."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @functools.cached_property
    def paragraphs(self) -> list[str]:
        return [part for part in map(str.strip, BLANK_LINES.split(self.text)) if part]

    @functools.cached_property
    def characters(self) -> Counter:
        return Counter(self.text)

    @functools.cached_property
    def scripts(self) -> Counter:
        """Return the number of letters of each script."""
        counts: Counter = Counter()
        for character, number in self.characters.items():
            if script := script_of(character):
                counts[script] += number
        return counts

    @functools.cached_property
    def languages(self) -> dict[str, float]:
        """Return the language codes with their probability, most likely first."""
        return language_scores(self.text)

    def script_share(self, names: set[str]) -> float:
        return _share(sum(self.scripts[name] for name in names), self.scripts.total())

    def line_share(self, test: Callable[[str], bool]) -> float:
        return _share(sum(map(test, self.lines)), len(self.lines))


@functools.cache
def script_of(character: str) -> str | None:
    """Return the script of a letter (`Latin`, `Cyrillic`, `Han` ...) from its Unicode name; None for other characters."""
    if not character.isalpha():
        return None
    first = unicodedata.name(character, "other").split()[0].split("-")[0].capitalize()
    return "Han" if first == "Cjk" else "Other" if first in NO_SCRIPT else first


def normalize(document: dict, settings: CorpusArguments) -> tuple[dict, Counter]:
    """Normalize the texts of a document; returns it with counts of the changes and of personal data found."""
    counts: Counter = Counter()

    def change(text: str) -> str:
        if settings.nfc and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            counts["nfc"] += 1
        if settings.control_characters == "remove" and CONTROLS.search(text):
            text = CONTROLS.sub("", text)
            counts["control_characters"] += 1
        matches = find_personal_data(text)
        counts.update(f"personal_{kind}" for _, _, kind in matches)
        return mask_personal_data(text, settings.mask, matches)

    content = {name: _map_texts(document[name], change) for name in ("text", "messages", "tools") if name in document}
    return document | content, counts


def _map_texts(value, change: Callable[[str], str]):
    """Apply `change` to every string inside a JSON value, except keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(part, change) for part in value]
    return {name: _map_texts(part, change) for name, part in value.items()} if isinstance(value, dict) else value


def apply_rules(stats: TextStats, settings: CorpusArguments) -> Rejection | None:
    """Return the rejection by the first rule that rejects the document; None to keep it."""
    for name, rule in RULES.items():
        if stats.is_conversation and name not in FOR_CONVERSATIONS:
            continue
        if reason := rule(stats, settings):
            return Rejection(name, reason)
    return None


def _over(value: float, most: float | None, what: str) -> str | None:
    """Return a reason if `most` is set and exceeded."""
    return f"{what} {value:.3g}, expected at most {most:g}" if most is not None and value > most else None


def _under(value: float, least: float | None, what: str) -> str | None:
    return f"{what} {value:.3g}, expected at least {least:g}" if least is not None and value < least else None


def _is_off(share: float | None) -> bool:
    return share is None or share >= 1


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def empty(stats: TextStats, s: CorpusArguments) -> str | None:
    """Reject text that is only white space, whatever the settings."""
    return None if stats.words else "no word in it"


def length(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the number of characters (Gopher: 50 to 100,000 words; small models also learn from shorter and longer texts)."""
    size = len(stats.text)
    return _under(size, s.min_characters, "characters:") or _over(size, s.max_characters, "characters:")


def control(stats: TextStats, s: CorpusArguments) -> str | None:
    """Reject text with control characters if `control_characters` is drop."""
    if s.control_characters == "drop" and (match := CONTROLS.search(stats.text)):
        return f"it holds U+{ord(match[0]):04X}"
    return None


def script(stats: TextStats, s: CorpusArguments) -> str | None:
    """Require a share of letters in the requested scripts, by the Unicode names of the letters."""
    if not s.scripts:
        return None
    share = stats.script_share({name.capitalize() for name in s.scripts})
    return _under(share, s.min_script_share, f"share of letters in {', '.join(s.scripts)}:")


def language(stats: TextStats, s: CorpusArguments) -> str | None:
    """Require a probability of the requested languages (C4: 0.99, FineWeb: 0.65, each with another detector)."""
    if not s.languages:
        return None
    likeliest, score = next(iter(stats.languages.items()))
    certainty = sum(stats.languages.get(code, 0.0) for code in dict.fromkeys(s.languages))
    what = f"it looks like {likeliest} ({score:.3g}); {' or '.join(s.languages)}:"
    return _under(certainty, s.min_language_score, what)


def mean_word(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the mean word length (Gopher: 3 to 10), except in scripts without spaces."""
    if s.min_mean_word is None and s.max_mean_word is None or stats.script_share(NO_SPACES) > 0.3:
        return None
    mean = _share(sum(map(len, stats.words)), len(stats.words))
    return _under(mean, s.min_mean_word, "mean word:") or _over(mean, s.max_mean_word, "mean word:")


def symbols(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit hash signs or ellipses per word (Gopher: 0.1)."""
    number = max(stats.text.count("#"), sum(stats.text.count(mark) for mark in ELLIPSES))
    return _over(_share(number, len(stats.words)), s.max_symbol_ratio, "symbols per word:")


def alphabetic_words(stats: TextStats, s: CorpusArguments) -> str | None:
    """Require a share of words with a letter (Gopher: 0.8)."""
    if not s.min_alphabetic_words:
        return None
    number = sum(any(map(str.isalpha, word)) for word in stats.words)
    return _under(_share(number, len(stats.words)), s.min_alphabetic_words, "words with a letter:")


def stop_words(stats: TextStats, s: CorpusArguments) -> str | None:
    """Require some common English words (Gopher: 2 of 8)."""
    if not s.min_stop_words:
        return None
    return _under(len(STOP_WORDS & {word.lower() for word in stats.words}), s.min_stop_words, "common words:")


def bullet_lines(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the share of lines that begin with a bullet (Gopher: 0.9)."""
    return _over(stats.line_share(lambda line: line.startswith(BULLETS)), s.max_bullet_lines, "bullet lines:")


def ellipsis_lines(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the share of lines that end in an ellipsis (Gopher: 0.3)."""
    return _over(stats.line_share(lambda line: line.endswith(ELLIPSES)), s.max_ellipsis_lines, "ellipsis lines:")


def punctuated_lines(stats: TextStats, s: CorpusArguments) -> str | None:
    """Require a share of lines that end in punctuation, in texts of 3 lines or more (FineWeb: 0.12; C4: every line)."""
    if len(stats.lines) < 3:
        return None
    return _under(stats.line_share(lambda line: line.endswith(LINE_ENDS)), s.min_punctuated_lines, "punctuated lines:")


def short_lines(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the share of lines of at most 30 characters, in texts of 3 lines or more (FineWeb: 0.67)."""
    if len(stats.lines) < 3 or stats.script_share(NO_SPACES) > 0.3:
        return None
    return _over(stats.line_share(lambda line: len(line) <= SHORT_LINE), s.max_short_lines, "short lines:")


def duplicate_lines(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit repeated lines in the document (Gopher: 0.3 of the lines, 0.2 of the characters)."""
    return _repetition(stats.lines, s.max_duplicate_lines, "lines")


def duplicate_paragraphs(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit repeated paragraphs in the document (Gopher: 0.3 of the paragraphs, 0.2 of the characters)."""
    return _repetition(stats.paragraphs, s.max_duplicate_paragraphs, "paragraphs")


def _repetition(parts: list[str], most: float | None, what: str) -> str | None:
    if _is_off(most):
        return None
    counts = Counter(parts)
    number = _share(len(parts) - len(counts), len(parts))
    characters = _share(sum(len(part) * (count - 1) for part, count in counts.items()), sum(map(len, parts)))
    return _over(number, most, f"repeated {what}:") or _over(
        characters, most * 2 / 3, f"characters of repeated {what}:"
    )


def top_ngram(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the share of characters in the most common 2-, 3- and 4-gram of words (Gopher: 0.20, 0.18, 0.16)."""
    if _is_off(s.max_top_ngram):
        return None
    words = stats.words[:MOST_WORDS]
    total = sum(map(len, words))
    for n, most in ((2, 1.0), (3, 0.9), (4, 0.8)):
        common = Counter(zip(*(words[k:] for k in range(n)), strict=False)).most_common(1)
        if common and common[0][1] > 1:
            share = _share(sum(map(len, common[0][0])) * common[0][1], total)
            if reason := _over(share, s.max_top_ngram * most, f"characters of the most common {n} words:"):
                return reason
    return None


def duplicate_ngrams(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the share of characters in repeated 5- and 10-grams of words, each counted once (Gopher: 0.15 and 0.10)."""
    if _is_off(s.max_duplicate_ngrams):
        return None
    words = stats.words[:MOST_WORDS]
    total = sum(map(len, words))
    for n, most in ((5, 1.0), (10, 2 / 3)):
        seen, covered, end = set(), 0, 0
        for start, ngram in enumerate(zip(*(words[k:] for k in range(n)), strict=False)):
            if ngram in seen:
                covered += sum(map(len, words[max(start, end) : start + n]))
                end = start + n
            else:
                seen.add(ngram)
        if reason := _over(_share(covered, total), s.max_duplicate_ngrams * most, f"characters of repeated {n} words:"):
            return reason
    return None


def boilerplate(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the share of lines with boilerplate phrases (C4's list; C4 removes the lines, this rejects the document)."""
    if s.max_boilerplate_lines is None:
        return None
    return _over(
        stats.line_share(lambda line: bool(BOILERPLATE.search(line))), s.max_boilerplate_lines, "boilerplate lines:"
    )


def line_length(stats: TextStats, s: CorpusArguments) -> str | None:
    """Limit the longest and the mean line, against minified and generated code (Codex: 1000 and 100)."""
    lengths = [len(line) for line in stats.text.splitlines()] or [0]
    return _over(max(lengths), s.max_line_characters, "longest line:") or _over(
        sum(lengths) / len(lengths), s.max_mean_line, "mean line:"
    )


def alphanumeric(stats: TextStats, s: CorpusArguments) -> str | None:
    """Require a share of letters and digits: a low share marks data instead of code (Codex; SantaCoder: 0.25)."""
    if not s.min_alphanumeric:
        return None
    number = sum(count for character, count in stats.characters.items() if character.isalnum())
    return _under(_share(number, len(stats.text)), s.min_alphanumeric, "letters and digits:")


# The other rules measure lines and repetition, which are different in a dialogue.
FOR_CONVERSATIONS = {"empty", "length", "control", "script", "language"}
RULES: dict[str, Callable[[TextStats, CorpusArguments], str | None]] = {  # cheapest first
    rule.__name__: rule
    for rule in (
        empty, length, control, script, mean_word, symbols, alphabetic_words, stop_words, bullet_lines, ellipsis_lines,
        punctuated_lines, short_lines, boilerplate, line_length, alphanumeric, duplicate_lines, duplicate_paragraphs,
        language, top_ngram, duplicate_ngrams,
    )
}  # fmt: skip
