"""Signals that ask a run to end: the step in progress is finished and saved, then the command exits 129, 130 or 143."""

import contextlib
import os
import signal
import threading
import time
from typing import Any

from tinygpt_hf.errors import Interrupted
from tinygpt_hf.training.launcher import launcher_command

# SIGUSR1 is what Slurm sends ahead of the end, SIGHUP a terminal that closes; Windows has neither
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
ONE_SIGNAL = 2.0  # seconds: a launcher passes on the Ctrl-C that the terminal has sent to its workers already


class Interruption(contextlib.AbstractContextManager):
    """Between `hold()` and the end a first signal only sets a flag, which `asked()` reads; a second one leaves at once.

    Before `hold()` there is nothing to save, so a signal leaves at once as well. A launcher that dies (kill -9) counts as
    SIGTERM, so that none of its workers trains on unseen.
    """

    def __init__(self, accelerator):
        self._accelerator = accelerator
        self._signal: int | None = None
        self._when = 0.0
        self._holding = False
        self._before: dict[int, Any] = {}
        self._launcher = os.getppid() if launcher_command() else None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # under nohup
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on let the step in progress finish."""
        self._holding = True

    def _note(self, number, frame) -> None:
        second = self._signal is not None and time.monotonic() - self._when > (ONE_SIGNAL if self._launcher else 0)
        if not self._holding or second:
            name = signal.Signals(number).name
            raise Interrupted(f"stopped by {name}; what was saved before is complete", number)
        if self._signal is None:
            self._signal, self._when = number, time.monotonic()

    def asked(self) -> int:
        """The number of the signal that asked this process for the end; 0 if none did."""
        gone = self._launcher is not None and os.getppid() != self._launcher
        return self._signal or (signal.SIGTERM if gone else 0)

    def agreed(self, *numbers: int) -> tuple[int, ...]:
        """The largest of the processes' numbers, each in its place: what one asks, all do after the same step."""
        if self._accelerator.num_processes > 1:
            import torch

            here = torch.tensor([numbers], device=self._accelerator.device)
            numbers = tuple(self._accelerator.gather(here).amax(dim=0).tolist())
        return numbers
