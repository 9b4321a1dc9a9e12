"""What commit 90d1ef8 left on people's disks is read, goes on and means the same (golden/README.md tells how it was made)."""

import hashlib
import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import tinygpt_hf
from tinygpt_hf.cli import main

GOLDEN = Path(__file__).parent / "golden"
EXPECTED, FLAGS, NAMES = (json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("expected", "flags", "names"))
ROUNDING = 1e-4  # relative: another processor adds in another order, and training enlarges that


# Only these three know where things are inside the package: what they reach has no public name.


def read_rows(folder: Path, packing: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(input_ids, labels, position_ids) of the first `count` rows in the order that training shows them."""
    from tinygpt_hf.rows.batches import StepBatches
    from tinygpt_hf.rows.bestfit import BestFitRows
    from tinygpt_hf.rows.store import Rows
    from tinygpt_hf.rows.windows import WindowedRows

    kinds = {"wrap": lambda: Rows(folder / "train"), "bestfit": lambda: BestFitRows(folder / "train", 64)}
    rows = (kinds | {"streamed": lambda: WindowedRows(folder, 64)})[packing]()
    steps = StepBatches(rows, count, count, 64, packing == "wrap", 42, document_mask=True)
    (batch,), _ = steps.at(0, count)
    return tuple(part.numpy() for part in batch)


def row_ids(count: int, size: int | None, window: int | None, seed: int) -> np.ndarray:
    """The rows at the first `count` positions, permuted as a whole or, with a `window`, window by window."""
    from tinygpt_hf.rows import order

    pieces = order.windowed_rows_at(0, count, size, window, seed) if window else order.rows_at(0, count, size, seed)
    return np.concatenate([rows for _, rows in pieces])


def toyland():
    """The module of the embedded corpus."""
    from tinygpt_hf.toyland import corpus

    return corpus


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A copy of the folder in which the commands were run, and run in again."""
    shutil.copytree(GOLDEN / "home", tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def lines_of(path: Path, key: str) -> list[dict]:
    return [line for line in map(json.loads, path.read_text().splitlines()) if key in line]


# Runs.


def test_a_finished_run_says_so_and_does_nothing(home, capsys):
    names = "model.safetensors", "log.jsonl", "run.json", "best/model.safetensors"
    kept = [home / "finished" / name for name in names]
    before = [path.read_bytes() for path in kept]
    assert main(["train", "--config", "finished/run.yaml"]) == 0
    assert "already finished" in capsys.readouterr().err
    assert [path.read_bytes() for path in kept] == before


@pytest.mark.parametrize("folder", EXPECTED["runs"])
def test_a_stopped_run_goes_on_as_one_nobody_stopped(home, folder):
    expected, log = EXPECTED["runs"][folder], home / folder / "log.jsonl"
    (checkpoint,) = (home / folder).glob("checkpoint-*")
    saved = int(checkpoint.name.rpartition("-")[2])
    before = lines_of(log, "loss")
    assert main(["train", "--config", f"{folder}/run.yaml"]) == 0
    found = lines_of(log, "loss")
    assert 0 < saved < len(found) and found[:saved] == before[:saved]  # it did not begin again
    # the masks of dropout are drawn by MKL where torch has it, and by torch itself elsewhere
    comparable = folder != "bestfit" or torch.backends.mkl.is_available()
    for line, known in zip(found, expected["log"], strict=True):
        assert (line["step"], line["tokens"]) == (known["step"], known["tokens"])
        assert line["learning_rate"] == pytest.approx(known["learning_rate"], rel=1e-9)
        if comparable:
            assert line["loss"] == pytest.approx(known["loss"], rel=ROUNDING), line
            assert line["grad_norm"] == pytest.approx(known["grad_norm"], rel=10 * ROUNDING), line
    result = json.loads((home / folder / "run.json").read_text())["result"]
    for name in ("steps", "tokens", "parameters"):
        assert result[name] == expected[name]
    if comparable:
        for name in ("eval_loss", "eval_bits_per_byte"):
            assert result[name] == pytest.approx(expected[name], rel=ROUNDING)


@pytest.fixture
def new_run(home) -> Path:
    """A short run of today on the rows of the finished one."""
    changed = "--rows finished --output_dir new --max_steps 2 --eval_steps 2 --logging_steps 1"
    assert main(["train", "--config", "finished/run.yaml", *changed.split()]) == 0
    return home / "new"


def test_a_new_run_writes_the_keys_of_an_old_one(new_run):
    run = json.loads((new_run / "run.json").read_text())
    inner = {f"{outer}.{name}" for outer, value in run.items() if isinstance(value, dict) for name in value}
    step, evaluation = (lines_of(new_run / "log.jsonl", key)[-1] for key in ("loss", "eval_loss"))
    assert set(EXPECTED["keys"]["run.json"]) <= {*run, *inner}
    assert set(EXPECTED["keys"]["log.jsonl, a step"]) <= set(step)
    assert set(EXPECTED["keys"]["log.jsonl, an evaluation"]) <= set(evaluation)


# The finished model.


@pytest.mark.parametrize("folder", ["finished", "finished/best", "finished/checkpoint-150"])
def test_transformers_loads_it_and_it_says_the_same(home, folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    expected = EXPECTED["finished"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    given = tokenizer(expected["prompt"], return_tensors="pt")
    with torch.no_grad():
        logits = model(**given).logits[0, -1]
    assert logits.tolist() == pytest.approx(expected["logits"], abs=ROUNDING)
    made = model.generate(**given, max_new_tokens=24, do_sample=False)[0].tolist()
    assert made == expected["greedy"]


def test_the_pipeline_continues_as_it_did(home):
    from transformers import pipeline

    expected = EXPECTED["finished"]
    generator = pipeline("text-generation", model="finished", device="cpu")
    assert generator(expected["prompt"], max_new_tokens=24, do_sample=False)[0]["generated_text"] == expected["text"]


def test_evaluate_gives_the_same_numbers(home):
    words = "evaluate finished --data page.txt --block_size 64 --stride 64 --device cpu --output_file numbers.json"
    assert main(words.split()) == 0
    numbers = json.loads((home / "numbers.json").read_text())
    for name, value in EXPECTED["finished"]["evaluation"].items():
        assert numbers[name] == (pytest.approx(value, rel=ROUNDING) if isinstance(value, float) else value), name


# Rows, their order, and the embedded corpus.


@pytest.mark.parametrize("folder", EXPECTED["rows"])
def test_rows_give_the_same_batches(folder):
    from transformers import AutoTokenizer

    expected = EXPECTED["rows"][folder]
    place = GOLDEN / "home" / folder
    input_ids, labels, position_ids = read_rows(place / "rows", expected["packing"], expected["count"])
    tokenizer = AutoTokenizer.from_pretrained(place / "tokenizer")
    assert [tokenizer.decode(row[row != -100]) for row in labels[:3]] == expected["targets"]
    assert int((labels != -100).sum()) == expected["supervised"]
    for name, found in (("input_ids", input_ids), ("labels", labels), ("position_ids", position_ids)):
        assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest() == expected[name], name


def test_rows_come_in_the_same_order():
    for (size, window), by_seed in zip(EXPECTED["orders"]["shapes"], np.load(GOLDEN / "orders.npy"), strict=True):
        for seed, known in zip(EXPECTED["orders"]["seeds"], by_seed, strict=True):
            assert row_ids(len(known), size, window, seed).tolist() == known.tolist(), (size, window, seed)


@pytest.mark.parametrize("seed", EXPECTED["toyland"])
def test_toyland_is_the_same_to_the_letter(seed):
    world, number = toyland(), int(seed)
    made = {
        "documents": world.documents(number, 1000),
        "heldout": world.documents(number, 100, "heldout"),
        "questions": world.questions(number, 200),
        "openings": world.story_openings(number, 200),
    }
    found = {name: json.dumps(list(values), sort_keys=True).encode() for name, values in made.items()}
    assert {name: hashlib.sha256(text).hexdigest() for name, text in found.items()} == EXPECTED["toyland"][seed]


# Flags and names.


def problems(capsys, *words: str) -> str:
    """What the parser says of these words, besides of the one flag that nothing can know: so the command does not begin."""
    unknown = "--never_a_setting"
    assert main([*words, unknown, "x"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert any(unknown in line for line in errors), errors
    return "\n".join(line for line in errors if unknown not in line)


@pytest.mark.parametrize("command", FLAGS)
def test_every_old_flag_takes_what_it_took(home, capsys, command):
    for flag, values in FLAGS[command].items():
        forms = [[f"{flag}={value}"] if flag.startswith("--") else [value] for value in values]
        if values == ["true", "false"]:
            forms += [[flag], [flag.replace("--", "--no_")], [flag.replace("_", "-")]]
        for words in forms:
            assert problems(capsys, command, *words) == "", words


def test_a_flag_that_is_gone_would_be_noticed(home, capsys):
    assert "--hidden_sizes" in problems(capsys, "train", "--hidden_sizes=256")
    assert "--norm_type" in problems(capsys, "train", "--norm_type=batchnorm")


@pytest.mark.parametrize("path", NAMES["taught"])
def test_every_import_that_was_taught_works(path):
    try:
        import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        assert getattr(import_module(module), name)


def test_the_public_names_are_there():
    assert set(NAMES["public"]) <= set(tinygpt_hf.__all__)
    assert all(hasattr(tinygpt_hf, name) for name in NAMES["public"])
