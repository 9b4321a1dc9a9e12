"""Measure --streaming: the time to the first step, the cost of reading while training, and the memory.

    python benchmarks/streaming.py --texts classics.jsonl.gz --megabytes 64 256 1024

Each size is a parquet made of the texts repeated (every copy begins with its number), read by the real command, once with its rows
made beforehand and once streamed, one after the other on the same machine. Printed: seconds until the first step is logged,
seconds of the 40 steps after it, and the peak of the memory of the process and of those that tokenize for it.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
from pyarrow import parquet

SETTINGS = (
    "--block_size 256 --hidden_size 128 --num_hidden_layers 2 --num_attention_heads 4 --per_device_train_batch_size 8 --device cpu "
    "--max_steps 41 --logging_steps 1 --eval_steps 0 --save_steps 0 --sample_tokens 0 --validation_split_percentage 0.5"
).split()


def make_corpus(texts: list[str], megabytes: int, path: Path) -> None:
    """Write a parquet file of about `megabytes` of text."""
    with parquet.ParquetWriter(path, pyarrow.schema([("text", pyarrow.string())])) as writer:
        size = number = 0
        while size < megabytes * 1e6:
            batch = [f"{number}. {text}" for text in texts]
            writer.write_table(pyarrow.table({"text": batch}), row_group_size=1000)
            size, number = size + sum(len(text.encode()) for text in batch), number + 1


def memory_of(process: int) -> int:
    """Return the PSS of a process and its children in bytes; 0 once they have ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        # workers are started by a thread, whose children they are
        for task in Path(f"/proc/{process}/task").iterdir():
            children += (task / "children").read_text().split()
    except (OSError, ValueError):
        return 0
    own = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return own * 1024 + sum(memory_of(int(child)) for child in set(children))


def measure(corpus: Path, tokenizer: Path, folder: Path, *more: str) -> tuple[float, float, int]:
    """Run once; return (seconds to the first step, seconds of the other steps, peak bytes)."""
    command = [
        sys.executable,
        "-m",
        "tinygpt_hf.cli",
        "train",
        "--train_file",
        str(corpus),
        "--tokenizer_name",
        str(tokenizer),
    ]
    began, first, peak, log = time.perf_counter(), None, 0, folder / "log.jsonl"
    process = subprocess.Popen([*command, "--output_dir", str(folder), *SETTINGS, *more], stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        if first is None and log.is_file() and log.stat().st_size:
            first = time.perf_counter()
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the run failed with status {process.returncode}")
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    tokens = steps[1]["tokens"] - steps[0]["tokens"]
    return first - began, sum(tokens / line["tokens_per_second"] for line in steps[1:] if "loss" in line), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, help=".jsonl or .jsonl.gz with a field `text`")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 256])
    args = parser.parse_args()
    opened = gzip.open if args.texts.endswith(".gz") else open
    with opened(args.texts, "rt", encoding="utf-8") as file:
        whole = [json.loads(line)["text"] for line in file]
    texts = [text[k : k + 3000] for text in whole for k in range(0, len(text), 3000)]
    print("|      MB | rows first: first step | streamed: first step | 40 steps: streamed / rows first | memory, MB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = folder / "sample.txt"
        sample.write_text("".join(texts)[:4_000_000], encoding="utf-8")
        train = [
            "train-tokenizer",
            "--train_file",
            str(sample),
            "--vocab_size",
            "4096",
            "--output_dir",
            str(folder / "tok"),
        ]
        subprocess.run([sys.executable, "-m", "tinygpt_hf.cli", *train], check=True, stdout=subprocess.DEVNULL)
        for megabytes in args.megabytes:
            corpus = folder / f"{megabytes}.parquet"
            make_corpus(texts, megabytes, corpus)
            rows = measure(corpus, folder / "tok", folder / f"rows-{megabytes}")
            streamed = measure(corpus, folder / "tok", folder / f"streamed-{megabytes}", "--streaming", "true")
            print(
                f"| {megabytes:>7} | {rows[0]:.1f} s | {streamed[0]:.1f} s | x {streamed[1] / rows[1]:.2f} | "
                f"{rows[2] / 1e6:.0f}, streamed {streamed[2] / 1e6:.0f} |",
                flush=True,
            )
            corpus.unlink()


if __name__ == "__main__":
    main()
