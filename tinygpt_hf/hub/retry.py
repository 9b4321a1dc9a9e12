"""Talk to the Hub: failures that may pass are retried, others become one line with what to do.

    info = with_retries(lambda: api.repo_info("alice/tiny"), say)        # the answer, or a HubError

The client retries uploads of large files and listings by itself. It does not where the Hub is overloaded while it makes a
repository, takes a commit or hands out a file, nor where a connection breaks before the answer: that is done here.
"""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from tinygpt_hf.errors import Listener, RunError, UsageError, printable
from tinygpt_hf.reading.reporter import retried

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new attempt
LONGEST_WAIT = 60.0  # seconds a Retry-After may ask for
LONGEST_RETRY = 180.0  # seconds after the first attempt in which a new one may begin
RETRIED_STATUS = (408, 429, 500, 502, 503, 504)
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2")  # packages whose errors are the network's
LOGIN = "log in with `hf auth login` or set HF_TOKEN"
sleep = time.sleep
Answer = TypeVar("Answer")


class HubError(RunError):
    """Say why the Hub did not do what was asked, and what to do where something can be done."""


def with_retries(call: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """Return the answer of `call`, retried after WAITS where its failure may pass; else raise HubError."""
    began = time.monotonic()

    def judge(error: Exception, wait: float | None) -> float:
        if isinstance(error, (RunError, UsageError)) or _is_local(error):
            raise error
        seconds = _wait(error, wait, time.monotonic() - began)
        if seconds is None:
            raise HubError(reason(error)) from error
        say(f"note: {reason(error)}; trying again in {seconds:g} s")
        return seconds

    return retried(call, WAITS, judge, sleep)


def check_login() -> None:
    """Refuse to go on in offline mode or without a token."""
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        expected = "a network for a push"
        raise UsageError("offline mode is on (HF_HUB_OFFLINE)", expected, "unset it, and push when there is a network")
    if get_token() is None:
        raise UsageError("you are not logged in to the Hub", "a token that may write", LOGIN)


def quiet_client(watched: bool) -> None:
    """Silence the client's log, which quotes signed addresses, and its bars unless this transfer is `watched` on a terminal."""
    from huggingface_hub.utils import disable_progress_bars

    if not (watched and Listener(sys.stderr).isatty()):
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Warnings while validating metadata")


def reason(error: BaseException) -> str:
    """Say why a request failed, and what to do where the user can do something."""
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
            return f"the Hub knows no such repository, or it is private and not for you ({status}): check the name, or {LOGIN}"
        if status == 403:
            return f"your token may not do this (403{message and f', {message}'}): use one that may, or another name"
        if status in RETRIED_STATUS:
            return f"the Hub answers {status}{message and f' ({message})'}"
        return f"the Hub refuses it ({status}{message and f', {message}'})"
    network = next((one for one in chain if _is_network(one)), None)
    if network:
        problem, error = f"the connection to {constants.ENDPOINT} fails", network
    else:
        problem = "the transfer fails" if _may_pass(error) else "unexpected response from the Hub"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{problem} ({type(error).__name__}{': ' + printable(lines[0][:160]) if lines else ''})"


def _wait(error: BaseException, wait: float | None, waited: float) -> float | None:
    """Return the seconds before the next attempt, or None if there is to be none. `wait`: those planned; `waited`: so far."""
    if wait is None or not _may_pass(error):
        return None
    requested = next((_headers(one).get("Retry-After", "") for one in _chain(error) if _headers(one)), "")
    wait = max(wait, float(requested) if requested.isascii() and requested.isdigit() else 0.0)
    return wait if wait <= LONGEST_WAIT and waited + wait <= LONGEST_RETRY else None


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub import errors

    status, chain = _status(error), list(_chain(error))
    if status is not None:
        return status in RETRIED_STATUS
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return False
    # the upload of large files by Xet has no other class for a lost connection; a download that ends early has only words
    return any(map(_is_network, chain)) or type(error) is RuntimeError or "Consistency check" in str(error)


def _is_local(error: BaseException) -> bool:
    """Tell whether the error is this machine's, a full disk or a missing file, not the Hub's."""
    remote = _status(error) is not None or any(_is_network(one) for one in _chain(error))
    return isinstance(error, OSError) and error.errno is not None and not remote


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_network(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in NETWORK or isinstance(error, (ConnectionError, TimeoutError))


def _headers(error: BaseException):
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _status(error: BaseException) -> int | None:
    """Find the HTTP status behind an error, where the Hub answered at all."""
    codes = (getattr(getattr(one, "response", None), "status_code", None) for one in _chain(error))
    return next((code for code in codes if isinstance(code, int)), None)


def _server_message(error: BaseException) -> str:
    """Find what the Hub said itself, as one short line."""
    texts = (_headers(one).get("X-Error-Message") or getattr(one, "server_message", None) for one in _chain(error))
    return printable(next((text for text in texts if text), "").split("\n")[0][:160])
