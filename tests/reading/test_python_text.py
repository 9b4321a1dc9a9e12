"""Text given as Python objects is treated as a dataset: named, identified by content, resumed."""

import copy
import json

import pytest
from datasets import Dataset, DatasetDict, IterableDataset, interleave_datasets

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.reading.sources import ResumePoint, documents, training_sources
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.checks import check_settings

TEXTS = [f"text number {k}" for k in range(90)]
ROWS = Dataset.from_dict({"text": TEXTS, "id": list(range(90))})
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def texts_of(data) -> list:
    data = data_arguments(data)
    check_settings(data)
    found = [document for source in training_sources(data) for document in documents(source)]
    return [document.get("text", document.get("messages")) for document in found]


def saved(folder, dataset) -> str:
    dataset.save_to_disk(folder)
    return str(folder)


def test_every_kind_of_python_data_gives_its_texts(tmp_path):
    folder = saved(tmp_path / "one", ROWS)
    parts = DatasetDict(train=ROWS, validation=ROWS.select([3]), test=ROWS.select([4]))
    for data in (
        TEXTS, tuple(TEXTS), ROWS, [ROWS], ROWS.to_iterable_dataset(), parts, [{"text": text} for text in TEXTS],
        folder, tmp_path / "one", DataArguments(train_file=ROWS), DataArguments(train_file=[folder]),
        DataArguments(dataset_name=folder), DataArguments(sources=[{"train_file": ROWS, "weight": 2}]),
        saved(tmp_path / "parts", parts), DataArguments(train_file=folder, streaming=True),
    ):  # fmt: skip
        assert texts_of(data) == TEXTS
    assert texts_of([CHAT, CHAT]) == [CHAT, CHAT] == texts_of(DataArguments(train_file=[{"messages": CHAT}] * 2))
    assert texts_of(Dataset.from_dict({"text": [b"caf\xc3\xa9"]})) == ["café"]


def test_train_and_validation_splits_are_used_and_others_named(tmp_path):
    parts = DatasetDict(train=ROWS, validation=ROWS.select([3]), test=ROWS.select([4]))
    corpus = Corpus(data_arguments(parts))
    assert [document["text"] for document in documents(corpus.validation)] == [TEXTS[3]]
    assert corpus.remarks == ["splits not read: test"]
    assert "splits not read: validation, test" in Corpus(data_arguments(saved(tmp_path / "d", parts))).remarks[0]


def test_a_python_text_is_a_string_that_holds_its_data():
    data = data_arguments(DataArguments(train_file=ROWS, validation_file=ROWS.select([1]), block_size=32))
    check_settings(data)
    assert data.train_file == ["python:Dataset of 90 rows"] and data.validation_file == ["python:Dataset of 1 rows"]
    assert data_arguments(copy.deepcopy(data)).train_file[0].rows is ROWS and data.block_size == 32
    assert not data.streaming and data_arguments(ROWS.to_iterable_dataset()).streaming
    (source,) = training_sources(data)
    facts = sources.fingerprint(source)
    assert json.loads(json.dumps(facts)) == facts and facts["files"][0]["name"].startswith("python:Dataset of 90 rows ")
    with pytest.raises(UsageError, match="a Python object"):  # run.yaml, given to --config
        training_sources(DataArguments(train_file=["python:Dataset of 90 rows"]))


def test_a_fingerprint_depends_on_the_content_only():
    hashes = lambda data: Corpus(data_arguments(data)).facts["sources"][0]["files"][0]["sha256"]  # noqa: E731
    same = {hashes(data) for data in (TEXTS, ROWS, [{"text": text} for text in TEXTS])}
    assert len(same) == 1 and hashes([*TEXTS[:-1], "another"]) not in same
    stream = ROWS.to_iterable_dataset()
    assert (
        hashes(stream) == hashes(ROWS.to_iterable_dataset()) != hashes(ROWS.select(range(1, 90)).to_iterable_dataset())
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((text for text in TEXTS), "the data is a generator (expected a Dataset"),
        ({"text": TEXTS}, "the data is a dict"),
        (["a text", CHAT], "a list with a list at 1"),
        ([CHAT, None], "a list with a NoneType at 1"),
        ([None], "a list with a NoneType at 0"),
        ([CHAT[:1] * 2], "list of 1 conversations, row 0: message 2 has the role 'user'"),
        (["a", None], "a list with a NoneType at 1"),
        ([{"body": "a"}], "row 0 has the columns body"),
        (Dataset.from_dict({"text": ["a", None]}), "row 1 holds nothing under text"),
        (DatasetDict(test=ROWS), "the DatasetDict has the splits test (expected train)"),
        ([__file__], "is the file"),
        (DataArguments(train_file=[ROWS, "a.txt"]), "a list with a Dataset at 0"),
        (ROWS.to_iterable_dataset().with_format("arrow"), "row 0 is a Table"),
        (DataArguments(train_file=ROWS, text_column="id"), "row 0 holds a int under id"),
    ],
)  # fmt: skip
def test_other_types_are_refused_in_one_line(data, words):
    with pytest.raises(UsageError, match="expected") as caught:
        texts_of(data)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def numbered():
    yield from ({"text": f"made {k}"} for k in range(90))


MADE = IterableDataset.from_generator(numbered)
SHUFFLED = ROWS.to_iterable_dataset().shuffle(seed=1, buffer_size=20)
STREAMS = {
    "shards": ROWS.to_iterable_dataset(num_shards=4),
    "generator": MADE,
    "mapped": ROWS.to_iterable_dataset().map(lambda rows: {"text": rows["text"]}, batched=True, batch_size=7),
    "filtered": MADE.filter(lambda row: row["text"][-1] != "3"),
    "interleaved": interleave_datasets([ROWS.to_iterable_dataset(), MADE], probabilities=[0.3, 0.7], seed=3),
    "shuffled": SHUFFLED,
    "shuffled in part": interleave_datasets([MADE, SHUFFLED]),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_resumes_or_is_read_from_the_beginning(kind, monkeypatch):
    monkeypatch.setattr(sources, "NOTED_EVERY", 10)
    (source,) = training_sources(data_arguments(STREAMS[kind]))
    whole = list(documents(source))
    assert [d["text"] for d in documents(source)] == [d["text"] for d in whole]
    places = [(k, document["place"]) for k, document in enumerate(whole) if "place" in document]
    assert (len(places) > 3) == ("shuffled" not in kind)  # the state does not include the shuffle buffer
    for k, place in places:
        begin = ResumePoint(**json.loads(json.dumps(vars(place))))
        assert [d["text"] for d in documents(source, begin=begin)] == [d["text"] for d in whole[k:]]
        lost = ResumePoint(begin.rows, begin.state, "another row")
        assert [d["text"] for d in documents(source, begin=lost)] == [d["text"] for d in whole[k:]]
