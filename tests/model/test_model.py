"""The model against its oracles: stock models with the same weights, gradients that show who sees whom, and the
library's own contracts (loss, masks, caches, checkpointing, attention interface)."""

import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, GPT2LMHeadModel, LlamaForCausalLM, Qwen3ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, TinyGPTModel
from tinygpt_hf.model import conversion
from tinygpt_hf.model.conversion import to_stock
from tinygpt_hf.model.modeling_tinygpt import eager_attention_forward

GPT2_DIALECT = conversion.DIALECTS["gpt2"] | {"hidden_act": "gelu_new", "rms_norm_eps": 1e-5}
# every value away from its default: an ignored field shows in the logits
MODERN_DIALECT = {
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_theta": 321.0},
}
DIALECTS = {"modern": MODERN_DIALECT, "gpt2": GPT2_DIALECT}
ORACLES = {
    "qwen3": (Qwen3ForCausalLM, MODERN_DIALECT),
    "qwen3-biased": (Qwen3ForCausalLM, MODERN_DIALECT | {"attention_bias": True, "tie_word_embeddings": False}),
    "qwen3-linear-rope": (
        Qwen3ForCausalLM,
        MODERN_DIALECT | {"rope_parameters": {"rope_theta": 99.0, "rope_type": "linear", "factor": 4.0}},
    ),
    "llama": (LlamaForCausalLM, MODERN_DIALECT | {"qk_norm": False, "mlp_bias": True}),
    "gpt2": (GPT2LMHeadModel, GPT2_DIALECT),
}
ATTENTIONS = ["eager", "sdpa"]
V = 59


def make_model(fields: dict, attention: str = "eager", model_class=TinyGPTForCausalLM):
    torch.manual_seed(0)
    config = TinyGPTConfig(
        **{"vocab_size": V, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "n_positions": 64}
        | fields
    )
    model = model_class._from_config(config, attn_implementation=attention)
    for parameter in model.parameters():  # biases and norms away from 0 and 1
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def some_ids(batch: int = 2, length: int = 10) -> torch.Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(3))


def differ(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one - two).abs().max().item()


