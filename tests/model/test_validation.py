"""A hostile or damaged model folder is one line, at once and in little memory; nothing in it changes and nothing in it runs."""

import hashlib
import json
import pickle
import shutil
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, cli
from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import check_model, load_model, load_weights_of
from tinygpt_hf.model.validation import INDEX, WEIGHTS, check_folder, matrix_elements
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

TEXT = "the cat sat on the mat and the dog ran to the park "
GPT2_DIALECT = {"position_embedding_type": "learned", "norm_type": "layernorm", "mlp_type": "plain", "qk_norm": False}


def small(**fields) -> TinyGPTForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return TinyGPTForCausalLM(TinyGPTConfig(**shape | {"max_position_embeddings": 64} | fields))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder in one file, and the same in shards."""
    root = tmp_path_factory.mktemp("sound")
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


def header(change):
    """Rewrite the header by `change(dict) -> dict`, everything behind it as it was."""

    def attack(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        text = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return attack


def first_entry(**changed):
    def change(entries: dict) -> dict:
        name = next(name for name in entries if name != "__metadata__")
        return entries | {name: entries[name] | changed}

    return header(change)


def shifted(entries: dict) -> dict:
    name = max((n for n in entries if n != "__metadata__"), key=lambda n: entries[n]["data_offsets"][1])
    moved = [offset - 4 for offset in entries[name]["data_offsets"]]
    return entries | {name: entries[name] | {"data_offsets": moved}}


def raw(length: int, text: bytes):
    return write(WEIGHTS, struct.pack("<Q", length) + text)


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def longer(folder: Path) -> None:
    with open(folder / WEIGHTS, "ab") as file:
        file.write(b"\0" * 4096)


class Trap:
    """Unpickled, it leaves a file behind."""

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
    import os

    (folder / "generation_config.json").unlink()
    os.mkfifo(folder / "generation_config.json")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    (folder / "config.json").unlink()


def missing_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def shard_named(name: str):
    def attack(folder: Path) -> None:
        table = json.loads((folder / INDEX).read_text())["weight_map"]
        edit(INDEX, weight_map=table | {next(iter(table)): name})(folder)

    return attack


def swapped_shards(folder: Path) -> None:
    one, two, *_ = sorted(folder.glob("model-*.safetensors"))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


ATTACKS = {
    # config.json
    "a config of 50 MB": (write("config.json", "{" + " " * 50_000_000 + "}"), "has 50000002 bytes, more than"),
    "nested 10^5 deep": (write("config.json", '{"a":' * 10**5 + "1" + "}" * 10**5), "nested too deeply"),
    "no JSON": (write("config.json", '{"model_type": "tinygpt"'), "is damaged"),
    "no UTF-8": (write("config.json", b'{"model_type": "\xff"}'), "is damaged"),
    "a list": (write("config.json", "[]"), "holds no JSON object"),
    "no type": (write("config.json", "{}"), "has no model_type"),
    "a name twice": (write("config.json", '{"model_type": "tinygpt", "model_type": "llama"}'), "stands there twice"),
    "NaN": (config(hidden_size=float("nan")), "hidden_size is NaN, no whole number"),
    "infinity": (config(hidden_size=float("inf")), "hidden_size is Infinity, no whole number"),
    "a fraction": (config(hidden_size=32.5), "hidden_size is 32.5, no whole number"),
    "a negative size": (config(hidden_size=-32), "hidden_size is -32, no whole number"),
    "a string": (config(num_hidden_layers="2"), 'num_hidden_layers is "2", no whole number'),
    "true": (config(vocab_size=True), "vocab_size is true, no whole number"),
    "a list of strings": (config(num_hidden_layers=["2"]), r'num_hidden_layers is \["2"\], no whole number'),
    "a list of numbers": (config(hidden_size=[32, 32]), "no possible model"),
    "a million layers": (
        config(num_hidden_layers=10**6),
        "promises 1000000 layers; the weights beside it are 24 tensors",
    ),
    "a layer more": (config(num_hidden_layers=3), "lacks 11 of the model's weights"),
    "five times the layers": (config(num_hidden_layers=10), "promises 173440 weights or more; 42560 are beside it"),
    "a huge vocabulary": (
        config(vocab_size=2**30),
        "promises vocab_size 1073741824; no tensor beside it is wider than",
    ),
    "beyond bounds": (config(vocab_size=10**15), "vocab_size is 1000000000000000, no whole number"),
    "10^5000": (write("config.json", '{"model_type": "tinygpt", "vocab_size": 1' + "0" * 5000 + "}"), "is damaged"),
    "a huge width": (config(hidden_size=2**20), "promises hidden_size 1048576; no tensor"),
    "wide heads": (config(head_dim=300, num_attention_heads=300, num_key_value_heads=300), "weights or more"),
    "many labels": (config(num_labels=10**9), "num_labels is 1000000000, no whole number"),
    "sizes left to defaults": (
        write("config.json", '{"model_type": "tinygpt"}'),
        "promises vocab_size 4096; no tensor",
    ),
    "defaults of another": (write("config.json", '{"model_type": "mistral"}'), "promises 724[0-9]{7} weights or more"),
    "an impossible shape": (config(num_attention_heads=5, head_dim=None), "no possible model"),
    "an unknown word": (config(norm_type="batchnorm"), "no possible model"),
    "code from the Hub": (config(attn_implementation="someone/kernel"), "asks for code from elsewhere"),
    "other weights": (config(transformers_weights="evil.bin"), "names weights of its own"),
    "code beside it": (foreign_code, "needs code of its own|cannot be loaded"),
    # weights
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights"),
    "pytorch_model.bin": (
        pickled("pytorch_model.bin"),
        "pytorch_model.bin, which is not read: such files can run code",
    ),
    "model.pt": (pickled("model.pt"), "model.pt, which is not read"),
    "weights.pickle": (pickled("weights.pickle"), "weights.pickle, which is not read"),
    "a pickle under a good name": (write(WEIGHTS, pickle.dumps(Trap())), "is damaged"),
    "empty": (write(WEIGHTS, b""), "is damaged"),
    "a cut": (cut, "is damaged"),
    "bytes behind the end": (longer, "is damaged"),
    "a header of 2^63": (raw(2**63, b"{}"), "is damaged"),
    "a header of 2^64-1": (raw(2**64 - 1, b"{}"), "is damaged"),
    "a bomb of brackets": (raw(2_000_000, b'{"a":' + b"[" * 2_000_000), "is damaged"),
    "a bomb of entries": (
        raw(2**21, b"{" + b",".join(b'"%06d":0' % i for i in range(190_000)) + b"}" + b" " * 10_000),
        "is damaged",
    ),
    "a bomb of spaces": (raw(2**25, b"{}" + b" " * 2**25), "is damaged"),
    "a wider type": (first_entry(dtype="F64"), "is damaged"),
    "whole numbers": (
        header(lambda h: {k: v | {"dtype": "I32"} if "dtype" in v else v for k, v in h.items()}),
        "as I32",
    ),
    "an unknown type": (first_entry(dtype="X9"), "is damaged"),
    "another shape": (first_entry(shape=[7, 7]), "is damaged"),
    "a negative shape": (first_entry(shape=[-1, -32]), "is damaged"),
    "a shape that wraps": (first_entry(shape=[2**62, 2**62, 4]), "is damaged"),
    "offsets backwards": (first_entry(data_offsets=[128, 0]), "is damaged"),
    "an overlap": (header(shifted), "is damaged"),
    "notes of numbers": (header(lambda h: h | {"__metadata__": {"a": 1}}), "is damaged"),
    "a pipe": (pipe, "generation_config.json is no file"),
    "an adapter": (adapter, "holds an adapter .*; merge it"),
}
SHARD_ATTACKS = {
    "a missing shard": (missing_shard, "which is not there"),
    "another place": (shard_named("../../../../../etc/passwd"), "which is no safetensors file beside it"),
    "an absolute place": (shard_named("/etc/passwd"), "which is no safetensors file beside it"),
    "a pickled shard": (shard_named("pytorch_model.bin"), "which is no safetensors file beside it"),
    "swapped shards": (swapped_shards, "which model.safetensors.index.json says it holds"),
    "an empty table": (edit(INDEX, weight_map={}), "has no weight_map"),
    "a table of numbers": (edit(INDEX, weight_map={"a": 1}), "has no weight_map"),
    "an index that nests": (write(INDEX, '{"a":' * 10**5), "nested too deeply"),
}
TOKENIZER_ATTACKS = {
    "ten times the vocabulary": (many_tokens, "has 3000 tokens and its model knows 300"),
    "cut in half": (
        lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text()[:5000]),
        "tokenizer",
    ),
    "brackets": (write("tokenizer.json", '{"a":' * 10**5), "tokenizer"),
    "30 MB": (
        lambda f: (f / "tokenizer.json").open("ab").write(b" " * 30_000_000),
        "more than the 1202176 it can need",
    ),
    "nested settings": (write("tokenizer_config.json", '{"a":' * 10**5), "nested too deeply"),
    "a template of 5 MB": (write("chat_template.jinja", "x" * 5_000_000), "more than the 1048576 it can need"),
}


def fingerprint(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size < 2**40]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def one_line(error: UsageError) -> bool:
    return "\n" not in str(error) and " (expected " in str(error) and len(str(error)) < 700


def refused(folder: Path, words: str, ways) -> None:
    before = fingerprint(folder)
    for way in ways:
        start = time.process_time()
        with pytest.raises(UsageError, match=words) as error:
            way(folder)
        assert time.process_time() - start < 10  # half a second at most; of its own, whatever else runs
        assert one_line(error.value), error.value
    tracemalloc.start()
    with pytest.raises(UsageError, match=words):
        ways[0](folder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2e8
    assert fingerprint(folder) == before
    assert not Path("sprung").exists()


def to_train(folder: Path) -> None:
    check_model(ModelArguments(model_name_or_path=str(folder)), DataArguments())
    load_weights_of(str(folder))


def to_infer(folder: Path) -> None:
    load_model(str(folder), "cpu")


def attacked(sound: Path, tmp_path, monkeypatch, attack) -> Path:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy)
    attack(copy)
    return copy


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_one_line_and_changes_nothing(name, sound, tmp_path, monkeypatch):
    attack, words = ATTACKS[name]
    refused(attacked(sound / "one", tmp_path, monkeypatch, attack), words, [to_infer, to_train])


@pytest.mark.parametrize("name", SHARD_ATTACKS)
def test_each_attack_on_shards_is_one_line_and_changes_nothing(name, sound, tmp_path, monkeypatch):
    attack, words = SHARD_ATTACKS[name]
    refused(attacked(sound / "shards", tmp_path, monkeypatch, attack), words, [to_infer, to_train])


@pytest.mark.parametrize("name", TOKENIZER_ATTACKS)
def test_each_attack_on_the_tokenizer_is_one_line_and_changes_nothing(name, sound, tmp_path, monkeypatch):
    attack, words = TOKENIZER_ATTACKS[name]
    refused(attacked(sound / "one", tmp_path, monkeypatch, attack), words, [to_infer])


def test_the_trap_works(tmp_path, monkeypatch):
    """The pickle above does run where it is read."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert Path("sprung").exists()


