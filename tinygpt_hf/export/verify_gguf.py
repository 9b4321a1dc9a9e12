"""A program, not a module: does a GGUF file hold the model that made the reference? Nothing of tinygpt_hf can be imported here.

python verify_gguf.py FOLDER REFERENCE               prints one line of JSON, as export.py says

The logits are computed from the file alone, by the plain numpy below, from its fields and tensors as llama.cpp reads them;
the token ids by the `tokenizers` library from the file's vocabulary. Where `xllamacpp` is installed llama.cpp itself runs too: it
must give the same token ids, the same text of a conversation and the same greedy tokens. It shows no logits, and it rounds some
things to half precision (GPT-2's activation, the inputs of half-precision weights), so of two tokens that are closer than that
it may take either; every token it takes is checked against the file's own logits.
"""

import importlib
import importlib.util
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.modules["tinygpt_hf"] = None

import gguf  # noqa: E402 - after our package is barred
import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

CONTROL, USER_DEFINED = 3, 4
TIE = 0.02  # standard deviations of the logits: tokens closer than this are equally likely in half precision
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {"qwen2": WORDS % "", "llama-bpe": WORDS % "{1,3}"}


class File:
    """A GGUF file: fields by name (without the architecture in front), tensors as float32."""

    def __init__(self, path: Path):
        self.path, reader = path, gguf.GGUFReader(path)
        self.architecture = reader.get_field("general.architecture").contents()
        self.fields = {
            name.removeprefix(f"{self.architecture}."): field.contents() for name, field in reader.fields.items()
        }
        self.tensors = {t.name: _float32(t) for t in reader.tensors}

    def __getitem__(self, name: str):
        return self.fields[name]

    def linear(self, name: str, x):
        """x (T, in) -> (T, out)."""
        y = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y

    def norm(self, name: str, x):
        if self.architecture == "gpt2":
            x = x - x.mean(axis=-1, keepdims=True)
            eps = self["attention.layer_norm_epsilon"]
        else:
            eps = self["attention.layer_norm_rms_epsilon"]
        y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(eps)) * self.tensors[f"{name}.weight"]
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y


def _float32(tensor):
    if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
        bits = tensor.data.view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32)
    return tensor.data.astype(np.float32)


