"""GGUF: the file reads back as it was written, and the model computed from nothing but the file is the model."""

import dataclasses
import json
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from tokenizers import normalizers, pre_tokenizers

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.export import gguf_file as gguf_format
from tinygpt_hf.export.gguf_vocabulary import PRE_TYPES, vocabulary
from tinygpt_hf.export.reference import write_reference
from tinygpt_hf.model.conversion import DIALECTS, to_stock
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
SMALL |= {"rms_norm_eps": 1e-3, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {"qk_norm": False, "num_key_value_heads": 2}


def scaled(**rope) -> dict:
    return {"rope_parameters": {"rope_theta": 500.0, **rope}}


LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0}
MODELS = {
    "qwen3": {"num_key_value_heads": 2, "head_dim": 12} | scaled(rope_type="default"),
    "qwen3, untied, yarn": {"tie_word_embeddings": False}
    | scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=24),
    "llama": LLAMA | {"attention_bias": True, "mlp_bias": True} | scaled(rope_type="linear", factor=2.0),
    "llama, llama3": LLAMA | {"head_dim": 16} | scaled(**LLAMA3, high_freq_factor=4.0),
    "gpt2": DIALECTS["gpt2"] | {"intermediate_size": 48},
}


def some_model(size: int, **fields) -> TinyGPTForCausalLM:
    torch.manual_seed(0)
    model = TinyGPTForCausalLM(TinyGPTConfig(**SMALL | {"vocab_size": size} | fields))
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def proved(folder, reference) -> dict:
    command = [sys.executable, "-P", *gguf_format.proof_command(folder, reference)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


HALF = [("llama", torch.bfloat16), ("gpt2", torch.float16), ("gpt2", torch.bfloat16)]


@pytest.mark.parametrize(("name", "dtype"), [(name, torch.float32) for name in MODELS] + HALF)
def test_the_model_computed_from_the_file_alone_is_the_model(name, dtype, tiny_tokenizer, tmp_path):
    model = some_model(len(tiny_tokenizer), **MODELS[name]).to(dtype)
    assert name.partition(",")[0] in gguf_format.check(model, tiny_tokenizer)
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    write_reference(model, tiny_tokenizer, tmp_path)
    found = proved(tmp_path, tmp_path)
    assert found["logit_difference"] < 1e-5
    assert (found["unequal"], found["greedy_tokens"], found["texts"] > 10) == (None, 64, True)

    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    stored = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    assert kinds["token_embd.weight"] == kinds["blk.1.ffn_up.weight"] == stored
    assert kinds["output_norm.weight"] == kinds["blk.0.attn_norm.weight"] == "F32"
    assert ("output.weight" in kinds) == (not model.config.tie_word_embeddings)


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_tokenizers_of_characters_and_bytes_go_along(kind, tiny_text, tmp_path):
    tokenizer = train_tokenizer([tiny_text], kind)
    model = some_model(len(tokenizer))
    gguf_format.check(model, tokenizer)
    gguf_format.write(model, tokenizer, tmp_path)
    write_reference(model, tokenizer, tmp_path)
    assert proved(tmp_path, tmp_path)["unequal"] is None


def test_the_proof_sees_a_wrong_weight_a_wrong_field_and_a_wrong_token(tiny_tokenizer, tmp_path, monkeypatch):
    model = some_model(len(tiny_tokenizer), **LLAMA)
    write_reference(model, tiny_tokenizer, tmp_path)
    fields, words = gguf_format.metadata, gguf_format.vocabulary

    monkeypatch.setattr(gguf_format, "neighbours", lambda tensor, heads: tensor)  # q and k in Transformers' order
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    assert proved(tmp_path, tmp_path)["logit_difference"] > 1e-2
    monkeypatch.undo()

    change = {"llama.rope.freq_base": 9999.0}
    monkeypatch.setattr(gguf_format, "metadata", lambda *given: fields(*given) | change)
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    assert proved(tmp_path, tmp_path)["logit_difference"] > 1e-5
    monkeypatch.undo()

    def fewer_merges(*given):
        found = words(*given)
        return dataclasses.replace(found, merges=found.merges[:3])

    monkeypatch.setattr(gguf_format, "vocabulary", fewer_merges)
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    assert "token ids" in proved(tmp_path, tmp_path)["unequal"]


def test_what_the_file_says(tiny_tokenizer, tmp_path):
    size = len(tiny_tokenizer) + 2  # a vocabulary padded for speed
    model = some_model(size, **MODELS["qwen3"])
    model.config.name_or_path = "runs/mine"
    gguf_format.write(model, tiny_tokenizer, tmp_path)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    found = {name: field.contents() for name, field in reader.fields.items()}
    assert (found["general.architecture"], found["general.name"]) == ("qwen3", "mine")
    assert (found["qwen3.context_length"], found["qwen3.embedding_length"], found["qwen3.block_count"]) == (96, 32, 2)
    assert (found["qwen3.attention.head_count"], found["qwen3.attention.head_count_kv"]) == (4, 2)
    assert found["qwen3.attention.key_length"] == found["qwen3.attention.value_length"] == 12
    assert found["qwen3.rope.freq_base"] == 500.0
    assert found["qwen3.attention.layer_norm_rms_epsilon"] == float(np.float32(1e-3))
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert found["tokenizer.ggml.tokens"][:4] == ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    assert found["tokenizer.ggml.token_type"][:5] == [3, 3, 3, 3, 1]
    assert (found["tokenizer.ggml.tokens"][-2:], found["tokenizer.ggml.token_type"][-2:]) == (
        [f"[PAD{size - 2}]", f"[PAD{size - 1}]"], [5, 5],
    )  # fmt: skip
    ids = {role: found[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "eot", "padding")}
    assert ids == {"bos": 0, "eos": 0, "eot": 3, "padding": 1}
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == tiny_tokenizer.chat_template
    assert len(found["tokenizer.ggml.merges"]) == len(tiny_tokenizer) - 260

    weights = {tensor.name: tensor.data for tensor in reader.tensors}
    stock = to_stock(model).state_dict()
    assert len(weights) == len(stock) - 1  # the tied output is not there twice
    assert np.array_equal(weights["blk.1.attn_q.weight"], stock["model.layers.1.self_attn.q_proj.weight"].numpy())


def test_a_file_that_does_not_read_back_is_an_error(tiny_tokenizer, tmp_path, monkeypatch):
    written = gguf.GGUFWriter.write_tensors_to_file

    def torn(self, **options):
        written(self, **options)
        with open(tmp_path / "model.gguf", "r+b") as file:
            file.seek(-100, 2)
            file.write(b"\xff" * 8)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", torn)
    with pytest.raises(RunError, match="does not read back"):
        gguf_format.write(some_model(len(tiny_tokenizer)), tiny_tokenizer, tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_act": "relu"}, "the activation is relu; llama.cpp computes qwen3 with silu only"),
        (DIALECTS["gpt2"] | {"hidden_act": "gelu"}, "llama.cpp computes gpt2 with gelu_new only"),
        ({"attention_bias": True}, "qwen3 without biases"),
        ({"mlp_bias": True}, "qwen3 needs mlp_bias False"),
        (
            scaled(rope_type="dynamic", factor=2.0),
            "rope_type dynamic; a GGUF file of qwen3 can say default, linear, yarn",
        ),
        (scaled(**LLAMA3, high_freq_factor=4.0), "rope_type llama3"),
        (scaled(rope_type="yarn", factor=2.0, original_max_position_embeddings=48, beta_fast=16), "has beta_fast"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(fields, words, tiny_tokenizer):
    with pytest.raises(UsageError, match=words):
        gguf_format.check(some_model(len(tiny_tokenizer), **fields), tiny_tokenizer)


def test_tokenizers_llama_cpp_does_not_have_are_refused(tiny_text):
    def changed(change):
        tokenizer = train_tokenizer([tiny_text], "bpe", vocab_size=300)
        change(tokenizer.backend_tokenizer)
        return tokenizer

    def whitespace(core):
        core.pre_tokenizer = pre_tokenizers.Whitespace()

    def prefix_space(core):
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)

    def lowercase(core):
        core.normalizer = normalizers.Lowercase()

    for change, words in [(whitespace, "Whitespace"), (prefix_space, "ByteLevel"), (lowercase, "Lowercase")]:
        with pytest.raises(UsageError, match=words):
            vocabulary(changed(change), 300)

    line = train_tokenizer(["a \u2581 b"], "char")  # llama.cpp writes a space as this character
    with pytest.raises(UsageError, match="U.2581"):
        vocabulary(line, len(line))

    def compose(core):
        core.normalizer = normalizers.NFC()

    assert "NFC" in vocabulary(changed(compose), 300).caveats[0]
    assert {"gpt-2", "qwen2", "llama-bpe", "smollm"} == set(PRE_TYPES)  # tests/compat shows llama.cpp cut as these do
