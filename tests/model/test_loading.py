"""What cannot be loaded is one line that says what to do."""

import json
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


def broken_copy(folder, tmp_path, *removed, **config):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in removed:
        (copy / name).unlink()
    if config:
        facts = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(facts | config))
    return copy


def test_each_broken_folder_is_one_line(folder, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cases = {
        "no config": (("config.json",), {}, "is no model folder: it holds no config.json"),
        "no weights": (("model.safetensors",), {}, "holds no weights"),
        "no tokenizer": (("tokenizer.json",), {}, "holds no tokenizer"),
        "too small": ((), {"vocab_size": 100}, "cannot be loaded|the tokenizer of .* has"),
        "other shape": ((), {"n_embd": 32}, "promises 23[0-9]{3} weights or more; .* are beside it"),
        "more layers": ((), {"n_layer": 2}, "lacks 12 of the model's weights"),
        "unknown type": ((), {"model_type": "nothing_known"}, "cannot be loaded"),
        "foreign code": (
            (),
            {"model_type": "x", "auto_map": {"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}},
            "needs code of its own",
        ),
    }
    for name, (removed, config, words) in cases.items():
        copy = broken_copy(folder, tmp_path / name.replace(" ", "_"), *removed, **config)
        with pytest.raises(UsageError, match=words) as error:
            load_model(str(copy))
        assert "\n" not in str(error.value), name
    damaged = broken_copy(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:100])
    with pytest.raises(UsageError, match="is damaged"):
        load_model(str(damaged))
    with pytest.raises(UsageError, match="could be loaded"):
        damaged = broken_copy(folder, tmp_path / "damaged_tokenizer")
        (damaged / "tokenizer.json").write_text("{")
        load_model(str(damaged))


def test_a_tokenizer_larger_than_the_model_is_refused(folder, tmp_path):
    copy = broken_copy(folder, tmp_path)
    large = train_tokenizer([TEXT * 20, "many other words that merge again and again " * 9], "bpe", vocab_size=340)
    large.save_pretrained(copy)
    with pytest.raises(UsageError, match="has .* tokens and its model knows .*; put the tokenizer"):
        load_model(str(copy))


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
    with pytest.raises(UsageError, match="try .*checkpoint-20"):
        load_model(str(tmp_path))


def test_a_missing_device_is_named(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="--device is cuda; this machine has: cpu"):
        load_model(str(folder), device="cuda")


def test_a_model_of_the_hub_is_checked_where_it_lies(folder):
    from huggingface_hub import constants

    for name, words in (("sound", None), ("pickled", "pytorch_model.bin, which is not read")):
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
