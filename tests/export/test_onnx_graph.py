"""Test ONNX graphs in ONNX Runtime: the model's logits and greedy tokens, with cache, padding and batches."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.export import onnx_graph as onnx_format
from tinygpt_hf.export import verify
from tinygpt_hf.export.reference import write_reference
from tinygpt_hf.model.conversion import DIALECTS, to_stock

# no stock architecture norms q and k and has biases in its MLP: the graph is traced from TinyGPT itself
OWN = {"mlp_bias": True, "num_key_value_heads": 2, "head_dim": 12, "rope_parameters": {"rope_theta": 77.0}}


@pytest.fixture(scope="module", params=["own", "gpt2"])
def exported(request, make_model, tiny_tokenizer, tmp_path_factory):
    """Return (model, folder) of a model traced directly, and of one traced as its equal stock model."""
    model = make_model(tiny_tokenizer, num_hidden_layers=1, **(OWN if request.param == "own" else DIALECTS["gpt2"]))
    folder = tmp_path_factory.mktemp("onnx")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert onnx_format.write(model, tiny_tokenizer, folder) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return model, folder


def test_the_folder_is_proved_and_the_proof_sees_what_is_wrong(exported, tiny_tokenizer, tmp_path):
    model, folder = exported
    write_reference(model, tiny_tokenizer, tmp_path)
    result = verify.prove(verify.Onnx(folder), tmp_path)
    assert result["logit_difference"] < 1e-5
    assert (result["unequal"], result["greedy_tokens"], result["prompts"] > 1) == (None, 64, True)

    values = json.loads((tmp_path / "reference.json").read_text())
    for name, at, words in [("token_ids", 0, "token ids"), ("greedy", 40, "token 41")]:
        values[name][0][at] += 1
        (tmp_path / "reference.json").write_text(json.dumps(values))
        assert words in verify.prove(verify.Onnx(folder), tmp_path)["unequal"]


def test_the_graph_reads_padded_batches_of_any_size_and_length(exported):
    """Compute the model's own logits with the same mask, prompt and continuation."""
    model, folder = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    caches = [spec for spec in session.get_inputs() if "past_key_values" in spec.name]
    for batch, length, padding in [(1, 1, 0), (3, 9, 0), (2, 7, 3)]:
        ids = torch.randint(4, model.config.vocab_size, (batch, length + 2))
        mask = torch.ones_like(ids)
        mask[0, :padding] = 0
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        with torch.no_grad():
            expected = model(ids, attention_mask=mask, position_ids=positions).logits
        cache = [np.zeros((batch, int(c.shape[1]), 0, int(c.shape[3])), np.float32) for c in caches]
        for start, end in [(0, length), (length, length + 2)]:
            feeds = dict(zip([c.name for c in caches], cache, strict=True))
            feeds |= {"input_ids": ids[:, start:end].numpy(), "attention_mask": mask[:, :end].numpy()}
            logits, *cache = session.run(None, feeds | {"position_ids": positions[:, start:end].numpy()})
            read = mask[:, start:end].bool().numpy()
            assert np.abs(logits - expected[:, start:end].numpy())[read].max() < 1e-5


def test_the_folder_names_no_code_of_ours(exported):
    model, folder = exported
    config = json.loads((folder / "config.json").read_text())
    assert "auto_map" not in config and "_name_or_path" not in config  # where it was loaded from is not told
    assert config["architectures"] == ["GPT2LMHeadModel" if config["model_type"] == "gpt2" else "TinyGPTForCausalLM"]
    assert not list(folder.glob("*.py"))
    assert config["model_type"] == ("gpt2" if model.config.norm_type == "layernorm" else "tinygpt")
    assert {"generation_config.json", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in folder.iterdir()
    }


def test_check_says_what_is_traced(make_model, tiny_tokenizer):
    model = make_model(tiny_tokenizer)
    assert "Qwen3ForCausalLM" in onnx_format.check(model, tiny_tokenizer)
    assert "Qwen3ForCausalLM" in onnx_format.check(to_stock(model), tiny_tokenizer)
    assert "TinyGPTForCausalLM" in onnx_format.check(make_model(tiny_tokenizer, **OWN), tiny_tokenizer)


def test_angles_that_grow_with_the_length_are_refused(make_model, tiny_tokenizer):
    growing = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(UsageError, match="rope_type dynamic"):
        onnx_format.check(make_model(tiny_tokenizer, rope_parameters=growing), tiny_tokenizer)
