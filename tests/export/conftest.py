"""Make tiny models in which every weight affects the logits."""

import pytest
import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}


@pytest.fixture(scope="session")
def make_model():
    """Return a function that makes a model from a tokenizer and config fields, with random norms and biases."""

    def make(tokenizer, **fields) -> TinyGPTForCausalLM:
        torch.manual_seed(0)
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        sizes = SHAPE | ids | {"rms_norm_eps": 1e-3, "vocab_size": len(tokenizer)}
        model = TinyGPTForCausalLM(TinyGPTConfig(**sizes | fields))
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        return model.eval()

    return make
