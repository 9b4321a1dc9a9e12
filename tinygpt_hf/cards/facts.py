"""Collect the facts for model cards and reports: from a run's data when it ends, and later from its folder.

    facts = provenance(folder, rows, tokenizer)      # for run.json: {"text": {...}, "copies": {...}}
    run = Run(Path("runs/mine"))
    run.record["result"]["eval_loss"], run.setting("training", "optim")

A folder may be old, damaged or edited. So each file is matched with a shape when it is read (`conform`): values of another
type become None or empty. Secrets are redacted.
"""

import glob
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from huggingface_hub import constants, metadata_load
from huggingface_hub.file_download import repo_folder_name

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.evaluation.memorization import copies, opening_texts
from tinygpt_hf.model.conversion import equal_architecture
from tinygpt_hf.model.validation import weights_in
from tinygpt_hf.reading.discovery import CORPUS
from tinygpt_hf.rows.store import shard_folders
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.hub import check_repository
from tinygpt_hf.settings.parsing import load_yaml

SECTIONS = {group.section: group for group in (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)}
MACHINE_SETTINGS = {"output_dir", "overwrite", "resume_from_checkpoint"}  # settings that say nothing about the model
FILES_KEPT = 20
MAX_NUMBER = 1e13  # larger than any number of a run, and accepted by timedelta as seconds
COMMIT = re.compile(r"[0-9a-f]{40}")


def _fields(kind, names: str) -> dict:
    return dict.fromkeys(names.split(), kind)


NUMBER = float  # in a shape: a finite int or float
AMOUNT = _fields(NUMBER, "documents bytes")
SIZES = _fields(NUMBER, "num_documents num_tokens num_target_tokens num_bytes")
SOURCE = _fields(str, "dataset_name dataset_config_name dataset_split dataset_revision commit license")
SOURCE |= _fields(NUMBER, "max_samples weight num_files size")
SOURCE |= {"hub": bool, "files": [{"name": str, "size": NUMBER, "sha256": str}]}
CORPUS_PART = _fields(str, "name license preset") | _fields(AMOUNT, "read kept")
CORPUS_PART |= {"dropped": {str: AMOUNT}, "mended": {str: NUMBER}}
PLAN = _fields(NUMBER, "seconds memory_bytes parameters train_tokens epochs bits_per_byte low high")
RECORD = _fields(str, "data tokenizer") | {  # of run.json
    "chat": bool,
    "versions": {str: str},
    "hardware": _fields(str, "device processor mixed_precision")
    | _fields(NUMBER, "threads processes peak_memory_bytes peak_gflops"),
    "baselines": [{"name": str, "loss": NUMBER, "bits_per_byte": NUMBER}],
    "base_model": {"name": str, "hub": bool},
    "text": {"sources": [SOURCE], "validation_source": SOURCE, "corpora": [CORPUS_PART]}
    | {"train": SIZES, "validation": SIZES, "split": {"percentage": NUMBER}},
    "copies": _fields(NUMBER, "length tokens searched_tokens short short_copied sequences copied")
    | _fields(NUMBER, "held_out_sequences held_out_copied longest")
    | {"longest_span": str},
    "plan": PLAN,
    "came_true": PLAN,
    "measures": [{"name": str} | _fields(NUMBER, "share low high")],
    "result": _fields(NUMBER, "steps tokens parameters eval_loss eval_perplexity eval_bits_per_byte")
    | _fields(NUMBER, "best_loss best_step seconds"),
}
# Of log.jsonl.
LINE = _fields(NUMBER, "step loss tokens tokens_per_second eval_loss eval_bits_per_byte eval_accuracy eval_rows")
LINE |= _fields(NUMBER, "eval_entropy")
LINE |= _fields(NUMBER, "learning_rate grad_norm")
LINE |= {"samples": [{"prompt": str, "text": str}]}
CONFIG = _fields(NUMBER, "num_hidden_layers hidden_size num_attention_heads num_key_value_heads head_dim vocab_size")
CONFIG |= _fields(NUMBER, "intermediate_size max_position_embeddings") | _fields(bool, "qk_norm tie_word_embeddings")
CONFIG |= _fields(str, "position_embedding_type norm_type mlp_type")


