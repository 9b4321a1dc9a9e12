"""Find where the loss of a model lives in held-out rows: by place in the row, kind of token, source, document, passage.

    found = loss_map(model, tokenizer, view, most_tokens=20_000)
    found.by_place[0].bits, found.by_kind[0].name, found.passages["surprising"][0].text

Of a long text the first rows are read, of a mixture those of each source. Bits are per token, of a group the mean over its tokens.
"""

import bisect
from dataclasses import dataclass

import numpy as np
import torch

from tinygpt_hf.evaluation.metrics import IGNORED, token_scores
from tinygpt_hf.inference.text_stream import TextDecoder
from tinygpt_hf.rows.view import RowView

FEWEST_ROWS, LARGEST_BATCH = 4, 8
PASSAGE, BEFORE = 16, 12  # tokens of a passage, and of what is shown before it
PASSAGES, DOCUMENTS, OPENING = 5, 3, 24  # shown of each sort, and tokens of a document's beginning
SHORTEST_DOCUMENT = 8  # targets; of fewer the mean says little


@dataclass
class Group:
    """Hold tokens that have something in common: how many, and their mean bits."""

    name: str
    tokens: int
    bits: float


@dataclass
class Passage:
    """Hold a piece of text: what stands before it, and each token with its bits; `bits` is their mean."""

    before: str
    tokens: list[tuple[str, float]]
    bits: float

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.tokens)


@dataclass
class LossMap:
    """Hold where the loss lives. `documents`: nats and bytes of each document that was read whole, by its number."""

    tokens: int
    bits: float
    by_place: list[Group]
    by_kind: list[Group]
    by_source: list[Group]
    hard_documents: list[Group]
    easy_documents: list[Group]
    passages: dict[str, list[Passage]]
    documents: dict[int, tuple[float, int]]


