"""What a run folder tells of its run, read with nothing taken for granted: the folder may be old, damaged, or somebody's trap.

run = read_run(Path("runs/mine"))
run.number("result", "eval_loss"), run.setting("training", "optim")          # None where there is no such thing
"""

import json
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments

SECTIONS = {
    "model": ModelArguments,
    "data": DataArguments,
    "tokenizer": TokenizerArguments,
    "training": TrainingArguments,
}
LARGEST_FILE = 1 << 28
LARGEST = 1e18
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass
class RunRecord:
    """run.json, run.yaml, config.json, the tokenizer's report and the log, secrets hidden. Every access says what type it wants."""

    name: str
    facts: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    report: dict = field(default_factory=dict)
    tokenizer_kind: str | None = None
    lines: list[dict] = field(default_factory=list)
    parameters: float | None = None
    pushed: str | None = None

    def value(self, *path: str):
        """What stands at a path of keys of run.json."""
        found = self.facts
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def number(self, *path: str) -> float | int | None:
        """A finite number of run.json."""
        return finite(self.value(*path))

    def text(self, *path: str) -> str | None:
        """A text of run.json that is not empty."""
        found = self.value(*path)
        return found if isinstance(found, str) and found.strip() else None

    def setting(self, section: str, name: str):
        """A setting as run.yaml has it, else its default."""
        given = self.settings.get(section)
        default = getattr(SECTIONS[section](), name, None)
        return given.get(name, default) if isinstance(given, dict) else default

    @property
    def chats(self) -> bool:
        """Did it learn from conversations?"""
        return self.value("chat") is True

    @property
    def is_ours(self) -> bool:
        """Is it a TinyGPT model, not a stock architecture?"""
        return self.config.get("model_type", "tinygpt") == "tinygpt"

    @property
    def sources(self) -> list[dict]:
        return objects(self.value("text", "sources"))

    @property
    def is_toyland(self) -> bool:
        return bool(self.sources) and all(source.get("dataset_name") == "toyland" for source in self.sources)

    @property
    def hub_datasets(self) -> list[str]:
        """The ids of the Hub's datasets it was trained on."""
        names = [source.get("dataset_name") for source in self.sources if source.get("hub") is True]
        return list(dict.fromkeys(name for name in names if hub_id(name)))

    @property
    def hub_base(self) -> str | None:
        """The id of the model on the Hub whose weights it began with."""
        name = self.value("base_model", "name")
        return name if self.value("base_model", "hub") is True and hub_id(name) else None

    @property
    def hub_model_id(self) -> str | None:
        """Where its settings say it goes, or where it was pushed."""
        names = [self.setting("training", "hub_model_id"), self.pushed]
        return next((name for name in names if hub_id(name) and "/" in name), None)

    @property
    def baseline_losses(self) -> dict[str, float]:
        return {name: loss for name, (loss, _) in self.baselines.items()}

    @property
    def baselines(self) -> dict[str, tuple[float, float | None]]:
        """name -> (nats per token, bits per byte) of what counting reaches on the same tokens."""
        known = {"uniform", "unigram", "trigram"}
        return {
            entry["name"]: (entry["loss"], finite(entry.get("bits_per_byte")))
            for entry in objects(self.value("baselines"))
            if isinstance(entry.get("name"), str) and entry["name"] in known and finite(entry.get("loss")) is not None
        }

    @cached_property
    def evaluation(self) -> dict:
        """The last evaluation of the log."""
        return next((line for line in reversed(self.lines) if "eval_loss" in line), {})

    @property
    def samples(self) -> list[dict[str, str]]:
        entries = objects(self.evaluation.get("samples"))
        return [e for e in entries if isinstance(e.get("prompt"), str) and isinstance(e.get("text"), str)]

    @cached_property
    def seconds(self) -> float | None:
        """Of training over all resumes, by the tokens and speeds in the log; evaluation and saving are not in it."""
        total, before = 0.0, 0
        for line in self.lines:
            tokens, speed = finite(line.get("tokens")), finite(line.get("tokens_per_second"))
            if tokens is not None and speed and speed > 0 and tokens >= before:
                total, before = total + (tokens - before) / speed, tokens
        return finite(total) or finite(self.number("result", "seconds"))

    @cached_property
    def equal_to(self) -> str | None:
        """The stock architecture that computes the same."""
        from tinygpt_hf.model.conversion import equal_architecture

        try:
            return equal_architecture(SimpleNamespace(**self.config)) if self.is_ours else None
        except (UsageError, AttributeError, TypeError, ArithmeticError):
            return None

    @property
    def bytes_per_token(self) -> float | None:
        """On held-out text: as its training reported, else as loss and bits per byte tell."""
        loss, bits = self.number("result", "eval_loss"), self.number("result", "eval_bits_per_byte")
        derived = loss / math.log(2) / bits if loss and bits else None
        return finite(self.report.get("bytes_per_token")) or finite(derived)


