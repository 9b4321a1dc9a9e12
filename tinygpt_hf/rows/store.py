"""Rows: the training data at rest.

After preparation, text is a finite list of fixed-length rows addressed by one integer. At rest it is shards, one after another:

    shard-000000/       as many ids as a shard holds (build.py, stream.py)
        tokens.bin      token ids, end to end                uint16 if the vocabulary fits, else uint32
        documents.bin   where each document begins           uint64, one per document, and the end
        mask.bin        may this token be a target?          one bit per token; absent when every token may
        manifest.json   counts, dtype, vocabulary, hashes of source, tokenizer and options; size and sha256 of the files
    shard-000001/       its first id is the last of the shard before, so that every id is a target inside one shard; that id, and
                        what of its document follows, are the shard's first document

A shard is final once it has its name, so it is its own journal (writer.py). Rows of before there were shards are one such
folder with nothing around it.

Row i of T tokens is the T+1 ids from i*T on. It is fed as inputs and targets, shifted by one, so rows share one id with
their neighbor and every id but the very first is a target exactly once:

    ids      a b c d e f g h           T = 3
    row 0    a b c > b c d
    row 1          d e f > e f g
    row 2                g . . > h . .         the last row is padded; padding is never a target (-100)

An `offset` o cuts the same ids again: first a short row of o targets, then rows of T. A fresh offset each epoch shows a small
corpus through a sliding window, and still every id but the first is a target exactly once per epoch. So that all epochs have
one length, a cut by offset always counts `rows_per_epoch(..., shifted=True)` rows, whose last may be all padding.

A document begins with the input that predicts its first id: the separator before it, which the document before has as its
last target. Where the first id is never a target (a conversation) it begins with that id itself. bestfit.py packs by these
borders, and `position_ids` restart at them: the attention of a row may stay inside its documents.

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

OPEN = 64  # shards held open


def rows_per_epoch(num_tokens: int, block_size: int, shifted: bool = False) -> int:
    """How many rows of `block_size` show every target once: ceil((N - 1) / T), one more when cut at an offset."""
    if num_tokens < 2:
        return 0
    return -(-(num_tokens - 1) // block_size) + (1 if shifted else 0)


def shard_folders(folder: Path) -> list[Path]:
    """Where the shards of rows lie, in order; `window` is what a shard of streamed rows was called."""
    if (folder / storage.MANIFEST).is_file():
        return [folder]
    return sorted(folder.glob("shard-*")) or sorted(folder.glob("window-*"))


class Rows:
    """Rows that are there as a whole: one shard after another, read as one list of ids. A batch is a gather.

    `verify()` reads everything and checks the hashes.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.shards = shard_folders(self.folder) or [self.folder]  # which says what is missing
        self._open: dict[int, Shard] = {}
        self.manifests = [self.shard(number).manifest for number in range(len(self.shards))]
        self.manifest: dict = self.manifests[0]  # the first stands for all where it says what decided the rows
        tokens = np.array([manifest["num_tokens"] for manifest in self.manifests])
        documents = np.array([manifest["num_documents"] for manifest in self.manifests])
        self.firsts = np.cumsum(np.append(0, tokens[:-1] - 1))  # where each shard begins in the list of ids
        self._documents = np.cumsum(np.append(0, documents[:-1] - 1))  # the number of each one's first document
        self.num_tokens = int(self.firsts[-1] + tokens[-1])
        self.num_documents = int(self._documents[-1] + documents[-1])

    @property
    def sources(self) -> list[tuple[int, str]]:
        """(number of the first document, name) of each source of a mixture that was read one after the other, shard by shard."""
        names = [_name(source) for source in self.manifest.get("sources", ())]
        return sorted(
            (int(first) + number, names[int(source)])
            for first, manifest in zip(self._documents, self.manifests, strict=True)
            for source, number in manifest.get("first_documents", {}).items()
        )

    def shard(self, number: int) -> Shard:
        """A shard, which stays open for a while."""
        found = self._open.pop(number, None) or Shard(self.shards[number])
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open)))
        self._open[number] = found
        return found

    @property
    def files(self):
        """The hashes of all files, as JSON: what the rows are."""
        found = [manifest["files"] for manifest in self.manifests]
        return found[0] if len(found) == 1 else found

    @property
    def is_masked(self) -> bool:
        """Are there tokens that may not be learned? Only conversations have them."""
        return any("mask.bin" in manifest["files"] for manifest in self.manifests)

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted in one epoch."""
        # the first id of a shard is no target there: the text's first has no input, any other is the last of the shard before
        firsts = np.zeros(1, dtype=np.int64)
        again = sum(int(self.shard(k).may_be_target(firsts)[0]) for k in range(len(self.shards)) if self.num_tokens)
        return sum(manifest["num_target_tokens"] for manifest in self.manifests) - again

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text behind the targets; 0 where nobody counted."""
        return self.total("num_bytes")

    def total(self, *names: str) -> int:
        """What the manifests count under a name, added up."""
        found: list = self.manifests
        for name in names[:-1]:
            found = [manifest.get(name, {}) for manifest in found]
        return sum(manifest.get(names[-1], 0) for manifest in found)

    @property
    def tokens(self) -> np.ndarray:
        """All ids: mapped where there is one shard, else in memory."""
        return self.shard(0).tokens if len(self.shards) == 1 else self.between(0, self.num_tokens)

    def latest(self, count: int) -> np.ndarray:
        """The last `count` ids."""
        return self.between(max(0, self.num_tokens - count), self.num_tokens)

    @property
    def is_target(self) -> np.ndarray | None:
        """(num_tokens,) bools: may the token be a target? None where every token may."""
        return self._gathered(0, self.num_tokens, Shard.is_target) if self.is_masked else None

    def between(self, start: int, stop: int) -> np.ndarray:
        """The ids at places `start` to `stop` - 1."""
        return self._gathered(start, stop, lambda shard, begin, end: np.asarray(shard.tokens[begin:end]))

    def _gathered(self, start: int, stop: int, of) -> np.ndarray:
        parts = [np.zeros(0, dtype=self.manifest["dtype"])]
        first = max(0, int(np.searchsorted(self.firsts, start, side="right")) - 1)
        for number in range(first, len(self.shards)):
            begin = int(self.firsts[number])
            end = min(stop, begin + self.manifests[number]["num_tokens"])
            if start < end:
                parts.append(of(self.shard(number), start - begin, end - begin))
                start = end
        return np.concatenate(parts[1:] or parts)

    def count(self, block_size: int, shifted: bool = False) -> int:
        """How many rows one epoch has."""
        return rows_per_epoch(self.num_tokens, block_size, shifted)

    def at(self, positions: np.ndarray, block_size: int, shifted: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, row) at each of these positions of training."""
        return order.rows_at(positions, self.count(block_size, shifted), seed)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """As RowView.covers: all is there."""
        return True

    def documents_between(self, start: int, stop: int) -> np.ndarray:
        """Where documents begin at places `start` to `stop` - 1."""
        found = [np.zeros(0, dtype=np.int64)]
        for number, first in enumerate(self.firsts.tolist()):
            if first < stop and start < first + self.manifests[number]["num_tokens"]:
                starts = self.shard(number).starts[int(number > 0) : -1].astype(np.int64) + first
                found.append(starts[np.searchsorted(starts, start) : np.searchsorted(starts, stop)])
        return np.concatenate(found)

    def first_inputs(self, begin: int, end: int) -> np.ndarray:
        """Where the documents `begin` to `end` - 1 begin as inputs (int64): at the separator before, or at their own first id."""
        parts = [np.zeros(0, dtype=np.int64)]
        for number, first in enumerate(self._documents.tolist()):
            here = range(max(begin, first + (number > 0)), min(end, first + self.manifests[number]["num_documents"]))
            if here:
                shard = self.shard(number)
                starts = shard.starts[here.start - first : here.stop - first].astype(np.int64)
                parts.append(int(self.firsts[number]) + np.maximum(starts - shard.may_be_target(starts), 0))
        return np.concatenate(parts)

    def places(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """Where the inputs of the rows `indices` lie in the ids, (B, T) int64; -1 for padding. The target is the id behind."""
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
        """(shard, which of these places lie in it, and where in it), padding left out."""
        numbers = np.where(places < 0, -1, np.searchsorted(self.firsts, places, side="right") - 1)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            here = numbers == number
            yield number, here, places[here] - self.firsts[number]

    def batch(self, indices, block_size: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The rows `indices` as (input_ids, labels), both (B, T) int64; labels are already shifted, -100 where no target.

        `offset` (0 to block_size) cuts the ids again, see above. Padding is id 0 on the input side.
        """
        places = self.places(indices, block_size, offset)
        input_ids, labels = np.zeros_like(places), np.full_like(places, IGNORED)
        for number, here, inside in self._by_shard(places):
            shard = self.shard(number)
            input_ids[here] = shard.ids(inside)
            labels[here] = np.where(shard.may_be_target(inside + 1), shard.ids(inside + 1), IGNORED)
        return input_ids, labels

    def position_ids(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """(B, T) int64: how far each input of the rows lies behind the beginning of its document, or of the row's part of it.

        Padding is 0 throughout. Given to a model of Transformers without an attention mask and with use_cache=False, restarting
        positions confine attention to the document; with a cache they do not.
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
        """Where a document begins and ends."""
        number = int(np.searchsorted(self._documents, index, side="left")) - 1 if index else 0
        shard, inside = self.shard(number), index - int(self._documents[number])
        begin = int(self.firsts[number] + shard.starts[inside])
        # the last document of a shard goes on in the shard that follows
        while inside + 1 == len(shard.starts) - 1 and number + 1 < len(self.shards):
            number, inside = number + 1, 0
            shard = self.shard(number)
        return begin, int(self.firsts[number] + shard.starts[inside + 1])

    def document(self, index: int) -> np.ndarray:
        """The ids of one document."""
        return self.between(*self._bounds(index))

    def targets(self, index: int) -> np.ndarray:
        """Which tokens of one document may be targets, as bools."""
        return self._gathered(*self._bounds(index), Shard.is_target)

    def opening(self, index: int, length: int = 12) -> np.ndarray:
        """How a document begins: its first `length` ids; of a conversation, everything before the assistant's first word."""
        ids, learned = self.document(index), self.targets(index)
        end = length if learned[0] else int(np.argmax(learned))
        return ids[: max(1, min(end, len(ids) - 1))]

    def verify(self) -> None:
        """Read everything and compare with the manifests' hashes; `RunError` names the damaged file."""
        for folder in self.shards:
            if damage := storage.damage(folder):
                raise RunError(f"the rows in {folder} are damaged: {damage}; make them again")


def _name(source: dict) -> str:
    """What a source of the manifest is called."""
    files = [str(file["name"]) for file in source.get("files", ())] or ["text"]
    return str(source.get("dataset_name") or files[0] + (f" and {len(files) - 1} more" if files[1:] else ""))
