"""What a class must declare and keep to be first-class in transformers: flags, names, configuration, weights that come and
go, masks, scaled rotary positions. Most of it no common test of the library sees."""

import inspect
import json

import pytest
import torch
import transformers
from test_model import DIALECTS, GPT2_DIALECT, MODERN_DIALECT, V, differ, make_model, some_ids
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto import configuration_auto, modeling_auto

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, TinyGPTModel
from tinygpt_hf.model import modeling_tinygpt as modeling
from tinygpt_hf.model.conversion import to_stock

HEADS = {
    AutoModel: "TinyGPTModel",
    AutoModelForCausalLM: "TinyGPTForCausalLM",
    transformers.AutoModelForSequenceClassification: "TinyGPTForSequenceClassification",
    AutoModelForTokenClassification: "TinyGPTForTokenClassification",
    AutoModelForQuestionAnswering: "TinyGPTForQuestionAnswering",
}


def tied(model) -> bool:
    return model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


# --- what the classes declare


def test_every_support_flag_is_set():
    """Without one of them the library falls back or refuses without a word, and its tests turn into skips."""
    for name in HEADS.values():
        model_class = getattr(modeling, name)
        assert model_class.base_model_prefix == "model"
        assert model_class.config_class is TinyGPTConfig
        for flag in (
            "supports_gradient_checkpointing", "_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn",
            "_supports_attention_backend", "_can_compile_fullgraph",
        ):  # fmt: skip
            assert getattr(model_class, flag) is True, flag
        assert model_class.is_backend_compatible()
        assert model_class._no_split_modules == ["TinyGPTDecoderLayer"]
        assert model_class._skip_keys_device_placement == ["past_key_values"]
        assert set(model_class._can_record_outputs) == {"hidden_states", "attentions"}
    assert issubclass(modeling.TinyGPTDecoderLayer, GradientCheckpointingLayer)
    assert issubclass(TinyGPTForCausalLM, GenerationMixin) and not issubclass(TinyGPTModel, GenerationMixin)
    assert TinyGPTForCausalLM.can_generate() and TinyGPTForCausalLM._tied_weights_keys == {
        "lm_head.weight": "model.embed_tokens.weight"
    }
    assert TinyGPTConfig.keys_to_ignore_at_inference == ["past_key_values"]
    for plan in (TinyGPTForCausalLM._tp_plan, TinyGPTForCausalLM._pp_plan, TinyGPTForCausalLM._fsdp_plan):
        assert "lm_head" in plan


@pytest.mark.parametrize("dialect", DIALECTS)
def test_modules_carry_the_names_the_library_and_others_look_for(dialect):
    model = make_model(DIALECTS[dialect])
    names = dict(model.named_modules())
    assert {"model.embed_tokens", "model.layers", "model.norm", "lm_head"} <= names.keys()
    assert model.base_model is model.model is model.get_decoder()
    assert model.get_input_embeddings() is model.model.embed_tokens
    assert model.get_output_embeddings() is model.lm_head
    assert model.get_input_embeddings().padding_idx is None
    assert model.loss_type == "ForCausalLM"
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        assert (attention.layer_idx, attention.is_causal, attention.config) == (index, True, model.config)
        assert attention.scaling == model.config.head_dim**-0.5
        assert attention.num_key_value_groups == 4 // model.config.num_key_value_heads
    # nothing but the rotary frequencies is a buffer, no triangle above all; they are not saved
    assert {name.split(".")[-1] for name, _ in model.named_buffers()} == (
        {"inv_freq", "original_inv_freq"} if dialect == "modern" else set()
    )
    assert not any("inv_freq" in name for name in model.state_dict())
    accepted = inspect.signature(model.forward).parameters
    assert accepted["kwargs"].kind is inspect.Parameter.VAR_KEYWORD  # so Trainer passes num_items_in_batch
    assert {"input_ids", "inputs_embeds", "position_ids", "past_key_values", "logits_to_keep"} <= accepted.keys()


