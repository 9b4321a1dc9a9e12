"""Conversations in each supported shape give the same messages and labels."""

import csv
import json

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.formats import Reading, file_documents, row_document
from tinygpt_hf.rows.build import prepare_rows, shown_rows
from tinygpt_hf.rows.store import IGNORED
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

ASK, SAY = {"role": "user", "content": "What is 2?\r\n"}, {"role": "assistant", "content": " A number."}
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
SHAPES = {
    "messages": ({"messages": [ASK, SAY]}, [ASK, SAY]),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": ASK["content"]}, {"from": "gpt", "value": SAY["content"]}]},
        [ASK, SAY],
    ),
    "sharegpt with system": (
        {
            "id": "7",
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": ASK["content"]},
                {"from": "gpt", "value": SAY["content"]},
            ],
        },
        [SYSTEM, ASK, SAY],
    ),
    "conversations of messages": ({"conversations": [ASK, SAY]}, [ASK, SAY]),
    "prompt": ({"prompt": ASK["content"], "completion": SAY["content"]}, [ASK, SAY]),
    "prompt as messages": ({"prompt": [SYSTEM, ASK], "completion": [SAY]}, [SYSTEM, ASK, SAY]),
    "prompt as messages, completion a text": ({"prompt": [ASK], "completion": SAY["content"]}, [ASK, SAY]),
    "instruction": ({"instruction": ASK["content"], "output": SAY["content"]}, [ASK, SAY]),
    "instruction, input empty": ({"instruction": ASK["content"], "input": " ", "output": SAY["content"]}, [ASK, SAY]),
    "instruction, input null": ({"instruction": ASK["content"], "input": None, "output": SAY["content"]}, [ASK, SAY]),
    "instruction with input": (
        {"instruction": "Add.", "input": "2 and 3", "output": "5"},
        [{"role": "user", "content": "Add.\n\n2 and 3"}, {"role": "assistant", "content": "5"}],
    ),
    "a column that is null is not there": ({"messages": None, "instruction": None, "output": "x", "text": "t"}, "t"),
    "a conversation before its rendered text": ({"text": "Below is ...", "prompt": "a", "completion": "b"}, None),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_every_shape_is_the_same_conversation(tmp_path, shape, ending):
    row, expected = SHAPES[shape]
    expected = expected or [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (document,) = file_documents(write_rows(tmp_path / f"t{ending}", [row]))
    assert document.get("messages", document.get("text")) == expected


def test_a_named_column_is_the_only_one_read():
    row = {
        "messages": [ASK, SAY],
        "text": "t",
        "talk": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    }
    assert row_document(row, "text", "x")["text"] == "t"
    assert [m["content"] for m in row_document(row, "talk", "x")["messages"]] == ["q", "a"]


HARMLESS = {  # columns that are empty or add nothing to a conversation
    "id": "7", "source": "web", "score": 0.5, "name": "pirates", "input": "", "question_id": 0, "label": 0, "loss": 2.3,
    "system": "", "system_prompt": None, "history": [], "tools": "[]", "tool_calls": None, "functions": [{"name": None}],
    "reasoning_content": " ", "images": [], "chat_template_kwargs": {"enable_thinking": False, "custom_instructions": ""},
    "weight": 1.0, "train": True, "kto_tag": True, "mask": "User",
    "documents": [], "chosen": "", "rejected": None,
}  # fmt: skip
MEANINGFUL = {
    "tool_calls": [{"function": {"name": "add"}}], "reasoning_content": "two and two", "documents": [{"text": "t"}],
    "images": ["a.png"], "chat_template_kwargs": {"enable_thinking": True}, "chosen": "a", "rejected": [ASK, SAY],
    "weight": 0, "train": False, "kto_tag": False, "mask": "gpt",
}  # fmt: skip
TALKS = ("messages", "sharegpt", "prompt", "instruction")


def write_rows(path, rows: list[dict]) -> str:
    if path.suffix == ".parquet":
        tables = [pyarrow.table({column: [value] for column, value in row.items()}) for row in rows]
        parquet.write_table(pyarrow.concat_tables(tables, promote_options="permissive"), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("name", MEANINGFUL)
def test_a_column_that_would_be_lost_is_named_and_an_empty_one_passes(tmp_path, name, ending):
    harmless = {n: "" if ending == ".csv" and isinstance(v, (list, dict)) else v for n, v in HARMLESS.items()}
    place = "line 2" if ending == ".jsonl" else "row 1"
    for shape in TALKS if ending != ".csv" else ("prompt", "instruction"):
        row, messages = SHAPES[shape]
        path = write_rows(tmp_path / f"t{ending}", [row | harmless] * 2)
        assert [document["messages"] for document in file_documents(path)] == [messages, messages]
        write_rows(tmp_path / f"t{ending}", [row | harmless, row | harmless | {name: MEANINGFUL[name]}])
        with pytest.raises(UsageError) as caught:
            list(file_documents(path))
        assert str(caught.value).startswith(f"{path}, {place}: the row has `{name}` (expected fields that docs/data.md")


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"reasoning_content": "hm", "thinking": "ha"}, "`thinking`"),
        ({"reasoning": {"effort": "low"}}, "`reasoning`"),
        ({"tool_calls": [CALL], "function_call": CALL["function"]}, "`function_call`"),
        ({"refusal": "No.", "weight": 0.5}, "`refusal`, `weight`"),
        ({"train": "no"}, "`train`"),
        ({"weight": 1, "train": False}, "`weight`, `train`"),
        ({"training": False, "images": ["a.png"]}, "`images`"),
        ({"mask": True, "train_detail": [{"begin_offset": 0}], "tools": [CALL]}, "`tools`, `train_detail`, `mask`"),
        (
            {"tool_calls": [], "name": None, "reasoning_content": "", "images": [], "id": 7, "tools": [{"name": None}]},
            None,
        ),
        ({"weight": 1, "train": True, "loss": None}, None),
    ],
)
@pytest.mark.parametrize("shape", ["messages", "sharegpt", "prompt as messages"])
def test_other_fields_of_a_turn_are_named(shape, more, fields):
    row, messages = json.loads(json.dumps(SHAPES[shape]))
    answer = row["completion"][-1] if "completion" in row else next(iter(row.values()))[-1]
    answer |= more
    if fields is None:
        assert [m["content"] for m in row_document(row, None, "x")["messages"]] == [m["content"] for m in messages]
        return
    number = 1 if "completion" in row else 2
    broken = row_document(row, None, "x", keep_broken=True)
    assert broken["broken"] == f"message {number} has {fields}"
    with pytest.raises(UsageError, match=f"^x: message {number} has {fields} .expected fields that"):
        row_document(row, None, "x")


