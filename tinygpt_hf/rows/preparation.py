"""Find the tokenizer and the rows of a run, or make them from the text if they do not exist yet."""

import contextlib
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows import build
from tinygpt_hf.rows.store import shard_folders
from tinygpt_hf.rows.stream import changed_stream, open_stream
from tinygpt_hf.rows.writer import shard_manifest
from tinygpt_hf.settings.arguments import TokenizerArguments
from tinygpt_hf.settings.defaults import VOCABULARY
from tinygpt_hf.tokenizing.tokenizer import (
    bytes_per_token,
    load_tokenizer,
    tokenizer_hash,
    train_tokenizer,
)

REPORT = "report.json"  # beside a tokenizer we trained: its settings, text and compression


def tokenizer_facts(corpus: Corpus, settings: TokenizerArguments) -> dict:
    """Return what determines a trained tokenizer, as JSON."""
    kind = settings.tokenizer_type or "bpe"
    facts: dict[str, Any] = {"tokenizer_type": kind}
    if corpus.is_named or not corpus.data.rows:  # existing rows need no text
        facts["sources"] = corpus.source_facts
    if kind == "bpe":
        facts |= {"vocab_size": settings.vocab_size or VOCABULARY, "min_frequency": settings.min_frequency}
    return facts | {"max_train_bytes": settings.max_train_bytes}


def find_tokenizer(folder: Path, corpus: Corpus, settings: TokenizerArguments, fallback: str | None = None):
    """Load an existing tokenizer: --tokenizer_name, the one in `folder`, the one beside --rows, or the fallback model's.

    Returns None if one must be trained. Raises UsageError if the one in `folder` was trained with other settings.
    """
    data = corpus.data
    if settings.tokenizer_name:
        return load_tokenizer(settings.tokenizer_name)
    if data.rows and not (folder / "tokenizer.json").is_file():
        beside = rows_folder(data.rows).parent / "tokenizer"
        folder = beside if (beside / "tokenizer.json").is_file() else folder
    if (folder / "tokenizer.json").is_file():
        if settings.wanted and (folder / REPORT).is_file():
            _check_trained_with(folder, corpus, settings)
        return load_tokenizer(str(folder))
    if not settings.wanted and fallback:
        return load_tokenizer(fallback)
    if not settings.wanted and data.rows:
        wanted = "--tokenizer_name, or settings to train one"
        raise UsageError("no tokenizer is given for the rows", wanted, "name the one they were made with")
    return None


def _check_trained_with(folder: Path, corpus: Corpus, settings: TokenizerArguments) -> None:
    """Raise UsageError if the tokenizer in `folder` was trained with other settings or on another text."""
    report = storage.read_json(folder / REPORT)
    known = report.get("trained_with") if isinstance(report, dict) else None
    if not isinstance(known, dict):
        raise RunError(f"{folder / REPORT} is damaged: it does not say what the tokenizer was trained with")
    wanted = tokenizer_facts(corpus, settings)
    if settings.vocab_size is None:  # not requested, so any size is accepted
        wanted.pop("vocab_size", None)
    if changed := changes(known, wanted, wanted):
        name = changed[0]
        has_values = name in wanted and name != "sources"
        values = f" ({known.get(name, 'not set')}, now {wanted[name]})" if has_values else ""
        raise UsageError(
            f"{folder} was trained with other {', '.join(changed)}{values}",
            "the tokenizer of these settings",
            "choose another --output_dir, use --overwrite, or restore the settings",
        )


def make_tokenizer(corpus: Corpus, settings: TokenizerArguments):
    """Train a tokenizer on a sample of the training text; returns (tokenizer, report)."""
    texts, held_out = corpus.sample(settings.max_train_bytes)
    if held_out and not any(texts):
        held = f"all {sum(map(len, held_out))} characters of the text are held out"
        raise UsageError(held, "text to train a tokenizer on", "use more text, or give --validation_file")
    facts = tokenizer_facts(corpus, settings)
    corpus.reporter.stage("training the tokenizer", None)
    tokenizer = train_tokenizer(
        texts,
        facts["tokenizer_type"],
        facts.get("vocab_size", 0),
        settings.min_frequency,
        max_length=corpus.data.block_size,
    )
    report = {
        "trained_with": facts,
        "vocabulary": len(tokenizer),
        "bytes_per_token": round(bytes_per_token(tokenizer, held_out), 3) if held_out else None,
        "bytes_per_token_of_byte_tokenizer": 1.0,
        "held_out_bytes": sum(len(text.encode()) for text in held_out),
    }
    return tokenizer, report


def holds_conversations(corpus: Corpus, folder: Path) -> bool:
    """Check for conversations in the existing rows, or else at the beginning of each source."""
    rows = rows_folder(corpus.data.rows) if corpus.data.rows else folder
    if not shard_folders(rows / "train"):
        return corpus.holds_conversations()
    if "window_rows" not in (first := shard_manifest(rows / "train", 0) or {}):
        return build.open_rows(rows).train.is_masked
    return "mask.bin" in first["files"]


