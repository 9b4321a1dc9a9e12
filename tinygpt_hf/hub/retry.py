"""Retry calls to the Hub after temporary failures, and turn other failures into one line of advice.

    info = with_retries(lambda: api.repo_info("alice/tiny"), say)        # the result, or a HubError

huggingface_hub retries uploads of large files and listings. This file adds retries for an overloaded Hub when a repository or
a commit is created or a file is downloaded, and for broken connections.
"""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from tinygpt_hf.errors import RunError, SafeStream, UsageError, printable
from tinygpt_hf.reading.reporter import retried

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new attempt
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After ends the retries
LONGEST_RETRY = 180.0  # seconds after the first attempt; later ones do not begin
RETRIED_STATUS = (408, 429, 500, 502, 503, 504)
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2")  # packages whose errors are network errors
LOGIN = "log in with `hf auth login` or set HF_TOKEN"
sleep = time.sleep
Answer = TypeVar("Answer")


class HubError(RunError):
    """A failed call to the Hub, with the reason and, if possible, advice."""


def with_retries(call: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """Return the result of `call`, which is retried after WAITS if its failure is temporary; else raise a `HubError`."""
    began = time.monotonic()

    def wait_or_raise(error: Exception, wait: float | None) -> float:
        if isinstance(error, (RunError, UsageError)) or _is_local(error):
            raise error
        seconds = _wait(error, wait, time.monotonic() - began)
        if seconds is None:
            raise HubError(reason(error)) from error
        say(f"note: {reason(error)}; trying again in {seconds:g} s")
        return seconds

    return retried(call, WAITS, wait_or_raise, sleep)


def check_login() -> None:
    """Raise a `UsageError` in offline mode or without a token."""
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        expected = "a network for a push"
        raise UsageError("offline mode is on (HF_HUB_OFFLINE)", expected, "unset it, and push when there is a network")
    if get_token() is None:
        raise UsageError("you are not logged in to the Hub", "a token that may write", LOGIN)


def quiet_client(watched: bool) -> None:
    """Silence huggingface_hub's log, which contains signed URLs, and its progress bars unless `watched` on a terminal."""
    from huggingface_hub.utils import disable_progress_bars

    if not (watched and SafeStream(sys.stderr).isatty()):
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Warnings while validating metadata")


def reason(error: BaseException) -> str:
    """Describe why a request failed, with advice if the user can fix it."""
    from huggingface_hub import constants, errors, get_token

    status, chain = _status(error), list(_chain(error))
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return "offline mode is on (HF_HUB_OFFLINE): unset it"
    if str(error).startswith("Invalid metadata in README.md"):
        return f"the Hub refuses the card: {printable(' '.join(str(error).split())[:200])}"
    if status is not None:
        message = _server_message(error)
        if any(isinstance(one, errors.RevisionNotFoundError) for one in chain):
            return "there is no such revision"
        if status == 401 and get_token() is not None:
            return f"the Hub does not accept your token (401): {LOGIN}"
        if status in (401, 404):
            return f"the Hub has no such repository, or you have no access to it ({status}): check the name, or {LOGIN}"
        if status == 403:
            return f"your token may not do this (403{message and f', {message}'}): use one that may, or another name"
        if status in RETRIED_STATUS:
            return f"the Hub answers {status}{message and f' ({message})'}"
        return f"the Hub refuses it ({status}{message and f', {message}'})"
    network = next((one for one in chain if _is_network(one)), None)
    if network:
        problem, error = f"the connection to {constants.ENDPOINT} fails", network
    else:
        problem = "the transfer fails" if _is_temporary(error) else "unexpected response from the Hub"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{problem} ({type(error).__name__}{': ' + printable(lines[0][:160]) if lines else ''})"


def _wait(error: BaseException, wait: float | None, waited: float) -> float | None:
    """Return the seconds before the next attempt, or None to give up. `wait` is planned, `waited` is the time so far."""
    if wait is None or not _is_temporary(error):
        return None
    requested = next((_headers(one).get("Retry-After", "") for one in _chain(error) if _headers(one)), "")
    wait = max(wait, float(requested) if requested.isascii() and requested.isdigit() else 0.0)
    return wait if wait <= LONGEST_WAIT and waited + wait <= LONGEST_RETRY else None


def _is_temporary(error: BaseException) -> bool:
    from huggingface_hub import errors

    status, chain = _status(error), list(_chain(error))
    if status is not None:
        return status in RETRIED_STATUS
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return False
    # Xet uploads raise RuntimeError for a lost connection; a truncated download is known only by its message
    return any(map(_is_network, chain)) or type(error) is RuntimeError or "Consistency check" in str(error)


def _is_local(error: BaseException) -> bool:
    """Tell whether the error is a local one, such as a full disk or a missing file."""
    remote = _status(error) is not None or any(_is_network(one) for one in _chain(error))
    return isinstance(error, OSError) and error.errno is not None and not remote


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_network(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in NETWORK or isinstance(error, (ConnectionError, TimeoutError))


def _headers(error: BaseException):
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, or None if there was no response."""
    codes = (getattr(getattr(one, "response", None), "status_code", None) for one in _chain(error))
    return next((code for code in codes if isinstance(code, int)), None)


def _server_message(error: BaseException) -> str:
    """Return the Hub's own error message as one short line, or ""."""
    texts = (_headers(one).get("X-Error-Message") or getattr(one, "server_message", None) for one in _chain(error))
    return printable(next((text for text in texts if text), "").split("\n")[0][:160])
