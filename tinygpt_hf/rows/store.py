"""Rows: the training data at rest, and the one way it is read.

After preparation, text is a finite list of fixed-length rows addressed by one integer. At rest it is a folder:

    tokens.bin      all token ids, end to end            uint16 if the vocabulary fits, else uint32
    documents.bin   where each document begins           uint64, one per document, and the end
    mask.bin        may this token be a target?          one bit per token; absent when every token may
    manifest.json   counts, dtype, vocabulary, hashes of source, tokenizer and options; size and sha256 of the files

Row i of T tokens is the T+1 ids from i*T on. It is fed as inputs and targets, shifted by one, so rows share one id with
their neighbour and every id but the very first is a target exactly once:

    ids      a b c d e f g h           T = 3
    row 0    a b c > b c d
    row 1          d e f > e f g
    row 2                g . . > h . .         the last row is padded; padding is never a target (-100)

An `offset` o cuts the same ids anew: first a short row of o targets, then rows of T. A fresh offset each epoch shows a small
corpus through a sliding window, and still every id but the first is a target exactly once per epoch. So that all epochs have
one length, a cut by offset always counts `rows_per_epoch(..., shifted=True)` rows, whose last may be all padding.

A document begins with the input that predicts its first id: the separator before it, which the document before has as its
last target. Where the first id is never a target (a conversation) it begins with that id itself. bestfit.py packs by these
borders, and `position_ids` restart at them: the attention of a row may stay inside its documents.

    with RowWriter(folder, vocab_size=512) as writer:
        writer.add([5, 6, 7, 0])
    rows = Rows(folder)
    input_ids, labels = rows.batch([0, 2], block_size=128)                     # two arrays (B, T) int64
    position_ids = rows.position_ids([0, 2], block_size=128)                   # (B, T), 0 where a document begins
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.rows import order

FORMAT = 1
PART = 1 << 20  # of the documents, looked at together
IGNORED = -100  # the label PyTorch's cross entropy leaves out


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 when every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def rows_per_epoch(num_tokens: int, block_size: int, shifted: bool = False) -> int:
    """How many rows of `block_size` show every target once: ceil((N - 1) / T), one more when cut at an offset."""
    if num_tokens < 2:
        return 0
    return -(-(num_tokens - 1) // block_size) + (1 if shifted else 0)


def _rises(numbers: np.ndarray) -> bool:
    """Is each number larger than the one before? A part at a time: there may be billions."""
    parts = (numbers[k : k + PART + 1] for k in range(0, len(numbers), PART))
    return all(bool(np.all(part[1:] > part[:-1])) for part in parts)


class RowWriter:
    """Write documents of token ids, in order, into a new row folder that appears complete or not at all.

    Memory stays bounded by one document. `facts` (hashes of the source, the tokenizer, the options...) go into the manifest
    as they are; add to it until the `with` block ends.
    """

    def __init__(self, folder: Path, vocab_size: int, facts: dict | None = None):
        self.folder = Path(folder)
        self.vocab_size = vocab_size
        self.facts = facts if facts is not None else {}
        self.num_tokens = 0
        self.num_documents = 0
        self._dtype = token_dtype(vocab_size)
        self.num_masked = 0
        self._pending_mask = np.zeros(0, dtype=bool)  # fewer than 8 bits, waiting for a full byte

    def __enter__(self) -> "RowWriter":
        self._transaction: contextlib.AbstractContextManager = storage.new_folder(self.folder)
        self._tmp = self._transaction.__enter__()
        self._tokens = open(self._tmp / "tokens.bin", "wb")
        self._starts = open(self._tmp / "documents.bin", "wb")
        self._mask = open(self._tmp / "mask.bin", "wb")
        return self

    def add(
        self, ids: Sequence[int] | np.ndarray, mask: Sequence[int] | np.ndarray | None = None, begins: bool = True
    ) -> None:
        """Append one document. `mask[k]` says whether ids[k] may be a target; None means all may. Not `begins`: it goes on."""
        ids = np.asarray(ids)
        if ids.size == 0:
            return
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise RunError(f"token id {ids.max()} lies outside the vocabulary of {self.vocab_size}")
        bits = np.ones(len(ids), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if len(bits) != len(ids):
            raise ValueError(f"{len(ids)} ids but {len(bits)} mask bits")
        if begins:
            self._starts.write(np.uint64(self.num_tokens).tobytes())
            self.num_documents += 1
        storage.system.write(self._tokens, ids.astype(self._dtype).tobytes())
        self.num_masked += int(len(bits) - bits.sum())
        bits = np.concatenate([self._pending_mask, bits])
        whole = len(bits) // 8 * 8
        self._mask.write(np.packbits(bits[:whole]).tobytes())
        self._pending_mask = bits[whole:]
        self.num_tokens += len(ids)

    def __exit__(self, kind, error, trace) -> None:
        files = (self._tokens, self._starts, self._mask)
        if kind is not None:
            for file in files:
                with contextlib.suppress(OSError):  # there may be no room for what it still holds
                    file.close()
            self._transaction.__exit__(kind, error, trace)
            return
        try:
            self._starts.write(np.uint64(self.num_tokens).tobytes())
            self._mask.write(np.packbits(self._pending_mask).tobytes())
            for file in files:
                file.close()
            if self.num_masked == 0:
                os.unlink(self._tmp / "mask.bin")
            storage.write_manifest(
                self._tmp,
                {
                    "format": FORMAT,
                    "dtype": self._dtype.name,
                    "vocab_size": self.vocab_size,
                    "num_tokens": self.num_tokens,
                    "num_documents": self.num_documents,
                    "num_target_tokens": self.num_tokens - self.num_masked,
                    **self.facts,
                },
            )
        except BaseException as failure:
            self.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._transaction.__exit__(None, None, None)


class Rows:
    """A row folder, memory-mapped: opening is instant whatever its size, and a batch is one gather.

    The files are checked for their sizes on opening; `verify()` reads everything and checks the hashes.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        if not (self.folder / storage.MANIFEST).is_file():
            raise UsageError(
                f"{folder} holds no {storage.MANIFEST}", "a folder of rows", "make it with `tinygpt train`"
            )
        self.manifest = storage.read_json(self.folder / storage.MANIFEST)
        known = self.manifest.get("format") if isinstance(self.manifest, dict) else None
        if known != FORMAT:
            raise UsageError(f"{folder} has row format {known}", f"format {FORMAT}", "make the rows again")
        for name, size in self._sizes().items():
            path = self.folder / name
            found = path.stat().st_size if path.is_file() else 0
            if found != size:
                raise RunError(f"{path} has {found} bytes instead of {size}: the rows are damaged; make them anew")
        self.num_tokens: int = self.manifest["num_tokens"]
        self.tokens = self._map("tokens.bin", np.dtype(self.manifest["dtype"]))
        self.starts = self._map("documents.bin", np.dtype(np.uint64))  # (documents + 1,)
        self.mask = self._map("mask.bin", np.dtype(np.uint8)) if "mask.bin" in self.manifest["files"] else None

        ends = int(self.starts[0]), int(self.starts[-1])
        if ends != (0, self.num_tokens) or not _rises(self.starts):
            raise RunError(f"{self.folder / 'documents.bin'} is out of order: the rows are damaged; make them anew")

    def _sizes(self) -> dict[str, int]:
        """The size each file must have for what the manifest counts. The counts are checked, so that nobody allocates by them."""
        kinds = {"num_tokens": int, "num_documents": int, "num_target_tokens": int, "vocab_size": int, "files": dict}
        for name, kind in kinds.items():
            if type(self.manifest.get(name)) is not kind or (kind is int and not 0 <= self.manifest[name] < 2**48):
                raise RunError(
                    f"{self.folder / storage.MANIFEST} is damaged: it has no sound {name}; make the rows again"
                )
        if self.manifest.get("dtype") != token_dtype(self.manifest["vocab_size"]).name:
            raise RunError(f"{self.folder / storage.MANIFEST} is damaged: the dtype does not fit; make the rows again")
        tokens = self.manifest["num_tokens"]
        sizes = {
            "tokens.bin": tokens * np.dtype(self.manifest["dtype"]).itemsize,
            "documents.bin": (self.manifest["num_documents"] + 1) * 8,
        }
        return sizes | ({"mask.bin": -(-tokens // 8)} if "mask.bin" in self.manifest["files"] else {})

    def _map(self, name: str, dtype: np.dtype) -> np.ndarray:
        path = self.folder / name
        if path.stat().st_size == 0:
            return np.zeros(0, dtype=dtype)  # an empty file cannot be mapped
        return np.memmap(path, dtype=dtype, mode="r")

    @property
    def num_documents(self) -> int:
        return self.manifest["num_documents"]

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted in one epoch."""
        first_counts = self.num_tokens > 0 and bool(self._may_be_target(np.zeros(1, dtype=np.int64))[0])
        return self.manifest["num_target_tokens"] - int(first_counts)

    @property
    def is_target(self) -> np.ndarray | None:
        """(num_tokens,) bools: may the token be a target? None where every token may."""
        return None if self.mask is None else np.unpackbits(self.mask, count=self.num_tokens).view(bool)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text behind the targets; 0 where nobody counted."""
        return self.manifest.get("num_bytes", 0)

    def count(self, block_size: int, shifted: bool = False) -> int:
        """How many rows one epoch has."""
        return rows_per_epoch(self.num_tokens, block_size, shifted)

    def at(self, first: int, count: int, block_size: int, shifted: bool, seed: int) -> list[tuple[int, np.ndarray]]:
        """The rows at positions [first, first + count) of training, as (epoch, row indices) pieces in order."""
        return order.rows_at(first, count, self.count(block_size, shifted), seed)

    def covers(self, first: int, count: int, shown: int | None = None) -> bool:
        """Are the rows at these positions there, and do they stay while the row at position `shown` is shown? Of a text that is
        still being read they may not be."""
        return True

    def _may_be_target(self, positions: np.ndarray) -> np.ndarray:
        if self.mask is None:
            return np.ones(positions.shape, dtype=bool)
        return (self.mask[positions >> 3] >> (7 - (positions & 7)).astype(np.uint8) & 1).astype(bool)

    def first_inputs(self, begin: int, end: int) -> np.ndarray:
        """Where the documents `begin` to `end` - 1 begin as inputs (int64): at the separator before, or at their own first id."""
        first = self.starts[begin:end].astype(np.int64)
        return np.maximum(first - self._may_be_target(first), 0)

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

    def batch(self, indices, block_size: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The rows `indices` as (input_ids, labels), both (B, T) int64; labels are already shifted, -100 where no target.

        `offset` (0 to block_size) cuts the ids anew, see above. Padding is id 0 on the input side.
        """
        places = self.places(indices, block_size, offset)
        inside = places >= 0
        places = np.where(inside, places, 0)
        behind = places + inside  # padding points at the first id
        input_ids = np.where(inside, self.tokens[places].astype(np.int64), 0)
        targets = self.tokens[behind].astype(np.int64)
        if targets.size and max(input_ids.max(), targets.max()) >= self.manifest["vocab_size"]:
            raise RunError(
                f"{self.folder / 'tokens.bin'} holds ids outside its vocabulary: the rows are damaged; make them anew"
            )
        return input_ids, np.where(inside & self._may_be_target(behind), targets, IGNORED)

    def position_ids(self, indices, block_size: int, offset: int = 0) -> np.ndarray:
        """(B, T) int64: how far each input of the rows lies behind the beginning of its document, or of the row's part of it.

        Padding is 0 throughout. Given to a model of Transformers without an attention mask and with use_cache=False, restarting
        positions confine attention to the document; with a cache they do not.
        """
        places = self.places(indices, block_size, offset)
        behind = (places + 1).astype(np.uint64)  # of the type of `starts`, which would be copied as a whole otherwise
        document = np.searchsorted(self.starts, behind, side="right") - 1
        first = self.starts[document] == behind  # predicts the first id of a document, or is padding
        document -= first & ~self._may_be_target(behind.astype(np.int64))  # unlearnt: still the document before
        begins = np.ones(places.shape, dtype=bool)
        begins[:, 1:] = (document[:, 1:] != document[:, :-1]) | (places[:, 1:] != places[:, :-1] + 1)
        slots = np.arange(block_size)
        return slots - np.maximum.accumulate(np.where(begins, slots, 0), axis=1)

    def document(self, index: int) -> np.ndarray:
        """The ids of one document."""
        return np.asarray(self.tokens[int(self.starts[index]) : int(self.starts[index + 1])])

    def targets(self, index: int) -> np.ndarray:
        """Which tokens of one document may be targets, as bools."""
        return self._may_be_target(np.arange(int(self.starts[index]), int(self.starts[index + 1])))

    def opening(self, index: int, length: int = 12) -> np.ndarray:
        """How a document begins: its first `length` ids; of a conversation, everything before the assistant's first word."""
        ids, learnt = self.document(index), self.targets(index)
        end = length if learnt[0] else int(np.argmax(learnt))
        return ids[: max(1, min(end, len(ids) - 1))]

    def verify(self) -> None:
        """Read everything and compare with the manifest's hashes; `RunError` names the damaged file."""
        damage = storage.damage(self.folder)
        if damage:
            raise RunError(f"the rows in {self.folder} are damaged: {damage}; make them anew")
