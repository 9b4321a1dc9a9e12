"""Test that a hostile or damaged model folder gives one error line with little memory, and that none of its code runs."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, cli
from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import check_model, load_model, load_weights_of
from tinygpt_hf.model.validation import INDEX, WEIGHTS, check_folder
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

TEXT = "the cat sat on the mat and the dog ran to the park "


def small(**fields) -> TinyGPTForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return TinyGPTForCausalLM(TinyGPTConfig(**shape | {"max_position_embeddings": 64} | fields))


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Return a folder with the same model in one file (one/) and in shards (shards/)."""
    root = tmp_path_factory.mktemp("valid")
    tokenizer = train_tokenizer([TEXT * 20], "bpe", vocab_size=290)
    for name, size in (("one", "1GB"), ("shards", "40KB")):
        small().save_pretrained(root / name, max_shard_size=size)
        tokenizer.save_pretrained(root / name)
    assert (root / "shards" / INDEX).is_file() and not (root / "shards" / WEIGHTS).exists()
    return root


def edit(name: str, **changed):
    def attack(folder: Path) -> None:
        facts = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(facts | changed))

    return attack


def config(**changed):
    return edit("config.json", **changed)


def write(name: str, data: bytes | str):
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def header(**changed):
    """Change the entry of every tensor in the weights' header, and nothing else."""

    def attack(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + length])
        text = json.dumps({k: v | changed if "dtype" in v else v for k, v in entries.items()}).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return attack


class Trap:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung").absolute(),))


def pickled(name: str):
    def attack(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Trap()))

    return attack


def foreign_code(folder: Path) -> None:
    config(model_type="other", auto_map={"AutoConfig": "trap.C", "AutoModelForCausalLM": "trap.M"})(folder)
    (folder / "trap.py").write_text("import pathlib\npathlib.Path('sprung').touch()\n")


def many_tokens(folder: Path) -> None:
    facts = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = facts["model"]["vocab"]
    vocabulary |= {f"word{i}": len(vocabulary) + i for i in range(3000 - len(vocabulary))}
    (folder / "tokenizer.json").write_text(json.dumps(facts))


