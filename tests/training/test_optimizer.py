"""The optimizer equals torch's Muon and AdamW; every parameter is in one group; schedules equal those of Transformers."""

import math

import pytest
import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.settings.arguments import ModelArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training.optimizer import (
    MuonAdamW,
    learning_rate_factor,
    make_optimizer,
    orthogonalize,
    parameter_groups,
)


def small_model(**changes) -> TinyGPTForCausalLM:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    return TinyGPTForCausalLM(TinyGPTConfig(**{**shape, **changes}))


def test_muon_equals_torch_muon():
    shapes = [(64, 32), (64, 32), (32, 64), (48, 48)]
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    group = {"params": ours, "muon": True, "lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizer = MuonAdamW([group], betas=(0.9, 0.95), eps=1e-8)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.9)
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        reference.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_other_groups_equal_torch_adamw():
    torch.manual_seed(0)
    settings = TrainingArguments(optim="adamw", learning_rate=1e-2, weight_decay=0.1, adam_beta1=0.9)
    model, (_, training) = small_model(), filled(ModelArguments(), settings)
    twin = small_model()
    twin.load_state_dict(model.state_dict())
    optimizer = make_optimizer(model, training, "no")
    decayed = [p for n, p in twin.named_parameters() if p.ndim == 2 and "embed" not in n]
    plain = [p for n, p in twin.named_parameters() if p.ndim != 2 or "embed" in n]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    ids = torch.arange(20).view(2, 10)
    for _ in range(3):
        for net, opt in ((model, optimizer), (twin, reference)):
            opt.zero_grad()
            net(ids, labels=ids).loss.backward()
            opt.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalized_matrices_have_singular_values_near_one(dtype):
    torch.manual_seed(0)
    for shape in ((3, 16, 40), (3, 40, 16)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), dtype).float())
        assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optim", ["muon", "adamw"])
def test_every_parameter_is_in_exactly_one_group(tied, optim):
    model = small_model(
        tie_word_embeddings=tied, attention_bias=True, norm_type="layernorm", position_embedding_type="learned"
    )
    _, training = filled(ModelArguments(), TrainingArguments(optim=optim, weight_decay=0.1))
    groups = parameter_groups(model, training)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group in groups:
        for name in group["names"]:
            is_embedding = "embed" in name
            is_matrix = model.get_parameter(name).ndim == 2
            assert group["muon"] == (optim == "muon" and is_matrix and ".layers." in name)
            assert (group["weight_decay"] > 0) == (is_matrix and not is_embedding)


def factor(
    step: int, max_steps: int, name: str, warmup: int = 0, minimum: float = 0.0, decay: int | None = None
) -> float:
    training = TrainingArguments(lr_scheduler_type=name, warmup_steps=warmup, min_learning_rate_ratio=minimum)
    return learning_rate_factor(training, step, max_steps, decay)


def test_schedules_equal_values_by_hand():
    assert [factor(s, 10, "constant", warmup=3) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(0, 10, "cosine") == 1.0
    assert factor(5, 10, "cosine") == pytest.approx(0.5)
    assert factor(5, 10, "cosine", minimum=0.1) == pytest.approx(0.55)
    assert factor(6, 10, "linear", warmup=2) == pytest.approx(0.5)
    stable = [factor(s, 10, "warmup_stable_decay", warmup=1, decay=4) for s in range(10)]
    assert stable == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_schedules_equal_those_of_transformers(name):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=20)
    for step in range(20):
        assert factor(step, 20, name) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_the_learning_rate_never_rises_after_the_warmup():
    for name in ("cosine", "linear", "warmup_stable_decay"):
        rates = [factor(s, 100, name, warmup=10) for s in range(10, 100)]
        assert (
            all(a >= b for a, b in zip(rates, rates[1:], strict=False))
            and rates[-1] < 0.1
            and not math.isnan(rates[-1])
        )
