"""What a run was made from, looked up while everything is at hand, for run.json: the model card is made of it, wherever it is read.

facts = provenance(folder, rows, tokenizer)       # JSON: {"text": {...}, "copies": {...}}
"""

import json
import re
from pathlib import Path

from tinygpt_hf.sharing.copies import copies, opening_texts
from tinygpt_hf.sharing.run_record import hub_id, read_run

NAMES_KEPT = 20  # of files
LONGEST_README = 1 << 20
COMMIT = re.compile(r"[0-9a-f]{40}")
SIZES = ("num_documents", "num_tokens", "num_target_tokens", "num_bytes")


def provenance(folder: Path, rows: Path, tokenizer, base_model: str | None = None) -> dict:
    """Sources and sizes of the text in the row folder `rows`, how much of the last samples in the log of the run folder stands
    in it, and where the weights it began with came from.

    Nothing is asked over the network: what a dataset's licence is and which commit was read, the Hub's own cache knows.
    """
    manifests = {
        part: json.loads((rows / part / "manifest.json").read_text("utf-8")) for part in ("train", "validation")
    }
    known = manifests["train"]
    text = {part: {name: found.get(name) for name in SIZES} for part, found in manifests.items()}
    text |= {"sources": [described(source) for source in known.get("sources", ())], "split": known.get("split")}
    if known.get("validation"):
        text["validation_source"] = described(known["validation"])
    facts = {"text": text}
    samples = [sample["text"] for sample in read_run(folder).samples]
    if samples:
        held_out = opening_texts(tokenizer, rows / "validation")
        facts["copies"] = copies(samples, held_out, tokenizer, rows / "train")
    if base_model:
        facts["base_model"] = {"name": base_model if is_hub_id(base_model) else Path(base_model).name}
        facts["base_model"] |= {"hub": is_hub_id(base_model), "commit": cached(base_model, "model")[0]}
    return facts


def described(source: dict) -> dict:
    """A source as its fingerprint tells it, files summed up, with what the Hub's cache knows of a dataset."""
    shown = {k: v for k, v in source.items() if k not in ("files", "seed", "streaming")}
    if "files" in source:
        files = source["files"]
        shown["files"] = [{"name": file["name"], "size": file["size"]} for file in files[:NAMES_KEPT]]
        shown |= {"num_files": len(files), "size": sum(file["size"] for file in files)}
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
