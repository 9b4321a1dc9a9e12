"""What those who read text, tokenize it and write rows tell while they work: one object, passed down; `Reporter` itself is silent.

Console (training/log.py) shows it to a person.
"""

import time


class Reporter:
    """Hears of the work, and lets time pass where the work must wait."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def stage(self, title: str, total: int | None) -> None:
        """Something that takes time begins: how many bytes of files it will read, where that is known."""

    def read(self, path: str, count: int, data=None) -> None:
        """The next `count` bytes of a file were read: `data`, where they come one after another from its first to its last."""

    def encoded(self, size: int, tokens: int) -> None:
        """So many bytes of text, in all, are so many tokens at rest."""

    def rest(self, seconds: float) -> None:
        """Pass the time before something is tried again."""
        time.sleep(seconds)


SILENT = Reporter()
