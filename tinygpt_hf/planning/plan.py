"""A run as arithmetic, before it starts: how many steps, when to evaluate and save, what memory and disk it needs.

plan(data=texts, training=TrainingArguments(num_train_epochs=2)).max_steps
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.preparation import tokenize
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.defaults import LENGTHS, filled
from tinygpt_hf.storage import format_size

TOKENS = 3_000_000  # of a run without a length: minutes on one core at the default size
EPOCHS, EPOCHS_CONTINUED = 8, 3  # after more a small text is learned by heart; weights that are there learn it sooner
WARMUP = 20
BESIDE = 0.07  # of the time of training, for evaluations and samples before the last; a tenth with what saving takes
SAMPLES = 0.2  # of that, for samples whose length nobody set
TRAINED, SAMPLED = 3, 30  # what a token costs, where one of an evaluation, which has no backward pass, costs 1
SAMPLE_TOKENS = 48


@dataclass(frozen=True)
class Plan:
    """`rows_per_step` is the effective batch: micro-batch x accumulation x processes. 0 for a cadence: at the end only.
    `open_length`: nobody gave one, it follows from the text."""

    rows_per_epoch: int
    rows_per_step: int
    total_rows: int
    max_steps: int
    eval_steps: int
    save_steps: int
    open_length: bool = False


def plan(
    model: ModelArguments | None = None,
    data=None,
    tokenizer: TokenizerArguments | None = None,
    training: TrainingArguments | None = None,
    processes: int = 1,
) -> Plan:
    """What `train` with the same arguments comes to. The text is tokenized for it, in a folder that is gone afterwards; of a
    stream, whose length nobody knows, `rows_per_epoch` is 0."""
    model, data = model or ModelArguments(), data_arguments(data)
    tokenizer, training = tokenizer or TokenizerArguments(), training or TrainingArguments()
    check_settings(model, data, tokenizer, training)
    model, training = filled(model, training)
    if data.streaming:
        return settled(model, data, training, 0, processes)[1]
    with tempfile.TemporaryDirectory() as folder:
        _, rows, _ = tokenize(Corpus(data, training.seed), tokenizer, Path(folder))
        train = BestFitRows(rows.train.folder, data.block_size) if data.packing == "bestfit" else rows.train
        return settled(model, data, training, len(RowView(train, data.block_size, data.sliding)), processes)[1]


def effective_batch(training: TrainingArguments, processes: int) -> int:
    """Rows in a step."""
    return training.per_device_train_batch_size * training.gradient_accumulation_steps * processes


def make_plan(training: TrainingArguments, rows_per_epoch: int, block_size: int, processes: int) -> Plan:
    """The steps that max_steps, num_train_epochs or max_train_tokens come to. The last step may be short."""
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
    model: ModelArguments, data: DataArguments, training: TrainingArguments, rows_per_epoch: int, processes: int
) -> tuple[TrainingArguments, Plan]:
    """The settings with a length and a warm-up, where they leave them open, and the plan they come to."""
    is_open = all(getattr(training, name) is None for name in LENGTHS)
    if is_open:
        rows = -(-TOKENS // data.block_size)
        if not data.streaming:  # else nobody knows yet how many there are
            rows = min(rows, (EPOCHS_CONTINUED if model.model_name_or_path else EPOCHS) * rows_per_epoch)
        training = replace(training, max_steps=max(1, rows // effective_batch(training, processes)))
    plan = replace(make_plan(training, rows_per_epoch, data.block_size, processes), open_length=is_open)
    if training.warmup_steps is None:
        training = replace(training, warmup_steps=min(WARMUP, plan.max_steps // 10))
    return training, plan


@dataclass(frozen=True)
class Share:
    """What an evaluation before the last takes: `rows` of the validation set, None for all, and samples of `tokens`; the last
    one has samples of `last_tokens`."""

    rows: int | None
    tokens: int
    last_tokens: int


def evaluation_share(plan: Plan, training: TrainingArguments, validation, block_size: int, prompts: int) -> Share:
    """How many rows of `validation` are evaluated, and how long `prompts` samples are, so that all evaluations before the
    last take about `BESIDE` of the time of training. Settings that say it win."""
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
        left = max(each - tokens * prompts * SAMPLED, each / 2)  # samples that somebody wants do not take all
        rows = max(1, int(left / block_size))
    return Share(rows if 0 < rows < held_out else None, tokens, last)


def is_due(step: int, every: int, last: bool) -> bool:
    """Is something done every `every` steps due after step `step`? At the last step always."""
    return last or (every > 0 and step % every == 0)


@dataclass(frozen=True)
class Needs:
    """Bytes, in float32. `fixed`: weights, gradients and the optimizer's memory, of one process; `activations`: an estimate for
    a micro-batch; `checkpoint`: weights and the optimizer's memory, whole."""

    weights: int
    fixed: int
    activations: int
    checkpoint: int


def estimate_needs(
    config, groups: list[dict], training: TrainingArguments, block_size: int, shards: int = 1, frozen: int = 0
) -> Needs:
    """What a process needs for a model of `config` whose parameters stand in the optimizer's `groups`, but for `frozen` numbers.

    Muon keeps one number beside a weight, AdamW two. Frozen weights have neither these nor a gradient, but are there twice
    while they are saved with adapters merged in. Activations count what the backward pass reads again, per layer and
    token: the inputs of its products, norms and activations; and at the end the logits with their softmax and gradient.
    """
    learned = sum(p.numel() for group in groups for p in group["params"]) * 4
    weights = learned + 4 * frozen
    memory = sum(p.numel() * (4 if group["muon"] else 8) for group in groups for p in group["params"])
    heads, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = 4 * heads + 4 * keys if config.qk_norm else 2 * heads + 2 * keys
    layer = 4 * config.hidden_size + attention + (4 if config.mlp_type == "gated" else 2) * config.intermediate_size
    layers = config.num_hidden_layers
    kept = layers * config.hidden_size + layer if training.gradient_checkpointing else layers * layer
    tokens = training.per_device_train_batch_size * block_size
    activations = 4 * tokens * (kept + 3 * config.vocab_size)
    return Needs(weights, (2 * weights + memory) // shards, activations, weights + memory)


def check_room(needs: Needs, folder: Path, limit: int, device: str) -> None:
    """Refuse a run whose weights, gradients and optimizer, or whose checkpoints, cannot fit; activations may yet be cut."""
    free, where = available_memory(device), "GPU memory" if device == "cuda" else "memory"
    if needs.fixed > free:
        raise UsageError(
            f"weights, gradients and optimizer take {format_size(needs.fixed)}",
            f"at most {format_size(free)}, the {where} that is free",
            "use a smaller model (--hidden_size, --num_hidden_layers, --vocab_size), or a machine with more",
        )
    # while one is written there are `limit` old ones and the new; besides: the last and the best weights, one being replaced
    wanted = (limit + 1) * needs.checkpoint + 3 * needs.weights
    kept = (folder.glob(f"{place}*.safetensors") for place in ("", "best/", "checkpoint-*/"))
    have = sum(path.stat().st_size for found in kept for path in found if path.is_file())
    room = shutil.disk_usage(folder).free
    if wanted - have > room:
        raise UsageError(
            f"the checkpoints take {format_size(wanted)}",
            f"at most {format_size(room + have)}, which are free on the disk of {folder}",
            "make space, choose another --output_dir, or a smaller --save_total_limit or model",
        )


def available_memory(device: str) -> int:
    """Bytes a process can still take: of the GPU, or of this machine within the limit of its control group."""
    import psutil
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(free, max(limit - used, 0))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free
