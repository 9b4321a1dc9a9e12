"""Test toyland: random access, disjoint splits, a known vocabulary, correct English, answers taken from the story."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.toyland import corpus as toyland
from tinygpt_hf.toyland.coherence import SENTENCE
from tinygpt_hf.toyland.grammar import Telling, frame, person, place, thing
from tinygpt_hf.toyland.lexicon import NAMES_F, NAMES_M
from tinygpt_hf.toyland.stories import is_held_out, openings, plots

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
QUESTION_KINDS = set("who what where why when color count number whose task fact identity unknown".split())


def texts_of(document: dict) -> list[str]:
    return [document["text"]] if "text" in document else [message["content"] for message in document["messages"]]


def words_of(text: str) -> list[str]:
    return [word.removesuffix("'s") for word in WORD.findall(text.lower())]


def digest(documents: list[dict]) -> str:
    return hashlib.sha256(json.dumps(documents).encode()).hexdigest()


@pytest.fixture(scope="module")
def train() -> list[dict]:
    return list(toyland.documents(seed=0, size=3000))


@pytest.fixture(scope="module")
def held_out() -> list[dict]:
    return list(toyland.documents(seed=0, size=1500, split="heldout"))


@pytest.fixture(scope="module")
def stories(train) -> list[str]:
    return [document["text"] for document in train if document["kind"] == "story"]


@pytest.fixture(scope="module")
def asked() -> list[dict]:
    return toyland.questions(seed=0, size=1500)


def test_a_document_is_the_same_alone_in_any_order_and_in_another_process(train):
    assert [toyland.document(0, index) for index in reversed(range(200))] == train[199::-1]
    assert list(toyland.documents(0, 10, start=120)) == train[120:130]
    code = """
import hashlib, json
from tinygpt_hf.toyland.corpus import document, questions
made = [document(0, index) for index in range(99, -1, -1)][::-1] + questions(3, 20)
print(hashlib.sha256(json.dumps(made).encode()).hexdigest())
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(train[:100] + toyland.questions(3, 20))


def test_the_corpus_stays_the_same_from_version_to_version():
    """Check the digest of the corpus. A deliberate change of a table needs a new digest, and breaks resuming older runs."""
    made = [*toyland.documents(42, 300), *toyland.documents(42, 100, "heldout"), *toyland.questions(3, 100)]
    made += toyland.story_openings(2, 100)
    assert digest(made) == "812174e6562bf8f7c8bb00ab3b48faa172f275526fbcb23a5b450bc2e506a1e6"


def test_documents_are_distinct_and_those_of_other_seeds_are_others(train, held_out, stories):
    other = list(toyland.documents(seed=1, size=200))
    assert not set(stories) & {text for document in other for text in texts_of(document)}
    assert len({document["id"] for document in (*train, *other, *held_out)}) == 4700
    assert len({json.dumps(texts_of(document)) for document in train}) >= 0.98 * len(train)
    assert len(set(stories)) == len(stories)


def test_kinds_come_in_their_shares(train):
    for kind, share, margin in (("story", 0.30, 0.03), ("facts", 0.08, 0.02), ("dialogue", 0.62, 0.03)):
        assert abs(sum(document["kind"] == kind for document in train) / len(train) - share) < margin


# Toys that only ever enter a story as its key object, so that text alone shows who meets what.
KEY_TOYS = "kite doll robot puppet puzzle whistle rocket scooter wagon".split()


def test_held_out_combinations_never_occur_in_train(train, held_out):
    names = set(NAMES_M + NAMES_F)
    kept = {(name, toy) for name in names for toy in KEY_TOYS if is_held_out(name, toy)}
    assert 0.07 < len(kept) / (len(names) * len(KEY_TOYS)) < 0.13

    def met(documents):
        for document in documents:
            for text in texts_of(document):
                said = set(words_of(text))
                yield {(name, toy) for toy in said.intersection(KEY_TOYS) for name in said & names}

    assert not any(pairs & kept for pairs in met(train))
    meetings = [pairs for pairs in met(held_out) if pairs]
    assert len(meetings) > 80 and sum(bool(pairs & kept) for pairs in meetings) > 0.9 * len(meetings)


