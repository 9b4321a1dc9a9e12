"""The run folder: lock it, fill in settings, find the checkpoint to resume from, write run.yaml and run.json."""

import contextlib
import dataclasses
import functools
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.settings import defaults
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TrainingArguments
from tinygpt_hf.settings.layering import chosen, open_settings
from tinygpt_hf.settings.parsing import load_yaml, to_yaml
from tinygpt_hf.tokenizing.tokenizer import tokenizer_hash
from tinygpt_hf.training import checkpoint

SETTINGS, FACTS, LOG = "run.yaml", "run.json", "log.jsonl"
# planned settings that are not used if the number of steps is given
SCHEDULE = {"lr_scheduler_type", "warmup_steps", "decay_steps"}
DECISIONS = ("plan", "events")  # entries of run.json that are kept when it is rewritten
PACKAGES = ("tinygpt_hf", "torch", "transformers", "tokenizers", "datasets", "accelerate", "safetensors", "numpy")


@contextlib.contextmanager
def opened(folder: Path, overwrite: bool, is_main: bool):
    """Create and lock the run folder. If nothing was saved when an error leaves the block, restore what was there before."""
    if not is_main:
        yield
        return
    folder = storage.resolve_link(folder)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    aside = checkpoint.open_folder(folder, overwrite)
    try:
        with storage.lock(folder):
            for place in (folder, folder / "best", folder / "adapter", folder / "snapshots"):
                storage.remove_temporary(place)
            yield
    except BaseException:
        if (aside or made) and all(path.name in (storage.LOCK, FACTS) for path in folder.iterdir()):
            for name in (storage.LOCK, FACTS):  # run.json with a plan only
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
            if aside:
                aside.rename(folder)
            for parent in made[1:]:
                with contextlib.suppress(OSError):  # not empty
                    parent.rmdir()
        raise


def fill_settings(
    model: ModelArguments, data: DataArguments, training: TrainingArguments
) -> tuple[ModelArguments, TrainingArguments, str | None]:
    """Fill in the settings of model and training that were not given, including `output_dir`.

    A run to resume keeps the values in its run.yaml, which may come from older default rules. Returns the settings, and a
    note if these values differ from the current defaults.
    """
    folder = training.output_dir or defaults.run_folder(data)
    if folder is None:
        raise UsageError("there is no --output_dir", "a folder for the run", "try --output_dir runs/mine")
    training = dataclasses.replace(training, output_dir=str(folder))
    before = {} if training.overwrite else _saved_settings(Path(folder))
    filled, current = defaults.filled(model, training, before), defaults.filled(model, training)
    groups: Any = zip(filled, current, strict=True)
    older = []
    for kept_group, group in groups:
        for name in (field.name for field in dataclasses.fields(group) if field.name not in defaults.LENGTHS):
            kept, now = getattr(kept_group, name), getattr(group, name)
            if kept is not None and now is not None and kept != now:
                older.append(f"{name} {kept}")
    return *filled, f"kept from the start of the run, as they are not given now: {', '.join(older)}" if older else None


def _saved_settings(folder: Path) -> dict:
    """Read the settings in run.yaml by name, or return {} if there is no such file."""
    path = folder / SETTINGS
    sections = load_yaml(str(path), bounded=False) if path.is_file() else {}
    return {
        name: value for section in sections.values() if isinstance(section, dict) for name, value in section.items()
    }


def apply_plan(*groups) -> tuple[tuple, dict | None]:
    """Return the settings with the plan of the run folder applied to those not given, and the plan.

    The plan is None if there is none, or if the number of steps is given.
    """
    _, data, _, training = groups
    folder = training.output_dir or defaults.run_folder(data)
    plan = read_facts(Path(folder)).get("plan") if folder and not training.overwrite else None
    if not plan:
        return groups, None
    has_length = any(getattr(training, name) is not None for name in defaults.LENGTHS if name != "time_budget")
    wanted = open_settings(*groups) - (SCHEDULE if has_length else set())
    settled = chosen(groups, {name: value for name, value in plan["settings"].items() if name in wanted})
    return settled, None if has_length else plan


def read_facts(folder: Path) -> dict:
    """Read run.json, or return {} if there is none."""
    path = folder / FACTS
    return storage.read_json(path) if path.is_file() else {}


def update(folder: Path, values: dict) -> None:
    """Set entries of run.json, which is on the disk when this returns."""
    storage.write_json(folder / FACTS, read_facts(folder) | redacted(values))


