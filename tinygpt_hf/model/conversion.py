"""Convert between TinyGPT and the equal stock architectures of Transformers: Qwen3, Llama and GPT-2.

    from_stock(Qwen3ForCausalLM) -> TinyGPTForCausalLM      to_stock(TinyGPTForCausalLM) -> Qwen3ForCausalLM

Tables map all weight names; an unknown name is an error. Values are copied bit for bit (GPT-2 stores matrices transposed, and
q, k, v as one). Configurations without an exact equal are refused. A conversion returns only after both models have given the
same logits.

Dropout is converted if the architecture has it (GPT-2), else dropped: it does not change inference.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinygpt_hf.errors import RunError, UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig
    from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

# config fields: TinyGPT's name -> the stock name
_SHARED = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings
    initializer_range attention_dropout use_cache tie_word_embeddings pad_token_id bos_token_id eos_token_id"""
_ROPE_FIELDS = f"{_SHARED} num_key_value_heads head_dim hidden_act rms_norm_eps rope_parameters attention_bias"
_LLAMA_FIELDS = {name: name for name in _ROPE_FIELDS.split()}
FIELDS: dict[str, dict[str, str]] = {
    "qwen3": _LLAMA_FIELDS,
    "llama": _LLAMA_FIELDS | {"mlp_bias": "mlp_bias"},
    "gpt2": {name: name for name in _SHARED.split()}
    | {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
        "hidden_act": "activation_function",
        "rms_norm_eps": "layer_norm_epsilon",
        "attention_dropout": "attn_pdrop",
        "hidden_dropout": "resid_pdrop",
    },
}

