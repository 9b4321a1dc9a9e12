"""The length of a run, by hand."""

from types import SimpleNamespace

import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.planning import plan as planning
from tinygpt_hf.planning.plan import is_due, make_plan
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled


def plan(processes=1, **training):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **training}
    return make_plan(TrainingArguments(**settings), rows_per_epoch=100, block_size=32, processes=processes)


def test_steps_epochs_and_tokens():
    assert plan(max_steps=7).total_rows == 7 * 8
    assert plan(num_train_epochs=1).max_steps == 13  # 12 full steps of 8 rows and one of 4
    assert plan(num_train_epochs=0.5).total_rows == 50
    assert plan(max_train_tokens=32 * 8 * 3).max_steps == 3
    assert plan(max_train_tokens=1).max_steps == 1
    assert plan(processes=2, num_train_epochs=1).rows_per_step == 16


def test_cadences_default_to_a_tenth():
    assert (plan(max_steps=100).eval_steps, plan(max_steps=100).save_steps) == (10, 10)
    assert (plan(max_steps=100, eval_steps=30).save_steps, plan(max_steps=5).eval_steps) == (30, 1)
    assert [step for step in range(1, 11) if is_due(step, 4, step == 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if is_due(step, 0, step == 10)] == [10]


def test_less_than_a_row_is_refused():
    with pytest.raises(UsageError, match="less than one row"):
        plan(num_train_epochs=0.001)


def test_a_run_without_a_length_has_eight_minutes():
    assert filled(ModelArguments(), TrainingArguments())[1].time_budget == "8m"
    assert filled(ModelArguments(), TrainingArguments(num_train_epochs=1))[1].time_budget is None
    began = {"max_steps": 70}  # a run folder of a version that chose a number of steps
    assert filled(ModelArguments(), TrainingArguments(), began)[1].max_steps == 70
    assert filled(ModelArguments(), TrainingArguments(), began)[1].time_budget is None


def test_the_warm_up_is_short_in_a_short_run():
    def warmup(**training):
        _, training = filled(ModelArguments(), TrainingArguments(**training))
        return planning.settled(DataArguments(), training, 100, processes=1)[0].warmup_steps

    assert [warmup(max_steps=steps) for steps in (8, 100, 5000)] == [0, 10, 20]
    assert warmup(max_steps=8, warmup_steps=7) == 7


def test_evaluations_before_the_last_cost_a_share_of_the_run():
    validation = SimpleNamespace(count=lambda block_size: 500)

    def share(prompts=2, **training):
        training = TrainingArguments(per_device_train_batch_size=8, **training)
        plan = make_plan(training, rows_per_epoch=10**6, block_size=256, processes=1)
        found = planning.evaluation_share(plan, training, validation, 256, prompts)
        times = (plan.max_steps - 1) // max(plan.eval_steps, 1)
        cost = times * ((found.rows or 500) * 256 + found.tokens * prompts * planning.SAMPLED)
        return found, cost / (planning.TRAINED * plan.total_rows * 256)

    for settings in ({}, {"eval_steps": 10}, {"eval_steps": 100}, {"sample_tokens": 100}):
        found, cost = share(max_steps=1500, **settings)
        assert cost < 1.01 * planning.BESIDE and 0 < found.rows < 500
    assert share(max_steps=1500)[0].tokens == share(max_steps=20)[0].last_tokens == planning.SAMPLE_TOKENS
    assert share(max_steps=20)[0].tokens < 20 and share(max_steps=20, sample_tokens=30)[0].tokens == 30
    assert share(max_steps=10**5)[0].rows is None  # all of it costs less
    assert share(max_steps=1500, eval_rows=7)[0].rows == 7
    assert share(max_steps=1500, eval_rows=0)[0].rows is share(max_steps=1500, eval_steps=0)[0].rows is None