def test_the_rotary_module_has_the_names_its_buffers_are_refilled_by():
    config = TinyGPTConfig(n_embd=32, n_head=2, n_positions=77)
    rotary = modeling.TinyGPTRotaryEmbedding(config=config)
    assert type(rotary).__name__.endswith("RotaryEmbedding")
    assert (rotary.rope_type, rotary.attention_scaling) == ("default", 1.0)
    assert rotary.max_seq_len_cached == rotary.original_max_seq_len == 77
    frequencies, scaling = type(rotary).compute_default_rope_parameters(config, device="cpu", seq_len=5)
    assert torch.equal(frequencies, rotary.inv_freq) and torch.equal(frequencies, rotary.original_inv_freq)
    assert scaling == 1.0 and frequencies[0] == 1 and frequencies.shape == (8,)


def test_source_has_the_forms_that_serving_engines_rewrite():
    """vLLM fuses projections, norms and MLPs by reading these lines."""
    attention = inspect.getsource(modeling.TinyGPTAttention.forward)
    for name in "qkv":
        assert attention.count(f"self.{name}_proj(hidden_states)") == attention.count(f"self.{name}_proj(") == 1
    assert "num_heads" not in attention  # a rank of tensor parallelism has only some of them
    assert "down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))" in inspect.getsource(modeling.TinyGPTGatedMLP)
    last = inspect.getsource(modeling.TinyGPTRMSNorm.forward).rstrip().splitlines()[-1]
    assert last.strip().startswith("return self.weight * ")
    assert hasattr(modeling.TinyGPTRMSNorm(4), "variance_epsilon")


def test_name_tables_and_auto_classes_know_every_head():
    config = TinyGPTConfig(vocab_size=V, n_embd=16, n_layer=1, n_head=2)
    for auto_class, name in HEADS.items():
        assert type(auto_class.from_config(config)).__name__ == name
        assert getattr(transformers, name) is getattr(modeling, name)
    assert modeling_auto.MODEL_MAPPING_NAMES["tinygpt"] == "TinyGPTModel"
    for table, task in (
        (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "CausalLM"),
        (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "SequenceClassification"),
        (modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, "TokenClassification"),
        (modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES, "QuestionAnswering"),
    ):
        assert table["tinygpt"] == f"TinyGPTFor{task}"
    # mappings compare configurations by class name too
    assert "TinyGPTConfig" not in configuration_auto.CONFIG_MAPPING_NAMES.values()


@pytest.mark.parametrize("auto_class", HEADS, ids=lambda c: c.__name__)
def test_every_head_saves_code_for_every_auto_class(auto_class, tmp_path):
    """`register_for_auto_class` alone would name only the class that was saved."""
    config = TinyGPTConfig(vocab_size=V, n_embd=16, n_layer=1, n_head=2)
    auto_class.from_config(config).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == [HEADS[auto_class]]
    assert saved["auto_map"] == {"AutoConfig": "configuration_tinygpt.TinyGPTConfig"} | {
        known.__name__: f"modeling_tinygpt.{name}" for known, name in HEADS.items()
    }
    # with the package there, its classes are used whatever the flag says; without it, see test_registration.py
    for trust in (False, True, None):
        assert type(AutoModel.from_pretrained(tmp_path, trust_remote_code=trust)) is TinyGPTModel


def test_token_and_question_heads_learn():
    ids = some_ids()
    config = TinyGPTConfig(vocab_size=V, n_embd=32, n_layer=1, n_head=2, num_labels=2)
    tokens = AutoModelForTokenClassification.from_config(config)
    output = tokens(ids, labels=ids % 2)
    assert output.logits.shape == (2, 10, 2)
    output.loss.backward()
    questions = AutoModelForQuestionAnswering.from_config(config)
    output = questions(ids, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 4]))
    assert output.start_logits.shape == output.end_logits.shape == (2, 10)
    output.loss.backward()
    for model in (tokens, questions):
        assert model.get_input_embeddings().weight.grad.abs().sum() > 0


# --- the configuration


def test_unknown_fields_are_kept_and_survive_saving(tmp_path):
    config = TinyGPTConfig(my_own_field=[1, 2], num_labels=3, attn_implementation="eager", output_attentions=True)
    config.save_pretrained(tmp_path)
    for one in (config, TinyGPTConfig.from_pretrained(tmp_path)):
        assert (one.my_own_field, one.num_labels, len(one.id2label)) == ([1, 2], 3, 3)
    assert config._attn_implementation == "eager" and config.output_attentions


