"""Bound the errors of half precision. Norms, softmax, rotary angles and the loss compute in float32."""

import math

import pytest
import torch
from test_model import DIALECTS, MODERN_DIALECT, V, both_attentions, both_dialects, make_model
from transformers import AutoModelForCausalLM

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.model.conversion import to_stock
from tinygpt_hf.model.modeling_tinygpt import NORMS, TinyGPTRotaryEmbedding, eager_attention_forward

both_halves = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
LAYERS = 4
# A layer rounds about 16 tensors on the way of a logit: two norms and their weights, three projections, rotation, scores,
# weights, their product, output, gate, activation, product, down, two sums; embeddings, norm and head round 4 more. Each
# rounding is off by at most u = eps / 2 of its value, and independent errors add up as the root of their number.
ROUNDINGS = 16 * LAYERS + 4
# The stock model's roundings are as many but not in the same places, which moves the error by a few percent.
OF_STOCK = 1.1


def rms(x: torch.Tensor) -> float:
    return x.double().pow(2).mean().sqrt().item()


def in_half(model, folder, half: torch.dtype):
    """Save and load a model in half precision; `.to(half)` would also round the stock model's rotary frequencies."""
    model.save_pretrained(folder)
    attention = model.config._attn_implementation
    return AutoModelForCausalLM.from_pretrained(folder, dtype=half, attn_implementation=attention).eval()


@both_halves
@both_attentions
@both_dialects
@torch.no_grad()
def test_logits_are_as_near_to_float32_as_the_roundings_allow_and_as_the_stock_model(
    dialect, attention, half, tmp_path
):
    ours = make_model(DIALECTS[dialect] | {"num_hidden_layers": LAYERS}, attention)
    for parameter in ours.parameters():
        parameter.data = parameter.data.to(half).float()  # the rounding of weights is no error of the arithmetic
    stock = to_stock(ours).eval()
    ids = torch.randint(0, V, (8, 48), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:3, :7] = 0
    exact = ours(ids, attention_mask=mask).logits[mask.bool()]
    error = {}
    for name, model in (("ours", ours), ("stock", stock)):
        logits = in_half(model, tmp_path / name, half)(ids, attention_mask=mask).logits
        assert logits.dtype == half
        error[name] = rms(logits[mask.bool()].float() - exact) / rms(exact)
    assert 0 < error["ours"] < torch.finfo(half).eps / 2 * math.sqrt(ROUNDINGS)
    assert error["ours"] < OF_STOCK * error["stock"]


@both_halves
@pytest.mark.parametrize("kind", NORMS)
def test_norms_compute_in_float32(kind, half):
    norm = NORMS[kind](512, eps=1e-6).to(half)
    large = (300 * torch.randn(4, 512, generator=torch.Generator().manual_seed(0))).to(half)
    exact = NORMS[kind](512, eps=1e-6)(large.float())
    one_rounding = torch.finfo(half).eps * exact.abs()
    assert ((norm(large).float() - exact).abs() <= one_rounding).all()

    # a sum of squares in half precision stops growing: 4096 ones would count as 256 in bfloat16
    ones = torch.ones(1, 4096, dtype=half)
    ones[:, ::2] = -1
    assert torch.equal(NORMS[kind](4096, eps=1e-6).to(half)(ones), ones)


@both_halves
def test_softmax_computes_in_float32(half):
    module = torch.nn.Module()
    time, size = 4096, 8
    values = torch.ones(1, 1, time, size, dtype=half)
    zeros = torch.zeros(1, 1, 1, size, dtype=half)
    output, weights = eager_attention_forward(module, zeros, torch.zeros_like(values), values, None, scaling=1.0)
    assert torch.equal(weights, torch.full_like(weights, 1 / time))  # a sum of 4096 ones in bfloat16 would be 256
    assert torch.equal(output, torch.ones_like(output))

    scores = (3 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))).to(half)
    unit = torch.eye(64, dtype=half)[None, None]  # a product with it rounds nothing
    _, weights = eager_attention_forward(module, scores, unit, unit, None, scaling=1.0)
    exact = scores.double().softmax(-1)
    smallest = torch.finfo(half).smallest_normal * torch.finfo(half).eps
    assert ((weights.double() - exact).abs() <= torch.finfo(half).eps / 2 * exact * 1.0001 + smallest).all()


@both_halves
@pytest.mark.parametrize("low", [-20.0, -200.0])
def test_fully_masked_rows_stay_finite(low, half):
    """Check fully masked rows in float16, where a score of -20 plus the lowest number is -inf and softmax gives NaN."""
    query, key = torch.full((1, 1, 4, 1), low, dtype=half), torch.ones(1, 1, 4, 1, dtype=half)
    mask = torch.full((1, 1, 4, 4), torch.finfo(half).min, dtype=half).triu(1)
    mask[..., 0] = torch.finfo(half).min  # the first key is padding, and so the first query has nothing to see
    _, weights = eager_attention_forward(torch.nn.Module(), query, key, key, mask, scaling=1.0)
    assert weights.isfinite().all()
    assert (weights[..., 1:, 0] == 0).all()
    assert (weights[0, 0].triu(1)[1:] == 0).all()
    assert torch.equal(weights[0, 0, 1], torch.tensor([0, 1, 0, 0], dtype=half))


