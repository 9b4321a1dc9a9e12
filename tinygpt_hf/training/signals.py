"""Stop a run on a signal: it finishes the current step, saves a checkpoint and exits with status 129, 130 or 143."""

import contextlib
import os
import signal
import threading
import time
from typing import Any

from tinygpt_hf.errors import Interrupted
from tinygpt_hf.training.launcher import launcher_command

# Slurm sends SIGUSR1 before a job ends, a closing terminal SIGHUP; Windows has neither
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
DUPLICATE_SECONDS = 2.0  # the terminal sends Ctrl-C to the workers, and then the launcher sends it again


class Interruption(contextlib.AbstractContextManager):
    """A context manager with handlers for `SIGNALS`.

    After `defer()` the first signal only sets a flag, which `requested()` returns; a second one raises Interrupted. Before
    `defer()` there is nothing to save, so the first one raises too. A launcher that died (kill -9) counts as SIGTERM, so
    that its workers do not train on unnoticed.
    """

    def __init__(self, accelerator):
        self._accelerator = accelerator
        self._signal: int | None = None
        self._signal_time = 0.0
        self._deferred = False
        self._handlers: dict[int, Any] = {}
        self._launcher = os.getppid() if launcher_command() else None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # started by nohup
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """Let the current step finish when a signal arrives from now on."""
        self._deferred = True

    def _handle(self, number, frame) -> None:
        since = time.monotonic() - self._signal_time
        second = self._signal is not None and since > (DUPLICATE_SECONDS if self._launcher else 0)
        if not self._deferred or second:
            name = signal.Signals(number).name
            raise Interrupted(f"stopped by {name}; what was saved before is complete", number)
        if self._signal is None:
            self._signal, self._signal_time = number, time.monotonic()

    def requested(self) -> int:
        """Return the number of the signal this process received, or 0."""
        gone = self._launcher is not None and os.getppid() != self._launcher
        return self._signal or (signal.SIGTERM if gone else 0)

    def agreed(self, *numbers: int) -> tuple[int, ...]:
        """Return the elementwise maximum of the numbers of all processes, so that all act on them at the same step."""
        if self._accelerator.num_processes > 1:
            import torch

            own = torch.tensor([numbers], device=self._accelerator.device)
            numbers = tuple(self._accelerator.gather(own).amax(dim=0).tolist())
        return numbers
