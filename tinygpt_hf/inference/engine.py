"""Compute next-token logits with a KV cache. All text generation in this package uses these engines.

    engine = open_engine(model)
    logits = engine.prefill([prompt_ids])             # (B, V); a prefix shared with the previous text stays cached
    logits = engine.decode([token])                   # append one token to every row

`Engine` serves TinyGPT models. It fuses matrices that share an input and runs few kernels per layer. It holds a second
copy of the weights, taken when it is created. `PlainEngine` serves any other model through its own forward, one row at
a time.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

CACHE_STEP = 256  # positions added whenever the cache grows
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # their angles do not depend on the text's length
ACTIVATIONS = {"silu": F.silu} | dict.fromkeys(  # single kernels; the last three names mean the same function
    ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), partial(F.gelu, approximate="tanh")
)


def open_engine(model) -> "Engine | PlainEngine":
    """Return an `Engine` if it computes what the model's own forward does, else a `PlainEngine`."""
    return Engine(model) if _is_unmodified_tinygpt(model) else PlainEngine(model)


def _is_unmodified_tinygpt(model) -> bool:
    """Check for a TinyGPT model without hooks, wrappers, sharding or quantization, which only its own forward respects."""
    if type(model) is not TinyGPTForCausalLM or model.config._attn_implementation not in ("eager", "sdpa"):
        return False
    known = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ModuleList)
    parts = [part for part in model.modules() if next(part.parameters(), None) is not None]
    weights, rope = list(model.parameters()), model.model.rotary_emb
    return (
        all(type(part) in known or type(part).__module__ == TinyGPTForCausalLM.__module__ for part in parts)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
        and all(type(weight.data) is torch.Tensor and weight.device.type != "meta" for weight in weights)
        and len({(weight.dtype, weight.device) for weight in weights}) == 1
        and (rope is None or rope.rope_type in STATIC_ROPE_TYPES)
    )


class Norm:
    """LayerNorm or RMSNorm over the last dimension.

    A float32 RMSNorm does not apply its weight. It offers the weight as `gain`, to be folded into the next matrix.
    """

    def __init__(self, module: nn.Module):
        self._shape, self._weight, self.gain = module.weight.shape, module.weight, None
        self._is_layernorm = isinstance(module, nn.LayerNorm)
        self._bias, self._eps = (module.bias, module.eps) if self._is_layernorm else (None, module.variance_epsilon)
        if not self._is_layernorm:  # sqrt(mean(x^2) + eps) is hypot(|x|, sqrt(width * eps)) / sqrt(width)
            width = self._shape[0]
            self._weight = self._weight.float() * width**0.5
            self._eps = torch.tensor((width * self._eps) ** 0.5, device=self._weight.device)
            self.gain = self._weight if module.weight.dtype == torch.float else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._is_layernorm:
            return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)
        normed = x / self._length(x)
        return normed if self.gain is not None else (normed * self._weight).to(x.dtype)

    def _length(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float).hypot_(self._eps)


class HeadNorm(Norm):
    """Query and key norms, computed in place on float32 `heads` (..., G + 1, D).

    `order` permutes the D entries of a head. The queries' weights include the attention scale.
    """

    def __init__(self, queries: nn.Module, keys: nn.Module, groups: int, order: torch.Tensor):
        super().__init__(queries)
        both = [queries] * groups + [keys]
        self._weight = torch.stack([norm.weight.float() for norm in both])[:, order]
        self._weight[:-1] *= len(order) ** -0.5  # the attention scale
        if self._is_layernorm:
            self._bias = torch.stack([norm.bias.float() for norm in both])[:, order]
            self._bias[:-1] *= len(order) ** -0.5
        else:
            self._weight *= len(order) ** 0.5

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        if self._is_layernorm:
            return torch.addcmul(self._bias, F.layer_norm(heads, self._shape, eps=self._eps), self._weight, out=heads)
        return heads.div_(self._length(heads)).mul_(self._weight)


class FusedLinear:
    """Linear layers with the same input, as one matrix (inputs, outputs), the fastest layout for a single row.

    `gain` is the weight of the preceding norm; `order` permutes the outputs.
    """

    def __init__(self, *modules: nn.Linear, gain: torch.Tensor | None = None, order: torch.Tensor | None = None):
        order = slice(None) if order is None else order
        weight = torch.cat([module.weight for module in modules])[order]
        self._matrix = (weight if gain is None else weight * gain).t().contiguous()
        self._bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])[order]

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if self._bias is None:
            return torch.mm(x, self._matrix, out=out)
        return torch.addmm(self._bias, x, self._matrix, out=out)

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        """Add the output for `x` to the residual stream, in place."""
        residual.addmm_(x, self._matrix)
        if self._bias is not None:
            residual.add_(self._bias)


