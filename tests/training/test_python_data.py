"""train(), plan() and evaluate() on text held in Python: same results as from a file, and after a kill."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

import tinygpt_hf
from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.errors import UsageError

TEXTS = [f"The {k % 7} dogs of street {k} ran to the park and played with ball {k % 11}.\n" for k in range(120)]
CHATS = [
    [{"role": "user", "content": f"Who are {k}?"}, {"role": "assistant", "content": text}]
    for k, text in enumerate(TEXTS)
]
MODEL = ModelArguments(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, hidden_dropout=0.1)
OPTIONS = {"mixed_precision": "no", "device": "cpu", "sample_tokens": 0, "per_device_train_batch_size": 4}


def train(folder: Path, data, **options):
    training = TrainingArguments(output_dir=str(folder), max_steps=3, **OPTIONS, **options)
    return tinygpt_hf.train(MODEL, data, TokenizerArguments(tokenizer_type="byte"), training, quiet=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_text_in_python_trains_the_same_model_as_a_file(tmp_path):
    lines, saved = tmp_path / "t.jsonl", tmp_path / "on the disk"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    rows = Dataset.from_dict({"text": TEXTS})
    rows.save_to_disk(saved)
    options = {"block_size": 32}
    train(tmp_path / "file", DataArguments(train_file=[str(lines)], **options))
    of_file = weights(tmp_path / "file")
    for name, text in {"dataset": rows, "rows": [{"text": text} for text in TEXTS], "saved": saved}.items():
        train(tmp_path / name, DataArguments(train_file=text, **options))
        assert equal(weights(tmp_path / name), of_file), name
    record = json.loads((tmp_path / "dataset" / "run.json").read_text())
    assert record["text"]["sources"][0]["dataset_name"] == "python:Dataset of 120 rows"
    assert "python:Dataset of 120 rows" in (tmp_path / "dataset" / "run.yaml").read_text()


def test_a_list_of_texts_is_planned_trained_and_evaluated(tmp_path):
    training = TrainingArguments(num_train_epochs=1, **OPTIONS)
    planned = tinygpt_hf.plan(MODEL, TEXTS, TokenizerArguments(tokenizer_type="byte"), training)
    assert planned.epochs == pytest.approx(1, rel=0.1)
    result = train(tmp_path / "run", TEXTS)
    assert train(tmp_path / "run", TEXTS).already_finished and result.steps == 3
    with pytest.raises(UsageError) as caught:
        train(tmp_path / "run", TEXTS[1:])
    assert "other sources (" in str(caught.value)
    for count in (119, 120):  # new and old
        assert f"python:list of {count} texts " in str(caught.value)


def test_a_text_of_a_hundred_characters_trains_or_is_an_error_with_numbers(tmp_path, capsys):
    text = tmp_path / "t.txt"
    text.write_text(TEXTS[0] + TEXTS[1][: 100 - len(TEXTS[0])])
    training = TrainingArguments(output_dir=str(tmp_path / "run"), max_steps=2, **OPTIONS)
    bytewise = TokenizerArguments(tokenizer_type="byte")
    with pytest.raises(UsageError, match="training text has 96 tokens .expected at least 257 for one row"):
        tinygpt_hf.train(MODEL, text, bytewise, training)
    tinygpt_hf.train(MODEL, DataArguments(train_file=text, block_size=16), bytewise, training)
    assert "None" not in capsys.readouterr().err
    text.write_text("a")
    training.overwrite = True
    with pytest.raises(UsageError, match="all 1 characters of the text are held out"):
        tinygpt_hf.train(MODEL, text, bytewise, training)


def test_evaluate_accepts_documents_and_measures_answers_of_conversations(tmp_path):
    train(tmp_path / "run", CHATS)
    found = tinygpt_hf.evaluate(tmp_path / "run", CHATS[:5])
    rows = tinygpt_hf.evaluate(tmp_path / "run", Dataset.from_dict({"messages": CHATS[:5]}))
    names = [measured.pop("data") for each in (rows, found) for measured in (each, *each["models"])]
    assert rows == found and names[-2:] == ["python:list of 5 conversations"] * 2
    answers = sum(len(chat[1]["content"].encode()) for chat in CHATS[:5])
    assert found["bytes"] == answers and found["tokens"] == answers + 5  # one end-of-turn token per answer
    texts = tinygpt_hf.evaluate(tmp_path / "run", TEXTS[:5])
    assert texts["tokens"] == texts["bytes"] + 5 == sum(map(len, TEXTS[:5])) - 1 + 5
    assert texts["loss"] > 0 and "xz_bits_per_byte" in texts


# Forks a process for each attempt, so that libraries are imported once; prints the exit statuses by kind.
PROGRAM = """
import json, os, signal, sys, traceback
import torch
from datasets import IterableDataset
import tinygpt_hf
from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.reading import sources
from tinygpt_hf.rows import stream
from tinygpt_hf.training.run import Run

torch.set_num_threads(1)
sources.NOTED_EVERY, stream.WINDOW_TOKENS, opened = 10, 2048, []
log_step = Run.log_step

def rows(shards):
    for shard in shards:
        opened.append(shard)
        for k in range(25):
            yield {"text": f"Shard {shard} tells of dog {k} and ball {k * shard % 7} in the park."}

def train(folder, kind, kill_at):
    def logged(run):
        log_step(run)
        if run.state.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    data = IterableDataset.from_generator(rows, gen_kwargs={"shards": list(range(40))})
    if kind == "shuffled":
        data = data.shuffle(seed=5, buffer_size=50)
    if kind == "list":
        data = [{"text": row["text"]} for row in data]
    Run.log_step = logged
    opened.clear()
    tinygpt_hf.train(
        ModelArguments(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, hidden_dropout=0.1),
        DataArguments(train_file=data, block_size=32),
        TokenizerArguments(tokenizer_type="byte"),
        TrainingArguments(output_dir=folder, max_steps=40, save_steps=10, eval_steps=20, logging_steps=1, sample_tokens=0,
            per_device_train_batch_size=8, mixed_precision="no", device="cpu"),
        quiet=True,
    )
    with open(folder + "/opened.json", "w") as file:
        json.dump(sorted(set(opened)), file)

def attempt(*words):
    process = os.fork()
    if process == 0:
        try:
            train(*words)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

ends = {}
for kind in ("stream", "shuffled", "list"):
    kills = (12, 30) if kind == "stream" else (12,)
    attempts = [("whole", 0), *(("killed", step) for step in kills), ("killed", 0)]
    ends[kind] = [attempt(f"{sys.argv[1]}/{kind}-{name}", kind, step) for name, step in attempts]
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """Return (folder, statuses by kind) of an uninterrupted run and of one that is killed and resumed in new processes."""
    folder = tmp_path_factory.mktemp("attempts")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("kind", ["stream", "shuffled", "list"])
def test_a_killed_run_resumes_in_a_new_process_to_the_same_weights(attempts, kind):
    folder, statuses, said = attempts
    kills = 2 if kind == "stream" else 1  # the second kill tests a stream that was itself resumed
    assert statuses[kind] == [0, *kills * [-9], 0], said
    assert equal(weights(folder / f"{kind}-killed"), weights(folder / f"{kind}-whole"))
    if kind == "stream":  # its first documents identify it; those read before the kill are skipped
        again = json.loads((folder / "stream-killed" / "opened.json").read_text())
        assert again[-1] > 7 and not set(range(4, 8)) & set(again), again
