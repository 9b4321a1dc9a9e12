"""Log the numbers of log.jsonl to TensorBoard, Weights & Biases or Trackio as well (`train --report_to tensorboard`).

    board = Board("tensorboard", Path("runs/mine"), step=0, say=print)
    board.write({"step": 10, "loss": 5.1})
    board.close()                                      # prints the command that shows it

The trackers are Accelerate's. They write to `boards/` in the run folder and send nothing. If a tracker fails, a note is
printed and the run continues without it.
"""

import contextlib
import io
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = "boards"
NUMBERS = (int, float)


def _options(name: str, place: Path, step: int) -> tuple[dict, str]:
    """Return the options of a tracker that writes to `place`, and the command that shows its data."""
    if name == "tensorboard":
        # a resumed run logs steps again: drop the old values
        return {"logging_dir": str(place), "purge_step": step + 1}, f"tensorboard --logdir {shlex.quote(str(place))}"
    if name == "wandb":
        os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
        return {"dir": str(place), "mode": "offline"}, f"wandb sync {shlex.quote(str(place / 'wandb'))}/offline-run-*"
    os.environ["TRACKIO_DIR"] = str(place.absolute())  # trackio reads it when imported
    return {"embed": False}, f"TRACKIO_DIR={shlex.quote(str(place.absolute()))} trackio show"


class Board:
    """One Accelerate tracker of a run. Its errors and its output never reach the run."""

    def __init__(self, name: str, folder: Path, step: int, say: Callable[[str], None]):
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self._name, self._say, self._tracker = name, say, None
        place = folder / FOLDER / name
        with self._guarded():
            place.mkdir(parents=True, exist_ok=True)
            options, self._command = _options(name, place, step)
            tracker = LOGGER_TYPE_TO_CLASS[name](folder.name, **options)
            tracker.start()
            self._tracker = tracker

    def write(self, line: dict) -> None:
        """Log the numbers of a log line; those of modules as `<name>/<module>`."""
        numbers = {name: value for name, value in line.items() if type(value) in NUMBERS and name != "step"}
        for module, values in line.get("modules", {}).items():
            numbers |= {f"{name}/{module}": value for name, value in values.items()}
        if self._tracker is not None and numbers:
            with self._guarded():
                self._tracker.log(numbers, step=line["step"])

    def close(self) -> None:
        """Finish the tracker and print the command that shows its data."""
        if self._tracker is not None:
            with self._guarded():
                self._tracker.finish()
                self._say(f"the board: {self._command}")
            self._tracker = None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Suppress the tracker's output; on an error drop the tracker with a note."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception as error:
            self._tracker = None
            self._say(
                f"note: {self._name} failed and is no longer used ({type(error).__name__}: {error}); see log.jsonl"
            )
