"""The road from text to rows, as one call each for the tokenizer and the rows; a folder that has them already is asked first."""

import contextlib
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows import build as packing
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

REPORT = "report.json"  # beside a tokenizer we trained: what it was trained on and what it achieves


def wanted_tokenizer(corpus: Corpus, settings: TokenizerArguments) -> dict:
    """What decides a trained tokenizer, as JSON."""
    kind = settings.tokenizer_type or "bpe"
    facts: dict[str, Any] = {"tokenizer_type": kind}
    if corpus.is_named or not corpus.data.rows:  # rows that are there need no text
        facts["sources"] = corpus.source_facts
    if kind == "bpe":
        facts |= {"vocab_size": settings.vocab_size or VOCABULARY, "min_frequency": settings.min_frequency}
    return facts | {"max_train_bytes": settings.max_train_bytes}


def find_tokenizer(folder: Path, corpus: Corpus, settings: TokenizerArguments, fallback: str | None = None):
    """A tokenizer that is there already: the one named, the one in `folder`, the one beside --rows, or the fallback model's;
    None if one is to be trained.

    One that was trained with other settings is refused: silently using it would be as wrong as replacing it.
    """
    data = corpus.data
    if settings.tokenizer_name:
        return load_tokenizer(settings.tokenizer_name)
    if data.rows and not (folder / "tokenizer.json").is_file():
        beside = rows_folder(data.rows).parent / "tokenizer"
        folder = beside if (beside / "tokenizer.json").is_file() else folder
    if (folder / "tokenizer.json").is_file():
        if settings.wanted and (folder / REPORT).is_file():
            known, wanted = _trained_with(folder / REPORT), wanted_tokenizer(corpus, settings)
            if settings.vocab_size is None:  # it was open, and is what it was
                wanted.pop("vocab_size", None)
            changed = changes(known, wanted, wanted)
            if changed:
                name = changed[0]
                values = ""
                if name in wanted and name != "sources":
                    values = f" ({known.get(name, 'not set')}, now {wanted[name]})"
                raise UsageError(
                    f"{folder} was trained with other {', '.join(changed)}{values}",
                    "the tokenizer of these settings",
                    "choose another --output_dir, use --overwrite, or restore the settings",
                )
        return load_tokenizer(str(folder))
    if not settings.wanted and fallback:
        return load_tokenizer(fallback)
    if not settings.wanted and data.rows:
        wanted = "--tokenizer_name, or settings to train one"
        raise UsageError("no tokenizer is given for the rows", wanted, "name the one they were made with")
    return None


def _trained_with(report: Path) -> dict:
    found = storage.read_json(report)
    if not isinstance(found, dict) or not isinstance(found.get("trained_with"), dict):
        raise RunError(f"{report} is damaged: it does not say what the tokenizer was trained with")
    return found["trained_with"]


def make_tokenizer(corpus: Corpus, settings: TokenizerArguments):
    """Train the tokenizer that the settings ask for on the training part of the text; returns (tokenizer, report)."""
    texts, held_out = corpus.sample(settings.max_train_bytes)
    if held_out and not any(texts):
        held = f"all {sum(map(len, held_out))} characters of the text are held out"
        raise UsageError(held, "text to train a tokenizer on", "use more text, or give --validation_file")
    facts = wanted_tokenizer(corpus, settings)
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
    """Are there conversations in the rows of these settings, or, before they are made, at the beginning of a source?"""
    made = rows_folder(corpus.data.rows) if corpus.data.rows else folder
    if not shard_folders(made / "train"):
        return corpus.holds_conversations()
    if "window_rows" not in (first := shard_manifest(made / "train", 0) or {}):
        return packing.open_rows(made).train.is_masked
    return "mask.bin" in first["files"]


def save_tokenizer(tokenizer, report: dict | None, folder: Path) -> None:
    """Write the tokenizer's files, and its report if we trained it, into a new folder."""
    with storage.new_folder(folder) as tmp:
        tokenizer.save_pretrained(tmp)
        if report is not None:
            storage.write_json(tmp / REPORT, report)


def write_tokenizer(corpus: Corpus, settings: TokenizerArguments, folder: Path, overwrite: bool = False) -> dict:
    """Train a tokenizer into a new folder and return its report; `overwrite` moves what stands there aside."""
    folder = storage.linked(folder)
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not overwrite:
        raise UsageError(f"{folder} is not empty", "a new folder", "choose another --output_dir, or --overwrite")
    tokenizer, report = make_tokenizer(corpus, settings)
    if taken:  # only now: a failure above leaves it where it is
        storage.move_aside(folder)
    elif folder.is_dir():
        folder.rmdir()
    save_tokenizer(tokenizer, report, folder)
    return report


def rows_folder(name: str) -> Path:
    """Where the rows lie that --rows names: there, or in `rows` below it, as `tokenize` and a run folder have them."""
    folder = Path(name)
    return folder / "rows" if (folder / "rows" / "train").is_dir() else folder


def tokenize(corpus: Corpus, settings: TokenizerArguments, folder: Path):
    """(tokenizer, rows, report of the tokenizer where it was trained now): `folder`/tokenizer and `folder`/rows, those that are
    there already or new ones. After a kill the same call goes on.
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
) -> packing.Prepared:
    """The rows of these settings: those at --rows, those already in `folder` if nothing changed, or new ones made there; streamed,
    those of the first window, and more until `closing` closes, where `reading` (stream.py).

    Rows that are there are refused where the settings name another text than they were made from, another split, another
    tokenizer, or, for conversations, another length.
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
    facts = packing.row_facts(corpus, tokenizer)
    changed = []
    if streaming and first:
        changed = changed_stream(first, facts, corpus.data)
    elif not streaming and train.is_dir():
        changed = packing.changed_facts(folder, facts)
    if changed:
        raise UsageError(
            f"the rows in {folder} were made from other {', '.join(changed)}",
            "the data of the run so far",
            "restore it, or start afresh with --overwrite or another --output_dir",
        )
    if streaming:
        assert closing is not None
        return open_stream(corpus, tokenizer, folder, reading, closing)
    prepared = packing.open_rows(folder) if train.is_dir() else packing.prepare_rows(corpus, tokenizer, folder)
    prepared.notes = corpus.remarks
    return prepared


def _given_rows(corpus: Corpus, tokenizer) -> packing.Prepared:
    """The rows at --rows."""
    name = corpus.data.rows
    folder = rows_folder(name)
    prepared = packing.open_rows(folder)
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
    facts = packing.row_facts(corpus, tokenizer) if corpus.is_named else {"block_size": corpus.data.block_size}
    if changed := packing.changed_facts(folder, facts, missing=False):
        raise UsageError(
            f"the rows in {name} were made from other {', '.join(changed)}",
            "rows of these settings",
            "make them again with `tinygpt tokenize`, or restore the settings",
        )
    return prepared
