"""What a run says: an object per logged step in log.jsonl; a bar with loss, speed and time left on the terminal."""

import json
import math
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.errors import Listener, presentable, redacted
from tinygpt_hf.inference.terminal import takes_color
from tinygpt_hf.reading.reporter import Reporter
from tinygpt_hf.storage import format_size
from tinygpt_hf.training.screen import SAMPLE, tabled

SECONDS_BETWEEN_LINES = 10
TOLD_EVERY = 1 << 20  # bytes read between two moves of a bar
PAUSES = ("evaluation", "saving", "final_evaluation")


class Console(Reporter):
    """Lines and bars on stderr; a bar only where a person watches. Silent on processes other than the first.

    Training does not depend on who listens: a stderr that is missing, closed or full, or whose reader left, raises nothing.
    """

    def __init__(self, enabled: bool = True):
        self.enabled = enabled
        self.live = enabled and Listener(sys.stderr).isatty()
        self._bar: Any = None  # rich is imported where a bar is shown
        self._last_line, self._title = time.monotonic(), ""
        self._total: int | None = None  # bytes of the files that a stage reads
        self._read, self._told, self._words = 0, 0, ""
        self._first: tuple | None = None  # what was encoded and read when the stage was first heard of

    def say(self, line: str) -> None:
        """A line that stays; before a person a row of a table."""
        if not self.enabled:
            return
        line = presentable(line)
        if self.live:
            line = tabled(line, shutil.get_terminal_size().columns, takes_color(Listener(sys.stderr)))
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            print(line, file=Listener(sys.stderr), flush=True)

    def bar(self, title: str, total: float | None, done: int = 0) -> None:
        """Begin a bar; the one before it ends."""
        self.close()
        self._title = title
        if not self.live:
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        stderr: Any = Listener(sys.stderr)  # a stream by what it does
        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[right]}")
        self._bar = Progress(*columns, console=RichConsole(file=stderr), transient=True)
        self._task = self._bar.add_task(title, total=total, completed=done, right="")
        self._bar.start()

    def advance(self, done: float, right: str) -> None:
        """Move the bar; where no terminal shows one, a plain line at most every ten seconds."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, right=right)
        elif self.enabled and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.say(f"{self._title}: {right}")

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def stage(self, title: str, total: int | None) -> None:
        """Begin the bar of a stage that reads so many bytes of files."""
        self.bar(title, total or None)
        self._total, self._read, self._told, self._first, self._words = total, 0, 0, None, ""

    def read(self, path: str, count: int, data=None) -> None:
        """Move the bar of a stage; a call that goes on has read what was done already in an instant."""
        self._read += count
        if self._read - self._told >= TOLD_EVERY:
            self._told = self._read
            self.advance(min(self._read, self._total or 0), self._words or f"{self._read / 1e6:.1f} MB")

    def encoded(self, size: int, tokens: int) -> None:
        """Say beside the bar what the text came to."""
        now = time.perf_counter()
        self._first = self._first or (size, self._read, now)
        size_before, read_before, since = self._first
        words = [
            f"{size / 1e6:.1f} MB",
            f"{(size - size_before) / 1e6 / max(now - since, 1e-9):.1f} MB/s",
            f"{tokens} tokens",
        ]
        if self._total and self._read > read_before:
            left = max(self._total - self._read, 0) / (self._read - read_before) * (now - since)
            words.append(f"{timedelta(seconds=round(left))} left")
        self._words = ", ".join(words)
        self.advance(min(self._read, self._total or 0), self._words)


class RunLog:
    """log.jsonl: grows by whole lines; at resume it is cut to the checkpoint's step by an atomic rewrite."""

    def __init__(self, path: Path, step: int):
        self.path, self.lines = path, []  # what stands in it
        if path.is_file():
            kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
            self.lines = [json.loads(line) for line in kept]
            storage.write_file(path, "".join(f"{line}\n" for line in kept))

    def write(self, values: dict) -> None:
        """Append one object; a value that is not finite becomes null with a flag beside it, since JSON has no NaN."""
        clean = redacted(values)
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                clean[key], clean[f"{key}_is"] = None, str(value)
        line = json.dumps(clean, allow_nan=False) + "\n"
        storage.system.append(self.path, line.encode())
        self.lines.append(clean)


