"""Decode files to text: decompress archives, check UTF-8, and name the position of invalid bytes.

source = TextFile("books.txt.gz")
with source.open() as file:
    for piece in source.pieces(file): ...         # str, about a megabyte each
text = LongText(source)                           # len(), slices and pieces without holding the text in memory

The first complete reading of a long text records its length and the positions of its pieces (`Survey`). After that a slice of
an uncompressed file is read from near its first character.
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
LONG = 1 << 24  # bytes; a longer text file is read in pieces if the caller wants that
# A text, line, cell or compressed table that is read at once may take an eighth of this machine's memory.
LARGEST = psutil.virtual_memory().total // 8
# Text does not compress to 1/200 of its size; a large archive that claims to is a decompression bomb.
MOST_EXPANSION, SMALL_ENOUGH = 200, 1 << 28
TO_UTF8 = "convert it: iconv -f ENCODING -t UTF-8 OLD > NEW, or read it with --encoding_errors replace"
KINDS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # must come before UTF-16, which is its prefix
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


class _ReportedFile(io.RawIOBase):
    """A file that reports the bytes read from it."""

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


class _DecompressedFile(io.RawIOBase):
    """The decompressed content of an archive; reading raises UsageError at a decompression bomb."""

    def __init__(self, path: str, reporter: Reporter):
        self.path, self.size = path, 0
        self.file = cast(Any, _ReportedFile(path, reporter))
        ending = os.path.splitext(path)[1].lower()
        if ending == ".gz":
            self.stream: Any = gzip.GzipFile(fileobj=self.file, mode="rb")
        elif ending == ".bz2":
            self.stream = bz2.BZ2File(self.file)
        elif ending == ".xz":
            self.stream = lzma.LZMAFile(self.file)
        else:
            import pyarrow  # a dependency of `datasets`

            self.stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(self.file), "zstd")
        self.most = max(SMALL_ENOUGH, MOST_EXPANSION * os.path.getsize(path))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.stream.readinto(buffer)
        self.size += count
        if self.size > self.most:
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
    """Turn errors of opening and decompressing into a UsageError."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(
            f"{path} cannot be read ({first_words(error)})", "a readable file", "check the file"
        ) from error


