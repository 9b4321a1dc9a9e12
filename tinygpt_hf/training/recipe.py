"""train(): from settings to a finished run folder, the story in order. Pretraining and chat tuning differ in labels only.

    from tinygpt_hf import train
    from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments

    result = train(
        ModelArguments(hidden_size=128, num_hidden_layers=4, num_attention_heads=4),
        DataArguments(train_file=["my.txt"], block_size=128),
        TokenizerArguments(vocab_size=2048),
        TrainingArguments(output_dir="runs/mine", max_steps=500),
    )
    result.eval_loss                                   # nats per token over the whole validation set

Below train() stand its steps, in the order it takes them. Nothing is hooked in anywhere: what happens is a line of the loop.
"""

import contextlib
import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from tinygpt_hf import safeio
from tinygpt_hf.data import order
from tinygpt_hf.data.preparation import find_rows, find_tokenizer, make_tokenizer, save_tokenizer
from tinygpt_hf.data.rows import IGNORED, Rows
from tinygpt_hf.data.tokenizer import tokenizer_hash
from tinygpt_hf.errors import Interrupted, RunError, UsageError
from tinygpt_hf.evaluation.baselines import baselines
from tinygpt_hf.evaluation.metrics import MetricSums, batch_sums
from tinygpt_hf.inference.generation import continue_prompts, encode_prompt
from tinygpt_hf.model.construction import build_model, check_model
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.training import checkpoint, run_folder
from tinygpt_hf.training.checkpoint import RunState
from tinygpt_hf.training.interruption import Interruption
from tinygpt_hf.training.optim import learning_rate_factor, make_optimizer, set_learning_rate
from tinygpt_hf.training.planning import Plan, is_due, make_plan
from tinygpt_hf.training.precision import attention_for, choose_device, choose_precision
from tinygpt_hf.training.run_log import Console, Meter, RunLog, announcement, closing_line, evaluation_line, to_beat


@dataclasses.dataclass
class TrainResult:
    """A finished run. Losses are nats per token over the whole validation set; `seconds` are this call's training loop."""

    output_dir: str
    steps: int
    tokens: int
    parameters: int
    eval_loss: float
    eval_perplexity: float
    eval_bits_per_byte: float | None
    best_loss: float
    best_step: int
    seconds: float
    already_finished: bool = False


