"""A run whose model is spread over two processes (FSDP2) is the run of one, and its checkpoints are anybody's.

By Muon, which leaves embeddings and norms to AdamW.
"""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_recipe import DATA, MODEL, TOKENIZER, TRAINING, losses, on_two_processes, run

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.parsing import to_yaml
from tinygpt_hf.training import checkpoint

SHAPE = {"hidden_dropout": 0.0, "num_hidden_layers": 3}  # an odd number of matrices for two processes
WHOLE = {"model": SHAPE, "per_device_train_batch_size": 8, "mixed_precision": "no"}
PARTS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "mixed_precision": "no"}


def sharded(folder: Path) -> None:
    """The same on two processes."""
    settings = dataclasses.replace(TRAINING, output_dir=str(folder), **PARTS)
    folder.parent.mkdir(exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(to_yaml([dataclasses.replace(MODEL, **SHAPE), DATA, TOKENIZER, settings]))
    on_two_processes(config, (str(Path(__file__).parents[1] / "sharded_training.py"),))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "one", **WHOLE)
    sharded(folder / "two")
    return folder


def close(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and max(abs(a[step] - b[step]) for step in a) < 1e-5


def test_shards_train_as_the_whole(runs):
    for key in ("loss", "eval_loss", "grad_norm"):
        assert close(losses(runs / "one", key), losses(runs / "two", key))
    one, two = (load_file(runs / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_a_checkpoint_of_shards_is_one_of_a_whole(runs):
    one, two = (runs / name / "checkpoint-8" for name in ("one", "two"))
    assert storage.damage(two) is None and {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    a, b = (load_file(path / checkpoint.OPTIMIZER) for path in (one, two))
    assert {name: t.shape for name, t in a.items()} == {name: t.shape for name, t in b.items()}
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


@pytest.mark.parametrize("begun,ended", [("one", "two"), ("two", "one")])
def test_either_goes_on_from_the_other(runs, tmp_path, begun, ended):
    shutil.copytree(runs / begun, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "checkpoint-8")
    if ended == "two":
        sharded(tmp_path / "r")
    else:
        run(tmp_path / "r", **WHOLE)
    assert close(losses(tmp_path / "r"), losses(runs / "one"))


def test_other_ways_to_shard_are_refused(tmp_path, monkeypatch):
    from accelerate import Accelerator, DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(UsageError, match="the launcher asks for DEEPSPEED"):
        run(tmp_path / "r")
