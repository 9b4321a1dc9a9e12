"""Processor time to a validation loss of 1.88 nats per character: our recipe against a stock GPT-2 in a plain AdamW loop.

    python benchmarks/time_to_loss.py --train_file tinyshakespeare.txt [--seeds 3] [--core 0]

Both sides have nanoGPT's published CPU shape (4 layers, 4 heads, 128 wide, context 64, batch 12), train on the first 90 % of
TinyShakespeare and are judged on all of the last 10 %, in disjoint windows of 64. They take turns on one pinned core in one
go; only training counts, not start-up, evaluation or saving. Ours is configs/shakespeare-char.yaml run to its end. The other
is GPT2LMHeadModel with nanoGPT's settings over a horizon of 2400 iterations (at 2000 it does not get there), evaluated every
25 iterations from 1500 on and stopped when it first passes.
"""

import argparse
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

GOAL = 1.88
BLOCK, BATCH = 64, 12
HORIZON, WARMUP, PEAK, LOWEST = 2400, 100, 1e-3, 1e-4  # nanoGPT's config for a CPU, horizon lengthened


class Clock:
    """Processor seconds and wall seconds of what happens between start and stop, added up."""

    def __init__(self):
        self.cpu = self.wall = 0.0

    def __enter__(self):
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_):
        self.cpu += time.process_time() - self._cpu
        self.wall += time.perf_counter() - self._wall


def timed_training(model, data, tokenizer, training):
    """(result, processor and wall time of its micro-batches and updates) of a training."""
    from tinygpt_hf.training import optimizer as optim
    from tinygpt_hf.training import recipe, step

    clock = Clock()
    timed_parts = (step, "gradients"), (step, "clipped_norm"), (optim.MuonAdamW, "step")
    originals = [(owner, name, getattr(owner, name)) for owner, name in timed_parts]

    def timed(function):
        def call(*args):
            with clock:
                return function(*args)

        return call

    for owner, name, function in originals:
        setattr(owner, name, timed(function))
    try:
        return recipe.train(model, data, tokenizer, training, quiet=True), clock
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def ours(text: Path, seed: int) -> tuple[float, Clock, int]:
    """(validation loss, time, steps) of the project's recipe."""
    from tinygpt_hf.commands import TRAINING
    from tinygpt_hf.settings.parsing import parse

    config = Path(__file__).parent.parent / "configs" / "shakespeare-char.yaml"
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--output_dir {folder}/run --eval_steps 0 --sample_tokens 0 --seed {seed}".split()
        settings = parse(TRAINING, ["--config", str(config), "--train_file", str(text), *flags])
        result, clock = timed_training(*(settings[group] for group in TRAINING))
    return result.eval_loss, clock, result.steps


def stock(text: Path, seed: int) -> tuple[float, Clock, int]:
    """The same for GPT2LMHeadModel, torch.optim.AdamW and nanoGPT's schedule, batches drawn at random as nanoGPT does."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    characters = text.read_text(encoding="utf-8")
    ids = {c: k for k, c in enumerate(sorted(set(characters)))}
    data = torch.tensor([ids[c] for c in characters])
    border = int(0.9 * len(data))
    train, validation = data[:border], data[border:]
    shape = {"n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": BLOCK, "vocab_size": len(ids)}
    model = GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False))
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99), fused=True)

    @torch.no_grad()
    def validation_loss() -> float:
        model.eval()
        nats, count = 0.0, 0
        windows = [validation[k : k + BLOCK + 1] for k in range(0, len(validation) - 1, BLOCK)]
        whole = [w for w in windows if len(w) == BLOCK + 1]
        for batch in [torch.stack(whole[k : k + 128]) for k in range(0, len(whole), 128)] + [
            w[None] for w in windows if len(w) <= BLOCK
        ]:
            logits = model(batch[:, :-1]).logits
            nats += float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            )
            count += batch[:, 1:].numel()
        model.train()
        return nats / count

    clock, loss = Clock(), math.inf
    for step in range(HORIZON):
        with clock:
            if step < WARMUP:
                rate = PEAK * (step + 1) / (WARMUP + 1)
            else:
                rate = LOWEST + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (HORIZON - WARMUP))) * (PEAK - LOWEST)
            for group in optimizer.param_groups:
                group["lr"] = rate
            starts = torch.randint(len(train) - BLOCK, (BATCH,))
            batch = torch.stack([train[k : k + BLOCK + 1] for k in starts])
            logits = model(batch[:, :-1]).logits
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step + 1 >= 1500 and (step + 1) % 25 == 0:
            loss = validation_loss()
            if loss <= GOAL:
                return loss, clock, step + 1
    return loss, clock, HORIZON


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", type=Path, required=True, help="a copy of TinyShakespeare")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--core", type=int, default=0, help="the processor core both sides run on")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    ratios = []
    print(f"{'seed':>4} {'side':<12} {'loss':>7} {'steps':>6} {'cpu s':>8} {'wall s':>8}")
    for seed in range(1, arguments.seeds + 1):
        times = {}
        for name, side in (("tinygpt_hf", ours), ("stock GPT-2", stock)):
            loss, clock, steps = side(arguments.train_file, seed)
            passed = "" if loss <= GOAL else f"   did not reach {GOAL}"
            print(f"{seed:>4} {name:<12} {loss:7.4f} {steps:>6} {clock.cpu:8.1f} {clock.wall:8.1f}{passed}", flush=True)
            times[name] = clock.cpu if loss <= GOAL else math.nan
        ratios.append(times["tinygpt_hf"] / times["stock GPT-2"])
    print(
        f"ratio of processor times to {GOAL}: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
