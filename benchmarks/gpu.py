"""Measure training on one GPU: tokens per second, share of the card's dense bf16 peak, memory; with and without compilation.

    python benchmarks/gpu.py [--peer nanoGPT] [--seconds 8] [--fast]      # --fast: tiny shapes, on a CPU too

30M and 124M parameters at context 1024 in bf16: ours with AdamW and with Muon, with its layers compiled and without, beside the
library's GPT-2 and, with `--peer`, a checkout of nanoGPT, each compiled as a whole and not. A step is forward, backward, clipping
and update; the host waits for the card before and after all timed steps only. Operations are counted alike for all of a size: 6
for each weight of a product and token, and the attention's 12 x layers x width x context; not what Muon computes beside them.
Every contestant is a process of its own and a line of --results; those that are there are not done again.
"""

import argparse
import functools
import json
import sys
import time
from pathlib import Path

from measuring import Results, arguments_of, origin, whole_command

SHAPES = {  # layers, heads, width, vocabulary, context, rows
    "30M": (8, 8, 512, 8192, 1024, 32),
    "124M": (12, 12, 768, 50304, 1024, 16),
}
FAST = {"tiny": (2, 2, 32, 300, 32, 4)}
SIDES = ("ours, AdamW", "ours, Muon", "GPT-2", "nanoGPT")
PEAKS = {
    "H100": "h100",
    "H200": "h200",
    "A100": "a100",
    "4090": "rtx4090",
}  # in the name of a card: of planning/hardware.json
WARMUP, FEWEST = 5, 10  # steps


def own_config(shape):
    from tinygpt_hf import TinyGPTConfig

    L, H, C, V, T, _ = shape
    return TinyGPTConfig(
        hidden_size=C, num_hidden_layers=L, num_attention_heads=H, vocab_size=V, max_position_embeddings=T,
        tie_word_embeddings=True,
    )  # fmt: skip


def training_of(side: str, rows: int):
    from tinygpt_hf import ModelArguments, TrainingArguments
    from tinygpt_hf.settings.defaults import filled

    optim = "muon" if "Muon" in side else "adamw"
    values = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 1, "optim": optim}
    return filled(ModelArguments(), TrainingArguments(**values))[1]


def contestant(side: str, shape, compiled: bool, peer: str | None, device: str):
    """Return (model, optimizer, loss function of ids and labels)."""
    import torch

    L, H, C, V, T, B = shape
    if side.startswith("ours"):
        from tinygpt_hf import TinyGPTForCausalLM
        from tinygpt_hf.training import compilation, optimizer, precision

        net = TinyGPTForCausalLM(own_config(shape)).to(device).train()
        net.set_attn_implementation(precision.attention_for(device, "bf16"))
        if compiled:
            compilation.cache_folder()
            compilation.set_forward(net.model.layers, compilation.compiled_layer(net.model.layers[0]))

        def own_loss(ids, labels):
            words = {"num_items_in_batch": B * T, "skip_logits": True, "use_cache": False}
            return net(input_ids=ids, shift_labels=labels, **words).loss

        return net, optimizer.make_optimizer(net, training_of(side, B), "bf16"), own_loss
    if side == "GPT-2":
        from transformers import GPT2Config, GPT2LMHeadModel

        none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) | {"bos_token_id": 0, "eos_token_id": 0}
        config = GPT2Config(n_layer=L, n_head=H, n_embd=C, n_positions=T, vocab_size=V, use_cache=False, **none)
        net = GPT2LMHeadModel(config).to(device).train()
        run = torch.compile(net) if compiled else net

        def loss(ids, labels):
            return torch.nn.functional.cross_entropy(run(ids).logits.flatten(0, 1), labels.flatten())

    else:
        sys.path.insert(0, peer)
        from model import GPT, GPTConfig

        config = GPTConfig(block_size=T, vocab_size=V, n_layer=L, n_head=H, n_embd=C, dropout=0.0, bias=False)
        net = GPT(config).to(device).train()
        run = torch.compile(net) if compiled else net

        def loss(ids, labels):
            return run(ids, labels)[1]

    return net, torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True), loss


def measured(side: str, shape, compiled: bool, peer: str | None, seconds: float) -> dict:
    """Train on random ids for about `seconds` seconds."""
    import torch

    from tinygpt_hf.planning.machine import hardware, operations

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    L, H, C, V, T, B = shape
    if shape in FAST.values():  # traced, without minutes of a C++ compiler
        torch.compile = functools.partial(torch.compile, backend="eager")
    net, optimizer, loss_of = contestant(side, shape, compiled, peer, device)
    ids, labels = torch.randint(V, (2, B, T), device=device).unbind()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    begun = clock()
    step()
    first, begun = clock() - begun, clock()
    for _ in range(WARMUP):
        step()
    count = max(FEWEST, int(seconds / ((clock() - begun) / WARMUP)))
    begun = clock()
    for _ in range(count):
        step()
    each = (clock() - begun) / count
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    kind = next((PEAKS[name] for name in PEAKS if name in card), None)
    rate = operations(own_config(shape), training_of("AdamW", B), T) / each
    return {
        "card": card,
        "tokens_per_second": round(B * T / each),
        "step_milliseconds": round(1000 * each, 2),
        "flops": rate,
        "utilization": round(rate / hardware()[kind]["flops"], 4) if kind else None,
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == "cuda" else None,
        "first_step_seconds": round(first, 1),
        "steps": count,
    }


def table(lines: list[dict]) -> None:
    print("| size | model | compiled | tokens/s | of GPT-2's, compiled | utilization | memory, GiB | first step, s |")
    print("|---|---|---|---|---|---|---|---|")
    for line in lines:
        base = [
            each for each in lines if (each["size"], each["side"], each["compiled"]) == (line["size"], "GPT-2", True)
        ]
        ratio = f"{line['tokens_per_second'] / base[0]['tokens_per_second']:.2f}" if base else "-"
        share = f"{100 * line['utilization']:.1f} %" if line["utilization"] else "-"
        print(
            f"| {line['size']} | {line['side']} | {'yes' if line['compiled'] else 'no'} | {line['tokens_per_second']} | {ratio} | "
            f"{share} | {line['memory_gib'] or '-'} | {line['first_step_seconds']} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--seconds", type=float, default=8, help="that each is timed for")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = arguments_of(parser, "gpu.jsonl", pinned=False)
    shapes = FAST if arguments.fast else SHAPES
    seconds = 0.1 if arguments.fast else arguments.seconds
    if arguments.one:
        size, side, compiled = arguments.one
        return print(json.dumps(measured(side, shapes[size], compiled == "yes", str(arguments.peer), seconds)))
    results = Results(arguments.results)
    words = ["--fast"] * arguments.fast + (["--peer", str(arguments.peer)] if arguments.peer else [])
    for size in shapes:
        for side in SIDES if arguments.peer else SIDES[:-1]:
            for compiled in (True, False):
                key = {"size": size, "side": side, "compiled": compiled}
                if results.has(**key):
                    continue
                one = ["--seconds", str(seconds), "--one", size, side, "yes" if compiled else "no"]
                _, said = whole_command([__file__, *words, *one])
                results.add({**key, **json.loads(said.splitlines()[-1]), **origin()})
    table(results.lines)


if __name__ == "__main__":
    main()
