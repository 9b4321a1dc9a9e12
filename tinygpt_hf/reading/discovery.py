"""Names of files, folders, globs and URLs -> the files that are read.

Folders, and those a glob matches, are searched for all below them, in the order of the names. Links are followed, and each file
is read once. Hidden and empty files are passed over; those whose ending is not known (formats.py) are counted. Of a
prepared corpus only data/ is read. URLs are downloaded once.

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
from tinygpt_hf.reading.decoding import ARCHIVES
from tinygpt_hf.reading.formats import KNOWN_ENDINGS, ending_of, first_words, is_utf8

# A folder that prepare-corpus wrote: corpus.json names its format, data/ holds its documents.
CORPUS, FORMAT, DATA = "corpus.json", "tinygpt-corpus-1", "data"


class File(NamedTuple):
    """A file that is read, and what its documents' origins call it: its path, or the URL it came from without secrets."""

    path: str
    name: str
    note: str | None = None  # where something about it was not as it should be


def find_files(names: Iterable[str]) -> list[File]:
    """Files, globs, folders and URLs as local files. Folders are searched recursively; URLs are downloaded once."""
    found: list[File] = []
    for name in names:
        if _is_url(name):
            found.append(_download(name))
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
                raise UsageError(f"the file name {path!r} is no UTF-8", "a name in UTF-8", "rename the file")
            if not os.path.isfile(path):  # a pipe would be waited for, /dev/zero read for ever
                what = "a pipe, device or socket" if os.path.exists(path) else "a link that leads nowhere"
                raise UsageError(f"{path} is {what}", "a file", "write its text to a file, or name another one")
            found.append(File(path, path))
    return found


def skipped_endings(names: Iterable[str]) -> dict[str, int]:
    """How many files in the folders and globs among these names are not read, by their ending, the commonest first."""
    searched = (name for name in names if not _is_url(name) and not os.path.isfile(name))
    return dict(sum((_searched(name)[1] for name in searched), Counter()).most_common())


def is_corpus(folder: Path) -> bool:
    """Did prepare-corpus write this folder? A data set that happens to be called corpus.json is none of ours."""
    try:
        with open(folder / CORPUS, encoding="utf-8") as file:
            return FORMAT in file.read(100) and (folder / DATA).is_dir()
    except (OSError, UnicodeDecodeError):
        return False


def documents_only(paths: list[str], root: str) -> list[str]:
    """The paths without those of a prepared corpus at or below `root` that hold none of its documents: only its data/ is read.
    A folder of a corpus that is itself the root is read as it stands."""
    top, known = Path(root), {}

    def left_out(folder: Path) -> bool:
        if folder != top and top not in folder.parents:
            return False
        if folder not in known:
            if is_corpus(folder):
                known[folder] = True
            else:
                is_data = folder != top and folder.name == DATA and is_corpus(folder.parent)
                known[folder] = left_out(folder.parent.parent if is_data else folder.parent)
        return known[folder]

    return [path for path in paths if not left_out(Path(path).parent)]


def files_below(folder: str) -> Iterator[str]:
    """Every file below a folder but hidden ones. Links are followed, though never into a folder that was searched before."""
    searched, level = set(), [folder]
    while level:
        inside, level = level, []
        for place in inside:
            real = os.path.realpath(place)
            if real in searched:
                continue
            searched.add(real)
            try:
                names = sorted(os.listdir(place))
            except OSError as error:
                raise UsageError(
                    f"{place} cannot be read ({error.strerror})",
                    "a readable folder",
                    "check its permissions",
                ) from error
            for path in (os.path.join(place, name) for name in names if not name.startswith(".")):
                if os.path.isdir(path):
                    level.append(path)
                else:
                    yield path


def _is_url(name: str) -> bool:
    return urlparse(name).scheme in ("http", "https")


def _searched(name: str) -> tuple[list[str], Counter]:
    """The files of text in a folder, or in what a glob matches, by name, and how many others there are of which ending."""
    root, places = name, [name]
    if not os.path.isdir(name):
        root = str(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(name).parts)))
        places = glob.glob(name, recursive=True)
    paths = (path for place in places for path in (files_below(place) if os.path.isdir(place) else [place]))
    paths = sorted(documents_only(list(_once(map(str, map(Path, paths)))), root))
    paths = [path for path in paths if not (os.path.isfile(path) and os.path.getsize(path) == 0)]  # __init__.py
    others = Counter(_shown_ending(path) for path in paths if not ending_of(path))
    return [path for path in paths if ending_of(path)], others


def _shown_ending(path: str) -> str:
    endings = [ending.lower() for ending in Path(path).suffixes]
    ending = "".join(endings[-2:] if endings and endings[-1] in ARCHIVES else endings[-1:])
    return ending.encode(errors="replace").decode()[:16] or "none"


def _once(paths: Iterable[str]) -> Iterator[str]:
    """Each file by its shortest path: a link to a folder above it shows it again and again."""
    seen = set()
    for path in sorted(paths, key=lambda path: (len(path), path)):
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path


@functools.cache  # in one process what was hashed is what is read, and a server that does not answer is waited for once
def _download(url: str) -> File:
    """The file behind a URL, in the cache of `datasets`, under a name with the right ending. It is downloaded again where its
    ETag, or for want of one its date or size, has changed; where that cannot be asked, the copy of an earlier time is read.
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
        again = version is not None and "ETag" not in version and not same  # it looks after ETags itself
        local = DownloadManager(download_config=DownloadConfig(force_download=again)).download(url)
    except Exception as error:  # aiohttp, httpx and fsspec share no class of errors
        reason = redacted(first_words(error.__cause__ or error))
        if there:
            day = time.strftime("%Y-%m-%d", time.localtime(os.path.getmtime(note)))
            return File(
                known["path"], redacted(url), f"{redacted(url)} cannot be asked ({reason}): the copy of {day} is read"
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
    """What the server says of a file that changes with it; None where it says nothing (it may want to know who asks)."""
    from fsspec.core import url_to_fs

    with contextlib.suppress(Exception):  # the download that follows tells what is wrong
        filesystem, path = url_to_fs(url)
        told = filesystem.info(path)
        return {name: told[name] for name in ("ETag", "Last-Modified", "size") if told.get(name)}
    return None
