"""Processes that encode: each takes batches of documents as lines of JSON and gives back ids as bytes.

They load the Rust tokenizer and nothing else of size, share no file and no signal with us, and end with us. What comes out is
in the order of what went in, so it does not depend on how many there are. A small corpus is done before one could start.
"""

import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.tokenizing.encode import Encoded, PlainTokenizer, encode, plain_facts
from tinygpt_hf.tokenizing.process_map import all_cores

BATCHES_HERE = 4  # this many are encoded in our own process first
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tinygpt_hf.tokenizing.parallel import serve; serve()"
)


def encode_all(
    batches: Iterable, documents_of: Callable, tokenizer, longest: int, num_proc: int | None
) -> Generator[tuple]:
    """(batch, its encoded documents) for every batch, in order; a few batches per process are under way at a time."""
    num_proc = num_proc or all_cores()
    batches = iter(batches)
    for batch in itertools.islice(batches, BATCHES_HERE if num_proc > 1 else None):
        yield batch, encode(documents_of(batch), tokenizer, longest)
    first = next(batches, None)
    if first is None:
        return
    with Workers(tokenizer, longest, num_proc) as workers:
        waiting: deque[tuple] = deque()
        for batch in itertools.chain([first], batches):
            waiting.append((batch, workers.submit(documents_of(batch))))
            if len(waiting) > 2 * num_proc:
                batch, encoded = waiting.popleft()
                yield batch, encoded.result()
        for batch, encoded in waiting:
            yield batch, encoded.result()


class Workers:
    """`num_proc` processes; a thread of ours waits for each."""

    def __init__(self, tokenizer, longest: int, num_proc: int):
        self.setup = json.dumps({"tokenizer": plain_facts(tokenizer), "longest": longest}).encode() + b"\n"
        self.num_proc = num_proc
        self.idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        self.processes: list[subprocess.Popen] = []
        self.threads = ThreadPoolExecutor(num_proc)

    def __enter__(self) -> "Workers":
        # One thread each: there are as many processes as cores. -P: the folder we are in is not searched for modules.
        one = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        for _ in range(self.num_proc):
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **one},
                start_new_session=True,  # Ctrl-C is for us
            )
            self.processes.append(process)
            self.idle.put(process)
        self.greeted: set[int] = set()
        return self

    def __exit__(self, kind, error, trace) -> None:
        for process in self.processes:
            process.kill()
        self.threads.shutdown(cancel_futures=True)
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):  # what a dead one was still to read
                process.stdin.close()
            process.stdout.close()
            process.wait()

    def submit(self, documents: list[dict]) -> Future:
        return self.threads.submit(self._encoded, documents)

    def _encoded(self, documents: list[dict]) -> list[Encoded]:
        process = self.idle.get()
        try:
            if process.pid not in self.greeted:
                self.greeted.add(process.pid)
                process.stdin.write(self.setup)
            process.stdin.write(json.dumps(documents).encode() + b"\n")
            process.stdin.flush()
            head = process.stdout.readline()
            answer = json.loads(head) if head.endswith(b"\n") else None
            body = process.stdout.read(answer.get("size", 0)) if answer else b""
        except (BrokenPipeError, ValueError):
            answer = None
        finally:
            self.idle.put(process)  # a dead one too: nobody waits for ever where all are dead
        if answer is None:
            status = process.wait()
            raise RunError(
                f"a process that tokenizes ended with status {status} (short of memory?); fewer: --num_proc, then go on"
            )
        if "error" in answer:
            raise UsageError(*answer["error"])
        if "fault" in answer:
            raise RunError(f"a process that tokenizes failed: {answer['fault']}")
        return _unpacked(answer["documents"], body)


def _packed(found: list[Encoded]) -> tuple[list, bytes]:
    """Encoded documents as a JSON value and bytes."""
    facts = [[len(e.ids), e.mask is not None, e.num_bytes, e.turns_cut, e.too_long] for e in found]
    ids = b"".join(e.ids.tobytes() for e in found)
    return facts, ids + b"".join(e.mask.tobytes() for e in found if e.mask is not None)


def _unpacked(facts: list, body: bytes) -> list[Encoded]:
    total = sum(count for count, *_ in facts)
    ids = np.frombuffer(body, dtype=np.uint32, count=total)
    bits = np.frombuffer(body, dtype=bool, offset=4 * total)
    found, begin, bit = [], 0, 0
    for count, masked, *more in facts:
        mask = bits[bit : bit + count] if masked else None
        found.append(Encoded(ids[begin : begin + count], mask, *more))
        begin, bit = begin + count, bit + (count if masked else 0)
    return found


def serve() -> None:
    """What such a process does: its first line says with which tokenizer, each further one is a batch."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    requests = open(0, "rb")
    setup = json.loads(requests.readline() or "null")
    if setup is None:
        return
    tokenizer = PlainTokenizer(**setup["tokenizer"])
    for request in requests:
        body = b""
        try:
            facts, body = _packed(encode(json.loads(request), tokenizer, setup["longest"]))
            answer: dict = {"documents": facts, "size": len(body)}
        except UsageError as error:
            answer = {"error": [error.problem, error.expected, error.action]}
        except BaseException as error:  # a panic of the Rust side is no Exception
            answer = {"fault": f"{type(error).__name__}: {str(error)[:300]}"}
        try:
            answers.write(json.dumps(answer).encode() + b"\n" + body)
            answers.flush()
        except BrokenPipeError:
            return
