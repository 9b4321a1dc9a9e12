"""Test GGUF files: logits and token ids computed from the file alone equal the model's, and the proof finds errors."""

import dataclasses

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Regex, normalizers, pre_tokenizers

from tinygpt_hf.errors import UsageError
from tinygpt_hf.export import gguf_file as gguf_format
from tinygpt_hf.export import verify
from tinygpt_hf.export.gguf_vocabulary import PRE_TYPES, vocabulary
from tinygpt_hf.export.reference import write_reference
from tinygpt_hf.model.conversion import DIALECTS, to_stock
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

LLAMA = {"qk_norm": False, "num_key_value_heads": 2}


def scaled(**rope) -> dict:
    return {"rope_parameters": {"rope_theta": 500.0, **rope}}


LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0}
QWEN3 = {"num_key_value_heads": 2, "head_dim": 12} | scaled(rope_type="default")
YARN = scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=24)
MODELS = [
    ("qwen3", torch.float32, QWEN3),
    ("qwen3", torch.bfloat16, {"tie_word_embeddings": False} | YARN),
    (
        "llama",
        torch.float16,
        LLAMA | {"attention_bias": True, "mlp_bias": True} | scaled(rope_type="linear", factor=2.0),
    ),
    ("llama", torch.float32, LLAMA | {"head_dim": 16} | scaled(**LLAMA3, high_freq_factor=4.0)),
    ("gpt2", torch.bfloat16, DIALECTS["gpt2"] | {"intermediate_size": 48}),
]


def proof(folder) -> dict:
    """Run the proof in this process; test_export runs the program."""
    return verify.prove(verify.Gguf(folder), folder)


@pytest.mark.parametrize(("name", "dtype", "fields"), MODELS)
def test_the_model_read_from_the_file_alone_is_the_model(name, dtype, fields, make_model, tiny_tokenizer, tmp_path):
    model = make_model(tiny_tokenizer, **fields).to(dtype)
    assert name in gguf_format.check(model, tiny_tokenizer)
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    write_reference(model, tiny_tokenizer, tmp_path)
    result = proof(tmp_path)
    assert result["logit_difference"] < 1e-5
    assert (result["unequal"], result["greedy_tokens"], result["texts"] > 10) == (None, 64, True)

    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    stored = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    assert kinds["token_embd.weight"] == kinds["blk.1.ffn_up.weight"] == stored
    assert kinds["output_norm.weight"] == kinds["blk.0.attn_norm.weight"] == "F32"
    assert ("output.weight" in kinds) == (not model.config.tie_word_embeddings)


def tokenizer_of(kind: str, text: str):
    if kind in ("char", "byte"):
        return train_tokenizer([text], kind)
    tokenizer = train_tokenizer([text], "bpe", vocab_size=300)
    parts = [
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=part["use_regex"]) if part["type"] == "ByteLevel"
        else pre_tokenizers.Digits(individual_digits=True) if part["type"] == "Digits"
        else pre_tokenizers.Split(Regex(part["pattern"]["Regex"]), "isolated")
        for part in PRE_TYPES[kind].get("pretokenizers", [PRE_TYPES[kind]])
    ]  # fmt: skip
    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence(parts) if len(parts) > 1 else parts[0]
    core.model.ignore_merges = kind == "llama-bpe"
    return tokenizer


@pytest.mark.parametrize("kind", ["char", "byte", *PRE_TYPES])
def test_every_kind_of_tokenizer_goes_along(kind, make_model, tiny_text, tmp_path):
    tokenizer = tokenizer_of(kind, tiny_text)
    model = make_model(tokenizer, num_hidden_layers=1, max_position_embeddings=32)
    gguf_format.check(model, tokenizer)
    gguf_format.write(model, tokenizer, tmp_path)
    write_reference(model, tokenizer, tmp_path)
    assert proof(tmp_path)["unequal"] is None


