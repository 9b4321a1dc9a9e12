"""The laptop board: bits per byte of held-out books after 300 processor seconds of the whole command on one core.

    python benchmarks/board.py --books classics.jsonl.gz [--seeds 3] [--core 0] [--peer nanoGPT] [--only default] [--fast]

The text is fixed: the classics of the authors that no benchmark tunes on (texts.py), in their order, MEGABYTES of them; the last
TAIL bytes are held out, and every entry reads and is judged on the same two files. What counts is everything from the start of the
program to its end: imports, tokenizer, text, training, evaluation, saving. Ours keep to the time by the clock on the wall, so on
a busy machine they use less of the processor than they may; the others keep to the processor's. An entry that takes more than
LATE times the 300 s does not count. Every run is a line of --results with its commit and command; those that are there are not
done again. At the end the board: medians and spread of the seeds, and whether a place differs from the one below it:
it does when every seed of one is better than every seed of the other and the medians differ by at least SMALLEST.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from measuring import Results, arguments_of, origin, peer, trained
from texts import texts_of

SECONDS, MEGABYTES, TAIL = 300, 8.0, 200_000
LATE, SMALLEST = 1.01, 0.01
OURS = {  # name: settings beside the text and the time
    "default": "",
    "by hand": "--vocab_size 4096 --hidden_size 128 --num_hidden_layers 3",
}
STOCK, NANOGPT = "stock GPT-2, AdamW", "nanoGPT"


def write_texts(books: Path, folder: Path, fast: bool) -> tuple[Path, Path]:
    """Return (training text, held-out text)."""
    megabytes, tail = (0.4, 20_000) if fast else (MEGABYTES, TAIL)
    text = ""
    for book in texts_of("other_books", books, Path(), Path()):
        text += book.strip() + "\n\n"
        if len(text) > megabytes * 1e6:
            break
    text = text.encode()[: int(megabytes * 1e6)].decode(errors="ignore")
    cut = text.rindex("\n\n", 0, len(text) - tail) + 2
    paths = folder / "train.txt", folder / "tail.txt"
    for path, part in zip(paths, (text[:cut], text[cut:]), strict=True):
        path.write_text(part, encoding="utf-8")
    return paths


def entry(name: str, texts: tuple[Path, Path], seed: int, arguments) -> dict:
    """Train one entry of the board."""
    seconds = 30 if arguments.fast else SECONDS
    train, tail = map(str, texts)
    if name in OURS:
        words = [*OURS[name].split(), "--time_budget", f"{seconds}s", "--seed", str(seed)]
        with tempfile.TemporaryDirectory() as folder:
            made = trained(["--train_file", train, "--validation_file", tail, *words], Path(folder, "run"))
        facts = made.pop("facts")
        return {
            "bits_per_byte": round(facts["result"]["eval_bits_per_byte"], 4),
            "steps": facts["result"]["steps"],
            **made,
            "command": " ".join(["tinygpt train", *words]),
            "settings": facts["plan"]["settings"],
        }
    words = ["--seconds", str(seconds), "--seed", str(seed)]
    words += ["--checkout", str(arguments.peer)] if name == NANOGPT else []
    made = peer(["--text", train, "--held_out", tail, *words])
    return made | {"command": " ".join(["peer.py", *words[:4], *(["--checkout nanoGPT"] if name == NANOGPT else [])])}


def board(lines: list[dict], seconds: float) -> str:
    """Format the entries as a table, best first."""
    found: dict[str, list[dict]] = {}
    for line in lines:
        if line["processor_seconds"] <= LATE * seconds:
            found.setdefault(line["entry"], []).append(line)
    values = {name: sorted(line["bits_per_byte"] for line in own) for name, own in found.items()}
    order = sorted(values, key=lambda name: statistics.median(values[name]))
    rows = [
        "| entry | bits per byte, median | from, to | seeds | processor s | better than the next |",
        "|---|---|---|---|---|---|",
    ]
    for place, name in enumerate(order):
        own, seconds_of = values[name], [line["processor_seconds"] for line in found[name]]
        after = values[order[place + 1]] if place + 1 < len(order) else None
        differs = "-" if after is None else "yes" if is_better(own, after) else "not shown"
        rows.append(
            f"| {name} | {statistics.median(own):.3f} | {own[0]:.3f}, {own[-1]:.3f} | {len(own)} | "
            f"{statistics.median(seconds_of):.0f} | {differs} |"
        )
    return "\n".join(rows)


def is_better(one: list[float], other: list[float]) -> bool:
    """Return whether two entries differ by the rule of the board. With three seeds each, chance alone does so once in 20 times."""
    is_apart = min(len(one), len(other)) >= 3 and max(one) < min(other)
    return is_apart and statistics.median(other) - statistics.median(one) >= SMALLEST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="classics.jsonl.gz: text, author")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--only", nargs="*", help=f"of {', '.join((*OURS, STOCK, NANOGPT))}")
    arguments = arguments_of(parser, "board.jsonl")
    results = Results(arguments.results)
    names = arguments.only or [*OURS, STOCK, *([NANOGPT] if arguments.peer else [])]
    with tempfile.TemporaryDirectory() as folder:
        texts = write_texts(arguments.books, Path(folder), arguments.fast)
        for seed in range(1, arguments.seeds + 1):
            for name in names:
                key = {"entry": name, "seed": seed}
                if not results.has(**key):
                    results.add({**key, **entry(name, texts, seed, arguments), **origin()})
    print(board(results.lines, 30 if arguments.fast else SECONDS))


if __name__ == "__main__":
    main()
