"""Damaged checkpoints: noticed whatever was done to whichever file, named, left where they are, the one before used."""

import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from kills import copied, half_way
from runs import Bench, hashes_agree, newest_step, words_of


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def zeroed(data: bytes) -> bytes:
    """The last sixteenth, at least a byte, as zeros: what a file system may leave after a loss of power."""
    tail = max(1, len(data) // 16)
    return data[:-tail] + b"\0" * tail


HARMS: dict[str, Callable[[bytes, Path], bytes | None]] = {
    "deleted": lambda data, mark: None,
    "emptied": lambda data, mark: b"",
    "halved": lambda data, mark: data[: len(data) // 2],
    "one bit flipped": lambda data, mark: flipped(data),
    "tail zeroed": lambda data, mark: zeroed(data),
    "a pickle": lambda data, mark: pickle.dumps(Hostile(mark)),
}


@functools.cache
def with_two_checkpoints(bench: Bench, mode: str) -> Path:
    """A run killed after step 5: checkpoint-2 and checkpoint-4 are there. To be copied."""
    before = bench.new("two-checkpoints")
    ended = bench.run(words_of(mode, before), {"point": "step", "at": 6, "does": "kill"})
    assert ended.status == -9 and newest_step(before) == 4
    return before


def every_file(bench: Bench, mode: str, harm: str, few: bool = False) -> None:
    """Harm each file of the newest checkpoint in turn."""
    before = with_two_checkpoints(bench, mode)
    names = sorted(path.name for path in (before / "checkpoint-4").iterdir())
    for name in names if not few else ["model.safetensors"]:
        folder = copied(bench, before)
        damage(bench, mode, folder, name, harm)


def damage(bench: Bench, mode: str, folder: Path, name: str, harm: str) -> None:
    path, mark = folder / "checkpoint-4" / name, folder.parent / "executed"
    harmed = HARMS[harm](path.read_bytes(), mark)
    path.unlink() if harmed is None else path.write_bytes(harmed)
    bench.figures.add(**{"damaged checkpoints": 1})
    started = bench.start(words_of(mode, folder), {"point": "step", "at": 1, "does": "kill"})
    noticed = bench.wait(started)
    where = f"{harm} {name}: {noticed.said}"
    assert noticed.status == -9 and "training: from step 2 " in noticed.said, where
    assert f"{folder / 'checkpoint-4'} is damaged ({name} " in noticed.said, where
    assert (path.read_bytes() if path.exists() else None) == harmed, f"{where}: not left in place"
    ended = bench.run(words_of(mode, folder))
    assert not mark.exists(), f"{where}: a pickle was executed"
    kept = folder / "checkpoint-4.replaced-1" / name
    assert (kept.read_bytes() if kept.exists() else None) == harmed, f"{where}: not kept"
    bench.check_end(mode, folder, ended, 2, 4)


def damaged_and_stopped(bench: Bench, mode: str) -> None:
    """The damaged one does not count among those that are kept: two sound ones stay."""
    folder = copied(bench, with_two_checkpoints(bench, mode))
    weights = folder / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    ended = bench.run(words_of(mode, folder), {"point": "step", "at": 1, "does": ["SIGTERM"]})
    assert ended.status == 143 and newest_step(folder) == 4
    assert all(hashes_agree(folder / f"checkpoint-{step}") for step in (2, 3))
    bench.figures.add(**{"damaged checkpoints": 1, "signals": 1})
    ended = bench.run(words_of(mode, folder))
    bench.check_end(mode, folder, ended, 3, 3)


def all_damaged(bench: Bench, mode: str) -> None:
    """Nothing sound is left: the run is not begun again over what could perhaps be saved."""
    folder = copied(bench, half_way(bench, mode))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    weights = folder / "checkpoint-2" / "model.safetensors"
    before[weights] = flipped(before[weights])
    weights.write_bytes(before[weights])
    ended = bench.run(words_of(mode, folder))
    assert ended.status == 1 and "every checkpoint in" in ended.last_line and "model.safetensors has" in ended.last_line
    assert "training:" not in ended.said
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lock = folder / ".lock"
    gone = {path for path in before if path not in after}
    assert all("tmp-" in str(path) for path in gone)
    assert all(before.get(path) == data for path, data in after.items() if path != lock)
