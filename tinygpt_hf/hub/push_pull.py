"""Push to the Hub and pull from it: what arrives there, and here, is what was sent, or it is an error.

    push(PushArguments("runs/mine", "alice/mine"), print)      # runs/mine as the model alice/mine; returns the commits
    pull(PullArguments("alice/mine"), print)                   # ./mine, a new folder

Repositories hold one model folder each, so what is sent beside it (`also`) has repositories of its own: alice/mine-tokenizer,
alice/mine-data, alice/mine-qwen3. After each transfer the checksums the Hub gives are compared with those of the files here.
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

RECORD = "hub.json"  # in a model folder: which commits it went to, or came from
MAIN = "main"
SHOWN = 8  # names in a list of files
MOST_FILES = 10_000
# Formats that can run code when they are read, and what belongs to Git: not fetched.
NOT_FETCHED = (
    *("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.dill", "*.h5", "*.keras", "*.msgpack"),
    *("*.npz", "*.npy", "*.pdparams", ".*", "*/.*", RECORD),
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sent:
    """Name a repository as it stands on the Hub: `commit` holds exactly the files sent."""

    repository: str
    kind: str
    revision: str
    commit: str
    url: str


def push(arguments: PushArguments, say: Say) -> list[Sent]:
    """Send a model folder and what goes with it; with `dry_run` only say what would be sent. Where it fails the folder stays as
    it was.

    Raises UsageError for what can be known before (a name the Hub cannot have, no model, a link, a secret, no login), and
    RunError where the Hub fails; the same command then sends what is missing.
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
    with tempfile.TemporaryDirectory() as made:
        write_card(folder, repository, Path(made))
        papers = {path.name: path for path in Path(made).iterdir()}
        uploads, notes = collect_files(folder, repository, also, papers)
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
            if upload is uploads[0]:  # the card that went up, under the model's name there
                with contextlib.suppress(OSError):
                    for name, path in papers.items():
                        storage.write_file(folder / name, path.read_bytes())
            record(folder, "pushed", sent, say)
            say(f"{sent.url} holds it: commit {sent.commit}, the checksums of {len(upload.files)} files agree")
            done.append(sent)
        return done


def push_command(model: str, repository: str, private: bool, branch: str | None, also: list[str]) -> str:
    """Write the command that pushes this again: without --private it would make public what was meant to be private."""
    words = ["tinygpt", "push", model, "--hub_model_id", repository] + (["--private"] if private else [])
    words += (["--revision", branch] if branch else []) + (["--also", *also] if also else [])
    return shlex.join(words)


def send(upload: UploadSet, private: bool, branch: str | None, message: str, say: Say) -> Sent:
    """Make the repository hold exactly these files, by one commit, or none if it does already. Raises HubError."""
    api, name, kind = _api(), upload.repository, upload.kind
    with_retries(lambda: api.create_repo(name, repo_type=kind, private=private or None, exist_ok=True), say)
    if private and not with_retries(lambda: api.repo_info(name, repo_type=kind), say).private:
        raise HubError(
            f"{name} is public on the Hub already: make it private there first, or choose another --hub_model_id"
        )
    if branch:
        with_retries(lambda: api.create_branch(name, branch=branch, repo_type=kind, exist_ok=True), say)
    commit = with_retries(lambda: _commit(api, upload, branch, message), say)
    there = with_retries(lambda: _tree(api, name, kind, commit), say)
    wrong = [file for file, path in upload.files.items() if file not in there or not _is_same(path, there[file])]
    if wrong:
        raise HubError(f"the Hub has another {wrong[0]} than was sent")
    site = api.endpoint if kind == "model" else f"{api.endpoint}/{kind}s"
    return Sent(name, kind, branch or MAIN, commit, f"{site}/{name}" + (f"/tree/{branch}" if branch else ""))


def pull(arguments: PullArguments, say: Say) -> Path:
    """Fetch a model of the Hub as a new folder, every byte checked; files that could run code when they are read stay there.

    Raises UsageError for what can be known before, RunError where the Hub fails. Nothing is left of a folder that failed.
    """
    name = check_repository(arguments.model, "MODEL", owned=False)
    revision = check_revision(arguments.revision, branch=False) or MAIN
    target = Path(arguments.output_dir or name.rpartition("/")[2]).expanduser()
    _check_target(target)
    quiet_client(watched=True)
    api = _api()
    try:
        commit = with_retries(lambda: _commit_of(api, name, revision), say)
        there = with_retries(lambda: _tree(api, name, "model", commit), say)
        _refuse_names(there)
        files = {file: entry for file, entry in there.items() if _is_fetched(file)}
        others = [file for file in there if file not in files and not PurePosixPath(file).name.startswith(".")]
        if left_out := [file for file in others if file != RECORD]:
            say(f"note: not fetched, as such files can run code: {_some(left_out)}")
        _check_room(sum(entry.size for entry in files.values()), target)
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
    """List what will be sent, file by file, and what stays here."""
    where = upload.repository + (f", branch {branch}" if branch else "")
    lines = [f"{upload.home} -> {upload.kind} {where}: {len(upload.files)} files, {format_size(upload.size)}"]
    width = max(map(len, upload.files))
    lines += [f"  {name:<{width}}  {format_size(path.stat().st_size)}" for name, path in upload.files.items()]
    if upload.left_out:
        lines.append(f"  stays here: {_some(upload.left_out)}")
    return lines


