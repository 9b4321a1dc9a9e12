"""Write files and folders so that no crash can tear them.

A file or folder written here is, at every instant, either the complete old one or the complete new one: it is written under
a `tmp-*` name beside it, synced, renamed over, and the folder that holds the name is synced too. A failed fsync is a
failed write (the kernel may have dropped the pages: trying again on the same file would report success for lost data).

    write_json(folder / "run.json", {...})
    with new_folder(runs / "checkpoint-100") as tmp:      # appears complete or not at all
        write_file(tmp / "model.safetensors", data)
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinygpt_hf.errors import RunError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MANIFEST = "manifest.json"
OWN_HASH = "manifest_sha256"
TEMPORARY = "tmp-"
UNFINISHED = ".unfinished"  # the end of a temporary name that the next attempt goes on with
LOCK = ".lock"


class System:
    """Make every operating-system call that changes the disk, so that tests can fail or kill at the Nth."""

    def open(self, path: Path):
        return open(path, "wb")

    def write(self, file, data) -> None:
        file.write(data)

    def append(self, path: Path, data: bytes) -> None:
        """Append all of the data or none: a disk with room for a part of it takes that part without an error."""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except BaseException:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def make_folder(self, folder: Path) -> None:
        os.mkdir(folder)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or an empty folder."""
        if path.is_dir() and not path.is_symlink():
            os.rmdir(path)
        else:
            os.unlink(path)


system = System()


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it; links in it are removed, not followed."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            system.remove(path)
    system.remove(folder)


def sync_folder(folder: Path) -> None:
    """Make the names inside `folder` durable. Windows does so with each file, and opens no folders."""
    if os.name != "nt":
        sync_file(folder)


def sync_file(path: Path) -> None:
    """Make the content of a file that somebody else wrote durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        system.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes | str | Iterable[Any], hashing=None) -> dict:
    """Replace `path` by `data` (text, bytes, or pieces of bytes one after another), durably and atomically.

    `hashing`, an executor of one thread, computes the sha256 during the writing. Returns {"size", "sha256"} as a manifest
    holds it, the hash as a Future (None without `hashing`); the pieces must not change until it is done.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    data = data.encode() if isinstance(data, str) else data
    pieces: Iterable[Any] = [data] if isinstance(data, bytes) else data
    digest, size = hashlib.sha256(), 0
    if path.exists() and not path.is_file():
        # /dev/stdout, or the pipe of >(jq .): it takes what it is given, and stays
        with open(path, "wb") as device:
            return {"size": sum(device.write(piece) for piece in pieces), "sha256": None}
    try:
        with system.open(temporary) as file:
            for piece in pieces:
                if hashing:
                    hashing.submit(digest.update, piece)
                system.write(file, piece)
                size += len(piece)
            file.flush()
            system.fsync(file.fileno())
        system.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return {"size": size, "sha256": hashing.submit(digest.hexdigest) if hashing else None}


