"""Measure the cost of a safe checkpoint: ours, hashed and synced, beside a plain write and fsync of the same bytes.

    python benchmarks/save_speed.py [--folder DIR] [--rounds 5]

The model is that of configs/fineweb-edu-124m.yaml with its Muon + AdamW state. Prints the median seconds of both, taken in
turns, their ratio, and what checking every hash costs at loading, beside reading the same files.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, storage
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.settings.parsing import load_yaml
from tinygpt_hf.training import checkpoint
from tinygpt_hf.training.checkpoint import RunState
from tinygpt_hf.training.optimizer import make_optimizer

CONFIG = Path(__file__).parent.parent / "configs" / "fineweb-edu-124m.yaml"


def timed(work, *arguments) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=None, help="a folder on the disk to measure; default the temporary one")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    shape = {name: value for name, value in load_yaml(str(CONFIG))["model"].items() if value is not None}
    model = TinyGPTForCausalLM(TinyGPTConfig(**shape, vocab_size=32768))
    optimizer = make_optimizer(model, TrainingArguments(), "no")
    for group in optimizer.param_groups:  # what a first step leaves behind, without its minute of arithmetic
        for parameter in group["params"]:
            keys = ("momentum_buffer",) if group["muon"] else ("exp_avg", "exp_avg_sq")
            optimizer.state[parameter] = {key: torch.randn_like(parameter) for key in keys}
    files = {"config.json": model.config.to_json_string().encode()}
    weights, memory = checkpoint.model_tensors(model), checkpoint.optimizer_tensors(optimizer)

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)

        def ours(step: int) -> None:
            parts = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: memory}
            checkpoint.save_checkpoint(folder, files, parts, RunState(step=step), {})

        def plain(step: int) -> None:
            """Write the same files plainly and sync each."""
            for part, tensors in (("a", weights), ("b", memory)):
                with open(folder / f"plain-{step}-{part}", "wb") as file:
                    for piece in checkpoint.safetensors_chunks(tensors):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())

        seconds: dict[str, list[float]] = {"ours": [], "plain": [], "check": [], "read": []}
        for step in range(options.rounds):
            for kind, save in (("ours", ours), ("plain", plain)) if step % 2 else (("plain", plain), ("ours", ours)):
                seconds[kind].append(timed(save, step))
            saved = folder / f"checkpoint-{step}"
            size = sum(path.stat().st_size for path in saved.iterdir())
            seconds["read"].append(timed(read_all, saved))
            seconds["check"].append(timed(storage.find_damage, saved))
            storage.remove_tree(saved)
            for path in folder.glob("plain-*"):
                path.unlink()

    ratios = [a / b for a, b in zip(seconds["ours"], seconds["plain"], strict=True)]
    middle = {kind: statistics.median(values) for kind, values in seconds.items()}
    print(f"{model.num_parameters() / 1e6:.0f}M parameters, {size / 1e9:.2f} GB a checkpoint, {options.rounds} rounds")
    print(f"save, hashed and synced   {middle['ours']:.2f} s")
    print(f"plain write and fsync     {middle['plain']:.2f} s")
    print(f"ratio                     {statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"check every hash          {middle['check']:.2f} s, {size / middle['check'] / 1e9:.2f} GB/s")
    print(f"read the files            {middle['read']:.2f} s, {size / middle['read'] / 1e9:.2f} GB/s")


def read_all(folder: Path) -> None:
    """Yield the bytes of all files of a folder in chunks."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            while file.read(1 << 23):
                pass


if __name__ == "__main__":
    main()
