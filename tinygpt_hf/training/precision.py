"""Choose the device, the mixed precision and the distribution of a run, and reject unsupported ones."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import choose_device
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.training.launcher import check_launcher


def choose_precision(wanted: str, device: str) -> str:
    """Return `no`, `bf16` or `fp16`. `auto` is the launcher's choice, else bf16 if the device computes it fast, else no."""
    if wanted == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "auto")
    if wanted not in ("no", "bf16", "fp16"):
        if device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if device == "cpu" and _cpu_has_bf16() else "no"
    if wanted == "fp16" and device != "cuda":
        raise UsageError(f"--mixed_precision is fp16 on {device}", "a CUDA GPU for fp16", "use bf16, no or auto")
    if wanted == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError("--mixed_precision is bf16", "a format that this GPU supports", "use fp16, no or auto")
    return wanted


def _cpu_has_bf16() -> bool:
    """Return True if the CPU has AVX-512 BF16 or AMX. Without them bf16 is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def attention_for(device: str, precision: str) -> str:
    """Return the fastest attention for training: `eager` for bf16 on a CPU, where SDPA has a slow backward; else `sdpa`."""
    return "eager" if device == "cpu" and precision == "bf16" else "sdpa"


def make_accelerator(training: TrainingArguments):
    """Make the Accelerator for the chosen device and precision. Raises UsageError for unsupported kinds of distribution."""
    check_launcher()
    device = choose_device(training.device)
    precision = choose_precision(training.mixed_precision, device)
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # the others wait while the main process tokenizes
    AcceleratorState._reset_state()  # a second run in this process may use another precision
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision, kwargs_handlers=[timeout])
    # step.py accumulates gradients itself; Accelerate would divide the loss again by the launcher's value
    accelerator.gradient_accumulation_steps = 1
    kind = accelerator.distributed_type
    if kind == DistributedType.FSDP and accelerator.is_fsdp2:
        if training.lora_r:
            raise UsageError(
                "--lora_r is given under FSDP2",
                "no adapters: they are merged in whole matrices, which no process has",
                "use DDP (examples/ddp.yaml), or leave --lora_r out",
            )
    elif kind not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        raise UsageError(
            f"the launcher asks for {kind.value}",
            "one process, DDP, or FSDP version 2",
            "see docs/distributed.md for a configuration, or add --multi_gpu",
        )
    return accelerator


def exact_dtype(accelerator):
    """Return the dtype for sums: float64, or float32 on mps, which has no float64."""
    return torch.float32 if accelerator.device.type == "mps" else torch.float64


def is_sharded(accelerator) -> bool:
    """Return True under FSDP, where each process holds only a part of the weights."""
    return accelerator.distributed_type.value == "FSDP"


def num_shards(accelerator) -> int:
    """Return over how many processes each weight is split."""
    return accelerator.num_processes if is_sharded(accelerator) else 1
