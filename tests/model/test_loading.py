"""Test the error messages for models that cannot be loaded. For hostile folders see test_validation.py."""

import shutil
from pathlib import Path

import pytest
import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer


def larger_tokenizer(folder: Path) -> None:
    train_tokenizer([Path(__file__).read_text()], "bpe", vocab_size=340).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "is no model folder: it holds no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no tokenizer could be loaded"),
        (larger_tokenizer, "has .* tokens and the model only"),
    ],
)
def test_each_broken_folder_is_one_line(tiny_folder, tmp_path, harm, words):
    shutil.copytree(tiny_folder, tmp_path / "copy")
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
        ("me/my model", "no valid Hub id"),
        ("nobody/nothing", "MODEL nobody/nothing is no local folder and the Hub cannot be reached"),
    ],
)
def test_each_wrong_name_is_one_line(name, words):
    with pytest.raises(UsageError, match=words) as error:
        load_model(name)
    assert "\n" not in str(error.value)


def test_a_run_in_progress_points_to_its_checkpoint(tmp_path):
    (tmp_path / "checkpoint-20").mkdir()
    with pytest.raises(UsageError, match="Try .*checkpoint-20"):
        load_model(str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_device_is_named(tiny_folder):
    with pytest.raises(UsageError, match="--device is cuda .expected a device of this machine: cpu"):
        load_model(str(tiny_folder), device="cuda")


def test_a_model_from_the_hub_is_checked_in_the_cache(tiny_folder):
    from huggingface_hub import constants

    for name, weights in (("valid", "model.safetensors"), ("pickled", "pytorch_model.bin")):
        home = Path(constants.HF_HUB_CACHE) / f"models--me--{name}"
        snapshot, blobs = home / "snapshots" / "a1b2c3", home / "blobs"
        for folder in (home / "refs", snapshot):
            folder.mkdir(parents=True)
        (home / "refs" / "main").write_text("a1b2c3")
        shutil.copytree(tiny_folder, blobs)
        for path in blobs.iterdir():  # as the Hub's cache is made: links to files elsewhere
            (snapshot / (weights if path.name == "model.safetensors" else path.name)).symlink_to(path)
    assert load_model("me/valid", "cpu")[0].config.n_embd == 16
    with pytest.raises(UsageError, match="pytorch_model.bin, which is not read"):
        load_model("me/pickled", "cpu")