class Layer:
    """One transformer layer with fused matrices.

    The fused projection holds, for each key head, its G query heads, the key head and the value head. With RoPE, the two
    entries of a head that rotate together are adjacent.
    """

    def __init__(self, layer: nn.Module, config):
        attention, mlp = layer.self_attn, layer.mlp
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        device = attention.q_proj.weight.device
        order = torch.arange(D, device=device)
        if config.position_embedding_type == "rope":
            order = order.view(2, D // 2).t().flatten()
        heads = torch.arange(H + 2 * K, device=device)
        heads = torch.cat([part.view(K, -1) for part in heads.split_with_sizes((H, K, K))], 1)  # (K, H/K + 2)
        qkv_order = heads[..., None] * D + order
        qkv_order[:, -1] = heads[:, -1:] * D + torch.arange(D, device=device)  # values do not rotate
        self.input_norm, self.mlp_norm = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        qkv = attention.q_proj, attention.k_proj, attention.v_proj
        self.qkv = FusedLinear(*qkv, gain=self.input_norm.gain, order=qkv_order.flatten())
        up = (mlp.gate_proj, mlp.up_proj) if config.mlp_type == "gated" else (mlp.up_proj,)
        self.up = FusedLinear(*up, gain=self.mlp_norm.gain)
        self.output, self.down = FusedLinear(attention.o_proj), FusedLinear(mlp.down_proj)
        self.head_norm = HeadNorm(attention.q_norm, attention.k_norm, H // K, order) if config.qk_norm else None


class Workspace:
    """Preallocated buffers for the heads and the MLP of B rows of T tokens, with the views the forward pass needs."""

    def __init__(self, rows: tuple[int, int], config, like: torch.Tensor):
        (B, T), K, D = rows, config.num_key_value_heads, config.head_dim
        G = config.num_attention_heads // K
        self.rows, self.qkv = rows, like.new_empty(B * T, K * (G + 2) * D)
        has_rope = config.position_embedding_type == "rope"
        # head norms and rotations are computed in float32
        self.float_qkv = self.qkv.float() if like.dtype != torch.float and (has_rope or config.qk_norm) else None
        every = (self.qkv if self.float_qkv is None else self.float_qkv).view(B, T, K, G + 2, D)
        self.q, self.heads = every[..., :G, :], every[..., :-1, :]
        self.kv = every[..., G:, :].permute(0, 2, 3, 1, 4)  # (B, K, 2, T, D)
        self.complex_heads = torch.view_as_complex(self.heads.unflatten(-1, (D // 2, 2))) if has_rope else None
        inner = config.intermediate_size
        self.up = like.new_empty(B * T, inner * (2 if config.mlp_type == "gated" else 1))
        self.gate, self.up_half = self.up[:, :inner], self.up[:, inner:]


class Engine:
    """A fast engine for TinyGPT models that reads batches.

    Shapes are named as in modeling_tinygpt.py, with G query heads per key head. Shorter rows are padded on the left, and
    the padding is masked.
    """

    max_batch_size = 32

    @torch.inference_mode()
    def __init__(self, model: TinyGPTForCausalLM):
        config, core = model.config, model.model
        self._config, self._is_gated, self._scale = config, config.mlp_type == "gated", config.head_dim**-0.5
        self._act = ACTIVATIONS.get(config.hidden_act) or ACT2FN[config.hidden_act]
        self._embedding, self._position_embedding = core.embed_tokens.weight, core.embed_positions
        self._rotary = core.rotary_emb
        self._layers = [Layer(layer, config) for layer in core.layers[: config.num_hidden_layers]]
        self._last_norm = Norm(core.norm)
        self._head = FusedLinear(model.lm_head, gain=self._last_norm.gain)
        self._reset()

    def _reset(self) -> None:
        self._cached_ids: list[int] = []  # the ids in the cache if it has one row
        self._length = 0
        self._padding = self._padding_bias = self._rotations = None
        self._workspace: Workspace | None = None
        K, D = self._config.num_key_value_heads, self._config.head_dim
        self._cache = self._embedding.new_empty(len(self._layers), 0, K, 2, 0, D)

    @torch.inference_mode()
    def prefill(self, prompts: list[list[int]]) -> torch.Tensor:
        """Read the prompts in one pass and return the logits (B, V) of the token after each."""
        if all(prompt == prompts[0] for prompt in prompts[1:]):
            return self._prefill_one(prompts[0], len(prompts))
        self._reset()
        longest = max(map(len, prompts))
        padding = torch.tensor([longest - len(prompt) for prompt in prompts])  # (B,)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        self._padding = padding.to(self._embedding.device) if padding.any() else None
        return self._forward(ids.to(self._embedding.device))

    def _prefill_one(self, prompt: list[int], rows: int) -> torch.Tensor:
        """Read one prompt, except for a prefix that is cached, and copy the cache to every row."""
        same = common_prefix(self._cached_ids, prompt[:-1])  # always feed the last token: its logits are needed
        if same == 0:
            self._reset()
        self._length, self._cached_ids = same, prompt[:same]
        logits = self._forward(torch.tensor([prompt[same:]], device=self._embedding.device))
        self._cached_ids = list(prompt)
        if rows > 1:
            self._cached_ids, self._cache = [], self._cache.repeat(1, rows, 1, 1, 1, 1)
        return logits.expand(rows, -1)

    @torch.inference_mode()
    def decode(self, tokens: list[int]) -> torch.Tensor:
        """Append one token to every row and return the next logits (B, V)."""
        logits = self._forward(torch.tensor(tokens, device=self._embedding.device)[:, None])
        if self._cached_ids:
            self._cached_ids.append(tokens[0])
        return logits

    @torch.inference_mode()
    def drop_row(self, row: int) -> None:
        """Remove one row from the batch; the last row takes its index."""
        self._cached_ids = []
        last = self._cache.shape[1] - 1
        if row != last:
            self._cache[:, row, ..., : self._length, :] = self._cache[:, last, ..., : self._length, :]
        self._cache = self._cache.narrow(1, 0, last)
        if self._padding is not None:
            self._padding[row] = self._padding[last]
            self._padding = self._padding[:last]
            self._update_padding_bias()

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Append ids (B, T) to the cache and return the logits (B, V) at the last position."""
        B, T = ids.shape
        end = self._length + T
        self._grow_cache(B, end)
        x, rotations = self._embed(ids)  # (B*T, C)
        buffers, mask = self._get_workspace(B, T), self._mask(T, end) if T > 1 else None
        for layer, keys, values, slot in zip(self._layers, *self._cache_views(T, end), strict=True):
            layer.qkv(layer.input_norm(x), buffers.qkv)
            if buffers.float_qkv is not None:
                buffers.float_qkv.copy_(buffers.qkv)
            if layer.head_norm is not None:
                layer.head_norm(buffers.heads)
            if buffers.complex_heads is not None:
                buffers.complex_heads.mul_(rotations)
            slot.copy_(buffers.kv)
            q = buffers.q if layer.head_norm is not None else buffers.q * self._scale  # (B, T, K, G, D)
            if buffers.float_qkv is not None:
                q = q.to(x.dtype)
            if T > 1 and layer is self._layers[-1]:  # only the last position's logits are needed
                x, q, T, buffers = x.view(B, T, -1)[:, -1].contiguous(), q[:, -1:], 1, self._get_workspace(B, 1)
            mixed = self._attend_one(q, keys, values) if T == 1 else self._attend(q, keys, values, mask)
            layer.output.add_to(x, mixed.view(B * T, -1))
            layer.up(layer.mlp_norm(x), buffers.up)
            inner = self._act(buffers.gate)
            layer.down.add_to(x, inner.mul_(buffers.up_half) if self._is_gated else inner)
        self._length = end
        return self._head(self._last_norm(x.view(B, T, -1)[:, -1]))

    def _get_workspace(self, B: int, T: int) -> Workspace:
        """Return buffers for B rows of T tokens; those for T = 1 are reused."""
        if T > 1:
            return Workspace((B, T), self._config, self._embedding)
        if self._workspace is None or self._workspace.rows[0] != B:
            self._workspace = Workspace((B, 1), self._config, self._embedding)
        return self._workspace

    def _cache_views(self, T: int, end: int) -> list[tuple]:
        """Return, per layer, the keys (B*K, D, S), the values (B*K, S, D) and the slots for T new keys and values."""
        keys, values = self._cache.narrow(4, 0, end).flatten(1, 2).unbind(2)  # (L, B*K, S, D)
        return [part.unbind() for part in (keys.transpose(2, 3), values, self._cache.narrow(4, end - T, T))]

    def _attend_one(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend with one token per row; query heads that share a key head are rows of one matrix product."""
        scores = torch.bmm(q.flatten(0, 2), keys)  # (B*K, G, S)
        if self._padding_bias is not None:
            scores += self._padding_bias[..., : keys.shape[2]]
        return torch.bmm(scores.softmax(-1), values)

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask) -> torch.Tensor:
        """Attend with T tokens per row: q (B, T, K, G, D) to (B, T, H*D)."""
        B, T, K, G, D = q.shape
        keys, values = keys.transpose(1, 2).view(B, K, -1, D), values.view(B, K, -1, D)
        options = {"attn_mask": mask, "is_causal": mask is None, "scale": 1.0, "enable_gqa": G > 1}
        mixed = F.scaled_dot_product_attention(q.flatten(2, 3).transpose(1, 2), keys, values, **options)  # (B, H, T, D)
        return mixed.transpose(1, 2).flatten(2)

    def _embed(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the input (B*T, C) of the first layer and the rotations (1 or B, T, 1, 1, D/2) for RoPE, or None."""
        (B, T), start = ids.shape, self._length
        x = self._embedding.index_select(0, ids.view(-1))
        positions = slice(start, start + T)
        if self._padding is not None:
            positions = torch.arange(start, start + T, device=ids.device) - self._padding[:, None]  # (B, T)
            positions = positions.clamp_min(0)
        if self._position_embedding is not None:
            x.view(B, T, -1).add_(self._position_embedding.weight[positions])
        if self._rotations is None:
            return x, None
        return x, self._rotations[positions].view(-1, T, 1, 1, self._rotations.shape[1])

    def _mask(self, T: int, end: int) -> torch.Tensor | None:
        """Return the attention mask (B, 1, T, S), True where a query may attend, or None for plain causal attention."""
        if end == T and self._padding is None:
            return None
        keys = torch.arange(end, device=self._embedding.device)
        queries = keys[end - T :, None]
        mask = keys <= queries  # (T, S)
        if self._padding is not None:  # padding attends to itself: a softmax over nothing gives NaN
            mask = mask & ((keys >= self._padding[:, None, None]) | (keys == queries))
        return mask.view(-1, 1, T, end)

    def _grow_cache(self, rows: int, length: int) -> None:
        """Enlarge the cache to `rows` rows and at least `length` positions."""
        L, held, K, _, capacity, D = self._cache.shape
        if held != rows or length > capacity:
            capacity = -(-length // CACHE_STEP) * CACHE_STEP
            grown = self._cache.new_empty(L, rows, K, 2, capacity, D)
            if self._length:
                grown[..., : self._length, :] = self._cache[..., : self._length, :]
            self._cache = grown
            if self._rotary is not None:
                positions = torch.arange(capacity, device=grown.device)[None]
                angles = self._rotary(self._cache.new_empty(0).float(), positions)
                cos, sin = (part[0, :, D // 2 :] for part in angles)
                self._rotations = torch.complex(cos, sin)  # (S, D/2)
            self._update_padding_bias()

    def _update_padding_bias(self) -> None:
        """Compute the bias (B*K, G, S) that hides padding from `_attend_one`."""
        if self._padding is not None:
            H, K = self._config.num_attention_heads, self._config.num_key_value_heads
            padding = torch.arange(self._cache.shape[4], device=self._padding.device) < self._padding[:, None]
            bias = torch.zeros_like(padding, dtype=self._embedding.dtype).masked_fill_(padding, float("-inf"))
            self._padding_bias = bias.repeat_interleave(K, 0)[:, None].expand(-1, H // K, -1)


class PlainEngine:
    """An engine for any causal language model: one row, through the model's own forward and cache.

    A new prompt reuses the cache up to the common prefix if every layer caches all positions. Models with a sliding
    window or a recurrent state read the whole prompt again.
    """

    max_batch_size = 1

    def __init__(self, model):
        import inspect

        self._model = model
        self._device = model.get_input_embeddings().weight.device
        known = inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._cache, self._cached_ids = None, []

    def prefill(self, prompts: list[list[int]]) -> torch.Tensor:
        """Read one prompt and return the logits (1, V) of the next token."""
        (ids,) = prompts
        return self._forward(ids)

    def decode(self, tokens: list[int]) -> torch.Tensor:
        """Append one token and return the next logits (1, V)."""
        return self._forward(self._ids + tokens)

    @torch.no_grad()
    def _forward(self, ids: list[int]) -> torch.Tensor:
        from transformers import DynamicCache

        self._ids = ids
        same = common_prefix(self._cached_ids, ids[:-1])  # always feed the last token: its logits are needed
        if same < len(self._cached_ids) and not self._crop(len(self._cached_ids) - same):
            same = 0
        self._cached_ids = []  # the forward may be interrupted halfway
        if same == 0:
            self._cache = DynamicCache(config=self._model.config)
        new = torch.tensor([ids[same:]], device=self._device)  # (1, T)
        output = self._model(new, past_key_values=self._cache, use_cache=True, **self._options)
        if getattr(output, "past_key_values", None) is not None:  # else the model keeps no such cache
            self._cached_ids = ids
        return output.logits[:, -1]

    def _crop(self, count: int) -> bool:
        """Remove the last `count` tokens from the cache; return False if some layer cannot."""
        from transformers.cache_utils import DynamicLayer

        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            return False
        self._cache.crop(-count)
        return True


def common_prefix(one: list[int], other: list[int]) -> int:
    """Return the length of the common prefix of two lists."""
    if one == other[: len(one)]:  # fast path: `other` continues `one`
        return len(one)
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
