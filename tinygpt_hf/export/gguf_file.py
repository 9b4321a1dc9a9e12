"""GGUF: one file for llama.cpp and all that is built on it, written with the `gguf` package from the equal stock model.

    model.gguf      metadata, vocabulary and tensors; float32, bfloat16 or float16 as the model has them, norms always float32

llama.cpp has each architecture compiled in: what its code fixes (the activation, how RoPE is scaled) cannot be said in a file,
so a model that has it otherwise is refused. Names follow gguf's tables. llama.cpp turns neighbours where Transformers turns a
vector's halves; for `llama` the rows of q and k are reordered for that, `qwen3` runs with halves there too.
"""

import importlib.util
import re
from pathlib import Path

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.export.gguf_vocabulary import vocabulary

FILE = "model.gguf"
ACTIVATIONS = {
    "qwen3": ("silu", "swish"),
    "llama": ("silu", "swish"),
    "gpt2": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh"),
}
ROPE_TYPES = {"qwen3": ("default", "linear", "yarn"), "llama": ("default", "linear", "yarn", "llama3"), "gpt2": ()}
YARN_DETAILS = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")

# stock name -> gguf name; * is the layer, the ending (.weight, .bias) is kept
_LLAMA = {
    "model.embed_tokens": "token_embd",
    "model.layers.*.input_layernorm": "blk.*.attn_norm",
    **{f"model.layers.*.self_attn.{p}_proj": f"blk.*.attn_{p}" for p in "qkv"},
    **{f"model.layers.*.self_attn.{p}_norm": f"blk.*.attn_{p}_norm" for p in "qk"},
    "model.layers.*.self_attn.o_proj": "blk.*.attn_output",
    "model.layers.*.post_attention_layernorm": "blk.*.ffn_norm",
    **{f"model.layers.*.mlp.{p}_proj": f"blk.*.ffn_{p}" for p in ("gate", "up", "down")},
    "model.norm": "output_norm",
    "lm_head": "output",
}
NAMES = {
    "qwen3": _LLAMA,
    "llama": _LLAMA,
    "gpt2": {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.h.*.ln_1": "blk.*.attn_norm",
        "transformer.h.*.attn.c_attn": "blk.*.attn_qkv",
        "transformer.h.*.attn.c_proj": "blk.*.attn_output",
        "transformer.h.*.ln_2": "blk.*.ffn_norm",
        "transformer.h.*.mlp.c_fc": "blk.*.ffn_up",
        "transformer.h.*.mlp.c_proj": "blk.*.ffn_down",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    },
}
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")  # GPT-2 keeps these (in, out)


