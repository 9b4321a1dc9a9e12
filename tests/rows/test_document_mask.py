"""The document mask: positions restart with each document, and documents do not influence each other."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.errors import UsageError
from tinygpt_hf.model import conversion
from tinygpt_hf.rows.bestfit import BestFitRows
from tinygpt_hf.rows.store import IGNORED, Rows, RowWriter
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.training import recipe, step
from tinygpt_hf.training.log import read_log

V, END = 59, 0
DIALECTS = {
    "modern": {"num_key_value_heads": 2},
    "gpt2": conversion.DIALECTS["gpt2"] | {"hidden_act": "gelu_new"},
}


def make_model(dialect: str = "modern", attention: str = "sdpa", context: int = 1400):
    torch.manual_seed(0)
    config = TinyGPTConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=context,
        **DIALECTS[dialect],
    )  # fmt: skip
    return TinyGPTForCausalLM._from_config(config, attn_implementation=attention).eval()


def write(folder: Path, documents, masks=None) -> Path:
    with RowWriter(folder, V) as writer:
        for k, words in enumerate(documents):
            writer.add([*words, END], masks[k] if masks else None)
    return folder


def words(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, V, length).tolist()


def slow_positions(places, documents, chats, T) -> list[int]:
    """Compute the document of each target, one slot at a time."""
    owner = [k for k, length in enumerate(documents) for _ in range(length + 1)]
    firsts = {
        end - length
        for end, length in zip(itertools.accumulate(n + 1 for n in documents), (n + 1 for n in documents), strict=True)
    }
    found, before = [], None
    for place in places:
        if place < 0:
            found.append(0)
            continue
        behind = place + 1
        document = owner[behind]
        if behind in firsts and chats[document]:
            document -= 1  # the first id of a conversation is no target
        goes_on = before == (document, place - 1)
        found.append(found[-1] + 1 if goes_on else 0)
        before = (document, place)
    assert len(found) == T
    return found


@settings(max_examples=120, deadline=None)
@given(
    documents=st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=15),
    T=st.integers(1, 20),
    shift=st.integers(0, 20),
    bestfit=st.booleans(),
)
def test_positions_equal_a_slow_reference_implementation(tmp_path_factory, documents, T, shift, bestfit):
    lengths, chats = zip(*documents, strict=True)
    masks = [[k > 0 or not chat for k in range(length + 1)] for length, chat in documents]
    folder = write(tmp_path_factory.mktemp("rows") / "r", [words(length, 0) for length in lengths], masks)
    rows, offset = (BestFitRows(folder, T), 0) if bestfit else (Rows(folder), min(shift, T))
    every = range(rows.count(T, bool(offset)))
    found = rows.position_ids(every, T, offset)
    for places, positions in zip(rows.places(every, T, offset).tolist(), found.tolist(), strict=True):
        assert positions == slow_positions(places, lengths, chats, T)


@pytest.mark.parametrize("length", [30, 700])  # SDPA takes longer rows block by block
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_a_document_does_not_depend_on_the_one_before(tmp_path, dialect, attention, length):
    """Changing the first document leaves the logits of the other documents bit-equal, with and without padding."""
    model, T = make_model(dialect, attention), 2 * length

    def logits(seed: int, masked: bool = True):
        sizes = length, length - 8, length - 10, length // 2, length // 3
        documents = [words(size, seed if k in (0, 2) else k) for k, size in enumerate(sizes)]
        rows = BestFitRows(write(tmp_path / f"{seed}-{masked}", documents), T)
        every = range(rows.count(T))
        assert len(every) == 2
        ids, places = torch.from_numpy(rows.batch(every, T)[0]), rows.places(every, T)
        positions = torch.from_numpy(rows.position_ids(every, T)) if masked else None
        owner = np.repeat(np.arange(len(sizes)), np.array(sizes) + 1)[np.maximum(places + 1, 0)]
        return model(ids, position_ids=positions, use_cache=False).logits, np.where(places < 0, -1, owner)

    (one, owner), (other, _) = logits(10), logits(11)
    kept = torch.from_numpy(~np.isin(owner, (0, 2)))
    assert {1, 3, 4, -1} <= set(owner[kept.numpy()].tolist())  # every other document, and padding
    assert torch.equal(one[kept], other[kept])
    assert not torch.equal(one[~kept], other[~kept])
    unmasked = [logits(seed, masked=False)[0] for seed in (10, 11)]
    assert not torch.equal(unmasked[0][kept], unmasked[1][kept])


@pytest.mark.parametrize("packing", ["wrap", "bestfit"])
@torch.no_grad()
def test_a_packed_document_gives_the_logits_it_gives_alone(tmp_path, packing):
    model, documents = make_model(), [words(size, size) for size in (7, 12, 3, 25, 9)]
    folder, T = write(tmp_path / "r", documents), 16
    rows = Rows(folder) if packing == "wrap" else BestFitRows(folder, T)
    every = range(rows.count(T))
    ids, labels, positions = map(torch.from_numpy, (*rows.batch(every, T), rows.position_ids(every, T)))
    logits = model(ids, position_ids=positions, use_cache=False).logits
    pieces, nats = 0, 0.0
    for row, places in enumerate(rows.places(every, T)):
        begins = np.flatnonzero((positions[row].numpy() == 0) & (places >= 0)).tolist()
        for begin, end in zip(begins, [*begins[1:], int((places >= 0).sum())], strict=True):
            alone = model(ids[row : row + 1, begin:end], use_cache=False).logits[0]
            assert (logits[row, begin:end] - alone).abs().max() < 1e-5
            nats += float(torch.nn.functional.cross_entropy(alone, labels[row, begin:end], reduction="sum"))
            pieces += 1
    assert pieces > len(documents)
    loss = step.micro_batch_loss(model, (ids, labels, positions), rows.num_targets, "cpu")  # the training loss
    assert float(loss) == pytest.approx(nats / rows.num_targets, abs=1e-5)
    assert abs(float(step.micro_batch_loss(model, (ids, labels), rows.num_targets, "cpu")) - float(loss)) > 1e-4


# --- in a run

MODEL = ModelArguments(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
TOKENIZER = TokenizerArguments(tokenizer_type="byte")
DATA = DataArguments(block_size=64, validation_split_percentage=20, packing="bestfit", document_mask=True)
TRAINING = TrainingArguments(
    max_steps=6, per_device_train_batch_size=8, mixed_precision="no", device="cpu", logging_steps=1, eval_steps=0,
    save_steps=3, sample_tokens=0,
)  # fmt: skip


def run(folder: Path, data: DataArguments, **training):
    return recipe.train(
        MODEL, data, TOKENIZER, dataclasses.replace(TRAINING, output_dir=str(folder), **training), quiet=True
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> DataArguments:
    return dataclasses.replace(DATA, dataset_name="toyland", max_train_samples=80)


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> DataArguments:
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    talk = [
        {
            "messages": [
                {"role": "user", "content": f"what is {k}?"},
                {"role": "assistant", "content": f"{k}" * (k % 9 + 1)},
            ]
        }
        for k in range(100)
    ]
    path.write_text("\n".join(map(json.dumps, talk)))
    return dataclasses.replace(DATA, train_file=[str(path)])


def slow_loss(folder: Path, T: int) -> tuple[float, int]:
    """Compute the validation loss of each document alone, cut only if it is longer than a row."""
    model, rows = TinyGPTForCausalLM.from_pretrained(folder), Rows(folder / "rows" / "validation")
    nats, count = 0.0, 0
    for k in range(rows.num_documents):
        ids, bits = rows.document(k).tolist(), rows.targets(k).tolist()
        if bits[0] and k:
            ids, bits = [ids[-1], *ids], [False, *bits]  # the separator before it is the same id as the one at its end
        for begin in range(0, len(ids) - 1, T):
            part = torch.tensor(ids[begin : begin + T + 1], dtype=torch.long)
            with torch.no_grad():
                logs = model(part[None, :-1], use_cache=False).logits[0].double().log_softmax(-1)
            for t, target in enumerate(part[1:].tolist()):
                if bits[begin + t + 1]:
                    nats, count = nats - float(logs[t, target]), count + 1
    assert count == rows.num_targets
    return nats / count, count


@pytest.mark.parametrize("kind", ["text", "chats"])
def test_a_run_masks_other_documents(tmp_path, request, kind):
    data = request.getfixturevalue(kind)
    result = run(tmp_path / "run", data)
    assert result.eval_loss == pytest.approx(slow_loss(tmp_path / "run", data.block_size)[0], abs=1e-5)
    assert result.eval_loss < math.log(260) - 0.3  # the loss decreases


def test_an_interrupted_run_ends_as_an_uninterrupted_one_and_no_other_packing_goes_on(tmp_path, text, monkeypatch):
    run(tmp_path / "whole", text)
    real, calls = step.micro_batch_loss, []

    def stop_at_the_fifth(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(step, "micro_batch_loss", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", text)
    assert all(len(batch) == 3 for _, batch, *_ in calls)
    monkeypatch.undo()
    for change, message in (
        ({"packing": "wrap"}, "made with packing bestfit, now it is wrap"),
        ({"document_mask": False}, "made with document_mask True, now it is False"),
    ):
        with pytest.raises(UsageError, match=message):
            run(tmp_path / "cut", dataclasses.replace(text, **change))
    run(tmp_path / "cut", text)
    cut, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "whole"))
    assert cut == whole


def test_without_the_mask_a_loss_is_measured_over_the_whole_text_end_to_end(tmp_path, text):
    """The loss then compares with that of other runs."""
    result = run(tmp_path / "run", dataclasses.replace(text, document_mask=False), max_steps=1)
    rows = Rows(tmp_path / "run" / "rows" / "validation")
    model, nats = TinyGPTForCausalLM.from_pretrained(tmp_path / "run"), 0.0
    ids, labels = (torch.from_numpy(part) for part in rows.batch(range(rows.count(64)), 64))
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    assert result.eval_loss == pytest.approx(float(nats), abs=1e-5)
    assert [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl") if "loss" in line] == [1]
