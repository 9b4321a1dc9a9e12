"""Compare default settings: bits per byte after the same processor time, for the settings before, those now, and their neighbors.

    python benchmarks/defaults.py --books classics.jsonl.gz [--results defaults.jsonl] [--core 0] [--fast]

Three texts: 16 MB of books (a .jsonl.gz with a book a line under `text`), as much source code of the packages installed here,
and toyland; and 100 KB of that source, for many epochs. Each text is made into rows once, BPE of 2048, so that all
runs on it read the same ones. A run is measured for some steps, then trained for as many as fit its seconds: the schedule
ends with the budget. Only the processor time of gradients, clipping and updates counts; evaluation is over the whole
validation part. Every run is a line of --results; those that are there are not done again.
"""

import argparse
import gzip
import hashlib
import json
import sysconfig
import tempfile
from pathlib import Path

from measuring import Results, arguments_of
from time_to_loss import timed_training

OLD = {
    "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "tie_word_embeddings": True,
    "embedding_initializer_range": 0.02, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "adam_beta1": 0.9,
    "muon_learning_rate": 0.02, "muon_momentum": 0.95, "weight_decay": 0.1, "lr_scheduler_type": "cosine",
    "warmup_steps": 0, "hidden_dropout": 0.0,
}  # fmt: skip
NEW = OLD | {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "tie_word_embeddings": False,
    "embedding_initializer_range": 0.3, "per_device_train_batch_size": 8, "learning_rate": 0.008, "adam_beta1": 0.8,
    "muon_momentum": 0.9, "weight_decay": 0.0, "lr_scheduler_type": "linear", "warmup_steps": 20,
}  # fmt: skip
CANDIDATES = {
    "before": OLD,
    "3 x 128": NEW,
    "2 x 192": NEW | {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3},
    "6 x 256": NEW | {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4},
    "6 x 384": NEW | {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "learning_rate": 0.0053},
    "6 x 384, before": OLD | {"hidden_size": 384, "num_attention_heads": 6},
    "3 x 128, decay 0.1": NEW | {"weight_decay": 0.1},
}
RUNS = [  # (settings, text, processor seconds, seed), the most telling first
    *((name, "code", 100, 1) for name in ("before", "3 x 128")),
    *((name, "books", 100, 1) for name in ("before", "3 x 128")),
    *((name, "few", 80, 1) for name in ("3 x 128", "3 x 128, decay 0.1")),
    *((name, "toyland", 60, 1) for name in ("before", "3 x 128")),
    ("before", "few", 80, 1),
    *((name, "books", 100, 1) for name in ("6 x 384, before", "6 x 384", "2 x 192")),
    *((name, "books", 300, 1) for name in ("before", "3 x 128")),
    ("3 x 128", "books", 100, 2),
    ("6 x 256", "books", 100, 1),
]
PROBE = 6  # steps that tell how long one takes
MEGABYTES = {"books": 16, "code": 16, "few": 0.1}


def write_text(name: str, books: Path, megabytes: float, target: Path) -> None:
    """Write a .jsonl of `megabytes` of whole documents: books in order, or source files in the order of their hash."""
    if name == "books":
        with gzip.open(books, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in file]
    else:
        installed = Path(sysconfig.get_path("purelib"))
        paths = sorted(
            installed.rglob("*.py"), key=lambda p: hashlib.sha256(str(p.relative_to(installed)).encode()).digest()
        )
        texts = (p.read_text(encoding="utf-8", errors="replace") for p in paths if p.stat().st_size > 500)
    left = megabytes * 1e6
    with target.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")
            left -= len(text.encode())
            if left <= 0:
                break


def rows_of(name: str, books: Path, folder: Path, fast: bool):
    """Return DataArguments and TokenizerArguments of a text as rows in `folder`, made now if they do not exist."""
    from tinygpt_hf.reading.corpus import Corpus
    from tinygpt_hf.rows.preparation import tokenize
    from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments

    made = folder / name
    if not (made / "tokenizer").is_dir():
        made.mkdir(parents=True, exist_ok=True)
        if name == "toyland":
            data = DataArguments(dataset_name="toyland", max_train_samples=1_000 if fast else 40_000)
        else:
            text = folder / f"{name}.jsonl"
            write_text(name, books, min(MEGABYTES[name], 0.5 if fast else 99), text)
            data = DataArguments(train_file=[str(text)])
            data.validation_split = "tail"  # there are few books
        data.validation_split_percentage, data.num_proc = (20 if name == "few" else 1), 1
        tokenize(Corpus(data, seed=1), TokenizerArguments(vocab_size=2048), made)
    return DataArguments(rows=str(made)), TokenizerArguments(tokenizer_name=str(made / "tokenizer"))


def run(values: dict, data, tokenizer, seconds: float, seed: int) -> dict:
    """Train with `values` for as many steps as fit into `seconds` of processor time on this machine."""
    from tinygpt_hf.settings.arguments import ModelArguments, TrainingArguments

    def trained(steps: int):
        with tempfile.TemporaryDirectory() as folder:
            model = ModelArguments(**{k: v for k, v in values.items() if k in ModelArguments.__dataclass_fields__})
            others = {k: v for k, v in values.items() if k in TrainingArguments.__dataclass_fields__}
            still = {"eval_steps": 0, "save_steps": 0, "sample_tokens": 0, "per_device_eval_batch_size": 32}
            training = TrainingArguments(output_dir=f"{folder}/run", max_steps=steps, seed=seed, **others, **still)
            return timed_training(model, data, tokenizer, training)

    _, clock = trained(PROBE)
    result, clock = trained(max(PROBE, round(seconds / clock.cpu * PROBE)))
    return {
        "bits_per_byte": round(result.eval_bits_per_byte, 4),
        "steps": result.steps,
        "tokens": result.tokens,
        "parameters": result.parameters,
        "processor_seconds": round(clock.cpu, 1),
        "wall_seconds": round(clock.wall, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="a .jsonl.gz with whole books under `text`")
    parser.add_argument("--rows", type=Path, default=Path("defaults-rows"), help="folder for the texts as rows")
    arguments = arguments_of(parser, "defaults.jsonl")
    import torch

    torch.set_num_threads(1)
    results = Results(arguments.results)
    for wanted in RUNS:
        name, text, seconds, seed = wanted
        seconds = seconds / 100 if arguments.fast else seconds
        key = [name, text, seconds, seed]
        if results.has(run=key):
            continue
        data, tokenizer = rows_of(text, arguments.books, arguments.rows, arguments.fast)
        results.add({"run": key, **run(CANDIDATES[name], data, tokenizer, seconds, seed)})


if __name__ == "__main__":
    main()
