"""Runs that are killed: their modes, the uninterrupted run each must equal, and what must hold at death and at the end.

Nothing here asks the package whether a file is sound: hashes, tensors and log lines are read again by hand.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
SEED = int(os.environ.get("TINYGPT_CRASH_SEED", "5"))
FULL = os.environ.get("TINYGPT_CRASH") == "full"
PATIENCE = 300.0  # seconds for a run of one second: only a run that hangs takes longer

BASE = {
    "dataset_name": "toyland", "max_train_samples": 30, "validation_split_percentage": 15, "tokenizer_type": "byte",
    "block_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_dropout": 0.1,
    "mixed_precision": "no", "device": "cpu", "logging_steps": 1, "eval_steps": 3, "save_steps": 2, "sample_tokens": 3,
    "max_steps": 8, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 16,
}  # fmt: skip
TEXT = {"dataset_name": None, "max_train_samples": None, "train_file": "text.txt", "document_separator": "blank_line"}
MODES = {
    "plain": {},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    "workers": {"dataloader_num_workers": 2, "per_device_train_batch_size": 3},
    "one epoch": {**TEXT, "max_steps": None, "num_train_epochs": 1, "per_device_train_batch_size": 7},
    "two and a half epochs": {
        **TEXT, "max_steps": None, "num_train_epochs": 2.5, "per_device_train_batch_size": 5,
        "gradient_accumulation_steps": 2, "shift_rows": "false",
    },
    "three epochs": {
        **TEXT, "max_steps": None, "num_train_epochs": 3, "per_device_train_batch_size": 9, "dataloader_num_workers": 2,
    },
    "words": {**TEXT, "tokenizer_type": None, "vocab_size": 300, "optim": "adamw", "num_hidden_layers": 2},
    "chat": {**TEXT, "document_separator": None, "train_file": "chat.jsonl", "shift_rows": "false"},
    "stream": {
        **TEXT, "document_separator": None, "train_file": None, "dataset_name": "streamed", "streaming": "true",
        "attention_dropout": 0.2, "stream_window": 2688, "per_device_train_batch_size": 14,
    },
    "signs of life": {"logging_steps": 3, "save_steps": 4, "eval_steps": 2, "max_steps": 10, "warmup_steps": 3},
    "without dropout": {"hidden_dropout": 0.0},
    "in halves": {"hidden_dropout": 0.0, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "in quarters": {"hidden_dropout": 0.0, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "two processes": {"per_device_train_batch_size": 2, "max_steps": 60, "save_steps": 10, "eval_steps": 15},
    "two processes without dropout": {"per_device_train_batch_size": 2, "hidden_dropout": 0.0},
    "short": {"max_steps": 6},
}  # fmt: skip


def words_of(mode: str, folder: Path, **more) -> list[str]:
    """The command line of a mode."""
    settings = {**BASE, **MODES[mode], **more}
    words = [[f"--{name}", str(value)] for name, value in settings.items() if value is not None]
    return ["train", "--output_dir", str(folder), *(word for pair in words for word in pair)]


def save_steps(mode: str) -> int:
    return {**BASE, **MODES[mode]}["save_steps"]


def write_sources(folder: Path) -> None:
    """What the modes read, under the names they use: the runs are started in this folder."""
    import pyarrow
    from pyarrow import parquet

    chooser = random.Random(7)
    nouns, verbs = ("dog", "ball", "girl", "tree", "boat", "king"), ("saw", "took", "found", "drew")
    texts = []
    for _ in range(60):
        words = [f"The {chooser.choice(nouns)} {chooser.choice(verbs)} a {chooser.choice(nouns)}." for _ in range(3)]
        texts.append(" ".join(words))
    (folder / "text.txt").write_text("\n\n".join(texts))
    chats = [
        [{"role": "user", "content": f"What {text.split()[1]}?"}, {"role": "assistant", "content": text}]
        for text in texts
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    (folder / "streamed").mkdir()
    parquet.write_table(pyarrow.table({"text": texts}), folder / "streamed" / "train.parquet", row_group_size=8)


@dataclass
class Started:
    """A process under way; `output` is where its standard output and error go."""

    process: int
    output: Path
    began: float

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process, number)  # safe: nobody has waited for it, so the number is still its own


@dataclass
class Ended:
    """`status` is negative for a process that a signal killed; `said` is what it wrote."""

    status: int
    said: str
    seconds: float

    @property
    def last_line(self) -> str:
        return self.said.strip().rpartition("\n")[2]


@dataclass
class Figures:
    """What the trials came to, added up over them and over the processes of pytest by lines in a file."""

    path: Path

    def add(self, **values: int) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def total(self) -> dict[str, int]:
        names = ("kills", "errors", "damaged checkpoints", "signals", "restarts", "reads")
        counts = dict.fromkeys(
            (*names, "differing losses", "differing weights", "failed restarts", "most steps lost"), 0
        )
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            for name, value in json.loads(line).items():
                counts[name] = max(counts[name], value) if name.startswith("most") else counts[name] + value
        return counts


@dataclass(eq=False)
class Bench:
    """Starts runs in forked processes below `folder`, and knows how every mode ends when nothing goes wrong."""

    folder: Path
    figures: Figures
    _whole: dict[str, tuple[Path, float]] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self):
        write_sources(self.folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.server = subprocess.Popen(
            [sys.executable, CHILD, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "server.err", "wb"),
            cwd=self.folder,
            env=environment,
            text=True,
        )
        self.ready = False

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()

    def _ask(self, request: dict):
        if not self.ready:
            assert self.server.stdout.readline() == "ready\n", (self.folder / "server.err").read_text()
            self.ready = True
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def new(self, name: str = "run") -> Path:
        """A place for a run, in a folder of its own."""
        self._count += 1
        place = self.folder / f"{self._count}-{name.replace(' ', '-')}"
        place.mkdir()
        return place / "run"

    def start(self, words: list[str], fault: dict | None = None) -> Started:
        self._count += 1
        output = self.folder / f"{self._count}.out"
        process = self._ask({"run": words, "fault": fault, "output": str(output)})
        return Started(process, output, time.monotonic())

    def wait(self, started: Started, seconds: float = PATIENCE) -> Ended:
        status = self._ask({"wait": started.process, "seconds": seconds})
        if status is None:
            started.kill()
            self._ask({"wait": started.process, "seconds": 30})
            raise AssertionError(f"it hung for {seconds} s: {started.output.read_text()}")
        said = started.output.read_text(errors="replace")
        started.output.unlink()
        return Ended(status, said, time.monotonic() - started.began)

    def run(self, words: list[str], fault: dict | None = None) -> Ended:
        return self.wait(self.start(words, fault))

    def whole(self, mode: str) -> tuple[Path, float]:
        """The run of a mode that nobody interrupted, and how many seconds it took."""
        if mode not in self._whole:
            folder = self.new(mode)
            ended = self.run(words_of(mode, folder))
            assert ended.status == 0, ended.said
            steps = [line["step"] for line in log_lines(folder) if "loss" in line]
            assert steps == sorted(set(steps)) and len(steps) >= 3
            self._whole[mode] = folder, ended.seconds
        return self._whole[mode]

    def same_command_goes_on(self, mode: str, folder: Path) -> Ended:
        """Run the command again: it must end as the run that nobody interrupted, value for value and bit for bit."""
        newest, logged = newest_step(folder), last_logged(folder)
        ended = self.run(words_of(mode, folder))
        self.check_end(mode, folder, ended, newest, logged)
        return ended

    def check_end(self, mode: str, folder: Path, ended: Ended, newest: int, logged: int) -> None:
        """Compare with the uninterrupted run, count, and only then complain."""
        whole, _ = self.whole(mode)
        losses = weights = []
        if ended.status == 0:
            losses, weights = differing_log(folder, whole), differing_files(folder, whole)
        self.figures.add(
            **{
                "restarts": 1,
                "failed restarts": int(ended.status != 0),
                "differing losses": len(losses),
                "differing weights": len(weights),
                "most steps lost": max(0, logged - newest),
            }
        )
        assert ended.status == 0, f"{folder}: the same command failed: {ended.said}"
        assert not losses, f"{folder}: {losses}"
        assert not weights, f"{folder}: {weights}"
        assert f"training: from step {newest} " in ended.said or newest == 0 or "already finished" in ended.said, (
            ended.said
        )
        assert logged - newest <= save_steps(mode), f"{logged - newest} steps were lost"
        assert not list(folder.rglob("tmp-*")), f"left over: {list(folder.rglob('tmp-*'))}"
        shutil.rmtree(folder)


def log_lines(folder: Path) -> list[dict]:
    """log.jsonl; a last line that the killed process has not finished is no line."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def last_logged(folder: Path) -> int:
    return max((line["step"] for line in log_lines(folder)), default=0)


