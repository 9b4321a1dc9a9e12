"""Test toyland's minimal pairs: one error each, toyland's vocabulary, and no sentence of the training documents."""

import re
from collections import Counter
from itertools import takewhile

import pytest

from tinygpt_hf.toyland import corpus as toyland
from tinygpt_hf.toyland.corpus import words_of
from tinygpt_hf.toyland.lexicon import NAMES_F, NAMES_M
from tinygpt_hf.toyland.pairs import pairs

UIDS = ["agreement", "determiner", "tense", "word_order", "pronoun"]


@pytest.fixture(scope="module")
def made() -> list[dict]:
    return pairs(1, 1000)


def test_the_seed_decides_and_the_paradigms_come_in_turn(made):
    assert pairs(1, 300) == made[:300] and pairs(2, 300) != made[:300]
    assert [pair["UID"] for pair in made] == UIDS * 200
    assert len({pair["sentence_good"] for pair in made}) == 1000


def difference(pair: dict) -> tuple[list[str], list[str]]:
    """Return the words in which the two sentences differ, between their common beginning and their common end."""
    good, bad = pair["sentence_good"].split(), pair["sentence_bad"].split()
    same = len(list(takewhile(lambda both: both[0] == both[1], zip(good, bad, strict=False))))
    good, bad = good[same:], bad[same:]
    same = len(list(takewhile(lambda both: both[0] == both[1], zip(good[::-1], bad[::-1], strict=False))))
    return good[: len(good) - same], bad[: len(bad) - same]


def test_the_two_sentences_differ_in_one_place_alone(made):
    for pair in made:
        good, bad = difference(pair)
        if pair["UID"] == "word_order":
            assert len(good) == 2 and bad == good[::-1], pair
        else:
            assert len(good) == len(bad) == 1, pair
        assert Counter(pair["sentence_good"])["."] == Counter(pair["sentence_bad"])["."]


def test_the_errors_are_those_of_their_paradigm(made):
    forms = {
        "agreement": {"has have", "wants want", "was were", "does do", "were was", "play plays", "do does", "is are", "are is"},
        "pronoun": {"he she", "she he", "he him", "she her", "his her", "her his", "him he", "her she", "it them", "them it",
                    "it they", "my me"},
    }  # fmt: skip
    seen = {
        uid: {" ".join(side[0].strip(".") for side in difference(p)) for p in made if p["UID"] == uid} for uid in UIDS
    }
    assert seen["agreement"] == forms["agreement"] and seen["pronoun"] == forms["pronoun"]
    assert {"a an", "an a"} < seen["determiner"] and {"find found", "gave gives"} < seen["tense"]


def test_pronouns_and_articles_of_the_good_sentences_are_right(made):
    gender = {name.capitalize(): words for names, words in ((NAMES_M, {"he", "him", "his"}), (NAMES_F, {"she", "her"}))
              for name in names}  # fmt: skip
    for pair in made:
        sentence = pair["sentence_good"]
        first = next(word for word in re.findall(r"[A-Z][a-z]+", sentence) if word in gender)
        assert words_of(sentence) & {"he", "him", "his", "she", "her"} <= gender[first], pair
        for article, word in re.findall(r"\b([Aa]n?) ([a-z]+)", sentence):
            assert (article.lower() == "an") == (word[0] in "aeiou"), pair


def test_the_words_are_toylands_and_the_sentences_are_not(made):
    assert {
        word for pair in made for side in list(pair.values())[:2] for word in words_of(side)
    } <= toyland.vocabulary()
    documents = toyland.documents(42, 3000)
    read = "\n".join(
        text for d in documents for text in ([d["text"]] if "text" in d else [m["content"] for m in d["messages"]])
    )
    assert not [pair for pair in made if pair["sentence_good"].rstrip(".?") in read or pair["sentence_bad"] in read]
    assert sum(f"{name.capitalize()} " in read for name in NAMES_M + NAMES_F) > 70  # the children themselves are known
