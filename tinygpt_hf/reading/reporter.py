"""What those who read text, tokenize it and write rows tell while they work: one object, passed down; `Reporter` itself is silent.

Console (training/log.py) shows it to a person.
"""

import time
from collections.abc import Callable, Sequence


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


def retried(call: Callable, waits: Sequence[float], judge: Callable, rest: Callable[[float], None]):
    """Return what `call` returns; call it again after a failure.

    `judge(error, wait)` raises what is to end the attempts, or returns the seconds until the next, which `rest` passes. `wait` is
    the next of `waits`, None after the last.
    """
    for wait in (*waits, None):
        try:
            return call()
        except Exception as error:  # the libraries below have errors of their own in each version
            rest(judge(error, wait))
    raise AssertionError("judge raises where no wait is left")