def test_a_mark_that_states_the_default_is_allowed():
    for ask, fine in (({"train": False}, True), ({"weight": 0}, True), ({"weight": 1}, True), ({"loss": True}, False)):
        found = row_document({"messages": [ASK | ask, SAY]}, None, "x", keep_broken=True)
        assert found.get("messages") == ([ASK, SAY] if fine else None) and ("rule" in found) != fine
    assert "broken" in row_document({"prompt": "a", "completion": "b", "label": False}, None, "x", keep_broken=True)


def test_an_input_below_a_list_of_messages_is_named():
    row = {"instruction": [SYSTEM, ASK], "input": "2 and 3", "output": "5"}
    with pytest.raises(UsageError, match="^x: the row has `input`"):
        row_document(row, None, "x")
    assert row_document(row | {"input": ""}, None, "x")["messages"][0] == SYSTEM


def test_columns_beside_a_plain_text_are_ignored(tmp_path):
    row = {"text": "t", "system": "Be kind.", "weight": 0.5, "images": ["a.png"]}
    assert row_document(row, None, "x")["text"] == "t" and row_document(row, "system", "x")["text"] == "Be kind."
    path = write_rows(tmp_path / "t.parquet", [row])
    assert [document["text"] for document in file_documents(path)] == ["t"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_named_column_of_turns_loses_nothing(tmp_path, ending):
    row = {"talk": [ASK, SAY], "system": "Be kind."}
    path = write_rows(tmp_path / f"t{ending}", [row])
    assert [document["messages"] for document in file_documents(path, Reading("talk"))] == [[SYSTEM, ASK, SAY]]


WRITTEN = [
    json.dumps([ASK, SAY]),
    str([ASK, SAY]),
    json.dumps(json.dumps([ASK, SAY])),
    f"array([{ASK},\n       {SAY}], dtype=object)",
    f"[{ASK}\n {SAY}]",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_conversation_may_be_written_as_a_string(tmp_path, text):
    for column, chosen in (
        ("messages", None), ("conversations", None), ("messages", "messages"), ("talk", "talk"),
    ):  # fmt: skip
        for name in ("t.csv", "t.parquet"):
            path = write_rows(tmp_path / name, [{column: text}])
            assert [document["messages"] for document in file_documents(path, Reading(chosen))] == [[ASK, SAY]]
    assert row_document({"prompt": str([ASK]), "completion": json.dumps([SAY])}, None, "x")["messages"] == [ASK, SAY]
    for column in ("text", "content"):  # a file of JSON is text like any other
        for chosen in (None, column):
            assert row_document({column: text}, chosen, "x")["text"] == text


@pytest.mark.parametrize(
    "text",
    [
        '[{"from": "human", "value": "q"}',
        "[{'role': 'user', 'content': open('x')}]",
        '["a"]',
        "[" * 10**5,
        '{"role": "user"}',
        "",
    ],
)
def test_a_string_that_is_not_a_conversation_is_refused(text):
    with pytest.raises(UsageError, match="^x holds a string under messages that is not a conversation"):
        row_document({"messages": text}, None, "x")
    kept = row_document({"messages": text}, None, "x", keep_broken=True)
    assert kept["broken"] == "holds a string under messages that is not a conversation"
    assert json.loads(kept["text"]) == {"messages": text}


def test_plain_text_in_a_column_of_conversations_must_be_asked_for():
    row = {"messages": "[12:30] Hello, all.", "completion": "[1, 2]"}
    with pytest.raises(UsageError, match="^x holds a string under messages"):
        row_document(row, None, "x")
    assert row_document(row, "messages", "x")["text"] == row["messages"]
    assert row_document({"prompt": "[1] {a}", "completion": "[1, 2]"}, None, "x")["messages"][1]["content"] == "[1, 2]"


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_rows_nested_to_the_limit_and_long_roles_are_one_short_line():
    for depth in (*range(100, 1000, 50), *range(950, 1000), 10**4):
        found = row_document({"messages": nested(depth)}, None, "here", keep_broken=True)
        assert found["broken"] == "message 1 has no text under `content`" and found["text"]
        found = row_document({"messages": [ASK, SAY], "history": nested(depth) + ["x"]}, None, "here", keep_broken=True)
        assert found["broken"] == "the row has `history`" and found["rule"] == "field history" and found["text"]
    for role in (nested(10**4), "x" * 10**6):
        with pytest.raises(UsageError) as caught:
            row_document({"messages": [{"role": role, "content": "x"}]}, None, "here")
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q"}, "has the columns prompt (expected one of messages"),
        ({"prompt": "q", "completion": " "}, "here: `completion` is empty (expected text in every turn"),
        ({"prompt": "q", "completion": 5}, "holds a int under completion"),
        ({"prompt": "q", "completion": None}, "holds nothing under completion"),
        ({"prompt": [ASK, SAY], "completion": [SAY]}, "message 3 has the role 'assistant' where 'user' is due"),
        ({"instruction": "", "output": "x"}, "`instruction` is empty"),
        ({"instruction": "q", "input": [1], "output": "x"}, "holds a list under input"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "message 1 has the role 'assistant'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "message 1 has no text under `value`"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "message 1 has the role ['human']"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "tool", "value": "x"}]}, "has the role 'tool'"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, "message 2 has no text under `content`"),
        ({"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": []}]}, "message 2 is empty"),
        (
            {"messages": [ASK, {"role": "assistant", "tool_calls": "add(2)"}]},
            "message 2 has a call of a tool without a name",
        ),
        (
            {
                "messages": [
                    ASK,
                    {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "x"}}]},
                ]
            },
            "message 2 calls `f` with arguments that are not an object",
        ),
        ({"messages": [ASK, SAY], "tools": "You may search."}, "here has `tools` that are not a list of JSON schemas"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, SAY]},
            "message 1 has `image_url`",
        ),
        ({"messages": [SYSTEM, ASK, SAY], "system": "Be rude."}, "here: the row has `system` (expected fields"),
        ({"messages": [ASK, SAY], "history": [["a", "b"]]}, "here: the row has `history`"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "here: the row has `history`"),
        ({"prompt": "a", "completion": "b", "context": "c", "input": "d"}, "here: the row has `context`, `input`"),
        ({"conversations": 3}, "holds a int under conversations"),
        ({"prompt": "q", "completion": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_broken_rows_say_where_and_what(row, words):
    with pytest.raises(UsageError) as caught:
        row_document(row, None, "here")
    assert words in str(caught.value) and str(caught.value).startswith("here") and "\n" not in str(caught.value)


# What is learned: the label tensor itself, written out by hand with one token per byte.


@pytest.fixture(scope="module")
def bytewise():
    """Train a byte tokenizer; ids 0 to 3 are <|endoftext|>, <|pad|>, <|im_start|>, <|im_end|>."""
    return train_tokenizer(["x"], "byte")


def ids_of(tokenizer, text) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(character))[0] for character in text]


