"""Write, find, load and remove checkpoints. A run folder D holds:

    D/checkpoint-<step>/   complete or absent, each loadable by `from_pretrained`
        config.json model.safetensors tokenizer.json ...      the model, as Transformers writes it
        optimizer.safetensors                                 the optimizer's tensors, by parameter name
        adapter.safetensors                                   with LoRA: the trained parameters; the model has merged weights
        state.json                                            step, tokens seen, best loss, scaler, hashes and shapes
        manifest.json                                         size and sha256 of every file
    D/                     the last model, and D/best/ the one with the lowest validation loss; files are replaced by rename
    D/snapshots/step-<n>/  complete or absent: the model after step n, without the state needed to resume
    D/adapter/             with LoRA: the last adapter alone, as PEFT writes it

Nothing is pickled. No data loader position and no random state is stored: the rows of a step and the seed of its dropout are
functions of the step.
"""

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model
from torch.distributed.tensor import distribute_tensor

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.training import adapters

OPTIMIZER, STATE, WEIGHTS = "optimizer.safetensors", "state.json", "model.safetensors"
ADAPTER = "adapter.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # PEFT's name
MIN_CHECKPOINTS = 2
CHUNK_BYTES = 1 << 23  # written and hashed at a time
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64"}


@dataclasses.dataclass
class RunState:
    """The progress of a run, stored in every checkpoint.

    `last_evaluation`: metrics of the last evaluation. `unlogged`: sums since the last log line (log.Meter). `scaler`: state of
    the GradScaler. `micro_batch`: rows per micro-batch, lower than in the settings if memory ran out. `skipped`: steps
    without an update, because they were not finite. `sample_prompts`: token ids continued at each evaluation. `eval_rows`:
    validation rows of each evaluation before the last, also for `best_loss` (None: all). `seconds`: time used of the time
    budget. `facts`: hashes of data and tokenizer, shapes and settings that a resumed run may not change.
    """

    step: int = 0
    tokens: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    last_evaluation: dict = dataclasses.field(default_factory=dict)
    unlogged: list = dataclasses.field(default_factory=list)
    scaler: dict | None = None
    micro_batch: int | None = None
    skipped: list[int] = dataclasses.field(default_factory=list)
    sample_prompts: list[list[int]] = dataclasses.field(default_factory=list)
    eval_rows: int | None = None
    seconds: float = 0.0
    facts: dict = dataclasses.field(default_factory=dict)


