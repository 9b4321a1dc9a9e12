"""Bytes -> text: archives are unpacked on the way, UTF-8 is checked and its faults are named with their place.

source = TextFile("books.txt.gz")
with source.open() as file:
    for piece in source.pieces(file): ...         # str, about a megabyte each
text = LongText(source)                           # a text nobody holds: its length, its slices, its pieces
"""

import bz2
import codecs
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from tinygpt_hf.errors import UsageError


def machine_memory() -> int:
    """Bytes of memory this machine has."""
    return psutil.virtual_memory().total


ARCHIVES = (".gz", ".bz2", ".xz", ".zst")
NEWLINE = b"\n"
CHUNK = 1 << 20  # bytes read at once
LONG = 1 << 24  # bytes; a longer text file is read in pieces where that is asked for
# What is read in one piece (a text, a line, a cell, a packed table) may take an eighth of this machine's memory.
LARGEST = machine_memory() // 8
# No archive of text unpacks to 200 times its size; what does, and is large, is a bomb.
MOST_EXPANSION, SMALL_ENOUGH = 200, 1 << 28
TO_UTF8 = "convert it: iconv -f ENCODING -t UTF-8 OLD > NEW, or read it with --encoding_errors replace"
KINDS = {
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


class _Unpacked(io.RawIOBase):
    """What a file holds, unpacked; tells how many bytes of the file were read, and stops at a bomb."""

    def __init__(self, path: str, seen: Callable[[int], None]):
        self.path, self.seen, self.told, self.size = path, seen, 0, 0
        self.file = open(path, "rb", buffering=0)
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
        position = self.file.tell()
        self.seen(position - self.told)
        self.told = position
        return count

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
            self.file.close()
        super().close()


class TextFile:
    """One file as text. `seen` is called with the bytes of it that were read; `replaced` counts what was no UTF-8."""

    def __init__(self, path: str, encoding_errors: str = "strict", seen: Callable[[int], None] = lambda count: None):
        self.path, self.encoding_errors, self.seen = path, encoding_errors, seen
        self.replaced = 0

    def open(self) -> io.BufferedReader:
        return io.BufferedReader(_Unpacked(self.path, self.seen), CHUNK)

    def take_replaced(self) -> int:
        """How many faults were replaced since this was asked last."""
        count, self.replaced = self.replaced, 0
        return count

    def refuse_other_kinds(self, head: bytes) -> None:
        """Say what a file is that is no text."""
        for mark, kind in KINDS.items():
            if head.startswith(mark):
                what = (
                    TO_UTF8.replace("ENCODING", kind).partition(",")[0] if kind == "UTF-16" else "rename or unpack it"
                )
                raise UsageError(f"{self.path} is {kind}", "UTF-8 text", what)

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
        offset, lines, held = 0, 0, b""
        self.refuse_other_kinds(file.peek(8)[:8])
        while True:
            data = file.read(CHUNK)
            block = held + data
            begun = _begun(block) if data else 0
            block, held = block[: len(block) - begun], block[len(block) - begun :]
            if text := self.decode(block, self.path, offset, lines):
                yield text
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


class LongText:
    """A text that is not held: len() and slices in characters as of a str, and `pieces()`; each reading opens the file.

    Making one reads the file once, checks it and counts its characters.
    """

    def __init__(self, source: TextFile, bounds: tuple[int, int] | None = None):
        self.source = source
        if bounds is None:
            counting = TextFile(source.path, source.encoding_errors)
            with counting.open() as file:
                bounds = 0, sum(map(len, counting.pieces(file)))
            source.replaced += counting.replaced
        self.start, self.stop = bounds

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "LongText":
        start, stop, _ = part.indices(len(self))
        return LongText(self.source, (self.start + start, self.start + max(start, stop)))

    def pieces(self, tell: bool = True) -> Iterator[str]:
        """The text, about a megabyte at a time. Not `tell`: `seen` is not called, for a reading that is not the last."""
        position = 0
        inside = lambda count: self.source.seen(count) if tell and position >= self.start else None  # noqa: E731
        reading = TextFile(self.source.path, self.source.encoding_errors, inside)
        with reading.open() as file:
            for piece in reading.pieces(file):
                begin, position = position, position + len(piece)
                if position > self.start:
                    yield piece[max(0, self.start - begin) : self.stop - begin]
                if position >= self.stop:
                    return

    def __str__(self) -> str:
        """All of it, where it must be held."""
        self.source.in_bounds(range(len(self)))
        return "".join(self.pieces())


def pieces_of(text: "str | LongText", tell: bool = True) -> Iterator[str]:
    """Any text in pieces: an ordinary one is one."""
    if isinstance(text, LongText):
        yield from text.pieces(tell)
    else:
        yield text