@pytest.mark.parametrize("command", ["generate", "evaluate", "chat", "train"])
def test_every_command_that_takes_a_model_refuses_with_status_2(command, sound, tmp_path, monkeypatch, capsys):
    folder = attacked(sound / "one", tmp_path, monkeypatch, pickled("pytorch_model.bin"))
    (tmp_path / "text.txt").write_text(TEXT * 50)
    lines = {
        "generate": ["generate", str(folder), "--prompt", "the"],
        "evaluate": ["evaluate", str(folder), "--data", "text.txt"],
        "chat": ["chat", str(folder), "--prompt", "the"],
        "train": ["train", "--model_name_or_path", str(folder), "--train_file", "text.txt", "--max_steps", "1"],
    }
    if command == "train":
        lines["train"] += ["--output_dir", "out", "--tokenizer_name", str(sound / "one")]
    assert cli.main(lines[command]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pytorch_model.bin, which is not read" in said
    assert not Path("sprung").exists() and not Path("out").exists()


def test_sound_folders_pass(sound, tmp_path):
    for folder in (sound / "one", sound / "shards"):
        before = fingerprint(folder)
        check_folder(folder)
        load_model(str(folder), "cpu")
        assert fingerprint(folder) == before
    linked = tmp_path / "linked"  # as the Hub's cache is made
    linked.mkdir()
    for path in (sound / "one").iterdir():
        (linked / path.name).symlink_to(path)
    check_folder(linked)
    small().to(torch.bfloat16).save_pretrained(tmp_path / "half")
    check_folder(tmp_path / "half")
    (tmp_path / "half" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))  # beside safetensors nobody reads it
    check_folder(tmp_path / "half")


