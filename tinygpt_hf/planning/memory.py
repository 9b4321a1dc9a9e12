"""Estimate the memory and disk that a run needs, from its configuration alone, and compare them with what is free.

    needs = needs_of_shape(config, training, 256, lambda net: parameter_groups(net, training))
    check_memory(needs, training, "cuda")     # UsageError if it cannot fit; a note if it may not; else None

A run is refused only when it cannot fit: when the weights, the gradients, the optimizer state and a third of one row's
activations (half precision and fused kernels keep less than all) exceed the free memory and swap. A run that might fit is
tried: the micro-batch is halved when memory runs out.
"""

import copy
import shutil
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.memory import available_memory
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.storage import format_size

LEVERS = "use a smaller model (--hidden_size, --num_hidden_layers, --vocab_size), a smaller --block_size, or a machine with more"


@dataclass(frozen=True)
class Needs:
    """The memory a run needs, in bytes. `fixed`: weights, gradients and optimizer state of one process; `activations`: an
    estimate for a micro-batch; `checkpoint`: weights and optimizer state, not sharded; `row`: the least that one row takes."""

    weights: int
    fixed: int
    activations: int
    checkpoint: int
    row: int


def estimate_needs(
    config, groups: list[dict], training: TrainingArguments, block_size: int, shards: int = 1, frozen: int = 0
) -> Needs:
    """Estimate what a process needs for a model of `config`: `groups` are the optimizer's, `frozen` counts the other parameters.

    Muon keeps one value per weight, AdamW two. Frozen weights have no optimizer state and no gradient, but exist twice while
    they are saved with the adapters merged in. Activations are what the backward pass reads again, per layer and token: the
    inputs of the matrix products, norms and activation functions.
    """
    learned = sum(p.numel() for group in groups for p in group["params"]) * 4
    weights = learned + 4 * frozen
    memory = sum(p.numel() * (4 if group["muon"] else 8) for group in groups for p in group["params"])
    activations, row = _activations(config, training, block_size)
    return Needs(weights, (2 * weights + memory) // shards, activations, weights + memory, row)


def _activations(config, training: TrainingArguments, block_size: int) -> tuple[int, int]:
    """Return (estimated bytes of activations of a micro-batch, lower bound for one row)."""
    heads, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = 4 * heads + 4 * keys if config.qk_norm else 2 * heads + 2 * keys
    layer = 4 * config.hidden_size + attention + (4 if config.mlp_type == "gated" else 2) * config.intermediate_size
    layers, vocabulary = config.num_hidden_layers, config.vocab_size
    kept = layers * config.hidden_size + layer if training.gradient_checkpointing else layers * layer
    tokens = training.per_device_train_batch_size * block_size
    # the logits never exist as a whole: a step keeps the gradients of the head's input and weight instead
    head = tokens * config.hidden_size + vocabulary * config.hidden_size
    return 4 * (tokens * kept + head), 4 * block_size * (kept // 3)


def needs_of_shape(
    config, training: TrainingArguments, block_size: int, groups_of: Callable[..., list[dict]], shards: int = 1
) -> Needs:
    """Estimate the needs of a model that does not exist yet, by counting it with one layer and with two.

    `groups_of` returns the optimizer's parameter groups of a model. With LoRA the weights are frozen; the adapters are too
    small to count.
    """
    import torch

    from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

    counted = []
    for layers in (1, 2):
        shallow = copy.deepcopy(config)
        shallow.num_hidden_layers = layers
        try:
            with torch.device("meta"):  # allocates nothing
                net = TinyGPTForCausalLM(shallow)
        except RuntimeError:  # the number of bytes overflows
            raise UsageError(
                "a matrix of this model alone takes more than 2**63 bytes", "a smaller model", LEVERS
            ) from None
        frozen = net.num_parameters() if training.lora_r else 0
        groups = [] if frozen else groups_of(net)
        counted.append(astuple(estimate_needs(shallow, groups, training, block_size, shards, frozen)))
    more = config.num_hidden_layers - 1
    needs = Needs(*(one + more * (two - one) for one, two in zip(*counted, strict=True)))
    activations, row = _activations(config, training, block_size)  # arithmetic, so of the whole depth at once
    return replace(needs, activations=activations, row=row)


def check_memory(needs: Needs, training: TrainingArguments, device: str, processes: int = 1) -> str | None:
    """Raise UsageError for a run that cannot fit; return a note for one that may not. `processes` share the machine's memory."""
    free, swap = available_memory(device)
    where = "GPU memory" if device == "cuda" else "memory and swap" if swap else "memory"
    fixed, row = processes * needs.fixed, processes * needs.row
    if fixed + row > free + swap:
        together = f" in {processes} processes" if processes > 1 else ""
        raise UsageError(
            f"weights, gradients and optimizer take {format_size(fixed)}, and one row at least {format_size(row)}{together}",
            f"at most {format_size(free + swap)}, the {where} that is free",
            LEVERS,
        )
    likely = fixed + processes * needs.activations // training.per_device_train_batch_size
    if likely <= free:
        return None
    taken = f"about {format_size(likely)} of memory are needed with one row per micro-batch"
    return f"note: {taken}, {format_size(free)} are free: it may swap, or run out"


def check_disk(needs: Needs, folder: Path, checkpoints: int, snapshots: int = 0) -> None:
    """Raise UsageError when the disk has no room for `checkpoints`, `snapshots`, and the last and the best weights."""
    places = ("", "best/", "checkpoint-*/", "snapshots/step-*/")
    kept = (folder.glob(f"{place}*.safetensors") for place in places)
    have = sum(path.stat().st_size for found in kept for path in found if path.is_file())
    # with several checkpoints the old weights are deleted after the new ones are written
    wanted = checkpoints * needs.checkpoint + (snapshots + (2 if checkpoints == 1 else 3)) * needs.weights
    room = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.is_dir())).free
    if wanted - have > room:
        raise UsageError(
            f"the checkpoints take {format_size(wanted)}",
            f"at most {format_size(room + have)}, which are free on the disk of {folder}",
            "make space, choose another --output_dir, or a smaller --save_total_limit, --keep_snapshots or model",
        )