def save_tokenizer(tokenizer, report: dict | None, folder: Path) -> None:
    """Write the tokenizer's files, and its report if it was trained here, into a new folder."""
    with storage.new_folder(folder) as tmp:
        tokenizer.save_pretrained(tmp)
        if report is not None:
            storage.write_json(tmp / REPORT, report)


def write_tokenizer(corpus: Corpus, settings: TokenizerArguments, folder: Path, overwrite: bool = False) -> dict:
    """Train a tokenizer into a new folder and return its report; `overwrite` moves an existing folder aside."""
    folder = storage.resolve_link(folder)
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not overwrite:
        raise UsageError(f"{folder} is not empty", "a new folder", "choose another --output_dir, or --overwrite")
    tokenizer, report = make_tokenizer(corpus, settings)
    if taken:  # only after training succeeded
        storage.move_aside(folder)
    elif folder.is_dir():
        folder.rmdir()
    save_tokenizer(tokenizer, report, folder)
    return report


def rows_folder(name: str) -> Path:
    """Return the rows folder that --rows names: `name`/rows, as in a run folder, if it exists, else `name`."""
    folder = Path(name)
    return folder / "rows" if (folder / "rows" / "train").is_dir() else folder


def tokenize(corpus: Corpus, settings: TokenizerArguments, folder: Path):
    """Find or make `folder`/tokenizer and `folder`/rows; a killed call can be repeated and continues.

    Returns (tokenizer, rows, report); the report is None if the tokenizer already existed.
    """
    tokenizer, report = find_tokenizer(folder / "tokenizer", corpus, settings), None
    if tokenizer is None:
        tokenizer, report = make_tokenizer(corpus, settings)
    rows = find_rows(corpus, tokenizer, folder / "rows")
    if not (folder / "tokenizer").is_dir():
        save_tokenizer(tokenizer, report, folder / "tokenizer")
    return tokenizer, rows, report


def find_rows(
    corpus: Corpus, tokenizer, folder: Path, closing: contextlib.ExitStack | None = None, reading: bool = True
) -> build.Prepared:
    """Return the rows of these settings: those at --rows, those in `folder`, or new ones made in `folder`.

    With --streaming `closing` and `reading` are passed to `open_stream`. Raises UsageError if existing rows were made from
    another text, split or tokenizer, or, for conversations, another block size.
    """
    if corpus.data.rows:
        return _given_rows(corpus, tokenizer)
    streaming, train = corpus.data.streaming, folder / "train"
    first = shard_manifest(train, 0) or {}
    if "window_rows" in first and not streaming:
        raise UsageError(f"the rows in {folder} were made with --streaming", "--streaming again", "add --streaming")
    if streaming and ((train / storage.MANIFEST).is_file() or (first and "window_rows" not in first)):
        raise UsageError(
            f"the rows in {folder} were made without --streaming", "rows that grow", "leave --streaming out"
        )
    facts = build.row_facts(corpus, tokenizer)
    changed = []
    if streaming and first:
        changed = changed_stream(first, facts, corpus.data)
    elif not streaming and train.is_dir():
        changed = build.changed_facts(folder, facts)
    if changed:
        raise UsageError(
            f"the rows in {folder} were made from other {', '.join(changed)}",
            "the data of the run so far",
            "restore it, or start afresh with --overwrite or another --output_dir",
        )
    if streaming:
        assert closing is not None
        return open_stream(corpus, tokenizer, folder, reading, closing)
    prepared = build.open_rows(folder) if train.is_dir() else build.prepare_rows(corpus, tokenizer, folder)
    prepared.notes = corpus.remarks
    return prepared


def _given_rows(corpus: Corpus, tokenizer) -> build.Prepared:
    """Open the rows at --rows, after checking them against the settings."""
    name = corpus.data.rows
    folder = rows_folder(name)
    prepared = build.open_rows(folder)
    known = prepared.train.manifest["vocab_size"]
    if known != len(tokenizer):
        raise UsageError(
            f"the rows in {name} were made with a vocabulary of {known}",
            f"the {len(tokenizer)} of the tokenizer",
            "use the tokenizer they were made with",
        )
    if prepared.train.manifest.get("tokenizer") not in (None, tokenizer_hash(tokenizer)):
        raise UsageError(
            f"the rows in {name} were made with another tokenizer", "the same one", "use the one they were made with"
        )
    facts = build.row_facts(corpus, tokenizer) if corpus.is_named else {"block_size": corpus.data.block_size}
    if changed := build.changed_facts(folder, facts, missing=False):
        raise UsageError(
            f"the rows in {name} were made from other {', '.join(changed)}",
            "rows of these settings",
            "make them again with `tinygpt tokenize`, or restore the settings",
        )
    return prepared
