"""Show the work of training (`train --explain`): a batch as it is learned from, what each module costs, how fast each one moves.

begin(run)                                         # before the first step
with watched(run) as modules:                      # around an update of the weights
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
from tinygpt_hf.training.checkpoint import whole

SHOWN = 60  # tokens of the row that is shown
TIMES = 3  # forward, and twice as much backward


def begin(run) -> None:
    """Say what there is to see before the first step, where --explain is given."""
    for line in beginning(run) if run.training.explain else ():
        run.console.say(line)


def beginning(run) -> Iterator[str]:
    """Yield the lines of `begin`."""
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
    pairs = list(zip(labels[0].tolist(), bits, strict=True))[:SHOWN]
    learned = (explained(_one_line(decoder.display(id)), cost, color=False) for id, cost in pairs if id != IGNORED)
    yield f"  reads    {''.join(_one_line(decoder.display(id)) for id in ids[0].tolist()[:SHOWN])}"
    yield f"  learns   {''.join(learned)}"
    yield "  (shifted by one: each token is to be predicted from those before it; the number below is its surprisal in bits now)"
    yield from module_table(run.raw, rows * T, T)


def _one_line(text: str) -> str:
    return printable(text.replace("\n", "↵"))


def module_table(model, tokens: int, block_size: int) -> Iterator[str]:
    """Yield a line for each sort of module: how many there are, their parameters, the operations of a step of so many tokens."""
    config = model.config
    attention = (
        2 * block_size * config.num_attention_heads * config.head_dim
    )  # per token: half of all pairs, scores and mix
    sorts: dict[str, list[float]] = {}
    for name, numbers in modules_of(model).items():
        sort = re.sub(r"layers\.\d+", "a layer's", name).replace(".", " ")
        entry = sorts.setdefault(sort, [0, 0, 0])
        work = 0 if name.startswith("embed") else sum(2 * p.numel() for p in numbers if p.ndim == 2)
        work += attention if name.endswith("self_attn") else 0
        entry[:] = entry[0] + 1, entry[1] + sum(p.numel() for p in numbers), entry[2] + TIMES * tokens * work
    sorts["all"] = [1, *(sum(entry[k] for entry in sorts.values()) for k in (1, 2))]
    yield f"  {'module':<34}{'times':>6}{'parameters':>14}{'GFLOP a step':>14}"
    for sort, (times, parameters, work) in sorts.items():
        yield f"  {sort:<34}{times:>6}{parameters:>14,}{work / 1e9:>14.2f}"


def modules_of(model) -> dict[str, list[torch.nn.Parameter]]:
    """Gather the parameters by module: embeddings, head, and of each layer its attention, MLP and norms."""
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        words = name.removeprefix("model.").split(".")
        found.setdefault(".".join(words[:3] if words[0] == "layers" else words[:1]), []).append(parameter)
    return found


@contextlib.contextmanager
def watched(run) -> Iterator[dict]:
    """Measure an update: by module the norm of its gradient before clipping, and the change of the weights beside their norm.

    The dict is filled when the block ends; it stays empty unless --explain is given and this step has a line in the log.
    """
    modules: dict[str, dict[str, float]] = {}
    step = run.state.step + 1
    if not run.training.explain or (step % run.training.logging_steps and step < run.plan.max_steps):
        yield modules
        return
    clipped = float(run.norm) / run.training.max_grad_norm if run.training.max_grad_norm else 1.0
    parts = modules_of(run.raw)
    before = {name: [whole(p).clone() for p in own] for name, own in parts.items()}
    gradients = {
        name: _norm([p.grad for p in own if p.grad is not None]) * max(clipped, 1.0) for name, own in parts.items()
    }
    yield modules
    for name, own in parts.items():
        moved = _norm([whole(p) - old for p, old in zip(own, before[name], strict=True)])
        ratio = moved / max(_norm(before[name]), 1e-30)
        modules[name] = {"grad_norm": float(f"{gradients[name]:.4g}"), "update_ratio": float(f"{ratio:.4g}")}


def _norm(tensors: list[torch.Tensor]) -> float:
    return float(sum(whole(tensor).double().square().sum() for tensor in tensors)) ** 0.5
