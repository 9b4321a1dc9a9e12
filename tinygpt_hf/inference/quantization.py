"""Weights as small integers, for small machines: the matrices of a model's layers, quantized in place by torchao.

    check_quantization("int8", "cpu")             # before anything slow
    model = quantized(model, "int8")
    weight_megabytes(model)

int8 keeps one scale for each row of a matrix, int4 a scale and a zero for each 32 numbers of a row. Activations, norms and
biases stay as they are; so do the embeddings and the head, as in the library's own `TorchAoConfig`: in a small model they
are tied, and looked up as much as multiplied.
"""

import importlib.util

import torch
from torch import nn

from tinygpt_hf.errors import UsageError

GROUP = 32  # numbers of a row that share a scale in int4
ROWS = 16  # the 4-bit kernel of the CPU takes as many rows at a time


def check_quantization(quantization: str, device: torch.device | str = "cpu") -> None:
    """Refuse what this machine cannot quantize to."""
    if importlib.util.find_spec("torchao") is None:
        wanted = f"it, for --quantization {quantization}"
        raise UsageError("torchao is not installed", wanted, "run pip install 'tinygpt_hf[quantize]'")
    if quantization == "int4" and torch.device(device).type != "cpu":
        seen = f"--quantization int4 with the model on {torch.device(device).type}"
        raise UsageError(seen, "the CPU, which its 4-bit weights are for", "use --device cpu, or --quantization int8")
    _recipe(quantization)


def quantized(model, quantization: str):
    """The model with the matrices of its layers as int8 or int4; it is changed. Only inference is left to it.

    A stock GPT-2, whose layers keep their matrices in a form of its own, becomes the TinyGPT model equal to it first.
    Matrices that 4-bit groups do not fit (inputs no multiple of 32, outputs none of 16) stay as they are.
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
    """What the model's weights take in memory, in 10^6 bytes: tied ones once, quantized ones with their scales."""
    size, seen = 0, set()
    for tensor in model.parameters():
        parts = [getattr(tensor, name) for name in getattr(tensor, "tensor_data_names", ())] or [tensor]
        for part in parts:
            if part.data_ptr() not in seen:
                seen.add(part.data_ptr())
                size += part.numel() * part.element_size()
    return size / 1e6


def _recipe(quantization: str):
    """torchao's name for it."""
    from torchao.quantization import Int8WeightOnlyConfig

    if quantization == "int8":
        return Int8WeightOnlyConfig()
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    except ImportError:
        wanted = "torchao 0.18, whose 4-bit weights run on a CPU"
        raise UsageError("this torchao cannot do int4 here", wanted, "use --quantization int8") from None
    return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
