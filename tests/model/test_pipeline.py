"""Test `pipeline("text-generation")` on our folders with texts, messages, batches and streaming."""

import threading

import pytest
from talker import ANSWERS, CONTEXT, SHAPES, train_talker
from transformers import TextIteratorStreamer, pipeline

from tinygpt_hf.inference.generation import Sampling, sample_text
from tinygpt_hf.inference.session import Session
from tinygpt_hf.settings.inference import ChatArguments

PROMPTS = ["One day", "Pip took the ball to Anna. Anna was", "They", "Then Pip ran home, ate a bone and"]
GREEDY = {"do_sample": False, "max_new_tokens": 40}


@pytest.fixture(scope="module", params=list(SHAPES))
def made(request, tmp_path_factory):
    """Return (pipeline on a saved folder, model, tokenizer)."""
    folder = tmp_path_factory.mktemp("talker")
    model, tokenizer = train_talker(folder, request.param)
    return pipeline("text-generation", model=str(folder), device="cpu"), model, tokenizer


def continued(made, prompt: str) -> str:
    return sample_text(made[1], made[2], prompt, Sampling(temperature=0), max_new_tokens=40)


def answered(made, question: str) -> str:
    session = Session(made[1], made[2], ChatArguments(temperature=0.0, max_new_tokens=40))
    return "".join(step.text for step in session.ask(question))


@pytest.mark.parametrize("size", [1, 4])
def test_texts_one_by_one_and_in_a_batch(made, size):
    results = made[0](PROMPTS, batch_size=size, return_full_text=False, **GREEDY)
    assert [rows[0]["generated_text"] for rows in results] == [continued(made, prompt) for prompt in PROMPTS]
    assert len({len(made[2](prompt)["input_ids"]) for prompt in PROMPTS}) > 1  # a batch must pad
    assert made[0].tokenizer.padding_side == "left" and made[0].tokenizer.pad_token_id is not None


@pytest.mark.parametrize("size", [1, 4])
def test_messages_one_by_one_and_in_a_batch(made, size):
    talks = [[{"role": "user", "content": question}] for question in ANSWERS]
    talks.append([*talks[0], {"role": "assistant", "content": "Hi, I am Pip."}, *talks[1]])
    results = [rows[0]["generated_text"] for rows in made[0](talks, batch_size=size, **GREEDY)]
    assert [talk[:-1] for talk in results] == talks
    answers = [talk[-1] for talk in results]
    assert answers[:-1] == [{"role": "assistant", "content": answered(made, question)} for question in ANSWERS]
    assert [answer["content"] for answer in answers[:-1]] == list(ANSWERS.values())  # and it stops by itself
    session = Session(made[1], made[2], ChatArguments(temperature=0.0, max_new_tokens=40))
    session.messages = talks[-1][:-1]
    assert answers[-1]["content"] == "".join(step.text for step in session.ask("Who are you?"))


@pytest.mark.parametrize("what", ["text", "messages"])
def test_streamed(made, what):
    """Check that the answer streams in several pieces, which join to the full text."""
    given = PROMPTS[0] if what == "text" else [{"role": "user", "content": "Where is the ball?"}]
    streamer = TextIteratorStreamer(made[2], skip_prompt=True, skip_special_tokens=True, timeout=200)
    thread = threading.Thread(target=made[0], args=(given,), kwargs=GREEDY | {"streamer": streamer})
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(pieces) == (continued(made, given) if what == "text" else answered(made, "Where is the ball?"))


def test_where_the_context_ends(made):
    """Check that text ends at the last learned position but not with RoPE, and that a longer prompt is an error."""
    pipe, model, tokenizer = made
    learned = model.config.position_embedding_type == "learned"
    never_ends = {"do_sample": False, "max_new_tokens": CONTEXT, "return_tensors": True, "eos_token_id": []}
    for more in ({}, {"num_beams": 2}):
        ((row,),) = pipe(["One day"], **never_ends, **more)
        prompt = len(tokenizer("One day")["input_ids"])
        assert len(row["generated_token_ids"]) == (CONTEXT if learned else prompt + CONTEXT)
    if learned:
        with pytest.raises(ValueError, match=f"tokens are too many: the model has {CONTEXT} learned positions"):
            pipe("Pip " * CONTEXT, max_new_tokens=1)
