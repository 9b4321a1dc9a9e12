"""Write files and folders atomically and durably.

At every moment a path holds either the complete old content or the complete new content. The new content is written under a
`tmp-*` name, synced, and renamed; then the parent folder is synced. A failed fsync is a failed write and is never retried:
the kernel may have dropped the pages, and a second fsync would report success for lost data.

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
UNFINISHED = ".unfinished"  # suffix of a temporary folder from which the next attempt continues
LOCK = ".lock"


class System:
    """The system calls that change the disk, in one place, so that tests can fail or kill at the Nth call."""

    def open(self, path: Path):
        return open(path, "wb")

    def write(self, file, data) -> None:
        file.write(data)

    def append(self, path: Path, data: bytes) -> None:
        """Append all of the data or nothing; a nearly full disk would silently accept only a part of it."""
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


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder with its content; links are removed, not followed."""
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            remove_tree(inner)
    system.remove(path)


def sync_folder(folder: Path) -> None:
    """Make the names inside `folder` durable. Windows does this with each file and cannot open folders."""
    if os.name != "nt":
        sync_file(folder)


def sync_file(path: Path) -> None:
    """Make the content of an existing file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        system.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes | str | Iterable[Any], hashing=None) -> dict:
    """Replace `path` by `data` (text, bytes, or an iterable of bytes), durably and atomically.

    `hashing`, an executor with one thread, computes the sha256 in parallel. Returns {"size", "sha256"} as for a manifest, with
    the hash as a Future (None without `hashing`). The pieces must not change until it is done.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    data = data.encode() if isinstance(data, str) else data
    pieces: Iterable[Any] = [data] if isinstance(data, bytes) else data
    digest, size = hashlib.sha256(), 0
    if path.exists() and not path.is_file():
        # a device or pipe, as /dev/stdout or >(jq .), is written to directly
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
    """Write `value` as indented JSON with a final newline; raises ValueError for NaN, which JSON does not have."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path):
    """Read a JSON file; raises RunError if it is not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def format_size(count: float) -> str:
    """Format a number of bytes: 1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


@contextlib.contextmanager
def new_folder(final: Path, resumable: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `final` at the end of the block; `final` must not exist then.

    With `resumable` the folder is kept after a kill, an interruption or a `RunError`, and given to the next attempt.
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
        with contextlib.suppress(OSError):  # without locks on this disk `sweep` does not remove the folder
            held.enter_context(_locked(temporary))
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
    """Remove the temporary folders that killed processes left for `final`; a live process holds a lock on its own."""
    name = re.compile(rf"{TEMPORARY}\d+-{re.escape(final.name)}")
    for path in final.parent.iterdir() if final.parent.is_dir() else ():
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError), _locked(path):  # in use, or no permission
                remove_tree(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder, also across a rename; raises OSError if it is locked already or folders cannot be locked."""
    if fcntl is None:
        raise OSError("this system does not lock folders")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def open_to_umask(folder: Path) -> None:
    """Set the default mode of new files on all files, because safetensors makes them readable for the owner only."""
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
    """Write `manifest.json`: `facts`, size and sha256 of every other file, and a hash of the manifest itself.

    `written` gives {"size", "sha256"} of files that need not be read again.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            name = str(path.relative_to(folder))
            files[name] = (written or {}).get(name) or {"size": path.stat().st_size, "sha256": file_hash(path)}
    manifest = {**facts, "files": files}
    write_json(folder / MANIFEST, {**manifest, OWN_HASH: value_hash(manifest)})


def find_damage(folder: Path) -> str | None:
    """Compare a folder with its manifest; returns a description of the first difference, or None."""
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
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(file_hash, [folder / name for name, _, _ in files])
        for (name, _, sha256), actual in zip(files, hashes, strict=True):
            if actual != sha256:
                return f"{name} has other content than when it was saved"
    return None


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files of killed processes in `folder`, except resumable ones; requires the folder's lock."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if not path.name.endswith(UNFINISHED):
            remove_tree(path)


def resolve_link(path: Path) -> Path:
    """Resolve a link to a file or folder, so that its target is replaced and the link stays; returns other paths as given."""
    is_device = path.exists() and not (path.is_file() or path.is_dir())
    return Path(os.path.realpath(path)) if path.is_symlink() and not is_device else path


def move_aside(folder: Path) -> Path:
    """Rename a folder to `name.old-N`; returns the new path."""
    aside = free_name(folder.parent, f"{folder.name}.old")
    folder.rename(aside)
    return aside


def free_name(folder: Path, name: str) -> Path:
    """Return the first path `name-1`, `name-2`, ... in `folder` that does not exist."""
    return next(p for k in range(1, 10**6) if not (p := folder / f"{name}-{k}").exists())


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process; the lock ends with the process. Raises UsageError naming the owner if it is locked."""
    from filelock import FileLock, Timeout

    path = folder / LOCK
    try:
        with FileLock(path, timeout=0):
            with contextlib.suppress(PermissionError):  # Windows does not allow writing to a locked file
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
            yield
    except Timeout:
        owner = ""
        with contextlib.suppress(OSError):
            owner = path.read_text(encoding="utf-8").strip()
        action = "wait for it to end, stop it, or choose another --output_dir"
        raise UsageError(f"{folder} is in use by {owner or 'another process'}", "one run per folder", action) from None
