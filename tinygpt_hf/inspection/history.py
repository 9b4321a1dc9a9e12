"""Score the same text with the weights of every saved step of a run.

for scores in history(Path("runs/quickstart"), ids, "cpu", "auto"):
    scores.step, scores.bits, scores.ranks       # of every token but the first
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inspection.surprisal import token_scores
from tinygpt_hf.model.loading import load_model

PLACES = ("snapshots/step-*", "checkpoint-*")


@dataclass
class StepScores:
    """The surprisal in bits and the rank of each token after a training step."""

    step: int
    bits: list[float]
    ranks: list[int]

    @property
    def mean(self) -> float:
        return sum(self.bits) / len(self.bits)


def kept_steps(folder: Path) -> dict[int, Path]:
    """Find the snapshots and checkpoints in a run folder, by step."""
    found = {}
    for place in PLACES:
        for path in folder.glob(place):
            if (step := re.fullmatch(r"(?:step|checkpoint)-(\d+)", path.name)) and (path / "config.json").is_file():
                found[int(step[1])] = path
    return dict(sorted(found.items()))


def check_history(folder: Path) -> None:
    """Raise a `UsageError` unless the folder holds the weights of two steps or more."""
    if len(kept_steps(folder)) < 2:
        raise UsageError(
            f"{folder} holds the weights of {len(kept_steps(folder))} steps",
            "a run folder with the weights of two or more",
            "train with --keep_snapshots 8, or leave --checkpoints out",
        )


def history(folder: Path, ids: list[int], device: str, dtype: str) -> Iterator[StepScores]:
    """Score the text with the weights of each saved step, oldest first."""
    for step, path in kept_steps(folder).items():
        model, _ = load_model(str(path), device, dtype)
        scores = token_scores(model, ids, 1)
        yield StepScores(step, [abs(bits) for bits in scores.bits.tolist()], scores.ranks.tolist())


def learned_at(moments: list[StepScores]) -> list[int | None]:
    """Return, for each token, the step from which on it has rank 1 until the end of the run, or None."""
    found: list[int | None] = [None] * len(moments[0].ranks)
    for position in range(len(found)):
        for moment in reversed(moments):
            if moment.ranks[position] != 1:
                break
            found[position] = moment.step
    return found
