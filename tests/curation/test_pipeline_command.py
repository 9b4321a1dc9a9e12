"""prepare-corpus end to end: mixed inputs become a folder that accounts for every document."""

import csv
import gzip
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tinygpt_hf import cli, storage
from tinygpt_hf.cards.render import advice
from tinygpt_hf.curation import documents
from tinygpt_hf.curation.deduplication import NearDuplicates
from tinygpt_hf.curation.pipeline import prepare_corpus
from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.split import is_held_out
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.corpus import OFF, PRESETS, CorpusArguments

CODE = "class Dog:\n\n\tdef bark(self):   \n\t    return 'Wuff'\n\n"
SUBJECTS = "dog cat bird fox girl boy king farmer teacher sailor baker painter".split()
VERBS = "found lost carried painted followed watched hid repaired borrowed forgot".split()
THINGS = "ball letter boat lantern garden mirror bridge wheel coat basket clock".split()
PLACES = "river forest market tower harbour kitchen meadow station library castle".split()


def story(seed: int) -> str:
    """Write sentences that no other story has."""
    rng = random.Random(seed)
    someone, other = rng.sample(SUBJECTS, 2)
    thing, toy = rng.sample(THINGS, 2)
    return (
        f"Once a {someone} {rng.choice(VERBS)} a {thing} near the {rng.choice(PLACES)}. "
        f"Nobody but one {other} knew of this {toy}, which somebody {rng.choice(VERBS)} long ago. "
        f"They met behind our {rng.choice(PLACES)} at noon on day {seed}, {rng.choice(VERBS)} each other's {toy}, "
        f"talked about {rng.choice(THINGS)}s until it was dark, then {rng.choice(VERBS)} everything else."
    )


def prepared(folder: Path, data, **settings) -> dict:
    """Run prepare-corpus on texts or rows (a list), a file or folder, or the settings of `data`."""
    if isinstance(data, list):
        data = write_jsonl(folder.parent / "in.jsonl", data)
    data = data if isinstance(data, dict) else {"train_file": [str(data)]}
    return prepare_corpus(DataArguments(**data), CorpusArguments(output_dir=str(folder), **settings))


def error_of(folder: Path, data, **settings) -> str:
    with pytest.raises(UsageError) as caught:
        prepared(folder, data, **settings)
    assert not folder.exists()
    return str(caught.value)


def write_jsonl(path: Path, rows: list) -> str:
    rows = [{"text": row} if isinstance(row, str) else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def chat(*turns: str) -> dict:
    return {"messages": [{"role": ("user", "assistant")[k % 2], "content": turn} for k, turn in enumerate(turns)]}


def stored(folder: Path) -> list[dict]:
    """Read the documents that `train` would read."""
    return list(sources.documents(sources.Source(files=(str(folder),))))


def texts_of(folder: Path) -> list[str]:
    return [document["text"] for document in stored(folder)]


def excluded(folder: Path) -> list[dict]:
    from pyarrow import parquet

    return [row for path in sorted((folder / "excluded").iterdir()) for row in parquet.read_table(path).to_pylist()]


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Write a folder with every kind of input: 5 stories, a copy, a near copy, a page of links, code, a cell, a conversation."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text(story(1))
    (folder / "b.md").write_text(story(2))
    write_jsonl(folder / "c.jsonl", [story(3), story(1), story(2) + " The end.", "Home\nShop\nAbout\nContact\nLegal"])
    (folder / "c.jsonl.gz").write_bytes(gzip.compress((folder / "c.jsonl").read_bytes()))
    (folder / "c.jsonl").unlink()
    with open(folder / "d.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text", "n"], [story(4) + " Cafe\u0301.", 1]])
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": [story(5)]}), folder / "deep" / "e.parquet")
    (folder / "f.py").write_text(CODE)
    write_jsonl(folder / "g.jsonl", [chat("Who are you?", "A small model.")])
    return folder


