"""Test whether AdamW's rate transfers across widths: bits per byte at multiples of the rule's rate, as an SVG picture.

    python benchmarks/rates.py --texts texts [--core 0] [--fast] --picture benchmarks/rates.svg

2 layers of 64, 128 and 256 on the books to tune on (texts.py), a vocabulary of 2048, 98 steps of 8 rows of 256, Muon at its
default. Where the rule of settings/defaults.py is right, every width is best at the same multiple of what it says. Every run is a
line of --results; those that are there are not done again.
"""

import argparse
import tempfile
from pathlib import Path

from measuring import Results, arguments_of, origin
from scaling import rows_of

from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments, train
from tinygpt_hf.cards.loss_curve import curve
from tinygpt_hf.settings.defaults import filled

WIDTHS, MULTIPLES = (64, 128, 256), (0.25, 0.5, 1.0, 2.0, 4.0)
LAYERS, VOCABULARY, STEPS = 2, 2048, 98


def bits_per_byte(made: Path, width: int, multiple: float, steps: int) -> tuple[float, float]:
    """Train a width at a multiple of the rule's rate; return (rate, result)."""
    model = ModelArguments(num_hidden_layers=LAYERS, hidden_size=width)
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingArguments(
            output_dir=f"{folder}/run", max_steps=steps, eval_steps=0, save_steps=0, sample_tokens=0
        )
        training.learning_rate = multiple * filled(model, training)[1].learning_rate
        tokenizer = TokenizerArguments(tokenizer_name=str(made / "tokenizer"))
        result = train(model, DataArguments(rows=str(made)), tokenizer, training, quiet=True)
    return training.learning_rate, result.eval_bits_per_byte


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True, help="folder that texts.py made")
    parser.add_argument("--picture", type=Path, default=Path("rates.svg"))
    arguments = arguments_of(parser, "rates.jsonl")
    results, made = Results(arguments.results), rows_of("books", VOCABULARY, arguments.texts)
    for width in WIDTHS:
        for multiple in MULTIPLES:
            if not results.has(width=width, multiple=multiple):
                rate, bits = bits_per_byte(made, width, multiple, 2 if arguments.fast else STEPS)
                line = {"width": width, "multiple": multiple, "learning_rate": rate, "bits_per_byte": round(bits, 4)}
                results.add({**line, **origin()})
    sweeps = {
        f"{width} wide": [
            {"step": round(100 * line["multiple"]), "bits": line["bits_per_byte"]}
            for line in sorted(results.lines, key=lambda line: line["multiple"])
            if line["width"] == width
        ]
        for width in WIDTHS
    }
    title = "bits per byte over percent of the rule's rate"
    arguments.picture.write_text(curve(sweeps, "bits", title, "bits per byte") or "")


if __name__ == "__main__":
    main()
