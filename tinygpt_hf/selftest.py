"""Check that this machine computes correctly, in under a minute: `tinygpt selftest`.

Each check computes the same result in two ways on a tiny model trained here, and compares the difference with a bound. For
example, it trains with micro-batches and with full batches, with one process and with two, and decodes with and without a
cache. Training runs on the CPU, the other checks on the device that `auto` selects.
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
# Relative rounding errors of float32 sums in another order: in logits, and in the losses of a few training steps.
LOGITS_BOUND, LOSSES_BOUND = 1e-4, 1e-5
BATCH, LENGTH = 4, 48


class Bench:
    """The shared inputs of the checks: a folder, an uninterrupted run in it, its model, and a batch with its logits."""

    def __init__(self, folder: Path):
        self.folder = folder

    def settings(self, name: str, **training) -> tuple:
        """Return the settings of a run in the folder `name`."""
        return MODEL, DATA, TOKENIZER, replace(TRAINING, output_dir=str(self.folder / name), **training)

    def run(self, name: str, **training) -> Path:
        """Train in the folder `name` and return its path."""
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
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(4, self.model.config.vocab_size, (BATCH, LENGTH), generator=generator)
        return ids.to(self.model.device)

    @cached_property
    def logits(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(self.ids, use_cache=False).logits


def _logits_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest absolute difference, divided by the largest absolute value."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def _losses_difference(one: Path, other: Path) -> float:
    """Return the largest relative difference between the losses of two runs."""
    losses = [[line["loss"] for line in read_log(run / "log.jsonl") if "loss" in line] for run in (one, other)]
    if not len(losses[0]) == len(losses[1]) == TRAINING.max_steps:
        return math.inf
    return max(abs(a - b) / b for a, b in zip(*losses, strict=True))


def _weights_difference(one: Path, other: Path) -> float:
    """Return the largest absolute difference between the weights of two runs."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return max(float((a[name] - b[name]).abs().max()) for name in b) if a.keys() == b.keys() else math.inf


