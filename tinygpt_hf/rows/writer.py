"""How shards come to be: each complete or absent, each saying where the text goes on behind it, so that a finished one is the
journal. A killed call begins again at any shard, and so does one that makes a shard again which was deleted to save space; of that
the manifest stays.

    train/shard-000000/      the first ids (store.py tells what is in it)
    train/shard-000001/      the next; its first id is the last of the one before
    train/end.json           how many shards and rows there are, once a streamed text has ended
    validation/shard-000000/ what was held out while the training shard of that number was filled

Text, tokenizer and sizes decide a shard, to the byte.
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
    """Where a shard lies; `window` is what one of streamed rows was called."""
    name = "window" if (train / "window-000000").is_dir() else "shard"
    return train / f"{name}-{number:06d}"


def shard_manifest(train: Path, number: int) -> dict | None:
    """What is known of a shard, also of one that was deleted; None where it was never made, or its manifest is damaged."""
    return _sound_json(shard_folder(train, number) / storage.MANIFEST)


def read_end(train: Path) -> dict | None:
    """{"windows", "rows"} once the text has ended."""
    return _sound_json(train / END)


def write_end(train: Path, number: int, rows: int) -> None:
    """Note that the text ends with shard `number` - 1; where that is known, it must be the same end."""
    end, known = {"windows": number, "rows": rows}, read_end(train)
    if known is not None and known != end:
        raise RunError(f"the text has {rows} rows now, it had {known['rows']}; restore it, or begin again")
    storage.write_json(train / END, {**end, storage.OWN_HASH: storage.value_hash(end)})


def _sound_json(path: Path) -> dict | None:
    try:
        found = storage.read_json(path)
    except (OSError, RunError):
        return None
    sound = isinstance(found, dict) and found.pop(storage.OWN_HASH, None) == storage.value_hash(found)
    return found if sound else None


def delete_shard(train: Path, number: int) -> None:
    """Give back the space of a shard; its manifest stays."""
    folder = shard_folder(train, number)
    for name in (shard_manifest(train, number) or {}).get("files", {}):
        if (folder / name).is_file():
            storage.system.remove(folder / name)


class ShardWriter:
    """Fills shards of `capacity` ids one after another, beginning with shard `number`. A shard becomes final only when it is
    known whether text follows.

    `packed`: the length of the rows into which whole documents will be packed; then a shard ends where a document does, but for
    one that is longer than a row and a quarter of a shard.
    """

    def __init__(
        self, folder: Path, number: int, capacity: int, facts: dict, vocab_size: int, packed: int | None = None
    ):
        self.folder, self.number = folder, number
        self._capacity, self._facts, self._vocab_size, self._packed = capacity, facts, vocab_size, packed
        self._writer: RowWriter | None = None
        self._last: tuple[int, bool] | None = None  # the id that was added last: itself, may it be learned
        self._behind: dict = {}  # where it is found again
        self._inputs: list[int] = []  # where the documents of a packed shard begin as inputs
        self._streamed = "window_rows" in facts
        # the shard before may have been deleted where rows are streamed: its last id is added again instead
        if number and not self._streamed and (found := sorted(folder.glob("shard-*"))):
            shard = Shard(found[-1])
            place = np.array([shard.num_tokens - 1])
            self._last = int(shard.ids(place)[0]), bool(shard.may_be_target(place)[0])

    def add(self, document: dict, encoded: Encoded, place: dict) -> Iterator[int]:
        """Add a document, or a part of one. `place` says where it is found again; of one found again, `place["skip"]` ids are
        left out: they went into shards that are there.

        Yields the number of each shard that is full: once before it becomes final, so that the caller can see to what must be
        on the disk before it, and once behind.
        """
        ids, start = encoded.ids, place["skip"]
        mask = np.ones(len(ids), dtype=bool) if encoded.mask is None else encoded.mask
        begins = document.get("begins", True)
        fits_whole = self._packed and begins and document.get("ends", True)
        fits_whole = fits_whole and len(ids) <= max(self._packed or 0, self._capacity // 4)
        while start < len(ids):
            room = self._capacity - self._writer.num_tokens if self._writer else self._capacity
            if room == 0 or (
                fits_whole and start == 0 and room < len(ids) < self._capacity and self._begun_beyond_last
            ):
                yield from self._full(self._behind if self._streamed else {**place, "skip": start})
                continue
            writer = self._writer or self._begin()
            if start == 0:
                self._count(document, encoded, writer, begins)
            end = min(len(ids), start + self._capacity - writer.num_tokens)
            writer.add(ids[start:end], mask[start:end], begins=(begins and start == 0) or not writer.num_tokens)
            self._last, self._behind = (int(ids[end - 1]), bool(mask[end - 1])), {**place, "skip": end - 1}
            start = end

    @property
    def _begun_beyond_last(self) -> bool:
        return self._writer is not None and self._writer.num_tokens > 1

    def _count(self, document: dict, encoded: Encoded, writer: RowWriter, begins: bool) -> None:
        count_document(writer.facts, document, encoded)
        if begins and "of_source" in document:
            firsts = writer.facts.setdefault("first_documents", {})  # of each source, for the report
            firsts.setdefault(str(document["of_source"]), writer.num_documents)
        if self._packed and begins:
            learned = encoded.mask is None or bool(encoded.mask[0])
            self._inputs.append(max(0, writer.num_tokens - learned))

    def finish(self) -> Iterator[int]:
        """The text has ended: yields the number of the last shard before and behind its becoming final."""
        if self._writer is None and self.number:  # a shard begins only where text followed
            raise RunError("the text has become shorter since its rows were made; restore it")
        if self._writer is None:
            self._begin()
        yield self.number
        self.publish(None)
        yield self.number

    @property
    def manifests(self) -> list[dict]:
        """What is known of the shard that is being filled; none where nothing was added since the last one became final."""
        return [self._writer.manifest] if self._writer else []

    def _begin(self) -> RowWriter:
        """A shard; its first id is the last of the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / f"{storage.TEMPORARY}again-{self.number:06d}"  # seen to before it takes a shard's place
        if folder.is_dir():
            storage.remove_tree(folder)
        named = {"window": self.number} if self._streamed else {}
        self._writer, self._inputs = RowWriter(folder, self._vocab_size, {**self._facts, **named}), []
        self._writer.__enter__()
        if self._last is not None:
            last, learned = self._last
            self._writer.add([last], [learned])
        return self._writer

    def _full(self, behind: dict) -> Iterator[int]:
        yield self.number
        self.publish(behind)
        yield self.number
        self.number += 1

    def publish(self, behind: dict | None) -> None:
        """Make the shard final; the text goes on at `behind`, or has ended. A shard that is known, and was deleted or lost, must
        come to the same bytes."""
        writer, self._writer = self._writer or self._begin(), None
        writer.facts["next"] = behind
        rows = self._rows_of(writer)
        writer.__exit__(None, None, None)
        folder, known = shard_folder(self.folder, self.number), shard_manifest(self.folder, self.number)
        files = storage.read_json(writer.folder / storage.MANIFEST)["files"]
        end = read_end(self.folder)
        changed = known is not None and (known["files"], known["next"] is None) != (files, behind is None)
        if changed or (end is not None and (self.number + 1 == end["windows"]) != (behind is None)):
            storage.remove_tree(writer.folder)
            raise RunError(
                f"the text has changed since window {self.number} of its rows was made; restore it, or begin again"
            )
        if behind is None and rows is not None:
            write_end(self.folder, self.number + 1, rows)
        if folder.is_dir():
            storage.remove_tree(folder)
        storage.system.rename(writer.folder, folder)
        storage.sync_folder(self.folder)

    def _rows_of(self, writer: RowWriter) -> int | None:
        """How many rows there are up to the end of this shard; None where nobody streams them."""
        if not self._streamed:
            return None
        block_size = self._facts["block_size"]
        if self._packed is None:
            return self.number * self._facts["window_rows"] + rows_per_epoch(writer.num_tokens, block_size)
        before = (shard_manifest(self.folder, self.number - 1) or {}) if self.number else {}
        repeated = [0] if self.number else []  # the id a shard shares with the one before
        begins = np.array([*repeated, *self._inputs, writer.num_tokens - 1])
        writer.facts["rows"] = before.get("rows", 0) + len(packed(begins, block_size)[2]) - 1
        return writer.facts["rows"]

    def abandon(self) -> None:
        """Leave nothing of the shard that is being filled."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError):  # there may be no room for what its files still hold
                writer.__exit__(RunError, RunError("not finished"), None)


def count_document(facts: dict, document: dict, encoded: Encoded) -> None:
    """Add what a document, or a part of one, is to the facts of the rows it goes into."""
    facts["num_bytes"] = facts.get("num_bytes", 0) + encoded.num_bytes
    if "messages" in document:
        counts = facts.setdefault("conversations", {"count": 0, "cut": 0, "turns_cut": 0, "too_long": 0})
        counts["count"] += 1
        counts["cut"] += encoded.turns_cut > 0
        counts["turns_cut"] += encoded.turns_cut
        counts["too_long"] += encoded.too_long
    if document.get("replaced"):
        facts["replaced"] = facts.get("replaced", 0) + document["replaced"]
