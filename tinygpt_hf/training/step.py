"""The gradient of a training step, accumulated over micro-batches and processes, and its clipping."""

import contextlib
import math

import torch

from tinygpt_hf.rows import order
from tinygpt_hf.rows.batches import Batch
from tinygpt_hf.training.precision import exact_dtype


def gradients(run, size: int, synced: bool) -> tuple[torch.Tensor, int]:
    """Compute the gradient of a step's loss into the parameters, in micro-batches of at most `size` rows.

    The loss is summed over the supervised tokens of all micro-batches and processes and divided by their number. With
    `synced=False` each process keeps the gradient of its own rows. Returns (this process's part of the loss, the number of
    supervised tokens on all processes).
    """
    accelerator, step = run.accelerator, run.state.step
    # seeded by the step, so dropout needs no random state in a checkpoint
    torch.manual_seed(order.mix(run.training.seed, step, accelerator.process_index))
    run.optimizer.zero_grad()
    batches, tokens = run.steps.at(step, size)
    loss = torch.zeros((), device=accelerator.device, dtype=exact_dtype(accelerator))
    for k, batch in enumerate(batches):
        with contextlib.nullcontext() if synced and k == len(batches) - 1 else accelerator.no_sync(run.net):
            part = micro_batch_loss(run.net, batch, tokens, accelerator.device)
            accelerator.backward(part * accelerator.num_processes)  # DDP averages over processes; we need the sum
            loss += part.detach()
    return loss, tokens


def micro_batch_loss(forward, batch: Batch, tokens: int, device) -> torch.Tensor:
    """Return the loss of a micro-batch, summed and divided by `tokens`, the supervised tokens of the whole step."""
    input_ids, labels, *positions = (part.to(device, non_blocking=True) for part in batch)
    return forward(
        input_ids=input_ids,
        position_ids=positions[0] if positions else None,
        labels=labels,
        shift_labels=labels,
        num_items_in_batch=max(tokens, 1),
        skip_logits=True,
        use_cache=False,
    ).loss


def clipped_norm(net, max_grad_norm: float, accelerator) -> torch.Tensor:
    """Clip the gradient to `max_grad_norm` (0 for no limit), and return its norm before clipping."""
    norm = accelerator.clip_grad_norm_(net.parameters(), max_grad_norm or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