def rotation(file: File, positions):
    """cos and sin (T, 1, D/2) of each position's angles, which are float32 by definition: far positions feel the rounding."""
    D, base = file["rope.dimension_count"], file["rope.freq_base"]
    frequencies = 1 / np.float32(base) ** (np.arange(0, D, 2, dtype=np.float32) / np.float32(D))
    frequencies = frequencies / file.tensors.get("rope_freqs.weight", np.float32(1))
    size, kind = 1.0, file.fields.get("rope.scaling.type")
    if kind:
        factor = file["rope.scaling.factor"]
        slow = frequencies / factor
        if kind == "yarn":
            length = file["rope.scaling.original_context_length"]
            at = [D * np.log(length / (turns * 2 * np.pi)) / (2 * np.log(base)) for turns in (32, 1)]
            low, high = max(0, np.floor(at[0])), min(D - 1, np.ceil(at[1]))
            ramp = np.clip((np.arange(D // 2) - low) / max(0.001, high - low), 0, 1)
            slow, size = slow * ramp + frequencies * (1 - ramp), 1 + 0.1 * np.log(factor)
        frequencies = slow
    angles = positions[:, None, None].astype(np.float32) * frequencies.astype(np.float32)
    return (np.cos(angles) * size).astype(np.float32), (np.sin(angles) * size).astype(np.float32)


def turned(file: File, x, cos, sin):
    """x (T, H, D): qwen3 turns i with i + D/2, llama 2i with 2i + 1."""
    if file.architecture == "llama":
        one, two = x[..., 0::2], x[..., 1::2]
        return np.stack([one * cos - two * sin, one * sin + two * cos], axis=-1).reshape(x.shape)
    one, two = np.split(x, 2, axis=-1)
    return np.concatenate([one * cos - two * sin, one * sin + two * cos], axis=-1)


def logits(file: File, ids: list[int], cache: dict):
    """Logits (T, V) of ids that follow what is in `cache`, which grows by them."""
    T, H = len(ids), file["attention.head_count"]
    K = file.fields.get("attention.head_count_kv", H)
    D = file.fields.get("attention.key_length", file["embedding_length"] // H)
    seen = cache.get("seen", 0)
    positions = np.arange(seen, seen + T)
    x = file.tensors["token_embd.weight"][ids]
    learned = file.architecture == "gpt2"
    if learned:
        x = x + file.tensors["position_embd.weight"][positions]
    else:
        cos, sin = rotation(file, positions)
    future = np.arange(seen + T)[None, :] > positions[:, None]  # (T, S)
    for n in range(file["block_count"]):
        block = f"blk.{n}"
        h = file.norm(f"{block}.attn_norm", x)
        if learned:
            q, k, v = (part.reshape(T, -1, D) for part in np.split(file.linear(f"{block}.attn_qkv", h), 3, axis=-1))
        else:
            q, k, v = (file.linear(f"{block}.attn_{p}", h).reshape(T, -1, D) for p in "qkv")
            if f"{block}.attn_q_norm.weight" in file.tensors:
                q, k = file.norm(f"{block}.attn_q_norm", q), file.norm(f"{block}.attn_k_norm", k)
            q, k = turned(file, q, cos, sin), turned(file, k, cos, sin)
        if seen:
            k, v = np.concatenate([cache[n][0], k]), np.concatenate([cache[n][1], v])
        cache[n] = k, v  # (S, K, D)
        q = q.reshape(T, K, H // K, D).transpose(1, 2, 0, 3)  # (K, H/K, T, D)
        scores = q @ k.transpose(1, 2, 0)[:, None] / np.float32(D**0.5)  # (K, H/K, T, S)
        scores = np.where(future, np.float32(-np.inf), scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out = (weights @ v.transpose(1, 0, 2)[:, None]).transpose(2, 0, 1, 3).reshape(T, H * D)
        x = x + file.linear(f"{block}.attn_output", out)
        h = file.norm(f"{block}.ffn_norm", x)
        if learned:
            up = file.linear(f"{block}.ffn_up", h)
            h = 0.5 * up * (1 + np.tanh(np.float32((2 / np.pi) ** 0.5) * (up + np.float32(0.044715) * up * up * up)))
        else:
            gate = file.linear(f"{block}.ffn_gate", h)
            h = gate / (1 + np.exp(-gate)) * file.linear(f"{block}.ffn_up", h)
        x = x + file.linear(f"{block}.ffn_down", h)
    cache["seen"] = seen + T
    head = "output" if "output.weight" in file.tensors else "token_embd"
    return file.norm("output_norm", x) @ file.tensors[f"{head}.weight"].T


def greedy(file: File, ids: list[int], count: int) -> list[int]:
    cache, found = {}, []
    for _ in range(count):
        ids = [int(logits(file, ids, cache)[-1].argmax())]
        found += ids
    return found


def tokenizer(file: File):
    """text -> ids, by the tokenizers library from the vocabulary in the file."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokens, types = file["tokenizer.ggml.tokens"], file["tokenizer.ggml.token_type"]
    pre, merges = file["tokenizer.ggml.pre"], file.fields.get("tokenizer.ggml.merges", [])
    characters = file["tokenizer.ggml.model"] == "llama"
    vocab = {token: k for k, token in enumerate(tokens)}
    if characters:
        core = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
        core.normalizer = normalizers.Replace(" ", "\u2581")
        core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    else:
        pairs = [tuple(merge.split(" ")) for merge in merges if merge.replace(" ", "", 1) in vocab]
        core = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=pre == "llama-bpe"))
        steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in PATTERNS)]
        if pre == "smollm":
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
        if pre in PATTERNS:
            steps.insert(0, pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated"))
        core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    for token, kind in zip(tokens, types, strict=True):
        if kind in (CONTROL, USER_DEFINED):
            core.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
    bos = [file["tokenizer.ggml.bos_token_id"]] if file["tokenizer.ggml.add_bos_token"] else []
    eos = [file["tokenizer.ggml.eos_token_id"]] if file["tokenizer.ggml.add_eos_token"] else []
    return lambda text: bos + core.encode(text).ids + eos


class LlamaCpp:
    """llama.cpp through xllamacpp's server on loopback, computing in float32 as far as it can."""

    def __init__(self, path: Path, context: int):
        xllamacpp = importlib.import_module("xllamacpp")
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_ctx, settings.n_parallel = str(path), context, 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = (
            xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )  # it is half precision
        settings.n_gpu_layers, settings.warmup = 0, False
        settings.cpuparams.n_threads = (
            1  # its threads wait by spinning, which costs more than they bring where others run
        )
        self.server = xllamacpp.Server(settings)

    def ask(self, path: str, **question) -> dict:
        body = json.dumps(question).encode()
        address = self.server.listening_address + path
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=300) as answer:
            return json.load(answer)

    def token_ids(self, text: str) -> list[int]:
        return self.ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Up to `count` ids; it stops at an end of text."""
        settings = {"temperature": 0, "top_k": 1, "n_predict": count, "return_tokens": True, "cache_prompt": False}
        return self.ask("/completion", prompt=ids, **settings)["tokens"]


def proof(folder: Path, reference: Path) -> dict:
    told = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    arrays = load_file(reference / "reference.safetensors")
    file, unequal, difference = File(folder / "model.gguf"), [], 0.0
    for name in [name for name in arrays if name.startswith("ids.")]:
        wanted = arrays[name.replace("ids.", "logits.")]  # (B, K, V)
        for ids, row in zip(arrays[name].tolist(), wanted, strict=True):
            difference = max(difference, float(np.abs(logits(file, ids, {})[-len(row) :] - row).max()))
    encode = tokenizer(file)
    for text, ids in zip(told["texts"], told["token_ids"], strict=True):
        if encode(text) != ids:
            unequal.append(f"token ids of {text[:40]!r}")
    for ids, wanted in zip(told["prompts"], told["greedy"], strict=True):
        if greedy(file, ids, len(wanted)) != wanted:
            unequal.append(f"the greedy tokens after {ids[:8]}")
    if importlib.util.find_spec("xllamacpp"):
        unequal += against_llama_cpp(file, told)
    return {
        "logit_difference": difference,
        "prompts": len(told["prompts"]),
        "greedy_tokens": len(told["greedy"][0]) if told["greedy"] else 0,
        "texts": len(told["texts"]),
        "unequal": f"{len(unequal)} things differ, first {unequal[0]}" if unequal else None,
    }


def against_llama_cpp(file: File, told: dict) -> list[str]:
    """What llama.cpp itself does otherwise. Where an end of text is due it may stop."""
    longest = max(map(len, told["prompts"])) + len(told["greedy"][0])
    unequal, llama = [], LlamaCpp(file.path, min(file["context_length"], longest))
    for text, ids in zip(told["texts"], told["token_ids"], strict=True):
        if (found := llama.token_ids(text)) != ids:
            unequal.append(f"llama.cpp's token ids of {text[:40]!r} ({found[:20]} for {ids[:20]})")
    types = file["tokenizer.ggml.token_type"]
    for ids, wanted in zip(told["prompts"], told["greedy"], strict=True):
        found = llama.greedy(ids, len(wanted))
        own = logits(file, ids + found, {})[len(ids) - 1 : -1]  # (N, V), each from what came before one of the found
        lost = (own.max(axis=-1) - own[np.arange(len(found)), found]) / own.std(axis=-1)
        ended = len(found) == len(wanted) or (found and types[found[-1]] == CONTROL)
        if not ended or lost.max() > TIE:
            unequal.append(f"llama.cpp's greedy tokens after {ids[:8]} ({found[:20]} for {wanted[:20]})")
    if told["chat"] is not None:
        chat = llama.ask("/apply-template", messages=told["messages"])["prompt"]
        if chat != told["chat"]:
            unequal.append(f"llama.cpp's text of a conversation ({chat[:200]!r})")
    return unequal


if __name__ == "__main__":
    print(json.dumps(proof(Path(sys.argv[1]), Path(sys.argv[2]))))
