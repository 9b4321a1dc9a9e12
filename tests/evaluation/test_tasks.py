"""Test the tasks: their data files, their right answers, and the chance level of a uniform model."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from hub_server import HubServer, Repository

import tinygpt_hf
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.basics import BASICS, CLOSING, basics
from tinygpt_hf.evaluation.tasks import choice_task, last_word_task, read_tasks

PAIR = {"sentence_good": "the cat sleeps", "sentence_bad": "the cat sleep", "UID": "agreement", "field": "syntax"}
CLOZE = {"text": "The ____ barks.", "choices": ["cat", "dog", "cup"], "answer": "dog"}


def write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("task", BASICS)
def test_the_small_tasks_are_the_same_every_time_and_no_item_stands_twice(task):
    items = basics(task)
    assert items == basics(task) and len({item.texts[0] for item in items}) == len(items) == 200
    assert items[:20] == basics(task, 20) and items != basics(task, seed=1)
    assert len({len(item.texts) for item in items}) == 1 and all(len({*i.texts}) == len(i.texts) for i in items)


def closes(text: str) -> bool:
    opened: list[str] = []
    for sign in text.split():
        if sign in CLOSING:
            opened.append(sign)
        elif not opened or CLOSING[opened.pop()] != sign:
            return False
    return True


RIGHT = {
    "arithmetic": lambda text: eval(re.findall(r"\d+ \+ \d+", text)[-1]) == int(re.findall(r"\d+", text)[-1]),
    "copying": lambda text: len({*text.rstrip(".").split(". ")}) == 1,
    "brackets": closes,
    "recall": lambda text: text.split("? ")[1].rstrip(".") in text.split(" Who")[0],
}


@pytest.mark.parametrize("task", RIGHT)
def test_the_first_text_is_right_and_no_other(task):
    assert all([*map(RIGHT[task], item.texts)] == [True] + [False] * (len(item.texts) - 1) for item in basics(task))


def uniform(folder):
    """A model to which all tokens are equally likely."""
    model, tokenizer = tinygpt_hf.load(folder)
    torch.nn.init.zeros_(model.lm_head.weight)
    return model, tokenizer


def test_a_uniform_model_reaches_the_chance_level(trained):
    model, tokenizer = uniform(trained["char-30"])  # all texts of an item have as many letters, so all are tied
    same = [i for i in basics("copying") + basics("brackets") if len({*map(len, i.texts)}) == 1]
    result = choice_task(same, model, tokenizer)
    assert result["accuracy"] == pytest.approx(result["chance"]) and result["items"] == len(same) > 200
    learned = choice_task(basics("recall"), *tinygpt_hf.load(trained["bpe-5"]))
    assert learned["low"] < 0.25 < learned["high"] and learned["chance"] == 0.25


def test_blimp_is_read_from_its_own_files_wherever_they_lie(tmp_path, trained):
    both = tinygpt_hf.load(trained["bpe-5"])
    write(tmp_path / "flat" / "agreement.jsonl", PAIR, PAIR | {"sentence_good": "a dog", "UID": "other"})
    write(tmp_path / "flat" / "cloze.jsonl", CLOZE)  # of another task
    write(tmp_path / "deep" / "x.jsonl", {"no": "pair"})
    (tmp_path / "deep" / "blimp").mkdir()
    write(tmp_path / "deep" / "blimp" / "agreement.jsonl", PAIR)
    result = read_tasks(["blimp"], str(tmp_path / "flat"))["blimp"](*both)
    assert set(result["by_paradigm"]) == {"agreement", "other"} and result["chance"] == 0.5
    assert result["low"] < result["accuracy"] < result["high"] or result["accuracy"] in (0, 1)
    assert read_tasks(["blimp"], str(tmp_path / "deep"))["blimp"](*both)["items"] == 1


HUB_READER = """
import json
from tinygpt_hf.evaluation.tasks import read_tasks
items = read_tasks(["blimp"], None)["blimp"].args[0]
print(json.dumps(items))
"""
README = """---
configs:
- config_name: agreement
  data_files: [{split: train, path: agreement.jsonl}]
