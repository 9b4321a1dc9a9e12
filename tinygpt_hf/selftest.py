"""Does this machine compute right? `tinygpt selftest`: each row holds a figure against its bound, in under a minute.

What must be equal is computed twice, on a tiny model trained here: by micro-batches and at once, by one process and two, with a
cache and without, and so on. Training runs on the CPU, the model's rows on the device `auto` takes.
"""

import contextlib
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file

from tinygpt_hf import storage
from tinygpt_hf.errors import printable
from tinygpt_hf.inference.engine import Engine
from tinygpt_hf.inference.samples import check_output
from tinygpt_hf.model.loading import load_model, silent_transformers
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.parsing import to_yaml
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer
from tinygpt_hf.training.log import read_log
from tinygpt_hf.training.recipe import train
from tinygpt_hf.training.run_folder import processor, versions

MODEL = ModelArguments(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
DATA = DataArguments(
    dataset_name="toyland", max_train_samples=60, block_size=64, validation_split_percentage=10, num_proc=1
)
TOKENIZER = TokenizerArguments(vocab_size=400)
TRAINING = TrainingArguments(
    max_steps=6,
    per_device_train_batch_size=8,
    mixed_precision="no",
    device="cpu",
    logging_steps=1,
    eval_steps=0,
    save_steps=3,
    sample_tokens=0,
)
TEXTS = [
    "plain words\r\n",
    "  two  spaces ",
    "Straße, naïve, e\u0301",
    "日本語 हिन्दी",
    "🙂👩‍👩‍👧",
    "\t\n\n\x00\x7f",
    "<|endoftext|>",
    "𝔘 1,000.5",
]
ROUNDING, LOSSES = (
    1e-4,
    1e-5,
)  # of float32 sums in another order: in logits, by their size; in the losses of a few steps
BATCH, LENGTH = 4, 48


class Bench:
    """Hold what the rows compute on: a folder, a run in it that nobody stopped, and its model."""

    def __init__(self, folder: Path):
        self.folder = folder

    def settings(self, name: str, **training) -> tuple:
        """Return the settings of a run in a folder of that name."""
        return MODEL, DATA, TOKENIZER, replace(TRAINING, output_dir=str(self.folder / name), **training)

    def run(self, name: str, **training) -> Path:
        """Train in a folder of that name."""
        model, data, tokenizer, settings = self.settings(name, **training)
        with torch.enable_grad():
            train(model, data, tokenizer, settings, quiet=True)
        return self.folder / name

    @cached_property
    def whole(self) -> Path:
        return self.run("whole")

    @cached_property
    def loaded(self) -> tuple:
        return load_model(str(self.whole), dtype="float32")

    @property
    def model(self):
        return self.loaded[0]

    @cached_property
    def ids(self) -> torch.Tensor:
        chances = torch.Generator().manual_seed(0)
        return torch.randint(4, self.model.config.vocab_size, (BATCH, LENGTH), generator=chances).to(self.model.device)

    @cached_property
    def logits(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(self.ids, use_cache=False).logits


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest number."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def _losses_apart(one: Path, other: Path) -> float:
    """Return the largest difference between the losses of two runs, as a share."""
    losses = [[line["loss"] for line in read_log(run / "log.jsonl") if "loss" in line] for run in (one, other)]
    if not len(losses[0]) == len(losses[1]) == TRAINING.max_steps:
        return math.inf
    return max(abs(a - b) / b for a, b in zip(*losses, strict=True))


def _weights_apart(one: Path, other: Path) -> float:
    """Return the largest difference between two files of weights."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return max(float((a[name] - b[name]).abs().max()) for name in b) if a.keys() == b.keys() else math.inf


def accumulation(bench: Bench) -> tuple[float, float]:
    """four micro-batches equal one batch"""
    return _losses_apart(
        bench.run("parts", per_device_train_batch_size=2, gradient_accumulation_steps=4), bench.whole
    ), LOSSES


def processes(bench: Bench) -> tuple[float, float]:
    """two processes equal one"""
    config = bench.folder / "two.yaml"
    config.write_text(to_yaml([*bench.settings("two", per_device_train_batch_size=4)]), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared = {**os.environ, **place, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "tinygpt_hf", "train", "--config", str(config)]
    both = [
        subprocess.Popen(
            command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    said = [process.communicate()[1].decode(errors="replace") for process in both]
    if any(process.returncode for process in both):
        raise RuntimeError("".join(said).strip().splitlines()[-1])
    return _losses_apart(bench.folder / "two", bench.whole), LOSSES


def resume(bench: Bench) -> tuple[float, float]:
    """a resumed run equals one never stopped"""
    halfway = str(bench.whole / f"checkpoint-{TRAINING.save_steps}")
    return _weights_apart(bench.run("resumed", resume_from_checkpoint=halfway), bench.whole), 0.0


@torch.no_grad()
def cache(bench: Bench) -> tuple[float, float]:
    """with a cache equals without"""
    past, found = None, []
    for part in bench.ids.split((LENGTH // 2, *[1] * (LENGTH - LENGTH // 2)), 1):
        output = bench.model(part, past_key_values=past, use_cache=True)
        past = output.past_key_values
        found.append(output.logits)
    return _distance(torch.cat(found, 1), bench.logits), ROUNDING


def engine(bench: Bench) -> tuple[float, float]:
    """the decoding engine equals the model"""
    engine, rows, half = Engine(bench.model), bench.ids.tolist(), LENGTH // 2
    found = [engine.prefill([row[:half] for row in rows])]
    found += [engine.decode([row[k] for row in rows]) for k in range(half, LENGTH)]
    return _distance(torch.stack(found, 1), bench.logits[:, half - 1 :]), ROUNDING


@torch.no_grad()
def saving(bench: Bench) -> tuple[float, float]:
    """saved equals loaded"""
    with silent_transformers():
        bench.model.save_pretrained(bench.folder / "saved")
        bench.loaded[1].save_pretrained(bench.folder / "saved")
    again, _ = load_model(str(bench.folder / "saved"), dtype="float32")
    return _distance(again(bench.ids, use_cache=False).logits, bench.logits), 0.0


@torch.no_grad()
def attention(bench: Bench) -> tuple[float, float]:
    """eager attention equals SDPA"""
    implementation = bench.model.config._attn_implementation
    bench.model.set_attn_implementation("eager")
    try:
        return _distance(bench.model(bench.ids, use_cache=False).logits, bench.logits), ROUNDING
    finally:
        bench.model.set_attn_implementation(implementation)


@torch.no_grad()
def half_precision(bench: Bench) -> tuple[float, float]:
    """bfloat16 is as near as its roundings allow"""
    model, _ = load_model(str(bench.whole), dtype="bfloat16")
    logits = model(bench.ids, use_cache=False).logits.float()
    exact, _ = load_model(str(bench.whole), dtype="float32")
    for weight in exact.parameters():
        weight.data = weight.data.bfloat16().float()  # the rounding of weights is no error of the arithmetic
    expected = exact(bench.ids, use_cache=False).logits
    # a layer rounds about 16 tensors on the way of a logit, embeddings, norm and head four; independent errors add up as roots
    roundings = 16 * exact.config.num_hidden_layers + 4
    error = float((logits - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    return error, torch.finfo(torch.bfloat16).eps / 2 * roundings**0.5


def tokenizers(bench: Bench) -> tuple[float, float]:
    """text comes back from its tokens"""
    kinds = [train_tokenizer(TEXTS, kind, vocab_size=300) for kind in ("bpe", "char", "byte")]
    others = [
        text
        for tokenizer in kinds
        for text in TEXTS
        if tokenizer.decode(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) != text
    ]
    return float(len(others)), 0.0


ROWS = (accumulation, processes, resume, cache, engine, saving, attention, half_precision, tokenizers)


@dataclass(frozen=True)
class Result:
    """Hold what a row found: its figure, which may not be above the bound, or the error that ended it."""

    row: str
    figure: float | None
    bound: float | None
    holds: bool
    error: str = ""

    @property
    def line(self) -> str:
        if self.figure is None:
            return f"{self.row:<46}FAILS   {self.error}"
        return f"{self.row:<46}{'ok' if self.holds else 'FAILS':<8}{self.figure:>9.2g}{self.bound:>13.2g}"


def check(row: Callable[[Bench], tuple[float, float]], bench: Bench) -> Result:
    """Run a row; whatever goes wrong in it is its result."""
    name = (row.__doc__ or "").strip()
    try:
        figure, bound = row(bench)
    except Exception as error:  # of any layer below: that is what is looked for
        words = (str(error).splitlines() or [""])[0][:120]
        return Result(name, None, None, False, printable(f"{type(error).__name__}: {words}"))
    return Result(name, figure, bound, figure <= bound)


def results(rows=ROWS) -> Iterator[Result]:
    """Run the rows, one after the other, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tinygpt-selftest-") as folder, contextlib.ExitStack() as after:
        threads = torch.get_num_threads()
        after.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)  # on two, sums of a tiny model wait for each other
        bench = Bench(Path(folder))
        for row in rows:
            yield check(row, bench)


def selftest(say: Callable[[str], None], output_file: str | None = None) -> bool:
    """Run all rows, `say` a table for a bug report, write it to `output_file` as JSON; returns whether every row holds."""
    output = check_output(Path(output_file)) if output_file else None
    say(f"{'row':<54}{'figure':>9}{'at most':>13}")
    found = []
    for result in results():
        found.append(result)
        say(result.line)
    holds = sum(result.holds for result in found)
    say(f"{holds} of {len(found)} rows hold")
    machine = {"processor": processor(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    known = versions()
    say(", ".join(f"{name} {value}" for name, value in (*machine.items(), *known.items())))
    if output:
        rows = [asdict(result) for result in found]
        storage.write_json(output, {"holds": holds == len(found), "rows": rows, "machine": machine, "versions": known})
    return holds == len(found)
