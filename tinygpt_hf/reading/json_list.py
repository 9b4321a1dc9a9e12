"""The entries of one list in a .json file, each as soon as it is there: memory holds a window of the text, and one entry.

with source.open() as file:
    for entry in JsonList(source, file): ...
"""

import json
import re
from collections.abc import Iterator

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import TextFile

SPACE = re.compile(r"[ \t\n\r]*")
LONGEST_SIGN = 16  # characters: more than `-Infinity` or \ud83d has, which the end of a window may cut


class JsonList:
    """What json.loads would find in the list, one after the other; a fault is named with its entry and line."""

    def __init__(self, source: TextFile, file):
        self._source, self._pieces = source, source.pieces(file)
        self._text, self._place = "", 0
        self._lines = self._entry = 0  # before the window; that were found

    def __iter__(self) -> Iterator:
        self._sign()  # the bracket, which whoever calls has seen
        self._place += 1
        sign = self._sign()
        while sign != "]":
            yield self._value()
            self._entry += 1
            sign = self._sign()
            if sign == ",":
                self._place += 1
                self._sign()
            elif sign != "]":
                raise self._fault("Expecting ',' delimiter", self._line(self._place))
        self._place += 1
        if self._sign():
            raise self._fault("Extra data", self._line(self._place))

    def _sign(self) -> str:
        """The next character that is no space; none at the end."""
        while True:
            self._place = SPACE.match(self._text, self._place).end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read():
                return ""

    def _value(self):
        """The entry that begins here. One that the window cuts is tried again when there is as much text again."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                line = self._line(error.pos)
                is_cut = error.msg.startswith("Unterminated") or not self._text[error.pos + LONGEST_SIGN :].strip()
                if not (is_cut and self._read()):
                    raise self._fault(error.msg, line) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists in lists
                raise self._fault(str(error).splitlines()[0], self._line(self._place)) from None
            else:
                if end + 2 < len(self._text) or not self._read():  # a number may go on: 1 of 1e-5
                    self._place = end
                    return value

    def _read(self) -> bool:
        """Drop what was passed and read as much again as is left; was there more?"""
        left, parts, size = self._text[self._place :], [], 0
        for piece in self._pieces:
            parts.append(piece)
            size += len(piece)
            if size >= len(left):
                break
        if parts:
            self._lines += self._text.count("\n", 0, self._place)
            self._text, self._place = self._source.in_bounds(left + "".join(parts)), 0
        return bool(parts)

    def _line(self, place: int) -> int:
        return self._lines + self._text.count("\n", 0, place) + 1

    def _fault(self, words: str, line: int) -> UsageError:
        where = f"{self._source.path}, entry {self._entry}"
        return UsageError(f"{where} is no JSON ({words}, line {line})", "a list of JSON objects", "fix or remove it")
