"""Define the settings of `push` and `pull`, and check names of the Hub. Importing this costs nothing."""

import re
from dataclasses import dataclass

from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.settings.arguments import PathText, setting

ALSO = ("report", "dataset", "tokenizer", "exports")
LONGEST_ID, LONGEST_REVISION = 96, 250
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class PushArguments:
    """Give a model to the Hub."""

    model: PathText | None = setting(None, "model folder", positional=True)
    hub_model_id: str | None = setting(None, "where to: user/name")
    private: bool = setting(False, "only you can see it; a repository that is public already is refused")
    revision: str | None = setting(None, "branch to write, made if it is not there; default main")
    dry_run: bool = setting(False, "only say what would be sent")
    also: list[str] = setting(
        [],
        "send more: report (it quotes the text) beside the model; dataset, tokenizer, exports as repositories of their own",
    )


@dataclass
class PullArguments:
    """Take a model from the Hub."""

    model: str | None = setting(None, "Hub id, user/name", positional=True)
    revision: str | None = setting(None, "branch, tag or commit; default main")
    output_dir: PathText | None = setting(None, "new folder to write; default the model's name, in the current folder")


def check_repository(name: str | None, flag: str, owned: bool = True) -> str:
    """Return `name` if the Hub can have a repository of that name; `owned`: it must name the owner."""
    expected, example = "a Hub id (user/name)" if owned else "a Hub id", "try alice/my-model"
    if not name:
        raise UsageError(f"there is no {flag}", expected, example)
    fits = _ID.fullmatch(name) and len(name) <= LONGEST_ID and ("/" in name or not owned)
    if not fits or "--" in name or ".." in name or name.endswith(".git"):
        hint = f"{example}: one user, one name, both of letters, digits, '.', '_' and '-'"
        raise UsageError(f"{flag} is {printable(name)[:120]!r}", expected, hint)
    return name


def check_revision(revision: str | None, branch: bool) -> str | None:
    """Return `revision` if Git can have one of that name; `branch`: it will be written to, so it can be no commit."""
    if revision is None:
        return None
    expected = "a branch" if branch else "a branch, tag or commit"
    bad = not _REVISION.fullmatch(revision) or len(revision) > LONGEST_REVISION
    if bad or ".." in revision or revision.endswith((".", ".lock")) or branch and _COMMIT.fullmatch(revision):
        raise UsageError(f"--revision is {printable(revision)[:120]!r}", expected, "try --revision main")
    return revision


def check_also(words: list[str]) -> list[str]:
    """Return the words of --also, each once, in the order of ALSO."""
    given = [word for part in words for word in part.split(",") if word]
    for word in given:
        if word not in ALSO:
            raise UsageError(f"--also is {printable(word)!r}", f"{', '.join(ALSO)}", "choose of them")
    return [word for word in ALSO if word in given]