def test_rotary_settings_come_in_old_and_new_words():
    assert TinyGPTConfig().rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert TinyGPTConfig(rope_theta=77.0).rope_parameters["rope_theta"] == 77.0
    old = TinyGPTConfig(rope_theta=55.0, rope_scaling={"type": "linear", "factor": 2.0}).rope_parameters
    new = TinyGPTConfig(rope_parameters={"rope_theta": 55.0, "rope_type": "linear", "factor": 2.0}).rope_parameters
    assert {name: old[name] for name in new} == new


def test_types_are_checked_at_the_start_and_at_every_change():
    config = TinyGPTConfig(attention_dropout=0, hidden_dropout=0.5, initializer_range=1, eos_token_id=[1, 2])
    for name, value in (("rms_norm_eps", "small"), ("num_hidden_layers", 1.5), ("mlp_type", "wide"), ("norm_type", 3)):
        with pytest.raises(Exception, match=name):
            setattr(config, name, value)
        with pytest.raises(Exception, match=name):
            TinyGPTConfig(**{name: value})
    with pytest.raises(Exception, match="position_embedding_type"):
        TinyGPTConfig(position_embedding_type="alibi")


def test_defaults_that_others_read_are_filled_in_both_dialects():
    for fields in DIALECTS.values():
        config = TinyGPTConfig(**({"hidden_size": 96, "num_attention_heads": 4} | fields))
        assert isinstance(config, PreTrainedConfig) and config.model_type == "tinygpt"
        assert None not in (config.num_key_value_heads, config.head_dim, config.intermediate_size, config.hidden_act)
        assert config.pad_token_id is config.bos_token_id is config.eos_token_id is None
        assert getattr(config, "layer_types", None) is None  # there is one type of layer; masks stay tensors
        assert set(config.base_model_fsdp_plan) >= {"embed_tokens", "layers.*", "norm"}


def test_fields_given_to_from_pretrained_change_the_model(tmp_path):
    model = make_model(MODERN_DIALECT)
    model.save_pretrained(tmp_path)
    one = TinyGPTForCausalLM.from_pretrained(tmp_path, num_hidden_layers=1)
    assert len(one.model.layers) == one.config.num_hidden_layers == 1
    ids = some_ids()
    middle = model(ids, output_hidden_states=True).hidden_states[1]
    assert differ(one(ids).logits, model.lm_head(model.model.norm(middle))) < 1e-5
    loud = TinyGPTForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", use_cache=False)
    assert loud.config._attn_implementation == "eager" and loud(ids).past_key_values is None


def test_generation_settings_live_beside_the_configuration(tmp_path):
    model = make_model(MODERN_DIALECT)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_k=7, eos_token_id=[1, 2])
    model.save_pretrained(tmp_path)
    assert not {"temperature", "do_sample", "top_k"} & json.loads((tmp_path / "config.json").read_text()).keys()
    again = TinyGPTForCausalLM.from_pretrained(tmp_path).generation_config
    assert (again.do_sample, again.temperature, again.top_k, again.eos_token_id) == (True, 0.7, 7, [1, 2])


# --- weights that come and go


@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_base_weights_load_into_the_language_model_and_back(dialect, tmp_path):
    whole, ids = make_model(DIALECTS[dialect] | {"tie_word_embeddings": False}, "sdpa"), some_ids()
    whole.save_pretrained(tmp_path / "whole")
    base, told = TinyGPTModel.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not told["missing_keys"] and set(told["unexpected_keys"]) == {"lm_head.weight"}
    assert torch.equal(base(ids).last_hidden_state, whole.model(ids).last_hidden_state)

    base.save_pretrained(tmp_path / "base")
    back, told = TinyGPTForCausalLM.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert set(told["missing_keys"]) == {"lm_head.weight"} and not told["unexpected_keys"]
    assert torch.equal(back.model(ids).last_hidden_state, whole.model(ids).last_hidden_state)
    # what was missing is initialised as a new model's is
    assert back.lm_head.weight.std().item() == pytest.approx(back.config.initializer_range, rel=0.1)


