"""Measure processor microseconds per training token against width, context, rows of a step and processes, as an SVG picture.

    python benchmarks/time_per_token.py [--core 0] [--fast] --picture benchmarks/time_per_token.svg

Ours with Muon, 4 layers of 256, context 256, 8 rows, a vocabulary of 2048, in float32; one of these changes at a time. Medians of
the processor's time on one pinned core (step.py); processes: of the clock, from the log of a run on toyland under torchrun, each
process with one thread, not pinned. Every point is a line of --results; those that are there are not done again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measuring import Results, arguments_of, origin
from step import own, step

from tinygpt_hf.cards.loss_curve import HEIGHT, WIDTH, curve

BASE = {"width": 256, "context": 256, "rows": 8}
SWEEPS = {
    "width": (64, 128, 192, 256, 384, 512),
    "context": (32, 64, 128, 256, 512, 1024),
    "rows": (1, 2, 4, 8, 16, 32),
    "processes": (1, 2),
}
V, ROUNDS = 2048, 5


def in_process(values: dict, rounds: int) -> float:
    """Return the processor microseconds per token."""
    width, context, rows = values["width"], values["context"], values["rows"]
    made = own((4, max(1, width // 64), width, context, rows, V), "muon", bf16=False)
    ids, labels = torch.randint(V, (2, rows, context)).unbind()
    times = [sum(step(*made, ids, labels, False)[:4]) for _ in range(rounds + 1)][1:]
    return 1000 * statistics.median(times) / (rows * context)


def in_processes(count: int, cores: set[int], steps: int) -> float:
    """Return the wall microseconds per token of a run on several processes."""
    with tempfile.TemporaryDirectory() as folder:
        words = (
            f"--dataset_name toyland --max_train_samples 3000 --vocab_size {V} --num_hidden_layers 4 --hidden_size {BASE['width']} "
            f"--block_size {BASE['context']} --per_device_train_batch_size {BASE['rows'] // count} --max_steps {steps} "
            f"--logging_steps 1 --eval_steps 0 --save_steps 0 --sample_tokens 0 --mixed_precision no --output_dir {folder}/run"
        ).split()
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--rdzv_backend", "c10d"]
        launch += ["--rdzv_endpoint", "127.0.0.1:0", "-m", "tinygpt_hf.cli", "train"]
        os.sched_setaffinity(0, cores)
        environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
        subprocess.run([sys.executable, *launch, *words], check=True, capture_output=True, env=environment)
        lines = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    return 1e6 / statistics.median(line["tokens_per_second"] for line in lines[2:] if "loss" in line)


def picture(lines: list[dict]) -> str:
    """Draw one panel per sweep."""
    panels = []
    for number, name in enumerate(SWEEPS):
        points = sorted(
            ({"step": line["value"], "us": line["microseconds"]} for line in lines if line["sweep"] == name),
            key=lambda point: point["step"],
        )
        panel = curve({"": points}, "us", f"microseconds per token over {name}", "us") or ""
        panels.append(panel.replace("<svg ", f'<svg y="{number * HEIGHT}" width="{WIDTH}" height="{HEIGHT}" ', 1))
    box = f'viewBox="0 0 {WIDTH} {HEIGHT * len(panels)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n{"".join(panels)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("time_per_token.svg"))
    cores = os.sched_getaffinity(0)
    arguments = arguments_of(parser, "time_per_token.jsonl")
    torch.set_num_threads(1)
    results = Results(arguments.results)
    for name, values in SWEEPS.items():
        for value in values[:2] if arguments.fast else values:
            if results.has(sweep=name, value=value):
                continue
            if name == "processes":
                spent = in_processes(value, cores, 4 if arguments.fast else 40)
            else:
                spent = in_process(BASE | {name: value}, 1 if arguments.fast else ROUNDS)
            results.add({"sweep": name, "value": value, "microseconds": round(spent, 2), **origin()})
    arguments.picture.write_text(picture(results.lines))


if __name__ == "__main__":
    main()
