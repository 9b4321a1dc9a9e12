"""Quantize the linear layers of a model to int8 or int4 with torchao, in place.

    check_quantization("int8", "cpu")             # before anything slow
    model = quantized(model, "int8")
    weight_megabytes(model)

int8 stores one scale per row of a matrix, int4 a scale and a zero point per 32 entries of a row. Only weights are
quantized. Norms, biases, embeddings and the head keep their dtype, as in Transformers' `TorchAoConfig`.
"""

import importlib.util

import torch
from torch import nn

from tinygpt_hf.errors import UsageError

GROUP = 32  # entries of a row that share a scale in int4
ROWS = 16  # the CPU's 4-bit kernel needs a multiple of it


def check_quantization(quantization: str, device: torch.device | str = "cpu") -> None:
    """Raise a `UsageError` if torchao is missing or cannot quantize for this device."""
    if importlib.util.find_spec("torchao") is None:
        expected = f"it, for --quantization {quantization}"
        raise UsageError("torchao is not installed", expected, "run pip install 'tinygpt_hf[quantize]'")
    if quantization == "int4" and torch.device(device).type != "cpu":
        problem = f"--quantization int4 with the model on {torch.device(device).type}"
        raise UsageError(
            problem, "the CPU: its 4-bit weights run nowhere else", "use --device cpu, or --quantization int8"
        )
    _recipe(quantization)


def quantized(model, quantization: str):
    """Quantize the linear layers of a model to int8 or int4, in place, and return it in evaluation mode.

    A stock GPT-2, which has no `nn.Linear` layers, is first converted to an equal TinyGPT model. int4 skips matrices
    whose inputs are no multiple of 32 or whose outputs are no multiple of 16. The result cannot be trained.
    """
    from tinygpt_hf.model.conversion import from_stock

    check_quantization(quantization, model.device)
    from torchao.quantization import quantize_

    if model.config.model_type == "gpt2":
        model = from_stock(model)
    columns, rows = (GROUP, ROWS) if quantization == "int4" else (1, 1)
    chosen = {
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not model.get_output_embeddings()
        and part.in_features % columns == 0 and part.out_features % rows == 0
    }  # fmt: skip
    if not chosen:
        raise UsageError(
            f"{type(model).__name__} has no matrix that {quantization} fits",
            f"linear layers with a multiple of {columns} inputs and of {rows} outputs",
            "use --quantization int8" if quantization == "int4" else "leave --quantization out",
        )
    with torch.no_grad():
        quantize_(model, _recipe(quantization), filter_fn=lambda _, name: name in chosen)
    return model.eval()


def weight_megabytes(model) -> float:
    """Return the memory of the model's weights in 10^6 bytes: tied weights once, quantized ones with their scales."""
    size, seen = 0, set()
    for tensor in model.parameters():
        parts = [getattr(tensor, name) for name in getattr(tensor, "tensor_data_names", ())] or [tensor]
        for part in parts:
            if part.data_ptr() not in seen:
                seen.add(part.data_ptr())
                size += part.numel() * part.element_size()
    return size / 1e6


def _recipe(quantization: str):
    from torchao.quantization import Int8WeightOnlyConfig

    if quantization == "int8":
        return Int8WeightOnlyConfig()
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    except ImportError:
        expected = "torchao 0.18, whose 4-bit weights run on a CPU"
        raise UsageError("this torchao cannot do int4 here", expected, "use --quantization int8") from None
    return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
