"""`evaluate()` from Python gives what the command writes, and refuses what it does not know."""

import json

import pytest

import tinygpt_hf
from tinygpt_hf import cli
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.evaluate import result_lines


def test_python_and_the_command_give_the_same_numbers(tiny_folder, tiny_text, tmp_path, capsys):
    text, output = tmp_path / "text.txt", tmp_path / "numbers.json"
    text.write_text(tiny_text)
    results = tinygpt_hf.evaluate(tiny_folder, text, stride=8)
    assert (
        cli.main(["evaluate", str(tiny_folder), "--data", str(text), "--stride", "8", "--output_file", str(output)])
        == 0
    )
    assert json.loads(output.read_text()) == results
    assert capsys.readouterr().out.splitlines() == result_lines(results)
    model, tokenizer = tinygpt_hf.load(tiny_folder)
    assert len(tokenizer) == model.config.vocab_size


def test_numbers_stand_beside_those_of_the_quantized_model():
    results = {"loss": 1.5, "tokens": 7, "loss_int8": 1.25, "perplexity": None}
    assert result_lines(results, "int8") == [
        "                 full       int8",
        "loss             1.5000     1.2500",
        "tokens           7",
        "perplexity       not finite",
    ]


@pytest.mark.parametrize(
    "settings, words", [({"windows": 3}, "got 'windows'"), ({"dtype": "fp16"}, "--dtype is 'fp16'")]
)
def test_settings_are_checked_as_on_the_command_line(settings, words):
    with pytest.raises(UsageError, match=words):
        tinygpt_hf.evaluate("nowhere", "text.txt", **settings)
