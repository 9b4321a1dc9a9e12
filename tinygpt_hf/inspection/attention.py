"""Extract the attention weights of a model and summarize what each head attends to.

maps = attention_maps(model, ids)                # (L, H, T, T): query by key, each row sums to 1
summary = summarize_heads(maps)                  # summary[layer][head]["previous"]: mean weight on the previous token
"""

import base64

import torch

from tinygpt_hf.errors import UsageError

MAX_WEIGHTS = 4_000_000  # each takes a byte of the page, in base64


def check_size(model, count: int) -> None:
    """Raise a `UsageError` if the attention maps of `count` tokens would make the page too large."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_hidden_layers", 1) * getattr(config, "num_attention_heads", 1)
    longest = int((2 * MAX_WEIGHTS / heads) ** 0.5)
    if count > longest:
        raise UsageError(
            f"the text has {count} tokens, and the model {heads} heads",
            f"at most {longest} tokens with --attention, to keep the page small",
            "shorten it, or leave --attention out",
        )


@torch.no_grad()
def attention_maps(model, ids: list[int]) -> torch.Tensor:
    """Return the attention weights (L, H, T, T) of all heads in float32, computed with eager attention.

    Raises a `UsageError` if the model does not return them.
    """
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


def summarize_heads(maps: torch.Tensor) -> list[list[dict[str, float]]]:
    """Summarize each head, by layer: mean weights on "itself", the "previous" and the "first" token, mean distance "back".

    The first token is left out, since it attends only to itself.
    """
    length = maps.shape[-1]
    positions = torch.arange(length, dtype=maps.dtype)
    distance = (positions[:, None] - positions).clamp_min(0)
    measures = {
        "itself": maps.diagonal(dim1=-2, dim2=-1)[..., 1:].mean(-1),
        "previous": maps.diagonal(-1, dim1=-2, dim2=-1).mean(-1),
        "first": maps[..., 1:, 0].mean(-1),
        "back": (maps * distance).sum(-1)[..., 1:].mean(-1),
    }  # each (L, H)
    layers, heads = maps.shape[:2]
    return [[{name: float(m[k, h]) for name, m in measures.items()} for h in range(heads)] for k in range(layers)]


def pack_maps(maps: torch.Tensor) -> str:
    """Encode the maps for a page: each head's lower triangle row by row, a byte per weight, in base64."""
    rows, columns = torch.tril_indices(*maps.shape[-2:])
    weights = (maps[..., rows, columns] * 255).round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(weights.numpy().tobytes()).decode()