@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_tied_embeddings_stay_tied_through_saving_loading_and_resizing(dialect, tmp_path):
    model, ids = make_model(DIALECTS[dialect], "sdpa"), some_ids()
    model.save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys() and "model.embed_tokens.weight" in file.keys()  # noqa: SIM118
    again, told = TinyGPTForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert tied(again) and not told["missing_keys"] and torch.equal(again(ids).logits, model(ids).logits)
    assert again.num_parameters() == model.num_parameters()

    again.resize_token_embeddings(V + 5, mean_resizing=False)
    assert tied(again) and again.config.vocab_size == V + 5
    larger = again(ids).logits
    assert larger.shape[-1] == V + 5 and differ(larger[..., :V], model(ids).logits) < 1e-6
    again.save_pretrained(tmp_path / "larger")
    assert torch.equal(TinyGPTForCausalLM.from_pretrained(tmp_path / "larger")(ids).logits, larger)
    again.resize_token_embeddings(V - 3)
    assert tied(again) and again.lm_head.weight.shape[0] == again.config.vocab_size == V - 3

    apart = make_model(DIALECTS[dialect] | {"tie_word_embeddings": False})
    apart.save_pretrained(tmp_path / "apart")
    assert not tied(TinyGPTForCausalLM.from_pretrained(tmp_path / "apart"))
    apart.resize_token_embeddings(V + 1)
    assert not tied(apart) and apart.lm_head.weight.shape == apart.get_input_embeddings().weight.shape == (V + 1, 48)


def test_weights_of_another_size_are_refused_or_made_anew_when_asked(tmp_path):
    model = make_model(MODERN_DIALECT)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        TinyGPTForCausalLM.from_pretrained(tmp_path, vocab_size=V + 10)
    other, told = TinyGPTForCausalLM.from_pretrained(
        tmp_path, vocab_size=V + 10, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert "model.embed_tokens.weight" in {key[0] for key in told["mismatched_keys"]}
    weight = other.model.embed_tokens.weight
    assert tied(other) and weight.shape == (V + 10, 48) and weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(other.model.layers[1].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight)


def test_a_missing_layer_is_initialised_like_a_new_one(tmp_path):
    """Every parameter is reachable from `_init_weights`; the scaled projections keep their scale."""
    model = make_model(MODERN_DIALECT | {"hidden_size": 128, "head_dim": 32})
    model.save_pretrained(tmp_path)
    deeper, told = TinyGPTForCausalLM.from_pretrained(tmp_path, num_hidden_layers=3, output_loading_info=True)
    assert told["missing_keys"] and all(key.startswith("model.layers.2.") for key in told["missing_keys"])
    new = deeper.model.layers[2]
    assert (new.input_layernorm.weight == 1).all() and (new.self_attn.q_norm.weight == 1).all()
    assert new.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for module in (new.mlp.down_proj, new.self_attn.o_proj):
        assert module.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.05)
    assert torch.equal(deeper.model.layers[1].mlp.down_proj.weight, model.model.layers[1].mlp.down_proj.weight)


def test_weights_marked_as_loaded_are_not_initialised_again():
    """Partial loading and sharded initialisation rely on it; and initialisation is not in the graph."""
    model = make_model(MODERN_DIALECT)
    before = model.model.layers[0].self_attn.o_proj.weight.clone()
    model.model.layers[0].self_attn.o_proj.weight._is_hf_initialized = True
    model._init_weights(model.model.layers[0].self_attn.o_proj)
    model._init_weights(model.model.layers[1].self_attn.o_proj)
    assert model.model.layers[1].self_attn.o_proj.weight.std() < 0.05 < before.std()
    assert torch.equal(model.model.layers[0].self_attn.o_proj.weight, before)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


# --- the forward pass


@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_hidden_states_are_those_of_the_stock_model(dialect):
    ours, ids = make_model(DIALECTS[dialect]), some_ids()
    stock = to_stock(ours).eval()
    one, two = (m(ids, output_hidden_states=True, output_attentions=True) for m in (ours, stock))
    for name in ("hidden_states", "attentions"):
        assert len(one[name]) == len(two[name])
        assert all(differ(a, b) < 1e-5 for a, b in zip(one[name], two[name], strict=True))


