"""Bytes -> text: archives are unpacked on the way, UTF-8 is checked and its faults are named with their place.

source = TextFile("books.txt.gz")
with source.open() as file:
    for piece in source.pieces(file): ...         # str, about a megabyte each
text = LongText(source)                           # a text nobody holds: its length, its slices, its pieces

What a long text's length is, and where its characters lie, is learned while it is read for the first time (`Survey`), and known
from then on: a slice of a file that is no archive is read from near its first character on.
"""

import bisect
import bz2
import codecs
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from typing import Any, cast

import psutil

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.reporter import SILENT, Reporter

ARCHIVES = (".gz", ".bz2", ".xz", ".zst")
NEWLINE = b"\n"
CHUNK = 1 << 20  # bytes read at once
LONG = 1 << 24  # bytes; a longer text file is read in pieces where that is asked for
# What is read in one piece (a text, a line, a cell, a packed table) may take an eighth of this machine's memory.
LARGEST = psutil.virtual_memory().total // 8
# No archive of text unpacks to 200 times its size; what does, and is large, is a bomb.
MOST_EXPANSION, SMALL_ENOUGH = 200, 1 << 28
TO_UTF8 = "convert it: iconv -f ENCODING -t UTF-8 OLD > NEW, or read it with --encoding_errors replace"
KINDS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # which begins as UTF-16 does
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bz2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a parquet file",
    b"%PDF-": "a PDF file",
}


class _Heard(io.RawIOBase):
    """A file whose bytes are told as they are read."""

    def __init__(self, path: str, reporter: Reporter):
        self.path, self.reporter = path, reporter
        self.file = open(path, "rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.file.readinto(buffer)
        self.reporter.read(self.path, count, memoryview(buffer)[:count])
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def close(self) -> None:
        self.file.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """What a file holds, unpacked; stops at a bomb."""

    def __init__(self, path: str, reporter: Reporter):
        self.path, self.size = path, 0
        self.file = cast(Any, _Heard(path, reporter))
        ending = os.path.splitext(path)[1].lower()
        if ending == ".gz":
            self.stream: Any = gzip.GzipFile(fileobj=self.file, mode="rb")
        elif ending == ".bz2":
            self.stream = bz2.BZ2File(self.file)
        elif ending == ".xz":
            self.stream = lzma.LZMAFile(self.file)
        elif ending == ".zst":
            import pyarrow  # `datasets` needs it anyway

            self.stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(self.file), "zstd")
        else:
            self.stream = self.file
        self.most = max(SMALL_ENOUGH, MOST_EXPANSION * os.path.getsize(path))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.stream.readinto(buffer)
        self.size += count
        if self.size > self.most and self.stream is not self.file:
            raise UsageError(
                f"{self.path} unpacks to more than {self.size / 1e6:.0f} MB",
                f"at most {MOST_EXPANSION} times its {os.path.getsize(self.path)} bytes: text packs no better",
                "unpack it yourself if you trust it",
            )
        return count

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
            self.file.close()
        super().close()


