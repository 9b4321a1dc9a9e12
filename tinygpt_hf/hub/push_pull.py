"""To the Hub and from it: what arrives there, and here, is what was sent, or it is an error.

    push(PushArguments("runs/mine", "alice/mine"), print)      # runs/mine as the model alice/mine; returns the commits
    pull(PullArguments("alice/mine"), print)                   # ./mine, a new folder

Repositories hold one model folder each, so what goes along (`also`) has repositories of its own: alice/mine-tokenizer,
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
from tinygpt_hf.hub.retry import HubError, check_login, patiently, quiet_client
from tinygpt_hf.hub.upload_set import MODEL, SHARDS, Parcel, frozen, pack
from tinygpt_hf.settings.hub import PullArguments, PushArguments, check_also, check_repository, check_revision
from tinygpt_hf.storage import format_size

RECORD = "hub.json"  # in a model folder: which commits it went to, or came from
MAIN = "main"
SHOWN = 8  # names of files that stay behind
MOST_FILES = 10_000
# Formats that can run code when they are read, and what belongs to Git: not fetched.
NOT_FETCHED = (
    *("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.dill", "*.h5", "*.keras", "*.msgpack"),
    *("*.npz", "*.npy", "*.pdparams", ".*", "*/.*", RECORD),
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sent:
    """A repository as it stands on the Hub: `commit` holds exactly the files sent."""

    repository: str
    kind: str
    revision: str
    commit: str
    url: str


def push(wanted: PushArguments, say: Say) -> list[Sent]:
    """Send a model folder, and what goes along; with `dry_run` only say what would be sent.

    Raises UsageError for what can be known before (a name the Hub cannot have, no model, a link, a secret, no login), and
    RunError where the Hub fails; the same command then sends what is missing.
    """
    repository = check_repository(wanted.hub_model_id, "--hub_model_id")
    branch, also = check_revision(wanted.revision, branch=True), check_also(wanted.also)
    if wanted.model is None:
        raise UsageError("no MODEL is given", "a model folder", "try runs/quickstart")
    folder = Path(wanted.model).expanduser()
    if not folder.is_dir():
        raise UsageError(f"the folder {wanted.model} does not exist", "a model folder", "check the path")
    if not wanted.dry_run:
        check_login()
        with contextlib.suppress(OSError):  # where nothing can be written the folder goes as it is
            write_card(folder, repository)
    parcels, notes = pack(folder, repository, also)
    for parcel in parcels:
        for line in listing(parcel, branch):
            say(line)
    for note in notes:
        say(f"note: {note}")
    if wanted.dry_run:
        say("nothing was sent (--dry_run)")
        return []
    quiet_client(watched=True)
    done = []
    for parcel in parcels:
        try:
            with _still(parcel) as still:
                sent = send(still, wanted.private, branch, f"Upload with tinygpt_hf {version('tinygpt_hf')}", say)
        except HubError as error:
            again = push_command(wanted.model, repository, wanted.private, branch, also)
            safe = f"the model is safe in {folder}; run `{again}` again"
            raise RunError(f"{parcel.repository} was not pushed: {error}; {safe}") from error
        record(folder, "pushed", sent, say)
        say(f"{sent.url} holds it: commit {sent.commit}, the checksums of {len(parcel.files)} files agree")
        done.append(sent)
    return done


def push_command(model: str, repository: str, private: bool, branch: str | None, also: list[str]) -> str:
    """The command that pushes this again, to be shown: without --private it would make public what was meant to be private."""
    words = ["tinygpt", "push", model, "--hub_model_id", repository] + (["--private"] if private else [])
    words += (["--revision", branch] if branch else []) + (["--also", *also] if also else [])
    return shlex.join(words)


def send(parcel: Parcel, private: bool, branch: str | None, message: str, say: Say) -> Sent:
    """One commit that makes the repository hold the parcel's files; none if it does already. Raises HubError."""
    api, name, kind = _api(), parcel.repository, parcel.kind
    patiently(lambda: api.create_repo(name, repo_type=kind, private=private or None, exist_ok=True), say)
    if private and not patiently(lambda: api.repo_info(name, repo_type=kind), say).private:
        raise HubError(
            f"{name} is public on the Hub already: make it private there first, or choose another --hub_model_id"
        )
    if branch:
        patiently(lambda: api.create_branch(name, branch=branch, repo_type=kind, exist_ok=True), say)
    commit = patiently(lambda: _commit(api, parcel, branch, message), say)
    there = patiently(lambda: _tree(api, name, kind, commit), say)
    wrong = [file for file, path in parcel.files.items() if file not in there or not _is_same(path, there[file])]
    if wrong:
        raise HubError(f"the Hub has another {wrong[0]} than was sent")
    site = api.endpoint if kind == "model" else f"{api.endpoint}/{kind}s"
    return Sent(name, kind, branch or MAIN, commit, f"{site}/{name}" + (f"/tree/{branch}" if branch else ""))


