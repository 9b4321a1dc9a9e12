"""A run on two processes equals one on a single process: under DDP, with adapters, and under FSDP2 with Muon and AdamW.

Checkpoints of FSDP2 and of a single process are interchangeable.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_adapters import LORA, tune
from test_recipe import DATA, MODEL, TOKENIZER, TRAINING, losses, run

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import ModelArguments, TokenizerArguments
from tinygpt_hf.settings.parsing import to_yaml
from tinygpt_hf.training import checkpoint

SHAPE = {"hidden_dropout": 0.0, "num_hidden_layers": 3}  # an odd number of matrices for two processes
WHOLE = {"model": SHAPE, "per_device_train_batch_size": 8}
PARTS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
HALVES = {"per_device_train_batch_size": 4}


class Pair:
    """A program that forks two processes for each run."""

    def __init__(self):
        words = [sys.executable, str(Path(__file__).parents[1] / "pair.py")]
        self.program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def train(self, folder: Path, model=None, tokenizer=TOKENIZER, sharded=False, **training) -> None:
        settings = dataclasses.replace(TRAINING, output_dir=str(folder), **training)
        config, output = folder.with_suffix(".yaml"), folder.with_suffix(".said")
        config.write_text(to_yaml([model or dataclasses.replace(MODEL, **SHAPE), DATA, tokenizer, settings]))
        request = {"words": ["train", "--config", str(config)], "sharded": sharded, "output": str(output)}
        print(json.dumps(request), file=self.program.stdin, flush=True)
        assert json.loads(self.program.stdout.readline()) == [0, 0], output.read_text()[-3000:]


@pytest.fixture(scope="module")
def pair():
    made = Pair()
    yield made
    made.program.stdin.close()
    made.program.wait()


@pytest.fixture(scope="module")
def runs(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "one", **WHOLE)
    pair.train(folder / "two", sharded=True, **PARTS)
    return folder


def close(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and max(abs(a[step] - b[step]) for step in a) < 1e-5


def test_two_processes_train_the_same_as_one(pair, runs, tmp_path):
    pair.train(tmp_path / "ddp", **HALVES)
    for key in ("loss", "eval_loss", "grad_norm"):
        assert close(losses(runs / "one", key), losses(tmp_path / "ddp", key))


def test_adapters_train_the_same_on_two_processes_as_on_one(pair, runs, tmp_path):
    options = {"lora_dropout": 0.0, "max_steps": 4}
    tune(tmp_path / "one", runs / "one", **options)
    base = ModelArguments(model_name_or_path=str(runs / "one"))
    pair.train(tmp_path / "two", base, TokenizerArguments(), **{**LORA, **options, **HALVES})
    for key in ("loss", "eval_loss"):
        assert close(losses(tmp_path / "one", key), losses(tmp_path / "two", key))


def test_fsdp_trains_the_same_as_one_process(runs):
    for key in ("loss", "eval_loss", "grad_norm"):
        assert close(losses(runs / "one", key), losses(runs / "two", key))
    one, two = (load_file(runs / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_an_fsdp_checkpoint_equals_that_of_one_process(runs):
    one, two = (runs / name / "checkpoint-8" for name in ("one", "two"))
    assert storage.find_damage(two) is None and {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    a, b = (load_file(path / checkpoint.OPTIMIZER) for path in (one, two))
    assert {name: t.shape for name, t in a.items()} == {name: t.shape for name, t in b.items()}
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


@pytest.mark.parametrize("begun,ended", [("one", "two"), ("two", "one")])
def test_fsdp_and_one_process_resume_from_each_other(pair, runs, tmp_path, begun, ended):
    shutil.copytree(runs / begun, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "checkpoint-8")
    if ended == "two":
        pair.train(tmp_path / "r", sharded=True, **PARTS)
    else:
        run(tmp_path / "r", **WHOLE)
    assert close(losses(tmp_path / "r"), losses(runs / "one"))


def test_other_kinds_of_sharding_are_errors(tmp_path, monkeypatch):
    from accelerate import Accelerator, DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(UsageError, match="the launcher asks for DEEPSPEED"):
        run(tmp_path / "r")
