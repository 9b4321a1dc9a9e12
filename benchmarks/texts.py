"""Write the texts of scaling.py and grid.py as .jsonl files: some to tune on, others to report on.

    python benchmarks/texts.py --books books.jsonl.gz --dialogues dialogues.jsonl.gz --plays tinyshakespeare.txt --output_dir texts

To tune on: books by the authors below, files of installed packages, toyland. To report on: books by all other authors,
TinyShakespeare, the dialogues as plain text (every token a target), Python's standard library. No document is in both.
"""

import argparse
import gzip
import hashlib
import json
import math
import sysconfig
from collections.abc import Iterator
from pathlib import Path

TUNING_AUTHORS = (
    "Anna Sewell", "Arthur Conan Doyle", "Howard Pyle", "J. M. Barrie", "Johanna Spyri", "L. Frank Baum", "Mark Twain",
)  # fmt: skip
AUTHORS = {"twain": "Mark Twain", "doyle": "Arthur Conan Doyle", "baum": "L. Frank Baum"}
FILES = {  # where, and which
    "code": ("purelib", "*.py"), "headers": ("purelib", "torch/include/**/*.h"), "stubs": ("purelib", "*.pyi"),
    "torch": ("purelib", "torch/**/*.py"), "stdlib": ("stdlib", "*.py"),
}  # fmt: skip
MEGABYTES = {"code": 16.0, "stdlib": 16.0, "twain": 3.0, "doyle": 3.0, "headers": 3.0, "stubs": 3.0, "torch": 1.0}
TUNING = ("books", *AUTHORS, "code", "headers", "stubs", "torch", "toyland")
REPORT = ("other_books", "plays", "dialogues", "stdlib")


def lines(path: Path) -> Iterator[dict]:
    """Yield the objects of a .jsonl.gz."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def source_files(folder: Path, pattern: str) -> Iterator[str]:
    """Yield the files below `folder` in the order of their hash, without tests and site-packages."""
    left_out = {"test", "tests", "site-packages"}
    paths = [path for path in folder.rglob(pattern) if not left_out & set(path.relative_to(folder).parts)]
    for path in sorted(paths, key=lambda path: hashlib.sha256(str(path.relative_to(folder)).encode()).digest()):
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) > 500:
            yield text


def texts_of(name: str, books: Path, dialogues: Path, plays: Path) -> Iterator[str]:
    """Yield the documents of a text."""
    if name in AUTHORS:
        yield from (book["text"] for book in lines(books) if book["author"] == AUTHORS[name])
    elif name in ("books", "other_books"):
        is_tuned = name == "books"
        yield from (book["text"] for book in lines(books) if (book["author"] in TUNING_AUTHORS) == is_tuned)
    elif name == "plays":
        yield plays.read_text(encoding="utf-8")
    elif name == "dialogues":
        for dialogue in lines(dialogues):
            yield "\n".join(f"{message['role']}: {message['content']}" for message in dialogue["messages"])
    else:
        where, pattern = FILES[name]
        yield from source_files(Path(sysconfig.get_path(where)), pattern)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True, help="a .jsonl.gz with whole books: text, author")
    parser.add_argument("--dialogues", type=Path, required=True, help="a .jsonl.gz with messages")
    parser.add_argument("--plays", type=Path, required=True, help="TinyShakespeare")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for name in (*TUNING, *REPORT):
        target = arguments.output_dir / f"{name}.jsonl"
        if name == "toyland" or target.exists():
            continue
        left = MEGABYTES.get(name, math.inf) * 1e6
        with target.open("w", encoding="utf-8") as file:
            for text in texts_of(name, arguments.books, arguments.dialogues, arguments.plays):
                if left <= 0:
                    break
                file.write(json.dumps({"text": text}) + "\n")
                left -= len(text.encode())
        print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
