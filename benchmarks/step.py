"""Measure a training step part by part: ours with AdamW and with Muon beside stock GPT-2 and Qwen3 with AdamW.

    python benchmarks/step.py --core 1                        # three shapes, in float32; --bf16 where the processor has it
    python benchmarks/step.py --memory 50257                  # peak memory of one step with that vocabulary

All take turns on the same ids in one process, so that a busy machine disturbs all alike; the processor's time counts. Printed
are medians in milliseconds, and the ratio of a step to stock GPT-2's. `evaluation`: forward, losses and hits of the same batch.
Every shape is a line of --results; those that are there are not done again.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch
from measuring import Results, arguments_of, origin
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from tinygpt_hf import ModelArguments, TinyGPTConfig, TinyGPTForCausalLM, TrainingArguments
from tinygpt_hf.evaluation.metrics import batch_sums
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training.optimizer import make_optimizer
from tinygpt_hf.training.precision import attention_for

SHAPES = {  # layers, heads, width, context, rows, vocabulary
    "nanoGPT's CPU shape": (4, 4, 128, 64, 12, 325),
    "4 layers of 256, BPE": (4, 4, 256, 256, 8, 8192),
    "6 layers of 384, characters": (6, 6, 384, 256, 16, 65),
}
COLUMNS = ("forward", "backward", "clipping", "optimizer", "evaluation")


def own(shape, optim: str, bf16: bool):
    """Return our (model, optimizer, loss function of ids and labels)."""
    L, H, C, T, _, V = shape
    precision = "bf16" if bf16 else "no"
    model = TinyGPTForCausalLM(
        TinyGPTConfig(
            hidden_size=C, num_hidden_layers=L, num_attention_heads=H, vocab_size=V, max_position_embeddings=T
        )
    ).train()
    model.set_attn_implementation(attention_for("cpu", precision))
    _, training = filled(ModelArguments(), TrainingArguments(optim=optim))
    return model, make_optimizer(model, training, precision), own_loss


def contestants(shape, bf16: bool) -> dict:
    """Return the same for every contestant, by name."""
    L, H, C, T, _, V = shape
    made = {f"ours, {optim}": own(shape, optim, bf16) for optim in ("adamw", "muon")}
    gpt2 = GPT2Config(n_embd=C, n_layer=L, n_head=H, vocab_size=V, n_positions=T, bos_token_id=0, eos_token_id=0)
    gpt2.resid_pdrop = gpt2.embd_pdrop = gpt2.attn_pdrop = 0.0
    qwen3 = Qwen3Config(
        hidden_size=C, num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=H, head_dim=C // H, vocab_size=V,
        intermediate_size=made["ours, adamw"][0].config.intermediate_size, tie_word_embeddings=True,
    )  # fmt: skip
    for name, model in {"GPT-2": GPT2LMHeadModel(gpt2), "Qwen3": Qwen3ForCausalLM(qwen3)}.items():
        made[name] = model.train(), torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), stock_loss
    return made


def own_loss(model, ids, labels):
    return model(
        input_ids=ids, shift_labels=labels, num_items_in_batch=ids.numel(), skip_logits=True, use_cache=False
    ).loss


def stock_loss(model, ids, labels):
    return model(input_ids=ids, labels=ids, shift_labels=labels, use_cache=False).loss


def step(model, optimizer, loss_of, ids, labels, bf16: bool) -> list[float]:
    """Return the processor milliseconds of each of COLUMNS."""
    clock = [time.process_time()]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = loss_of(model, ids, labels)
    clock.append(time.process_time())
    loss.backward()
    clock.append(time.process_time())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    clock.append(time.process_time())
    optimizer.step()
    optimizer.zero_grad()
    clock.append(time.process_time())
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        batch_sums(model, ids, labels)
    model.train()
    clock.append(time.process_time())
    return [1000 * (after - before) for before, after in zip(clock, clock[1:], strict=False)]


def measured(shape, args) -> dict:
    """Return the medians of COLUMNS by contestant."""
    *_, T, B, V = shape
    ids, labels = torch.randint(V, (2, B, T)).unbind()
    models, times = contestants(shape, args.bf16), {}
    for turn in range(args.rounds + 1):
        for model, made in models.items():
            parts = step(*made, ids, labels, args.bf16)
            if turn:  # the first makes the optimizer's memory
                times.setdefault(model, []).append(parts)
    return {
        model: [round(statistics.median(part), 2) for part in zip(*rows, strict=True)] for model, rows in times.items()
    }


def table(lines: list[dict]) -> None:
    """Print a row per shape and contestant."""
    print(f"| shape | model | {' | '.join(COLUMNS)} | step | of GPT-2's |\n|{'---|' * (len(COLUMNS) + 4)}")
    for line in lines:
        whole = {model: sum(parts[:4]) for model, parts in line["milliseconds"].items()}
        for model, parts in line["milliseconds"].items():
            columns = " | ".join(f"{part:.1f}" for part in [*parts, whole[model]])
            print(f"| {line['shape']} | {model} | {columns} | {whole[model] / whole['GPT-2']:.2f} |")


def peak(vocabulary: int, which: str, bf16: bool) -> None:
    """Print what one forward and backward adds to the memory of this process."""
    shape = (2, 4, 256, 512, 8, vocabulary)
    model, _, loss_of = contestants(shape, bf16)[which]
    ids = torch.randint(vocabulary, (8, 512))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = loss_of(model, ids, ids)
    loss.backward()
    print(f"| {which} | {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--memory", type=int, metavar="VOCABULARY", help="peak memory instead of time")
    parser.add_argument("--which", help=argparse.SUPPRESS)
    args = arguments_of(parser, "step.jsonl")
    torch.set_num_threads(1)
    if args.which:
        return peak(args.memory, args.which, args.bf16)
    if not args.memory:
        results, args.rounds = Results(args.results), 1 if args.fast else args.rounds
        for name, shape in list(SHAPES.items())[: 1 if args.fast else None]:
            key = {"shape": name, "bf16": args.bf16}
            if not results.has(**key):
                results.add({**key, "milliseconds": measured(shape, args), **origin()})
        return table(results.lines)
    print("| model | MiB above what it had |\n|---|---|", flush=True)
    for which in ("ours, adamw", "GPT-2", "Qwen3"):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--which", which], check=True)


if __name__ == "__main__":
    main()
