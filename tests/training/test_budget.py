"""Runs with a time budget: what they decide, how they resume, and that they equal runs with the same settings given."""

import dataclasses
import json
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import tinygpt_hf
from tinygpt_hf.errors import Interrupted, UsageError
from tinygpt_hf.planning.machine import Machine, Pace
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.training import budget, clock, log, recipe, step
from tinygpt_hf.training.log import read_log

EACH = 20.0  # seconds of a step; only steps advance the clock
MODEL = {"hidden_size": 32, "num_hidden_layers": 1}
TEXTS = [f"Number {n} is followed by number {n + 1}, and that one by {n + 2}." for n in range(400)]
OPTIONS_OF_DATA: dict = {"block_size": 32}
OPTIONS = {
    "mixed_precision": "no", "device": "cpu", "sample_tokens": 0, "eval_rows": 2, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,    "logging_steps": 1, "save_steps": 10, "eval_steps": 0,
}  # fmt: skip


@pytest.fixture
def slow(monkeypatch):
    """Replace the clock: each step takes `slow.each` seconds, all else none. `slow.stop_at`: the step that is killed."""
    world = SimpleNamespace(now=1000.0, each=EACH, steps=0, stop_at=None)
    gradients = step.gradients

    def timed(run, *rest):
        world.now += world.each
        if world.stop_at is not None and run.state.step >= world.stop_at:
            raise Interrupted("killed", 9)
        return gradients(run, *rest)

    def now():
        return world.now

    monkeypatch.setattr(step, "gradients", timed)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(log, "time", SimpleNamespace(perf_counter=now, monotonic=time.monotonic))

    def measured(run, groups, text, seconds):
        model, data, _, training = groups
        training = dataclasses.replace(training, learning_rate=0.01)
        return Machine([Pace(run.shape, training, data.block_size, world.each, 0.0)])

    monkeypatch.setattr(budget, "_time_trials", measured)
    monkeypatch.setattr(budget.probe, "early_losses", lambda *_: (3.0, 2.5))
    return world


@pytest.fixture(scope="module", autouse=True)
def text(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("text") / "numbers.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXTS))
    OPTIONS_OF_DATA["train_file"] = [str(path)]
    return str(path)


def train(folder, **training):
    return recipe.train(
        ModelArguments(**MODEL),
        DataArguments(**OPTIONS_OF_DATA),
        TokenizerArguments(tokenizer_type="byte"),
        TrainingArguments(output_dir=str(folder), **OPTIONS | training),
        quiet=True,
    )


def facts(folder) -> dict:
    return json.loads((folder / "run.json").read_text())


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_ends_in_time_and_equals_one_with_the_same_number_of_steps(slow, tmp_path):
    result = train(tmp_path / "run", time_budget="20m")
    plan, (event,), after = (facts(tmp_path / "run")[name] for name in ("plan", "events", "came_true"))
    assert 0.95 * 1200 < after["seconds"] <= 1200 and abs(after["seconds"] - result.steps * EACH) < 2 * EACH
    assert event["max_steps"] == result.steps == event["step"] + plan["settings"]["decay_steps"]
    assert event["decay_steps"] == plan["settings"]["decay_steps"]
    assert {"seconds", "memory_bytes", "parameters", "train_tokens", "epochs", "bits_per_byte", "low", "high"} <= set(
        after
    )
    assert after["parameters"] == result.parameters
    rates = [line["learning_rate"] for line in read_log(tmp_path / "run" / "log.jsonl") if "loss" in line]
    peak = max(rates)
    assert rates[event["step"]] == peak > rates[event["step"] + 1] and rates[-1] < 1.5 * peak / event["decay_steps"]
    given = {name: value for name, value in plan["settings"].items() if name in TrainingArguments.__dataclass_fields__}
    train(tmp_path / "given", **given, max_steps=result.steps)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "given"))


