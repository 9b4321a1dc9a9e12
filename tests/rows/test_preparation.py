"""Existing rows and tokenizers are used only if nothing changed, changes are named, and validation text trains no tokenizer."""

import json
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.changes import changes
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows.preparation import find_rows, find_tokenizer, make_tokenizer, save_tokenizer
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments
from tinygpt_hf.tokenizing.tokenizer import bytes_per_token, load_tokenizer, tokenizer_hash, train_tokenizer

CHAR = TokenizerArguments(tokenizer_type="char")


@pytest.fixture
def text(tmp_path):
    """Write a text whose last tenth has characters that the rest lacks."""
    path = tmp_path / "text.txt"
    path.write_text("abc abd abe\n" * 90 + "xyz xyz xyz\n" * 10)
    return DataArguments(train_file=[str(path)], validation_split_percentage=10, block_size=16)


def save(made, folder):
    save_tokenizer(*made, folder)
    return folder


def refused(call, *args, kind=UsageError) -> str:
    with pytest.raises(kind) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Tokenizers.


def test_a_trained_tokenizer_has_not_seen_the_validation_text(text):
    tokenizer, report = make_tokenizer(Corpus(text), CHAR)
    vocabulary = tokenizer.get_vocab()
    assert "a" in vocabulary and "x" not in vocabulary
    assert report["vocabulary"] == len(tokenizer) == 4 + 256 + len("abcde \n")
    assert report["held_out_bytes"] == 120 and report["bytes_per_token"] == 1.0
    assert tokenizer.model_max_length == 16


def test_the_report_has_the_compression_on_held_out_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"the quick brown fox number {k}\n" for k in range(500)))
    data = DataArguments(train_file=[str(path)], validation_split_percentage=10, block_size=16)
    tokenizer, report = make_tokenizer(Corpus(data), TokenizerArguments(vocab_size=400))
    _, (held_out,) = Corpus(data).sample(10**6)
    assert report["bytes_per_token"] == round(bytes_per_token(tokenizer, [held_out]), 3) > 2
    assert report["held_out_bytes"] == len(held_out) and report["bytes_per_token_of_byte_tokenizer"] == 1.0
    assert report["trained_with"]["tokenizer_type"] == "bpe" and report["trained_with"]["vocab_size"] == 400
    assert json.loads(json.dumps(report)) == report


def test_a_tokenizer_is_trained_on_the_words_of_conversations(tmp_path):
    path = tmp_path / "chats.jsonl"
    talk = [{"role": "user", "content": "ping"}, {"role": "assistant", "content": "pong"}]
    path.write_text(
        "".join(
            json.dumps({"messages": [*talk, *talk[:1], {"role": "assistant", "content": str(k)}]}) + "\n"
            for k in range(200)
        )
    )
    tokenizer, _ = make_tokenizer(Corpus(DataArguments(train_file=[str(path)])), TokenizerArguments(vocab_size=280))
    assert "pong" in tokenizer.get_vocab()


def test_the_search_order_for_a_tokenizer(text, tmp_path, tiny_tokenizer):
    none = TokenizerArguments()
    assert find_tokenizer(tmp_path / "none", Corpus(text), CHAR) is None  # to be trained
    named = tmp_path / "named"
    tiny_tokenizer.save_pretrained(named)
    found = find_tokenizer(tmp_path / "none", Corpus(text), TokenizerArguments(tokenizer_name=str(named)))
    assert tokenizer_hash(found) == tokenizer_hash(tiny_tokenizer)
    assert tokenizer_hash(find_tokenizer(tmp_path / "none", Corpus(text), none, str(named))) == tokenizer_hash(
        tiny_tokenizer
    )
    own = save(make_tokenizer(Corpus(text), CHAR), tmp_path / "own")
    for settings in (CHAR, none):
        assert tokenizer_hash(find_tokenizer(own, Corpus(text), settings, str(named))) == tokenizer_hash(
            load_tokenizer(str(own))
        )
    assert find_tokenizer(tmp_path / "none", Corpus(text), none) is None  # one is trained
    rows = DataArguments(rows=str(tmp_path / "rows"))
    assert "no tokenizer is given for the rows" in refused(find_tokenizer, tmp_path / "none", Corpus(rows), none)


