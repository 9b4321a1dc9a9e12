"""Verify an exported folder against the reference outputs. Runs as a program in its own process.

    python verify.py stock|onnx|gguf FOLDER REFERENCE      prints one line of JSON (see export.py)

The process blocks imports of `tinygpt_hf`, and for ONNX also of torch and transformers, which users of the folder may not have.
Each format is a class with the same five methods, whose results `prove` compares with the reference.
"""

import importlib
import importlib.util
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

BARRED = {"stock": ("tinygpt_hf",), "gguf": ("tinygpt_hf",), "onnx": ("tinygpt_hf", "torch", "transformers")}
GGUF_FILE = "model.gguf"
CONTROL, USER_DEFINED = 3, 4  # gguf.TokenType
TIE = 0.02  # standard deviations of the logits; half precision may swap tokens that are closer than this
# llama.cpp's pre-tokenizer patterns that differ from GPT-2's
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"qwen2": _WORDS % "", "llama-bpe": _WORDS % "{1,3}"}


class Stock:
    """A model folder in Transformers' format."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()

    def logits(self, ids) -> list:
        """Return a list of logits (B, T, V) of `ids` (B, T), one for each way in which the format can compute them."""
        import torch

        with torch.no_grad():
            return [self.model(input_ids=torch.from_numpy(ids), use_cache=False).logits.numpy()]

    def batches(self, prompts: list) -> list[list[int]]:
        """Return the batches of prompt indices for which greedy tokens are compared."""
        return [[k] for k in range(len(prompts))]

    def greedy(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        """Return `count` greedy ids after each prompt, ignoring the folder's generation settings."""
        import torch
        from transformers import GenerationConfig

        self.model.generation_config = GenerationConfig()
        inputs = torch.tensor(prompts)
        return self.model.generate(inputs, max_new_tokens=count, do_sample=False)[:, inputs.shape[1] :].tolist()

    def token_ids(self, text: str) -> list[int]:
        """Encode `text` with the folder's tokenizer."""
        return self.tokenizer(text)["input_ids"]

    def other_differences(self, expected: dict) -> list[str]:
        """Describe other differences: the text of a conversation."""
        if expected["chat"] is None:
            return []
        chat = self.tokenizer.apply_chat_template(expected["messages"], tokenize=False, add_generation_prompt=True)
        return [] if chat == expected["chat"] else ["the text of a conversation"]


