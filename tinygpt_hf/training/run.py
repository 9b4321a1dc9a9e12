"""`Run`: the parts of a training run and the methods that `train` in recipe.py calls in order.

Every process calls every method. The methods decide which process does what.
"""

import contextlib
import dataclasses
import math
import os
from pathlib import Path
from signal import Signals

import torch
import transformers

from tinygpt_hf import storage
from tinygpt_hf.cards.facts import provenance
from tinygpt_hf.cards.render import write_card
from tinygpt_hf.cards.report import keep_report
from tinygpt_hf.errors import Interrupted, RunError
from tinygpt_hf.evaluation.baselines import MOST_TRAIN_TOKENS, baselines
from tinygpt_hf.hub.uploader import Uploads
from tinygpt_hf.model.loading import build_model, check_model, stop_at
from tinygpt_hf.planning import plan as planning
from tinygpt_hf.planning.memory import check_disk, check_memory, estimate_needs, needs_of_shape
from tinygpt_hf.planning.plan import effective_batch, is_due
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows.batches import StepBatches
from tinygpt_hf.rows.stream import check_window
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.parsing import to_yaml
from tinygpt_hf.tokenizing.chat_template import control_tokens
from tinygpt_hf.training import adapters, checkpoint, explain, log, measures, precision, run_folder, snapshots, step
from tinygpt_hf.training.budget import plan_run
from tinygpt_hf.training.checkpoint import RunState
from tinygpt_hf.training.clock import Clock
from tinygpt_hf.training.compilation import Compilation
from tinygpt_hf.training.failures import DiskErrors, MicroBatchFitter, check_skips, nonfinite_line
from tinygpt_hf.training.journal import Journal
from tinygpt_hf.training.launcher import check_environment, requested_processes
from tinygpt_hf.training.optimizer import learning_rate_factor, make_optimizer, parameter_groups, set_learning_rate
from tinygpt_hf.training.probe import peaks
from tinygpt_hf.training.signals import Interruption
from tinygpt_hf.training.text import prepare_text

SMALLEST_VOCABULARY = 256  # assumed before the tokenizer is trained
NO_MORE_ROWS = 1 << 10  # greater than any signal number


