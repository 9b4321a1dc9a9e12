"""Test the format of the tables and the parsing of questions with answers."""

import pytest

from tinygpt_hf.toyland.stories import plots, pool
from tinygpt_hf.toyland.tables import DATA, Exchange, entries, exchange, parsed, table


def test_a_table_is_sections_of_lines():
    text = "# a comment\n\n[one]\nkey: a b\n    c d\n\nother: e\n[two]\n# inside\nplain line\n"
    assert parsed(text) == {"one": ["key: a b c d", "other: e"], "two": ["plain line"]}
    with pytest.raises(ValueError, match=r"\[one\] stands twice"):
        parsed("[one]\na\n[two]\nb\n[one]\nc\n")


def test_an_exchange_has_parts_that_can_be_missing():
    full = exchange("color: What color is it? / what color it is -> It is red. [red; crimson]")
    assert full == Exchange("color", "What color is it?", "what color it is", "It is red.", ("red", "crimson"))
    assert exchange("Hello! -> Good day, friend.", "greeting") == Exchange(
        "greeting", "Hello!", "", "Good day, friend.", ("Good day, friend",)
    )
    assert exchange("What is {one}? -> {one} is {two}. [is {two}]").filled({"one": "a cat", "two": "an animal"}) == (
        "", "What is a cat?", "", "A cat is an animal.", ("is an animal",)
    )  # fmt: skip


def test_every_table_is_used():
    assert {path.stem for path in DATA.glob("*.txt")} == set("facts pairs plots pools shared talk tasks words".split())
    drawn = {line.split("=")[1] for lines in table("plots").values() for line in lines[0].split() if "=" in line}
    assert drawn | {"age", "home", "hair", "number", "spot", "deed"} == set(table("pools"))
    named = {line[1:] for lines in table("plots").values() for line in lines if line[0] == "@"}
    assert named == {name for name, _ in entries("shared", "endings")}


def test_a_choice_brings_together_what_belongs_together():
    fed = {(animal.word, food.word) for animal, food in pool("diet")}
    assert ("rabbit", "carrot") in fed and ("rabbit", "milk") not in fed
    assert {there.forms["at"] for there, animal in pool("sight") if animal.word == "whale"} == {"at the harbor"}
    assert {member.gender for (member,) in pool("ruler")} == {"m", "f"}


def test_a_plot_casts_every_slot_of_its_frames():
    for plot in plots():
        cast = {"s", "p", *plot.people, *plot.groups} | {
            role for keys, _ in plot.choices for role in (keys if keys.isupper() else (keys,))
        }
        frames = [parts for _, variants in plot.steps for variant in variants for parts in variant]
        frames += [parts for ask in plot.asks for parts in (*ask[1:4], *ask.accept)]
        assert {part.key for parts in frames for part in parts if not isinstance(part, str)} <= cast, plot.name