@pytest.mark.parametrize("shape", ["messages", "sharegpt", "prompt", "instruction"])
def test_labels_equal_those_written_by_hand(tmp_path, bytewise, shape):
    question, answer = "Hi?", "Yes"
    row = {
        "messages": {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]},
        "sharegpt": {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]},
        "prompt": {"prompt": question, "completion": answer},
        "instruction": {"instruction": question, "input": "", "output": answer},
    }[shape]
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    data = DataArguments(
        train_file=[str(tmp_path / "t.jsonl")], validation_file=[str(tmp_path / "t.jsonl")], block_size=27
    )
    rows = prepare_rows(Corpus(data), bytewise, tmp_path / "rows").train
    s = lambda text: ids_of(bytewise, text)  # noqa: E731
    ids = [2, *s("user\nHi?"), 3, *s("\n"), 2, *s("assistant\n"), *s("Yes"), 3, *s("\n"), 0]
    assert len(ids) == 28
    _ = IGNORED
    labels = [_] * (1 + 8 + 1 + 1 + 1 + 10 - 1) + [*s("Yes"), 3] + [_, _]  # ids moved one to the left
    input_ids, found = rows.batch([0], 27)
    assert input_ids[0].tolist() == ids[:-1]
    assert found[0].tolist() == labels
    (line,) = shown_rows(rows, bytewise, 3, 27)
    said = "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n⟦Yes<|im_end|>⟧\n"
    assert line == f"row 0, 4 of 27 tokens learned: {said}"