- config_name: island
  data_files: [{split: train, path: island.jsonl}]
---
"""


def test_without_files_blimp_comes_from_the_hub(tmp_path):
    island = PAIR | {"UID": "island", "sentence_good": "who sleeps"}
    files = {"README.md": README.encode()}
    files |= {f"{row['UID']}.jsonl": json.dumps(row).encode() + b"\n" for row in (PAIR, island)}
    with HubServer() as hub:
        hub.repositories["datasets", "nyu-mll/blimp"] = repository = Repository("nyu-mll", private=False)
        repository.add("main", "put", files)
        online = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
        environment = {**os.environ, **online, "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", HUB_READER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = [[[row["sentence_good"], row["sentence_bad"]], row["UID"]] for row in (PAIR, island)]
    assert json.loads(done.stdout) == wanted


def test_cloze_chooses_the_likeliest_full_text(tmp_path, trained):
    model, tokenizer = tinygpt_hf.load(trained["bpe-60"])
    write(tmp_path / "cloze.jsonl", CLOZE, CLOZE | {"answer": "cup"}, CLOZE | {"answer": "cat"})
    result = read_tasks(["cloze"], str(tmp_path))["cloze"](model, tokenizer)
    assert result["accuracy"] == result["chance"] == pytest.approx(1 / 3)  # each of the three is once right


def test_last_word_is_what_the_model_says_first_token_by_token(tmp_path, trained):
    model, tokenizer = tinygpt_hf.load(trained["bpe-60"])
    long = " ".join(["One day, Mia went to the big farm with Grandpa."] * 6)
    texts = ["One day, Mia found a ball", "a b", "Once there was a dog named Max", long]
    right, nats = [], 0.0
    for text in texts:
        ids, words = tokenizer(text)["input_ids"], text.split()
        known = len(tokenizer(text[: -len(words[-1]) - 1])["input_ids"])
        chances = []
        for k in range(known, len(ids)):
            seen = [tokenizer.eos_token_id, *ids[:-1]][-64:]  # windows end where the text does
            with torch.no_grad():
                row = model(torch.tensor([seen])).logits[0, k - len(ids)].log_softmax(-1)
            chances.append(row)
        nats -= sum(float(row[id]) for row, id in zip(chances, ids[known:], strict=True))
        right.append(all(int(row.argmax()) == id for row, id in zip(chances, ids[known:], strict=True)))
    result = last_word_task(texts, model, tokenizer)
    assert result["accuracy"] == sum(right) / len(texts)
    assert result["perplexity"] == pytest.approx(math.exp(nats / len(texts)), rel=1e-4)
    write(tmp_path / "lambada_test.jsonl", *({"text": text} for text in texts))
    assert read_tasks(["last_word"], str(tmp_path))["last_word"](model, tokenizer) == result


@pytest.mark.parametrize(
    ("task", "row", "problem"),
    [
        ("blimp", {"sentence_good": "a"}, "no text in sentence_bad"),
        ("cloze", CLOZE | {"answer": "horse"}, "no choices with the answer once among them"),
        ("cloze", CLOZE | {"text": "no blank"}, "0 blanks"),
        ("cloze", CLOZE | {"choices": "dog"}, "no choices"),
        ("last_word", {"text": "one"}, "has one word"),
        ("last_word", ["one"], "holds a list"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, task, row, problem):
    write(tmp_path / f"{task}.jsonl", {"blimp": PAIR, "cloze": CLOZE, "last_word": {"text": "a b"}}[task], row)
    with pytest.raises(UsageError, match=problem) as refused:
        read_tasks([task], str(tmp_path))
    assert f"{task}.jsonl, line 2 " in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("task", ["blimp", "cloze", "last_word"])
def test_a_task_without_data_names_the_expected_file(tmp_path, task):
    for folder in (None, str(tmp_path)):
        with pytest.raises(UsageError, match=f"the task {task} has no data.*Give --tasks_dir"):
            read_tasks([task], folder)
    with pytest.raises(UsageError, match="is no folder"):
        read_tasks([task], str(tmp_path / "nowhere"))
