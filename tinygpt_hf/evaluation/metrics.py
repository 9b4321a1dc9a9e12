"""Compute loss, perplexity, bits per byte and accuracy of a causal language model on a whole text.

    sums = MetricSums()
    for input_ids, labels in batches:                 # (B, T) each, labels already shifted, -100 where no target
        sums += batch_sums(model, input_ids, labels)
    sums.bytes = size_of_the_text
    sums.loss, sums.perplexity, sums.bits_per_byte, sums.accuracy, sums.entropy

Only sums are kept, so the results do not depend on batch or shard sizes. Processes combine theirs by one reduction of
`to_list()`. `load_metric(name)` loads the same metrics as modules of the Hugging Face `evaluate` library, offline.

Texts and documents are scored in blocks, from whose sums intervals.py computes confidence intervals.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.intervals import interval
from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM
from tinygpt_hf.reading.decoding import TextFile
from tinygpt_hf.tokenizing.encode import encode

IGNORED = -100
UNBOUNDED = 1 << 62
METRICS = ("perplexity", "bits_per_byte", "token_accuracy")
LONGEST_WINDOW = 2048  # default limit: with a large vocabulary, the logits of a longer window take gigabytes
ROWS = 256  # positions scored at a time, so that their logits stay in the processor's cache
MOST_LOGITS = 2**27  # per batch: half a gigabyte in float32
BLOCKS, BLOCK_BYTES, FEWEST_BLOCKS, MOST_DOCUMENTS = 200, 512, 20, 1000
BINS = 15  # of equal width, for the expected calibration error (Guo et al. 2017)
COLUMNS = 5  # sums per block: nats, tokens, correct, in the top five, bytes; the calibration bins follow
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of sums (..., COLUMNS + BINS)
    "loss": lambda sums: sums[..., 0] / sums[..., 1],
    "bits_per_byte": lambda sums: sums[..., 0] / math.log(2) / sums[..., 4],
    "accuracy": lambda sums: sums[..., 2] / sums[..., 1],
    "top5_accuracy": lambda sums: sums[..., 3] / sums[..., 1],
    "calibration_error": lambda sums: np.abs(sums[..., COLUMNS:]).sum(-1) / sums[..., 1],
}


def mean_loss(nats: float, tokens: int) -> float:
    """Compute nats per token; NaN without tokens."""
    return nats / tokens if tokens else math.nan


def perplexity(nats: float, tokens: int) -> float:
    """Compute exp(nats per token)."""
    loss = mean_loss(nats, tokens)
    return math.exp(loss) if not loss > 700 else math.inf  # exp would overflow


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Compute bits per UTF-8 byte of text, which is comparable between tokenizers and with file compressors."""
    return nats / math.log(2) / num_bytes if num_bytes else math.nan


def accuracy(correct: int, tokens: int) -> float:
    """Compute the share of tokens for which the model's likeliest token is right."""
    return correct / tokens if tokens else math.nan


