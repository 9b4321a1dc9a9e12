"""Checkpoints: finding, loading and removing them, detecting damage, and no pickles."""

import os

import pytest
import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.settings.arguments import ModelArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training import checkpoint
from tinygpt_hf.training.checkpoint import RunState
from tinygpt_hf.training.optimizer import make_optimizer


def training(**given) -> TrainingArguments:
    return filled(ModelArguments(), TrainingArguments(**given))[1]


def parts(seed=0):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    model = TinyGPTForCausalLM(TinyGPTConfig(**shape))
    return model, make_optimizer(model, training(learning_rate=1e-2), "no")


def train(model, optimizer, steps):
    ids = torch.arange(24).view(2, 12)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()


def save(folder, model, optimizer, step):
    files = {"config.json": model.config.to_json_string().encode(), "tokenizer.json": b"{}"}
    memory = checkpoint.optimizer_tensors(optimizer)
    parts = {checkpoint.WEIGHTS: checkpoint.model_tensors(model), checkpoint.OPTIMIZER: memory}
    return checkpoint.save_checkpoint(folder, files, parts, RunState(step=step, tokens=step * 10), {"versions": {}})


def test_model_and_optimizer_are_restored_exactly(tmp_path):
    model, optimizer = parts()
    train(model, optimizer, 3)
    saved = save(tmp_path, model, optimizer, 3)
    train(model, optimizer, 3)
    other, other_optimizer = parts(seed=1)
    checkpoint.load_weights(saved, other)
    checkpoint.load_optimizer(saved / checkpoint.OPTIMIZER, other_optimizer)
    assert checkpoint.read_state(saved).tokens == 30
    train(other, other_optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_another_optimizer_is_an_error(tmp_path):
    model, optimizer = parts()
    train(model, optimizer, 1)
    saved = save(tmp_path, model, optimizer, 1)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    larger = make_optimizer(TinyGPTForCausalLM(TinyGPTConfig(**shape)), training(), "no")
    with pytest.raises(UsageError, match="has no optimizer state for model.layers.1"):
        checkpoint.load_optimizer(saved / checkpoint.OPTIMIZER, larger)


def test_there_is_no_pickle_and_files_follow_the_umask(tmp_path):
    model, optimizer = parts()
    train(model, optimizer, 1)
    saved = save(tmp_path, model, optimizer, 1)
    assert {path.suffix for path in saved.iterdir()} <= {".json", ".safetensors", ".py", ".jinja"}
    plain = tmp_path / "plain"
    plain.write_text("")
    assert {oct(p.stat().st_mode) for p in saved.iterdir()} == {oct(plain.stat().st_mode)}


def test_retention_keeps_two_and_ignores_links(tmp_path):
    model, optimizer = parts()
    for step in (7, 1, 2, 3, 4):  # 7 was found damaged, and the run began again before it
        save(tmp_path, model, optimizer, step)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").write_text("{}")
    os.symlink(tmp_path / "elsewhere", tmp_path / "checkpoint-0")
    (tmp_path / "checkpoint-9x").mkdir()
    checkpoint.remove_superseded(tmp_path, 1, tmp_path / "checkpoint-4")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["checkpoint-0", "checkpoint-3", "checkpoint-4", "checkpoint-7", "checkpoint-9x", "elsewhere"]


@pytest.mark.parametrize(
    ("name", "harm"),
    [("model.safetensors", "flip"), ("optimizer.safetensors", "halve"), ("state.json", "delete"), ("config.json", "empty"),
     ("manifest.json", "flip"), ("manifest.json", "delete")]
)  # fmt: skip
def test_every_kind_of_damage_is_detected(tmp_path, name, harm):
    model, optimizer = parts()
    save(tmp_path, model, optimizer, 1)
    path = save(tmp_path, model, optimizer, 2) / name
    data = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "halve":
        path.write_bytes(data[: len(data) // 2])
    else:
        position = data.find(b'"size"') + 1 if name == "manifest.json" else len(data) // 2
        data[position] ^= 1
        path.write_bytes(data)
    found, messages = checkpoint.newest_valid(tmp_path)
    assert found == tmp_path / "checkpoint-1"
    assert len(messages) == 1 and "checkpoint-2 is damaged" in messages[0]
    (tmp_path / "checkpoint-1" / "state.json").unlink()
    with pytest.raises(RunError, match="every checkpoint"):
        checkpoint.newest_valid(tmp_path)


def test_a_failed_save_leaves_the_folder_unchanged(tmp_path, monkeypatch):
    model, optimizer = parts()
    save(tmp_path, model, optimizer, 1)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.system, "fsync", fail)
    with pytest.raises(OSError):
        save(tmp_path, model, optimizer, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]
