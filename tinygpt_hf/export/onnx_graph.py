"""Write an ONNX model with a KV cache for ONNX Runtime, using Transformers' exporter.

    model.onnx, model.onnx.data   inputs input_ids, attention_mask, position_ids and one cache tensor per layer, key and value;
                                  outputs logits and the extended cache. For a prompt, pass an empty cache (length 0)
    config.json, generation_config.json, tokenizer files, export.json (read by Transformers' `ExportedModel`)

The graph is float32. It is traced from the equal stock architecture if there is one, so that config.json needs no custom
code.
"""

import contextlib
import copy
import io
import logging
import warnings
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.decoding import first_words

# their angles depend on the longest position so far, a state that a graph does not have
GROWING_ROPE = ("dynamic", "longrope")


def check(model, tokenizer) -> str:
    """Describe the export; raise a `UsageError` for RoPE whose angles depend on the length."""
    rope_type = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type in GROWING_ROPE:
        raise UsageError(
            f"rope_parameters has rope_type {rope_type}",
            "angles that do not change with the length: ONNX has one graph for all lengths",
            "use --to qwen3 or llama, or a rope_type such as yarn",
        )
    return f"an ONNX graph of {_architecture(model)} in float32"


def write(model, tokenizer, folder: Path) -> list[str]:
    """Trace a copy of the model and write the files into `folder`; return caveats to print."""
    exported = _trace(_traceable_copy(model))
    exported.generation_config = model.generation_config
    config, exported.config = exported.config, None  # saving it here would also copy the files of a TinyGPT model
    with _silent_exporter():
        exported.save_pretrained(folder)
    values = config.to_diff_dict()  # to_dict would contain the path of the source folder
    values["architectures"] = [_architecture(model)]
    values.pop("auto_map", None)
    storage.write_json(folder / "config.json", values)
    tokenizer.save_pretrained(folder)
    half = next(model.parameters()).dtype.itemsize < 4
    return ["the model's half-precision weights are float32 in the graph"] if half else []


def _architecture(model) -> str:
    """Return the name of the class to trace: the equal stock class, or the model's own."""
    if model.config.model_type != "tinygpt":
        return type(model).__name__
    from tinygpt_hf.model.conversion import STOCK_CLASSES, equal_architecture

    try:
        return STOCK_CLASSES[equal_architecture(model.config)]
    except UsageError:
        return type(model).__name__


def _traceable_copy(model):
    """Return a float32 copy of the model on the CPU, as the equal stock model if there is one."""
    from tinygpt_hf.model.conversion import to_stock

    has_equal = _architecture(model) != type(model).__name__
    copied = (to_stock(model) if has_equal else copy.deepcopy(model)).to("cpu").float().eval()
    copied.set_attn_implementation("sdpa")
    return copied


def _trace(model):
    """Trace the model on new tokens after a cache, with dynamic batch size and lengths."""
    import torch

    batch, cached, new = 2, 4, 3  # torch.export would fix a size of 1
    ids = torch.zeros(batch, cached + new, dtype=torch.long)
    with _silent_exporter(), torch.no_grad():
        from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

        cache = model(ids[:, :cached], use_cache=True).past_key_values
        inputs = {
            "input_ids": ids[:, cached:],
            "attention_mask": torch.ones_like(ids),
            "position_ids": torch.arange(cached, cached + new).repeat(batch, 1),
            "past_key_values": cache,
        }
        try:
            return OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True))
        except Exception as error:  # torch.export and onnxscript have their own error classes
            raise RunError(
                f"Transformers' ONNX exporter failed ({first_words(error)}); try the versions of constraints.txt"
            ) from error


@contextlib.contextmanager
def _silent_exporter():
    """Silence the exporter, which prints to standard output and uses four loggers."""
    from tinygpt_hf.model.loading import silent_transformers

    logging.disable(logging.WARNING)
    try:
        with silent_transformers(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