def conform(value, shape):
    """Return the parts of a JSON value that have the given shape, with None or empty values for the others.

    A shape is a type, a list with the shape of its objects, or a dict of shapes by name ({str: ...} for any name).
    """
    if isinstance(shape, dict):
        values = value if isinstance(value, dict) else {}
        names = values if str in shape else shape
        return {name: conform(values.get(name), shape.get(name, shape.get(str))) for name in names}
    if isinstance(shape, list):
        entries = value if isinstance(value, list) else []
        return [conform(entry, shape[0]) for entry in entries if isinstance(entry, dict)]
    if shape is NUMBER:
        return value if type(value) in (int, float) and abs(value) < MAX_NUMBER else None
    return redacted(value) if type(value) is shape else None


class Run:
    """The contents of a run folder: `record` (run.json), `config`, `settings` (run.yaml) and the `lines` of the log."""

    def __init__(self, folder: Path):
        self.name = redacted(folder.resolve().name)
        facts, self._config = _json(folder / "run.json"), _json(folder / "config.json")
        self.is_recorded = bool(facts)
        self.record, self.config = conform(facts, RECORD), conform(self._config, CONFIG)
        self.settings = redacted(_object(lambda: load_yaml(str(folder / "run.yaml"))))
        log = folder / "log.jsonl"
        lines = log.read_bytes().split(b"\n") if log.is_file() else []
        self.lines = [conform(_object(partial(json.loads, line)), LINE) for line in lines]

        self.sources, result = self.record["text"]["sources"], self.record["result"]
        self.is_toyland = bool(self.sources) and {source["dataset_name"] for source in self.sources} == {"toyland"}
        by_name = {entry["name"]: entry for entry in self.record["baselines"] if entry["loss"] is not None}
        self.baselines = {name: by_name[name] for name in ("uniform", "unigram", "trigram") if name in by_name}
        self.copies = {name: number or 0 for name, number in self.record["copies"].items()}
        evaluations = [line for line in self.lines if line["eval_loss"] is not None]
        self.evaluation = evaluations[-1] if evaluations else conform(None, LINE)
        last = self.evaluation if result["eval_loss"] is None else result
        self.loss, self.bits_per_byte = last["eval_loss"], last["eval_bits_per_byte"]
        report = conform(_json(folder / "tokenizer" / "report.json"), {"bytes_per_token": NUMBER})
        derived = self.loss / math.log(2) / self.bits_per_byte if self.loss and self.bits_per_byte else None
        self.bytes_per_token = report["bytes_per_token"] or derived
        self.tokenizer_kind = _tokenizer_kind(_json(folder / "tokenizer.json"))
        self.parameters = result["parameters"] or _parameters(folder)

        pushed = conform(_json(folder / "hub.json"), {"pushed": {str: dict}})["pushed"]
        names = [key.partition("@")[0] for key in pushed]
        # without alice/mine-data if there is alice/mine
        models = [name for name in names if name.rpartition("-")[0] not in names]
        candidates = (self.setting("training", "hub_model_id"), *models[-1:])
        self.hub_model_id = next((name for name in candidates if is_hub_name(name, owned=True)), None)

    def setting(self, section: str, name: str):
        """Return a setting of run.yaml, or its default."""
        default = getattr(SECTIONS[section](), name)
        given = self.settings.get(section)
        return given.get(name, default) if isinstance(given, dict) else default

    def settings_by(self, changed: bool) -> dict[str, dict]:
        """Return, by section, the settings that differ from their default (`changed`) or do not; without `MACHINE_SETTINGS`."""
        chosen: dict[str, dict] = {}
        for section, group in SECTIONS.items():
            given, defaults = self.settings.get(section), vars(group())
            for name, value in given.items() if isinstance(given, dict) else ():
                if name in defaults and name not in MACHINE_SETTINGS and (value != defaults[name]) == changed:
                    chosen.setdefault(section, {})[name] = _without_folders(value)
        return chosen

    @property
    def seconds(self) -> float | None:
        """Training time over all resumes in seconds, from the tokens and speeds in the log, without evaluation and saving."""
        total, before = 0.0, 0
        for line in self.lines:
            tokens, speed = line["tokens"], line["tokens_per_second"]
            if tokens is not None and speed and speed > 0 and tokens >= before:
                total, before = total + (tokens - before) / speed, tokens
        return conform(total, NUMBER) or self.record["result"]["seconds"]

    @property
    def equal_to(self) -> str | None:
        """Name of the stock architecture that computes the same function, if there is one."""
        try:
            return equal_architecture(SimpleNamespace(**self._config))
        except (UsageError, AttributeError, TypeError, ArithmeticError):
            return None


