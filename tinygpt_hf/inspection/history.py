"""Read the same text with the weights of every kept step of a run: when the model learned what.

for moment in history(Path("runs/quickstart"), ids, "cpu", "auto"):
    moment.step, moment.bits, moment.ranks       # of every token but the first
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
class Moment:
    """Hold what a text cost after so many steps."""

    step: int
    bits: list[float]
    ranks: list[int]

    @property
    def mean(self) -> float:
        return sum(self.bits) / len(self.bits)


def kept_steps(folder: Path) -> dict[int, Path]:
    """Find the weights of a run folder by step: those `--keep_snapshots` kept, and the checkpoints."""
    found = {}
    for place in PLACES:
        for path in folder.glob(place):
            if (step := re.fullmatch(r"(?:step|checkpoint)-(\d+)", path.name)) and (path / "config.json").is_file():
                found[int(step[1])] = path
    return dict(sorted(found.items()))


def check_history(folder: Path) -> None:
    """Refuse a folder that does not hold the weights of two steps."""
    if len(kept_steps(folder)) < 2:
        raise UsageError(
            f"{folder} holds the weights of {len(kept_steps(folder))} steps",
            "a run folder with those of two or more",
            "train with --keep_snapshots 8, or leave --checkpoints out",
        )


def history(folder: Path, ids: list[int], device: str, dtype: str) -> Iterator[Moment]:
    """Read the text with each of them, the oldest first."""
    for step, path in kept_steps(folder).items():
        model, _ = load_model(str(path), device, dtype)
        scores = token_scores(model, ids, 1)
        yield Moment(step, [abs(bits) for bits in scores.bits.tolist()], scores.ranks.tolist())


def learned_at(moments: list[Moment]) -> list[int | None]:
    """Find the first step from which on each token is the first choice to the end of the run; None where it is not in the end."""
    found: list[int | None] = [None] * len(moments[0].ranks)
    for place in range(len(found)):
        for moment in reversed(moments):
            if moment.ranks[place] != 1:
                break
            found[place] = moment.step
    return found
