"""Test conversion to and from Qwen3, Llama and GPT-2: equal logits and weights; other models are refused."""

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM, Qwen3ForCausalLM

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.model.conversion import (
    DIALECTS,
    STOCK_CLASSES,
    equal_architecture,
    from_stock,
    largest_logit_difference,
    to_stock,
    weights_from_stock,
    weights_to_stock,
)

SMALL = {"vocab_size": 61, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6}
MODERN = SMALL | {"num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 40, "rms_norm_eps": 1e-3}
ENDS = {"eos_token_id": 7, "bos_token_id": 7}
MODERN |= {"rope_parameters": {"rope_theta": 123.0}} | ENDS


def scattered(model: torch.nn.Module) -> torch.nn.Module:
    """Randomize all weights, including norms and biases, so that every wrong table entry shows."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def stock_model(name: str, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    fields = MODERN if name != "gpt2" else SMALL | {"n_positions": 32, "layer_norm_epsilon": 1e-3} | ENDS
    model_class = {"qwen3": Qwen3ForCausalLM, "llama": LlamaForCausalLM, "gpt2": GPT2LMHeadModel}[name]
    fields = fields | ({"mlp_bias": True} if name == "llama" else {}) | changes
    return scattered(model_class(model_class.config_class(**fields)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", STOCK_CLASSES)
def test_there_and_back_is_the_same_model_bit_for_bit(name, tied):
    stock = stock_model(name, tie_word_embeddings=tied)
    stock.generation_config.max_new_tokens = 5
    ours = from_stock(stock)
    assert type(ours) is TinyGPTForCausalLM
    assert largest_logit_difference(stock, ours) < 1e-5
    back = to_stock(ours)
    assert type(back) is type(stock)
    before, after = stock.state_dict(), back.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    ids = torch.randint(0, 61, (2, 6))
    assert torch.equal(stock(ids).logits, back(ids).logits)
    for model in (ours, back):
        assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert back.generation_config.max_new_tokens == ours.generation_config.max_new_tokens == 5
    assert back.config.eos_token_id == ours.config.eos_token_id == 7


@pytest.mark.parametrize("name", STOCK_CLASSES)
def test_state_dicts_round_trip_from_our_side_in_any_order(name):
    torch.manual_seed(0)
    state = scattered(TinyGPTForCausalLM(TinyGPTConfig(**DIALECTS[name] | SMALL))).state_dict()
    state = dict(sorted(state.items(), reverse=True))  # k before q: the table's order must decide, not this one
    again = weights_from_stock(weights_to_stock(state, name), name)
    assert set(state) == set(again)
    assert all(torch.equal(state[key], again[key]) for key in state)


def test_copies_share_no_memory_with_the_original():
    stock = stock_model("qwen3")
    ours = from_stock(stock)
    ours.model.norm.weight.data.zero_()
    ours.config.rope_parameters["rope_theta"] = 1.0
    assert stock.model.norm.weight.abs().max() > 0
    assert stock.config.rope_parameters["rope_theta"] == 123.0


def test_dtype_and_mode_are_kept():
    ours = from_stock(stock_model("llama").to(torch.bfloat16).train())
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert ours.training
    assert ours.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "architecture"),
    [
        ({}, "qwen3"),
        ({"qk_norm": False}, "llama"),
        ({"qk_norm": False, "mlp_bias": True}, "llama"),
        (DIALECTS["gpt2"], "gpt2"),
        (DIALECTS["gpt2"] | {"hidden_act": "gelu"}, "gpt2"),
    ],
)
def test_the_equal_architecture_is_chosen(fields, architecture):
    config = TinyGPTConfig(**SMALL | fields)
    assert equal_architecture(config) == architecture
    model = scattered(TinyGPTForCausalLM(config))
    assert largest_logit_difference(model, to_stock(model)) < 1e-5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"qk_norm": True, "mlp_bias": True}, ["mlp_bias False for qwen3", "qk_norm False for llama"]),
        (DIALECTS["gpt2"] | {"num_key_value_heads": 3}, ["num_key_value_heads 6 for gpt2"]),
        (DIALECTS["gpt2"] | {"head_dim": 4}, ["head_dim 8 for gpt2"]),
        ({"norm_type": "layernorm"}, ["norm_type rmsnorm for qwen3"]),
    ],
)
def test_no_equal_architecture_is_explained(fields, words):
    with pytest.raises(UsageError) as error:
        to_stock(TinyGPTForCausalLM(TinyGPTConfig(**SMALL | fields)))
    assert all(word in str(error.value) for word in words)


def test_a_wrong_architecture_names_the_right_one():
    with pytest.raises(UsageError, match="Use architecture=qwen3"):
        equal_architecture(TinyGPTConfig(), "llama")
    with pytest.raises(UsageError, match="one of qwen3, llama, gpt2"):
        equal_architecture(TinyGPTConfig(), "mamba")


@pytest.mark.parametrize("name", STOCK_CLASSES)
def test_an_unknown_weight_is_an_error_both_ways(name):
    extra = {"model.layers.0.self_attn.gate.weight": torch.zeros(1)}
    with pytest.raises(UsageError, match="model.layers.0.self_attn.gate.weight"):
        weights_from_stock(extra, name)
    with pytest.raises(UsageError, match="model.layers.0.self_attn.gate.weight"):
        weights_to_stock(extra, name)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 0}, "use_sliding_window"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"embd_pdrop": 0.0}, "hidden_dropout"),
    ],
)
def test_unsupported_stock_options_are_refused(name, changes, words):
    with pytest.raises(UsageError, match=words):
        from_stock(stock_model(name, **changes))
    with pytest.raises(UsageError, match="Qwen3Model"):  # a model without its head
        from_stock(stock_model("qwen3").model)


def test_the_proof_fails_on_a_model_whose_logits_are_not_numbers():
    stock = stock_model("qwen3")
    stock.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="differ"):
        from_stock(stock)