def test_mixed_inputs_become_a_corpus_that_accounts_for_every_document(mixed, tmp_path):
    out = tmp_path / "out"
    facts = prepared(out, mixed)
    texts = [document["text"] for document in stored(out) if "text" in document]
    assert texts == [story(1), story(2), story(3), story(4) + " Caf\u00e9.", story(5)]
    assert [document["messages"][1]["content"] for document in stored(out) if "messages" in document] == [
        "A small model."
    ]
    why = {
        Path(row["origin"].split(",")[0]).name + row["origin"].partition(",")[2]: row["rule"] for row in excluded(out)
    }
    assert why == {
        "c.jsonl.gz line 2": "exact_duplicate",
        "c.jsonl.gz line 3": "near_duplicate",
        "c.jsonl.gz line 4": "punctuated_lines",
        "f.py": "short_lines",
    }
    reasons = {row["rule"]: row["reason"] for row in excluded(out)}
    assert reasons["exact_duplicate"] == f"same text as {mixed / 'a.txt'}"
    assert reasons["near_duplicate"].endswith(f"in common with {mixed / 'b.md'}")
    assert (
        facts["read"]["documents"]
        == 10
        == facts["kept"]["documents"] + sum(d["documents"] for d in facts["dropped"].values())
    )
    assert facts["kept"]["bytes"] == sum(len(t.encode()) for t in texts) + len("Who are you?A small model.")
    assert facts["read"]["bytes"] - facts["kept"]["bytes"] == sum(d["bytes"] for d in facts["dropped"].values()) + 1, (
        "NFC"
    )
    known = {file["name"]: file["sha256"] for file in facts["sources"][0]["files"]}
    assert known["a.txt"] == storage.file_hash(mixed / "a.txt") and len(known) == 7
    assert facts == json.loads((out / "corpus.json").read_text())
    assert set(facts["files"]) == {str(p.relative_to(out)) for f in ("data", "excluded") for p in (out / f).iterdir()}
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "corpus.json", "data", "excluded"]


@pytest.mark.parametrize("preset", ["code", "none"])
@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_code_is_stored_byte_for_byte(preset, file_format, tmp_path):
    text = CODE + "# e\u0301 \x07\x0c\r\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dog.py").write_text(text, newline="")
    (tmp_path / "in" / "__init__.py").touch()  # is skipped
    facts = prepared(tmp_path / "out", tmp_path / "in", preset=preset, output_format=file_format)
    assert texts_of(tmp_path / "out") == [text] and facts["read"]["documents"] == 1


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_datasets_reads_the_folder_and_its_excluded(file_format, tmp_path):
    from datasets import load_dataset

    texts = [story(k) for k in range(30)]
    prepared(tmp_path / "out", [*texts, "too short"], output_format=file_format)
    dataset = load_dataset(str(tmp_path / "out"), split="train")
    assert dataset["text"] == texts and dataset.column_names == ["text", "origin"]
    dropped = load_dataset(str(tmp_path / "out"), "excluded", split="train")
    assert dropped["rule"] == ["length"] and dropped["text"] == ["too short"]


def test_training_reads_the_corpus_and_one_yaml_serves_both_commands(tmp_path, capsys):
    texts = [story(k) for k in range(80)]
    write_jsonl(tmp_path / "in.jsonl", [*texts, "too short", texts[0]])
    raw = {
        "data": {"train_file": [str(tmp_path / "in.jsonl")], "block_size": 32},
        "corpus": {"preset": "prose", "license": "cc0-1.0", "language": ["en"]},
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "tokenizer": {"tokenizer_type": "byte"},
        "training": {"max_steps": 1, "per_device_train_batch_size": 2, "device": "cpu", "sample_tokens": 0},
    }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(raw))
    out = tmp_path / "corpus"
    assert cli.main(["prepare-corpus", "--config", str(tmp_path / "all.yaml"), "--output_dir", str(out)]) == 0
    assert f"{out}: 80 of 82 documents" in capsys.readouterr().out
    run = tmp_path / "run"
    words = ["train", "--config", str(tmp_path / "all.yaml"), "--train_file", str(out), "--output_dir", str(run)]
    assert cli.main(words) == 0
    assert (run / "model.safetensors").is_file()
    (known,) = json.loads((run / "run.json").read_text())["text"]["corpora"]
    facts = json.loads((out / "corpus.json").read_text())
    assert known == {**{name: facts[name] for name in known if name != "preset"}, "preset": "prose"}
    card = (run / "README.md").read_text()
    assert "80 of 82 documents were kept" in card and "Documents dropped: `exact_duplicate` 1, `length` 1;" in card
    assert "its license, as stated there: `cc0-1.0`" in card and "was not recorded" not in card
    assert json.loads((run / "rows" / "train" / "shard-000000" / "manifest.json").read_text())["num_documents"] == sum(
        not is_held_out({"text": text}, 5.0) for text in texts
    )


def test_any_number_of_workers_writes_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BATCH_DOCUMENTS", 16)
    rows = [story(k % 40) + (" Again." if k % 7 == 0 else "") for k in range(60)] + ["a\nb\nc"] * 3 + [GERMAN]
    path = write_jsonl(tmp_path / "in.jsonl", [*rows, *BROKEN.values()])
    data = {"sources": [{"train_file": [path], "weight": 0.9}]}
    one, two = (prepared(tmp_path / str(n) / "out", data | {"num_proc": n}, languages=["en"]) for n in (1, 2))
    assert one == two
    assert {"weight", "conversation", "language", "exact_duplicate"} <= set(one["dropped"])
    lines = [int(row["origin"].rpartition(" ")[2]) for row in excluded(tmp_path / "2" / "out")]
    assert lines == sorted(lines), "in the order they were read"


