"""Select the files to push to the Hub by an allow-list of names, and scan them for secrets.

    uploads, notes = collect_files(Path("runs/mine"), "alice/mine", ["tokenizer"], {})    # nothing is sent or written
    uploads[0].files                       # {"config.json": Path("runs/mine/config.json"), ...}

Files with other names are not pushed: checkpoints, rows, logs (which quote the text) and anything else. Weights must be
safetensors. Links are refused, because they may lead anywhere. Text files are scanned for patterns of secrets. All files are
scanned for the secrets of this process: its Hub token, and environment variables with names of secrets.
"""

import json
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tinygpt_hf.errors import SECRET_NAME, UsageError, printable, redacted
from tinygpt_hf.export.export import FORMATS, INSIDE_SOURCE
from tinygpt_hf.model.validation import check_folder
from tinygpt_hf.reading.discovery import CORPUS
from tinygpt_hf.settings.parsing import load_yaml

_TOKENIZER = (
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|(tokenizer|spiece)\.model|chat_template\.jinja"
)
_WEIGHTS = r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
_DOCUMENTS = r"README\.md|LICENSE(\.txt|\.md)?"
# Files of the model, or (SHARDS) of the corpus. A push deletes those in the repository that are not in the folder.
MODEL = re.compile(rf"(generation_)?config\.json|{_WEIGHTS}|{_TOKENIZER}|(configuration|modeling)_tinygpt\.py")
RUN = re.compile(rf"{MODEL.pattern}|{_DOCUMENTS}|run\.yaml|loss_curve\.svg")
REPORT = "report.html"
EXPORT = re.compile(rf"{MODEL.pattern}|{_DOCUMENTS}|export\.json|[\w-]+\.(onnx|onnx[._]data|gguf)")
TOKENIZER = re.compile(rf"{_TOKENIZER}|{_DOCUMENTS}|report\.json")
SHARDS = re.compile(r"data/(text|messages|turns)-\d{5,}\.(parquet|jsonl)")
DATASET = re.compile(rf"data/[\w.-]+\.(parquet|jsonl)|corpus\.json|{_DOCUMENTS}")
TEXTS = (".json", ".md", ".txt", ".yaml", ".jinja", ".py", ".html", ".svg", "LICENSE")
SEPARATOR = '""\0\n\0'  # no pattern of a secret matches across this
SHORTEST_SECRET = 8


@dataclass
class UploadSet:
    """The files to push to a repository, by their name there. `left_out` lists the other files of the folder `home`."""

    repository: str
    home: Path
    files: dict[str, Path]
    kind: str = "model"  # or dataset
    left_out: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


def collect_files(
    folder: Path, repository: str, also: list[str], card_files: dict[str, Path]
) -> tuple[list[UploadSet], list[str]]:
    """Collect the model and the extras of `also` (report, dataset, tokenizer, exports), with a note for each missing one.

    `card_files` replace the folder's files of the same names. Raises a `UsageError` if the folder is no model, or if a file
    is a link or holds a secret.
    """
    check_folder(folder)
    uploads, notes = [select_files(folder, repository, RUN)], []
    uploads[0].files |= card_files
    if "report" in also:
        if (folder / REPORT).is_file():
            uploads[0].files[REPORT] = folder / REPORT
            _refuse_links(uploads[0].files)
        else:
            notes.append(f"{folder} has no {REPORT}; make one with tinygpt report {folder}")
    if "dataset" in also:
        corpus = corpus_of(folder)
        if corpus:
            uploads.append(select_files(corpus, f"{repository}-data", DATASET, "dataset"))
        else:
            notes.append(f"{folder} has no corpus of its own: no dataset is sent")
    if "tokenizer" in also:
        if (folder / "tokenizer").is_dir():
            uploads.append(select_files(folder / "tokenizer", f"{repository}-tokenizer", TOKENIZER))
        else:
            notes.append(f"{folder} has no tokenizer/ of its own: only the model's is sent")
    if "exports" in also:
        exports = [folder / INSIDE_SOURCE / name for name in FORMATS if (folder / INSIDE_SOURCE / name).is_dir()]
        uploads += [select_files(path, f"{repository}-{path.name}", EXPORT) for path in exports]
        if not exports:
            notes.append(f"{folder} has no exports; make one with tinygpt export {folder} --to qwen3")
    for upload in uploads:
        check_secrets(upload)
    return uploads, notes


