"""Evaluate models on a text and on tasks (`tinygpt evaluate`), also after quantization.

results = evaluate("runs/quickstart", data="my.txt", tasks=["basics"])
results["bits_per_byte"], results["tasks"]["copying"]["accuracy"]
"""

import math
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.baselines import xz_bits_per_byte
from tinygpt_hf.evaluation.harness import PREFIX
from tinygpt_hf.evaluation.memorization import check_rows, memorized
from tinygpt_hf.evaluation.metrics import evaluate_documents, evaluate_file, read_text
from tinygpt_hf.evaluation.tasks import read_tasks
from tinygpt_hf.inference.quantization import check_quantization, quantized, weight_megabytes
from tinygpt_hf.inference.samples import check_output
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.reading.sources import documents, training_sources
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.inference import EvaluateArguments

XZ_BYTES = 20_000_000  # xz takes about a second per megabyte
WIDTH = 80


def evaluate(model, data=None, **settings) -> dict:
    """Evaluate a model folder or Hub id, or a list of them; return the contents of `--output_file`.

    `data` is a UTF-8 text file, read as one text, or anything `train` takes: a Dataset, an IterableDataset, a list of texts or
    conversations, a folder of `save_to_disk`, DataArguments. Of the latter, all documents are scored as in training.
    `settings` are the other fields of `EvaluateArguments` (tasks, block_size, stride, quantization, output_file, ...).
    """
    names = {field.name for field in fields(EvaluateArguments)}
    if unknown := sorted(set(settings) - names):
        raise UsageError(f"evaluate() got {unknown[0]!r}", f"one of {', '.join(sorted(names))}", "remove it")
    models = [str(name) for name in (model if isinstance(model, (list, tuple)) else [model])]
    if data is None or isinstance(data, (str, os.PathLike)) and not os.path.isdir(data):
        return measure(EvaluateArguments(model=models, data=str(data) if data else None, **settings))
    text = data_arguments(data)
    check_settings(text)
    name = ", ".join(source.name for source in training_sources(text))
    return measure(EvaluateArguments(model=models, data=name, **settings), text)


def measure(arguments: EvaluateArguments, text: DataArguments | None = None) -> dict:
    """Evaluate as set in `arguments` and write `output_file`. The documents of `text` replace the file `data`.

    Returns {"models": [results of each model]}; the results of a single model are also at the top level. Loss is in nats
    per token, results of the quantized model end in its kind, and values that are not finite are None. Raises a
    `UsageError` for invalid settings.
    """
    check_settings(arguments)
    names = arguments.model
    if not names:
        raise UsageError("no MODEL is given", "a model folder or a Hub id", "try runs/quickstart")
    if not arguments.data and not arguments.tasks and not arguments.memorization:
        if len(names) > 1:
            raise UsageError(
                f"{len(names)} models have no common text", "--data, one text for all", "try --data my.txt"
            )
        raise UsageError("there is no --data", "a UTF-8 text file, or --tasks", "try --data my.txt")
    if arguments.quantization:
        check_quantization(arguments.quantization)
    output = check_output(Path(arguments.output_file)) if arguments.output_file else None
    tasks = read_tasks(arguments.tasks, arguments.tasks_dir)
    if arguments.memorization:
        for name in names:
            check_rows(Path(name))
    texts = [document for source in training_sources(text) for document in documents(source)] if text else None
    xz = _xz(arguments.data, texts) if arguments.data else {}
    vocabularies, entries = [], []
    for name in names:
        model, tokenizer = load_model(name, arguments.device, arguments.dtype)
        entry = _measure_text(model, tokenizer, arguments, texts) if arguments.data else {}
        entry |= xz
        if tasks:
            entry["tasks"] = {task: run(model, tokenizer) for task, run in tasks.items()}
        if arguments.memorization:
            entry["memorization"] = memorized(model, tokenizer, Path(name))
        if arguments.quantization and arguments.data:
            entry["weights_mb"] = weight_megabytes(model)
            model = quantized(model, arguments.quantization)
            second = _measure_text(model, tokenizer, arguments, texts) | {"weights_mb": weight_megabytes(model)}
            numbers = {key: value for key, value in second.items() if isinstance(value, float)}
            entry |= {f"{key}_{arguments.quantization}": value for key, value in numbers.items()}
        entries.append(_finite({"model": name} | entry))
        vocabularies.append(tokenizer.get_vocab())
        del model
    results = {key: value for key, value in entries[0].items() if key != "model"} if len(names) == 1 else {}
    results["models"] = entries
    if len(names) > 1:
        results["same_tokenizer"] = all(one == vocabularies[0] for one in vocabularies)
    if output:
        storage.write_json(output, results)
    return results


