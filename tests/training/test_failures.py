"""Failures of a step, injected: out of memory, values that are not finite, a full disk."""

import errno
import json
import math

import pytest
import torch
from test_recipe import losses, run, weights

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError
from tinygpt_hf.training import measures
from tinygpt_hf.training import run as run_module
from tinygpt_hf.training import step as step_module
from tinygpt_hf.training.failures import is_out_of_memory
from tinygpt_hf.training.log import read_log


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train a run without failures, and without dropout, so that the micro-batch size does not matter."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, model={"hidden_dropout": 0.0})
    return folder


def out_of_memory_above(monkeypatch, rows: int, error=None) -> list[int]:
    """Make every forward pass with more than `rows` rows fail, and return the list of sizes tried."""
    real, tried = step_module.micro_batch_loss, []

    def forward(net, batch, *rest):
        tried.append(len(batch[0]))
        if len(batch[0]) > rows:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(net, batch, *rest)

    monkeypatch.setattr(step_module, "micro_batch_loss", forward)
    return tried


LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: tried 9 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 68719476736 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    MemoryError(),
]


def test_out_of_memory_errors_of_all_devices_are_recognized():
    assert all(map(is_out_of_memory, LACKS)) and not is_out_of_memory(KeyError("x"))


def test_out_of_memory_changes_no_loss_and_the_smaller_size_is_saved(finished, tmp_path, monkeypatch):
    tried = out_of_memory_above(monkeypatch, 3)  # the micro-batch is halved and the step repeated
    with monkeypatch.context() as patch:
        real = run_module.Run.save

        def then_killed(self):
            real(self)
            raise SystemExit(9)

        patch.setattr(run_module.Run, "save", then_killed)
        with pytest.raises(SystemExit):
            run(tmp_path / "r", model={"hidden_dropout": 0.0})
    assert tried[:3] == [8, 4, 2] and set(tried[3:]) == {2}  # only in the first step
    assert json.loads((tmp_path / "r/checkpoint-4/state.json").read_text())["micro_batch"] == 2
    tried.clear()
    run(tmp_path / "r", model={"hidden_dropout": 0.0})
    assert set(tried) == {2}
    a, b = losses(tmp_path / "r"), losses(finished)
    assert a.keys() == b.keys() and max(abs(a[step] - b[step]) for step in a) < 1e-5


def test_out_of_memory_with_one_row_suggests_settings(tmp_path, monkeypatch):
    tried = out_of_memory_above(monkeypatch, 0)
    with pytest.raises(
        RunError, match="out of memory with one row per micro-batch; what helps: --gradient_checkpointing"
    ):
        run(tmp_path / "r")
    assert tried == [8, 4, 2, 1]


def test_other_errors_are_not_treated_as_out_of_memory(tmp_path, monkeypatch):
    out_of_memory_above(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path / "r")


def spoil(monkeypatch, step: int, value: float, of: str = "loss") -> None:
    """Make the loss, or only the gradient, of one step `value`."""
    real, calls = step_module.micro_batch_loss, []

    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * value if of == "loss" else x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * value

    def forward(*args):
        calls.append(1)
        loss = real(*args)
        return Spoilt.apply(loss) if len(calls) == step else loss

    monkeypatch.setattr(step_module, "micro_batch_loss", forward)


@pytest.mark.parametrize(("value", "of"), [(math.nan, "loss"), (math.inf, "gradient")])
def test_a_step_that_is_not_finite_stops_the_run_before_the_update(finished, tmp_path, monkeypatch, value, of):
    with monkeypatch.context() as patch:
        spoil(patch, 6, value, of)
        with pytest.raises(
            RunError, match=r"in step 6 \(learning rate .*, rows .*\); no update was made; lower --learning_rate"
        ):
            run(tmp_path / "r", model={"hidden_dropout": 0.0})
    line = read_log(tmp_path / "r/log.jsonl")[-1]
    assert line["step"] == 6 and line["skipped"] == 1 and len(line["rows"]) == 8
    assert line["grad_norm"] is None and line["grad_norm_is"] in ("nan", "inf")
    if of == "loss":
        assert line["loss"] is None and line["loss_is"] == str(value)
    run(
        tmp_path / "r", model={"hidden_dropout": 0.0}
    )  # without the fault the same command ends as an uninterrupted run
    assert losses(tmp_path / "r") == losses(finished)
    expected = weights(finished)
    assert all(torch.equal(expected[name], value) for name, value in weights(tmp_path / "r").items())


