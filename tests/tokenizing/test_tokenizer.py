"""Trained tokenizers are lossless on any text, load as stock tokenizers, and have special tokens at ids 0 to 3."""

import json
import subprocess
import sys

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt_hf import cli
from tinygpt_hf.errors import UsageError
from tinygpt_hf.tokenizing.chat_template import CHAT_TEMPLATE, SPECIAL_TOKENS
from tinygpt_hf.tokenizing.tokenizer import (
    bytes_per_token,
    load_tokenizer,
    tokenizer_hash,
    train_tokenizer,
)

KINDS = ("bpe", "char", "byte")
any_text = st.text(st.characters(codec="utf-8"), max_size=60)  # any valid Unicode
HARD = [
    "",
    " ",
    "\r\n\t \u00a0\u2003\u3000\u2028\x85\x0b\x1c\x00",
    "if x:\n\treturn y  \n\n\n    pass\n",
    "🙂👩‍👩‍👧‍👦🇩🇪 ✊🏿",
    "四字熟語、한국어 русский العربية ไทย",
    "e\u0301 é ﬁ ½ Ⅻ",
    "I'll don't WE'VE ''s",
    "3.14e-10 1,000,000",
    "<|endoftext|><|pad|><|im_start|>user\n<|im_end|> <0x41> </s> <unk>",
    "\ufeff\ufffd\U0010ffff",
    "ĠĊâ€™",
]


@pytest.fixture(scope="module")
def tokenizers(tiny_text):
    return {kind: train_tokenizer([tiny_text, "ünïcödé 🙂\n"] * 3, kind, 320) for kind in KINDS}


@pytest.fixture(scope="module")
def reopened(tokenizers, tmp_path_factory):
    folders = {}
    for kind, tokenizer in tokenizers.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        tokenizer.save_pretrained(folders[kind])
    return folders


def ids_of(tokenizer, text) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@settings(max_examples=150)
@example("").via("the least")
@given(text=any_text | st.sampled_from(HARD))
def test_any_text_decodes_to_the_same_bytes(tokenizers, text):
    for words in (text, *HARD) if not text else (text,):
        for tokenizer in tokenizers.values():
            ids = ids_of(tokenizer, words)
            assert tokenizer.decode(ids) == words
            assert not set(ids) & set(range(len(SPECIAL_TOKENS)))