# --- the stock models as oracles


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("oracle", ORACLES)
@torch.no_grad()
def test_logits_equal_the_stock_model(oracle, attention):
    stock_class, fields = ORACLES[oracle]
    ours = make_model(fields, attention)
    stock = to_stock(ours).eval()
    assert type(stock) is stock_class
    ids = some_ids()
    expected = stock(ids).logits
    assert expected.std() > 0.1
    assert differ(ours(ids).logits, expected) < 1e-5

    # left padding, positions derived as generate() derives them
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    padded = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    seen = mask.bool()
    assert differ(ours(**padded).logits[seen], stock(**padded).logits[seen]) < 1e-5
    assert differ(ours(**padded).logits[0, 4:], ours(ids[:1, 4:]).logits[0]) < 1e-5

    # one token at a time with the cache, positions left to the model
    cache, rows = None, []
    for t in range(ids.shape[1]):
        output = ours(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        rows.append(output.logits)
    assert differ(torch.cat(rows, dim=1), expected) < 1e-5


@pytest.mark.parametrize("dialect", DIALECTS)
def test_gradients_equal_the_stock_model(dialect):
    ours = make_model(DIALECTS[dialect])
    stock = to_stock(ours)
    ids = some_ids()
    for model in (ours, stock):
        model(ids, labels=ids).loss.backward()
    ours_grad = ours.get_input_embeddings().weight.grad
    assert differ(ours_grad, stock.get_input_embeddings().weight.grad) < 1e-5 * max(1.0, ours_grad.abs().max().item())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_gradients_under_autocast_stay_close_to_single_precision(dialect, padded):
    model, ids = make_model(DIALECTS[dialect], "eager").train(), some_ids()
    mask = torch.ones_like(ids)
    mask[0, : 4 * padded] = 0  # rows with nothing to see
    grads = []
    for autocast in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert (grads[0] - grads[1]).norm() < 0.05 * grads[0].norm()


# --- who sees whom


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_causality_by_gradients(dialect, attention):
    """d logits[t] / d embeddings[s] is exactly zero for s > t, and not zero for s <= t."""
    model = make_model(DIALECTS[dialect], attention)
    embeds = torch.randn(1, 7, 48, requires_grad=True)
    logits = model(inputs_embeds=embeds).logits
    for t in range(7):
        (grad,) = torch.autograd.grad(logits[0, t].sum(), embeds, retain_graph=True)
        reach = grad[0].abs().amax(-1)
        assert (reach[t + 1 :] == 0).all()
        assert (reach[: t + 1] > 0).all()


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_packed_positions_keep_documents_apart(dialect, attention):
    model = make_model(DIALECTS[dialect], attention)
    one, two = some_ids(1, 6), some_ids(1, 5)
    packed = torch.cat((one, two), dim=1)
    positions = torch.cat((torch.arange(6), torch.arange(5)))[None]
    logits = model(packed, position_ids=positions, use_cache=False).logits
    assert differ(logits[:, :6], model(one).logits) < 1e-5
    assert differ(logits[:, 6:], model(two).logits) < 1e-5


def test_half_precision_rows_with_nothing_to_see_are_finite():
    model = make_model(MODERN_DIALECT).to(torch.bfloat16)
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[0, :4] = 0
    for autocast in (False, True):
        model = model.to(torch.float32 if autocast else torch.bfloat16)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert model(some_ids(), attention_mask=mask).logits.isfinite().all()


# --- weights


@pytest.mark.parametrize("dialect", DIALECTS)
def test_parameter_count_and_tying(dialect):
    fields = DIALECTS[dialect]
    tied = make_model(fields)
    untied = make_model(fields | {"tie_word_embeddings": False})
    assert tied.lm_head.weight.data_ptr() == tied.model.embed_tokens.weight.data_ptr()
    assert untied.lm_head.weight.data_ptr() != untied.model.embed_tokens.weight.data_ptr()
    c = tied.config
    width, inner, keys, queries = c.hidden_size, c.intermediate_size, c.num_key_value_heads * c.head_dim, 4 * c.head_dim
    if dialect == "modern":
        layer = width * (2 * queries + 2 * keys + 3 * inner) + 2 * width + 2 * c.head_dim
        total = V * width + 2 * layer + width
    else:
        layer = width * (2 * queries + 2 * keys + 2 * inner) + 2 * queries + 2 * keys + inner + width + 4 * width
        total = (V + 64) * width + 2 * layer + 2 * width
    assert sum(p.numel() for p in tied.parameters()) == tied.num_parameters() == total
    assert untied.num_parameters() == total + V * width


def test_initial_weights_have_the_stated_scales():
    torch.manual_seed(0)
    config = TinyGPTConfig(vocab_size=500, n_embd=128, n_layer=8, n_head=4, initializer_range=0.05)
    model = TinyGPTForCausalLM(config)
    layer = model.model.layers[3]
    for module in (layer.self_attn.q_proj, layer.mlp.up_proj, model.model.embed_tokens):
        assert module.weight.std().item() == pytest.approx(0.05, rel=0.05)
    for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
        assert module.weight.std().item() == pytest.approx(0.05 / math.sqrt(16), rel=0.05)
    assert (layer.input_layernorm.weight == 1).all()


def test_a_pad_token_is_learnt_like_any_other():
    model = make_model({"pad_token_id": 5})
    assert model.model.embed_tokens.weight[5].abs().sum() > 0
    model(torch.tensor([[5, 1, 2]]), labels=torch.tensor([[1, 1, 2]])).loss.backward()
    assert model.model.embed_tokens.weight.grad[5].abs().sum() > 0


# --- the configuration


def test_derived_values():
    config = TinyGPTConfig(n_layer=3, n_embd=192, n_head=6, n_positions=77)
    assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (3, 192, 77)
    assert (config.num_key_value_heads, config.head_dim, config.intermediate_size) == (6, 32, 512)
    assert (config.n_embd, config.hidden_act, config.rope_parameters["rope_theta"]) == (192, "silu", 10000.0)
    plain = TinyGPTConfig(mlp_type="plain", hidden_size=96, num_attention_heads=2)
    assert (plain.intermediate_size, plain.hidden_act) == (384, "gelu_new")
    assert TinyGPTConfig(hidden_act="relu").hidden_act == "relu"
    assert TinyGPTConfig().max_position_embeddings == 1024


@pytest.mark.parametrize("dialect", DIALECTS)
def test_config_survives_json_and_names_only_modules_that_exist(dialect, tmp_path):
    model = make_model(DIALECTS[dialect])
    model.config.save_pretrained(tmp_path)
    again = TinyGPTConfig.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "config.json").read_text() == (tmp_path / "again" / "config.json").read_text()
    assert again.head_dim == model.config.head_dim
    assert "tp_plan" not in (tmp_path / "config.json").read_text()
    modules = dict(model.model.named_modules())
    assert all(name.replace("*", "0") in modules for name in again.base_model_tp_plan)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 64, "num_attention_heads": 6}, "hidden_size is 64 with num_attention_heads 6; .*; change one"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, "num_key_value_heads is 3 .*; choose a divisor"),
        ({"head_dim": 7}, "head_dim is 7 .*even"),
        ({"norm_type": "batchnorm"}, "norm_type"),
        ({"attention_dropout": 1.5}, "attention_dropout is 1.5; .*"),
        ({"vocab_size": 0}, "vocab_size is 0; it must be at least 1"),
        ({"hidden_size": 64, "n_embd": 32}, "n_embd is 32 and hidden_size is 64; .*"),
        ({"n_layer": "two"}, "num_hidden_layers"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
    ],
)
def test_impossible_shapes_are_explained(fields, words):
    with pytest.raises(Exception, match=words):
        TinyGPTConfig(**fields)


# --- the library's contracts


