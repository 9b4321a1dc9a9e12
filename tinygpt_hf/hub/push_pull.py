"""Push model folders to the Hub and pull them, with a checksum test of every file.

    push(PushArguments("runs/mine", "alice/mine"), print)      # runs/mine as the model alice/mine; returns the commits
    pull(PullArguments("alice/mine"), print)                   # ./mine, a new folder

A repository holds one model folder, so tokenizers, corpora and exports (`also`) get their own repositories: alice/mine-tokenizer,
alice/mine-data, alice/mine-qwen3. After each transfer, the Hub's checksums are compared with those of the local files.
"""

import contextlib
import fnmatch
import hashlib
import itertools
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from tinygpt_hf import storage
from tinygpt_hf.cards.render import write_card
from tinygpt_hf.errors import RunError, UsageError, printable
from tinygpt_hf.hub.retry import HubError, check_login, quiet_client, with_retries
from tinygpt_hf.hub.upload_set import MODEL, SHARDS, UploadSet, collect_files, snapshot
from tinygpt_hf.settings.hub import PullArguments, PushArguments, check_also, check_repository, check_revision
from tinygpt_hf.storage import format_size

RECORD = "hub.json"  # in a model folder: the commits it was pushed to or pulled from
MAIN = "main"
SHOWN = 8  # names printed of a list of files
MOST_FILES = 10_000
# Not downloaded: formats that can run code when they are loaded, and files of Git.
NOT_FETCHED = (
    *("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.dill", "*.h5", "*.keras", "*.msgpack"),
    *("*.npz", "*.npy", "*.pdparams", ".*", "*/.*", RECORD),
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sent:
    """A pushed repository; `commit` holds exactly the files that were sent."""

    repository: str
    kind: str
    revision: str
    commit: str
    url: str


def push(arguments: PushArguments, say: Say) -> list[Sent]:
    """Push a model folder and the extras of `also`, and return the commits; with `dry_run` only list the files.

    Raises a `UsageError` before anything is sent (invalid name, no model, a link, a secret, no login), and a `RunError` if
    the Hub fails. Repeating the command then sends what is missing.
    """
    repository = check_repository(arguments.hub_model_id, "--hub_model_id")
    branch, also = check_revision(arguments.revision, branch=True), check_also(arguments.also)
    if arguments.model is None:
        raise UsageError("no MODEL is given", "a model folder", "try runs/quickstart")
    folder = Path(arguments.model).expanduser()
    if not folder.is_dir():
        raise UsageError(f"the folder {arguments.model} does not exist", "a model folder", "check the path")
    if not arguments.dry_run:
        check_login()
    with tempfile.TemporaryDirectory() as temporary:
        write_card(folder, repository, Path(temporary))
        card_files = {path.name: path for path in Path(temporary).iterdir()}
        uploads, notes = collect_files(folder, repository, also, card_files)
        lines = [line for upload in uploads for line in listing(upload, branch)]
        for line in [*lines, *(f"note: {note}" for note in notes)]:
            say(line)
        if arguments.dry_run:
            say("nothing was sent (--dry_run)")
            return []
        quiet_client(watched=True)
        done = []
        for upload in uploads:
            try:
                with _snapshot(upload) as files:
                    sent = send(
                        files, arguments.private, branch, f"Upload with tinygpt_hf {version('tinygpt_hf')}", say
                    )
            except HubError as error:
                again = push_command(arguments.model, repository, arguments.private, branch, also)
                safe = f"the model is safe in {folder}; run `{again}` again"
                raise RunError(f"{upload.repository} was not pushed: {error}; {safe}") from error
            if upload is uploads[0]:  # keep the pushed card, which has the model's name on the Hub
                with contextlib.suppress(OSError):
                    for name, path in card_files.items():
                        storage.write_file(folder / name, path.read_bytes())
            record(folder, "pushed", sent, say)
            say(f"{sent.url}: pushed as commit {sent.commit}, the checksums of {len(upload.files)} files agree")
            done.append(sent)
        return done


def push_command(model: str, repository: str, private: bool, branch: str | None, also: list[str]) -> str:
    """Return the command that repeats a push, with --private, so that it cannot make a private model public."""
    words = ["tinygpt", "push", model, "--hub_model_id", repository] + (["--private"] if private else [])
    words += (["--revision", branch] if branch else []) + (["--also", *also] if also else [])
    return shlex.join(words)


def send(upload: UploadSet, private: bool, branch: str | None, message: str, say: Say) -> Sent:
    """Push files in one commit, or none if they are there already, and verify their checksums. Raises a `HubError`."""
    api, name, kind = _api(), upload.repository, upload.kind
    with_retries(lambda: api.create_repo(name, repo_type=kind, private=private or None, exist_ok=True), say)
    if private and not with_retries(lambda: api.repo_info(name, repo_type=kind), say).private:
        raise HubError(
            f"{name} is already public on the Hub: make it private there first, or choose another --hub_model_id"
        )
    if branch:
        with_retries(lambda: api.create_branch(name, branch=branch, repo_type=kind, exist_ok=True), say)
    commit = with_retries(lambda: _commit(api, upload, branch, message), say)
    remote = with_retries(lambda: _tree(api, name, kind, commit), say)
    wrong = [file for file, path in upload.files.items() if file not in remote or not _is_same(path, remote[file])]
    if wrong:
        raise HubError(f"{wrong[0]} on the Hub differs from the file that was sent")
    site = api.endpoint if kind == "model" else f"{api.endpoint}/{kind}s"
    return Sent(name, kind, branch or MAIN, commit, f"{site}/{name}" + (f"/tree/{branch}" if branch else ""))


def pull(arguments: PullArguments, say: Say) -> Path:
    """Download a model from the Hub into a new folder, without files of formats that can run code, and verify checksums.

    Raises a `UsageError` for invalid arguments and a `RunError` if the Hub fails; nothing is written in either case.
    """
    name = check_repository(arguments.model, "MODEL", owned=False)
    revision = check_revision(arguments.revision, branch=False) or MAIN
    target = Path(arguments.output_dir or name.rpartition("/")[2]).expanduser()
    _check_target(target)
    quiet_client(watched=True)
    api = _api()
    try:
        commit = with_retries(lambda: _commit_of(api, name, revision), say)
        remote = with_retries(lambda: _tree(api, name, "model", commit), say)
        _check_names(remote)
        files = {file: entry for file, entry in remote.items() if _is_fetched(file)}
        others = [file for file in remote if file not in files and not PurePosixPath(file).name.startswith(".")]
        if left_out := [file for file in others if file != RECORD]:
            say(f"note: not fetched, because such files can run code: {_some(left_out)}")
        _check_disk_space(sum(entry.size for entry in files.values()), target)
        cache = _fetch(name, revision, commit, files, say)
    except HubError as error:
        options = f" --revision {arguments.revision}" if arguments.revision else ""
        options += f" --output_dir {shlex.quote(arguments.output_dir)}" if arguments.output_dir else ""
        again = f"`tinygpt pull {name}{options}` again"
        raise RunError(f"{name} was not pulled: {error}; nothing was written; then run {again}") from error
    with storage.new_folder(target) as folder:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cache / file, folder / file)
        record(folder, "pulled", Sent(name, "model", revision, commit, f"{api.endpoint}/{name}"), say)
    say(f"{target}: {name} at commit {commit}, the checksums of {len(files)} files agree")
    return target