def objects(found) -> list[dict]:
    """The JSON objects of what should be a list of them."""
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def finite(value) -> float | int | None:
    """A number a card can show, or None."""
    return value if type(value) in (int, float) and abs(value) < LARGEST else None


def hub_id(name) -> bool:
    """May the name be one of the Hub?"""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return isinstance(name, str) and HUB_ID.fullmatch(name) is not None


def read_run(folder: Path) -> RunRecord:
    """What there is to read of a run folder; nothing is too broken."""
    from tinygpt_hf.settings.parsing import load_yaml

    run = RunRecord(folder.resolve().name)
    run.facts, run.config = _json(folder / "run.json"), _json(folder / "config.json")
    run.report = _json(folder / "tokenizer" / "report.json")
    run.tokenizer_kind = _kind(run.report, _json(folder / "tokenizer.json"))
    try:
        settings = load_yaml(str(folder / "run.yaml")) if _is_small(folder / "run.yaml") else {}
        run.settings = redacted(settings) if isinstance(settings, dict) else {}
    except (UsageError, OSError, ValueError, RecursionError):
        run.settings = {}
    run.lines = _log(folder / "log.jsonl")
    pushed = _json(folder / "hub.json").get("pushed")
    names = [name.partition("@")[0] for name in pushed] if isinstance(pushed, dict) else []
    own = [name for name in names if name.rpartition("-")[0] not in names]  # not what went along, as alice/mine-data
    run.pushed = own[-1] if own else None
    run.parameters = _parameters(folder) or run.number("result", "parameters")
    return run


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LARGEST_FILE


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if _is_small(path) else {}
        return redacted(found) if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _log(path: Path) -> list[dict]:
    """The whole lines of a log, without those that are no JSON object."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if _is_small(path) else ""
    except OSError:
        return []
    for line in text.split("\n"):
        try:
            found = json.loads(line) if line else None
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            lines.append(redacted(found))
    return lines


def _kind(report: dict, core: dict) -> str | None:
    """What sort of tokenizer it is, in words of ours."""
    made = report.get("trained_with")
    kind = made.get("tokenizer_type") if isinstance(made, dict) else None
    if kind in ("bpe", "char", "byte"):
        return {"bpe": "byte-level BPE", "char": "characters", "byte": "bytes"}[kind]
    model, before = (core.get(name) if isinstance(core.get(name), dict) else {} for name in ("model", "pre_tokenizer"))
    if model.get("type") == "BPE" and before.get("type") == "ByteLevel":
        return "byte-level BPE" if model.get("merges") else "bytes"
    if model.get("type") == "BPE" and not model.get("merges"):
        return "characters"
    return model.get("type") if model.get("type") in ("BPE", "Unigram", "WordPiece", "WordLevel") else None


def _parameters(folder: Path) -> int | None:
    """Counted in the headers of the weights."""
    from tinygpt_hf.model.validation import weights_in

    try:
        return sum(math.prod(shape) for _, shape in weights_in(folder).values()) or None
    except (UsageError, RunError, OSError):
        return None
