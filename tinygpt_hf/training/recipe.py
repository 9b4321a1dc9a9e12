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
from pathlib import Path
from signal import Signals
from typing import Any

import torch
import transformers

from tinygpt_hf import storage
from tinygpt_hf.cards.facts import provenance
from tinygpt_hf.cards.render import write_card
from tinygpt_hf.errors import Interrupted, RunError
from tinygpt_hf.evaluation.baselines import MOST_TRAIN_TOKENS, baselines
from tinygpt_hf.hub.uploader import Uploads
from tinygpt_hf.model.loading import build_model, check_model, stop_at
from tinygpt_hf.planning import plan as planning
from tinygpt_hf.planning.plan import Plan, check_room, effective_batch, estimate_needs, is_due
from tinygpt_hf.rows import order
from tinygpt_hf.rows.batches import Batch, StepBatches
from tinygpt_hf.rows.stream import check_window
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.parsing import to_yaml
from tinygpt_hf.tokenizing.chat_template import control_tokens
from tinygpt_hf.tokenizing.tokenizer import tokenizer_hash
from tinygpt_hf.training import adapters, checkpoint, run_folder
from tinygpt_hf.training.checkpoint import RunState
from tinygpt_hf.training.failures import DiskErrors, Fitting, check_skips, spoilt_step
from tinygpt_hf.training.launcher import processes_asked
from tinygpt_hf.training.log import (
    Console,
    Meter,
    RunLog,
    announcement,
    closing_line,
    evaluation_line,
    finite_or_none,
    launcher_note,
    loss_words,
    needs_line,
    to_beat,
)
from tinygpt_hf.training.measures import evaluate, sample, sample_prompts, whole_best_loss
from tinygpt_hf.training.optimizer import learning_rate_factor, make_optimizer, set_learning_rate
from tinygpt_hf.training.precision import attention_for, exact_dtype, is_sharded, make_accelerator
from tinygpt_hf.training.signals import Interruption
from tinygpt_hf.training.text import prepare

NO_MORE_ROWS = 1 << 10  # told from the number of a signal