# the fields that make a TinyGPT configuration equal to an architecture
_ROPE_DIALECT = {"position_embedding_type": "rope", "norm_type": "rmsnorm", "mlp_type": "gated"}
DIALECTS: dict[str, dict[str, Any]] = {
    "qwen3": _ROPE_DIALECT | {"qk_norm": True, "mlp_bias": False},
    "llama": _ROPE_DIALECT | {"qk_norm": False},
    "gpt2": {
        "position_embedding_type": "learned",
        "norm_type": "layernorm",
        "mlp_type": "plain",
        "qk_norm": False,
        "attention_bias": True,
        "mlp_bias": True,
    },
}
# the fields that a stock configuration must have, because TinyGPT supports no other values
STOCK_MUST_HOLD: dict[str, dict[str, Any]] = {
    "qwen3": {"use_sliding_window": False},
    "llama": {"pretraining_tp": 1},
    "gpt2": {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
}
STOCK_CLASSES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel"}

# weights: stock name -> TinyGPT's name or names; * is the layer. GPT-2's Conv1D weights are transposed and split.
_LLAMA_WEIGHTS = {
    name: name
    for name in (
        "model.embed_tokens.weight",
        *(f"model.layers.*.self_attn.{p}_proj.{kind}" for p in "qkvo" for kind in ("weight", "bias")),
        *(f"model.layers.*.mlp.{p}_proj.weight" for p in ("gate", "up", "down")),
        "model.layers.*.input_layernorm.weight",
        "model.layers.*.post_attention_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    )
}
_QWEN3_WEIGHTS = _LLAMA_WEIGHTS | {name: name for name in (f"model.layers.*.self_attn.{p}_norm.weight" for p in "qk")}
_MLP_BIASES = {name: name for name in (f"model.layers.*.mlp.{p}_proj.bias" for p in ("gate", "up", "down"))}
_GPT2_WEIGHTS: dict[str, str | tuple[str, ...]] = {"transformer.wte.weight": "model.embed_tokens.weight"}
_GPT2_WEIGHTS |= {"transformer.wpe.weight": "model.embed_positions.weight", "lm_head.weight": "lm_head.weight"}
for _kind in ("weight", "bias"):
    _attention = "model.layers.*.self_attn"
    _GPT2_WEIGHTS |= {
        f"transformer.h.*.ln_1.{_kind}": f"model.layers.*.input_layernorm.{_kind}",
        f"transformer.h.*.attn.c_attn.{_kind}": tuple(f"{_attention}.{p}_proj.{_kind}" for p in "qkv"),
        f"transformer.h.*.attn.c_proj.{_kind}": f"{_attention}.o_proj.{_kind}",
        f"transformer.h.*.ln_2.{_kind}": f"model.layers.*.post_attention_layernorm.{_kind}",
        f"transformer.h.*.mlp.c_fc.{_kind}": f"model.layers.*.mlp.up_proj.{_kind}",
        f"transformer.h.*.mlp.c_proj.{_kind}": f"model.layers.*.mlp.down_proj.{_kind}",
        f"transformer.ln_f.{_kind}": f"model.norm.{_kind}",
    }
WEIGHTS: dict[str, Mapping[str, str | tuple[str, ...]]] = {
    "qwen3": _QWEN3_WEIGHTS,
    "llama": _LLAMA_WEIGHTS | _MLP_BIASES,
    "gpt2": _GPT2_WEIGHTS,
}
_TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")  # Conv1D stores (in, out), Linear (out, in)


def from_stock(model: PreTrainedModel) -> TinyGPTForCausalLM:
    """Return the TinyGPT model equal to `model`, a Qwen3, Llama or GPT-2 causal language model."""
    from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

    architecture = model.config.model_type
    if STOCK_CLASSES.get(architecture) != type(model).__name__:
        raise UsageError(
            f"a {type(model).__name__} ({architecture})",
            f"one of {', '.join(STOCK_CLASSES.values())}",
            "load the checkpoint with AutoModelForCausalLM and give that",
        )
    state = weights_from_stock(model.state_dict(), architecture)
    return _build(TinyGPTForCausalLM, config_from_stock(model.config), state, model)


def config_from_stock(config: Any) -> TinyGPTConfig:
    """Return the TinyGPT configuration equal to a stock one; raise a `UsageError` if there is none."""
    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    check_stock_config(config)
    fields = {ours: getattr(config, theirs) for ours, theirs in FIELDS[config.model_type].items()}
    return TinyGPTConfig(**copy.deepcopy(DIALECTS[config.model_type] | fields))


def to_stock(model: TinyGPTForCausalLM, architecture: str | None = None) -> PreTrainedModel:
    """Return the stock model equal to `model`: qwen3, llama or gpt2, by default the first that is equal."""
    import transformers

    architecture = equal_architecture(model.config, architecture)
    stock_class = getattr(transformers, STOCK_CLASSES[architecture])
    fields = {theirs: getattr(model.config, ours) for ours, theirs in FIELDS[architecture].items()}
    if architecture == "gpt2":
        fields["embd_pdrop"] = fields["resid_pdrop"]
    config = stock_class.config_class(**copy.deepcopy(STOCK_MUST_HOLD[architecture] | fields))
    state = weights_to_stock(model.state_dict(), architecture)
    return _build(stock_class, config, state, model)


def equal_architecture(config: Any, architecture: str | None = None, flag: str = "architecture=") -> str:
    """Return the stock architecture equal to `config`: `architecture` if given, else the first in `DIALECTS`.

    Raises a `UsageError` with the differing fields if none is equal; its advice uses `flag`.
    """
    if architecture is not None and architecture not in DIALECTS:
        raise UsageError(f"architecture is {architecture!r}", f"one of {', '.join(DIALECTS)}", "leave it out to choose")
    obstacles = {name: _obstacles(config, name) for name in DIALECTS}
    equal = [name for name in DIALECTS if not obstacles[name]]
    candidates = [architecture] if architecture else list(DIALECTS)
    if chosen := [name for name in candidates if name in equal]:
        return chosen[0]
    expected = "; ".join(f"{', '.join(obstacles[name])} for {name}" for name in candidates)
    action = f"use {flag}{equal[0]}, which it is equal to" if equal else "train with the fields of one"
    names = (*DIALECTS["gpt2"], "num_attention_heads", "num_key_value_heads", "head_dim")
    dialect = ", ".join(f"{name} {getattr(config, name)}" for name in names)
    raise UsageError(f"a TinyGPT configuration with {dialect}", expected, action)


def check_stock_config(config: Any) -> None:
    """Raise a `UsageError` for a stock configuration with options that TinyGPT does not support."""
    architecture = config.model_type
    differences = [
        (f"{name} {getattr(config, name)}", f"{name} {value}")
        for name, value in STOCK_MUST_HOLD[architecture].items()
        if getattr(config, name, value) != value
    ]
    if "sliding_attention" in (getattr(config, "layer_types", None) or []):
        differences.append(("sliding attention in layer_types", "full attention"))
    if architecture == "gpt2" and config.embd_pdrop != config.resid_pdrop:
        differences.append(
            (f"embd_pdrop {config.embd_pdrop}", f"its resid_pdrop {config.resid_pdrop}: one hidden_dropout")
        )
    for problem, expected in differences:
        action = "convert a model without it, or change its config before converting"
        raise UsageError(f"{architecture} with {problem}", f"{expected}, which TinyGPT supports", action)


def weights_from_stock(state: dict[str, torch.Tensor], architecture: str) -> dict[str, torch.Tensor]:
    """Convert a stock state dict to TinyGPT's; raise a `UsageError` for an unknown name."""
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        ours = _renamed(name, WEIGHTS[architecture], architecture)
        if _transposed(name, architecture):
            tensor = tensor.t()
        parts = tensor.chunk(len(ours), dim=0)
        converted |= {our_name: part.clone().contiguous() for our_name, part in zip(ours, parts, strict=True)}
    return converted


def weights_to_stock(state: dict[str, torch.Tensor], architecture: str) -> dict[str, torch.Tensor]:
    """Convert a TinyGPT state dict to the stock one; raise a `UsageError` for an unknown name."""
    import torch

    table: dict[str, str] = {}  # ours -> stock
    for stock, ours in WEIGHTS[architecture].items():
        table |= dict.fromkeys([ours] if isinstance(ours, str) else ours, stock)
    stock_names = dict.fromkeys(_renamed(name, table, architecture)[0] for name in state)
    converted = {}
    for stock in stock_names:
        # parts of a stock weight in the table's order (q, k, v); the state dict's order may differ
        parts = [state[name] for name in _renamed(stock, WEIGHTS[architecture], architecture)]
        tensor = torch.cat(parts, dim=0) if len(parts) > 1 else parts[0]
        converted[stock] = (tensor.t() if _transposed(stock, architecture) else tensor).clone().contiguous()
    return converted


def largest_logit_difference(model: PreTrainedModel, other: PreTrainedModel, length: int = 16) -> float:
    """Return the largest difference of two models' logits on fixed ids, relative to the largest logit (at least 1)."""
    import torch

    length = min(length, model.config.max_position_embeddings)
    ids = torch.arange(2 * length, device=model.device).view(2, length) * 7 % model.config.vocab_size  # (B, T)
    training = model.training, other.training
    with torch.no_grad():
        one, two = (m.eval()(input_ids=ids, use_cache=False).logits.float() for m in (model, other))
    model.train(training[0])
    other.train(training[1])
    return ((one - two).abs().max() / one.abs().max().clamp_min(1.0)).item()


def _build(model_class: Any, config: Any, state: dict[str, torch.Tensor], source: PreTrainedModel) -> Any:
    """Build a model with the weights `state`, on the device and in the mode of `source`, and compare their logits."""
    import torch

    config.dtype = source.config.dtype
    attention = source.config._attn_implementation
    model = model_class._from_config(config, attn_implementation=attention, dtype=torch.float32)
    model.load_state_dict(state, assign=True)  # strict: missing and unexpected weights are errors
    model.tie_weights()
    model.config.dtype = source.config.dtype
    model.generation_config = copy.deepcopy(source.generation_config)
    model = model.to(source.device).train(source.training)
    # in half precision, the two models round at different places
    single = next(source.parameters()).dtype in (torch.float32, torch.float64)
    difference, allowed = largest_logit_difference(source, model), 1e-4 if single else 5e-2
    if not difference <= allowed:
        raise RunError(
            f"{type(source).__name__} and {model_class.__name__} with the same weights differ by {difference:.2g} in "
            f"their logits, more than {allowed:.0e}; nothing was converted; check that the model has no NaN"
        )
    return model


def _obstacles(config: TinyGPTConfig, architecture: str) -> list[str]:
    """Return the fields with the values that `config` would need for that architecture; empty if it is equal."""
    fields = DIALECTS[architecture]
    if architecture == "gpt2":
        heads = config.num_attention_heads
        fields = fields | {"num_key_value_heads": heads, "head_dim": config.hidden_size // heads}
    reasons = [f"{name} {value}" for name, value in fields.items() if getattr(config, name) != value]
    if architecture in ("llama", "gpt2") and config.hidden_size % config.num_attention_heads != 0:
        reasons.append("a hidden_size that num_attention_heads divides")
    return reasons


def _renamed(name: str, table: Mapping[str, Any], architecture: str) -> tuple[str, ...]:
    """Look up a weight name with `*` for its layer number, and insert the number into the result."""
    layer = re.search(r"\.(\d+)\.", name)
    pattern = name[: layer.start(1)] + "*" + name[layer.end(1) :] if layer else name
    if pattern not in table:
        action = "convert a plain model without adapters or extra heads"
        raise UsageError(f"the weight {name}", f"the weights of a plain {architecture}", action)
    names = (table[pattern],) if isinstance(table[pattern], str) else table[pattern]
    return tuple(name.replace("*", layer.group(1)) if layer else name for name in names)


def _transposed(stock_name: str, architecture: str) -> bool:
    return architecture == "gpt2" and _TRANSPOSED.search(stock_name) is not None
