"""The program that is killed: the real command, in a process of its own, with one fault built in.

    python child.py train --output_dir ...          the fault, if any, stands in TINYGPT_CRASH_FAULT as JSON
    python child.py --serve                         reads requests, forks a process for each: imports are paid once

A fault strikes at the `at`th pass through a point (1 is the first), where `point` is one of

    system       an operating-system call of storage        tokenizing   a call of it while the rows are made
    step         the forward pass of a training step       evaluation   the forward pass of an evaluation

and does one of these: `kill` (SIGKILL, before the call), `after` (SIGKILL, after the call), `torn` (SIGKILL when half of the
bytes of a write have reached the file), a list of signals to this very process, or the name of an errno, raised once or, with
`lasting`, from then on. `rank`: only that process of several.
"""

import errno
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

# Everything a training imports, so that a forked process imports nothing; none of these starts a thread.
PRELOADED = (
    "torch",
    "tinygpt_hf.cli",
    "tinygpt_hf.training.recipe",
    "tinygpt_hf.model.modeling_tinygpt",
    "tinygpt_hf.model.conversion",
    "tinygpt_hf.toyland.corpus",
    "accelerate.accelerator",
    "accelerate.utils.memory",
    "psutil",
    "safetensors.torch",
    "torch.distributed.tensor",
    "torch.profiler._cupti_monitor",
    "transformers.generation.continuous_batching",
    "transformers.generation.utils",
    "transformers.tokenization_utils_tokenizers",
    "yaml",
)
SPARED_BY_A_FULL_DISK = ("remove",)


class Fault:
    """Counts the passes through its point and strikes at the right one."""

    def __init__(
        self, point: str, at: int, does, lasting: bool = False, rank: int | None = None, trace: str | None = None
    ):
        self.point, self.at, self.does, self.lasting = point, at, does, lasting
        self.here = rank is None or int(os.environ.get("RANK", 0)) == rank
        self.trace = trace
        self.passes = 0

    def strike(self, name: str = "", half=None) -> None:
        """A pass through the point, before what is done there is done; `half` does half of it."""
        self.passes += 1
        if self.trace:
            with open(self.trace, "a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        now = self.passes == self.at
        if not self.here or not (now or self.lasting and self.passes > self.at):
            return
        if isinstance(self.does, list):
            for word in self.does:
                os.kill(os.getpid(), signal.Signals[word])
                time.sleep(0.01)  # two signals at once would count as one
        elif self.does in ("kill", "torn"):
            if self.does == "torn" and half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.does != "after":
            number = getattr(errno, self.does)
            if self.does == "EIO" or name.split()[0] not in SPARED_BY_A_FULL_DISK:
                raise OSError(number, os.strerror(number))

    def struck(self) -> None:
        """The same pass, after what is done there was done."""
        if self.here and self.does == "after" and self.passes == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def faulty_system(fault: Fault):
    """storage.System with the fault in each of its calls."""
    from tinygpt_hf import storage

    tokenizing = fault.point == "tokenizing"

    def wrapped(name: str):
        real = getattr(storage.System, name)

        def call(self, *words):
            paths = " ".join(str(word) for word in words if isinstance(word, Path)) or getattr(words[0], "name", "")
            if tokenizing and "rows" not in str(paths):
                return real(self, *words)

            def half():
                file, data = words if name == "write" else (open(words[0], "ab"), words[1])
                file.write(data[: len(data) // 2])
                file.flush()

            fault.strike(f"{name} {paths}", half if name in ("write", "append") else None)
            result = real(self, *words)
            fault.struck()
            return result

        return call

    names = [name for name, value in vars(storage.System).items() if callable(value) and not name.startswith("_")]
    return type("FaultySystem", (storage.System,), {name: wrapped(name) for name in names})()


def install(fault: Fault) -> None:
    """Build the fault into this process."""
    if fault.point in ("system", "tokenizing"):
        from tinygpt_hf import storage

        storage.system = faulty_system(fault)
        return
    from tinygpt_hf.training import measures, step

    module, name = {"step": (step, "micro_batch_loss"), "evaluation": (measures, "batch_sums")}[fault.point]
    real = getattr(module, name)

    def passing(*words):
        fault.strike(fault.point)
        result = real(*words)
        fault.struck()
        return result

    setattr(module, name, passing)


def run(words: list[str]) -> int:
    """The real command line, one thread of torch; returns its exit status."""
    from tinygpt_hf.cli import main

    fault = os.environ.get("TINYGPT_CRASH_FAULT")
    if words and words[0] == "train":
        import torch

        torch.set_num_threads(1)
    if fault:
        install(Fault(**json.loads(fault)))
    return main(words)


def serve() -> None:
    """Answer requests, a JSON object a line: {"run": words, ...} with a process id, {"wait": id, ...} with its exit status."""
    for name in PRELOADED:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) != 1:
        raise SystemExit(
            "a library started a thread when it was imported: forked processes would not be like fresh ones"
        )
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = start(request) if "run" in request else wait(request["wait"], request["seconds"])
        print(json.dumps(answer), flush=True)


def start(request: dict) -> int:
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.pop("TINYGPT_CRASH_FAULT", None)
        if request["fault"]:
            os.environ["TINYGPT_CRASH_FAULT"] = json.dumps(request["fault"])
        status = run(request["run"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(process: int, seconds: float) -> int | None:
    """The exit status (negative: the signal that killed it), or None if it still runs."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(run(sys.argv[1:]))
