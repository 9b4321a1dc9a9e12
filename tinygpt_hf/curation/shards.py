"""Write the documents of a prepared corpus as shards of parquet or jsonl.

O/data/text-00000.parquet         columns text, origin (conversations: messages-00000.parquet, columns messages, origin;
                                  with tools, reasoning or marks: turns-00000.parquet, columns messages, tools, origin)
O/excluded/excluded-00000.parquet columns text, origin, rule, reason; text is null if a document was merely not chosen
O/corpus.json, O/README.md        facts and card
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.curation.filters import Rejection
from tinygpt_hf.reading.discovery import DATA
from tinygpt_hf.reading.turns import as_json

EXCLUDED = "excluded"
NOT_CHOSEN = ("weight", "sample")  # rules that sample documents instead of judging them
BATCH_BYTES = 16_000_000  # text per row group


class Shards:
    """A writer of rows of one schema into numbered files of about `shard_bytes` of text each."""

    def __init__(self, folder: Path, name: str, columns: dict[str, str], file_format: str, shard_bytes: int):
        """Initialize with `columns`: name -> `text`, `messages`, or `more` (messages with other fields than role and content)."""
        self._folder, self._name, self._columns, self._format = folder, name, columns, file_format
        self._shard_bytes, self._number = shard_bytes, 0
        self._rows: list[dict] = []
        self._held = self._in_shard = 0
        self._file = self._writer = None

    def write(self, row: dict, size: int) -> None:
        """Write a row with `size` bytes of text."""
        self._rows.append({name: row.get(name) for name in self._columns})
        self._held += size
        if self._held >= min(BATCH_BYTES, self._shard_bytes):
            self._flush()
            if self._in_shard >= self._shard_bytes:
                self._close_shard()

    def close(self) -> None:
        self._flush()
        self._close_shard()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{self._name}-{self._number:05d}.{self._format}"
            self._file = storage.system.open(path)
            if self._format == "parquet":
                from pyarrow import parquet

                self._writer = parquet.ParquetWriter(self._file, self._schema(), compression="zstd")
        if self._writer is not None:
            import pyarrow

            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema()))
        else:
            for row in self._rows:
                storage.system.write(self._file, (json.dumps(row, ensure_ascii=False) + "\n").encode())
        self._in_shard += self._held
        self._rows, self._held = [], 0

    def _schema(self):
        import pyarrow

        plain, number = [("role", pyarrow.string()), ("content", pyarrow.string())], [("weight", pyarrow.int8())]
        more = [(name, pyarrow.string()) for name in ("reasoning_content", "tool_calls", "name", "tool_call_id")]
        kinds = {
            "text": pyarrow.string(),
            "messages": pyarrow.list_(pyarrow.struct(plain)),
            "more": pyarrow.list_(pyarrow.struct([*plain, *more, *number])),
        }
        return pyarrow.schema([(name, kinds[kind]) for name, kind in self._columns.items()])

    def _close_shard(self) -> None:
        if self._file is None:
            return
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        self._file = self._writer = None
        self._number, self._in_shard = self._number + 1, 0


class CorpusFiles:
    """A writer of texts, conversations and excluded documents, each in separate shards."""

    def __init__(self, folder: Path, file_format: str, shard_bytes: int):
        columns = {kind: {kind: kind, "origin": "text"} for kind in ("text", "messages")}
        columns["turns"] = {"messages": "more", "tools": "text", "origin": "text"}
        self._kept = {
            kind: Shards(folder / DATA, kind, names, file_format, shard_bytes) for kind, names in columns.items()
        }
        reasons = dict.fromkeys(("text", "origin", "rule", "reason"), "text")
        self._excluded = Shards(folder / EXCLUDED, EXCLUDED, reasons, file_format, shard_bytes)

    def keep(self, document: dict, size: int) -> None:
        kind = "text" if "text" in document else "messages"
        if "tools" in document or any(len(message) > 2 for message in document.get("messages", ())):
            # fields whose schema differs between rows are written as JSON strings
            kind, document = "turns", {**document, "messages": [_flat(message) for message in document["messages"]]}
            document |= {"tools": as_json(document["tools"])} if "tools" in document else {}
        self._kept[kind].write(document, size)

    def exclude(self, document: dict, rejection: Rejection) -> None:
        """Write a dropped document with the reason, but without its text if it was only not sampled."""
        if rejection.rule in NOT_CHOSEN:
            text = None
        elif "text" in document:
            text = document["text"]
        elif "tools" in document:
            text = as_json({name: document[name] for name in ("messages", "tools")})
        else:
            text = as_json(document["messages"])
        row = {"text": text, "origin": document["origin"], **rejection._asdict()}
        self._excluded.write(row, len(text or "") + 100)

    def close(self) -> None:
        for shards in (*self._kept.values(), self._excluded):
            shards.close()


def _flat(message: dict) -> dict:
    return message | ({"tool_calls": as_json(message["tool_calls"])} if "tool_calls" in message else {})


class Draft:
    """A temporary file of documents, one JSON line each, that is written once and read once."""

    def __init__(self, folder: Path):
        self._path = folder / "draft.jsonl"
        self._file = storage.system.open(self._path)

    def write(self, row: dict) -> None:
        storage.system.write(self._file, (json.dumps(row, ensure_ascii=False) + "\n").encode())

    def read(self) -> Iterator[dict]:
        """Yield the rows in order, then remove the file."""
        self._file.close()
        with open(self._path, encoding="utf-8", newline="\n") as file:
            yield from map(json.loads, file)
        self._path.unlink()
