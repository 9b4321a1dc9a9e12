"""A bench for every process of pytest, and the figures of all of them at the end."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("runs", "kills", "disk_errors", "damages", "stop_signals", "processes", "readers")

from runs import Bench, Figures  # noqa: E402 - after its assertions may be rewritten


def pytest_configure(config):
    """One file of figures, made by the first process and known to its workers through the environment."""
    if not hasattr(config, "workerinput"):
        descriptor, name = tempfile.mkstemp(prefix="tinygpt-crash-", suffix=".jsonl")
        os.close(descriptor)
        os.environ["TINYGPT_CRASH_FIGURES"] = name


def pytest_terminal_summary(terminalreporter):
    path = Path(os.environ["TINYGPT_CRASH_FIGURES"])
    totals = Figures(path).total()
    if any(totals.values()):
        terminalreporter.section("crash suite")
        for name, value in totals.items():
            terminalreporter.write_line(f"{name:<22}{value:>6}")


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        Path(os.environ["TINYGPT_CRASH_FIGURES"]).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def bench():
    """Runs live in memory where that is possible: a killed process loses nothing that the kernel has, synced or not."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30 else None
    folder = Path(tempfile.mkdtemp(prefix="tinygpt-crash-", dir=place))
    made = Bench(folder, Figures(Path(os.environ.get("TINYGPT_CRASH_FIGURES", folder / "figures.jsonl"))))
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)
