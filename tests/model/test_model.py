"""The model against its oracles: stock models with the same weights, gradients that show who sees whom, and those of the
library's contracts that its own common tests (tests/compat/common_tests.py) do not see."""

import inspect
import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModel, GPT2LMHeadModel, LlamaForCausalLM, Qwen3ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, TinyGPTModel
from tinygpt_hf.model import conversion
from tinygpt_hf.model import modeling_tinygpt as modeling
from tinygpt_hf.model.conversion import to_stock

GPT2_DIALECT = conversion.DIALECTS["gpt2"] | {"hidden_act": "gelu_new", "rms_norm_eps": 1e-5}
# every value away from its default: an ignored field shows in the logits
ROPE = {"rope_theta": 321.0}
MODERN_DIALECT = {"num_key_value_heads": 2, "head_dim": 12, "rms_norm_eps": 1e-3, "rope_parameters": ROPE}
DIALECTS = {"modern": MODERN_DIALECT, "gpt2": GPT2_DIALECT}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = ({"rope_type": "linear", "factor": 2.5}, {"rope_type": "dynamic", "factor": 2.0}, YARN, LLAMA3)
LLAMA = MODERN_DIALECT | {"qk_norm": False}
ORACLES = {
    "qwen3": (Qwen3ForCausalLM, MODERN_DIALECT),
    "qwen3-biased": (Qwen3ForCausalLM, MODERN_DIALECT | {"attention_bias": True, "tie_word_embeddings": False}),
    "llama": (LlamaForCausalLM, LLAMA | {"mlp_bias": True}),
    **{f"llama-{rope['rope_type']}": (LlamaForCausalLM, LLAMA | {"rope_parameters": ROPE | rope}) for rope in SCALED},
    "gpt2": (GPT2LMHeadModel, GPT2_DIALECT),
    "gpt2-gelu": (GPT2LMHeadModel, GPT2_DIALECT | {"hidden_act": "gelu"}),
    "gpt2-relu": (GPT2LMHeadModel, GPT2_DIALECT | {"hidden_act": "relu"}),
}
V = 59

both_dialects = pytest.mark.parametrize("dialect", DIALECTS)
both_attentions = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def make_model(fields: dict, attention: str = "eager", model_class=TinyGPTForCausalLM):
    torch.manual_seed(0)
    shape = {"vocab_size": V, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "n_positions": 64}
    model = model_class._from_config(TinyGPTConfig(**shape | fields), attn_implementation=attention)
    for parameter in model.parameters():  # biases and norms away from 0 and 1
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def some_ids(batch: int = 2, length: int = 10) -> torch.Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(3))


def differ(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one - two).abs().max().item()


# --- the stock models as oracles


@both_attentions
@pytest.mark.parametrize("oracle", ORACLES)
@torch.no_grad()
def test_the_stock_model_computes_the_same(oracle, attention):
    stock_class, fields = ORACLES[oracle]
    ours = make_model(fields, attention)
    stock = to_stock(ours).eval() if stock_class is not LlamaForCausalLM else to_stock(ours, "llama").eval()
    assert type(stock) is stock_class and ours.num_parameters() == stock.num_parameters()
    for length in (10, 100, 20) if "rope_parameters" in fields else (10,):  # dynamic scaling grows beyond 64 positions
        ids = some_ids(1, length)
        one, two = (model(ids, output_hidden_states=True) for model in (ours, stock))
        assert two.logits.std() > 0.1 and len(one.hidden_states) == len(two.hidden_states)
        for a, b in zip((one.logits, *one.hidden_states), (two.logits, *two.hidden_states), strict=True):
            assert differ(a, b) < 1e-5 * max(1.0, b.abs().max().item())

    ids, mask = some_ids(), torch.ones(2, 10, dtype=torch.long)  # left padding, positions as generate() derives them
    mask[0, :4] = 0
    padded = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
    seen = mask.bool()
    assert differ(ours(**padded).logits[seen], stock(**padded).logits[seen]) < 1e-5
    assert differ(ours(**padded).logits[0, 4:], ours(ids[:1, 4:]).logits[0]) < 1e-5


@torch.no_grad()
def test_scaled_rotary_positions_are_scaled_and_saved(tmp_path):
    scaled = make_model(LLAMA | {"rope_parameters": ROPE | YARN})
    assert differ(scaled(some_ids()).logits, make_model(LLAMA)(some_ids()).logits) > 1e-3
    scaled.save_pretrained(tmp_path)
    assert differ(TinyGPTForCausalLM.from_pretrained(tmp_path)(some_ids()).logits, scaled(some_ids()).logits) < 1e-5


