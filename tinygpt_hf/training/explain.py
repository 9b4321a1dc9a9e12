"""`train --explain`: print the first batch and a table of modules, and log how much each update changes each module.

for line in first_batch_lines(run):                # before the first step
    print(line)
with measured_update(run) as modules:              # around an optimizer step
    run.optimizer.step()
modules["layers.0.mlp"]                            # {"grad_norm": 0.4, "update_ratio": 0.003}
"""

import contextlib
import re
from collections.abc import Iterator

import torch

from tinygpt_hf.errors import printable
from tinygpt_hf.evaluation.metrics import IGNORED, token_scores
from tinygpt_hf.inference.terminal import explained
from tinygpt_hf.inference.text_stream import TextDecoder
from tinygpt_hf.training.checkpoint import gathered

SHOWN_TOKENS = 60
FORWARD_AND_BACKWARD = 3  # in units of the forward pass: backward costs about twice as much


def first_batch_lines(run) -> Iterator[str]:
    """Yield lines about the next step: its size, the tokens and labels of its first row with their loss, the modules."""
    batches, targets = run.steps.at(run.state.step, run.state.micro_batch)
    rows, T = sum(len(batch[0]) for batch in batches), run.data.block_size
    yield f"a step: {rows} rows of {T} tokens in {len(batches)} micro-batch(es) on this process, {targets} targets in all"
    ids, labels, *positions = (part[:1] for part in batches[0])
    run.raw.eval()
    nats, *_ = token_scores(run.raw, ids, labels, *positions)
    run.raw.train()
    decoder, bits = TextDecoder(run.tokenizer), (nats[0].double() / torch.log(torch.tensor(2.0))).tolist()
    counted = labels[0] != IGNORED
    yield f"its first row: {int(counted.sum())} targets, loss {float(nats.sum() / counted.sum().clamp_min(1)):.4f} nats per token"
    pairs = list(zip(labels[0].tolist(), bits, strict=True))[:SHOWN_TOKENS]
    targets_shown = (
        explained(_one_line(decoder.display(id)), cost, color=False) for id, cost in pairs if id != IGNORED
    )
    yield f"  reads    {''.join(_one_line(decoder.display(id)) for id in ids[0].tolist()[:SHOWN_TOKENS])}"
    yield f"  learns   {''.join(targets_shown)}"
    yield "  (shifted by one: each token is predicted from those before it; the subscript is its surprisal in bits)"
    yield from module_table(run.raw, rows * T, T)


def _one_line(text: str) -> str:
    return printable(text.replace("\n", "↵"))


def module_table(model, tokens: int, block_size: int) -> Iterator[str]:
    """Yield a table of modules by kind: how many there are, parameters, and GFLOP of a step of `tokens` tokens."""
    config = model.config
    # FLOP per token for scores and weighted values, over half of all token pairs
    attention = 2 * block_size * config.num_attention_heads * config.head_dim
    kinds: dict[str, list[float]] = {}
    for name, members in parameters_by_module(model).items():
        kind = re.sub(r"layers\.\d+", "a layer's", name).replace(".", " ")
        row = kinds.setdefault(kind, [0, 0, 0])
        flop = 0 if name.startswith("embed") else sum(2 * p.numel() for p in members if p.ndim == 2)
        flop += attention if name.endswith("self_attn") else 0
        row[0] += 1
        row[1] += sum(p.numel() for p in members)
        row[2] += FORWARD_AND_BACKWARD * tokens * flop
    kinds["all"] = [1, *(sum(row[k] for row in kinds.values()) for k in (1, 2))]
    yield f"  {'module':<34}{'times':>6}{'parameters':>14}{'GFLOP a step':>14}"
    for kind, (times, parameters, flop) in kinds.items():
        yield f"  {kind:<34}{times:>6}{parameters:>14,}{flop / 1e9:>14.2f}"


def parameters_by_module(model) -> dict[str, list[torch.nn.Parameter]]:
    """Group the parameters by module: embeddings, head, and attention, MLP and norms of each layer."""
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        words = name.removeprefix("model.").split(".")
        found.setdefault(".".join(words[:3] if words[0] == "layers" else words[:1]), []).append(parameter)
    return found


@contextlib.contextmanager
def measured_update(run) -> Iterator[dict]:
    """Measure an optimizer step by module: the gradient norm before clipping, and the norm of the change over that of the weights.

    The dict is filled when the block ends. It stays empty unless --explain is given and this step is logged.
    """
    modules: dict[str, dict[str, float]] = {}
    step = run.state.step + 1
    if not run.training.explain or (step % run.training.logging_steps and step < run.plan.max_steps):
        yield modules
        return
    # clipping has divided the gradient by this, if it is above 1
    clipping = float(run.norm) / run.training.max_grad_norm if run.training.max_grad_norm else 1.0
    parts = parameters_by_module(run.raw)
    before = {name: [gathered(p).clone() for p in own] for name, own in parts.items()}
    gradients = {
        name: _norm([p.grad for p in own if p.grad is not None]) * max(clipping, 1.0) for name, own in parts.items()
    }
    yield modules
    for name, own in parts.items():
        change = _norm([gathered(p) - old for p, old in zip(own, before[name], strict=True)])
        ratio = change / max(_norm(before[name]), 1e-30)
        modules[name] = {"grad_norm": float(f"{gradients[name]:.4g}"), "update_ratio": float(f"{ratio:.4g}")}


def _norm(tensors: list[torch.Tensor]) -> float:
    return float(sum(gathered(tensor).double().square().sum() for tensor in tensors)) ** 0.5
