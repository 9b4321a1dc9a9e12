"""Run command lines: `tinygpt <command> ...`, also for run_clm.py, train_tokenizer.py and chat.py.

Exit status: 0 success; 2 error in usage, settings or data; 1 failure at run time; 129, 130 or 143 interrupted, saved and
resumable. Progress output never changes the status, even if its pipe is closed, its device full or its stream missing. Only
if the standard output is the product of the command, a closed pipe ends it with 0, and a full device with 1.
"""

import contextlib
import difflib
import io
import logging
import os
import sys
import traceback
from pathlib import Path

from tinygpt_hf import __version__
from tinygpt_hf.commands import COMMANDS
from tinygpt_hf.errors import (
    Interrupted,
    ReaderLeft,
    RunError,
    SafeStream,
    UsageError,
    UsageErrors,
    presentable,
    printable,
    redacted,
)
from tinygpt_hf.settings.parsing import help_text, parse

SUMMARY = "Train a small GPT from your own text and use it anywhere Transformers runs."


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return its exit status. Errors are one line on stderr, with a traceback only for --debug."""
    # By default idle OpenMP threads spin for long, which slows training several times beside another program. A short spin is as
    # fast on an idle machine. The variable is read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # transformers loads torchao if it is installed, which logs warnings about kernels for other hardware
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    open_missing_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
        sys.stdout.reconfigure(errors="replace")  # the encoding may lack characters, as a Windows code page does
    words = list(sys.argv[1:] if argv is None else argv)
    # libraries write to the streams too, and must not end a run by failing to
    stdout, stderr = SafeStream(sys.stdout, is_product=True), SafeStream(sys.stderr)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        return status_of([word for word in words if word != "--debug"], "--debug" in words, stdout)


def status_of(words: list[str], debug: bool, stdout: SafeStream) -> int:
    """Run the command and turn errors into an exit status."""
    try:
        status = run(words, stdout)
        stdout.flush()  # raises here if the reader left, not at interpreter exit
        return status
    except UsageError as error:
        return failed(error, 2, debug)
    except Interrupted as error:
        say(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except ReaderLeft:  # as `head` does
        return 0
    except BrokenPipeError as error:  # from a process or connection of the command, not from its output
        return failed(error, 1, debug, f"a process or a connection ended early ({error})")
    except (RunError, OSError, MemoryError) as error:
        return failed(error, 1, debug)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Rust, in tokenizers
            raise
        message = (
            f"{type(error).__name__}: {error}; this is a bug in tinygpt_hf or in a library it uses; --debug shows where"
        )
        return failed(error, 1, debug, message)
    finally:
        stdout.is_product = False  # the status is decided; a failing flush must not change it
        stdout.flush()


def open_missing_streams() -> None:
    """Open the null device for missing standard streams, as in a service; else the next file would get their descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def run(words: list[str], stdout: SafeStream) -> int:
    """Find the command, parse its settings and run it; returns the exit status."""
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"tinygpt_hf {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "see tinygpt --help"
        raise UsageError(f"unknown command {printable(name)!r}", f"one of {', '.join(COMMANDS)}", hint)
    command = COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        usage = f"tinygpt {name} [settings]"
        print(help_text(usage, command.help, command.groups, command.uses_config, command.example))
        return 0
    if command.default_config and not any(word.partition("=")[0] == "--config" for word in rest):
        rest = ["--config", str(packaged_config(command.default_config)), *rest]
    settings = parse(command.groups, rest, uses_config=command.uses_config)
    if settings.note and os.environ.get("RANK", "0") == "0":  # only the main process
        say(f"note: {settings.note}")
    stdout.is_product = command.stdout_is_product(settings)
    return command.run(settings) or 0


def packaged_config(name: str) -> Path:
    """Return the path of a file in configs/, which is beside the package in a clone and inside it when installed."""
    from importlib.resources import files

    beside = Path(__file__).parent.parent / "configs" / name
    return beside if beside.is_file() else Path(str(files("tinygpt_hf.configs") / name))


def overview() -> str:
    """Return the text of `tinygpt --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: tinygpt COMMAND [settings]", "", SUMMARY, ""]
    lines += [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "tinygpt COMMAND --help lists a command's settings; --debug shows tracebacks."])


def failed(error: BaseException, status: int, debug: bool, words: str = "") -> int:
    """Print each error in one line and return the status."""
    if debug:
        print(presentable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    for one in error.errors if isinstance(error, UsageErrors) else [error]:
        say(f"error: {words or str(one) or type(one).__name__}")
    return status


def say(line: str) -> None:
    """Print one line on stderr, with secrets redacted and control characters escaped."""
    print(printable(redacted(line)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