class Run(contextlib.AbstractContextManager):
    """A training run. Used as a context manager, which locks the run folder.

    `groups`: ModelArguments, DataArguments, TokenizerArguments, TrainingArguments. `seconds_before`: seconds the command took
    before. `is_here`: False if another machine is planned for, whose memory and disk cannot be checked.
    """

    def __init__(self, groups: tuple, quiet: bool, seconds_before: float = 0.0, is_here: bool = True):
        check_settings(*groups)
        self.groups, self.planned = run_folder.apply_plan(*groups)
        kept = self._apply_settings(*self.groups)
        self.folder = Path(self.training.output_dir)
        self.clock = Clock(self, seconds_before)
        transformers.utils.logging.disable_progress_bar()  # Console shows its own
        if note := check_environment():
            log.Console(not quiet).say(note)
        self.accelerator = precision.make_accelerator(self.training)
        self.is_main = self.accelerator.is_main_process
        check_window(self.data, effective_batch(self.training, self.accelerator.num_processes))
        self.console = log.Console(self.is_main and not quiet)
        requested = requested_processes() or 1
        if requested > self.accelerator.num_processes:
            self.console.say(log.launcher_note(requested, self.accelerator.num_processes))
        if kept:
            self.console.say(kept)
        if is_here:
            self._check_fit()
        self.log: Journal | None = None

    def _apply_settings(self, model, data, tokenizer, training) -> str | None:
        """Store the settings with defaults filled in. Return a note if a resumed run keeps older defaults."""
        self.model, self.training, kept = run_folder.fill_settings(model, data, training)
        self.data, self.tokenizer_settings = data, tokenizer
        self.shape = check_model(self.model, data, tokenizer.vocab_size or SMALLEST_VOCABULARY)
        return kept

    def __enter__(self) -> "Run":
        with contextlib.ExitStack() as held:
            self.disk = held.enter_context(DiskErrors(self.folder))
            held.enter_context(run_folder.opened(self.folder, self.training.overwrite, self.is_main))
            uploads = Uploads(self.folder, self.training, self.is_main, self.console.say)
            self.uploads = held.enter_context(uploads)  # waits for the last upload at exit
            self.interruption = held.enter_context(Interruption(self.accelerator))
            self.closing = held.enter_context(contextlib.ExitStack())  # stops the thread that reads a stream
            self._exit_stack = held.pop_all()
        return self

    def __exit__(self, *error):
        return self._exit_stack.__exit__(*error)

    # Before training.

    def prepare(self) -> None:
        """Prepare the tokenizer, rows, model and plan, and find the checkpoint to resume from."""
        self.corpus = Corpus(self.data, self.training.seed, self.console)
        if self.planned is None and self.clock.total is not None:
            self._make_plan()
        with self.accelerator.main_process_first():
            self.tokenizer, self.rows, new_tokens = prepare_text(self)
        if self.rows.reused and self.is_main:  # a corrupted file would otherwise go unnoticed
            for part in (self.rows.train, self.rows.validation):
                part.verify()
        self.train_view = RowView(self.rows.train, self.data.block_size, self.data.sliding, self.training.seed)
        self.held_out_view = RowView(self.rows.validation, self.data.block_size)
        if not self.model.model_name_or_path:
            self.shape.vocab_size = len(self.tokenizer)
        if note := self._check_fit():
            self.console.say(note)
        base = self._build_model(new_tokens)
        self.training, self.plan = planning.settled(
            self.data,
            self.training,
            len(self.train_view),
            self.accelerator.num_processes,
            self.planned["steps"] if self.planned else None,
        )
        self.facts = run_folder.run_facts(self, base)
        self.resumed = run_folder.find_checkpoint(
            self.folder, self.training.resume_from_checkpoint, self.facts, self.console.say
        )
        self.state = checkpoint.read_state(self.resumed) if self.resumed else RunState(facts=self.facts)
        self.clock.restore(self.state.seconds)

    def _make_plan(self) -> None:
        """Choose the settings that were not given, for the time budget."""
        groups, self.planned, choice = plan_run(self, self.groups)
        self.console.say(choice.table)
        self._apply_settings(*groups)
        self.corpus.data = self.data
        if self.is_main:
            run_folder.update(self.folder, {"plan": self.planned})

    def _check_fit(self) -> str | None:
        """Raise UsageError if memory or disk cannot suffice, before weights are allocated. Return a note if memory may not."""
        device, shards = self.accelerator.device.type, precision.num_shards(self.accelerator)
        needs = needs_of_shape(
            self.shape, self.training, self.data.block_size, lambda net: parameter_groups(net, self.training), shards
        )
        on_device = 1 if device == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", self.accelerator.num_processes))
        note = check_memory(needs, self.training, device, on_device)
        check_disk(needs, self.folder, checkpoints=1, snapshots=self.training.keep_snapshots)
        return note

    def _build_model(self, new_tokens: list[int]) -> str | None:
        """Build the model. With LoRA, add the adapters and return the hash of the frozen base weights."""
        net = build_model(self.model, self.data, self.tokenizer, self.training.seed, new_tokens).train()
        self.num_parameters, base = net.num_parameters(), None
        self.is_chat = self.rows.train.is_masked  # only conversations have masked tokens
        control, turn_end = control_tokens(self.tokenizer) if self.is_chat else ([], None)
        if turn_end is not None:
            stop_at(net, turn_end)
        if self.training.lora_r:
            base = checkpoint.weights_hash(net)
            adapters.attach(net, self.training, self.model.model_name_or_path, control)
        mixed = self.accelerator.mixed_precision
        net.set_attn_implementation(precision.attention_for(self.accelerator.device.type, mixed))
        if self.training.gradient_checkpointing:
            net.gradient_checkpointing_enable()
        self.raw = self.net = net  # Accelerate wraps `net` later; `raw` stays the plain model
        return base

    def known_result(self) -> dict | None:
        """Return the results that a finished run has stored, or None if the run is not finished."""
        facts = run_folder.read_facts(self.folder)
        is_finished = self.state.step >= self.plan.max_steps and facts.get("finished")
        if not is_finished or facts["result"]["steps"] != self.state.step:
            return None
        self.console.say(
            f"{self.folder} is already finished: {self.state.step} steps, "
            f"validation loss {log.format_loss(self.state.last_evaluation['eval_loss'])}"
        )
        if self.is_main:
            write_card(self.folder)  # missing if the process was killed just before
            keep_report(self.folder, self.console.say, only_missing=True)
        return {**facts["result"], "output_dir": str(self.folder), "already_finished": True}

    def begin_or_resume(self) -> None:
        """Load the checkpoint if there is one, print what will be trained, and set up the training loop."""
        if self.resumed:
            checkpoint.load_weights(self.resumed, self.raw)
        self.baselines: list = []
        settings = [self.model, self.data, self.tokenizer_settings, self.training]
        if self.is_main:
            run_folder.write_settings(self.folder, settings, self.console.say)
            run_folder.write_facts(self, {**self.facts, "chat": self.is_chat}, result=None)
            self.console.say(log.run_summary(self))
            held_out, latest = self.rows.validation, self.rows.train.latest(MOST_TRAIN_TOKENS)
            self.baselines = baselines(
                latest, held_out.tokens, len(self.tokenizer), held_out.num_bytes, held_out.is_target
            )
            self.console.say(log.baselines_line(self.baselines))
        self._make_optimizer()
        self._prepare_steps()
        if self.is_main:
            self.log = Journal(self)
        ratio = measures.bytes_per_token(self.rows.validation)
        self.meter = log.Meter(self.console, self.plan.max_steps, self.state.step, self.state.unlogged, ratio)
        self.about = {"settings": storage.value_hash(to_yaml(settings)), "versions": run_folder.versions()}
        self.saved = self.state.step
        self.interruption.defer()

    def _make_optimizer(self) -> None:
        """Make the optimizer, check the disk, and wrap model and optimizer with Accelerate."""
        self.files = checkpoint.model_files(self.raw, self.tokenizer)
        optimizer = make_optimizer(self.raw, self.training, self.accelerator.mixed_precision)
        shards = precision.num_shards(self.accelerator)
        frozen = sum(p.numel() for p in self.raw.parameters() if not p.requires_grad)
        needs = self.disk.needs = estimate_needs(
            self.raw.config, optimizer.param_groups, self.training, self.data.block_size, shards, frozen
        )
        if self.is_main:
            saves = -(-self.plan.max_steps // self.plan.save_steps) if self.plan.save_steps else 1
            # while a checkpoint is written, the old ones still exist
            checkpoints = min(saves, self.training.save_total_limit + 1)
            check_disk(needs, self.folder, checkpoints, self.training.keep_snapshots)
            snapshots.remove_after(self.folder, self.state.step)
            self.console.say(log.needs_line(needs, self.training.save_total_limit))
            if self.resumed:  # the process may have ended before it published this checkpoint
                self._publish(checkpoint.model_tensors(self.raw))
        self.net, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        if self.resumed:
            checkpoint.load_optimizer(self.resumed / checkpoint.OPTIMIZER, self.optimizer.optimizer)
            if self.accelerator.scaler and self.state.scaler:
                self.accelerator.scaler.load_state_dict(self.state.scaler)

    def _prepare_steps(self) -> None:
        """Set up the batches, the sample prompts and the size of evaluations."""
        state, training = self.state, self.training
        prompts = state.sample_prompts or measures.sample_prompts(self.tokenizer, self.rows.validation, training)
        state.sample_prompts = prompts
        rows_at_once = training.per_device_train_batch_size
        state.micro_batch = min(state.micro_batch or rows_at_once, rows_at_once)
        self.share = planning.evaluation_share(
            self.plan, training, self.rows.validation, self.data.block_size, len(prompts)
        )
        if not self.resumed or training.eval_rows is not None:  # else keep the rows that `best_loss` was measured on
            state.eval_rows = self.share.rows
        self.steps = StepBatches(
            self.train_view,
            self.plan.rows_per_step,
            self.clock.total_rows,
            (self.accelerator.process_index, self.accelerator.num_processes),
            training.dataloader_num_workers,
            self.data.document_mask,
        )
        self.fitter = MicroBatchFitter(state, self.accelerator, self.console.say)
        self.modules: dict = {}  # with --explain: gradient norm and update ratio by module
        self.compilation = Compilation(self)
        for line in explain.first_batch_lines(self) if training.explain else ():
            self.console.say(line)

    # The loop.

    def has_steps_left(self) -> bool:
        """Return True if there is another step, once its rows are read and all processes agreed on pending decisions.

        After a signal (Interrupted), or if no more rows can be read (RunError), save a checkpoint and raise.
        """
        if self.is_last:
            return False
        requested, (first, count) = self.interruption.requested, self.steps.span(self.state.step)
        failed = self.rows.train.wait_for_rows(first, count, lambda: requested() > 0) if self.data.streaming else None
        self.clock.tick()
        proposals = (*self.clock.proposals(), self.compilation.proposal()) if self.is_main else (0, 0, 0)
        ending, *decay, compiling = self.interruption.agreed(NO_MORE_ROWS if failed else requested(), *proposals)
        if ending:
            self._save_and_raise(ending, failed)
        self.clock.decide(*decay)
        self.compilation.decide(compiling)
        return True

    def _save_and_raise(self, number: int, failed: Exception | None) -> None:
        """Save a checkpoint, then raise Interrupted for a signal number, or RunError for `NO_MORE_ROWS`."""
        self.console.close()
        step = self.state.step
        if step > self.saved:
            self.save()
        if number == NO_MORE_ROWS:
            why = failed or "the first process got no more text"
            raise RunError(f"{why}; stopped after step {step}, saved; the same command goes on")
        where = (
            f"after step {step}, saved in {self.folder}; the same command goes on" if step else "before the first step"
        )
        raise Interrupted(f"stopped by {Signals(number).name} {where}", number)

    @property
    def is_last(self) -> bool:
        """Return True after the last step."""
        return self.state.step >= self.plan.max_steps

    def is_due(self, every: int) -> bool:
        """Return True if an action done every `every` steps is due now; after the last step it always is."""
        return is_due(self.state.step, every, self.is_last)

    def train_step(self) -> None:
        """Compute the gradient and update the weights. A step that is not finite makes no update, or ends the run (RunError)."""
        state, training = self.state, self.training
        factor = learning_rate_factor(training, state.step, self.plan.max_steps, self.clock.decay_steps)
        set_learning_rate(self.optimizer, factor)
        self.rate = training.learning_rate * factor
        loss, tokens = self.fitter.gradients(lambda size, synced: step.gradients(self, size, synced), self.net)
        self.norm = step.clipped_norm(self.net, training.max_grad_norm, self.accelerator)
        # in fp16 a gradient may overflow: GradScaler then skips the update and lowers its scale
        if torch.isfinite(loss) and (self.accelerator.scaler or torch.isfinite(self.norm)):
            with explain.measured_update(self) as self.modules:
                self.optimizer.step()
            self.meter.add(loss, tokens)
        else:
            state.skipped.append(state.step + 1)
            line = nonfinite_line(state, loss, self.norm, self.rate, self.steps.row_ids(state.step))
            self._write(line)
            check_skips(line, training.nonfinite)
        state.step += 1
        state.tokens += tokens

    def log_step(self) -> None:
        """Write a log line about the steps since the last one."""
        if self.meter.has_steps:
            line = self.meter.read(self.state.step, self.state.tokens, self.rate, self.norm)
            self._write(line | ({"modules": self.modules} if self.modules else {}))

    def _write(self, line: dict) -> None:
        if self.log:
            self.log.write(line)

    def evaluate(self) -> None:
        """Evaluate on the validation set, save the best model so far, and print samples."""
        state = self.state
        self.meter.pause()
        metrics = measures.evaluate(self, self.net, state.eval_rows)
        if metrics["eval_loss"] < (state.best_loss if state.best_loss is not None else math.inf):
            state.best_loss, state.best_step = metrics["eval_loss"], state.step
            weights = checkpoint.model_tensors(self.raw)  # on every process, since shards are gathered
            if self.is_main:
                checkpoint.publish(self.folder / "best", self.files, weights)
                self.uploads.offer(self.folder / "best", f"Step {state.step}", "best")
        if self.is_last and state.eval_rows is not None:
            metrics = measures.evaluate(self, self.net)
        state.last_evaluation = log.finite_or_none(metrics)
        samples = []
        if self.is_main or precision.is_sharded(self.accelerator):
            length = self.share.last_tokens if self.is_last else self.share.tokens
            samples = measures.sample(self.raw, self.tokenizer, state.sample_prompts, length)
        self.console.say(log.evaluation_line(state, metrics, samples, self.baselines))
        self._write({"step": state.step, **metrics, "samples": samples})
        self.meter.resume("final_evaluation" if self.is_last else "evaluation")

    def keep_snapshot(self) -> None:
        """Save the model if this step is one of the chosen snapshots."""
        if self.state.step in snapshots.chosen_steps(self.plan.max_steps, self.training.keep_snapshots):
            snapshots.save(self)

    def save(self) -> None:
        """Write a checkpoint, publish its model in the run folder, and remove old checkpoints."""
        self.meter.pause()
        self._save()
        self.uploads.offer(self.folder, f"Step {self.state.step}")
        self.meter.resume("saving")

    def _save(self) -> None:
        state, self.saved = self.state, self.state.step
        state.unlogged, state.seconds = self.meter.unlogged, self.clock.saved_seconds
        # on every process, since shards are gathered
        weights = checkpoint.model_tensors(self.raw)
        optimizer = checkpoint.optimizer_tensors(self.optimizer.optimizer)
        if self.is_main:
            if any(not torch.isfinite(tensor).all() for tensor in weights.values()):
                raise RunError(
                    f"a weight is not finite after step {state.step}: nothing saved over the checkpoint before"
                )
            state.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            log_file = self.folder / run_folder.LOG
            if log_file.is_file():  # so that a power failure cannot lose lines older than the checkpoint
                storage.sync_file(log_file)
            parts = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: optimizer}
            if self.training.lora_r:
                parts[checkpoint.ADAPTER] = adapters.trainable_parameters(self.raw)
            newest = checkpoint.save_checkpoint(self.folder, self.files, parts, state, self.about)
            self._publish(weights)
            checkpoint.remove_superseded(self.folder, self.training.save_total_limit, newest)
        self.accelerator.wait_for_everyone()

    def _publish(self, weights) -> None:
        """Write the model to the run folder, and the LoRA adapter alone to `adapter/`."""
        checkpoint.publish(self.folder, self.files, weights)
        adapter = self.folder / "adapter"
        if self.training.lora_r and not self.training.lora_merge:
            weights = adapters.trainable_parameters(self.raw)
            checkpoint.publish(adapter, adapters.files(self.raw), weights, checkpoint.ADAPTER_WEIGHTS)
        elif self.training.lora_r and adapter.is_dir():  # outdated: written before --lora_merge was given
            storage.remove_tree(adapter)

    # After training.

    def results(self) -> dict:
        """Return the fields of TrainResult; the best weights are evaluated over the whole validation set first."""
        self.console.close()
        self.meter.pause()
        best_loss = measures.best_loss_over_all_rows(self)
        self.meter.resume("final_evaluation")
        state = self.state
        return {
            "output_dir": str(self.folder),
            "steps": state.step,
            "tokens": state.tokens,
            "parameters": self.num_parameters,
            **{key: state.last_evaluation[key] for key in ("eval_loss", "eval_perplexity", "eval_bits_per_byte")},
            "best_loss": best_loss,
            "best_step": state.best_step,
            "seconds": self.meter.seconds,
            **{f"{name}_seconds": round(seconds, 3) for name, seconds in self.meter.pause_seconds.items()},
        }

    def finish(self, result) -> None:
        """Write run.json with the results, the model card and the report."""
        if self.is_main:
            origin = provenance(
                self.folder, self.rows.train.folder.parent, self.tokenizer, self.model.model_name_or_path
            )
            baselines = [log.finite_or_none(dataclasses.asdict(baseline)) for baseline in self.baselines]
            facts = {**self.facts, "chat": self.is_chat, "baselines": baselines, **origin}
            hardware = peaks(self.accelerator, result.seconds)
            run_folder.write_facts(self, facts, result=dataclasses.asdict(result), peaks=hardware)
            if self.planned:
                run_folder.update(self.folder, {"came_true": self.clock.actual_figures(result)})
            write_card(self.folder)
            keep_report(self.folder, self.console.say)
            self.console.say(log.closing_line(result))
            self.log.close()
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Free the model, then end the process group: a DDP model freed last can deadlock on the interpreter lock."""
        self.net = self.raw = self.compilation = self.optimizer = None
        self.accelerator.free_memory()
        self.accelerator.end_training()
