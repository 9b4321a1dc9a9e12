"""Detect common training problems from the log of a run, with the likely cause and a remedy.

    for found in diagnoses(lines, {"trigram": 2.0}, max_steps=1000):
        found.name, found.step, str(found)             # each problem at most once, with the first step that shows it

The result depends only on the lines, so a resumed run reports nothing twice, and a report can repeat the diagnoses.
"""

import math
from dataclasses import dataclass

WORSE = 1.03  # a validation loss above its best by this factor is rising
DIVERGED_BY, DIVERGED_TIMES = 0.7, 1.3  # a training loss above its best by these nats and this factor diverges
RECENT = 3  # log lines averaged into the training loss
SURE = 0.5  # an entropy below this share of the loss is too low; a calibrated model's entropy equals its loss
WINDOW = 8  # length in characters of the sequences compared within a sample
REPEATED = 0.6  # a larger share of repeated sequences is too high
SHORTEST = 40  # characters; shorter samples are ignored
WORDS = {  # name -> (problem, likely cause, remedy)
    "behind": (
        "the model is behind the trigrams, which only count",
        "too few steps, or rates far from what fits",
        "train longer (--max_steps, --num_train_epochs), or leave the rates at their defaults",
    ),
    "overfits": (
        "the validation loss rises while the training loss falls: the model memorizes its text",
        "it has seen the same text too often",
        "use best/, fewer epochs, a smaller model, --hidden_dropout 0.1, or more text",
    ),
    "diverges": (
        "the training loss climbs: the run diverges",
        "the learning rate is too high, or its warmup too short",
        "begin again with half the --learning_rate and --muon_learning_rate, or more --warmup_steps",
    ),
    "collapses": (
        "the entropy collapses: on held-out text the model is far more confident than accurate",
        "it has seen the same text too often, its text is too uniform, or the learning rate is too high",
        "use best/, fewer epochs, more or more varied text, half the --learning_rate, or sample at a higher --temperature",
    ),
    "repeats": (
        "the samples repeat themselves",
        "it is small or has trained too little for its text, or the text itself repeats",
        "train longer, look for duplicates with tinygpt prepare-corpus, or sample with --repetition_penalty 1.2",
    ),
}


@dataclass(frozen=True)
class Diagnosis:
    """A problem, by its name in `WORDS`, and the first step that shows it."""

    name: str
    step: int

    def __str__(self) -> str:
        problem, cause, remedy = WORDS[self.name]
        return f"step {self.step}: {problem}. Likely cause: {cause}. What helps: {remedy}."


def diagnoses(lines: list[dict], baselines: dict[str, float], max_steps: int | None = None) -> list[Diagnosis]:
    """Find the problems in the lines of a log.jsonl, in order of their first step. `baselines` are losses by name."""
    found: dict[str, int] = {}
    losses: list[float] = []
    best_loss, train_loss_at_best = math.inf, math.inf  # the best validation loss, and the training loss then
    best_train_loss = math.inf
    for line in lines:
        step, loss, held_out, entropy = (line.get(name) for name in ("step", "loss", "eval_loss", "eval_entropy"))
        if step is None:
            continue
        if loss is not None:
            losses.append(loss)
        last = losses[-RECENT:]
        recent = sum(last) / len(last) if last else math.inf
        if len(last) == RECENT:
            limit = max(best_train_loss + DIVERGED_BY, DIVERGED_TIMES * best_train_loss)
            if len(losses) >= 2 * RECENT and recent > limit:
                found.setdefault("diverges", int(step))
            best_train_loss = min(best_train_loss, recent)
        is_late = max_steps is not None and step >= max_steps / 2
        if held_out is not None:
            if held_out < best_loss:
                best_loss, train_loss_at_best = held_out, recent
            elif held_out > WORSE * best_loss and recent < train_loss_at_best:
                found.setdefault("overfits", int(step))
            if entropy is not None and entropy * math.log(2) < SURE * held_out:
                found.setdefault("collapses", int(step))
            if is_late and held_out > baselines.get("trigram", math.inf):
                found.setdefault("behind", int(step))
        texts = [sample.get("text") or "" for sample in line.get("samples") or ()]
        texts = [text for text in texts if len(text) >= SHORTEST]
        if is_late and texts and all(repeated(text) > REPEATED for text in texts):
            found.setdefault("repeats", int(step))
    return [Diagnosis(name, step) for name, step in sorted(found.items(), key=lambda pair: pair[1])]


def repeated(text: str) -> float:
    """Return the share of a text's sequences of `WINDOW` characters that occurred in it before."""
    sequences = [text[k : k + WINDOW] for k in range(len(text) - WINDOW + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0
