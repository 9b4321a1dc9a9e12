"""Write the report of one or several runs as a self-contained HTML page.

    write_report(Path("runs/mine"))                    # runs/mine/report.html, as a run does when it ends
    html = report([Path("runs/a"), Path("runs/b")])

The report needs only the files of the run folder, and also works for a run that was killed. The breakdown of the loss reads
the first held-out rows with the last weights, which takes some seconds.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from markupsafe import Markup

from tinygpt_hf import storage
from tinygpt_hf.cards.facts import NUMBER, Run, conform
from tinygpt_hf.cards.loss_curve import COLORS, curve
from tinygpt_hf.errors import RunError, UsageError, redacted
from tinygpt_hf.evaluation.compare import paired
from tinygpt_hf.inference.samples import check_output
from tinygpt_hf.inspection.diagnoses import Diagnosis, diagnoses
from tinygpt_hf.inspection.loss_map import LossMap, loss_map
from tinygpt_hf.inspection.page import render_template
from tinygpt_hf.rows.preparation import rows_folder
from tinygpt_hf.rows.store import Rows
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.settings.inference import ReportArguments
from tinygpt_hf.storage import format_size

NAME = "report.html"
MOST_TOKENS = 20_000  # held-out tokens read for the breakdown of the loss
MOST_WORK = 4e11  # operations for it: ten seconds of one core
MOST_SAMPLES, LONGEST_SAMPLE = 12, 600  # evaluations whose samples are shown, and characters per sample
PLANNED = {  # key of `plan` and `came_true` in run.json -> (label, format)
    "seconds": ("time", lambda value: str(timedelta(seconds=round(value)))),
    "memory_bytes": ("memory", format_size),
    "parameters": ("parameters", lambda value: f"{value:,.0f}"),
    "train_tokens": ("training tokens", lambda value: f"{value:,.0f}"),
    "epochs": ("epochs", lambda value: f"{value:.2f}"),
    "bits_per_byte": ("bits per byte", lambda value: f"{value:.3f}"),
}


@dataclass
class ReportedRun:
    """A run in a report: its files, the breakdown of its loss, and its color in the plots."""

    folder: Path
    run: Run
    name: str
    color: str
    loss_map: LossMap | None

    @property
    def last_step(self) -> int:
        return int(max((line["step"] or 0 for line in self.run.lines), default=0))

    @property
    def is_finished(self) -> bool:
        return self.run.record["result"]["steps"] is not None

    @property
    def speed(self) -> float | None:
        """Mean tokens per second over the log."""
        speeds = [line["tokens_per_second"] for line in self.run.lines if line["tokens_per_second"] is not None]
        return sum(speeds) / len(speeds) if speeds else None

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Rows (name, value) of the table at the top."""
        run, result = self.run, self.run.record["result"]
        state = "finished" if self.is_finished else "not finished"
        rows = [("state", f"step {self.last_step:,}, {state}")]
        rows += _row("validation loss", run.loss, lambda loss: f"{loss:.4f} nats per token")
        rows += _row("bits per byte", run.bits_per_byte, "{:.4f}".format)
        rows += _row("entropy of its predictions", run.evaluation["eval_entropy"], "{:.2f} bits per token".format)
        if run.loss is not None and run.baselines:
            beaten = [name for name, baseline in run.baselines.items() if run.loss < baseline["loss"]]
            rows.append(("better than", ", ".join(beaten) or "none of the counting models"))
        if result["best_loss"] is not None:
            rows.append(("best validation loss", f"{result['best_loss']:.4f} at step {result['best_step']:,.0f}"))
        rows += _row("parameters", run.parameters, "{:,.0f}".format)
        rows += _row("training tokens", result["tokens"], "{:,.0f}".format)
        rows += _row("training time", run.seconds, lambda seconds: str(timedelta(seconds=round(seconds))))
        rows += _row("tokens per second, mean", self.speed, "{:,.0f}".format)
        hardware = run.record["hardware"]
        if self.speed and run.parameters:
            rate, peak = 6 * (run.parameters - self._num_lookup_parameters) * self.speed / 1e9, hardware["peak_gflops"]
            share = f", {rate / peak:.0%} of the rate of large matrix products on this machine" if peak else ""
            rows.append(("compute rate, about", f"{rate:,.1f} GFLOP/s{share}"))
        rows += _row("peak memory", hardware["peak_memory_bytes"], format_size)
        precision = "float32" if hardware["mixed_precision"] == "no" else hardware["mixed_precision"]
        words = [hardware["device"], hardware["processor"], precision]
        rows += _row("machine", ", ".join(word for word in words if word) or None, str)
        rows += _row("versions", ", ".join(f"{name} {v}" for name, v in run.record["versions"].items()) or None, str)
        return rows

    @property
    def _num_lookup_parameters(self) -> float:
        """Number of parameters in embeddings that are only looked up, not also used as the head."""
        config = self.run.config
        sizes = config["vocab_size"], config["hidden_size"]
        return sizes[0] * sizes[1] if config["tie_word_embeddings"] is False and None not in sizes else 0

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """Problems found in the log, as the run reported them."""
        losses = {name: baseline["loss"] for name, baseline in self.run.baselines.items()}
        last = self.last_step if self.is_finished else conform(self.run.setting("training", "max_steps"), NUMBER)
        return diagnoses(self.run.lines, losses, last)

    @property
    def hashes(self) -> list[tuple[str, str]]:
        """Rows (name, sha256) of the text, the tokenizer and the weights."""
        rows = [(name, self.run.record[name]) for name in ("data", "tokenizer") if self.run.record[name]]
        weights = self.folder / "model.safetensors"
        return rows + ([("weights", storage.file_hash(weights))] if weights.is_file() else [])

    @property
    def planned(self) -> list[tuple[str, str, str]]:
        """Rows (name, planned, measured) of a planned run."""
        plan, truth = self.run.record["plan"], self.run.record["came_true"]
        rows: list[tuple[str, str, str]] = []
        for name, (words, form) in PLANNED.items():
            both = [form(values[name]) if values[name] is not None else "" for values in (plan, truth)]
            if name == "bits_per_byte" and None not in (plan["low"], plan["high"]):
                both[0] += f" ({form(plan['low'])} to {form(plan['high'])})"
            rows += [(words, both[0], both[1])] if any(both) else []
        return rows

    @property
    def copied(self) -> str | None:
        """Sentence on how much of the last samples occurs in the training text."""
        copies = self.run.copies
        if not copies["sequences"]:
            return None
        shares = [copies[f"{of}copied"] / max(copies[f"{of}sequences"], 1) for of in ("", "held_out_")]
        return (
            f"{shares[0]:.0%} of the sequences of {copies['length']} characters in the last samples occur in the training text, "
            f"as do {shares[1]:.0%} of those in held-out text. The longest copied span has {copies['longest']} characters."
        )

    @property
    def samples(self) -> list[tuple[str, list[tuple[int, str]]]]:
        """Samples of evaluations over the run, by prompt: (prompt, [(step, text)])."""
        lines = [line for line in self.run.lines if line["samples"]]
        lines = lines[:: -(-len(lines) // MOST_SAMPLES) or 1] + lines[-1:]
        by_prompt: dict[str, dict[int, str]] = {}
        for line in lines:
            for sample in line["samples"]:
                texts = by_prompt.setdefault(sample["prompt"] or "", {})
                texts[int(line["step"] or 0)] = (sample["text"] or "")[:LONGEST_SAMPLE]
        return [(prompt, sorted(texts.items())) for prompt, texts in by_prompt.items()]


def _row(name: str, value, form) -> list[tuple[str, str]]:
    """Return a table row in a list, or no row for None."""
    return [] if value is None else [(name, form(value))]


def write_report(folder: Path) -> None:
    """Write report.html into a run folder."""
    storage.write_file(folder / NAME, report([folder]))


def keep_report(folder: Path, say: Callable[[str], None], only_missing: bool = False) -> None:
    """Write report.html of a finished run; an error is only reported, because the results are already saved."""
    try:
        if not only_missing or not (folder / NAME).is_file():
            write_report(folder)
    except Exception as error:
        say(f"note: there is no {NAME} ({type(error).__name__}: {error}); tinygpt report {folder} makes it")


def make_report(arguments: ReportArguments) -> Path:
    """Write the report of `tinygpt report`; return its path."""
    if not arguments.runs:
        raise UsageError("no RUN is given", "run folders", "try tinygpt report runs/quickstart")
    folders = [Path(name) for name in arguments.runs]
    for folder in folders:
        if not any((folder / name).is_file() for name in ("run.yaml", "run.json")):
            what = "is no run folder: it holds neither run.yaml nor run.json" if folder.is_dir() else "does not exist"
            raise UsageError(f"{folder} {what}", "the --output_dir of a training run", "check the path")
    output = check_output(Path(arguments.output_file or (folders[0] / NAME if len(folders) == 1 else NAME)))
    storage.write_file(output, report(folders))
    return output


def report(folders: list[Path]) -> str:
    """Render the report of these runs, without what is unknown."""
    names = [redacted(folder.resolve().name) for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    runs = [
        ReportedRun(folder, Run(folder), name, COLORS[number % len(COLORS)], measure_loss_map(folder))
        for number, (folder, name) in enumerate(zip(folders, names, strict=True))
    ]
    values = {"runs": runs, "curves": _curves(runs), "settings": _settings(runs), "verdicts": _verdicts(runs)}
    return render_template("report.html.jinja", Path(__file__).parent, **values)


def measure_loss_map(folder: Path) -> LossMap | None:
    """Break down the loss of a run folder's weights on its held-out rows; None if either cannot be read."""
    from tinygpt_hf.model.loading import load_model

    run = Run(folder)
    block_size = run.setting("data", "block_size")
    try:
        rows = Rows(rows_folder(run.setting("data", "rows") or str(folder)) / "validation")
        model, tokenizer = load_model(str(folder))
        most = min(MOST_TOKENS, int(MOST_WORK / (2 * model.num_parameters())))
        return loss_map(model, tokenizer, RowView(rows, block_size), most, run.setting("data", "document_mask") is True)
    except (UsageError, RunError, OSError, ValueError, LookupError):
        return None


def _verdicts(runs: list[ReportedRun]) -> list[tuple[str, str, str, str]]:
    """Compare each run with the first on held-out documents that both read in full.

    Returns rows (names, difference, interval, verdict).
    """
    rows, first = [], runs[0]
    for other in runs[1:]:
        a, b = (each.loss_map.documents if each.loss_map else {} for each in (first, other))
        common = [number for number in a if number in b]
        if not common or any(a[number][1] != b[number][1] for number in common):
            continue  # not the same text
        try:
            result = paired([a[n][0] for n in common], [b[n][0] for n in common], [a[n][1] for n in common])
        except UsageError:  # too few documents
            continue
        verdict = result.verdict.replace("A is", f"{first.name} is").replace("B is", f"{other.name} is")
        interval = f"{result.low:+.4f} to {result.high:+.4f}"
        rows.append((f"{first.name} - {other.name}", f"{result.difference:+.4f}", interval, verdict))
    return rows


def _settings(runs: list[ReportedRun]) -> list[tuple[str, str, list[str]]]:
    """Return rows (section, name, values) of settings: for one run the changed ones, for several those that differ."""
    sections = {
        (section, name)
        for each in runs
        for section, given in each.run.settings_by(changed=True).items()
        for name in given
    }
    rows = []
    for section, name in sorted(sections):
        values = [each.run.setting(section, name) for each in runs]
        if len(runs) == 1 or any(value != values[0] for value in values):
            rows.append((section, name, [json.dumps(value, ensure_ascii=False).strip('"') for value in values]))
    return rows


def _curves(runs: list[ReportedRun]) -> list[tuple[str, Markup]]:
    """Plot the logged numbers, with all runs in each plot; return (title, SVG) pairs."""
    lines = {each.name if len(runs) > 1 else "": each.run.lines for each in runs}
    levels = {name: baseline["loss"] for each in runs[:1] for name, baseline in each.run.baselines.items()}
    plots = (
        ("Loss", "loss", "line training, dots validation (nats per token) over steps", "eval_loss", levels),
        ("Bits per byte, held out", "eval_bits_per_byte", "over steps", "eval_bits_per_byte", None),
        (
            "Entropy of its predictions",
            "eval_entropy",
            "bits per token of held-out text, over steps",
            "eval_entropy",
            None,
        ),
        ("Learning rate", "learning_rate", "over steps", "", None),
        ("Gradient norm", "grad_norm", "before clipping, over steps", "", None),
        ("Speed", "tokens_per_second", "training tokens per second, over steps", "", None),
    )
    pictures = [(title, curve(lines, key, words, dots, levels)) for title, key, words, dots, levels in plots]
    opening = '<svg class="chart" role="img" '  # styled by the page
    return [(title, Markup(picture.replace("<svg ", opening, 1))) for title, picture in pictures if picture]
