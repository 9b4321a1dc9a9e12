"""The road from text to rows, as one call each for the tokenizer and the rows; a folder that has them already is asked first."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.rows import build as packing
from tinygpt_hf.rows.windows import window_folder, window_manifest
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments
from tinygpt_hf.settings.defaults import VOCABULARY
from tinygpt_hf.tokenizing.tokenizer import (
    beginning,
    bytes_per_token,
    load_tokenizer,
    sample_evenly,
    tokenizer_hash,
    train_tokenizer,
)

REPORT = "report.json"  # beside a tokenizer we trained: what it was trained on and what it achieves
HELD_OUT_BYTES = 1_000_000
LOOKED_AT = 64  # documents of a source that say whether it has conversations


def wanted_tokenizer(data: DataArguments, settings: TokenizerArguments, seed: int) -> dict:
    """What decides a trained tokenizer, as JSON."""
    kind = settings.tokenizer_type or "bpe"
    texts = [sources.fingerprint(source) for source in sources.training_sources(data, seed)]
    facts: dict[str, Any] = {"tokenizer_type": kind, "sources": texts}
    if kind == "bpe":
        facts |= {"vocab_size": settings.vocab_size or VOCABULARY, "min_frequency": settings.min_frequency}
    return facts | {"max_train_bytes": settings.max_train_bytes}


def find_tokenizer(folder: Path, data: DataArguments, settings: TokenizerArguments, fallback: str | None, seed: int):
    """A tokenizer that is there already: the one named, the one in `folder`, the one beside --rows, or the fallback model's;
    None if one is to be trained.

    One that was trained with other settings is refused: silently using it would be as wrong as replacing it.
    """
    if settings.tokenizer_name:
        return load_tokenizer(settings.tokenizer_name)
    if data.rows and not (folder / "tokenizer.json").is_file():
        beside = rows_folder(data.rows).parent / "tokenizer"
        folder = beside if (beside / "tokenizer.json").is_file() else folder
    if (folder / "tokenizer.json").is_file():
        if settings.wanted and (folder / REPORT).is_file():
            known, wanted = _trained_with(folder / REPORT), _wanted_of(data, settings, seed)
            if settings.vocab_size is None:  # it was open, and is what it was
                wanted.pop("vocab_size", None)
            changed = changes(known, wanted, wanted)
            if changed:
                name = changed[0]
                values = f" ({known.get(name)}, now {wanted[name]})" if name in wanted and name != "sources" else ""
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


def _wanted_of(data: DataArguments, settings: TokenizerArguments, seed: int) -> dict:
    """As `wanted_tokenizer`; rows that are there need no text, so its name may be missing."""
    if data.rows and not _names_text(data):
        nothing = replace(data, dataset_name="toyland", max_train_samples=1)
        return {k: v for k, v in wanted_tokenizer(nothing, settings, seed).items() if k != "sources"}
    return wanted_tokenizer(data, settings, seed)


def _names_text(data: DataArguments) -> bool:
    return bool(data.train_file or data.dataset_name or data.sources)


def _trained_with(report: Path) -> dict:
    found = storage.read_json(report)
    if not isinstance(found, dict) or not isinstance(found.get("trained_with"), dict):
        raise RunError(f"{report} is damaged: it does not say what the tokenizer was trained with")
    return found["trained_with"]


def make_tokenizer(data: DataArguments, settings: TokenizerArguments, seed: int = 0):
    """Train the tokenizer that the settings ask for on the training part of the text; returns (tokenizer, report)."""
    facts = wanted_tokenizer(data, settings, seed)
    texts = packing.training_texts(data, seed)
    if data.streaming:  # its end is far: the tokenizer learns from its beginning
        texts = beginning(texts, settings.max_train_bytes)
    texts = sample_evenly(texts, settings.max_train_bytes)
    tokenizer = train_tokenizer(
        texts, facts["tokenizer_type"], facts.get("vocab_size", 0), settings.min_frequency, max_length=data.block_size
    )
    held_out = _held_out(data, seed)
    report = {
        "trained_with": facts,
        "vocabulary": len(tokenizer),
        "bytes_per_token": round(bytes_per_token(tokenizer, held_out), 3) if held_out else None,
        "bytes_per_token_of_byte_tokenizer": 1.0,
        "held_out_bytes": sum(len(text.encode()) for text in held_out),
    }
    return tokenizer, report


def holds_conversations(data: DataArguments, folder: Path, seed: int = 0) -> bool:
    """Are there conversations in the rows of these settings, or, before they are made, at the beginning of a source?"""
    made = Path(data.rows) if data.rows else folder
    if (made / "train" / storage.MANIFEST).is_file():
        return packing.open_rows(made).train.mask is not None
    if first := window_manifest(made / "train", 0):
        return "mask.bin" in first["files"]
    looked_at = (itertools.islice(sources.documents(s), LOOKED_AT) for s in sources.training_sources(data, seed))
    return any("messages" in document for document in itertools.chain.from_iterable(looked_at))


def save_tokenizer(tokenizer, report: dict | None, folder: Path) -> None:
    """Write the tokenizer's files, and its report if we trained it, into a new folder."""
    with storage.new_folder(folder) as tmp:
        tokenizer.save_pretrained(tmp)
        if report is not None:
            storage.write_json(tmp / REPORT, report)


