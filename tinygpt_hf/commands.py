"""The commands: what each is called, which settings it takes, and the function behind it. One-shot ones stand first.

A command's function takes its settings (`settings.parsing.Settings`: dataclass -> instance) and returns an exit status or
nothing. What it needs is imported when it runs, so that asking for help costs nothing.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import (
    DataArguments,
    ModelArguments,
    OutputArguments,
    TokenizerArguments,
    TrainingArguments,
)
from tinygpt_hf.settings.inference import ChatArguments, EvaluateArguments, GenerateArguments
from tinygpt_hf.settings.parsing import Settings

XZ_BYTES = 20_000_000  # xz takes about a second per megabyte


@dataclass(frozen=True)
class Command:
    """`example` is a line to copy; `uses_config`: does it read --config, and `default_config`: which where none is named?"""

    help: str
    groups: tuple[type, ...]
    run: Callable[[Settings], int | None]  # an exit status other than 0, where there is one
    example: str
    uses_config: bool = True
    default_config: str | None = None


def train(settings: Settings) -> None:
    """Train a model; the story is in training/recipe.py."""
    from tinygpt_hf.training.recipe import train

    name_output(settings, TrainingArguments)
    train(*(settings[group] for group in (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)))


def train_tokenizer(settings: Settings) -> None:
    """Train a tokenizer and print what it achieves."""
    from tinygpt_hf.data.preparation import make_tokenizer, save_tokenizer
    from tinygpt_hf.settings.checks import check_settings
    from tinygpt_hf.training.checkpoint import move_aside

    data, tokenizer, output = (settings[group] for group in (DataArguments, TokenizerArguments, OutputArguments))
    check_settings(data, tokenizer)
    name_output(settings, OutputArguments, "tokenizer")
    if not settings.given.get("output_dir", "--").startswith("--"):  # the run folder of a training config
        output.output_dir = str(Path(output.output_dir) / "tokenizer")
    folder = Path(output.output_dir)
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not output.overwrite:
        raise UsageError(
            f"{folder} is not empty", "a new folder was wanted", "choose another --output_dir, or --overwrite"
        )
    made, report = make_tokenizer(data, tokenizer, output.seed)
    if taken:
        move_aside(folder)
    elif folder.is_dir():
        folder.rmdir()
    save_tokenizer(made, report, folder)
    kind = report["trained_with"]["tokenizer_type"]
    print(f"{folder}: {kind} tokenizer, vocabulary {report['vocabulary']}")
    if report["bytes_per_token"]:
        print(
            f"bytes per token on {report['held_out_bytes']} held-out bytes: {report['bytes_per_token']:.2f}  "
            f"(byte tokenizer: {report['bytes_per_token_of_byte_tokenizer']:.2f})"
        )


def generate(settings: Settings) -> None:
    """Continue a prompt."""
    from tinygpt_hf.inference.generation import generate

    generate(settings[GenerateArguments], write, to_terminal=sys.stdout.isatty())


def evaluate(settings: Settings) -> None:
    """Measure a model on a text."""
    from tinygpt_hf import safeio
    from tinygpt_hf.evaluation.baselines import xz_bits_per_byte
    from tinygpt_hf.evaluation.metrics import evaluate_file
    from tinygpt_hf.inference.loading import load_model

    wanted = settings[EvaluateArguments]
    if not wanted.data:
        raise UsageError("there is no --data", "a UTF-8 text file was wanted", "e.g. --data my.txt")
    model, tokenizer = load_model(wanted.model, wanted.device, wanted.dtype)
    batch = wanted.per_device_eval_batch_size
    results = evaluate_file(model, tokenizer, wanted.data, wanted.block_size, wanted.stride, batch)
    if results["bytes"] < XZ_BYTES:
        results["xz_bits_per_byte"] = xz_bits_per_byte(Path(wanted.data).read_bytes())  # a compressor on the same text
    for name, value in results.items():
        print(f"{name:<16} {value:.4f}" if isinstance(value, float) else f"{name:<16} {value}")
    if wanted.output_file:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}
        safeio.write_json(Path(wanted.output_file), finite)


def chat(settings: Settings) -> int:
    """Talk to a model."""
    from tinygpt_hf.inference.chat import chat

    return chat(settings[ChatArguments])


def quickstart(settings: Settings) -> None:
    """From nothing to a model that talks."""
    from tinygpt_hf.quickstart import quickstart

    name_output(settings, TrainingArguments)
    quickstart(settings[DataArguments], settings[TrainingArguments], lambda: train(settings), print)


def write(text: str) -> None:
    """Text to the standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def name_output(settings: Settings, group: type, inside: str = "") -> None:
    """Fill a missing output_dir from the name of the config file."""
    output = settings[group]
    if output.output_dir is None:
        if not settings.config:
            raise UsageError(
                "there is no --output_dir", "a folder for the results was wanted", "e.g. --output_dir runs/mine"
            )
        output.output_dir = str(Path("runs") / Path(settings.config).stem / inside)


TRAINING = (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)
COMMANDS = {
    "quickstart": Command(
        "the whole way in minutes: corpus, tokenizer, training, measures, a conversation",
        TRAINING,
        quickstart,
        "tinygpt quickstart",
        default_config="quickstart.yaml",
    ),
    "train-tokenizer": Command(
        "train a tokenizer from text",
        (DataArguments, TokenizerArguments, OutputArguments),
        train_tokenizer,
        "tinygpt train-tokenizer --train_file my.txt --vocab_size 4096 --output_dir runs/mine/tokenizer",
    ),
    "train": Command(
        "train a model: from text to a run folder that Transformers loads",
        TRAINING,
        train,
        "tinygpt train --config configs/shakespeare-char.yaml --train_file tinyshakespeare.txt",
    ),
    "generate": Command(
        "continue a prompt",
        (GenerateArguments,),
        generate,
        'tinygpt generate runs/quickstart --prompt "Once upon a time" --show_steps',
        uses_config=False,
    ),
    "evaluate": Command(
        "loss, perplexity, bits per byte and accuracy of any causal LM on any text",
        (EvaluateArguments,),
        evaluate,
        "tinygpt evaluate runs/quickstart --data my.txt",
        uses_config=False,
    ),
    "chat": Command(
        "talk to a model",
        (ChatArguments,),
        chat,
        "tinygpt chat runs/quickstart",
        uses_config=False,
    ),
}
