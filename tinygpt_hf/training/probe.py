"""Measure what a training step of a shape takes on this machine, with numbers in place of text: `Pace`, for the plan of a run."""

import contextlib
import sys
import time

import torch

from tinygpt_hf.evaluation.metrics import batch_sums
from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM
from tinygpt_hf.planning.machine import Pace
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.training import precision, step
from tinygpt_hf.training.optimizer import make_optimizer, set_learning_rate

FEWEST, MOST = 3, 20  # steps that are timed, after one that is not
WORTH_IT, PRODUCTS = 10, 6  # seconds of a run, and products that are timed together, as often


def measure(accelerator, config, training: TrainingArguments, block_size: int, seconds: float) -> Pace:
    """Time steps of a model of this configuration for about `seconds`, on every process at once; the slowest counts."""
    net = TinyGPTForCausalLM(config).to(accelerator.device).train()
    net.set_attn_implementation(precision.attention_for(accelerator.device.type, accelerator.mixed_precision))
    if training.gradient_checkpointing:
        net.gradient_checkpointing_enable()
    optimizer = make_optimizer(net, training, accelerator.mixed_precision)
    set_learning_rate(optimizer, 0.0)
    shape = training.per_device_train_batch_size, block_size
    batch = torch.randint(config.vocab_size, shape), torch.randint(config.vocab_size, shape)

    def take_step() -> None:
        for _ in range(training.gradient_accumulation_steps):
            with accelerator.autocast():
                loss = step.micro_batch_loss(net, batch, shape[0] * shape[1], accelerator.device)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()  # waits for the device

    take_step()
    begun, taken = time.perf_counter(), 0
    while taken < FEWEST or (taken < MOST and time.perf_counter() - begun < seconds):
        take_step()
        taken += 1
    each = (time.perf_counter() - begun) / taken
    begun = time.perf_counter()
    with torch.no_grad(), accelerator.autocast():
        batch_sums(net.eval(), *batch)
    times = torch.tensor([each, (time.perf_counter() - begun) / batch[0].numel()], device=accelerator.device)
    slowest = accelerator.gather(times[None]).amax(dim=0).tolist()
    return Pace(config, training, block_size, *slowest)


def peaks(accelerator, seconds: float) -> dict[str, float]:
    """What a run that took so many seconds had of its machine: the most bytes of memory, and what its speed is held against, 1e9
    operations a second in large products of its precision. Of a run that was over at once the latter is not worth the time."""
    device = accelerator.device
    found: dict[str, float] = {"peak_memory_bytes": peak_memory(device.type)}
    if seconds < WORTH_IT:
        return found
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    width = 512 if device.type == "cpu" else 4096
    with contextlib.suppress(RuntimeError):  # there is no room left: it is not worth a run
        matrix, times = torch.ones(width, width, dtype=dtype, device=device), []
        for _ in range(PRODUCTS):
            begun = time.perf_counter()
            torch.stack([(matrix @ matrix)[0, 0] for _ in range(PRODUCTS)]).sum().item()  # waits for the device
            times.append(time.perf_counter() - begun)
        found["peak_gflops"] = round(accelerator.num_processes * PRODUCTS * 2 * width**3 / min(times) / 1e9, 1)
    return found


def peak_memory(device: str) -> int:
    """The most bytes this process has taken so far: of the GPU, or of this machine."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
