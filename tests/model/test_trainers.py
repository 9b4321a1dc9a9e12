"""Other people's trainers on TinyGPT: transformers.Trainer, TRL and PEFT, and loading into less memory than the model needs.

Oracles: the stock model with the same weights in the same trainer, losses summed by hand, and the same run done otherwise.
"""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from test_model import DIALECTS, MODERN_DIALECT, V, both_dialects, differ, make_model, some_ids
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import set_seed
from trl import SFTConfig, SFTTrainer
from trl.chat_template_utils import (
    get_training_chat_template,
    is_chat_template_prefix_preserving,
    is_chat_template_stop_token_trained,
)

from tinygpt_hf.model.conversion import from_stock, to_stock
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.tokenizing.chat_template import encode_chat
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "training-elsewhere.md"
CODE_FILES = {"configuration_tinygpt.py", "modeling_tinygpt.py"}
EPSILON = 0.2
TALKS = [
    [("user", "Who found the ball?"), ("assistant", "Pip found it.")],
    [("system", "Be kind."), ("user", "Hi"), ("assistant", "Anna was happy."), ("user", "And?"), ("assistant", "Fun!")],
    [("user", "What did they do in the park?"), ("assistant", "They played until the sun went down.")],
]
CHATS = [{"messages": [{"role": role, "content": content} for role, content in talk]} for talk in TALKS]


def rows_of(number: int = 16, length: int = 12) -> list[dict]:
    """Return rows with different numbers of targets, so that a mean of means is not the mean."""
    rows = torch.randint(0, V, (number, length), generator=torch.Generator().manual_seed(1))
    labels = rows.clone()
    for k, row in enumerate(labels):
        row[: k % 4 * 3] = -100
    return [{"input_ids": ids, "labels": targets} for ids, targets in zip(rows, labels, strict=True)]


def as_trainer_sees(stock):
    # GPT2LMHeadModel's name hides from Trainer that its loss shifts: it would count the first token as a target
    stock.loss_type = "ForCausalLM"
    return stock


def trained(model, tmp_path, rows=None, **changes) -> Trainer:
    """Return a Trainer after four steps of SGD, in which rounding errors grow less than in Adam."""
    settings = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 0.1, "optim": "sgd"}
    settings |= {"lr_scheduler_type": "constant", "save_strategy": "no", "logging_steps": 1, "seed": 1}
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True}
    resume = changes.pop("resume_from_checkpoint", None)
    callbacks = changes.pop("callbacks", None)
    arguments = TrainingArguments(str(tmp_path / "run"), **settings | quiet | changes)
    trainer = Trainer(model, arguments, train_dataset=rows or rows_of(), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def summed_loss(model, rows: list[dict], smoothing: float = 0.0) -> tuple[float, int]:
    """Return (nats, number of targets), computed row by row, without padding or batches."""
    nats, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits = model(torch.as_tensor(row["input_ids"])[None]).logits[0, :-1]
            targets = torch.as_tensor(row["labels"])[1:]
            nats += F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing).item()
            count += (targets != -100).sum().item()
    return nats, count


# --- transformers.Trainer


@both_dialects
def test_accumulation_changes_nothing_and_the_stock_model_learns_the_same(dialect, tmp_path):
    together, apart, ours = (make_model(DIALECTS[dialect]) for _ in range(3))
    before = weights(together)
    stock = as_trainer_sees(to_stock(ours))
    first = trained(together, tmp_path)
    second = trained(apart, tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    third = trained(stock, tmp_path)
    assert differ(weights(together), before) > 1e-3
    assert differ(weights(together), weights(apart)) < 1e-6
    assert differ(weights(together), weights(from_stock(stock))) < 1e-6
    for other in (second, third):
        assert losses(first) == pytest.approx(losses(other), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, EPSILON])
