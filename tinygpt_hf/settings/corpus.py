"""Settings of `prepare-corpus`: what a preset switches on, and what can be wrong with them. Importing this costs nothing.

A rule left alone has the preset's value; `off` switches it off (`control_characters`: `keep`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from tinygpt_hf.errors import UsageError, UsageErrors
from tinygpt_hf.settings.arguments import setting
from tinygpt_hf.settings.checks import check_settings

KINDS = ("email", "phone", "ip", "card", "key")  # of personal data

PRESETS: dict[str, dict] = {
    "prose": {
        "nfc": True, "control_characters": "remove", "min_characters": 20, "max_characters": 50_000_000,
        "min_mean_word": 3.0, "max_mean_word": 10.0, "max_symbol_ratio": 0.1, "min_alphabetic_words": 0.8,
        "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3, "min_punctuated_lines": 0.12, "max_short_lines": 0.67,
        "max_duplicate_lines": 0.3, "max_duplicate_paragraphs": 0.3, "max_top_ngram": 0.2, "max_duplicate_ngrams": 0.15,
        "max_boilerplate_lines": 0.2, "exact_duplicates": True, "max_seen_paragraphs": 0.8, "near_duplicates": "drop",
    },
    "code": {
        "min_characters": 20, "max_characters": 1_000_000, "max_line_characters": 1000, "max_mean_line": 100.0,
        "min_alphanumeric": 0.25, "exact_duplicates": True, "near_duplicates": "drop",
    },
    "chat": {
        "nfc": True, "control_characters": "remove", "min_characters": 2, "max_characters": 1_000_000,
        "exact_duplicates": True, "near_duplicates": "drop",
    },
    "none": {},
}  # fmt: skip
Limit: TypeAlias = float | Literal["off"] | None
Number: TypeAlias = int | Literal["off"] | None
OFF = {"nfc": False, "control_characters": "keep", "exact_duplicates": False, "near_duplicates": "off"}


@dataclass
class CorpusArguments:
    """How documents are cleaned, and what is written."""

    section: ClassVar[str] = "corpus"

    output_dir: str | None = setting(None, "new folder to write the corpus into")
    preset: Literal["prose", "code", "chat", "none"] = setting("prose", "which rules are on; each can be set by itself")
    output_format: Literal["parquet", "jsonl"] = setting("parquet", "what the shards under data/ are")
    shard_megabytes: int = setting(256, "a shard is closed when it holds this many megabytes of text")
    tokenizer_name: str | None = setting(
        None, "count tokens and unknown characters with this tokenizer (folder, Hub id)"
    )
    seed: int = setting(42, "seed of toyland, and of the choice among documents")
    license: str | None = setting(None, "licence of the corpus, for its card: as the Hub calls it, e.g. cc-by-4.0")
    rights: str | None = setting(None, "why you may use and pass on this text, in your words, for the card")
    language: list[str] = setting([], "languages of the text, for the card: ISO 639 codes, e.g. en")

    nfc: bool | None = setting(None, "compose characters: Unicode NFC")
    control_characters: Literal["keep", "remove", "drop"] | None = setting(
        None, "characters of Unicode's Cc but tab and line ends: keep or remove them, or drop the document"
    )
    mask: list[str] = setting([], f"write <kind> in place of personal data, of {', '.join(KINDS)}, or all")
    min_characters: Number = setting(None, "drop shorter documents")
    max_characters: Number = setting(None, "drop longer documents")
    min_mean_word: Limit = setting(None, "least mean length of a word, in characters")
    max_mean_word: Limit = setting(None, "largest mean length of a word, in characters")
    max_symbol_ratio: Limit = setting(None, "most # signs, or ellipses, per word")
    min_alphabetic_words: Limit = setting(None, "least share of words with a letter")
    min_stop_words: Number = setting(
        None, "least number of distinct words of: the be to of and that have with (English only)"
    )
    max_bullet_lines: Limit = setting(None, "largest share of lines that open with a bullet")
    max_ellipsis_lines: Limit = setting(None, "largest share of lines that end in an ellipsis")
    min_punctuated_lines: Limit = setting(None, "least share of lines that end in punctuation")
    max_short_lines: Limit = setting(None, "largest share of lines of 30 characters or fewer")
    max_duplicate_lines: Limit = setting(
        None, "largest share of lines that stand above already (of their characters: two thirds of it)"
    )
    max_duplicate_paragraphs: Limit = setting(None, "the same for paragraphs")
    max_top_ngram: Limit = setting(
        None, "largest share of characters in the commonest 2 words in a row (3: nine tenths of it; 4: eight tenths)"
    )
    max_duplicate_ngrams: Limit = setting(
        None, "largest share of characters in 5 words in a row that came before (10 in a row: two thirds of it)"
    )
    max_boilerplate_lines: Limit = setting(
        None, "largest share of lines on cookies, JavaScript, terms of use, or of lorem ipsum"
    )
    max_line_characters: Number = setting(None, "longest line, in characters")
    max_mean_line: Limit = setting(None, "largest mean length of a line, in characters")
    min_alphanumeric: Limit = setting(None, "least share of characters that are letters or digits")
    scripts: list[str] = setting([], "keep documents written in these scripts, e.g. Latin Cyrillic; default all")
    min_script_share: float = setting(0.5, "share of a document's letters that must be of --scripts")

    languages: list[str] = setting(
        [], "keep documents in these languages, e.g. en de, as py3langid tells (extra `data`); default all"
    )
    min_language_score: float = setting(
        0.3, "least certainty, 0 to 1, that a document is in one of --languages; 0 only counts them"
    )

    exact_duplicates: bool | None = setting(None, "drop a document whose text came before, byte for byte")
    max_seen_paragraphs: Limit = setting(
        None, "largest share of a document's characters in paragraphs of earlier documents"
    )
    near_duplicates: Literal["drop", "count", "off"] | None = setting(
        None,
        "drop documents nearly equal to an earlier one, only count them, or do not look (drop and count: extra `data`)",
    )
    near_duplicate_threshold: float = setting(0.75, "Jaccard similarity of the sets of 5 words in a row, from which on")

    sample_documents: int | None = setting(None, "keep this many documents, chosen by a hash of their text")
    sample_bytes: int | None = setting(None, "keep documents of at most this many bytes together, chosen likewise")
    sample_tokens: int | None = setting(None, "the same in tokens of --tokenizer_name")

    def resolved(self) -> "CorpusArguments":
        """These settings with the preset's values where nothing else was said; None stands for off."""
        preset = OFF | PRESETS[self.preset]
        mask = list(KINDS) if self.mask == ["all"] else self.mask
        values = {n: v for n, v in preset.items() if getattr(self, n) is None}
        off = {n: None for n, v in vars(self).items() if n.startswith(("min_", "max_")) and v == "off"}
        return replace(self, mask=mask, **values, **off)


