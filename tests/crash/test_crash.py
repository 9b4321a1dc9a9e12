"""The crash suite: whatever kills, fills, damages or interrupts a run, the same command ends as if nothing had happened.

`make test` runs a few trials of every kind, `make crash-test` all of them: random kills over the modes, every system call.
"""

import signal

import damages
import disk_errors
import kills
import processes
import pytest
import readers
import stop_signals
from runs import FULL

PARTS = 24  # of a sweep over system calls; `make test` runs one call of each of two parts
RANDOM_MODES = [
    "plain", "accumulation", "workers", "one epoch", "two and a half epochs", "three epochs", "words", "chat", "stream",
    "signs of life",
]  # fmt: skip


@pytest.mark.parametrize("number", range(6 if FULL else 1))
@pytest.mark.parametrize("mode", RANDOM_MODES if FULL else ["accumulation", "three epochs", "chat", "stream"])
def test_a_kill_at_a_random_time(bench, mode, number):
    kills.at_a_random_time(bench, mode, number)


@pytest.mark.skipif(not FULL, reason="a fresh process takes ten seconds; rows/test_stream.py kills one")
@pytest.mark.parametrize("number", range(6))
def test_a_kill_of_the_real_command(bench, number):
    kills.fresh_process(bench, "plain", number)


@pytest.mark.parametrize("begun", [False, True], ids=["start", "save"])
@pytest.mark.parametrize("part", range(PARTS) if FULL else [5])
def test_a_kill_at_each_system_call(bench, begun, part):
    kills.at_each_system_call(bench, "short", begun, part, PARTS if FULL else 83)


@pytest.mark.parametrize("begun", [False, True], ids=["start", "save"])
@pytest.mark.parametrize("part", range(PARTS) if FULL else [11])
def test_an_error_at_each_system_call(bench, begun, part):
    disk_errors.at_each_system_call(bench, "short", begun, part, PARTS if FULL else 127)


@pytest.mark.parametrize("harm", damages.HARMS if FULL else ["one bit flipped", "a pickle"])
def test_a_damaged_checkpoint(bench, harm):
    damages.every_file(bench, "plain", harm, few=not FULL)


def test_a_damaged_checkpoint_and_a_signal(bench):
    damages.damaged_and_stopped(bench, "plain")


def test_nothing_but_damaged_checkpoints(bench):
    damages.all_damaged(bench, "short")


@pytest.mark.parametrize("moment", stop_signals.MOMENTS if FULL else ["tokenizing", "step", "evaluation", "saving"])
@pytest.mark.parametrize("name", stop_signals.STATUS if FULL else ["SIGTERM"])
def test_a_signal(bench, name, moment):
    stop_signals.one_signal(bench, "short", name, moment)


@pytest.mark.parametrize("at", range(30, 330, 10) if FULL else [100, 310])
def test_a_second_signal(bench, at):
    stop_signals.two_signals(bench, "short", at)


def test_a_reader_beside_a_run(bench):
    readers.beside_a_run(bench, "plain", 60 if FULL else 10)


@pytest.mark.parametrize("mode", ["in halves", "in quarters"])
def test_another_split_of_the_same_batch(bench, mode):
    processes.from_one_to(bench, mode, launched=False)


def test_a_dead_rank_and_one_process_that_goes_on(bench):
    processes.from_two_to_one(bench)


@pytest.mark.skipif(not FULL, reason="a launch takes ten seconds: make crash-test")
class TestTwoProcesses:
    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_dead_rank(self, bench, rank):
        processes.a_rank_dies(bench, "two processes", rank)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_a_dead_launcher(self, bench, number):
        processes.the_launcher_dies(bench, "two processes", number)

    def test_a_launcher_that_dies_early(self, bench):
        processes.the_launcher_dies_early(bench, "two processes")

    @pytest.mark.parametrize("number", range(3))
    def test_all_dead(self, bench, number):
        processes.all_die(bench, "two processes", number)

    def test_one_process_and_two_that_go_on(self, bench):
        processes.from_one_to(bench, "two processes without dropout", launched=True)
