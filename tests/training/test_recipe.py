"""train(): the loss is exact, an interrupted run equals an uninterrupted one, invalid input leaves no files."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tinygpt_hf import selftest, storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training import checkpoint, measures, recipe, step
from tinygpt_hf.training.log import read_log

MODEL = dataclasses.replace(selftest.MODEL, hidden_dropout=0.1)
DATA = dataclasses.replace(selftest.DATA, max_train_samples=120)
TOKENIZER = TokenizerArguments(tokenizer_type="byte")
TRAINING = dataclasses.replace(
    selftest.TRAINING, max_steps=8, eval_steps=4, save_steps=4, sample_tokens=4, keep_snapshots=3
)


def run(folder: Path, model=None, data=None, tokenizer=None, **training) -> recipe.TrainResult:
    settings = dataclasses.replace(TRAINING, output_dir=str(folder), **training)
    named = (model or {}).get("model_name_or_path")  # excludes settings of the shape
    return recipe.train(
        ModelArguments(**model) if named else dataclasses.replace(MODEL, **(model or {})),
        dataclasses.replace(DATA, **(data or {})),
        tokenizer or TOKENIZER,
        settings,
        quiet=True,
    )


def losses(folder: Path, key: str = "loss") -> dict[int, float]:
    return {line["step"]: line[key] for line in read_log(folder / "log.jsonl") if key in line}


def snapshots(folder: Path) -> dict[str, dict]:
    """Return snapshot name -> hashes of its files."""
    found = {path.name: storage.read_json(path / storage.MANIFEST)["files"] for path in folder.glob("snapshots/*")}
    assert not any(map(storage.find_damage, folder.glob("snapshots/*")))
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Train a run without interruption."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder)
    return folder


def test_the_run_folder_is_a_transformers_model(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in (finished, finished / "best", finished / "checkpoint-8", *finished.glob("snapshots/step-*")):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert type(model).__name__ == "TinyGPTForCausalLM" and len(tokenizer) == model.config.vocab_size
        assert tokenizer.model_max_length == model.config.max_position_embeddings == 64
    assert sorted(p.name for p in finished.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    assert sorted(snapshots(finished)) == [
        "step-1",
        "step-2",
        "step-4",
    ]  # powers of the cube root of 8; the last step is the run folder itself
    same = load_file(finished / "checkpoint-4" / "model.safetensors")
    kept = load_file(finished / "snapshots" / "step-4" / "model.safetensors")
    assert all(torch.equal(same[name], kept[name]) for name in same)


def test_log_and_results_agree(finished):
    lines = read_log(finished / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 9))
    assert {"step", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second"} <= set(lines[0])
    evaluation = [line for line in lines if "eval_loss" in line][-1]
    result = json.loads((finished / "run.json").read_text())["result"]
    assert result["eval_loss"] == evaluation["eval_loss"] and result["steps"] == 8
    assert evaluation["samples"] and all(sample["text"] for sample in evaluation["samples"])
    tokens = [line["tokens"] for line in lines if "loss" in line]
    assert tokens == sorted(tokens) and result["tokens"] == tokens[-1]


def test_the_same_settings_give_the_same_run(finished, tmp_path):
    run(tmp_path / "again")
    assert losses(tmp_path / "again") == losses(finished)


def test_a_killed_run_ends_bit_identical(finished, tmp_path, monkeypatch):
    real, calls = step.gradients, []

    def killed(*args):
        calls.append(1)
        if len(calls) > 6:
            raise SystemExit(9)
        return real(*args)

    monkeypatch.setattr(step, "gradients", killed)
    with pytest.raises(SystemExit):
        run(tmp_path / "r")
    monkeypatch.setattr(step, "gradients", real)
    run(tmp_path / "r")
    assert losses(tmp_path / "r") == losses(finished)
    assert losses(tmp_path / "r", "eval_loss") == losses(finished, "eval_loss")
    expected = weights(finished)
    assert all(torch.equal(expected[name], value) for name, value in weights(tmp_path / "r").items())
    assert snapshots(tmp_path / "r") == snapshots(finished)


def test_a_kill_between_checkpoint_and_publishing_leaves_no_old_weights(finished, tmp_path, monkeypatch):
    real, calls = checkpoint.publish, []

    def killed(folder, *args):
        calls.extend([1] if folder.name == "r" else [])
        if len(calls) == 2:
            raise SystemExit(9)
        real(folder, *args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "publish", killed)
        with pytest.raises(SystemExit):
            run(tmp_path / "r")
    run(tmp_path / "r", max_steps=8)
    expected = weights(finished)
    assert all(torch.equal(expected[name], value) for name, value in weights(tmp_path / "r").items())


def test_rows_with_a_flipped_bit_are_an_error(finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "checkpoint-8")
    tokens = tmp_path / "r" / "rows" / "train" / "shard-000000" / "tokens.bin"
    data = bytearray(tokens.read_bytes())
    data[len(data) // 2] ^= 1
    tokens.write_bytes(data)
    with pytest.raises(RunError, match="tokens.bin has other content than when it was saved; make them again"):
        run(tmp_path / "r")


def test_a_finished_run_is_not_repeated(finished):
    before = (finished / "model.safetensors").stat().st_mtime_ns
    result = run(finished)
    assert result.already_finished and result.steps == 8
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("batch,accumulation", [(2, 4), (3, 3)])
def test_accumulation_does_not_change_the_loss(tmp_path, batch, accumulation):
    run(tmp_path / "a", model={"hidden_dropout": 0.0}, per_device_train_batch_size=batch * accumulation, max_steps=4)
    run(
        tmp_path / "b",
        model={"hidden_dropout": 0.0},
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=4,
    )
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a.keys() == b.keys() and max(abs(a[k] - b[k]) for k in a) < 1e-6
    a, b = losses(tmp_path / "a", "grad_norm"), losses(tmp_path / "b", "grad_norm")
    assert max(abs(a[k] - b[k]) for k in a) < 1e-5


def slow_loss(folder: Path, run_folder: Path) -> float:
    """Return the validation loss of the model in `folder`, computed one window and one token at a time."""
    from transformers import AutoModelForCausalLM

    from tinygpt_hf.rows.store import Rows

    model, rows = AutoModelForCausalLM.from_pretrained(folder), Rows(run_folder / "rows" / "validation")
    nats, count, position = 0.0, 0, 0
    ids = torch.tensor(rows.tokens[:].astype("int64"))
    may = torch.ones(len(ids), dtype=torch.bool) if rows.is_target is None else torch.tensor(rows.is_target)
    with torch.no_grad():
        while position < len(ids) - 1:
            window = ids[position : position + 65]
            logits = model(window[None, :-1]).logits[0].double()
            for k in range(len(window) - 1):
                if may[position + k + 1]:
                    nats -= float(torch.log_softmax(logits[k], -1)[window[k + 1]])
                    count += 1
            position += 64
    assert count == rows.num_targets
    return nats / count


def test_validation_loss_is_the_mean_over_each_token_once(finished):
    assert losses(finished, "eval_loss")[8] == pytest.approx(slow_loss(finished, finished), abs=1e-5)


def test_evaluations_use_a_part_and_the_last_one_all_rows(tmp_path, monkeypatch):
    real = measures.evaluate

    def seen(*words):  # on the part, the last weights seem worse than the first
        found = real(*words)
        if "eval_rows" in found:
            parts.append(found["eval_loss"])
            found["eval_loss"] = len(parts)
        return found

    parts = []
    monkeypatch.setattr(measures, "evaluate", seen)
    result = run(tmp_path / "r", eval_rows=3)
    evaluations = [line for line in read_log(tmp_path / "r" / "log.jsonl") if "eval_loss" in line]
    assert [line.get("eval_rows") for line in evaluations] == [3, None] and len(parts) == 2
    assert result.best_step == 4 and result.best_loss > result.eval_loss
    assert result.eval_loss == pytest.approx(slow_loss(tmp_path / "r", tmp_path / "r"), abs=1e-5)
    assert result.best_loss == pytest.approx(slow_loss(tmp_path / "r" / "best", tmp_path / "r"), abs=1e-5)
    assert abs(parts[0] - result.best_loss) > 1e-5  # three rows are only a part
    facts = json.loads((tmp_path / "r" / "run.json").read_text())["result"]
    assert facts["best_loss"] == result.best_loss and facts["final_evaluation_seconds"] > 0


def test_a_resumed_run_keeps_settings_that_are_not_given(tmp_path, capsys):
    other = {"learning_rate": 0.001, "lr_scheduler_type": "constant"}
    plain = {"hidden_dropout": 0.0, "tie_word_embeddings": True, "embedding_initializer_range": None}
    run(tmp_path / "whole", model=plain, **other)
    run(tmp_path / "r", model=plain, **other, max_steps=4)
    settings = dataclasses.replace(TRAINING, output_dir=str(tmp_path / "r"), per_device_train_batch_size=None)
    model = dataclasses.replace(MODEL, hidden_dropout=0.0, hidden_size=None)
    recipe.train(model, DATA, TOKENIZER, settings)
    assert "as they are not given now: hidden_size 32, tie_word_embeddings True, learning_rate 0.001" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert losses(tmp_path / "r") == losses(tmp_path / "whole")


def test_a_text_alone_is_enough(tmp_path, monkeypatch, capsys):
    from tinygpt_hf.cli import main
    from tinygpt_hf.settings import defaults

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(defaults, "TIME_BUDGET", "30s")
    (tmp_path / "my.txt").write_text("The dog saw the ball. The girl took a boat to the king. " * 40)
    assert main(["train", "--train_file", "my.txt"]) == 0
    said = capsys.readouterr().err
    assert "to change the length: --time_budget" in said and "a small model's first" in said
    record = json.loads((tmp_path / "runs" / "my" / "run.json").read_text())
    assert record["plan"]["settings"]["hidden_size"] == record["model"].get("hidden_size", 256)
    assert main(["train", "--train_file", "my.txt"]) == 0
    assert f"already finished: {record['result']['steps']} steps" in capsys.readouterr().err


def test_epochs_or_tokens_set_the_number_of_steps(tmp_path):
    result = run(tmp_path / "r", max_steps=None, max_train_tokens=64 * 8 * 3, eval_steps=0, save_steps=0)
    assert result.steps == 3


@pytest.mark.parametrize(
    "change,message",
    [
        ({"model": {"hidden_size": 64}}, "made with model hidden_size=32"),
        ({"data": {"block_size": 32}}, "made from other block_size"),
        ({"per_device_train_batch_size": 4}, "effective_batch 8, now it is 4"),
        ({"data": {"max_train_samples": 121}}, "trained with other sources"),
        ({"tokenizer": TokenizerArguments(tokenizer_type="char")}, "trained with other tokenizer_type"),
    ],
)
def test_changed_facts_are_an_error_on_resume(finished, change, message):
    before = sorted(str(p) for p in finished.rglob("*"))
    with pytest.raises(UsageError, match=message):
        run(finished, **{"max_steps": 12, **change})
    assert sorted(str(p) for p in finished.rglob("*")) == before


@pytest.mark.parametrize(
    "change,message",
    [
        ({"data": {"block_size": 50_000}}, "at least 50001 for one row"),
        ({"data": {"dataset_name": None, "train_file": ["/nowhere.txt"]}}, "does not exist"),
        ({"model": {"num_attention_heads": 5}}, "not a multiple of --num_attention_heads"),
        ({"model": {"hidden_act": "nonsense"}}, "--hidden_act is 'nonsense'"),
        ({"mixed_precision": "fp16"}, "expected a CUDA GPU for fp16"),
        ({"save_total_limit": 1}, "Use 2 or more"),
        ({"model": {"model_name_or_path": "/nowhere"}, "tokenizer": TOKENIZER}, "cannot be loaded"),
        (
            {"optim": "sgd", "data": {"dataset_name": None, "train_file": "/nowhere.txt"}},
            r"^--optim is 'sgd' \(expected one of muon, adamw\). Choose one of them.$",
        ),
    ],
)
def test_invalid_input_is_one_error_and_leaves_no_files(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "runs" / "r", **change)
    assert list(tmp_path.iterdir()) == []


def test_path_objects_are_accepted_for_files_and_folders(tmp_path):
    text = tmp_path / "my.txt"
    text.write_text("One day a small dog found a red ball.\n" * 40)
    data = DataArguments(train_file=text, block_size=32)
    training = dataclasses.replace(TRAINING, output_dir=tmp_path / "r", max_steps=1, learning_rate=1)
    result = recipe.train(dataclasses.replace(MODEL), data, TOKENIZER, training, quiet=True)
    assert result.output_dir == training.output_dir == str(tmp_path / "r") and data.train_file == [str(text)]


def test_a_folder_that_is_not_a_run_is_left_unchanged(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not a run folder .it holds thesis.tex"):
        run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_pulled_model_is_not_overwritten(finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "r", ignore=shutil.ignore_patterns("checkpoint-*", "run.json", "rows"))
    before = weights(tmp_path / "r")
    with pytest.raises(UsageError, match="is a model without its run, .*Continue from it with --model_name_or_path"):
        run(tmp_path / "r")
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "r").items())


@pytest.mark.parametrize("is_link", [False, True])
def test_overwrite_moves_the_old_run_aside(finished, tmp_path, is_link):
    import shutil

    shutil.copytree(finished, tmp_path / "r")
    if is_link:  # the link is kept and points to the new run
        (tmp_path / "link").symlink_to(tmp_path / "r")
    run(tmp_path / ("link" if is_link else "r"), overwrite=True, max_steps=2)
    assert (tmp_path / "r.old-1" / "checkpoint-8").is_dir() and (tmp_path / "r" / "checkpoint-2").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_symlink()) == ["link"] * is_link


def test_a_failed_overwrite_leaves_the_old_run_where_it_was(finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "r")
    (tmp_path / "link").symlink_to("r")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    for name in ("r", "link"):
        with pytest.raises(UsageError, match="for one row"):
            run(tmp_path / name, overwrite=True, data={"block_size": 50_000})
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_training_starts_from_given_weights(finished, tmp_path):
    tokenizer = TokenizerArguments(tokenizer_name=str(finished))
    first = run(tmp_path / "r", model={"model_name_or_path": str(finished)}, tokenizer=tokenizer, max_steps=1)
    assert first.eval_loss < losses(finished, "eval_loss")[4]
    assert losses(tmp_path / "r")[1] < losses(finished)[1] - 0.5


def test_a_diverging_run_stops_and_saves_nothing(tmp_path):
    with pytest.raises(RunError, match="no update was made"):
        run(tmp_path / "r", learning_rate=1e30, muon_learning_rate=1e30, max_grad_norm=0.0)
    assert not list((tmp_path / "r").glob("checkpoint-*"))


def test_accumulation_set_by_the_launcher_does_not_change_the_gradient(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    run(tmp_path / "r")
    assert losses(tmp_path / "r", "grad_norm") == losses(finished, "grad_norm")


def test_a_second_run_can_use_another_precision(finished, tmp_path):
    result = run(tmp_path / "r", mixed_precision="bf16", max_steps=2)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["hardware"]["mixed_precision"] == "bf16"
    assert abs(losses(tmp_path / "r")[1] - losses(finished)[1]) < 0.05 and result.steps == 2


def test_written_settings_equal_settings_read(finished):
    from tinygpt_hf.settings.parsing import parse

    groups = (ModelArguments, DataArguments, TokenizerArguments, TrainingArguments)
    settings = parse(groups, ["--config", str(finished / "run.yaml")])
    model, training = filled(MODEL, dataclasses.replace(TRAINING, output_dir=str(finished), warmup_steps=0))
    assert settings[ModelArguments] == model and settings[DataArguments] == DATA
    assert settings[TrainingArguments] == training  # with all defaults filled in
