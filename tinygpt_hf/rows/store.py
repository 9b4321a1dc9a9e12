"""Read training data from disk as fixed-length rows.

After preparation, the text is a list of rows addressed by one integer. On disk it is a sequence of shards:

    shard-000000/       the first ids (build.py and stream.py choose the size)
        tokens.bin      token ids, end to end                uint16 if the vocabulary fits, else uint32
        documents.bin   where each document begins           uint64, one per document, and the end
        mask.bin        may this token be a target?          one bit per token; absent when every token may
        manifest.json   counts, dtype, vocabulary, hashes of source, tokenizer and options; size and sha256 of the files
    shard-000001/       starts with the last id of the shard before, so that every id is a target inside one shard; that id
                        and the rest of its document are the shard's first document

A shard is complete once it has its final name (writer.py). Rows made before shards existed are one such folder by itself.

Row i of T tokens is the T+1 ids from i*T on. Inputs and targets are shifted by one, so neighboring rows share one id and
every id but the very first is a target exactly once:

    ids      a b c d e f g h           T = 3
    row 0    a b c > b c d
    row 1          d e f > e f g
    row 2                g . . > h . .         the last row is padded; padding is never a target (-100)

An `offset` o cuts the same ids differently: first a short row of o targets, then rows of T. With a new offset in each epoch
the model sees other rows, and still every id but the first is a target exactly once per epoch. All epochs have the same
length, `rows_per_epoch(..., shifted=True)`; the last row may be all padding.

A document begins with the input that predicts its first id, the separator before it. If its first id is never a target (a
conversation), it begins with that id itself. bestfit.py packs by these boundaries. `position_ids` restart at them, so that
attention can be confined to one document.

    with RowWriter(folder, vocab_size=512) as writer:
        writer.add([5, 6, 7, 0])
    rows = Rows(folder)                                   # of one shard, or of the folder that holds several
    input_ids, labels = rows.batch([0, 2], block_size=128)                     # two arrays (B, T) int64
    position_ids = rows.position_ids([0, 2], block_size=128)                   # (B, T), 0 where a document begins
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError
from tinygpt_hf.rows import order
from tinygpt_hf.rows.shard import IGNORED, RowWriter, Shard

__all__ = ["IGNORED", "RowWriter", "Rows", "Shard", "rows_per_epoch", "shard_folders"]

OPEN = 64  # shards kept open


def rows_per_epoch(num_tokens: int, block_size: int, shifted: bool = False) -> int:
    """Return the number of rows that hold every target once: ceil((N - 1) / T), one more if cut at an offset."""
    if num_tokens < 2:
        return 0
    return -(-(num_tokens - 1) // block_size) + (1 if shifted else 0)


def shard_folders(folder: Path) -> list[Path]:
    """List the shard folders in order; older versions named streamed shards `window-*`."""
    if (folder / storage.MANIFEST).is_file():
        return [folder]
    return sorted(folder.glob("shard-*")) or sorted(folder.glob("window-*"))


class Rows:
    """A complete set of shards, read as one list of ids; `verify()` checks the hashes of all files."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.shards = shard_folders(self.folder) or [self.folder]  # opening it as a shard reports what is missing
        self._open: dict[int, Shard] = {}
        self.manifests = [self.shard(number).manifest for number in range(len(self.shards))]
        self.manifest: dict = self.manifests[0]  # tokenizer, sources and options are the same in all manifests
        tokens = np.array([manifest["num_tokens"] for manifest in self.manifests])
        documents = np.array([manifest["num_documents"] for manifest in self.manifests])
        self.firsts = np.cumsum(np.append(0, tokens[:-1] - 1))  # position of each shard's first id
        self._documents = np.cumsum(np.append(0, documents[:-1] - 1))  # number of each shard's first document
        self.num_tokens = int(self.firsts[-1] + tokens[-1])
        self.num_documents = int(self._documents[-1] + documents[-1])

    @property
    def sources(self) -> list[tuple[int, str]]:
        """Return (first document, name) of each source of a mixture, per shard; empty if sources were read in turns."""
        names = [_name(source) for source in self.manifest.get("sources", ())]
        return sorted(
            (int(first) + number, names[int(source)])
            for first, manifest in zip(self._documents, self.manifests, strict=True)
            for source, number in manifest.get("first_documents", {}).items()
        )

    def shard(self, number: int) -> Shard:
        """Return a shard; the last OPEN shards used stay open."""
        shard = self._open.pop(number, None) or Shard(self.shards[number])
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open)))
        self._open[number] = shard
        return shard

    @property
    def files(self):
        """Return the hashes of all files, as JSON, which identify the rows."""
        hashes = [manifest["files"] for manifest in self.manifests]
        return hashes[0] if len(hashes) == 1 else hashes

    @property
    def is_masked(self) -> bool:
        """Return whether some tokens are never targets, as in conversations."""
        return any("mask.bin" in manifest["files"] for manifest in self.manifests)

    @property
    def num_targets(self) -> int:
        """Return the number of tokens predicted in one epoch."""
        # a shard's first id is no target in that shard: it has no input, or was a target of the shard before
        first = np.zeros(1, dtype=np.int64)
        extra = sum(int(self.shard(k).may_be_target(first)[0]) for k in range(len(self.shards)) if self.num_tokens)
        return sum(manifest["num_target_tokens"] for manifest in self.manifests) - extra

    @property
    def num_bytes(self) -> int:
        """Return the number of UTF-8 bytes of the text; 0 if the manifests do not count them."""
        return self.total("num_bytes")

    def total(self, *names: str) -> int:
        """Sum a count over all manifests; `names` is the path to it."""
        tables: list = self.manifests
        for name in names[:-1]:
            tables = [manifest.get(name, {}) for manifest in tables]
        return sum(manifest.get(names[-1], 0) for manifest in tables)

    @property
    def tokens(self) -> np.ndarray:
        """Return all ids: memory-mapped if there is one shard, else copied into memory."""
        return self.shard(0).tokens if len(self.shards) == 1 else self.between(0, self.num_tokens)

    def latest(self, count: int) -> np.ndarray:
        """Return the last `count` ids."""
        return self.between(max(0, self.num_tokens - count), self.num_tokens)

    @property
    def is_target(self) -> np.ndarray | None:
        """Return bools (num_tokens,), whether each token may be a target; None if all may."""
        return self._gathered(0, self.num_tokens, Shard.is_target) if self.is_masked else None

    def between(self, start: int, stop: int) -> np.ndarray:
        """Return the ids at positions `start` to `stop` - 1."""
        return self._gathered(start, stop, lambda shard, begin, end: np.asarray(shard.tokens[begin:end]))

    def _gathered(self, start: int, stop: int, read) -> np.ndarray:
        """Concatenate `read(shard, begin, end)` over the shards that hold positions `start` to `stop` - 1."""
        parts = [np.zeros(0, dtype=self.manifest["dtype"])]
        first = max(0, int(np.searchsorted(self.firsts, start, side="right")) - 1)
        for number in range(first, len(self.shards)):
            begin = int(self.firsts[number])
            end = min(stop, begin + self.manifests[number]["num_tokens"])
            if start < end:
                parts.append(read(self.shard(number), start - begin, end - begin))
                start = end
        return np.concatenate(parts[1:] or parts)

    def count(self, block_size: int, shifted: bool = False) -> int:
        """Return the number of rows in one epoch."""
        return rows_per_epoch(self.num_tokens, block_size, shifted)

    def at(self, positions: np.ndarray, block_size: int, shifted: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (epoch, row) for each of these training positions."""
        return order.rows_at(positions, self.count(block_size, shifted), seed)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """Return True, as complete rows never have to be waited for."""
        return True

    def documents_between(self, start: int, stop: int) -> np.ndarray:
        """Return the positions in `start` to `stop` - 1 where documents begin."""
        parts = [np.zeros(0, dtype=np.int64)]
        for number, first in enumerate(self.firsts.tolist()):
            if first < stop and start < first + self.manifests[number]["num_tokens"]:
                starts = self.shard(number).starts[int(number > 0) : -1].astype(np.int64) + first
                parts.append(starts[np.searchsorted(starts, start) : np.searchsorted(starts, stop)])
        return np.concatenate(parts)

    def first_inputs(self, begin: int, end: int) -> np.ndarray:
        """Return the first input position of documents `begin` to `end` - 1, int64: the separator before, or the first id."""
        parts = [np.zeros(0, dtype=np.int64)]
        for number, first in enumerate(self._documents.tolist()):
            here = range(max(begin, first + (number > 0)), min(end, first + self.manifests[number]["num_documents"]))
            if here:
                shard = self.shard(number)
                starts = shard.starts[here.start - first : here.stop - first].astype(np.int64)
                parts.append(int(self.firsts[number]) + np.maximum(starts - shard.may_be_target(starts), 0))
        return np.concatenate(parts)

    def places(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """Return the token positions of the inputs of rows `indices`, (B, T) int64, -1 for padding; targets are one further."""
        T = block_size
        if not 0 <= offset <= T:
            raise ValueError(f"offset {offset} lies outside 0..{T}")
        indices = np.asarray(indices, dtype=np.int64)
        if offset:
            starts = offset + (indices - 1) * T
            starts, lengths = np.where(indices == 0, 0, starts), np.where(indices == 0, offset, T)
        else:
            starts, lengths = indices * T, np.full(indices.shape, T)
        slots = np.arange(T)
        places = starts[:, None] + slots  # (B, T)
        return np.where((places < self.num_tokens - 1) & (slots < lengths[:, None]), places, -1)

    def _by_shard(self, places: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (shard number, mask of the positions inside it, positions inside it); padding (-1) is left out."""
        numbers = np.where(places < 0, -1, np.searchsorted(self.firsts, places, side="right") - 1)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            here = numbers == number
            yield number, here, places[here] - self.firsts[number]

    def batch(self, indices, block_size: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return rows `indices` as (input_ids, labels), both (B, T) int64; labels are already shifted, -100 where ignored.

        `offset` (0 to block_size) shifts the cut, as described above. Padding has input id 0.
        """
        places = self.places(indices, block_size, offset)
        input_ids, labels = np.zeros_like(places), np.full_like(places, IGNORED)
        for number, here, inside in self._by_shard(places):
            shard = self.shard(number)
            input_ids[here] = shard.ids(inside)
            labels[here] = np.where(shard.may_be_target(inside + 1), shard.ids(inside + 1), IGNORED)
        return input_ids, labels

    def position_ids(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """Return the position of each input inside its document, or inside the document's part in the row, (B, T) int64.

        Padding is 0. A Transformers model confines attention to one document if it gets these positions with no attention
        mask and use_cache=False; with a cache it does not.
        """
        places = self.places(indices, block_size, offset)
        document = np.full_like(places, -1)
        for number, here, inside in self._by_shard(places):
            document[here] = self.shard(number).document_of(inside + 1) + self._documents[number]
        begins = np.ones(places.shape, dtype=bool)
        begins[:, 1:] = (document[:, 1:] != document[:, :-1]) | (places[:, 1:] != places[:, :-1] + 1)
        slots = np.arange(block_size)
        return slots - np.maximum.accumulate(np.where(begins, slots, 0), axis=1)

    def _bounds(self, index: int) -> tuple[int, int]:
        """Return the (first, end) token positions of a document."""
        number = int(np.searchsorted(self._documents, index, side="left")) - 1 if index else 0
        shard, inside = self.shard(number), index - int(self._documents[number])
        begin = int(self.firsts[number] + shard.starts[inside])
        # the last document of a shard continues in the next shard
        while inside + 1 == len(shard.starts) - 1 and number + 1 < len(self.shards):
            number, inside = number + 1, 0
            shard = self.shard(number)
        return begin, int(self.firsts[number] + shard.starts[inside + 1])

    def document(self, index: int) -> np.ndarray:
        """Return the ids of one document."""
        return self.between(*self._bounds(index))

    def targets(self, index: int) -> np.ndarray:
        """Return bools: whether each token of one document may be a target."""
        return self._gathered(*self._bounds(index), Shard.is_target)

    def opening(self, index: int, length: int = 12) -> np.ndarray:
        """Return the first `length` ids of a document; for a conversation, everything before the first target."""
        ids, learned = self.document(index), self.targets(index)
        end = length if learned[0] else int(np.argmax(learned))
        return ids[: max(1, min(end, len(ids) - 1))]

    def verify(self) -> None:
        """Compare all files with the manifests' hashes; raises RunError naming a damaged file."""
        for folder in self.shards:
            if damage := storage.find_damage(folder):
                raise RunError(f"the rows in {folder} are damaged: {damage}; make them again")


def _name(source: dict) -> str:
    files = [str(file["name"]) for file in source.get("files", ())] or ["text"]
    return str(source.get("dataset_name") or files[0] + (f" and {len(files) - 1} more" if files[1:] else ""))
