"""Save the model of a few steps of a run, to inspect later: `<run>/snapshots/step-<n>`, each complete or absent.

chosen_steps(1500, 8)                              # {1, 2, 6, 16, 39, 97, 241, 601}
"""

from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.training import checkpoint

FOLDER = "snapshots"


def chosen_steps(max_steps: int, count: int) -> set[int]:
    """Return `count` steps evenly spaced on a logarithmic scale, from 1 to below `max_steps`."""
    return {round(max_steps ** (k / count)) for k in range(count)} - {max_steps}


def save(run) -> None:
    """Save the current model, loadable by `from_pretrained`."""
    run.meter.pause()
    weights = checkpoint.model_tensors(run.raw)  # on every process, since shards are gathered
    kept = len(list((run.folder / FOLDER).glob("step-*")))
    # a time budget may change the number of steps and thus the chosen ones: limit how many are kept
    if run.is_main and kept < run.training.keep_snapshots:
        contents = run.files | {checkpoint.WEIGHTS: checkpoint.safetensors_chunks(weights)}
        about = {"step": run.state.step, "tokens": run.state.tokens}
        checkpoint.write_complete(run.folder / FOLDER / f"step-{run.state.step}", contents, about)
    run.meter.resume("saving")


def remove_after(folder: Path, step: int) -> None:
    """Remove the snapshots after `step`: a run resumed there saves them again."""
    for path in (folder / FOLDER).glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and int(number) > step and (path / storage.MANIFEST).is_file():
            checkpoint.remove_complete(path)
