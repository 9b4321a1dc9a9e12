"""Default settings follow their rules, and settings that are given do not change."""

from dataclasses import fields

import pytest

from tinygpt_hf.settings import defaults
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled, run_folder, shaped

OPEN_TILL_THE_TEXT_IS_KNOWN = {*defaults.LENGTHS, "warmup_steps"}


def shape(**given) -> tuple:
    model = shaped(ModelArguments(**given))
    return tuple(getattr(model, name) for name in defaults.SHAPE)


def test_default_shapes_of_a_model_from_scratch():
    assert shape() == (128, 3, 2, False, 0.3)
    assert shape(hidden_size=768, tie_word_embeddings=True) == (768, 3, 12, True, None)
    assert (
        shape(hidden_size=32)[2] == 1 and shape(hidden_size=200)[2] == 2 and shape(hidden_size=96, head_dim=16)[2] == 6
    )
    assert shape(embedding_initializer_range=0.02)[4] == 0.02
    assert shape(model_name_or_path="x") == (None,) * 5


def test_learning_rates_fall_with_width_and_are_lower_for_existing_weights():
    def rate(width=None, name=None, **training) -> float:
        model = ModelArguments(hidden_size=width, model_name_or_path=name)
        return filled(model, TrainingArguments(**training))[1].learning_rate

    assert [rate(width) for width in (32, 64, None, 256, 1024)] == [0.032, 0.032, 0.016, 0.008, 0.002]
    assert rate(optim="adamw") == rate(name="x") == rate(1024, name="x") == 0.003
    assert rate(learning_rate=0.5) == 0.5
    training = filled(ModelArguments(model_name_or_path="x"), TrainingArguments(lora_r=4))[1]
    assert {name: getattr(training, name) for name in defaults.CONTINUED} == defaults.CONTINUED


@pytest.mark.parametrize("name", [None, "x"])
def test_only_settings_that_depend_on_the_text_stay_none(name):
    training = filled(ModelArguments(model_name_or_path=name), TrainingArguments())[1]
    left = {"time_budget"} | {field for field in defaults.OPEN if getattr(training, field, 0) is None}
    assert training.time_budget == defaults.TIME_BUDGET and left == OPEN_TILL_THE_TEXT_IS_KNOWN - (
        {"warmup_steps"} if name else set()
    )
    known = {f.name: f.default for group in (ModelArguments, TrainingArguments) for f in fields(group)}
    assert all(known[field] is None for field in defaults.OPEN)


def test_a_resumed_run_keeps_its_defaults():
    before = {"hidden_size": 256, "num_attention_heads": 8, "tie_word_embeddings": False, "learning_rate": 0.003,
              "lr_scheduler_type": "cosine", "num_train_epochs": 3.0, "seed": 7}  # fmt: skip
    model, training = filled(ModelArguments(num_attention_heads=4), TrainingArguments(), before)
    assert (model.hidden_size, model.num_attention_heads, model.embedding_initializer_range) == (256, 4, None)
    assert (training.learning_rate, training.lr_scheduler_type, training.num_train_epochs) == (0.003, "cosine", 3.0)
    assert training.seed == 42 and training.muon_momentum == 0.9
    assert filled(ModelArguments(), TrainingArguments(max_steps=9), before)[1].num_train_epochs is None


def test_the_default_run_folder_is_named_after_the_first_text():
    def named(*files, **data):
        return run_folder(DataArguments(train_file=list(files), **data))

    assert named("books/moby.txt", "b.txt") == named("moby.jsonl.gz") == "runs/moby"
    assert named("notes/**/*.md") == named("notes/") == named("~/notes") == "runs/notes"
    assert named("https://host/deep/part-0.parquet?download=1") == "runs/part-0"
    assert named(dataset_name="roneneldan/TinyStories") == "runs/TinyStories"
    assert named(sources=[{"train_file": "a/b.txt"}, {"dataset_name": "toyland"}]) == "runs/b"
    assert named() is named("*.py") is named("..") is None