def test_no_near_duplicate_crosses_the_split_by_brute_force(tmp_path, monkeypatch):
    rng, texts = random.Random(5), []
    for k in range(120):
        words = story(k).split()
        for _ in range(3):
            texts.append(" ".join(words))
            words = list(words)
            words[rng.randrange(len(words))] = rng.choice(THINGS)
    data = {"train_file": [write_jsonl(tmp_path / "in.jsonl", texts)], "validation_split_percentage": 30.0}

    def leaks(documents: list[dict]) -> int:
        def shingles(text: str) -> set:
            words = re.findall(r"\w+", text.lower())
            return {tuple(words[k : k + 5]) for k in range(len(words) - 4)}

        sides: tuple[list, list] = ([], [])
        for document in documents:
            sides[is_held_out(document, 30.0)].append(shingles(document["text"]))
        assert min(map(len, sides)) > 20
        return sum(len(a & b) / len(a | b) >= 0.75 for a in sides[0] for b in sides[1])

    assert leaks([{"text": text} for text in texts]) > 20, "before, copies lie on both sides"
    facts = prepared(tmp_path / "out", data)
    assert leaks(stored(tmp_path / "out")) == 0
    assert facts["leakage"]["documents"] == 0 and "leakage: **0**" in card_of(tmp_path / "out")
    counted = prepared(tmp_path / "counted", data, near_duplicates="count")
    assert counted["kept"]["documents"] > facts["kept"]["documents"] and counted["leakage"]["documents"] > 20
    assert prepared(tmp_path / "off", data, near_duplicates="off")["leakage"]["documents"] is None
    monkeypatch.setattr(NearDuplicates, "matches", lambda *_: iter(()))  # LSH finds no candidates
    facts = prepared(tmp_path / "blind", data)
    assert leaks(stored(tmp_path / "blind")) == 0 == facts["leakage"]["documents"]
    dropped = facts["leakage"]["dropped"]
    assert dropped == facts["dropped"]["near_duplicate"]["documents"] == counted["leakage"]["documents"] > 20
    assert excluded(tmp_path / "blind")[-1]["reason"].endswith(", which is held out")
    assert f"all were compared; {dropped} such were dropped" in card_of(tmp_path / "blind")
    part = prepared(tmp_path / "part", data, sample_documents=150)
    assert leaks(stored(tmp_path / "part")) == 0 and part["dropped"]["near_duplicate"]["documents"] == dropped
    part = prepared(tmp_path / "few", data, sample_documents=60)
    assert part["leakage"]["documents"] is None
    card = card_of(tmp_path / "few")
    assert "leakage between training and validation: not measured (tail of each text)" in card


def test_training_text_equal_to_a_validation_file_is_dropped(tmp_path, monkeypatch):
    held_out = [story(1), story(2) + " The end.", story(99)]
    data = {
        "train_file": [write_jsonl(tmp_path / "in.jsonl", [story(k) for k in range(5)])],
        "validation_file": [write_jsonl(tmp_path / "validation.jsonl", held_out)],
    }
    facts = prepared(tmp_path / "out", data)
    assert texts_of(tmp_path / "out") == [story(0), story(3), story(4)]
    dropped = {rule: entry["documents"] for rule, entry in facts["dropped"].items()}
    assert dropped == {"exact_duplicate": 1, "near_duplicate": 1}
    monkeypatch.setattr(NearDuplicates, "matches", lambda *_: iter(()))  # LSH finds no candidates
    facts = prepared(tmp_path / "counted", data, near_duplicates="count")
    assert (facts["leakage"]["documents"], facts["kept"]["documents"]) == (1, 4)
    facts = prepared(tmp_path / "blind", data)
    assert texts_of(tmp_path / "blind") == [story(0), story(3), story(4)]
    assert (facts["leakage"]["documents"], facts["leakage"]["dropped"], facts["split"]["held_out"]) == (0, 1, 3)


def test_paragraphs_of_earlier_documents(tmp_path):
    texts = [f"{story(1)}\n\n{story(2)}", story(3), f"{story(2)}\n\n{story(1)}", f"{story(2)}\n\n{story(4)}"]
    texts += [
        f"Yes.\n\n{story(5)}\n\n{story(5)}",
        f"Yes.\n\n{story(6)}",
    ]  # repeated inside a text, or short: not for this rule
    facts = prepared(tmp_path / "out", texts, preset="none", max_seen_paragraphs=0.8)
    assert texts_of(tmp_path / "out") == [*texts[:2], *texts[3:]]
    assert facts["dropped"]["seen_paragraphs"]["documents"] == 1
    assert excluded(tmp_path / "out")[0]["reason"].startswith("0.99")  # all but the blank line


