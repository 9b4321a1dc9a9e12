"""Describe a trained tokenizer and its rows in the lines that `train-tokenizer` and `tokenize` print."""

from collections.abc import Iterator
from pathlib import Path

from tinygpt_hf.settings.arguments import DataArguments


def tokenizer_lines(folder: str | Path, report: dict) -> Iterator[str]:
    """Yield the type and vocabulary of a tokenizer trained into `folder`, and its bytes per token."""
    yield f"{folder}: {report['trained_with']['tokenizer_type']} tokenizer, vocabulary {report['vocabulary']}"
    if report["bytes_per_token"]:
        yield (
            f"bytes per token on {report['held_out_bytes']} held-out bytes: {report['bytes_per_token']:.2f}  "
            f"(byte tokenizer: {report['bytes_per_token_of_byte_tokenizer']:.2f})"
        )


def tokenizer_line(tokenizer, report: dict) -> str:
    """Describe a tokenizer trained by `tokenize` in one line."""
    per_token = report["bytes_per_token"]
    measured = f", {per_token} bytes per token on held-out text (bytes: 1.0)" if per_token else ""
    return f"tokenizer: {len(tokenizer)} tokens{measured}"


def rows_lines(tokenizer, rows, report: dict | None, data: DataArguments) -> Iterator[str]:
    """Yield the counts of rows, and the first rows if `show_rows` is set; `report` is given if the tokenizer is new."""
    from tinygpt_hf.rows.bestfit import BestFitRows
    from tinygpt_hf.rows.build import shown_rows

    if report:
        yield tokenizer_line(tokenizer, report)
    for part in (rows.train, rows.validation):
        counts = f"{part.num_tokens} tokens of {part.num_documents} documents"
        yield f"{part.folder}: {counts}, {part.count(data.block_size)} rows of {data.block_size}"
    kept = f"rows: kept {rows.kept} of {rows.encoded} tokens"
    yield "; ".join(["rows: reused, nothing changed" if rows.reused else kept, *rows.remarks])
    if data.show_rows:
        bestfit = data.packing == "bestfit"
        shown = BestFitRows(rows.train.folder, data.block_size) if bestfit else rows.train
        yield from shown_rows(shown, tokenizer, data.show_rows, data.block_size)
