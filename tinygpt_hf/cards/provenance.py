"""What a run was made from, looked up while everything is at hand, for run.json: the model card is made of it, wherever it is read.

facts = provenance(folder, rows, tokenizer)       # JSON: {"text": {...}, "copies": {...}}
"""

import glob
import json
import re
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.cards.facts import RunRecord, hub_id, objects, read_run
from tinygpt_hf.errors import RunError
from tinygpt_hf.evaluation.memorization import copies, opening_texts
from tinygpt_hf.reading.discovery import CORPUS

NAMES_KEPT = 20  # of files
LONGEST_README = 1 << 20
COMMIT = re.compile(r"[0-9a-f]{40}")
SIZES = ("num_documents", "num_tokens", "num_target_tokens", "num_bytes")


def provenance(folder: Path, rows: Path, tokenizer, base_model: str | None = None) -> dict:
    """Sources and sizes of the text in the row folder `rows`, how much of the last samples in the log of the run folder stands
    in it, and where the weights it began with came from.

    Nothing is asked over the network: what a dataset's licence is and which commit was read, the Hub's own cache knows.
    """
    train = sorted((rows / "train").glob("window-*")) or [rows / "train"]  # windows: the text was streamed
    manifests = [json.loads((part / "manifest.json").read_text("utf-8")) for part in (*train, rows / "validation")]
    known = manifests[0]
    text: dict[str, Any] = {"train": _sizes(manifests[:-1]), "validation": _sizes(manifests[-1:])}
    text |= {"sources": [described(source) for source in known.get("sources", ())], "split": known.get("split")}
    if known.get("validation"):
        text["validation_source"] = described(known["validation"])
    run = read_run(folder)
    text["corpora"] = corpora(run, known.get("sources", ()))
    facts: dict[str, Any] = {"text": text}
    samples = [sample["text"] for sample in run.samples]
    if samples:
        held_out = opening_texts(tokenizer, rows / "validation")
        facts["copies"] = copies(samples, held_out, tokenizer, train[0])
        facts["copies"]["tokens"] = text["train"]["num_tokens"]
    if base_model:
        facts["base_model"] = {"name": base_model if is_hub_id(base_model) else Path(base_model).name}
        facts["base_model"] |= {"hub": is_hub_id(base_model), "commit": cached(base_model, "model")[0]}
    return facts


def corpora(run: RunRecord, sources: list[dict]) -> list[dict]:
    """What the corpus.json of each prepared corpus says that the files were read from, as far as the settings name their place.

    A corpus is known by the sha256 of its files, so a folder that was written anew since is not taken for it.
    """
    hashes = {file.get("sha256") for source in sources for file in source.get("files", ())}
    entries = [
        run.setting("data", "train_file"),
        *(e.get("train_file") for e in objects(run.setting("data", "sources"))),
    ]
    names = [name for entry in entries for name in (entry if isinstance(entry, list) else [entry]) if name]
    places = [place for name in map(str, names) for place in ([name] if Path(name).exists() else glob.glob(name))]
    found: dict[Path, dict] = {}
    for place in map(Path.resolve, map(Path, places)):
        for path in (place / CORPUS, *(above / CORPUS for above in place.parents[:2]), *place.rglob(CORPUS)):
            if path not in found and path.is_file():
                found[path] = _corpus(path, hashes)
    return [known for known in found.values() if known]


def _corpus(path: Path, hashes: set[str]) -> dict:
    """The card's part of a corpus.json; nothing where none of its data has one of the hashes."""
    try:
        known = storage.read_json(path)
        files = [file["sha256"] for name, file in known["files"].items() if name.startswith("data/")]
        preset = known["settings"]["corpus"]["preset"]
    except (RunError, OSError, LookupError, TypeError, AttributeError):
        return {}
    shown = {name: known.get(name) for name in ("name", "license", "read", "kept", "dropped", "mended")}
    return shown | {"preset": preset} if hashes & set(files) else {}


def _sizes(manifests: list[dict]) -> dict:
    """What rows hold, those of windows taken together: each begins with the last id of the one before."""
    sizes = {name: manifests[0].get(name) for name in SIZES}
    for more in manifests[1:]:
        again = {"num_documents": 1, "num_tokens": 1, "num_target_tokens": int("mask.bin" not in more["files"])}
        sizes |= {
            name: sizes[name] + more.get(name, 0) - again.get(name, 0) for name in SIZES if sizes[name] is not None
        }
    return sizes


def described(source: dict) -> dict:
    """A source as its fingerprint tells it, files summed up, with what the Hub's cache knows of a dataset."""
    shown = {k: v for k, v in source.items() if k not in ("files", "seed", "streaming", "listing")}
    if "files" in source:
        files = source["files"]
        shown["files"] = [{"name": file["name"], "size": file["size"]} for file in files[:NAMES_KEPT]]
        known = [file["size"] for file in files if file["size"] is not None]  # of parquet behind a URL nobody asked
        shown |= {"num_files": source.get("num_files", len(files)), "size": sum(known)}
    name = source.get("dataset_name")
    if name and name != "toyland":
        commit, readme = cached(name, "dataset", source.get("dataset_revision"))
        shown |= {"hub": is_hub_id(name), "commit": commit, "license": license_of(readme)}
        if not shown["hub"]:
            shown["dataset_name"] = Path(name).name
    return shown


def is_hub_id(name: str) -> bool:
    """Does the name belong to a repository, not to a folder here?"""
    return hub_id(name) and not Path(name).exists()


def cached(name: str, kind: str, revision: str | None = None) -> tuple[str | None, str]:
    """(the commit that a name of the Hub stands for here, its README), as far as the cache of huggingface_hub knows."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if not is_hub_id(name) or not hub_id(revision or "main"):
        return None, ""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    try:
        known = revision if COMMIT.fullmatch(revision or "") else (folder / "refs" / (revision or "main")).read_text()
        commit = known.strip() if COMMIT.fullmatch(known.strip()) else None
    except (OSError, ValueError):
        return None, ""
    try:
        readme = (folder / "snapshots" / str(commit) / "README.md").read_bytes()[:LONGEST_README]
    except OSError:
        return commit, ""
    return commit, readme.decode("utf-8", "replace")


def license_of(readme: str) -> str | None:
    """What the metadata of a dataset's card says its licence is."""
    import yaml

    block = re.match(r"---\r?\n(.*?)\r?\n---\s", readme, re.DOTALL)
    try:
        data = yaml.safe_load(block[1]) if block else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    found = data.get("license") if isinstance(data, dict) else None
    words = [word for word in (found if isinstance(found, list) else [found]) if isinstance(word, str) and word]
    return ", ".join(words) or None