class Gguf(Stock):
    """A GGUF file, run by Transformers, and also by llama.cpp if `xllamacpp` is installed.

    Transformers ignores some metadata fields, which are read here.
    """

    def __init__(self, folder: Path):
        import gguf

        self.path = folder / GGUF_FILE
        reader = gguf.GGUFReader(self.path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {tensor.name: tensor.data for tensor in reader.tensors}
        self.model, self.tokenizer = self._load_model(folder), self._load_tokenizer()

    def _load_model(self, folder: Path):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        architecture = self.fields["general.architecture"]
        fields = {name.removeprefix(f"{architecture}."): value for name, value in self.fields.items()}
        config = AutoConfig.from_pretrained(folder, gguf_file=GGUF_FILE)
        if architecture == "gpt2":
            config.n_positions, config.n_inner = fields["context_length"], fields["feed_forward_length"]
        else:
            config.head_dim = fields["attention.key_length"]
            config.attention_bias = "blk.0.attn_q.bias" in self.tensors
            config.mlp_bias = "blk.0.ffn_up.bias" in self.tensors
        if "rope.scaling.type" in fields:
            scaling = {"rope_type": fields["rope.scaling.type"], "factor": fields["rope.scaling.factor"]}
            length = fields.get("rope.scaling.original_context_length")
            scaling |= {"original_max_position_embeddings": length} if length else {}
            config.rope_parameters = {"rope_theta": fields["rope.freq_base"], **scaling}
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=GGUF_FILE, config=config, dtype=torch.float32
        ).eval()
        if "rope_freqs.weight" in self.tensors:
            model.model.rotary_emb.inv_freq /= torch.tensor(self.tensors["rope_freqs.weight"])
        return model

    def _load_tokenizer(self):
        """Build the tokenizer from the vocabulary in the file; Transformers' reader does not support bytes and characters."""
        from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        fields = {name.removeprefix("tokenizer.ggml."): value for name, value in self.fields.items()}
        tokens, pre = fields["tokens"], fields["pre"]
        vocab = {token: k for k, token in enumerate(tokens)}
        if fields["model"] == "llama":
            core = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
            core.normalizer = normalizers.Replace(" ", "\u2581")
            core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        else:
            merges = [tuple(merge.split(" ")) for merge in fields["merges"] if merge.replace(" ", "", 1) in vocab]
            core = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre == "llama-bpe"))
            steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in SPLITS)]
            if pre in SPLITS:
                steps.insert(0, pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated"))
            if pre == "smollm":
                steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
            core.pre_tokenizer = pre_tokenizers.Sequence(steps)
        for token, kind in zip(tokens, fields["token_type"], strict=True):
            if kind in (CONTROL, USER_DEFINED):
                core.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
        special = {
            f"{role}_token": tokens[fields[f"{role}_token_id"]]
            for role in ("bos", "eos")
            if f"{role}_token_id" in fields
        }
        chat_template = self.fields.get("tokenizer.chat_template")
        return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=chat_template, **special)

    def token_ids(self, text: str) -> list[int]:
        """Encode `text`, with the start and end tokens that the file asks for."""
        ids, add = super().token_ids(text), self.fields
        bos = [self.tokenizer.bos_token_id] if add["tokenizer.ggml.add_bos_token"] else []
        return bos + ids + ([self.tokenizer.eos_token_id] if add["tokenizer.ggml.add_eos_token"] else [])

    def other_differences(self, expected: dict) -> list[str]:
        """Describe other differences: the text of a conversation, and llama.cpp's token ids and greedy tokens.

        llama.cpp returns no logits and may stop at an end of text. It uses half precision in places (GPT-2's activation,
        the inputs of half-precision weights), so its greedy tokens may differ where the logits are close.
        """
        unequal = super().other_differences(expected)
        if importlib.util.find_spec("xllamacpp") is None:
            return unequal
        longest = max(map(len, expected["prompts"])) + len(expected["greedy"][0])
        llama = LlamaCpp(self.path, min(self.model.config.max_position_embeddings, longest))
        for text, ids in zip(expected["texts"], expected["token_ids"], strict=True):
            if (other := llama.token_ids(text)) != ids:
                unequal.append(f"llama.cpp's token ids of {text[:40]!r} ({other[:20]} for {ids[:20]})")
        types = self.fields["tokenizer.ggml.token_type"]
        for ids, greedy in zip(expected["prompts"], expected["greedy"], strict=True):
            other = llama.greedy(ids, len(greedy))
            logits = self.logits(np.array([ids + other]))[0][0, len(ids) - 1 : -1]  # (N, V), for each id of `other`
            gap = (logits.max(axis=-1) - logits[np.arange(len(other)), other]) / logits.std(axis=-1)
            ended = len(other) == len(greedy) or (other and types[other[-1]] == CONTROL)
            if not ended or gap.max() > TIE:
                unequal.append(f"llama.cpp's greedy tokens after {ids[:8]} ({other[:20]} for {greedy[:20]})")
        if expected["chat"] is not None:
            chat = llama.ask("/apply-template", messages=expected["messages"])["prompt"]
            if chat != expected["chat"]:
                unequal.append(f"llama.cpp's text of a conversation ({chat[:200]!r})")
        return unequal


