"""The split of a document depends on its content alone, not on its position or on other documents."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import split as corpus
from tinygpt_hf.reading.formats import row_document

DOCUMENTS = [{"text": f"document number {k}"} for k in range(4000)]
CHATS = [{"messages": [{"role": "user", "content": f"question {k}"}]} for k in range(4000)]


def split_all(documents, how, percentage) -> list:
    return [part for document in documents for part in corpus.split(document, how, percentage)]


def held_out(documents, percentage=5.0) -> list:
    return [d for part, d in split_all(documents, "hash", percentage) if part == "validation"]


@pytest.mark.parametrize("documents", [DOCUMENTS, CHATS], ids=["text", "messages"])
def test_the_hash_split_has_the_size_asked_for(documents):
    for percentage in (1.0, 5.0, 50.0):
        share = len(held_out(documents, percentage)) / len(documents)
        assert (
            abs(share - percentage / 100) < 4 * (percentage / 100 / len(documents)) ** 0.5
        )  # four standard deviations


def test_the_hash_split_does_not_depend_on_order_or_growth():
    before = held_out(DOCUMENTS[:2000])
    shuffled = random.Random(0).sample(DOCUMENTS[:2000], 2000)
    assert sorted(d["text"] for d in held_out(shuffled)) == sorted(d["text"] for d in before)
    assert held_out(DOCUMENTS)[: len(before)] == before
    larger = held_out(DOCUMENTS, 10.0)
    assert all(d in larger for d in before)  # a larger part holds the smaller


def test_copies_of_a_document_are_on_one_side():
    parts = {}
    for part, document in split_all(DOCUMENTS * 2, "hash", 20.0):
        parts.setdefault(document["text"], set()).add(part)
    assert all(len(sides) == 1 for sides in parts.values())
    assert {side for sides in parts.values() for side in sides} == {"train", "validation"}


def test_where_a_document_comes_from_does_not_matter():
    assert corpus.content_hash({"text": "x", "origin": "a"}) == corpus.content_hash({"text": "x", "origin": "b"})
    assert corpus.content_hash({"text": "x"}) != corpus.content_hash({"text": "y"})
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    more = row_document(
        {"messages": [{**message, "id": 3, "name": None} for message in said]}, None, "x"
    )  # fields that are not hashed
    assert corpus.content_hash({"messages": said}) == corpus.content_hash(more)
    assert corpus.content_hash({"messages": said}) != corpus.content_hash({"messages": said[:1]})
    assert corpus.content_hash({"text": "x"}, "weight") != corpus.content_hash({"text": "x"}, "validation")


def test_the_split_does_not_change_between_versions():
    """Compare with recorded numbers, so that a run resumed under a later version finds the same split."""
    assert round(corpus.content_hash({"text": "Once upon a time"}, "validation"), 6) == 0.546918
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert round(corpus.content_hash({"messages": said}, "validation"), 6) == 0.172688


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300), percentage=st.floats(0.01, 99.9))
def test_the_tail_is_cut_at_one_character_and_nothing_is_lost(text, percentage):
    parts = {part: piece["text"] for part, piece in corpus.split({"text": text}, "tail", percentage)}
    assert parts.get("train", "") + parts.get("validation", "") == text
    assert abs(len(parts.get("validation", "")) - len(text) * percentage / 100) <= 1


def test_the_tail_of_shakespeare_is_where_others_cut_it():
    assert corpus.tail_border(1_115_394, 10.0) == 1_003_854


def test_a_document_cut_by_its_tail_comes_as_two():
    document = {"text": "0123456789", "origin": "here"}
    assert list(corpus.split(document, "tail", 20.0)) == [
        ("train", {"text": "01234567", "origin": "here"}),
        ("validation", {"text": "89", "origin": "here"}),
    ]
    assert [part for part, _ in corpus.split({"text": ""}, "tail", 20.0)] == []
    assert [part for part, _ in corpus.split({"text": "x"}, "tail", 20.0)] == ["validation"]
    assert {part for part, _ in split_all(DOCUMENTS, "hash", 0)} == {"train"}
    with pytest.raises(UsageError, match="validation_split is tail, and here is a conversation"):
        list(corpus.split(CHATS[0] | {"origin": "here"}, "tail", 20.0))


def test_few_texts_are_split_by_their_tails_and_many_by_hash():
    for documents, wanted, how in (
        (DOCUMENTS[:1], None, "tail"),
        (DOCUMENTS[: corpus.FEW_DOCUMENTS - 1], None, "tail"),
        (DOCUMENTS[: corpus.FEW_DOCUMENTS], None, "hash"),
        (CHATS[:2], None, "hash"),
        (DOCUMENTS[:1], "hash", "hash"),
        (DOCUMENTS, "tail", "tail"),
    ):
        chosen, again = corpus.choose_split(iter(documents), wanted)
        assert chosen == how and list(again) == documents


def test_weights_repeat_and_subsample():
    assert corpus.repetitions({}, 2.0) == 2  # a whole weight reads no text
    for weight in (0.25, 1.5):
        times = [corpus.repetitions(d, weight) for d in DOCUMENTS]
        assert abs(sum(times) / len(times) - weight) < 0.03
        assert set(times) == {int(weight), int(weight) + 1}
        assert times == [corpus.repetitions(d, weight) for d in DOCUMENTS]
