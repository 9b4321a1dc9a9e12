"""Compare a model with itself, with a worse one and with another tokenizer, on documents and on one text."""

import json

import pytest

import tinygpt_hf
from tinygpt_hf.cli import main
from tinygpt_hf.evaluation.compare import compare


def test_a_model_is_not_better_than_itself(trained, unseen, capsys):
    assert main(["compare", trained["bpe-5"], trained["bpe-5"], "--data", unseen]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == "no difference shown" and max(map(len, said[2:])) <= 100
    result = compare(trained["bpe-5"], trained["bpe-5"], unseen)
    assert (result.difference, result.low, result.high) == (0, 0, 0)


def test_the_better_model_is_found_on_either_side_by_what_evaluate_measures(trained, unseen, tmp_path, capsys):
    output = tmp_path / "result.json"
    command = ["compare", trained["bpe-60"], trained["bpe-5"], "--data", unseen, "--output_file", str(output)]
    assert main(command) == 0
    assert "\nA is better\n" in capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result["verdict"] == "A is better" and result["low"] < result["difference"] < result["high"] < 0
    alone = [tinygpt_hf.evaluate(trained[name], unseen)["bits_per_byte"] for name in ("bpe-60", "bpe-5")]
    assert [result["a"], result["b"]] == pytest.approx(alone, rel=1e-9)
    turned = compare(trained["bpe-5"], trained["bpe-60"], unseen)
    assert turned.verdict == "B is better"
    assert (turned.difference, turned.low) == pytest.approx((-result["difference"], -result["high"]), rel=1e-2)


def test_models_with_other_tokenizers_are_compared_on_the_same_bytes(trained, unseen):
    result = compare(trained["bpe-60"], trained["char-30"], unseen, per_device_eval_batch_size=3)
    alone = [tinygpt_hf.evaluate(trained[name], unseen)["bits_per_byte"] for name in ("bpe-60", "char-30")]
    assert [result.a, result.b] == pytest.approx(alone, rel=2e-3)  # one first word more, or less
    assert result.units >= 20 and result.low < result.difference < result.high


def test_documents_are_compared_one_by_one(trained, unseen, tmp_path):
    path = tmp_path / "documents.jsonl"
    texts = open(unseen, encoding="utf-8").read().split("\n")
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = compare(trained["bpe-60"], trained["char-30"], str(path))
    assert (result.units, result.bytes) == (len(texts), sum(len(text.encode()) for text in texts))
    assert compare(trained["bpe-60"], trained["char-30"], texts) == result


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["A"], "there is 1 model (expected two"),
        (["A", "B", "C"], "there are 3 models (expected two"),
        (["A", "B"], "A and B have no common text (expected --data"),
        (["A", "B", "--data", "nowhere.txt"], "nowhere.txt"),
        (["A", "B", "--data", "short.txt"], "documents or blocks to compare on (expected 5 or more"),
    ],
)
def test_what_cannot_be_compared_is_one_line(trained, tmp_path, monkeypatch, capsys, words, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("One day, Mia")
    names = {"A": trained["bpe-5"], "B": trained["char-30"], "C": trained["bpe-5"]}
    assert main(["compare", *(names.get(word, word) for word in words)]) == 2
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1
