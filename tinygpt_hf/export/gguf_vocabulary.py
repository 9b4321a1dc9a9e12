"""Convert a fast tokenizer to the GGUF vocabulary of the llama.cpp tokenizer that gives the same ids.

A GGUF file only names one of llama.cpp's built-in tokenizers. Three kinds of tokenizers have an equal there: byte-level BPE with
a known pattern, bytes (byte-level BPE without merges), and characters with byte fallback. The last is llama.cpp's sentencepiece
tokenizer with a vocabulary without merges.
"""

import json
from dataclasses import dataclass, field

from tinygpt_hf.errors import UsageError

# gguf.TokenType
NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6

_CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _byte_level(use_regex: bool) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}


def _split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*parts: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(parts)}


# llama.cpp's name -> the equal pre_tokenizer of tokenizer.json
PRE_TYPES: dict[str, dict] = {
    "gpt-2": _byte_level(True),
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, _byte_level(True)),
    "qwen2": _sequence(_split(_CASES + r"|\p{N}" + _TAIL), _byte_level(False)),
    "llama-bpe": _sequence(_split(_CASES + r"|\p{N}{1,3}" + _TAIL), _byte_level(False)),
}
_CHARACTERS = _split(r"[\s\S]")
_SPACE = "\u2581"  # sentencepiece's symbol for a space


@dataclass
class Vocabulary:
    """The fields under `tokenizer.ggml`: `model` and `pre` name llama.cpp's tokenizer, lists are ordered by token id."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)


def vocabulary(tokenizer, size: int) -> Vocabulary:
    """Return the vocabulary of `tokenizer` with `size` tokens; raise a `UsageError` if llama.cpp has no equal tokenizer."""
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    model, pre_tokenizer = core["model"], _without_offsets(core["pre_tokenizer"])
    pre = next((name for name, known in PRE_TYPES.items() if known == pre_tokenizer), None)
    characters = pre_tokenizer == _CHARACTERS and model.get("byte_fallback") and not model.get("merges")
    normalizer = core["normalizer"]
    obstacles = []
    if model["type"] != "BPE" or any(model.get(name) for name in ("dropout", "unk_token", "continuing_subword_prefix")):
        obstacles.append(f"a plain BPE model is needed, it has {model['type']}")
    if pre is None and not characters:
        obstacles.append(f"llama.cpp has no equal of its pre_tokenizer ({(pre_tokenizer or {}).get('type')})")
    if characters and _SPACE in model["vocab"]:
        obstacles.append("its characters include U+2581, llama.cpp's symbol for a space")
    if pre and bool(model.get("ignore_merges")) != (pre == "llama-bpe"):
        obstacles.append(f"ignore_merges is {model.get('ignore_merges')}")
    if normalizer not in (None, {"type": "NFC"}):
        obstacles.append(f"llama.cpp has no normalizer, it has {normalizer['type']}")
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in core["added_tokens"]):
        obstacles.append("an added token has lstrip, rstrip or single_word")
    if obstacles:
        raise UsageError(
            f"the tokenizer ({'; '.join(obstacles)})",
            "byte-level BPE with the pattern of GPT-2, SmolLM, Qwen or Llama 3, bytes, or characters: llama.cpp runs no others",
            "export with --to qwen3, llama, gpt2 or onnx, which carry any tokenizer, or train one with "
            "--tokenizer_type bpe, char or byte",
        )
    words = Vocabulary("gpt2", pre, [f"[PAD{k}]" for k in range(size)], [UNUSED] * size)
    for token, k in model["vocab"].items():
        words.tokens[k], words.types[k] = token, NORMAL
    for token in core["added_tokens"]:
        words.tokens[token["id"]] = token["content"]
        words.types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if characters:
        return _as_sentencepiece(words)
    words.merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    # llama.cpp refuses a file without merges. This one has no effect: the two symbols never occur next to each other.
    words.merges = words.merges or [f"{words.tokens[0]} {words.tokens[0]}"]
    if normalizer:
        words.caveats.append("llama.cpp does not compose characters (NFC): text with combining marks may get other ids")
    return words


def _as_sentencepiece(words: Vocabulary) -> Vocabulary:
    """Convert a character vocabulary to sentencepiece's conventions: byte tokens, and U+2581 for a space."""
    byte_tokens = {f"<0x{byte:02X}>" for byte in range(256)}
    for k, token in enumerate(words.tokens):
        if words.types[k] == NORMAL and token in byte_tokens:
            words.types[k] = BYTE
    if " " in words.tokens:
        words.tokens[words.tokens.index(" ")] = _SPACE
    words.model, words.pre = "llama", "default"
    words.caveats.append(f"llama.cpp reads the character {_SPACE} (U+2581) as a space")
    return words


def _without_offsets(pre_tokenizer):
    """Return a pre_tokenizer without `trim_offsets`, which does not change where text is split."""
    if isinstance(pre_tokenizer, dict):
        return {k: _without_offsets(value) for k, value in pre_tokenizer.items() if k != "trim_offsets"}
    return [_without_offsets(part) for part in pre_tokenizer] if isinstance(pre_tokenizer, list) else pre_tokenizer