def test_the_proof_sees_wrong_weights_fields_and_tokens(make_model, tiny_tokenizer, tmp_path, monkeypatch):
    model = make_model(tiny_tokenizer, **LLAMA)
    write_reference(model, tiny_tokenizer, tmp_path)
    fields, words = gguf_format.metadata, gguf_format.vocabulary
    of_transformers = {"interleaved": lambda tensor, heads: tensor}  # q and k in Transformers' order
    other_base = {"metadata": lambda *args: fields(*args) | {"llama.rope.freq_base": 9999.0}}
    other_chat = {"metadata": lambda *args: fields(*args) | {"tokenizer.chat_template": "{{ messages[0].content }}"}}
    few_merges = {"vocabulary": lambda *args: dataclasses.replace(words(*args), merges=words(*args).merges[:3])}
    for change, difference, unequal in [
        (of_transformers, 1e-2, "greedy tokens"),
        (other_base, 1e-5, None),
        (other_chat, 0, "the text of a conversation"),
        (few_merges, 0, "the token ids"),
    ]:
        with monkeypatch.context() as patch:
            for name, function in change.items():
                patch.setattr(gguf_format, name, function)
            gguf_format.write(model, tiny_tokenizer, tmp_path)
        result = proof(tmp_path)
        assert result["logit_difference"] > difference and (unequal or "") in (result["unequal"] or "")

    gguf_format.write(model, tiny_tokenizer, tmp_path)
    with open(tmp_path / "model.gguf", "r+b") as file:
        file.seek(-100, 2)
        file.write(b"\xff" * 8)
    assert not proof(tmp_path)["logit_difference"] < 1e-5


def test_what_the_file_says(make_model, tiny_tokenizer, tmp_path):
    size = len(tiny_tokenizer) + 2  # a vocabulary padded for speed
    model = make_model(tiny_tokenizer, vocab_size=size, **QWEN3)
    model.config.name_or_path = "runs/mine"
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    expected = {
        "general.architecture": "qwen3",
        "general.name": "mine",
        "qwen3.context_length": 96,
        "qwen3.embedding_length": 32,
        "qwen3.block_count": 2,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 12,
        "qwen3.attention.value_length": 12,
        "qwen3.rope.freq_base": 500.0,
        "qwen3.attention.layer_norm_rms_epsilon": float(np.float32(1e-3)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.eot_token_id": 3,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tiny_tokenizer.chat_template,
    }
    assert {name: fields[name] for name in expected} == expected
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert tokens[:4] == ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"] and types[:5] == [3, 3, 3, 3, 1]
    assert tokens[-2:] == [f"[PAD{size - 2}]", f"[PAD{size - 1}]"] and types[-2:] == [5, 5]
    assert len(fields["tokenizer.ggml.merges"]) == len(tiny_tokenizer) - 260

    weights = {tensor.name: tensor.data for tensor in reader.tensors}
    stock = to_stock(model).state_dict()
    assert len(weights) == len(stock) - 1  # the tied output is not there twice
    assert np.array_equal(weights["blk.1.attn_q.weight"], stock["model.layers.1.self_attn.q_proj.weight"].numpy())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_act": "relu"}, "activation is relu .expected silu"),
        (DIALECTS["gpt2"] | {"hidden_act": "gelu"}, "expected gelu_new"),
        ({"attention_bias": True}, "computes qwen3 without"),
        ({"mlp_bias": True}, "mlp_bias False for qwen3"),
        (scaled(rope_type="dynamic", factor=2.0), "rope_type dynamic .expected default, linear, yarn"),
        (scaled(**LLAMA3, high_freq_factor=4.0), "rope_type llama3"),
        (scaled(rope_type="yarn", factor=2.0, original_max_position_embeddings=48, beta_fast=16), "has beta_fast"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(fields, words, make_model, tiny_tokenizer):
    with pytest.raises(UsageError, match=words):
        gguf_format.check(make_model(tiny_tokenizer, **fields), tiny_tokenizer)


def test_tokenizers_llama_cpp_does_not_have_are_refused(tiny_text):
    def changed(**parts):
        tokenizer = train_tokenizer([tiny_text], "bpe", vocab_size=300)
        for name, part in parts.items():
            setattr(tokenizer.backend_tokenizer, name, part)
        return tokenizer

    for tokenizer, word in [
        (changed(pre_tokenizer=pre_tokenizers.Whitespace()), "Whitespace"),
        (changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)), "ByteLevel"),
        (changed(normalizer=normalizers.Lowercase()), "Lowercase"),
        (train_tokenizer(["a \u2581 b"], "char"), "U.2581"),  # llama.cpp writes a space as this character
    ]:
        with pytest.raises(UsageError, match=word):
            vocabulary(tokenizer, 300)
    assert "NFC" in vocabulary(changed(normalizer=normalizers.NFC()), 300).caveats[0]
