"""SIGKILL: at a random time, at each system call of a run's start and of a save, and in fresh processes of the real command."""

import functools
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from runs import SEED, Bench, Ended, check_death, last_logged, newest_step, save_steps, words_of

FRESH = [sys.executable, "-m", "tinygpt_hf.cli"]


def at_a_random_time(bench: Bench, mode: str, number: int) -> None:
    """One or two kills, each anywhere between the first instant and the last; then the same command to the end."""
    chooser = random.Random(f"{SEED} {mode} {number}")
    whole, seconds = bench.whole(mode)
    folder = bench.new(mode)
    for _ in range(chooser.choice((1, 2))):
        started = bench.start(words_of(mode, folder))
        time.sleep(chooser.uniform(0, seconds))
        started.kill()
        bench.wait(started)
        bench.figures.add(kills=1)
        check_death(folder, mode)
        assert last_logged(folder) - newest_step(folder) <= save_steps(mode)
    bench.same_command_goes_on(mode, folder)


def fresh_process(bench: Bench, mode: str, number: int) -> None:
    """The command as a user starts it, imports and all, killed at a random time."""
    chooser = random.Random(f"{SEED} fresh {mode} {number}")
    folder = bench.new(mode)
    words = [*FRESH, *words_of(mode, folder)]
    with subprocess.Popen(words, cwd=bench.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        if number % 3 < 2:  # else while it imports
            while not folder.exists() and killed.poll() is None:
                time.sleep(0.01)
        time.sleep(chooser.uniform(0, 2))
        killed.kill()
    bench.figures.add(kills=1)
    check_death(folder, mode)
    newest, logged = newest_step(folder), last_logged(folder)
    began = time.monotonic()
    again = subprocess.run(words, cwd=bench.folder, capture_output=True, text=True)
    ended = Ended(again.returncode, again.stderr, time.monotonic() - began)
    bench.check_end(mode, folder, ended, newest, logged)


def traced(bench: Bench, mode: str, folder: Path) -> list[str]:
    """The system calls of a run that goes on in `folder`, in order, as `name path`."""
    trace = folder.parent / "trace"
    ended = bench.run(words_of(mode, folder), {"point": "system", "at": 0, "does": "kill", "trace": str(trace)})
    assert ended.status == 0, ended.said
    return trace.read_text(encoding="utf-8").splitlines()


@functools.cache
def half_way(bench: Bench, mode: str) -> Path:
    """A run that was killed before its second save ended: checkpoint-2 is all it has, and D is a model. To be copied."""
    folder = bench.new("half")
    calls = traced(bench, mode, folder)
    shutil.rmtree(folder)
    at = next(k for k, call in enumerate(calls, 1) if call.startswith("rename") and call.endswith("checkpoint-4"))
    ended = bench.run(words_of(mode, folder), {"point": "system", "at": at, "does": "kill"})
    assert ended.status == -9 and newest_step(folder) == 2
    return folder


def copied(bench: Bench, folder: Path | None) -> Path:
    """A copy to harm; None: a run that has not begun."""
    place = bench.new()
    if folder:
        shutil.copytree(folder, place)
    return place


@functools.cache
def swept(bench: Bench, mode: str, begun: bool) -> tuple[Path | None, list[str]]:
    """Where a sweep begins, and its calls: a start and a first save, or, once `begun`, a resumption, two saves and the end."""
    before = half_way(bench, mode) if begun else None
    calls = traced(bench, mode, copied(bench, before))
    if not begun:  # the model is whole when its config is there
        ends = (k for k, call in enumerate(calls) if call.startswith("rename") and call.endswith("run/config.json"))
        calls = calls[: next(ends) + 2]
    return before, calls


def at_each_system_call(bench: Bench, mode: str, begun: bool, part: int, parts: int) -> None:
    """Kill before every `parts`th call from `part` on, and in the middle of it where it is a write; after the last one, too."""
    before, calls = swept(bench, mode, begun)
    for at, call in enumerate(calls, 1):
        if at % parts == part:
            ways = ["kill"] + ["torn"] * call.startswith(("write", "append")) + ["after"] * (at == len(calls))
            for way in ways:
                one_system_call(bench, mode, before, at, way)


def one_system_call(bench: Bench, mode: str, before: Path | None, at: int, way: str) -> None:
    folder = copied(bench, before)
    ended = bench.run(words_of(mode, folder), {"point": "system", "at": at, "does": way})
    assert ended.status == -9, f"call {at}: {ended.said}"
    bench.figures.add(kills=1)
    check_death(folder, mode)
    bench.same_command_goes_on(mode, folder)