@contextlib.contextmanager
def read_errors(path: str):
    """What opening and decompressing may raise, as one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(
            f"{path} cannot be read ({first_words(error)})", "a readable file", "check the file"
        ) from error


def first_words(error: BaseException) -> str:
    """The first line of what a library complains about."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class TextFile:
    """One file as text. `reporter` hears of the bytes of it that are read; `replaced` counts what was no UTF-8; a text that holds
    the `marker` is refused."""

    def __init__(
        self, path: str, encoding_errors: str = "strict", reporter: Reporter = SILENT, marker: str | None = None
    ):
        self.path, self.encoding_errors, self.reporter, self.marker = path, encoding_errors, reporter, marker
        self.replaced = 0

    def again(self, reporter: Reporter = SILENT) -> "TextFile":
        """The same file for another reading."""
        return TextFile(self.path, self.encoding_errors, reporter, self.marker)

    @property
    def is_packed(self) -> bool:
        return self.path.lower().endswith(ARCHIVES)

    def open(self, offset: int = 0) -> io.BufferedReader:
        raw = _Unpacked(self.path, self.reporter)
        raw.file.seek(offset)  # only of a file that is no archive
        return io.BufferedReader(raw, CHUNK)

    def take_replaced(self) -> int:
        """How many faults were replaced since this was asked last."""
        count, self.replaced = self.replaced, 0
        return count

    def refuse_other_kinds(self, head: bytes) -> None:
        """Say what a file is that is no text."""
        for mark, kind in KINDS.items():
            if head.startswith(mark):
                is_text = kind.startswith("UTF-")
                what = TO_UTF8.replace("ENCODING", kind).partition(",")[0] if is_text else "rename or unpack it"
                raise UsageError(f"{self.path} is {kind}", "UTF-8 text", what)

    def refuse_marker(self, text: str) -> None:
        """Say what to do about a border of documents that would be trained on as text."""
        if self.marker and self.marker in text:
            raise UsageError(
                f"{self.path} holds {self.marker}",
                "a text without borders, or a setting for them",
                f"give --document_separator '{self.marker}' to cut it there, or --document_separator whole_file to take it as text",
            )

    def in_bounds(self, data):
        """What was read with a limit of LARGEST + 1."""
        if len(data) > LARGEST:
            wanted = f"at most {LARGEST / 1e9:.1f} GB, an eighth of this machine's memory"
            raise UsageError(
                f"{self.path} unpacks to more in one piece", wanted, "cut it into documents, or use a larger machine"
            )
        return data

    def up_to(self, file, most: int) -> bytes:
        """The first `most` + 1 bytes; memory is taken as they come."""
        data = bytearray()
        while len(data) <= most and (piece := file.read(min(CHUNK, most + 1 - len(data)))):
            data += piece
        return bytes(data)

    def whole(self, file) -> bytes:
        return self.in_bounds(self.up_to(file, LARGEST))

    def lines(self, file) -> Iterator[bytes]:
        while line := self.in_bounds(file.readline(LARGEST + 1)):
            yield line

    def decode(self, data: bytes, where: str, offset: int = 0, lines: int | None = None) -> str:
        """UTF-8 as text; a fault is refused with its place, or replaced and counted.

        `offset`, `lines`: bytes and lines of the file before `data`; no lines: `where` says the line already.
        """
        if offset == 0 and data.startswith(codecs.BOM_UTF8):
            data, offset = data[3:], 3
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            if self.encoding_errors == "strict":
                line = "" if lines is None else f"line {lines + 1 + data.count(NEWLINE, 0, error.start)}, "
                place = f"{line}byte {offset + error.start} is 0x{data[error.start]:02x}"
                raise UsageError(f"{where} is no UTF-8 text ({place})", "UTF-8", TO_UTF8) from None
            text = data.decode(errors="replace")
            self.replaced += text.count("\ufffd") - data.count("\ufffd".encode())
        if "\x00" in text:
            raise UsageError(f"{where} is binary (it holds NUL bytes)", "text", "name a text file")
        return text

    def pieces(self, file) -> Iterator[str]:
        """All of a text, about a megabyte at a time."""
        return (piece for _, piece in self.placed_pieces(file))

    def placed_pieces(self, file, offset: int = 0) -> Iterator[tuple[int, str]]:
        """The same with the place of the first byte of each; of a file that was opened at `offset`, from there on."""
        lines, held, before = 0, b"", ""
        if not offset:
            self.refuse_other_kinds(file.peek(8)[:8])
        while True:
            data = file.read(CHUNK)
            block = held + data
            begun = _begun(block) if data else 0
            block, held = block[: len(block) - begun], block[len(block) - begun :]
            if text := self.decode(block, self.path, offset, lines):
                if self.marker:
                    self.refuse_marker(before + text)
                    before = text[-len(self.marker) :]
                yield offset, text
            offset, lines = offset + len(block), lines + block.count(NEWLINE)
            if not data:
                return


def _begun(block: bytes) -> int:
    """How many bytes at the end are the beginning of a character whose rest is not here."""
    for count in range(1, min(3, len(block)) + 1):
        byte = block[-count]
        if byte & 0xC0 != 0x80:
            whole = 4 if byte >> 3 == 0b11110 else 3 if byte >> 4 == 0b1110 else 2 if byte >> 5 == 0b110 else 1
            return count if whole > count else 0
    return 0


