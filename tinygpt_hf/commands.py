"""Define the commands: one function each, with the name of the command and its help as docstring.

A function takes the settings (`settings.parsing.Settings`: dataclass -> instance) and returns an exit status or None. It
imports what it needs when it runs, so that --help stays fast.
"""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygpt_hf.errors import UsageError, presentable
from tinygpt_hf.settings.arguments import (
    DataArguments,
    ModelArguments,
    OutputArguments,
    PlanArguments,
    TokenizerArguments,
    TrainingArguments,
)
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.settings.defaults import run_folder
from tinygpt_hf.settings.hub import PullArguments, PushArguments
from tinygpt_hf.settings.inference import (
    ChatArguments,
    CompareArguments,
    DemoArguments,
    EvaluateArguments,
    ExportArguments,
    GenerateArguments,
    InspectArguments,
    ReportArguments,
    SelftestArguments,
    ServeArguments,
)
from tinygpt_hf.settings.parsing import Settings


@dataclass(frozen=True)
class Command:
    """A command with its help, its settings groups, its function and an example line."""

    help: str
    groups: tuple[type, ...]
    run: Callable[[Settings], int | None]  # returns an exit status, or None for 0
    example: str
    default_config: str | None = None  # the config file used without --config
    prints_result: bool = False  # else the output is only a report

    @property
    def uses_config(self) -> bool:
        return DataArguments in self.groups

    def stdout_is_product(self, settings: Settings) -> bool:
        """Return True if the result goes to the standard output, and to no file."""
        return self.prints_result and not any(getattr(group, "output_file", None) for group in settings.values())


COMMANDS: dict[str, Command] = {}
TRAINING = (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)
TEXT = (DataArguments, TokenizerArguments, OutputArguments)


def command(example: str, *groups: type, **options) -> Callable:
    """Register a function as the command of its name, with its docstring as help."""

    def register(run: Callable[[Settings], int | None]) -> Callable:
        text = (run.__doc__ or run.__name__).rstrip(".")
        name = run.__name__.replace("_", "-")
        COMMANDS[name] = Command(text[0].lower() + text[1:], groups, run, example, **options)
        return run

    return register


@command("tinygpt quickstart", *TRAINING, default_config="quickstart.yaml")
def quickstart(settings: Settings) -> None:
    """Train a first model in minutes: corpus, tokenizer, training, evaluation, a conversation."""
    from tinygpt_hf.quickstart import quickstart

    name_output(settings, TrainingArguments)
    quickstart(settings[DataArguments], settings[TrainingArguments], lambda: train(settings), tell)


@command("tinygpt prepare-corpus --train_file books/ --output_dir corpora/books", DataArguments, CorpusArguments)
def prepare_corpus(settings: Settings) -> None:
    """Clean text, drop duplicates, and write a corpus with its card."""
    from tinygpt_hf.cards.render import advice
    from tinygpt_hf.curation.pipeline import prepare_corpus

    def progress(facts) -> None:
        if sys.stderr.isatty():
            print(f"{facts.read:,} documents, {facts.read_bytes:,} bytes read", file=sys.stderr, flush=True)

    data, corpus = settings[DataArguments], settings[CorpusArguments]
    facts = prepare_corpus(data, corpus, progress)
    read, kept = facts["read"], facts["kept"]
    documents = f"{kept['documents']:,} of {read['documents']:,} documents"
    tell(f"{corpus.output_dir}: {documents}, {kept['bytes']:,} of {read['bytes']:,} bytes")
    for rule, entry in sorted(facts["dropped"].items(), key=lambda e: -e[1]["documents"]):
        tell(f"  {rule:<22} {entry['documents']:>12,} documents {entry['bytes']:>16,} bytes")
    for note in facts["source_remarks"]:
        tell(f"note: {note}")
    tell(advice(facts))
    license_hint = "" if facts["license"] else "; its license is not stated yet"
    tell(f"The card: {Path(corpus.output_dir) / 'README.md'}{license_hint}")


@command("tinygpt train-tokenizer --train_file my.txt --vocab_size 4096 --output_dir runs/mine/tokenizer", *TEXT)
def train_tokenizer(settings: Settings) -> None:
    """Train a tokenizer from text."""
    from tinygpt_hf.reading.corpus import Corpus
    from tinygpt_hf.rows.preparation import write_tokenizer
    from tinygpt_hf.rows.report import tokenizer_lines
    from tinygpt_hf.settings.checks import check_settings

    data, tokenizer, output = (settings[group] for group in TEXT)
    check_settings(data, tokenizer)
    name_output(settings, OutputArguments, "tokenizer")
    if not settings.given.get("output_dir", "--").startswith("--"):  # from a config file, so it is the run folder
        output.output_dir = str(Path(output.output_dir) / "tokenizer")
    corpus = Corpus(data, output.seed)
    report = write_tokenizer(corpus, tokenizer, Path(output.output_dir), output.overwrite)
    for line in tokenizer_lines(output.output_dir, report):
        tell(line)


