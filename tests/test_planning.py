"""The length of a run, by hand."""

import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.training.planning import is_due, make_plan


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