def test_a_mixture_uses_each_source_by_its_weight(tmp_path):
    first, second = [story(k) for k in range(200)], [story(k) for k in range(1000, 1020)]
    a, b = write_jsonl(tmp_path / "a.jsonl", first), write_jsonl(tmp_path / "b.jsonl", second)
    data = {"sources": [{"train_file": [a], "weight": 0.5}, {"train_file": [b], "weight": 3.0}]}
    facts = prepared(tmp_path / "out", data)
    texts = texts_of(tmp_path / "out")
    assert all(texts.count(text) == 3 for text in second)
    few = [text for text in texts if text in set(first)]
    assert 70 < len(few) == len(set(few)) < 130
    assert facts["dropped"]["weight"]["documents"] == 200 - len(few)
    assert facts["kept"] == {"documents": len(few) + 20, "with_copies": len(few) + 60, "bytes": sum(map(len, texts))}
    assert {row["text"] for row in excluded(tmp_path / "out")} == {None}, "merely not chosen: their text is not copied"


GERMAN = "Es war einmal ein Müller, der hatte drei Söhne, seine Mühle, einen Esel und einen Kater."
FRENCH = "Un meunier ne laissa pour tous biens, à trois enfants qu'il avait, que son moulin, son âne et son chat."
BROKEN = {
    "message 2 has the role 'user' where 'assistant' is due": {"messages": [{"role": "user", "content": "Grüße"}] * 2},
    "message 1 is empty": chat(" ", "b"),
    "is not a list of messages": {"messages": []},
    "holds a int under messages": {"messages": 5},
    "holds nothing under messages": {"messages": None, "id": 7},
    "holds a float under completion": {"prompt": "q", "completion": 1.5},
    "message 1 has no text under `value`": {"conversations": [{"from": "human", "value": None}]},
    "holds a string under messages that is not a conversation": {"messages": '[{"role": "user", "content": "hi"'},
}  # fmt: skip


def test_broken_conversations_are_dropped_and_accounted_for(tmp_path):
    rows = [
        chat("Who are you?", "A small model."),
        *BROKEN.values(),
        {"prompt": "Its name?", "completion": "It has none."},
    ]
    path = tmp_path / "in.jsonl"
    facts = prepared(tmp_path / "out", rows, preset="chat", near_duplicates="off")
    assert len(stored(tmp_path / "out")) == 2 == facts["kept"]["documents"]
    assert facts["dropped"]["conversation"]["documents"] == len(BROKEN) and facts["read"]["documents"] == len(rows)
    gone = excluded(tmp_path / "out")
    assert [(row["rule"], row["origin"], row["reason"]) for row in gone] == [
        ("conversation", f"{path}, line {number}", reason) for number, reason in enumerate(BROKEN, 2)
    ]
    assert [json.loads(row["text"]) for row in gone] == [
        {name: value for name, value in row.items() if name != "id"} for row in BROKEN.values()
    ]
    assert f"`conversation`: {len(BROKEN)} documents" in card_of(tmp_path / "out")
    assert "line 2: message 2 has the role" in str(pytest.raises(UsageError, stored, path).value), "training refuses it"
    data = {"train_file": [str(path)], "validation_file": [str(path)]}
    assert "line 2: message 2" in error_of(tmp_path / "again", data), "as it would refuse this validation file"


CALL = {"type": "function", "function": {"name": "mail", "arguments": {"to": "anna@example.org"}}}
WHOLE = {
    "messages": [
        {"role": "user", "content": "Write to Anna."},
        {"role": "assistant", "content": "", "reasoning_content": "She is anna@example.org.", "tool_calls": [CALL]},
        {"role": "tool", "content": "sent"},
        {"role": "assistant", "content": "Done.", "weight": 0},
    ],
    "tools": [{"type": "function", "function": {"name": "mail", "parameters": {"type": "object"}}}],
}


