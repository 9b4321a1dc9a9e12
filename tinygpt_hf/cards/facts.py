"""Gather everything a model card says: while a run ends, from its text and rows; later, from the files of its folder.

    facts = provenance(folder, rows, tokenizer)      # for run.json: {"text": {...}, "copies": {...}}
    run = Run(Path("runs/mine"))
    run.record["result"]["eval_loss"], run.setting("training", "optim")

A folder may be old, damaged or changed by somebody. So a file is fitted to a shape when it is read: a value that has the type the
shape names is taken, any other is None or empty. Secrets are hidden.
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
OF_THE_MACHINE = {"output_dir", "overwrite", "resume_from_checkpoint"}  # settings that tell nothing of the model
FILES_KEPT = 20
LARGEST = 1e13  # no run has a larger number, and timedelta takes that many seconds
COMMIT = re.compile(r"[0-9a-f]{40}")


def _each(kind, names: str) -> dict:
    return dict.fromkeys(names.split(), kind)


NUMBER = float  # in a shape: an int or a float that is finite
AMOUNT = _each(NUMBER, "documents bytes")
SIZES = _each(NUMBER, "num_documents num_tokens num_target_tokens num_bytes")
SOURCE = _each(str, "dataset_name dataset_config_name dataset_split dataset_revision commit license")
SOURCE |= _each(NUMBER, "max_samples weight num_files size")
SOURCE |= {"hub": bool, "files": [{"name": str, "size": NUMBER, "sha256": str}]}
CORPUS_PART = _each(str, "name license preset") | _each(AMOUNT, "read kept")
CORPUS_PART |= {"dropped": {str: AMOUNT}, "mended": {str: NUMBER}}
PLAN = _each(NUMBER, "seconds memory_bytes parameters train_tokens epochs bits_per_byte low high")
RECORD = _each(str, "data tokenizer") | {  # of run.json
    "chat": bool,
    "versions": {str: str},
    "hardware": _each(str, "device processor mixed_precision")
    | _each(NUMBER, "threads processes peak_memory_bytes peak_gflops"),
    "baselines": [{"name": str, "loss": NUMBER, "bits_per_byte": NUMBER}],
    "base_model": {"name": str, "hub": bool},
    "text": {"sources": [SOURCE], "validation_source": SOURCE, "corpora": [CORPUS_PART]}
    | {"train": SIZES, "validation": SIZES, "split": {"percentage": NUMBER}},
    "copies": _each(NUMBER, "length tokens searched_tokens short short_copied sequences copied")
    | _each(NUMBER, "held_out_sequences held_out_copied longest")
    | {"longest_span": str},
    "plan": PLAN,
    "came_true": PLAN,
    "measures": [{"name": str} | _each(NUMBER, "share low high")],
    "result": _each(NUMBER, "steps tokens parameters eval_loss eval_perplexity eval_bits_per_byte")
    | _each(NUMBER, "best_loss best_step seconds"),
}
# Of log.jsonl.
LINE = _each(NUMBER, "step loss tokens tokens_per_second eval_loss eval_bits_per_byte eval_accuracy eval_rows")
LINE |= _each(NUMBER, "eval_entropy")
LINE |= _each(NUMBER, "learning_rate grad_norm")
LINE |= {"samples": [{"prompt": str, "text": str}]}
CONFIG = _each(NUMBER, "num_hidden_layers hidden_size num_attention_heads num_key_value_heads head_dim vocab_size")
CONFIG |= _each(NUMBER, "intermediate_size max_position_embeddings") | _each(bool, "qk_norm tie_word_embeddings")
CONFIG |= _each(str, "position_embedding_type norm_type mlp_type")


def fitted(value, shape):
    """Take of a JSON value what has the shape: a type, a list of objects, or values by name ({str: ...}: by any name)."""
    if isinstance(shape, dict):
        values = value if isinstance(value, dict) else {}
        names = values if str in shape else shape
        return {name: fitted(values.get(name), shape.get(name, shape.get(str))) for name in names}
    if isinstance(shape, list):
        entries = value if isinstance(value, list) else []
        return [fitted(entry, shape[0]) for entry in entries if isinstance(entry, dict)]
    if shape is NUMBER:
        return value if type(value) in (int, float) and abs(value) < LARGEST else None
    return redacted(value) if type(value) is shape else None


class Run:
    """Hold the facts of a run folder: `record` of run.json, `config`, `settings` of run.yaml, the `lines` of the log."""

    def __init__(self, folder: Path):
        self.name = redacted(folder.resolve().name)
        facts, self._config = _json(folder / "run.json"), _json(folder / "config.json")
        self.is_recorded = bool(facts)
        self.record, self.config = fitted(facts, RECORD), fitted(self._config, CONFIG)
        self.settings = redacted(_object(lambda: load_yaml(str(folder / "run.yaml"))))
        log = folder / "log.jsonl"
        lines = log.read_bytes().split(b"\n") if log.is_file() else []
        self.lines = [fitted(_object(partial(json.loads, line)), LINE) for line in lines]

        self.sources, result = self.record["text"]["sources"], self.record["result"]
        self.is_toyland = bool(self.sources) and {source["dataset_name"] for source in self.sources} == {"toyland"}
        by_name = {entry["name"]: entry for entry in self.record["baselines"] if entry["loss"] is not None}
        self.baselines = {name: by_name[name] for name in ("uniform", "unigram", "trigram") if name in by_name}
        self.copies = {name: number or 0 for name, number in self.record["copies"].items()}
        evaluations = [line for line in self.lines if line["eval_loss"] is not None]
        self.evaluation = evaluations[-1] if evaluations else fitted(None, LINE)
        last = self.evaluation if result["eval_loss"] is None else result
        self.loss, self.bits_per_byte = last["eval_loss"], last["eval_bits_per_byte"]
        report = fitted(_json(folder / "tokenizer" / "report.json"), {"bytes_per_token": NUMBER})
        derived = self.loss / math.log(2) / self.bits_per_byte if self.loss and self.bits_per_byte else None
        self.bytes_per_token = report["bytes_per_token"] or derived
        self.tokenizer_kind = _tokenizer_kind(_json(folder / "tokenizer.json"))
        self.parameters = result["parameters"] or _parameters(folder)

        pushed = fitted(_json(folder / "hub.json"), {"pushed": {str: dict}})["pushed"]
        names = [key.partition("@")[0] for key in pushed]
        own = [name for name in names if name.rpartition("-")[0] not in names]  # not alice/mine-data beside alice/mine
        candidates = (self.setting("training", "hub_model_id"), *own[-1:])
        self.hub_model_id = next((name for name in candidates if is_hub_name(name, owned=True)), None)

    def setting(self, section: str, name: str):
        """Look a setting up in run.yaml; else it is its default."""
        default = getattr(SECTIONS[section](), name)
        given = self.settings.get(section)
        return given.get(name, default) if isinstance(given, dict) else default

    def settings_by(self, changed: bool) -> dict[str, dict]:
        """Choose, by section, the settings that differ from the default, or the others; those of the machine are left out."""
        chosen: dict[str, dict] = {}
        for section, group in SECTIONS.items():
            given, defaults = self.settings.get(section), vars(group())
            for name, value in given.items() if isinstance(given, dict) else ():
                if name in defaults and name not in OF_THE_MACHINE and (value != defaults[name]) == changed:
                    chosen.setdefault(section, {})[name] = _without_folders(value)
        return chosen

    @property
    def seconds(self) -> float | None:
        """Sum the time of training over all resumes, by the tokens and speeds in the log, without evaluation and saving."""
        total, before = 0.0, 0
        for line in self.lines:
            tokens, speed = line["tokens"], line["tokens_per_second"]
            if tokens is not None and speed and speed > 0 and tokens >= before:
                total, before = total + (tokens - before) / speed, tokens
        return fitted(total, NUMBER) or self.record["result"]["seconds"]

    @property
    def equal_to(self) -> str | None:
        """Name the stock architecture that computes the same."""
        try:
            return equal_architecture(SimpleNamespace(**self._config))
        except (UsageError, AttributeError, TypeError, ArithmeticError):
            return None


def is_hub_name(name, owned: bool = False) -> bool:
    """Tell whether a name may be one of a repository on the Hub; `owned`: it must say whose."""
    try:
        return isinstance(name, str) and check_repository(name, "", owned) == name
    except UsageError:
        return False


def _object(read: Callable) -> dict:
    """Call what reads a JSON object; return an empty one where it is missing or damaged."""
    try:
        value = read()
    except (UsageError, OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> dict:
    return _object(lambda: json.loads(path.read_bytes()))


def _without_folders(value):
    """Shorten a path that begins at the root or the home of a machine to its last part; the rest tells about the machine."""
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, str) and "://" not in value and (value.startswith(("/", "~", "..")) or ":\\" in value):
        return Path(value.replace("\\", "/")).name
    return value


def _tokenizer_kind(core: dict) -> str | None:
    """Name the sort of a tokenizer.json: bpe, char and byte are those that tinygpt_hf trains."""
    model = core.get("model") if isinstance(core.get("model"), dict) else {}
    kind, has_merges = fitted(model.get("type"), str), bool(model.get("merges"))
    has_bytes = '"ByteLevel"' in json.dumps(core.get("pre_tokenizer"))
    if kind != "BPE" or (has_merges and not has_bytes):
        return kind
    return "bpe" if has_merges else "byte" if has_bytes else "char"


def _parameters(folder: Path) -> int | None:
    """Count the parameters in the headers of the weights."""
    try:
        return sum(math.prod(shape) for _, shape in weights_in(folder).values()) or None
    except (UsageError, RunError, OSError):
        return None


def provenance(folder: Path, rows: Path, tokenizer, base_model: str | None = None) -> dict:
    """Look up what a run was made from, for its run.json, while everything is at hand.

    Sources and sizes of the text come from the row folder `rows`; how much of the last samples in the log of `folder` stands in
    that text is counted. Nothing is fetched: the license of a dataset, and which commit of it or of `base_model` was read, are
    looked up in the Hub's cache.
    """
    shards = {part: shard_folders(rows / part) for part in ("train", "validation")}
    manifests = {part: [storage.read_json(f / "manifest.json") for f in found] for part, found in shards.items()}
    known, run = manifests["train"][0], Run(folder)
    sources = known.get("sources", ())
    text: dict[str, Any] = {part: _sizes(found) for part, found in manifests.items()}
    text |= {"sources": [described(source) for source in sources], "split": known.get("split")}
    if known.get("validation"):
        text["validation_source"] = described(known["validation"])
    text["corpora"] = corpora(run, sources)
    facts: dict[str, Any] = {"text": text}
    samples = [sample["text"] for sample in run.evaluation["samples"]]
    if samples:
        held_out = opening_texts(tokenizer, rows / "validation")
        # of a stream the first may be all there is
        searched = shards["train"][0] if "window_rows" in known else rows / "train"
        facts["copies"] = copies(samples, held_out, tokenizer, searched) | {"tokens": text["train"]["num_tokens"]}
    if base_model:
        on_hub = is_on_hub(base_model)
        facts["base_model"] = {"name": base_model if on_hub else Path(base_model).name, "hub": on_hub}
        facts["base_model"]["commit"] = cached(base_model, "model")[0]
    return facts


def _sizes(manifests: list[dict]) -> dict:
    """Sum what rows hold, their shards taken together: each begins with the last id of the one before."""
    sizes = {name: manifests[0].get(name) for name in SIZES}
    for more in manifests[1:]:
        twice = {"num_documents": 1, "num_tokens": 1, "num_target_tokens": int("mask.bin" not in more["files"])}
        for name in SIZES:
            if sizes[name] is not None:
                sizes[name] += more.get(name, 0) - twice.get(name, 0)
    return sizes


def described(source: dict) -> dict:
    """Describe a source by its fingerprint, files summed up, with what the Hub's cache knows of a dataset."""
    shown = {k: v for k, v in source.items() if k not in ("files", "seed", "streaming", "listing")}
    if "files" in source:
        files = source["files"]
        shown["files"] = [{"name": file["name"], "size": file["size"]} for file in files[:FILES_KEPT]]
        sizes = [file["size"] for file in files if file["size"] is not None]  # unknown for parquet behind a URL
        shown |= {"num_files": source.get("num_files", len(files)), "size": sum(sizes)}
    name = source.get("dataset_name")
    if name and name != "toyland":
        commit, license = cached(name, "dataset", source.get("dataset_revision"))
        shown |= {"hub": is_on_hub(name), "commit": commit, "license": license}
        if not shown["hub"]:
            shown["dataset_name"] = Path(name).name
    return shown


def is_on_hub(name: str) -> bool:
    """Tell whether a name belongs to a repository, not to a folder here."""
    return is_hub_name(name) and not Path(name).exists()


def cached(name: str, kind: str, revision: str | None = None) -> tuple[str | None, str | None]:
    """Find the commit that a name of the Hub stands for here, and the license its card states, in huggingface_hub's cache."""
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
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # somebody's card
        stated = None
    words = [word for word in (stated if isinstance(stated, list) else [stated]) if isinstance(word, str)]
    return commit, ", ".join(words) or None


def corpora(run: Run, sources: list[dict]) -> list[dict]:
    """Read what the corpus.json of each prepared corpus says of the files, as far as the settings name its folder.

    A corpus is known by the sha256 of its files, so a folder that was written again since is not taken for it.
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
    """Read the card's part of a corpus.json; return nothing where none of its data has one of the hashes."""
    try:
        facts = storage.read_json(path)
        files = {file["sha256"] for name, file in facts["files"].items() if name.startswith("data/")}
        shown = {name: facts.get(name) for name in CORPUS_PART} | {"preset": facts["settings"]["corpus"]["preset"]}
    except (RunError, OSError, LookupError, TypeError, AttributeError):
        return {}
    return shown if hashes & files else {}
