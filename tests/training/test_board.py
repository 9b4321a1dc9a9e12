"""A tracker gets the numbers of log.jsonl, and its failure does not end the run. The tracker here records its calls."""

import importlib.util
import json

import pytest
from accelerate import tracking

from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments, train
from tinygpt_hf.cli import main

BOARDS = ("tensorboard", "trackio", "wandb")
HEARD: list[tuple[int, dict]] = []


class Tracker(tracking.GeneralTracker):
    name, requires_logging_directory, fails_at = "kept", False, None

    def __init__(self, run_name, **options):
        super().__init__()
        self.run_name, self.options = run_name, options

    @property
    def tracker(self):
        return HEARD

    def start(self):
        print("welcome to the board")

    def log(self, values, step):
        if step == self.fails_at:
            raise ConnectionError("nobody there")
        HEARD.append((step, values))

    def finish(self):
        HEARD.append((-1, {}))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in BOARDS or find(name))
    for variable in ("WANDB_MODE", "WANDB_SILENT", "TRACKIO_DIR"):
        monkeypatch.setenv(variable, "")
    HEARD.clear()

    def run(board):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, board, Tracker)
        train(
            ModelArguments(hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
            DataArguments(dataset_name="toyland", max_train_samples=120, block_size=64, validation_split_percentage=10),
            TokenizerArguments(tokenizer_type="byte"),
            TrainingArguments(
                str(tmp_path / "r"), max_steps=3, logging_steps=1, eval_steps=0, sample_tokens=0, device="cpu",
                report_to=board, explain=True,
            ),
        )  # fmt: skip
        out, err = capsys.readouterr()
        assert out == ""
        return [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").open()], err

    return run


@pytest.mark.parametrize("board", BOARDS)
def test_a_tracker_gets_the_numbers_of_the_log(run, board):
    lines, said = run(board)
    assert len(HEARD) == len(lines) + 1 and HEARD[-1] == (-1, {})
    for line, (step, values) in zip(lines, HEARD, strict=False):
        assert step == line["step"] and not {"step", "samples", "modules"} & set(values)
        assert all(line[name] == value for name, value in values.items() if "/" not in name)
        for module, numbers in line.get("modules", {}).items():
            assert values[f"grad_norm/{module}"] == numbers["grad_norm"]
    assert "the board: " in said and board in said.split("the board: ")[1]


def test_a_failing_tracker_does_not_end_the_run(run, monkeypatch):
    monkeypatch.setattr(Tracker, "fails_at", 2)
    lines, said = run("tensorboard")
    assert [step for step, _ in HEARD] == [1] and [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert (
        said.count("note: tensorboard failed and is no longer used (ConnectionError: nobody there); see log.jsonl") == 1
    )
    assert "the board: " not in said


def test_a_tracker_that_is_not_installed_is_an_error(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    assert (
        main(["train", "--dataset_name", "toyland", "--report_to", "wandb", "--output_dir", str(tmp_path / "r")]) == 2
    )
    assert "wandb is not installed (expected the package, for --report_to). Run pip install" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
