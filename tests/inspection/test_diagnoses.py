"""Test that each problem is found in the log of a run, once, at the first step that shows it."""

import pytest

from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments, train
from tinygpt_hf.inspection.diagnoses import WORDS, Diagnosis, diagnoses, repeated

BASELINES = {"uniform": 6.0, "unigram": 4.0, "trigram": 3.0}


def training(*losses: float) -> list[dict]:
    return [{"step": 10 * k, "loss": loss} for k, loss in enumerate(losses, 1)]


def evaluated(step: int, loss: float, *texts: str) -> dict:
    return {"step": step, "eval_loss": loss, "samples": [{"prompt": "a", "text": text} for text in texts]}


LEARNS = training(6, 5, 4, 3.5, 3.2, 3, 2.9, 2.8, 2.7, 2.6)
STORY = "Anna found a red ball in the park, and Pip the dog took it home to play until the sun went down."
CASES = {
    "nothing": ([*LEARNS, evaluated(50, 2.9, STORY), evaluated(100, 2.7, STORY)], []),
    "behind only late": ([*LEARNS[:4], evaluated(40, 3.6), *LEARNS[4:], evaluated(100, 2.9)], []),
    "behind": ([*LEARNS, evaluated(40, 3.6), evaluated(50, 3.1), evaluated(100, 3.05)], [("behind", 50)]),
    "overfits": (
        [*LEARNS[:3], evaluated(30, 2.8), *LEARNS[3:6], evaluated(60, 2.82), *LEARNS[6:], evaluated(100, 2.95)],
        [("overfits", 100)],
    ),
    "worse on both sides is no overfitting": (
        [*LEARNS, evaluated(100, 2.5), {"step": 101, "loss": 3.4}, evaluated(101, 2.8)], []
    ),
    "diverges": ([*LEARNS, *({"step": 110 + k, "loss": loss} for k, loss in enumerate((3.0, 5.0, 7.0, 9.0)))], [("diverges", 111)]),
    "a single spike is no divergence": ([*LEARNS, {"step": 110, "loss": 4.0}, {"step": 120, "loss": 2.6}], []),
    "collapses": (
        [*LEARNS, evaluated(50, 2.9) | {"eval_entropy": 2.2}, evaluated(100, 2.95) | {"eval_entropy": 2.1}], [("collapses", 100)]
    ),
    "repeats": ([*LEARNS, evaluated(60, 2.8, "the cat sat. " * 9, "on and on " * 9)], [("repeats", 60)]),
    "one sample that does not": ([*LEARNS, evaluated(60, 2.8, "the cat sat. " * 9, STORY)], []),
    "values that are not there": ([{"step": None}, {"step": 1, "loss": None, "eval_loss": None, "samples": None}, {}], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_problems_are_found_at_the_first_step_that_shows_them(name):
    lines, expected = CASES[name]
    lines = sorted(lines, key=lambda line: line.get("step") or 0)
    assert diagnoses(lines, BASELINES, 100) == [Diagnosis(*each) for each in expected]
    for found in diagnoses(lines, BASELINES, 100):  # and not a line earlier
        before = lines[: next(k for k, line in enumerate(lines) if line["step"] >= found.step)]
        assert found not in diagnoses(before, BASELINES, 100)


def test_every_diagnosis_is_provoked_and_says_cause_and_remedy():
    assert {name for _, found in CASES.values() for name, _ in found} == set(WORDS)
    words = str(Diagnosis("overfits", 7))
    assert words.startswith("step 7: ") and "Likely cause: it has seen" in words and "What helps: use best/" in words


def test_how_much_of_a_text_repeats():
    assert repeated("abcdefgh") == 0 and repeated("short") == 0 and repeated("abcdefgh" * 5) == pytest.approx(25 / 33)


def test_a_diagnosis_is_reported_once_also_over_a_resume(tmp_path, capsys):
    def run(steps):
        train(
            ModelArguments(hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
            DataArguments(dataset_name="toyland", max_train_samples=120, block_size=64, validation_split_percentage=10),
            TokenizerArguments(tokenizer_type="byte"),
            TrainingArguments(str(tmp_path / "r"), max_steps=steps, logging_steps=1, eval_steps=2, device="cpu"),
        )
        return capsys.readouterr().err

    said = run(4)
    assert said.count("step 2: the model is behind the trigrams, which only count. Likely cause: ") == 1
    assert "; trigram " in said.split("step 2: validation loss")[1].splitlines()[0]
    assert "behind the trigrams" in (tmp_path / "r" / "report.html").read_text()
