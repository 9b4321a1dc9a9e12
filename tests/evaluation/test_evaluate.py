"""`evaluate()` from Python gives what the command writes, and refuses what it does not know."""

import json

import pytest
import torch

import tinygpt_hf
from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, cli
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.evaluate import result_lines


@pytest.fixture(scope="module")
def folder(tiny_tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    TinyGPTForCausalLM(TinyGPTConfig(vocab_size=len(tiny_tokenizer), **shape)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_python_and_the_command_give_the_same_numbers(folder, tiny_text, tmp_path, capsys):
    text, output = tmp_path / "text.txt", tmp_path / "numbers.json"
    text.write_text(tiny_text)
    results = tinygpt_hf.evaluate(folder, text, stride=8)
    assert cli.main(["evaluate", str(folder), "--data", str(text), "--stride", "8", "--output_file", str(output)]) == 0
    assert json.loads(output.read_text()) == results
    assert capsys.readouterr().out.splitlines() == result_lines(results)
    model, tokenizer = tinygpt_hf.load(folder)
    assert len(tokenizer) == model.config.vocab_size


def test_numbers_stand_beside_those_of_the_quantized_model():
    results = {"loss": 1.5, "tokens": 7, "loss_int8": 1.25, "perplexity": None}
    assert result_lines(results, "int8") == [
        "                 full       int8",
        "loss             1.5000     1.2500",
        "tokens           7",
        "perplexity       not finite",
    ]


def test_an_unknown_setting_is_named(folder):
    with pytest.raises(UsageError, match="evaluate\\(\\) got 'windows'"):
        tinygpt_hf.evaluate(folder, "text.txt", windows=3)


def test_settings_are_checked_as_on_the_command_line():
    with pytest.raises(UsageError, match=r"^--dtype is 'fp16' \(expected one of auto, float32, bfloat16, float16"):
        tinygpt_hf.evaluate("nowhere", "text.txt", dtype="fp16")
