"""Handle failures of a training step: out of memory, a loss or gradient that is not finite, a full disk."""

import contextlib
import errno
import gc
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.utils.memory import should_reduce_batch_size

from tinygpt_hf.errors import RunError
from tinygpt_hf.planning.memory import Needs
from tinygpt_hf.storage import format_size
from tinygpt_hf.training.checkpoint import RunState
from tinygpt_hf.training.precision import is_sharded

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
MEMORY_ADVICE = "--gradient_checkpointing, a smaller --block_size, --vocab_size, --hidden_size or --num_hidden_layers"


class MicroBatchFitter:
    """Gradient computation in micro-batches of `state.micro_batch` rows, a number that is halved when memory runs out.

    The step is then repeated with the same rows and the same dropout; the effective batch size stays. Under DDP all
    processes must halve together. So the first step is unsynchronized: each keeps its own gradient until all have one, then
    they are averaged. Later, and under FSDP, where no process can run alone, running out of memory is a RunError.
    """

    def __init__(self, state: RunState, accelerator, say: Callable[[str], None]):
        self.state, self.accelerator, self.say = state, accelerator, say
        self._single = accelerator.num_processes == 1
        self._size_is_known = is_sharded(accelerator)

    def gradients(self, compute: Callable[[int, bool], tuple[torch.Tensor, int]], net) -> tuple[torch.Tensor, int]:
        """Call `compute(size, synced)`, which accumulates the gradient of `net` and returns (local loss, tokens of all).

        Returns (loss summed over all processes, tokens).
        """
        probing = not self._single and not self._size_is_known
        while True:
            try:
                loss, tokens = compute(self.state.micro_batch, not probing)
                out_of_memory = False
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self._single and not probing:
                    raise RunError(
                        f"out of memory in step {self.state.step + 1} with {self.state.micro_batch} rows per micro-batch; "
                        f"run again with a smaller --per_device_train_batch_size and more --gradient_accumulation_steps; "
                        f"it resumes from the last checkpoint. What else helps: {MEMORY_ADVICE}"
                    ) from error
                out_of_memory = True
            if probing:
                failed = torch.tensor([out_of_memory], device=self.accelerator.device)
                out_of_memory = bool(self.accelerator.gather(failed).any())
            if not out_of_memory:
                break
            self._halve()
        if probing:
            average_gradients(net)
            self._size_is_known = True
        return (loss if self._single else self.accelerator.reduce(loss, "sum")), tokens

    def _halve(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        before = self.state.micro_batch
        if before == 1:
            raise RunError(f"out of memory with one row per micro-batch; what helps: {MEMORY_ADVICE}")
        self.state.micro_batch = before // 2
        self.say(
            f"out of memory with {before} rows per micro-batch: from here on {before // 2}, accumulated to the same "
            "effective batch"
        )


def is_out_of_memory(error: Exception) -> bool:
    """Return True if `error` reports that memory ran out, on any device."""
    named = any(words in str(error) for words in ("out of memory", "not enough memory"))
    return named or isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(error)


def average_gradients(net: torch.nn.Module) -> None:
    """Average the gradients over all processes, as DDP does during the backward pass."""
    for parameter in net.parameters():
        if parameter.grad is not None:
            parameter.grad.div_(dist.get_world_size())
            dist.all_reduce(parameter.grad)


def nonfinite_line(state: RunState, loss, norm, learning_rate: float, rows: list[int]) -> dict:
    """Return the log line of a step without an update, because its loss or gradient is not finite."""
    values = {"loss": float(loss), "grad_norm": float(norm), "learning_rate": learning_rate, "rows": rows}
    return {"step": state.step + 1, "skipped": len(state.skipped), **values}


def check_skips(line: dict, nonfinite: str) -> None:
    """Raise RunError if more steps were skipped than --nonfinite (`stop` or `skip:N`) allows."""
    allowed = 0 if nonfinite == "stop" else int(nonfinite.partition(":")[2])
    if line["skipped"] > allowed:
        rows = ", ".join(map(str, line["rows"][:8])) + (", ..." if len(line["rows"]) > 8 else "")
        raise RunError(
            f"loss {line['loss']:g} and gradient norm {line['grad_norm']:g} in step {line['step']} (learning rate "
            f"{line['learning_rate']:g}, rows {rows}); no update was made; lower --learning_rate and --muon_learning_rate, "
            f"or skip such steps with --nonfinite skip:{max(10, 2 * allowed)}"
        )


class DiskErrors(contextlib.AbstractContextManager):
    """A context manager that turns disk errors below `folder` into a RunError with the free and, if known, needed bytes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.needs: Needs | None = None

    def __exit__(self, kind, error, trace) -> None:
        if not isinstance(error, OSError) or error.errno not in DISK_ERRORS:
            return
        existing = next((p for p in (self.folder, *self.folder.parents) if p.is_dir()), Path())
        free = format_size(shutil.disk_usage(existing).free)
        needed = (
            f"a checkpoint needs {format_size(self.needs.checkpoint)}, {free} are free"
            if self.needs
            else f"{free} are free"
        )
        raise RunError(
            f"{error.strerror} in {self.folder}: {needed}; what was saved before is complete; make space and run the same "
            "command again, it goes on from there"
        ) from error