def newest_step(folder: Path) -> int:
    return max((int(path.name.partition("-")[2]) for path in checkpoints(folder)), default=0)


def checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]


def differing_log(folder: Path, whole: Path) -> list[str]:
    """The lines of log.jsonl that differ in any value but the speed, in words."""
    assert (folder / "log.jsonl").read_bytes().endswith(b"\n")
    here, there = (
        [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in log_lines(f)] for f in (folder, whole)
    )
    return [f"{a} instead of {b}" for a, b in zip(here, there, strict=False) if a != b] + (
        [f"{len(here)} lines instead of {len(there)}"] if len(here) != len(there) else []
    )


def differing_files(folder: Path, whole: Path) -> list[str]:
    """The weights, optimizer memories and states that differ in any bit, and results that differ in more than time."""
    wanted = {path.relative_to(whole): path for path in whole.rglob("*.safetensors")}
    wanted |= {path.relative_to(whole): path for path in whole.rglob("state.json")}
    different = [f"{name}" for name, path in wanted.items() if not same_bytes(folder / name, path)]
    results = [json.loads((f / "run.json").read_text())["result"] for f in (folder, whole)]
    results = [{k: v for k, v in one.items() if not k.endswith("seconds") and k != "output_dir"} for one in results]
    return different + ([f"{results[0]} instead of {results[1]}"] if results[0] != results[1] else [])