def _measure_text(model, tokenizer, arguments: EvaluateArguments, texts: list[dict] | None) -> dict:
    windows = arguments.block_size, arguments.stride, arguments.per_device_eval_batch_size
    if texts is None:
        return evaluate_file(model, tokenizer, arguments.data, *windows)
    return evaluate_documents(model, tokenizer, texts, *windows) | {"data": arguments.data}


def _xz(data: str, texts: list[dict] | None) -> dict:
    """Compute xz's bits per byte; return {} for conversations and large texts."""
    if texts is None:
        if os.path.exists(data) and os.path.getsize(data) > XZ_BYTES:
            return {}
        text = read_text(data)
    elif any("messages" in document for document in texts):
        return {}
    else:
        text = "".join(str(document["text"]) for document in texts)
    size = len(text.encode())
    return {"xz_bits_per_byte": xz_bits_per_byte(text.encode())} if 0 < size < XZ_BYTES else {}


def _finite(value):
    """Replace floats that are not finite, and so not valid JSON, by None."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_lines(results: dict, quantization: str | None = None) -> list[str]:
    """Format the results in lines of at most 80 columns: a line per number for one model, a row per model for several."""
    models = results["models"]
    lines: list[str] = []
    if "loss" in models[0]:
        lines += _one_model(models[0], quantization) if len(models) == 1 else _several(models)
        if len(models) > 1 and not results["same_tokenizer"]:
            lines.append("Tokenizers differ: loss and perplexity are per token; compare bits per byte.")
        lines.append(f"Intervals: the variation over other texts of this kind ({models[0]['blocks']} blocks).")
    if "tasks" in models[0]:
        lines += ["", *_tasks(models)] if lines else _tasks(models)
    for entry in models:
        lines += _memorization(entry.get("memorization"), f"{entry['model']}: " if len(models) > 1 else "")
    return lines


def _one_model(entry: dict, quantization: str | None) -> list[str]:
    lines = [f"{'':<18}{'value':>10}   {'95 % interval':<20}{quantization or '':>10}".rstrip()]
    for name, value in entry.items():
        is_bound = name.endswith(("_low", "_high"))
        if name in ("model", "tasks", "memorization") or is_bound or quantization and name.endswith(f"_{quantization}"):
            continue
        bounds = [entry.get(f"{name}_{end}") for end in ("low", "high")]
        between = "" if None in bounds else " to ".join(map(_shown, bounds))
        key = f"{name}_{quantization}"
        quantized_value = _shown(entry[key]) if key in entry else ""
        lines.append(f"{name:<18}{_shown(value):>10}   {between:<20}{quantized_value:>10}".rstrip())
    return lines


def _several(models: list[dict]) -> list[str]:
    head = f"{'model':<20}{'bits/byte':>9}   {'95 % interval':<16}{'loss':>9}{'perpl.':>8}{'acc.':>7}{'top 5':>7}"
    lines = [head]
    for entry in models:
        between = f"{_shown(entry['bits_per_byte_low'])} to {_shown(entry['bits_per_byte_high'])}"
        perplexity = "" if entry["perplexity"] is None else f"{entry['perplexity']:.5g}"
        lines.append(
            f"{_short(entry['model'], 19):<20}{_shown(entry['bits_per_byte']):>9}   {between:<16}{_shown(entry['loss']):>9}"
            f"{perplexity:>8}{entry['accuracy']:>7.1%}{entry['top5_accuracy']:>7.1%}"
        )
    return lines


def _tasks(models: list[dict]) -> Iterator[str]:
    """Yield a row per task and model; a task of lm_eval has a row per number."""
    yield f"{'task':<22}{'right':>7}   {'95 % interval':<18}{'chance':>7}{'items':>8}" + "   model" * (len(models) > 1)
    for task in models[0]["tasks"]:
        for entry in models:
            result, model = entry["tasks"][task], f"   {_short(entry['model'], 12)}" * (len(models) > 1)
            if task.startswith(PREFIX):
                for name, value in result.items():
                    yield f"{_short(f'{task} {name}', 40):<41}{_shown(value):>10}{model}"
                continue
            between = f"{result['low']:.1%} to {result['high']:.1%}"
            numbers = f"{result['accuracy']:>7.1%}   {between:<18}{result['chance']:>7.1%}{result['items']:>8,}"
            yield f"{task:<22}{numbers}{model}"


def _memorization(counts: dict | None, model: str) -> Iterator[str]:
    if counts:
        samples, held_out = (counts[f"{of}copied"] / max(1, counts[f"{of}sequences"]) for of in ("", "held_out_"))
        yield f"{model}copied from the training text, in sequences of {counts['length']} characters:"
        yield f"    {samples:.1%} of {counts['samples']} samples; for comparison, {held_out:.1%} of held-out text"
        yield f"    longest span: {counts['longest']} characters"


def _short(name: str, width: int) -> str:
    """Cut a name to its last `width` characters, which tell models apart."""
    return name if len(name) <= width else "…" + name[1 - width :]


def _shown(value) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "not finite" if value is None else str(value)
