"""Test the grader of short answers on examples."""

import pytest

from tinygpt_hf.evaluation.answers import is_right


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