def first_words(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class TextFile:
    """A file decoded as UTF-8 text.

    `reporter` gets the bytes read, `replaced` counts replaced invalid sequences, and a text that contains `marker` is refused.
    """

    def __init__(
        self, path: str, encoding_errors: str = "strict", reporter: Reporter = SILENT, marker: str | None = None
    ):
        self.path, self.encoding_errors, self.reporter, self.marker = path, encoding_errors, reporter, marker
        self.replaced = 0

    def with_reporter(self, reporter: Reporter) -> "TextFile":
        """Return the same file with another reporter and a new count of replaced sequences."""
        return TextFile(self.path, self.encoding_errors, reporter, self.marker)

    @property
    def is_packed(self) -> bool:
        return self.path.lower().endswith(ARCHIVES)

    def open(self, offset: int = 0) -> io.BufferedReader:
        """Open the file for reading; an `offset` is for uncompressed files only."""
        if self.is_packed:
            return io.BufferedReader(_DecompressedFile(self.path, self.reporter), CHUNK)
        raw = _ReportedFile(self.path, self.reporter)
        raw.seek(offset)
        return io.BufferedReader(raw, CHUNK)

    def take_replaced(self) -> int:
        """Return the number of invalid sequences replaced since the last call."""
        count, self.replaced = self.replaced, 0
        return count

    def refuse_other_kinds(self, head: bytes) -> None:
        """Raise UsageError if the first bytes are those of a known format that is not UTF-8 text."""
        for mark, kind in KINDS.items():
            if head.startswith(mark):
                is_text = kind.startswith("UTF-")
                what = TO_UTF8.replace("ENCODING", kind).partition(",")[0] if is_text else "rename or unpack it"
                raise UsageError(f"{self.path} is {kind}", "UTF-8 text", what)

    def refuse_marker(self, text: str) -> None:
        """Raise UsageError if the text holds the document marker, which would be trained on as text."""
        if self.marker and self.marker in text:
            raise UsageError(
                f"{self.path} holds {self.marker}",
                "a text without borders, or a setting for them",
                f"give --document_separator '{self.marker}' to cut it there, or --document_separator whole_file to take it as text",
            )

    def check_size(self, data):
        """Return `data`; raises UsageError if it is longer than LARGEST."""
        if len(data) > LARGEST:
            wanted = f"at most {LARGEST / 1e9:.1f} GB, an eighth of this machine's memory"
            raise UsageError(
                f"{self.path} unpacks to more in one piece", wanted, "cut it into documents, or use a larger machine"
            )
        return data

    def read_up_to(self, file, most: int) -> bytes:
        """Read at most `most` + 1 bytes, in chunks, so that memory grows with the file and not with the limit."""
        data = bytearray()
        while len(data) <= most and (piece := file.read(min(CHUNK, most + 1 - len(data)))):
            data += piece
        return bytes(data)

    def read_all(self, file) -> bytes:
        return self.check_size(self.read_up_to(file, LARGEST))

    def lines(self, file) -> Iterator[bytes]:
        while line := self.check_size(file.readline(LARGEST + 1)):
            yield line

    def decode(self, data: bytes, where: str, offset: int = 0, lines: int | None = None) -> str:
        """Decode UTF-8; invalid bytes raise UsageError with their position, or are replaced and counted.

        `offset` and `lines` are the bytes and lines of the file before `data`; without `lines`, `where` already has the line.
        """
        if offset == 0 and data.startswith(codecs.BOM_UTF8):
            data, offset = data[3:], 3
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            if self.encoding_errors == "strict":
                line = "" if lines is None else f"line {lines + 1 + data.count(NEWLINE, 0, error.start)}, "
                place = f"{line}byte {offset + error.start} is 0x{data[error.start]:02x}"
                raise UsageError(f"{where} is not valid UTF-8 ({place})", "UTF-8", TO_UTF8) from None
            text = data.decode(errors="replace")
            self.replaced += text.count("\ufffd") - data.count("\ufffd".encode())
        if "\x00" in text:
            raise UsageError(f"{where} is binary (it holds NUL bytes)", "text", "name a text file")
        return text

    def pieces(self, file) -> Iterator[str]:
        """Yield the text, about a megabyte at a time."""
        return (piece for _, piece in self.pieces_with_offsets(file))

    def pieces_with_offsets(self, file, offset: int = 0) -> Iterator[tuple[int, str]]:
        """Yield (offset of its first byte, piece) of a file opened at `offset`, about a megabyte at a time."""
        lines, held, before = 0, b"", ""
        if not offset:
            self.refuse_other_kinds(file.peek(8)[:8])
        while True:
            data = file.read(CHUNK)
            block = held + data
            cut = len(block) - (_incomplete_bytes(block) if data else 0)
            block, held = block[:cut], block[cut:]
            if text := self.decode(block, self.path, offset, lines):
                if self.marker:
                    self.refuse_marker(before + text)
                    before = text[-len(self.marker) :]
                yield offset, text
            offset, lines = offset + len(block), lines + block.count(NEWLINE)
            if not data:
                return


def _incomplete_bytes(block: bytes) -> int:
    """Return the number of bytes at the end of `block` that begin an incomplete UTF-8 character."""
    tail = block[-3:]  # a character has at most four bytes
    _, complete = codecs.utf_8_decode(tail, "replace", False)
    return len(tail) - complete


class Survey:
    """The results of one complete reading of a long text: length, replaced sequences, piece positions and hashes."""

    def __init__(self):
        self.length: int | None = None  # in characters; None until the text was read to its end
        self.replaced = 0
        self.characters: list[int] = []  # first character of each piece
        self.bytes: list[int] = []  # first byte of each piece
        self.hashes: dict[str, float] = {}  # by salt


_SURVEYS: dict[tuple, Survey] = {}  # by path, size, modification time and settings; for the life of the process


def survey_of(path: str, encoding_errors: str) -> Survey:
    """Return the survey of a file in its current state, empty if it was not read yet."""
    state = os.stat(path)
    key = os.path.abspath(path), encoding_errors, state.st_size, state.st_mtime_ns, state.st_ino, CHUNK
    return _SURVEYS.setdefault(key, Survey())


class LongText:
    """A text read from its file on demand, with len(), slices (in characters) and `pieces()`."""

    def __init__(self, source: TextFile, bounds: tuple[int, int | None] = (0, None)):
        self.source, (self.start, self.stop) = source, bounds
        self.survey = survey_of(source.path, source.encoding_errors)

    @property
    def is_surveyed(self) -> bool:
        """Return whether the length is known without reading the file."""
        return self.survey.length is not None

    def __len__(self) -> int:
        if not self.is_surveyed:
            for _ in LongText(self.source.with_reporter(SILENT)).pieces():
                pass
        return (self.survey.length if self.stop is None else self.stop) - self.start

    def __getitem__(self, part: slice) -> "LongText":
        start, stop, _ = part.indices(len(self))
        return LongText(self.source, (self.start + start, self.start + max(start, stop)))

    def pieces(self, report: bool = True) -> Iterator[str]:
        """Yield the text, about a megabyte at a time; `report` False suppresses progress, for an additional reading."""
        known = self.survey
        reporter = _SwitchedReporter(self.source.reporter if report else SILENT)
        reading = self.source.with_reporter(reporter)
        position = offset = 0
        if self.start and self.is_surveyed and not self.source.is_packed:
            nearest = max(0, bisect.bisect_right(known.characters, self.start) - 1)
            position, offset = known.characters[nearest], known.bytes[nearest]
        reporter.is_on = position >= self.start  # skipped bytes were reported by an earlier reading
        with read_errors(self.source.path), reading.open(offset) as file:
            places: list[tuple[int, int]] = []
            digest = salted_hash("validation")
            for byte, piece in reading.pieces_with_offsets(file, offset):
                if not self.is_surveyed:
                    places.append((position, byte))
                    digest.update(piece.encode())
                begin, position = position, position + len(piece)
                reporter.is_on = position >= self.start
                if position > self.start:
                    yield piece[max(0, self.start - begin) : None if self.stop is None else self.stop - begin]
                if self.stop is not None and position >= self.stop:
                    return
        if not offset and not self.is_surveyed:
            known.hashes["validation"] = fraction(digest)
            known.characters, known.bytes = map(list, zip(*places, strict=True)) if places else ([], [])
            known.length, known.replaced = position, reading.replaced

    def hash(self, salt: str) -> float:
        """Return a number in [0, 1) that depends on the text and the salt only."""
        whole = self.start == 0 and (self.stop is None or self.stop == self.survey.length)
        if not whole or salt not in self.survey.hashes:
            digest = salted_hash(salt)
            for piece in self.pieces(report=False):
                digest.update(piece.encode())
            value = fraction(digest)
            if not whole:
                return value
            self.survey.hashes[salt] = value
        return self.survey.hashes[salt]

    def __str__(self) -> str:
        """Return the whole text; raises UsageError if it is longer than LARGEST."""
        self.source.check_size(range(len(self)))
        return "".join(self.pieces())


class _SwitchedReporter(Reporter):
    """A reporter that passes on the bytes read while `is_on`."""

    def __init__(self, reporter: Reporter):
        self.reporter, self.is_on = reporter, False

    def read(self, path: str, count: int, data=None) -> None:
        if self.is_on:
            self.reporter.read(path, count, data)


def salted_hash(salt: str):
    """Return a new hash object, keyed by `salt`, for splitting and repeating documents."""
    return hashlib.blake2b(digest_size=8, key=salt.encode())


def fraction(digest) -> float:
    """Return an 8-byte digest as a number in [0, 1)."""
    return int.from_bytes(digest.digest(), "big") / 2**64


def pieces_of(text: "str | LongText", report: bool = True) -> Iterator[str]:
    """Yield the pieces of a long text, or an ordinary text as one piece."""
    if isinstance(text, LongText):
        yield from text.pieces(report)
    else:
        yield text
