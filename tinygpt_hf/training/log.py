"""The output of a run: log.jsonl with one object per logged step, and messages and a progress bar on stderr."""

import contextlib
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.errors import SafeStream, presentable, redacted
from tinygpt_hf.inference.terminal import takes_color
from tinygpt_hf.reading.reporter import Reporter
from tinygpt_hf.storage import format_size
from tinygpt_hf.training.screen import SAMPLE, as_table

SECONDS_BETWEEN_LINES = 10
BYTES_BETWEEN_UPDATES = 1 << 20  # of the bar, while files are read
PAUSES = ("evaluation", "saving", "final_evaluation")


class Console(Reporter):
    """Messages on stderr, and a progress bar if stderr is a terminal. Only the main process enables it.

    Writing never raises, even if stderr is missing, closed or full, or its reader is gone.
    """

    def __init__(self, enabled: bool = True):
        self.enabled = enabled
        self.live = enabled and SafeStream(sys.stderr).isatty()
        self._bar: Any = None  # a rich.progress.Progress; rich is imported only if one is shown
        self._last_line, self._title = time.monotonic(), ""
        self._total: int | None = None  # bytes of the files that a stage reads
        self._read, self._shown, self._status = 0, 0, ""  # bytes read, and how many of them the bar shows
        self._first: tuple | None = None  # (bytes encoded, bytes read, time) at the first report of a stage

    def say(self, line: str) -> None:
        """Print a line; on a terminal as a table row (screen.py)."""
        if not self.enabled:
            return
        line = presentable(line)
        if self.live:
            line = as_table(line, shutil.get_terminal_size().columns, takes_color(SafeStream(sys.stderr)))
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            print(line, file=SafeStream(sys.stderr), flush=True)

    def bar(self, title: str, total: float | None, done: int = 0) -> None:
        """Start a bar, and end the previous one."""
        self.close()
        self._title = title
        if not self.live:
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        stderr: Any = SafeStream(sys.stderr)  # has the methods of a text stream, but not its type
        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[right]}")
        self._bar = Progress(*columns, console=RichConsole(file=stderr), transient=True)
        self._task = self._bar.add_task(title, total=total, completed=done, right="")
        self._bar.start()

    def advance(self, done: float, right: str) -> None:
        """Move the bar to `done` with the text `right` beside it; without a bar, print a line at most every ten seconds."""
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
        """Start the bar of a stage that reads `total` bytes of files."""
        self.bar(title, total or None)
        self._total, self._read, self._shown, self._first, self._status = total, 0, 0, None, ""

    def read(self, path: str, count: int, data=None) -> None:
        """Count `count` bytes as read, and move the bar of the stage."""
        self._read += count
        if self._read - self._shown >= BYTES_BETWEEN_UPDATES:
            self._shown = self._read
            self.advance(min(self._read, self._total or 0), self._status or f"{self._read / 1e6:.1f} MB")

    def encoded(self, size: int, tokens: int) -> None:
        """Show the bytes and tokens encoded so far, the speed and the time left beside the bar."""
        now = time.perf_counter()
        self._first = self._first or (size, self._read, now)
        size_before, read_before, since = self._first
        parts = [
            f"{size / 1e6:.1f} MB",
            f"{(size - size_before) / 1e6 / max(now - since, 1e-9):.1f} MB/s",
            f"{tokens} tokens",
        ]
        if self._total and self._read > read_before:
            left = max(self._total - self._read, 0) / (self._read - read_before) * (now - since)
            parts.append(f"{timedelta(seconds=round(left))} left")
        self._status = ", ".join(parts)
        self.advance(min(self._read, self._total or 0), self._status)