def loss_map(model, tokenizer, view: RowView, most_tokens: int, document_mask: bool = False) -> LossMap | None:
    """Read rows that hold `most_tokens`, four at least, and sort what they cost; None where they hold no target."""
    T = view.block_size
    chosen = _chosen(view, max(FEWEST_ROWS, most_tokens // T))
    inputs, labels, bits = [], [], []
    for start in range(0, len(chosen), LARGEST_BATCH):
        ids = chosen[start : start + LARGEST_BATCH]
        shown, targets = view.batch(ids)
        positions = torch.from_numpy(view.position_ids(ids)) if document_mask else None
        nats, *_ = token_scores(model, torch.from_numpy(shown), torch.from_numpy(targets), positions)
        inputs.append(shown)
        labels.append(targets)
        bits.append(nats.double().cpu().numpy() / np.log(2))
    ids, targets, cost = (np.concatenate(part) for part in (inputs, labels, bits))  # (R, T) each
    counted = targets != IGNORED
    if not counted.any():
        return None
    places = view.rows.places(chosen, T) + 1  # (R, T) where each target lies in the text; 0: padding
    decoder = TextDecoder(tokenizer)
    by_document = _by_document(view.rows, places, counted, cost)
    whole = {
        number: (float(mine.sum() * np.log(2)), _bytes(view.rows, number, decoder))
        for number, mine in by_document.items()
        if len(mine) == int(view.rows.targets(number)[int(number == 0) :].sum())
    }
    means = {number: float(mine.mean()) for number, mine in by_document.items() if len(mine) >= SHORTEST_DOCUMENT}
    ranked = sorted(means, key=lambda number: means[number])

    def groups(numbers: list[int]) -> list[Group]:
        return [Group(_opening(view.rows, n, tokenizer), len(by_document[n]), means[n]) for n in numbers]

    return LossMap(
        int(counted.sum()),
        float(cost[counted].mean()),
        _by_place(counted, cost),
        _by_kind(targets, counted, cost, decoder),
        _by_source(view.rows, by_document),
        groups(ranked[::-1][:DOCUMENTS]),
        groups(ranked[:DOCUMENTS]),
        _passages(ids, targets, counted, cost, decoder),
        whole,
    )


def _chosen(view: RowView, count: int) -> list[int]:
    """Choose the first rows, or as many behind the beginning of each source."""
    firsts = {name: document for document, name in reversed(view.rows.sources)}
    begins = [int(view.rows.first_inputs(k, k + 1)[0]) // view.block_size for k in firsts.values()] or [0]
    each = -(-count // len(begins))
    return sorted({row for begin in begins for row in range(begin, min(begin + each, len(view)))})


def _by_place(counted: np.ndarray, cost: np.ndarray) -> list[Group]:
    """Group targets by how many tokens of their row come before them: 1, 2 and 3, 4 to 7, and so on."""
    groups, begin = [], 0
    while begin < counted.shape[1]:
        end = min(2 * begin + 1, counted.shape[1])
        chosen = cost[:, begin:end][counted[:, begin:end]]
        name = f"{begin + 1}" if end == begin + 1 else f"{begin + 1} to {end}"
        groups += [Group(name, chosen.size, float(chosen.mean()))] if chosen.size else []
        begin = end
    return groups


def _by_kind(targets: np.ndarray, counted: np.ndarray, cost: np.ndarray, decoder: TextDecoder) -> list[Group]:
    """Group targets by what sort of token they are, the sort that costs most in all first."""
    known = np.unique(targets[counted])
    names = np.array([kind_of(decoder.bytes_of(int(id)), decoder.shown(int(id))) for id in known])
    kinds = names[np.searchsorted(known, targets[counted])]
    chosen = [(kind, cost[counted][kinds == kind]) for kind in np.unique(names)]
    return sorted(
        (Group(str(kind), len(own), float(own.mean())) for kind, own in chosen), key=lambda g: -g.bits * g.tokens
    )


def kind_of(known: bytes | None, shown: str) -> str:
    """Name the sort of a token: `known` are its bytes, where it stands for bytes; `shown` is how it is shown."""
    text = shown if known is None else known.decode("utf-8", "replace")
    if known == b"":
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


def _by_document(rows, places: np.ndarray, counted: np.ndarray, cost: np.ndarray) -> dict[int, np.ndarray]:
    """Gather what the targets of each document cost."""
    starts = rows.documents_between(0, int(places.max()) + 1)
    numbers = np.searchsorted(starts, places[counted], side="right") - 1
    order = np.argsort(numbers, kind="stable")
    found, firsts = np.unique(numbers[order], return_index=True)
    return dict(zip(found.tolist(), np.split(cost[counted][order], firsts[1:]), strict=True))


def _by_source(rows, by_document: dict[int, np.ndarray]) -> list[Group]:
    """Group targets by the source of their document, where there are several."""
    firsts, names = [first for first, _ in rows.sources], [name for _, name in rows.sources]
    costs: dict[str, list[np.ndarray]] = {}
    for number, mine in by_document.items() if len(set(names)) > 1 else ():
        costs.setdefault(names[bisect.bisect_right(firsts, number) - 1], []).append(mine)
    parts = {name: np.concatenate(own) for name, own in costs.items()}
    return [Group(name, len(own), float(own.mean())) for name, own in parts.items()]


def _bytes(rows, number: int, decoder: TextDecoder) -> int:
    """Count the bytes of a document that is predicted."""
    first = int(number == 0)  # the first token of all is predicted by nothing
    ids = rows.document(number)[first:][rows.targets(number)[first:]].tolist()
    pieces = [decoder.bytes_of(id) for id in ids]
    return sum(
        len(decoder.shown(id).encode() if piece is None else piece) for id, piece in zip(ids, pieces, strict=True)
    )


def _opening(rows, number: int, tokenizer) -> str:
    return tokenizer.decode(rows.document(number)[:OPENING].tolist(), skip_special_tokens=True)


def _passages(ids, targets, counted, cost, decoder: TextDecoder) -> dict[str, list[Passage]]:
    """Choose the passages of `PASSAGE` tokens, all of them targets, that cost most and least, of which no two share a token."""
    if counted.shape[1] < PASSAGE:
        return {}
    windows = np.lib.stride_tricks.sliding_window_view(np.where(counted, cost, np.nan), PASSAGE, axis=1)
    sums = windows.sum(-1)  # (R, T-15)
    chosen: dict[str, list[Passage]] = {}
    for name, sign in (("surprising", -1), ("expected", 1)):
        left, found = sign * sums, []
        while len(found) < PASSAGES and np.isfinite(left).any():
            row, at = np.unravel_index(np.nanargmin(left), left.shape)
            left[row, max(0, at - PASSAGE + 1) : at + PASSAGE] = np.nan
            costs, shown = cost[row, at : at + PASSAGE], targets[row, at : at + PASSAGE].tolist()
            before = "".join(map(decoder.shown, ids[row, max(0, at + 1 - BEFORE) : at + 1].tolist()))
            pairs = [(decoder.shown(id), float(bits)) for id, bits in zip(shown, costs, strict=True)]
            found.append(Passage(before, pairs, float(costs.mean())))
        chosen[name] = found
    return chosen
