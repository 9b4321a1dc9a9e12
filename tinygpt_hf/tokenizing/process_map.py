"""Apply a function to batches in worker processes, with results in order.

    for batch, result in ordered_map(clean, batches, num_proc=8): ...

Each worker is a new interpreter that runs `serve` below. Unlike multiprocessing's spawn it does not run the caller's script
again. It shares no files and no signals with this process, and ends when its pipe closes. The function and the batches are
pickled, but only for pipes between a process and its own workers.
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
# one thread per worker, since there are as many workers as cores
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def all_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def grouped(items: Iterable, size_of: Callable, most: int, count: int | None = None) -> Iterator[list]:
    """Yield the items in lists. A list ends when its sizes sum to at least `most`, or it has `count` items."""
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

    The first `here` batches are computed in this process, since starting others takes longer. At most two batches per worker
    are pending. Raises RunError if a worker ends or fails, and UsageError if the function does.
    """
    num_proc = num_proc or all_cores()
    batches = iter(batches)
    for batch in itertools.islice(batches, here if num_proc > 1 else None):
        yield batch, function(argument(batch))
    first = next(batches, None)
    if first is None:
        return
    with contextlib.closing(_Workers(function, num_proc)) as workers:
        pending: deque[tuple] = deque()
        for batch in itertools.chain([first], batches):
            pending.append((batch, workers.submit(argument(batch))))
            if len(pending) > 2 * num_proc:
                batch, result = pending.popleft()
                yield batch, result.result()
        for batch, result in pending:
            yield batch, result.result()


class _Workers:
    """`num_proc` worker processes, each with a thread here that talks to it."""

    def __init__(self, function: Callable, num_proc: int):
        self._processes = [self._start(function) for _ in range(num_proc)]
        self._free = list(self._processes)
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(num_proc, initializer=self._take_process)

    @staticmethod
    def _start(function: Callable) -> subprocess.Popen:
        process = start_python(PROGRAM, sys.path, env={**os.environ, **ONE_THREAD})
        with contextlib.suppress(BrokenPipeError):  # if the process has ended, the first call reports it
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
            with contextlib.suppress(BrokenPipeError):  # flushing to a dead process
                process.stdin.close()
            process.stdout.close()
            process.wait()


def start_python(program: str, argument, **options) -> subprocess.Popen:
    """Start an interpreter with pipes that runs `program` with `argument` as JSON, without the current folder in its path."""
    words = [sys.executable, "-P", "-c", program, json.dumps(argument)]
    # in a new session, so that Ctrl-C does not reach it
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, **options)


def answer_stream():
    """Return a stream to standard output, and redirect prints of libraries to the null device."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return answers


def serve() -> None:
    """Read a function and then batches from standard input, and write each result to standard output."""
    answers = answer_stream()
    requests = open(0, "rb")
    with contextlib.suppress(EOFError, BrokenPipeError):  # the caller has ended
        function = pickle.load(requests)
        while True:
            batch = pickle.load(requests)
            try:
                answer = ("result", function(batch))
            except UsageError as error:
                answer = ("usage", (error.problem, error.expected, error.action))
            except BaseException as error:  # a Rust panic is not an Exception
                answer = ("failure", f"{type(error).__name__}: {str(error)[:300]}")
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