@pytest.mark.parametrize("dialect", DIALECTS)
def test_loss_is_shifted_cross_entropy_and_takes_the_batch_count(dialect):
    model = make_model(DIALECTS[dialect])
    ids = some_ids()
    labels = ids.clone()
    labels[0, :5] = -100
    output = model(ids, labels=labels)
    flat, targets = output.logits[:, :-1].reshape(-1, V), labels[:, 1:].reshape(-1)
    summed = torch.nn.functional.cross_entropy(flat, targets, reduction="sum")
    count = (targets != -100).sum()
    assert output.loss.item() == pytest.approx((summed / count).item(), rel=1e-5)
    assert model(ids, labels=labels, num_items_in_batch=40).loss.item() == pytest.approx(summed.item() / 40, rel=1e-5)

    shifted = torch.roll(ids, 3, dims=-1)
    expected = torch.nn.functional.cross_entropy(output.logits.view(-1, V), shifted.view(-1)).item()
    assert model(ids, labels=ids, shift_labels=shifted).loss.item() == pytest.approx(expected, rel=1e-5)
    assert model(ids, shift_labels=shifted).loss.item() == pytest.approx(expected, rel=1e-5)
    assert model(ids).loss is None


@torch.no_grad()
def test_logits_to_keep():
    model, ids = make_model(MODERN_DIALECT), some_ids()
    full = model(ids).logits
    assert model(ids, logits_to_keep=2).logits.shape == (2, 2, V)
    assert differ(model(ids, logits_to_keep=2).logits, full[:, -2:]) < 1e-6
    assert differ(model(ids, logits_to_keep=torch.tensor([0, 3])).logits, full[:, [0, 3]]) < 1e-6


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hidden_states_attentions_and_cache_are_returned_when_asked(dialect):
    model, ids = make_model(DIALECTS[dialect]), some_ids()
    output = model(ids, output_hidden_states=True, output_attentions=True)
    assert [h.shape for h in output.hidden_states] == [(2, 10, 48)] * 3
    assert [a.shape for a in output.attentions] == [(2, 4, 10, 10)] * 2
    for weights in output.attentions:
        assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 10))
        assert (weights.triu(1) == 0).all()
    assert output.past_key_values.get_seq_length() == 10
    plain = model(ids, use_cache=False)
    assert plain.hidden_states is None and plain.attentions is None and plain.past_key_values is None
    assert len(model(ids, return_dict=False, use_cache=False)) == 1
    with pytest.raises(ValueError, match="exactly one"):
        model()


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_gradient_checkpointing_changes_nothing(dialect, use_reentrant):
    model, ids = make_model(DIALECTS[dialect]).train(), some_ids()
    model.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    results = []
    for checkpointed in (False, True):
        calls: list[int] = []
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        assert model.is_gradient_checkpointing == checkpointed
        model.zero_grad()
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.allclose(one, two, atol=1e-7) for one, two in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_registered_attention_gets_unrepeated_keys_and_every_keyword(dialect):
    seen = []

    def spy(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        seen.append((module.layer_idx, query.shape, key.shape, value.shape, dropout, kwargs.get("attention_instances")))
        assert module.is_causal and module.num_key_value_groups == query.shape[1] // key.shape[1]
        mask = torch.full((query.shape[2], key.shape[2]), torch.finfo(query.dtype).min).triu(1)
        return eager_attention_forward(module, query, key, value, mask[None, None], scaling, dropout, **kwargs)

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
    heads, size = model.config.num_key_value_heads, model.config.head_dim
    shape = (1, heads, 6, size)
    assert seen == [(layer, (1, 4, 6, size), shape, shape, 0.0, instances) for layer in (0, 1)]
    assert differ(hidden, expected) < 1e-5


def test_dropout_acts_in_training_only_and_where_it_is_asked_for():
    ids = some_ids()
    for field in ("hidden_dropout", "attention_dropout"):
        model = make_model(MODERN_DIALECT | {field: 0.5})
        assert torch.equal(model(ids).logits, model(ids).logits)
        model.train()
        assert not torch.equal(model(ids).logits, model(ids).logits)
    still = make_model(MODERN_DIALECT).train()
    assert torch.equal(still(ids).logits, still(ids).logits)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_greedy_generation_is_the_same_with_every_cache(dialect, attention):
    model = make_model(DIALECTS[dialect], attention)
    ids = some_ids(2, 5)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    options = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, **options)
    assert cached.shape == (2, 14)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    assert torch.equal(cached, model.generate(ids, cache_implementation="static", **options))
    assert torch.equal(cached[0, 2:], model.generate(ids[:1, 2:], **(options | {"attention_mask": None}))[0])


def test_label_smoothing_finds_the_class_in_the_name_table():
    """Trainer shifts the labels only for classes named in this table; unshifted labels are wrong without a word."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.trainer_pt_utils import LabelSmoother

    model, ids = make_model(MODERN_DIALECT), some_ids()
    assert model._get_name() in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    shifted = LabelSmoother(epsilon=0.0)(model(ids), ids, shift_labels=True)
    assert shifted.item() == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)


def test_classification_heads():
    config = TinyGPTConfig(vocab_size=V, n_embd=32, n_layer=1, n_head=2, num_labels=3, pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config)
    output = model(some_ids(), labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3)
    output.loss.backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dialect", DIALECTS)
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
