"""What cannot be loaded is one line that says what to do."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

CONTEXT = 48
TEXT = "the cat sat on the mat, naïve café 日本語 🙂 e\u0301 "


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT * 20], "bpe", vocab_size=300)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def larger_tokenizer(folder: Path) -> None:
    words = [TEXT * 20, "many other words that merge again and again " * 9]
    train_tokenizer(words, "bpe", vocab_size=340).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "is no model folder: it holds no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no tokenizer could be loaded"),
        (larger_tokenizer, "has .* tokens and its model knows"),
    ],
)
def test_each_broken_folder_is_one_line(folder, tmp_path, harm, words):
    """Weights and configurations: test_validation.py."""
    shutil.copytree(folder, tmp_path / "copy")
    harm(tmp_path / "copy")
    with pytest.raises(UsageError, match=words) as error:
        load_model(str(tmp_path / "copy"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (None, "no MODEL is given"),
        ("runs/nothing", "the folder runs/nothing does not exist"),
        ("./nothing", "the folder ./nothing does not exist"),
        ("/nothing/at/all", "the folder /nothing/at/all does not exist"),
        ("~nobody-of-this-name/x", "the folder ~nobody-of-this-name/x does not exist"),
        ("a/b/c", "the folder a/b/c does not exist"),
        ("me/my model", "no possible Hub id"),
        ("nobody/nothing", "is no folder here and the Hub cannot be reached"),
    ],
)
def test_each_wrong_name_is_one_line(name, words, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=words) as error:
        load_model(name)
    assert "\n" not in str(error.value)


def test_a_run_in_progress_points_to_its_checkpoint(tmp_path):
    (tmp_path / "checkpoint-20").mkdir()
    with pytest.raises(UsageError, match="Try .*checkpoint-20"):
        load_model(str(tmp_path))


def test_a_missing_device_is_named(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="--device is cuda .expected a device of this machine: cpu"):
        load_model(str(folder), device="cuda")


def test_a_model_of_the_hub_is_checked_where_it_lies(folder):
    from huggingface_hub import constants

    for name, words in (("valid", None), ("pickled", "pytorch_model.bin, which is not read")):
        home = Path(constants.HF_HUB_CACHE) / f"models--me--{name}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("a1b2c3")
        kept, blobs = home / "snapshots" / "a1b2c3", home / "blobs"
        shutil.copytree(folder, blobs)
        kept.mkdir(parents=True)
        for path in blobs.iterdir():  # as the Hub's cache is made: links to files elsewhere
            weights = words and path.name == "model.safetensors"
            (kept / ("pytorch_model.bin" if weights else path.name)).symlink_to(path)
        if words:
            with pytest.raises(UsageError, match=words):
                load_model(f"me/{name}", "cpu")
        else:
            assert load_model(f"me/{name}", "cpu")[0].config.n_embd == 16