def listing(upload: UploadSet, branch: str | None) -> list[str]:
    """Return lines that list the files to send, with sizes, and the files left out."""
    where = upload.repository + (f", branch {branch}" if branch else "")
    lines = [f"{upload.home} -> {upload.kind} {where}: {len(upload.files)} files, {format_size(upload.size)}"]
    width = max(map(len, upload.files))
    lines += [f"  {name:<{width}}  {format_size(path.stat().st_size)}" for name, path in upload.files.items()]
    if upload.left_out:
        lines.append(f"  stays here: {_some(upload.left_out)}")
    return lines


def record(folder: Path, what: str, sent: Sent, say: Say) -> None:
    """Write the commit of a push or pull into the folder's hub.json."""
    path = folder / RECORD
    try:
        known = storage.read_json(path) if path.is_file() else {}
        entry = {"commit": sent.commit, "url": sent.url, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        known.setdefault(what, {})[f"{sent.repository}@{sent.revision}"] = entry
        storage.write_json(path, known)
    except (OSError, RunError, AttributeError, TypeError) as error:  # the transfer itself has succeeded
        say(f"note: {path} could not be written ({error}); the commit is {sent.commit}")


def _api():
    from huggingface_hub import HfApi

    return HfApi(library_name="tinygpt_hf", library_version=version("tinygpt_hf"))


@contextlib.contextmanager
def _snapshot(upload: UploadSet):
    """Yield a snapshot of the files: hard links in the folder, or copies elsewhere if the folder is read-only."""
    prefix = f"{storage.TEMPORARY}push-"
    try:
        parent = Path(tempfile.mkdtemp(prefix=prefix, dir=upload.home))
    except OSError:
        parent = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield snapshot(upload, parent / "files")
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _commit(api, upload: UploadSet, branch: str | None, message: str) -> str:
    """Commit the files, delete files of an older model, and return the commit (the latest one if nothing changed)."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    revision = branch or MAIN
    remote = _tree(api, upload.repository, upload.kind, revision)
    managed = MODEL if upload.kind == "model" else SHARDS
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    operations += [CommitOperationAdd(name, str(path)) for name, path in upload.files.items()]
    operations += [
        CommitOperationDelete(name) for name in remote if managed.fullmatch(name) and name not in upload.files
    ]
    options = {"commit_message": message, "repo_type": upload.kind, "revision": revision}
    return api.create_commit(upload.repository, operations, **options).oid


def _commit_of(api, name: str, revision: str) -> str:
    commit = api.repo_info(name, revision=revision).sha
    if not re.fullmatch("[0-9a-f]{40}", commit or ""):
        raise HubError("the Hub returned no valid commit hash")
    return commit


def _tree(api, name: str, kind: str, revision: str) -> dict:
    """Return the files of a repository by name, with the sizes and hashes that the Hub reports."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(name, repo_type=kind, revision=revision, recursive=True)
    entries = list(itertools.islice(entries, 2 * MOST_FILES))
    if len(entries) > MOST_FILES:
        raise HubError(f"it lists more than {MOST_FILES} files: that is not a model")
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_same(path: Path, entry) -> bool:
    """Compare a local file with an entry of the Hub: by SHA-256 for a large file, else by its Git blob hash."""
    size = path.stat().st_size
    if entry.lfs is not None:
        return size == entry.lfs.size and storage.file_hash(path) == entry.lfs.sha256
    if size != entry.size:
        return False
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == entry.blob_id


def _fetch(name: str, revision: str, commit: str, files: dict, say: Say) -> Path:
    """Download a commit into huggingface_hub's cache and return its folder; a damaged file is fetched a second time."""
    from huggingface_hub import snapshot_download

    for attempt in range(2):
        cache = Path(
            with_retries(lambda: snapshot_download(name, revision=revision, ignore_patterns=[*NOT_FETCHED]), say)
        )
        if cache.name != commit:
            raise HubError("it changed during the download")
        paths = {cache / file: entry for file, entry in files.items()}
        wrong = [path for path, entry in paths.items() if not path.is_file() or not _is_same(path, entry)]
        if not wrong:
            return cache
        for path in wrong:
            blob = path.resolve()
            path.unlink(missing_ok=True)
            if blob.parent.name == "blobs":
                blob.unlink(missing_ok=True)
        names = _some([str(path.relative_to(cache)) for path in wrong])
        if attempt == 0:
            say(f"note: {names} had a wrong checksum; fetching once more")
    raise HubError(f"{names} had a wrong checksum twice")


def _check_names(names) -> None:
    """Raise a `HubError` if a file name could lead outside the new folder."""
    for name in names:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or not name.isprintable():
            shown = printable(name)[:120]
            raise HubError(f"it lists {shown!r}, which cannot be a file of a repository: do not trust it")


def _is_fetched(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in NOT_FETCHED)


def _check_target(target: Path) -> None:
    problem = None
    if target.resolve() == Path.cwd():  # a new folder is renamed to it: a shell inside would lose its folder
        problem = "is the current folder"
    elif target.is_symlink() or target.exists() and (not target.is_dir() or any(target.iterdir())):
        problem = "exists already"
    if problem:
        raise UsageError(f"{target} {problem}", "a new or empty folder", "choose another --output_dir")


def _check_disk_space(size: int, target: Path) -> None:
    parent = next(path for path in target.absolute().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if size > free:
        problem = f"{target} needs {format_size(size)} and {parent} has {format_size(free)} free"
        raise RunError(f"{problem}; free some space, or choose another --output_dir")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more
