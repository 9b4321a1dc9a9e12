"""Train a peer on a text for a given processor time of the whole program, imports included; the last line is JSON.

    python benchmarks/peer.py --text train.txt --held_out tail.txt --seconds 300 --checkout nanoGPT
    python benchmarks/peer.py --text train.txt --held_out tail.txt --seconds 300         # stock GPT-2

nanoGPT: its published CPU shape (4 layers, 4 heads, 128 wide, context 64, batch 12) on characters, AdamW 1e-3 with a cosine to
1e-4, as its README gives it. Stock GPT-2: GPT2LMHeadModel of that width and depth with a context of 256, batches of 8, a
byte-level BPE of 2048 by `tokenizers`, in the same loop. The horizon is what fits the time. The held-out text is judged whole,
in windows of the context. A .jsonl is its texts joined by newlines; without --held_out its last 2 % are held out.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

PEAK, LOWEST, WARMUP, HELD_OUT = 1e-3, 1e-4, 100, 0.02
PROBE, CLOSING = 20, 1.0  # iterations that tell how long one takes; seconds for the end
SHAPE = {"n_layer": 4, "n_head": 4, "n_embd": 128}


def read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        return text
    return "\n".join(json.loads(line)["text"] for line in text.split("\n") if line)


def characters(text: str, held_out: str):
    """Return (training ids, held-out ids, vocabulary size) with one id per character."""
    import numpy as np
    import torch

    _, ids = np.unique(np.array(list(text + held_out)), return_inverse=True)
    ids = torch.from_numpy(ids.astype(np.int64))
    return ids[: len(text)], ids[len(text) :], int(ids.max()) + 1


def pieces(text: str, held_out: str):
    """Return the same with a byte-level BPE of 2048, trained on the first 4 MB."""
    import torch
    from tokenizers import ByteLevelBPETokenizer

    bpe, paragraphs = ByteLevelBPETokenizer(), text.split("\n\n")
    bpe.train_from_iterator(text[:4_000_000].split("\n\n"), vocab_size=2048, show_progress=False)
    ids = [id for piece in bpe.encode_batch([f"{words}\n\n" for words in paragraphs]) for id in piece.ids]
    return torch.tensor(ids), torch.tensor(bpe.encode(held_out).ids), bpe.get_vocab_size()


def nanogpt(checkout: str, vocabulary: int, context: int):
    """Return (model, optimizer, loss function of inputs and targets) of nanoGPT."""
    sys.path.insert(0, checkout)
    from model import GPT, GPTConfig

    net = GPT(GPTConfig(block_size=context, vocab_size=vocabulary, dropout=0.0, bias=False, **SHAPE))
    return net, net.configure_optimizers(0.1, PEAK, (0.9, 0.99), "cpu"), lambda x, y: net(x, y)[1]


def stock(vocabulary: int, context: int):
    """Return the same of Transformers' GPT-2 with a plain AdamW."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) | {"bos_token_id": 0, "eos_token_id": 0}
    net = GPT2LMHeadModel(GPT2Config(**SHAPE, n_positions=context, vocab_size=vocabulary, use_cache=False, **none))
    net.train()
    groups = [
        {"params": [p for p in net.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99), fused=True)
    return net, optimizer, lambda x, y: torch.nn.functional.cross_entropy(net(x).logits.flatten(0, 1), y.flatten())


def main(arguments) -> dict:
    """Train and evaluate."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    text = read(arguments.text)
    cut = len(text) if arguments.held_out else int(len(text) * (1 - HELD_OUT))
    held_out = read(arguments.held_out) if arguments.held_out else text[cut:]
    if arguments.checkout:
        context, batch = 64, 12
        train, judged, vocabulary = characters(text[:cut], held_out)
        net, optimizer, loss = nanogpt(arguments.checkout, vocabulary, context)
    else:
        context, batch = 256, 8
        train, judged, vocabulary = pieces(text[:cut], held_out)
        net, optimizer, loss = stock(vocabulary, context)

    def iterate(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(train) - context, (batch,))
        x, y = (torch.stack([train[s + k : s + k + context] for s in starts]) for k in (0, 1))
        loss(x, y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def nats(most: int | None = None) -> float:
        """Of the held-out tokens, each once."""
        windows = [judged[s : s + context + 1] for s in range(0, len(judged) - 1, context)][:most]
        return sum(float(loss(w[None, :-1], w[None, 1:])) * (len(w) - 1) for w in windows)

    clock = time.process_time()
    for _ in range(PROBE):
        iterate(PEAK * 0.01)
    each, clock = (time.process_time() - clock) / PROBE, time.process_time()
    nats(PROBE)
    closing = (time.process_time() - clock) / PROBE * len(judged) / context + CLOSING
    steps = max(1, int((arguments.seconds - closing - time.process_time()) / each))
    for step in range(steps):
        rate = PEAK * (step + 1) / (WARMUP + 1)
        if step > WARMUP:
            share = (step - WARMUP) / max(1, steps - WARMUP)
            rate = LOWEST + 0.5 * (1 + math.cos(math.pi * share)) * (PEAK - LOWEST)
        iterate(rate)
    return {"bits_per_byte": round(nats() / math.log(2) / len(held_out.encode()), 4), "steps": steps}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--held_out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--checkout", help="of nanoGPT")
    parser.add_argument("--seed", type=int, default=1337)
    print(json.dumps(main(parser.parse_args())))
