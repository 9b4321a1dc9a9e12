"""Share code between the benchmark programs: a pinned core, results as lines of JSON, the time of a whole command.

arguments = arguments_of(parser, results="board.jsonl")     # also --core, --fast; pinned to the core
results = Results(arguments.results)
if results.has(entry="ours", seed=1): ...                   # done before
results.add({"entry": "ours", "seed": 1, **measured})
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path


class Results:
    """A file of JSON lines that is appended to, so that a restarted program skips what it has measured."""

    def __init__(self, path: Path):
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def has(self, **values) -> bool:
        """Return whether a line has these values."""
        return any(values.items() <= line.items() for line in self.lines)

    def add(self, line: dict) -> dict:
        """Append a line, show and return it."""
        line = json.loads(json.dumps(line))
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        return line


def arguments_of(
    parser: argparse.ArgumentParser, results: str | None = None, pinned: bool = True
) -> argparse.Namespace:
    """Read the command line, with --fast, where there are results --results, and if `pinned` --core: this process and those it
    starts keep to that core with one thread."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--fast", action="store_true", help="tiny sizes: does it run? the figures mean nothing")
    if results:
        parser.add_argument("--results", type=Path, default=Path(results), help="lines of JSON, added to")
    if pinned:
        parser.add_argument("--core", type=int, default=0, help="the processor core everything runs on")
    arguments = parser.parse_args()
    if results and arguments.fast:
        arguments.results = arguments.results.with_suffix(".fast.jsonl")
    if pinned:
        os.environ["OMP_NUM_THREADS"] = "1"
        if "torch" in sys.modules:  # imported before, with threads that would wait for each other
            sys.modules["torch"].set_num_threads(1)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {arguments.core})
    return arguments


def whole_command(words: list[str]) -> tuple[dict, str]:
    """Run a Python program to its end in a process of its own: what it took, start-up included, and what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "processor_seconds": round(processor, 1),
        "wall_seconds": round(time.monotonic() - begun, 1),
    }, done.stdout


def trained(words: list[str], folder: Path) -> dict:
    """Run `tinygpt train` into a folder: what it took, and run.json."""
    spent, _ = whole_command(["-m", "tinygpt_hf", "train", "--output_dir", str(folder), *words])
    return {**spent, "facts": json.loads((folder / "run.json").read_text())}


def peer(words: list[str]) -> dict:
    """Run peer.py: what it found, and what the whole program took."""
    spent, said = whole_command([str(Path(__file__).with_name("peer.py")), *words])
    return json.loads(said.splitlines()[-1]) | spent


def origin() -> dict:
    """Return the measured commit, the processor and the version of torch."""
    from importlib.metadata import version

    from tinygpt_hf.training.run_folder import processor

    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "processor": processor(), "torch": version("torch")}
