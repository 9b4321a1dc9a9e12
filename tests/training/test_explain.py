"""`train --explain`: the printed targets, loss and modules, and the logged update ratios are the true ones."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from tinygpt_hf import (
    DataArguments,
    ModelArguments,
    TinyGPTConfig,
    TinyGPTForCausalLM,
    TokenizerArguments,
    TrainingArguments,
    train,
)
from tinygpt_hf.rows.store import IGNORED
from tinygpt_hf.training import explain
from tinygpt_hf.training.screen import as_table

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_explain_prints_the_first_batch_with_targets_and_loss(tiny_tokenizer, tiny_text):
    torch.manual_seed(0)
    model = TinyGPTForCausalLM(TinyGPTConfig(vocab_size=len(tiny_tokenizer), **SHAPE))
    ids = torch.tensor([tiny_tokenizer(tiny_text)["input_ids"][:31]])
    labels = ids[:, 1:].clone()
    labels[:, :5] = IGNORED
    batch = ids[:, :-1].repeat(2, 1), labels.repeat(2, 1)
    steps = SimpleNamespace(at=lambda step, size: ([batch], 50))
    run = SimpleNamespace(
        steps=steps, state=SimpleNamespace(step=0, micro_batch=2), data=SimpleNamespace(block_size=30), raw=model,
        tokenizer=tiny_tokenizer,
    )  # fmt: skip
    first, row, reads, learns, _, *table = explain.first_batch_lines(run)
    assert first == "a step: 2 rows of 30 tokens in 1 micro-batch(es) on this process, 50 targets in all"
    loss = model(ids[:, :-1], labels=labels, shift_labels=labels).loss.item()
    assert f"25 targets, loss {loss:.4f} nats per token" in row
    decode = tiny_tokenizer.decode
    assert decode(ids[0, :-1]).replace("\n", "↵") in reads
    plain = "".join(c for c in learns.split("learns   ")[1] if c not in "₀₁₂₃₄₅₆₇₈₉")
    assert plain == decode(ids[0, 6:]).replace("\n", "↵")

    rows = {line[:36].strip(): line[36:].split() for line in table[1:]}
    assert rows["all"][1] == f"{model.num_parameters():,}"
    attention = sum(p.numel() for p in model.model.layers[0].self_attn.parameters() if p.ndim == 2)
    work = 3 * 60 * 2 * (2 * attention + 2 * 30 * 32)  # forward and twice backward, tokens, layers, FLOP per token
    assert rows["a layer's self_attn"][0] == "2" and rows["a layer's self_attn"][2] == f"{work / 1e9:.2f}"


@pytest.mark.parametrize("max_grad_norm", [0.05, 0.0])
def test_explain_logs_gradient_norm_and_update_ratio_by_module(tmp_path, max_grad_norm):
    shape = SHAPE | {"hidden_dropout": 0.1}
    folder = tmp_path / "r"
    train(
        ModelArguments(**shape),
        DataArguments(dataset_name="toyland", max_train_samples=120, block_size=64, validation_split_percentage=10),
        TokenizerArguments(tokenizer_type="byte"),
        TrainingArguments(
            str(folder), max_steps=5, logging_steps=2, eval_steps=0, sample_tokens=0, device="cpu", explain=True,
            max_grad_norm=max_grad_norm, keep_snapshots=5,
        ),
        quiet=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "log.jsonl").open()]
    told = {line["step"]: line["modules"] for line in lines if "modules" in line}
    assert list(told) == [2, 4, 5] == [line["step"] for line in lines if "loss" in line]
    for line in lines:
        if "modules" in line:
            norms = [module["grad_norm"] for module in line["modules"].values()]
            assert math.hypot(*norms) == pytest.approx(line["grad_norm"], rel=1e-3)
    before, after = (TinyGPTForCausalLM.from_pretrained(folder / f"snapshots/step-{step}") for step in (1, 2))
    old, new = before.model.embed_tokens.weight, after.model.embed_tokens.weight
    assert told[2]["embed_tokens"]["update_ratio"] == pytest.approx(((new - old).norm() / old.norm()).item(), rel=1e-3)


SAMPLE = "    Once there was | a cat that sat on a mat"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("model: 2.56M parameters", "model      2.56M parameters"),
        ("to beat, in nats per token: uniform 7.6", "to beat    uniform 7.6"),
        ("rows: kept 10 tokens of 33 documents", "text       kept 10 tokens of 33\n           documents"),
        ("step 40: validation loss 4.1", "step 40    validation loss 4.1"),
        (SAMPLE, "    │ Once there was | a cat that sat on\n    │ a mat"),
        ("  self_attn      2  33,024", "  self_attn      2  33,024"),
        ("done: 60 steps", "done       60 steps"),
        ("ends after 8m; to change the length: --time_budget, --x", "ends after 8m; to change the length:\n--time_budget, --x"),
    ],
)  # fmt: skip
def test_terminal_lines_become_table_rows(line, shown):
    assert as_table(line, 40, color=False) == shown
    colored = as_table(line, 40, color=True)
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m"):
        colored = colored.replace(code, "")
    assert colored == shown
