"""The settings of `prepare-corpus` and its presets.

A rule that is not given has the preset's value. `off` switches it off (for `control_characters`: `keep`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from tinygpt_hf.settings.arguments import PathText, setting
from tinygpt_hf.settings.dialects import accepts_aliases

KINDS = ("email", "phone", "ip", "card", "key")  # kinds of personal data

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


@accepts_aliases
@dataclass
class CorpusArguments:
    """Settings of document filters and of the written corpus."""

    section: ClassVar[str] = "corpus"

    output_dir: PathText | None = setting(None, "new folder to write the corpus into")
    preset: Literal["prose", "code", "chat", "none"] = setting("prose", "set of rules; each can be changed by itself")
    output_format: Literal["parquet", "jsonl"] = setting("parquet", "format of the shards under data/")
    shard_megabytes: int = setting(256, "megabytes of text in a shard", at_least=1)
    tokenizer_name: PathText | None = setting(
        None, "count tokens and unknown characters with this tokenizer (folder or id)"
    )
    seed: int = setting(42, "seed of toyland and of sampling documents")
    license: str | None = setting(None, "license of the corpus, for its card: an identifier of the Hub, e.g. cc-by-4.0")
    rights: str | None = setting(None, "why you may use and pass on this text, in your words, for the card")
    language: list[str] = setting([], "languages of the text, for the card: ISO 639 codes, e.g. en")

    nfc: bool | None = setting(None, "compose characters: Unicode NFC")
    control_characters: Literal["keep", "remove", "drop"] | None = setting(
        None, "Unicode control characters (Cc) except tab and line ends: keep or remove them, or drop the document"
    )
    mask: list[str] = setting([], f"replace personal data by <kind>: some of {', '.join(KINDS)}, or all")
    min_characters: Number = setting(None, "drop shorter documents", at_least=0)
    max_characters: Number = setting(None, "drop longer documents", at_least=0)
    min_mean_word: Limit = setting(None, "smallest mean length of a word, in characters", at_least=0)
    max_mean_word: Limit = setting(None, "largest mean length of a word, in characters", at_least=0)
    max_symbol_ratio: Limit = setting(None, "largest number of # signs, or of ellipses, per word", at_least=0)
    min_alphabetic_words: Limit = setting(None, "smallest share of words with a letter", at_least=0)
    min_stop_words: Number = setting(
        None, "smallest number of distinct stop words among: the be to of and that have with (English only)", at_least=0
    )
    max_bullet_lines: Limit = setting(None, "largest share of lines that begin with a bullet", at_least=0)
    max_ellipsis_lines: Limit = setting(None, "largest share of lines that end in an ellipsis", at_least=0)
    min_punctuated_lines: Limit = setting(None, "smallest share of lines that end in punctuation", at_least=0)
    max_short_lines: Limit = setting(None, "largest share of lines of 30 characters or fewer", at_least=0)
    max_duplicate_lines: Limit = setting(
        None, "largest share of duplicate lines (of characters in duplicate lines: two thirds of it)", at_least=0
    )
    max_duplicate_paragraphs: Limit = setting(None, "the same for paragraphs", at_least=0)
    max_top_ngram: Limit = setting(
        None,
        "largest share of characters in the most frequent 2-gram of words (3-gram: nine tenths of it; 4-gram: eight tenths)",
        at_least=0,
    )
    max_duplicate_ngrams: Limit = setting(
        None,
        "largest share of characters in duplicate 5-grams of words (10-grams: two thirds of it)",
        at_least=0,
    )
    max_boilerplate_lines: Limit = setting(
        None, "largest share of lines about cookies, JavaScript, terms of use, or with lorem ipsum", at_least=0
    )
    max_line_characters: Number = setting(None, "longest line, in characters", at_least=0)
    max_mean_line: Limit = setting(None, "largest mean length of a line, in characters", at_least=0)
    min_alphanumeric: Limit = setting(None, "smallest share of characters that are letters or digits", at_least=0)
    scripts: list[str] = setting([], "keep documents written in these scripts, e.g. Latin Cyrillic; default all")
    min_script_share: float = setting(0.5, "smallest share of a document's letters in --scripts", at_least=0)

    languages: list[str] = setting(
        [], "keep documents in these languages, e.g. en de, as detected by py3langid (extra `data`); default all"
    )
    min_language_score: float = setting(
        0.3,
        "smallest probability that a document is in one of --languages; 0 only counts languages",
        at_least=0,
        at_most=1,
    )

    exact_duplicates: bool | None = setting(None, "drop documents with the same bytes as an earlier one")
    max_seen_paragraphs: Limit = setting(
        None, "largest share of a document's characters in paragraphs of earlier documents", at_least=0
    )
    near_duplicates: Literal["drop", "count", "off"] | None = setting(
        None,
        "drop documents nearly equal to an earlier one, only count them, or off (drop and count: extra `data`)",
    )
    near_duplicate_threshold: float = setting(
        0.75, "Jaccard similarity of word 5-grams from which documents are near duplicates", above=0, at_most=1
    )

    sample_documents: int | None = setting(
        None, "keep this many documents, chosen by a hash of their text", at_least=1,
        excludes=("sample_bytes", "sample_tokens")
    )  # fmt: skip
    sample_bytes: int | None = setting(
        None, "keep documents of at most this many bytes in total, chosen the same way", at_least=1,
        excludes=("sample_tokens",)
    )  # fmt: skip
    sample_tokens: int | None = setting(
        None,
        "keep at most this many tokens of --tokenizer_name in total, chosen the same way",
        at_least=1,
        needs=("tokenizer_name",),
    )

    def resolved(self) -> "CorpusArguments":
        """Return a copy with the preset's values for settings that were not given, and None for limits that are off."""
        preset = OFF | PRESETS[self.preset]
        mask = list(KINDS) if self.mask == ["all"] else self.mask
        from_preset = {n: v for n, v in preset.items() if getattr(self, n) is None}
        off = {n: None for n, v in vars(self).items() if n.startswith(("min_", "max_")) and v == "off"}
        return replace(self, mask=mask, **from_preset, **off)
