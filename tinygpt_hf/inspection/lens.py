"""Ask every layer what it would say: the logit lens. What stands between two layers goes through the last norm and the head.

    lens = logit_lens(model, ids)
    lens[3].bits, lens[3].ids                        # after the third layer; lens[0]: before the first
    right_from(lens)                                 # from which layer on each token is, and stays, the first choice

The layers, the norm behind them and the head are found by what a forward pass does, so any model of Transformers will do in which
these three are all there is: the last layer's answer is held against the model's own, and where they differ the lens is refused.
"""

import torch
from torch import nn

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inspection.surprisal import Scores, scored

SHOWN = 3  # likeliest tokens of a layer


@torch.no_grad()
def logit_lens(model, ids: list[int]) -> list[Scores]:
    """Score every token but the first by what stands before the first layer, and behind each."""
    states, norm, logits = layer_states(model, ids)
    head = model.get_output_embeddings()
    if head is None or not _agree(head(norm(states[-1])), logits):
        raise _not_found(model, "what lies between its last layer and its answer")
    targets = torch.tensor(ids[1:])
    return [scored(lambda rows, x=state: head(norm(x[rows])), len(targets), targets, SHOWN) for state in states]


def right_from(lens: list[Scores]) -> list[int | None]:
    """Find the first layer from which on each token is the first choice to the end; None where it is not in the end."""
    is_right = torch.stack([layer.ranks == 1 for layer in lens])  # (L+1, T-1)
    stays = is_right.flip(0).int().cumprod(0).sum(0)  # how many layers at the end are right without a break
    return [len(lens) - count if count else None for count in stays.tolist()]


@torch.no_grad()
def layer_states(model, ids: list[int]) -> tuple[list[torch.Tensor], nn.Module, torch.Tensor]:
    """Run the model; return what stands before the first layer and behind each, (T, C), the norm behind the last, and the
    logits (T, V)."""
    layers = _layers(model)
    inner = {part for layer in layers for part in layer.modules()}
    states: list[torch.Tensor] = []
    norms: list[nn.Module] = []

    def enters(layer, words, named):
        states.append(words[0] if words else named["hidden_states"])

    def leaves(layer, words, output):
        states.append(output[0] if isinstance(output, tuple) else output)

    def follows(part, words):
        if len(states) == len(layers) + 1 and words and words[0] is states[-1]:
            norms.append(part)

    handles = [layers[0].register_forward_pre_hook(enters, with_kwargs=True)]
    handles += [layer.register_forward_hook(leaves) for layer in layers]
    outside = [part for part in model.modules() if part not in inner and part is not model.get_output_embeddings()]
    handles += [part.register_forward_pre_hook(follows) for part in outside]
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


def _agree(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def _not_found(model, what: str) -> UsageError:
    kind = model.config.model_type
    expected = "layers, a norm and a head, one after the other, as in Llama or GPT-2"
    return UsageError(f"the lens does not know {what} in a {kind}", expected, "leave --lens out")
