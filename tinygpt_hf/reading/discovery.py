"""Find the files that names, folders, globs and URLs refer to.

Folders are searched recursively, in the order of names. Links are followed, and each file is read once. Hidden and empty
files are skipped; files with an unknown ending (formats.py) are counted. Of a prepared corpus only data/ is read. URLs are
downloaded once.

    for file in find_files(["books", "more/**/*.md", "https://host/a.txt.gz"]): ...
"""

import contextlib
import functools
import glob
import hashlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.reading.decoding import ARCHIVES, first_words
from tinygpt_hf.reading.formats import KNOWN_ENDINGS, ending_of, is_utf8

# prepare-corpus writes corpus.json with this format, and the documents below data/.
CORPUS, FORMAT, DATA = "corpus.json", "tinygpt-corpus-1", "data"


class File(NamedTuple):
    """A local file, with the name shown for it: its path, or the URL it came from without secrets."""

    path: str
    name: str
    note: str | None = None  # a warning about the file


def find_files(names: Iterable[str]) -> list[File]:
    """Find the local files that `names` refer to; raises UsageError for a name without text files."""
    files: list[File] = []
    for name in names:
        if _is_url(name):
            files.append(_download(name))
            continue
        paths = [name]
        if os.path.isfile(name):
            if not ending_of(name):
                raise UsageError(f"{name} has an unknown ending", f"one of {KNOWN_ENDINGS}", "rename the file")
        elif os.path.isdir(name) or not os.path.lexists(name):
            paths, _ = _searched(name)
        if not paths and os.path.isdir(name):
            raise UsageError(
                f"the folder {name} holds no text file", f"files with the endings {KNOWN_ENDINGS}", "name another one"
            )
        if not paths:
            what = "matches no text file" if glob.has_magic(name) else "does not exist"
            raise UsageError(f"{name} {what}", "files, globs, folders or URLs of text", "check the path")
        for path in paths:
            if not is_utf8(path):
                raise UsageError(f"the file name {path!r} is not valid UTF-8", "a name in UTF-8", "rename the file")
            if not os.path.isfile(path):  # reading a pipe may block, and /dev/zero never ends
                what = "a pipe, device or socket" if os.path.exists(path) else "a link that leads nowhere"
                raise UsageError(f"{path} is {what}", "a file", "write its text to a file, or name another one")
            files.append(File(path, path))
    return files


def skipped_endings(names: Iterable[str]) -> dict[str, int]:
    """Count the files in folders and globs that are not read, by ending, most common first."""
    searched = (name for name in names if not _is_url(name) and not os.path.isfile(name))
    return dict(sum((_searched(name)[1] for name in searched), Counter()).most_common())


def is_corpus(folder: Path) -> bool:
    """Check that prepare-corpus wrote this folder, from the format inside corpus.json."""
    try:
        with open(folder / CORPUS, encoding="utf-8") as file:
            return FORMAT in file.read(100) and (folder / DATA).is_dir()
    except (OSError, UnicodeDecodeError):
        return False


def documents_only(paths: list[str], root: str) -> list[str]:
    """Drop the paths of prepared corpora at or below `root` that are not below their data/ folder.

    If `root` is itself a folder inside a corpus, it is read completely.
    """
    top, is_known_corpus = Path(root), functools.cache(is_corpus)

    def is_left_out(folder: Path) -> bool:
        above = [folder, *folder.parents]
        folders = iter(above[: above.index(top) + 1])
        for folder in folders:
            if is_known_corpus(folder):
                return True
            if folder != top and folder.name == DATA and is_known_corpus(folder.parent):
                next(folders)  # the corpus itself, whose documents these are
        return False

    return [path for path in paths if not is_left_out(Path(path).parent)]


def files_below(folder: str) -> Iterator[str]:
    """Yield every file below a folder, without hidden ones. Links are followed, but no folder is searched twice."""
    searched, level = set(), [folder]
    while level:
        inside, level = level, []
        for current in inside:
            real = os.path.realpath(current)
            if real in searched:
                continue
            searched.add(real)
            try:
                names = sorted(os.listdir(current))
            except OSError as error:
                raise UsageError(
                    f"{current} cannot be read ({error.strerror})",
                    "a readable folder",
                    "check its permissions",
                ) from error
            for path in (os.path.join(current, name) for name in names if not name.startswith(".")):
                if os.path.isdir(path):
                    level.append(path)
                else:
                    yield path