def test_code_in_a_folder_of_ours_is_not_run(sound, tmp_path, monkeypatch):
    """Every TinyGPT folder carries its code for those who trust it; here the installed classes are used."""
    folder = attacked(sound / "one", tmp_path, monkeypatch, config(auto_map={"AutoConfig": "someone/other--trap.C"}))
    for name in ("modeling_tinygpt.py", "configuration_tinygpt.py"):
        (folder / name).write_text("import pathlib\npathlib.Path('sprung').touch()\n")
    before = fingerprint(folder)
    assert type(load_model(str(folder), "cpu")[0]) is TinyGPTForCausalLM
    to_train(folder)
    assert fingerprint(folder) == before and not Path("sprung").exists()


def test_weights_larger_than_the_memory_are_refused(sound, monkeypatch):
    monkeypatch.setattr("tinygpt_hf.model.validation.machine_memory", lambda: 300)
    with pytest.raises(UsageError, match="the weights of .* are 0.0 GB; this machine has 0.0 GB of memory"):
        check_folder(sound / "one")


# --- against slow, obvious second opinions


@pytest.mark.parametrize(
    "model",
    [
        lambda: small(),
        lambda: small(num_key_value_heads=2, head_dim=12, tie_word_embeddings=False, intermediate_size=50),
        lambda: small(**GPT2_DIALECT),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=32, n_layer=3, n_head=2, n_positions=40, n_inner=70)),
        lambda: LlamaForCausalLM(
            LlamaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=70)
        ),
    ],
)
def test_the_arithmetic_counts_the_matrices_there_are(model, tmp_path):
    net = model()
    net.save_pretrained(tmp_path)
    counted = sum(parameter.numel() for parameter in net.parameters() if parameter.ndim == 2)
    assert matrix_elements(net.config.to_dict()) == counted
    check_folder(tmp_path)