@dataclasses.dataclass
class TrainResult:
    """A finished run. Losses are nats per token over the whole validation set: `eval_loss` of the last weights, `best_loss` of
    those in `best/`. `seconds` are those of this call's training loop; evaluations, samples and saving were beside it, and
    after it the final evaluation."""

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
    evaluation_seconds: float = 0.0
    saving_seconds: float = 0.0
    final_evaluation_seconds: float = 0.0
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
    model, data = model or ModelArguments(), data or DataArguments()
    tokenizer, training = tokenizer or TokenizerArguments(), training or TrainingArguments()
    check_settings(model, data, tokenizer, training)
    model, training, kept = run_folder.complete(model, data, training)
    folder = Path(training.output_dir)
    transformers.utils.logging.disable_progress_bar()  # the bars are ours
    check_model(model, data)
    accelerator = make_accelerator(training)
    check_window(data, effective_batch(training, accelerator.num_processes))
    console = Console(accelerator.is_main_process and not quiet)
    if (processes_asked() or 1) > accelerator.num_processes:
        console.say(launcher_note(processes_asked(), accelerator.num_processes))
    if kept:
        console.say(kept)

    with (
        DiskErrors(folder) as disk,
        run_folder.opened(folder, training.overwrite, accelerator.is_main_process),
        Uploads(folder, training, accelerator.is_main_process, console.say) as uploads,  # waits for the last one
        Interruption(accelerator) as interruption,
        contextlib.ExitStack() as closing,
    ):
        # The text, as rows; the model; and how far the run is.
        with accelerator.main_process_first():
            tok, rows, new_tokens = prepare(
                folder, model, data, tokenizer, training, console, accelerator.is_main_process, closing
            )
        if rows.reused and accelerator.is_main_process:  # a flipped bit would be learnt without a word
            for part in (rows.train, rows.validation):
                part.verify()
        net = build_model(model, data, tok, training.seed, new_tokens).train()
        size, base = net.num_parameters(), None
        chats = rows.train.is_masked  # tokens are masked in conversations only
        control, turn_end = control_tokens(tok) if chats else ([], None)
        if turn_end is not None:
            stop_at(net, turn_end)
        if training.lora_r:
            base = checkpoint.weights_hash(net)
            adapters.attach(net, training, model.model_name_or_path, control)
        net.set_attn_implementation(attention_for(accelerator.device.type, accelerator.mixed_precision))
        if training.gradient_checkpointing:
            net.gradient_checkpointing_enable()
        per_epoch = rows.train.count(data.block_size, data.sliding)
        training, plan = planning.settled(model, data, training, per_epoch, accelerator.num_processes)
        settings = [model, data, tokenizer, training]
        facts = run_facts(net, rows, tok, data, training, plan, base)
        resumed = run_folder.find_checkpoint(folder, training.resume_from_checkpoint, facts, console.say)
        state = checkpoint.read_state(resumed) if resumed else RunState(facts=facts)
        finished = run_folder.finished_result(folder, state, plan.max_steps)
        if finished:
            console.say(
                f"{folder} is already finished: {state.step} steps, "
                f"validation loss {loss_words(state.last_evaluation['eval_loss'])}"
            )
            if accelerator.is_main_process:
                write_card(folder)  # the kill may have come before it was written
            return TrainResult(**{**finished, "output_dir": str(folder), "already_finished": True})
        if resumed:
            checkpoint.load_weights(resumed, net)
        if accelerator.is_main_process:
            run_folder.write_settings(folder, settings, console.say)
            run_folder.write_facts(
                folder, accelerator.device.type, accelerator.mixed_precision, {**facts, "chat": chats}, result=None
            )
            tokens = None if data.streaming else rows.train.num_tokens
            console.say(announcement(net, plan, state, tokens, data.block_size, accelerator))
            held_out = rows.validation
            beaten = baselines(
                rows.train.latest(MOST_TRAIN_TOKENS), held_out.tokens, len(tok), held_out.num_bytes, held_out.is_target
            )
            console.say(to_beat(beaten))

        # What trains it. Only the model and the optimizer go through Accelerate: the rows need no loader.
        raw, files = net, checkpoint.model_files(net, tok)
        optimizer = make_optimizer(net, training, accelerator.mixed_precision)
        shards = accelerator.num_processes if is_sharded(accelerator) else 1
        frozen = sum(p.numel() for p in net.parameters() if not p.requires_grad)
        needs = disk.needs = estimate_needs(
            net.config, optimizer.param_groups, training, data.block_size, shards, frozen
        )
        if accelerator.is_main_process:
            check_room(needs, folder, training.save_total_limit, accelerator.device.type)
            console.say(needs_line(needs, training.save_total_limit))
            if resumed:  # the run may have died between this checkpoint and its publication
                publish(folder, files, raw, checkpoint.model_tensors(raw), training)
        net, optimizer = accelerator.prepare(net, optimizer)
        if resumed:
            checkpoint.load_optimizer(resumed / checkpoint.OPTIMIZER, optimizer.optimizer)
            if accelerator.scaler and state.scaler:
                accelerator.scaler.load_state_dict(state.scaler)
        forward = torch.compile(net) if training.torch_compile else net
        state.sample_prompts = state.sample_prompts or sample_prompts(tok, rows.validation, training)
        rows_at_once = training.per_device_train_batch_size
        state.micro_batch = min(state.micro_batch or rows_at_once, rows_at_once)
        share = planning.evaluation_share(plan, training, rows.validation, data.block_size, len(state.sample_prompts))
        if not resumed or training.eval_rows is not None:  # else it goes on with the rows that its best loss is of
            state.eval_rows = share.rows
        steps = StepBatches(
            RowView(rows.train, data.block_size, data.sliding, training.seed),
            plan.rows_per_step,
            plan.total_rows,
            (accelerator.process_index, accelerator.num_processes),
            training.dataloader_num_workers,
            data.document_mask,
        )
        held_out_view = RowView(rows.validation, data.block_size)
        fitting = Fitting(state, accelerator, console.say)
        log = RunLog(folder / run_folder.LOG, state.step) if accelerator.is_main_process else None
        meter = Meter(console, plan.max_steps, state.step, state.unlogged)
        about = {"settings": storage.value_hash(to_yaml(settings)), "versions": run_folder.versions()}

        def measure(network, part: int | None = None) -> dict:
            return evaluate(network, held_out_view, data, training, state.micro_batch, accelerator, part)

        # The loop.
        interruption.hold()
        saved = state.step
        while state.step < plan.max_steps:
            if data.streaming and (ending := missing_rows(rows.train, steps, state.step, interruption)):
                meter.close()
                if state.step > saved:
                    state.unlogged = meter.unlogged
                    save(folder, raw, files, optimizer, state, about, training, accelerator)
                raise ending
            factor = rate_factor(state.step, plan, training)
            set_learning_rate(optimizer, factor)
            loss, tokens = fitting.gradients(
                lambda size, synced: gradients(
                    forward, net, optimizer, steps, state.step, size, synced, training, accelerator
                ),
                net,
            )
            norm = clipped_norm(net, training, accelerator)
            # in fp16 a gradient may overflow: the scaler leaves the step out and scales less
            if torch.isfinite(loss) and (accelerator.scaler or torch.isfinite(norm)):
                optimizer.step()
                meter.add(loss, tokens)
            else:
                state.skipped.append(state.step + 1)
                line = spoilt_step(state, loss, norm, training.learning_rate * factor, steps.row_ids(state.step))
                if log:
                    log.write(line)
                check_skips(line, training.nonfinite)
            state.step += 1
            state.tokens += tokens
            last, signal = state.step == plan.max_steps, interruption.wanted()

            if is_due(state.step, training.logging_steps, last) and meter.has_steps:
                values = meter.read(state.step, state.tokens, training.learning_rate * factor, norm)
                if log:
                    log.write(values)
            if is_due(state.step, plan.eval_steps, last):
                meter.pause()
                metrics = measure(forward, state.eval_rows)
                if metrics["eval_loss"] < (state.best_loss if state.best_loss is not None else math.inf):
                    state.best_loss, state.best_step = metrics["eval_loss"], state.step
                    weights = checkpoint.model_tensors(raw)  # every process: shards are gathered
                    if accelerator.is_main_process:
                        checkpoint.publish(folder / "best", files, weights)
                        uploads.offer(folder / "best", f"Step {state.step}", "best")
                if last and state.eval_rows is not None:
                    metrics = measure(forward)
                state.last_evaluation = finite_or_none(metrics)
                samples = []
                if accelerator.is_main_process or is_sharded(accelerator):
                    samples = sample(raw, tok, state.sample_prompts, share.last_tokens if last else share.tokens)
                if log:
                    log.write({"step": state.step, **metrics, "samples": samples})
                    console.say(evaluation_line(state, metrics, samples))
                signal = signal or interruption.wanted()
                meter.go_on("final_evaluation" if last else "evaluation")
            if is_due(state.step, plan.save_steps, last) or signal:
                meter.pause()
                saved = state.step
                state.unlogged = meter.unlogged
                save(folder, raw, files, optimizer, state, about, training, accelerator)
                uploads.offer(folder, f"Step {state.step}")
                signal = signal or interruption.wanted()
                meter.go_on("saving")
            if signal and not last:
                meter.close()
                raise Interrupted(
                    f"stopped by {signal.name} after step {state.step}, saved in {folder}; the same command goes on",
                    signal,
                )
        meter.close()
        meter.pause()
        best_loss = whole_best_loss(state, folder / "best", raw, measure, accelerator)
        meter.go_on("final_evaluation")

        beside: dict[str, Any] = {f"{name}_seconds": round(seconds, 3) for name, seconds in meter.beside.items()}
        result = TrainResult(
            output_dir=str(folder),
            steps=state.step,
            tokens=state.tokens,
            parameters=size,
            **{key: state.last_evaluation[key] for key in ("eval_loss", "eval_perplexity", "eval_bits_per_byte")},
            best_loss=best_loss,
            best_step=state.best_step,
            seconds=meter.seconds,
            **beside,
        )
        if accelerator.is_main_process:
            run_folder.write_facts(
                folder,
                accelerator.device.type,
                accelerator.mixed_precision,
                {
                    **facts,
                    "chat": chats,
                    "baselines": [finite_or_none(dataclasses.asdict(baseline)) for baseline in beaten],
                    **provenance(folder, rows.train.folder.parent, tok, model.model_name_or_path),
                },
                result=dataclasses.asdict(result),
            )
            write_card(folder)
            console.say(closing_line(result))
        accelerator.wait_for_everyone()
    # DDP goes before its process group: going last it would hold the interpreter's lock while it waits for a thread that wants it
    net = forward = optimizer = None
    accelerator.free_memory()
    accelerator.end_training()
    return result