def is_hub_name(name, owned: bool = False) -> bool:
    """Tell whether a name is valid for a repository on the Hub; `owned` requires the form owner/name."""
    try:
        return isinstance(name, str) and check_repository(name, "", owned) == name
    except UsageError:
        return False


def _object(read: Callable) -> dict:
    """Return the JSON object that `read` returns, or an empty one if it is missing or damaged."""
    try:
        value = read()
    except (UsageError, OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> dict:
    return _object(lambda: json.loads(path.read_bytes()))


def _without_folders(value):
    """Shorten absolute and home paths to their last part; the rest would reveal details of the machine."""
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, str) and "://" not in value and (value.startswith(("/", "~", "..")) or ":\\" in value):
        return Path(value.replace("\\", "/")).name
    return value


def _tokenizer_kind(core: dict) -> str | None:
    """Return the kind of a tokenizer.json: "bpe", "char" or "byte" as tinygpt_hf trains them, else its model type."""
    model = core.get("model") if isinstance(core.get("model"), dict) else {}
    kind, has_merges = conform(model.get("type"), str), bool(model.get("merges"))
    has_bytes = '"ByteLevel"' in json.dumps(core.get("pre_tokenizer"))
    if kind != "BPE" or (has_merges and not has_bytes):
        return kind
    if has_merges:
        return "bpe"
    return "byte" if has_bytes else "char"


def _parameters(folder: Path) -> int | None:
    """Count the parameters from the headers of the weight files."""
    try:
        return sum(math.prod(shape) for _, shape in weights_in(folder).values()) or None
    except (UsageError, RunError, OSError):
        return None


def provenance(folder: Path, rows: Path, tokenizer, base_model: str | None = None) -> dict:
    """Return what a run was trained on, for its run.json: sources and sizes of the text, copies in the last samples.

    Reads the row folder `rows` and the log in `folder`. Licenses and commits of datasets and of `base_model` come from the
    Hub's cache; nothing is downloaded.
    """
    shards = {part: shard_folders(rows / part) for part in ("train", "validation")}
    manifests = {part: [storage.read_json(f / "manifest.json") for f in found] for part, found in shards.items()}
    manifest, run = manifests["train"][0], Run(folder)
    sources = manifest.get("sources", ())
    text: dict[str, Any] = {part: _sizes(found) for part, found in manifests.items()}
    text |= {"sources": [describe_source(source) for source in sources], "split": manifest.get("split")}
    if manifest.get("validation"):
        text["validation_source"] = describe_source(manifest["validation"])
    text["corpora"] = corpora(run, sources)
    facts: dict[str, Any] = {"text": text}
    samples = [sample["text"] for sample in run.evaluation["samples"]]
    if samples:
        held_out = opening_texts(tokenizer, rows / "validation")
        # a streamed run may have kept only one window
        searched = shards["train"][0] if "window_rows" in manifest else rows / "train"
        facts["copies"] = copies(samples, held_out, tokenizer, searched) | {"tokens": text["train"]["num_tokens"]}
    if base_model:
        on_hub = is_on_hub(base_model)
        facts["base_model"] = {"name": base_model if on_hub else Path(base_model).name, "hub": on_hub}
        facts["base_model"]["commit"] = look_up_cache(base_model, "model")[0]
    return facts