def test_a_tokenizer_of_other_settings_is_refused_and_the_change_named(text, tmp_path):
    folder = save(make_tokenizer(Corpus(text), TokenizerArguments(vocab_size=262)), tmp_path / "own")
    line = refused(find_tokenizer, folder, Corpus(text), TokenizerArguments(vocab_size=263))
    assert f"{folder} was trained with other vocab_size (262, now 263)" in line
    line = refused(find_tokenizer, folder, Corpus(text), CHAR)
    assert "trained with other tokenizer_type (bpe, now char)" in line
    with open(text.train_file[0], "a") as file:
        file.write("more")
    line = refused(find_tokenizer, folder, Corpus(text), TokenizerArguments(vocab_size=262))
    assert "trained with other sources (text.txt)" in line


@pytest.mark.parametrize("report", ["{", "[]", "{}", '{"trained_with": 3}'])
def test_a_damaged_report_is_named(text, tmp_path, report):
    folder = save(make_tokenizer(Corpus(text), CHAR), tmp_path / "own")
    (folder / "report.json").write_text(report)
    assert "report.json is damaged" in refused(find_tokenizer, folder, Corpus(text), CHAR, kind=RunError)


def test_a_tokenizer_folder_appears_complete_or_not_at_all(tmp_path, tiny_tokenizer):
    with pytest.raises(ValueError):
        save_tokenizer(tiny_tokenizer, {"bytes_per_token": float("nan")}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    save_tokenizer(tiny_tokenizer, None, tmp_path / "new")
    assert load_tokenizer(str(tmp_path / "new")).get_vocab() == tiny_tokenizer.get_vocab()


# Rows.


def test_rows_are_made_once(text, tmp_path, tiny_tokenizer):
    first = find_rows(Corpus(text), tiny_tokenizer, tmp_path / "rows")
    again = find_rows(Corpus(text), tiny_tokenizer, tmp_path / "rows")
    assert not first.reused and again.reused and again.train.manifest == first.train.manifest
    assert find_rows(Corpus(text, 9), tiny_tokenizer, tmp_path / "rows").reused  # files do not depend on the seed


def test_rows_of_other_data_or_another_tokenizer_are_refused_and_the_change_named(text, tmp_path, tiny_tokenizer):
    folder = tmp_path / "rows"
    find_rows(Corpus(text), tiny_tokenizer, folder)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    other, _ = make_tokenizer(Corpus(text), CHAR)
    assert "were made from other tokenizer" in refused(find_rows, Corpus(text), other, folder)
    assert "other split (validation_split_percentage 10, now 9)" in refused(
        find_rows, Corpus(replace(text, validation_split_percentage=9)), tiny_tokenizer, folder
    )
    assert "were made from other validation, split" in refused(
        find_rows, Corpus(replace(text, validation_file=text.train_file)), tiny_tokenizer, folder
    )
    with open(text.train_file[0], "a") as file:
        file.write("more")
    assert "were made from other sources (text.txt)" in refused(find_rows, Corpus(text), tiny_tokenizer, folder)
    assert "other sources (text.txt, text_column not set, now body)" in refused(
        find_rows, Corpus(replace(text, text_column="body")), tiny_tokenizer, folder
    )
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def test_toyland_rows_depend_on_the_seed(tmp_path, tiny_tokenizer):
    data = DataArguments(dataset_name="toyland", max_train_samples=80, validation_split_percentage=20, block_size=16)
    find_rows(Corpus(data, 1), tiny_tokenizer, tmp_path / "rows")
    assert find_rows(Corpus(data, 1), tiny_tokenizer, tmp_path / "rows").reused
    assert "other sources (seed 1, now 2)" in refused(find_rows, Corpus(data, 2), tiny_tokenizer, tmp_path / "rows")
    fewer = replace(data, max_train_samples=70)
    words = "other sources (max_train_samples 80, now 70)"
    assert words in refused(find_rows, Corpus(fewer, 1), tiny_tokenizer, tmp_path / "rows")


def test_a_change_in_a_mix_is_named_by_entry_and_file():
    file = lambda k, size=1: {"name": f"{k}.txt", "size": size, "sha256": "x"}  # noqa: E731
    known = {"sources": [{"files": [file(k) for k in range(9)]}, {"dataset_name": "a/b", "weight": 2.0}]}
    now = {
        "sources": [
            {"files": [file(k, 2) for k in range(6)] + known["sources"][0]["files"][6:]},
            {"dataset_name": "a/b"},
        ]
    }
    assert changes(known, now, ["sources", "split"]) == [
        "sources (entry 1: 0.txt, 1.txt, 2.txt and 3 more, entry 2: weight 2.0, now not set)"
    ]
    assert changes(known, {"sources": now["sources"][:1]}, known) == ["sources (2, now 1)"]
    turned = {"sources": [{"files": known["sources"][0]["files"][::-1]}, known["sources"][1]]}
    assert changes(known, turned, known) == ["sources (entry 1: the order of the files)"]
    assert changes(known, known, known) == []


def test_a_local_dataset_that_changed_is_noticed(tmp_path, tiny_tokenizer):
    (tmp_path / "d" / "more").mkdir(parents=True)
    table = tmp_path / "d" / "more" / "train.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {k}" for k in range(99)]}), table)
    data = DataArguments(dataset_name=str(tmp_path / "d"), validation_split_percentage=20, block_size=16)
    find_rows(Corpus(data), tiny_tokenizer, tmp_path / "rows")
    assert find_rows(Corpus(data), tiny_tokenizer, tmp_path / "rows").reused
    parquet.write_table(pyarrow.table({"text": [f"text {k}" for k in range(99, 198)]}), table)
    line = refused(find_rows, Corpus(data), tiny_tokenizer, tmp_path / "rows")
    assert "were made from other sources (more/train.parquet)" in line