def snapshot(upload: UploadSet, folder: Path) -> UploadSet:
    """Hard-link (or copy) the files into the new folder `folder`, so that later replacements do not change the upload."""
    files = {}
    folder.mkdir()
    for name, path in upload.files.items():
        files[name] = folder / name
        files[name].parent.mkdir(exist_ok=True)
        try:
            os.link(path, files[name], follow_symlinks=False)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(path, files[name], follow_symlinks=False)
    _refuse_links(files)
    return replace(upload, files=files)


def check_secrets(upload: UploadSet) -> None:
    """Raise a `UsageError` if a file holds a secret, with the file and the place but not the secret."""
    known = _known_secrets()
    for name, path in upload.files.items():
        is_weights = path.suffix == ".safetensors"
        where = None
        if path.name.endswith(TEXTS):
            where = _secret_in_text(path)
        elif is_weights:
            where = _secret_in(_strings(_metadata_of(path)))
        if where is None and not is_weights and _holds(path, known):
            where = "it is a token or password that this process knows"
        if where is not None:
            expected = "a file without secrets, since others can read the Hub"
            raise UsageError(f"{upload.home / name} holds a secret ({where})", expected, "remove it, and revoke it")


def select_files(folder: Path, repository: str, names: re.Pattern, kind: str = "model") -> UploadSet:
    """Select the files of `folder` (for a dataset, also of its subfolders) whose names match `names`."""
    files, left_out = {}, []
    for path in sorted(folder.iterdir()):
        inside = [path] if kind == "model" or not path.is_dir() or path.is_symlink() else sorted(path.iterdir())
        for file in inside:
            name = str(file.relative_to(folder))
            if names.fullmatch(name):
                files[name] = file
            elif file.name != ".lock":
                left_out.append(printable(name))
    _refuse_links(files)
    if not files:
        raise UsageError(f"{folder} holds nothing to send", "the files of a model", "check the path")
    return UploadSet(repository, folder, files, kind, left_out)


def _refuse_links(files: dict[str, Path]) -> None:
    for path in files.values():
        if path.is_symlink() or not path.is_file():
            problem = "is a link" if path.is_symlink() else "is not a file"
            raise UsageError(f"{path} {problem}", "a file: a link may lead anywhere", "put the file in its place")


def corpus_of(folder: Path) -> Path | None:
    """Return the corpus folder a run was trained on, inside the run folder or named in its run.yaml, or None."""
    named: list = []
    if (folder / "run.yaml").is_file():
        data = load_yaml(str(folder / "run.yaml"), bounded=False).get("data")
        named = data.get("train_file") or [] if isinstance(data, dict) else []
    candidates = (folder / "corpus", *map(Path, map(str, named)))
    return next((path for path in candidates if (path / CORPUS).is_file()), None)


def _known_secrets() -> list[bytes]:
    from huggingface_hub import get_token

    named = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    return [value.encode() for value in {*named, get_token() or ""} if len(value) >= SHORTEST_SECRET]


def _holds(path: Path, secrets: list[bytes]) -> bool:
    if not secrets or path.stat().st_size == 0:
        return False
    if path.suffix == ".parquet":  # its text is compressed
        return any(secret in text for text in _parquet_texts(path) for secret in secrets)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(secret) >= 0 for secret in secrets)


def _parquet_texts(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield json.dumps(batch.to_pylist(), ensure_ascii=False, default=str).encode()


def _secret_in_text(path: Path) -> str | None:
    """Return the place of a secret in a text file, or None. Entries of a vocabulary are scanned separately."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        try:
            return _secret_in(_strings(json.loads(text)))
        except (ValueError, RecursionError):
            pass
    return _secret_in(text.splitlines() if path.name in ("merges.txt", "vocab.txt") else [text])


def _strings(value) -> Iterator[str]:
    """Yield every string in a JSON value, as "name: string" if it has a name, by which passwords are recognized."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield f"{name}: {inner}" if isinstance(inner, str) else name
            yield from _strings(inner)


def _secret_in(texts) -> str | None:
    text = SEPARATOR.join(texts)
    hidden = redacted(text)
    if hidden == text:
        return None
    start = len(os.path.commonprefix([text, hidden]))
    before = re.search(r"[^\s\0]{0,24}\s?\Z", text[:start])[0].strip()
    place = f"line {text[:start].count(chr(10)) + 1}" if SEPARATOR not in text else "one of its texts"
    return f"{place}, after {printable(before)!r}" if before else place


def _metadata_of(weights: Path) -> dict:
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as file:
        return file.metadata() or {}
