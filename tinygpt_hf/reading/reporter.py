"""Report progress while text is read, tokenized and written; Console (training/log.py) displays it, `Reporter` is silent."""

import time
from collections.abc import Callable, Sequence


class Reporter:
    """A receiver of progress reports that ignores them; subclasses override the methods they need."""

    def say(self, line: str) -> None:
        """Show a message."""

    def stage(self, title: str, total: int | None) -> None:
        """Start a progress bar; `total` is the number of bytes to read, None if unknown."""

    def read(self, path: str, count: int, data=None) -> None:
        """Report that `count` bytes of a file were read; `data` holds them if the file is read sequentially."""

    def encoded(self, size: int, tokens: int) -> None:
        """Report the total bytes of text tokenized so far, and their tokens."""

    def rest(self, seconds: float) -> None:
        """Wait before a retry."""
        time.sleep(seconds)


SILENT = Reporter()


def retried(call: Callable, waits: Sequence[float], judge: Callable, rest: Callable[[float], None]):
    """Call `call` until it succeeds, and return its result.

    After a failure `judge(error, wait)` either raises to give up, or returns the seconds to wait, which `rest` spends. `wait`
    is the next of `waits`, None after the last.
    """
    for wait in (*waits, None):
        try:
            return call()
        except Exception as error:  # the network libraries raise different errors in each version
            rest(judge(error, wait))
    raise AssertionError("judge must raise after the last wait")