class Survey:
    """What one reading of a long text tells: its length in characters, where each of its pieces begins (character and byte), how
    many faults were replaced, and the hashes of it that were asked for."""

    def __init__(self):
        self.length: int | None = None  # None until it was read to its end
        self.replaced = 0
        self.characters: list[int] = []
        self.bytes: list[int] = []
        self.hashes: dict[str, float] = {}


_SURVEYS: dict[tuple, Survey] = {}  # of this process, by what tells one state of a file from another


def survey_of(path: str, encoding_errors: str) -> Survey:
    """What is known of a file as it is now."""
    state = os.stat(path)
    key = os.path.abspath(path), encoding_errors, state.st_size, state.st_mtime_ns, state.st_ino, CHUNK
    return _SURVEYS.setdefault(key, Survey())


class LongText:
    """A text that is not held: len() and slices in characters as of a str, and `pieces()`; each reading opens the file."""

    def __init__(self, source: TextFile, bounds: tuple[int, int | None] = (0, None)):
        self.source, (self.start, self.stop) = source, bounds
        self.survey = survey_of(source.path, source.encoding_errors)

    @property
    def is_surveyed(self) -> bool:
        """Is its length known without another reading?"""
        return self.survey.length is not None

    def __len__(self) -> int:
        if not self.is_surveyed:
            for _ in LongText(self.source.again()).pieces():
                pass
        return (self.survey.length if self.stop is None else self.stop) - self.start

    def __getitem__(self, part: slice) -> "LongText":
        start, stop, _ = part.indices(len(self))
        return LongText(self.source, (self.start + start, self.start + max(start, stop)))

    def pieces(self, tell: bool = True) -> Iterator[str]:
        """The text, about a megabyte at a time. Not `tell`: nobody hears of the bytes, for a reading that is not the last."""
        known = self.survey
        hearing = _From(self.source.reporter if tell else SILENT)
        reading = self.source.again(hearing)
        position = offset = 0
        if self.start and self.is_surveyed and not self.source.is_packed:
            nearest = max(0, bisect.bisect_right(known.characters, self.start) - 1)
            position, offset = known.characters[nearest], known.bytes[nearest]
        hearing.telling = position >= self.start  # what is skipped was told of when it was read
        with read_errors(self.source.path), reading.open(offset) as file:
            places: list[tuple[int, int]] = []
            digest = salted_hash("validation")
            for byte, piece in reading.placed_pieces(file, offset):
                if not self.is_surveyed:
                    places.append((position, byte))
                    digest.update(piece.encode())
                begin, position = position, position + len(piece)
                hearing.telling = position >= self.start
                if position > self.start:
                    yield piece[max(0, self.start - begin) : None if self.stop is None else self.stop - begin]
                if self.stop is not None and position >= self.stop:
                    return
        if not offset and not self.is_surveyed:
            known.hashes["validation"] = fraction(digest)
            known.characters, known.bytes = map(list, zip(*places, strict=True)) if places else ([], [])
            known.length, known.replaced = position, reading.replaced

    def hash(self, salt: str) -> float:
        """A number in [0, 1) that depends on the text and the salt only."""
        whole = self.start == 0 and (self.stop is None or self.stop == self.survey.length)
        if not whole or salt not in self.survey.hashes:
            digest = salted_hash(salt)
            for piece in self.pieces(tell=False):
                digest.update(piece.encode())
            found = fraction(digest)
            if not whole:
                return found
            self.survey.hashes[salt] = found
        return self.survey.hashes[salt]

    def __str__(self) -> str:
        """All of it, where it must be held."""
        self.source.in_bounds(range(len(self)))
        return "".join(self.pieces())


class _From(Reporter):
    """Tells of bytes only once it is told to."""

    def __init__(self, reporter: Reporter):
        self.reporter, self.telling = reporter, False

    def read(self, path: str, count: int, data=None) -> None:
        if self.telling:
            self.reporter.read(path, count, data)


def salted_hash(salt: str):
    """The hash by which the fate of a document is decided."""
    return hashlib.blake2b(digest_size=8, key=salt.encode())


def fraction(digest) -> float:
    """A digest of 8 bytes as a number in [0, 1)."""
    return int.from_bytes(digest.digest(), "big") / 2**64


def pieces_of(text: "str | LongText", tell: bool = True) -> Iterator[str]:
    """Any text in pieces: an ordinary one is one."""
    if isinstance(text, LongText):
        yield from text.pieces(tell)
    else:
        yield text