def _is_url(name: str) -> bool:
    return urlparse(name).scheme in ("http", "https")


def _searched(name: str) -> tuple[list[str], Counter]:
    """Return the text files of a folder or glob, sorted, and the number of other files by ending."""
    root, matches = name, [name]
    if not os.path.isdir(name):
        root = str(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(name).parts)))
        matches = glob.glob(name, recursive=True)
    paths = (path for match in matches for path in (files_below(match) if os.path.isdir(match) else [match]))
    paths = sorted(documents_only(list(_unique_files(map(str, map(Path, paths)))), root))
    paths = [path for path in paths if not (os.path.isfile(path) and os.path.getsize(path) == 0)]  # as __init__.py
    others = Counter(_shown_ending(path) for path in paths if not ending_of(path))
    return [path for path in paths if ending_of(path)], others


def _shown_ending(path: str) -> str:
    endings = [ending.lower() for ending in Path(path).suffixes]
    ending = "".join(endings[-2:] if endings and endings[-1] in ARCHIVES else endings[-1:])
    return ending.encode(errors="replace").decode()[:16] or "none"


def _unique_files(paths: Iterable[str]) -> Iterator[str]:
    """Yield each file once, by its shortest path; links can lead to the same file by many paths."""
    seen = set()
    for path in sorted(paths, key=lambda path: (len(path), path)):
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path


@functools.cache  # a process reads the same bytes that it hashed, and waits only once for a server that is down
def _download(url: str) -> File:
    """Download a URL into the cache of `datasets`, under a name with the right ending.

    The file is downloaded again if its ETag changed, or without an ETag its date or size. If the server cannot be reached, an
    earlier copy is used.
    """
    from datasets import DownloadConfig, DownloadManager, config

    name = Path(urlparse(url).path).name
    if not ending_of(name):
        raise UsageError(
            f"{redacted(url)} has an unknown ending", f"one of {KNOWN_ENDINGS}", "download it and rename the file"
        )
    note = Path(config.DOWNLOADED_DATASETS_PATH) / f"{hashlib.sha256(url.encode()).hexdigest()}-tinygpt.json"
    try:
        known = storage.read_json(note)
        there = os.path.isfile(known["path"])
    except (OSError, RunError, LookupError, TypeError):
        known, there = {}, False
    try:
        version = None if config.HF_HUB_OFFLINE else _version(url)
        same = version is not None and "Last-Modified" in version and version == known.get("version")
        is_stale = version is not None and "ETag" not in version and not same  # `datasets` compares ETags itself
        local = DownloadManager(download_config=DownloadConfig(force_download=is_stale)).download(url)
    except Exception as error:  # aiohttp, httpx and fsspec have no common class of errors
        reason = redacted(first_words(error.__cause__ or error))
        if there:
            day = time.strftime("%Y-%m-%d", time.localtime(os.path.getmtime(note)))
            return File(
                known["path"], redacted(url), f"{redacted(url)} cannot be reached ({reason}): the copy of {day} is read"
            )
        raise UsageError(
            f"{redacted(url)} cannot be downloaded ({reason})", "a reachable file", "check the address"
        ) from error
    named = Path(f"{local}-{name}")
    with contextlib.suppress(FileExistsError):
        named.symlink_to(os.path.basename(local))
    if known != (now := {"path": str(named), "version": version}):
        note.parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(note, now)
    return File(str(named), redacted(url))


def _version(url: str) -> dict | None:
    """Return the ETag, date and size that the server gives for a file; None if it does not answer."""
    from fsspec.core import url_to_fs

    with contextlib.suppress(Exception):  # the download that follows reports the error
        filesystem, path = url_to_fs(url)
        info = filesystem.info(path)
        return {name: info[name] for name in ("ETag", "Last-Modified", "size") if info.get(name)}
    return None
