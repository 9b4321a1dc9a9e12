"""Compare the sampling distributions with those of Transformers' logits processors."""

import math

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.sampling import Sampling, next_token_distribution, sample_rows, uniform_numbers

SETTINGS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(temperature=2.5),
    Sampling(top_k=5),
    Sampling(top_p=0.7),
    Sampling(top_p=1e-6),
    Sampling(min_p=0.2),
    Sampling(min_p=1.0),
    Sampling(repetition_penalty=1.7),
    Sampling(repetition_penalty=0.6, temperature=0.7),
    Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
    Sampling(temperature=1.4, top_k=1000, top_p=0.95),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_distributions_equal_the_librarys(sampling):
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 3.0, 20.0):
        logits = torch.randn(200, generator=generator) * scale
        seen = torch.randint(0, 200, (30,), generator=generator)
        wanted = steps(seen[None], logits[None].clone())[0].softmax(0)
        found = next_token_distribution(logits, sampling, seen.tolist())
        assert torch.equal(found > 0, wanted > 0)
        assert torch.allclose(found, wanted, atol=1e-6)


def test_a_low_temperature_approaches_the_greedy_choice():
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert next_token_distribution(logits, Sampling(temperature=0)).tolist() == [0, 1, 0]
    assert next_token_distribution(logits * 1e4, Sampling(temperature=1e-30)).tolist() == [0, 1, 0]
    assert next_token_distribution(logits, Sampling(temperature=1e-320)).tolist() == [0, 1, 0]  # 0 in float32


@pytest.mark.parametrize("penalty", [1e-320, 0.0099, 0.01, 100, 101, 1e300])
def test_a_repetition_penalty_is_refused_or_gives_numbers(penalty):
    logits, sampling = torch.tensor([-3e4, 0.0, 3e4]), Sampling(repetition_penalty=penalty)
    if 0.01 <= penalty <= 100:
        sampling.check()
        assert next_token_distribution(logits, sampling, [0, 1, 2]).sum() == 1
    else:
        with pytest.raises(UsageError, match="between 0.01 and 100"):
            sampling.check()


def test_choice_follows_the_distribution_and_never_takes_the_impossible():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    uniforms = uniform_numbers(3, 0)
    drawn = torch.bincount(
        torch.tensor([sample_rows(probabilities[None], [next(uniforms)])[0] for _ in range(4000)]), minlength=6
    )
    assert (drawn[probabilities == 0] == 0).all()
    assert torch.allclose(drawn / 4000, probabilities, atol=0.03)


def test_impossible_settings_are_reported_together():
    with pytest.raises(UsageError) as error:
        Sampling(temperature=-1, top_p=0, top_k=-2, min_p=2, repetition_penalty=0).check()
    assert [line.split(" (")[0] for line in str(error.value).splitlines()] == [
        "temperature is -1", "top_k is -2", "top_p is 0", "min_p is 2", "repetition_penalty is 0",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="temperature is nan"):
        Sampling(temperature=math.nan).check()