def record(folder: Path, what: str, sent: Sent, say: Say) -> None:
    """Write into the folder's hub.json which commit it went to, or came from."""
    path = folder / RECORD
    try:
        known = storage.read_json(path) if path.is_file() else {}
        entry = {"commit": sent.commit, "url": sent.url, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        known.setdefault(what, {})[f"{sent.repository}@{sent.revision}"] = entry
        storage.write_json(path, known)
    except (OSError, RunError, AttributeError, TypeError) as error:  # the transfer itself is done
        say(f"note: {path} could not be written ({error}): it went to commit {sent.commit}")


def _api():
    from huggingface_hub import HfApi

    return HfApi(library_name="tinygpt_hf", library_version=version("tinygpt_hf"))


@contextlib.contextmanager
def _snapshot(upload: UploadSet):
    """Give the files as they are now, linked beside the originals, or copied elsewhere where nothing can be written there."""
    prefix = f"{storage.TEMPORARY}push-"
    try:
        above = Path(tempfile.mkdtemp(prefix=prefix, dir=upload.home))
    except OSError:
        above = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield snapshot(upload, above / "files")
    finally:
        shutil.rmtree(above, ignore_errors=True)


def _commit(api, upload: UploadSet, branch: str | None, message: str) -> str:
    """Return the commit that holds these files, made unless it is the newest one. Files of an older model are deleted."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    revision = branch or MAIN
    there = _tree(api, upload.repository, upload.kind, revision)
    ours = MODEL if upload.kind == "model" else SHARDS
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    operations += [CommitOperationAdd(name, str(path)) for name, path in upload.files.items()]
    operations += [CommitOperationDelete(name) for name in there if ours.fullmatch(name) and name not in upload.files]
    options = {"commit_message": message, "repo_type": upload.kind, "revision": revision}
    return api.create_commit(upload.repository, operations, **options).oid


def _commit_of(api, name: str, revision: str) -> str:
    commit = api.repo_info(name, revision=revision).sha
    if not re.fullmatch("[0-9a-f]{40}", commit or ""):
        raise HubError("the Hub names no commit for it")
    return commit


def _tree(api, name: str, kind: str, revision: str) -> dict:
    """Map each file's name to what the Hub says of it: size and hashes."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(name, repo_type=kind, revision=revision, recursive=True)
    entries = list(itertools.islice(entries, 2 * MOST_FILES))
    if len(entries) > MOST_FILES:
        raise HubError(f"it lists more than {MOST_FILES} files: that is not a model")
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_same(path: Path, entry) -> bool:
    """Tell whether the file has the bytes the Hub says. It names large files by their SHA-256, others as Git does."""
    size = path.stat().st_size
    if entry.lfs is not None:
        return size == entry.lfs.size and storage.file_hash(path) == entry.lfs.sha256
    if size != entry.size:
        return False
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == entry.blob_id


def _fetch(name: str, revision: str, commit: str, files: dict, say: Say) -> Path:
    """Return the client's cached copy of the commit, checked; a damaged file is deleted there and fetched once more."""
    from huggingface_hub import snapshot_download

    for attempt in range(2):
        cache = Path(
            with_retries(lambda: snapshot_download(name, revision=revision, ignore_patterns=[*NOT_FETCHED]), say)
        )
        if cache.name != commit:
            raise HubError("it was changed while it was fetched")
        cached = {cache / file: entry for file, entry in files.items()}
        wrong = [path for path, entry in cached.items() if not path.is_file() or not _is_same(path, entry)]
        if not wrong:
            return cache
        for path in wrong:
            blob = path.resolve()
            path.unlink(missing_ok=True)
            if blob.parent.name == "blobs":
                blob.unlink(missing_ok=True)
        names = _some([str(path.relative_to(cache)) for path in wrong])
        if attempt == 0:
            say(f"note: {names} came with other bytes than the Hub says; fetching once more")
    raise HubError(f"{names} came twice with other bytes than the Hub says")


def _refuse_names(there: dict) -> None:
    """Refuse a list of files that names anything on this machine outside the new folder."""
    for name in there:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or not name.isprintable():
            shown = printable(name)[:120]
            raise HubError(f"it lists {shown!r}, which cannot be a file of a repository: do not trust it")


def _is_fetched(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in NOT_FETCHED)


def _check_target(target: Path) -> None:
    problem = None
    if target.resolve() == Path.cwd():  # it is renamed over: a shell in it would be nowhere
        problem = "is the current folder"
    elif target.is_symlink() or target.exists() and (not target.is_dir() or any(target.iterdir())):
        problem = "exists already"
    if problem:
        raise UsageError(f"{target} {problem}", "a new or empty folder", "choose another --output_dir")


def _check_room(size: int, target: Path) -> None:
    """Refuse a target whose file system has no room for the files."""
    above = next(path for path in target.absolute().parents if path.exists())
    free = shutil.disk_usage(above).free
    if size > free:
        raise RunError(
            f"{target} needs {format_size(size)} and {above} has {format_size(free)} left; make room, or use another"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more
