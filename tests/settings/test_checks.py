"""Invalid values and combinations of settings are reported, all at once."""

import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings import checks
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.corpus import CorpusArguments

FINE = (ModelArguments(), DataArguments(), TokenizerArguments(vocab_size=300), TrainingArguments())


def complaints(*groups) -> list[str]:
    with pytest.raises(UsageError) as caught:
        check_settings(*groups)
    return str(caught.value).split("\n")


def test_valid_settings_pass():
    check_settings(*FINE)
    check_settings(*(type(group)() for group in FINE))
    check_settings(ModelArguments(model_name_or_path="x"), TrainingArguments())
    check_settings(DataArguments(), CorpusArguments(min_characters="off", mask=["all"]))


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (ModelArguments(hidden_size=100, num_attention_heads=8), "--hidden_size 100 is not a multiple"),
        (ModelArguments(hidden_size=10**9 + 7, num_attention_heads=7), "Try --num_attention_heads 1,"),
        (ModelArguments(num_attention_heads=8, num_key_value_heads=3), "Try --num_key_value_heads 2"),
        (ModelArguments(num_attention_heads=8, num_key_value_heads=-3), "--num_key_value_heads is -3"),
        (ModelArguments(hidden_size=-5), "--hidden_size is -5 (expected at least 1"),
        (ModelArguments(num_attention_heads=0), "--num_attention_heads is 0"),
        (ModelArguments(hidden_dropout=1.0), "--hidden_dropout is 1.0 (expected at least 0, less than 1"),
        (ModelArguments(rms_norm_eps=0), "--rms_norm_eps is 0.0 (expected more than 0"),
        (ModelArguments(rope_parameters={"rope_type": "spiral"}), "the rope_type 'spiral' (expected one of default,"),
        (ModelArguments(rope_parameters={"rope_theta": "large"}), "the rope_theta 'large' (expected above 0"),
        (ModelArguments(rope_parameters={"rope_theta": -1.0}), "the rope_theta -1.0 (expected above 0"),
        (ModelArguments(max_position_embeddings=8), "--block_size is 256 (expected at most 8, the model's context"),
        (DataArguments(block_size=0), "--block_size is 0"),
        (DataArguments(validation_split_percentage=100), "expected at least 0, less than 100"),
        (DataArguments(validation_split_percentage=0), "expected some text for validation"),
        (DataArguments(document_separator=""), "--document_separator is empty"),
        (DataArguments(max_train_samples=0), "--max_train_samples is 0"),
        (DataArguments(streaming=True, stream_window=1535), "--stream_window is 1535 (expected at least 6 rows of 256"),
        (TokenizerArguments(vocab_size=259), "Use at least 260"),
        (TokenizerArguments(vocab_size=10**9), "--vocab_size is 1000000000"),
        (TokenizerArguments(min_frequency=0), "--min_frequency is 0"),
        (TrainingArguments(max_steps=1, num_train_epochs=1), "--max_steps 1 and --num_train_epochs 1.0 are both given"),
        (TrainingArguments(num_train_epochs=-1.0), "--num_train_epochs is -1.0"),
        (TrainingArguments(save_total_limit=1), "Use 2 or more"),
        (TrainingArguments(min_learning_rate_ratio=2.0), "(expected at least 0, at most 1"),
        (TrainingArguments(adam_beta2=1.0), "--adam_beta2 is 1.0"),
        (TrainingArguments(muon_momentum=-0.1), "--muon_momentum is -0.1"),
        (TrainingArguments(learning_rate=-1.0), "--learning_rate is -1.0"),
        (TrainingArguments(license="Apache 2.0"), "--license is 'Apache 2.0'"),
        (TrainingArguments(language=["English"]), "--language is 'English'"),
        (TrainingArguments(push_to_hub=True), "there is no --hub_model_id"),
        (TrainingArguments(nonfinite="skip"), "--nonfinite is 'skip' (expected `stop` or `skip:N`"),
        (CorpusArguments(shard_megabytes=0), "--shard_megabytes is 0"),
        (CorpusArguments(sample_documents=0), "--sample_documents is 0"),
        (CorpusArguments(min_characters=-1), "--min_characters is -1"),
        (CorpusArguments(near_duplicate_threshold=0.0), "--near_duplicate_threshold is 0.0"),
        (CorpusArguments(near_duplicate_threshold=1.5), "(expected more than 0, at most 1"),
        (CorpusArguments(min_language_score=1.5), "--min_language_score is 1.5"),
        (CorpusArguments(min_language_score=-0.1), "--min_language_score is -0.1"),
        (CorpusArguments(mask=["emial"]), "--mask is ['emial']"),
    ],
)
def test_an_invalid_setting_is_one_error(group, words):
    groups = (DataArguments(), group) if type(group) is CorpusArguments else FINE
    (line,) = complaints(*(group if type(fine) is type(group) else fine for fine in groups))
    assert words in line and " (expected " in line


def test_wrong_types_and_values_are_reported_together():
    lines = complaints(
        ModelArguments(num_hidden_layers=0, hidden_size="wide"),
        DataArguments(block_size=0),
        TokenizerArguments(vocab_size="many"),
        TrainingArguments(optim="sgd", mixed_precision="fp8"),
    )
    lines += complaints(CorpusArguments(preset="web", min_characters="few", output_dir="x"))
    names = [line.split()[0] for line in lines]
    assert names == [
        "--hidden_size", "--block_size", "--vocab_size", "--optim", "--mixed_precision", "--preset", "--min_characters",
    ]  # fmt: skip


def test_rope_types_are_those_of_transformers():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    assert set(checks.ROPE_TYPES) == {"default", *ROPE_INIT_FUNCTIONS}