def test_held_out_texts_and_questions_are_new(train, held_out, asked):
    known = {text for document in train for text in texts_of(document)}
    unseen = [document["text"] for document in held_out if document["kind"] == "story"]
    assert len(unseen) > 350 and not known.intersection(unseen)
    told = [question for question in asked if len(question["messages"][0]["content"].split()) > 20]
    assert len(told) > 800 and not any(question["messages"][0]["content"] in known for question in told)


def test_every_word_is_known(train, held_out, asked):
    """Compare the vocabulary with vocabulary.txt, which was proofread; new words must be added there."""
    vocabulary = toyland.vocabulary()
    assert vocabulary == set((Path(__file__).parent / "vocabulary.txt").read_text().split())
    used = {word for document in (*train, *held_out) for text in texts_of(document) for word in words_of(text)}
    used |= {word for question in asked for message in question["messages"] for word in words_of(message["content"])}
    assert used <= vocabulary
    assert len(used) > 0.97 * len(vocabulary), sorted(vocabulary - used)


def test_a_and_an_follow_the_sound(train):
    pairs = [
        pair for document in train for text in texts_of(document) for pair in re.findall(r"\b([Aa]n?) ([a-z]+)", text)
    ]
    assert len(pairs) > 2500
    assert all((article.lower() == "an") == (word[0] in "aeiou" or word == "hour") for article, word in pairs)


SPEECH = re.compile(
    r'^"[A-Z][^".?!]*[,?!]" [a-z]+ (the )?[A-Za-z]+\.$|^[A-Z][A-Za-z ]* sa(id|ys), "[A-Z][^".?!]*[.?!]"$'
)


def test_punctuation_keeps_the_conventions(train):
    for document in train[:1500]:
        for text in texts_of(document):
            assert not re.search(r"  |[;()\d]|[^ -~]| [.,?!]|[.?!,][A-Za-z]|\.\.|^\s|\s$", text), text
            assert text.count('"') % 2 == 0, text
            assert text[0].isupper() or text[0] == '"', text
            parts = SENTENCE.findall(text)
            assert " ".join(parts) == text, (parts, text)
            for part in parts:
                if '"' in part:
                    assert SPEECH.match(part), part
                else:
                    assert re.fullmatch(r"[A-Z][A-Za-z', ]*[.?!]", part), part


def test_lengths_stay_small(train, stories):
    for document in train:
        words = [len(text.split()) for text in texts_of(document)]
        if document["kind"] == "story":
            assert 20 <= words[0] <= 110 and 5 <= len(SENTENCE.findall(document["text"])) <= 13, document["text"]
        elif document["kind"] == "facts":
            assert 8 <= words[0] <= 70
        else:
            assert sum(words) <= 170 and 2 <= len(words) <= 18
    assert 40 <= sum(len(text.split()) for text in stories) / len(stories) <= 90


def test_conversations_alternate_and_start_with_the_user(train, held_out, asked):
    dialogues = [document["messages"] for document in (*train, *held_out) if document["kind"] == "dialogue"]
    assert len(dialogues) > 1500
    for messages in dialogues:
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    for question in asked:
        roles = [message["role"] for message in question["messages"]]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)] and roles[-1] == "user"


