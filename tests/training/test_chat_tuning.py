"""Chat tuning: the result stops talking by itself; every end of turn is learned; bases without a chat format are given one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_configs import CONFIGS, FROM_A_BASE, read
from test_continue_stock import gpt2, llama
from test_recipe import losses
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tinygpt_hf.commands import TRAINING
from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.conversion import from_stock
from tinygpt_hf.model.loading import build_model, load_model
from tinygpt_hf.reading import sources
from tinygpt_hf.rows.batches import StepBatches
from tinygpt_hf.rows.build import open_rows
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.tokenizing.chat_template import CHAT_TEMPLATE, control_tokens, encode_chat
from tinygpt_hf.training import recipe

NAMES = "Pip Anna Tom Lily Max Rosa".split()
THINGS = {"dog": "a small brown dog", "ball": "a round red ball", "hat": "a warm blue hat", "tree": "a tall old tree"}
TALKS = [
    [(f"What does {name} have?", f"{name} has {words}."), (f"Is it a {thing}?", "Yes.")][: 1 + number % 2]
    for number, (name, (thing, words)) in enumerate((name, pair) for name in NAMES for pair in THINGS.items())
]
CHATS = [
    {"messages": [{"role": role, "content": turn[k]} for turn in talk for k, role in enumerate(("user", "assistant"))]}
    for talk in TALKS
]
PROMPTS = [[{"role": "user", "content": question}] for question in sorted({talk[0][0] for talk in TALKS})]
LONGEST = 24  # the longest answer is half of it


def train(folder: Path, model=None, data=None, tokenizer=None, quiet=True, **training):
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = {"per_device_train_batch_size": 8, "device": "cpu", "mixed_precision": "no", "learning_rate": 0.01}
    settings |= {"eval_steps": 0, "save_steps": 0, "sample_tokens": 4, "warmup_steps": 5, "logging_steps": 1}
    return recipe.train(
        ModelArguments(**(model or shape)),
        DataArguments(**{"block_size": 64, "validation_split_percentage": 10, "validation_split": "hash", **data}),
        tokenizer or TokenizerArguments(),
        TrainingArguments(output_dir=str(folder), **{**settings, **training}),
        quiet=quiet,
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """chats.jsonl, and text.jsonl: the same sentences, without anybody talking."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in CHATS * 4))
    said = [" ".join(sentence for turn in talk for sentence in turn) for talk in TALKS]
    texts = [{"text": " ".join(said[k:] + said[:k])} for k in range(40)]
    (folder / "text.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def base(material) -> Path:
    """A model that has read text only."""
    data = {"train_file": [str(material / "text.jsonl")]}
    train(material / "base", None, data, TokenizerArguments(vocab_size=340), max_steps=60)
    return material / "base"


def stop_rate(folder: Path, **sampling) -> float:
    """How many answers end by the end of turn before they are cut off, with plain `generate` of Transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    stopped = []
    torch.manual_seed(0)
    for prompt in PROMPTS * (5 if sampling["do_sample"] else 1):
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        answer = model.generate(**ids, max_new_tokens=LONGEST, **sampling)[0, ids["input_ids"].shape[1] :].tolist()
        stopped.append(answer[-1] == end and end not in answer[:-1])
    return sum(stopped) / len(stopped)


@pytest.mark.parametrize("lora", [{}, {"lora_r": 8, "learning_rate": 0.02}], ids=["all weights", "lora"])
def test_a_tuned_model_ends_its_turns_and_the_base_does_not(base, material, tmp_path, lora):
    data = {"train_file": [str(material / "chats.jsonl")]}
    train(tmp_path / "chat", {"model_name_or_path": str(base)}, data, max_steps=60, **lora)
    for sampling in ({"do_sample": False}, {"do_sample": True, "temperature": 1.0, "top_k": 50}):
        rates = [stop_rate(folder, **sampling) for folder in (base, tmp_path / "chat")]
        assert rates[0] < 0.5 and rates[1] >= 0.95


def test_every_end_of_turn_is_trained_on_once_per_epoch(base, material, tmp_path):
    block_size = 64  # no conversation is longer
    data = {"train_file": [str(material / "chats.jsonl")], "block_size": block_size}
    train(tmp_path / "r", {"model_name_or_path": str(base)}, data, max_steps=1)
    rows, tokenizer = open_rows(tmp_path / "r" / "rows").train, AutoTokenizer.from_pretrained(tmp_path / "r")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    turns = sum(int((rows.document(k)[rows.targets(k)] == end).sum()) for k in range(rows.num_documents))
    assert turns > rows.num_documents  # one for every turn of the assistant, none for those of the user
    batches = StepBatches(RowView(rows, block_size, True, seed=1), 8, 8 * 200)
    epoch, seen = rows.count(block_size, True), 0
    found = [labels for step in range(200) for batch in [batches.at(step, 8)[0]] for _, labels in batch]
    for row in torch.cat(found)[:epoch]:
        seen += int((row == end).sum())
    assert seen == turns


def test_a_base_without_turn_tokens_gets_them(material, tmp_path, capsys):
    """GPT-2 as its tokenizer comes: no template, no tokens for turns."""
    (model, tokenizer), folder = gpt2(), tmp_path / "gpt2"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    known, old = len(tokenizer), model.transformer.wte.weight.detach()
    named = {"model_name_or_path": str(folder)}
    files = {name: [str(material / f"{name}.jsonl")] for name in ("text", "chats")}
    mixed = {"sources": [{"train_file": file} for file in files.values()], "block_size": 32}
    chats, text = ({"train_file": files[name], "block_size": 32} for name in ("chats", "text"))
    train(tmp_path / "mixed", named, mixed, max_steps=1)
    train(tmp_path / "r", named, chats, max_steps=4, save_steps=2, quiet=False)
    assert "has no chat template: it is given ChatML; new tokens: <|im_start|>, <|im_end|>" in capsys.readouterr().err
    for place in (tmp_path / "r", tmp_path / "mixed"):
        tuned, own = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
        start, end = own.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
        assert len(own) == tuned.config.vocab_size == known + 2 and {start, end} == {known, known + 1}
        assert own.chat_template == CHAT_TEMPLATE
        assert tuned.generation_config.eos_token_id == [tokenizer.eos_token_id, end]
        assert encode_chat(own, CHATS[0]["messages"])[0][0] == start

    fresh = AutoTokenizer.from_pretrained(tmp_path / "r")
    begun = build_model(ModelArguments(**named), DataArguments(block_size=32), fresh, 0, [known, known + 1])
    rows = begun.get_input_embeddings().weight.detach()
    assert torch.allclose(rows[:known], old) and torch.allclose(rows[known:], old.mean(0).expand(2, -1), atol=1e-6)

    # the same command once more, and with text alone: nothing is added to a tokenizer that will not talk
    train(tmp_path / "r", named, chats, max_steps=6)
    assert sorted(losses(tmp_path / "r")) == [1, 2, 3, 4, 5, 6]
    train(tmp_path / "text", named, text, max_steps=1)
    plain = AutoTokenizer.from_pretrained(tmp_path / "text")
    assert len(plain) == known and plain.chat_template is None


def test_lora_trains_the_embeddings_of_new_turn_tokens(material, tmp_path):
    (model, tokenizer), folder = gpt2(), tmp_path / "gpt2"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = {"train_file": [str(material / "chats.jsonl")], "block_size": 32}
    train(tmp_path / "r", {"model_name_or_path": str(folder)}, data, max_steps=3, lora_r=4)
    tuned, plain = AutoModelForCausalLM.from_pretrained(tmp_path / "r"), from_stock(model)
    saved = load_file(tmp_path / "r" / "model.safetensors")
    assert saved.keys() == plain.state_dict().keys() - {"lm_head.weight"}  # the library would make up what is missing
    rows, known = tuned.get_input_embeddings().weight.detach(), len(tokenizer)
    assert torch.equal(rows[:known], model.transformer.wte.weight.detach())
    assert (rows[known:] - rows[:known].mean(0)).abs().min(dim=1).values.max() > 1e-4


def test_the_end_of_turn_token_of_another_template_ends_generation(material, tmp_path):
    (model, tokenizer), folder = llama(), tmp_path / "llama"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "</turn>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<turn>' + m['role'] + ':' + m['content'] + '</turn>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant:' }}{% endif %}"
    )
    model.resize_token_embeddings(384)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    control, end = control_tokens(tokenizer)
    assert tokenizer.convert_ids_to_tokens(control) == ["<turn>", "</turn>"] and end == control[1]
    data = {"train_file": [str(material / "chats.jsonl")], "block_size": 32}
    train(tmp_path / "r", {"model_name_or_path": str(folder)}, data, max_steps=1)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "r").generation_config.eos_token_id == [2, end]
    assert AutoTokenizer.from_pretrained(tmp_path / "r").chat_template == tokenizer.chat_template


@pytest.mark.parametrize(
    "roles,message",
    [
        (["user"], "no token of the train data may be learned (expected assistant turns). Check the messages"),
        (["user", "user", "assistant"], "line 1: message 2 has the role 'user' where 'assistant' is due"),
        (["assistant", "user"], "line 1: message 1 has the role 'assistant' where 'user' is due"),
        (["user", "system", "assistant"], "line 1: message 2 has the role 'system' where 'assistant' is due"),
    ],
)
def test_conversations_without_targets_are_an_error_and_leave_no_files(base, tmp_path, roles, message):
    chats = [{"messages": [{"role": role, "content": f"Pip has {k} balls."} for role in roles]} for k in range(90)]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    data = {"train_file": [str(tmp_path / "bad.jsonl")]}
    with pytest.raises(UsageError) as error:
        train(tmp_path / "r", {"model_name_or_path": str(base)}, data, max_steps=1)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_toyland_is_text_or_dialogues_or_both():
    def documents(name: str | None) -> list[dict]:
        return list(sources.documents(sources.Source(dataset_name="toyland", dataset_config_name=name, max_samples=90)))

    text, talks, both = (documents(name) for name in ("text", "dialogues", None))
    assert len(text) == len(talks) == len(both) == 90
    assert all("text" in document for document in text) and all("messages" in document for document in talks)
    assert [d for d in both if "text" in d] == text[: sum("text" in d for d in both)]
    assert [d for d in both if "messages" in d] == talks[: sum("messages" in d for d in both)]
    with pytest.raises(UsageError, match="toyland has no configuration 'talks' .*text or dialogues"):
        documents("talks")


@pytest.mark.parametrize("name", FROM_A_BASE)
def test_the_configuration_trains_two_steps(name, base, tmp_path, monkeypatch):
    config = next(path for path in CONFIGS if path.stem == name)
    flags = ["--output_dir", str(tmp_path / "r"), "--max_steps", "2", "--per_device_train_batch_size", "2"]
    flags += ["--device", "cpu", "--block_size", "32", "--sample_tokens", "2", "--gradient_accumulation_steps", "1"]
    settings = read(config, *flags, *([] if name == "chat-toyland" else ["--no_gradient_checkpointing"]))
    check_settings(*(read(config, "--output_dir", "x")[group] for group in TRAINING))
    model, data, training = (settings[group] for group in (ModelArguments, DataArguments, TrainingArguments))
    training.num_train_epochs, data.validation_split_percentage, asked = None, 10, []
    wanted = {"chat-toyland": "runs/toyland-text", "chat-hub": "HuggingFaceTB/SmolLM2-135M"}
    assert model.model_name_or_path == wanted[name]
    if name == "chat-toyland":
        assert f"--output_dir {wanted[name]}" in config.read_text()
        model.model_name_or_path, data.max_train_samples = str(base), 200
    else:  # SmolLM2 in small, and rows as the Hub serves them
        import datasets

        small, tokenizer = llama()
        small.save_pretrained(tmp_path / "smol")
        tokenizer.save_pretrained(tmp_path / "smol")
        model.model_name_or_path = str(tmp_path / "smol")
        rows = datasets.Dataset.from_list([{**chat, "source": "a part"} for chat in CHATS * 4])

        def load_dataset(name, config_name, split, revision, streaming):
            asked.append((name, config_name, streaming))
            return rows.to_iterable_dataset()

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert recipe.train(*(settings[group] for group in TRAINING), quiet=True).steps == 2
    assert set(asked) == (set() if name == "chat-toyland" else {("HuggingFaceTB/smol-smoltalk", None, False)})
    tuned, tokenizer = load_model(str(tmp_path / "r"), device="cpu")[:2]
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in torch.tensor(tuned.generation_config.eos_token_id).view(-1)
