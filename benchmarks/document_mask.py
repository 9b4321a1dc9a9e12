"""Measure the cost of --packing bestfit and --document_mask: the plan's documents per second, a step's time, on a GPU its memory.

    python benchmarks/document_mask.py --documents 1000000 --block_size 512

Rows of random ids in documents as long as short stories (log-normal, median 180 tokens). All variants train the same small model
in turns on as many slots, so that a busy machine disturbs all alike; the processor's time counts, on a GPU the wall's. Medians
are printed, and ratios to `wrap` without a mask. The mask itself is one byte per pair of slots, block_size^2 per row.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.rows.batches import StepBatches
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.store import Rows, RowWriter
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.training.step import micro_batch_loss

VARIANTS = [("wrap", False), ("wrap", True), ("bestfit", False), ("bestfit", True)]
V = 4096


def lengths(count: int, block_size: int) -> np.ndarray:
    return np.clip(np.random.default_rng(0).lognormal(5.2, 0.7, count), 2, 4 * block_size).astype(np.int64)


def step_time(model, rows: Rows, step: int, mask: bool, args) -> tuple[float, int]:
    """Return seconds and peak bytes (0 without a GPU) of one forward and backward pass."""
    on_gpu = model.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    steps = StepBatches(RowView(rows, args.block_size, seed=0), args.batch, 10**6, document_mask=mask)
    began = clock()
    (batch,), tokens = steps.at(step, args.batch)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=args.bf16):
        loss = micro_batch_loss(model, batch, tokens, model.device)
    loss.backward()
    model.zero_grad()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - began, torch.cuda.max_memory_allocated() if on_gpu else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000, help="how many are packed")
    parser.add_argument("--block_size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8, help="rows per step")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as tmp:
        folder, random = Path(tmp) / "rows", np.random.default_rng(1)
        with RowWriter(folder, V) as writer:
            for length in lengths(args.documents, args.block_size):
                writer.add(random.integers(1, V, length))
        began = time.process_time()
        packed = BestFitRows(folder, args.block_size)
        took = time.process_time() - began
        print(f"{packed.description}: {took:.2f} s, {args.documents / took / 1e6:.2f} million documents/s")

        torch.manual_seed(0)
        config = TinyGPTConfig(
            vocab_size=V, hidden_size=256, num_hidden_layers=6, num_attention_heads=8, n_positions=args.block_size
        )
        model = TinyGPTForCausalLM._from_config(config, attn_implementation=args.attention).train()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        found: dict = {variant: [] for variant in VARIANTS}
        shown = {"wrap": Rows(folder), "bestfit": packed}
        for step in range(args.rounds + 1):
            for packing, mask in VARIANTS:
                found[packing, mask].append(step_time(model, shown[packing], step, mask, args))
        print("| packing | document mask | slots/s | time of a step | peak memory |\n|---|---|---|---|---|")
        base = None
        for (packing, mask), times in found.items():
            seconds, peak = (statistics.median(column) for column in zip(*times[1:], strict=True))  # the first warms up
            base = base or seconds
            slots = args.batch * args.block_size / seconds
            memory = f"{peak / 2**20:.0f} MiB" if peak else "not measured"
            print(f"| {packing} | {'yes' if mask else 'no'} | {slots:.0f} | x {seconds / base:.3f} | {memory} |")


if __name__ == "__main__":
    main()
