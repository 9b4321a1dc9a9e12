"""Export a model: written for a runtime that needs nothing of ours, then proved in a process that has nothing of ours.

    target = check_request("runs/mine", "qwen3", None)         # runs/mine/exports/qwen3; before anything is loaded
    report = export(*load_model("runs/mine", "cpu", "saved"), "runs/mine", "qwen3", target)
    report.logit_difference, report.rounding                   # errors of its logits and of the model's own, or a RunError

Each format is a module beside this one with two functions; `model` is a TinyGPT model, or a stock Qwen3, Llama or GPT-2:

    check(model, tokenizer) -> str                     what will be written, in a few words; UsageError if it cannot be
    write(model, tokenizer, folder: Path) -> list[str] the files, into a folder nobody sees yet; caveats to print

What must come out again is in the folder `reference` (see reference.py). The process (verify.py) prints one line of JSON last:
`logit_difference` (the largest error of a logit, against float64), `rounding` (that of the model itself in float32), `prompts`
and `greedy_tokens` (how many were equal, the latter for each prompt), `texts`, and `unequal`: what differs, in words, or null.
"""

import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError

STOCK = ("qwen3", "llama", "gpt2")
FORMATS = (*STOCK, "onnx", "gguf")
WRITERS = {"onnx": "onnx_graph", "gguf": "gguf_file"} | dict.fromkeys(STOCK, "stock")
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "gguf": ("gguf",)}
INSIDE_SOURCE = "exports"  # the one folder inside the source where an export may stand
NEXT = dict.fromkeys(STOCK, "transformers serve {folder}") | {
    "onnx": "run it in onnxruntime, as docs/export.md shows",
    "gguf": "llama-server -m {folder}/model.gguf",
}


@dataclass
class Report:
    """Hold what was written and what the proof compared."""

    output_dir: str
    what: str
    caveats: list[str]
    proved: bool = False
    logit_difference: float = 0.0
    rounding: float = 0.0
    prompts: int = 0
    greedy_tokens: int = 0  # for each prompt
    texts: int = 0


def check_request(source: str | None, to: str | None, output_dir: str | Path | None) -> Path:
    """Return the folder the export will have. Refuse what can be refused before a model is loaded; write nothing."""
    if to not in FORMATS:
        close = difflib.get_close_matches(str(to), FORMATS, n=1)
        hint = f"did you mean --to {close[0]}?" if close else "choose one of them"
        problem = "there is no --to" if to is None else f"--to is {to!r}"
        raise UsageError(problem, f"one of {', '.join(FORMATS)}", hint)
    if source is None:
        raise UsageError("no MODEL is given", "a model folder or a Hub id", "try runs/quickstart")
    missing = [name for name in NEEDS.get(to, ()) if importlib.util.find_spec(name) is None]
    if missing:
        expected = f"{', '.join(NEEDS[to])} for --to {to}"
        raise UsageError(f"{', '.join(missing)} is not installed", expected, "run pip install 'tinygpt_hf[export]'")
    home = Path(source).expanduser()
    if output_dir is None:
        if not home.is_dir():
            example = f"try --output_dir {home.name}-{to}"
            raise UsageError(f"there is no folder {source}", "--output_dir, for a model from the Hub", example)
        output_dir = home / INSIDE_SOURCE / to
    target = Path(output_dir).expanduser()
    _check_target(target, home)
    return target


def export(model, tokenizer, source: str, to: str, output_dir: str | Path) -> Report:
    """Write `model` (loaded from `source`, in the dtype it was saved in) as `to` into the new folder `output_dir`.

    It is proved before it appears: same token ids, logits whose largest error against float64 is at most `reference.TOLERANCE`
    times that of the model itself in float32, same greedy tokens wherever two such errors cannot change which is the first.
    Raises UsageError for what cannot be exported, RunError where the proof fails: what was written stays
    beside `output_dir`, under a name with `.unproven` in it.
    """
    from tinygpt_hf.export.reference import write_reference
    from tinygpt_hf.export.v4_compat import add_older_names
    from tinygpt_hf.model.loading import silent_transformers

    target = check_request(source, to, output_dir)
    _check_model(model, source, to)
    model.config.name_or_path = Path(source).resolve().name  # of a Hub's model it would be the commit
    writer = importlib.import_module(f"tinygpt_hf.export.{WRITERS[to]}")
    report = Report(str(target), writer.check(model, tokenizer), [])
    with tempfile.TemporaryDirectory(prefix="tinygpt-reference-") as reference, _no_empty_parent(target):
        write_reference(model, tokenizer, Path(reference))
        with storage.new_folder(target) as folder:
            with silent_transformers():
                report.caveats = _written(lambda: writer.write(model, tokenizer, folder), target)
            add_older_names(folder)
            storage.open_to_umask(folder)
            command = proof_command(to, folder.absolute(), Path(reference))
            failure = _prove(command, report)
            if failure:
                aside = _set_aside(folder, target)
                raise RunError(
                    f"the proof of {target} failed: {failure}; what was written is in {aside} to be looked at, "
                    f"{source} is as it was"
                )
    return report