def run_facts(run, base: str | None) -> dict:
    """Return what a resumed run may not change: hashes of data and tokenizer, shapes, settings, `base` (frozen weights)."""
    shape, fixed = run.raw.config.to_diff_dict(), _fixed_settings(run.data, run.training)
    lora = {name: fixed.pop(name) for name in list(fixed) if name.startswith("lora_")}
    return {
        "data": storage.value_hash([run.rows.train.files, run.rows.validation.files]),
        "tokenizer": tokenizer_hash(run.tokenizer),
        "model": {
            k: v for k, v in shape.items() if k not in ("auto_map", "architectures", "transformers_version", "dtype")
        },
        "effective_batch": run.plan.rows_per_step,
        **fixed,
        "lora": lora if run.training.lora_r else None,
        "base": base,
    }


def _fixed_settings(*groups) -> dict:
    fields = ((group, field) for group in groups for field in dataclasses.fields(group))
    return {f.name: getattr(group, f.name) for group, f in fields if f.metadata.get("resume") == "fixed"}


def find_checkpoint(folder: Path, wanted: str, facts: dict, say) -> Path | None:
    """Return the checkpoint to resume from, or None to start a new run.

    `wanted`: `auto`, `none` or a path. Raises UsageError if the checkpoint's facts (`run_facts`) differ from `facts`.
    """
    if wanted == "none":
        if checkpoint.checkpoints(folder):
            raise UsageError(
                f"--resume_from_checkpoint is none, but {folder} holds checkpoints",
                "no checkpoints: a fresh run never writes over an old one",
                "use --overwrite, which moves it aside",
            )
        return None
    if wanted == "auto":
        found, messages = checkpoint.newest_valid(folder)
        for message in messages:
            say(message)
        if found is None:
            return None
    else:
        found = Path(wanted)
        if not (found / storage.MANIFEST).is_file():
            raise UsageError(f"{found} is not a checkpoint", "a folder checkpoint-<step>", "check the path")
        damage = storage.find_damage(found)
        if damage:
            raise RunError(f"{found} is damaged: {damage}; resume from another checkpoint")
    known = _fixed_settings(DataArguments()) | checkpoint.read_state(found).facts  # older ones lack newer settings
    for name, value in facts.items():
        if known.get(name) != value:
            old, new = _difference(known.get(name), value)
            raise UsageError(
                f"{found} was made with {name} {old}, now it is {new}",
                "the value the run started with",
                "restore it, or start again with --overwrite or another --output_dir",
            )
    return found


def _difference(old, new) -> tuple[str, str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(f"{n}={old.get(n)}" for n in names), ", ".join(f"{n}={new.get(n)}" for n in names)
    return _short(old), _short(new)


def _short(value) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def write_settings(folder: Path, groups: list, say) -> None:
    """Write run.yaml, and print a note if a resumed run has other settings than before."""
    text = to_yaml(groups)
    path = folder / SETTINGS
    if before := _saved_settings(folder):
        now = redacted({f.name: getattr(group, f.name) for group in groups for f in dataclasses.fields(group)})
        free = {f.name for group in groups for f in dataclasses.fields(group) if f.metadata.get("resume") == "free"}
        changed = []
        for name, value in now.items():
            old = before.get(name)
            if name not in free and old != value and (old or value):  # None, 0 and [] count as equal
                changed.append(f"{name} {old} -> {value}")
        if changed:
            say(f"note: resumed with other settings: {', '.join(changed)}")
        if path.read_text(encoding="utf-8") == text:
            return
    storage.write_file(path, text)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that matter."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def processor() -> str:
    """Return the name of the CPU, or its architecture if unknown."""
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line for line in file if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_facts(run, facts: dict, result: dict | None, peaks: dict[str, float] | None = None) -> None:
    """Write run.json: versions, hardware, `facts`, and for a finished run its `result` and hardware `peaks`."""
    path, device, known = run.folder / FACTS, run.accelerator.device.type, read_facts(run.folder)
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    storage.write_json(
        path,
        redacted(
            {
                "finished": result is not None,
                "started": known.get("started") or now,
                "updated": now,
                "command": " ".join(Path(word).name if k == 0 else word for k, word in enumerate(sys.argv)),
                "versions": versions(),
                "hardware": {
                    "device": torch.cuda.get_device_name() if device == "cuda" else device,
                    "processor": processor(),
                    "threads": torch.get_num_threads(),
                    "processes": int(os.environ.get("WORLD_SIZE", 1)),
                    "mixed_precision": run.accelerator.mixed_precision,
                    **(peaks or {}),
                },
                **facts,
                **{name: known[name] for name in DECISIONS if name in known},
                "result": result,
            }
        ),
    )
