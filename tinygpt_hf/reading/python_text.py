"""Accept text given as Python objects: a Dataset, IterableDataset, DatasetDict, or a list of texts, conversations or rows.

    data = data_arguments(["one text", "another one"])
    data.train_file                                     # ["python:list of 2 texts"], a str that holds the list

Settings are strings, also in run.yaml, so an object is represented by a str subclass that names it. Checks, hashes, split and
resume treat it as a dataset (sources.py).
"""

import os
import sys
from dataclasses import replace
from typing import Any

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments

PREFIX = "python:"
TAKEN = "a Dataset, an IterableDataset, a DatasetDict, or a list of texts, conversations or rows"


class PythonText(str):
    """A string that names a Python object and holds it in `rows`; `note` lists the splits that are not read."""

    rows: Any
    note: str | None

    def __new__(cls, rows, name: str, note: str | None = None):
        self = super().__new__(cls, PREFIX + name)
        self.rows, self.note = rows, note
        return self

    def __deepcopy__(self, memo) -> "PythonText":
        return self

    @property
    def is_stream(self) -> bool:
        """Return whether it is an IterableDataset, whose length is unknown."""
        return _is(self.rows, "IterableDataset")

    def opened(self, streaming: bool) -> Any:
        """Return an iterable of its rows, which can be resumed if `streaming`."""
        if streaming and _is(self.rows, "Dataset"):
            return self.rows.to_iterable_dataset()
        if not self.is_stream:
            return self.rows
        # copy.copy would share the attributes, and so the resume position
        copied = object.__new__(type(self.rows))
        vars(copied).update(vars(self.rows))
        return copied


def is_resumable(part) -> bool:
    """Check that a dataset's state leads back to its position, which a shuffle buffer does not."""
    if not hasattr(part, "state_dict"):
        return False
    inner = [each for value in vars(part).values() for each in (value if isinstance(value, list) else [value])]
    parts = [
        each for each in inner if type(each).__module__ == "datasets.iterable_dataset" and hasattr(each, "state_dict")
    ]
    return "BufferShuffled" not in type(part).__name__ and all(map(is_resumable, parts))


def row_of(entry, origin: str) -> dict:
    """Convert an entry of a list or dataset into a row: a text, a conversation, or a dict as it is."""
    if isinstance(entry, str):
        return {"text": entry}
    if isinstance(entry, list):
        return {"messages": entry}
    if not isinstance(entry, dict):
        raise UsageError(
            f"{origin} is a {type(entry).__name__}", "a text, a conversation or a row as a dict", "convert it"
        )
    return entry


def data_arguments(data) -> DataArguments:
    """Convert the `data` argument of `train` into settings, with Python objects replaced by `PythonText` names."""
    if data is None:
        return DataArguments()
    if isinstance(data, (str, os.PathLike)):
        return DataArguments(train_file=[os.fspath(data)])
    if not isinstance(data, DataArguments):
        if isinstance(data, (list, tuple)) and data and all(isinstance(text, str) for text in data):
            if os.path.lexists(data[0]):
                wanted = "texts: names of files are settings"
                raise UsageError(f"data[0] is the file {data[0]}", wanted, "try data=DataArguments(train_file=[...])")
            data = [PythonText(list(data), f"list of {len(data)} texts")]
        data = replace(DataArguments(), train_file=data)
    parts = _splits(data.train_file)
    train = _named(parts.get("train", data.train_file), parts)
    validation = _named(data.validation_file or parts.get("validation", []))
    mix = list(data.sources) if isinstance(data.sources, (list, tuple)) else []
    for number, entry in enumerate(mix):
        if isinstance(entry, dict) and "train_file" in entry:
            mix[number] = {**entry, "train_file": _named(entry["train_file"])}
            train = [*train, *mix[number]["train_file"]]
    texts = [name for name in train if isinstance(name, PythonText)]
    if not texts and not any(isinstance(name, PythonText) for name in validation):
        return data
    files = {"sources": mix} if mix else {"train_file": train}
    streaming = data.streaming or any(text.is_stream for text in texts)
    return replace(data, **files, validation_file=validation, streaming=streaming)


def _is(value, *names: str) -> bool:
    """Check for classes of `datasets`, without importing it: an instance exists only if it is already imported."""
    module = sys.modules.get("datasets")
    return module is not None and isinstance(value, tuple(getattr(module, name) for name in names))


def _splits(value) -> dict:
    """Return the splits of a DatasetDict, {} for anything else; raises UsageError if it has no `train`."""
    if not _is(value, "DatasetDict", "IterableDatasetDict"):
        return {}
    if "train" not in value:
        raise UsageError(f"the DatasetDict has the splits {', '.join(value)}", "train", "give one of them")
    return dict(value)


def _named(value, parts: dict | tuple = ()) -> list:
    """Return the value of a file setting as a list of names; a Python object becomes one `PythonText`."""
    others = ", ".join(name for name in parts if name not in ("train", "validation"))
    note = f"splits not read: {others}" if others else None
    if isinstance(value, (list, tuple)) and len(value) == 1 and _is(value[0], "Dataset", "IterableDataset"):
        (value,) = value
    if _is(value, "Dataset"):
        return [PythonText(value, f"Dataset of {len(value)} rows", note)]
    if _is(value, "IterableDataset"):
        return [PythonText(value, "IterableDataset", note)]
    if isinstance(value, (str, os.PathLike)):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"the data is a {type(value).__name__}", TAKEN, "convert it")
    are_names = not value or isinstance(value[0], (str, os.PathLike))
    kinds = (str, os.PathLike) if are_names else (dict, list)
    for number, entry in enumerate(value):
        if not isinstance(entry, kinds):
            problem = f"the data is a list with a {type(entry).__name__} at {number}"
            raise UsageError(problem, TAKEN, "give one kind (data.sources mixes)")
    if are_names:
        return list(value)
    kind = "conversations" if isinstance(value[0], list) else "rows"
    return [PythonText(list(value), f"list of {len(value)} {kind}")]
