"""Text -> tokenizer -> 20 steps -> resume -> pipeline -> one chat turn, through the command line."""

import json

import pytest

from tinygpt_hf.cli import main
from tinygpt_hf.toyland import corpus as toyland


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    kept = [{k: d[k] for k in ("text", "messages") if k in d} for d in toyland.documents(1, 300)]
    path.write_text("".join(json.dumps(document) + "\n" for document in kept))
    return path


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    config = home / "mine.yaml"
    config.write_text(
        f"model: {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2}}\n"
        f"data: {{train_file: [{corpus}], block_size: 64}}\n"
        "tokenizer: {vocab_size: 400}\n"
        "training: {max_steps: 10, per_device_train_batch_size: 8, learning_rate: 3e-3, device: cpu, sample_tokens: 4}\n"
    )
    run = home / "run"
    assert main(["train-tokenizer", "--config", str(config), "--output_dir", str(run / "tokenizer")]) == 0
    assert main(["train", "--config", str(config), "--output_dir", str(run)]) == 0
    assert main(["train", "--config", str(config), "--output_dir", str(run), "--max_steps", "20"]) == 0
    return run


def test_the_run_was_resumed(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "loss" in line] == [10, 20]
    assert json.loads((folder / "run.json").read_text())["result"]["steps"] == 20


def test_the_pipeline_speaks(folder):
    from transformers import pipeline

    generator = pipeline("text-generation", model=str(folder), device="cpu")
    text = generator("One day,", max_new_tokens=8, do_sample=False)[0]["generated_text"]
    assert text.startswith("One day,") and len(text) > len("One day,")
    chat = [{"role": "user", "content": "Who are you?"}]
    answer = generator(chat, max_new_tokens=8, do_sample=False)[0]["generated_text"][-1]
    assert answer["role"] == "assistant"
    both = generator(["One day,", "The"], max_new_tokens=8, do_sample=False, batch_size=2)  # padded on the left
    assert both[0][0]["generated_text"] == text


def test_generate_evaluate_and_chat(folder, tmp_path, capsys):
    assert main(["generate", str(folder), "--prompt", "One day,", "--max_new_tokens", "5", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("One day,")
    text, output = tmp_path / "text.txt", tmp_path / "numbers.json"
    text.write_text("One day, Tom went to the park. " * 9)
    assert main(["evaluate", str(folder), "--data", str(text), "--output_file", str(output), "--device", "cpu"]) == 0
    numbers = json.loads(output.read_text())
    assert numbers["bytes"] > 200 and numbers["perplexity"] > 1
    assert main(["chat", str(folder), "--prompt", "Hello!", "--max_new_tokens", "5", "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    "words,message",
    [
        ("generate {run}", "the prompt is empty"),
        ("generate /nowhere/model --prompt x", "does not exist"),
        ("evaluate {run} --data /nowhere.txt", "cannot be read"),
        ("chat {run} --prompt=", "empty"),
        ("train --config {run}/run.yaml --output_dir {run}/rows", "(it holds "),
    ],
)
def test_mistakes_are_one_line_and_status_2(folder, capsys, words, message):
    before = sorted(str(path) for path in folder.rglob("*"))
    assert main(words.format(run=folder).split()) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and error.count("\n") == 0
    assert sorted(str(path) for path in folder.rglob("*")) == before
