"""What a checkpoint holds, where it is found again, and which may go.

    D/checkpoint-<step>/   complete or absent, each loadable by `from_pretrained`
        config.json model.safetensors tokenizer.json ...      the model, as Transformers writes it
        optimizer.safetensors                                 the optimizer's tensors, by parameter name
        adapter.safetensors                                   with LoRA: what is learned; the model is the merged one
        state.json                                            step, tokens seen, best loss, scaler, what the run was made of
        manifest.json                                         size and sha256 of every file
    D/                     the last weights; D/best/ the best by validation loss: each file replaced by one rename
    D/snapshots/step-<n>/  complete or absent: the model after so many steps, to look at, without what a run goes on from
    D/adapter/             with LoRA: the last adapter alone, as PEFT writes it

There is no pickle, no position in a data loader and no random state: the rows of a step and the seed of its dropout are pure
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

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.training import adapters

OPTIMIZER, STATE, WEIGHTS = "optimizer.safetensors", "state.json", "model.safetensors"
ADAPTER = "adapter.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
KEPT_AT_LEAST = 2
PIECE = 1 << 23  # bytes written, and hashed beside it, at a time
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64"}


@dataclasses.dataclass
class RunState:
    """How far a run is. `facts`: what it is made of (hashes of data and tokenizer, shapes); a change of these is refused.

    `micro_batch`: rows per micro-batch where memory allowed fewer than the settings ask for; `skipped`: steps whose loss was
    not finite; `sample_prompts`: token ids continued at every evaluation; `eval_rows`: how many validation rows an evaluation
    before the last takes, which `best_loss` is of (None: all); `unlogged`: losses and tokens since the last log line; `seconds`:
    how long the processes of a run with a time budget have been alive.
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
    """Every file `from_pretrained` reads besides the weights: name -> content. They stay the same for a whole run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder, state_dict={})
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".safetensors"}


def model_tensors(model) -> dict[str, torch.Tensor]:
    """The weights under their names; a tied one stands there once. Shards are gathered: every process must ask.

    Of a model with adapters, the merged ones.
    """
    tied = getattr(model, "all_tied_weights_keys", {})
    weights = adapters.merged(model) if adapters.are_in(model) else model.state_dict()
    return {name: whole(tensor) for name, tensor in weights.items() if name not in tied}


def weights_hash(model) -> str:
    """sha256 of all weights and their names."""
    digest = hashlib.sha256()
    for piece in tensor_pieces(model_tensors(model)):
        digest.update(piece)
    return digest.hexdigest()


def optimizer_tensors(optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer remembers, as `parameter:key`. Shards are gathered: every process must ask."""
    return {
        f"{name}:{key}": whole(value)
        for name, parameter in named_parameters(optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that FSDP2 has spread over processes, in one piece on the CPU; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return gather().cpu() if gather else tensor.detach()


def save_checkpoint(
    folder: Path, files: dict[str, bytes], parts: dict[str, dict], state: RunState, about: dict
) -> Path:
    """Write `folder`/checkpoint-<step>: the model's files, and `parts`, tensors by file and name: the weights, the optimizer's
    memory, and an adapter that the weights were merged from.

    It appears complete or not at all. Everything is written through `storage`, hashed on the way. `about` (versions, the hash of
    the settings) goes into the manifest.
    """
    final = folder / f"checkpoint-{state.step}"
    if final.exists():  # a damaged one of the same step, or the run was resumed from an older one: never written over
        storage.system.rename(final, storage.free_name(folder, f"{final.name}.replaced"))
    state_file = json.dumps(dataclasses.asdict(state), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    contents = files | {name: tensor_pieces(tensors) for name, tensors in parts.items()} | {STATE: state_file}
    write_complete(final, contents, {"step": state.step, "tokens": state.tokens, **state.facts, **about})
    return final


def write_complete(final: Path, contents: dict, about: dict) -> None:
    """Make a folder of these files with a manifest; it appears complete or not at all."""
    # sha256 leaves the interpreter's lock: one thread computes it behind the writing, also while the disk is waited for
    with ThreadPoolExecutor(1) as hashing, storage.new_folder(final) as tmp:
        begun = {name: storage.write_file(tmp / name, data, hashing) for name, data in contents.items()}
        written = {name: {**known, "sha256": known["sha256"].result()} for name, known in begun.items()}
        storage.write_manifest(tmp, about, written)


def remove_complete(folder: Path) -> None:
    """Remove a folder that, half-deleted, must not look like a complete one."""
    doomed = folder.with_name(f"{storage.TEMPORARY}removed-{folder.name}")
    storage.system.rename(folder, doomed)
    storage.remove_tree(doomed)


def publish(folder: Path, files: dict[str, bytes], weights) -> None:
    """Make `folder` the model: each file replaced by one rename, so that it loads at every moment after the first time."""
    if not folder.is_dir():
        storage.system.make_folder(folder)
    storage.write_file(folder / WEIGHTS, tensor_pieces(weights))
    for name in sorted(files, key=lambda name: name == "config.json"):  # a folder is a model once its config is there
        if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]:
            storage.write_file(folder / name, files[name])


def publish_adapter(folder: Path, model) -> None:
    """Make `folder` the adapter alone, as `PeftModel.from_pretrained(base, folder)` reads it: each file by one rename.

    It fits the base as TinyGPT has it: in Qwen3 and Llama the names are the same, a GPT-2 takes it after `from_stock`.
    """
    if not folder.is_dir():
        storage.system.make_folder(folder)
    storage.write_file(folder / ADAPTER_WEIGHTS, tensor_pieces(adapters.parameters(model)))
    storage.write_file(folder / ADAPTER_CONFIG, adapters.description(model))


def tensor_pieces(tensors: dict[str, torch.Tensor]) -> Iterator[memoryview | bytes]:
    """A safetensors file of these tensors, piece by piece: length, JSON header, then the numbers end to end.

    The format: https://huggingface.co/docs/safetensors. Written here so that no second copy of the weights is held, and so
    that every byte can be hashed while it is written.
    """
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())  # each stays aligned to its own size
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
        for start in range(0, len(numbers), PIECE):
            yield memoryview(numbers[start : start + PIECE])


def load_optimizer(path: Path, optimizer) -> None:
    """Put saved tensors back under their parameters, in shards where those are; one too few or too many is an error."""
    from safetensors.torch import load_file
    from torch.distributed.tensor import distribute_tensor

    tensors = load_file(path)
    for name, parameter in named_parameters(optimizer):
        found = {key: tensors.pop(f"{name}:{key}") for key in _keys_of(tensors, name)}
        if not found:
            raise UsageError(
                f"{path} has nothing for {name}",
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


def _keys_of(tensors: dict, name: str) -> list[str]:
    return [key.removeprefix(f"{name}:") for key in tensors if key.startswith(f"{name}:")]


def named_parameters(optimizer) -> list[tuple[str, Any]]:
    """(name, parameter) of everything the optimizer holds, in its order."""
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run folder by step, the newest last. Links are none of ours."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    found = [p for p in found if p.is_dir() and not p.is_symlink()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are as its manifest says, and a line for each damaged one passed over.

    Where checkpoints exist but all are damaged, starting from scratch would bury the run: that is a `RunError`.
    """
    messages = []
    for path in reversed(checkpoints(folder)):
        damage = storage.damage(path)
        if damage is None:
            return path, messages
        messages.append(f"{path} is damaged ({damage}): left in place, the one before it is used")
    if messages:
        raise RunError(
            f"every checkpoint in {folder} is damaged ({messages[0]}); restore one, or start afresh with --overwrite"
        )
    return None, []


def load_weights(checkpoint: Path, model) -> None:
    """Put saved weights back into a model of the same shape, every one of them; adapters into a model that has them."""
    from safetensors.torch import load_model

    if adapters.are_in(model):
        return adapters.load(checkpoint / ADAPTER, model)
    load_model(model, checkpoint / WEIGHTS, strict=True)


def read_state(checkpoint: Path) -> RunState:
    """The state a checkpoint was saved in."""
    known = {field.name for field in dataclasses.fields(RunState)}
    return RunState(**{k: v for k, v in storage.read_json(checkpoint / STATE).items() if k in known})


def remove_superseded(folder: Path, limit: int, newest: Path) -> None:
    """Delete the oldest complete checkpoints up to `newest` beyond `limit`; fewer than two are never left.

    Nothing without a manifest goes. Later ones than `newest` do not count: a run that passed over them holds them for damaged.
    """
    complete = [path for path in checkpoints(folder) if (path / storage.MANIFEST).is_file()]
    complete = complete[: complete.index(newest) + 1]
    for path in complete[: -max(limit, KEPT_AT_LEAST)]:
        remove_complete(path)


def open_folder(folder: Path, overwrite: bool) -> Path | None:
    """Make sure `folder` may hold a run: new, empty, prepared (tokenizer, rows) or a run of ours; else say what to do.

    Returns where the old folder is now, if `overwrite` moved one aside.
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
                f"{folder} is no run of ours (it holds {', '.join(sorted(others)[:3])})",
                "an empty or new folder, or a run to resume",
                "choose another --output_dir, or move it aside with --overwrite",
            )
    if (folder / WEIGHTS).is_file() and not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder} is a model without its run, as `tinygpt pull` brings it",
            "a new folder, or a run to resume",
            f"go on from it with --model_name_or_path {folder} and another --output_dir",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error})", "a writable place", "choose another") from None
    return aside
