"""Talking to the Hub: what may pass is tried again, what may not is one line with what to do.

    info = patiently(lambda: api.repo_info("alice/tiny"), say)        # the answer, or a HubError

The client tries uploads of large files and listings again by itself. It does not where the Hub is short of breath while
it makes a repository, takes a commit or hands out a file, nor where a connection breaks before the answer: that is done here.
"""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from tinygpt_hf.errors import Listener, RunError, UsageError, printable

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new attempt
LONGEST_WAIT = 60.0  # seconds a Retry-After may ask for
PATIENCE = 180.0  # seconds after the first attempt in which a new one may begin
PASSING = (408, 429, 500, 502, 503, 504)
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2")  # packages whose errors are the network's
LOGIN = "log in with `hf auth login` or set HF_TOKEN"
sleep = time.sleep
Answer = TypeVar("Answer")


class HubError(RunError):
    """The Hub did not do what was asked: why, and what to do where something can be done, in words."""


def patiently(call: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """The answer of `call`, made again after WAITS where its failure may pass; else a `HubError`."""
    began = time.monotonic()
    for attempt in range(len(WAITS) + 1):
        try:
            return call()
        except (RunError, UsageError):
            raise
        except Exception as error:  # each version of the client has errors of its own
            if _is_local(error):
                raise
            wait = _wait(error, attempt, time.monotonic() - began)
            if wait is None:
                raise HubError(reason(error)) from error
            say(f"note: {reason(error)}; trying again in {wait:g} s")
            sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def check_login() -> None:
    """Is there a token to go with a request? Which token it is nobody needs to know here."""
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        wanted = "a network for a push"
        raise UsageError("offline mode is on (HF_HUB_OFFLINE)", wanted, "unset it, and push when there is a network")
    if get_token() is None:
        raise UsageError("you are not logged in to the Hub", "a token that may write", LOGIN)


def quiet_client(watched: bool) -> None:
    """The client logs each attempt with its address, which may be a signed one; what counts becomes a line here.

    Its bars stay where somebody watches this very transfer on a terminal.
    """
    from huggingface_hub.utils import disable_progress_bars

    if not (watched and Listener(sys.stderr).isatty()):
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Warnings while validating metadata")


def reason(error: BaseException) -> str:
    """Why a request failed, and what to do where the user can do something."""
    from huggingface_hub import constants, errors, get_token

    status, found = _status(error), list(_chain(error))
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in found):
        return "offline mode is on (HF_HUB_OFFLINE): unset it"
    if str(error).startswith("Invalid metadata in README.md"):
        return f"the Hub refuses the card: {printable(' '.join(str(error).split())[:200])}"
    if status is not None:
        said = _said(error)
        if any(isinstance(one, errors.RevisionNotFoundError) for one in found):
            return "it has no such revision"
        if status == 401 and get_token() is not None:
            return f"the Hub does not accept your token (401): {LOGIN}"
        if status in (401, 404):
            return f"the Hub knows no such repository, or it is private and not for you ({status}): check the name, or {LOGIN}"
        if status == 403:
            return f"your token may not do this (403{said and f', {said}'}): use one that may, or another name"
        if status in PASSING:
            return f"the Hub answers {status}{said and f' ({said})'}"
        return f"the Hub refuses it ({status}{said and f', {said}'})"
    if any(_is_network(one) for one in found):
        one = next(one for one in found if _is_network(one))
        return f"the connection to {constants.ENDPOINT} fails ({type(one).__name__}{_first_line(one, ': ')})"
    if _may_pass(error):
        return f"the transfer fails ({type(error).__name__}{_first_line(error, ': ')})"
    return f"the Hub's answer makes no sense ({type(error).__name__}{_first_line(error, ': ')})"


def _wait(error: BaseException, attempt: int, waited: float) -> float | None:
    """Seconds before the next attempt, or None if there is no point in one."""
    if attempt == len(WAITS) or not _may_pass(error):
        return None
    asked = next((_headers(one).get("Retry-After", "") for one in _chain(error) if _headers(one)), "")
    wait = max(WAITS[attempt], float(asked) if asked.isascii() and asked.isdigit() else 0.0)
    return wait if wait <= LONGEST_WAIT and waited + wait <= PATIENCE else None


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub import errors

    status, found = _status(error), list(_chain(error))
    if status is not None:
        return status in PASSING
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in found):
        return False
    # the upload of large files by Xet has no other class for a lost connection; a download that ends early has only words
    return any(_is_network(one) for one in found) or type(error) is RuntimeError or "Consistency check" in str(error)


def _is_local(error: BaseException) -> bool:
    """A full disk or a missing file: no answer of the Hub's."""
    remote = _status(error) is not None or any(_is_network(one) for one in _chain(error))
    return isinstance(error, OSError) and error.errno is not None and not remote


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_network(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in NETWORK or isinstance(error, (ConnectionError, TimeoutError))


def _headers(error: BaseException):
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error, where the Hub answered at all."""
    codes = (getattr(getattr(one, "response", None), "status_code", None) for one in _chain(error))
    return next((code for code in codes if isinstance(code, int)), None)


def _said(error: BaseException) -> str:
    """What the Hub said itself, in one short line."""
    texts = (_headers(one).get("X-Error-Message") or getattr(one, "server_message", None) for one in _chain(error))
    return printable(next((text for text in texts if text), "").split("\n")[0][:160])


def _first_line(error: BaseException, before: str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return before + printable(lines[0][:160]) if lines else ""
