"""Fit the scaling law of the planner: train models of several sizes on several texts for several lengths, and fit the law to them.

    python benchmarks/texts.py ... --output_dir texts
    python benchmarks/scaling.py --texts texts [--results benchmarks/scaling.jsonl] [--core 1] [--write]

Only texts to tune on are used (texts.py). Steps are given, so bits per byte do not depend on the machine; they are measured on
the whole held-out part. Every run is a line of --results; those that are there are not done again. Then the law of
tinygpt_hf/planning/scaling.py is fitted to the lines by least squares of relative errors, the exponents from a grid;
`--write` puts it into scaling.json. Runs of several epochs train with the decay and the dropout of the planner.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from measuring import Results, arguments_of
from texts import TUNING

from tinygpt_hf.planning import scaling

MILLION = 1_000_000
RUNS = [  # text, vocabulary, layers, width, tokens
    ("books", 2048, 3, 128, 0.3), ("books", 2048, 2, 64, 0.3), ("books", 2048, 4, 256, 0.3), ("code", 2048, 3, 128, 0.3),
    ("toyland", 2048, 3, 128, 0.3), ("books", 1024, 2, 64, 0.8), ("books", 2048, 2, 64, 0.8), ("books", 4096, 3, 128, 0.8),
    ("books", 2048, 3, 128, 0.8), ("code", 2048, 3, 128, 0.8), ("toyland", 2048, 3, 128, 0.8),
    *((text, 1024, 2, 64, 0.3) for text in TUNING), ("torch", 2048, 2, 64, 0.8), ("code", 4096, 2, 64, 0.8),
    *((text, 2048, 2, 64, 2.4) for text in ("books", "code", "stubs", "headers", "toyland", "twain")),
    *(("baum", 2048, *shape) for shape in ((2, 64, 1.2), (2, 64, 3.0), (3, 128, 1.2), (3, 128, 3.0))),
    *(("torch", 2048, 2, 64, millions) for millions in (1.2, 3.0)),
]  # fmt: skip
REPEATED = "baum"  # what further epochs are worth; source code gets easier faster, fresh or not
SYNTHETIC = ("toyland",)  # far below the law, so not in the fit; its errors widen the interval of texts learned as fast
EARLY_BYTES = 266_000  # of the books, in the 48 steps of the small model
DEVIATIONS = [0.3, 0.05, 0.03]  # at least, where no step of the small model could be taken, 16 or 48
HIGHEST_FLOOR = 0.9  # bits per byte of books that large models go below; short runs alone would put it anywhere
TARGET = Path(scaling.__file__).with_name("scaling.json")


def rows_of(text: str, vocabulary: int, texts: Path) -> Path:
    """Return the folder of a text as rows, made now if it does not exist."""
    from tinygpt_hf.reading.corpus import Corpus
    from tinygpt_hf.rows.preparation import tokenize
    from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments

    made = texts / "rows" / f"{text}-{vocabulary}"
    if not (made / "tokenizer").is_dir():
        made.mkdir(parents=True, exist_ok=True)
        data = DataArguments(train_file=[str(texts / f"{text}.jsonl")])
        if text == "toyland":
            data = DataArguments(dataset_name="toyland", max_train_samples=40_000)
        data.validation_split_percentage, data.num_proc = 2.0, 1
        tokenize(Corpus(data, seed=1), TokenizerArguments(vocab_size=vocabulary), made)
    return made


def measured(texts: Path, run: tuple, seed: int = 1) -> dict:
    """Train one run; return the values that the law is fitted to."""
    from accelerate import Accelerator

    from tinygpt_hf import TinyGPTConfig
    from tinygpt_hf.planning.machine import hidden_parameters
    from tinygpt_hf.planning.text import survey
    from tinygpt_hf.reading.corpus import Corpus
    from tinygpt_hf.rows.build import open_rows
    from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
    from tinygpt_hf.training.probe import early_losses
    from tinygpt_hf.training.recipe import train

    text, vocabulary, layers, width, millions = run
    made, steps = rows_of(text, vocabulary, texts), max(1, round(millions * MILLION / 2048))
    tokenizer = TokenizerArguments(tokenizer_name=str(made / "tokenizer"))
    data = DataArguments(train_file=[str(texts / f"{text}.jsonl")])
    if text == "toyland":
        data = DataArguments(dataset_name="toyland", max_train_samples=40_000)
    _, excerpt = survey(Corpus(data, 1), TokenizerArguments(), 2_400_000)
    early = early_losses(Accelerator(cpu=True), excerpt, seconds=1e9)
    rows = open_rows(made / "rows")
    per_token = rows.train.num_bytes / rows.train.num_tokens
    shape = {"hidden_size": width, "num_hidden_layers": layers}
    parameters = hidden_parameters(TinyGPTConfig(**shape))
    chosen = scaling.regularization(steps * 2048 / rows.train.num_tokens, parameters / rows.train.num_tokens)
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            ModelArguments(**shape, hidden_dropout=chosen["hidden_dropout"]),
            DataArguments(rows=str(made)),
            tokenizer,
            TrainingArguments(
                output_dir=f"{folder}/run",
                max_steps=steps,
                seed=seed,
                eval_steps=0,
                save_steps=0,
                sample_tokens=0,
                weight_decay=chosen["weight_decay"],
            ),
            quiet=True,
        )
    return {
        "bits_per_byte": round(result.eval_bits_per_byte, 4),
        "parameters": parameters,
        "bytes": round(steps * 2048 * per_token),
        "unique": rows.train.num_bytes,
        "early": [round(bits, 4) for bits in early],
        "xz": round(excerpt.xz, 4),
        **chosen,
    }


def fitted_to_books(base: list[dict]) -> dict:
    """Fit the floor and the terms of size and bytes to runs on the books with one vocabulary."""
    losses = np.array([line["bits_per_byte"] for line in base])
    best = (np.inf, None)
    # short runs alone say little of the exponent of the size: at most that of Hoffmann et al., 0.34
    for alpha, beta in itertools.product(np.arange(0.2, 0.36, 0.05), np.arange(0.1, 0.41, 0.02)):
        size = np.array([line["parameters"] ** -alpha for line in base])
        words = np.array([line["bytes"] ** -beta for line in base])
        columns = np.stack([np.ones(len(base)), size, words], axis=1) / losses[:, None]
        found, *_ = np.linalg.lstsq(columns, np.ones(len(base)), rcond=None)
        error = float(((columns @ found - 1) ** 2).sum())
        if (found > 0).all() and found[0] <= HIGHEST_FLOOR and error < best[0]:
            best = error, (alpha, beta, *found)
    alpha, beta, floor, size, words = (round(float(value), 4) for value in best[1])
    return {"floor": floor, "size": {"factor": size, "power": alpha}, "words": {"factor": words, "power": beta}}


def fitted(lines: list[dict]) -> dict:
    """Fit the coefficients of the law to the measured lines."""
    law = json.loads(TARGET.read_text())
    base = [line for line in lines if line["run"][0] == "books" and line["run"][1] == law["vocabulary"]["at"]]
    law |= fitted_to_books(base)

    def fresh(line: dict) -> float:
        return scaling.effective(line["bytes"], line["unique"], law["repeats"])

    def residual(line: dict, power: float = 0.0) -> float:
        """Return the logarithm of the measured over the predicted loss, without the difficulty of the text."""
        said = law["floor"] + law["size"]["factor"] * line["parameters"] ** -law["size"]["power"]
        said += law["words"]["factor"] * fresh(line) ** -law["words"]["power"]
        return float(np.log(line["bits_per_byte"] / said) + power * np.log(line["run"][1] / law["vocabulary"]["at"]))

    repeated = [line for line in lines if line["run"][0] == REPEATED and line["bytes"] > line["unique"]]
    pairs = [pair for pair in itertools.combinations(repeated, 2) if pair[0]["run"][:4] == pair[1]["run"][:4]]

    def missed(repeats: float) -> float:
        """Return the squared error of what the law expects of more epochs of the same text by the same model."""
        law["repeats"] = float(repeats)
        return sum((residual(one) - residual(other)) ** 2 for one, other in pairs)

    law["repeats"] = float(min(np.arange(1.0, 20.0, 0.5), key=missed))
    others = [line for line in lines if line["run"][0] == "books" and line["run"][1] != law["vocabulary"]["at"]]
    octaves = np.array([np.log(line["run"][1] / law["vocabulary"]["at"]) for line in others])
    power = -float(octaves @ [residual(line) for line in others] / (octaves @ octaves))
    law["vocabulary"]["power"] = round(power, 4)
    texts = [line for line in lines if line["run"][0] not in ("books", *SYNTHETIC)]

    def unlike(lines: list[dict]) -> np.ndarray:
        """Return how far each text is from the books for xz: 0 for a text like the books."""
        return np.log([line["xz"] / base[0]["xz"] for line in lines])

    def easier(lines: list[dict]) -> np.ndarray:
        """Return the column that the exponent of xz is fitted to."""
        return unlike(lines) * np.log([min(scaling.FARTHEST, fresh(line) / EARLY_BYTES) for line in lines])

    def left(lines: list[dict], steps: int, pace: float = 0.0) -> np.ndarray:
        """Return the errors when the difficulty is the loss after that many of the measured steps of the small model."""
        levels = [line["early"][steps - 1] / base[0]["early"][steps - 1] for line in lines]
        return np.array([residual(line, power) for line in lines]) - np.log(levels) - pace * easier(lines)

    pace = float(easier(texts) @ left(texts, 2) / (easier(texts) @ easier(texts)))
    law["xz"] = {"at": base[0]["xz"], "power": round(pace, 4)}
    synthetic = [line for line in lines if line["run"][0] in SYNTHETIC]
    faster = np.log(
        [line["early"][1] / line["early"][0] * base[0]["early"][0] / base[0]["early"][1] for line in synthetic]
    )
    law["early"] = {
        "bits": base[0]["early"],
        "bytes": EARLY_BYTES,
        "deviation": round(float(np.median(abs(left(synthetic, 2, pace) / faster))), 4),
    }
    deviation = float(np.std([residual(line, power) for line in (*base, *others)]))
    law["deviations"] = [round(max(deviation, least), 4) for least in DEVIATIONS]
    wider = [DEVIATIONS[0]]
    for steps in (1, 2):
        errors = left(texts, steps, pace)
        beyond = errors @ errors - len(errors) * law["deviations"][steps] ** 2
        wider.append(round(float(np.sqrt(max(beyond, 0) / (unlike(texts) @ unlike(texts)))), 4))
    law["xz"]["deviations"] = wider
    for line, error in zip(texts, errors, strict=True):
        print(line["run"], f"{error:+.3f}")
    return law


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True, help="folder that texts.py made")
    parser.add_argument("--write", action="store_true", help="put the law into the package")
    arguments = arguments_of(parser, str(Path(__file__).with_name("scaling.jsonl")))
    results = Results(arguments.results)
    for run in RUNS:
        wanted = [*run[:4], 0.003] if arguments.fast else list(run)
        if not results.has(run=wanted):
            results.add({"run": wanted, **measured(arguments.texts, tuple(wanted))})
    law = fitted(results.lines)
    print(json.dumps(law, indent=2))
    if arguments.write:
        TARGET.write_text(json.dumps(law, indent=2) + "\n")


if __name__ == "__main__":
    main()