def run_facts(net, rows, tok, data: DataArguments, training: TrainingArguments, plan: Plan, base: str | None) -> dict:
    """What a run is made of. A checkpoint made with other facts cannot go on here. `base`: the hash of frozen weights."""
    shape = net.config.to_diff_dict()
    lora = {name: getattr(training, name) for name in ("lora_r", "lora_alpha", "lora_dropout")}
    return {
        "data": storage.value_hash([rows.train.files, rows.validation.files]),
        "tokenizer": tokenizer_hash(tok),
        "model": {
            k: v for k, v in shape.items() if k not in ("auto_map", "architectures", "transformers_version", "dtype")
        },
        "effective_batch": plan.rows_per_step,
        "block_size": data.block_size,
        "shift_rows": data.shift_rows,
        "packing": data.packing,
        "document_mask": data.document_mask,
        "optim": training.optim,
        "seed": training.seed,
        "lora": lora if training.lora_r else None,
        "base": base,
    }


def missing_rows(rows, steps: StepBatches, step: int, interruption) -> BaseException | None:
    """Wait for the rows of a step, whose text is still being read; None, or what every process ends with once all is saved."""
    failed = rows.lacking(*steps.span(step), lambda: interruption.asked() > 0)
    asked = 0 if steps.covered(step) else interruption.asked()
    number = interruption.agreed(NO_MORE_ROWS if failed else asked)
    after = f"after step {step}, saved; the same command goes on"
    if number == NO_MORE_ROWS:
        return RunError(f"{failed or 'the first process got no more text'}; stopped {after}")
    return Interrupted(f"stopped by {Signals(number).name} {after}", number) if number else None