def accumulation(bench: Bench) -> tuple[float, float]:
    """Compare the losses of runs with four micro-batches and with one batch per step."""
    run = bench.run("parts", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    return _losses_difference(run, bench.whole), LOSSES_BOUND


def processes(bench: Bench) -> tuple[float, float]:
    """Compare the losses of runs with two processes and with one."""
    config = bench.folder / "two.yaml"
    config.write_text(to_yaml([*bench.settings("two", per_device_train_batch_size=4)]), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared = {**os.environ, **group, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "tinygpt_hf", "train", "--config", str(config)]
    both = [
        subprocess.Popen(
            command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    errors = [process.communicate()[1].decode(errors="replace") for process in both]
    if any(process.returncode for process in both):
        raise RuntimeError("".join(errors).strip().splitlines()[-1])
    return _losses_difference(bench.folder / "two", bench.whole), LOSSES_BOUND


def resume(bench: Bench) -> tuple[float, float]:
    """Compare the weights of a run resumed halfway and of an uninterrupted one."""
    halfway = str(bench.whole / f"checkpoint-{TRAINING.save_steps}")
    return _weights_difference(bench.run("resumed", resume_from_checkpoint=halfway), bench.whole), 0.0


@torch.no_grad()
def cache(bench: Bench) -> tuple[float, float]:
    """Compare logits computed step by step with a cache and at once without."""
    past, logits = None, []
    for part in bench.ids.split((LENGTH // 2, *[1] * (LENGTH - LENGTH // 2)), 1):
        output = bench.model(part, past_key_values=past, use_cache=True)
        past = output.past_key_values
        logits.append(output.logits)
    return _logits_difference(torch.cat(logits, 1), bench.logits), LOGITS_BOUND


def engine(bench: Bench) -> tuple[float, float]:
    """Compare the logits of the decoding engine and of the model."""
    engine, rows, half = Engine(bench.model), bench.ids.tolist(), LENGTH // 2
    logits = [engine.prefill([row[:half] for row in rows])]
    logits += [engine.decode([row[k] for row in rows]) for k in range(half, LENGTH)]
    return _logits_difference(torch.stack(logits, 1), bench.logits[:, half - 1 :]), LOGITS_BOUND


@torch.no_grad()
def saving(bench: Bench) -> tuple[float, float]:
    """Compare the logits of a model before saving and after loading it again."""
    with silent_transformers():
        bench.model.save_pretrained(bench.folder / "saved")
        bench.loaded[1].save_pretrained(bench.folder / "saved")
    loaded, _ = load_model(str(bench.folder / "saved"), dtype="float32")
    return _logits_difference(loaded(bench.ids, use_cache=False).logits, bench.logits), 0.0


@torch.no_grad()
def attention(bench: Bench) -> tuple[float, float]:
    """Compare the logits of eager attention and of SDPA."""
    implementation = bench.model.config._attn_implementation
    bench.model.set_attn_implementation("eager")
    try:
        return _logits_difference(bench.model(bench.ids, use_cache=False).logits, bench.logits), LOGITS_BOUND
    finally:
        bench.model.set_attn_implementation(implementation)


@torch.no_grad()
def half_precision(bench: Bench) -> tuple[float, float]:
    """Compare bfloat16 logits with float32 logits of the same rounded weights."""
    model, _ = load_model(str(bench.whole), dtype="bfloat16")
    logits = model(bench.ids, use_cache=False).logits.float()
    exact, _ = load_model(str(bench.whole), dtype="float32")
    for weight in exact.parameters():
        weight.data = weight.data.bfloat16().float()  # only the arithmetic is tested, not the rounding of weights
    expected = exact(bench.ids, use_cache=False).logits
    # each layer rounds about 16 tensors, embeddings, norm and head another four; the variances of independent errors add up
    roundings = 16 * exact.config.num_hidden_layers + 4
    error = float((logits - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    return error, torch.finfo(torch.bfloat16).eps / 2 * roundings**0.5


def tokenizers(bench: Bench) -> tuple[float, float]:
    """Count the texts that encoding and decoding change, for each type of tokenizer."""
    failures = 0
    for kind in ("bpe", "char", "byte"):
        tokenizer = train_tokenizer(TEXTS, kind, vocab_size=300)
        for text in TEXTS:
            ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            failures += tokenizer.decode(ids) != text
    return float(failures), 0.0


ROWS = {  # line of the table -> its check, which returns (difference, bound)
    "four micro-batches equal one batch": accumulation,
    "two processes equal one": processes,
    "a resumed run equals one never stopped": resume,
    "with a cache equals without": cache,
    "the decoding engine equals the model": engine,
    "saved equals loaded": saving,
    "eager attention equals SDPA": attention,
    "bfloat16 is as near as its roundings allow": half_precision,
    "text comes back from its tokens": tokenizers,
}


@dataclass(frozen=True)
class Result:
    """The result of one check: its figure, which must not exceed the bound, or the error that ended it."""

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


def check(row: str, compute: Callable[[Bench], tuple[float, float]], bench: Bench) -> Result:
    """Run one check; any exception becomes a failed result."""
    try:
        figure, bound = compute(bench)
    except Exception as error:  # from any library: finding such failures is the purpose
        words = (str(error).splitlines() or [""])[0][:120]
        return Result(row, None, None, False, printable(f"{type(error).__name__}: {words}"))
    return Result(row, figure, bound, figure <= bound)


def results() -> Iterator[Result]:
    """Run all checks one after another in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tinygpt-selftest-") as folder, contextlib.ExitStack() as after:
        threads = torch.get_num_threads()
        after.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)  # more threads slow a tiny model down
        bench = Bench(Path(folder))
        for row, compute in ROWS.items():
            yield check(row, compute, bench)


def selftest(say: Callable[[str], None], output_file: str | None = None) -> bool:
    """Run all checks and `say` a table for a bug report, also written to `output_file` as JSON; returns whether all hold."""
    output = check_output(Path(output_file)) if output_file else None
    say(f"{'row':<54}{'figure':>9}{'at most':>13}")
    every = []
    for result in results():
        every.append(result)
        say(result.line)
    holds = sum(result.holds for result in every)
    say(f"{holds} of {len(every)} rows hold")
    machine = {"processor": processor(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    known = versions()
    say(", ".join(f"{name} {value}" for name, value in (*machine.items(), *known.items())))
    if output:
        rows = [asdict(result) for result in every]
        storage.write_json(output, {"holds": holds == len(every), "rows": rows, "machine": machine, "versions": known})
    return holds == len(every)
