"""How bytes reach the disk so that no crash can tear them.

A file or folder written here is, at every instant, either the complete old one or the complete new one: it is written under
a `tmp-*` name beside its place, synced, renamed over, and the folder that holds the name is synced too. A failed fsync is a
failed write (the kernel may have dropped the pages: trying again on the same file would report success for lost data).

    write_json(folder / "run.json", {...})
    with new_folder(runs / "checkpoint-100") as tmp:      # appears complete or not at all
        write_file(tmp / "model.safetensors", data)
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tinygpt_hf.errors import RunError, UsageError

MANIFEST = "manifest.json"
TEMPORARY = "tmp-"
LOCK = ".lock"


class System:
    """The operating-system calls that matter for durability, in one object, so that tests can fail or kill at the Nth."""

    def write(self, file, data: bytes) -> None:
        file.write(data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove_tree(self, folder: Path) -> None:
        shutil.rmtree(folder)


system = System()


def sync_folder(folder: Path) -> None:
    """Make the names inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        system.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file that somebody else wrote durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        system.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data`, durably and atomically."""
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            system.write(file, data.encode() if isinstance(data, str) else data)
            file.flush()
            system.fsync(file.fileno())
        system.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value) -> None:
    """Write `value` as indented JSON with sorted keys left as given, ending in a newline. NaN is refused: it is no JSON."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path):
    """The JSON value in `path`; a file that is no JSON is a `RunError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, durably and atomically, without holding it in memory."""
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
    try:
        shutil.copyfile(source, temporary)
        sync_file(temporary)
        system.rename(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which appears at `final` complete or not at all. `final` must not exist when the block ends."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f"{TEMPORARY}{os.getpid()}-{final.name}")
    if temporary.exists():
        system.remove_tree(temporary)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                sync_file(path)
        for path in sorted(temporary.rglob("*")):
            if path.is_dir():
                sync_folder(path)
        sync_folder(temporary)
        system.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(final.parent)


def open_to_umask(folder: Path) -> None:
    """Give files the mode a plain write gives them: safetensors makes its own readable to their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~umask)


def file_hash(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_manifest(folder: Path, facts: dict) -> None:
    """`manifest.json`: the facts given, and size and sha256 of every other file of the folder."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json(folder / MANIFEST, {**facts, "files": files})


def damage(folder: Path) -> str | None:
    """None if every file of the folder is as its manifest says, else what is wrong, in words."""
    try:
        manifest = read_json(folder / MANIFEST)
        files = [(name, known["size"], known["sha256"]) for name, known in manifest["files"].items()]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (RunError, OSError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, size, sha256 in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if file_hash(path) != sha256:
            return f"{name} has other content than when it was saved"
    return None


def remove_temporary(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder` (only call it under the folder's lock)."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            system.remove_tree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone. The lock dies with its owner; a second owner is told who holds it."""
    path = folder / LOCK
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"{folder} is in use by {file.read().strip() or 'another process'}",
                "one run per folder",
                "wait for it to end, stop it, or choose another --output_dir",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