@both_dialects
def test_gradients_equal_the_stock_model_and_stay_close_under_autocast(dialect):
    ours, ids = make_model(DIALECTS[dialect]), some_ids()
    stock, mask = to_stock(ours), torch.ones_like(ids)
    mask[0, :4] = 0  # rows with nothing to see
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    def gradients(model, autocast=False) -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(**batch).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    exact = gradients(ours)
    theirs = (gradients(stock), stock.get_input_embeddings().weight.grad)[1]
    assert differ(exact[0], theirs) < 1e-5 * max(1.0, theirs.abs().max().item())
    one, two = (torch.cat([grad.flatten() for grad in grads]) for grads in (exact, gradients(ours, autocast=True)))
    assert (one - two).norm() < 0.05 * one.norm()


# --- who sees whom


@both_attentions
@both_dialects
def test_causality_by_gradients(dialect, attention):
    """Check causality: d logits[t] / d embeddings[s] is exactly zero for s > t, and not zero for s <= t."""
    model = make_model(DIALECTS[dialect], attention)
    embeds = torch.randn(1, 7, 48, requires_grad=True)
    logits = model(inputs_embeds=embeds).logits
    for t in range(7):
        (grad,) = torch.autograd.grad(logits[0, t].sum(), embeds, retain_graph=True)
        reach = grad[0].abs().amax(-1)
        assert (reach[t + 1 :] == 0).all() and (reach[: t + 1] > 0).all()


@both_attentions
@both_dialects
@torch.no_grad()
def test_packed_positions_keep_documents_apart(dialect, attention):
    model, one, two = make_model(DIALECTS[dialect], attention), some_ids(1, 6), some_ids(1, 5)
    positions = torch.cat((torch.arange(6), torch.arange(5)))[None]
    logits = model(torch.cat((one, two), dim=1), position_ids=positions, use_cache=False).logits
    assert differ(logits[:, :6], model(one).logits) < 1e-5 and differ(logits[:, 6:], model(two).logits) < 1e-5


@both_attentions
@both_dialects
@torch.no_grad()
def test_default_positions_continue_the_cache(dialect, attention):
    """Check default positions with a cache; generate() always passes positions, so no other test covers them."""
    model, ids = make_model(DIALECTS[dialect], attention), some_ids(2, 12)
    expected = model(ids).logits
    for cuts in ([1] * 12, [5, 7], [1, 10, 1]):
        cache, rows = None, []
        for part in ids.split(cuts, dim=1):
            output = model(part, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            rows.append(output.logits)
        assert cache.get_seq_length() == 12 and differ(torch.cat(rows, dim=1), expected) < 1e-5


@both_dialects
@torch.no_grad()
def test_embeddings_and_positions_given_by_hand_are_used_as_they_are(dialect):
    model, ids = make_model(DIALECTS[dialect]), some_ids()
    expected, embeds = model(ids).logits, model.get_input_embeddings()(ids)
    assert torch.equal(model(inputs_embeds=embeds).logits, expected)
    assert torch.equal(model(ids, position_ids=torch.arange(10).expand(2, -1)).logits, expected)
    later = model(ids, position_ids=torch.arange(20, 30)[None]).logits
    assert (differ(later, expected) < 1e-4) == (dialect == "modern")  # rotary positions are relative
    assert differ(model(ids, position_ids=torch.arange(0, 20, 2)[None]).logits, expected) > 1e-3
    for arguments in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="exactly one"):
            model(**arguments)


@both_attentions
@both_dialects
@torch.no_grad()
def test_a_mask_of_four_dimensions_is_used_as_it_is(dialect, attention):
    """Check an attention window of 3, which no flag sets: the last rows do not depend on the first token."""
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    window = torch.zeros(1, 1, 8, 8).masked_fill(~causal | causal.tril(-3), torch.finfo(torch.float32).min)
    model, ids = make_model(DIALECTS[dialect] | {"num_hidden_layers": 1}, attention), some_ids(1, 8)
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % V
    one, two = (model(x, attention_mask=window).logits for x in (ids, other))
    assert torch.equal(one[:, 3:], two[:, 3:]) and differ(one[:, 2], two[:, 2]) > 1e-4