def test_skipped_steps_are_counted(tmp_path, monkeypatch):
    real_step, updates = run_module.make_optimizer, []

    def counting(*args):
        optimizer = real_step(*args)
        step = optimizer.step
        optimizer.step = lambda *a, **k: (updates.append(1), step(*a, **k))[1]
        return optimizer

    monkeypatch.setattr(run_module, "make_optimizer", counting)
    spoil(monkeypatch, 3, math.nan)
    run(tmp_path / "r", nonfinite="skip:1", save_steps=4)
    assert len(updates) == 7
    state = json.loads((tmp_path / "r/checkpoint-8/state.json").read_text())
    assert state["skipped"] == [3] and state["step"] == 8
    logged = [line for line in read_log(tmp_path / "r/log.jsonl") if line["step"] == 3]
    assert [line["skipped"] for line in logged] == [1]


def test_too_many_skipped_steps_stop_the_run(tmp_path, monkeypatch):
    real = step_module.micro_batch_loss
    monkeypatch.setattr(step_module, "micro_batch_loss", lambda *args: real(*args) * math.nan)
    with pytest.raises(RunError, match="in step 3 .*skip:10"):
        run(tmp_path / "r", nonfinite="skip:2")


def test_a_run_with_a_nonfinite_evaluation_finishes_with_null_values(tmp_path, monkeypatch):
    spoilt = {name: math.nan for name in ("eval_loss", "eval_perplexity", "eval_bits_per_byte", "eval_accuracy")}
    monkeypatch.setattr(measures, "evaluate", lambda *words: spoilt)
    for _ in range(2):  # the second call finds a finished run
        result = run(tmp_path / "r")
        assert result.eval_loss is None and result.best_step is None and result.steps == 8
    line = [line for line in read_log(tmp_path / "r/log.jsonl") if "eval_loss" in line][-1]
    assert line["eval_loss"] is None and line["eval_loss_is"] == "nan"
    assert "NaN" not in (tmp_path / "r/run.json").read_text() and "nan" not in (tmp_path / "r/README.md").read_text()


class FullDisk(storage.System):
    """A disk that is full from the Nth call on."""

    def __init__(self, nth: int):
        self.left = nth

    def count(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, path):
        self.count()
        return super().open(path)

    def write(self, file, data):
        self.count()
        super().write(file, data)

    def fsync(self, descriptor):
        self.count()
        super().fsync(descriptor)

    def rename(self, old, new):
        self.count()
        super().rename(old, new)

    def make_folder(self, folder):
        self.count()
        super().make_folder(folder)


def test_a_full_disk_is_one_error_and_the_run_resumes_with_free_space(finished, tmp_path, monkeypatch):
    plain = {"model": {"hidden_dropout": 0.0}, "keep_snapshots": 0}
    probe = FullDisk(10**6)
    monkeypatch.setattr(storage, "system", probe)
    run(tmp_path / "probe", **plain)
    calls = 10**6 - probe.left
    monkeypatch.setattr(storage, "system", FullDisk(calls * 3 // 5))
    with pytest.raises(RunError, match="a checkpoint needs .* are free; what was saved before is complete; make space"):
        run(tmp_path / "r", **plain)
    monkeypatch.undo()
    saved = list((tmp_path / "r").glob("checkpoint-*"))
    assert saved and not any(map(storage.find_damage, saved))
    assert not list((tmp_path / "r").glob(f"{storage.TEMPORARY}*"))
    run(tmp_path / "r", **plain)
    assert losses(tmp_path / "r") == losses(finished)
