"""The one front door: `tinygpt <command> ...`, and what run_clm.py, train_tokenizer.py and chat.py call.

Exit status: 0 done; 2 usage, settings or data; 1 failure at run time; 130 or 143 interrupted, saved, resumable.
"""

import difflib
import io
import logging
import os
import sys
import traceback
from pathlib import Path

from tinygpt_hf import __version__
from tinygpt_hf.commands import COMMANDS
from tinygpt_hf.errors import Interrupted, RunError, UsageError, UsageErrors, presentable, printable, redacted
from tinygpt_hf.settings.parsing import help_text, parse

SUMMARY = "Train a small GPT from your own text and use it anywhere Transformers runs."


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit status. Errors are one line on stderr, with a traceback only after --debug."""
    # Idle threads of OpenMP spin for long by default: beside any other program that slows training down several times, and on an
    # idle machine a short spin is as fast. It is read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # transformers loads torchao where it is installed, which then tells of kernels for other machines
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
        sys.stdout.reconfigure(errors="replace")  # a sign for what its encoding lacks: a Windows code page, say
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        status = run(words)
        sys.stdout.flush()  # here a reader that left is noticed, not when Python has ended
        return status
    except UsageError as error:
        return failed(error, 2, debug)
    except RunError as error:
        return failed(error, 1, debug)
    except Interrupted as error:
        say(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of a pipe left, as `head` does
        discard_output()
        return 0
    except (OSError, MemoryError) as error:
        try:
            sys.stdout.flush()
        except OSError:  # the disk behind it is full
            discard_output()
        return failed(error, 1, debug)
    except BaseException as error:
        if (
            not isinstance(error, Exception) and type(error).__name__ != "PanicException"
        ):  # that one is Rust's, of tokenizers
            raise
        fault = f"{type(error).__name__}: {error}; this is a fault of tinygpt_hf or of a library below it; --debug shows where"
        return failed(error, 1, debug, fault)


def run(words: list[str]) -> int:
    """Find the command, read its settings, call it."""
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"tinygpt_hf {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {printable(name)!r}", hint, "see tinygpt --help")
    command = COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        print(
            help_text(f"tinygpt {name} [settings]", command.help, command.groups, command.uses_config, command.example)
        )
        return 0
    if command.default_config and not any(word.partition("=")[0] == "--config" for word in rest):
        rest = ["--config", str(packaged_config(command.default_config)), *rest]
    return command.run(parse(command.groups, rest, uses_config=command.uses_config)) or 0


def packaged_config(name: str) -> Path:
    """A file of configs/, which lies beside the package in a clone and inside it when installed."""
    from importlib.resources import files

    beside = Path(__file__).parent.parent / "configs" / name
    return beside if beside.is_file() else Path(str(files("tinygpt_hf.configs") / name))


def overview() -> str:
    """What `tinygpt --help` prints."""
    width = max(map(len, COMMANDS))
    lines = ["usage: tinygpt COMMAND [settings]", "", SUMMARY, ""]
    lines += [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "tinygpt COMMAND --help lists a command's settings; --debug shows tracebacks."])


def failed(error: BaseException, status: int, debug: bool, words: str = "") -> int:
    """Say what went wrong, one line each, and give back the status."""
    if debug:
        print(presentable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    for one in error.errors if isinstance(error, UsageErrors) else [error]:
        say(f"error: {words or str(one) or type(one).__name__}")
    return status


def discard_output() -> None:
    """What is still buffered for a standard output nobody takes: Python would try once more when it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """One line on stderr, whatever names from files and secrets from settings it was made of."""
    print(printable(redacted(line)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
