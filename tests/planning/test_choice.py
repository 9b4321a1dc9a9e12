"""What is chosen for a text, a machine and a time, on machines that are made of numbers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import config_for
from tinygpt_hf.planning import scaling
from tinygpt_hf.planning.choice import Question, advise, choose
from tinygpt_hf.planning.machine import Machine, NamedMachine, Pace, hardware, hidden_parameters, operations, parameters
from tinygpt_hf.planning.memory import Needs
from tinygpt_hf.planning.text import Text
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.settings.layering import chosen, open_settings

PER_TOKEN = {512: 2.2, 1024: 2.7, 2048: 3.2, 4096: 3.6, 8192: 3.9}


def shape_and_rates(**model):
    return filled(ModelArguments(**model), TrainingArguments(max_steps=1))


def config(**model):
    return config_for(shape_and_rates(**model)[0], DataArguments(), 2048)


def machine(flops: float = 2e10) -> Machine:
    model, training = shape_and_rates()
    work = operations(config(), training, 256)
    return Machine([Pace(config(), training, 256, work / flops, work / flops / 2048 / 3)])


def question(megabytes=10.0, seconds=100.0, memory=1 << 34, groups=None, at=None) -> Question:
    groups = groups or (ModelArguments(), DataArguments(), TokenizerArguments(), TrainingArguments(time_budget="2m"))
    text = Text(round(megabytes * 1e6), 100_000, 0.0, PER_TOKEN, 1e-6, xz=2.6, early=(3.0, 2.5))

    def needs(config, training, block_size):
        return Needs(*[4 * parameters(config)] * 2, 1 << 20, 1 << 20, 1 << 10)

    return Question(*groups, text, at or machine(), seconds, open_settings(*groups), needs, memory)


def test_operations_by_hand():
    model, training = shape_and_rates(hidden_size=64, num_hidden_layers=1)
    small = config(hidden_size=64, num_hidden_layers=1)
    hidden = 4 * 64 * 64 + 3 * 64 * small.intermediate_size
    assert hidden_parameters(small) == hidden and parameters(small) == hidden + 2 * 2048 * 64
    adamw = SimpleNamespace(**vars(training) | {"optim": "adamw"})
    assert operations(small, adamw, 256) == 8 * 256 * (6 * (hidden + 2048 * 64) + 12 * 64 * 256)
    square, other = 5 * 6 * 64**3, 5 * (4 * 64**2 * small.intermediate_size + 2 * 64**3)
    assert operations(small, training, 256) - operations(small, adamw, 256) == 4 * square + 3 * other


def test_a_step_of_a_shape_that_was_measured_takes_what_was_measured():
    model, training = shape_and_rates()
    assert machine(1e10).seconds(config(), training, 256) == pytest.approx(operations(config(), training, 256) / 1e10)
    wide, wide_training = shape_and_rates(hidden_size=512, num_hidden_layers=3)
    slow, fast = Pace(config(), training, 256, 1.0, 1e-4), Pace(config(hidden_size=512), wide_training, 256, 2.0, 1e-4)
    both = Machine([fast, slow])
    low, high = slow.operations / 1.0, fast.operations / 2.0
    assert both.rate(128) == low and both.rate(512) == high == both.rate(4096)
    assert both.rate(256) == pytest.approx((low + high) / 2)  # halfway, in octaves


def test_a_logit_has_a_time_of_its_own():
    model, training = shape_and_rates(hidden_size=64, num_hidden_layers=2)

    def pace(vocabulary, seconds):
        return Pace(config_for(model, DataArguments(), vocabulary), training, 256, seconds, 1e-4)

    def taken(vocabulary):  # 1e10 operations and 2e8 logits a second
        shape = pace(vocabulary, 0.0)
        return shape.operations / 1e10 + shape.logits / 2e8

    here = Machine([pace(2048, taken(2048))], larger=pace(8192, taken(8192)))
    assert here.seconds(pace(4096, 0).config, training, 256) == pytest.approx(taken(4096))
    assert here.rate(64) == pytest.approx(1e10)
    without = Machine([pace(2048, taken(2048))], larger=pace(8192, taken(2048)))  # noise: no slower
    assert without.seconds(pace(2048, 0).config, training, 256) == pytest.approx(taken(2048))
    assert without.rate(64) == pytest.approx(pace(2048, 0).operations / taken(2048))


def test_more_time_makes_a_larger_model_that_reads_more_and_is_expected_to_be_better():
    choices = [choose(question(megabytes=1000, seconds=seconds)) for seconds in (30, 300, 3000, 30_000)]
    assert [c.parameters for c in choices] == sorted(c.parameters for c in choices)
    assert choices[0].parameters < choices[-1].parameters
    bits = [c.expected.bits_per_byte for c in choices]
    assert bits == sorted(bits, reverse=True) and all(
        c.expected.low < c.expected.bits_per_byte < c.expected.high for c in choices
    )
    for seconds, c in zip((30, 300, 3000, 30_000), choices, strict=True):
        assert 0.9 * seconds < c.steps * c.step_seconds <= seconds
        assert c.settings["decay_steps"] == round(0.6 * c.steps)


def test_few_words_are_read_at_most_sixteen_times():
    few = choose(question(megabytes=0.05, seconds=10_000))
    assert few.is_enough and 4 < few.epochs <= 16
    assert few.epochs == pytest.approx(scaling.most_epochs(few.parameters * few.epochs / few.tokens), rel=0.05)
    assert few.settings["hidden_dropout"] > 0 and few.settings["weight_decay"] > 0
    once = choose(question(megabytes=1000))
    assert not once.is_enough and once.settings["hidden_dropout"] == once.settings["weight_decay"] == 0
    words = choose(question(megabytes=0.0001, seconds=1000))
    assert words.steps > 3 and words.expected.bits_per_byte <= 8
    tiny = choose(question(megabytes=0.002, seconds=1000))
    assert tiny.settings["block_size"] < 256 and tiny.settings["vocab_size"] == 512


def test_what_is_given_is_kept_also_where_it_equals_the_default():
    groups = (
        ModelArguments(hidden_size=64, num_hidden_layers=5), DataArguments(block_size=256),
        TokenizerArguments(vocab_size=1024), TrainingArguments(time_budget="2m", weight_decay=0.5, muon_learning_rate=0.02),
    )  # fmt: skip
    planned = choose(question(groups=groups, megabytes=0.05))
    assert not {"hidden_size", "num_hidden_layers", "block_size", "weight_decay", "muon_learning_rate"} & set(
        planned.settings
    )
    model, data, _, training = chosen(groups, planned.settings)
    assert (model.hidden_size, data.block_size, training.weight_decay) == (64, 256, 0.5)
    assert model.hidden_dropout == 0.1  # this was open


def test_a_model_that_does_not_fit_is_not_chosen():
    large = choose(question(megabytes=10_000, seconds=1e6))
    small = choose(question(megabytes=10_000, seconds=1e6, memory=large.memory // 2))
    assert small.memory <= large.memory // 2 and small.parameters < large.parameters
    with pytest.raises(UsageError, match="a step takes .* the memory that is free"):
        choose(question(memory=1000))


def test_too_little_time_is_refused_with_what_is_enough():
    with pytest.raises(UsageError, match=r"2 s are left for training \(expected at least \d+ s: 50 steps"):
        choose(question(seconds=2, at=machine(1e9)))


def test_a_length_that_is_given_is_kept_with_the_rules_for_the_rest():
    groups = (ModelArguments(), DataArguments(), TokenizerArguments(), TrainingArguments(max_steps=70))
    planned = choose(question(groups=groups, seconds=None))
    assert planned.steps == 70 and planned.settings == {} and planned.vocabulary == 2048
    assert advise(question(groups=groups, seconds=None), planned) == []


def test_the_advice_compares_time_and_text():
    words = advise(question(), choose(question()))
    assert words[0].startswith("twice the time: ") and "--model_name_or_path" in words[1]


def test_named_hardware_has_figures_with_sources():
    assert all(entry["source"] and entry["flops"] > 1e12 for entry in hardware().values())
    assert NamedMachine("h100x8").processes == 8 and NamedMachine("RTX4090").memory == 24e9
    for name in ("abacus", "h100x0", "h100x"):
        with pytest.raises(UsageError, match="--hardware is"):
            NamedMachine(name)


def test_bytes_read_again_count_less_each_time():
    assert scaling.effective(500, 1000, 3) == 500 and scaling.effective(1000, 1000, 3) == 1000
    worth = [scaling.effective(times * 1000, 1000, 3) for times in (1, 2, 4, 1000)]
    assert worth[2] == pytest.approx(1000 + 3000 * (1 - math.exp(-1))) and worth[3] == pytest.approx(4000)
    assert worth == sorted(worth)


def test_the_batch_grows_with_the_length_of_the_run():
    assert scaling.rows_per_step(1e5, 256) == scaling.rows_per_step(1e6, 256) == 8
    assert scaling.rows_per_step(1e9, 256) * 256 == pytest.approx(2048 * 1000**0.383, rel=0.42)  # the next power of two


def test_a_text_of_a_few_words_is_planned_without_a_trial():
    tried = question(megabytes=0.02)
    choice, other = choose(replace(tried, text=replace(tried.text, early=()))), choose(tried)
    assert "too few words to try" in choice.table and "too few" not in other.table
    assert choice.expected.high / choice.expected.low > 2 * other.expected.high / other.expected.low
