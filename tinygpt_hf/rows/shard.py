"""Write and read one shard of rows. store.py describes its files and reads several shards as one."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError

FORMAT = 1
PART = 1 << 20  # document starts checked at once
IGNORED = -100  # the label that PyTorch's cross entropy ignores


def token_dtype(vocab_size: int) -> np.dtype:
    """Return uint16 if every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def _rises(numbers: np.ndarray) -> bool:
    """Check that the numbers strictly increase, a part at a time because there may be billions."""
    parts = (numbers[k : k + PART + 1] for k in range(0, len(numbers), PART))
    return all(bool(np.all(part[1:] > part[:-1])) for part in parts)


class RowWriter:
    """A context manager that writes documents of token ids into a new folder, which appears complete or not at all.

    Memory is bounded by one document. `facts` (hashes of source and tokenizer, options) are copied into the manifest when
    the `with` block ends.
    """

    def __init__(self, folder: Path, vocab_size: int, facts: dict | None = None):
        self.folder = Path(folder)
        self.vocab_size = vocab_size
        self.facts = facts if facts is not None else {}
        self.num_tokens = 0
        self.num_documents = 0
        self._dtype = token_dtype(vocab_size)
        self.num_masked = 0
        self._pending_mask = np.zeros(0, dtype=bool)  # fewer than 8 bits, not yet written

    def __enter__(self) -> "RowWriter":
        self._transaction = self._writing()
        return self._transaction.__enter__()

    def __exit__(self, *error) -> None:
        self._transaction.__exit__(*error)

    @contextlib.contextmanager
    def _writing(self) -> Iterator["RowWriter"]:
        with (
            storage.new_folder(self.folder) as folder,
            open(folder / "tokens.bin", "wb") as self._tokens,
            open(folder / "documents.bin", "wb") as self._starts,
            open(folder / "mask.bin", "wb") as self._mask,
        ):
            yield self
            self._starts.write(np.uint64(self.num_tokens).tobytes())
            self._mask.write(np.packbits(self._pending_mask).tobytes())
            for file in (self._tokens, self._starts, self._mask):
                file.close()
            if self.num_masked == 0:
                os.unlink(folder / "mask.bin")
            storage.write_manifest(folder, self.manifest)

    def add(
        self, ids: Sequence[int] | np.ndarray, mask: Sequence[int] | np.ndarray | None = None, begins: bool = True
    ) -> None:
        """Append a document, or with `begins` False the rest of the last one.

        `mask[k]` tells whether ids[k] may be a target; None means that all may. Raises RunError for an id outside the vocabulary.
        """
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

    @property
    def manifest(self) -> dict:
        """Return the manifest of what was added so far, without hashes."""
        return {
            "format": FORMAT,
            "dtype": self._dtype.name,
            "vocab_size": self.vocab_size,
            "num_tokens": self.num_tokens,
            "num_documents": self.num_documents,
            "num_target_tokens": self.num_tokens - self.num_masked,
            **self.facts,
        }


class Shard:
    """A memory-mapped folder of rows. Opening it checks the manifest, file sizes and document order, but no hashes."""

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
            actual = path.stat().st_size if path.is_file() else 0
            if actual != size:
                raise RunError(f"{path} has {actual} bytes instead of {size}: the rows are damaged; make them again")
        self.num_tokens: int = self.manifest["num_tokens"]
        self.tokens = self._map("tokens.bin", np.dtype(self.manifest["dtype"]))
        self.starts = self._map("documents.bin", np.dtype(np.uint64))  # (documents + 1,)
        self.mask = self._map("mask.bin", np.dtype(np.uint8)) if "mask.bin" in self.manifest["files"] else None

        ends = int(self.starts[0]), int(self.starts[-1])
        if ends != (0, self.num_tokens) or not _rises(self.starts):
            raise RunError(f"{self.folder / 'documents.bin'} is out of order: the rows are damaged; make them again")

    def _sizes(self) -> dict[str, int]:
        """Return the expected size of each file in bytes; raises RunError if the manifest's counts are invalid."""
        kinds = {"num_tokens": int, "num_documents": int, "num_target_tokens": int, "vocab_size": int, "files": dict}
        for name, kind in kinds.items():
            if type(self.manifest.get(name)) is not kind or (kind is int and not 0 <= self.manifest[name] < 2**48):
                raise RunError(
                    f"{self.folder / storage.MANIFEST} is damaged: its {name} is invalid; make the rows again"
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

    def ids(self, places: np.ndarray) -> np.ndarray:
        """Return the ids at these positions, as int64."""
        ids = self.tokens[places].astype(np.int64)
        if ids.size and ids.max() >= self.manifest["vocab_size"]:
            raise RunError(
                f"{self.folder / 'tokens.bin'} holds ids outside its vocabulary: the rows are damaged; make them again"
            )
        return ids

    def may_be_target(self, places: np.ndarray) -> np.ndarray:
        """Return bools: whether the ids at these positions may be targets."""
        if self.mask is None:
            return np.ones(places.shape, dtype=bool)
        return (self.mask[places >> 3] >> (7 - (places & 7)).astype(np.uint8) & 1).astype(bool)

    def is_target(self, begin: int, end: int) -> np.ndarray:
        """Return bools: whether the ids at positions `begin` to `end` - 1 may be targets."""
        if self.mask is None:
            return np.ones(end - begin, dtype=bool)
        return np.unpackbits(self.mask[begin >> 3 : (end + 7) >> 3])[begin & 7 :][: end - begin].view(bool)

    def document_of(self, places: np.ndarray) -> np.ndarray:
        """Return the document of the targets at these positions.

        A first id that may not be a target counts to the document before, since no input of its own document predicts it.
        """
        positions = places.astype(np.uint64)  # the dtype of `starts`; else searchsorted would copy all of it
        document = np.searchsorted(self.starts, positions, side="right") - 1
        return document - ((self.starts[document] == positions) & ~self.may_be_target(places))
