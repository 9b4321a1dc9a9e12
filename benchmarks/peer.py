"""nanoGPT's published CPU shape on the characters of a text, for so many seconds of the whole program; its last line is JSON.

    python benchmarks/peer.py nanoGPT texts/plays.jsonl 120 0        # checkout, text, seconds, core

4 layers, 4 heads, 128 wide, context 64, batch 12, AdamW 1e-3 with a cosine to 1e-4, as its README gives it; the horizon is what
fits the time. The last 2 % of the text are held out, and judged whole, in windows of 64.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

BLOCK, BATCH, PEAK, LOWEST, WARMUP, HELD_OUT = 64, 12, 1e-3, 1e-4, 100, 0.02
PROBE, CLOSING = 20, 1.0  # iterations that tell how long one takes; seconds for the end


def main(checkout: str, path: str, seconds: float, core: int) -> dict:
    """Train and evaluate."""
    begun = time.monotonic()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1337)
    sys.path.insert(0, checkout)
    from model import GPT, GPTConfig

    with open(path, encoding="utf-8") as file:
        text = "\n".join(json.loads(line)["text"] for line in file)
    characters, ids = np.unique(np.array(list(text)), return_inverse=True)
    data = torch.from_numpy(ids.astype(np.int64))
    cut = int(len(data) * (1 - HELD_OUT))
    train, held_out = data[:cut], data[cut:]
    shape = {"n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0, "bias": False}
    net = GPT(GPTConfig(block_size=BLOCK, vocab_size=len(characters), **shape))
    optimizer = net.configure_optimizers(0.1, PEAK, (0.9, 0.99), "cpu")

    def iterate(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(train) - BLOCK, (BATCH,))
        x, y = (torch.stack([train[s + k : s + k + BLOCK] for s in starts]) for k in (0, 1))
        net(x, y)[1].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def evaluate(most: int | None = None) -> float:
        """Nats of the held-out characters, each once."""
        windows = [held_out[s : s + BLOCK + 1] for s in range(0, len(held_out) - 1, BLOCK)][:most]
        with torch.no_grad():
            return sum(float(net(w[None, :-1], w[None, 1:])[1]) * (len(w) - 1) for w in windows)

    clock = time.monotonic()
    for _ in range(PROBE):
        iterate(PEAK * 0.01)
    each, clock = (time.monotonic() - clock) / PROBE, time.monotonic()
    evaluate(PROBE)
    closing = (time.monotonic() - clock) / PROBE * len(held_out) / BLOCK + CLOSING
    steps = int((seconds - closing - (time.monotonic() - begun)) / each)
    for step in range(steps):
        rate = PEAK * (step + 1) / (WARMUP + 1)
        if step > WARMUP:
            share = (step - WARMUP) / max(1, steps - WARMUP)
            rate = LOWEST + 0.5 * (1 + math.cos(math.pi * share)) * (PEAK - LOWEST)
        iterate(rate)
    num_bytes = len(text[cut + 1 :].encode())
    return {
        "bits_per_byte": evaluate() / math.log(2) / num_bytes,
        "steps": steps,
        "processor_seconds": round(time.process_time(), 1),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], str(Path(sys.argv[2])), float(sys.argv[3]), int(sys.argv[4]))))
