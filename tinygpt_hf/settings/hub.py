"""The settings of `push` and `pull`, and checks of Hub names."""

import re
from dataclasses import dataclass

from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.settings.arguments import PathText, setting

ALSO = ("report", "dataset", "tokenizer", "exports")
MAX_ID_LENGTH, MAX_REVISION_LENGTH = 96, 250
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class PushArguments:
    """Settings of `tinygpt push`."""

    model: PathText | None = setting(None, "model folder", positional=True)
    hub_model_id: str | None = setting(None, "repository to push to: user/name")
    private: bool = setting(False, "make the repository private; an existing public one is rejected")
    revision: str | None = setting(None, "branch to push to, created if needed; default main")
    dry_run: bool = setting(False, "list the files that would be pushed, and push nothing")
    also: list[str] = setting(
        [],
        "push more: report (it quotes the text) with the model; dataset, tokenizer, exports to separate repositories",
    )


@dataclass
class PullArguments:
    """Settings of `tinygpt pull`."""

    model: str | None = setting(None, "Hub id, user/name", positional=True)
    revision: str | None = setting(None, "branch, tag or commit; default main")
    output_dir: PathText | None = setting(None, "new folder to write; default the model's name in the current folder")


def check_repository(name: str | None, flag: str, owned: bool = True) -> str:
    """Return `name` if it is a valid repository id, else raise UsageError. `owned`: it must include the owner."""
    expected, example = "a Hub id (user/name)" if owned else "a Hub id", "try alice/my-model"
    if not name:
        raise UsageError(f"there is no {flag}", expected, example)
    fits = _ID.fullmatch(name) and len(name) <= MAX_ID_LENGTH and ("/" in name or not owned)
    if not fits or "--" in name or ".." in name or name.endswith(".git"):
        hint = f"{example}: a user and a name, both of letters, digits, '.', '_' and '-'"
        raise UsageError(f"{flag} is {printable(name)[:120]!r}", expected, hint)
    return name


def check_revision(revision: str | None, branch: bool) -> str | None:
    """Return `revision` if it is a valid Git name, else raise UsageError. `branch`: it must not be a commit hash."""
    if revision is None:
        return None
    expected = "a branch" if branch else "a branch, tag or commit"
    bad = not _REVISION.fullmatch(revision) or len(revision) > MAX_REVISION_LENGTH
    if bad or ".." in revision or revision.endswith((".", ".lock")) or branch and _COMMIT.fullmatch(revision):
        raise UsageError(f"--revision is {printable(revision)[:120]!r}", expected, "try --revision main")
    return revision


def check_also(words: list[str]) -> list[str]:
    """Return the distinct words of --also in the order of ALSO. Raises UsageError for an unknown word."""
    given = [word for part in words for word in part.split(",") if word]
    for word in given:
        if word not in ALSO:
            raise UsageError(f"--also is {printable(word)!r}", f"some of {', '.join(ALSO)}", "choose among them")
    return [word for word in ALSO if word in given]
