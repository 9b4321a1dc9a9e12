"""Rows that are being made, so that a killed process goes on: what is on the disk for sure, and how much of the text that was.

    journal.json    what decides the rows, the documents done, and the sizes and counters of both parts at that moment

The files may hold more than the journal says, written in the seconds before the kill; they are cut back to what it says. The
documents done are read again, which is quick, but not encoded.
"""

import contextlib
import os
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError
from tinygpt_hf.rows.store import RowWriter

JOURNAL = "journal.json"
FORMAT = 2  # to be raised when the same text comes to other rows
COUNTERS = ("num_tokens", "num_documents", "num_masked")


class ResumableWriter(RowWriter):
    """A RowWriter in a folder that was left behind, or in a new one. `state` is what `mark` returned when it was saved."""

    def __init__(self, folder: Path, vocab_size: int, facts: dict, state: dict | None = None):
        super().__init__(folder, vocab_size, facts)
        self.state = state

    def __enter__(self) -> "ResumableWriter":
        self._transaction = contextlib.nullcontext()  # the folder around it is one
        self._tmp = self.folder
        self.folder.mkdir(exist_ok=True)
        files, state = {}, self.state
        for name in ("tokens", "documents", "mask"):
            path = self.folder / f"{name}.bin"
            if state:
                os.truncate(path, state["sizes"][name])
            files[name] = open(path, "ab" if state else "wb")
        self._tokens, self._starts, self._mask = files["tokens"], files["documents"], files["mask"]
        if state:
            for name in COUNTERS:
                setattr(self, name, state[name])
            self.facts |= state["facts"]
            self._pending_mask = np.array(state["pending_mask"], dtype=bool)
        return self

    def mark(self) -> dict:
        """Bring everything to the disk; returns, as JSON, where that is."""
        files = {"tokens": self._tokens, "documents": self._starts, "mask": self._mask}
        for file in files.values():
            file.flush()
            storage.system.fsync(file.fileno())
        return {
            "sizes": {name: file.tell() for name, file in files.items()},
            **{name: getattr(self, name) for name in COUNTERS},
            "facts": self.facts,
            "pending_mask": self._pending_mask.tolist(),
        }


def write_journal(folder: Path, decided_by: dict, items: int, writers: dict[str, ResumableWriter]) -> None:
    """Note that the first `items` documents are done."""
    state = {part: writer.mark() for part, writer in writers.items()}
    storage.write_json(folder / JOURNAL, {"decided_by": decided_by, "items": items, "writers": state})


def read_journal(folder: Path, decided_by: dict) -> dict | None:
    """What was written for the same rows; for others, or where it is damaged, None, and the folder is emptied."""
    try:
        found = storage.read_json(folder / JOURNAL)
        sizes = {
            (part, name): size for part in found["writers"] for name, size in found["writers"][part]["sizes"].items()
        }
        if found["decided_by"] == decided_by and all(
            (folder / part / f"{name}.bin").stat().st_size >= size for (part, name), size in sizes.items()
        ):
            return found
    except (OSError, RunError, LookupError, TypeError, AttributeError):
        pass
    for path in folder.iterdir():
        storage.remove_tree(path) if path.is_dir() else storage.system.remove(path)
    return None
