"""A fast tokenizer in llama.cpp's words: which of its tokenizers makes the same ids, and the vocabulary it needs for that.

llama.cpp has the tokenizers it knows compiled in; a file only names one. Three kinds of ours and of the stock models have an
equal there: byte-level BPE with a known pattern, the 256 bytes (byte-level BPE without merges) and characters with bytes for the
rest, which is what llama.cpp's sentencepiece tokenizer does with a vocabulary in which nothing can merge.
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


# llama.cpp's name -> the pre_tokenizer of tokenizer.json that cuts the same way
PRE_TYPES: dict[str, dict] = {
    "gpt-2": _byte_level(True),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    },
    "qwen2": {"type": "Sequence", "pretokenizers": [_split(_CASES + r"|\p{N}" + _TAIL), _byte_level(False)]},
    "llama-bpe": {"type": "Sequence", "pretokenizers": [_split(_CASES + r"|\p{N}{1,3}" + _TAIL), _byte_level(False)]},
}
_CHARACTERS = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
_SPACE = "\u2581"  # how sentencepiece writes a space


@dataclass
class Vocabulary:
    """What goes under `tokenizer.ggml`: `model` and `pre` name llama.cpp's tokenizer, the lists are by token id."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)


def vocabulary(tokenizer, size: int) -> Vocabulary:
    """The vocabulary of `tokenizer` for a model of `size` tokens; a UsageError if llama.cpp has no equal tokenizer."""
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    model, cut = core["model"], _without_offsets(core["pre_tokenizer"])
    pre = next((name for name, known in PRE_TYPES.items() if known == cut), None)
    characters = cut == _CHARACTERS and model.get("byte_fallback") and not model.get("merges")
    normalizer = core["normalizer"]
    obstacles = []
    if model["type"] != "BPE" or any(model.get(name) for name in ("dropout", "unk_token", "continuing_subword_prefix")):
        obstacles.append(f"a plain BPE model is needed, it has {model['type']}")
    if pre is None and not characters:
        obstacles.append(f"llama.cpp does not cut text as its pre_tokenizer does ({(cut or {}).get('type')})")
    if characters and _SPACE in model["vocab"]:
        obstacles.append("U+2581 is one of its characters, with which llama.cpp writes a space")
    if pre and bool(model.get("ignore_merges")) != (pre == "llama-bpe"):
        obstacles.append(f"ignore_merges is {model.get('ignore_merges')}")
    if normalizer not in (None, {"type": "NFC"}):
        obstacles.append(f"llama.cpp has no normalizer, it has {normalizer['type']}")
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in core["added_tokens"]):
        obstacles.append("an added token swallows the blanks beside it")
    if obstacles:
        raise UsageError(
            f"the tokenizer ({'; '.join(obstacles)})",
            "byte-level BPE with the pattern of GPT-2, SmolLM, Qwen or Llama 3, bytes, or characters: llama.cpp runs no others",
            "export with --to qwen3, llama, gpt2 or onnx, which carry any tokenizer, or train one with "
            "--tokenizer_type bpe, char or byte",
        )
    found = Vocabulary("gpt2", pre, [f"[PAD{k}]" for k in range(size)], [UNUSED] * size)
    for token, k in model["vocab"].items():
        found.tokens[k], found.types[k] = token, NORMAL
    for token in core["added_tokens"]:
        found.tokens[token["id"]] = token["content"]
        found.types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if characters:
        return _as_sentencepiece(found)
    found.merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    # a file without merges is refused there; two symbols that cannot stand side by side harm nobody
    found.merges = found.merges or [f"{found.tokens[0]} {found.tokens[0]}"]
    if normalizer:
        found.caveats.append("llama.cpp does not compose characters (NFC): text with combining marks gets other ids")
    return found


def _as_sentencepiece(found: Vocabulary) -> Vocabulary:
    bytes_of = {f"<0x{byte:02X}>" for byte in range(256)}
    for k, token in enumerate(found.tokens):
        if found.types[k] == NORMAL and token in bytes_of:
            found.types[k] = BYTE
    if " " in found.tokens:
        found.tokens[found.tokens.index(" ")] = _SPACE
    found.model, found.pre = "llama", "default"
    found.caveats.append(f"llama.cpp reads the character {_SPACE} (U+2581) as a space")
    return found


def _without_offsets(pre_tokenizer):
    """The parts of a pre_tokenizer that decide where text is cut."""
    if isinstance(pre_tokenizer, dict):
        return {k: _without_offsets(value) for k, value in pre_tokenizer.items() if k != "trim_offsets"}
    return [_without_offsets(part) for part in pre_tokenizer] if isinstance(pre_tokenizer, list) else pre_tokenizer