def _sizes(manifests: list[dict]) -> dict:
    """Sum the sizes of shards. Each shard repeats the last token of the one before, which is counted once."""
    sizes = {name: manifests[0].get(name) for name in SIZES}
    for manifest in manifests[1:]:
        repeated = {"num_documents": 1, "num_tokens": 1, "num_target_tokens": int("mask.bin" not in manifest["files"])}
        for name in SIZES:
            if sizes[name] is not None:
                sizes[name] += manifest.get(name, 0) - repeated.get(name, 0)
    return sizes


def describe_source(source: dict) -> dict:
    """Describe a source for run.json: its settings, a summary of its files, and the commit and license of a dataset."""
    facts = {k: v for k, v in source.items() if k not in ("files", "seed", "streaming", "listing")}
    if "files" in source:
        files = source["files"]
        facts["files"] = [{"name": file["name"], "size": file["size"]} for file in files[:FILES_KEPT]]
        sizes = [file["size"] for file in files if file["size"] is not None]  # unknown for parquet behind a URL
        facts |= {"num_files": source.get("num_files", len(files)), "size": sum(sizes)}
    name = source.get("dataset_name")
    if name and name != "toyland":
        commit, license = look_up_cache(name, "dataset", source.get("dataset_revision"))
        facts |= {"hub": is_on_hub(name), "commit": commit, "license": license}
        if not facts["hub"]:
            facts["dataset_name"] = Path(name).name
    return facts


def is_on_hub(name: str) -> bool:
    """Tell whether a name is that of a Hub repository and not of a local folder."""
    return is_hub_name(name) and not Path(name).exists()


def look_up_cache(name: str, kind: str, revision: str | None = None) -> tuple[str | None, str | None]:
    """Return the commit of a Hub repository and the license of its card from huggingface_hub's cache, or None for each."""
    if not is_on_hub(name) or not is_hub_name(revision or "main"):
        return None, None
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    try:
        is_commit = COMMIT.fullmatch(revision or "")
        commit = revision if is_commit else (folder / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        return None, None
    try:
        stated = (metadata_load(folder / "snapshots" / commit / "README.md") or {}).get("license")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # the card may be invalid
        stated = None
    words = [word for word in (stated if isinstance(stated, list) else [stated]) if isinstance(word, str)]
    return commit, ", ".join(words) or None


def corpora(run: Run, sources: list[dict]) -> list[dict]:
    """Read the corpus.json of each prepared corpus in the folders that the settings name.

    The sha256 of a file must match, so a corpus that was changed after training is left out.
    """
    hashes = {file.get("sha256") for source in sources for file in source.get("files", ())}
    entries = [run.setting("data", "train_file"), *(e.get("train_file") for e in run.setting("data", "sources") or ())]
    names = [str(name) for entry in entries for name in (entry if isinstance(entry, list) else [entry]) if name]
    paths = [Path(path).resolve() for name in names for path in ([name] if Path(name).exists() else glob.glob(name))]
    records: dict[Path, dict] = {}
    for given in paths:
        for path in (given / CORPUS, *(above / CORPUS for above in given.parents[:2]), *given.rglob(CORPUS)):
            if path not in records and path.is_file():
                records[path] = _corpus(path, hashes)
    return [record for record in records.values() if record]


def _corpus(path: Path, hashes: set[str]) -> dict:
    """Read the facts of a corpus.json for a card; return {} if none of its data files has one of the hashes."""
    try:
        record = storage.read_json(path)
        files = {file["sha256"] for name, file in record["files"].items() if name.startswith("data/")}
        facts = {name: record.get(name) for name in CORPUS_PART} | {"preset": record["settings"]["corpus"]["preset"]}
    except (RunError, OSError, LookupError, TypeError, AttributeError):
        return {}
    return facts if hashes & files else {}
