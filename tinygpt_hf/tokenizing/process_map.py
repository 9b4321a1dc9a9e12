"""Apply one function to batches on all cores, in order: the results do not depend on how many processes there are.

    for batch, result in ordered_map(clean, batches, num_proc=8): ...

Each process is a fresh interpreter that runs `serve` below. It runs no script of the caller's again, as multiprocessing's spawn
would, shares no file and no signal with us, and ends when our end of its pipe closes. The function and the batches reach it as
pickles, which travel only between a process and those it started.
"""

import contextlib
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tinygpt_hf.errors import RunError, UsageError

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tinygpt_hf.tokenizing.process_map import serve; serve()"
)
# There are as many processes as cores, so each uses one thread.
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def all_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def grouped(items: Iterable, size_of: Callable, most: int, count: int | None = None) -> Iterator[list]:
    """Yield the items in lists: each ends where the sizes in it come to `most`, or it has `count` items."""
    group, size = [], 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= most or len(group) == count:
            yield group
            group, size = [], 0
    if group:
        yield group


def ordered_map(
    function: Callable, batches: Iterable, num_proc: int | None, here: int = 1, argument: Callable = lambda batch: batch
) -> Generator[tuple]:
    """Yield (batch, function(argument(batch))) for every batch, in order.

    The first `here` batches are computed in this process: few are done before another one could start. At most two batches a
    process are under way at a time.
    """
    num_proc = num_proc or all_cores()
    batches = iter(batches)
    for batch in itertools.islice(batches, here if num_proc > 1 else None):
        yield batch, function(argument(batch))
    first = next(batches, None)
    if first is None:
        return
    with contextlib.closing(_Workers(function, num_proc)) as workers:
        waiting: deque[tuple] = deque()
        for batch in itertools.chain([first], batches):
            waiting.append((batch, workers.submit(argument(batch))))
            if len(waiting) > 2 * num_proc:
                batch, result = waiting.popleft()
                yield batch, result.result()
        for batch, result in waiting:
            yield batch, result.result()


class _Workers:
    """Run `num_proc` processes; a thread of ours waits for each."""

    def __init__(self, function: Callable, num_proc: int):
        self._processes = [self._start(function) for _ in range(num_proc)]
        self._free = list(self._processes)
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(num_proc, initializer=self._take_process)

    @staticmethod
    def _start(function: Callable) -> subprocess.Popen:
        process = start_python(PROGRAM, sys.path, env={**os.environ, **ONE_THREAD})
        with contextlib.suppress(BrokenPipeError):  # the first call reports a process that has ended
            pickle.dump(function, process.stdin)
        return process

    def _take_process(self) -> None:
        self._own.process = self._free.pop()

    def submit(self, batch) -> Future:
        return self._threads.submit(self._call, batch)

    def _call(self, batch):
        process = self._own.process
        try:
            pickle.dump(batch, process.stdin, protocol=5)
            process.stdin.flush()
            kind, value = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise RunError(
                f"a worker process ended with status {process.wait()} (out of memory?); use fewer: --num_proc"
            ) from None
        if kind == "usage":
            raise UsageError(*value)
        if kind == "failure":
            raise RunError(f"a worker process failed: {value}")
        return value

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError):  # of what a dead process had yet to read
                process.stdin.close()
            process.stdout.close()
            process.wait()


def start_python(program: str, argument, **options) -> subprocess.Popen:
    """Start an interpreter that gets `argument` as JSON, answers through a pipe, and takes no module from the current folder."""
    words = [sys.executable, "-P", "-c", program, json.dumps(argument)]
    # a session of its own: Ctrl-C is for us
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, **options)


def answer_stream():
    """Take the standard output for answers: what a library prints is none."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return answers


def serve() -> None:
    """Read a function, then batches, from standard input; write each result to standard output."""
    answers = answer_stream()
    requests = open(0, "rb")
    with contextlib.suppress(EOFError, BrokenPipeError):  # the caller is done, or gone
        function = pickle.load(requests)
        while True:
            batch = pickle.load(requests)
            try:
                answer = ("result", function(batch))
            except UsageError as error:
                answer = ("usage", (error.problem, error.expected, error.action))
            except BaseException as error:  # a panic of the Rust side is no Exception
                answer = ("failure", f"{type(error).__name__}: {str(error)[:300]}")
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