def talk(*turns) -> dict:
    return {"messages": [{"role": ("user", "assistant")[k % 2], "content": c} for k, c in enumerate(turns)]}


def test_over_long_conversations_are_cut_behind_an_answer_and_counted(tmp_path, bytewise):
    short, long, huge = talk("a" * 9, "b" * 9), talk(*(c * 9 for c in "abcdefg")), talk("a" * 99, "b" * 99, "c", "d")
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (short, long, huge)))
    one = (6 + 9 + 2) + (11 + 9 + 2)  # an exchange of two turns of nine letters
    for block_size, exchanges in ((2 * one, 2), (2 * one - 1, 1), (3 * one, 3)):
        data = DataArguments(train_file=[str(path)], validation_file=[str(path)], block_size=block_size)
        prepared = prepare_rows(Corpus(data), bytewise, tmp_path / f"rows-{block_size}")
        documents = [prepared.train.document(k) for k in range(3)]
        assert [len(d) for d in documents] == [one + 1, exchanges * one + 1, 2 * 90 + one + 1]
        assert all(d[-1] == bytewise.eos_token_id for d in documents)
        said = np.split(documents[1], np.flatnonzero(documents[1] == 2)[1:])
        assert len(said) == 2 * exchanges
        counts = prepared.train.manifest["conversations"]
        assert counts == {"count": 3, "cut": 2, "turns_cut": 7 - 2 * exchanges + 2, "too_long": 1}
        cut = f"4 over-long conversations cut after an answer ({2 * counts['turns_cut']} turns left out)"
        assert prepared.remarks == [cut, "2 conversations are still longer than a row"]


def test_conversations_that_fit_are_whole_without_a_remark(tmp_path, bytewise):
    path = tmp_path / "t.jsonl"
    path.write_text(3 * (json.dumps(talk("a", "b", "c", "d")) + "\n"))
    data = DataArguments(train_file=[str(path)], validation_file=[str(path)], block_size=60)
    prepared = prepare_rows(Corpus(data), bytewise, tmp_path / "rows")
    assert prepared.train.manifest["conversations"]["cut"] == 0 and prepared.remarks == []


def test_a_template_that_refuses_a_row_names_it(tmp_path, bytewise):
    import copy

    strict = copy.deepcopy(bytewise)
    strict.chat_template = (
        "{{ raise_exception('no systems') if messages[0]['role'] == 'system' }}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(talk("a", "b")) + "\n" + json.dumps({"messages": [SYSTEM, ASK, SAY]}) + "\n")
    with pytest.raises(
        UsageError, match=r"t\.jsonl, line 2: the chat template refuses the conversation \(no systems\)"
    ):
        prepare_rows(Corpus(DataArguments(train_file=[str(path)], block_size=8)), strict, tmp_path / "rows")
