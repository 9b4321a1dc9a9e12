# Copyright 2026 The tinygpt_hf authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The configuration of TinyGPT models, with Llama's field names. `__post_init__` fills in derived values.

The defaults give Qwen3's architecture. GPT-2's is

    TinyGPTConfig(position_embedding_type="learned", norm_type="layernorm", mlp_type="plain", hidden_act="gelu_new",
                  attention_bias=True, mlp_bias=True, qk_norm=False, rms_norm_eps=1e-5)

This file is saved with every model, so it imports only transformers and huggingface_hub.
"""

from dataclasses import fields
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters


@strict
class TinyGPTConfig(PreTrainedConfig):
    """The configuration of a TinyGPT model. `n_layer`, `n_head`, `n_embd` and `n_positions` are accepted as aliases.

    Defaults: `num_key_value_heads` is `num_attention_heads`; `head_dim` is `hidden_size / num_attention_heads`;
    `intermediate_size` is 8/3 of `hidden_size` rounded up to a multiple of 64 (gated) or 4 times it (plain);
    `hidden_act` is `silu` (gated) or `gelu_new` (plain); `embedding_initializer_range` is `initializer_range`. Both norm
    types use `rms_norm_eps`. `hidden_dropout` applies to the embeddings and to the outputs of attention and MLP, as in
    GPT-2.

    >>> TinyGPTConfig(n_layer=2, n_embd=192, n_head=6).intermediate_size
    512
    """

    model_type = "tinygpt"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_embd": "hidden_size",
        "n_positions": "max_position_embeddings",
    }

    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int | None = None
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str | None = None
    max_position_embeddings: int = 1024
    position_embedding_type: Literal["rope", "learned"] = "rope"
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    mlp_type: Literal["gated", "plain"] = "gated"
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = True
    tie_word_embeddings: bool = True
    attention_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    initializer_range: float | int = 0.02
    embedding_initializer_range: float | int | None = None
    rms_norm_eps: float = 1e-6
    rope_parameters: RopeParameters | dict | None = None
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        self._take_aliases(kwargs)
        gated = self.mlp_type == "gated"
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads > 0 and self.hidden_size % self.num_attention_heads == 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.intermediate_size is None:
            # 8/3 instead of 4: a gated MLP has three matrices, a plain one two, so both have equally many parameters
            self.intermediate_size = -(-8 * self.hidden_size // (3 * 64)) * 64 if gated else 4 * self.hidden_size
        if self.hidden_act is None:
            self.hidden_act = "silu" if gated else "gelu_new"
        # a plan must not name modules that do not exist
        absent = () if self.qk_norm else ("q_norm", "k_norm")
        absent += () if gated else ("gate_proj",)
        self.base_model_tp_plan = {
            name: style for name, style in type(self).base_model_tp_plan.items() if not name.endswith(absent or ("?",))
        }
        if self.position_embedding_type == "learned":
            tokens, *rest = type(self).base_model_pp_plan.items()
            positions = "embed_positions", (["position_ids"], ["inputs_embeds"])
            self.base_model_pp_plan = dict([tokens, positions, *rest])
        super().__post_init__(**kwargs)

    def _take_aliases(self, kwargs: dict) -> None:
        """Move aliases into their fields before values are derived; raise a ValueError if an alias and its field differ."""
        defaults = {field.name: field.default for field in fields(self)}
        for alias, name in self.attribute_map.items():
            if alias not in kwargs:
                continue
            value = kwargs.pop(alias)
            if getattr(self, name) not in (defaults[name], value):
                problem = f"{alias} is {value} and {name} is {getattr(self, name)}"
                raise ValueError(f"{problem}; they are two names of one field; give only {name}")
            setattr(self, name, value)

    def validate_architecture(self):
        """Raise a ValueError for impossible shapes. `@strict` calls this after construction and before saving."""
        heads, key_heads = self.num_attention_heads, self.num_key_value_heads
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_hidden_layers < 0:
            raise ValueError(f"num_hidden_layers is {self.num_hidden_layers}; it must be 0 or more")
        if self.head_dim is None:
            problem = f"hidden_size is {self.hidden_size} with num_attention_heads {heads}"
            raise ValueError(f"{problem}; the heads must divide it evenly; change one of them or give head_dim")
        if self.head_dim < 1:
            raise ValueError(f"head_dim is {self.head_dim}; it must be at least 1; leave it out to have it derived")
        if heads % key_heads != 0:
            problem = f"num_key_value_heads is {key_heads} with num_attention_heads {heads}"
            raise ValueError(f"{problem}; choose a divisor of num_attention_heads")
        if self.position_embedding_type == "rope" and self.head_dim % 2 != 0:
            raise ValueError(f"head_dim is {self.head_dim} with position_embedding_type rope, which needs an even one")
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        if self.rms_norm_eps <= 0.0:
            raise ValueError(f"rms_norm_eps is {self.rms_norm_eps}; it must be above 0")


TinyGPTConfig.register_for_auto_class()

__all__ = ["TinyGPTConfig"]
