"""Export a model to other formats, and verify each export in a process without this package.

    target = check_request("runs/mine", "qwen3", None)         # runs/mine/exports/qwen3; before anything is loaded
    report = export(*load_model("runs/mine", "cpu", "saved"), "runs/mine", "qwen3", target)
    report.logit_difference, report.rounding                   # logit errors of the export and of the model in float32

Each format is a module in this folder with two functions; `model` is a TinyGPT model, or a stock Qwen3, Llama or GPT-2:

    check(model, tokenizer) -> str                     a short description of the export; UsageError if it is impossible
    write(model, tokenizer, folder: Path) -> list[str] write the files into a temporary folder; return caveats to print

The expected outputs are in the folder `reference` (reference.py). The process (verify.py) ends its output with a line of JSON:
`logit_difference` (largest error of a logit, compared with float64), `rounding` (that of the model in float32), the numbers of
equal `prompts`, `greedy_tokens` (per prompt) and `texts`, and `unequal` (a description of the differences, or null).
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
INSIDE_SOURCE = "exports"  # the only folder inside the source that may hold exports
NEXT = dict.fromkeys(STOCK, "transformers serve {folder}") | {
    "onnx": "run it in onnxruntime, as docs/export.md shows",
    "gguf": "llama-server -m {folder}/model.gguf",
}


@dataclass
class Report:
    """A summary of an export and its proof."""

    output_dir: str
    what: str
    caveats: list[str]
    logit_difference: float = 0.0
    rounding: float = 0.0
    prompts: int = 0
    greedy_tokens: int = 0  # for each prompt
    texts: int = 0


def check_request(source: str | None, to: str | None, output_dir: str | Path | None) -> Path:
    """Return the target folder of an export; raise a `UsageError` for anything wrong that shows before a model is loaded."""
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
    """Write `model` (loaded from `source`, in the dtype it was saved in) in format `to` into the new folder `output_dir`.

    The folder appears only after its proof. The proof requires equal token ids, and equal greedy tokens unless rounding
    can decide them. Logit errors (compared with float64) may be `reference.TOLERANCE` times those of the model in float32.
    Raises a `UsageError` if the model cannot be exported and a `RunError` if the proof fails. After a failed proof, the
    files are kept next to `output_dir` with `.unproven` in the name.
    """
    from tinygpt_hf.export.reference import write_reference
    from tinygpt_hf.export.v4_compat import add_older_names
    from tinygpt_hf.model.loading import silent_transformers

    target = check_request(source, to, output_dir)
    _check_model(model, source, to)
    model.config.name_or_path = Path(source).resolve().name  # for a model from the Hub it would be the commit
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
                raise RunError(f"the proof of {target} failed: {failure}; the files are kept in {aside}")
    return report


def proof_command(to: str, folder: Path, reference: Path) -> list[str]:
    """Return the script and arguments of the process that verifies `folder`."""
    kind = "stock" if to in STOCK else to
    return [str(Path(__file__).with_name("verify.py")), kind, str(folder), str(reference)]


def report_lines(report: Report, to: str) -> list[str]:
    """Format a report: the export, its proof, the caveats, and a command to try next."""
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
    """Raise a `UsageError` if `target` exists, cannot be written, or is inside the model but not in its exports/."""
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
    """Raise a `UsageError` for quantized models, unknown architectures, and stock models in a stock format."""
    from tinygpt_hf.model.conversion import equal_architecture

    kind = model.config.model_type
    if getattr(model.config, "quantization_config", None) is not None:
        raise UsageError(f"{source} is quantized", "full-precision weights", "export the model it was made from")
    if kind not in ("tinygpt", *STOCK):
        expected = f"TinyGPT, {', '.join(STOCK)} for --to {to}"
        raise UsageError(f"{source} is a {kind}", expected, "export a model of these kinds")
    if to in STOCK:
        if kind != "tinygpt":
            hint = "use it as it is: it does not need tinygpt_hf"
            raise UsageError(f"{source} is a {kind} already", f"a TinyGPT model for --to {to}", hint)
        equal_architecture(model.config, to, "--to ")


@contextlib.contextmanager
def _no_empty_parent(target: Path):
    """After an error, remove the parent folder of `target` if it is new and empty."""
    existed = target.parent.exists()
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                target.parent.rmdir()
        raise


def _written(write, target: Path) -> list[str]:
    """Call `write` and turn safetensors' own errors, such as for a full disk, into a `RunError`."""
    try:
        return write()
    except Exception as error:
        if not type(error).__module__.startswith("safetensors"):
            raise
        raise RunError(f"{target} could not be written ({error}); its files were removed") from error


def _prove(command: list[str], report: Report) -> str | None:
    """Run the proof and copy its numbers into the report; return a description of the failure, or None."""
    # -P: do not import modules from the script's folder
    words = [sys.executable, "-P", *command]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
        unequal = result.pop("unequal")
        for name, number in result.items():
            setattr(report, name, number)
    except (IndexError, ValueError, TypeError, KeyError, AttributeError):
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return f"its process ended with status {done.returncode} ({reason})"
    return unequal and f"the export differs in {unequal}"


def _set_aside(folder: Path, target: Path) -> Path:
    """Move an export that failed its proof to the first free name with `.unproven`; return its path."""
    names = (f"{target.name}.unproven{'' if k == 1 else f'-{k}'}" for k in range(1, 10**6))
    aside = next(path for name in names if not (path := target.with_name(name)).exists())
    storage.system.rename(folder, aside)
    storage.sync_folder(aside.parent)
    return aside
