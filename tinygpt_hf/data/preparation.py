"""The road from text to rows, as one call each for the tokenizer and the rows; a folder that has them already is asked first."""

from collections.abc import Callable
from pathlib import Path

from tinygpt_hf import safeio
from tinygpt_hf.data import packing, sources
from tinygpt_hf.data.tokenizer import bytes_per_token, load_tokenizer, sample_evenly, tokenizer_hash, train_tokenizer
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments

REPORT = "report.json"  # beside a tokenizer we trained: what it was trained on and what it achieves
HELD_OUT_BYTES = 1_000_000


def wanted_tokenizer(data: DataArguments, settings: TokenizerArguments, seed: int) -> dict:
    """What decides a trained tokenizer, as JSON."""
    kind = settings.tokenizer_type or "bpe"
    facts = {"tokenizer_type": kind, "sources": [sources.fingerprint(s) for s in sources.training_sources(data, seed)]}
    if kind == "bpe":
        facts |= {"vocab_size": settings.vocab_size or 4096, "min_frequency": settings.min_frequency}
    return facts | {"max_train_bytes": settings.max_train_bytes}


def find_tokenizer(folder: Path, data: DataArguments, settings: TokenizerArguments, fallback: str | None, seed: int):
    """A tokenizer that is there already: the one named, the one in `folder`, or the fallback model's; None if one is to be trained.

    One in `folder` that was trained with other settings is refused: silently using it would be as wrong as replacing it.
    """
    if settings.tokenizer_name:
        return load_tokenizer(settings.tokenizer_name)
    if (folder / "tokenizer.json").is_file():
        if settings.wanted and (folder / REPORT).is_file():
            known, wanted = _trained_with(folder / REPORT), wanted_tokenizer(data, settings, seed)
            changed = [name for name in wanted if known.get(name) != wanted[name]]
            if changed:
                name = changed[0]
                values = f" ({known.get(name)}, now {wanted[name]})" if name != "sources" else ""
                raise UsageError(
                    f"{folder} was trained with other {', '.join(changed)}{values}",
                    "the tokenizer of these settings was wanted",
                    "choose another --output_dir, use --overwrite, or restore the settings",
                )
        return load_tokenizer(str(folder))
    if settings.wanted:
        return None
    if fallback:
        return load_tokenizer(fallback)
    raise UsageError(
        "no tokenizer is given",
        "--tokenizer_name, or settings to train one, were wanted",
        "e.g. --vocab_size 4096, or --tokenizer_type char",
    )


def _trained_with(report: Path) -> dict:
    found = safeio.read_json(report)
    if not isinstance(found, dict) or not isinstance(found.get("trained_with"), dict):
        raise RunError(f"{report} is damaged: it does not say what the tokenizer was trained with")
    return found["trained_with"]


def make_tokenizer(data: DataArguments, settings: TokenizerArguments, seed: int = 0):
    """Train the tokenizer that the settings ask for on the training part of the text; returns (tokenizer, report)."""
    facts = wanted_tokenizer(data, settings, seed)
    texts = sample_evenly(packing.training_texts(data, seed), settings.max_train_bytes)
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


def save_tokenizer(tokenizer, report: dict | None, folder: Path) -> None:
    """Write the tokenizer's files, and its report if we trained it, into a new folder."""
    with safeio.new_folder(folder) as tmp:
        tokenizer.save_pretrained(tmp)
        if report is not None:
            safeio.write_json(tmp / REPORT, report)


def _held_out(data: DataArguments, seed: int) -> list[str]:
    """Validation texts worth about a megabyte: the tokenizer has not seen them."""
    texts, size = [], 0
    for text in packing.validation_texts(data, seed):
        texts.append(text[:HELD_OUT_BYTES])
        size += len(texts[-1].encode())
        if size >= HELD_OUT_BYTES:
            break
    return texts


def find_rows(
    data: DataArguments,
    tokenizer,
    folder: Path,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, tokens: None,
) -> packing.Prepared:
    """The rows of these settings: those at --rows, those already in `folder` if nothing changed, or new ones made there."""
    if data.rows:
        prepared = packing.open_rows(Path(data.rows))
        known = prepared.train.manifest["vocab_size"]
        if known != len(tokenizer):
            raise UsageError(
                f"the rows in {data.rows} were made with a vocabulary of {known}",
                f"the tokenizer has {len(tokenizer)}",
                "use the tokenizer they were made with",
            )
        if prepared.train.manifest.get("tokenizer") not in (None, tokenizer_hash(tokenizer)):
            raise UsageError(
                f"the rows in {data.rows} were made with another tokenizer",
                "this one differs",
                "use the one they were made with",
            )
        return prepared
    if (folder / "train").is_dir():
        changed = packing.changed_facts(folder, packing.row_facts(data, tokenizer, seed))
        if changed:
            raise UsageError(
                f"the rows in {folder} were made from other {', '.join(changed)}",
                "the data of the run so far was wanted",
                "restore it, or start afresh with --overwrite or another --output_dir",
            )
        return packing.open_rows(folder)
    return packing.prepare_rows(data, tokenizer, folder, seed, progress)
