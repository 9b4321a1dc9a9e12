"""What a run says: an object per logged step in log.jsonl; a bar with loss, speed and time left on the terminal."""

import json
import math
import os
import sys
import time
from pathlib import Path

from tinygpt_hf import safeio
from tinygpt_hf.errors import RunError

SECONDS_BETWEEN_LINES = 10


class Console:
    """Lines and bars on stderr; a bar only where a person watches. Silent on processes other than the first."""

    def __init__(self, enabled: bool = True):
        self.enabled = enabled
        self.live = enabled and sys.stderr.isatty()
        self._bar = None
        self._last_line, self._title = time.monotonic(), ""

    def say(self, line: str) -> None:
        """A line that stays."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def bar(self, title: str, total: int | None, done: int = 0) -> None:
        """Begin a bar; the one before it ends."""
        self.close()
        self._title = title
        if not self.live:
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[right]}")
        self._bar = Progress(*columns, console=RichConsole(stderr=True), transient=True)
        self._task = self._bar.add_task(title, total=total, completed=done, right="")
        self._bar.start()

    def advance(self, done: int, right: str) -> None:
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


class RunLog:
    """log.jsonl: grows by whole lines; at resume it is cut to the checkpoint's step by an atomic rewrite."""

    def __init__(self, path: Path, step: int):
        self.path = path
        if path.is_file():
            kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
            safeio.write_file(path, "".join(f"{line}\n" for line in kept))

    def write(self, values: dict) -> None:
        """Append one object; a value that is not finite becomes null with a flag beside it, since JSON has no NaN."""
        clean = dict(values)
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                clean[key], clean[f"{key}_is"] = None, str(value)
        line = json.dumps(clean, allow_nan=False) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_log(path: Path) -> list[dict]:
    """The objects of a log.jsonl; a torn last line is left out."""
    return [json.loads(line) for line in _whole_lines(path)]


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
    """Loss and speed between two lines of the log, for log and bar. Pauses (evaluation, saving) do not count."""

    def __init__(self, console: Console, max_steps: int, step: int):
        self._console, self._max_steps, self._first = console, max_steps, step
        self._sum, self._tokens, self._steps = 0.0, 0, 0
        self._bar_loss: float | None = None
        self._since, self._spent, self._total = time.perf_counter(), 0.0, 0.0
        console.bar("training", max_steps, step)

    def add(self, loss, tokens: int) -> None:
        """Count a step: its loss (a tensor; not waited for) and its supervised tokens."""
        self._sum = self._sum + loss * tokens
        self._tokens += tokens
        self._steps += 1

    def pause(self) -> None:
        """What follows is not training."""
        self._spent += time.perf_counter() - self._since

    def go_on(self) -> None:
        """Training again."""
        self._since = time.perf_counter()

    def read(self, step: int, tokens: int, learning_rate: float, norm) -> dict:
        """The values for log.jsonl since the last call; a loss that is not finite is a RunError."""
        loss = float(self._sum) / max(self._tokens, 1)
        self.pause()
        spent = max(self._spent, 1e-9)
        speed = self._tokens / spent
        self._total += spent
        self._spent = 0.0
        if not math.isfinite(loss):
            raise RunError(
                f"the loss of step {step} is {loss}: training diverged at learning rate {learning_rate:g}; "
                "lower --learning_rate and --muon_learning_rate, and start afresh or resume from an earlier checkpoint"
            )
        left = (self._max_steps - step) * spent / max(self._steps, 1)
        right = f"step {step}/{self._max_steps}  loss {loss:.4f}  {speed:.0f} tokens/s  {duration(left)} left"
        self._console.advance(step, right)
        self._sum, self._tokens, self._steps = 0.0, 0, 0
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


def announcement(net, plan, state, num_tokens: int, block_size: int, accelerator) -> str:
    """What is about to be trained, on what, for how long."""
    tokens = plan.rows_per_step * block_size
    where = f"{accelerator.device.type}, {accelerator.mixed_precision}, {accelerator.num_processes} process(es)"
    begin = f"from step {state.step} " if state.step else ""
    return (
        f"model: {net.num_parameters() / 1e6:.2f}M parameters on {where}\n"
        f"training: {begin}to step {plan.max_steps}, {tokens} tokens each, "
        f"{plan.total_rows / plan.rows_per_epoch:.2f} epochs of {num_tokens} tokens"
    )


def to_beat(baselines) -> str:
    """What counting reaches on the same validation tokens."""
    parts = [
        f"{b.name} {b.loss:.3f}" + (f" ({b.bits_per_byte:.2f} bits per byte)" if b.bits_per_byte > 0 else "")
        for b in baselines
    ]
    return f"to beat, in nats per token: {', '.join(parts)}"


def evaluation_line(state, metrics: dict, samples: list[dict[str, str]]) -> str:
    """The numbers of an evaluation, and the fixed prompts as they are continued now."""
    best = " (best so far)" if state.best_step == state.step else ""
    bits = metrics["eval_bits_per_byte"]
    bits = f", {bits:.3f} bits per byte" if bits is not None else ""
    lines = [
        f"step {state.step}: validation loss {metrics['eval_loss']:.4f}{bits}, perplexity {metrics['eval_perplexity']:.2f}{best}"
    ]
    lines += [f"    {' '.join(s['prompt'].split())} | {' '.join(s['text'].split())}" for s in samples]
    return "\n".join(lines)


def closing_line(result) -> str:
    """What was reached, and where it is."""
    bits = f", {result.eval_bits_per_byte:.3f} bits per byte" if result.eval_bits_per_byte is not None else ""
    return (
        f"done: {result.steps} steps, {result.tokens} tokens in {result.seconds:.0f} s; "
        f"validation loss {result.eval_loss:.4f}{bits}; the model is {result.output_dir}"
    )


def duration(seconds: float) -> str:
    """75 -> '1:15', 3700 -> '1:01:40'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