@dataclass
class MetricSums:
    """Sums over batches, shards and processes, with the metrics derived from them."""

    nats: float = 0.0
    tokens: int = 0
    correct: int = 0
    bytes: int = 0
    expected: float = 0.0  # the sum of the entropies of the predicted distributions, in nats

    def __add__(self, other: "MetricSums") -> "MetricSums":
        return MetricSums(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    def to_list(self) -> list[float]:
        """Return the sums in order, for a float64 reduction over processes."""
        return list(astuple(self))

    @classmethod
    def from_list(cls, sums) -> "MetricSums":
        """Invert `to_list`, also from a tensor."""
        nats, tokens, correct, num_bytes, expected = (float(x) for x in sums)
        return cls(nats, int(tokens), int(correct), int(num_bytes), expected)

    @property
    def loss(self) -> float:
        return mean_loss(self.nats, self.tokens)

    @property
    def perplexity(self) -> float:
        return perplexity(self.nats, self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return bits_per_byte(self.nats, self.bytes)

    @property
    def accuracy(self) -> float:
        return accuracy(self.correct, self.tokens)

    @property
    def entropy(self) -> float:
        """Mean entropy of the predicted distributions, in bits per token. In a calibrated model it equals the loss."""
        return mean_loss(self.expected, self.tokens) / math.log(2)


def scores(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return nats (0 for an ignored label) and predicted ids, (N,) each, from logits (N, V)."""
    logits = logits.float()
    chosen = logits.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    # F.cross_entropy would allocate the log-probabilities of the whole vocabulary
    return (logits.logsumexp(-1) - chosen).masked_fill(labels == IGNORED, 0.0), logits.argmax(-1)


def scores_with_entropy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return `scores`, and the entropies of the predicted distributions in nats (0 for an ignored label)."""
    logits = logits.float()
    highest, predicted = logits.max(-1, keepdim=True)
    powers = (logits - highest).exp_()
    total = powers.sum(-1)
    logsumexp = total.log() + highest[:, 0]  # computed here because the entropy needs the powers
    nats = logsumexp - logits.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    entropy = logsumexp - torch.linalg.vecdot(powers, logits) / total
    is_ignored = labels == IGNORED
    return nats.masked_fill(is_ignored, 0.0), predicted[:, 0], entropy.masked_fill(is_ignored, 0.0)


def scores_with_confidence(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return `scores`, whether the label is among the five likeliest tokens, and the highest probability."""
    nats, predicted = scores(logits, labels)
    logits = logits.float()
    chosen = logits.gather(1, labels.clamp_min(0)[:, None])
    highest = logits.gather(1, predicted[:, None])[:, 0]
    return nats, predicted, (logits > chosen).sum(-1) < 5, (highest - logits.logsumexp(-1)).exp()


@torch.no_grad()
def token_scores(model, input_ids, labels, position_ids=None, measure=scores) -> tuple[torch.Tensor, ...]:
    """Return the tensors of `measure(logits (N, V), labels (N,))` and then the labels, each (B, T) on the model's device.

    By default these are (nats, predicted ids, labels), with float32 nats that are 0 where the label is -100. Call
    `model.eval()` first. For an unsharded TinyGPT model, the logits are computed in chunks of `ROWS` positions.
    """
    device = next(model.parameters()).device
    input_ids = torch.as_tensor(input_ids, dtype=torch.long, device=device)  # (B, T)
    labels = torch.as_tensor(labels, dtype=torch.long, device=device)  # (B, T)
    positions = {} if position_ids is None else {"position_ids": torch.as_tensor(position_ids, device=device)}
    net = getattr(model, "module", model)
    if isinstance(net, TinyGPTForCausalLM) and not isinstance(net.lm_head.weight, DTensor):
        hidden = net.model(input_ids=input_ids, use_cache=False, **positions).last_hidden_state
        parts = hidden.flatten(0, 1).split(ROWS), labels.flatten().split(ROWS)
        measured = zip(*(measure(net.lm_head(rows), few) for rows, few in zip(*parts, strict=True)), strict=True)
        return *(torch.cat(part).view_as(labels) for part in measured), labels
    logits = model(input_ids=input_ids, use_cache=False, **positions).logits  # (B, T, V)
    return *(part.view_as(labels) for part in measure(logits.flatten(0, 1), labels.flatten())), labels


def batch_sums(model, input_ids, labels, position_ids=None) -> MetricSums:
    """Return the sums of one batch, without bytes. `labels` (B, T) are shifted: labels[b, t] follows input_ids[b, :t+1].

    `position_ids` (B, T) that restart at each document restrict attention to the document.
    """
    nats, predicted, entropy, labels = token_scores(model, input_ids, labels, position_ids, measure=scores_with_entropy)
    # one transfer instead of four, to synchronize with the GPU once
    counts = (labels != IGNORED).sum(), (predicted == labels).sum()
    sums = torch.stack([nats.sum(dtype=torch.float64), *counts, entropy.sum(dtype=torch.float64)])
    nats, tokens, correct, expected = sums.tolist()
    return MetricSums(nats, int(tokens), int(correct), expected=expected)


def evaluate_file(
    model, tokenizer, path: str | Path, block_size: int | None = None, stride: int | None = None, batch_size: int = 8
) -> dict[str, Any]:
    """Evaluate a model on a text file, as `tinygpt evaluate` does.

    No tokens are added to the text, and control tokens written in it are plain text. `bytes` counts the UTF-8 bytes of the
    predicted text, which is all but the first token. Blocks of about equal size end at token boundaries. With a `stride`
    below `block_size`, windows overlap: all tokens but those of the first window have at least block_size - stride tokens of
    context, and the cost is block_size / stride times as high.
    """
    text = read_text(path)
    ids, ends = encode_with_ends(tokenizer, text)
    if len(ids) < 2:
        raise UsageError(f"the text has {len(ids)} tokens", "a text of two tokens or more", "use more text")
    cuts = even_cuts(np.unique(ends[1:]))
    sizes = np.diff(cuts, prepend=_first_token_bytes(tokenizer, text, int(ids[0])))
    blocks = np.searchsorted(cuts, ends).astype(np.int32)
    return _evaluate(model, ids, ids, blocks, sizes, (block_size, stride, batch_size)) | {"data": str(path)}


def even_cuts(boundaries: np.ndarray) -> np.ndarray:
    """Choose ends of blocks of about equal size from increasing token boundaries, in bytes."""
    first, last = int(boundaries[0]), int(boundaries[-1])
    targets = np.linspace(first, last, 1 + min(BLOCKS, max(FEWEST_BLOCKS, (last - first) // BLOCK_BYTES)))[1:]
    return np.unique(boundaries[np.searchsorted(boundaries, targets).clip(max=len(boundaries) - 1)])


def evaluate_documents(
    model,
    tokenizer,
    documents: list[dict],
    block_size: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Evaluate a model on documents, joined as in training: each ends with the end-of-text token.

    Of conversations only the answers count. `bytes` counts the predicted text. Each document is a block; above a thousand
    documents, a block holds several.
    """
    ids, targets, blocks, sizes = encode_documents(tokenizer, documents)
    if documents and (text := documents[0].get("text")):
        sizes[0] -= _first_token_bytes(tokenizer, text, int(ids[0]))
    return _evaluate(model, ids, targets, blocks, sizes, (block_size, stride, batch_size))


def encode_documents(tokenizer, documents: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the ids, targets and block numbers (N,) of joined documents, and the bytes of predicted text in each block."""
    encoded = encode(documents, tokenizer, UNBOUNDED)
    empty = np.zeros(0, dtype=np.int64)
    ids = np.concatenate([empty, *(each.ids for each in encoded)]).astype(np.int64)
    masks = [np.ones(len(each.ids), dtype=bool) if each.mask is None else each.mask for each in encoded]
    targets = np.where(np.concatenate([empty.astype(bool), *masks]), ids, IGNORED)
    block_of = np.arange(len(encoded)) * min(len(encoded), MOST_DOCUMENTS) // max(1, len(encoded))
    sizes = np.bincount(block_of, weights=[each.num_bytes for each in encoded])
    return ids, targets, np.repeat(block_of, [len(each.ids) for each in encoded]), sizes


def _evaluate(
    model,
    ids: np.ndarray,
    targets: np.ndarray,
    blocks: np.ndarray,
    sizes: np.ndarray,
    windows: tuple[int | None, int | None, int],
) -> dict[str, Any]:
    """Compute all metrics with their intervals on token ids (N,).

    `targets` (N,) repeats the ids to score and is -100 elsewhere. `blocks` (N,) holds the block number of each token, and
    `sizes` the bytes of predicted text in each block. `windows` is (block_size, stride, batch_size).
    """
    metrics = {name: load_metric(name) for name in METRICS}

    def add_predictions(predicted, labels):
        metrics["token_accuracy"].add_batch(predictions=predicted, references=labels)

    sums = block_sums(model, ids, targets, blocks, sizes, windows, add_predictions)
    metrics["perplexity"].add_batch(predictions=sums[:, 0].tolist(), references=sums[:, 1].astype(int).tolist())
    metrics["bits_per_byte"].add_batch(predictions=sums[:, 0].tolist(), references=sums[:, 4].astype(int).tolist())
    results: dict[str, Any] = {}
    for metric in metrics.values():
        results |= metric.compute()
    total = sums.sum(0)
    for name, statistic in STATISTICS.items():
        results.setdefault(name, float(statistic(total)) if total[1] else math.nan)
        results[f"{name}_low"], results[f"{name}_high"] = interval(sums, statistic)
    for end in ("low", "high"):
        results[f"perplexity_{end}"] = perplexity(results[f"loss_{end}"], 1)
    window = _window(model, windows[0])
    results |= {"tokens": int(total[1]), "bytes": int(total[4]), "blocks": len(sums)}
    return results | {"block_size": window, "stride": windows[1] or window}


def block_sums(model, ids, targets, blocks, sizes, windows, each_batch=lambda predicted, labels: None) -> np.ndarray:
    """Return the sums (blocks, COLUMNS + BINS) of each block; for the arguments see `_evaluate`.

    Calls `each_batch(predicted ids, labels)` for every batch.
    """
    sums = np.zeros((len(sizes), COLUMNS + BINS))
    sums[:, 4] = sizes
    block_size, stride, batch_size = windows
    for input_ids, labels, slots in _batches(model, ids, block_size, stride, batch_size, targets):
        parts = token_scores(model, input_ids, labels, measure=scores_with_confidence)
        nats, predicted, in_top5, confidence, labels = (part.cpu().numpy() for part in parts)
        each_batch(predicted.tolist(), labels.tolist())
        counted = labels != IGNORED
        block, right = blocks[slots + 1][counted], (predicted == labels)[counted]
        for column, values in enumerate((nats[counted], None, right, in_top5[counted])):
            sums[:, column] += np.bincount(block, values, minlength=len(sums))
        confidence = confidence[counted].astype(np.float64)
        bins = block * BINS + (confidence * BINS).astype(np.int64).clip(max=BINS - 1)
        sums[:, COLUMNS:] += np.bincount(bins, confidence - right, minlength=len(sums) * BINS).reshape(-1, BINS)
    return sums


def load_metric(name: str):
    """Load one of this package's modules of the `evaluate` library, offline."""
    import evaluate

    if name not in METRICS:
        raise UsageError(f"there is no metric {name!r}", f"one of {', '.join(METRICS)}", "check the spelling")
    return evaluate.load(str(Path(__file__).parent / "metric_modules" / name))


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file without changing line ends; raise a `UsageError` if it is empty or cannot be read."""
    try:
        source = TextFile(str(path))
        with source.open() as file:
            text = "".join(source.pieces(file))
    except OSError as error:
        raise UsageError(f"--data {path} cannot be read ({error.strerror})", "a text file", "check the path") from None
    if not text:
        raise UsageError(f"--data {path} is empty", "a text of two tokens or more", "use another file")
    return text


def encode_with_ends(tokenizer, text: str, piece: int = 1 << 22) -> tuple[np.ndarray, np.ndarray]:
    """Tokenize a text; return the ids (N,) and, for each token, the offset in bytes at which it ends in the text.

    No tokens are added. Long texts are tokenized in pieces to bound the memory. A piece ends between a letter and a line
    break, where byte-level pre-tokenizers split anyway. Tokens that share a character share its end.
    """
    arrays, ends, start, size = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0, 0
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    while start < len(text):
        end = start + piece
        while end < len(text) and not (text[end] == "\n" and text[end - 1].isalpha()):
            end += 1
        part = text[start:end]
        encoding = tokenizer(part, return_offsets_mapping=True, **options)
        arrays.append(np.asarray(encoding["input_ids"], dtype=np.int64))
        characters = np.frombuffer(part.encode("utf-32-le"), dtype=np.uint32)
        lengths = 1 + (characters > 0x7F) + (characters > 0x7FF) + (characters > 0xFFFF)
        before = size + np.concatenate([[0], np.cumsum(lengths)])  # bytes before each character
        ends.append(before[np.maximum.accumulate([last for _, last in encoding["offset_mapping"]] or [0])])
        start, size = end, int(before[-1])
    ends[-1][-1:] = size  # trailing white space that the tokenizer dropped counts for the last token
    return np.concatenate(arrays), np.concatenate(ends)[: sum(map(len, arrays))]


def _first_token_bytes(tokenizer, text: str, id: int) -> int:
    first = tokenizer.decode([id], clean_up_tokenization_spaces=False)
    if text.startswith(first) and first:
        return len(first.encode())
    token = tokenizer.convert_ids_to_tokens(id)
    if "\ufffd" in first:  # part of a character: <0xE2> is one byte, a byte-level token has one letter per byte
        return 1 if token.startswith("<0x") else len(token)
    head = tokenizer(text[:64], add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return len(text[: head["offset_mapping"][0][1]].encode())  # tokenizers that change case or spaces


def _window(model, block_size: int | None) -> int:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if block_size is None:
        return min(context or LONGEST_WINDOW, LONGEST_WINDOW)
    if block_size < 1 or (context and block_size > context):
        expected = f"1 to {context} tokens" if context else "at least 1 token"
        raise UsageError(f"--block_size is {block_size}", expected, "leave --block_size out")
    return block_size


def _batches(model, ids, block_size, stride, batch_size, targets) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield (input_ids, labels, indices into `ids`), (B, T) each, of windows of equal length, without padding.

    Labels that an earlier window has scored are -100, and so are those that are -100 in `targets` (N,).
    """
    T = _window(model, block_size)
    stride = T if stride is None else stride
    if not 1 <= stride <= T:
        raise UsageError(f"--stride is {stride}", f"1 to {T}, the window", "leave --stride out")
    if batch_size < 1:
        raise UsageError(f"--per_device_eval_batch_size is {batch_size}", "at least 1", "try 8")
    if len(ids) < 2:
        raise UsageError(f"the text has {len(ids)} tokens", "a text of two tokens or more", "use more text")
    last = len(ids) - 1
    vocabulary = model.config.get_text_config().vocab_size
    batch_size = max(1, min(batch_size, MOST_LOGITS // (T * vocabulary)))
    starts = range(0, max(1, last - T + stride), stride)  # the last window is the first to reach the end
    full = [start for start in starts if start + T <= last]
    groups = [full[k : k + batch_size] for k in range(0, len(full), batch_size)]
    groups += [[start] for start in starts if start + T > last]
    for group in groups:
        length = min(T, last - group[0])
        slots = np.asarray(group)[:, None] + np.arange(length)  # (B, T)
        labels = targets[slots + 1].astype(np.int64)
        scored_before = (slots < np.asarray(group)[:, None] + T - stride) & (np.asarray(group)[:, None] > 0)
        labels[scored_before] = IGNORED
        yield ids[slots].astype(np.int64), labels, slots