@pytest.mark.parametrize("output_format", ["parquet", "jsonl"])
def test_other_fields_of_a_conversation_are_kept_masked_and_compared(tmp_path, output_format):
    answers = json.loads(json.dumps(WHOLE["messages"]).replace("anna@", "bob@"))
    rows = [
        WHOLE,
        WHOLE,
        {"messages": answers, "tools": WHOLE["tools"]},
        {"messages": WHOLE["messages"]},
        chat("a b", "c d"),
    ]
    facts = prepared(tmp_path / "out", rows, preset="chat", near_duplicates="off", output_format=output_format)
    kept = stored(tmp_path / "out")
    said = [{name: d[name] for name in ("messages", "tools") if name in d} for d in kept]
    assert (
        sorted(said, key=str) == sorted([rows[0], *rows[2:]], key=str)
        and facts["dropped"]["exact_duplicate"]["documents"] == 1
    )
    assert '"turns"' in card_of(tmp_path / "out") or "turns-*" in card_of(tmp_path / "out")
    prepared(
        tmp_path / "masked", rows[:1], preset="chat", near_duplicates="off", output_format=output_format, mask=["email"]
    )
    (hidden,) = stored(tmp_path / "masked")
    assert hidden["messages"] == json.loads(json.dumps(WHOLE["messages"]).replace("anna@example.org", "<email>"))


def test_unrepresentable_fields_are_dropped_and_counted_by_field(tmp_path, tiny_tokenizer):
    import copy

    question, answer = chat("Who are you?", "A small model.")["messages"]
    lost = {
        "images": {"messages": [question, answer], "images": ["a.png"]},
        "image_url": {"messages": [question | {"content": [{"type": "image_url"}]}, answer]},
        "weight": {"messages": [question, answer | {"weight": 0.5}]},
        "name": {"messages": [question | {"name": "Bob"}, answer]},
        "tools": {"messages": [question, answer], "tools": "You may search."},
    }
    whole = {"messages": [question, answer | {"reasoning_content": "Who am I?"}]}
    rows = [chat("Its name?", "It has none."), whole, *lost.values()]
    facts = prepared(tmp_path / "out", rows, preset="chat", near_duplicates="off")
    assert {rule: entry["documents"] for rule, entry in facts["dropped"].items()} == {
        f"field {name}": 1 for name in lost
    }
    assert [row["rule"] for row in excluded(tmp_path / "out")] == [f"field {name}" for name in lost]
    assert all(f"`{name}`" in row["reason"] for name, row in zip(lost, excluded(tmp_path / "out"), strict=True))
    assert "- `field image_url`: 1 documents" in card_of(tmp_path / "out")
    bare = copy.deepcopy(tiny_tokenizer)
    bare.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"
    bare.save_pretrained(tmp_path / "bare")
    facts = prepared(
        tmp_path / "again", rows[:2], preset="chat", near_duplicates="off", tokenizer_name=str(tmp_path / "bare")
    )
    assert facts["dropped"]["field reasoning_content"]["documents"] == 1 and facts["kept"]["documents"] == 1


def test_rows_and_files_without_text_are_dropped_and_counted(tmp_path):
    (tmp_path / "blank.txt").write_text(" \n\t\n" * 9)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": story(1)}) + '\n{"text": null, "id": 7}\n')
    data = DataArguments(train_file=[str(tmp_path / "rows.jsonl"), str(tmp_path / "blank.txt")])
    facts = prepare_corpus(data, CorpusArguments(output_dir=str(tmp_path / "out"), near_duplicates="off"))
    assert facts["kept"]["documents"] == 1 and facts["dropped"]["no_text"]["documents"] == 2
    assert [(row["reason"], row["text"]) for row in excluded(tmp_path / "out")] == [
        ("holds nothing under text", '{"text": null}'), ("nothing but white space", " \n\t\n" * 9),
    ]  # fmt: skip


def test_conversations_are_equal_if_their_turns_are(tmp_path):
    rows = [chat("a b c d\ne f g h", "i j k l"), *[chat("a b c d", "e f g h\ni j k l")] * 2]
    rows += [{"text": "a b c d\ne f g h\ni j k l"}]
    prepared(tmp_path / "out", rows, preset="chat", near_duplicates="off")
    assert [row["origin"] for row in excluded(tmp_path / "out")] == [f"{tmp_path / 'in.jsonl'}, line 3"]
    questions = [chat(f"Is {n} {sign} 4 true?", "Yes.") for n in range(50) for sign in ("<", ">", "==")]
    assert prepared(tmp_path / "all", questions, preset="chat")["kept"]["documents"] == 150, "symbols are words"


def test_the_card_says_off_of_what_was_off_and_what_was_masked(tmp_path):
    texts = [story(1) + " Ask anna@example.org."]
    prepared(tmp_path / "out", texts, preset="none", mask=["email"], max_seen_paragraphs=1.0)
    card = card_of(tmp_path / "out")
    assert card.count(": off\n") == 3 and "not measured (`--near_duplicates off`)" in card
    assert "- `mask email`: 1 masked in the documents kept" in card
    prepared(tmp_path / "on", texts)
    assert card_of(tmp_path / "on").count(": 0 dropped") == 3 and "`mask email`" not in card_of(tmp_path / "on")


