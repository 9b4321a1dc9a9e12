"""Compute the length of a run: its steps, and when it evaluates and saves. choice.py plans for a time budget."""

from dataclasses import dataclass, replace

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments, TrainingArguments

WARMUP = 20
BESIDE = 0.07  # share of the training time for all evaluations and samples but the last; with saving about a tenth
SAMPLES = 0.2  # share of that for samples, when their length is not set
TRAINED, SAMPLED = 3, 30  # cost of a trained and of a sampled token, in evaluated tokens (no backward pass)
SAMPLE_TOKENS = 48


@dataclass(frozen=True)
class Plan:
    """The length of a run. `rows_per_step`: the effective batch, micro-batch x accumulation x processes. `eval_steps` and
    `save_steps` of 0: only at the end."""

    rows_per_epoch: int
    rows_per_step: int
    total_rows: int
    max_steps: int
    eval_steps: int
    save_steps: int


def effective_batch(training: TrainingArguments, processes: int) -> int:
    """Return the rows of a step."""
    return training.per_device_train_batch_size * training.gradient_accumulation_steps * processes


def make_plan(training: TrainingArguments, rows_per_epoch: int, block_size: int, processes: int) -> Plan:
    """Convert `max_steps`, `num_train_epochs` or `max_train_tokens` to steps. The last step may have fewer rows."""
    per_step = effective_batch(training, processes)
    if training.max_steps is not None:
        total = training.max_steps * per_step
    elif training.num_train_epochs is not None:
        total = round(training.num_train_epochs * rows_per_epoch)
    else:
        total = -(-training.max_train_tokens // block_size)
    if total < 1:
        raise UsageError(
            f"--num_train_epochs {training.num_train_epochs} of {rows_per_epoch} rows is less than one row",
            "at least one row",
            "raise --num_train_epochs",
        )
    steps = -(-total // per_step)
    eval_steps = training.eval_steps if training.eval_steps is not None else max(1, steps // 10)
    save_steps = training.save_steps if training.save_steps is not None else eval_steps
    return Plan(rows_per_epoch, per_step, total, steps, eval_steps, save_steps)


def settled(
    data: DataArguments,
    training: TrainingArguments,
    rows_per_epoch: int,
    processes: int,
    steps: int | None = None,
) -> tuple[TrainingArguments, Plan]:
    """Return (the settings with a warm-up, the plan). `steps`: the steps a time budget is expected to allow."""
    plan = make_plan(
        replace(training, max_steps=steps or training.max_steps), rows_per_epoch, data.block_size, processes
    )
    if training.warmup_steps is None:
        training = replace(training, warmup_steps=min(WARMUP, plan.max_steps // 10))
    return training, plan


@dataclass(frozen=True)
class Share:
    """The size of an evaluation before the last: `rows` of the validation set (None: all) and samples of `tokens`. The last
    evaluation has samples of `last_tokens`."""

    rows: int | None
    tokens: int
    last_tokens: int


def evaluation_share(plan: Plan, training: TrainingArguments, validation, block_size: int, prompts: int) -> Share:
    """Choose how many validation rows are evaluated and how long the samples of `prompts` are, so that all evaluations before
    the last take about `BESIDE` of the training time. Explicit settings win."""
    times = (plan.max_steps - 1) // plan.eval_steps if plan.eval_steps else 0
    held_out = validation.count(block_size)
    last = tokens = SAMPLE_TOKENS if training.sample_tokens is None else training.sample_tokens
    if times == 0:
        return Share(None, tokens, last)
    each = BESIDE * TRAINED * plan.total_rows * block_size / times
    if training.sample_tokens is None and prompts:
        tokens = min(tokens, int(SAMPLES * each / SAMPLED / prompts))
    rows = training.eval_rows
    if rows is None:
        left = max(each - tokens * prompts * SAMPLED, each / 2)  # samples of a given length leave at least half
        rows = max(1, int(left / block_size))
    return Share(rows if 0 < rows < held_out else None, tokens, last)


def is_due(step: int, every: int, last: bool) -> bool:
    """Return whether something done every `every` steps is due after step `step`. The last step always is."""
    return last or (every > 0 and step % every == 0)
