"""A program, not a module: does an ONNX folder hold the model that made the reference?

python verify_onnx.py FOLDER REFERENCE               prints one line of JSON, as export.py says

Nothing of tinygpt_hf can be imported here, nor torch nor transformers: whoever runs the folder may have none of them. Every graph
run is one of onnxruntime's: probes whole and in two pieces, the second reading the first from the cache; greedy tokens prompt by
prompt, in batches of equal length, and in one batch padded on the left.
"""

import json
import sys
from pathlib import Path

for absent in ("tinygpt_hf", "torch", "transformers"):
    sys.modules[absent] = None

import numpy as np  # noqa: E402 - after the modules that must not be there are barred
import onnxruntime  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

CACHE = "past_key_values"


class Graph:
    """model.onnx with its cache: `run` gives logits (B, T, V) and the cache grown by T."""

    def __init__(self, path: Path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.cache_inputs = [spec for spec in self.session.get_inputs() if CACHE in spec.name]

    def empty_cache(self, batch: int) -> list:
        # (B, K, 0, D): the graph names the sizes that are free and gives the others as numbers
        return [np.zeros((batch, int(s.shape[1]), 0, int(s.shape[3])), np.float32) for s in self.cache_inputs]

    def run(self, ids, mask, cache: list):
        """`ids` (B, T) after a cache of S; `mask` (B, S + T) is 0 on padding."""
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        feeds |= {spec.name: tensor for spec, tensor in zip(self.cache_inputs, cache, strict=True)}
        taken = {spec.name for spec in self.session.get_inputs()}
        logits, *cache = self.session.run(None, {name: value for name, value in feeds.items() if name in taken})
        return logits, cache

    def greedy(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        """`count` likeliest ids after each prompt, all in one batch: shorter prompts are padded on the left."""
        longest = max(map(len, prompts))
        ids = np.array([[0] * (longest - len(prompt)) + prompt for prompt in prompts], np.int64)
        mask = np.array([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], np.int64)
        cache, found = self.empty_cache(len(prompts)), []
        for _ in range(count):
            logits, cache = self.run(ids, mask, cache)
            ids = logits[:, -1].argmax(axis=-1)[:, None]
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
            found.append(ids)
        return np.concatenate(found, axis=1).tolist()


def proof(folder: Path, reference: Path) -> dict:
    told = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    arrays = load_file(reference / "reference.safetensors")
    graph, unequal, difference = Graph(folder / "model.onnx"), [], 0.0

    for name in sorted(name for name in arrays if name.startswith("ids.")):
        ids, wanted = arrays[name], arrays[name.replace("ids.", "logits.")]  # (B, T), (B, K, V)
        mask = np.ones_like(ids)
        whole, _ = graph.run(ids, mask, graph.empty_cache(len(ids)))
        half = (ids.shape[1] + 1) // 2
        # in two pieces, so that the second one reads the first from the cache
        first, cache = graph.run(ids[:, :half], mask[:, :half], graph.empty_cache(len(ids)))
        pieces = [first] if half == ids.shape[1] else [first, graph.run(ids[:, half:], mask, cache)[0]]
        for logits in (whole, np.concatenate(pieces, axis=1)):
            difference = max(difference, float(np.abs(logits[:, -wanted.shape[1] :] - wanted).max()))

    prompts, greedy = told["prompts"], told["greedy"]
    count = min(map(len, greedy), default=0)
    by_length: dict[int, list[int]] = {}
    for k, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(k)
    batches = [[k] for k in range(len(prompts))] + list(by_length.values()) + [list(range(len(prompts)))]
    for batch in batches if prompts else []:
        for k, found in zip(batch, graph.greedy([prompts[k] for k in batch], count), strict=True):
            if found != greedy[k]:
                at = next(n for n in range(count) if found[n] != greedy[k][n])
                unequal.append(
                    f"prompt {k} in a batch of {len(batch)}: id {found[at]} is not {greedy[k][at]}, token {at + 1}"
                )

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text, ids in zip(told["texts"], told["token_ids"], strict=True):
        if tokenizer.encode(text).ids != ids:
            unequal.append(f"token ids of {text[:40]!r}")
    return {
        "logit_difference": difference,
        "prompts": len(prompts),
        "greedy_tokens": count,
        "texts": len(told["texts"]),
        "unequal": f"{len(unequal)} things differ, first {unequal[0]}" if unequal else None,
    }


if __name__ == "__main__":
    print(json.dumps(proof(Path(sys.argv[1]), Path(sys.argv[2]))))
