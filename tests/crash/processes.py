"""Two processes under torchrun: one dies, the launcher dies, a signal comes, all die; and going on with another number of them."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from runs import CHILD, MODES, PATIENCE, SEED, Bench, Ended, check_death, last_logged, log_lines, newest_step, words_of

LAUNCH = [
    sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
    "--rdzv_endpoint", "127.0.0.1:0", str(CHILD),
]  # fmt: skip
ENDS_WITHIN = 30.0  # seconds after the death of a rank


class Launched:
    """torchrun with two processes; at the end of a `with` block none of the three is left."""

    def __init__(self, bench: Bench, words: list[str], fault: dict | None = None):
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        if fault:
            environment["TINYGPT_CRASH_FAULT"] = json.dumps(fault)
        self.output = tempfile.TemporaryFile("w+", dir=bench.folder)
        self.began = time.monotonic()
        self.launcher = psutil.Popen(
            [*LAUNCH, *words], cwd=bench.folder, env=environment, stdout=self.output, stderr=subprocess.STDOUT
        )
        self.workers: list[psutil.Process] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill_all()
        self.launcher.wait()
        self.output.close()

    def note_workers(self) -> None:
        with contextlib.suppress(psutil.Error):
            found = [p for p in self.launcher.children(recursive=True) if str(CHILD) in p.cmdline()]
            self.workers = found if len(found) >= len(self.workers) else self.workers

    def until(self, condition, seconds: float = PATIENCE) -> None:
        """Wait for a condition; the end of the run, or too long a time, is a failure."""
        while not condition():
            self.note_workers()
            assert self.launcher.poll() is None and time.monotonic() - self.began < seconds, self.said()
            time.sleep(0.02)

    def alive(self) -> list[int]:
        return [p.pid for p in self.workers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def kill_all(self) -> None:
        self.note_workers()
        for process in (self.launcher, *self.workers):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def end(self) -> Ended:
        status = self.launcher.wait(PATIENCE)
        return Ended(status, self.said(), time.monotonic() - self.began)

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()


def whole(bench: Bench, mode: str) -> tuple[Path, float]:
    """The run on two processes that nobody interrupted."""
    if mode not in bench._whole:
        folder = bench.new(mode)
        with Launched(bench, words_of(mode, folder)) as launched:
            ended = launched.end()
        assert ended.status == 0, ended.said
        bench._whole[mode] = folder, ended.seconds
    return bench._whole[mode]


def go_on(bench: Bench, mode: str, folder: Path, newest: int, logged: int) -> None:
    """The same command on two processes again."""
    whole(bench, mode)
    with Launched(bench, words_of(mode, folder)) as launched:
        ended = launched.end()
    bench.check_end(mode, folder, ended, newest, logged)


def rank_killed(bench: Bench, mode: str, rank: int, step: int) -> Path:
    """kill -9 of one of the two: the command ends soon and says which."""
    folder = bench.new(mode)
    with Launched(
        bench, words_of(mode, folder), {"point": "step", "at": step, "does": "kill", "rank": rank}
    ) as launched:
        ended = launched.end()
        died = (folder / "log.jsonl").stat().st_mtime
        assert time.time() - died < ENDS_WITHIN, f"it went on for {time.time() - died} s after the death of rank {rank}"
        assert ended.status not in (0, None)
        assert re.search(rf"rank\s*: {rank} .*\n\s*exitcode\s*: -9", ended.said), ended.said
        assert not launched.alive()
    bench.figures.add(kills=1)
    check_death(folder, mode)
    return folder


def a_rank_dies(bench: Bench, mode: str, rank: int) -> None:
    folder = rank_killed(bench, mode, rank, step=5)
    go_on(bench, mode, folder, newest_step(folder), last_logged(folder))


def the_launcher_dies(bench: Bench, mode: str, number: int) -> None:
    """By kill -9 its workers save and leave, by SIGTERM it ends them; either way nothing is lost."""
    folder = bench.new(mode)
    with Launched(bench, words_of(mode, folder)) as launched:
        launched.until(lambda: last_logged(folder) >= 3)
        launched.launcher.send_signal(number)
        gone, alive = psutil.wait_procs(launched.workers, timeout=ENDS_WITHIN)
        assert len(gone) == 2 and not alive, f"orphans train on: {alive}"
        launched.launcher.wait(ENDS_WITHIN)
        newest, logged = newest_step(folder), last_logged(folder)
        assert newest == logged, f"saved after step {newest}, trained to {logged}: {launched.said()}"
    bench.figures.add(**{"kills" if number == signal.SIGKILL else "signals": 1})
    check_death(folder, mode)
    go_on(bench, mode, folder, newest, logged)


def the_launcher_dies_early(bench: Bench, mode: str) -> None:
    """While its workers still import: they find nobody and leave."""
    folder = bench.new(mode)
    with Launched(bench, words_of(mode, folder)) as launched:
        launched.until(lambda: len(launched.workers) == 2)
        launched.launcher.kill()
        _, alive = psutil.wait_procs(launched.workers, timeout=2 * ENDS_WITHIN)
        assert not alive, f"orphans wait: {launched.said()}"
        assert "error: the launcher of this process is gone" in launched.said()
    bench.figures.add(kills=1)


def all_die(bench: Bench, mode: str, number: int) -> None:
    """kill -9 of the launcher and both workers at a random time."""
    chooser = random.Random(f"{SEED} all {number}")
    whole(bench, mode)
    folder = bench.new(mode)
    with Launched(bench, words_of(mode, folder)) as launched:
        launched.until(lambda: folder.exists())
        time.sleep(chooser.uniform(0, 2.5))
        launched.kill_all()
    bench.figures.add(kills=3)
    check_death(folder, mode)
    go_on(bench, mode, folder, newest_step(folder), last_logged(folder))


def another_split(bench: Bench, folder: Path, words: list[str], launched: bool) -> None:
    """Go on with another number of processes, or other micro-batches of the same effective batch: the same losses to 1e-5."""
    newest = newest_step(folder)
    if launched:
        with Launched(bench, words) as run:
            ended = run.end()
    else:
        ended = bench.run(words)
    there, _ = bench.whole("without dropout")
    differing = []
    for key in ("loss", "eval_loss"):
        a, b = ({line["step"]: line[key] for line in log_lines(f) if key in line} for f in (folder, there))
        differing += [f"{key} at {k}: {a.get(k)} and {b[k]}" for k in b if abs(a.get(k, 0.0) - b[k]) > 1e-5]
    bench.figures.add(**{"restarts": 1, "failed restarts": int(ended.status != 0), "differing losses": len(differing)})
    assert ended.status == 0 and f"from step {newest} " in ended.said, ended.said
    assert not differing, differing


def from_two_to_one(bench: Bench) -> None:
    folder = rank_killed(bench, "two processes without dropout", 1, step=6)
    assert newest_step(folder) >= 2
    another_split(bench, folder, words_of("without dropout", folder), launched=False)


def from_one_to(bench: Bench, mode: str, launched: bool) -> None:
    """Killed in step 6 with a batch of 4 rows; `mode` makes the same 4 in another way."""
    folder = bench.new(mode)
    ended = bench.run(words_of("without dropout", folder), {"point": "step", "at": 6, "does": "kill"})
    assert ended.status == -9 and mode in MODES
    another_split(bench, folder, words_of(mode, folder), launched)
