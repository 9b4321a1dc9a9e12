"""What a checkpoint holds, where it is found again, and which may go.

    D/checkpoint-<step>/   complete or absent, each loadable by `from_pretrained`
        config.json model.safetensors tokenizer.json ...      the model, as Transformers writes it
        optimizer.safetensors                                 the optimizer's tensors, by parameter name
        state.json                                            step, tokens seen, best loss, scaler, what the run was made of
        manifest.json                                         size and sha256 of every file
    D/                     the last weights; D/best/ the best by validation loss: each file replaced by one rename

There is no pickle, no position in a data loader and no random state: the rows of a step and the seed of its dropout are pure
functions of the step.
"""

import dataclasses
import re
import shutil
from pathlib import Path

from tinygpt_hf import safeio
from tinygpt_hf.errors import RunError, UsageError

OPTIMIZER, STATE, WEIGHTS = "optimizer.safetensors", "state.json", "model.safetensors"
KEPT_AT_LEAST = 2


@dataclasses.dataclass
class RunState:
    """How far a run is. `facts`: what it is made of (hashes of data and tokenizer, shapes); a change of these is refused."""

    step: int = 0
    tokens: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    last_evaluation: dict = dataclasses.field(default_factory=dict)
    scaler: dict | None = None
    facts: dict = dataclasses.field(default_factory=dict)


def save_checkpoint(folder: Path, model, tokenizer, optimizer, state: RunState, versions: dict) -> Path:
    """Write `folder`/checkpoint-<step>; it appears complete or not at all."""
    final = folder / f"checkpoint-{state.step}"
    if final.exists():  # a damaged one of the same step, or the run was resumed from an older one: never written over
        final.rename(_free_name(folder, f"{final.name}.replaced"))
    with safeio.new_folder(final) as tmp:
        save_model(tmp, model, tokenizer)
        _save_optimizer(tmp / OPTIMIZER, optimizer)
        safeio.write_json(tmp / STATE, dataclasses.asdict(state))
        safeio.write_manifest(tmp, {"step": state.step, "tokens": state.tokens, **state.facts, "versions": versions})
    return final


def save_model(folder: Path, model, tokenizer) -> None:
    """The model and its tokenizer, as `from_pretrained` reads them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    safeio.open_to_umask(folder)


def publish(source: Path, target: Path) -> None:
    """Make `target` the model in `source`, file by file, each by one rename: it loads at every moment after the first time."""
    names = sorted(
        p.name for p in source.iterdir() if p.is_file() and p.name not in (OPTIMIZER, STATE, safeio.MANIFEST)
    )
    target.mkdir(exist_ok=True)
    names.sort(key=lambda name: name == "config.json")  # a folder is a model once its config is there: it comes last
    for name in names:
        if not _same(source / name, target / name):
            safeio.copy_file(source / name, target / name)


def _same(a: Path, b: Path) -> bool:
    return b.is_file() and a.stat().st_size == b.stat().st_size and safeio.file_hash(a) == safeio.file_hash(b)


def publish_model(target: Path, model, tokenizer) -> None:
    """The same for a model in memory."""
    temporary = target.with_name(f"{safeio.TEMPORARY}{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_model(temporary, model, tokenizer)
        publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_optimizer(path: Path, optimizer) -> None:
    from safetensors.torch import save_file

    tensors = {}
    for name, parameter in named_parameters(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}:{key}"] = value.detach().contiguous()
    save_file(tensors, path)
    safeio.open_to_umask(path.parent)


def load_optimizer(path: Path, optimizer) -> None:
    """Put saved tensors back under their parameters; a parameter without its tensors, or the reverse, is an error."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    for name, parameter in named_parameters(optimizer):
        found = {key: tensors.pop(f"{name}:{key}") for key in _keys_of(tensors, name)}
        if not found:
            raise UsageError(
                f"{path} has nothing for {name}",
                "an optimizer of the same kind was wanted",
                "resume with the same --optim",
            )
        for key, value in found.items():
            if value.ndim:
                value = value.to(parameter.device)
            optimizer.state[parameter][key] = value
    if tensors:
        raise UsageError(
            f"{path} has {next(iter(tensors))}, which this model lacks",
            "the same model was wanted",
            "check the settings",
        )


def _keys_of(tensors: dict, name: str) -> list[str]:
    return [key.removeprefix(f"{name}:") for key in tensors if key.startswith(f"{name}:")]


def named_parameters(optimizer) -> list[tuple[str, object]]:
    """(name, parameter) of everything the optimizer holds, in its order."""
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run folder by step, the newest last. Links are none of ours."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    found = [p for p in found if p.is_dir() and not p.is_symlink()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def newest_sound(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are as its manifest says, and a line for each damaged one passed over.

    Where checkpoints exist but all are damaged, starting from scratch would bury the run: that is a `RunError`.
    """
    messages = []
    for path in reversed(checkpoints(folder)):
        damage = safeio.damage(path)
        if damage is None:
            return path, messages
        messages.append(f"{path} is damaged ({damage}): left in place, the one before it is used")
    if messages:
        raise RunError(
            f"every checkpoint in {folder} is damaged ({messages[0]}); restore one, or start afresh with --overwrite"
        )
    return None, []


def load_weights(checkpoint: Path, model) -> None:
    """Put saved weights back into a model of the same shape, every one of them."""
    from safetensors.torch import load_model

    load_model(model, checkpoint / WEIGHTS, strict=True)


def read_state(checkpoint: Path) -> RunState:
    """The state a checkpoint was saved in."""
    known = {field.name for field in dataclasses.fields(RunState)}
    return RunState(**{k: v for k, v in safeio.read_json(checkpoint / STATE).items() if k in known})


def remove_superseded(folder: Path, limit: int) -> None:
    """Delete the oldest complete checkpoints beyond `limit`; fewer than two are never left, and nothing without a manifest goes."""
    complete = [path for path in checkpoints(folder) if (path / safeio.MANIFEST).is_file()]
    for path in complete[: -max(limit, KEPT_AT_LEAST)]:
        doomed = path.with_name(
            f"{safeio.TEMPORARY}removed-{path.name}"
        )  # half-deleted, it must not look like a checkpoint
        safeio.system.rename(path, doomed)
        safeio.system.remove_tree(doomed)


def move_aside(folder: Path) -> Path:
    """Rename a folder out of the way; returns where it is now."""
    aside = _free_name(folder.parent, f"{folder.name}.old")
    folder.rename(aside)
    return aside


def _free_name(folder: Path, name: str) -> Path:
    return next(p for k in range(1, 10**6) if not (p := folder / f"{name}-{k}").exists())


def open_folder(folder: Path, overwrite: bool) -> Path | None:
    """Make sure `folder` may hold a run: new, empty, prepared (tokenizer, rows) or a run of ours; else say what to do.

    Returns where the old folder is now, if `overwrite` moved one aside.
    """
    aside = move_aside(folder) if overwrite and folder.is_dir() and any(folder.iterdir()) else None
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "a folder for the run was wanted", "choose another --output_dir")
    if folder.is_dir() and not (folder / "run.yaml").is_file():
        prepared = {"tokenizer", "rows", safeio.LOCK}
        others = [
            p.name for p in folder.iterdir() if p.name not in prepared and not p.name.startswith(safeio.TEMPORARY)
        ]
        if others:
            raise UsageError(
                f"{folder} is no run of ours (it holds {', '.join(sorted(others)[:3])})",
                "an empty or new folder, or a run to resume, was wanted",
                "choose another --output_dir, or move it aside with --overwrite",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made ({error})", "a writable place was wanted", "choose another"
        ) from None
    return aside