def test_replaced_encoding_errors_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(story(1).encode() + b" caf\xe9, caf\xe9")
    (tmp_path / "b.txt").write_bytes(b"too short \xff")
    assert f"byte {len(story(1)) + 4} is 0xe9" in error_of(tmp_path / "out", tmp_path)
    facts = prepared(tmp_path / "out", {"train_file": [str(tmp_path)], "encoding_errors": "replace"})
    assert facts["read"]["encoding_errors"] == 3 and texts_of(tmp_path / "out")[0].endswith("caf\ufffd, caf\ufffd")
    assert "- 3 bytes that were not UTF-8 became U+FFFD" in card_of(tmp_path / "out")


def test_masking_reaches_what_was_dropped_as_a_broken_conversation(tmp_path):
    prepared(tmp_path / "out", [chat("anna@example.org", " "), story(1)], mask=["email"])
    assert "anna" not in excluded(tmp_path / "out")[0]["text"] and "<email>" in excluded(tmp_path / "out")[0]["text"]


def test_languages_are_detected_counted_and_named_on_the_card(tmp_path):
    texts = [story(1), GERMAN, story(2), FRENCH, "4711 0815 2000 1999 1984"]
    facts = prepared(tmp_path / "out", texts, languages=["en", "de"], min_alphabetic_words=0.0)
    assert texts_of(tmp_path / "out") == texts[:3]
    assert [(row["rule"], row["reason"][:19]) for row in excluded(tmp_path / "out")] == [
        ("language", "it looks like fr (1"), ("language", "it looks like zxx ("),
    ]  # fmt: skip
    sizes = [len(text.encode()) for text in texts]
    known = {"de": {"documents": 1, "bytes": sizes[1]}, "en": {"documents": 2, "bytes": sizes[0] + sizes[2]}}
    assert facts["languages"] == known and facts["language"] == ["en", "de"]
    card = card_of(tmp_path / "out")
    assert f"- `en`: 2 documents, {(sizes[0] + sizes[2]) / sum(sizes[:3]):.2%} of the bytes" in card
    assert yaml.safe_load(card.split("---\n")[1])["language"] == ["en", "de"]
    data = {"sources": [{"train_file": [write_jsonl(tmp_path / "in.jsonl", texts)], "weight": 2.0}]}
    counted = prepared(
        tmp_path / "all", data, languages=["en"], min_language_score=0.0, sample_documents=99, min_alphabetic_words=0.0
    )
    assert {code: entry["documents"] for code, entry in counted["languages"].items()} == {
        "de": 2, "en": 4, "fr": 2, "zxx": 2,
    }  # fmt: skip
    assert counted["language"] == [] and not counted["dropped"]
    assert prepared(tmp_path / "off", texts)["languages"] == {}


@pytest.mark.parametrize("unit", ["documents", "bytes"])
def test_a_sample_is_the_same_in_any_order_and_grows_with_its_size(unit, tmp_path):
    texts = [story(k) for k in range(100)]
    sizes = {"documents": (10, 30), "bytes": (5_000, 15_000)}[unit]
    chosen = []
    for number, (order, size) in enumerate([(texts, sizes[0]), (texts[::-1], sizes[0]), (texts, sizes[1])]):
        facts = prepared(tmp_path / str(number), order, **{f"sample_{unit}": size})
        chosen.append(set(texts_of(tmp_path / str(number))))
        assert size * 0.85 <= facts["kept"][unit] <= size
        assert facts["dropped"]["sample"]["documents"] == 100 - len(chosen[-1])
    assert chosen[0] == chosen[1] < chosen[2]


def test_with_a_tokenizer_the_card_counts_tokens_and_foreign_characters(tmp_path):
    from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

    name = str(tmp_path / "tokenizer")
    train_tokenizer([story(k) for k in range(50)], "char").save_pretrained(name)
    texts = [story(k) for k in range(70)] + [story(99) + " Ω and Ω, ж, x\u0301."]
    facts = prepared(tmp_path / "out", texts, tokenizer_name=name)
    commonest = {"U+03A9": 2, "U+0301": 1, "U+0436": 1}
    assert facts["tokenizer"]["unknown_characters"] == {"distinct": 3, "occurrences": 4, "commonest": commonest}
    assert facts["kept"]["tokens"] == pytest.approx(sum(map(len, texts)), rel=0.01), "a token a character"
    assert "`Ω` U+03A9 (2), U+0301 (1), `ж` U+0436 (1)." in card_of(tmp_path / "out")
    part = prepared(tmp_path / "part", texts, tokenizer_name=name, sample_tokens=5000)
    assert 4000 < part["kept"]["tokens"] <= 5000


