"""Continue training of a stock Qwen3, Llama or GPT-2 model by the command line, and export it to its architecture."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tinygpt_hf.cli import main
from tinygpt_hf.export import export
from tinygpt_hf.model.loading import load_weights_of
from tinygpt_hf.rows import build as packing
from tinygpt_hf.rows import order

BLOCK, BATCH, SEED = 32, 4, 5
TEXT = "One day a small dog named Pip found 123 red balls in the park.\nIt's fun, Anna said. Naïve 四!\n"


def trained(specials: list[str], pre_tokenizer, normalizer=None) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        core.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([TEXT] * 3, trainer)
    return core


def vocabulary(core: Tokenizer) -> dict:
    made = json.loads(core.to_str())["model"]
    return {"vocab": made["vocab"], "merges": [tuple(pair) for pair in made["merges"]]}


def gpt2():
    """Make a GPT-2 model with its tokenizer class: one token for BOS, EOS and UNK, no padding token."""
    tokenizer = GPT2Tokenizer(
        **vocabulary(trained(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False)))
    )
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=4, n_positions=64)
    end = tokenizer.eos_token_id
    config.update({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": end, "eos_token_id": end})
    return GPT2LMHeadModel(config), tokenizer


def llama():
    """Make a Llama model like SmolLM2: grouped-query attention, tied, larger rope_theta, single digits, chat BOS and EOS."""
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    core = trained(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.Sequence(splits))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<|endoftext|>", **names)
    config = LlamaConfig(
        vocab_size=384,  # larger than the tokenizer
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 100000.0, "rope_type": "default"},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config), tokenizer


def qwen3():
    """Make a Qwen3 model with its tokenizer class, untied, with heads wider than the model."""
    core = trained(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    tokenizer = Qwen2Tokenizer(**vocabulary(core))
    config = Qwen3Config(
        vocab_size=len(tokenizer) + 3,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"},
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen3ForCausalLM(config), tokenizer


STOCK = {"qwen3": qwen3, "llama": llama, "gpt2": gpt2}


@pytest.fixture(scope="module", params=STOCK)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def home(kind, tmp_path_factory):
    """Save a stock model in `stock`, and train two steps from it in `run` by the command line."""
    home = tmp_path_factory.mktemp(kind)
    torch.manual_seed(3)
    model, tokenizer = STOCK[kind]()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(home / "stock")
    tokenizer.save_pretrained(home / "stock")
    (home / "text.txt").write_text(TEXT * 40)
    words = f"--model_name_or_path {home / 'stock'} --train_file {home / 'text.txt'} --output_dir {home / 'run'}"
    words += f" --block_size {BLOCK} --per_device_train_batch_size {BATCH} --seed {SEED} --max_steps 2 --device cpu"
    words += " --mixed_precision no --validation_split tail --shift_rows false --sample_tokens 0 --logging_steps 1"
    assert main(["train", *words.split()]) == 0
    return home


def log(home) -> list[dict]:
    return [json.loads(line) for line in (home / "run" / "log.jsonl").read_text().splitlines()]


def test_the_first_loss_equals_that_of_the_stock_model(home):
    rows = packing.open_rows(home / "run" / "rows").train
    _, indices = order.rows_at(range(BATCH), rows.count(BLOCK), SEED)
    ids, labels = (torch.from_numpy(part) for part in rows.batch(indices, BLOCK))
    stock = AutoModelForCausalLM.from_pretrained(home / "stock").eval()
    with torch.no_grad():
        logits = stock(input_ids=ids).logits
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).item()
    first = next(line["loss"] for line in log(home) if line["step"] == 1 and "loss" in line)
    assert abs(first - loss) < 1e-5


def test_the_run_is_a_tinygpt_model_with_the_stock_tokenizer_and_special_tokens(home, kind):
    run, stock = AutoModelForCausalLM.from_pretrained(home / "run"), STOCK[kind]()[0]
    assert type(run).__name__ == "TinyGPTForCausalLM" and run.config.vocab_size == stock.config.vocab_size
    assert run.num_parameters() == stock.num_parameters()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(run.config, name) == getattr(stock.config, name)
    one, two = (AutoTokenizer.from_pretrained(home / folder) for folder in ("stock", "run"))
    assert one(TEXT)["input_ids"] == two(TEXT)["input_ids"] and one.eos_token == two.eos_token
    assert two.model_max_length == 64


def test_export_restores_the_stock_architecture(home, kind, capsys, monkeypatch):
    if kind != "llama":  # the proof takes seconds; test_export.py runs it for every kind
        monkeypatch.setattr(export, "_prove", lambda command, report: None)
    assert main(["export", str(home / "run"), "--to", kind]) == 0
    assert kind != "llama" or "proved in a process without tinygpt_hf" in capsys.readouterr().out
    back = home / "run" / "exports" / kind
    before, after = load_file(home / "stock" / "model.safetensors"), load_file(back / "model.safetensors")
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert {n for n in before if before[n].ndim == 2} <= set(changed)
    same = (
        "model_type",
        "architectures",
        "vocab_size",
        "tie_word_embeddings",
        "rope_parameters",
        "num_key_value_heads",
    )
    one, two = (json.loads((folder / "config.json").read_text()) for folder in (home / "stock", back))
    assert [one.get(name) for name in same] == [two.get(name) for name in same]
    assert "auto_map" not in two and not list(back.glob("*.py"))


def test_incomplete_stock_weights_are_an_error(home, kind, tmp_path, capsys):
    model, tokenizer = STOCK[kind]()
    tokenizer.save_pretrained(tmp_path / "half")
    model.base_model.save_pretrained(tmp_path / "half")
    state = load_file(tmp_path / "half" / "model.safetensors")
    from safetensors.torch import save_file

    state.pop(next(name for name in state if "0" in name))
    save_file(state, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    words = [
        "--model_name_or_path",
        str(tmp_path / "half"),
        "--train_file",
        str(home / "text.txt"),
        "--block_size",
        "32",
        "--max_steps",
        "1",
    ]
    assert main(["train", *words, "--output_dir", str(tmp_path / "run"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "weights" in error
    assert not (tmp_path / "run").exists()


def test_a_stock_folder_without_a_tokenizer_is_an_error(home, kind, tmp_path, capsys):
    STOCK[kind]()[0].save_pretrained(tmp_path / "bare")
    words = f"--model_name_or_path {tmp_path / 'bare'} --train_file {home / 'text.txt'} --block_size 32 --max_steps 1"
    assert main(["train", *words.split(), "--output_dir", str(tmp_path / "run"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "it holds no tokenizer.json" in error and not (tmp_path / "run").exists()


def test_an_unsupported_architecture_is_an_error_before_the_text_is_read(tmp_path, capsys):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "neox")
    words = [
        "--model_name_or_path",
        str(tmp_path / "neox"),
        "--train_file",
        "/nowhere.txt",
        "--block_size",
        "32",
        "--max_steps",
        "1",
    ]
    assert main(["train", *words, "--tokenizer_type", "byte", "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "gpt_neox" in error and "tinygpt, qwen3, llama, gpt2" in error


def test_training_is_in_float32_for_any_saved_dtype(tmp_path):
    model, _ = llama()
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_weights_of(str(tmp_path)).parameters()} == {torch.float32}
