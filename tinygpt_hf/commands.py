"""The commands: what each is called, which settings it takes, and the function behind it. One-shot ones stand first.

A command's function takes its settings (`settings.parsing.Settings`: dataclass -> instance) and returns an exit status or
nothing. What it needs is imported when it runs, so that asking for help costs nothing.
"""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygpt_hf.errors import UsageError, presentable
from tinygpt_hf.settings.arguments import (
    DataArguments,
    ModelArguments,
    OutputArguments,
    TokenizerArguments,
    TrainingArguments,
)
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.settings.defaults import run_folder
from tinygpt_hf.settings.hub import PullArguments, PushArguments
from tinygpt_hf.settings.inference import (
    ChatArguments,
    DemoArguments,
    EvaluateArguments,
    ExportArguments,
    GenerateArguments,
    ServeArguments,
)
from tinygpt_hf.settings.parsing import Settings


@dataclass(frozen=True)
class Command:
    """`example` is a line to copy; `uses_config`: does it read --config, and `default_config`: which where none is named?

    `stdout_is_product`: is the standard output all that is wanted? Elsewhere it is a report, and nobody need read it.
    """

    help: str
    groups: tuple[type, ...]
    run: Callable[[Settings], int | None]  # an exit status other than 0, where there is one
    example: str
    uses_config: bool = True
    default_config: str | None = None
    stdout_is_product: Callable[[Settings], bool] = lambda settings: False


def train(settings: Settings) -> None:
    """Train a model; the story is in training/recipe.py."""
    from tinygpt_hf.training.recipe import train

    name_output(settings, TrainingArguments)
    train(*(settings[group] for group in (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)))


def prepare_corpus(settings: Settings) -> None:
    """Clean text, and say what went in and what did not."""
    from tinygpt_hf.cards.render import advice
    from tinygpt_hf.curation.pipeline import prepare_corpus

    def progress(facts) -> None:
        if sys.stderr.isatty():
            print(f"{facts.read:,} documents, {facts.read_bytes:,} bytes read", file=sys.stderr, flush=True)

    data, corpus = settings[DataArguments], settings[CorpusArguments]
    facts = prepare_corpus(data, corpus, progress)
    read, kept = facts["read"], facts["kept"]
    tell(f"{corpus.output_dir}: {kept['documents']:,} of {read['documents']:,} documents, "
         f"{kept['bytes']:,} of {read['bytes']:,} bytes")  # fmt: skip
    for rule, entry in sorted(facts["dropped"].items(), key=lambda e: -e[1]["documents"]):
        tell(f"  {rule:<22} {entry['documents']:>12,} documents {entry['bytes']:>16,} bytes")
    for remark in facts["source_remarks"]:
        tell(f"note: {remark}")
    tell(advice(facts))
    tell(
        f"The card: {Path(corpus.output_dir) / 'README.md'}"
        + ("" if facts["license"] else "; its license is not stated yet")
    )


def train_tokenizer(settings: Settings) -> None:
    """Train a tokenizer and print what it achieves."""
    from tinygpt_hf.rows.preparation import write_tokenizer
    from tinygpt_hf.settings.checks import check_settings

    data, tokenizer, output = (settings[group] for group in (DataArguments, TokenizerArguments, OutputArguments))
    check_settings(data, tokenizer)
    name_output(settings, OutputArguments, "tokenizer")
    if not settings.given.get("output_dir", "--").startswith("--"):  # the run folder of a training config
        output.output_dir = str(Path(output.output_dir) / "tokenizer")
    report = write_tokenizer(data, tokenizer, Path(output.output_dir), output.overwrite, output.seed)
    kind = report["trained_with"]["tokenizer_type"]
    tell(f"{output.output_dir}: {kind} tokenizer, vocabulary {report['vocabulary']}")
    if report["bytes_per_token"]:
        tell(
            f"bytes per token on {report['held_out_bytes']} held-out bytes: {report['bytes_per_token']:.2f}  "
            f"(byte tokenizer: {report['bytes_per_token_of_byte_tokenizer']:.2f})"
        )


