"""Measure `tinygpt tokenize` at growing sizes: seconds, processor time, memory and disk.

    python benchmarks/tokenize_memory.py                                        # 64, 256 and 1024 MB of each kind
    python benchmarks/tokenize_memory.py --sizes 10737 --kinds jsonl --text books.jsonl.gz

The text (`--text`: .txt or .jsonl, also .gz; without it the standard library's source) is cut into documents and repeated; each
document has a number and words of its own, so no table of words or hashes stays small because the text repeats. Kinds:

    jsonl, parquet   one file; parquet with 1000 documents a row group
    onegroup         parquet, all of it one row group, as pyarrow writes a table of up to a million rows
    txt              one file, one document
    files            a folder of .txt files, one per document

Every run is the real command, in a process and a folder of its own. Memory is the PSS (pages that several share count once) of
the process and of those it started, from /proc, looked at five times a second. The baseline is the peak of the same command on
1 MB, which needs no process beside its own: those of a longer text count as growth.
"""

import argparse
import contextlib
import gzip
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # comes with accelerate

KINDS = ("jsonl", "parquet", "onegroup", "txt", "files")


def originals(path: str | None, length: int) -> list[str]:
    """Read the text to repeat, in documents of at most `length` characters."""
    if path is None:
        root = Path(os.__file__).parent
        files = sorted(file for file in root.rglob("*.py") if "site-packages" not in file.parts)
        texts = [file.read_text(encoding="utf-8", errors="ignore").replace("\0", " ") for file in files]
    else:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            is_lines = ".jsonl" in Path(path).suffixes
            texts = [json.loads(line)["text"] for line in file] if is_lines else [file.read()]
    return [text[k : k + length] for text in texts for k in range(0, len(text), length)]


def documents(texts: list[str], megabytes: float) -> Iterator[str]:
    chance, size = random.Random(0), 0
    for number, text in enumerate(itertools.cycle(texts)):
        if size >= megabytes * 1e6:
            return
        own = " ".join(chance.randbytes(4).hex() for _ in range(8))
        document = f"{number} {own}\n{text}\n"
        size += len(document.encode())
        yield document


def write(place: Path, kind: str, texts: Iterator[str]) -> None:
    if kind == "files":
        for number, text in enumerate(texts):
            folder = place / f"{number // 1000:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number % 1000:03d}.txt").write_text(text, encoding="utf-8")
    elif kind in ("parquet", "onegroup"):
        import pyarrow
        from pyarrow import parquet

        schema = pyarrow.schema([("text", pyarrow.large_string() if kind == "onegroup" else pyarrow.string())])
        with parquet.ParquetWriter(place, schema) as writer:
            groups = iter(lambda: list(itertools.islice(texts, None if kind == "onegroup" else 1000)), [])
            for group in groups:
                writer.write_table(pyarrow.table({"text": group}, schema=schema))
    else:
        with open(place, "w", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n" if kind == "jsonl" else text)


class Watch(threading.Thread):
    """Sample the peak PSS of a process tree (all, and anonymous only) and the peak size of its folder."""

    def __init__(self, process: int, folder: Path):
        super().__init__(daemon=True)
        self.process, self.folder = psutil.Process(process), folder
        self.peak = self.anonymous = self.disk = 0.0
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            total = anonymous = disk = 0
            with contextlib.suppress(psutil.Error):
                for process in [self.process, *self.process.children(recursive=True)]:
                    with contextlib.suppress(OSError):  # it ended meanwhile
                        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                            name, _, rest = line.partition(":")
                            total += int(rest.split()[0]) if name == "Pss" else 0
                            anonymous += int(rest.split()[0]) if name == "Pss_Anon" else 0
            for path in self.folder.rglob("*"):
                with contextlib.suppress(OSError):
                    disk += path.stat().st_size
            self.peak, self.anonymous = max(self.peak, total / 1e3), max(self.anonymous, anonymous / 1e3)
            self.disk = max(self.disk, disk / 1e6)


def measure(source: Path, out: Path, words: list[str]) -> dict:
    """Run the command once."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "tinygpt_hf.cli", "tokenize", "--train_file", str(source), *words]
    with open(out.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(
            [*command, "--output_dir", str(out)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        watch = Watch(process.pid, out)
        status = process.wait()
        seconds = time.perf_counter() - began
        watch.ended.set()
        watch.join()
        if status:
            log.seek(0)
            sys.exit(log.read()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    return {
        "seconds": seconds,
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": watch.peak,
        "anonymous": watch.anonymous,
        "disk": max(watch.disk, kept),
        "kept": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="64,256,1024", help="megabytes of text")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--text", help="a .txt or .jsonl to repeat")
    parser.add_argument("--characters", type=int, default=3000, help="of a document, at most")
    parser.add_argument("--folder", help="where there is room for the text and its rows")
    parser.add_argument("--tokenizer", default="--vocab_size 4096", help="e.g. '--tokenizer_type byte'")
    wanted = parser.parse_args()
    words = [*wanted.tokenizer.split(), "--block_size", "512"]
    texts = originals(wanted.text, wanted.characters)
    print(
        "| kind | MB | seconds | MB/s | processor s per MB | peak MB | above the baseline | no file behind it | disk MB | kept |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in wanted.kinds.split(","):
        baseline = None
        for size in [1.0, *map(float, wanted.sizes.split(","))]:
            with tempfile.TemporaryDirectory(dir=wanted.folder) as place:
                ending = {"onegroup": ".parquet", "files": ""}.get(kind, f".{kind}")
                source, out = Path(place) / f"text{ending}", Path(place) / "out"
                write(source, kind, documents(texts, size))
                found = measure(source, out, words)
            baseline = baseline or found
            print(
                f"| {kind} | {size:.0f} | {found['seconds']:.1f} | {size / found['seconds']:.1f} | "
                f"{found['processor'] / size:.3f} | {found['peak']:.0f} | {found['peak'] - baseline['peak']:.0f} | "
                f"{found['anonymous'] - baseline['anonymous']:.0f} | {found['disk']:.0f} | {found['kept']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
