"""Keep the weights of some steps of a run, to look at later: `D/snapshots/step-<n>`, each complete or absent.

chosen_steps(1500, 8)                              # {1, 2, 6, 16, 39, 97, 241, 601}: close together where most is learned
"""

from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.training import checkpoint

FOLDER = "snapshots"


def chosen_steps(max_steps: int, count: int) -> set[int]:
    """Choose the steps, evenly on a logarithmic scale from the first on; the last of the run is the run folder itself."""
    return {round(max_steps ** (k / count)) for k in range(count)} - {max_steps}


def keep(run) -> None:
    """Write the weights as they are, loadable by `from_pretrained`."""
    run.meter.pause()
    weights = checkpoint.model_tensors(run.raw)  # every process: shards are gathered
    kept = len(list((run.folder / FOLDER).glob("step-*")))
    # by the clock the length of a run may change, and with it the choice
    if run.is_main and kept < run.training.keep_snapshots:
        contents = run.files | {checkpoint.WEIGHTS: checkpoint.tensor_pieces(weights)}
        about = {"step": run.state.step, "tokens": run.state.tokens}
        checkpoint.write_complete(run.folder / FOLDER / f"step-{run.state.step}", contents, about)
    run.meter.go_on("saving")


def drop_after(folder: Path, step: int) -> None:
    """Remove what was kept after this step, from which a run goes on: it keeps it again."""
    for path in (folder / FOLDER).glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and int(number) > step and (path / storage.MANIFEST).is_file():
            checkpoint.remove_complete(path)
