"""Define the errors of the package, and functions that make text safe to print.

redacted("hf_" + 34 * "x")            # 'hf_<redacted>'
printable("a\x1b[2J")                 # 'a\\x1b[2J', which does not control the terminal
print("half done", file=SafeStream(sys.stderr))  # never raises
"""

import contextlib
import errno
import os
import re
import threading

HIDDEN = "<redacted>"
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY)$")  # of environment variables
# Documented formats of secret keys: the prefix, which stays visible, and the secret part.
KEYS = (
    (r"hf_|gh[pousr]_|npm_", r"[A-Za-z0-9]{30,}"),
    (r"github_pat_|glpat-|AIza", r"[A-Za-z0-9_-]{20,}"),
    (r"(?<![A-Za-z0-9])sk-", r"(?:[A-Za-z0-9]{20,}|(?=[A-Za-z_-]{0,40}[0-9])[A-Za-z0-9_-]{20,})"),
    (r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_", r"[A-Za-z0-9]{16,}"),
    (r"(?<![A-Z0-9])(?:AKIA|ASIA)", r"[A-Z0-9]{16}(?![A-Z0-9])"),
    (r"xox[abeoprs]-", r"[A-Za-z0-9-]{10,}"),
    (r"eyJ", r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
)
# Each line has one group, which stays visible.
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
    """An error that the user can fix: the problem, what was expected, and what to do, each without a final period.

    It is shown in one line without a traceback, with exit status 2.

    >>> str(UsageError("--block_size is 0", "at least 1", "try --block_size 128"))
    '--block_size is 0 (expected at least 1). Try --block_size 128.'
    """

    def __init__(self, problem: str, expected: str, action: str):
        self.problem, self.expected, self.action = problem, expected, action
        end = "" if action.endswith("?") else "."
        super().__init__(f"{problem} (expected {expected}). {action[:1].upper()}{action[1:]}{end}")


class UsageErrors(UsageError):
    """Several usage errors of one check, one line each."""

    def __init__(self, errors: list[UsageError]):
        self.errors = errors
        Exception.__init__(self, "\n".join(str(error) for error in errors))


class RunError(Exception):
    """A failure at run time that is not caused by wrong input (full disk, NaN, damaged file): one line, exit status 1."""


class Interrupted(BaseException):
    """An end by signal, after saving what is possible: exit status 130 for Ctrl-C, 129 for SIGHUP, else 143."""

    def __init__(self, message: str, signal: int):
        self.exit_status = {1: 129, 2: 130}.get(signal, 143)
        super().__init__(message)


class ReaderLeft(BaseException):
    """The end of a command because the reader of its output closed the pipe, which is not a failure."""


def redacted(value):
    """Replace secrets in a text, or in the strings of a JSON value except its keys.

    Secrets are tokens of known formats, passwords and tokens in URLs and headers, private keys, and the values of environment
    variables with names such as *_TOKEN. Applying it twice changes nothing more.
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
    """Escape all control characters, including line ends, since file names may contain any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def presentable(text: str) -> str:
    """Redact secrets and escape control characters, but keep line feeds."""
    return "\n".join(map(printable, redacted(text).split("\n")))


class SafeStream:
    """A wrapper of a standard stream on which writing does not raise.

    The stream may be missing (None) or closed, its pipe closed, its device full. Output that cannot be written is discarded;
    else Python would flush it again at exit, fail, and change the exit status. With `is_product` the output is the result of
    the command, and a failed write raises `ReaderLeft` or `RunError`.
    """

    _discarding = threading.RLock()  # for all streams, because two of them may share a descriptor

    def __init__(self, stream, is_product: bool = False):
        self._stream, self.is_product = stream, is_product
        self._was_terminal = is_product and self.isatty()  # asked now, as a lost terminal no longer says so

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Check whether the stream is a terminal; False if it is missing or closed."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def write(self, text: str) -> int:
        """Write `text` if possible; returns its length."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer if possible."""
        self._try("flush")

    def _try(self, method: str, *words: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, method)(*words)
        except (OSError, ValueError) as error:
            self._discard()
            if self.is_product and isinstance(error, OSError):
                if isinstance(error, ConnectionError) or error.errno == errno.EIO and self._was_terminal:
                    raise ReaderLeft from None
                raise RunError(f"the standard output cannot be written ({error.strerror})") from error

    def _discard(self) -> None:
        """Flush the buffer into the null device; the stream stays usable, since its device may have space later."""
        with self._discarding, contextlib.suppress(OSError, ValueError, AttributeError):
            number = self._stream.fileno()
            null, kept = os.open(os.devnull, os.O_WRONLY), os.dup(number)
            os.dup2(null, number)
            try:
                self._stream.flush()
            finally:
                os.dup2(kept, number)
                os.close(kept)
                os.close(null)
