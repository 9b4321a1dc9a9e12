"""Test streamed text: pieces join to the text, without incomplete characters or parts of stop strings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
)

from tinygpt_hf.inference.terminal import safe_text
from tinygpt_hf.inference.text_stream import StopStrings, TextDecoder
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

TEXT = "the cat sat on the mat, naïve café 日本語 🙂 e\u0301 "


def wordpiece_like():
    """Return a tokenizer like Llama's: spaces written as a symbol, the first one dropped, and byte fallback."""
    words = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁the", "▁cat", "s", "▁", "é"]
    core = Tokenizer(models.BPE({w: k for k, w in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def streamed(tokenizer, ids, previous=None):
    decoder = TextDecoder(tokenizer, previous)
    pieces = [decoder.add(id) for id in ids]
    return [*pieces, decoder.flush()]


@pytest.fixture(scope="module", params=["bpe", "char", "byte"])
def any_tokenizer(request):
    return train_tokenizer([TEXT * 20], request.param, vocab_size=290)


@settings(max_examples=60)
@given(text=st.text(max_size=20))
def test_pieces_join_to_the_text_and_none_is_half_a_character(any_tokenizer, text):
    ids = any_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    pieces = streamed(any_tokenizer, ids)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text
    assert pieces[-1] == ""  # nothing was left hanging


@settings(max_examples=60)
@given(st.lists(st.integers(4, 259), max_size=20))
def test_any_byte_tokens_decode_as_with_the_tokenizer(ids):
    tokenizer = _byte_tokenizer()
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _byte_tokenizer(kept=[]):  # noqa: B006 - made once for all examples
    if not kept:
        kept.append(train_tokenizer(["x"], "byte"))
    return kept[0]


def test_a_character_appears_with_its_last_byte(any_tokenizer):
    ids = any_tokenizer("🜚", add_special_tokens=False)["input_ids"]  # in no vocabulary: bytes
    assert streamed(any_tokenizer, ids) == [*[""] * (len(ids) - 1), "🜚", ""]


CLUSTERS = [
    "e\u0301\u0323",
    "👩\u200d👩\u200d👧",
    "👍🏽",
    "🏴\U000e0067\U000e0062\U000e007f",
    "🇪🇺",
    "नि",
    "각",
    "a\u20dd",
]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_marks_and_joined_emoji_cut_across_tokens_come_whole_and_in_order(any_tokenizer, cluster):
    """Check that each code point appears with its last byte, in order, so that a terminal can join them."""
    ids = any_tokenizer(f"x{cluster}y", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    pieces = streamed(any_tokenizer, ids)
    assert "".join(pieces) == f"x{cluster}y" and not any("\ufffd" in piece for piece in pieces)
    assert "".join(map(safe_text, pieces)) == f"x{cluster}y"  # the filter leaves joiners and marks alone
    for cut in range(len(ids) + 1):  # as many tokens as were made when an answer is broken off
        shown = "".join(pieces[:cut])
        assert f"x{cluster}y".startswith(shown)


def test_an_unfinished_character_is_marked_at_the_end_only(any_tokenizer):
    ids = any_tokenizer("🜚", add_special_tokens=False)["input_ids"][:-1]
    assert streamed(any_tokenizer, ids) == [*[""] * len(ids), "\ufffd"]


def test_special_tokens_are_no_text(any_tokenizer):
    assert "".join(streamed(any_tokenizer, [2, *any_tokenizer("the cat")["input_ids"], 3, 0])) == "the cat"


def test_spaces_survive_in_tokenizers_that_drop_the_first():
    tokenizer = wordpiece_like()
    the, cat, s = tokenizer.convert_tokens_to_ids(["▁the", "▁cat", "s"])
    assert tokenizer.decode([cat]) == "cat"
    assert streamed(tokenizer, [cat, s, the], previous=the) == [" cat", "s", " the", ""]
    euro = tokenizer.convert_tokens_to_ids(["<0xE2>", "<0x82>", "<0xAC>"])
    assert streamed(tokenizer, [*euro, cat, *euro[:2], s], previous=the) == ["", "", "€", " cat", "", "", "\ufffds", ""]


@given(st.lists(st.text("ab", max_size=4), max_size=8), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_stop_strings_cut_any_stream_at_the_first_to_complete(pieces, stops):
    stream, shown = StopStrings(stops), ""
    for piece in pieces:
        shown += stream.add(piece)
        assert not any(stop in shown for stop in stops)
    shown += stream.flush()
    text = "".join(pieces)
    assert text.startswith(shown)
    assert (shown == text) == (stream.found is None) == (not any(stop in text for stop in stops))