def test_a_byte_is_one_token_and_a_known_character_is_one_token(tokenizers):
    assert len(ids_of(tokenizers["byte"], "aé四🙂")) == 1 + 2 + 3 + 4
    assert len(ids_of(tokenizers["char"], "The 🙂\n")) == 6
    assert len(ids_of(tokenizers["char"], "四")) == 3  # not in training: its bytes
    assert len(ids_of(tokenizers["bpe"], "Anna was happy")) < 14


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_roles(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0 and tokenizer.pad_token_id == 1
    assert tokenizer("a")["input_ids"] == ids_of(tokenizer, "a")  # no BOS token
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert len(tokenizer) == {"bpe": 320, "byte": 260}.get(kind, len(tokenizer))
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


FRESH = """
import json, sys
from transformers import AutoTokenizer
texts = json.load(sys.stdin)
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, split_special_tokens=True)["input_ids"] for text in texts]
    facts = [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.chat_template, tokenizer.model_max_length]
    print(json.dumps([ids, [tokenizer.decode(i) for i in ids], *facts, tokenizer.is_fast]))
assert "tinygpt_hf" not in sys.modules
"""


def test_autotokenizer_loads_them_without_this_package(tokenizers, reopened):
    folders = [str(reopened[kind]) for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *folders], input=json.dumps(HARD), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kind, line in zip(KINDS, done.stdout.splitlines(), strict=True):
        ids, texts, *facts = json.loads(line)
        assert ids == [ids_of(tokenizers[kind], text) for text in HARD]
        assert texts == HARD
        assert facts == [0, 1, CHAT_TEMPLATE, 1024, True]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_depends_on_ids_only_and_survives_saving(tokenizers, reopened, kind):
    before = tokenizer_hash(tokenizers[kind])
    again = load_tokenizer(str(reopened[kind]))
    assert tokenizer_hash(again) == before
    again("some text", truncation=True, max_length=2, padding="max_length")
    assert tokenizer_hash(again) == before
    again.chat_template = "other"
    assert tokenizer_hash(again) != before
    assert len({tokenizer_hash(t) for t in tokenizers.values()}) == len(KINDS)


# The pattern of pre-tokenizer type "gpt-2" in llama.cpp.

GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def pre_tokens(tokenizer, text) -> list[str]:
    return [text[a:b] for _, (a, b) in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@settings(max_examples=150)
@given(text=st.text(st.sampled_from("ab Z'sdtrevml19²é四🙂\u0301!?.-_ \t\n\r\u00a0\u3000"), max_size=30))
@example("I'll we'RE  it's 'tis\n\n  x\t\ty \n")
def test_pre_tokens_follow_the_gpt2_pattern(tokenizers, text):
    assert pre_tokens(tokenizers["bpe"], text) == GPT2.findall(text)


def test_pre_tokenizer_and_decoder_are_those_of_gpt2(tokenizers):
    from tokenizers import pre_tokenizers

    core = json.loads(tokenizers["bpe"].backend_tokenizer.to_str())
    stock = json.loads(pre_tokenizers.ByteLevel(add_prefix_space=False).__getstate__())
    assert core["normalizer"] is None and core["pre_tokenizer"] == stock and core["decoder"]["type"] == "ByteLevel"
    assert core["model"]["type"] == "BPE" and core["post_processor"]["special_tokens"] == {}
    letters = {token for token in core["model"]["vocab"] if len(token) == 1}
    assert letters == set(pre_tokenizers.ByteLevel.alphabet())


def test_training_is_deterministic(tiny_text):
    first, second = (train_tokenizer([tiny_text] * 2, "bpe", 300) for _ in range(2))
    assert tokenizer_hash(first) == tokenizer_hash(second)
    assert tokenizer_hash(train_tokenizer([tiny_text] * 2, "bpe", 300, min_frequency=9)) != tokenizer_hash(first)


def test_the_vocabulary_is_no_larger_than_the_text_supports():
    assert len(train_tokenizer(["ab"], "bpe", 5000)) == 260  # no pair occurs twice
    assert len(train_tokenizer(["ab ab ab"], "bpe", 5000)) == 262  # `ab` and ` ab`


def test_no_texts_are_an_error():
    for kind in KINDS:
        with pytest.raises(UsageError, match="the text is empty"):
            train_tokenizer([], kind, 300)

    def unreadable():
        yield "text"
        raise UsageError("unreadable", "text", "fix it")

    for kind in KINDS:
        with pytest.raises(UsageError, match="unreadable"):
            train_tokenizer(unreadable(), kind, 300)


# Loading.


NONE = "no tokenizer could be loaded"
HOSTILE = [  # changes of a good tokenizer.json
    lambda core: core["added_tokens"][0].update(id=-1),
    lambda core: core["model"]["merges"].append(["q", "zzzzz"]),
    lambda core: core.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # a panic in Rust
    lambda core: core.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    ),
    lambda core: core.update(model={"type": "BPE", "vocab": {}, "merges": 5}),
]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, NONE),
        *(({"tokenizer.json": data}, NONE) for data in (b"{", b"{}", b"[]", bytes(range(256)), b"[" * 10**5, *HOSTILE)),
        ({"tokenizer.json": None, "tokenizer_config.json": b"[1]"}, NONE),
        ({"tokenizer.json": None}, "has no end-of-text token"),
        ({"tokenizer.json": None, "tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["x.Y", "x.Y"]}}'}, NONE),
    ],
)
def test_an_invalid_tokenizer_folder_is_one_error(reopened, tmp_path, capfd, files, words):
    for name, data in files.items():
        if not isinstance(data, bytes):
            core, change = json.loads((reopened["bpe"] / name).read_text()), data
            if change:
                change(core)
            data = json.dumps(core).encode()
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_tokenizer(str(tmp_path))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "y/N" not in capfd.readouterr().out  # no question whether code may run


@pytest.mark.parametrize("name", ["", "/none/there", "somebody/none", "../up"])
def test_an_unknown_tokenizer_name_is_one_error(name):
    with pytest.raises(UsageError, match="no tokenizer could be loaded.* Check --tokenizer_name"):
        load_tokenizer(name)


def test_bytes_per_token_equals_a_count_by_hand(tokenizers, tiny_text):
    texts = [tiny_text, "四字"]
    for kind, tokenizer in tokenizers.items():
        tokens = sum(len(ids_of(tokenizer, text)) for text in texts)
        assert bytes_per_token(tokenizer, texts) == sum(len(t.encode()) for t in texts) / tokens
        tokenizer("x", truncation=True, max_length=1)
        assert bytes_per_token(tokenizer, texts) == sum(len(t.encode()) for t in texts) / tokens, kind
    assert bytes_per_token(tokenizers["byte"], texts) == 1.0
    assert bytes_per_token(tokenizers["bpe"], [tiny_text]) > 1.5


def test_bytes_per_token_prints_no_warning_for_long_texts(tokenizers, caplog, capfd):
    bytes_per_token(tokenizers["bpe"], ["long text " * 1000])
    assert caplog.text == "" and capfd.readouterr().err == ""


def test_a_tokenizer_with_huge_ids_or_padding_allocates_no_memory(tmp_path, tokenizers, capsys):
    tokenizers["bpe"].save_pretrained(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    core = json.loads(path.read_text())
    core["model"]["vocab"] |= {"Ġzebra": 10**9, "Z": 4 * 10**9}
    pad = {"strategy": {"Fixed": 10**12}, "direction": "Left", "pad_to_multiple_of": None}
    core["padding"] = pad | {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|pad|>"}
    path.write_text(json.dumps(core))
    (tmp_path / "a.txt").write_text("Zebras " * 200)
    words = ["--train_file", str(tmp_path / "a.txt"), "--tokenizer_name", str(tmp_path / "t"), "--max_steps", "1"]
    assert cli.main(["train", *words, "--block_size", "8", "--output_dir", str(tmp_path / "run")]) == 2
    assert "tokens with ids up to" in capsys.readouterr().err and not (tmp_path / "run").exists()