def test_the_card_is_valid_metadata_whatever_things_are_called(tmp_path):
    from huggingface_hub import DatasetCard

    out = tmp_path / "no: `x` <b> [a](b) é"
    path = write_jsonl(tmp_path / "a ] `b` | c.jsonl", [story(k) + " Mail me@example.org" for k in range(3)])
    facts = prepared(out, path, license="cc-by-4.0", language=["en", "no"], rights="mine\n---\nevil: true")
    text = card_of(out)
    meta = yaml.safe_load(text.split("---\n")[1])
    assert meta["pretty_name"] == out.name and meta["license"] == "cc-by-4.0" and meta["language"] == ["en", "no"]
    assert DatasetCard(text).data.configs[0]["data_files"] == [{"split": "train", "path": "data/text-*"}]
    assert "evil: true" not in text.split("---\n")[1] and "\nevil" not in text
    for title in "License and rights|Lengths|scripts|Duplicates|Personal data|unusual|Tokens|expect".split("|"):
        assert re.search(f"^## .*{title}", text, re.M), title
    assert "`email`: 3 found, not masked" in text and facts["personal_data"] == {"email": 3}
    assert "will memorize it" in text and "`Latin`: 100.00%" in text
    prepared(tmp_path / "own", path, license="our-license-1.0", language=["en", "English, mostly"])
    meta = yaml.safe_load(card_of(tmp_path / "own").split("---\n")[1])
    assert (meta["license"], meta["license_name"], meta["language"]) == ("other", "our-license-1.0", ["en"])
    assert "`our-license-1.0`" in card_of(tmp_path / "own") and "`English, mostly`" in card_of(tmp_path / "own")


def test_advice_knows_small_from_large():
    start = "78.1 KiB of text, about 20,000 tokens: a 1M-parameter model will memorize it"
    assert advice({"kept": {"bytes": 80_000}}).startswith(start)
    assert "about 200 million parameters" in advice({"kept": {"bytes": 4 * 10**9, "tokens": 10**9}})


def test_only_data_is_read_of_a_corpus_but_not_of_a_namesake(tmp_path):
    (tmp_path / "all").mkdir()
    prepared(tmp_path / "all" / "out", write_jsonl(tmp_path / "in.jsonl", [story(1), "short"]))
    for root in (tmp_path / "all", tmp_path / "all" / "out"):
        (file,) = sources.find_files((str(root),))
        assert Path(file.path).parent.name == "data"
    assert len(sources.find_files((str(tmp_path / "all" / "out" / "excluded"),))) == 1, "unless it is named itself"
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "corpus.json").write_text(json.dumps([{"text": story(2)}]))
    assert texts_of(tmp_path / "own") == [story(2)]


def test_the_output_folder_may_be_inside_a_source_folder(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [story(k) for k in range(20)])
    facts = prepared(tmp_path / "out", tmp_path, sample_documents=10)
    assert facts["read"]["documents"] == 20 and [file["name"] for file in facts["sources"][0]["files"]] == ["in.jsonl"]


def test_the_table_of_rules_in_the_documentation_is_that_of_the_presets():
    """Every setting of cleaning has its row, with the value each preset gives it."""

    def shown(value) -> str:
        return "off" if value in (None, False) else "on" if value is True else f"{value:,}"

    text = (Path(__file__).parents[2] / "docs" / "corpus.md").read_text()
    rows = {name: cells.split(" | ") for name, cells in re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.M)}
    assert {name for preset in PRESETS.values() for name in preset} | set(OFF) <= set(rows)
    for name, cells in rows.items():
        expected = [PRESETS[preset].get(name, OFF.get(name)) for preset in ("prose", "code", "chat")]
        assert cells[1:4] == [value if isinstance(value, str) else shown(value) for value in expected], name
        assert cells[4], "a source"


