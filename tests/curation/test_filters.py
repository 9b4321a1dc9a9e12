"""Each rule keeps and rejects what it should, and kept text does not change."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt_hf.curation.filters import RULES, TextStats, apply_rules, normalize, script_of
from tinygpt_hf.curation.pii import find_personal_data, luhn, mask_personal_data
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.corpus import KINDS, OFF, PRESETS, CorpusArguments
from tinygpt_hf.settings.parsing import parse, to_yaml

PROSE = (
    "The old house stood at the end of the lane, and nobody had lived in it for years.\n"
    "One morning a girl called Anna opened its door, because she wanted to see the garden behind it.\n\n"
    "She found roses, three cats and a letter that her grandmother had written long ago.\n"
)
MENU = "Home\nProducts\nAbout us\nContact\nLegal\n"


def settings_of(preset: str = "none", **values) -> CorpusArguments:
    return CorpusArguments(preset=preset, **values).resolved()


def rule_of(text: str, preset: str = "none", **values) -> str | None:
    rejection = apply_rules(TextStats({"text": text}), settings_of(preset, **values))
    return rejection and rejection.rule


def normalized(text: str, preset: str = "none", **values) -> str:
    return normalize({"text": text}, settings_of(preset, **values))[0]["text"]


# One setting, a text it keeps, a text it drops; each text was looked at by a person, not made by the rule.
CASES = {
    "length": ({"min_characters": 5}, "12345", "1234"),
    "length most": ({"max_characters": 5}, "12345", "123456"),
    "control": ({"control_characters": "drop"}, "a\tb\r\nc", "a\x07b"),
    "script": ({"scripts": ["cyrillic"]}, "Мама мыла раму, ok", "Mother washed the frame, да"),
    "language": ({"languages": ["de", "nl"]}, "Mama sagt, das kleine Boot schwimmt.", "Mum says the little boat will float."),
    "language none": ({"languages": ["en"]}, "Where did you put my keys?", "3.14 + 2.71 = 5.85"),
    "mean_word": ({"min_mean_word": 3.0, "max_mean_word": 10.0}, "some words here", "a b c d of it"),
    "mean_word most": ({"max_mean_word": 10.0}, "some words here", "incomprehensibilities everywhere"),
    "mean_word Han": ({"max_mean_word": 10.0}, "从前有一座山山里有一座庙庙里有一个老和尚", "x" * 11),
    "symbols": ({"max_symbol_ratio": 0.1}, "one # in ten words is just what it allows, no", "#one #two three four"),
    "symbols ellipsis": ({"max_symbol_ratio": 0.1}, "a plain text without any such thing", "well... so... what..."),
    "alphabetic_words": ({"min_alphabetic_words": 0.8}, "a b c d 5", "1 2 3 d e"),
    "stop_words": ({"min_stop_words": 2}, "The end of it", "Ende gut, the alles gut"),
    "bullet_lines": ({"max_bullet_lines": 0.9}, "Shopping:\n- milk", "- milk\n• bread\n* salt"),
    "ellipsis_lines": ({"max_ellipsis_lines": 0.3}, "One.\nTwo.\nThree.\nread more...", "A teaser...\nAnother …\nEnd."),
    "punctuated_lines": ({"min_punctuated_lines": 0.12}, "It ends.\nand\nit\ndoes\nnot", "Home\nProducts\nAbout"),
    "short_lines": ({"max_short_lines": 0.67}, PROSE, "Home\nProducts\nAbout us\nContact"),
    "boilerplate": ({"max_boilerplate_lines": 0.2}, PROSE, "Please enable JavaScript\nA text.\nUse of cookies"),
    "line_length": ({"max_line_characters": 10}, "x" * 10 + "\n", "x" * 11 + "\n"),
    "line_length mean": ({"max_mean_line": 5.0}, "12345\n12345\n", "123456\n12345\n"),
    "alphanumeric": ({"min_alphanumeric": 0.25}, "a+b=(c)", "{[(<>)]}+-*/a"),
    "duplicate_lines": ({"max_duplicate_lines": 0.3}, "a\nb\nc\nd", "buy\nnow\nbuy\nnow"),
    "duplicate_lines characters": ({"max_duplicate_lines": 0.3}, "a\nb\nc\nd\ne\na", f"{'x' * 50}\na\nb\nc\nd\n{'x' * 50}"),
    "duplicate_paragraphs": ({"max_duplicate_paragraphs": 0.3}, "a\n\nb\n\nc", "same\n\nsame\n\nsame\n\nother"),
    "top_ngram": ({"max_top_ngram": 0.2}, PROSE, "buy this and buy this and buy this today"),
    "duplicate_ngrams": ({"max_duplicate_ngrams": 0.15}, PROSE, "one two three four five six " * 2),
    "empty": ({}, "x", " \n\t "),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_rule_keeps_and_rejects(name):
    values, kept, rejected = CASES[name]
    assert rule_of(kept, **values) is None
    assert rule_of(rejected, **values) == name.split()[0]
    assert name == "empty" or rule_of(rejected) is None, "no other setting rejects it"


def test_every_rule_has_a_case_and_a_source():
    assert {name.split()[0] for name in CASES} == set(RULES)
    assert all(rule.__doc__ for rule in RULES.values())


def test_off_switches_a_rule_off_in_yaml_and_as_a_flag(tmp_path):
    limits = [n for n, v in vars(CorpusArguments()).items() if n.startswith(("min_", "max_")) and not v]
    path = tmp_path / "off.yaml"
    for name in (*limits, "nfc", "exact_duplicates", "near_duplicates"):
        for line in (f"corpus: {{{name}: off}}", f"corpus: {{{name}: 'off'}}", None):
            for preset in PRESETS:
                path.write_text(line or "")
                words = ["--config", str(path)] if line else [f"--{name}", "off"]
                given = parse((CorpusArguments,), [*words, "--preset", preset])[CorpusArguments]
                check_settings(given)
                assert getattr(given.resolved(), name) == OFF.get(name)
                path.write_text(to_yaml([given]))
                assert parse((CorpusArguments,), ["--config", str(path)])[CorpusArguments] == given
        for values, _, rejected in CASES.values():
            if list(values) == [name]:
                assert rule_of(rejected, **{name: "off"}) is None


def test_the_shares_of_repetition_are_those_counted_by_hand():
    # 12 words, of which the second six repeat 5-grams: 22 of 44 letters
    rejection = apply_rules(
        TextStats({"text": "one two three four five six " * 2}), settings_of(max_duplicate_ngrams=0.15)
    )
    assert rejection.reason == "characters of repeated 5 words: 0.5, expected at most 0.15"
    # "buy this" 3 times: 21 of 32 letters
    rejection = apply_rules(
        TextStats({"text": "buy this and buy this and buy this today"}), settings_of(max_top_ngram=0.2)
    )
    assert rejection.reason == f"characters of the most common 2 words: {21 / 32:.3g}, expected at most 0.2"


def test_presets_keep_what_they_are_for_and_a_given_setting_wins():
    assert rule_of(PROSE, "prose") is None and rule_of(MENU * 3, "prose")
    assert rule_of("x = 1\n" * 3 + "y = f(x)\n", "code") is None
    assert rule_of("var a=" + "1+" * 900, "code") == "line_length"
    assert [settings_of(preset).nfc for preset in ("prose", "code", "none")] == [True, False, False]
    assert settings_of("prose", nfc=False).nfc is False
    assert rule_of(MENU, "prose", max_short_lines=1.0, min_punctuated_lines=0.0) is None


def test_conversations_are_not_judged_by_the_shape_of_their_lines():
    messages = [{"role": role, "content": "Hi!"} for role in ("user", "assistant") * 2]
    stats = TextStats({"messages": messages, "origin": "x"})
    assert apply_rules(stats, settings_of("prose", min_characters=0)) is None
    assert apply_rules(stats, settings_of("prose", min_characters=99)).rule == "length"
    assert rule_of("Hi!\nHi!\nHi!\nHi!", "prose", min_characters=0)


@settings(max_examples=100)
@example(text=" \ufb01ne Cafe\u0301 A\u030a\x07\x0c\r\n ")
@example(text="\n\tif Alpha:\n\t    return  'B'   \r\n\n\n")
@given(text=st.text(max_size=200))
def test_only_normalization_changes_text(text):
    assert normalized(text, "code") == normalized(text, "none") == text
    composed = unicodedata.normalize("NFC", text)
    expected = "".join(c for c in composed if unicodedata.category(c) != "Cc" or c in "\t\n\r")
    assert normalized(text, "prose") == normalized(text, "chat") == expected


def test_changes_are_counted():
    changed, counts = normalize({"text": "Cafe\u0301 \x07 anna@example.org"}, settings_of("prose", mask=["email"]))
    assert changed["text"] == "Caf\u00e9  <email>"
    assert counts == {"nfc": 1, "control_characters": 1, "personal_email": 1}
    chat = {"messages": [{"role": "user", "content": "I am anna@example.org"}]}
    assert normalize(chat, settings_of(mask=["all"]))[0]["messages"][0]["content"] == "I am <email>"
    assert chat["messages"][0]["content"] == "I am anna@example.org", "the input stays as it is"


PERSONAL = {
    "email": ["anna.b+c@mail.example.co.uk", "Müller@example.de", "Mu\u0308ller@bücher.example.de", "иван@почта.рф"],
    "phone": ["+49 30 1234567", "+1 (415) 555-2671", "(415) 555-2671", "415-555-2671", "1-800-555-0199"],
    "ip": ["8.8.8.8", "2001:4860:4860:0:0:0:0:8888", "2606:4700::1111"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "key": ["hf_" + "a1" * 17, "AKIA" + "ABCDEFGH12345678", "ghp_" + "x" * 36, "sk-" + "a1b2" * 8, "sk_live_" + "a1b2" * 6,
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"],
}  # fmt: skip
HARMLESS = [
    "4111 1111 1111 1112", "192.168.0.1", "127.0.0.1", "256.1.1.1", "version 1.2.3.4.5", "in 1999, 2000 and 2001",
    "a @ b", "user@host", "12:30:45", "3.14159265358979", "task-force", "1234567890123", "page 100-200-3000", "f(a)(b)",
    "std::abc::def", "a ? b:c::d", "2001:db8::1", "fe80::1", "at 20:30:45", "task_live_0123456789abcdef",
]  # fmt: skip


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_is_found_and_masked_and_nothing_else_is_touched(kind):
    for words in PERSONAL[kind]:
        text = f"\tBefore,  {words} after.\n"
        assert [match[2] for match in find_personal_data(text)] == [kind], words
        assert mask_personal_data(text, {kind}) == f"\tBefore,  <{kind}> after.\n"
        assert mask_personal_data(text, set(KINDS) - {kind}) == text


def test_what_only_looks_like_personal_data_is_left():
    for words in HARMLESS:
        assert find_personal_data(f"See {words} here") == []


def test_an_address_after_chinese_text_is_found():
    text = "联系我anna@example.org吧 [2606:4700::1111]"
    assert mask_personal_data(text, {"email", "ip"}) == "联系我<email>吧 [<ip>]"


def test_luhn_against_numbers_worked_by_hand():
    assert luhn("79927398713") and not any(luhn(f"7992739871{d}") for d in "012456789")


@pytest.mark.timeout(120)  # seconds of the machine at its slowest; a pattern that backtracks takes hours
def test_patterns_are_quick_on_hostile_text():
    for piece in ("1 ", "a@", "1.", "+1 ", "a:", "eyJ", "4", "4111 ", "2001:"):
        find_personal_data(piece * 50_000)
    find_personal_data("ü" * 100_000 + "@" + "ü." * 50_000)


def test_scripts_are_named_as_unicode_names_them():
    names = {
        "a": "Latin",
        "ж": "Cyrillic",
        "中": "Han",
        "あ": "Hiragana",
        "ア": "Katakana",
        "한": "Hangul",
        "ع": "Arabic",
    }
    assert {c: script_of(c) for c in names} == names
    assert script_of("5") is None and script_of(" ") is None
