"""Break down the loss on held-out rows by position, kind of token, source, document and passage.

    found = loss_map(model, tokenizer, view, most_tokens=20_000)
    found.by_position[0].bits, found.by_kind[0].name, found.passages["surprising"][0].text

Reads the first rows of the text, or of each source of a mixture. Losses are in bits per token, averaged over a group.
"""

import bisect
from dataclasses import dataclass

import numpy as np
import torch

from tinygpt_hf.evaluation.metrics import IGNORED, token_scores
from tinygpt_hf.inference.text_stream import TextDecoder
from tinygpt_hf.rows.view import RowView

MIN_ROWS, BATCH = 4, 8
PASSAGE, BEFORE = 16, 12  # tokens of a passage, and of the text shown before it
PASSAGES, DOCUMENTS, OPENING = 5, 3, 24  # number of passages and documents per list; tokens of a document's opening
SHORTEST_DOCUMENT = 8  # targets; shorter documents are not ranked


@dataclass
class Group:
    """The number of tokens in a group and their mean loss in bits."""

    name: str
    tokens: int
    bits: float


@dataclass
class Passage:
    """A piece of text: the text before it, its tokens with their bits, and the mean bits."""

    before: str
    tokens: list[tuple[str, float]]
    bits: float

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.tokens)


@dataclass
class LossMap:
    """The breakdown of a loss. `documents` holds (nats, bytes) of each document read in full, by its number."""

    tokens: int
    bits: float
    by_position: list[Group]
    by_kind: list[Group]
    by_source: list[Group]
    hard_documents: list[Group]
    easy_documents: list[Group]
    passages: dict[str, list[Passage]]
    documents: dict[int, tuple[float, int]]