class LlamaCpp:
    """llama.cpp behind xllamacpp's local server, in float32 where it allows it."""

    def __init__(self, path: Path, context: int):
        xllamacpp = importlib.import_module("xllamacpp")
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_ctx, settings.n_parallel = str(path), context, 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        # flash attention would use half precision
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.n_gpu_layers, settings.warmup = 0, False
        settings.cpuparams.n_threads = 1  # more threads would spin while they wait, which slows down other processes
        self.server = xllamacpp.Server(settings)

    def ask(self, path: str, **question) -> dict:
        """Post a JSON request to the server and return its response."""
        address, body = self.server.listening_address + path, json.dumps(question).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=300) as answer:
            return json.load(answer)

    def token_ids(self, text: str) -> list[int]:
        """Encode `text` with llama.cpp's tokenizer."""
        return self.ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Return up to `count` greedy ids; llama.cpp stops at an end of text."""
        settings = {"temperature": 0, "top_k": 1, "n_predict": count, "return_tokens": True, "cache_prompt": False}
        return self.ask("/completion", prompt=ids, **settings)["tokens"]


class Onnx:
    """An ONNX model with its cache, run by ONNX Runtime."""

    def __init__(self, folder: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.inputs = {spec.name for spec in self.session.get_inputs()}
        self.cache_inputs = [spec for spec in self.session.get_inputs() if "past_key_values" in spec.name]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def run(self, ids, mask, cache: list | None = None):
        """Return the logits (B, T, V) of `ids` (B, T) after a cache of length S, and the cache. `mask` (B, S + T) hides padding."""
        if cache is None:  # (B, K, 0, D)
            shapes = [(len(ids), int(spec.shape[1]), 0, int(spec.shape[3])) for spec in self.cache_inputs]
            cache = [np.zeros(shape, np.float32) for shape in shapes]
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        feeds |= {spec.name: tensor for spec, tensor in zip(self.cache_inputs, cache, strict=True)}
        logits, *cache = self.session.run(None, {name: feeds[name] for name in feeds.keys() & self.inputs})
        return logits, cache

    def logits(self, ids) -> list:
        """Return the logits of `ids` from one run, and from two runs, the second with the cache of the first."""
        mask, half = np.ones_like(ids), (ids.shape[1] + 1) // 2
        pieces, cache = self.run(ids[:, :half], mask[:, :half])
        if half < ids.shape[1]:
            pieces = np.concatenate([pieces, self.run(ids[:, half:], mask, cache)[0]], axis=1)
        return [self.run(ids, mask)[0], pieces]

    def batches(self, prompts: list) -> list[list[int]]:
        """Return batches with each prompt alone, and one padded batch with all."""
        return [*([k] for k in range(len(prompts))), list(range(len(prompts)))]

    def greedy(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        """Return `count` greedy ids after each prompt, in one batch with padding on the left."""
        longest = max(map(len, prompts))
        ids = np.array([[0] * (longest - len(prompt)) + prompt for prompt in prompts], np.int64)
        mask = np.array([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], np.int64)
        cache, generated = None, []
        for _ in range(count):
            logits, cache = self.run(ids, mask, cache)
            ids = logits[:, -1].argmax(axis=-1)[:, None]
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
            generated.append(ids)
        return np.concatenate(generated, axis=1).tolist()

    def token_ids(self, text: str) -> list[int]:
        """Encode `text` with the folder's tokenizer.json."""
        return self.tokenizer.encode(text).ids

    def other_differences(self, expected: dict) -> list[str]:
        """Return no other differences: a graph has no chat template."""
        return []


RUNTIMES = {"stock": Stock, "gguf": Gguf, "onnx": Onnx}


def prove(runtime, reference: Path) -> dict:
    """Compare the outputs of `runtime` with the reference; return the values described in export.py."""
    expected = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    arrays, tolerance = load_file(reference / "reference.safetensors"), expected["tolerance"]
    differences, unequal = [], []
    for name in (name for name in arrays if name.startswith("ids.")):
        exact = arrays[name.replace("ids", "logits")]  # (B, K, V)
        for logits in runtime.logits(arrays[name]):
            differences.append(np.abs(logits[:, -exact.shape[1] :] - exact).max())
    difference = float(np.max(differences))
    if not difference <= tolerance:
        unequal.append(f"the logits, by {difference:.2g} from float64 where {tolerance:.2g} is allowed")
    prompts, greedy = expected["prompts"], expected["greedy"]
    equal = len(greedy[0])
    for batch in runtime.batches(prompts):
        for k, ids in zip(batch, runtime.greedy([prompts[k] for k in batch], len(greedy[0])), strict=True):
            if ids != greedy[k]:
                at = next(n for n, pair in enumerate(zip(ids, greedy[k], strict=True)) if pair[0] != pair[1])
                equal = min(equal, at)
                # with a smaller margin rounding decides, and the rest of the text differs
                if not expected["margins"][k][at] <= 2 * tolerance:
                    unequal.append(
                        f"the greedy tokens of prompt {k} in a batch of {len(batch)}, from token {at + 1} on"
                    )
    for text, ids in zip(expected["texts"], expected["token_ids"], strict=True):
        if runtime.token_ids(text) != ids:
            unequal.append(f"the token ids of {text[:40]!r}")
    unequal += runtime.other_differences(expected)
    return {
        "logit_difference": difference,
        "rounding": expected["rounding"],
        "prompts": len(prompts),
        "greedy_tokens": equal,
        "texts": len(expected["texts"]),
        "unequal": "; ".join(unequal[:3]) or None,
    }


def main(kind: str, folder: str, reference: str) -> None:
    """Verify `folder` with the packages of `BARRED` blocked from import."""
    for name in BARRED[kind]:
        sys.modules[name] = None  # type: ignore[assignment]
    print(json.dumps(prove(RUNTIMES[kind](Path(folder)), Path(reference))))


if __name__ == "__main__":
    main(*sys.argv[1:])