def check_corpus(corpus: CorpusArguments) -> None:
    """Raise every problem of the settings together; what is well-formed gets the type of its field."""
    check_settings(corpus)
    errors = []

    def complain(name: str, wanted: str, remedy: str) -> None:
        errors.append(UsageError(f"--{name} is {getattr(corpus, name)}", wanted, remedy))

    whole = ("shard_megabytes", "sample_documents", "sample_bytes", "sample_tokens")
    for name in whole:
        if getattr(corpus, name) is not None and getattr(corpus, name) < 1:
            complain(name, "at least 1", f"see --help for --{name}")
    for name in vars(corpus):
        value = getattr(corpus, name)
        if name.startswith(("min_", "max_")) and value not in (None, "off") and value < 0:
            complain(name, "0 or more", f"see --help for --{name}")
    if not 0 < corpus.near_duplicate_threshold <= 1:
        complain("near_duplicate_threshold", "above 0, at most 1", "try 0.75")
    if corpus.min_language_score > 1:
        complain("min_language_score", "at most 1", "try 0.3")
    unknown = [kind for kind in corpus.mask if kind not in KINDS]
    if unknown and corpus.mask != ["all"]:
        complain("mask", f"some of {', '.join(KINDS)}, or all", "try --mask email phone")
    samples = [name for name in whole[1:] if getattr(corpus, name) is not None]
    if len(samples) > 1:
        seen = " and ".join(f"--{name}" for name in samples)
        errors.append(UsageError(f"{seen} are given", "one of them", "remove the others"))
    if corpus.sample_tokens and not corpus.tokenizer_name:
        errors.append(UsageError("--sample_tokens is given without --tokenizer_name", "both", "name the tokenizer"))
    if errors:
        raise errors[0] if len(errors) == 1 else UsageErrors(errors)
