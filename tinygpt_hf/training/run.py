"""A run: its settings, folder, text, model, optimizer, plan, state and log, and what is done with them. recipe.py is the story.

Which process does what is known here alone: every process calls every method.
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
from tinygpt_hf.training.failures import DiskErrors, Fitting, check_skips, spoilt_step
from tinygpt_hf.training.journal import Journal
from tinygpt_hf.training.launcher import check_environment, processes_asked
from tinygpt_hf.training.optimizer import make_optimizer, parameter_groups, scheduled_factor, set_learning_rate
from tinygpt_hf.training.probe import peaks
from tinygpt_hf.training.signals import Interruption
from tinygpt_hf.training.text import prepare_text

SMALLEST_VOCABULARY = 256  # as long as nobody knows how many tokens there will be
NO_MORE_ROWS = 1 << 10  # told from the number of a signal


class Run(contextlib.AbstractContextManager):
    """One training, of a command that took `seconds_before`; `is_here`: on this machine. Inside `with` the folder is held."""

    def __init__(self, groups: tuple, quiet: bool, seconds_before: float = 0.0, is_here: bool = True):
        check_settings(*groups)
        self.groups, self.planned = run_folder.as_planned(*groups)
        kept = self._settle(*self.groups)
        self.folder = Path(self.training.output_dir)
        self.clock = Clock(self, seconds_before)
        transformers.utils.logging.disable_progress_bar()  # the bars are ours
        if note := check_environment():
            log.Console(not quiet).say(note)
        self.accelerator = precision.make_accelerator(self.training)
        self.is_main = self.accelerator.is_main_process
        check_window(self.data, effective_batch(self.training, self.accelerator.num_processes))
        self.console = log.Console(self.is_main and not quiet)
        if (processes_asked() or 1) > self.accelerator.num_processes:
            self.console.say(log.launcher_note(processes_asked(), self.accelerator.num_processes))
        if kept:
            self.console.say(kept)
        if is_here:
            self._check_fit()
        self.log: Journal | None = None

    def _settle(self, model, data, tokenizer, training) -> str | None:
        """Take settings, and fill in what they leave open; a line where that is not what the rules say now."""
        self.model, self.training, kept = run_folder.complete(model, data, training)
        self.data, self.tokenizer_settings = data, tokenizer
        self.shape = check_model(self.model, data, tokenizer.vocab_size or SMALLEST_VOCABULARY)
        return kept

    def __enter__(self) -> "Run":
        with contextlib.ExitStack() as held:
            self.disk = held.enter_context(DiskErrors(self.folder))
            held.enter_context(run_folder.opened(self.folder, self.training.overwrite, self.is_main))
            uploads = Uploads(self.folder, self.training, self.is_main, self.console.say)
            self.uploads = held.enter_context(uploads)  # waits for the last one
            self.interruption = held.enter_context(Interruption(self.accelerator))
            self.closing = held.enter_context(contextlib.ExitStack())  # the thread that reads a stream
            self._held = held.pop_all()
        return self

    def __exit__(self, *error):
        return self._held.__exit__(*error)

    # Before training.

    def prepare(self) -> None:
        """The text as rows, the model, how long the run is, and the checkpoint it goes on from."""
        self.corpus = Corpus(self.data, self.training.seed, self.console)
        if self.planned is None and self.clock.total is not None:
            self._make_plan()
        with self.accelerator.main_process_first():
            self.tokenizer, self.rows, new_tokens = prepare_text(self)
        if self.rows.reused and self.is_main:  # a flipped bit would be learned without a word
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
            self.model,
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
        self.clock.go_on_from(self.state.seconds)

    def _make_plan(self) -> None:
        """Choose what the settings leave open, for the time there is."""
        groups, self.planned, choice = plan_run(self, self.groups)
        self.console.say(choice.table)
        self._settle(*groups)
        self.corpus.data = self.data
        if self.is_main:
            run_folder.update(self.folder, {"plan": self.planned})

    def _check_fit(self) -> str | None:
        """Refuse a model that cannot fit, before a weight of it is allocated; a note where it may not."""
        sharded = precision.is_sharded(self.accelerator)
        device, shards = self.accelerator.device.type, self.accelerator.num_processes if sharded else 1
        needs = needs_of_shape(
            self.shape, self.training, self.data.block_size, lambda net: parameter_groups(net, self.training), shards
        )
        here = 1 if device == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", self.accelerator.num_processes))
        note = check_memory(needs, self.training, device, here)
        check_disk(needs, self.folder, checkpoints=1, snapshots=self.training.keep_snapshots)
        return note

    def _build_model(self, new_tokens: list[int]) -> str | None:
        """The model as it begins; returns the hash of weights that stay as they are beside adapters."""
        net = build_model(self.model, self.data, self.tokenizer, self.training.seed, new_tokens).train()
        self.size, base = net.num_parameters(), None
        self.chats = self.rows.train.is_masked  # tokens are masked in conversations only
        control, turn_end = control_tokens(self.tokenizer) if self.chats else ([], None)
        if turn_end is not None:
            stop_at(net, turn_end)
        if self.training.lora_r:
            base = checkpoint.weights_hash(net)
            adapters.attach(net, self.training, self.model.model_name_or_path, control)
        mixed = self.accelerator.mixed_precision
        net.set_attn_implementation(precision.attention_for(self.accelerator.device.type, mixed))
        if self.training.gradient_checkpointing:
            net.gradient_checkpointing_enable()
        self.raw = self.net = net  # as it is, and as Accelerate wraps it
        return base

    @property
    def is_finished(self) -> bool:
        """Is nothing left to do?"""
        return run_folder.finished_result(self.folder, self.state, self.plan.max_steps) is not None

    def known_result(self) -> dict:
        """What a finished run reached."""
        self.console.say(
            f"{self.folder} is already finished: {self.state.step} steps, "
            f"validation loss {log.loss_words(self.state.last_evaluation['eval_loss'])}"
        )
        if self.is_main:
            write_card(self.folder)  # the kill may have come before it was written
            keep_report(self.folder, self.console.say, only_missing=True)
        found = run_folder.finished_result(self.folder, self.state, self.plan.max_steps) or {}
        return {**found, "output_dir": str(self.folder), "already_finished": True}

    def begin_or_resume(self) -> None:
        """Say what is about to be done, and make everything ready for the next step."""
        if self.resumed:
            checkpoint.load_weights(self.resumed, self.raw)
        self.beaten: list = []
        if self.is_main:
            settings = [self.model, self.data, self.tokenizer_settings, self.training]
            run_folder.write_settings(self.folder, settings, self.console.say)
            run_folder.write_facts(self, {**self.facts, "chat": self.chats}, result=None)
            self.console.say(log.announcement(self))
            held_out, latest = self.rows.validation, self.rows.train.latest(MOST_TRAIN_TOKENS)
            self.beaten = baselines(
                latest, held_out.tokens, len(self.tokenizer), held_out.num_bytes, held_out.is_target
            )
            self.console.say(log.to_beat(self.beaten))
        self._make_optimizer()
        self._begin_steps()
        if self.is_main:
            self.log = Journal(self)
        ratio = measures.bytes_per_token(self.rows.validation)
        self.meter = log.Meter(self.console, self.plan.max_steps, self.state.step, self.state.unlogged, ratio)
        self.about = {
            "settings": storage.value_hash(to_yaml([self.model, self.data, self.tokenizer_settings, self.training])),
            "versions": run_folder.versions(),
        }
        self.saved = self.state.step
        self.interruption.hold()

    def _make_optimizer(self) -> None:
        """What trains the model. Only these two go through Accelerate: the rows need no loader."""
        self.files = checkpoint.model_files(self.raw, self.tokenizer)
        optimizer = make_optimizer(self.raw, self.training, self.accelerator.mixed_precision)
        shards = self.accelerator.num_processes if precision.is_sharded(self.accelerator) else 1
        frozen = sum(p.numel() for p in self.raw.parameters() if not p.requires_grad)
        needs = self.disk.needs = estimate_needs(
            self.raw.config, optimizer.param_groups, self.training, self.data.block_size, shards, frozen
        )
        if self.is_main:
            saves = -(-self.plan.max_steps // self.plan.save_steps) if self.plan.save_steps else 1
            # while one is written there are the old ones and the new
            at_once = min(saves, self.training.save_total_limit + 1)
            check_disk(needs, self.folder, at_once, self.training.keep_snapshots)
            snapshots.drop_after(self.folder, self.state.step)
            self.console.say(log.needs_line(needs, self.training.save_total_limit))
            if self.resumed:  # the run may have died between this checkpoint and its publication
                self._publish(checkpoint.model_tensors(self.raw))
        self.net, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        if self.resumed:
            checkpoint.load_optimizer(self.resumed / checkpoint.OPTIMIZER, self.optimizer.optimizer)
            if self.accelerator.scaler and self.state.scaler:
                self.accelerator.scaler.load_state_dict(self.state.scaler)

    def _begin_steps(self) -> None:
        """What the steps show, and what evaluations do."""
        state, training = self.state, self.training
        prompts = state.sample_prompts or measures.sample_prompts(self.tokenizer, self.rows.validation, training)
        state.sample_prompts = prompts
        rows_at_once = training.per_device_train_batch_size
        state.micro_batch = min(state.micro_batch or rows_at_once, rows_at_once)
        self.share = planning.evaluation_share(
            self.plan, training, self.rows.validation, self.data.block_size, len(prompts)
        )
        if not self.resumed or training.eval_rows is not None:  # else it goes on with the rows that its best loss is of
            state.eval_rows = self.share.rows
        self.steps = StepBatches(
            self.train_view,
            self.plan.rows_per_step,
            self.clock.total_rows,
            (self.accelerator.process_index, self.accelerator.num_processes),
            training.dataloader_num_workers,
            self.data.document_mask,
        )
        self.fitting = Fitting(state, self.accelerator, self.console.say)
        self.modules: dict = {}  # what the last update did to each, where it was watched
        self.compilation = Compilation(self)
        explain.begin(self)

    # The loop.

    def has_steps_left(self) -> bool:
        """Is there a step to take? Where its rows are still being read, they are waited for; if they will not come, or a signal
        asks for the end, what was done is saved, and the run ends. What is decided on the way, all processes decide here."""
        if self.is_last:
            return False
        asked, (first, count) = self.interruption.asked, self.steps.span(self.state.step)
        failed = self.rows.train.lacking(first, count, lambda: asked() > 0) if self.data.streaming else None
        self.clock.tick()
        proposals = (*self.clock.proposals(), self.compilation.proposal()) if self.is_main else (0, 0, 0)
        ending, *decay, compiling = self.interruption.agreed(NO_MORE_ROWS if failed else asked(), *proposals)
        if ending:
            self._end(ending, failed)
        self.clock.decide(*decay)
        self.compilation.decide(compiling)
        return True

    def _end(self, number: int, failed: Exception | None) -> None:
        """Save what was done, and end because a signal asked for it, or because there are no more rows."""
        self.meter.close()
        at = self.state.step
        if at > self.saved:
            self.save()
        if number == NO_MORE_ROWS:
            why = failed or "the first process got no more text"
            raise RunError(f"{why}; stopped after step {at}, saved; the same command goes on")
        where = f"after step {at}, saved in {self.folder}; the same command goes on" if at else "before the first step"
        raise Interrupted(f"stopped by {Signals(number).name} {where}", number)

    @property
    def is_last(self) -> bool:
        """Is the last step done?"""
        return self.state.step >= self.plan.max_steps

    def is_due(self, every: int) -> bool:
        """Is something that is done every so many steps due after this one?"""
        return is_due(self.state.step, every, self.is_last)

    def train_step(self) -> None:
        """Compute the gradient, update the weights, count. A step whose loss is no number is left out, or ends the run."""
        state, training = self.state, self.training
        factor = scheduled_factor(training, state.step, self.plan.max_steps, self.clock.decay_steps)
        set_learning_rate(self.optimizer, factor)
        self.rate = training.learning_rate * factor
        loss, tokens = self.fitting.gradients(lambda size, synced: step.gradients(self, size, synced), self.net)
        self.norm = step.clipped_norm(self.net, training.max_grad_norm, self.accelerator)
        # in fp16 a gradient may overflow: the scaler leaves the step out and scales less
        if torch.isfinite(loss) and (self.accelerator.scaler or torch.isfinite(self.norm)):
            with explain.watched(self) as self.modules:
                self.optimizer.step()
            self.meter.add(loss, tokens)
        else:
            state.skipped.append(state.step + 1)
            line = spoilt_step(state, loss, self.norm, self.rate, self.steps.row_ids(state.step))
            self._write(line)
            check_skips(line, training.nonfinite)
        state.step += 1
        state.tokens += tokens

    def log_step(self) -> None:
        """A line of log.jsonl about the steps since the last one."""
        if self.meter.has_steps:
            line = self.meter.read(self.state.step, self.state.tokens, self.rate, self.norm)
            self._write(line | ({"modules": self.modules} if self.modules else {}))

    def _write(self, line: dict) -> None:
        if self.log:
            self.log.write(line)

    def evaluate(self) -> None:
        """Measure the model, keep the best one, and let it speak."""
        state = self.state
        self.meter.pause()
        metrics = measures.evaluate(self, self.net, state.eval_rows)
        if metrics["eval_loss"] < (state.best_loss if state.best_loss is not None else math.inf):
            state.best_loss, state.best_step = metrics["eval_loss"], state.step
            weights = checkpoint.model_tensors(self.raw)  # every process: shards are gathered
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
        self.console.say(log.evaluation_line(state, metrics, samples, self.beaten))
        self._write({"step": state.step, **metrics, "samples": samples})
        self.meter.go_on("final_evaluation" if self.is_last else "evaluation")

    def keep_snapshot(self) -> None:
        """Keep the weights, if this step is one of those to look at later."""
        if self.state.step in snapshots.chosen_steps(self.plan.max_steps, self.training.keep_snapshots):
            snapshots.keep(self)

    def save(self) -> None:
        """A checkpoint, then the run folder's own weights, then room for the next one."""
        self.meter.pause()
        self._save()
        self.uploads.offer(self.folder, f"Step {self.state.step}")
        self.meter.go_on("saving")

    def _save(self) -> None:
        state, self.saved = self.state, self.state.step
        state.unlogged, state.seconds = self.meter.unlogged, self.clock.age
        # every process: shards are gathered
        weights = checkpoint.model_tensors(self.raw)
        memory = checkpoint.optimizer_tensors(self.optimizer.optimizer)
        if self.is_main:
            if any(not torch.isfinite(tensor).all() for tensor in weights.values()):
                raise RunError(
                    f"a weight is not finite after step {state.step}: nothing saved over the checkpoint before"
                )
            state.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            lines = self.folder / run_folder.LOG
            if lines.is_file():  # no loss of power may take lines that come before a checkpoint
                storage.sync_file(lines)
            parts = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: memory}
            if self.training.lora_r:
                parts[checkpoint.ADAPTER] = adapters.parameters(self.raw)
            newest = checkpoint.save_checkpoint(self.folder, self.files, parts, state, self.about)
            self._publish(weights)
            checkpoint.remove_superseded(self.folder, self.training.save_total_limit, newest)
        self.accelerator.wait_for_everyone()

    def _publish(self, weights) -> None:
        """Make the run folder the model, and `adapter/` in it the adapter alone."""
        checkpoint.publish(self.folder, self.files, weights)
        adapter = self.folder / "adapter"
        if self.training.lora_r and not self.training.lora_merge:
            checkpoint.publish_adapter(adapter, self.raw)
        elif self.training.lora_r and adapter.is_dir():  # from before the setting was given: out of date
            storage.remove_tree(adapter)

    # After training.

    def results(self) -> dict:
        """What was reached, once the best weights are measured as the last ones were."""
        self.meter.close()
        self.meter.pause()
        best_loss = measures.whole_best_loss(self)
        self.meter.go_on("final_evaluation")
        state = self.state
        return {
            "output_dir": str(self.folder),
            "steps": state.step,
            "tokens": state.tokens,
            "parameters": self.size,
            **{key: state.last_evaluation[key] for key in ("eval_loss", "eval_perplexity", "eval_bits_per_byte")},
            "best_loss": best_loss,
            "best_step": state.best_step,
            "seconds": self.meter.seconds,
            **{f"{name}_seconds": round(seconds, 3) for name, seconds in self.meter.beside.items()},
        }

    def finish(self, result) -> None:
        """Write down what the run was made of and what it reached, and its card."""
        if self.is_main:
            origin = provenance(
                self.folder, self.rows.train.folder.parent, self.tokenizer, self.model.model_name_or_path
            )
            beaten = [log.finite_or_none(dataclasses.asdict(baseline)) for baseline in self.beaten]
            facts = {**self.facts, "chat": self.chats, "baselines": beaten, **origin}
            most = peaks(self.accelerator, result.seconds)
            run_folder.write_facts(self, facts, result=dataclasses.asdict(result), peaks=most)
            if self.planned:
                run_folder.update(self.folder, {"came_true": self.clock.came_true(result)})
            write_card(self.folder)
            keep_report(self.folder, self.console.say)
            self.console.say(log.closing_line(result))
            self.log.close()
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Give everything back. DDP goes before its process group: going last it would hold the interpreter's lock while it waits
        for a thread that wants it."""
        self.net = self.raw = self.compilation = self.optimizer = None
        self.accelerator.free_memory()
        self.accelerator.end_training()
