"""LoRA runs: saved models are merged, the base does not change, and a killed run resumes bit-identically."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_recipe import DATA, TRAINING, losses, run, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import build_model
from tinygpt_hf.planning.memory import estimate_needs
from tinygpt_hf.settings.arguments import ModelArguments, TokenizerArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training import adapters, precision, recipe, step
from tinygpt_hf.training import optimizer as optim
from tinygpt_hf.training.checkpoint import model_tensors, optimizer_tensors

SHAPE = {"hidden_dropout": 0.0, "tie_word_embeddings": True}
LORA = {"lora_r": 4, "lora_dropout": 0.1, "learning_rate": 0.01}
CONTROL = [2, 3]  # <|im_start|> and <|im_end|>


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[bool, Path]:
    """Train a base with tied embeddings and one without."""
    folder = tmp_path_factory.mktemp("bases")
    for tied in (True, False):
        run(folder / str(tied), model={**SHAPE, "tie_word_embeddings": tied}, max_steps=2, eval_steps=0, save_steps=0)
    return {tied: folder / str(tied) for tied in (True, False)}


def tune(folder: Path, base: Path, model=None, **training) -> recipe.TrainResult:
    settings = {**LORA, **training}
    return run(folder, {"model_name_or_path": str(base), **(model or {})}, None, TokenizerArguments(), **settings)


@pytest.fixture(scope="module")
def finished(bases, tmp_path_factory) -> Path:
    """Train a LoRA run without interruption."""
    folder = tmp_path_factory.mktemp("lora") / "whole"
    tune(folder, bases[True])
    return folder


def in_the_plain(base: dict, saved: dict, r: int = 4, alpha: int = 8) -> dict[str, torch.Tensor]:
    """Merge by the definition of LoRA: W + alpha/r B A, and the trained embeddings of control tokens."""
    found = dict(base)
    for name, matrix in saved.items():
        place = name.removeprefix("base_model.model.")
        if place.endswith(".lora_A.weight"):
            weight = place.removesuffix(".lora_A.weight") + ".weight"
            found[weight] = base[weight] + alpha / r * saved[name.replace("lora_A", "lora_B")] @ matrix
        elif "trainable_tokens" in place:
            weight = place.partition(".token_adapter")[0] + ".weight"
            found[weight] = base[weight].clone()
            found[weight][CONTROL] = matrix
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_saved_weights_are_base_plus_adapter_product(bases, tmp_path, tied):
    tune(tmp_path / "r", bases[tied], max_steps=3)
    base = weights(bases[tied])
    for place in (tmp_path / "r", tmp_path / "r/checkpoint-3"):
        saved = load_file(place / ("adapter/adapter_model.safetensors" if place.name == "r" else "adapter.safetensors"))
        found, expected = weights(place), in_the_plain(base, saved)
        assert found.keys() == base.keys()
        assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in base)
        changed = {name for name in base if not torch.equal(found[name], base[name])}
        matrices = {name for name in base if name.startswith("model.layers.") and name.endswith("_proj.weight")}
        ends = {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
        assert changed == matrices | ends
        for name in ends:  # only the control tokens differ
            rows = (found[name] != base[name]).any(-1).nonzero().flatten().tolist()
            assert rows == CONTROL


def test_every_folder_loads_without_peft(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for folder in (finished, finished / "best", finished / "checkpoint-4", finished / "checkpoint-8"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert type(model).__name__ == "TinyGPTForCausalLM" and len(tokenizer) == model.config.vocab_size
        assert not (folder / "adapter_config.json").exists()
    log = (finished / "log.jsonl").read_text()
    assert "NaN" not in log and losses(finished)[8] < losses(finished)[1]


def test_the_adapter_folder_loads_onto_the_base(finished, bases):
    from peft import PeftModel

    facts = json.loads((finished / "adapter" / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == str(bases[True]) and (facts["r"], facts["lora_alpha"]) == (4, 8)
    base = AutoModelForCausalLM.from_pretrained(bases[True])
    merged = AutoModelForCausalLM.from_pretrained(finished)
    ids = torch.tensor([[2, 90, 100, 3, 110, 2, 80]])
    with torch.no_grad():
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, finished / "adapter")
        assert (adapted(ids).logits - merged(ids).logits).abs().max() < 1e-5
        assert (adapted(ids).logits - before).abs().max() > 1e-2
    assert sorted(path.name for path in (finished / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_killed_run_ends_bit_identical(finished, bases, tmp_path, monkeypatch):
    real, calls = step.gradients, []

    def killed(*args):
        calls.append(1)
        if len(calls) > 6:
            raise SystemExit(9)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(step, "gradients", killed)
        with pytest.raises(SystemExit):
            tune(tmp_path / "r", bases[True])
    tune(tmp_path / "r", bases[True])
    assert losses(tmp_path / "r") == losses(finished)
    assert losses(tmp_path / "r", "eval_loss") == losses(finished, "eval_loss")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (tmp_path / "r" / name).read_bytes() == (finished / name).read_bytes()
    assert (tmp_path / "r/checkpoint-8/adapter.safetensors").read_bytes() == (
        finished / "checkpoint-8/adapter.safetensors"
    ).read_bytes()


def test_a_kill_before_publishing_leaves_no_old_adapter(finished, bases, tmp_path, monkeypatch):
    real, calls = adapters.files, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit(9)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "files", killed)
        with pytest.raises(SystemExit):
            tune(tmp_path / "r", bases[True])
    AutoModelForCausalLM.from_pretrained(tmp_path / "r")
    tune(tmp_path / "r", bases[True])
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "r" / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_resumes_with_another_micro_batch_size(bases, tmp_path):
    plain = {"lora_dropout": 0.0, "lr_scheduler_type": "constant"}
    tune(tmp_path / "whole", bases[True], **plain, lora_merge=True)
    tune(tmp_path / "r", bases[True], **plain, max_steps=4)
    changed = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "lora_merge": True}
    tune(tmp_path / "r", bases[True], **plain, **changed)
    a, b = losses(tmp_path / "whole"), losses(tmp_path / "r")
    assert a.keys() == b.keys() and max(abs(a[k] - b[k]) for k in a) < 1e-5
    assert not (tmp_path / "whole" / "adapter").exists() and not (tmp_path / "r" / "adapter").exists()  # --lora_merge


def test_gradient_checkpointing_learns_the_same(bases, finished, tmp_path):
    tune(tmp_path / "r", bases[True], gradient_checkpointing=True, max_steps=8)
    a, b = losses(tmp_path / "r"), losses(finished)
    assert max(abs(a[k] - b[k]) for k in a) < 1e-5


def test_only_adapters_are_trained_by_adamw_without_decay_and_memory_is_counted(bases):
    net = build_model(
        ModelArguments(model_name_or_path=str(bases[True])), DATA, AutoTokenizer.from_pretrained(bases[True]), 0
    )
    before, size = model_tensors(net), net.num_parameters()
    training = dataclasses.replace(TRAINING, **LORA, optim="muon", weight_decay=0.1)
    _, training = filled(ModelArguments(model_name_or_path=str(bases[True])), training)
    adapters.attach(net, training, "base", CONTROL)
    after = model_tensors(net)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    optimizer = optim.make_optimizer(net, training, "no")
    assert [(group["muon"], group["weight_decay"]) for group in optimizer.param_groups] == [(False, 0.0)]
    learned = sum(p.numel() for p in optimizer.param_groups[0]["params"])
    # A and B have r numbers per column and row of their matrix; plus the embeddings of the control tokens
    matrices = [w for name, w in before.items() if name.endswith("_proj.weight")]
    assert learned == sum(4 * sum(w.shape) for w in matrices) + len(CONTROL) * net.config.hidden_size

    needs = estimate_needs(net.config, optimizer.param_groups, training, 64, frozen=size)
    net(torch.arange(64)[None], labels=torch.arange(64)[None], use_cache=False).loss.backward()
    optimizer.step()
    memory = sum(t.numel() * 4 for t in optimizer_tensors(optimizer).values() if t.ndim)
    assert needs.weights == 4 * (size + learned) and memory == 8 * learned
    merged = sum(tensor.numel() for tensor in before.values())  # merged weights exist in addition while saving
    assert needs.fixed == 4 * (size + learned) + 4 * learned + 4 * merged + memory


@pytest.mark.parametrize(
    "change,message",
    [
        ({"lora_r": 8}, "made with lora lora_r=4, now it is lora_r=8"),
        ({"lora_r": None, "lora_dropout": 0.0}, "made with lora {'lora_r': 4"),
        ({"base": False}, "made with (model tie_word_embeddings|base)"),
    ],
)
def test_changed_facts_are_an_error_on_resume(finished, bases, change, message):
    before = sorted(str(path) for path in finished.rglob("*"))
    base = bases[change.pop("base", True)]
    with pytest.raises(UsageError, match=message):
        tune(finished, base, **{"max_steps": 12, **change})
    assert sorted(str(path) for path in finished.rglob("*")) == before


def test_another_base_is_an_error_but_a_moved_one_is_not(finished, bases, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "r")
    shutil.copytree(bases[True], tmp_path / "moved")
    assert tune(tmp_path / "r", tmp_path / "moved").already_finished
    shutil.copy(bases[True] / "checkpoint-2/model.safetensors", tmp_path / "moved/model.safetensors")
    with open(tmp_path / "moved/model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UsageError, match="made with base [0-9a-f]{12}…, now it is [0-9a-f]{12}…"):
        tune(tmp_path / "r", tmp_path / "moved", max_steps=12)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"model": {"model_name_or_path": None}}, "--lora_r is given without --model_name_or_path"),
        ({"lora_r": 0}, "--lora_r is 0 .*at least 1"),
        ({"lora_dropout": 1.0}, "--lora_dropout is 1.0 .*less than 1"),
        ({"lora_alpha": -1.0}, "--lora_alpha is -1.*more than 0"),
        ({"lora_r": None, "lora_dropout": 0.0, "lora_merge": True}, "--lora_merge is given without --lora_r"),
        ({"lora_r": None}, "--lora_dropout is given without --lora_r"),
    ],
)
def test_invalid_settings_are_one_error_and_leave_no_files(bases, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        tune(tmp_path / "r", bases[True], **change)
    assert list(tmp_path.iterdir()) == []


def test_missing_peft_is_one_error(bases, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else real(name, *rest))
    with pytest.raises(
        UsageError,
        match=r"peft is not installed \(expected the package, for --lora_r\). Run pip install 'tinygpt_hf\[tune\]'",
    ):
        tune(tmp_path / "r", bases[True])
    assert list(tmp_path.iterdir()) == []


def test_lora_under_fsdp2_is_an_error(monkeypatch):
    import accelerate

    sharding = SimpleNamespace(distributed_type=accelerate.DistributedType.FSDP, is_fsdp2=True)
    monkeypatch.setattr(precision, "Accelerator", lambda **options: sharding)
    with pytest.raises(UsageError, match="--lora_r is given under FSDP2"):
        precision.make_accelerator(dataclasses.replace(TRAINING, lora_r=4, optim="adamw"))