# --- weights


def test_initial_weights_have_the_stated_scales_also_in_layers_that_a_folder_lacks(tmp_path):
    shape = {"vocab_size": 500, "n_embd": 128, "n_head": 4, "initializer_range": 0.05}
    TinyGPTForCausalLM(TinyGPTConfig(**shape, n_layer=1)).save_pretrained(tmp_path)
    deeper = TinyGPTForCausalLM.from_pretrained(tmp_path, num_hidden_layers=8)
    for model in (TinyGPTForCausalLM(TinyGPTConfig(**shape, n_layer=8)), deeper):
        layer = model.model.layers[3]
        for module in (layer.self_attn.q_proj, layer.mlp.up_proj, model.model.embed_tokens):
            assert module.weight.std().item() == pytest.approx(0.05, rel=0.05)
        for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
            assert module.weight.std().item() == pytest.approx(0.05 / math.sqrt(16), rel=0.05)
        assert (layer.input_layernorm.weight == 1).all()
    kept = load_file(tmp_path / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(deeper.model.layers[0].mlp.down_proj.weight, kept)


def test_a_pad_token_is_learned_like_any_other():
    model = make_model({"pad_token_id": 5})
    assert model.model.embed_tokens.weight[5].abs().sum() > 0
    model(torch.tensor([[5, 1, 2]]), labels=torch.tensor([[1, 1, 2]])).loss.backward()
    assert model.model.embed_tokens.weight.grad[5].abs().sum() > 0


@both_dialects
@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_one_matrix_in_memory_and_on_disk(dialect, tied, tmp_path):
    make_model(DIALECTS[dialect] | {"tie_word_embeddings": tied}).save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    model = TinyGPTForCausalLM.from_pretrained(tmp_path)
    for size in (V, V + 5, V - 3):
        model.resize_token_embeddings(size, mean_resizing=False)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        assert (
            model.lm_head.weight.shape[0] == model.model.embed_tokens.weight.shape[0] == model.config.vocab_size == size
        )


@pytest.mark.parametrize("auto_class, model_class", modeling.AUTO_CLASSES.items())
def test_every_head_is_an_auto_class_and_saves_code_for_all_of_them(auto_class, model_class, tmp_path):
    """Check `auto_map`; `register_for_auto_class` alone would list only the saved class."""
    config = TinyGPTConfig(vocab_size=V, n_embd=16, n_layer=1, n_head=2)
    model = getattr(transformers, auto_class).from_config(config)
    assert type(model) is model_class is getattr(transformers, model_class.__name__)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == [model_class.__name__] and "base_model_tp_plan" not in saved
    models = {name: f"modeling_tinygpt.{known.__name__}" for name, known in modeling.AUTO_CLASSES.items()}
    assert saved["auto_map"] == {"AutoConfig": "configuration_tinygpt.TinyGPTConfig"} | models
    for trust in (False, True, None):  # with the package there, its classes are used; without: test_registration.py
        assert type(AutoModel.from_pretrained(tmp_path, trust_remote_code=trust)) is TinyGPTModel


# --- the configuration


def test_derived_values():
    config = TinyGPTConfig(n_layer=3, n_embd=192, n_head=6, n_positions=77)
    assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (3, 192, 77)
    assert (config.num_key_value_heads, config.head_dim, config.intermediate_size) == (6, 32, 512)
    assert (config.n_embd, config.hidden_act, config.rope_parameters["rope_theta"]) == (192, "silu", 10000.0)
    plain = TinyGPTConfig(mlp_type="plain", hidden_size=96, num_attention_heads=2)
    assert (plain.intermediate_size, plain.hidden_act) == (384, "gelu_new")
    assert TinyGPTConfig(rope_theta=77.0).rope_parameters["rope_theta"] == 77.0  # as older configurations have it


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 64, "num_attention_heads": 6}, "hidden_size is 64 with num_attention_heads 6"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, "num_key_value_heads is 3 .*choose a divisor"),
        ({"head_dim": 7}, "head_dim is 7 .*even"),
        ({"norm_type": "batchnorm"}, "norm_type"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type"),
        ({"attention_dropout": 1.5}, "attention_dropout is 1.5"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"hidden_size": 64, "n_embd": 32}, "n_embd is 32 and hidden_size is 64"),
        ({"n_layer": "two"}, "num_hidden_layers"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
    ],
)
def test_impossible_shapes_are_explained(fields, words):
    with pytest.raises(Exception, match=words):
        TinyGPTConfig(**fields)