@command("tinygpt tokenize --train_file my.txt --vocab_size 4096 --output_dir runs/rows", *TEXT)
def tokenize(settings: Settings) -> None:
    """Tokenize text into rows on all cores, for `train --rows`."""
    from tinygpt_hf.reading.corpus import Corpus
    from tinygpt_hf.rows.preparation import tokenize
    from tinygpt_hf.rows.report import rows_lines
    from tinygpt_hf.settings.checks import check_settings
    from tinygpt_hf.training.log import Console
    from tinygpt_hf.training.run_folder import opened

    data, tokenizer, output = (settings[group] for group in TEXT)
    check_settings(data, tokenizer)
    if data.rows:
        raise UsageError("--rows is given", "text: tokenize makes rows", "name their folder with --output_dir")
    name_output(settings, OutputArguments)
    folder = Path(output.output_dir)
    console = Console()
    with opened(folder, output.overwrite, is_main=True):
        trained, rows, report = tokenize(Corpus(data, output.seed, console), tokenizer, folder)
    console.close()
    for line in rows_lines(trained, rows, report, data):
        tell(line)


@command("tinygpt plan --train_file my.txt --time_budget 8m --write mine.yaml", *TRAINING, PlanArguments)
def plan(settings: Settings) -> None:
    """Plan a training run without training: model size, length, memory, time and expected loss."""
    from tinygpt_hf.inference.samples import check_output
    from tinygpt_hf.storage import format_size, write_file, write_json
    from tinygpt_hf.training.forecast import plan

    arguments = settings[PlanArguments]
    yaml_file = check_output(Path(arguments.write), "write") if arguments.write else None
    json_file = check_output(Path(arguments.output_file), "output_file") if arguments.output_file else None
    model, data, tokenizer, training = (settings[group] for group in TRAINING)
    forecast = plan(model, data, tokenizer, training, arguments.hardware)
    for line in (forecast.table, *forecast.choice.advice):
        tell(line)
    sizes = f"memory {format_size(forecast.memory_bytes)}, disk {format_size(forecast.disk_bytes)}"
    tell(f"  time {forecast.seconds:.0f} s, {sizes}, {forecast.operations:.2g} floating-point operations")
    if yaml_file:
        write_file(yaml_file, forecast.to_yaml())
        tell(f"tinygpt train --config {yaml_file}")
    if json_file:
        write_json(json_file, forecast.to_dict())


@command("tinygpt train --config configs/shakespeare-char.yaml --train_file tinyshakespeare.txt", *TRAINING)
def train(settings: Settings) -> None:
    """Train a model: from text to a run folder that Transformers loads."""
    from tinygpt_hf.training.recipe import train

    name_output(settings, TrainingArguments)
    model, data, tokenizer, training = (settings[group] for group in TRAINING)
    train(model, data, tokenizer, training, seconds_before=time.monotonic() - settings.began)


@command(
    'tinygpt generate runs/quickstart --prompt "Once upon a time" --show_steps', GenerateArguments, prints_result=True
)
def generate(settings: Settings) -> None:
    """Continue a prompt."""
    from tinygpt_hf.inference.samples import generate
    from tinygpt_hf.inference.terminal import takes_color

    generate(settings[GenerateArguments], write, sys.stdout.isatty(), takes_color(sys.stdout))


@command(
    'tinygpt inspect runs/quickstart --text "One day, Mia found a kitten." --lens --html mia.html', InspectArguments
)
def inspect(settings: Settings) -> None:
    """Show how a model reads a text: loss of each token, prediction of each layer, attention of each head."""
    from tinygpt_hf.inference.terminal import takes_color
    from tinygpt_hf.inspection.inspect import inspect
    from tinygpt_hf.inspection.screen import screen

    arguments = settings[InspectArguments]
    write(screen(inspect(arguments), takes_color(sys.stdout)))
    if arguments.html:
        tell(f"The page: {arguments.html}")


@command("tinygpt evaluate runs/quickstart --data my.txt", EvaluateArguments, prints_result=True)
def evaluate(settings: Settings) -> None:
    """Evaluate causal LMs on text and on tasks, with confidence intervals; several models make a table."""
    from tinygpt_hf.evaluation.evaluate import measure, result_lines

    arguments = settings[EvaluateArguments]
    for line in result_lines(measure(arguments), arguments.quantization):
        tell(line)


@command("tinygpt report runs/a runs/b --output_file both.html", ReportArguments)
def report(settings: Settings) -> None:
    """Write an HTML report of a run: curves, samples, a map of the loss; several runs side by side."""
    from tinygpt_hf.cards.report import make_report

    tell(f"The report: {make_report(settings[ReportArguments])}")


