"""Errors a user can cause (`UsageError`: one line, no traceback, exit status 2), and text made safe to show.

redacted("hf_" + 34 * "x")            # 'hf_<redacted>'
printable("a\x1b[2J")                 # 'a\\x1b[2J': it cannot drive the terminal
print("half done", file=Listener(sys.stderr))  # raises nothing, whoever reads it
"""

import contextlib
import errno
import os
import re
import stat
import threading

HIDDEN = "<redacted>"
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY)$")  # of environment variables
# Keys by the shapes their issuers document: the beginning, which may be seen, and what follows it.
KEYS = (
    (r"hf_|gh[pousr]_|npm_", r"[A-Za-z0-9]{30,}"),
    (r"github_pat_|glpat-|AIza", r"[A-Za-z0-9_-]{20,}"),
    (r"(?<![A-Za-z0-9])sk-", r"(?:[A-Za-z0-9]{20,}|(?=[A-Za-z_-]{0,40}[0-9])[A-Za-z0-9_-]{20,})"),
    (r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_", r"[A-Za-z0-9]{16,}"),
    (r"(?<![A-Z0-9])(?:AKIA|ASIA)", r"[A-Z0-9]{16}(?![A-Z0-9])"),
    (r"xox[abeoprs]-", r"[A-Za-z0-9-]{10,}"),
    (r"eyJ", r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
)
# One group in each line: what of it may be seen.
_SECRET = re.compile(
    "|".join(
        (
            *(f"({beginning}){rest}" for beginning, rest in KEYS),
            r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)",
            r"(://)[^\s/?#'\"]+(?=@)",  # https://user:password@host
            r"([?&;](?i:[\w-]*(?:token|password|secret|signature|credential)|api_?key|key|sig)=)[^&\s#'\"]+",
            r"((?i:authorization|proxy-authorization)['\"]?\s*[:=]\s*['\"]?(?:(?i:bearer|basic|token)\s+)?)[^\s'\",}]+",
            r"(\b(?i:bearer)\s+)[A-Za-z0-9._~+/=-]{16,}",
            r"(\b[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)['\"]?\s*[=:]\s*)[^\s'\",}]+",
        )
    ),
    re.DOTALL,
)


class UsageError(Exception):
    """Report a mistake a user can make and fix: the problem, what was expected, what to do. Parts carry no final period.

    >>> str(UsageError("--block_size is 0", "at least 1", "try --block_size 128"))
    '--block_size is 0 (expected at least 1). Try --block_size 128.'
    """

    def __init__(self, problem: str, expected: str, action: str):
        self.problem, self.expected, self.action = problem, expected, action
        end = "" if action.endswith("?") else "."
        super().__init__(f"{problem} (expected {expected}). {action[:1].upper()}{action[1:]}{end}")


class UsageErrors(UsageError):
    """Report several mistakes of one check together, one line each."""

    def __init__(self, errors: list[UsageError]):
        self.errors = errors
        Exception.__init__(self, "\n".join(str(error) for error in errors))


class RunError(Exception):
    """Report a failure at run time that is nobody's wrong input (disk full, NaN, damaged file): one line, exit status 1."""


class Interrupted(BaseException):
    """Report that a signal ended the work, with all saved that could be: 130 for Ctrl-C, 129 for SIGHUP, else 143."""

    def __init__(self, message: str, signal: int):
        self.exit_status = {1: 129, 2: 130}.get(signal, 143)
        super().__init__(message)


class ReaderLeft(BaseException):
    """Report that nobody reads the product of a command any more, which is no failure."""


def redacted(value):
    """Hide every secret in a text, or in the texts of a JSON value: tokens of known shapes, passwords and tokens in
    addresses and headers, private keys, and the values of environment variables whose names call them secret.

    Redacting twice changes nothing more. Keys of mappings stay as they are.
    """
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for name, secret in os.environ.items():
        if len(secret) >= 8 and SECRET_NAME.search(name):
            value = value.replace(secret, HIDDEN)
    return _SECRET.sub(lambda match: match[match.lastindex] + HIDDEN, value)


def printable(text: str) -> str:
    """Write every control character, line ends too, as an escape: names from files may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def presentable(text: str) -> str:
    """Make text fit for a terminal: secrets hidden, control characters as escapes; its lines stay lines."""
    return "\n".join(map(printable, redacted(text).split("\n")))


class Listener:
    """Wrap a standard stream so that progress can be written to it whoever listens: nothing that is written raises.

    The stream may be missing (None) or closed, its reader may have left, its device may be full. What nobody took is
    forgotten, or Python would try once more when it ends, fail, and change the exit status. What is written while
    `is_product` is what the command is for: then `ReaderLeft` or a `RunError` says that nobody took it.
    """

    _forgetting = threading.RLock()  # of all streams: two of them may share a descriptor

    def __init__(self, stream, is_product: bool = False):
        self._stream, self.is_product = stream, is_product

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal; one that is missing or closed is none."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def write(self, text: str) -> int:
        """Write `text` if it can be written."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered if somebody takes it."""
        self._try("flush")

    def _try(self, method: str, *words: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, method)(*words)
        except (OSError, ValueError) as error:
            self._forget()
            if self.is_product and isinstance(error, OSError):
                if isinstance(error, ConnectionError) or error.errno == errno.EIO and self._was_terminal():
                    raise ReaderLeft from None
                raise RunError(f"the standard output cannot be written ({error.strerror})") from error

    def _was_terminal(self) -> bool:
        """Tell whether the stream is no file: one whose terminal is gone is no longer a terminal."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return stat.S_ISCHR(os.fstat(self._stream.fileno()).st_mode)
        return False

    def _forget(self) -> None:
        """Empty the buffer into the null device, and leave the stream where it was: its device may have room later."""
        with self._forgetting, contextlib.suppress(OSError, ValueError, AttributeError):
            number = self._stream.fileno()
            null, kept = os.open(os.devnull, os.O_WRONLY), os.dup(number)
            os.dup2(null, number)
            try:
                self._stream.flush()
            finally:
                os.dup2(kept, number)
                os.close(kept)
                os.close(null)