def test_files_that_are_not_read_are_counted_once(text, tmp_path, tiny_tokenizer):
    for name in ("a.pdf", "b.PDF", "c.tar.gz", ".hidden.pdf"):
        (tmp_path / name).write_bytes(b"x")
    data = replace(text, train_file=[str(tmp_path)])
    prepared = find_rows(Corpus(data), tiny_tokenizer, tmp_path.parent / f"{tmp_path.name}-rows")
    assert prepared.remarks == ["files not read for their endings: .pdf (2), .tar.gz (1)"]
    assert find_rows(Corpus(text), tiny_tokenizer, tmp_path / "rows").remarks == []


def test_rows_given_by_name_must_fit_the_tokenizer(text, tmp_path, tiny_tokenizer, tiny_text):
    find_rows(Corpus(text), tiny_tokenizer, tmp_path / "rows")
    named = DataArguments(rows=str(tmp_path / "rows"))
    assert find_rows(Corpus(named), tiny_tokenizer, tmp_path / "none").reused
    small = train_tokenizer(["a b"], "byte")
    assert f"made with a vocabulary of {len(tiny_tokenizer)} (expected the 260 of the tokenizer)" in refused(
        find_rows, Corpus(named), small, tmp_path / "none"
    )
    same_size = train_tokenizer([tiny_text[::-1]] * 3, "bpe", len(tiny_tokenizer))
    assert len(same_size) == len(tiny_tokenizer)
    assert "made with another tokenizer" in refused(find_rows, Corpus(named), same_size, tmp_path / "none")
    missing = DataArguments(rows=str(tmp_path / "nowhere"))
    assert "(expected a folder of rows" in refused(find_rows, Corpus(missing), tiny_tokenizer, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_damaged_rows_are_named(text, tmp_path, tiny_tokenizer):
    find_rows(Corpus(text), tiny_tokenizer, tmp_path / "rows")
    (tmp_path / "rows" / "train" / "shard-000000" / "tokens.bin").write_bytes(b"12")
    assert "tokens.bin has 2 bytes" in refused(
        find_rows, Corpus(text), tiny_tokenizer, tmp_path / "rows", kind=RunError
    )