def test_shards_are_closed_when_they_are_full(tmp_path):
    texts = [f"{k} " * 50_000 for k in range(10, 35)]  # of 150 kB
    prepared(tmp_path / "out", texts, preset="none", shard_megabytes=1)
    assert len(list((tmp_path / "out" / "data").iterdir())) == 4
    assert texts_of(tmp_path / "out") == texts


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    out, texts = tmp_path / "out", ["x", "y\nz", "12 34"]
    assert error_of(out, texts).startswith("of 3 documents none are left (length dropped 3)")
    assert "(mean_word dropped 2, length dropped 1)" in error_of(out, texts, min_characters=2)
    data = {"train_file": [str(tmp_path / "in.jsonl")], "text_column": "body"}
    assert "expected the column 'body'" in error_of(out, data)
    (tmp_path / "in.json").write_text("[]")
    assert error_of(out, tmp_path / "in.json").startswith("the sources hold no documents")
    line = error_of(out, texts, languages=["en", "enn"])
    assert line.startswith("--languages names 'enn'") and "Did you mean" in line
    monkeypatch.setitem(sys.modules, "datasketch", None)
    line = error_of(out, texts)
    assert line.startswith("datasketch is not installed") and "--near_duplicates off" in line
    with pytest.raises(UsageError, match="no --output_dir"):
        prepare_corpus(DataArguments(), CorpusArguments())
    with pytest.raises(UsageError, match="exists"):
        prepared(tmp_path, texts, near_duplicates="off")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "in.jsonl"], "nothing half-written"


def test_a_language_detector_that_is_not_installed_is_named(tmp_path):
    code = (
        "import sys; sys.modules['py3langid.langid'] = None\n"
        "from tinygpt_hf.curation.language import check_languages; check_languages([]); check_languages(['en'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "py3langid is not installed" in done.stderr and "tinygpt_hf[data]" in done.stderr


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_nothing_under_the_final_name(file_format, call, tmp_path, monkeypatch, capsys):
    class FullDisk:
        """A file that accepts 100 bytes."""

        def __init__(self, file):
            self._file, self._room, self.closed = file, 100, False

        def write(self, data):
            self._room -= len(memoryview(data))
            if self._room < 0:
                raise OSError(28, "No space left on device")
            return self._file.write(data)

        def __getattr__(self, name):
            return getattr(self._file, name)

    opened, real = [], storage.system.open

    def open_the_last(path):
        opened.append(path)
        return FullDisk(real(path)) if len(opened) == call else real(path)

    monkeypatch.setattr(storage.system, "open", open_the_last)
    source = write_jsonl(tmp_path / "in.jsonl", [story(k) for k in range(50)])
    words = ["--train_file", source, "--output_dir", str(tmp_path / "out"), "--output_format", file_format]
    assert cli.main(["prepare-corpus", *words, "--sample_documents", "40"]) == 1
    out, err = capsys.readouterr()
    assert err == "error: [Errno 28] No space left on device\n" and out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_the_processes_that_clean_take_no_module_from_the_folder_we_are_in(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [story(k) for k in range(600)])
    for name in ("pickle", "signal", "datasketch"):
        (tmp_path / f"{name}.py").write_text("open('trapped', 'w')")
    door = tmp_path / "bin" / "tinygpt"  # as the installed script is: its own folder is searched, not the one we are in
    door.parent.mkdir()
    door.write_text("import sys\nfrom tinygpt_hf.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    words = [str(door), "prepare-corpus", "--train_file", source, "--output_dir", "out", "--num_proc", "2"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "out: 600 of 600 documents" in done.stdout and not (tmp_path / "trapped").exists()


def test_a_killed_run_leaves_no_process_and_the_next_one_nothing_of_it(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    source = write_jsonl(folder / "in.jsonl", [f"{story(k)} {story(k + 1)}" for k in range(2000)])
    words = ["--near_duplicates", "drop", "--num_proc", "2", "--output_dir", str(folder / "out")]
    words = [sys.executable, "-m", "tinygpt_hf.cli", "prepare-corpus", "--train_file", source, *words]
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        # until the second 256 documents are there, which another process has cleaned
        while not any(path.stat().st_size > 500_000 for path in folder.glob("tmp-*/scratch/draft.jsonl")):
            assert killed.poll() is None
            time.sleep(0.02)
    finally:
        killed.kill()
    killed.communicate(timeout=20)  # the error stream ends when the last process that has it does
    (left,) = folder.glob(f"tmp-{killed.pid}-out")
    (left / "data").mkdir(exist_ok=True)
    write_jsonl(left / "data" / "text.jsonl", [story(5000)])
    write_jsonl(folder / "in.jsonl", [story(1)])
    assert prepared(folder / "out", {"train_file": [str(folder)]})["read"]["documents"] == 1, "what it left is no text"
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out"]


def test_files_that_were_not_read_are_listed(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.docx", "c.docx", "d"):
        (tmp_path / "in" / name).write_text("The dog saw a ball and ran to it.")
    words = ["--preset", "none", "--license", "mit", "--output_dir", str(tmp_path / "out")]
    assert cli.main(["prepare-corpus", "--train_file", str(tmp_path / "in"), *words]) == 0
    remark = "files not read for their endings: .docx (2), none (1)"
    assert f"note: {remark}" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "corpus.json").read_text())["source_remarks"] == [remark]
    assert remark in (tmp_path / "out" / "README.md").read_text()