def test_answers_are_contained_in_the_messages(asked):
    def holds(text: str, keys: list[str]) -> bool:
        return any(re.search(rf"\b{re.escape(key)}(?!\w)", text, re.I) for key in keys)

    assert {question["kind"] for question in asked} == QUESTION_KINDS
    answered_from_text = 0
    for question in asked:
        kind, accept, told = question["kind"], question["accept"], question["messages"][0]["content"]
        assert holds(question["answer"], accept), question
        if kind == "unknown":
            assert question["answer"].startswith("I do not know.")
        elif kind not in ("task", "fact", "identity"):
            assert holds(told, [key.removesuffix("'s") for key in accept]), question
            only_question = re.findall(r"[^.?!]+[.?!]", question["messages"][-1]["content"])[-1]
            assert not any(re.search(rf"\b{re.escape(key)}(?!\w)", only_question) for key in accept), question
            answered_from_text += 1
    assert answered_from_text > 700
    answers = [question["answer"] for question in asked if question["kind"] in ("what", "who", "where", "color")]
    assert len(set(answers)) > 0.7 * len(answers)


def test_pronouns_have_an_antecedent(stories):
    """Check that a boy or man precedes every he, him and his, and a girl or woman every she and her."""
    male = set(NAMES_M) | {"dad", "grandpa", "king", "snowman", "brother", "boy"}
    female = set(NAMES_F) | {"mom", "grandma", "queen", "girl", "mother"}
    pronouns = {"he": male, "him": male, "his": male, "she": female, "her": female}
    checked = 0
    for story in stories:
        words = words_of(story)
        for position, word in enumerate(words):
            if word in pronouns:
                assert pronouns[word].intersection(words[:position]), story
                checked += 1
    assert checked > 1200


def test_a_single_name_takes_a_singular_verb(stories):
    names = "|".join(name.capitalize() for name in NAMES_M + NAMES_F)
    wrong = re.compile(rf"(?<!and )\b({names}) (were|are|have|do|go|see|find|run|say)\b")
    plural = re.compile(rf"\b(?:{names}) and (?:{names}) (was|is|has|does|goes|finds|runs|plays|makes)\b")
    assert not [story for story in stories if wrong.search(story) or plural.search(story)]


def test_the_grammar_inflects_refers_and_agrees():
    tom, ben, mia = person("tom", "m"), person("ben", "m"), person("mia", "f")
    cast = {"A": tom, "B": mia, "T": thing("shoes", "red", "pl"), "E": thing("egg"), "P": place("park", "in")}
    past, present = Telling(cast, past=True), Telling(cast, past=False)
    lost = frame("{A} <lose> {an:T}, and {he:T} <be:T> gone.")
    assert past.sentence(lost) == "Tom lost some red shoes, and they were gone."
    assert present.sentence(lost) == "Tom loses some red shoes, and they are gone."
    assert present.sentence(frame("{A} <not want> {a:E} {at:P}.")) == "Tom does not want an egg in the park."
    # He can mean only Tom while Mia is the other one; with Ben beside him his name is said.
    told = Telling(cast, past=True)
    told.sentence(frame("{A} <meet> {B}."))
    assert told.sentence(frame("{B} <see> {him:A}.")) == "Mia saw him."
    told = Telling({**cast, "B": ben}, past=True)
    told.sentence(frame("{A} <meet> {B}."))
    assert told.sentence(frame("{B} <see> {him:A}.")) == "Ben saw Tom."


def test_there_are_many_plots_and_frames():
    steps = [variant for plot in plots() for _, variants in plot.steps for variant in variants]
    assert len(plots()) >= 20 and len({parts for variant in (*steps, *openings()) for parts in variant}) >= 600
    assert all(len(plot.asks) >= 3 for plot in plots())


def test_story_openings_begin_held_out_stories():
    begun = toyland.story_openings(seed=0, size=200)
    assert len(begun) == 200 and begun == toyland.story_openings(seed=0, size=200)
    for opening in begun:
        assert opening[0].isupper() and 2 <= len(opening.split()) <= 20
    assert len(set(begun)) > 100


def test_an_unknown_split_is_a_users_mistake():
    with pytest.raises(UsageError, match="'test'.*train or heldout"):
        toyland.document(0, 0, split="test")