def tokenize(settings: Settings) -> None:
    """Turn text into rows that `train --rows` takes."""
    from tinygpt_hf.rows.bestfit import BestFitRows
    from tinygpt_hf.rows.build import shown_rows
    from tinygpt_hf.rows.preparation import tokenize
    from tinygpt_hf.settings.checks import check_settings
    from tinygpt_hf.training.log import Console, tokenizing_bar
    from tinygpt_hf.training.run_folder import opened

    data, tokenizer, output = (settings[group] for group in (DataArguments, TokenizerArguments, OutputArguments))
    check_settings(data, tokenizer)
    if data.rows:
        raise UsageError("--rows is given", "tokenize makes rows", "name their folder with --output_dir")
    name_output(settings, OutputArguments)
    folder = Path(output.output_dir)
    console = Console()
    with opened(folder, output.overwrite, is_main=True):
        made, rows, report = tokenize(data, tokenizer, folder, output.seed, tokenizing_bar(console))
    console.close()
    if report:
        tell(
            f"tokenizer: {len(made)} tokens, {report['bytes_per_token']} bytes per token on held-out text (bytes: 1.0)"
        )
    for part in (rows.train, rows.validation):
        documents, tokens = part.num_documents, part.num_tokens
        tell(
            f"{part.folder}: {tokens} tokens of {documents} documents, {part.count(data.block_size)} rows of {data.block_size}"
        )
    kept = (
        f"rows: kept {rows.kept} of {rows.encoded} tokens"
        if not rows.reused
        else "rows: there already, nothing changed"
    )
    tell("; ".join([kept, *rows.remarks]))
    if data.show_rows:
        bestfit = data.packing == "bestfit"
        shown = BestFitRows(rows.train.folder, data.block_size) if bestfit else rows.train
        for line in shown_rows(shown, made, data.show_rows, data.block_size):
            tell(line)


def generate(settings: Settings) -> None:
    """Continue a prompt."""
    from tinygpt_hf.inference.samples import generate

    generate(settings[GenerateArguments], write, to_terminal=sys.stdout.isatty())


def evaluate(settings: Settings) -> None:
    """Measure a model on a text."""
    from tinygpt_hf.evaluation.evaluate import measure, result_lines

    arguments = settings[EvaluateArguments]
    for line in result_lines(measure(arguments), arguments.quantization):
        tell(line)


def chat(settings: Settings) -> int:
    """Talk to a model."""
    from tinygpt_hf.inference.chat import chat

    return chat(settings[ChatArguments])


def export(settings: Settings) -> None:
    """Write a model for a runtime that needs nothing of ours, and prove it."""
    from tinygpt_hf.export.export import check_request, export, report_lines
    from tinygpt_hf.model.loading import load_model
    from tinygpt_hf.tokenizing.chat_template import check_template

    wanted = settings[ExportArguments]
    target = check_request(wanted.model, wanted.to, wanted.output_dir)
    model, tokenizer = load_model(wanted.model, "cpu", "saved")
    check_template(tokenizer)
    for line in report_lines(export(model, tokenizer, wanted.model, wanted.to, target), wanted.to):
        tell(line)


def serve(settings: Settings) -> None:
    """Put a model behind an address."""
    from tinygpt_hf.inference.serving import serve
    from tinygpt_hf.tokenizing.chat_template import check_template

    def started(address: str, name: str, chats: bool) -> None:
        tell(f"{name} answers at {address}/v1 until Ctrl-C; clients ask for the model by this name. Try:")
        wanted = {"model": name, "max_tokens": 100}
        wanted |= {"messages": [{"role": "user", "content": "Hello!"}]} if chats else {"prompt": "Once upon a time"}
        route = "chat/completions" if chats else "completions"
        header = "-H 'Content-Type: application/json'"
        tell(f"curl {address}/v1/{route} {header} -d {shlex.quote(json.dumps(wanted))}")
        if not chats:
            tell("It has not learnt to converse: /v1/completions continues texts.")

    serve(settings[ServeArguments], check_template, started)


def push(settings: Settings) -> None:
    """Give a model to the Hub."""
    from tinygpt_hf.hub.push_pull import push

    push(settings[PushArguments], tell)


def pull(settings: Settings) -> None:
    """Take a model from the Hub."""
    from tinygpt_hf.hub.push_pull import pull

    pull(settings[PullArguments], tell)


