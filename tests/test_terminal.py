"""What a model says never drives the terminal, wherever the stream cuts it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt_hf.inference.terminal import safe_text

ATTACKS = {
    "colour": "\x1b[31mred\x1b[0m",
    "window title": "\x1b]0;owned\x07",
    "title ended by ST": "\x1b]0;owned\x1b\\",
    "clear the screen": "\x1b[2J\x1b[H",
    "answer-back": "\x1b[c\x05",
    "device control": "\x1bP$q\x1b\\",
    "C1 colour": "\x9b31m",
    "C1 title": "\x9d0;owned\x9c",
    "overwrite the line": "safe\rrm -rf",
    "backspaces": "safe\b\b\b\bevil",
    "right-to-left override": "exe.\u202egnp",
    "isolate": "a\u2066b\u2069",
    "delete": "\x7f",
    "shift out": "\x0e\x0f",
}
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\ud800-\udfff]")


@pytest.mark.parametrize("name", ATTACKS)
def test_no_control_character_passes_wherever_the_sequence_is_cut(name):
    attack = ATTACKS[name]
    for cut in range(len(attack) + 1):
        shown = safe_text(attack[:cut]) + safe_text(attack[cut:])
        assert not DANGEROUS.search(shown)
        assert shown == safe_text(attack)


@given(st.text())
def test_any_text_comes_out_harmless_and_printable(text):
    shown = safe_text(text)
    assert not DANGEROUS.search(shown)
    shown.encode()


HONEST = ["plain\ttext\nand a line", "café 日本語 🙂 e\u0301", "👩\u200d🚀", "مرحبا", "ÿ ¡ \xa0"]


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_is_untouched(text):
    assert safe_text(text) == text


def test_a_filtered_sequence_is_shown_not_hidden():
    assert safe_text("\x1b[31mred\x07") == "␛[31mred␇"


def test_the_pattern_of_this_test_sees_what_it_should():
    assert all(DANGEROUS.search(attack) for attack in ATTACKS.values())
