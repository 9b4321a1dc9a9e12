"""Test the proof: rounding passes, every planted error fails, and a tie of two tokens passes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinygpt_hf.export import stock as stock_format
from tinygpt_hf.export import verify
from tinygpt_hf.export.reference import TOLERANCE, write_reference

LAYER = "model.layers.1."
HEADS, HEAD = 4, 8  # of the tiny model


def weight(name: str, change):
    """Return an error that changes one weight of the second layer."""
    return lambda config, weights: weights.update({LAYER + name: change(weights[LAYER + name])})


def exchange(one: str, two: str):
    def fault(config, weights):
        weights[LAYER + one], weights[LAYER + two] = weights[LAYER + two], weights[LAYER + one]

    return fault


def rotary_base(config, weights):
    config["rope_parameters"]["rope_theta"] *= 1.01


FAULTS = {
    "two heads swapped": weight("self_attn.q_proj.weight", lambda w: w.view(HEADS, HEAD, -1)[[1, 0, 2, 3]].reshape(w.shape)),
    "rotary halves interleaved": weight(
        "self_attn.k_proj.weight", lambda w: w.view(HEADS, 2, HEAD // 2, -1).transpose(1, 2).reshape(w.shape)
    ),
    "another rotary base": rotary_base,
    "another epsilon": lambda config, weights: config.update(rms_norm_eps=1.1e-3),
    "a missing norm": weight("post_attention_layernorm.weight", torch.ones_like),
    "keys without their norm": weight("self_attn.k_norm.weight", torch.ones_like),
    "gate and up exchanged": exchange("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "another activation": lambda config, weights: config.update(hidden_act="gelu"),
    "one matrix in half precision": weight("mlp.down_proj.weight", lambda w: w.bfloat16().float()),
    "one number off by a thousandth": weight(
        "mlp.up_proj.weight", lambda w: w + 1e-3 * (torch.arange(w.numel()) == 99).view(w.shape)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(make_model, tiny_tokenizer, tmp_path_factory):
    """Write a stock Qwen3 model and its reference outputs; return the folder."""
    folder, model = tmp_path_factory.mktemp("exported"), make_model(tiny_tokenizer)
    assert (model.config.num_attention_heads, model.config.head_dim) == (HEADS, HEAD)
    stock_format.write(model, tiny_tokenizer, folder)
    write_reference(model, tiny_tokenizer, folder)
    return folder


def test_an_honest_export_is_about_as_exact_as_the_model(exported):
    result = verify.prove(verify.Stock(exported), exported)
    assert result["unequal"] is None and result["greedy_tokens"] == 64
    assert 0 < result["logit_difference"] < 3 * result["rounding"] < 1e-4


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_fails(exported, tmp_path, fault):
    for path in exported.iterdir():
        (tmp_path / path.name).symlink_to(path)
    config, weights = json.loads((exported / "config.json").read_text()), load_file(exported / "model.safetensors")
    FAULTS[fault](config, weights)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    result = verify.prove(verify.Stock(tmp_path), exported)
    assert "the logits, by" in result["unequal"]
    assert result["logit_difference"] > 3 * TOLERANCE * result["rounding"]


class Other(verify.Stock):
    """A runtime whose logits are off by `error`, and which selects the second-best token at `tie` of the first prompt."""

    error, tie = 0.0, None

    def logits(self, ids):
        return [logits + self.error for logits in super().logits(ids)]

    def greedy(self, prompts, count):
        [ids] = super().greedy(prompts, count)
        if self.tie is not None and prompts == self.prompts[:1]:
            ids[self.tie :] = [7] * (count - self.tie)
        return [ids]


def test_rounding_and_ties_are_no_fault(exported, tmp_path):
    expected = json.loads((exported / "reference.json").read_text())
    (tmp_path / "reference.safetensors").symlink_to(exported / "reference.safetensors")
    runtime = Other(exported)
    runtime.prompts = expected["prompts"]
    for times, fails in [(TOLERANCE - 2, False), (TOLERANCE + 2, True)]:
        runtime.error = times * expected["rounding"]
        assert bool(verify.prove(runtime, exported)["unequal"]) == fails
    runtime.error, runtime.tie = 0.0, 5
    for margin, words in [(1.9, None), (2.1, "the greedy tokens of prompt 0 in a batch of 1, from token 6 on")]:
        expected["margins"][0][5] = margin * expected["tolerance"]
        (tmp_path / "reference.json").write_text(json.dumps(expected))
        result = verify.prove(runtime, tmp_path)
        assert (result["unequal"], result["greedy_tokens"]) == (words, 5)