def same_bytes(one: Path, other: Path) -> bool:
    return one.is_file() and one.read_bytes() == other.read_bytes()


def check_death(folder: Path, mode: str) -> None:
    """What must hold at any instant: checkpoints are complete, the log has whole lines, what was a model once still is."""
    lines = log_lines(folder)
    for path in checkpoints(folder):
        assert hashes_agree(path), f"{path} is torn"
        assert loads(path), f"{path} is no model"
    saved = [line for line in lines if line["step"] > save_steps(mode) and "loss" in line]
    evaluated = {**BASE, **MODES[mode]}["eval_steps"]
    if saved or (folder / "config.json").is_file():
        assert loads(folder), f"{folder} is no model"
    if any(line["step"] > evaluated for line in lines) or (folder / "best" / "config.json").is_file():
        assert loads(folder / "best"), f"{folder}/best is no model"


def hashes_agree(checkpoint: Path) -> bool:
    """Is every file of the checkpoint as its manifest says, and every file in it?"""
    known = json.loads((checkpoint / "manifest.json").read_text())["files"]
    found = {path.name for path in checkpoint.iterdir()} - {"manifest.json"}
    return found == set(known) and all(
        hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == facts["sha256"] for name, facts in known.items()
    )


def loads(model: Path) -> bool:
    """Would it load? Whole tensors under a whole header, and JSON beside them (`from_pretrained` takes too long for every kill)."""
    weights = (model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + length])
    end = max(value["data_offsets"][1] for name, value in header.items() if name != "__metadata__")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        json.loads((model / name).read_text())
    return len(weights) == 8 + length + end
