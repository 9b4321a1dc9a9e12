"""Show a run on a board too (`train --report_to tensorboard`): the numbers of log.jsonl, which stays the truth.

    board = Board("tensorboard", Path("runs/mine"), step=0, say=print)
    board.write({"step": 10, "loss": 5.1})
    board.close()                                      # says the command that opens it

The trackers are Accelerate's. Nothing is sent: what they write lies in `boards/` of the run folder. A tracker that fails is
closed with a note, and the run goes on.
"""

import contextlib
import io
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = "boards"
NUMBERS = (int, float)


def _tensorboard(place: Path, step: int) -> tuple[dict, str]:
    # of steps that are done again after a resume the last word counts
    return {"logging_dir": str(place), "purge_step": step + 1}, f"tensorboard --logdir {shlex.quote(str(place))}"


def _wandb(place: Path, step: int) -> tuple[dict, str]:
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
    return {"dir": str(place), "mode": "offline"}, f"wandb sync {shlex.quote(str(place / 'wandb'))}/offline-run-*"


def _trackio(place: Path, step: int) -> tuple[dict, str]:
    os.environ["TRACKIO_DIR"] = str(place.absolute())  # read when it is imported
    return {"embed": False}, f"TRACKIO_DIR={shlex.quote(str(place.absolute()))} trackio show"


BOARDS: dict[str, Callable[[Path, int], tuple[dict, str]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


class Board:
    """Hold one tracker of Accelerate open for a run."""

    def __init__(self, name: str, folder: Path, step: int, say: Callable[[str], None]):
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self._name, self._say, self._tracker = name, say, None
        place = folder / FOLDER / name
        with self._trying():
            place.mkdir(parents=True, exist_ok=True)
            options, self._command = BOARDS[name](place, step)
            tracker = LOGGER_TYPE_TO_CLASS[name](folder.name, **options)
            tracker.start()
            self._tracker = tracker

    def write(self, line: dict) -> None:
        """Hand on the numbers of a line of the log; those of modules by name."""
        numbers = {name: value for name, value in line.items() if type(value) in NUMBERS and name != "step"}
        for module, values in line.get("modules", {}).items():
            numbers |= {f"{name}/{module}": value for name, value in values.items()}
        if self._tracker is not None and numbers:
            with self._trying():
                self._tracker.log(numbers, step=line["step"])

    def close(self) -> None:
        """Close it, and say how to open it."""
        if self._tracker is not None:
            with self._trying():
                self._tracker.finish()
                self._say(f"the board: {self._command}")
            self._tracker = None

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        """Keep a tracker quiet, and its failure from the run."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception as error:
            self._tracker = None
            self._say(
                f"note: {self._name} is left out from here on ({type(error).__name__}: {error}); log.jsonl goes on"
            )
