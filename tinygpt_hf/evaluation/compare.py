"""Is A better than B? Both read the same text, and the difference is taken block by block: what both find hard cancels out.

    comparison = compare("runs/a", "runs/b", "my.txt")
    comparison.difference, comparison.low, comparison.high          # bits per byte, A - B: below 0, A needs fewer
    comparison.verdict                                              # "A is better", "B is better", "no difference shown"

The interval says how much the difference would vary over other texts of this kind. It does not say what another training run of
A or B, with another seed, would give.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.intervals import interval
from tinygpt_hf.evaluation.metrics import IGNORED, block_sums, encode_documents, encode_with_ends, even_cuts
from tinygpt_hf.evaluation.minimal_pairs import start_token
from tinygpt_hf.inference.samples import check_output
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.reading.sources import documents, training_sources
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.inference import CompareArguments

FEWEST = 5  # units; of fewer an interval says nothing


@dataclass(frozen=True)
class Comparison:
    """Hold the difference A - B in bits per byte, its 95 % interval, the verdict, and what it was measured on."""

    difference: float
    low: float
    high: float
    verdict: str
    a: float
    b: float
    units: int
    bytes: int


def paired(a, b, sizes) -> Comparison:
    """Compare nats that A and B spend on the same units of text, (N,) each, of so many bytes each."""
    a, b, sizes = (np.asarray(part, dtype=np.float64) for part in (a, b, sizes))
    _check_units(sizes)
    sums = np.stack([(a - b) / math.log(2), sizes], 1)
    low, high = interval(sums, lambda total: total[..., 0] / total[..., 1])
    difference, of_a, of_b = (float(part.sum() / math.log(2) / sizes.sum()) for part in (a - b, a, b))
    verdict = "A is better" if high < 0 else "B is better" if low > 0 else "no difference shown"
    return Comparison(difference, low, high, verdict, of_a, of_b, len(sizes), int(sizes.sum()))


def _check_units(sizes) -> None:
    if len(sizes) < FEWEST or not np.sum(sizes) > 0:
        seen = f"there are {len(sizes)} documents or blocks to compare on"
        raise UsageError(seen, f"{FEWEST} or more, with text", "use more text")


def compare(a: str, b: str, data, **settings) -> Comparison:
    """Compare two model folders or Hub ids on a text; `data` as in `evaluate`, `settings` other fields of `CompareArguments`."""
    return measure(CompareArguments(model=[str(a), str(b)], **settings), data_arguments(data))


def measure(arguments: CompareArguments, text: DataArguments | None = None) -> Comparison:
    """Compare as the settings say, and write `output_file`; `text`: on this, not on `data`.

    Raises UsageError for whatever the settings have wrong.
    """
    check_settings(arguments)
    if len(arguments.model) != 2:
        count = len(arguments.model)
        seen = "there is 1 model" if count == 1 else f"there are {count} models"
        raise UsageError(seen, "two, A and B", "write tinygpt compare A B --data my.txt")
    if text is None:
        if not arguments.data:
            raise UsageError("A and B have no common text", "--data, one text for both", "try --data my.txt")
        text = DataArguments([arguments.data], text_column=arguments.text_column, document_separator="whole_file")
    check_settings(text)
    output = check_output(Path(arguments.output_file)) if arguments.output_file else None
    found = [document for source in training_sources(text) for document in documents(source)]
    windows = arguments.block_size, None, arguments.per_device_eval_batch_size
    both = [load_model(name, arguments.device, arguments.dtype) for name in arguments.model]
    is_text = len(found) == 1 and "text" in found[0]
    comparison = _blocks(both, str(found[0]["text"]), windows) if is_text else _documents(both, found, windows)
    if output:
        storage.write_json(output, asdict(comparison))
    return comparison


def _blocks(both, text: str, windows) -> Comparison:
    """Compare on one text, in blocks that end where tokens of both models do; what either's first token holds is not counted."""
    encoded = [encode_with_ends(tokenizer, text) for _, tokenizer in both]
    if any(len(ids) < 2 for ids, _ in encoded):
        raise UsageError("the text has one token or none", "a text of two tokens or more", "use more text")
    places = np.intersect1d(encoded[0][1], encoded[1][1])
    places = places[places >= max(ends[0] for _, ends in encoded)]
    cuts = even_cuts(places[1:]) if len(places) > 1 else places[:0]
    sizes = np.diff(cuts, prepend=places[:1])
    _check_units(sizes)
    nats = []
    for (model, _), (ids, ends) in zip(both, encoded, strict=True):
        targets = np.where(ends > places[0], ids, IGNORED)
        nats.append(block_sums(model, ids, targets, np.searchsorted(cuts, ends), sizes, windows)[:, 0])
    return paired(nats[0], nats[1], sizes)


def _documents(both, found: list[dict], windows) -> Comparison:
    """Compare on documents, each with the end of text behind it and the start token before the first; of conversations, answers."""
    nats, sizes = [], []
    for model, tokenizer in both:
        ids, targets, blocks, size = encode_documents(tokenizer, found)
        _check_units(size)
        start = (start_token(tokenizer), ids), (IGNORED, targets), (0, blocks)
        ids, targets, blocks = (np.concatenate([[first], rest]) for first, rest in start)
        nats.append(block_sums(model, ids, targets, blocks, size, windows)[:, 0])
        sizes.append(size)
    if not np.array_equal(sizes[0], sizes[1]):
        raise UsageError("A and B learn other parts of these conversations", "one chat template", "give plain text")
    return paired(nats[0], nats[1], sizes[0])


def comparison_lines(names: list[str], result: Comparison) -> list[str]:
    """Say what came out."""
    return [
        f"A  {result.a:.4f} bits per byte  {names[0]}",
        f"B  {result.b:.4f} bits per byte  {names[1]}",
        f"A - B: {result.difference:+.4f}, 95 % interval {result.low:+.4f} to {result.high:+.4f}"
        f" ({result.units} blocks, {result.bytes:,} bytes)",
        result.verdict,
        "The interval is over texts like this one. Another seed can move A or B by more.",
    ]
