"""Measure the available memory, and check that a model's weights fit into it.

free, swap = available_memory("cpu")
check_fits(folder, torch.bfloat16, "cuda")          # UsageError if the weights alone take more
"""

import contextlib
import math
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.validation import weights_in
from tinygpt_hf.storage import format_size

# bytes per element of safetensors' dtypes; 2 for all others
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4} | dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1)
CGROUPS = {  # by controller in /proc/self/cgroup: folder, files with limit and usage, fields with reclaimable cache
    "": ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": (
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}


def check_fits(folder: Path, dtype, device: str = "cpu") -> None:
    """Raise a `UsageError` if the weights, in `dtype` (a torch.dtype, or "auto" for the saved one), exceed the free memory."""
    tensors = weights_in(folder).values()
    saved = sum(WIDTHS.get(kind, 2) * math.prod(shape) for kind, shape in tensors)
    needed = saved if dtype == "auto" else dtype.itemsize * sum(math.prod(shape) for _, shape in tensors)
    free, swap = available_memory(device)
    if needed > free + swap:
        where = "GPU memory" if device == "cuda" else "memory"
        problem = f"the weights of {folder} take {format_size(needed)}"
        expected = f"at most {format_size(free + swap)}, the {where} that is free"
        raise UsageError(problem, expected, "use a machine with more")


def available_memory(device: str, root: Path = Path("/")) -> tuple[int, int]:
    """Return the free bytes of memory and of swap: of the GPU, or of this machine within its control groups' limits.

    The file cache counts as free memory. Files are read below `root`.
    """
    import psutil
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0], 0
    free, swap = psutil.virtual_memory().available, psutil.swap_memory().free
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return free, swap
    for _, controllers, path in (line.split(":", 2) for line in lines):
        for mount, limit, used, caches in (CGROUPS[name] for name in CGROUPS if name in controllers.split(",")):
            top = root / "sys/fs/cgroup" / mount
            inner = top / path.strip("/")
            for group in (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)):
                with contextlib.suppress(OSError, ValueError):  # missing, or without a limit ("max")
                    fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    cache = sum(int(fields.get(name, 0)) for name in caches)
                    left = int((group / limit).read_text()) - int((group / used).read_text()) + cache
                    free = min(free, max(left, 0))
    return free, swap
