"""Write shards one after another, each with the resume point of the text after it.

    train/shard-000000/      the first ids (store.py describes the files)
    train/shard-000001/      the next; its first id is the last of the one before
    train/end.json           the number of shards and rows, once a streamed text has ended
    validation/shard-000000/ the documents held out while the training shard of that number was filled

A shard is complete or absent, so writing resumes after the last complete one. Streamed shards can be deleted to save space:
the manifest stays, and the shard can be built again. Text, tokenizer and sizes determine a shard to the byte.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError
from tinygpt_hf.rows.bestfit import packed
from tinygpt_hf.rows.store import RowWriter, Shard, rows_per_epoch
from tinygpt_hf.tokenizing.encode import Encoded

END = "end.json"


def shard_folder(train: Path, number: int) -> Path:
    """Return the folder of a shard; older versions named streamed shards `window-*`."""
    name = "window" if (train / "window-000000").is_dir() else "shard"
    return train / f"{name}-{number:06d}"


def shard_manifest(train: Path, number: int) -> dict | None:
    """Return a shard's manifest, which outlives the shard's deletion; None if it is missing or damaged."""
    return _valid_json(shard_folder(train, number) / storage.MANIFEST)


def read_end(train: Path) -> dict | None:
    """Return {"windows": shards, "rows": rows} once the text has ended, else None."""
    return _valid_json(train / END)


def write_end(train: Path, number: int, rows: int) -> None:
    """Record that the text has `number` shards and `rows` rows; raises RunError if other numbers were recorded."""
    end, known = {"windows": number, "rows": rows}, read_end(train)
    if known is not None and known != end:
        raise RunError(f"the text has {rows} rows now, it had {known['rows']}; restore it, or begin again")
    storage.write_json(train / END, {**end, storage.OWN_HASH: storage.value_hash(end)})


def _valid_json(path: Path) -> dict | None:
    try:
        content = storage.read_json(path)
    except (OSError, RunError):
        return None
    valid = isinstance(content, dict) and content.pop(storage.OWN_HASH, None) == storage.value_hash(content)
    return content if valid else None


def delete_shard(train: Path, number: int) -> None:
    """Delete the files of a shard but its manifest."""
    folder = shard_folder(train, number)
    for name in (shard_manifest(train, number) or {}).get("files", {}):
        if (folder / name).is_file():
            storage.system.remove(folder / name)


class ShardWriter:
    """A writer of shards of `capacity` ids, starting with shard `number`.

    A shard is published only when it is known whether more text follows. `packed` is the row length if whole documents will
    be packed. Then shards end with a document, except one that is longer than a row and longer than a quarter of a shard.
    """

    def __init__(
        self, folder: Path, number: int, capacity: int, facts: dict, vocab_size: int, packed: int | None = None
    ):
        self.folder, self.number = folder, number
        self._capacity, self._facts, self._vocab_size, self._packed = capacity, facts, vocab_size, packed
        self._writer: RowWriter | None = None
        self._last: tuple[int, bool] | None = None  # the last id added, and whether it may be a target
        self._next: dict = {}  # the resume point of that id
        self._inputs: list[int] = []  # first input positions of a packed shard's documents
        self._streamed = "window_rows" in facts
        # a streamed shard may have been deleted, so its resume point includes its last id
        if number and not self._streamed and (earlier := sorted(folder.glob("shard-*"))):
            shard = Shard(earlier[-1])
            place = np.array([shard.num_tokens - 1])
            self._last = int(shard.ids(place)[0]), bool(shard.may_be_target(place)[0])

    def add(self, document: dict, encoded: Encoded, place: dict) -> Iterator[dict]:
        """Add a document or a piece of one, without its first `place["skip"]` ids, which earlier shards hold.

        `place` is its resume point. Yields whenever the shard is full: the caller must `publish` it with the resume point
        that is yielded.
        """
        ids, start = encoded.ids, place["skip"]
        mask = np.ones(len(ids), dtype=bool) if encoded.mask is None else encoded.mask
        begins = document.get("begins", True)
        fits_whole = self._packed and begins and document.get("ends", True)
        fits_whole = fits_whole and len(ids) <= max(self._packed or 0, self._capacity // 4)
        while start < len(ids):
            held = self._writer.num_tokens if self._writer else 0
            room = self._capacity - held
            if room == 0 or (fits_whole and start == 0 and room < len(ids) < self._capacity and held > 1):
                yield self._next if self._streamed else {**place, "skip": start}
                continue
            writer = self._writer or self._begin()
            if start == 0:
                self._count(document, encoded, writer, begins)
            end = min(len(ids), start + self._capacity - writer.num_tokens)
            writer.add(ids[start:end], mask[start:end], begins=(begins and start == 0) or not writer.num_tokens)
            self._last, self._next = (int(ids[end - 1]), bool(mask[end - 1])), {**place, "skip": end - 1}
            start = end

    def _count(self, document: dict, encoded: Encoded, writer: RowWriter, begins: bool) -> None:
        """Add the bytes and counts of a document, or a piece of one, to the manifest."""
        facts = writer.facts
        facts["num_bytes"] = facts.get("num_bytes", 0) + encoded.num_bytes
        if "messages" in document:
            counts = facts.setdefault("conversations", {"count": 0, "cut": 0, "turns_cut": 0, "too_long": 0})
            counts["count"] += 1
            counts["cut"] += encoded.turns_cut > 0
            counts["turns_cut"] += encoded.turns_cut
            counts["too_long"] += encoded.too_long
        if document.get("replaced"):
            facts["replaced"] = facts.get("replaced", 0) + document["replaced"]
        if begins and "of_source" in document:
            firsts = facts.setdefault("first_documents", {})  # by source, for the report
            firsts.setdefault(str(document["of_source"]), writer.num_documents)
        if self._packed and begins:
            learned = encoded.mask is None or bool(encoded.mask[0])
            self._inputs.append(max(0, writer.num_tokens - learned))

    @property
    def manifests(self) -> list[dict]:
        """Return the manifest of the unfinished shard, as a list; empty if nothing was added since the last shard."""
        return [self._writer.manifest] if self._writer else []

    def _begin(self) -> RowWriter:
        """Open a new shard, whose first id is the last id of the shard before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / f"{storage.TEMPORARY}again-{self.number:06d}"  # checked before it is renamed
        if folder.is_dir():
            storage.remove_tree(folder)
        named = {"window": self.number} if self._streamed else {}
        self._writer, self._inputs = RowWriter(folder, self._vocab_size, {**self._facts, **named}), []
        self._writer.__enter__()
        if self._last is not None:
            last, learned = self._last
            self._writer.add([last], [learned])
        return self._writer

    def publish(self, following: dict | None) -> int:
        """Give the shard its final name and return its number; `following` is the resume point after it, None at the end.

        Raises RunError if an earlier manifest of this shard lists other bytes.
        """
        writer, self._writer = self._writer or self._begin(), None
        writer.facts["next"] = following
        rows = self._rows_of(writer)
        writer.__exit__(None, None, None)
        folder, known = shard_folder(self.folder, self.number), shard_manifest(self.folder, self.number)
        files = storage.read_json(writer.folder / storage.MANIFEST)["files"]
        end = read_end(self.folder)
        is_last = following is None
        changed = known is not None and (known["files"], known["next"] is None) != (files, is_last)
        if changed or (end is not None and (self.number + 1 == end["windows"]) != is_last):
            storage.remove_tree(writer.folder)
            raise RunError(
                f"the text has changed since window {self.number} of its rows was made; restore it, or begin again"
            )
        if is_last and rows is not None:
            write_end(self.folder, self.number + 1, rows)
        if folder.is_dir():
            storage.remove_tree(folder)
        storage.system.rename(writer.folder, folder)
        storage.sync_folder(self.folder)
        self.number += 1
        return self.number - 1

    def _rows_of(self, writer: RowWriter) -> int | None:
        """Return the number of rows up to the end of this shard; None if rows are not streamed."""
        if not self._streamed:
            return None
        block_size = self._facts["block_size"]
        if self._packed is None:
            return self.number * self._facts["window_rows"] + rows_per_epoch(writer.num_tokens, block_size)
        before = (shard_manifest(self.folder, self.number - 1) or {}) if self.number else {}
        repeated = [0] if self.number else []  # the id shared with the shard before
        begins = np.array([*repeated, *self._inputs, writer.num_tokens - 1])
        writer.facts["rows"] = before.get("rows", 0) + len(packed(begins, block_size)[2]) - 1
        return writer.facts["rows"]

    def abandon(self) -> None:
        """Delete the unfinished shard."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError):  # flushing the files may fail on a full disk
                writer.__exit__(RunError, RunError("not finished"), None)
