"""Measure processor time to a validation loss of 1.88 nats per character: our recipe against stock GPT-2 in a plain AdamW loop.

    python benchmarks/time_to_loss.py --train_file tinyshakespeare.txt [--seeds 3] [--core 0] [--fast]

Both sides have nanoGPT's published CPU shape (4 layers, 4 heads, 128 wide, context 64, batch 12), train on the first 90 % of
TinyShakespeare and are judged on all of the last 10 %, in disjoint windows of 64. They take turns on one pinned core in one
go. Of their steps, training alone counts, not start-up, evaluation or saving. Ours is configs/shakespeare-char.yaml run to its
end; beside its steps stands the whole command, from the start of Python to its end, with evaluations, samples and saving. The
other is GPT2LMHeadModel with nanoGPT's settings over a horizon of 2400 iterations (at 2000 it does not get there), evaluated
every 25 iterations from 1500 on and stopped when it first passes. Every side of a seed is a line of --results; those that are
there are not done again.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

from measuring import Results, arguments_of, origin, trained

GOAL, STOCK = 1.88, "stock GPT-2"
BLOCK, BATCH = 64, 12
FAST = "--max_steps 6 --eval_steps 3".split()
HORIZON, WARMUP, PEAK, LOWEST = 2400, 100, 1e-3, 1e-4  # nanoGPT's config for a CPU, horizon lengthened


class Clock:
    """Add up the processor and wall seconds between each start and stop."""

    def __init__(self):
        self.cpu = self.wall = 0.0

    def __enter__(self):
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_):
        self.cpu += time.process_time() - self._cpu
        self.wall += time.perf_counter() - self._wall


def timed_training(model, data, tokenizer, training):
    """Train; return (result, processor and wall time of its steps)."""
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


def ours(text: Path, seed: int, fast: bool) -> dict:
    """Measure our recipe: its loss, the time of its steps and of the whole command."""
    from tinygpt_hf.commands import TRAINING
    from tinygpt_hf.settings.parsing import parse

    config = Path(__file__).parent.parent / "configs" / "shakespeare-char.yaml"
    words = ["--config", str(config), "--train_file", str(text), "--seed", str(seed), *FAST * fast]
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--output_dir {folder}/run --eval_steps 0 --sample_tokens 0".split()
        settings = parse(TRAINING, [*words, *flags])
        result, clock = timed_training(*(settings[group] for group in TRAINING))
        whole = trained(words, Path(folder, "whole"))
    command = {"command_processor_seconds": whole["processor_seconds"], "command_wall_seconds": whole["wall_seconds"]}
    return line_of(result.eval_loss, clock, result.steps) | command


def line_of(loss: float, clock: Clock, steps: int) -> dict:
    return {
        "loss": round(loss, 4), "steps": steps,
        "processor_seconds": round(clock.cpu, 2), "wall_seconds": round(clock.wall, 2),
    }  # fmt: skip


def stock(text: Path, seed: int, fast: bool) -> dict:
    """Measure GPT2LMHeadModel with torch.optim.AdamW and nanoGPT's schedule, batches drawn at random as nanoGPT does."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    characters = text.read_text(encoding="utf-8")
    ids = {c: k for k, c in enumerate(sorted(set(characters)))}
    data = torch.tensor([ids[c] for c in characters])
    border = int(0.9 * len(data))
    train, validation = data[:border], data[border:]
    shape = {
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 128,
        "n_positions": BLOCK,
        "vocab_size": len(ids),
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
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

    clock, loss, horizon, first = Clock(), math.inf, 30 if fast else HORIZON, 0 if fast else 1500
    for step in range(horizon):
        with clock:
            if step < WARMUP:
                rate = PEAK * (step + 1) / (WARMUP + 1)
            else:
                rate = LOWEST + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (horizon - WARMUP))) * (PEAK - LOWEST)
            for group in optimizer.param_groups:
                group["lr"] = rate
            starts = torch.randint(len(train) - BLOCK, (BATCH,))
            batch = torch.stack([train[k : k + BLOCK + 1] for k in starts])
            logits = model(batch[:, :-1]).logits
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step + 1 >= first and (step + 1) % 25 == 0:
            loss = validation_loss()
            if loss <= GOAL:
                break
    return line_of(loss, clock, step + 1)


def table(lines: list[dict]) -> None:
    """Print what was measured, and the ratios."""
    print(f"| seed | side | loss | steps | processor s | wall s | whole command, processor s |\n|{'---|' * 7}")
    ratios: dict[str, list[float]] = {"steps": [], "whole command over the other's steps": []}
    for line in lines:
        whole = line.get("command_processor_seconds")
        passed = "" if line["loss"] <= GOAL else f" (not {GOAL})"
        print(
            f"| {line['seed']} | {line['side']} | {line['loss']:.4f}{passed} | {line['steps']} | {line['processor_seconds']:.1f} | "
            f"{line['wall_seconds']:.1f} | {'-' if whole is None else f'{whole:.1f}'} |"
        )
        other = next((each for each in lines if each["seed"] == line["seed"] and each["side"] == STOCK), None)
        if whole is not None and other:
            for values, seconds in zip(ratios.values(), (line["processor_seconds"], whole), strict=True):
                values.append(seconds / other["processor_seconds"])
    for name, values in ratios.items():
        if values:
            print(f"ratio, {name}: median {statistics.median(values):.3f}, from {min(values):.3f} to {max(values):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train_file", type=Path, required=True, help="a copy of TinyShakespeare")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = arguments_of(parser, "time_to_loss.jsonl")
    import torch

    torch.set_num_threads(1)
    results = Results(arguments.results)
    with tempfile.TemporaryDirectory() as folder:
        text = arguments.train_file
        if arguments.fast:
            text = Path(folder, "part.txt")
            text.write_text(arguments.train_file.read_text(encoding="utf-8")[:60_000], encoding="utf-8")
        for seed in range(1, arguments.seeds + 1):
            for name, side in (("tinygpt_hf", ours), (STOCK, stock)):
                if not results.has(seed=seed, side=name):
                    results.add({"seed": seed, "side": name, **side(text, seed, arguments.fast), **origin()})
    table(results.lines)


if __name__ == "__main__":
    main()