# --- the library's contracts


@both_dialects
def test_loss_is_shifted_cross_entropy_and_takes_the_batch_count(dialect):
    model, ids = make_model(DIALECTS[dialect]), some_ids()
    labels = ids.clone()
    labels[0, :5] = -100
    output = model(ids, labels=labels)
    flat, targets = output.logits[:, :-1].reshape(-1, V), labels[:, 1:].reshape(-1)
    summed = torch.nn.functional.cross_entropy(flat, targets, reduction="sum").item()
    assert output.loss.item() == pytest.approx(summed / int((targets != -100).sum()), rel=1e-5)
    assert model(ids, labels=labels, num_items_in_batch=40).loss.item() == pytest.approx(summed / 40, rel=1e-5)
    shifted = torch.roll(ids, 3, dims=-1)
    expected = torch.nn.functional.cross_entropy(output.logits.view(-1, V), shifted.view(-1)).item()
    assert model(ids, shift_labels=shifted).loss.item() == pytest.approx(expected, rel=1e-5)


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


@both_dialects
def test_a_registered_attention_gets_unrepeated_keys_and_every_keyword(dialect):
    """Call the model as vLLM does."""
    seen = []

    def spy(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        seen.append((module.layer_idx, query.shape, key.shape, value.shape, dropout, kwargs.get("attention_instances")))
        assert module.is_causal and module.num_key_value_groups == query.shape[1] // key.shape[1]
        mask = torch.full((query.shape[2], key.shape[2]), torch.finfo(query.dtype).min).triu(1)
        return modeling.eager_attention_forward(module, query, key, value, mask[None, None], scaling, dropout, **kwargs)

    ALL_ATTENTION_FUNCTIONS["tinygpt_spy"] = spy
    try:
        model, ids = make_model(DIALECTS[dialect], model_class=TinyGPTModel), some_ids(1, 6)
        expected = model(ids).last_hidden_state
        assert model.is_backend_compatible()
        model.set_attn_implementation("tinygpt_spy")
        instances = object()
        (hidden,) = model(ids, use_cache=False, return_dict=False, attention_instances=instances)
    finally:
        ALL_ATTENTION_FUNCTIONS.pop("tinygpt_spy")
    size, shape = model.config.head_dim, (1, model.config.num_key_value_heads, 6, model.config.head_dim)
    assert seen == [(layer, (1, 4, 6, size), shape, shape, 0.0, instances) for layer in (0, 1)]
    assert differ(hidden, expected) < 1e-5


def test_source_has_the_forms_that_serving_engines_rewrite():
    """Check the source lines by which vLLM recognizes projections, norms and MLPs to fuse."""
    attention = inspect.getsource(modeling.TinyGPTAttention.forward)
    for name in "qkv":
        assert attention.count(f"self.{name}_proj(hidden_states)") == attention.count(f"self.{name}_proj(") == 1
    assert "num_heads" not in attention  # a rank of tensor parallelism has only some of them
    assert "down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))" in inspect.getsource(modeling.TinyGPTGatedMLP)
    assert (
        inspect.getsource(modeling.TinyGPTRMSNorm.forward).splitlines()[-1].strip().startswith("return self.weight * ")
    )


def test_dropout_acts_in_training_only_and_where_it_is_asked_for():
    ids = some_ids()
    for fields, acts in (({"hidden_dropout": 0.5}, True), ({"attention_dropout": 0.5}, True), ({}, False)):
        model = make_model(MODERN_DIALECT | fields)
        assert torch.equal(model(ids).logits, model(ids).logits)
        model.train()
        assert torch.equal(model(ids).logits, model(ids).logits) != acts


@both_dialects
def test_exported_graph_computes_the_same_at_another_length(dialect):
    model = make_model(DIALECTS[dialect], "sdpa")
    batch, time = torch.export.Dim("batch", min=2, max=16), torch.export.Dim("time", min=2, max=64)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids):
            return self.model(input_ids=input_ids, use_cache=False).logits

    with torch.no_grad():
        program = torch.export.export(Logits(), (some_ids(3, 9),), dynamic_shapes={"input_ids": {0: batch, 1: time}})
        other = some_ids(4, 17)
        assert differ(program.module()(other), model(other).logits) < 1e-5
