"""Where to compute, in which number format, over how many processes: decided before anything slow, refused where it cannot work."""

import os

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import choose_device
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.training.launcher import check_launcher


def choose_precision(wanted: str, device: str) -> str:
    """`no`, `bf16` or `fp16`. `auto`: the launcher's choice, else bf16 where the device multiplies it faster, else no."""
    import torch

    if wanted == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "auto")
    if wanted == "auto" or wanted not in ("no", "bf16", "fp16"):
        if device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if device == "cpu" and _cpu_multiplies_bf16() else "no"
    if wanted == "fp16" and device != "cuda":
        raise UsageError(f"--mixed_precision is fp16 on {device}", "a CUDA GPU for fp16", "use bf16, no or auto")
    if wanted == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError("--mixed_precision is bf16", "a format that this GPU computes", "use fp16, no or auto")
    return wanted


def _cpu_multiplies_bf16() -> bool:
    """Does the processor have bfloat16 products (AVX-512 BF16 or AMX)? Without them bf16 is slower than float32."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


def attention_for(device: str, precision: str) -> str:
    """Which attention trains fastest: plain products on a CPU in bf16, where SDPA has no fast backward; else SDPA."""
    return "eager" if device == "cpu" and precision == "bf16" else "sdpa"


def make_accelerator(training: TrainingArguments):
    """Accelerate on the chosen device in the chosen precision; accumulation is ours, so that the loss is exact."""
    from datetime import timedelta

    from accelerate import Accelerator, DistributedType
    from accelerate.state import AcceleratorState
    from accelerate.utils import InitProcessGroupKwargs

    check_launcher()
    device = choose_device(training.device)
    precision = choose_precision(training.mixed_precision, device)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # the others wait while the first one tokenizes
    AcceleratorState._reset_state()  # a second run in one process may want another precision
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision, kwargs_handlers=[patience])
    # whatever the launcher set: dividing once more would shrink the gradient
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
    """The type sums are kept in; mps has no float64."""
    import torch

    return torch.float32 if accelerator.device.type == "mps" else torch.float64


def is_sharded(accelerator) -> bool:
    """Has every process only a part of each weight?"""
    return accelerator.distributed_type.value == "FSDP"
