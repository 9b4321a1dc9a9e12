"""Write a GGUF file for llama.cpp from the equal stock model, with the `gguf` package.

    model.gguf      metadata, vocabulary and tensors in float32, bfloat16 or float16, as in the model; norms in float32

llama.cpp hard-codes some properties of an architecture, such as its activation and RoPE scaling. A model with other values is
refused. For `llama`, llama.cpp applies RoPE to adjacent pairs where Transformers pairs the halves of a head, so the rows of q
and k are reordered. For `qwen3` both use halves.
"""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygpt_hf.errors import UsageError
from tinygpt_hf.export.gguf_vocabulary import vocabulary

FILE = "model.gguf"
ACTIVATIONS = {
    "qwen3": ("silu", "swish"),
    "llama": ("silu", "swish"),
    "gpt2": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh"),
}
ROPE_TYPES = {"qwen3": ("default", "linear", "yarn"), "llama": ("default", "linear", "yarn", "llama3")}
YARN_DETAILS = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")  # GPT-2 stores these as (in, out)


def check(model, tokenizer) -> str:
    """Describe the export; raise a `UsageError` if llama.cpp would compute or tokenize something differently."""
    architecture, config = _architecture(model), model.config
    activation = getattr(config, "hidden_act", None) or config.activation_function
    rope = getattr(config, "rope_parameters", None) or {} if architecture in ROPE_TYPES else {}
    rope_type, rope_types = rope.get("rope_type", "default"), ROPE_TYPES.get(architecture, ("default",))
    unusual = [name for name in YARN_DETAILS if rope.get(name) is not None]
    obstacles = [
        (activation not in ACTIVATIONS[architecture], f"the activation is {activation}",
         f"{ACTIVATIONS[architecture][0]}, which llama.cpp computes {architecture} with"),
        (rope_type not in rope_types, f"rope_parameters has rope_type {rope_type}",
         f"{', '.join(rope_types)} in a GGUF file of {architecture}"),
        (unusual, f"rope_parameters has {', '.join(unusual)}", "the usual values: llama.cpp computes no others"),
        (architecture == "qwen3" and config.attention_bias, "attention_bias is true",
         "no biases: llama.cpp computes qwen3 without"),
    ]  # fmt: skip
    for is_obstacle, problem, expected in obstacles:
        if is_obstacle:
            raise UsageError(problem, expected, f"use --to {architecture} or onnx")
    vocabulary(tokenizer, config.vocab_size)
    return f"{FILE} ({architecture}, {str(next(model.parameters()).dtype).removeprefix('torch.')})"


def write(model, tokenizer, folder: Path) -> list[str]:
    """Write model.gguf into `folder`; return caveats to print."""
    import gguf

    from tinygpt_hf.model.conversion import to_stock

    architecture = _architecture(model)
    stock = to_stock(model) if model.config.model_type == "tinygpt" else model
    stock.config.name_or_path = model.config.name_or_path
    words = vocabulary(tokenizer, stock.config.vocab_size)
    writer = gguf.GGUFWriter(folder / FILE, architecture)
    add: dict[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
    }  # fmt: skip
    for name, value in metadata(stock, architecture, tokenizer, words).items():
        add.get(type(value), writer.add_array)(name, value)
    for name, (array, kind) in tensors(stock, architecture).items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    caveats = list(words.caveats)
    if importlib.util.find_spec("xllamacpp") is None:
        caveats.append("the file was proved with Transformers, not with llama.cpp: xllamacpp is not installed")
    return caveats


