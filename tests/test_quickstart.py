"""The quickstart in small, and its grader: right answers pass, wrong ones fail, questions are held out."""

import json
import random

from tinygpt_hf import quickstart
from tinygpt_hf.cli import main
from tinygpt_hf.evaluation.answers import is_right
from tinygpt_hf.toyland import corpus as toyland


def question_text(question: dict) -> str:
    return " ".join(message["content"] for message in question["messages"])


def test_quickstart_end_to_end_in_small(tmp_path, capsys, monkeypatch):
    for name, size in {"STORIES": 4, "PAIRS": 10, "QUESTIONS": 6, "STORY_TOKENS": 24, "ANSWER_TOKENS": 6}.items():
        monkeypatch.setattr(quickstart, name, size)
    flags = """--max_steps 4 --max_train_samples 300 --vocab_size 500 --block_size 64 --hidden_size 32 --num_hidden_layers 1
        --num_attention_heads 2 --validation_split_percentage 10 --eval_steps 2 --sample_tokens 4 --device cpu"""
    command = ["quickstart", "--output_dir", str(tmp_path / "q"), *flags.split()]
    assert main(command) == 0
    out = capsys.readouterr().out
    measures = (
        "coherent stories, of 4",
        "32 characters",
        "grammar, 10 pairs of sentences",
        "right answers to 6 questions",
    )
    for words in (*measures, "> Who are you?", "tinygpt chat"):
        assert words in out
    measures = json.loads((tmp_path / "q" / "run.json").read_text())["measures"]
    assert [entry["name"].split(",")[0] for entry in measures][:2] == ["coherent stories", "grammar"]
    assert all(0 <= entry["low"] <= entry["share"] <= entry["high"] <= 1 for entry in measures)
    card = (tmp_path / "q" / "README.md").read_text()
    assert f"{measures[1]['share']:.1%} ({measures[1]['low']:.1%} to {measures[1]['high']:.1%})" in card
    assert main(command) == 0  # measures again, trains nothing
    assert "already finished" in capsys.readouterr().err


def test_reference_answers_are_right_and_others_are_not():
    questions = toyland.questions(3, 300)
    assert all(is_right(q["answer"], q["answer"], q["accept"], question_text(q)) for q in questions)
    answers = [q["answer"] for q in questions]
    random.Random(0).shuffle(answers)
    pairs = zip(answers, questions, strict=True)
    wrong = sum(is_right(answer, q["answer"], q["accept"], question_text(q)) for answer, q in pairs)
    assert wrong / len(questions) < 0.1  # "I do not know" is right now and then


def test_questions_are_held_out():
    heard = {m["content"] for d in toyland.documents(42, 3000) for m in d.get("messages", ()) if m["role"] == "user"}
    stories = [q["messages"][0]["content"] for q in toyland.questions(3, 300)]
    long = [text for text in stories if len(text.split()) > 20]
    assert len(long) > 150 and not heard.intersection(long)