@both_halves
def test_rotary_angles_compute_in_float32(half):
    config = TinyGPTConfig(hidden_size=64, num_attention_heads=1, max_position_embeddings=32768)
    rotary = TinyGPTRotaryEmbedding(config=config).to(half)
    assert rotary.inv_freq.dtype == rotary.original_inv_freq.dtype == torch.float32
    positions = torch.tensor([[0, 1, 1001, 4001, 30001]])
    cos, sin = rotary(torch.zeros(1, 5, 64, dtype=half), positions)
    assert cos.dtype == sin.dtype == half
    frequencies = 10000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    angles = positions[0, :, None].double() * frequencies
    # float32 rounds an angle of 30001 radians by 1e-3, half precision by 16 and more
    tolerance = torch.finfo(half).eps + 30001 * torch.finfo(torch.float32).eps
    assert (cos[0].double() - torch.cat((angles.cos(), angles.cos()), -1)).abs().max() < tolerance
    assert (sin[0].double() - torch.cat((-angles.sin(), angles.sin()), -1)).abs().max() < tolerance


@torch.no_grad()
def test_a_cast_model_is_the_model_loaded_in_that_type(tmp_path):
    """Check that rotary frequencies stay in float32; rounded ones would rotate late positions by radians too much."""
    model = make_model(MODERN_DIALECT | {"n_positions": 2048})
    loaded = in_half(model, tmp_path, torch.bfloat16)
    late = {"input_ids": torch.arange(20)[None], "position_ids": torch.arange(1500, 1520)[None]}
    assert torch.equal(model.to(torch.bfloat16)(**late).logits, loaded(**late).logits)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.to("meta").model.rotary_emb.inv_freq.is_meta


@both_halves
@both_dialects
def test_loss_computes_in_float32(dialect, half):
    model = make_model(DIALECTS[dialect]).to(half)
    ids = torch.randint(0, V, (64, 64), generator=torch.Generator().manual_seed(0))
    output = model(ids, labels=ids)
    assert output.loss.dtype == torch.float32
    logits = output.logits[:, :-1].double().flatten(0, 1)
    exact = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).item()
    # a sum over 4032 tokens in half precision is off in the second or third digit
    assert output.loss.item() == pytest.approx(exact, rel=1e-5)
    assert model(ids, labels=ids, num_items_in_batch=torch.tensor(7)).loss.item() == pytest.approx(
        exact * 64 * 63 / 7, rel=1e-5
    )


@pytest.mark.parametrize(("weights", "products"), [("float32", None), ("float32", "bfloat16"), ("bfloat16", None)])
@both_dialects
def test_the_loss_without_logits_is_the_loss(dialect, weights, products):
    """Compare loss and gradients with float64; their errors may be as large as those of the plain computation."""
    ids = torch.randint(0, V, (8, 48), generator=torch.Generator().manual_seed(0))  # more rows than are taken at a time
    labels = ids.roll(-1, dims=1).masked_fill(
        torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.3, -100
    )
    inputs = {"input_ids": ids, "labels": labels, "shift_labels": labels, "num_items_in_batch": 77}

    def computed(dtype, autocast, **options):
        model = make_model(DIALECTS[dialect]).to(dtype)
        with torch.autocast("cpu", getattr(torch, autocast or "bfloat16"), enabled=autocast is not None):
            output = model(**inputs, **options)
        assert output.loss.dtype in (torch.float32, torch.float64) and (output.logits is None) == bool(options)
        (0.5 * output.loss).backward()
        return {"loss": output.loss.detach().double()} | {n: p.grad.double() for n, p in model.named_parameters()}

    exact = computed(torch.float64, None)
    plain, ours = (computed(getattr(torch, weights), products, **options) for options in ({}, {"skip_logits": True}))
    for name, value in exact.items():
        error, allowed = (rms(other[name] - value) for other in (ours, plain))
        assert error <= 1.5 * allowed + 1e-6 * rms(value), name


@both_halves
@both_dialects
@torch.no_grad()
def test_autocast_stays_within_the_same_bound(dialect, half):
    model = make_model(DIALECTS[dialect] | {"num_hidden_layers": LAYERS})
    ids = torch.randint(0, V, (8, 48), generator=torch.Generator().manual_seed(0))
    exact = model(ids).logits
    with torch.autocast("cpu", half):
        logits = model(ids).logits.float()
    # the weights are rounded too: seven products a layer and the head
    bound = torch.finfo(half).eps / 2 * math.sqrt(ROUNDINGS + 7 * LAYERS + 1)
    assert 0 < rms(logits - exact) / rms(exact) < bound


@both_halves
def test_no_buffer_is_garbage_after_loading_from_meta(half, tmp_path):
    model = make_model(MODERN_DIALECT | {"n_positions": 128})
    model.save_pretrained(tmp_path)
    before = dict(model.named_buffers())
    for options in ({"dtype": half}, {"device_map": "cpu"}):
        buffers = dict(TinyGPTForCausalLM.from_pretrained(tmp_path, **options).named_buffers())
        assert buffers.keys() == before.keys()
        for name, buffer in buffers.items():
            assert torch.equal(buffer, before[name]) and buffer.dtype == torch.float32, (name, options)