def tensors(stock, architecture: str) -> dict:
    """Return all weights of a stock model by GGUF name, as (numpy array, GGUF type), without a tied output matrix."""
    import gguf
    import torch

    kinds = {torch.bfloat16: gguf.GGMLQuantizationType.BF16, torch.float16: gguf.GGMLQuantizationType.F16}
    config, arrays = stock.config, {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in stock.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            expected = f"weights that llama.cpp knows in {architecture}"
            raise UsageError(f"the model has a weight {name}", expected, "export without adapters")
        tensor = tensor.detach().cpu()
        if architecture == "gpt2" and _CONV1D.search(name):
            tensor = tensor.t()
        if architecture == "llama" and (".attn_q." in new or ".attn_k." in new):
            heads = config.num_attention_heads if ".attn_q." in new else config.num_key_value_heads
            tensor = interleaved(tensor, heads)
        kind = kinds.get(tensor.dtype)
        if kind is None or tensor.dim() == 1 or new == "position_embd.weight":
            tensor, kind = tensor.float(), gguf.GGMLQuantizationType.F32
        tensor = tensor.contiguous()
        # numpy has no bfloat16, so its bytes are written as uint8
        array = tensor.view(torch.uint8).numpy() if kind == gguf.GGMLQuantizationType.BF16 else tensor.numpy()
        arrays[new] = array, kind
    if architecture == "llama" and config.rope_parameters["rope_type"] == "llama3":
        # llama.cpp divides each frequency by its factor in this tensor
        rotary = stock.model.rotary_emb
        plain, _ = rotary.compute_default_rope_parameters(config)
        arrays["rope_freqs.weight"] = (plain / rotary.inv_freq.cpu()).numpy(), gguf.GGMLQuantizationType.F32
    return arrays


def interleaved(tensor, heads: int):
    """Reorder rows (H * D, ...) for RoPE on adjacent pairs (2i, 2i + 1) instead of halves (i, i + D/2)."""
    return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def metadata(stock, architecture: str, tokenizer, words) -> dict:
    """Return the metadata fields in order, without the architecture, which the writer adds."""
    import torch

    config, a = stock.config, architecture
    dtype = next(stock.parameters()).dtype
    heads, width = config.num_attention_heads, config.hidden_size
    named = (config.name_or_path or "").rstrip("/").rpartition("/")[2]
    fields = {
        "general.type": "model",
        "general.name": named or "tinygpt",
        "general.file_type": {torch.float16: 1, torch.bfloat16: 32}.get(dtype, 0),
        "general.quantization_version": 2,
        f"{a}.vocab_size": config.vocab_size,
        f"{a}.context_length": config.max_position_embeddings,
        f"{a}.embedding_length": width,
        f"{a}.block_count": config.num_hidden_layers,
        f"{a}.attention.head_count": heads,
    }
    if a == "gpt2":
        fields[f"{a}.feed_forward_length"] = config.n_inner or 4 * width
        fields[f"{a}.attention.layer_norm_epsilon"] = float(config.layer_norm_epsilon)
    else:
        rope = config.rope_parameters
        fields |= {
            f"{a}.feed_forward_length": config.intermediate_size,
            f"{a}.attention.head_count_kv": config.num_key_value_heads,
            f"{a}.attention.key_length": config.head_dim,
            f"{a}.attention.value_length": config.head_dim,
            f"{a}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
            f"{a}.rope.dimension_count": config.head_dim,
            f"{a}.rope.freq_base": float(rope["rope_theta"]),
        }
        if rope["rope_type"] in ("linear", "yarn"):
            fields[f"{a}.rope.scaling.type"] = rope["rope_type"]
            fields[f"{a}.rope.scaling.factor"] = float(rope["factor"])
        if rope["rope_type"] == "yarn":
            original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            fields[f"{a}.rope.scaling.original_context_length"] = original
    encoded = tokenizer("a").input_ids
    fields |= {
        "tokenizer.ggml.model": words.model,
        "tokenizer.ggml.pre": words.pre,
        "tokenizer.ggml.tokens": words.tokens,
        "tokenizer.ggml.token_type": words.types,
        "tokenizer.ggml.add_bos_token": encoded[0] == tokenizer.bos_token_id,
        "tokenizer.ggml.add_eos_token": encoded[-1] == tokenizer.eos_token_id,
        "tokenizer.ggml.add_space_prefix": False,
    }
    if words.merges:
        fields["tokenizer.ggml.merges"] = words.merges
    else:
        fields["tokenizer.ggml.scores"] = [0.0] * len(words.tokens)
    turn_end = tokenizer.get_vocab().get("<|im_end|>")
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "eot": turn_end}
    for role, k in (ids | {"padding": tokenizer.pad_token_id}).items():
        if k is not None:
            fields[f"tokenizer.ggml.{role}_token_id"] = k
    if tokenizer.chat_template:
        fields["tokenizer.chat_template"] = tokenizer.chat_template
    return fields


def _architecture(model) -> str:
    """Return the architecture to write: a stock model's own, or the one that a TinyGPT model is equal to."""
    from tinygpt_hf.model.conversion import STOCK_CLASSES, STOCK_MUST_HOLD, equal_architecture

    kind = model.config.model_type
    if kind == "tinygpt":
        return equal_architecture(model.config)
    if STOCK_CLASSES.get(kind) != type(model).__name__:
        expected = f"TinyGPT, {', '.join(STOCK_CLASSES.values())}"
        raise UsageError(f"the model is a {type(model).__name__}", expected, "export one of these")
    for name, value in STOCK_MUST_HOLD[kind].items():
        if getattr(model.config, name, value) != value:
            problem = f"the model is a {kind} with {name} {getattr(model.config, name)}"
            raise UsageError(problem, f"{name} {value}, which llama.cpp computes", "use the model as it is")
    return kind
