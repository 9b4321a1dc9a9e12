# Copyright 2026 The tinygpt_hf authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The TinyGPT model: norm, rotary embedding, attention, MLP, layer, model and heads, in that order.

Modules have Llama's names, so the state dict of the default configuration is Qwen3's, and without `qk_norm` Llama's.
This file is saved with every model, so it imports only torch, transformers and its configuration.

Shapes: B batch, T time (queries), S time (keys, with the cache), C width, H heads, K key/value heads, D head size,
V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import (
    GenericForQuestionAnswering,
    GenericForSequenceClassification,
    GenericForTokenClassification,
    GradientCheckpointingLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.auto import AutoModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tinygpt import TinyGPTConfig


class TinyGPTRMSNorm(nn.Module):
    def __init__(self, hidden_size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # vLLM recognizes the norm by this form; on a CPU it is as fast as F.rms_norm and bit-identical
        x = hidden_states.float()
        normalized = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * normalized.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"


NORMS = {"rmsnorm": TinyGPTRMSNorm, "layernorm": nn.LayerNorm}


class TinyGPTRotaryEmbedding(nn.Module):
    """Rotary position embedding, computed once per forward. `PreTrainedModel` reinitializes its buffers by their names."""

    def __init__(self, config: TinyGPTConfig):
        super().__init__()
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = config.rope_parameters["rope_type"]
        default = self.rope_type == "default"
        compute = self.compute_default_rope_parameters if default else ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = compute(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """Move to the model's device but stay in float32: in half precision, angles at position 1000 are off by radians."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return moved if (moved := fn(tensor)).dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    @staticmethod
    def compute_default_rope_parameters(config: TinyGPTConfig, **kwargs) -> tuple[torch.Tensor, float]:
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        return 1.0 / (config.rope_parameters["rope_theta"] ** exponents), 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float)
        cos = angles.cos() * self.attention_scaling
        sin = angles.sin() * self.attention_scaling
        # the sign of the rotation is in sin, so that `rotate` needs one roll and no negation
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos.to(x.dtype), sin.to(x.dtype)  # each (1 or B, T, D)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply RoPE: rotate the pairs (i, i + D/2) of every head by the angle of their position."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # (B, H, T, D)
    key: torch.Tensor,  # (B, K, S, D)
    value: torch.Tensor,  # (B, K, S, D)
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention with two batched matrix products, optimized for training small models on a CPU.

    Passes over the (T, S) scores dominate the cost. So the query is scaled, not the scores, and the scores keep their dtype.
    Query heads that share a key head are rows of one product, so keys and values are not repeated.
    """
    B, H, T, D = query.shape
    K, S = key.shape[1], key.shape[2]
    query = (query * scaling).reshape(B, K, -1, D)  # (B, K, H/K * T, D)
    scores = torch.matmul(query, key.transpose(2, 3)).view(B, H, T, S)
    if attention_mask is not None:
        if attention_mask.dtype != scores.dtype or scores.dtype == torch.float16:
            # a fully masked row (padding) would be NaN if all sums were -inf: half the minimum leaves room for the score
            attention_mask = attention_mask.clamp_min(torch.finfo(scores.dtype).min / 2).to(scores.dtype)
        scores = scores + attention_mask  # slower in place: autograd copies the gradient of a modified view
    # the softmax kernel computes in float32 for every dtype
    weights = F.softmax(scores, dim=-1)
    weights = F.dropout(weights, p=dropout, training=module.training)
    output = torch.matmul(weights.view(B, K, -1, S), value).view(B, H, T, D)
    return output.transpose(1, 2).contiguous(), weights


class TinyGPTAttention(nn.Module):
    def __init__(self, config: TinyGPTConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        query_width, key_width = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=config.attention_bias)
        self.o_proj.writes_residual = True  # see _init_weights
        norm = NORMS[config.norm_type] if config.qk_norm else None
        self.q_norm = norm(self.head_dim, eps=config.rms_norm_eps) if norm else None
        self.k_norm = norm(self.head_dim, eps=config.rms_norm_eps) if norm else None

    def forward(
        self,
        hidden_states: torch.Tensor,  # (B, T, C)
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        hidden_shape = (*input_shape, -1, self.head_dim)  # -1: with tensor parallelism, a process has some of the heads

        query_states = self.q_proj(hidden_states).view(hidden_shape)  # (B, T, H, D)
        key_states = self.k_proj(hidden_states).view(hidden_shape)  # (B, T, K, D)
        value_states = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        if self.q_norm is not None:
            query_states, key_states = self.q_norm(query_states), self.k_norm(key_states)
        query_states, key_states = query_states.transpose(1, 2), key_states.transpose(1, 2)
        if position_embeddings is not None:
            cos, sin = position_embeddings[0].unsqueeze(1), position_embeddings[1].unsqueeze(1)  # (1 or B, 1, T, D)
            query_states, key_states = rotate(query_states, cos, sin), rotate(key_states, cos, sin)

        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query_states,
            key_states,
            value_states,
            attention_mask,
            dropout=0.0 if not self.training else self.attention_dropout,
            scaling=self.scaling,
            **kwargs,
        )
        attn_output = attn_output.reshape(*input_shape, -1).contiguous()  # (B, T, H * D)
        return self.o_proj(attn_output), attn_weights


class TinyGPTGatedMLP(nn.Module):
    def __init__(self, config: TinyGPTConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.writes_residual = True
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class TinyGPTPlainMLP(nn.Module):
    def __init__(self, config: TinyGPTConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.writes_residual = True
        # the same formula as one kernel instead of seven
        self.act_fn = ACT2FN["gelu_pytorch_tanh" if config.hidden_act == "gelu_new" else config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(x)))


MLPS: dict[str, type[nn.Module]] = {"gated": TinyGPTGatedMLP, "plain": TinyGPTPlainMLP}


class TinyGPTDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: TinyGPTConfig, layer_idx: int):
        super().__init__()
        self.self_attn = TinyGPTAttention(config, layer_idx)
        self.mlp = MLPS[config.mlp_type](config)
        self.input_layernorm = NORMS[config.norm_type](config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = NORMS[config.norm_type](config.hidden_size, eps=config.rms_norm_eps)
        self.hidden_dropout = config.hidden_dropout

    def forward(
        self,
        hidden_states: torch.Tensor,  # (B, T, C)
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attn_output, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )
        hidden_states = hidden_states + F.dropout(attn_output, p=self.hidden_dropout, training=self.training)
        mlp_output = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + F.dropout(mlp_output, p=self.hidden_dropout, training=self.training)


class TinyGPTPreTrainedModel(PreTrainedModel):
    config: TinyGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["TinyGPTDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": TinyGPTDecoderLayer, "attentions": TinyGPTAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # each layer adds to the residual stream twice: smaller additions keep its variance independent of the depth.
        # The mark is on the Linear itself because Transformers skips modules without their own parameters
        if getattr(module, "writes_residual", False):
            std = self.config.initializer_range / (2 * self.config.num_hidden_layers) ** 0.5
            init.normal_(module.weight, mean=0.0, std=std)
        # large embeddings distinguish tokens from the first step on, so retrieval from the context is learned sooner
        if isinstance(module, nn.Embedding) and self.config.embedding_initializer_range is not None:
            init.normal_(module.weight, mean=0.0, std=self.config.embedding_initializer_range)

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model with its two Python files, and list in `auto_map` every Auto class that can load it."""
        models = {name: f"modeling_tinygpt.{model_class.__name__}" for name, model_class in AUTO_CLASSES.items()}
        self.config.auto_map = {"AutoConfig": "configuration_tinygpt.TinyGPTConfig", **models}
        return super().save_pretrained(save_directory, **kwargs)


class TinyGPTModel(TinyGPTPreTrainedModel):
    """The transformer without a head: hidden states from token ids."""

    def __init__(self, config: TinyGPTConfig):
        super().__init__(config)
        self.vocab_size = config.vocab_size
        learned = config.position_embedding_type == "learned"
        # no padding_idx: if pad is also the end-of-text token, that token's embedding would not be trained
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.layers = nn.ModuleList([TinyGPTDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = NORMS[config.norm_type](config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = None if learned else TinyGPTRotaryEmbedding(config=config)
        self.hidden_dropout = config.hidden_dropout
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # (B, T)
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:  # (1, T)
            past_seen_tokens = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + past_seen_tokens
        length, longest = inputs_embeds.shape[1], self.config.max_position_embeddings
        if self.embed_positions is not None and length > longest and not torch.compiler.is_compiling():
            if position_ids.max() >= longest:
                raise ValueError(f"{length} tokens are too many: the model has {longest} learned positions")

        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )

        hidden_states, position_embeddings = inputs_embeds, None
        if self.rotary_emb is not None:
            position_embeddings = self.rotary_emb(hidden_states, position_ids)
        # in later stages of a pipeline the first layers are identities, and the inputs have passed this step
        if not (len(self.layers) and isinstance(self.layers[0], nn.Identity)):
            if self.embed_positions is not None:
                hidden_states = hidden_states + self.embed_positions(position_ids)
            hidden_states = F.dropout(hidden_states, p=self.hidden_dropout, training=self.training)

        for decoder_layer in self.layers[: self.config.num_hidden_layers]:
            hidden_states = decoder_layer(
                hidden_states,
                attention_mask=causal_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )


def kept_positions(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """Select positions of (B, T, C): the last n (0: all), those of a 1D tensor, or per row those of a 2D tensor (a bool
    one flattens to (N, C)). Transformers' `slice_logits_to_keep` is missing in the version that vLLM requires."""
    if isinstance(logits_to_keep, int):
        return hidden_states[:, -logits_to_keep:]
    if logits_to_keep.dim() == 1:
        return hidden_states[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return hidden_states[logits_to_keep]
    return hidden_states.take_along_dim(logits_to_keep[..., None], dim=1)


class SummedCrossEntropy(torch.autograd.Function):
    """The summed cross-entropy of a linear head, computed with its gradient for 256 rows at a time. This avoids the logits
    (N, V), which take gigabytes with a large vocabulary; those of 256 rows fit into the processor's cache. Labels of -100
    are ignored."""

    @staticmethod
    def forward(ctx, hidden_states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor):  # (N, C), (V, C), (N,)
        device, dtype = hidden_states.device.type, hidden_states.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        rows, head = hidden_states.to(dtype), weight.to(dtype)
        rows_grad, weight_grad = torch.empty_like(rows), torch.zeros_like(weight, dtype=torch.float)
        total = torch.zeros((), device=rows.device)
        for x, y, x_grad in zip(rows.split(256), labels.split(256), rows_grad.split(256), strict=True):
            logits = F.linear(x, head).float()
            kept, y = (y != -100)[:, None], y.clamp_min(0)[:, None]
            logits -= logits.logsumexp(-1, keepdim=True)
            total -= (logits.gather(1, y) * kept).sum()
            slope = logits.exp_().scatter_add_(1, y, -torch.ones_like(y, dtype=logits.dtype)).mul_(kept).to(dtype)
            torch.mm(slope, head, out=x_grad)
            weight_grad += slope.t() @ x
        ctx.save_for_backward(rows_grad.to(hidden_states.dtype), weight_grad.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx, scale: torch.Tensor):
        rows_grad, weight_grad = ctx.saved_tensors
        return rows_grad * scale, weight_grad * scale, None


class TinyGPTForCausalLM(TinyGPTPreTrainedModel, GenerationMixin):
    """A causal language model. Pass `labels` (shifted inside) or `shift_labels` (already shifted) to get the loss.

    For training, `skip_logits` with `shift_labels` and `num_items_in_batch` gives the loss without logits.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: TinyGPTConfig):
        super().__init__(config)
        self.model = TinyGPTModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # (B, T)
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = kept_positions(outputs.last_hidden_state, logits_to_keep)
        if skip_logits and not torch.compiler.is_compiling():
            rows = hidden_states.flatten(0, 1), self.lm_head.weight, kwargs["shift_labels"].flatten()
            return CausalLMOutputWithPast(loss=SummedCrossEntropy.apply(*rows) / kwargs["num_items_in_batch"])
        logits = self.lm_head(hidden_states)  # (B, T, V)

        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _prepare_generated_length(self, *, input_ids_length: int, **kwargs):
        """Limit the generated length, as Transformers does, and also to the number of learned positions."""
        settings = super()._prepare_generated_length(input_ids_length=input_ids_length, **kwargs)
        longest = self.config.max_position_embeddings
        if self.config.position_embedding_type == "learned" and settings.max_length > longest >= input_ids_length:
            logging.get_logger(__name__).warning_once(f"The text ends at {longest} tokens, the last learned position.")
            settings.max_length = longest
        return settings


class TinyGPTForSequenceClassification(GenericForSequenceClassification, TinyGPTPreTrainedModel):
    pass


class TinyGPTForTokenClassification(GenericForTokenClassification, TinyGPTPreTrainedModel):
    pass


class TinyGPTForQuestionAnswering(GenericForQuestionAnswering, TinyGPTPreTrainedModel):
    pass


# the three generic heads create their base model with AutoModel, even if only this file is available
AutoModel.register(TinyGPTConfig, TinyGPTModel, exist_ok=True)

AUTO_CLASSES = {
    "AutoModel": TinyGPTModel,
    "AutoModelForCausalLM": TinyGPTForCausalLM,
    "AutoModelForSequenceClassification": TinyGPTForSequenceClassification,
    "AutoModelForTokenClassification": TinyGPTForTokenClassification,
    "AutoModelForQuestionAnswering": TinyGPTForQuestionAnswering,
}
for auto_class, model_class in AUTO_CLASSES.items():
    model_class.register_for_auto_class(auto_class)

__all__ = ["TinyGPTPreTrainedModel", *(model_class.__name__ for model_class in AUTO_CLASSES.values())]
