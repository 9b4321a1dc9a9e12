"""A document stays on its side of the split from files to rows, in any corpus and any format."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows.build import prepare_rows
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["a"], "byte", 0)
CORPUS = [f"story {k}: " + "so it went on. " * (k % 4) for k in range(240)]


def keep(folder: Path, name: str, texts, kind: str) -> str:
    path = folder / f"{name}.{kind}"
    with open(path, "w", encoding="utf-8", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps({"id": k, "text": text}) + "\n" for k, text in enumerate(texts))
        else:
            writer = csv.writer(file)
            writer.writerows([["text", "id"], *([text, k] for k, text in enumerate(texts))])
    return str(path)


def sides(folder: Path, **data) -> dict[str, Counter]:
    """Count how often each text is in train and in validation, from the rows."""
    prepared = prepare_rows(
        Corpus(DataArguments(validation_split="hash", validation_split_percentage=20, block_size=16, **data)),
        TOKENIZER,
        folder / "rows",
    )
    return {
        part: Counter(TOKENIZER.decode(rows.document(k)[:-1]) for k in range(rows.num_documents))
        for part, rows in (("train", prepared.train), ("validation", prepared.validation))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Counter]:
    folder = tmp_path_factory.mktemp("whole")
    found = sides(folder, train_file=[keep(folder, "all", CORPUS, "jsonl")])
    assert found["train"] + found["validation"] == Counter(CORPUS)  # every document once, on one side
    assert 24 < len(found["validation"]) < 72
    return found


@settings(max_examples=12, deadline=None)
@given(
    order=st.permutations(range(len(CORPUS))),
    size=st.integers(100, len(CORPUS)),
    cut=st.integers(1, 99),
    kinds=st.tuples(*[st.sampled_from(["jsonl", "csv"])] * 2),
)
def test_a_growing_corpus_moves_no_document_across_the_split(tmp_path_factory, whole, order, size, cut, kinds):
    """For any part of the corpus, in any order and file format, each document is on the side it has in the whole corpus."""
    folder, texts = tmp_path_factory.mktemp("part"), [CORPUS[k] for k in order[:size]]
    files = [keep(folder, "b", texts[:cut], kinds[0]), keep(folder, "a", texts[cut:], kinds[1])]
    found = sides(folder, train_file=files)
    assert found["train"] + found["validation"] == Counter(texts)
    for part, texts in found.items():
        assert not texts - whole[part]


def test_a_document_in_two_sources_is_on_one_side_of_the_split(tmp_path, whole):
    both = [
        {"train_file": [keep(tmp_path, "one", CORPUS[:150], "jsonl")], "weight": 2.0},
        {"train_file": [keep(tmp_path, "two", CORPUS[100:], "csv")], "weight": 1.0},
    ]
    found = sides(tmp_path, sources=both)
    assert set(found["train"]) == set(whole["train"]) and set(found["validation"]) == set(whole["validation"])
    assert found["train"][next(text for text in CORPUS[100:150] if text in whole["train"])] == 3
    assert set(found["validation"].values()) == {1, 2}  # once per source: held-out text is not weighted


def test_the_format_of_a_conversation_does_not_move_it_across_the_split(tmp_path):
    talks = [[("user", f"who is {k}?"), ("assistant", f"{k} is me")] for k in range(200)]
    lines = {
        "one": [[{"role": role, "content": content} for role, content in talk] for talk in talks],
        "two": [[{"content": content, "role": role} for role, content in talk] for talk in reversed(talks)],
    }
    found = []
    for name, messages in lines.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in messages))
        (tmp_path / name).mkdir()
        found.append(sides(tmp_path / name, train_file=[str(path)]))
    assert found[0] == found[1] and 20 < len(found[0]["validation"]) < 60
