"""Measure the speed and memory of tokenizing into rows, beside `datasets.map` and `group_texts` of Transformers' run_clm.

    python benchmarks/tokenize_speed.py                      # 32 MB of text, three pairs of runs
    python benchmarks/tokenize_speed.py --mb 8 --rounds 1

Both sides get the same text, the same tokenizer and as many processes as there are cores. The example is followed step by step:
`load_dataset("json")`, `map(tokenize_function)`, `map(group_texts)`, batched by 1000, its arrays kept as Arrow files; its end of
the text (remainders of every 1000 documents) is lost, as there. Ours writes rows with the separators, the remainder, hashes and a
validation part. Each run is a fresh process with empty caches; the sides take turns. Memory is that of the process and of those it
started, summed, looked at twenty times a second; what is loaded before the text (Python, the libraries, the tokenizer) is the
baseline. The memory at growing sizes: tokenize_memory.py.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil  # comes with accelerate


def write_text(folder: Path, megabytes: float) -> Path:
    """Write this Python's standard library as one JSON object per file, repeated with numbers inserted."""
    root = Path(os.__file__).parent
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    lines, size, turn = folder / "text.jsonl", 0, 0
    with open(lines, "w", encoding="utf-8") as table:
        while size < megabytes * 1e6:
            for path in files:
                text = f"# copy {turn}\n" + path.read_text(encoding="utf-8", errors="ignore")
                if 500 < len(text) < 50_000 and "\0" not in text:
                    table.write(json.dumps({"text": text}) + "\n")
                    size += len(text.encode())
                if size >= megabytes * 1e6:
                    break
            turn += 1
    return lines


def ours(file: str, tokenizer_folder: str, out: str, num_proc: int) -> dict:
    from tinygpt_hf.reading.corpus import Corpus
    from tinygpt_hf.rows.build import prepare_rows
    from tinygpt_hf.settings.arguments import DataArguments
    from tinygpt_hf.tokenizing.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    watch = Watch()
    data = DataArguments(train_file=[file], block_size=1024, num_proc=num_proc, validation_split_percentage=1)
    prepared = prepare_rows(Corpus(data), tokenizer, Path(out) / "rows")
    return watch.measured() | {"tokens": prepared.kept}


def theirs(file: str, tokenizer_folder: str, out: str, num_proc: int) -> dict:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.model_max_length = 10**9
    watch, block_size = Watch(), 1024

    def group_texts(examples):
        joined = {name: [i for ids in examples[name] for i in ids] for name in examples}
        total = len(joined["input_ids"]) // block_size * block_size
        result = {name: [ids[k : k + block_size] for k in range(0, total, block_size)] for name, ids in joined.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    raw = load_dataset("json", data_files=file, split="train", cache_dir=out)
    encoded = raw.map(lambda rows: tokenizer(rows["text"]), batched=True, num_proc=num_proc, remove_columns=["text"])
    grouped = encoded.map(group_texts, batched=True, num_proc=num_proc)
    return watch.measured() | {"tokens": len(grouped) * block_size}


class Watch:
    """Measure time and memory from now on."""

    def __init__(self):
        self.process, self.peak, self.running = psutil.Process(), 0.0, True
        self.baseline = self.memory()
        self.began = time.perf_counter()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def memory(self) -> float:
        """Megabytes of this process and all below it."""
        total = self.process.memory_info().rss
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
        return total / 1e6

    def look(self) -> None:
        while self.running:
            self.peak = max(self.peak, self.memory())
            time.sleep(0.05)

    def measured(self) -> dict:
        seconds, self.running = time.perf_counter() - self.began, False
        self.thread.join()
        return {"seconds": seconds, "peak_mb": self.peak, "baseline_mb": self.baseline}


def run(side: str, file: Path, tokenizer: Path, num_proc: int) -> dict:
    """Run one side in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "HF_HOME": out, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        words = [sys.executable, __file__, side, str(file), str(tokenizer), out, str(num_proc)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=float, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab_size", type=int, default=8192)
    wanted = parser.parse_args()
    from tinygpt_hf.tokenizing.process_map import all_cores
    from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

    cores = all_cores()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lines = write_text(place, wanted.mb)
        sample = (
            json.loads(line)["text"] for number, line in enumerate(open(lines, encoding="utf-8")) if number < 1000
        )
        train_tokenizer(sample, "bpe", wanted.vocab_size).save_pretrained(place / "tokenizer")
        megabytes = sum(len(json.loads(line)["text"].encode()) for line in open(lines, encoding="utf-8")) / 1e6
        found: dict[str, list[dict]] = {"ours": [], "theirs": []}
        for _ in range(wanted.rounds):
            for side in found:
                found[side].append(run(side, lines, place / "tokenizer", cores))
        for side, runs in found.items():
            seconds = statistics.median(r["seconds"] for r in runs)
            print(
                f"{side:<8} {megabytes / seconds:6.1f} MB/s  ({megabytes:.0f} MB in {seconds:.1f} s, {cores} cores; "
                f"{runs[0]['tokens']} tokens; peak {max(r['peak_mb'] - r['baseline_mb'] for r in runs):.0f} MB above the baseline)"
            )
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["ours"], found["theirs"], strict=True)]
        print(f"ours is {statistics.median(ratios):.2f} times as fast (pairs: {', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("ours", "theirs"):
        side, file, tokenizer, out, num_proc = sys.argv[1:]
        print(json.dumps({"ours": ours, "theirs": theirs}[side](file, tokenizer, out, int(num_proc))))
    else:
        main()
