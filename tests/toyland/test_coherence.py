"""Test the coherence check: unseen toyland stories pass, and with one word swapped they fail."""

import re
from random import Random

import pytest

from tinygpt_hf.toyland import corpus as toyland
from tinygpt_hf.toyland.coherence import incoherence
from tinygpt_hf.toyland.lexicon import KIN_F, KIN_M, NAMES_F, NAMES_M
from tinygpt_hf.toyland.stories import tell

NAMES = [name.capitalize() for name in NAMES_M + NAMES_F + KIN_M + KIN_F]
OTHER_PRONOUNS = {
    "he": ("she",), "she": ("he",), "him": ("her",), "his": ("her",), "her": ("his", "him"),
    "He": ("She",), "She": ("He",), "His": ("Her",), "Her": ("His",),
}  # fmt: skip
LOST = (
    "There once was a girl named Molly. Molly had a red kite. One day, the kite was gone. "
    "Molly was sad because the kite was lost. Leo found the kite under the bed. Molly thanked Leo. Now Molly was very happy."
)


@pytest.fixture(scope="module")
def stories():
    rng = Random(7)
    return [tell(rng, held_out=True) for _ in range(90)]


def test_unseen_stories_are_coherent():
    told = [document["text"] for document in toyland.documents(5, 350, "heldout") if document["kind"] == "story"]
    assert len(told) > 80 and sum(not incoherence(text) for text in told) >= 0.99 * len(told)


def mentions(words, text: str) -> list[re.Match]:
    return list(re.finditer(rf"\b(?:{'|'.join(words)})\b", text))


def swapped(text: str, place: re.Match, word: str) -> str:
    return text[: place.start()] + word + text[place.end() :]


def stranger(story, rng, stories):
    """Replace one mention of a name that occurs at least twice by the name of somebody who is not in the story."""
    said = mentions(NAMES, text := story.text())
    again = [place for place in said if sum(other[0] == place[0] for other in said) > 1]
    here = {place[0] for place in said}
    return again and swapped(text, rng.choice(again), rng.choice([name for name in NAMES if name not in here]))


def other_person(story, rng, stories):
    """Replace one mention of a name by the name of another person of the story."""
    said = mentions(NAMES, text := story.text())
    here = sorted({place[0] for place in said})
    return len(here) > 1 and swapped(text, place := rng.choice(said), rng.choice([n for n in here if n != place[0]]))


def pronoun(story, rng, stories):
    """Replace one he, she, him, his or her by a pronoun of the other gender."""
    said = mentions(OTHER_PRONOUNS, text := story.text())
    return said and swapped(text, place := rng.choice(said), rng.choice(OTHER_PRONOUNS[place[0]]))


def other_thing(story, rng, stories):
    """Replace one mention of the object, which occurs at least twice, by the object of another story."""
    said = mentions([story.key[1]], text := story.text())
    things = sorted({other.key[1] for other in stories} - {story.key[1]})
    return len(said) > 1 and swapped(text, rng.choice(said), rng.choice(things))


@pytest.mark.parametrize("swap", [stranger, other_person, pronoun, other_thing])
def test_stories_with_one_word_swapped_are_not_coherent(stories, swap):
    rng = Random(0)
    broken = [text for story in stories if (text := swap(story, rng, stories))]
    assert len(broken) >= 50 and sum(not incoherence(text) for text in broken) <= 0.05 * len(broken)


def test_invalid_stories_are_not_coherent():
    assert incoherence(LOST) == ""
    for wrong in (
        LOST.replace("Molly", "Walter"),  # a girl named Walter
        LOST.replace("Leo", "Molly"),  # Molly thanked Molly
        LOST.replace("Leo", "Lily").replace("thanked Lily", "thanked him"),
        LOST.replace("Leo found the kite", "Leo found a doll"),
        LOST.replace("red kite", "red zeppelin"),
        LOST.replace("Molly thanked Leo.", '"Thank you, Leo, said Molly.'),
        LOST.replace("Molly thanked Leo.", "Thanked Leo Molly the."),
        LOST.replace("Leo found the kite under the bed.", "Dad fixed the kite with some glue."),  # another story
        LOST + " The king had a golden ring.",
        "",
    ):
        assert wrong != LOST and incoherence(wrong), wrong
    assert "5 sentences" in incoherence("There once was a girl named Molly. Molly had a red kite.")
    assert incoherence(LOST.replace("Molly thanked", "Clara thanked")).endswith(
        'does not follow from the sentences before it: "Clara thanked Leo."'
    )


def test_stories_with_other_wording_are_coherent():
    for other in (
        LOST.replace("Molly had", "One rainy day, Molly had"),  # when it was matters to nobody
        LOST.replace("red kite", "golden lion").replace("kite", "lion"),  # a thing no such story is about
        LOST.replace("Molly thanked Leo", "Molly thanked him"),
        LOST.replace("thanked Leo.", "thanked Leo. Molly was very careful with the kite."),  # of another plot
    ):
        assert other != LOST and incoherence(other) == ""


def test_a_story_that_was_cut_off_is_judged_up_to_its_last_whole_sentence(stories):
    for story in stories[:3]:
        text = story.text()
        for end in range(len(" ".join(story.sentences[:6])), len(text), 13):
            assert incoherence(text[:end], cut_off=True) == ""
    assert incoherence(LOST[:-1]) and not incoherence(LOST[:-1], cut_off=True)
    assert incoherence(LOST.replace("Molly thanked Leo", "Clara thanked Leo")[:-5], cut_off=True)
    assert incoherence("There once was a girl named Molly. Molly and the and the and the and", cut_off=True)
