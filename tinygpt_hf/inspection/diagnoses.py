"""Tell from the log of a run what goes wrong in it, with the likely cause and what to do.

    for found in diagnoses(lines, {"trigram": 2.0}, max_steps=1000):
        found.name, found.step, str(found)             # each at most once, with the step at which it began to hold

Pure: the same lines say the same, so a resumed run knows what was told, and a report says it again.
"""

import math
from dataclasses import dataclass

WORSE = 1.03  # so much above its best is a validation loss that rises, and not only moves
DIVERGED_BY, DIVERGED_TIMES = 0.7, 1.3  # nats, and as a factor, above the best loss of training
RECENT = 3  # lines of the log whose mean is compared
SURE = 0.5  # of its loss: so low an entropy, which of a model that is as right as it is sure is its loss
WINDOW, REPEATED, SHORTEST = (
    8,
    0.6,
    40,
)  # characters of a sequence, share of those that stood before, of a sample that counts
WORDS = {  # name -> (what is the case, likely cause, what to do)
    "behind": (
        "the model is behind the trigrams, which only count",
        "too few steps, or rates far from what fits",
        "train longer (--max_steps, --num_train_epochs), or leave the rates at their defaults",
    ),
    "overfits": (
        "the validation loss rises while the training loss falls: the model learns its text by heart",
        "it has seen the same text too often",
        "use best/, fewer epochs, a smaller model, --hidden_dropout 0.1, or more text",
    ),
    "diverges": (
        "the training loss climbs: the run diverges",
        "the learning rate is too high, or its warmup too short",
        "begin again with half the --learning_rate and --muon_learning_rate, or more --warmup_steps",
    ),
    "collapses": (
        "the entropy collapses: on held-out text the model is far surer than it is right",
        "it has seen the same text too often, its text is too uniform, or the learning rate is too high",
        "use best/, fewer epochs, more or more varied text, half the --learning_rate, or sample at a higher --temperature",
    ),
    "repeats": (
        "the samples repeat themselves: the model is sure of too few tokens",
        "it is small or has trained too little for its text, or the text itself repeats",
        "train longer, look for duplicates with tinygpt prepare-corpus, or sample with --repetition_penalty 1.2",
    ),
}


@dataclass(frozen=True)
class Diagnosis:
    """Hold something that goes wrong, and since which step."""

    name: str
    step: int

    def __str__(self) -> str:
        problem, cause, remedy = WORDS[self.name]
        return f"step {self.step}: {problem}. Likely cause: {cause}. What helps: {remedy}."


def diagnoses(lines: list[dict], baselines: dict[str, float], max_steps: int | None = None) -> list[Diagnosis]:
    """Find what goes wrong in the lines of a log.jsonl, in the order in which it shows. `baselines`: losses by name."""
    found: dict[str, int] = {}
    losses: list[float] = []
    best_loss, trained_then = float("inf"), float("inf")  # the best validation loss, and the training loss at that time
    best_trained = float("inf")
    for line in lines:
        step, loss, held_out, entropy = (line.get(name) for name in ("step", "loss", "eval_loss", "eval_entropy"))
        if step is None:
            continue
        if loss is not None:
            losses.append(loss)
            recent = sum(losses[-RECENT:]) / len(losses[-RECENT:])
            if len(losses) >= 2 * RECENT and recent > max(best_trained + DIVERGED_BY, DIVERGED_TIMES * best_trained):
                found.setdefault("diverges", int(step))
            best_trained = min(best_trained, recent if len(losses) >= RECENT else float("inf"))
        recent = sum(losses[-RECENT:]) / len(losses[-RECENT:]) if losses else float("inf")
        is_late = max_steps is not None and step >= max_steps / 2
        if held_out is not None:
            if held_out < best_loss:
                best_loss, trained_then = held_out, recent
            elif held_out > WORSE * best_loss and recent < trained_then:
                found.setdefault("overfits", int(step))
            if entropy is not None and entropy * math.log(2) < SURE * held_out:
                found.setdefault("collapses", int(step))
            if is_late and held_out > baselines.get("trigram", float("inf")):
                found.setdefault("behind", int(step))
        texts = [sample.get("text") or "" for sample in line.get("samples") or ()]
        long = [text for text in texts if len(text) >= SHORTEST]
        if is_late and long and all(repeated(text) > REPEATED for text in long):
            found.setdefault("repeats", int(step))
    return [Diagnosis(name, step) for name, step in sorted(found.items(), key=lambda pair: pair[1])]


def repeated(text: str) -> float:
    """Measure the share of the sequences of a text that stood in it before."""
    sequences = [text[k : k + WINDOW] for k in range(len(text) - WINDOW + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0
