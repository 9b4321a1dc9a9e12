"""Compiled layers: when a run chooses them, that it keeps the decision when resumed, and that failures do not end it.

The compiler is a stand-in whose kernels round otherwise; a real one traces the layers in tests/model/test_generation_modes.py.
"""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from test_recipe import run, weights

from tinygpt_hf.errors import Interrupted
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.settings.parsing import parse
from tinygpt_hf.training import compilation, step

RUN = {
    "max_steps": 12,
    "eval_steps": 4,
    "save_steps": 4,
    "keep_snapshots": 0,
    "sample_tokens": 2,
    "torch_compile": "auto",
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Replace the compiler and the clock.

    `seconds`: of a gradient, by whether it is compiled. `fails`: the compiler's error. `stop_at`: the step that is killed.
    `compiled`: the compiled steps.
    """
    world = SimpleNamespace(now=0.0, seconds={False: 1.0, True: 0.5}, fails=None, stop_at=None, compiled=set(), made=0)
    gradients = step.gradients

    def timed(run, *rest, **named):
        is_compiled = "forward" in run.raw.model.layers[0].__dict__
        world.now += world.seconds[is_compiled]
        if run.state.step == world.stop_at:
            raise Interrupted("killed", 9)
        if is_compiled:
            world.compiled.add(run.state.step)
        return gradients(run, *rest, **named)

    def compiler(forward, **options):
        world.made += 1
        if world.fails:
            raise world.fails
        return lambda layer, x, **named: forward(layer, x, **named) * (1 + 1e-3)

    monkeypatch.setattr(step, "gradients", timed)
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(compilation, "MIN_SECONDS_LEFT", {True: 0, False: 0})
    monkeypatch.setattr(compilation, "time", SimpleNamespace(perf_counter=lambda: world.now))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return world


def event(folder) -> dict:
    (found,) = json.loads((folder / "run.json").read_text())["events"]
    return found


def same(one, other) -> bool:
    one, other = weights(one), weights(other)
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    run(folder, **RUN | {"torch_compile": False})
    return folder


def test_a_run_compiles_if_faster_and_a_resumed_one_from_the_same_step(machine, plain, tmp_path, monkeypatch):
    run(tmp_path / "whole", **RUN)
    decided = event(tmp_path / "whole")
    assert (decided["event"], decided["step"], decided["compiled"], decided["share"]) == ("compile", 8, True, 0.5)
    assert machine.compiled == {8, 9, 10, 11} and machine.made == 1 and not same(tmp_path / "whole", plain)
    monkeypatch.setattr(compilation, "MIN_SECONDS_LEFT", {True: 0, False: math.inf})  # it is in the cache now
    for killed_at in (6, 9):  # resumed at step 4, before the decision, and at step 8
        machine.stop_at, folder = killed_at, tmp_path / f"killed-{killed_at}"
        with pytest.raises(Interrupted):
            run(folder, **RUN)
        machine.stop_at, machine.compiled = None, set()
        run(folder, **RUN)
        assert machine.compiled == {8, 9, 10, 11} and same(folder, tmp_path / "whole")
        assert event(folder).items() - decided.items() <= {("seconds", event(folder)["seconds"])}


@pytest.mark.parametrize(
    "seconds,long,told",
    [(0.98, 0, {"share": 0.98}), (0.5, math.inf, {})],
    ids=["hardly faster", "too short a run"],
)
def test_a_run_stays_uncompiled_if_compiling_is_not_faster(machine, plain, tmp_path, monkeypatch, seconds, long, told):
    machine.seconds[True] = seconds
    monkeypatch.setattr(compilation, "MIN_SECONDS_LEFT", {True: 0, False: long})
    run(tmp_path / "run", **RUN)
    found = event(tmp_path / "run")
    assert found.pop("seconds") >= 0 and found == {"event": "compile", "step": 8, "compiled": False, **told}
    assert machine.made == len(told) and same(tmp_path / "run", plain)


@pytest.mark.parametrize("wanted", ["auto", True])
def test_without_a_compiler_a_run_prints_a_note_and_continues(machine, plain, tmp_path, capsys, monkeypatch, wanted):
    said = []
    monkeypatch.setattr("tinygpt_hf.training.log.Console.say", lambda console, line: said.append(line))
    machine.fails = RuntimeError("No working C++ compiler found\nin many lines")
    run(tmp_path / "run", **RUN | {"torch_compile": wanted})
    assert said.count("note: the layers are not compiled: No working C++ compiler found") == 1 and machine.made == 1
    assert same(tmp_path / "run", plain)


def test_true_compiles_from_the_first_step(machine, tmp_path):
    run(tmp_path / "run", **RUN | {"torch_compile": True, "max_steps": 3})
    assert machine.compiled == {0, 1, 2} and "events" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert compilation.cache_folder() == tmp_path / "cache" / "tinygpt_hf" / "compiled"


@pytest.mark.parametrize(
    "words,value",
    [
        ("--torch_compile", True),
        ("--torch_compile auto", "auto"),
        ("--torch_compile=no", False),
        ("--no_torch_compile", False),
    ],
)
def test_torch_compile_is_a_flag_or_auto(words, value):
    assert parse((TrainingArguments,), words.split())[TrainingArguments].torch_compile == value