def test_a_killed_run_resumes_with_its_plan_time_and_events(slow, tmp_path):
    whole = train(tmp_path / "whole", time_budget="20m")
    decided = facts(tmp_path / "whole")["events"][0]["step"]
    for where in (decided - 3, decided + 10):
        folder = tmp_path / f"killed-{where}"
        slow.stop_at = where
        with pytest.raises(Interrupted):
            train(folder, time_budget="20m")
        slow.stop_at, slow.now = None, slow.now + 1e6  # time between two processes does not count
        result = train(folder, time_budget="20m")
        plans = [facts(each)["plan"] | {"memory_bytes": None} for each in (folder, tmp_path / "whole")]
        assert plans[0] == plans[1]
        assert result.steps == facts(folder)["events"][0]["max_steps"]
        if where > decided:
            assert facts(folder)["events"] == facts(tmp_path / "whole")["events"]
        assert result.steps == whole.steps and same(weights(folder), weights(tmp_path / "whole"))
    assert train(folder, time_budget="20m").already_finished
    assert train(folder, max_steps=result.steps + 2).steps == result.steps + 2


def test_a_slowdown_shortens_the_plateau_not_the_decay(slow, tmp_path, monkeypatch):
    train(tmp_path / "quiet", time_budget="20m")
    slow.stop_at = 20
    with pytest.raises(Interrupted):
        train(tmp_path / "r", time_budget="20m")
    slow.stop_at, slow.each = None, 1.3 * EACH
    result = train(tmp_path / "r", time_budget="20m")
    (quiet,), (slowed,) = (facts(tmp_path / name)["events"] for name in ("quiet", "r"))
    assert slowed["step"] < quiet["step"] and slowed["max_steps"] - slowed["step"] == quiet["max_steps"] - quiet["step"]
    assert facts(tmp_path / "r")["came_true"]["seconds"] < 1200 + 3 * slow.each and result.steps == slowed["max_steps"]


def test_a_machine_slower_than_planned_shortens_the_decay_early(slow, tmp_path, monkeypatch):
    gradients = step.gradients

    def twice_as_slow(*given):
        slow.now += EACH
        return gradients(*given)

    monkeypatch.setattr(step, "gradients", twice_as_slow)
    slow.each = EACH / 2
    result = train(tmp_path / "r", time_budget="20m")
    plan, (shorter, decay) = (facts(tmp_path / "r")[name] for name in ("plan", "events"))
    assert shorter["event"] == "shorter" and shorter["step"] == clock.CHECKED
    assert shorter["decay_steps"] == decay["decay_steps"] < plan["settings"]["decay_steps"]
    assert 0.93 * 1200 < facts(tmp_path / "r")["came_true"]["seconds"] <= 1200
    assert result.steps == decay["step"] + decay["decay_steps"]


def test_a_small_text_ends_before_the_time_budget(slow, tmp_path, monkeypatch):
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXTS[:70]))
    monkeypatch.setitem(OPTIONS_OF_DATA, "train_file", [str(tmp_path / "few.jsonl")])
    result = train(tmp_path / "r", time_budget="200h", eval_steps=0, save_steps=0)
    after = facts(tmp_path / "r")["came_true"]
    assert 4 < after["epochs"] < 16 and result.steps == facts(tmp_path / "r")["plan"]["steps"]
    assert after["seconds"] < 200 * 3600 / 2


def test_plan_writes_nothing_and_predicts_the_run(slow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    groups = (
        ModelArguments(**MODEL),
        DataArguments(**OPTIONS_OF_DATA),
        TokenizerArguments(tokenizer_type="byte"),
    )
    forecast = tinygpt_hf.plan(*groups, TrainingArguments(time_budget="20m", **OPTIONS))
    assert list(tmp_path.iterdir()) == [] and "expected" in forecast.table
    result = train(tmp_path / "r", time_budget="20m")
    assert forecast.max_steps == pytest.approx(result.steps, rel=0.15) and forecast.seconds == 1200
    assert forecast.parameters == pytest.approx(result.parameters, rel=0.01)
    assert forecast.settings == facts(tmp_path / "r")["plan"]["settings"]


def test_invalid_budgets_are_errors_before_anything_is_written(slow, tmp_path):
    for wrong in ("soon", "0s", "-8m", "8"):
        with pytest.raises(UsageError, match="--time_budget is .*such as 90s, 8m"):
            train(tmp_path / "r", time_budget=wrong)
    with pytest.raises(UsageError, match="--time_budget 8m and --max_steps 5 are both given"):
        train(tmp_path / "r", time_budget="8m", max_steps=5)
    with pytest.raises(UsageError, match="--time_budget 8m and --lr_scheduler_type cosine"):
        train(tmp_path / "r", time_budget="8m", lr_scheduler_type="cosine")
    with pytest.raises(UsageError, match="s are left for training"):
        train(tmp_path / "r", time_budget="30s")
    assert list(tmp_path.iterdir()) == []