@both_dialects
def test_the_loss_trainer_logs_is_the_one_summed_by_hand(dialect, smoothing, tmp_path):
    rows = rows_of()
    nats, count = summed_loss(make_model(DIALECTS[dialect]), rows, smoothing)
    options = {"max_steps": 1, "gradient_accumulation_steps": 4, "label_smoothing_factor": smoothing}
    stock = as_trainer_sees(to_stock(make_model(DIALECTS[dialect])))
    for model in (make_model(DIALECTS[dialect]), stock):
        assert losses(trained(model, tmp_path, rows, **options)) == pytest.approx([nats / count], rel=1e-5)


@both_dialects
def test_gradient_checkpointing_learns_the_same_bits(dialect, tmp_path):
    plain, saving = (make_model(DIALECTS[dialect] | {"hidden_dropout": 0.1}) for _ in range(2))
    calls = []
    saving.model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    one, two = trained(plain, tmp_path), trained(saving, tmp_path, activation_checkpointing=True)
    assert losses(one) == losses(two)
    assert torch.equal(weights(plain), weights(saving))
    assert len(calls) == 2 * 4  # each step computes the layer again


@both_dialects
def test_an_interrupted_run_ends_as_the_uninterrupted_one(dialect, tmp_path):
    class StopAfterTwo(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2

    dropout = {"hidden_dropout": 0.2, "attention_dropout": 0.1}  # the random state must come back too
    fields = DIALECTS[dialect] | dropout
    options = {"optim": "adamw_torch", "learning_rate": 0.01, "lr_scheduler_type": "linear"}
    straight, stopped, resumed = (make_model(fields) for _ in range(3))
    uninterrupted = trained(straight, tmp_path / "straight", **options)
    options |= {"save_strategy": "steps", "save_steps": 2}
    trained(stopped, tmp_path / "parts", callbacks=[StopAfterTwo()], **options)
    set_seed(99)
    for parameter in resumed.parameters():
        parameter.data.zero_()
    again = trained(resumed, tmp_path / "parts", resume_from_checkpoint=True, **options)
    assert not torch.equal(weights(stopped), weights(straight))
    assert torch.equal(weights(resumed), weights(straight))
    assert losses(again) == losses(uninterrupted)


@both_dialects
def test_evaluation_is_the_mean_over_rows_of_their_batches_loss(dialect, tmp_path):
    rows, model = rows_of(8), make_model(DIALECTS[dialect])
    expected = 0.0
    for start in (0, 3, 6):
        nats, count = summed_loss(model, rows[start : start + 3])
        expected += nats / count * len(rows[start : start + 3]) / len(rows)
    arguments = {"per_device_eval_batch_size": 3, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    for candidate in (model, as_trainer_sees(to_stock(model))):
        trainer = Trainer(candidate, TrainingArguments(str(tmp_path), **arguments), eval_dataset=rows)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
        predicted = torch.from_numpy(trainer.predict(rows).predictions)
        with torch.no_grad():
            assert differ(predicted, model(torch.stack([row["input_ids"] for row in rows])).logits) < 1e-5


def test_what_trainer_saves_is_a_complete_model_folder(tiny_tokenizer, tmp_path):
    model = make_model(MODERN_DIALECT | {"vocab_size": len(tiny_tokenizer)}, "sdpa")
    model.generation_config.eos_token_id = [0, tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")]
    options = {"max_steps": 1, "save_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    arguments = TrainingArguments(str(tmp_path), **options)
    trainer = Trainer(model, arguments, train_dataset=rows_of(4), processing_class=tiny_tokenizer)
    trainer.train()
    trainer.save_model()
    expected = model.eval()(some_ids()).logits
    for folder in (tmp_path, tmp_path / "checkpoint-1"):
        assert CODE_FILES < {path.name for path in folder.iterdir()}
        assert len(json.loads((folder / "config.json").read_text())["auto_map"]) == 6
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(loaded(some_ids()).logits, expected)
        assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id
        assert AutoTokenizer.from_pretrained(folder).chat_template == tiny_tokenizer.chat_template


# --- TRL


@pytest.fixture(scope="module")
def tokenizer(tiny_text):
    return train_tokenizer([tiny_text] * 3, "bpe", 320, max_length=64)


def sft(model, tokenizer, tmp_path, chats=CHATS, **changes) -> SFTTrainer:
    settings = {"max_steps": 2, "per_device_train_batch_size": len(chats), "learning_rate": 0.1, "optim": "sgd"}
    settings |= {"logging_steps": 1, "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    settings |= {"bf16": False}  # its default even here, where it costs time and digits
    arguments = SFTConfig(str(tmp_path / "sft"), **settings | changes)
    trainer = SFTTrainer(model, args=arguments, train_dataset=Dataset.from_list(chats), processing_class=tokenizer)
    trainer.train()
    return trainer


@pytest.mark.parametrize("assistant_only", [False, True])
@both_dialects
def test_sft_on_messages_learns_what_encode_chat_marks(dialect, assistant_only, tokenizer, tmp_path):
    fields = DIALECTS[dialect] | {"vocab_size": len(tokenizer), "n_positions": 128}
    rows = []
    for chat in CHATS:
        ids, mask = encode_chat(tokenizer, chat["messages"])
        labels = [token if learned or not assistant_only else -100 for token, learned in zip(ids, mask, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    nats, count = summed_loss(make_model(fields), rows)

    ours, stock = make_model(fields), as_trainer_sees(to_stock(make_model(fields)))
    one, two = (sft(model, tokenizer, tmp_path, assistant_only_loss=assistant_only) for model in (ours, stock))
    assert one.args.gradient_checkpointing and ours.is_activation_checkpointing  # its default
    assert [{name: row[name] for name in ("input_ids", "labels")} for row in one.train_dataset] == rows
    assert losses(one)[0] == pytest.approx(nats / count, rel=1e-5)
    assert losses(one) == pytest.approx(losses(two), rel=1e-5)
    assert differ(weights(ours), weights(from_stock(stock))) < 1e-6


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_the_template_is_one_trl_needs_not_replace(kind, tiny_text):
    tokenizer = train_tokenizer([tiny_text], kind, 320)
    assert get_training_chat_template(tokenizer) is None
    assert is_chat_template_prefix_preserving(tokenizer)
    assert is_chat_template_stop_token_trained(tokenizer)


def test_sft_on_prompts_and_completions_learns_the_completions(tokenizer, tmp_path):
    chats = [{"prompt": chat["messages"][:-1], "completion": chat["messages"][-1:]} for chat in CHATS]
    fields = MODERN_DIALECT | {"vocab_size": len(tokenizer), "n_positions": 128}
    trainer = sft(make_model(fields), tokenizer, tmp_path, chats)
    for row, chat in zip(trainer.train_dataset, CHATS, strict=True):
        assert row["input_ids"] == encode_chat(tokenizer, chat["messages"])[0]
        learned = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(learned) == chat["messages"][-1]["content"] + "<|im_end|>\n"


def test_packed_sft_keeps_conversations_apart(tokenizer, tmp_path):
    fields = MODERN_DIALECT | {"vocab_size": len(tokenizer), "n_positions": 1024}
    encoded = [encode_chat(tokenizer, chat["messages"])[0] for chat in CHATS]
    nats, count = summed_loss(make_model(fields), [{"input_ids": ids, "labels": ids} for ids in encoded])
    trainer = sft(make_model(fields, "sdpa"), tokenizer, tmp_path, packing=True, max_steps=1)
    assert len(trainer.train_dataset) == 1
    assert losses(trainer) == pytest.approx([nats / count], rel=1e-5)


# --- PEFT


@pytest.mark.parametrize(("dialect", "tied"), [("modern", False), ("gpt2", True)])
def test_lora_trains_saves_loads_and_merges(dialect, tied, tmp_path):
    make_model(DIALECTS[dialect] | {"tie_word_embeddings": tied}, "sdpa").save_pretrained(tmp_path / "base")

    def base():
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base")

    before, ids, results = base().state_dict(), some_ids(), []
    expected = base()(ids).logits
    for checkpointing in (False, True):
        torch.manual_seed(0)
        adapted = get_peft_model(base(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        assert torch.equal(adapted(ids).logits, expected)  # an adapter begins as nothing
        options = {"optim": "adamw_torch", "learning_rate": 0.01, "activation_checkpointing": checkpointing}
        results.append(losses(trained(adapted, tmp_path, **options)))
    assert results[0] == results[1] and results[0][0] != results[0][-1]
    assert not any("lm_head" in name for name in adapted.peft_config["default"].target_modules)
    for name, weight in adapted.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(weight, before[name.removeprefix("base_model.model.").replace(".base_layer", "")])
    learned = adapted.eval()(ids).logits
    assert differ(learned, expected) > 0.1

    adapted.save_pretrained(tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    again = PeftModel.from_pretrained(base(), tmp_path / "adapter").eval()
    assert torch.equal(again(ids).logits, learned)
    again.merge_and_unload().save_pretrained(tmp_path / "merged")
    assert CODE_FILES < {path.name for path in (tmp_path / "merged").iterdir()}
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert set(merged.state_dict()) == set(before) and differ(merged(ids).logits, learned) < 1e-5


# --- loading with less memory than the model needs


@pytest.mark.parametrize(("dialect", "tied"), [("modern", False), ("gpt2", True)])
@torch.no_grad()
def test_offloaded_models_compute_the_same_bits(dialect, tied, tmp_path):
    from accelerate import cpu_offload

    model, ids = make_model(DIALECTS[dialect] | {"tie_word_embeddings": tied}, "sdpa"), some_ids()
    greedy = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected, tokens = model(ids).logits, model.generate(ids, **greedy)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    positions = "model.embed_positions" if dialect == "gpt2" else "model.rotary_emb"
    on_cpu = dict.fromkeys(["model.embed_tokens", positions, "model.layers.0", "model.norm", "lm_head"], "cpu")
    ends_on_disk = {"model.embed_tokens": "disk", "lm_head": "disk", "model.layers.1": "cpu"}  # tied ones go together

    def load(**options):
        folder = str(tmp_path / "offloaded")
        options |= {"attn_implementation": "sdpa", "offload_folder": folder}
        return AutoModelForCausalLM.from_pretrained(tmp_path, **options)

    loaded = {
        "disk": load(device_map={"": "disk"}),
        "a layer on disk": load(device_map=on_cpu | {"model.layers.1": "disk"}),
        "embeddings on disk": load(device_map=on_cpu | ends_on_disk),
        "no room": load(device_map="auto", max_memory={"cpu": 1000}),
        "dispatched": cpu_offload(load(), execution_device=torch.device("cpu")),
    }
    for place, candidate in loaded.items():
        assert torch.equal(candidate(ids).logits, expected), place
        assert torch.equal(candidate.generate(ids, **greedy), tokens), place
        assert any(parameter.is_meta for parameter in candidate.parameters()), place


# --- the page


def test_every_block_of_the_page_runs(tiny_tokenizer, tiny_text, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    fields = MODERN_DIALECT | {"vocab_size": len(tiny_tokenizer), "n_positions": 256, "pad_token_id": 1}
    make_model(fields).save_pretrained("runs/quickstart")
    tiny_tokenizer.save_pretrained("runs/quickstart")
    Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    Path("my.txt").write_text(tiny_text)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), {})
    base = AutoModelForCausalLM.from_pretrained("runs/quickstart")
    adapted = AutoPeftModelForCausalLM.from_pretrained("runs/adapter")
    for folder in ("runs/chat-sft", "runs/merged", "runs/more-text"):
        model, tokenizer = load_model(folder, device="cpu")[:2]
        assert tokenizer.chat_template == tiny_tokenizer.chat_template
        assert differ(model(some_ids()).logits, base(some_ids()).logits) > 1e-4
    merged = AutoModelForCausalLM.from_pretrained("runs/merged")
    assert differ(merged(some_ids()).logits, adapted(some_ids()).logits) < 1e-5