def pipe(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    os.mkfifo(folder / "generation_config.json")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    (folder / "config.json").unlink()


def shard_named(name: str):
    def attack(folder: Path) -> None:
        table = json.loads((folder / INDEX).read_text())["weight_map"]
        edit(INDEX, weight_map=table | {next(iter(table)): name})(folder)

    return attack


def swapped_shards(folder: Path) -> None:
    table = json.loads((folder / INDEX).read_text())["weight_map"]
    edit(INDEX, weight_map=dict.fromkeys(table, min(table.values())))(folder)


NESTED = '{"a":' * 10**5
ATTACKS = {  # folder -> what is done to it -> (how, words of the error)
    "one": {
        "a config of 50 MB": (write("config.json", "{" + " " * 50_000_000 + "}"), "has 50000002 bytes, more than"),
        "nested 10^5 deep": (write("config.json", NESTED), "nested too deeply"),
        "no JSON": (write("config.json", '{"model_type": "tinygpt"'), "is damaged"),
        "no UTF-8": (write("config.json", b'{"model_type": "\xff"}'), "is damaged"),
        "10^5000": (write("config.json", '{"model_type": "tinygpt", "vocab_size": 1' + "0" * 5000 + "}"), "is damaged"),
        "a name twice": (write("config.json", '{"model_type": "tinygpt", "model_type": "llama"}'), "there twice"),
        "a list": (write("config.json", "[]"), "holds no JSON object"),
        "no type": (write("config.json", "{}"), "has no model_type"),
        "NaN": (config(hidden_size=float("nan")), "no possible model"),
        "a negative size": (config(hidden_size=-32), "no possible model"),
        "a list of numbers": (config(hidden_size=[32, 32]), "no possible model"),
        "an impossible shape": (config(num_attention_heads=5, head_dim=None), "no possible model"),
        "an unknown word": (config(norm_type="batchnorm"), "no possible model"),
        "a string": (config(num_hidden_layers="2"), 'num_hidden_layers is "2" .expected a whole number'),
        "a million layers": (
            config(num_hidden_layers=10**6),
            "expected a whole number from 0 to 24, the number of tensors",
        ),
        "many labels": (config(num_labels=10**9), "num_labels is 1000000000"),
        "a layer more": (config(num_hidden_layers=3), "lacks 11 of the model's weights"),
        "five times the layers": (config(num_hidden_layers=10), "describes 174272 weights .expected about 42560"),
        "a huge vocabulary": (config(vocab_size=2**30), "describes 3[0-9]{10} weights"),
        "beyond bounds": (config(vocab_size=10**18), "no possible model"),
        "a huge width": (config(hidden_size=2**20), "weights .expected about"),
        "wide heads": (
            config(head_dim=300, num_attention_heads=300, num_key_value_heads=300),
            "weights .expected about",
        ),
        "defaults": (write("config.json", '{"model_type": "tinygpt"}'), "describes 5[0-9]{6} weights"),
        "defaults of another": (
            write("config.json", '{"model_type": "mistral"}'),
            "expected a whole|describes 7[0-9]{9}",
        ),
        "code from the Hub": (config(attn_implementation="someone/kernel"), "asks for external code"),
        "other weights": (config(transformers_weights="evil.bin"), "names other weights"),
        "code beside it": (foreign_code, "needs code of its own"),
        "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights"),
        "pytorch_model.bin": (pickled("pytorch_model.bin"), "pytorch_model.bin, which is not read"),
        "weights.pickle": (pickled("weights.pickle"), "weights.pickle, which is not read"),
        "a pickle under a good name": (write(WEIGHTS, pickle.dumps(Trap())), "is damaged"),
        "empty": (write(WEIGHTS, b""), "is damaged"),
        "a cut": (lambda folder: os.truncate(folder / WEIGHTS, 50_000), "is damaged"),
        "bytes behind the end": (lambda folder: os.truncate(folder / WEIGHTS, 10**6), "is damaged"),
        "a header of 2^63": (write(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"), "is damaged"),
        "brackets": (write(WEIGHTS, struct.pack("<Q", 2_000_000) + b'{"a":' + b"[" * 2_000_000), "is damaged"),
        "another shape": (header(shape=[7, 7]), "is damaged"),
        "whole numbers": (header(dtype="I32"), "as I32, which is not a floating-point type"),
        "a pipe": (pipe, "generation_config.json is not a file"),
        "an adapter": (adapter, "holds an adapter .*Merge it"),
    },
    "shards": {
        "a missing shard": (lambda folder: max(folder.glob("model-*.safetensors")).unlink(), "which is missing"),
        "another place": (shard_named("../../../../../etc/passwd"), "which is no safetensors file in the folder"),
        "a pickled shard": (shard_named("pytorch_model.bin"), "which is no safetensors file in the folder"),
        "swapped shards": (swapped_shards, "which model.safetensors.index.json lists"),
        "an empty table": (edit(INDEX, weight_map={}), "has no weight_map"),
        "a table of numbers": (edit(INDEX, weight_map={"a": 1}), "has no weight_map"),
    },
    "tokenizer": {
        "ten times the vocabulary": (many_tokens, "has 3000 tokens and the model only 300 embeddings"),
        "cut in half": (lambda folder: os.truncate(folder / "tokenizer.json", 5000), "tokenizer"),
        "nested": (write("tokenizer.json", NESTED), "tokenizer"),
        "30 MB": (
            lambda folder: os.truncate(folder / "tokenizer.json", 30_000_000),
            "more than the limit of 1202176",
        ),
        "nested settings": (write("tokenizer_config.json", NESTED), "nested too deeply"),
        "a template of 5 MB": (write("chat_template.jinja", "x" * 5_000_000), "more than the limit of 1048576"),
    },
}


def fingerprint(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def to_train(folder: Path) -> None:
    check_model(ModelArguments(model_name_or_path=str(folder)), DataArguments())
    load_weights_of(str(folder))


def to_infer(folder: Path) -> None:
    load_model(str(folder), "cpu")


@pytest.fixture
def attacked(valid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def copied(kind: str, attack) -> Path:
        shutil.copytree(valid / ("shards" if kind == "shards" else "one"), tmp_path / "copy")
        attack(tmp_path / "copy")
        return tmp_path / "copy"

    return copied


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in ATTACKS for name in ATTACKS[kind]])
def test_each_attack_is_one_line_and_changes_nothing(kind, name, attacked):
    attack, words = ATTACKS[kind][name]
    folder = attacked(kind, attack)
    before = fingerprint(folder)
    tracemalloc.start()
    for way in (to_infer,) if kind == "tokenizer" else (to_infer, to_train):
        with pytest.raises(UsageError, match=words) as error:
            way(folder)
        line = str(error.value)
        assert "\n" not in line and " (expected " in line and len(line) < 700
    assert tracemalloc.get_traced_memory()[1] < 2e8
    tracemalloc.stop()
    assert fingerprint(folder) == before and not Path("sprung").exists()


def test_the_trap_works(tmp_path, monkeypatch):
    """Check that the pickle above runs its code when it is loaded."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert Path("sprung").exists()


@pytest.mark.parametrize("command", ["generate", "evaluate", "chat", "train"])
def test_every_command_that_takes_a_model_refuses_with_status_2(command, attacked, valid, capsys):
    folder = attacked("one", pickled("pytorch_model.bin"))
    Path("text.txt").write_text(TEXT * 50)
    words = {
        "generate": f"{folder} --prompt the",
        "evaluate": f"{folder} --data text.txt",
        "chat": f"{folder} --prompt the",
        "train": f"--model_name_or_path {folder} --train_file text.txt --max_steps 1 --output_dir out "
        f"--tokenizer_name {valid / 'one'}",
    }
    assert cli.main([command, *words[command].split()]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pytorch_model.bin, which is not read" in said
    assert not Path("sprung").exists() and not Path("out").exists()


LLAMA = LlamaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=70)
GPT2 = GPT2Config(vocab_size=90, n_embd=32, n_layer=3, n_head=2, n_positions=40, n_inner=70)


def test_valid_folders_pass(valid, tmp_path):
    for folder in (valid / "one", valid / "shards"):
        before = fingerprint(folder)
        to_infer(folder)
        assert fingerprint(folder) == before
    (tmp_path / "linked").mkdir()  # as the Hub's cache is made
    for path in (valid / "one").iterdir():
        (tmp_path / "linked" / path.name).symlink_to(path)
    check_folder(tmp_path / "linked")
    for k, model in enumerate((small().to(torch.bfloat16), LlamaForCausalLM(LLAMA), GPT2LMHeadModel(GPT2))):
        model.save_pretrained(tmp_path / str(k))
        (tmp_path / str(k) / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))  # nobody reads it here
        check_folder(tmp_path / str(k))


def test_code_in_a_folder_of_ours_is_not_run(attacked):
    """Check that the installed classes are used and not the code that every TinyGPT folder contains."""
    folder = attacked("one", config(auto_map={"AutoConfig": "someone/other--trap.C"}))
    for name in ("modeling_tinygpt.py", "configuration_tinygpt.py"):
        (folder / name).write_text("import pathlib\npathlib.Path('sprung').touch()\n")
    before = fingerprint(folder)
    assert type(load_model(str(folder), "cpu")[0]) is TinyGPTForCausalLM
    to_train(folder)
    assert fingerprint(folder) == before and not Path("sprung").exists()
