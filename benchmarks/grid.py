"""Compare the plan with a search: bits per byte after the same time, of a grid of settings and of `--time_budget` alone.

    python benchmarks/texts.py ... --output_dir texts
    python benchmarks/grid.py --texts texts --minutes 2 [--core 1] [--only plays stdlib] [--peer nanoGPT] [--fast]

Each run is a whole `tinygpt train` in a process of its own on one pinned core, from the text to the saved model, with a budget; it
is judged by the bits per byte of its held-out text, the same documents for all. Grid: four shapes by three rates, the
quickstart's settings among them. `--peer`: a checkout of nanoGPT, whose published CPU shape then trains on the characters of
the same text for the same time. Every run is a line of --results; those that are there are not done again. At the end a table.
"""

import argparse
import tempfile
from pathlib import Path

from measuring import Results, arguments_of, peer, trained
from texts import REPORT

SHAPES = {  # name: layers, width, vocabulary, rows of 256 in a step; the first two were added, as the winner lay on the edge
    "2 x 64": (2, 64, 2048, 8),
    "2 x 64, 4096 tokens": (2, 64, 4096, 8),
    "3 x 128": (3, 128, 2048, 8),
    "4 x 192, the quickstart's": (4, 192, 2048, 8),
    "4 x 256": (4, 256, 4096, 8),
    "6 x 384": (6, 384, 8192, 8),
}
RATES = (0.5, 1.0, 2.0)  # times the quickstart's
ADAMW, MUON = 0.008, 0.02
PLANNED, PEER = "planned", "nanoGPT"


def flags(shape: str, rate: float) -> list[str]:
    """Return the command-line flags of a point of the grid."""
    layers, width, vocabulary, rows = SHAPES[shape]
    values = {
        "num_hidden_layers": layers, "hidden_size": width, "vocab_size": vocabulary, "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 1, "block_size": 256, "learning_rate": ADAMW * rate,
        "muon_learning_rate": MUON * rate, "weight_decay": 0.0, "hidden_dropout": 0.0, "validation_split_percentage": 2.0,
    }  # fmt: skip
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def run(text: Path, minutes: float, words: list[str]) -> dict:
    """Train in a process of its own; return the result, the plan, and processor and wall time."""
    words = ["--train_file", str(text), "--time_budget", f"{round(60 * minutes)}s", *words]
    if "--validation_split_percentage" not in words:
        words += ["--validation_split_percentage", "2.0"]
    with tempfile.TemporaryDirectory() as folder:
        made = trained(words, Path(folder, "run"))
    facts = made.pop("facts")
    return {
        "bits_per_byte": facts["result"]["eval_bits_per_byte"],
        "steps": facts["result"]["steps"],
        **made,
        "plan": facts["plan"],
        "came_true": facts["came_true"],
    }


def table(lines: list[dict]) -> str:
    """Format the best of the grid, the plan and the peer for each text, and the predictions beside what was measured."""
    words = ["text, minutes: best of the grid | planned, over it | nanoGPT"]
    for text, minutes in dict.fromkeys((line["text"], line["minutes"]) for line in lines):
        here = {line["name"]: line for line in lines if (line["text"], line["minutes"]) == (text, minutes)}
        grid = {name: line["bits_per_byte"] for name, line in here.items() if name not in (PLANNED, PEER)}
        best = min(grid, key=grid.__getitem__, default=None)
        planned, peer = (here.get(name, {}).get("bits_per_byte") for name in (PLANNED, PEER))
        share = f"{planned:.3f}, {planned / grid[best] - 1:+.1%}" if planned and best else planned
        words.append(f"{text}, {minutes:g}: {grid.get(best, 0):.3f} ({best}) | {share} | {peer}")
    done = [line for line in lines if line["name"] == PLANNED]
    inside = sum(line["plan"]["low"] <= line["bits_per_byte"] <= line["plan"]["high"] for line in done)
    words.append(f"planned runs: {len(done)}, bits per byte inside the interval in {inside}")
    for name in ("seconds", "memory_bytes"):
        ratios = sorted(line["came_true"][name] / line["plan"][name] for line in done)
        words.append(f"{name}, came true over planned: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return "\n".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True, help="folder that texts.py made")
    parser.add_argument("--only", nargs="*", default=list(REPORT), help="texts")
    parser.add_argument("--minutes", type=float, default=2.0, help="of the whole command")
    parser.add_argument("--names", nargs="*", help=f"runs; default the grid, `{PLANNED}` and, with --peer, `{PEER}`")
    parser.add_argument("--peer", type=Path, help="a checkout of nanoGPT")
    arguments = arguments_of(parser, "grid.jsonl")
    results, grid = (
        Results(arguments.results),
        {f"{shape}, rates x{rate:g}": flags(shape, rate) for shape in SHAPES for rate in RATES},
    )
    minutes = 0.5 if arguments.fast else arguments.minutes
    names = arguments.names or [
        PLANNED,
        *list(grid)[: 1 if arguments.fast else None],
        *([PEER] if arguments.peer else []),
    ]
    for text in arguments.only[: 1 if arguments.fast else None]:
        for name in names:
            key = {"text": text, "minutes": minutes, "name": name}
            if results.has(**key):
                continue
            path = arguments.texts / f"{text}.jsonl"
            if name == PEER:
                made = peer(["--text", str(path), "--seconds", str(60 * minutes), "--checkout", str(arguments.peer)])
            else:
                made = run(path, minutes, grid.get(name, []))
            results.add({**key, **made})
    print(table(results.lines))


if __name__ == "__main__":
    main()
