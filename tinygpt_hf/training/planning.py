"""How long a run is, as arithmetic: rows, steps, and when to evaluate and save."""

from dataclasses import dataclass

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import TrainingArguments


@dataclass(frozen=True)
class Plan:
    """`rows_per_step` is the effective batch: micro-batch x accumulation x processes. 0 for a cadence: at the end only."""

    rows_per_epoch: int
    rows_per_step: int
    total_rows: int
    max_steps: int
    eval_steps: int
    save_steps: int


def make_plan(training: TrainingArguments, rows_per_epoch: int, block_size: int, processes: int) -> Plan:
    """The steps that max_steps, num_train_epochs or max_train_tokens come to. The last step may be short."""
    per_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
    if training.max_steps is not None:
        total = training.max_steps * per_step
    elif training.num_train_epochs is not None:
        total = round(training.num_train_epochs * rows_per_epoch)
    else:
        total = -(-training.max_train_tokens // block_size)
    if total < 1:
        raise UsageError(
            f"--num_train_epochs {training.num_train_epochs} of {rows_per_epoch} rows is less than one row",
            "at least one row was wanted",
            "raise --num_train_epochs",
        )
    steps = -(-total // per_step)
    eval_steps = training.eval_steps if training.eval_steps is not None else max(1, steps // 10)
    save_steps = training.save_steps if training.save_steps is not None else eval_steps
    return Plan(rows_per_epoch, per_step, total, steps, eval_steps, save_steps)


def is_due(step: int, every: int, last: bool) -> bool:
    """Is something done every `every` steps due after step `step`? At the last step always."""
    return last or (every > 0 and step % every == 0)