def check(model, tokenizer) -> str:
    """What will be written; a UsageError for what llama.cpp's code or its tokenizers do otherwise."""
    architecture, config = _architecture(model), model.config
    activation = getattr(config, "hidden_act", None) or config.activation_function
    if activation not in ACTIVATIONS[architecture]:
        raise UsageError(
            f"the activation is {activation}",
            f"{ACTIVATIONS[architecture][0]}, which llama.cpp computes {architecture} with",
            f"use --to {architecture} or onnx",
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if architecture != "gpt2" and (kind := rope.get("rope_type", "default")) not in ROPE_TYPES[architecture]:
        raise UsageError(
            f"rope_parameters has rope_type {kind}",
            f"{', '.join(ROPE_TYPES[architecture])} in a GGUF file of {architecture}",
            f"use --to {architecture}",
        )
    unusual = [name for name in YARN_DETAILS if rope.get(name) is not None]
    if unusual:
        raise UsageError(
            f"rope_parameters has {', '.join(unusual)}",
            "the usual values: llama.cpp computes no others",
            f"use --to {architecture}",
        )
    if architecture == "qwen3" and config.attention_bias:
        raise UsageError(
            "attention_bias is true", "no biases: llama.cpp computes qwen3 without", "use --to qwen3 or onnx"
        )
    vocabulary(tokenizer, config.vocab_size)
    return f"{FILE} ({architecture}, {str(next(model.parameters()).dtype).removeprefix('torch.')})"


def write(model, tokenizer, folder: Path) -> list[str]:
    """Write model.gguf into `folder` and read it back, every tensor and field; a RunError if one differs."""
    import gguf

    from tinygpt_hf.model.conversion import to_stock

    architecture = _architecture(model)
    stock = to_stock(model) if model.config.model_type == "tinygpt" else model
    stock.config.name_or_path = model.config.name_or_path
    words = vocabulary(tokenizer, stock.config.vocab_size)
    state = tensors(stock, architecture)
    path = folder / FILE
    writer = gguf.GGUFWriter(path, architecture)
    fields = metadata(stock, architecture, tokenizer, words)
    for name, value in fields.items():
        _add_field(writer, name, value)
    for name, (array, kind) in state.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _read_back(path, architecture, fields, state)
    caveats = list(words.caveats)
    if importlib.util.find_spec("xllamacpp") is None:
        caveats.append("the file is proved by its own tensors; llama.cpp was not run: xllamacpp is not installed")
    return caveats


def proof_command(folder: Path, reference: Path) -> list[str]:
    """Script and arguments of the process that proves the file."""
    return [str(Path(__file__).with_name("verify_gguf.py")), str(folder), str(reference)]


def tensors(stock, architecture: str) -> dict:
    """gguf name -> (numpy array, gguf type) of all weights of a stock model; tied output weights are left out."""
    import gguf
    import torch

    kinds = {torch.bfloat16: gguf.GGMLQuantizationType.BF16, torch.float16: gguf.GGMLQuantizationType.F16}
    config, found = stock.config, {}
    for name, tensor in stock.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        new = _renamed(name, architecture)
        tensor = tensor.detach().cpu()
        if architecture == "gpt2" and _CONV1D.search(name):
            tensor = tensor.t()
        if architecture == "llama" and (".attn_q." in new or ".attn_k." in new):
            heads = config.num_attention_heads if ".attn_q." in new else config.num_key_value_heads
            tensor = neighbours(tensor, heads)
        kind = kinds.get(tensor.dtype)
        if kind is None or tensor.dim() == 1 or new == "position_embd.weight":
            tensor, kind = tensor.float(), gguf.GGMLQuantizationType.F32
        tensor = tensor.contiguous()
        # numpy has no bfloat16: its bits go as they are, in a shape counted in bytes
        array = tensor.view(torch.uint8).numpy() if kind == gguf.GGMLQuantizationType.BF16 else tensor.numpy()
        found[new] = array, kind
    if architecture == "llama" and config.rope_parameters["rope_type"] == "llama3":
        # llama.cpp divides each frequency by its factor in this tensor
        rotary = stock.model.rotary_emb
        plain, _ = rotary.compute_default_rope_parameters(config)
        found["rope_freqs.weight"] = (plain / rotary.inv_freq.cpu()).numpy(), gguf.GGMLQuantizationType.F32
    return found


def neighbours(tensor, heads: int):
    """Rows (H * D, ...) from halves, where i turns with i + D/2, to pairs, where 2i turns with 2i + 1."""
    return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def metadata(stock, architecture: str, tokenizer, words) -> dict:
    """Every field of the file but the architecture, which the writer adds: key -> value, in the order they are written."""
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
    around = tokenizer("a").input_ids
    fields |= {
        "tokenizer.ggml.model": words.model,
        "tokenizer.ggml.pre": words.pre,
        "tokenizer.ggml.tokens": words.tokens,
        "tokenizer.ggml.token_type": words.types,
        "tokenizer.ggml.add_bos_token": around[0] == tokenizer.bos_token_id,
        "tokenizer.ggml.add_eos_token": around[-1] == tokenizer.eos_token_id,
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


def _add_field(writer, name: str, value) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    (add.get(type(value)) or writer.add_array)(name, value)


def _renamed(name: str, architecture: str) -> str:
    stem, _, ending = name.rpartition(".")
    layer = re.search(r"\.(\d+)\.", stem)
    pattern = stem[: layer.start(1)] + "*" + stem[layer.end(1) :] if layer else stem
    if pattern not in NAMES[architecture]:
        raise UsageError(
            f"the weight {name}", f"weights that llama.cpp has a place for in {architecture}", "export without adapters"
        )
    new = NAMES[architecture][pattern]
    return f"{new.replace('*', layer.group(1)) if layer else new}.{ending}"


def _read_back(path: Path, architecture: str, fields: dict, state: dict) -> None:
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(path)
    there = {tensor.name: tensor for tensor in reader.tensors}
    wrong = sorted(set(there) ^ set(state))
    for name, (array, kind) in state.items():
        tensor = there.get(name)
        shape = list(array.shape[:-1]) + [array.shape[-1] // (2 if kind == gguf.GGMLQuantizationType.BF16 else 1)]
        same = tensor is not None and tensor.tensor_type == kind and list(reversed(tensor.shape.tolist())) == shape
        if not same or not np.array_equal(tensor.data.reshape(-1).view(np.uint8), array.reshape(-1).view(np.uint8)):
            wrong.append(name)
    for name, value in (fields | {"general.architecture": architecture}).items():
        field = reader.get_field(name)
        found = field.contents() if field is not None else None
        if found != (float(np.float32(value)) if isinstance(value, float) else value):
            wrong.append(name)
    if wrong:
        raise RunError(
            f"{path.name} does not read back as it was written ({', '.join(wrong[:5])}); the disk may be failing"
        )


def _architecture(model) -> str:
    from tinygpt_hf.model.conversion import STOCK_CLASSES, STOCK_MUST_HOLD, equal_architecture

    kind = model.config.model_type
    if kind == "tinygpt":
        return equal_architecture(model.config)
    wanted = f"TinyGPT, {', '.join(STOCK_CLASSES.values())}"
    if STOCK_CLASSES.get(kind) != type(model).__name__:
        raise UsageError(f"the model is a {type(model).__name__}", wanted, "export one of these")
    for name, value in STOCK_MUST_HOLD[kind].items():
        if getattr(model.config, name, value) != value:
            seen = f"the model is a {kind} with {name} {getattr(model.config, name)}"
            raise UsageError(seen, f"{name} {value}, which llama.cpp computes", "use it where it is")
    return kind
