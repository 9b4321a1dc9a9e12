"""Write ONNX: one graph for prompt and continuation, made by Transformers' own exporter, for ONNX Runtime.

    model.onnx, model.onnx.data   inputs input_ids, attention_mask, position_ids and one cache tensor per layer, key and value;
                                  outputs logits and the grown cache. An empty cache (length 0) makes it read a prompt
    config.json, generation_config.json, tokenizer files, export.json (what Transformers' `ExportedModel` reads)

The graph is always float32. It is traced from the stock architecture the model is equal to, so that config.json names one that
everybody has; a model without an equal is traced as it is.
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

# angles that depend on the longest position seen: a graph has no place to remember it
GROWING_ROPE = ("dynamic", "longrope")


def check(model, tokenizer) -> str:
    """Say what will be written; raise UsageError for what no fixed graph computes."""
    rope_type = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type in GROWING_ROPE:
        raise UsageError(
            f"rope_parameters has rope_type {rope_type}",
            "angles that do not change with the length: ONNX has one graph for all lengths",
            "use --to qwen3 or llama, or a rope_type such as yarn",
        )
    return f"an ONNX graph of {_architecture(model)} in float32"


def write(model, tokenizer, folder: Path) -> list[str]:
    """Trace the model and fill `folder`; return caveats. The model and its device are left as they are."""
    exported = _traced(_traceable(model))
    exported.generation_config = model.generation_config
    config, exported.config = exported.config, None  # its own save would ship our code with a TinyGPT
    with _silent_exporter():
        exported.save_pretrained(folder)
    described = config.to_diff_dict()  # to_dict names the folder it came from
    described["architectures"] = [_architecture(model)]
    described.pop("auto_map", None)
    storage.write_json(folder / "config.json", described)
    tokenizer.save_pretrained(folder)
    half = next(model.parameters()).dtype.itemsize < 4
    return ["the model's half-precision weights are float32 in the graph"] if half else []


def _architecture(model) -> str:
    """Return the name of the class that is traced: the stock one where there is an equal."""
    if model.config.model_type != "tinygpt":
        return type(model).__name__
    from tinygpt_hf.model.conversion import STOCK_CLASSES, equal_architecture

    try:
        return STOCK_CLASSES[equal_architecture(model.config)]
    except UsageError:
        return type(model).__name__


def _traceable(model):
    """Return a float32 copy on the CPU that can be traced, a stock one where there is an equal."""
    from tinygpt_hf.model.conversion import to_stock

    has_equal = _architecture(model) != type(model).__name__
    traced = (to_stock(model) if has_equal else copy.deepcopy(model)).to("cpu").float().eval()
    traced.set_attn_implementation("sdpa")
    return traced


def _traced(model):
    """Export the model as it computes some tokens after a cache, all lengths and the batch left open."""
    import torch

    batch, read, new = 2, 4, 3  # none may be 1, or the graph has 1 in that place forever
    ids = torch.zeros(batch, read + new, dtype=torch.long)
    with _silent_exporter(), torch.no_grad():
        from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

        cache = model(ids[:, :read], use_cache=True).past_key_values
        inputs = {
            "input_ids": ids[:, read:],
            "attention_mask": torch.ones_like(ids),
            "position_ids": torch.arange(read, read + new).repeat(batch, 1),
            "past_key_values": cache,
        }
        try:
            return OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True))
        except Exception as error:  # torch.export and onnxscript raise classes of their own
            raise RunError(
                f"Transformers' ONNX exporter failed ({first_words(error)}); try the versions of constraints.txt"
            ) from error


@contextlib.contextmanager
def _silent_exporter():
    """Silence the exporter, which reports its stages on standard output and through four loggers; its errors are what counts."""
    from tinygpt_hf.model.loading import silent_transformers

    logging.disable(logging.WARNING)
    try:
        with silent_transformers(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