def train(
    model: ModelArguments | None = None,
    data: DataArguments | None = None,
    tokenizer: TokenizerArguments | None = None,
    training: TrainingArguments | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train as the settings say into `training.output_dir`, going on from what it holds; returns what was reached.

    Raises UsageError for what the settings or the data have wrong, RunError for a failure on the way, Interrupted after a
    signal. Whatever is raised, every checkpoint written before is complete, and the same call goes on from the newest.
    """
    settings = [
        model or ModelArguments(),
        data or DataArguments(),
        tokenizer or TokenizerArguments(),
        training or TrainingArguments(),
    ]
    model, data, tokenizer, training = settings
    check_settings(*settings)
    folder = output_folder(training)
    transformers.utils.logging.disable_progress_bar()  # the bars are ours
    check_model(model, data)
    accelerator = make_accelerator(training)
    console = Console(accelerator.is_main_process and not quiet)

    with (
        run_folder.opened(folder, training.overwrite, accelerator.is_main_process),
        Interruption(accelerator) as interruption,
    ):
        # The text, as rows; the model; and how far the run is.
        with accelerator.main_process_first():
            tok, rows = prepare(folder, model, data, tokenizer, training, console)
        net = build_model(model, data, tok, training.seed).train()
        net.set_attn_implementation(attention_for(accelerator.device.type, accelerator.mixed_precision))
        if training.gradient_checkpointing:
            net.gradient_checkpointing_enable()
        plan = make_plan(
            training, rows.train.count(data.block_size, data.shift_rows), data.block_size, accelerator.num_processes
        )
        chats = rows.train.mask is not None  # tokens are masked in conversations only
        facts = run_facts(net, rows, tok, data, training, plan)
        resumed = run_folder.find_checkpoint(folder, training.resume_from_checkpoint, facts, console.say)
        state = checkpoint.read_state(resumed) if resumed else RunState(facts=facts)
        finished = run_folder.finished_result(folder, state, plan.max_steps)
        if finished:
            console.say(
                f"{folder} is already finished: {state.step} steps, validation loss {state.last_evaluation['eval_loss']:.4f}"
            )
            return TrainResult(**{**finished, "already_finished": True})
        if resumed:
            checkpoint.load_weights(resumed, net)
        if accelerator.is_main_process:
            run_folder.write_settings(folder, settings, console.say)
            run_folder.write_facts(
                folder, accelerator.device.type, accelerator.mixed_precision, {**facts, "chat": chats}, result=None
            )
            console.say(announcement(net, plan, state, rows.train.num_tokens, data.block_size, accelerator))
            if not chats:  # in conversations only some tokens count, so the numbers would not compare
                console.say(
                    to_beat(baselines(rows.train.tokens, rows.validation.tokens, len(tok), rows.validation.num_bytes))
                )

        # What trains it. Only the model and the optimizer go through Accelerate: the rows need no loader.
        raw = net
        net, optimizer = accelerator.prepare(net, make_optimizer(net, training, accelerator.mixed_precision))
        if resumed:
            checkpoint.load_optimizer(resumed / checkpoint.OPTIMIZER, optimizer.optimizer)
            if accelerator.scaler and state.scaler:
                accelerator.scaler.load_state_dict(state.scaler)
        forward = torch.compile(net) if training.torch_compile else net
        log = RunLog(folder / run_folder.LOG, state.step) if accelerator.is_main_process else None
        meter = Meter(console, plan.max_steps, state.step)

        # The loop.
        interruption.hold()
        while state.step < plan.max_steps:
            # Dropout, too, is a function of the step: there is no random state to save.
            torch.manual_seed(order.mix(training.seed, state.step, accelerator.process_index))
            factor = rate_factor(state.step, plan, training)
            set_learning_rate(optimizer, factor)
            batches, tokens = step_batches(rows.train, state.step, plan, data, training, accelerator)
            loss, norm = train_step(forward, net, optimizer, batches, tokens, training, accelerator)
            state.step += 1
            state.tokens += tokens
            meter.add(loss, tokens)
            last, signal = state.step == plan.max_steps, interruption.wanted()

            if is_due(state.step, training.logging_steps, last) or signal:
                values = meter.read(state.step, state.tokens, training.learning_rate * factor, norm)
                if log:
                    log.write(values)
            if is_due(state.step, plan.eval_steps, last):
                meter.pause()
                metrics = evaluate(forward, rows.validation, data, training, accelerator)
                if metrics["eval_loss"] < (state.best_loss if state.best_loss is not None else math.inf):
                    state.best_loss, state.best_step = metrics["eval_loss"], state.step
                    if accelerator.is_main_process:
                        checkpoint.publish_model(folder / "best", raw, tok)
                state.last_evaluation = metrics
                if log:
                    samples = sample(raw, tok, rows.validation, training)
                    log.write({"step": state.step, **metrics, "samples": samples})
                    console.say(evaluation_line(state, metrics, samples))
                meter.go_on()
            if is_due(state.step, plan.save_steps, last) or signal:
                meter.pause()
                save(folder, raw, tok, optimizer, state, training, accelerator)
                meter.go_on()
            if signal and not last:
                meter.close()
                raise Interrupted(
                    f"stopped by {signal.name} after step {state.step}, saved in {folder}; the same command goes on",
                    signal,
                )
        meter.close()

        result = TrainResult(
            output_dir=str(folder),
            steps=state.step,
            tokens=state.tokens,
            parameters=raw.num_parameters(),
            **{key: state.last_evaluation[key] for key in ("eval_loss", "eval_perplexity", "eval_bits_per_byte")},
            best_loss=state.best_loss,
            best_step=state.best_step,
            seconds=meter.seconds,
        )
        if accelerator.is_main_process:
            run_folder.write_facts(
                folder,
                accelerator.device.type,
                accelerator.mixed_precision,
                {**facts, "chat": chats},
                result=dataclasses.asdict(result),
            )
            console.say(closing_line(result))
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return result


def output_folder(training: TrainingArguments) -> Path:
    if training.output_dir is None:
        raise UsageError("there is no --output_dir", "a folder for the run was wanted", "e.g. --output_dir runs/mine")
    return Path(training.output_dir)


def make_accelerator(training: TrainingArguments):
    """Accelerate on the chosen device in the chosen precision; accumulation is ours, so that the loss is exact."""
    from datetime import timedelta

    from accelerate import Accelerator, DistributedType
    from accelerate.state import AcceleratorState
    from accelerate.utils import InitProcessGroupKwargs

    device = choose_device(training.device)
    precision = choose_precision(training.mixed_precision, device)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # the others wait while the first one tokenizes
    AcceleratorState._reset_state()  # a second run in one process may want another precision
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision, kwargs_handlers=[patience])
    accelerator.gradient_accumulation_steps = (
        1  # whatever the launcher set: dividing once more would shrink the gradient
    )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        raise UsageError(
            f"the launcher asks for {accelerator.distributed_type.value}",
            "one process, or several with a whole model each (DDP), are what is supported",
            "run `accelerate config` again, or add --multi_gpu",
        )
    return accelerator


def prepare(folder: Path, model, data, tokenizer, training, console: Console):
    """(tokenizer, rows): those that are there already, else trained and tokenized now, into the run folder."""
    tok = find_tokenizer(folder / "tokenizer", data, tokenizer, model.model_name_or_path, training.seed)
    report = None
    if tok is None:
        console.bar("training the tokenizer", None)
        tok, report = make_tokenizer(data, tokenizer, training.seed)
        console.say(
            f"tokenizer: {len(tok)} tokens, {report['bytes_per_token']} bytes per token on held-out text (bytes: 1.0)"
        )
    began = time.perf_counter()

    def progress(done: int, tokens: int) -> None:
        console.advance(
            done, f"{done / 1e6:.1f} MB, {done / 1e6 / (time.perf_counter() - began):.1f} MB/s, {tokens} tokens"
        )

    console.bar("tokenizing", None)
    rows = find_rows(data, tok, folder / "rows", training.seed, progress)
    console.close()
    if report is not None:
        save_tokenizer(tok, report, folder / "tokenizer")
    if not rows.reused:
        documents = rows.train.num_documents + rows.validation.num_documents
        console.say(f"rows: kept {rows.kept} of {rows.encoded} tokens of {documents} documents")
    if rows.validation is None:
        raise UsageError(
            f"the rows in {rows.train.folder.parent} have no validation part", "one was wanted", "make them anew"
        )
    if rows.train.num_tokens <= data.block_size:
        raise UsageError(
            f"the training text has {rows.train.num_tokens} tokens",
            f"one row needs {data.block_size + 1}",
            "use more text or a smaller --block_size",
        )
    return tok, rows


def run_facts(net, rows, tok, data: DataArguments, training: TrainingArguments, plan: Plan) -> dict:
    """What a run is made of. A checkpoint made with other facts cannot go on here."""
    shape = net.config.to_diff_dict()
    return {
        "data": safeio.value_hash([rows.train.manifest["files"], rows.validation.manifest["files"]]),
        "tokenizer": tokenizer_hash(tok),
        "model": {
            k: v for k, v in shape.items() if k not in ("auto_map", "architectures", "transformers_version", "dtype")
        },
        "effective_batch": plan.rows_per_step,
        "block_size": data.block_size,
        "shift_rows": data.shift_rows,
        "optim": training.optim,
        "seed": training.seed,
    }


def rate_factor(step: int, plan: Plan, training: TrainingArguments) -> float:
    return learning_rate_factor(
        step,
        plan.max_steps,
        training.lr_scheduler_type,
        training.warmup_steps,
        training.decay_steps,
        training.min_learning_rate_ratio,
    )


Batch = tuple[torch.Tensor, torch.Tensor]  # input_ids and labels, both (B, T), labels already shifted


def step_batches(
    rows: Rows, step: int, plan: Plan, data: DataArguments, training: TrainingArguments, accelerator
) -> tuple[list[Batch], int]:
    """This process's micro-batches of a step, as many on every process, and the supervised tokens of all processes' together.

    The last step of a run may be short. The tokens of other processes are counted from the rows, which all can read: asking
    them would make every GPU wait.
    """
    first = step * plan.rows_per_step
    count = min(plan.rows_per_step, plan.total_rows - first)
    own, own_count = order.share(first, count, accelerator.num_processes, accelerator.process_index)
    parts = training.gradient_accumulation_steps
    batches = [read_rows(rows, *order.share(own, own_count, parts, k), data, training.seed) for k in range(parts)]
    whole = batches if accelerator.num_processes == 1 else [read_rows(rows, first, count, data, training.seed)]
    return batches, sum(int((labels != IGNORED).sum()) for _, labels in whole)


def read_rows(rows: Rows, first: int, count: int, data: DataArguments, seed: int) -> Batch:
    """Positions [first, first + count) of the endless stream of rows."""
    pieces = []
    for epoch, indices in order.rows_at(first, count, rows.count(data.block_size, data.shift_rows), seed):
        offset = order.epoch_offset(data.block_size, seed, epoch) if data.shift_rows else 0
        pieces.append(rows.batch(indices, data.block_size, offset))
    if not pieces:  # a short step can leave a process without rows: it computes one that counts nothing
        empty = np.zeros((1, data.block_size), dtype=np.int64)
        pieces = [(empty, np.full_like(empty, IGNORED))]
    return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*pieces, strict=True))


def train_step(forward, net, optimizer, batches: list[Batch], tokens: int, training: TrainingArguments, accelerator):
    """One update. The loss is the sum over the supervised tokens of all micro-batches and processes, divided by their number.

    Returns (loss of the whole step, gradient norm) as tensors, so that a GPU is not waited for.
    """
    optimizer.zero_grad()
    loss = torch.zeros((), device=accelerator.device, dtype=exact_dtype(accelerator))
    for k, batch in enumerate(batches):
        input_ids, labels = (part.to(accelerator.device, non_blocking=True) for part in batch)
        is_last = k == len(batches) - 1
        with contextlib.nullcontext() if is_last else accelerator.no_sync(net):
            part = forward(
                input_ids=input_ids,
                labels=labels,
                shift_labels=labels,
                num_items_in_batch=max(tokens, 1),
                use_cache=False,
            ).loss
            accelerator.backward(part * accelerator.num_processes)  # DDP takes the mean over processes; a sum is wanted
            loss += part.detach()
    if accelerator.num_processes > 1:
        loss = accelerator.reduce(loss, "sum")
    norm = accelerator.clip_grad_norm_(net.parameters(), training.max_grad_norm or math.inf)
    optimizer.step()
    return loss, norm


def exact_dtype(accelerator) -> torch.dtype:
    """The type sums are kept in; mps has no float64."""
    return torch.float32 if accelerator.device.type == "mps" else torch.float64


@torch.no_grad()
def evaluate(
    forward, rows: Rows, data: DataArguments, training: TrainingArguments, accelerator
) -> dict[str, float | None]:
    """Loss, perplexity, bits per byte and accuracy over the whole validation set, each token once, the same every time."""
    forward.eval()
    size = training.per_device_eval_batch_size or training.per_device_train_batch_size
    first, count = order.share(0, rows.count(data.block_size), accelerator.num_processes, accelerator.process_index)
    sums = MetricSums()
    for start in range(first, first + count, size):
        input_ids, labels = rows.batch(range(start, min(start + size, first + count)), data.block_size)
        with accelerator.autocast():
            sums += batch_sums(forward, torch.from_numpy(input_ids), torch.from_numpy(labels))
    forward.train()
    if accelerator.num_processes > 1:
        parts = torch.tensor(sums.to_list(), dtype=exact_dtype(accelerator), device=accelerator.device)
        sums = MetricSums.from_list(accelerator.reduce(parts, "sum"))
    sums.bytes = rows.num_bytes
    return {
        "eval_loss": sums.loss,
        "eval_perplexity": sums.perplexity,
        "eval_bits_per_byte": sums.bits_per_byte if sums.bytes else None,
        "eval_accuracy": sums.accuracy,
    }


def sample(net, tok, rows: Rows, training: TrainingArguments) -> list[dict[str, str]]:
    """The prompts of the settings, else the beginnings of the first documents held out, as the model continues them now."""
    if training.sample_tokens == 0:
        return []
    if training.sample_prompts:
        prompts = [encode_prompt(tok, prompt) for prompt in training.sample_prompts]
    else:
        prompts = [rows.opening(number).tolist() for number in range(min(2, rows.num_documents))]
    net.eval()
    samples = continue_prompts(net, tok, prompts, training.sample_tokens)
    net.train()
    return samples


def save(folder: Path, net, tok, optimizer, state: RunState, training: TrainingArguments, accelerator) -> None:
    """A checkpoint, then the run folder's own weights, then room for the next one."""
    if accelerator.is_main_process:
        if any(not torch.isfinite(p).all() for p in net.parameters()):
            raise RunError(f"a weight is not finite after step {state.step}: nothing saved over the checkpoint before")
        state.scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        saved = checkpoint.save_checkpoint(folder, net, tok, optimizer.optimizer, state, run_folder.versions())
        checkpoint.publish(saved, folder)
        checkpoint.remove_superseded(folder, training.save_total_limit)
    accelerator.wait_for_everyone()