def rate_factor(step: int, plan: Plan, training: TrainingArguments) -> float:
    return learning_rate_factor(
        step,
        plan.max_steps,
        training.lr_scheduler_type,
        training.warmup_steps,
        training.decay_steps,
        training.min_learning_rate_ratio,
    )


def gradients(
    forward,
    net,
    optimizer,
    steps: StepBatches,
    step: int,
    size: int,
    synced: bool,
    training: TrainingArguments,
    accelerator,
) -> tuple[torch.Tensor, int]:
    """Leave the gradient of a step's loss in the parameters, computed from micro-batches of at most `size` rows.

    The loss is the sum over the supervised tokens of all micro-batches and processes, divided by their number. Without
    `synced` each process keeps the gradient of its own rows. Returns (loss of this process's rows, supervised tokens of all).
    """
    # Dropout, too, is a function of the step: there is no random state to save.
    torch.manual_seed(order.mix(training.seed, step, accelerator.process_index))
    optimizer.zero_grad()
    batches, tokens = steps.at(step, size)
    loss = torch.zeros((), device=accelerator.device, dtype=exact_dtype(accelerator))
    for k, batch in enumerate(batches):
        with contextlib.nullcontext() if synced and k == len(batches) - 1 else accelerator.no_sync(net):
            part = micro_batch_loss(forward, batch, tokens, accelerator.device)
            accelerator.backward(part * accelerator.num_processes)  # DDP takes the mean over processes; a sum is wanted
            loss += part.detach()
    return loss, tokens


def micro_batch_loss(forward, batch: Batch, tokens: int, device) -> torch.Tensor:
    """The micro-batch's part of the loss of its step, which has `tokens` supervised tokens."""
    input_ids, labels, *positions = (part.to(device, non_blocking=True) for part in batch)
    return forward(
        input_ids=input_ids,
        position_ids=positions[0] if positions else None,
        labels=labels,
        shift_labels=labels,
        num_items_in_batch=max(tokens, 1),
        use_cache=False,
    ).loss


def clipped_norm(net, training: TrainingArguments, accelerator) -> torch.Tensor:
    """Clip the gradient to max_grad_norm; returns its norm before."""
    norm = accelerator.clip_grad_norm_(net.parameters(), training.max_grad_norm or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def save(
    folder: Path, net, files, optimizer, state: RunState, about: dict, training: TrainingArguments, accelerator
) -> None:
    """A checkpoint, then the run folder's own weights, then room for the next one."""
    # every process: shards are gathered
    weights, memory = checkpoint.model_tensors(net), checkpoint.optimizer_tensors(optimizer.optimizer)
    if accelerator.is_main_process:
        if any(not torch.isfinite(tensor).all() for tensor in weights.values()):
            raise RunError(f"a weight is not finite after step {state.step}: nothing saved over the checkpoint before")
        state.scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        if (folder / run_folder.LOG).is_file():  # no loss of power may take lines that come before a checkpoint
            storage.sync_file(folder / run_folder.LOG)
        adapter = adapters.parameters(net) if training.lora_r else None
        newest = checkpoint.save_checkpoint(folder, files, weights, memory, state, about, adapter)
        publish(folder, files, net, weights, training)
        checkpoint.remove_superseded(folder, training.save_total_limit, newest)
    accelerator.wait_for_everyone()


def publish(folder: Path, files, net, weights, training: TrainingArguments) -> None:
    """Make the run folder the model, and `adapter/` in it the adapter alone."""
    checkpoint.publish(folder, files, weights)
    if training.lora_r and not training.lora_merge:
        checkpoint.publish_adapter(folder / "adapter", net)
    elif training.lora_r and (folder / "adapter").is_dir():  # from before the setting was given: out of date
        storage.remove_tree(folder / "adapter")