@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_embeddings_and_positions_given_by_hand_are_used_as_they_are(dialect):
    model, ids = make_model(DIALECTS[dialect]), some_ids()
    expected = model(ids).logits
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, expected)
    assert torch.equal(model(ids, position_ids=torch.arange(10)[None]).logits, expected)
    assert torch.equal(model(ids, position_ids=torch.arange(10).expand(2, -1)).logits, expected)
    later = model(ids, position_ids=torch.arange(20, 30)[None]).logits
    assert (differ(later, expected) < 1e-4) == (dialect == "modern")  # rotary positions are relative
    gaps = model(ids, position_ids=torch.arange(0, 20, 2)[None]).logits
    assert differ(gaps, expected) > 1e-3
    for arguments in ({}, {"input_ids": ids, "inputs_embeds": model.get_input_embeddings()(ids)}):
        with pytest.raises(ValueError, match="exactly one"):
            model(**arguments)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_default_positions_continue_the_cache(dialect, attention):
    """generate() always passes positions, so nothing else notices a default that forgets the cache."""
    model, ids = make_model(DIALECTS[dialect], attention), some_ids(2, 12)
    expected = model(ids).logits
    for cuts in ([1] * 12, [5, 7], [1, 10, 1]):
        cache, rows = None, []
        for part in ids.split(cuts, dim=1):
            output = model(part, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            rows.append(output.logits)
        assert cache.get_seq_length() == 12
        assert differ(torch.cat(rows, dim=1), expected) < 1e-5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_a_mask_of_four_dimensions_is_used_as_it_is(dialect, attention):
    model, ids = make_model(DIALECTS[dialect], attention), some_ids(1, 8)
    causal = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
    added = torch.zeros(1, 1, 8, 8).masked_fill(~causal, torch.finfo(torch.float32).min)
    for mask in (causal, added) if attention == "sdpa" else (added,):
        assert differ(model(ids, attention_mask=mask).logits, model(ids).logits) < 1e-5
    # a window of 3, as no flag of ours can ask for: the last row does not depend on the first token
    window = added.masked_fill(torch.ones(8, 8, dtype=torch.bool).tril(-3), torch.finfo(torch.float32).min)
    one = make_model(DIALECTS[dialect] | {"num_hidden_layers": 1}, attention)
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % V
    outputs = [one(x, attention_mask=window).logits for x in (ids, other)]
    assert torch.equal(outputs[0][:, 3:], outputs[1][:, 3:]) and differ(outputs[0][:, 2], outputs[1][:, 2]) > 1e-4


@torch.no_grad()
def test_logits_to_keep_takes_every_form_the_library_has():
    model, ids = make_model(MODERN_DIALECT), some_ids()
    full = model(ids).logits
    marked = torch.rand(2, 10, generator=torch.Generator().manual_seed(0)) < 0.4
    own = torch.tensor([[0, 3], [9, 1]])
    line = torch.zeros(10, dtype=torch.bool)
    line[[2, 5]] = True
    for kept, expected in (
        (0, full), (3, full[:, -3:]), (torch.tensor([4]), full[:, 4:5]), (marked, full[marked]),
        (own, torch.stack([full[0, own[0]], full[1, own[1]]])), (line, full[:, [2, 5]]),
    ):  # fmt: skip
        logits = model(ids, logits_to_keep=kept).logits
        assert logits.shape == expected.shape and differ(logits, expected) < 1e-6


@pytest.mark.parametrize("parameters", [
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16},
], ids=lambda p: p["rope_type"])  # fmt: skip
@torch.no_grad()
def test_scaled_rotary_positions_equal_llamas(parameters, tmp_path):
    plain = make_model(MODERN_DIALECT | {"qk_norm": False})
    rope = {"rope_theta": 321.0, **parameters}
    scaled = make_model(MODERN_DIALECT | {"qk_norm": False, "rope_parameters": rope})
    stock = to_stock(scaled, "llama").eval()
    for length in (10, 100, 20):  # dynamic scaling grows beyond 64 positions and shrinks again
        ids = some_ids(1, length)
        assert differ(scaled(ids).logits, stock(ids).logits) < 1e-5
        if parameters["rope_type"] != "dynamic" or length > 64:
            assert differ(scaled(ids).logits, plain(ids).logits) > 1e-3
    scaled.save_pretrained(tmp_path)
    again = TinyGPTForCausalLM.from_pretrained(tmp_path)
    assert differ(again(ids).logits, stock(ids).logits) < 1e-5


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@torch.no_grad()
def test_the_activation_is_independent_of_the_dialect(activation):
    ours, ids = make_model(GPT2_DIALECT | {"hidden_act": activation}), some_ids()
    stock = to_stock(ours).eval()
    assert stock.config.activation_function == activation
    assert differ(ours(ids).logits, stock(ids).logits) < 1e-5
