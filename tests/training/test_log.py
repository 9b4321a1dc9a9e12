"""log.jsonl has whole lines and correct values; the console never raises."""

import json
import os
import sys

import pytest
import torch

from tinygpt_hf.training.log import Console, Meter, RunLog, read_log


def test_the_log_is_cut_to_the_step_of_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1.0 / step})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # an incomplete line after a crash
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]
    RunLog(path, 2).write({"step": 3, "loss": 9.0})
    assert read_log(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 9.0}]


def test_a_value_that_is_not_finite_is_null_with_its_text(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.write({"step": 1, "grad_norm": float("inf")})
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "grad_norm": None, "grad_norm_is": "inf"}


def test_the_logged_loss_is_the_mean_over_tokens():
    meter = Meter(Console(enabled=False), 10, 0)
    meter.add(torch.tensor(2.0, dtype=torch.float64), 100)
    meter.add(torch.tensor(5.0, dtype=torch.float64), 50)
    values = meter.read(2, 150, 0.1, torch.tensor(1.5))
    assert values["loss"] == pytest.approx((2 * 100 + 5 * 50) / 150)
    assert values["grad_norm"] == 1.5 and values["tokens"] == 150


def test_the_first_line_after_a_resume_equals_that_of_an_uninterrupted_run():
    steps = [(torch.tensor(loss, dtype=torch.float64), tokens) for loss, tokens in ((0.1, 3), (1.7, 5), (2.3, 7))]
    whole, before = Meter(Console(enabled=False), 10, 0), Meter(Console(enabled=False), 10, 0)
    for step in steps:
        whole.add(*step)
    before.add(*steps[0])
    after = Meter(Console(enabled=False), 10, 1, json.loads(json.dumps(before.unlogged)))
    for step in steps[1:]:
        after.add(*step)
    assert after.read(3, 15, 0.1, 1.0)["loss"] == whole.read(3, 15, 0.1, 1.0)["loss"]
    assert after.unlogged == [0.0, 0, 0]


def gone(kind: str):
    """Return a stderr that cannot be written to."""
    if kind == "missing":
        return None
    if kind == "full":
        return open("/dev/full", "w")
    reader, writer = os.openpty() if kind == "terminal" else os.pipe()
    stream = open(writer, "w")
    if kind == "closed":
        stream.close()
    if kind == "terminal":
        assert stream.isatty()
    os.close(reader)
    return stream


@pytest.mark.parametrize("kind", ["missing", "closed", "full", "reader left", "terminal"])
def test_an_unusable_stderr_raises_nothing(kind, monkeypatch):
    stream = gone(kind)
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console()
    console.say("a line")
    for _ in range(2):
        console.bar("training", 10)
        console.advance(5, "half" * 10_000)
        console.say("a line\n" * 10_000)
        console.close()
    monkeypatch.undo()
    if stream is not None:
        stream.close()  # raises if data is left in its buffer


def test_a_closed_terminal_raises_nothing(monkeypatch):
    terminal, writer = os.openpty()
    monkeypatch.setattr(sys, "stderr", open(writer, "w"))
    console = Console()
    assert console.live
    console.bar("training", 10)
    console.advance(5, "half")
    assert os.read(terminal, 1000)
    os.close(terminal)
    console.say("a line")
    console.advance(7, "more")
    console.close()
    sys.stderr.close()


def test_output_resumes_when_stderr_becomes_writable(monkeypatch, tmp_path):
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console()
        console.say("lost")
        with (tmp_path / "log").open("w") as room:
            os.dup2(room.fileno(), stream.fileno())
        console.say("heard")
        monkeypatch.undo()
    assert (tmp_path / "log").read_text() == "heard\n"
