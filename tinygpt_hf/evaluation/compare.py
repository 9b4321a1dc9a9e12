"""Compare two models on the same text, with a paired 95 % interval for the difference.

    comparison = compare("runs/a", "runs/b", "my.txt")
    comparison.difference, comparison.low, comparison.high          # bits per byte, A - B: below 0, A needs fewer
    comparison.verdict                                              # "A is better", "B is better", "no difference shown"

The difference is taken block by block, so text that is hard for both models cancels out. The interval covers the choice of
text. It does not cover the seed with which A or B was trained.
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

MIN_BLOCKS = 5  # for a meaningful interval


@dataclass(frozen=True)
class Comparison:
    """The difference A - B in bits per byte, its 95 % interval, a verdict, and the size of the text."""

    difference: float
    low: float
    high: float
    verdict: str
    a: float
    b: float
    units: int
    bytes: int


def paired(a, b, sizes) -> Comparison:
    """Compare the nats of A and B on the same N blocks of text; `sizes` are their bytes. All have shape (N,)."""
    a, b, sizes = (np.asarray(part, dtype=np.float64) for part in (a, b, sizes))
    _check_blocks(sizes)
    sums = np.stack([(a - b) / math.log(2), sizes], 1)
    low, high = interval(sums, lambda total: total[..., 0] / total[..., 1])
    difference, bits_a, bits_b = (float(part.sum() / math.log(2) / sizes.sum()) for part in (a - b, a, b))
    verdict = "no difference shown"
    if high < 0 or low > 0:
        verdict = "A is better" if high < 0 else "B is better"
    return Comparison(difference, low, high, verdict, bits_a, bits_b, len(sizes), int(sizes.sum()))


def _check_blocks(sizes) -> None:
    if len(sizes) < MIN_BLOCKS or not np.sum(sizes) > 0:
        problem = f"there are {len(sizes)} documents or blocks to compare on"
        raise UsageError(problem, f"{MIN_BLOCKS} or more, with text", "use more text")


def compare(a: str, b: str, data, **settings) -> Comparison:
    """Compare two model folders or Hub ids on a text.

    `data` is as in `evaluate`; `settings` are other fields of `CompareArguments`.
    """
    return measure(CompareArguments(model=[str(a), str(b)], **settings), data_arguments(data))


def measure(arguments: CompareArguments, text: DataArguments | None = None) -> Comparison:
    """Compare two models as set in `arguments`, and write `output_file`. `text` replaces the text of `data`.

    Raises a `UsageError` for invalid settings.
    """
    check_settings(arguments)
    if len(arguments.model) != 2:
        count = len(arguments.model)
        problem = "there is 1 model" if count == 1 else f"there are {count} models"
        raise UsageError(problem, "two, A and B", "write tinygpt compare A B --data my.txt")
    if text is None:
        if not arguments.data:
            raise UsageError("A and B have no common text", "--data, one text for both", "try --data my.txt")
        text = DataArguments([arguments.data], text_column=arguments.text_column, document_separator="whole_file")
    check_settings(text)
    output = check_output(Path(arguments.output_file)) if arguments.output_file else None
    texts = [document for source in training_sources(text) for document in documents(source)]
    windows = arguments.block_size, None, arguments.per_device_eval_batch_size
    models = [load_model(name, arguments.device, arguments.dtype) for name in arguments.model]
    if len(texts) == 1 and "text" in texts[0]:
        comparison = _compare_on_text(models, str(texts[0]["text"]), windows)
    else:
        comparison = _compare_on_documents(models, texts, windows)
    if output:
        storage.write_json(output, asdict(comparison))
    return comparison


def _compare_on_text(models, text: str, windows) -> Comparison:
    """Compare on one text, in blocks that end at token boundaries of both tokenizers; their first tokens are not counted."""
    encoded = [encode_with_ends(tokenizer, text) for _, tokenizer in models]
    if any(len(ids) < 2 for ids, _ in encoded):
        raise UsageError("the text has one token or none", "a text of two tokens or more", "use more text")
    boundaries = np.intersect1d(encoded[0][1], encoded[1][1])
    boundaries = boundaries[boundaries >= max(ends[0] for _, ends in encoded)]
    cuts = even_cuts(boundaries[1:]) if len(boundaries) > 1 else boundaries[:0]
    sizes = np.diff(cuts, prepend=boundaries[:1])
    _check_blocks(sizes)
    nats = []
    for (model, _), (ids, ends) in zip(models, encoded, strict=True):
        targets = np.where(ends > boundaries[0], ids, IGNORED)
        nats.append(block_sums(model, ids, targets, np.searchsorted(cuts, ends), sizes, windows)[:, 0])
    return paired(nats[0], nats[1], sizes)


def _compare_on_documents(models, texts: list[dict], windows) -> Comparison:
    """Compare on documents, joined as in training after a start token; of conversations only the answers count."""
    nats, sizes = [], []
    for model, tokenizer in models:
        ids, targets, blocks, size = encode_documents(tokenizer, texts)
        _check_blocks(size)
        start = (start_token(tokenizer), ids), (IGNORED, targets), (0, blocks)
        ids, targets, blocks = (np.concatenate([[first], rest]) for first, rest in start)
        nats.append(block_sums(model, ids, targets, blocks, size, windows)[:, 0])
        sizes.append(size)
    if not np.array_equal(sizes[0], sizes[1]):
        raise UsageError("the chat templates of A and B differ", "the same answers for both", "give plain text")
    return paired(nats[0], nats[1], sizes[0])


def comparison_lines(names: list[str], result: Comparison) -> list[str]:
    """Format a comparison as lines of text."""
    return [
        f"A  {result.a:.4f} bits per byte  {names[0]}",
        f"B  {result.b:.4f} bits per byte  {names[1]}",
        f"A - B: {result.difference:+.4f}, 95 % interval {result.low:+.4f} to {result.high:+.4f}"
        f" ({result.units} blocks, {result.bytes:,} bytes)",
        result.verdict,
        "The interval is over texts like this one. Another seed can move A or B by more.",
    ]
