"""Many prompts at once give what each gives alone."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.inference.batched import complete_all


def tokenizer():
    words = ["<|endoftext|>", "<|pad|>", *"abcdefghij"]
    core = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|pad|>")


def test_a_batch_answers_as_each_prompt_alone():
    torch.manual_seed(0)
    tok = tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(tok)}
    model = TinyGPTForCausalLM(TinyGPTConfig(**shape, initializer_range=0.3)).eval()
    prompts = [[2, 3, 4], [5], [6, 7, 8, 9, 10], [11, 2]]
    alone = [complete_all(model, tok, [prompt], 8)[0] for prompt in prompts]
    assert complete_all(model, tok, prompts, 8, batch_size=4) == alone
    assert complete_all(model, tok, prompts, 8, batch_size=3) == alone
    assert len(set(alone)) > 1


def test_sampling_depends_on_the_seed_alone():
    torch.manual_seed(0)
    tok = tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": len(tok)}
    model = TinyGPTForCausalLM(TinyGPTConfig(**shape)).eval()
    made = [complete_all(model, tok, [[2], [3]], 8, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    torch.manual_seed(99)
    assert made[0] == made[1] == complete_all(model, tok, [[2], [3]], 8, temperature=1.0, seed=1) and made[0] != made[2]