def proof_command(to: str, folder: Path, reference: Path) -> list[str]:
    """Return script and arguments of the process that proves `folder`."""
    kind = "stock" if to in STOCK else to
    return [str(Path(__file__).with_name("verify.py")), kind, str(folder), str(reference)]


def report_lines(report: Report, to: str) -> list[str]:
    """Write what the command prints: what was written, what was proved, what to know, what to do next."""
    return [
        f"{report.output_dir}: {report.what}",
        "proved in a process without tinygpt_hf: "
        f"same logits (largest error {report.logit_difference:.1e}, the model's own in float32 {report.rounding:.1e}), "
        f"same {report.greedy_tokens} greedy tokens after each of {report.prompts} prompts, "
        f"same token ids of {report.texts} texts",
        *(f"note: {caveat}" for caveat in report.caveats),
        f"next: {NEXT[to].format(folder=shlex.quote(report.output_dir))}",
    ]


def _check_target(target: Path, home: Path) -> None:
    """Refuse a `target` that exists, cannot be written, or lies inside the model other than in its exports/."""
    expected, path, inside = "a new folder", target.resolve(), home.resolve()
    if home.is_dir() and path == inside:
        raise UsageError(f"--output_dir {target} is the model itself", expected, "choose another --output_dir")
    if home.is_dir() and path.is_relative_to(inside):
        parts = path.relative_to(inside).parts
        if parts[0] != INSIDE_SOURCE or len(parts) != 2:
            hint = f"use {home / INSIDE_SOURCE / target.name}, or a folder outside"
            raise UsageError(f"--output_dir {target} is inside the model {home}", expected, hint)
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists already", expected, "remove it, or choose another --output_dir")
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        problem = "cannot be written to" if above.is_dir() else "is a file"
        raise UsageError(f"{above} {problem}", "a writable folder for --output_dir", "choose another --output_dir")


def _check_model(model, source: str, to: str) -> None:
    """Refuse a quantized model, a stock one for a stock format, and architectures that cannot be exported."""
    from tinygpt_hf.model.conversion import equal_architecture

    kind = model.config.model_type
    if getattr(model.config, "quantization_config", None) is not None:
        raise UsageError(f"{source} is quantized", "full-precision weights", "export the model it was made from")
    if kind not in ("tinygpt", *STOCK):
        expected = f"TinyGPT, {', '.join(STOCK)} for --to {to}"
        raise UsageError(f"{source} is a {kind}", expected, "export a model of these kinds")
    if to in STOCK:
        if kind != "tinygpt":
            hint = "use it as it is: it needs nothing of ours"
            raise UsageError(f"{source} is a {kind} already", f"a TinyGPT model for --to {to}", hint)
        equal_architecture(model.config, to, "--to ")


@contextlib.contextmanager
def _no_empty_parent(target: Path):
    """Remove the folder above `target` after a failure, if it was made for it and holds nothing."""
    existed = target.parent.exists()
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                target.parent.rmdir()
        raise


def _written(write, target: Path) -> list[str]:
    """Call `write`; a full disk, for which safetensors has an error class of its own, is a RunError."""
    try:
        return write()
    except Exception as error:
        if not type(error).__module__.startswith("safetensors"):
            raise
        raise RunError(f"{target} could not be written ({error}); nothing is left of it") from error


def _prove(command: list[str], report: Report) -> str | None:
    """Run the proof and put its figures into the report; return what is wrong, in words, or None."""
    # -P: the folder of the script is not searched for modules
    words = [sys.executable, "-P", *command]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
        unequal = result.pop("unequal")
        for name, figure in result.items():
            setattr(report, name, figure)
    except (IndexError, ValueError, TypeError, KeyError, AttributeError):
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return f"its process ended with status {done.returncode} ({reason})"
    report.proved = unequal is None
    return unequal and f"unequal are {unequal}"


def _set_aside(folder: Path, target: Path) -> Path:
    """Keep what failed its proof, under the first free name that says so."""
    names = (f"{target.name}.unproven{'' if k == 1 else f'-{k}'}" for k in range(1, 10**6))
    aside = next(path for name in names if not (path := target.with_name(name)).exists())
    storage.system.rename(folder, aside)
    storage.sync_folder(aside.parent)
    return aside
