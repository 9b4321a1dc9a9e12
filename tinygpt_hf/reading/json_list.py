"""Read the entries of a JSON list one by one; memory holds a window of the text and one entry.

with source.open() as file:
    for entry in JsonList(source, file): ...
"""

import json
import re
from collections.abc import Iterator

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import TextFile

SPACE = re.compile(r"[ \t\n\r]*")
LONGEST_TOKEN = 16  # characters; longer than `-Infinity` or \ud83d, which the end of a window may cut


def one_of_each(pairs: list[tuple]) -> dict:
    """Build a dict for `object_pairs_hook`; raises ValueError for a repeated field, which json.loads would ignore."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return fields


class JsonList:
    """An iterator over the entries of a JSON list; errors name the entry and line."""

    def __init__(self, source: TextFile, file):
        self._source, self._pieces = source, source.pieces(file)
        self._text, self._position = "", 0
        self._lines = 0  # before the window
        self._entry = 0  # entries read so far

    def __iter__(self) -> Iterator:
        self._next_character()  # the bracket, which the caller has checked
        self._position += 1
        character = self._next_character()
        while character != "]":
            yield self._value()
            self._entry += 1
            character = self._next_character()
            if character == ",":
                self._position += 1
                self._next_character()
            elif character != "]":
                raise self._error("Expecting ',' delimiter", self._line(self._position))
        self._position += 1
        if self._next_character():
            raise self._error("Extra data", self._line(self._position))

    def _next_character(self) -> str:
        """Move to the next character that is not white space and return it, or "" at the end."""
        while True:
            self._position = SPACE.match(self._text, self._position).end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read():
                return ""

    def _value(self):
        """Parse the entry that begins here; if the window cuts it, retry with twice the text."""
        while True:
            try:
                value, end = json.JSONDecoder(object_pairs_hook=one_of_each).raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                line = self._line(error.pos)
                is_cut = error.msg.startswith("Unterminated") or not self._text[error.pos + LONGEST_TOKEN :].strip()
                if not (is_cut and self._read()):
                    raise self._error(error.msg, line) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, or too deep nesting
                raise self._error(str(error).splitlines()[0], self._line(self._position)) from None
            else:
                if end + 2 < len(self._text) or not self._read():  # the window may cut a number: 1 of 1e-5
                    self._position = end
                    return value

    def _read(self) -> bool:
        """Drop the parsed text and read at least as much as is left; return whether there was more."""
        left, parts, size = self._text[self._position :], [], 0
        for piece in self._pieces:
            parts.append(piece)
            size += len(piece)
            if size >= len(left):
                break
        if parts:
            self._lines += self._text.count("\n", 0, self._position)
            self._text, self._position = self._source.check_size(left + "".join(parts)), 0
        return bool(parts)

    def _line(self, position: int) -> int:
        return self._lines + self._text.count("\n", 0, position) + 1

    def _error(self, words: str, line: int) -> UsageError:
        where = f"{self._source.path}, entry {self._entry}"
        return UsageError(
            f"{where} is not valid JSON ({words}, line {line})", "a list of JSON objects", "fix or remove it"
        )