def write_json(path: Path, value) -> None:
    """Write `value` as indented JSON, keys in their order, ending in a newline. NaN is refused: it is no JSON."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path):
    """Read the JSON value in `path`; a file that is no JSON is a `RunError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def format_size(count: float) -> str:
    """Write a number of bytes for people: 1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


@contextlib.contextmanager
def new_folder(final: Path, resumable: bool = False) -> Iterator[Path]:
    """Give a folder to fill, which appears at `final` complete or not at all. `final` must not exist when the block ends.

    `resumable`: after a kill, an interruption or a `RunError` the next attempt finds what this one had written.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    name = f"{final.name}{UNFINISHED}" if resumable else f"{os.getpid()}-{final.name}"
    temporary = final.with_name(f"{TEMPORARY}{name}")
    if not resumable and temporary.exists():
        remove_tree(temporary)
    if not temporary.exists():
        system.make_folder(temporary)
    held = contextlib.ExitStack()
    try:
        with contextlib.suppress(OSError):  # a disk without locks: then `sweep` leaves it alone
            held.enter_context(_held(temporary))
        yield temporary
        inside = sorted(temporary.rglob("*"))
        for path in (path for path in inside if path.is_file()):
            sync_file(path)
        for path in [*(path for path in inside if path.is_dir()), temporary]:
            sync_folder(path)
        system.rename(temporary, final)
    except BaseException as error:
        if not resumable or (isinstance(error, Exception) and not isinstance(error, RunError)):
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        held.close()
    sync_folder(final.parent)


def sweep(final: Path) -> None:
    """Remove what killed processes left of `final`: a living one holds the folder it fills."""
    name = re.compile(rf"{TEMPORARY}\d+-{re.escape(final.name)}")
    for path in final.parent.iterdir() if final.parent.is_dir() else ():
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError), _held(path):  # alive, or not ours to remove
                remove_tree(path)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock the folder itself, whatever it is renamed to; `OSError` where somebody else has it or folders cannot be locked."""
    if fcntl is None:
        raise OSError("this system does not lock folders")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def open_to_umask(folder: Path) -> None:
    """Give files the mode a plain write gives them: safetensors makes its own readable to their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~umask)


def file_hash(path: Path | str) -> str:
    """Compute the sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value) -> str:
    """Compute the sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_manifest(folder: Path, facts: dict, written: dict[str, dict] | None = None) -> None:
    """Write `manifest.json`: the facts given, size and sha256 of every other file, and a hash of all this itself.

    `written` holds size and sha256 of files that need not be read again.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            name = str(path.relative_to(folder))
            files[name] = (written or {}).get(name) or {"size": path.stat().st_size, "sha256": file_hash(path)}
    manifest = {**facts, "files": files}
    write_json(folder / MANIFEST, {**manifest, OWN_HASH: value_hash(manifest)})


def damage(folder: Path) -> str | None:
    """Return None if every file of the folder is as its manifest says, else what is wrong, in words."""
    from concurrent.futures import ThreadPoolExecutor

    try:
        manifest = read_json(folder / MANIFEST)
        if manifest.pop(OWN_HASH) != value_hash(manifest):
            return f"{MANIFEST} is damaged"
        files = [(name, entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (RunError, OSError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, size, _ in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    with ThreadPoolExecutor() as pool:  # the large files side by side
        hashes = pool.map(file_hash, [folder / name for name, _, _ in files])
        for (name, _, sha256), actual in zip(files, hashes, strict=True):
            if actual != sha256:
                return f"{name} has other content than when it was saved"
    return None


def remove_temporary(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder` (only call it under the folder's lock), unless it goes on."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.name.endswith(UNFINISHED):
            continue
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            system.remove(path)


def linked(path: Path) -> Path:
    """Find the file or folder that a link leads to, so that it is replaced and the link stays; any other path as it is."""
    is_device = path.exists() and not (path.is_file() or path.is_dir())
    return Path(os.path.realpath(path)) if path.is_symlink() and not is_device else path


def move_aside(folder: Path) -> Path:
    """Rename a folder out of the way; returns where it is now."""
    aside = free_name(folder.parent, f"{folder.name}.old")
    folder.rename(aside)
    return aside


def free_name(folder: Path, name: str) -> Path:
    """Find a path in `folder` that does not exist: `name` with the first free number behind it."""
    return next(p for k in range(1, 10**6) if not (p := folder / f"{name}-{k}").exists())


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone. The lock dies with its owner; a second owner learns who holds it."""
    from filelock import FileLock, Timeout

    path = folder / LOCK
    try:
        with FileLock(path, timeout=0):
            with contextlib.suppress(PermissionError):  # Windows keeps a locked file from being written
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
            yield
    except Timeout:
        owner = ""
        with contextlib.suppress(OSError):
            owner = path.read_text(encoding="utf-8").strip()
        action = "wait for it to end, stop it, or choose another --output_dir"
        raise UsageError(f"{folder} is in use by {owner or 'another process'}", "one run per folder", action) from None
