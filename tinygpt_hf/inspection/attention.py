"""Look at where each head of each layer looks: the attention weights as the model computes them.

maps = attention_maps(model, ids)                # (L, H, T, T): query by key, each row sums to 1
habits = head_habits(maps)                       # habits[layer][head]["previous"]: its weight on the token before, on average
"""

import base64

import torch

from tinygpt_hf.errors import UsageError

MOST_WEIGHTS = 4_000_000  # a page holds a byte for each, in base64


def check_size(model, count: int) -> None:
    """Refuse a text whose maps would be too many numbers to look at."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_hidden_layers", 1) * getattr(config, "num_attention_heads", 1)
    longest = int((2 * MOST_WEIGHTS / heads) ** 0.5)
    if count > longest:
        raise UsageError(
            f"the text has {count} tokens, which {heads} heads look at",
            f"at most {longest} tokens with --attention, so that a page stays small",
            "shorten it, or leave --attention out",
        )


@torch.no_grad()
def attention_maps(model, ids: list[int]) -> torch.Tensor:
    """Return the weights of all heads, (L, H, T, T) in float32: those of plain ("eager") attention, which can be looked at."""
    before, device = model.config._attn_implementation, model.get_input_embeddings().weight.device
    try:
        model.set_attn_implementation("eager")
        found = model(torch.tensor([ids], device=device), use_cache=False, output_attentions=True).attentions
    except (ValueError, NotImplementedError):  # no such implementation
        found = None
    finally:
        model.set_attn_implementation(before)
    if not found or any(one is None for one in found) or len({one.shape for one in found}) != 1:
        kind = model.config.model_type
        raise UsageError(f"a {kind} shows no attention", "a model whose layers all attend", "leave --attention out")
    return torch.stack([one[0].float().cpu() for one in found])


def head_habits(maps: torch.Tensor) -> list[list[dict[str, float]]]:
    """Measure, for each layer and head, its mean weight on the token itself, on the one before, on the first, and how far back it
    looks on average. The first token is left out: it sees only itself."""
    length = maps.shape[-1]
    places = torch.arange(length, dtype=maps.dtype)
    distance = (places[:, None] - places).clamp_min(0)
    measures = {
        "itself": maps.diagonal(dim1=-2, dim2=-1)[..., 1:].mean(-1),
        "previous": maps.diagonal(-1, dim1=-2, dim2=-1).mean(-1),
        "first": maps[..., 1:, 0].mean(-1),
        "back": (maps * distance).sum(-1)[..., 1:].mean(-1),
    }  # each (L, H)
    layers, heads = maps.shape[:2]
    return [[{name: float(m[k, h]) for name, m in measures.items()} for h in range(heads)] for k in range(layers)]


def packed(maps: torch.Tensor) -> str:
    """Write the maps for a page: of each head the rows up to the diagonal, a byte for each weight, in base64."""
    rows, columns = torch.tril_indices(*maps.shape[-2:])
    weights = (maps[..., rows, columns] * 255).round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(weights.numpy().tobytes()).decode()