def read_log(path: Path) -> list[dict]:
    """The objects of a log.jsonl; a torn last line is left out."""
    return [json.loads(line) for line in _whole_lines(path)]


def finite_or_none(values: dict) -> dict:
    """The same values with None for a number that is not finite, which JSON does not have."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    good = []
    for line in lines:
        try:
            if isinstance(json.loads(line), dict):
                good.append(line)
        except ValueError:
            continue
    return good


class Meter:
    """Loss and speed between two lines of the log, for log and bar. Pauses (evaluation, saving) do not count.

    `unlogged`: what the run had counted after its last line when it was saved, so that its next line is what it would have been.
    """

    def __init__(
        self, console: Console, max_steps: int, step: int, unlogged: list | None = None, bytes_per_token: float = 0.0
    ):
        self._console, self._max_steps, self._first = console, max_steps, step
        self._sum, self._tokens, self._steps = unlogged or (0.0, 0, 0)
        self._tokens_before, self._steps_before = self._tokens, self._steps  # nobody knows how long those took
        self._bytes_per_token = bytes_per_token  # for the bar alone; 0: nobody knows
        self._since, self._spent, self._total = time.perf_counter(), 0.0, 0.0
        self._paused, self.beside = 0.0, dict.fromkeys(PAUSES, 0.0)
        self._times = dict.fromkeys(PAUSES, 0)
        console.bar("training", max_steps, step)

    def add(self, loss, tokens: int) -> None:
        """Count a step: its loss (a tensor; not waited for) and its supervised tokens."""
        self._sum = self._sum + loss * tokens
        self._tokens += tokens
        self._steps += 1

    @property
    def unlogged(self) -> list:
        """What no line has told yet, as JSON: sum of losses, tokens, steps."""
        return [float(self._sum), self._tokens, self._steps]

    @property
    def has_steps(self) -> bool:
        """Was a step counted since the last reading?"""
        return self._steps > 0

    def pause(self) -> None:
        """What follows is not training."""
        self._paused = time.perf_counter()
        self._spent += self._paused - self._since

    def go_on(self, after: str | None = None) -> None:
        """Training again; the pause was for one of `PAUSES`."""
        self._since = time.perf_counter()
        if after:
            self.beside[after] += self._since - self._paused
            self._times[after] += 1

    def mean(self, pause: str) -> float:
        """Seconds that a pause of this kind has taken on average."""
        return self.beside[pause] / max(self._times[pause], 1)

    @property
    def training_seconds(self) -> float:
        """Seconds of training up to now; while it goes on."""
        return self._total + self._spent + time.perf_counter() - self._since

    def lengthen(self, max_steps: int) -> None:
        """The run has got another number of steps."""
        self._max_steps = max_steps

    def read(self, step: int, tokens: int, learning_rate: float, norm) -> dict:
        """The values for log.jsonl since the last call."""
        loss = float(self._sum) / max(self._tokens, 1)
        self.pause()
        spent = max(self._spent, 1e-9)
        speed = (self._tokens - self._tokens_before) / spent
        self._total += spent
        self._spent = 0.0
        left = (self._max_steps - step) * spent / max(self._steps - self._steps_before, 1)
        bits = f"{loss / math.log(2) / self._bytes_per_token:.3f} bits/byte  " if self._bytes_per_token else ""
        right = f"{step}/{self._max_steps}  loss {loss:.3f}  {bits}{speed:.0f} tokens/s  {timedelta(seconds=round(left))} left"
        self._console.advance(step, right)
        self._sum, self._tokens, self._steps = 0.0, 0, 0
        self._tokens_before, self._steps_before = 0, 0
        self.go_on()
        return {
            "step": step,
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": float(norm),
            "tokens": tokens,
            "tokens_per_second": round(speed, 1),
        }

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return round(self._total, 3)

    def close(self) -> None:
        """End the bar."""
        self._console.close()


def announcement(run) -> str:
    """What is about to be trained, on what, for how long."""
    net, plan, state, accelerator, block_size = run.raw, run.plan, run.state, run.accelerator, run.data.block_size
    tokens = plan.rows_per_step * block_size
    several = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    precision = accelerator.mixed_precision if accelerator.mixed_precision != "no" else "float32"
    where = f"{accelerator.device.type}, {precision}{several}"
    begin = f"from step {state.step} " if state.step else ""
    size, learned = net.num_parameters(), net.num_parameters(only_trainable=True)
    learned = f", {learned / 1e6:.2f}M of them trained," if learned < size else ""
    epochs = "of text that is read on the way"
    if not run.data.streaming:
        epochs = f"{plan.total_rows / plan.rows_per_epoch:.2f} epochs of {run.rows.train.num_tokens} tokens"
    lines = [
        f"model: {size / 1e6:.2f}M parameters{learned} on {where}",
        f"training: {begin}to step {plan.max_steps}, {tokens} tokens each, {epochs}",
    ]
    if run.clock.is_open:
        ends = "before" if run.planned["is_enough"] else "after"
        lines.append(
            f"ends {ends} {run.training.time_budget}; another time: --time_budget, --max_steps, --num_train_epochs"
        )
    return "\n".join(lines)


def needs_line(needs, limit: int) -> str:
    """What memory and disk the run will take."""
    return (
        f"memory: {format_size(needs.fixed)} for weights, gradients and optimizer, "
        f"about {format_size(needs.activations)} for a micro-batch; "
        f"disk: {format_size(needs.checkpoint)} a checkpoint, {limit} are kept"
    )


def launcher_note(asked: int, got: int) -> str:
    """Said when the launcher started fewer processes than it was asked for, which it does not say itself."""
    return (
        f"note: {asked} processes were asked for, {got} started: on CPUs use "
        f"`ACCELERATE_USE_CPU=true torchrun --nproc_per_node {asked} run_clm.py ...`, on GPUs `accelerate launch --multi_gpu`"
    )


def to_beat(baselines) -> str:
    """What counting reaches on the same validation tokens."""
    parts = [
        f"{b.name} {b.loss:.3f}" + (f" ({b.bits_per_byte:.2f} bits per byte)" if b.bits_per_byte > 0 else "")
        for b in baselines
    ]
    return f"to beat, in nats per token: {', '.join(parts)}"


def evaluation_line(state, metrics: dict, samples: list[dict[str, str]], baselines=()) -> str:
    """The numbers of an evaluation beside those of counting, and the fixed prompts as they are continued now."""
    best = " (best so far)" if state.best_step == state.step else ""
    bits = metrics["eval_bits_per_byte"]
    bits = f", {bits:.3f} bits per byte" if bits is not None else ""
    part = f" ({metrics['eval_rows']} rows of it)" if "eval_rows" in metrics else ""
    lines = [
        f"step {state.step}: validation loss {metrics['eval_loss']:.4f}{bits}, perplexity {metrics['eval_perplexity']:.2f}"
        f"{part}{best}" + "".join(f"; {b.name} {b.loss:.3f}" for b in baselines if b.name != "uniform")
    ]
    lines += [f"{SAMPLE}{' '.join(s['prompt'].split())} | {' '.join(s['text'].split())}" for s in samples]
    return "\n".join(lines)


def closing_line(result) -> str:
    """What was reached, and where it is."""
    bits = f", {result.eval_bits_per_byte:.3f} bits per byte" if result.eval_bits_per_byte is not None else ""
    best = ""
    if result.best_step not in (None, result.steps):
        best = f" (that of step {result.best_step}, in best/: {loss_words(result.best_loss)})"
    beside = result.evaluation_seconds + result.saving_seconds
    return (
        f"done: {result.steps} steps, {result.tokens} tokens in {result.seconds:.0f} s, {beside:.0f} s for evaluations and "
        f"saving, {result.final_evaluation_seconds:.0f} s for the last evaluation; over the whole validation set "
        f"loss {loss_words(result.eval_loss)}{bits}{best}; the model is {result.output_dir}"
    )


def loss_words(loss: float | None) -> str:
    """A loss as it is shown; None is one that JSON could not hold."""
    return "not finite" if loss is None else f"{loss:.4f}"
