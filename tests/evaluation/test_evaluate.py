"""Test that `evaluate()` gives the numbers of the command, and refuses invalid input."""

import json
import math

import pytest
import torch

import tinygpt_hf
from tinygpt_hf.cli import main
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.evaluate import result_lines


def test_python_and_the_command_give_the_same_numbers(tiny_folder, tiny_text, tmp_path, capsys):
    text, output = tmp_path / "text.txt", tmp_path / "numbers.json"
    text.write_text(tiny_text)
    results = tinygpt_hf.evaluate(tiny_folder, text, stride=8)
    assert main(["evaluate", str(tiny_folder), "--data", str(text), "--stride", "8", "--output_file", str(output)]) == 0
    assert json.loads(output.read_text()) == results
    assert capsys.readouterr().out.splitlines() == result_lines(results)
    model, tokenizer = tinygpt_hf.load(tiny_folder)
    assert len(tokenizer) == model.config.vocab_size


def test_numbers_stand_beside_those_of_the_quantized_model():
    numbers = {
        "loss": 1.5,
        "tokens": 7,
        "blocks": 2,
        "loss_low": 1.25,
        "loss_high": 1.75,
        "loss_int8": 1.25,
        "perplexity": None,
    }
    assert result_lines({"models": [{"model": "a"} | numbers]}, "int8")[:-1] == [
        "                       value   95 % interval             int8",
        "loss                  1.5000   1.2500 to 1.7500        1.2500",
        "tokens                     7",
        "blocks                     2",
        "perplexity        not finite",
    ]


NUMBERS = ("loss", "perplexity", "bits_per_byte", "accuracy", "top5_accuracy", "calibration_error")


def test_numbers_are_those_of_the_plain_definition_with_an_interval_each(trained, unseen):
    model, tokenizer = tinygpt_hf.load(trained["bpe-60"])
    text = open(unseen, encoding="utf-8").read()
    ids = torch.tensor(tokenizer(text)["input_ids"])
    chances, labels = [], ids[1:]
    for start in range(0, len(labels), 64):
        with torch.no_grad():
            chances.append(model(ids[None, start : min(start + 64, len(labels))]).logits[0].double().softmax(-1))
    chances = torch.cat(chances)
    confidence, first = chances.max(-1)
    right = (first == labels).double()
    bins = (confidence * 15).long().clamp(max=14)
    gaps = [abs(float((confidence - right)[bins == k].sum())) for k in range(15)]
    results = tinygpt_hf.evaluate(trained["bpe-60"], unseen)
    nats = -chances.gather(1, labels[:, None]).log()
    assert results["bytes"] == len(text.encode()) - len(tokenizer.decode(ids[:1]).encode())
    assert results["bits_per_byte"] == pytest.approx(float(nats.sum()) / math.log(2) / results["bytes"], rel=1e-5)
    assert results["accuracy"] == pytest.approx(float(right.mean()), abs=1e-4)
    among = (chances.topk(5).indices == labels[:, None]).any(-1).double().mean()
    assert results["top5_accuracy"] == pytest.approx(float(among), abs=1e-4)
    assert results["calibration_error"] == pytest.approx(sum(gaps) / len(labels), abs=1e-4)
    for name in NUMBERS:
        assert results[f"{name}_low"] < results[name] < results[f"{name}_high"]


def test_the_batch_changes_nothing(trained, unseen):
    one, other = (tinygpt_hf.evaluate(trained["bpe-5"], unseen, per_device_eval_batch_size=size) for size in (1, 7))
    for name in [f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")]:
        assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_several_models_make_one_table_of_80_columns(trained, unseen, tmp_path, capsys):
    output, names = tmp_path / "numbers.json", [trained["bpe-60"], trained["char-30"]]
    assert main(["evaluate", *names, "--data", unseen, "--tasks", "copying", "--output_file", str(output)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert max(map(len, said)) <= 80
    assert [line.split()[0][-8:] for line in said[1:3]] == [name[-8:] for name in names]
    assert any(line.startswith("Tokenizers differ") for line in said)
    results = json.loads(output.read_text())
    assert [entry["model"] for entry in results["models"]] == names and "loss" not in results
    alone = tinygpt_hf.evaluate(names[1], unseen, tasks=["copying"])
    assert alone["models"] == results["models"][1:] and alone["loss"] == alone["models"][0]["loss"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no MODEL is given"),
        (["A"], "there is no --data (expected a UTF-8 text file, or --tasks)"),
        (["A", "A"], "2 models have no common text (expected --data"),
        (["A", "--tasks", "blimps"], "there is no task 'blimps'"),
        (["A", "--memorization"], "holds no training rows"),
    ],
)
def test_what_cannot_be_measured_is_one_line(trained, capsys, words, problem):
    assert main(["evaluate", *(trained["bpe-5"] if word == "A" else word for word in words)]) == 2
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1


def test_a_model_larger_than_memory_is_one_line(trained, unseen, monkeypatch, capsys):
    monkeypatch.setattr("tinygpt_hf.model.memory.available_memory", lambda device: (1000, 0))
    assert main(["evaluate", trained["bpe-5"], "--data", unseen]) == 2
    assert "take" in (said := capsys.readouterr().err) and "which is free" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "settings, words", [({"windows": 3}, "got 'windows'"), ({"dtype": "fp16"}, "--dtype is 'fp16'")]
)
def test_settings_are_checked_as_on_the_command_line(settings, words):
    with pytest.raises(UsageError, match=words):
        tinygpt_hf.evaluate("nowhere", "text.txt", **settings)