def model_files(model, tokenizer) -> dict[str, bytes]:
    """Return the files `from_pretrained` reads besides the weights: name -> content. They are constant during a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder, state_dict={})
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".safetensors"}


def model_tensors(model) -> dict[str, torch.Tensor]:
    """Return the weights by name, tied ones once, LoRA adapters merged.

    Shards are gathered, so every process must call this.
    """
    tied = getattr(model, "all_tied_weights_keys", {})
    weights = adapters.merged_weights(model) if adapters.has_adapters(model) else model.state_dict()
    return {name: gathered(tensor) for name, tensor in weights.items() if name not in tied}


def weights_hash(model) -> str:
    """Return the sha256 of all weights and their names."""
    digest = hashlib.sha256()
    for chunk in safetensors_chunks(model_tensors(model)):
        digest.update(chunk)
    return digest.hexdigest()


def optimizer_tensors(optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer state as `parameter:key` -> tensor. Shards are gathered, so every process must call this."""
    return {
        f"{name}:{key}": gathered(value)
        for name, parameter in named_parameters(optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor sharded by FSDP2 in full on the CPU, and any other tensor detached."""
    gather = getattr(tensor, "full_tensor", None)
    return gather().cpu() if gather else tensor.detach()


def save_checkpoint(
    folder: Path, files: dict[str, bytes], parts: dict[str, dict], state: RunState, about: dict
) -> Path:
    """Write `folder`/checkpoint-<step> and return its path. It appears complete or not at all.

    `files`: the model's other files (`model_files`). `parts`: file name -> tensors by name, for the weights, the optimizer
    state and the adapter. `about`: versions and the hash of the settings, for the manifest.
    """
    final = folder / f"checkpoint-{state.step}"
    if final.exists():  # damaged, or newer than the one resumed from: keep it under another name
        storage.system.rename(final, storage.free_name(folder, f"{final.name}.replaced"))
    state_file = json.dumps(dataclasses.asdict(state), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    contents = files | {name: safetensors_chunks(tensors) for name, tensors in parts.items()} | {STATE: state_file}
    write_complete(final, contents, {"step": state.step, "tokens": state.tokens, **state.facts, **about})
    return final


def write_complete(final: Path, contents: dict, about: dict) -> None:
    """Write a folder with the files `contents` and a manifest. It appears complete or not at all."""
    # sha256 releases the interpreter lock, so a second thread hashes while this one writes
    with ThreadPoolExecutor(1) as hashing, storage.new_folder(final) as tmp:
        begun = {name: storage.write_file(tmp / name, data, hashing) for name, data in contents.items()}
        written = {name: {**known, "sha256": known["sha256"].result()} for name, known in begun.items()}
        storage.write_manifest(tmp, about, written)


def remove_complete(folder: Path) -> None:
    """Rename a folder, then delete it: half-deleted, it must not look like a complete one."""
    doomed = folder.with_name(f"{storage.TEMPORARY}removed-{folder.name}")
    storage.system.rename(folder, doomed)
    storage.remove_tree(doomed)


def publish(folder: Path, files: dict[str, bytes], weights, weights_file: str = WEIGHTS) -> None:
    """Write a model or an adapter into `folder`, each file by one rename, so that the folder stays loadable at any time."""
    if not folder.is_dir():
        storage.system.make_folder(folder)
    storage.write_file(folder / weights_file, safetensors_chunks(weights))
    for name in sorted(files, key=lambda name: name == "config.json"):  # config.json last: it makes the folder a model
        if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]:
            storage.write_file(folder / name, files[name])


def safetensors_chunks(tensors: dict[str, torch.Tensor]) -> Iterator[memoryview | bytes]:
    """Yield the bytes of a safetensors file: header length, JSON header, then the data of all tensors.

    Format: https://huggingface.co/docs/safetensors. Unlike `safetensors.torch.save` this needs no second copy of the weights
    and allows hashing while writing.
    """
    # by falling element size, so that each tensor is aligned to its own
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        numbers = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for start in range(0, len(numbers), CHUNK_BYTES):
            yield memoryview(numbers[start : start + CHUNK_BYTES])


def load_optimizer(path: Path, optimizer) -> None:
    """Load the optimizer state, sharded like its parameters. Raises UsageError if tensors are missing or left over."""
    tensors = load_file(path)
    for name, parameter in named_parameters(optimizer):
        keys = [key for key in tensors if key.startswith(f"{name}:")]
        found = {key.removeprefix(f"{name}:"): tensors.pop(key) for key in keys}
        if not found:
            raise UsageError(
                f"{path} has no optimizer state for {name}",
                "an optimizer of the same kind",
                "resume with the same --optim",
            )
        for key, value in found.items():
            if value.ndim:
                value = value.to(parameter.device)
                if hasattr(parameter, "full_tensor"):
                    value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
            optimizer.state[parameter][key] = value
    if tensors:
        raise UsageError(
            f"{path} has {next(iter(tensors))}, which this model lacks",
            "the same model",
            "check the settings",
        )


def named_parameters(optimizer) -> list[tuple[str, Any]]:
    """Return (name, parameter) pairs of all parameter groups, in order."""
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders of a run folder, sorted by step. Symbolic links are ignored."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    found = [p for p in found if p.is_dir() and not p.is_symlink()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that matches its manifest (or None), and a message for each newer damaged one.

    Raises RunError if all checkpoints are damaged, since starting from scratch would hide that.
    """
    messages = []
    for path in reversed(checkpoints(folder)):
        damage = storage.find_damage(path)
        if damage is None:
            return path, messages
        messages.append(f"{path} is damaged ({damage}): left in place, the one before it is used")
    if messages:
        raise RunError(
            f"every checkpoint in {folder} is damaged ({messages[0]}); restore one, or start afresh with --overwrite"
        )
    return None, []


def load_weights(checkpoint: Path, model) -> None:
    """Load all weights of a checkpoint into a model of the same shape; with LoRA, only the adapter."""
    if adapters.has_adapters(model):
        return adapters.load(checkpoint / ADAPTER, model)
    load_model(model, checkpoint / WEIGHTS, strict=True)


def read_state(checkpoint: Path) -> RunState:
    """Read the RunState of a checkpoint."""
    known = {field.name for field in dataclasses.fields(RunState)}
    return RunState(**{k: v for k, v in storage.read_json(checkpoint / STATE).items() if k in known})


def remove_superseded(folder: Path, limit: int, newest: Path) -> None:
    """Delete the oldest checkpoints until `limit` of them, but at least two, are left up to `newest`.

    Folders without a manifest are kept and not counted. So are those after `newest`: the run skipped them as damaged.
    """
    complete = [path for path in checkpoints(folder) if (path / storage.MANIFEST).is_file()]
    complete = complete[: complete.index(newest) + 1]
    for path in complete[: -max(limit, MIN_CHECKPOINTS)]:
        remove_complete(path)


def open_folder(folder: Path, overwrite: bool) -> Path | None:
    """Make `folder` for a run. It may exist if it is empty, holds only a tokenizer and rows, or is a run to resume.

    Raises UsageError for any other folder. With `overwrite`, an old folder is moved aside and its new path is returned.
    """
    aside = storage.move_aside(folder) if overwrite and folder.is_dir() and any(folder.iterdir()) else None
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "a folder for the run", "choose another --output_dir")
    if folder.is_dir() and not (folder / "run.yaml").is_file():
        prepared = {"tokenizer", "rows", storage.LOCK}
        others = [
            p.name for p in folder.iterdir() if p.name not in prepared and not p.name.startswith(storage.TEMPORARY)
        ]
        if others:
            raise UsageError(
                f"{folder} is not a run folder (it holds {', '.join(sorted(others)[:3])})",
                "an empty or new folder, or a run to resume",
                "choose another --output_dir, or move it aside with --overwrite",
            )
    if (folder / WEIGHTS).is_file() and not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder} is a model without its run, as `tinygpt pull` brings it",
            "a new folder, or a run to resume",
            f"continue from it with --model_name_or_path {folder} and another --output_dir",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error})", "a writable place", "choose another") from None
    return aside
