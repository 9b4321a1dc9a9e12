"""Test that model output cannot control the terminal, however the stream splits it."""

import re
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt_hf.inference.terminal import Explainer, explained, fitted, safe_text, takes_color

ATTACKS = {
    "color": "\x1b[31mred\x1b[0m",
    "window title": "\x1b]0;owned\x07",
    "title ended by ST": "\x1b]0;owned\x1b\\",
    "clear the screen": "\x1b[2J\x1b[H",
    "answer-back": "\x1b[c\x05",
    "device control": "\x1bP$q\x1b\\",
    "C1 color": "\x9b31m",
    "C1 title": "\x9d0;owned\x9c",
    "overwrite the line": "safe\rrm -rf",
    "backspaces": "safe\b\b\b\bevil",
    "right-to-left override": "exe.\u202egnp",
    "isolate": "a\u2066b\u2069",
    "delete": "\x7f",
    "shift out": "\x0e\x0f",
}
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\u200e\u200f\u061c\ud800-\udfff]")


@pytest.mark.parametrize("name", ATTACKS)
def test_no_control_character_passes_wherever_the_sequence_is_cut(name):
    attack = ATTACKS[name]
    for cut in range(len(attack) + 1):
        shown = safe_text(attack[:cut]) + safe_text(attack[cut:])
        assert not DANGEROUS.search(shown)
        assert shown == safe_text(attack)


HOSTILE = (
    "".join(ATTACKS.values()) + "\ud83d\x90\x9e\x9f\u2028\u206a\u206f\ufeff" + "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\"
)


def test_for_every_cut_of_a_hostile_text_no_control_byte_is_written_but_newline_and_tab():
    for cut in range(len(HOSTILE) + 1):
        for end in (len(HOSTILE), min(cut + 3, len(HOSTILE))):
            written = "".join(map(safe_text, (HOSTILE[:cut], HOSTILE[cut:end], HOSTILE[end:])))
            assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in written)
            assert not {c for c in written.encode() if (c < 0x20 and c not in b"\n\t") or c == 0x7F}
            assert not DANGEROUS.search(written)


@given(st.lists(st.sampled_from([*ATTACKS.values(), "\u202e", "\x9b", "\udc9b", "x\n"]), max_size=6), st.data())
def test_the_output_does_not_depend_on_how_a_stream_is_split(attacks, data):
    text, written = "".join(attacks), ""
    rest = text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        written, rest = written + safe_text(rest[:cut]), rest[cut:]
    assert written == safe_text(text) and not DANGEROUS.search(written)


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


@pytest.mark.parametrize(
    ("text", "bits", "plain", "colored"),
    [
        (" cat", None, " cat", " cat"),
        (" cat", 0.99, " cat", " cat"),
        (" cat", 1, " cat₁", " \x1b[38;5;16;48;5;230mcat₁\x1b[0m"),
        (" cat", 12.7, " cat₁₂", " \x1b[38;5;16;48;5;203mcat₁₂\x1b[0m"),
        (".\n\n", 4.5, ".↵↵₄\n\n", "\x1b[38;5;16;48;5;216m.↵↵₄\x1b[0m\n\n"),
        ("a\nb", 2, "a\nb₂", "\x1b[38;5;16;48;5;223ma\x1b[0m\n\x1b[38;5;16;48;5;223mb₂\x1b[0m"),
        ("\x1b[2J", 3, "␛[2J₃", "\x1b[38;5;16;48;5;223m␛[2J₃\x1b[0m"),
    ],
)
def test_a_token_is_explained_by_a_number_and_by_color(text, bits, plain, colored):
    assert explained(text, bits, color=False) == plain and explained(text, bits, color=True) == colored


def test_a_character_of_several_tokens_gets_the_sum_of_their_bits():
    explainer = Explainer(color=False)
    assert [explainer.add(*token) for token in (("", 2.5), ("", 0.75), ("☃", 1), ("!", 0.5))] == ["", "", "☃₄", "!"]


@pytest.mark.parametrize(
    ("is_terminal", "variables", "answer"),
    [(True, {"TERM": "xterm"}, True), (False, {"TERM": "xterm"}, False), (True, {"TERM": "dumb"}, False),
     (True, {"TERM": "xterm", "NO_COLOR": "1"}, False)],
)  # fmt: skip
def test_color_is_for_terminals_whose_owner_wants_it(monkeypatch, is_terminal, variables, answer):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert takes_color(SimpleNamespace(isatty=lambda: is_terminal)) == answer


@pytest.mark.parametrize(
    "line, width, shown",
    [
        ("short", 20, ["short"]),
        ("a line that is too long for it", 20, ["a line that is too", "long for it"]),
        ("/undo   take back the question", 20, ["/undo   take back", "        the question"]),
        ("/set A  change a setting", 20, ["/set A  change a", "        setting"]),
        ("從前有一個小女孩住在山裡", 10, ["從前有一個", "小女孩住在", "山裡"]),  # two columns each
    ],
)
def test_a_long_line_is_wrapped_at_spaces_and_indented_to_its_second_column(line, width, shown):
    assert fitted(line, width).split("\n") == shown
