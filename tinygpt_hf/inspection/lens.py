"""Compute the logit lens: apply the final norm and the head to the hidden states between layers (nostalgebraist, 2020).

    lens = logit_lens(model, ids)
    lens[3].bits, lens[3].ids                        # after the third layer; lens[0]: before the first
    right_from(lens)                                 # the layer from which on each token is the first choice

Hooks find the layers, the final norm and the head of any Transformers model that applies only these three in order. If
the lens of the last layer differs from the model's logits, a `UsageError` is raised.
"""

import torch
from torch import nn

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inspection.surprisal import Scores, score_targets

SHOWN = 3  # likeliest tokens of a layer


@torch.no_grad()
def logit_lens(model, ids: list[int]) -> list[Scores]:
    """Score every token but the first with the hidden states before the first layer and after each layer (L+1 scores)."""
    states, norm, logits = layer_states(model, ids)
    head = model.get_output_embeddings()
    if head is None or not _agree(head(norm(states[-1])), logits):
        raise _not_found(model, "what is between the last layer and the logits")
    targets = torch.tensor(ids[1:])
    return [score_targets(lambda rows, x=state: head(norm(x[rows])), len(targets), targets, SHOWN) for state in states]


def right_from(lens: list[Scores]) -> list[int | None]:
    """Return, for each token, the layer from which on it has rank 1 up to the last layer, or None."""
    is_right = torch.stack([layer.ranks == 1 for layer in lens])  # (L+1, T-1)
    counts = is_right.flip(0).int().cumprod(0).sum(0)  # number of consecutive right layers at the end
    return [len(lens) - count if count else None for count in counts.tolist()]


@torch.no_grad()
def layer_states(model, ids: list[int]) -> tuple[list[torch.Tensor], nn.Module, torch.Tensor]:
    """Run the model; return the hidden states (T, C) before the first and after each layer, the final norm, and logits (T, V)."""
    layers = _layers(model)
    inner = {part for layer in layers for part in layer.modules()}
    states: list[torch.Tensor] = []
    norms: list[nn.Module] = []

    def save_input(layer, args, kwargs):
        states.append(args[0] if args else kwargs["hidden_states"])

    def save_output(layer, args, output):
        states.append(output[0] if isinstance(output, tuple) else output)

    def find_norm(module, args):
        if len(states) == len(layers) + 1 and args and args[0] is states[-1]:
            norms.append(module)

    handles = [layers[0].register_forward_pre_hook(save_input, with_kwargs=True)]
    handles += [layer.register_forward_hook(save_output) for layer in layers]
    outside = [part for part in model.modules() if part not in inner and part is not model.get_output_embeddings()]
    handles += [part.register_forward_pre_hook(find_norm) for part in outside]
    try:
        device = model.get_input_embeddings().weight.device
        logits = model(torch.tensor([ids], device=device), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    if len(states) != len(layers) + 1:
        raise _not_found(model, "its layers")
    return [state[0] for state in states], norms[0] if norms else nn.Identity(), logits


def _layers(model) -> nn.ModuleList:
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not lists:
        raise _not_found(model, "its layers")
    return lists[0]


def _agree(lens: torch.Tensor, model: torch.Tensor) -> bool:
    return lens.shape == model.shape and torch.allclose(lens, model, rtol=1e-3, atol=1e-3 * float(model.abs().max()))


def _not_found(model, what: str) -> UsageError:
    kind = model.config.model_type
    expected = "layers, a norm and a head, one after the other, as in Llama or GPT-2"
    return UsageError(f"the lens does not know {what} in a {kind}", expected, "leave --lens out")
