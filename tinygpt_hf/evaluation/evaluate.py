"""Measure a model on a text file for `tinygpt evaluate`, also with its matrices as small integers; in Python on any text.

results = evaluate("runs/quickstart", data="my.txt")
results["bits_per_byte"]
"""

import math
import os
from dataclasses import fields
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.baselines import xz_bits_per_byte
from tinygpt_hf.evaluation.metrics import evaluate_documents, evaluate_file, read_text
from tinygpt_hf.inference.quantization import check_quantization, quantized, weight_megabytes
from tinygpt_hf.inference.samples import check_output
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.reading.sources import documents, training_sources
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.inference import EvaluateArguments

XZ_BYTES = 20_000_000  # xz takes about a second per megabyte


def evaluate(model: str, data, **settings) -> dict:
    """Measure a model folder or Hub id; returns what `--output_file` holds.

    `data` is a UTF-8 text file, taken as one text, or whatever `train` takes: a Dataset, an IterableDataset, a list of texts or
    conversations, a folder of `save_to_disk`, DataArguments. Of these all documents are measured, as training reads them.
    `settings` are the other fields of `EvaluateArguments` (block_size, stride, quantization, output_file, ...).
    """
    names = {field.name for field in fields(EvaluateArguments)}
    if unknown := sorted(set(settings) - names):
        raise UsageError(f"evaluate() got {unknown[0]!r}", f"one of {', '.join(sorted(names))}", "remove it")
    if isinstance(data, (str, os.PathLike)) and not os.path.isdir(data):
        return measure(EvaluateArguments(model=str(model), data=str(data), **settings))
    text = data_arguments(data)
    check_settings(text)
    name = ", ".join(source.name for source in training_sources(text))
    return measure(EvaluateArguments(model=str(model), data=name, **settings), text)


def measure(arguments: EvaluateArguments, text: DataArguments | None = None) -> dict:
    """Measure as the settings say and write `output_file`; `text`: on its documents, not on the file `data`. Numbers of the
    quantized model carry its kind in their names.

    Loss is in nats per token; what is not finite is None. Raises UsageError for whatever the settings have wrong.
    """
    check_settings(arguments)
    if not arguments.data:
        raise UsageError("there is no --data", "a UTF-8 text file", "try --data my.txt")
    if arguments.quantization:
        check_quantization(arguments.quantization)
    output = check_output(Path(arguments.output_file)) if arguments.output_file else None
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    sizes = arguments.block_size, arguments.stride, arguments.per_device_eval_batch_size
    found = [document for source in training_sources(text) for document in documents(source)] if text else None

    def measured(net) -> dict:
        if found is None:
            return evaluate_file(net, tokenizer, arguments.data, *sizes)
        return evaluate_documents(net, tokenizer, found, *sizes) | {"data": arguments.data}

    results = measured(model)
    if results["bytes"] < XZ_BYTES and not any("messages" in document for document in found or ()):
        whole = read_text(arguments.data) if found is None else "".join(document["text"] for document in found)
        results["xz_bits_per_byte"] = xz_bits_per_byte(whole.encode())
    if arguments.quantization:
        results["weights_mb"] = weight_megabytes(model)
        model = quantized(model, arguments.quantization)
        again = measured(model) | {"weights_mb": weight_megabytes(model)}
        numbers = {name: value for name, value in again.items() if isinstance(value, float)}
        results |= {f"{name}_{arguments.quantization}": value for name, value in numbers.items()}
    results = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}
    if output:
        storage.write_json(output, results)
    return results


def result_lines(results: dict, quantization: str | None = None) -> list[str]:
    """Lay the numbers out as lines, those of the quantized model beside the full one's."""
    suffix = f"_{quantization}"
    beside = {name.removesuffix(suffix): value for name, value in results.items() if name.endswith(suffix)}
    lines = [f"{'':<16} {'full':<10} {quantization}"] if quantization else []
    for name, value in results.items():
        if not name.endswith(suffix):
            other = f" {_shown(beside[name])}" if name in beside else ""
            lines.append(f"{name:<16} {_shown(value):<10}{other}".rstrip())
    return lines


def _shown(value) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "not finite" if value is None else str(value)
