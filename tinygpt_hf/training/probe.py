"""Measure, for the planner, the time of a training step of a shape on this machine (`Pace`), and the loss of a small model after
its first steps on a text."""

import contextlib
import math
import sys
import time

import numpy as np
import torch

from tinygpt_hf.evaluation.metrics import MetricSums, batch_sums
from tinygpt_hf.model.loading import config_for
from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM
from tinygpt_hf.planning.machine import Pace
from tinygpt_hf.planning.scaling import EARLY_STEPS
from tinygpt_hf.planning.text import Excerpt
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training import precision, step
from tinygpt_hf.training.optimizer import make_optimizer, set_learning_rate

FEWEST, MOST = 3, 20  # timed steps, after one warm-up step
WORTH_IT, PRODUCTS = 10, 6  # least seconds of a run for a peak measurement; products per timing, and timings
EARLY_ROWS, EARLY_BLOCK = 8, 256  # batch size and context of the small model
EARLY_TESTED = 96  # rows of its test set
EARLY_RATE, EARLY_WARMUP, FEWEST_TOKENS = 0.008, 5, 8  # the law was fitted with this rate


def measure(accelerator, config, training: TrainingArguments, block_size: int, seconds: float) -> Pace:
    """Time steps of a model of this configuration for about `seconds`, on every process at once; the slowest counts."""
    trial = _Trial(accelerator, config, training)
    shape = training.per_device_train_batch_size, block_size
    batch = torch.randint(config.vocab_size, shape), torch.randint(config.vocab_size, shape)
    trial.step(batch, rate=0.0)
    begun, taken = time.perf_counter(), 0
    while taken < FEWEST or (taken < MOST and time.perf_counter() - begun < seconds):
        trial.step(batch, rate=0.0)
        taken += 1
    each = (time.perf_counter() - begun) / taken
    begun = time.perf_counter()
    with torch.no_grad(), accelerator.autocast():
        batch_sums(trial.net.eval(), *batch)
    times = torch.tensor([each, (time.perf_counter() - begun) / batch[0].numel()], device=accelerator.device)
    slowest = accelerator.gather(times[None]).amax(dim=0).tolist()
    return Pace(config, training, block_size, *slowest)


def peaks(accelerator, seconds: float) -> dict[str, float]:
    """Return the peak memory of this process in bytes, and the peak GFLOP/s of large matrix products in the run's precision.

    `seconds`: the time the run took; after a very short one the GFLOP/s are not measured.
    """
    device = accelerator.device
    found: dict[str, float] = {"peak_memory_bytes": peak_memory(device.type)}
    if seconds < WORTH_IT:
        return found
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    width = 512 if device.type == "cpu" else 4096
    with contextlib.suppress(RuntimeError):  # out of memory: the run's result counts more
        matrix, times = torch.ones(width, width, dtype=dtype, device=device), []
        for _ in range(PRODUCTS):
            begun = time.perf_counter()
            torch.stack([(matrix @ matrix)[0, 0] for _ in range(PRODUCTS)]).sum().item()  # waits for the device
            times.append(time.perf_counter() - begun)
        found["peak_gflops"] = round(accelerator.num_processes * PRODUCTS * 2 * width**3 / min(times) / 1e9, 1)
    return found


def early_losses(accelerator, excerpt: Excerpt, seconds: float) -> tuple[float, ...]:
    """Train a small model on an excerpt; return its bits per byte on the tested part after each of `EARLY_STEPS` within `seconds`.

    The rate is constant after a warm-up. Each step draws its own random rows.
    """
    width = min(EARLY_BLOCK, len(excerpt.learned) - 1, len(excerpt.tested) - 1)
    if width < FEWEST_TOKENS:
        return ()
    rate = TrainingArguments(max_steps=1, learning_rate=EARLY_RATE)
    model, training = filled(ModelArguments(num_hidden_layers=2, hidden_size=64), rate)
    torch.manual_seed(0)
    trial = _Trial(accelerator, config_for(model, DataArguments(block_size=width), excerpt.vocab_size), training)
    draw, found, begun, last = np.random.default_rng(0), [], time.perf_counter(), EARLY_STEPS[0]
    tested = _cut(excerpt.tested, np.linspace(0, len(excerpt.tested) - width - 1, EARLY_TESTED).astype(int), width)
    for number in range(1, EARLY_STEPS[-1] + 1):
        starts = draw.integers(0, len(excerpt.learned) - width, EARLY_ROWS)
        trial.step(_cut(excerpt.learned, starts, width), min(1.0, number / EARLY_WARMUP))
        if number in EARLY_STEPS:
            found.append(trial.loss(tested) / math.log(2) / excerpt.bytes_per_token)
            last, after = number, [step for step in EARLY_STEPS if step > number]
            if after and (time.perf_counter() - begun) * after[0] / last > seconds:
                break
    return tuple(found)


def _cut(ids: np.ndarray, starts: np.ndarray, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (input ids, labels), each (rows, width), of the rows that begin at `starts`."""
    rows = torch.from_numpy(np.stack([ids[start : start + width + 1] for start in starts]))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class _Trial:
    """A model and optimizer for a few trial steps."""

    def __init__(self, accelerator, config, training: TrainingArguments):
        self.accelerator, self.training = accelerator, training
        self.net = TinyGPTForCausalLM(config).to(accelerator.device).train()
        self.net.set_attn_implementation(precision.attention_for(accelerator.device.type, accelerator.mixed_precision))
        if training.gradient_checkpointing:
            self.net.gradient_checkpointing_enable()
        self.optimizer = make_optimizer(self.net, training, accelerator.mixed_precision)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor], rate: float) -> None:
        """Take a step at `rate` times the peak learning rates, and synchronize."""
        set_learning_rate(self.optimizer, rate)
        for _ in range(self.training.gradient_accumulation_steps):
            with self.accelerator.autocast():
                loss = step.micro_batch_loss(self.net, batch, batch[1].numel(), self.accelerator.device)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.detach().item()

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        """Compute the mean loss of rows, in nats per token."""
        self.net.eval()
        parts = zip(*(side.to(self.accelerator.device).split(EARLY_ROWS) for side in batch), strict=True)
        with torch.no_grad(), self.accelerator.autocast():
            sums = sum((batch_sums(self.net, *part) for part in parts), MetricSums())
        self.net.train()
        return sums.loss


def peak_memory(device: str) -> int:
    """Return the peak memory of this process in bytes: GPU memory on cuda, else resident memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        taken = psutil.Process().memory_info()
        return getattr(taken, "peak_wset", taken.rss)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
