"""Every shipped configuration is read without a complaint, can be built, and, where its text is at hand, trains two steps."""

from pathlib import Path

import pytest
import torch

from tinygpt_hf.commands import TRAINING
from tinygpt_hf.model.loading import config_for
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.parsing import parse
from tinygpt_hf.training import recipe

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
# without a model of their own; tests/training/test_chat_tuning.py trains them
FROM_A_BASE = ("chat-toyland", "chat-hub")
FROM_SCRATCH = [path for path in CONFIGS if path.stem not in FROM_A_BASE]
SIZES = {"tinystories-30m": (25, 35), "fineweb-edu-124m": (100, 130)}  # million parameters a name promises


def read(config: Path, *flags: str):
    return parse(TRAINING, ["--config", str(config), *flags])


def test_all_are_here():
    names = "quickstart shakespeare-char shakespeare-bpe tinystories-30m fineweb-edu-124m python-code tiny-test".split()
    assert sorted(path.stem for path in CONFIGS) == sorted([*names, *FROM_A_BASE])


@pytest.mark.parametrize("config", FROM_SCRATCH, ids=lambda path: path.stem)
def test_it_is_read_and_its_model_can_be_built(config):
    settings = read(config, "--output_dir", "x")
    check_settings(*(settings[group] for group in TRAINING))
    tokenizer = settings[TokenizerArguments]
    assert tokenizer.wanted
    shape = config_for(settings[ModelArguments], settings[DataArguments], tokenizer.vocab_size or 325)
    from tinygpt_hf import TinyGPTForCausalLM

    with torch.device("meta"):
        millions = TinyGPTForCausalLM(shape).num_parameters() / 1e6
    low, high = SIZES.get(config.stem, (0, 15))
    assert low <= millions <= high


@pytest.mark.parametrize("config", FROM_SCRATCH, ids=lambda path: path.stem)
def test_it_trains_two_steps(config, tmp_path, monkeypatch):
    text = tmp_path / ("sample.py" if config.stem == "python-code" else "sample.txt")
    text.write_text("".join(p.read_text() for p in sorted(Path(recipe.__file__).parent.glob("*.py"))))
    flags = ["--output_dir", str(tmp_path / "run"), "--max_steps", "2", "--per_device_train_batch_size", "2"]
    flags += ["--device", "cpu", "--block_size", "32", "--sample_tokens", "2", "--no_torch_compile"]
    flags += ["--hidden_size", "32", "--num_hidden_layers", "1", "--num_attention_heads", "2"]
    settings = read(config, *flags)
    data, training = settings[DataArguments], settings[TrainingArguments]
    training.num_train_epochs = training.max_train_tokens = None
    training.gradient_accumulation_steps, training.mixed_precision = 1, "auto"
    if settings[TokenizerArguments].vocab_size:
        settings[TokenizerArguments].vocab_size = 300
    if data.train_file:
        data.train_file = [str(text)]  # an address, or files of the user's
    elif data.dataset_name == "toyland":
        data.max_train_samples, data.validation_split_percentage = 200, 10
    else:  # a dataset of the Hub, with rows as it serves them
        import datasets

        rows = datasets.Dataset.from_dict({"text": [text.read_text()[k : k + 200] for k in range(0, 20_000, 200)]})
        asked = []

        def load_dataset(name, config_name, split, revision, streaming):
            asked.append((name, config_name, streaming))
            return rows.to_iterable_dataset() if streaming else rows

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        data.validation_split_percentage = 10
    result = recipe.train(*(settings[group] for group in TRAINING), quiet=True)
    assert result.steps == 2
    if data.dataset_name and data.dataset_name != "toyland":
        assert set(asked) == {(data.dataset_name, data.dataset_config_name, True)}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "flags",
    [["--train_file", "x.txt"], ["--num_train_epochs", "1"], ["--tokenizer_name", "DIR"], ["--model_name_or_path", "DIR"],
     ["--train_file", "x.txt", "--num_train_epochs", "1", "--tokenizer_name", "DIR", "--num_hidden_layers", "1"]],
    ids=lambda flags: "+".join(word[2:] for word in flags[::2]),
)  # fmt: skip
def test_it_can_be_adapted_by_flags(config, flags):
    settings = read(config, *flags)
    check_settings(*(settings[group] for group in TRAINING))
    for flag, word in zip(flags[::2], flags[1::2], strict=True):
        group = next(group for group in TRAINING if hasattr(settings[group], flag[2:]))
        assert str(getattr(settings[group], flag[2:])) in (word, f"['{word}']", f"{word}.0")
    assert not (settings[DataArguments].train_file and settings[DataArguments].dataset_name)
