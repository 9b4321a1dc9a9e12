"""From documents to rows: no token is lost, only what may be learned is a label, and a failure leaves nothing on disk."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import Recorded

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import split as corpus
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows import build as packing
from tinygpt_hf.rows import placed
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.build import prepare_rows
from tinygpt_hf.rows.store import IGNORED
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing import encode as encoding
from tinygpt_hf.tokenizing.chat_template import encode_chat
from tinygpt_hf.tokenizing.encode import cut_text
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

TEXTS = [f"Story {k} of Anna and Pip.\r\n\tThey found ball {k * k}  <|endoftext|> 🙂" for k in range(300)]
CHATS = [
    [
        {"role": "user", "content": f"What is {k}?"},
        {"role": "assistant", "content": f"It is <|im_end|> {k}."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Bye"},
    ]
    for k in range(200)
]


@pytest.fixture(scope="module", params=["bpe", "char", "byte"])
def tokenizer(request, tiny_text):
    return train_tokenizer([tiny_text] * 3, request.param, 320)


def lines(path, rows) -> list[str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path)]


@pytest.fixture
def texts(tmp_path):
    return lines(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])


@pytest.fixture
def chats(tmp_path):
    return lines(tmp_path / "chats.jsonl", [{"messages": chat} for chat in CHATS])


def plain(tokenizer, text) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def documents_of(rows) -> list[list[int]]:
    return [rows.document(k).tolist() for k in range(rows.num_documents)]


# Every token lands in exactly one row.


def test_the_rows_hold_every_token_of_every_document_once(tokenizer, texts, tmp_path):
    prepared = prepare_rows(Corpus(DataArguments(train_file=texts, block_size=32)), tokenizer, tmp_path / "rows")
    wanted = [[*plain(tokenizer, text), tokenizer.eos_token_id] for text in TEXTS]
    found = documents_of(prepared.train) + documents_of(prepared.validation)
    assert sorted(found) == sorted(wanted)
    assert prepared.train.num_tokens + prepared.validation.num_tokens == sum(map(len, wanted))
    side = ["validation" if corpus.is_held_out({"text": t}, 5.0) else "train" for t in TEXTS]
    for part, rows in (("train", prepared.train), ("validation", prepared.validation)):
        assert documents_of(rows) == [ids for ids, where in zip(wanted, side, strict=True) if where == part]  # in order
        stream = [i for ids in documents_of(rows) for i in ids]
        input_ids, labels = rows.batch(range(rows.count(32)), 32)
        assert labels[labels != IGNORED].tolist() == stream[1:]
        assert input_ids[labels != IGNORED].tolist() == stream[:-1]
        assert rows.manifest["num_bytes"] == sum(
            len(text.encode()) for text, where in zip(TEXTS, side, strict=True) if where == part
        )
    assert prepared.kept == prepared.encoded == sum(map(len, wanted))
    assert not prepared.reused and sorted(p.name for p in (tmp_path / "rows").iterdir()) == ["train", "validation"]


def test_special_tokens_in_a_text_are_encoded_as_text(tokenizer, texts, tmp_path):
    for before in (True, False):
        tokenizer.backend_tokenizer.encode_special_tokens = before
        prepared = prepare_rows(
            Corpus(DataArguments(train_file=texts, block_size=32)), tokenizer, tmp_path / f"rows-{before}"
        )
        for ids in documents_of(prepared.train):
            assert [i for i in ids if i < 4] == [tokenizer.eos_token_id] and ids[-1] == tokenizer.eos_token_id
        assert tokenizer.backend_tokenizer.encode_special_tokens is before  # the tokenizer is unchanged


def test_rows_do_not_depend_on_batches_or_the_tokenizers_state(tokenizer, texts, tmp_path, monkeypatch):
    data = DataArguments(train_file=texts, block_size=32)
    first = prepare_rows(Corpus(data), tokenizer, tmp_path / "first")
    tokenizer("some words", truncation=True, max_length=1, padding="max_length")
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 70)
    second = prepare_rows(Corpus(data), tokenizer, tmp_path / "second")
    assert first.train.manifest == second.train.manifest
    assert first.validation.manifest == second.validation.manifest


# Long texts are encoded in pieces.


@pytest.fixture(scope="module", params=["bpe", "char", "byte"])
def joining_tokenizer(request):
    """Train a BPE with merges inside words of the split pattern, especially of white space."""
    spaces = ["\n\n", "\n\n\n", "  ", "    ", "\r\n", "\r\n\r\n", " \n", "\n ", "\t\t", "\n\t", " \u00a0", "\u3000\n"]
    return train_tokenizer([f"ab{s}Zb{s}.s{s}" for s in spaces] * 4, request.param, 400)


rough_text = st.text(st.sampled_from("abZ '’.s4é四🙂 \n\n\r\t\u00a0\u3000\x1c\x85"), max_size=200)


@settings(max_examples=300, deadline=None)
@given(text=rough_text, size=st.integers(1, 12))
def test_pieces_encode_to_the_tokens_of_the_whole_text(joining_tokenizer, text, size):
    tokenizer = joining_tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PIECE_CHARACTERS", size)
        pieces = cut_text(text, tokenizer)
    assert "".join(pieces) == text and all(pieces) or text == ""
    assert [i for piece in pieces for i in plain(tokenizer, piece)] == plain(tokenizer, text)


@pytest.mark.parametrize("text", ["some words here " * 2000, "line\r\n" * 5000, "a\n\nb\n" * 7000, "word\n" * 7000])
def test_ordinary_long_texts_are_cut_and_pieces_stay_small(tiny_tokenizer, monkeypatch, text):
    monkeypatch.setattr(encoding, "PIECE_CHARACTERS", 1000)
    pieces = cut_text(text, tiny_tokenizer)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 2000 and len(pieces) > len(text) / 2001


def test_texts_for_other_tokenizers_stay_whole(tiny_tokenizer, monkeypatch):
    import copy

    from tokenizers import Regex, normalizers, pre_tokenizers

    monkeypatch.setattr(encoding, "PIECE_CHARACTERS", 2)
    text = "some words " * 9
    assert len(cut_text(text, tiny_tokenizer)) > 5
    for name, part in (
        ("normalizer", normalizers.NFC()),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        ("pre_tokenizer", pre_tokenizers.Split(Regex(r"\s+"), "merged_with_previous")),
        ("pre_tokenizer", pre_tokenizers.Metaspace()),
    ):
        other = copy.deepcopy(tiny_tokenizer)
        setattr(other.backend_tokenizer, name, part)
        assert cut_text(text, other) == [text]


# What is learned.


def test_only_assistant_text_and_its_end_of_turn_are_labels(tokenizer, chats, tmp_path):
    data = DataArguments(train_file=chats, block_size=160, validation_split_percentage=20)
    prepared = prepare_rows(Corpus(data), tokenizer, tmp_path / "rows")
    for part, rows in (("train", prepared.train), ("validation", prepared.validation)):
        talks = [c for c in CHATS if corpus.is_held_out({"messages": c}, 20) == (part == "validation")]
        stream, mask = [], []
        for talk in talks:
            ids, learned = encode_chat(tokenizer, talk)
            stream += [*ids, tokenizer.eos_token_id]
            mask += [*learned, 0]
        input_ids, labels = rows.batch(range(rows.count(160)), 160)
        flat = labels.reshape(-1)[: len(stream) - 1]
        assert flat.tolist() == [i if m else IGNORED for i, m in zip(stream[1:], mask[1:], strict=True)]
        assert input_ids.reshape(-1)[: len(stream) - 1].tolist() == stream[:-1]
        said = tokenizer.decode(labels[labels != IGNORED])
        assert said == "".join(f"{t[1]['content']}<|im_end|>{t[3]['content']}<|im_end|>" for t in talks)
        assert rows.manifest["num_bytes"] == sum(len((t[1]["content"] + t[3]["content"]).encode()) for t in talks)


def test_texts_and_conversations_share_rows(tokenizer, texts, chats, tmp_path):
    prepared = prepare_rows(
        Corpus(DataArguments(train_file=texts + chats, block_size=32)), tokenizer, tmp_path / "rows"
    )
    assert prepared.train.num_documents + prepared.validation.num_documents == len(TEXTS) + len(CHATS)
    for k in range(prepared.train.num_documents):
        ids, learned = prepared.train.document(k), prepared.train.targets(k)
        assert learned.all() == (ids[0] != tokenizer.convert_tokens_to_ids("<|im_start|>"))
        assert ids[-1] == tokenizer.eos_token_id


# The split.


def test_the_tail_of_one_document_is_held_out_from_the_exact_character(tokenizer, tmp_path):
    text = "".join(f"line {k} é🙂\r\n" for k in range(200))
    path = tmp_path / "one.txt"
    path.write_bytes(text.encode())
    data = DataArguments(train_file=[str(path)], block_size=16, validation_split_percentage=10)
    prepared = prepare_rows(Corpus(data), tokenizer, tmp_path / "rows")
    border = int(len(text) * 0.9)
    (train,), (validation,) = documents_of(prepared.train), documents_of(prepared.validation)
    assert tokenizer.decode(train[:-1]) == text[:border] and tokenizer.decode(validation[:-1]) == text[border:]
    assert prepared.validation.manifest["num_bytes"] == len(text[border:].encode())


def test_validation_files_leave_the_training_text_whole(tokenizer, texts, tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("held out words")
    data = DataArguments(train_file=texts, validation_file=[str(path)], block_size=32)
    prepared = prepare_rows(Corpus(data), tokenizer, tmp_path / "rows")
    assert prepared.train.num_documents == len(TEXTS)
    assert [tokenizer.decode(d) for d in documents_of(prepared.validation)] == ["held out words<|endoftext|>"]
    assert Corpus(data).sample(10**6) == (TEXTS, ["held out words"])


def test_a_weighted_mix_repeats_training_documents_only(tiny_tokenizer, texts, tmp_path):
    other = lines(tmp_path / "other.jsonl", [{"text": f"other {k}"} for k in range(400)])
    data = DataArguments(
        sources=[{"train_file": texts[0], "weight": 2}, {"train_file": other[0], "weight": 0.5}], block_size=32
    )
    prepared = prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "rows")
    times = lambda rows, word: [  # noqa: E731
        d for d in map(tiny_tokenizer.decode, documents_of(rows)) if d.startswith(word)
    ]
    stories, others = times(prepared.train, "Story"), times(prepared.train, "other")
    assert len(stories) == 2 * len(set(stories)) and len(others) == len(set(others))
    assert 150 < len(others) < 240
    held_out = times(prepared.validation, "Story")
    assert prepared.train.sources == [(0, "texts.jsonl"), (len(stories), "other.jsonl")]
    assert prepared.validation.sources == [(0, "texts.jsonl"), (len(held_out), "other.jsonl")]
    assert len(held_out) == len(set(held_out)) == len(TEXTS) - len(set(stories)) > 0


def test_the_tail_split_is_not_suggested_for_conversations(tiny_tokenizer, tmp_path):
    few = lines(tmp_path / "few.jsonl", [{"messages": chat} for chat in CHATS[:3]])
    texts = lines(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS[:70]])
    told = {}
    for path, how in ((few, None), (texts, "hash")):
        data = DataArguments(
            train_file=path, block_size=16, validation_split=how, validation_split_percentage=1e-6, num_proc=1
        )
        with pytest.raises(UsageError, match="fell into the 1e-06 % held out") as caught:
            prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "rows")
        told[path[0], how] = caught.value.action
    assert told[few[0], None] == "raise --validation_split_percentage or give --validation_file"
    assert ", use --validation_split tail, or" in told[texts[0], "hash"]


def test_rows_are_shown_without_their_padding(tokenizer, chats, tmp_path):
    data = DataArguments(train_file=chats, block_size=200, validation_split_percentage=20)
    rows = prepare_rows(Corpus(data), tokenizer, tmp_path / "rows").train
    packed = BestFitRows(rows.folder, 200)
    assert packed.padding
    for some in (packed, rows):
        shown = packing.shown_rows(some, tokenizer, some.count(200), 200)
        targets = [int((some.batch([k], 200)[1] != IGNORED).sum()) for k in range(some.count(200))]
        for line, learned in zip(shown, targets, strict=True):
            assert f", {learned} of 200 tokens learned: " in line
            assert "<|endoftext|><|endoftext|>" not in line
    whole = "<|im_start|>user\nWhat is"
    assert all(
        line.partition("learned: ")[2].startswith(whole) for line in packing.shown_rows(packed, tokenizer, 9, 200)
    )


# At rest.


def test_ids_take_two_bytes_or_four(tiny_tokenizer, texts, tmp_path):
    data = DataArguments(train_file=texts, block_size=32)
    assert prepare_rows(Corpus(data), tiny_tokenizer, tmp_path / "small").train.tokens.dtype == np.uint16
    import copy

    large = copy.deepcopy(tiny_tokenizer)
    large.add_tokens([f"<extra {k}>" for k in range(1 << 16)])
    last = large.convert_tokens_to_ids(f"<extra {(1 << 16) - 1}>")
    path = lines(tmp_path / "large.jsonl", [{"text": f"a <extra {(1 << 16) - 1}> b {k}"} for k in range(100)])
    prepared = prepare_rows(Corpus(DataArguments(train_file=path, block_size=8)), large, tmp_path / "large")
    assert prepared.train.tokens.dtype == np.uint32 and int(prepared.train.tokens.max()) == last > 1 << 16
    assert " b " in large.decode(prepared.train.document(0))


def test_the_manifest_records_what_determines_the_rows(tiny_tokenizer, texts, tmp_path):
    data = DataArguments(train_file=texts, block_size=32)
    prepared = prepare_rows(Corpus(data, 1), tiny_tokenizer, tmp_path / "rows")
    facts = packing.row_facts(Corpus(data, 2), tiny_tokenizer)  # files do not depend on the seed
    assert {name: prepared.train.manifest[name] for name in facts} == json.loads(json.dumps(facts))
    assert packing.changed_facts(tmp_path / "rows", facts) == []
    facts["split"] = {"how": "tail", "percentage": 5.0}
    assert packing.changed_facts(tmp_path / "rows", facts) == ["split (validation_split not set, now tail)"]
    opened = packing.open_rows(tmp_path / "rows")
    assert opened.reused and opened.train.manifest == prepared.train.manifest
    opened.train.verify(), opened.validation.verify()


def test_progress_ends_at_the_total(tiny_tokenizer, texts, tmp_path):
    heard = Recorded()
    prepared = prepare_rows(
        Corpus(DataArguments(train_file=texts, block_size=32), 0, heard),
        tiny_tokenizer,
        tmp_path / "rows",
    )
    parts = prepared.train, prepared.validation
    seen = heard.encodings
    assert seen == sorted(seen)
    assert seen[-1] == (sum(r.manifest["num_bytes"] for r in parts), sum(r.num_tokens for r in parts), 1.0)


# Failures leave nothing.


def too_short(tmp_path):
    (tmp_path / "t.txt").write_text("few words and a few more")
    return {
        "train_file": [str(tmp_path / "t.txt")],
        "block_size": 5000,
    }, "tokens (expected at least 5001 for one row). Use more text or a smaller"


def nothing_held_out(tmp_path):
    path = lines(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS[:100]])
    return {"train_file": path, "validation_split_percentage": 0.0001}, "documents fell into the 0.0001 % held out"


def short_validation(tmp_path):
    (tmp_path / "v.jsonl").write_text('{"text": ""}\n')
    return {
        "train_file": lines(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS]),
        "validation_file": [str(tmp_path / "v.jsonl")],
    }, "the validation text has 1 tokens"


def nothing_to_learn(tmp_path):
    path = lines(tmp_path / "t.jsonl", [{"messages": chat[:1]} for chat in CHATS])
    return {"train_file": path, "validation_split_percentage": 20}, "no token of the train data may be learned"


def nothing_to_validate(tmp_path):
    path = lines(tmp_path / "t.jsonl", [{"messages": chat} for chat in CHATS])
    validation = lines(tmp_path / "v.jsonl", [{"messages": chat[:1]} for chat in CHATS])
    return {"train_file": path, "validation_file": validation}, "no token of the validation data may be learned"


def broken_in_the_middle(tmp_path):
    path = lines(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS] + [{"text": 3}])
    return {"train_file": path}, "line 301 holds a int"


def only_blanks(tmp_path):
    (tmp_path / "t.txt").write_text(" \n\n \n")
    return {
        "train_file": [str(tmp_path / "t.txt")],
        "document_separator": "blank_line",
    }, "the training text has 0 tokens"


@pytest.mark.parametrize(
    "case",
    [
        too_short,
        nothing_held_out,
        short_validation,
        nothing_to_learn,
        nothing_to_validate,
        broken_in_the_middle,
        only_blanks,
    ],
)
def test_a_failure_leaves_nothing_on_disk(tiny_tokenizer, tmp_path, monkeypatch, case):
    settings, words = case(tmp_path)
    monkeypatch.setattr(placed, "BATCH_CHARACTERS", 500)
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(UsageError) as caught:
        prepare_rows(Corpus(DataArguments(**{"block_size": 16, **settings})), tiny_tokenizer, run / "rows")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert list(run.iterdir()) == []


def test_a_full_disk_leaves_nothing_on_disk(tiny_tokenizer, texts, tmp_path, monkeypatch):
    from tinygpt_hf import storage

    class Full(storage.System):
        def fsync(self, descriptor):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "system", Full())
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(OSError, match="No space left"):
        prepare_rows(Corpus(DataArguments(train_file=texts, block_size=32)), tiny_tokenizer, run / "rows")
    assert list(run.iterdir()) == []