def pull(wanted: PullArguments, say: Say) -> Path:
    """The model of a Hub id as a new folder, every byte checked; files that could run code when they are read stay there.

    Raises UsageError for what can be known before, RunError where the Hub fails. Nothing is left of a folder that failed.
    """
    name = check_repository(wanted.model, "MODEL", owned=False)
    revision = check_revision(wanted.revision, branch=False) or MAIN
    target = Path(wanted.output_dir or name.rpartition("/")[2]).expanduser()
    _check_target(target)
    quiet_client(watched=True)
    api = _api()
    try:
        commit = patiently(lambda: _commit_of(api, name, revision), say)
        there = patiently(lambda: _tree(api, name, "model", commit), say)
        _refuse_names(there)
        files = {file: entry for file, entry in there.items() if _is_fetched(file)}
        others = [file for file in there if file not in files and file != RECORD]
        left_out = [file for file in others if not PurePosixPath(file).name.startswith(".")]
        if left_out:
            say(f"note: not fetched, as such files can run code: {_some(left_out)}")
        _check_room(sum(entry.size for entry in files.values()), target)
        cache = _fetch(name, revision, commit, files, say)
    except HubError as error:
        given = f" --revision {wanted.revision}" if wanted.revision else ""
        given += f" --output_dir {shlex.quote(wanted.output_dir)}" if wanted.output_dir else ""
        again = f"`tinygpt pull {name}{given}` again"
        raise RunError(f"{name} was not pulled: {error}; nothing was written; then run {again}") from error
    with storage.new_folder(target) as folder:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cache / file, folder / file)
        record(folder, "pulled", Sent(name, "model", revision, commit, f"{api.endpoint}/{name}"), say)
    say(f"{target}: {name} at commit {commit}, the checksums of {len(files)} files agree")
    return target


def listing(parcel: Parcel, branch: str | None) -> list[str]:
    """What will be sent, file by file, and what stays here."""
    where = parcel.repository + (f", branch {branch}" if branch else "")
    lines = [f"{parcel.home} -> {parcel.kind} {where}: {len(parcel.files)} files, {format_size(parcel.size)}"]
    width = max(map(len, parcel.files))
    lines += [f"  {name:<{width}}  {format_size(path.stat().st_size)}" for name, path in parcel.files.items()]
    if parcel.left_out:
        lines.append(f"  stays here: {_some(parcel.left_out)}")
    return lines


def record(folder: Path, what: str, sent: Sent, say: Say) -> None:
    """Note in the folder's hub.json which commit it went to, or came from."""
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
def _still(parcel: Parcel):
    """The parcel as it is now, beside its files, or elsewhere where nothing can be written there."""
    places = [parcel.home, None]
    for place in places:
        try:
            above = Path(tempfile.mkdtemp(prefix=f"{storage.TEMPORARY}push-", dir=place))
        except OSError:
            if place is None:
                raise
            continue
        try:
            yield frozen(parcel, above / "files")
        finally:
            shutil.rmtree(above, ignore_errors=True)
        return