@command("tinygpt compare runs/a runs/b --data my.txt", CompareArguments, prints_result=True)
def compare(settings: Settings) -> None:
    """Compare two models on the same text: the difference, with a confidence interval and a verdict."""
    from tinygpt_hf.evaluation.compare import comparison_lines, measure

    arguments = settings[CompareArguments]
    for line in comparison_lines(arguments.model, measure(arguments)):
        tell(line)


@command("tinygpt chat runs/quickstart", ChatArguments, prints_result=True)
def chat(settings: Settings) -> int:
    """Talk to a model."""
    from tinygpt_hf.inference.chat import chat

    return chat(settings[ChatArguments])


@command("tinygpt serve runs/quickstart", ServeArguments)
def serve(settings: Settings) -> None:
    """Serve a model over HTTP with the OpenAI API."""
    from tinygpt_hf.inference.serving import serve
    from tinygpt_hf.tokenizing.chat_template import check_template

    def started(address: str, name: str, chats: bool) -> None:
        tell(f"{name} answers at {address}/v1 until Ctrl-C; clients ask for the model by this name. Try:")
        request = {"model": name, "max_tokens": 100}
        request |= {"messages": [{"role": "user", "content": "Hello!"}]} if chats else {"prompt": "Once upon a time"}
        route = "chat/completions" if chats else "completions"
        header = "-H 'Content-Type: application/json'"
        tell(f"curl {address}/v1/{route} {header} -d {shlex.quote(json.dumps(request))}")
        if not chats:
            tell("It has not learned to converse: /v1/completions continues texts.")

    serve(settings[ServeArguments], check_template, started)


@command("tinygpt demo runs/quickstart", DemoArguments)
def demo(settings: Settings) -> None:
    """Chat with a model in the browser, with the alternatives to each token."""
    from tinygpt_hf.inference.demo import demo

    demo(settings[DemoArguments], lambda address, name, chats: tell(f"{name} is at {address} until Ctrl-C"))


@command("tinygpt export runs/quickstart --to qwen3", ExportArguments)
def export(settings: Settings) -> None:
    """Export a model as stock Qwen3, Llama or GPT-2, ONNX or GGUF, and verify that the outputs are the same."""
    from tinygpt_hf.export.export import check_request, export, report_lines
    from tinygpt_hf.model.loading import load_model
    from tinygpt_hf.tokenizing.chat_template import check_template

    request = settings[ExportArguments]
    target = check_request(request.model, request.to, request.output_dir)
    model, tokenizer = load_model(request.model, "cpu", "saved")
    check_template(tokenizer)
    for line in report_lines(export(model, tokenizer, request.model, request.to, target), request.to):
        tell(line)


@command("tinygpt push runs/quickstart --hub_model_id alice/quickstart --dry_run", PushArguments)
def push(settings: Settings) -> None:
    """Push a model to the Hub: files are chosen by an allow-list, scanned for secrets, verified by checksum."""
    from tinygpt_hf.hub.push_pull import push

    push(settings[PushArguments], tell)


@command("tinygpt pull alice/quickstart --output_dir models/quickstart", PullArguments)
def pull(settings: Settings) -> None:
    """Pull a model from the Hub into a new folder, every file verified by checksum."""
    from tinygpt_hf.hub.push_pull import pull

    pull(settings[PullArguments], tell)


@command("tinygpt selftest", SelftestArguments)
def selftest(settings: Settings) -> int:
    """Check in under a minute that this machine computes correctly; prints a table for bug reports."""
    from tinygpt_hf.selftest import selftest

    return 0 if selftest(tell, settings[SelftestArguments].output_file) else 1


def write(text: str) -> None:
    """Write text to the standard output and flush it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print lines to the standard output, made safe by `presentable`.

    On a terminal they are wrapped between words, except commands, which users copy.
    """
    from tinygpt_hf.inference.terminal import fitted

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    lines = presentable(text).split("\n")
    print("\n".join(line if line.startswith("tinygpt ") else fitted(line, columns) for line in lines), flush=True)


def name_output(settings: Settings, group: type, inside: str = "") -> None:
    """Set a missing output_dir from the name of the config file, or of the first text file."""
    output = settings[group]
    if output.output_dir is None:
        named = Path("runs") / Path(settings.config).stem if settings.config else run_folder(settings[DataArguments])
        if named is None:
            raise UsageError("there is no --output_dir", "a folder for the results", "try --output_dir runs/mine")
        output.output_dir = str(Path(named) / inside)
    if "\0" in output.output_dir:
        raise UsageError(f"--output_dir is {output.output_dir!r}", "a name without NUL", "rename it")