def write_tokenizer(
    data: DataArguments, settings: TokenizerArguments, folder: Path, overwrite: bool = False, seed: int = 0
) -> dict:
    """Train a tokenizer into a new folder and return its report; `overwrite` moves what stands there aside."""
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not overwrite:
        raise UsageError(f"{folder} is not empty", "a new folder", "choose another --output_dir, or --overwrite")
    tokenizer, report = make_tokenizer(data, settings, seed)
    if taken:  # only now: a failure above leaves it where it is
        storage.move_aside(folder)
    elif folder.is_dir():
        folder.rmdir()
    save_tokenizer(tokenizer, report, folder)
    return report


def _held_out(data: DataArguments, seed: int) -> list[str]:
    """Validation texts worth about a megabyte: the tokenizer has not seen them."""
    texts, size = [], 0
    for text in packing.validation_texts(data, seed):
        texts.append(text[:HELD_OUT_BYTES])
        size += len(texts[-1].encode())
        if size >= HELD_OUT_BYTES:
            break
    return texts


def rows_folder(name: str) -> Path:
    """Where the rows lie that --rows names: there, or in `rows` below it, as `tokenize` and a run folder have them."""
    folder = Path(name)
    return folder / "rows" if (folder / "rows" / "train").is_dir() else folder


def tokenize(
    data: DataArguments,
    settings: TokenizerArguments,
    folder: Path,
    seed: int,
    progress: Callable[[int, int, float | None], None] = lambda done, tokens, share: None,
):
    """(tokenizer, rows, report of the tokenizer where it was trained now): `folder`/tokenizer and `folder`/rows, those that are
    there already or new ones. After a kill the same call goes on.
    """
    tokenizer, report = find_tokenizer(folder / "tokenizer", data, settings, None, seed), None
    if tokenizer is None:
        tokenizer, report = make_tokenizer(data, settings, seed)
    rows = find_rows(data, tokenizer, folder / "rows", seed, progress)
    if not (folder / "tokenizer").is_dir():
        save_tokenizer(tokenizer, report, folder / "tokenizer")
    return tokenizer, rows, report


def find_rows(
    data: DataArguments,
    tokenizer,
    folder: Path,
    seed: int = 0,
    progress: Callable[[int, int, float | None], None] = lambda done, tokens, share: None,
) -> packing.Prepared:
    """The rows of these settings: those at --rows, those already in `folder` if nothing changed, or new ones made there.

    Rows that are there are refused where the settings name another text than they were made from, another split, another
    tokenizer, or, for conversations, another length.
    """
    if data.rows:
        folder = rows_folder(data.rows)
        prepared = packing.open_rows(folder)
        known = prepared.train.manifest["vocab_size"]
        if known != len(tokenizer):
            raise UsageError(
                f"the rows in {data.rows} were made with a vocabulary of {known}",
                f"the {len(tokenizer)} of the tokenizer",
                "use the tokenizer they were made with",
            )
        if prepared.train.manifest.get("tokenizer") not in (None, tokenizer_hash(tokenizer)):
            raise UsageError(
                f"the rows in {data.rows} were made with another tokenizer",
                "the same one",
                "use the one they were made with",
            )
        facts = packing.row_facts(data, tokenizer, seed) if _names_text(data) else {"block_size": data.block_size}
        changed = packing.changed_facts(folder, facts, missing=False)
        if changed:
            raise UsageError(
                f"the rows in {data.rows} were made from other {', '.join(changed)}",
                "rows of these settings",
                "make them again with `tinygpt tokenize`, or restore the settings",
            )
        return prepared
    if window_folder(folder / "train", 0).is_dir():
        raise UsageError(f"the rows in {folder} were made with --streaming", "--streaming again", "add --streaming")
    if (folder / "train").is_dir():
        changed = packing.changed_facts(folder, packing.row_facts(data, tokenizer, seed))
        if changed:
            raise UsageError(
                f"the rows in {folder} were made from other {', '.join(changed)}",
                "the data of the run so far",
                "restore it, or start afresh with --overwrite or another --output_dir",
            )
        prepared = packing.open_rows(folder)
    else:
        prepared = packing.prepare_rows(data, tokenizer, folder, seed, progress)
    prepared.notes = sources.remarks(sources.all_sources(data, seed))
    return prepared