def demo(settings: Settings) -> None:
    """A conversation in the browser."""
    from tinygpt_hf.inference.demo import demo

    demo(settings[DemoArguments], lambda address, name, chats: tell(f"{name} is at {address} until Ctrl-C"))


def quickstart(settings: Settings) -> None:
    """From nothing to a model that talks."""
    from tinygpt_hf.quickstart import quickstart

    name_output(settings, TrainingArguments)
    quickstart(settings[DataArguments], settings[TrainingArguments], lambda: train(settings), tell)


def write(text: str) -> None:
    """Text to the standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def tell(text: str) -> None:
    """Lines on the standard output, at once, whatever names and model outputs they were made of."""
    print(presentable(text), flush=True)


def name_output(settings: Settings, group: type, inside: str = "") -> None:
    """Fill a missing output_dir from the name of the config file, or of the first text."""
    output = settings[group]
    if output.output_dir is None:
        named = Path("runs") / Path(settings.config).stem if settings.config else run_folder(settings[DataArguments])
        if named is None:
            raise UsageError(
                "there is no --output_dir", "a folder for the results was wanted", "e.g. --output_dir runs/mine"
            )
        output.output_dir = str(Path(named) / inside)
    if "\0" in output.output_dir:
        raise UsageError(f"--output_dir is {output.output_dir!r}", "no folder can have NUL in its name", "rename it")


TRAINING = (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)
COMMANDS = {
    "quickstart": Command(
        "the whole way in minutes: corpus, tokenizer, training, measures, a conversation",
        TRAINING,
        quickstart,
        "tinygpt quickstart",
        default_config="quickstart.yaml",
    ),
    "prepare-corpus": Command(
        "clean text, drop duplicates, and write a corpus with its card",
        (DataArguments, CorpusArguments),
        prepare_corpus,
        "tinygpt prepare-corpus --train_file books/ --output_dir corpora/books",
    ),
    "train-tokenizer": Command(
        "train a tokenizer from text",
        (DataArguments, TokenizerArguments, OutputArguments),
        train_tokenizer,
        "tinygpt train-tokenizer --train_file my.txt --vocab_size 4096 --output_dir runs/mine/tokenizer",
    ),
    "tokenize": Command(
        "turn text into rows, on all cores; `train --rows` takes them",
        (DataArguments, TokenizerArguments, OutputArguments),
        tokenize,
        "tinygpt tokenize --train_file my.txt --vocab_size 4096 --output_dir runs/rows",
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
        stdout_is_product=lambda settings: not settings[GenerateArguments].output_file,
    ),
    "evaluate": Command(
        "loss, perplexity, bits per byte and accuracy of any causal LM on any text",
        (EvaluateArguments,),
        evaluate,
        "tinygpt evaluate runs/quickstart --data my.txt",
        uses_config=False,
        stdout_is_product=lambda settings: not settings[EvaluateArguments].output_file,
    ),
    "chat": Command(
        "talk to a model",
        (ChatArguments,),
        chat,
        "tinygpt chat runs/quickstart",
        uses_config=False,
        stdout_is_product=lambda settings: True,
    ),
    "serve": Command(
        "put a model behind an address that clients of OpenAI's interface talk to",
        (ServeArguments,),
        serve,
        "tinygpt serve runs/quickstart",
        uses_config=False,
    ),
    "demo": Command(
        "talk to a model in the browser, with what each token could have been",
        (DemoArguments,),
        demo,
        "tinygpt demo runs/quickstart",
        uses_config=False,
    ),
    "export": Command(
        "write a model as stock Qwen3, Llama or GPT-2, ONNX or GGUF, and prove that it is the same",
        (ExportArguments,),
        export,
        "tinygpt export runs/quickstart --to qwen3",
        uses_config=False,
    ),
    "push": Command(
        "give a model to the Hub: its files by a list of names, searched for secrets, checked when they are there",
        (PushArguments,),
        push,
        "tinygpt push runs/quickstart --hub_model_id alice/quickstart --dry_run",
        uses_config=False,
    ),
    "pull": Command(
        "take a model from the Hub as a new folder, every byte checked",
        (PullArguments,),
        pull,
        "tinygpt pull alice/quickstart --output_dir models/quickstart",
        uses_config=False,
    ),
}