class RunLog:
    """A log.jsonl file, appended to in whole lines. On opening, lines after `step` are removed by an atomic rewrite."""

    def __init__(self, path: Path, step: int):
        self.path, self.lines = path, []  # the parsed lines
        if path.is_file():
            kept = [(text, line) for text, line in _complete_lines(path) if line["step"] <= step]
            self.lines = [line for _, line in kept]
            storage.write_file(path, "".join(f"{text}\n" for text, _ in kept))

    def write(self, values: dict) -> None:
        """Append one object. JSON has no NaN: a value that is not finite becomes null, with its text under `<key>_is`."""
        clean = redacted(values)
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                clean[key], clean[f"{key}_is"] = None, str(value)
        line = json.dumps(clean, allow_nan=False) + "\n"
        storage.system.append(self.path, line.encode())
        self.lines.append(clean)


def read_log(path: Path) -> list[dict]:
    """Return the objects of a log.jsonl file, without an incomplete last line."""
    return [line for _, line in _complete_lines(path)]


def finite_or_none(values: dict) -> dict:
    """Return `values` with None in place of numbers that are not finite."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _complete_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield (text, object) of each line that is complete and holds a JSON object."""
    for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield text, line


class Meter:
    """The mean loss and the speed since the last log line. Pauses for evaluation and saving do not count as time.

    `max_steps`: for the time left, may change during the run. `step`: where the run starts or resumes. `unlogged`: the sums
    since the last log line that a checkpoint stored, so that the next line is the same as without the interruption.
    `bytes_per_token`: for bits per byte on the bar; 0 if unknown.
    """

    def __init__(
        self, console: Console, max_steps: int, step: int, unlogged: list | None = None, bytes_per_token: float = 0.0
    ):
        self._console, self.max_steps = console, max_steps
        self._sum, self._tokens, self._steps = unlogged or (0.0, 0, 0)
        self._tokens_before, self._steps_before = self._tokens, self._steps  # their duration is unknown
        self._bytes_per_token = bytes_per_token
        self._since, self._spent, self._total = time.perf_counter(), 0.0, 0.0
        self._paused, self.pause_seconds = 0.0, dict.fromkeys(PAUSES, 0.0)
        self._pauses = dict.fromkeys(PAUSES, 0)
        console.bar("training", max_steps, step)

    def add(self, loss, tokens: int) -> None:
        """Count a step: its mean loss (a tensor, kept on the device) and its supervised tokens."""
        self._sum = self._sum + loss * tokens
        self._tokens += tokens
        self._steps += 1

    @property
    def unlogged(self) -> list:
        """Return the sums since the last log line: [loss times tokens, tokens, steps]."""
        return [float(self._sum), self._tokens, self._steps]

    @property
    def has_steps(self) -> bool:
        """Return True if a step was counted since the last `read`."""
        return self._steps > 0

    def pause(self) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()
        self._spent += self._paused - self._since

    def resume(self, pause: str | None = None) -> None:
        """Start the clock again, and count the time since `pause()` as one of `PAUSES` if named."""
        self._since = time.perf_counter()
        if pause:
            self.pause_seconds[pause] += self._since - self._paused
            self._pauses[pause] += 1

    def mean_pause(self, pause: str) -> float:
        """Return the mean duration in seconds of one of `PAUSES`."""
        return self.pause_seconds[pause] / max(self._pauses[pause], 1)

    @property
    def training_seconds(self) -> float:
        """Return the seconds of training up to now, while the clock runs."""
        return self._total + self._spent + time.perf_counter() - self._since

    def read(self, step: int, tokens: int, learning_rate: float, norm) -> dict:
        """Return the values of the next log line, update the bar, and reset the sums."""
        loss = float(self._sum) / max(self._tokens, 1)
        self.pause()
        spent = max(self._spent, 1e-9)
        speed = (self._tokens - self._tokens_before) / spent
        self._total += spent
        self._spent = 0.0
        left = (self.max_steps - step) * spent / max(self._steps - self._steps_before, 1)
        bits = f"{loss / math.log(2) / self._bytes_per_token:.3f} bits/byte  " if self._bytes_per_token else ""
        right = f"{step}/{self.max_steps}  loss {loss:.3f}  {bits}{speed:.0f} tokens/s  {timedelta(seconds=round(left))} left"
        self._console.advance(step, right)
        self._sum, self._tokens, self._steps = 0.0, 0, 0
        self._tokens_before, self._steps_before = 0, 0
        self.resume()
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
        """Return the seconds of training up to the last `read`."""
        return round(self._total, 3)