def loss_map(model, tokenizer, view: RowView, most_tokens: int, document_mask: bool = False) -> LossMap | None:
    """Break down the loss on rows with about `most_tokens` tokens (at least `MIN_ROWS` rows). None without a target."""
    T = view.block_size
    chosen = _choose_rows(view, max(MIN_ROWS, most_tokens // T))
    inputs, labels, bits = [], [], []
    for start in range(0, len(chosen), BATCH):
        ids = chosen[start : start + BATCH]
        batch_inputs, targets = view.batch(ids)
        positions = torch.from_numpy(view.position_ids(ids)) if document_mask else None
        nats, *_ = token_scores(model, torch.from_numpy(batch_inputs), torch.from_numpy(targets), positions)
        inputs.append(batch_inputs)
        labels.append(targets)
        bits.append(nats.double().cpu().numpy() / np.log(2))
    ids, targets, bits = (np.concatenate(part) for part in (inputs, labels, bits))  # (R, T) each
    counted = targets != IGNORED
    if not counted.any():
        return None
    offsets = view.rows.places(chosen, T) + 1  # (R, T) offset of each target in the text; 0: padding
    decoder = TextDecoder(tokenizer)
    by_document = _by_document(view.rows, offsets, counted, bits)
    full_documents = {
        number: (float(own.sum() * np.log(2)), _bytes(view.rows, number, decoder))
        for number, own in by_document.items()
        if len(own) == int(view.rows.targets(number)[int(number == 0) :].sum())
    }
    means = {number: float(own.mean()) for number, own in by_document.items() if len(own) >= SHORTEST_DOCUMENT}
    ranked = sorted(means, key=lambda number: means[number])

    def groups(numbers: list[int]) -> list[Group]:
        return [Group(_opening(view.rows, n, tokenizer), len(by_document[n]), means[n]) for n in numbers]

    return LossMap(
        int(counted.sum()),
        float(bits[counted].mean()),
        _by_position(counted, bits),
        _by_kind(targets, counted, bits, decoder),
        _by_source(view.rows, by_document),
        groups(ranked[::-1][:DOCUMENTS]),
        groups(ranked[:DOCUMENTS]),
        _passages(ids, targets, counted, bits, decoder),
        full_documents,
    )


def _choose_rows(view: RowView, count: int) -> list[int]:
    """Choose the first `count` rows, or an equal part of them at the beginning of each source."""
    firsts = {name: document for document, name in reversed(view.rows.sources)}
    begins = [int(view.rows.first_inputs(k, k + 1)[0]) // view.block_size for k in firsts.values()] or [0]
    each = -(-count // len(begins))
    return sorted({row for begin in begins for row in range(begin, min(begin + each, len(view)))})


def _by_position(counted: np.ndarray, bits: np.ndarray) -> list[Group]:
    """Group targets by the number of tokens before them in the row: 1, 2 to 3, 4 to 7, and so on."""
    groups, begin = [], 0
    while begin < counted.shape[1]:
        end = min(2 * begin + 1, counted.shape[1])
        chosen = bits[:, begin:end][counted[:, begin:end]]
        name = f"{begin + 1}" if end == begin + 1 else f"{begin + 1} to {end}"
        groups += [Group(name, chosen.size, float(chosen.mean()))] if chosen.size else []
        begin = end
    return groups


def _by_kind(targets: np.ndarray, counted: np.ndarray, bits: np.ndarray, decoder: TextDecoder) -> list[Group]:
    """Group targets by `token_kind`, the kind with the largest total loss first."""
    ids = np.unique(targets[counted])
    names = np.array([token_kind(decoder.bytes_of(int(id)), decoder.display(int(id))) for id in ids])
    kinds = names[np.searchsorted(ids, targets[counted])]
    groups = []
    for kind in np.unique(names):
        own = bits[counted][kinds == kind]
        groups.append(Group(str(kind), len(own), float(own.mean())))
    return sorted(groups, key=lambda group: -group.bits * group.tokens)


def token_kind(token_bytes: bytes | None, shown: str) -> str:
    """Classify a token by its bytes (None if it stands for text) and its displayed text."""
    text = shown if token_bytes is None else token_bytes.decode("utf-8", "replace")
    if token_bytes == b"":
        return "control tokens"
    if "\ufffd" in text:
        return "parts of characters"
    if not text.strip():
        return "white space"
    words = text.strip("▁ \n\t")
    if any(c.isdigit() for c in words):
        return "numbers"
    if any(c.isalpha() for c in words):
        return "words and their beginnings" if text[0] in "▁ \n\t" else "inside words"
    return "punctuation"


def _by_document(rows, offsets: np.ndarray, counted: np.ndarray, bits: np.ndarray) -> dict[int, np.ndarray]:
    """Collect the bits of the targets of each document, by its number."""
    starts = rows.documents_between(0, int(offsets.max()) + 1)
    numbers = np.searchsorted(starts, offsets[counted], side="right") - 1
    order = np.argsort(numbers, kind="stable")
    found, firsts = np.unique(numbers[order], return_index=True)
    return dict(zip(found.tolist(), np.split(bits[counted][order], firsts[1:]), strict=True))


def _by_source(rows, by_document: dict[int, np.ndarray]) -> list[Group]:
    """Group targets by the source of their document. Returns no groups for a single source."""
    firsts, names = [first for first, _ in rows.sources], [name for _, name in rows.sources]
    if len(set(names)) < 2:
        return []
    by_source: dict[str, list[np.ndarray]] = {}
    for number, own in by_document.items():
        by_source.setdefault(names[bisect.bisect_right(firsts, number) - 1], []).append(own)
    joined = {name: np.concatenate(parts) for name, parts in by_source.items()}
    return [Group(name, len(own), float(own.mean())) for name, own in joined.items()]


def _bytes(rows, number: int, decoder: TextDecoder) -> int:
    """Count the bytes of a document's targets."""
    first = int(number == 0)  # the very first token is no target
    ids = rows.document(number)[first:][rows.targets(number)[first:]].tolist()
    pieces = [decoder.bytes_of(id) for id in ids]
    return sum(
        len(decoder.display(id).encode() if piece is None else piece) for id, piece in zip(ids, pieces, strict=True)
    )


def _opening(rows, number: int, tokenizer) -> str:
    return tokenizer.decode(rows.document(number)[:OPENING].tolist(), skip_special_tokens=True)


def _passages(ids, targets, counted, bits, decoder: TextDecoder) -> dict[str, list[Passage]]:
    """Choose disjoint passages of `PASSAGE` targets with the highest loss ("surprising") and the lowest ("expected")."""
    if counted.shape[1] < PASSAGE:
        return {}
    windows = np.lib.stride_tricks.sliding_window_view(np.where(counted, bits, np.nan), PASSAGE, axis=1)
    sums = windows.sum(-1)  # (R, T-15)
    chosen: dict[str, list[Passage]] = {}
    for name, sign in (("surprising", -1), ("expected", 1)):
        left, found = sign * sums, []
        while len(found) < PASSAGES and np.isfinite(left).any():
            row, at = np.unravel_index(np.nanargmin(left), left.shape)
            left[row, max(0, at - PASSAGE + 1) : at + PASSAGE] = np.nan
            own, tokens = bits[row, at : at + PASSAGE], targets[row, at : at + PASSAGE].tolist()
            before = "".join(map(decoder.display, ids[row, max(0, at + 1 - BEFORE) : at + 1].tolist()))
            pairs = [(decoder.display(id), float(cost)) for id, cost in zip(tokens, own, strict=True)]
            found.append(Passage(before, pairs, float(own.mean())))
        chosen[name] = found
    return chosen
