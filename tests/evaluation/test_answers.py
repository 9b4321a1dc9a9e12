"""The graders of the quickstart, by hand."""

import pytest

from tinygpt_hf.evaluation.answers import copy_rate, is_right


@pytest.mark.parametrize(
    "answer,right",
    [
        ("The ball was red.", True),
        ("the ball was red", True),
        ("Red.", True),
        ("The ball was blue.", False),
        ("The ball was red and blue.", False),  # a right word beside a wrong one
        ("The ball was reddish.", False),
        ("", False),
        ("I do not know. The story does not say.", False),
    ],
)
def test_answers(answer, right):
    assert is_right(answer, "The ball was red.", ["red"], "Tom had a red ball. What color was the ball?") is right


def test_copy_rate_counts_word_sequences():
    training = ["the cat sat on the mat", "a dog ran"]
    assert copy_rate(["The cat sat on a mat."], training, n=3) == pytest.approx(2 / 4)
    assert copy_rate(["a dog ran"], training, n=3) == 1.0
    assert copy_rate(["too short"], training, n=3) == 0.0