def run_summary(run) -> str:
    """Describe the model, the device and the length of the training."""
    net, plan, state, accelerator, block_size = run.raw, run.plan, run.state, run.accelerator, run.data.block_size
    tokens = plan.rows_per_step * block_size
    several = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    precision = accelerator.mixed_precision if accelerator.mixed_precision != "no" else "float32"
    where = f"{accelerator.device.type}, {precision}{several}"
    begin = f"from step {state.step} " if state.step else ""
    size, trainable = net.num_parameters(), net.num_parameters(only_trainable=True)
    trainable = f", {trainable / 1e6:.2f}M of them trained," if trainable < size else ""
    epochs = "of streamed text"
    if not run.data.streaming:
        epochs = f"{plan.total_rows / plan.rows_per_epoch:.2f} epochs of {run.rows.train.num_tokens} tokens"
    lines = [
        f"model: {size / 1e6:.2f}M parameters{trainable} on {where}",
        f"training: {begin}to step {plan.max_steps}, {tokens} tokens each, {epochs}",
    ]
    if run.clock.is_open:
        ends = "before" if run.planned["is_enough"] else "after"
        lines.append(
            f"ends {ends} {run.training.time_budget}; to change the length: --time_budget, --max_steps, --num_train_epochs"
        )
    return "\n".join(lines)


def needs_line(needs, limit: int) -> str:
    """Describe the memory and disk a run needs. `limit`: how many checkpoints are kept."""
    return (
        f"memory: {format_size(needs.fixed)} for weights, gradients and optimizer, "
        f"about {format_size(needs.activations)} for a micro-batch; "
        f"disk: {format_size(needs.checkpoint)} a checkpoint, {limit} are kept"
    )


def launcher_note(requested: int, started: int) -> str:
    """Return a note for a launcher that started fewer processes than requested."""
    return (
        f"note: {requested} processes were asked for, {started} started: on CPUs use "
        f"`ACCELERATE_USE_CPU=true torchrun --nproc_per_node {requested} run_clm.py ...`, on GPUs `accelerate launch --multi_gpu`"
    )


def baselines_line(baselines) -> str:
    """Describe the validation loss of baselines that only count tokens."""
    parts = [
        f"{b.name} {b.loss:.3f}" + (f" ({b.bits_per_byte:.2f} bits per byte)" if b.bits_per_byte > 0 else "")
        for b in baselines
    ]
    return f"to beat, in nats per token: {', '.join(parts)}"


def evaluation_line(state, metrics: dict, samples: list[dict[str, str]], baselines=()) -> str:
    """Describe an evaluation: its metrics, the baselines, and one line per sample."""
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
    """Describe the results of a finished run (TrainResult)."""
    bits = f", {result.eval_bits_per_byte:.3f} bits per byte" if result.eval_bits_per_byte is not None else ""
    best = ""
    if result.best_step not in (None, result.steps):
        best = f" (that of step {result.best_step}, in best/: {format_loss(result.best_loss)})"
    pauses = result.evaluation_seconds + result.saving_seconds
    return (
        f"done: {result.steps} steps, {result.tokens} tokens in {result.seconds:.0f} s, {pauses:.0f} s for evaluations and "
        f"saving, {result.final_evaluation_seconds:.0f} s for the last evaluation; over the whole validation set "
        f"loss {format_loss(result.eval_loss)}{bits}{best}; the model is {result.output_dir}"
    )


def format_loss(loss: float | None) -> str:
    """Format a loss; None stands for one that is not finite."""
    return "not finite" if loss is None else f"{loss:.4f}"
