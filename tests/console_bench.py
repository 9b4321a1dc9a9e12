"""The program that has no console to speak of: it forks a process for each command, with standard streams as asked for.

    python console_bench.py        reads {"words", "console", ...} a line, answers {"status", "heard", "said"}

What costs is importing torch, which is paid once. Descriptors and streams of a process are those that Python makes of what a
shell hands over, and it ends as every program does, with Python's last flush.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import pty
import signal
import sys
import termios
import time
import urllib.request

PRELOADED = (
    "torch", "tinygpt_hf.cli", "tinygpt_hf.training.recipe", "tinygpt_hf.model.modeling_tinygpt", "tinygpt_hf.quickstart",
    "tinygpt_hf.model.conversion", "tinygpt_hf.toyland.corpus", "tinygpt_hf.inference.chat", "tinygpt_hf.inference.serving",
    "tinygpt_hf.evaluation.evaluate", "tinygpt_hf.curation.pipeline", "tinygpt_hf.export.export", "accelerate.accelerator",
    "tinygpt_hf.inference.samples", "tinygpt_hf.hub.push_pull", "accelerate.utils.memory", "transformers.cli.serve", "uvicorn",
    "safetensors.torch", "torch.distributed.tensor", "torch.profiler._cupti_monitor", "transformers.generation.utils",
    "transformers.tokenization_utils_tokenizers", "huggingface_hub.hf_api", "yaml", "psutil", "evaluate",
)  # fmt: skip
# standard input, output and error, and how many lines are read before the reader leaves
CONSOLES = {
    "stdout closed": ("null", "closed", "file", 0),
    "stderr closed": ("null", "file", "closed", 0),
    "both closed": ("null", "closed", "closed", 0),
    "stdin closed": ("closed", "file", "file", 0),
    "reader left at once": ("null", "pipe", "pipe", 0),
    "reader left after a line": ("null", "pipe", "pipe", 1),
    "reader left after ten": ("null", "pipe", "pipe", 10),
    "full": ("null", "full", "file", 0),
    "terminal gone": ("terminal", "terminal", "terminal", 1),
}
FILES = {"null": os.devnull, "full": "/dev/full"}


def child(kinds: tuple, writer: int, slave: int, hangup: str | None, words: list[str]) -> int:
    """Be the process: take the streams, run the command."""
    os.setsid()
    if hangup:  # the terminal's end is a SIGHUP to the process it belongs to
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    if hangup == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in range(3):
        os.close(number)
    for number, kind in enumerate(kinds):
        ends = {"pipe": writer, "terminal": slave}
        if kind != "closed":
            path = FILES.get(kind, f"said-{number}")
            end = ends[kind] if kind in ends else os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(end, number, inheritable=True)
            if kind not in ends and end != number:
                os.close(end)
    os.close(writer)
    os.close(slave)
    sys.stdin = open(0, closefd=False) if kinds[0] != "closed" else None
    sys.stdout = open(1, "w", closefd=False) if kinds[1] != "closed" else None
    sys.stderr = open(2, "w", buffering=1, closefd=False) if kinds[2] != "closed" else None
    from tinygpt_hf import cli

    return cli.main(words)


def run(words: list[str], console: str, hangup: str | None = None, until: str = "", port: int = 0) -> dict:
    """Run a command; its reader leaves after some lines, or after one with the words `until`. What serves is interrupted."""
    *kinds, lines = CONSOLES[console]
    for number in (1, 2):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"said-{number}")
    (reader, writer), (master, slave) = os.pipe(), pty.openpty()
    process = os.fork()
    if not process:
        os.close(reader)
        os.close(master)
        sys.exit(child(tuple(kinds), writer, slave, hangup, words))
    os.close(writer)
    os.close(slave)
    heard = []
    with open(reader, errors="replace") as piped, open(master, errors="replace") as shown, contextlib.suppress(OSError):
        stream = shown if kinds[1] == "terminal" else piped
        while len(heard) < lines or until and until not in heard[-1]:
            heard.append(stream.readline())
            if not heard[-1]:
                break
    if port:
        interrupt(process, port)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    said = ""
    if kinds[2] == "file":
        with open("said-2", errors="replace") as file:
            said = file.read()
    return {"status": status, "heard": heard, "said": said}


def interrupt(process: int, port: int) -> None:
    """Send Ctrl-C to a server that answers."""
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        time.sleep(0.05)
    os.kill(process, signal.SIGINT)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    from tinygpt_hf import quickstart

    quickstart.STORIES = quickstart.PAIRS = quickstart.QUESTIONS = 2
    quickstart.STORY_TOKENS = quickstart.ANSWER_TOKENS = 4
    gc.freeze()  # what a process does not look at is not copied
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