def _commit(api, parcel: Parcel, branch: str | None, message: str) -> str:
    """The commit that holds the parcel, made unless it is the newest one. Files of an older model in its place go."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    revision = branch or MAIN
    there = _tree(api, parcel.repository, parcel.kind, revision)
    made = MODEL if parcel.kind == "model" else SHARDS
    old = [name for name in there if made.fullmatch(name) and name not in parcel.files]
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    operations += [CommitOperationAdd(name, str(path)) for name, path in parcel.files.items()]
    operations += [CommitOperationDelete(name) for name in old]
    done = api.create_commit(
        parcel.repository, operations, commit_message=message, repo_type=parcel.kind, revision=revision
    )
    return done.oid


def _commit_of(api, name: str, revision: str) -> str:
    commit = api.repo_info(name, revision=revision).sha
    if not re.fullmatch("[0-9a-f]{40}", commit or ""):
        raise HubError("the Hub names no commit for it")
    return commit


def _tree(api, name: str, kind: str, revision: str) -> dict:
    """Name -> what the Hub says of that file: size and hashes."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(name, repo_type=kind, revision=revision, recursive=True)
    entries = list(itertools.islice(entries, 2 * MOST_FILES))
    if len(entries) > MOST_FILES:
        raise HubError(f"its list has more than {MOST_FILES} files: that is no model")
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_same(path: Path, entry) -> bool:
    """Has the file the bytes that the Hub says? It names large ones by their SHA-256, others as Git does."""
    size = path.stat().st_size
    if entry.lfs is not None:
        return size == entry.lfs.size and storage.file_hash(path) == entry.lfs.sha256
    if size != entry.size:
        return False
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == entry.blob_id


def _fetch(name: str, revision: str, commit: str, files: dict, say: Say) -> Path:
    """The client's cached copy of the commit, checked; a damaged file is dropped from the cache and fetched once more."""
    from huggingface_hub import snapshot_download

    for attempt in range(2):
        found = patiently(lambda: snapshot_download(name, revision=revision, ignore_patterns=[*NOT_FETCHED]), say)
        cache = Path(found)
        if cache.name != commit:
            raise HubError("it was changed while it was fetched")
        wrong = [
            file for file, entry in files.items() if not (cache / file).is_file() or not _is_same(cache / file, entry)
        ]
        if not wrong:
            return cache
        for file in wrong:
            blob = (cache / file).resolve()
            (cache / file).unlink(missing_ok=True)
            if blob.parent.name == "blobs":
                blob.unlink(missing_ok=True)
        if attempt == 0:
            say(f"note: {_some(wrong)} came with other bytes than the Hub says; fetching once more")
    raise HubError(f"{wrong[0]} came twice with other bytes than the Hub says")


def _refuse_names(there: dict) -> None:
    """A list of files may name files of the repository, nothing else on this machine."""
    for name in there:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or not name.isprintable():
            seen = printable(name)[:120]
            raise HubError(f"its list names {seen!r}, which is no file of a repository: do not trust it")


def _is_fetched(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in NOT_FETCHED)


def _check_target(target: Path) -> None:
    wanted = "a new or empty folder"
    if target.resolve() == Path.cwd():  # it is renamed over: whoever stands in it would stand nowhere
        raise UsageError(f"{target} is the current folder", wanted, "choose another --output_dir")
    if target.is_symlink() or target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already", wanted, "choose another --output_dir")


def _check_room(size: int, target: Path) -> None:
    """The file system of the target must take the files."""
    above = next(path for path in target.absolute().parents if path.exists())
    free = shutil.disk_usage(above).free
    if size > free:
        raise RunError(
            f"{target} needs {format_size(size)} and {above} has {format_size(free)} left; make room, or use another"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more
