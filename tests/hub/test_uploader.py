"""Test pushes during training: the final model is on the Hub, and the run itself does not change."""

import json
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from hub_server import TOKENS

from tinygpt_hf import storage
from tinygpt_hf.hub import uploader
from tinygpt_hf.hub.push_pull import Sent
from tinygpt_hf.hub.retry import HubError
from tinygpt_hf.settings.arguments import TrainingArguments

pytest_plugins = ("hub_client",)

TRAIN = [
    "train", "--dataset_name", "toyland", "--max_train_samples", "100", "--tokenizer_type", "byte", "--block_size", "32",
    "--hidden_size", "32", "--num_hidden_layers", "2", "--num_attention_heads", "2", "--max_steps", "4", "--eval_steps", "2",
    "--save_steps", "2", "--per_device_train_batch_size", "4", "--mixed_precision", "no", "--device", "cpu",
    "--sample_tokens", "4",
]  # fmt: skip


def train(client, folder: Path, *words, **how):
    return client.run(*TRAIN, "--output_dir", folder, "--push_to_hub", "--hub_model_id", "alice/run", *words, **how)


def weights(folder: Path) -> str:
    return storage.file_hash(folder / "model.safetensors")


@pytest.fixture(scope="module")
def unpushed(machine, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unpushed"
    answer = machine.run(*TRAIN, "--output_dir", folder, token=None)
    assert answer.status == 0, answer.err
    return folder


def test_a_run_is_on_the_hub_when_it_ends_and_is_the_same_run(client, hub, unpushed, tmp_path):
    folder = tmp_path / "run"
    answer = train(client, folder, "--hub_private_repo")
    assert answer.status == 0 and f"pushed to {hub.endpoint}/alice/run\n" in answer.err, answer.err
    assert hub.repositories["models", "alice/run"].private
    for branch, place in (("main", folder), ("best", folder / "best")):
        files = hub.files("alice/run", branch)
        assert all(files[path.name] == path.read_bytes() for path in place.iterdir() if path.name in client.SENT)
        assert "config.json" in files and "log.jsonl" not in files
    assert weights(folder) == weights(unpushed) and weights(folder / "best") == weights(unpushed / "best")
    assert not list(folder.glob("tmp-*"))
    record = json.loads((folder / "hub.json").read_text())["pushed"]
    assert {name: entry["commit"] for name, entry in record.items()} == {
        f"alice/run@{branch}": hub.repositories["models", "alice/run"].branches[branch] for branch in ("main", "best")
    }


def test_a_hub_that_always_fails_does_not_harm_the_run(client, hub, unpushed, tmp_path):
    folder = tmp_path / "run"
    for method in ("POST", "PUT"):
        hub.fault(method, "/", status=503, times=10**6)
    answer = train(client, folder, "--hub_private_repo")
    assert answer.status == 0, answer.err
    notes = [line for line in answer.err.splitlines() if line.startswith("note: ")]
    assert len(notes) <= 3  # one while it trained, if that took long enough
    assert set(notes[-2:]) == {
        f"note: alice/run was not pushed: the Hub answers 503; the model is safe in {place}; "
        f"run `tinygpt push {place} --hub_model_id alice/run --private{where}`"
        for place, where in ((folder, ""), (folder / "best", " --revision best"))
    }
    assert weights(folder) == weights(unpushed) and not list(folder.glob("tmp-*"))
    hub.calm()
    assert client.push(folder, "--private", name="alice/run").status == 0  # the command of the line


@pytest.mark.parametrize(
    "words, token, line",
    [
        (["--push_to_hub", "--hub_model_id", "me/my model"], TOKENS["alice"], "--hub_model_id is 'me/my model'"),
        (["--push_to_hub"], TOKENS["alice"], "there is no --hub_model_id"),
        (["--push_to_hub", "--hub_model_id", "alice/run"], None, "you are not logged in to the Hub"),
        (["--hub_model_id", "alice/run"], TOKENS["alice"], "--hub_model_id is given without --push_to_hub"),
    ],
)
def test_a_push_that_cannot_work_is_refused_before_training(client, hub, tmp_path, words, token, line):
    answer = client.run(*TRAIN, "--output_dir", tmp_path / "run", *words, token=token)
    assert line in answer.failed(2)
    assert not (tmp_path / "run").exists() and hub.requests == []


# The thread


@pytest.fixture
def slow_hub(monkeypatch, model):
    """Return (Uploads, a list of (message, branch, weights' hash) per push, the gate where pushes wait, printed lines)."""
    sent, gate = [], threading.Semaphore(0)

    def send(upload, private, branch, message, say):
        gate.acquire()
        sent.append((message, branch, storage.file_hash(upload.files["model.safetensors"])))
        return Sent(upload.repository, "model", branch or "main", "0" * 40, "there")

    monkeypatch.setattr(uploader, "send", send)
    monkeypatch.setattr(uploader, "check_login", lambda: None)
    training = TrainingArguments(push_to_hub=True, hub_model_id="alice/run")
    said = []
    return uploader.Uploads(model, training, True, said.append), sent, gate, said


def change(model: Path, weight: bytes) -> str:
    """Replace the weights file as a run does; return the hash of the new one."""
    before = (model / "model.safetensors").read_bytes()
    storage.write_file(model / "model.safetensors", before[:-1] + weight)
    return weights(model)


def until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_newest_offer_is_pushed_as_it_was_when_offered(slow_hub, model):
    uploads, sent, gate, said = slow_hub
    (model / "best").mkdir()
    shutil.copy(model / "model.safetensors", model / "best")
    with uploads:
        offered = []
        for step in range(4):
            offered.append(change(model, bytes([step])))
            uploads.offer(model, f"Step {step}")
            if step == 0:
                until(lambda: not uploads._waiting)  # it is on its way: the others wait
        uploads.offer(model / "best", "Step 3", "best")
        assert sent == []  # the gate is shut: no offer waited for an upload
        last = change(model, b"z")
        for _ in range(4):
            gate.release()
        until(lambda: len(sent) == 3)
    best = weights(model / "best")
    assert sent == [
        ("Step 0", None, offered[0]),
        ("Step 3", None, offered[3]),
        ("Step 3", "best", best),
        ("End of the run", None, last),
    ]
    assert not list(model.glob("tmp-*"))


def test_a_run_that_fails_waits_for_no_upload_and_promises_none(slow_hub, model):
    uploads, sent, gate, said = slow_hub
    with pytest.raises(RuntimeError), uploads:
        uploads.offer(model, "Step 1")
        until(lambda: not uploads._waiting)  # it is on its way
        raise RuntimeError
    assert sent == [] and not list(model.glob("tmp-*"))  # the gate is shut: nothing was waited for
    gate.release()
    until(lambda: uploads._failures)  # its files are gone
    assert said == []


def test_what_failed_on_either_branch_is_pushed_at_the_end(slow_hub, model, monkeypatch):
    uploads, sent, gate, said = slow_hub
    push = uploader.send

    def send(upload, private, branch, message, say):
        if message.startswith("Step"):
            raise HubError("the Hub answers 503")
        return push(upload, private, branch, message, say)

    monkeypatch.setattr(uploader, "send", send)
    (model / "best").mkdir()
    shutil.copy(model / "model.safetensors", model / "best")
    with uploads:
        uploads.offer(model, "Step 1")
        uploads.offer(model / "best", "Step 1", "best")
        until(lambda: set(uploads._failures) == {"main", "best"})
        gate.release()
        gate.release()
    first, last = said
    assert re.fullmatch(
        "note: 'Step 1' was not pushed: the Hub answers 503; training goes on, and the end tries again", first
    )
    assert last == "pushed to there"
    assert {(message, branch) for message, branch, _ in sent} == {("End of the run", None), ("Best of the run", "best")}


def test_a_nearly_full_disk_gets_no_snapshot_until_the_end(slow_hub, model, monkeypatch):
    uploads, sent, gate, said = slow_hub
    monkeypatch.setattr(uploader.shutil, "disk_usage", lambda path: type("", (), {"free": 1000}))
    (model / "best").mkdir()
    shutil.copy(model / "model.safetensors", model / "best")
    with uploads:
        uploads.offer(model, "Step 1")
        uploads.offer(model / "best", "Step 1", "best")
        assert not uploads._waiting and not list(model.glob("tmp-*"))
        gate.release()
        gate.release()
    first, last = said
    assert first.startswith("note: 'Step 1' was not pushed: the disk has no room") and last == "pushed to there"
    assert [(message, branch) for message, branch, _ in sent] == [
        ("End of the run", None),
        ("Best of the run", "best"),
    ]
