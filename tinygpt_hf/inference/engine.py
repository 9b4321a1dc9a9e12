"""Token ids -> logits of the next token: what everything that writes text reads the model with.

    engine = open_engine(model)
    logits = engine.begin([prompt_ids])               # (B, V); what the prompt has in common with the last text is kept
    logits = engine.advance([token])                  # one token more in every row

Our own models are read by `Engine`: matrices that share an input are one, keys and values lie in a cache that grows in
steps, and a token passes a handful of kernels a layer. It keeps a second copy of the weights, as they were when it was
made. Any other model is read by `PlainEngine`, through its own forward, one row at a time.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

STEP = 256  # positions the cache grows by
FIXED_ANGLES = ("default", "linear", "llama3", "yarn")  # kinds of rope whose angles a longer text does not change
ACTIVATIONS = {"silu": F.silu} | dict.fromkeys(  # in one kernel; the last three are names of one function
    ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), partial(F.gelu, approximate="tanh")
)


def open_engine(model) -> "Engine | PlainEngine":
    """The fastest engine that reads this model as its own forward does."""
    return Engine(model) if _is_plainly_ours(model) else PlainEngine(model)


def _is_plainly_ours(model) -> bool:
    """Is it our model as we built it, with nothing hooked, wrapped, sharded or quantized that only its forward knows?"""
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
        and (rope is None or rope.rope_type in FIXED_ANGLES)
    )


class Norm:
    """A norm over the last dimension. In float32 an RMS norm leaves its weights, `gain`, to the products behind it."""

    def __init__(self, module: nn.Module):
        self._shape, self._weight, self.gain = module.weight.shape, module.weight, None
        self._layered = isinstance(module, nn.LayerNorm)
        self._bias, self._eps = (module.bias, module.eps) if self._layered else (None, module.variance_epsilon)
        if not self._layered:  # sqrt(mean(x^2) + eps) is hypot(|x|, sqrt(width * eps)) / sqrt(width)
            width = self._shape[0]
            self._weight = self._weight.float() * width**0.5
            self._eps = torch.tensor((width * self._eps) ** 0.5, device=self._weight.device)
            self.gain = self._weight if module.weight.dtype == torch.float else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._layered:
            return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)
        normed = x / self._length(x)
        return normed if self.gain is not None else (normed * self._weight).to(x.dtype)

    def _length(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float).hypot_(self._eps)


class HeadNorm(Norm):
    """The norms of queries and keys, in place, in float32: `heads` (..., G + 1, D), the numbers of one in this `order`."""

    def __init__(self, queries: nn.Module, keys: nn.Module, groups: int, order: torch.Tensor):
        super().__init__(queries)
        both = [queries] * groups + [keys]
        self._weight = torch.stack([norm.weight.float() for norm in both])[:, order]
        self._weight[:-1] *= len(order) ** -0.5  # of a query, for the scores
        if self._layered:
            self._bias = torch.stack([norm.bias.float() for norm in both])[:, order]
            self._bias[:-1] *= len(order) ** -0.5
        else:
            self._weight *= len(order) ** 0.5

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        if self._layered:
            return torch.addcmul(self._bias, F.layer_norm(heads, self._shape, eps=self._eps), self._weight, out=heads)
        return heads.div_(self._length(heads)).mul_(self._weight)


class Product:
    """Linear layers that share an input as one. One row is multiplied fastest by a matrix that lies as (inputs, outputs).

    `gain`: what the norm before it has left to it; `places`: the order of the outputs.
    """

    def __init__(self, *modules: nn.Linear, gain: torch.Tensor | None = None, places: torch.Tensor | None = None):
        places = slice(None) if places is None else places
        weight = torch.cat([module.weight for module in modules])[places]
        self._matrix = (weight if gain is None else weight * gain).t().contiguous()
        self._bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])[places]

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if self._bias is None:
            return torch.mm(x, self._matrix, out=out)
        return torch.addmm(self._bias, x, self._matrix, out=out)

    def add_to(self, total: torch.Tensor, x: torch.Tensor) -> None:
        """Add the product to what the layers pass on."""
        total.addmm_(x, self._matrix)
        if self._bias is not None:
            total.add_(self._bias)


class Layer:
    """One layer with its matrices fused. A key head stands behind the queries that share it, its values behind it; with rope,
    the two numbers of a head that turn together lie side by side."""

    def __init__(self, layer: nn.Module, config):
        attention, mlp = layer.self_attn, layer.mlp
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        device = attention.q_proj.weight.device
        order = torch.arange(D, device=device)
        if config.position_embedding_type == "rope":
            order = order.view(2, D // 2).t().flatten()
        heads = torch.arange(H + 2 * K, device=device)
        heads = torch.cat([part.view(K, -1) for part in heads.split_with_sizes((H, K, K))], 1)  # (K, H/K + 2)
        places = heads[..., None] * D + order
        places[:, -1] = heads[:, -1:] * D + torch.arange(D, device=device)
        self.input_norm, self.mlp_norm = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        qkv = attention.q_proj, attention.k_proj, attention.v_proj
        self.qkv = Product(*qkv, gain=self.input_norm.gain, places=places.flatten())
        up = (mlp.gate_proj, mlp.up_proj) if config.mlp_type == "gated" else (mlp.up_proj,)
        self.up = Product(*up, gain=self.mlp_norm.gain)
        self.output, self.down = Product(attention.o_proj), Product(mlp.down_proj)
        self.head_norm = HeadNorm(attention.q_norm, attention.k_norm, H // K, order) if config.qk_norm else None


class Room:
    """Where the heads and the MLP of B rows of T tokens are computed, with every view of it that is asked for."""

    def __init__(self, rows: tuple[int, int], config, like: torch.Tensor):
        (B, T), K, D = rows, config.num_key_value_heads, config.head_dim
        G = config.num_attention_heads // K
        self.rows, self.qkv = rows, like.new_empty(B * T, K * (G + 2) * D)
        has_rope = config.position_embedding_type == "rope"
        # norms and turns of heads are computed in float32
        self.wide = self.qkv.float() if like.dtype != torch.float and (has_rope or config.qk_norm) else None
        every = (self.qkv if self.wide is None else self.wide).view(B, T, K, G + 2, D)
        self.q, self.heads = every[..., :G, :], every[..., :-1, :]
        self.kv = every[..., G:, :].permute(0, 2, 3, 1, 4)  # (B, K, 2, T, D)
        self.turning = torch.view_as_complex(self.heads.unflatten(-1, (D // 2, 2))) if has_rope else None
        inner = config.intermediate_size
        self.up = like.new_empty(B * T, inner * (2 if config.mlp_type == "gated" else 1))
        self.gate, self.beside = self.up[:, :inner], self.up[:, inner:]


class Engine:
    """Our own models, in batches. Shapes as in modeling_tinygpt.py, G queries to a key head; the rows of a batch end at the same
    column. A row shorter than the longest begins with padding, which nothing looks at.
    """

    most_rows = 32

    @torch.inference_mode()
    def __init__(self, model: TinyGPTForCausalLM):
        config, core = model.config, model.model
        self._config, self._is_gated, self._scale = config, config.mlp_type == "gated", config.head_dim**-0.5
        self._act = ACTIVATIONS.get(config.hidden_act) or ACT2FN[config.hidden_act]
        self._tokens, self._positions, self._angles = core.embed_tokens.weight, core.embed_positions, core.rotary_emb
        self._layers = [Layer(layer, config) for layer in core.layers[: config.num_hidden_layers]]
        self._last_norm = Norm(core.norm)
        self._head = Product(model.lm_head, gain=self._last_norm.gain)
        self._forget()

    def _forget(self) -> None:
        """Nothing is read."""
        self._read: list[int] = []  # the ids in the cache, where it has one row
        self._length = 0
        self._pads = self._hidden = self._turns = None
        self._room: Room | None = None
        K, D = self._config.num_key_value_heads, self._config.head_dim
        self._cache = self._tokens.new_empty(len(self._layers), 0, K, 2, 0, D)

    @torch.inference_mode()
    def begin(self, prompts: list[list[int]]) -> torch.Tensor:
        """Read the prompts, in one pass: the logits (B, V) of what follows each."""
        if all(prompt == prompts[0] for prompt in prompts[1:]):
            return self._begin_one(prompts[0], len(prompts))
        self._forget()
        longest = max(map(len, prompts))
        pads = torch.tensor([longest - len(prompt) for prompt in prompts])  # (B,)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        self._pads = pads.to(self._tokens.device) if pads.any() else None
        return self._forward(ids.to(self._tokens.device))

    def _begin_one(self, prompt: list[int], rows: int) -> torch.Tensor:
        """Read one prompt, beyond what it has in common with what was read; the batch begins with copies of it."""
        same = _common_start(self._read, prompt[:-1])  # the last one is fed in any case: its logits are wanted
        if same == 0:
            self._forget()
        self._length, self._read = same, prompt[:same]
        logits = self._forward(torch.tensor([prompt[same:]], device=self._tokens.device))
        self._read = list(prompt)
        if rows > 1:
            self._read, self._cache = [], self._cache.repeat(1, rows, 1, 1, 1, 1)
        return logits.expand(rows, -1)

    @torch.inference_mode()
    def advance(self, tokens: list[int]) -> torch.Tensor:
        """Read one more token in every row: the logits (B, V) of what follows."""
        logits = self._forward(torch.tensor(tokens, device=self._tokens.device)[:, None])
        if self._read:
            self._read.append(tokens[0])
        return logits

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """Let go of one row of the batch; the last row takes its place."""
        self._read = []
        last = self._cache.shape[1] - 1
        if row != last:
            self._cache[:, row, ..., : self._length, :] = self._cache[:, last, ..., : self._length, :]
        self._cache = self._cache.narrow(1, 0, last)
        if self._pads is not None:
            self._pads[row] = self._pads[last]
            self._pads = self._pads[:last]
            self._hide()

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Read (B, T) ids behind what was read."""
        B, T = ids.shape
        end = self._length + T
        self._reserve(B, end)
        x, turns = self._embed(ids)  # (B*T, C)
        room, mask = self._room_of(B, T), self._mask(T, end) if T > 1 else None
        for layer, keys, values, slot in zip(self._layers, *self._views(T, end), strict=True):
            layer.qkv(layer.input_norm(x), room.qkv)
            if room.wide is not None:
                room.wide.copy_(room.qkv)
            if layer.head_norm is not None:
                layer.head_norm(room.heads)
            if room.turning is not None:
                room.turning.mul_(turns)
            slot.copy_(room.kv)
            q = room.q if layer.head_norm is not None else room.q * self._scale  # (B, T, K, G, D)
            if room.wide is not None:
                q = q.to(x.dtype)
            if T > 1 and layer is self._layers[-1]:  # of what follows, only the last position is asked for
                x, q, T, room = x.view(B, T, -1)[:, -1].contiguous(), q[:, -1:], 1, self._room_of(B, 1)
            mixed = self._attend_one(q, keys, values) if T == 1 else self._attend(q, keys, values, mask)
            layer.output.add_to(x, mixed.view(B * T, -1))
            layer.up(layer.mlp_norm(x), room.up)
            inner = self._act(room.gate)
            layer.down.add_to(x, inner.mul_(room.beside) if self._is_gated else inner)
        self._length = end
        return self._head(self._last_norm(x.view(B, T, -1)[:, -1]))

    def _room_of(self, B: int, T: int) -> Room:
        """Room for so many tokens; that for one token of each row is kept."""
        if T > 1:
            return Room((B, T), self._config, self._tokens)
        if self._room is None or self._room.rows[0] != B:
            self._room = Room((B, 1), self._config, self._tokens)
        return self._room

    def _views(self, T: int, end: int) -> list[tuple]:
        """Of all layers the keys to look at, (B*K, D, S), the values, (B*K, S, D), and where the T new ones of both go."""
        keys, values = self._cache.narrow(4, 0, end).flatten(1, 2).unbind(2)  # (L, B*K, S, D)
        return [part.unbind() for part in (keys.transpose(2, 3), values, self._cache.narrow(4, end - T, T))]

    def _attend_one(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attention of one query a row; those that share a key head are rows of one product."""
        scores = torch.bmm(q.flatten(0, 2), keys)  # (B*K, G, S)
        if self._hidden is not None:
            scores += self._hidden[..., : keys.shape[2]]
        return torch.bmm(scores.softmax(-1), values)

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask) -> torch.Tensor:
        """Attention of many queries a row."""
        B, T, K, G, D = q.shape
        keys, values = keys.transpose(1, 2).view(B, K, -1, D), values.view(B, K, -1, D)
        options = {"attn_mask": mask, "is_causal": mask is None, "scale": 1.0, "enable_gqa": G > 1}
        mixed = F.scaled_dot_product_attention(q.flatten(2, 3).transpose(1, 2), keys, values, **options)  # (B, H, T, D)
        return mixed.transpose(1, 2).flatten(2)

    def _embed(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the first layer is given, (B*T, C), and how far the heads turn, (1 or B, T, 1, 1, D/2)."""
        (B, T), start = ids.shape, self._length
        x = self._tokens.index_select(0, ids.view(-1))
        places = slice(start, start + T)
        if self._pads is not None:
            places = (torch.arange(start, start + T, device=ids.device) - self._pads[:, None]).clamp_min(0)  # (B, T)
        if self._positions is not None:
            x.view(B, T, -1).add_(self._positions.weight[places])
        return x, None if self._turns is None else self._turns[places].view(-1, T, 1, 1, self._turns.shape[1])

    def _mask(self, T: int, end: int) -> torch.Tensor | None:
        """What each of T queries may look at, (B, 1, T, S); None: all before it, and there is nothing before the first."""
        if end == T and self._pads is None:
            return None
        places = torch.arange(end, device=self._tokens.device)
        queries = places[end - T :, None]
        mask = places <= queries  # (T, S)
        if self._pads is not None:  # padding looks at itself, for a softmax over nothing is no number
            mask = mask & ((places >= self._pads[:, None, None]) | (places == queries))
        return mask.view(-1, 1, T, end)

    def _reserve(self, rows: int, length: int) -> None:
        """Make room for so many positions."""
        L, held, K, _, capacity, D = self._cache.shape
        if held != rows or length > capacity:
            capacity = -(-length // STEP) * STEP
            grown = self._cache.new_empty(L, rows, K, 2, capacity, D)
            if self._length:
                grown[..., : self._length, :] = self._cache[..., : self._length, :]
            self._cache = grown
            if self._angles is not None:
                places = torch.arange(capacity, device=grown.device)[None]
                cos, sin = (angles[0, :, D // 2 :] for angles in self._angles(self._cache.new_empty(0).float(), places))
                self._turns = torch.complex(cos, sin)  # (S, D/2)
            self._hide()

    def _hide(self) -> None:
        """Prepare what padding adds to the scores of one query a row, (B*K, G, S)."""
        if self._pads is not None:
            H, K = self._config.num_attention_heads, self._config.num_key_value_heads
            padding = torch.arange(self._cache.shape[4], device=self._pads.device) < self._pads[:, None]
            hidden = torch.zeros_like(padding, dtype=self._tokens.dtype).masked_fill_(padding, float("-inf"))
            self._hidden = hidden.repeat_interleave(K, 0)[:, None].expand(-1, H // K, -1)


class PlainEngine:
    """Any causal language model, one row, through its own forward and cache.

    After other ids the cache is cut back to what they have in common, where every layer keeps all it has seen; a
    sliding window or a recurrent state cannot go back, and those models read everything again.
    """

    most_rows = 1

    def __init__(self, model):
        import inspect

        self._model = model
        self._device = model.get_input_embeddings().weight.device
        known = inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}  # a prompt needs only its last
        self._cache, self._read = None, []  # the ids that the cache holds

    def begin(self, prompts: list[list[int]]) -> torch.Tensor:
        """Read one prompt: the logits (1, V) of what follows."""
        (ids,) = prompts
        return self._forward(ids)

    def advance(self, tokens: list[int]) -> torch.Tensor:
        """Read one more token."""
        return self._forward(self._ids + tokens)

    @torch.no_grad()
    def _forward(self, ids: list[int]) -> torch.Tensor:
        from transformers import DynamicCache

        self._ids = ids
        same = _common_start(self._read, ids[:-1])  # the last one is fed in any case: its logits are wanted
        if same < len(self._read) and not self._crop(len(self._read) - same):
            same = 0
        self._read = []  # until the model has finished: it may be interrupted halfway
        if same == 0:
            self._cache = DynamicCache(config=self._model.config)
        new = torch.tensor([ids[same:]], device=self._device)  # (1, T)
        output = self._model(new, past_key_values=self._cache, use_cache=True, **self._options)
        if getattr(output, "past_key_values", None) is not None:  # else it keeps no cache of this kind
            self._read = ids
        return output.logits[:, -1]

    def _crop(self, count: int) -> bool:
        """Take the last `count` tokens out of the cache, where that can be done."""
        from transformers.cache_utils import DynamicLayer

        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            return False
        self._cache.crop(-count)
        return True


def _common_start(one: list[int], other: list[int]) -> int:
    """How many ids two lists begin with in common."""
    if one == other[: len(one)]:  # the usual case: one token more than before
        return len(one)
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
