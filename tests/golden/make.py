"""Write the golden fixtures: what commit 90d1ef8 left on people's disks, and what it computed from it.

    python tests/golden/make.py

This was run once, with commit 90d1ef8, and is kept as the record of how the fixtures were made. It is not run again: the
fixtures stand for folders that users have, and a later version has to read those. tests/test_golden.py holds it to them.

    home/               the folder in which the commands below were run; every path in it is relative
    expected.json       what followed: losses, hashes of rows, tokens, logits, measures, the keys of the files of a run
    orders.npy          the first 1,000 row ids of each of ORDERS with each of SEEDS
    flags.json          command -> flag of its --help -> words it takes
    names.json          what can be imported from tinygpt_hf, and what its pages, docstrings and entry points import
"""

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOME = HERE / "home"
TINYGPT = [sys.executable, "-m", "tinygpt_hf.cli"]
SEEDS = (0, 1, 42)

# The finished run states what a person would, and leaves the rest to the rules of that day. All others state everything.
TRAIN = "--device cpu --mixed_precision no --num_proc 1 --sample_tokens 8 --block_size 64"
FINISHED = f"""train --output_dir finished --train_file texts.jsonl --vocab_size 300 {TRAIN}
    --hidden_size 32 --intermediate_size 32 --num_hidden_layers 2 --num_attention_heads 2
    --max_steps 150 --per_device_train_batch_size 8 --learning_rate 0.03 --eval_steps 75 --save_steps 0"""
TOKENIZE = """tokenize --output_dir chats --train_file chats.jsonl --tokenizer_name interrupted --block_size 64
    --validation_split hash --validation_split_percentage 10 --num_proc 1"""
SMALL = f"""{TRAIN} --validation_split hash --logging_steps 1
    --hidden_size 16 --num_attention_heads 2 --num_key_value_heads 1 --head_dim 8 --intermediate_size 32
    --initializer_range 0.02 --embedding_initializer_range 0.1 --max_position_embeddings 64
    --per_device_eval_batch_size 8 --learning_rate 0.01 --muon_learning_rate 0.02"""
STOPPED = {  # folder: (its command, the step after which it is stopped, the signal)
    "interrupted": (
        f"""train --output_dir interrupted --train_file texts.jsonl {SMALL}
        --tokenizer_type bpe --vocab_size 280 --max_train_samples 60 --validation_split_percentage 10
        --packing wrap --shift_rows true
        --num_hidden_layers 2 --hidden_act silu --rope_parameters {{"rope_theta":10000.0,"rope_type":"default"}}
        --per_device_train_batch_size 4 --gradient_accumulation_steps 3 --max_steps 28
        --lr_scheduler_type warmup_stable_decay --warmup_steps 4 --decay_steps 8 --eval_steps 8 --save_steps 8""",
        10,
        signal.SIGKILL,
    ),
    "bestfit": (
        f"""train --output_dir bestfit --train_file texts.jsonl {SMALL}
        --tokenizer_type byte --max_train_samples 40 --validation_split_percentage 10
        --packing bestfit --document_mask true --num_hidden_layers 1
        --position_embedding_type learned --norm_type layernorm --mlp_type plain --hidden_act gelu_new
        --attention_bias true --mlp_bias true --qk_norm false --hidden_dropout 0.1 --optim adamw
        --per_device_train_batch_size 8 --max_steps 24 --lr_scheduler_type cosine --eval_steps 0 --save_steps 0""",
        6,
        signal.SIGTERM,
    ),
    "streamed": (
        f"""train --output_dir streamed --train_file texts.jsonl {SMALL}
        --tokenizer_type bpe --vocab_size 280 --validation_split_percentage 25 --streaming --stream_window 12288
        --num_hidden_layers 1 --hidden_act silu --rope_parameters {{"rope_theta":10000.0,"rope_type":"default"}}
        --per_device_train_batch_size 8 --max_steps 48 --lr_scheduler_type linear --eval_steps 0 --save_steps 0""",
        4,
        signal.SIGTERM,
    ),
    "adapted": (
        f"""train --output_dir adapted --model_name_or_path interrupted/best --rows chats --train_file chats.jsonl {TRAIN}
        --validation_split hash --validation_split_percentage 10 --logging_steps 1
        --lora_r 4 --lora_alpha 8 --lora_dropout 0.0 --learning_rate 0.01
        --per_device_train_batch_size 8 --per_device_eval_batch_size 8 --max_steps 24 --lr_scheduler_type linear
        --eval_steps 0 --save_steps 0""",
        6,
        signal.SIGTERM,
    ),
}
ROWS = {  # folder with rows: (how they are read, rows read); more than an epoch, where all rows of it are on the disk
    "finished": ("wrap", 300),
    "interrupted": ("wrap", 300),
    "bestfit": ("bestfit", 250),
    "streamed": ("streamed", 96),
    "chats": ("wrap", 300),
}
PROMPT = "One day, "
ORDERS = [(1000, None), (357, None), (60_001, None), (None, 32), (900, 128)]  # (rows, window)


def main() -> None:
    """Make everything; the folder `home` must not exist yet."""
    HOME.mkdir()
    os.chdir(HOME)
    write_texts()
    command(FINISHED)
    expected = {"finished": of_finished(), "runs": {}, "rows": {}}
    for folder, (line, step, how) in STOPPED.items():
        if folder == "adapted":
            command(TOKENIZE)  # the rows it is given, with the tokenizer of the run it begins from
        stop(folder, line, step, how)
        expected["runs"][folder] = of_twin(folder, line)
    for folder, (packing, count) in ROWS.items():
        expected["rows"][folder] = of_rows(folder, packing, count)
    expected["toyland"] = of_toyland()
    expected["keys"] = keys()
    expected["orders"] = {"shapes": ORDERS, "seeds": SEEDS}
    for lock in HOME.rglob(".lock"):
        lock.unlink()  # it names the machine, and nobody holds it
    write("expected.json", expected)
    write_orders()
    write("flags.json", {name: flags(name) for name in re.findall(r"^  ([a-z-]+)  ", say("--help"), re.M)})
    write("names.json", names())


def say(*words: str) -> str:
    """Run the command line; returns what it says on the standard output."""
    return subprocess.run([*TINYGPT, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def command(line: str, *more: str) -> None:
    say(*line.split(), *more)


def write(name: str, value) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n")


def write_texts() -> None:
    """A few pages of text, some conversations, and a page that no run has seen."""
    from tinygpt_hf.data import toyland

    documents = list(toyland.documents(5, 260))
    for name, key, count in (("texts.jsonl", "text", 70), ("chats.jsonl", "messages", 30)):
        lines = [json.dumps({key: document[key]}) for document in documents if key in document]
        Path(name).write_text("".join(f"{line}\n" for line in lines[:count]))
    Path("page.txt").write_text("\n\n".join(d["text"] for d in toyland.documents(5, 20, "heldout") if "text" in d))


def log(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def stop(folder: str, line: str, step: int, how: signal.Signals) -> None:
    """Start a run, and stop it once its log tells of `step`."""
    process = subprocess.Popen([*TINYGPT, *line.split()])
    while not (Path(folder, "log.jsonl").is_file() and len(losses(folder)) >= step):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(how)
    process.wait()
    assert not json.loads(Path(folder, "run.json").read_text())["finished"] and list(Path(folder).glob("checkpoint-*"))


def losses(folder: str) -> list[dict]:
    return [line for line in log(folder) if "loss" in line]


def of_twin(folder: str, line: str) -> dict:
    """What a run that nobody stops logs and reaches."""
    twin = f"{folder}-twin"
    command(line.replace(f"--output_dir {folder}", f"--output_dir {twin}"))
    names = ("step", "loss", "learning_rate", "grad_norm", "tokens")
    result = json.loads(Path(twin, "run.json").read_text())["result"]
    found = {"log": [{name: entry[name] for name in names} for entry in losses(twin)]}
    found |= {name: result[name] for name in ("steps", "tokens", "parameters", "eval_loss", "eval_bits_per_byte")}
    shutil.rmtree(twin)
    return found


def of_finished() -> dict:
    """What the finished model says, and how well it predicts the page."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import tinygpt_hf  # noqa: F401 - registers the model

    command("evaluate finished --data page.txt --block_size 64 --stride 64 --device cpu --output_file numbers.json")
    numbers = json.loads(Path("numbers.json").read_text())
    os.remove("numbers.json")
    model, tokenizer = AutoModelForCausalLM.from_pretrained("finished"), AutoTokenizer.from_pretrained("finished")
    given = tokenizer(PROMPT, return_tensors="pt")
    made = model.generate(**given, max_new_tokens=24, do_sample=False, output_logits=True, return_dict_in_generate=True)
    first, second = torch.stack(made.logits).topk(2).values.unbind(-1)
    assert float((first - second).min()) > 0.001  # so that rounding chooses no other token
    return {
        "prompt": PROMPT,
        "greedy": made.sequences[0].tolist(),
        "text": tokenizer.decode(made.sequences[0], skip_special_tokens=True),
        "logits": [round(number, 6) for number in made.logits[0][0].tolist()],
        "evaluation": numbers,
    }


def digest(*arrays) -> str:
    """sha256 of whole numbers, whatever their type."""
    import numpy as np

    return hashlib.sha256(b"".join(np.ascontiguousarray(array, "<i8").tobytes() for array in arrays)).hexdigest()


def of_rows(folder: str, packing: str, count: int) -> dict:
    """The first `count` rows in the order that training shows them with seed 42."""
    from transformers import AutoTokenizer

    from tinygpt_hf.data.batches import StepBatches
    from tinygpt_hf.data.bestfit import BestFitRows
    from tinygpt_hf.data.rows import Rows
    from tinygpt_hf.data.windows import WindowedRows

    place = Path(folder, "rows")
    opened = {"bestfit": lambda: BestFitRows(place / "train", 64), "streamed": lambda: WindowedRows(place, 64)}
    rows = opened.get(packing, lambda: Rows(place / "train"))()
    steps = StepBatches(rows, count, count, 64, packing == "wrap", 42, document_mask=True)
    ((input_ids, labels, position_ids),), supervised = steps.at(0, count)
    tokenizer = AutoTokenizer.from_pretrained(Path(folder, "tokenizer"))
    return {
        "packing": packing,
        "count": count,
        "supervised": supervised,
        "targets": [tokenizer.decode(ids[ids != -100]) for ids in labels[:3]],
        "input_ids": digest(input_ids),
        "labels": digest(labels),
        "position_ids": digest(position_ids),
    }


def of_toyland() -> dict:
    """For each seed a hash of whole documents, of questions with their answers and of openings."""
    from tinygpt_hf.data import toyland

    def hashed(values) -> str:
        return hashlib.sha256(json.dumps(list(values), sort_keys=True).encode()).hexdigest()

    return {
        str(seed): {
            "documents": hashed(toyland.documents(seed, 1000)),
            "heldout": hashed(toyland.documents(seed, 100, "heldout")),
            "questions": hashed(toyland.questions(seed, 200)),
            "openings": hashed(toyland.story_openings(seed, 200)),
        }
        for seed in SEEDS
    }


def write_orders() -> None:
    """For each order and seed the ids of the rows at the first 1,000 positions."""
    import numpy as np

    from tinygpt_hf.data import order

    def ids(size, window, seed):
        at = order.windowed_rows_at(0, 1000, size, window, seed) if window else order.rows_at(0, 1000, size, seed)
        return np.concatenate([rows for _, rows in at])

    found = [[ids(size, window, seed) for seed in SEEDS] for size, window in ORDERS]
    np.save(HERE / "orders.npy", np.array(found, dtype=np.uint16))


def keys() -> dict:
    """The keys of what a run and an evaluation write; those of an object inside one as `outer.inner`."""
    lines, run = log("finished"), json.loads(Path("finished/run.json").read_text())
    inner = [f"{k}.{n}" for k, v in run.items() if isinstance(v, dict) and k != "model" for n in v]
    return {
        "log.jsonl, a step": sorted(next(line for line in lines if "loss" in line)),
        "log.jsonl, an evaluation": sorted(next(line for line in lines if "eval_loss" in line)),
        "run.json": sorted([*run, *inner]),
    }


EXAMPLES = {  # words for flags that have neither choices nor a default
    "N": "64", "X": "0.5", "TEXT": "x", "A": "x", "MODEL": "finished", "--num_key_value_heads": "2", "--head_dim": "8",
    "--vocab_size": "512", "--hidden_act": "silu", "--rope_parameters": '{"rope_theta": 10000.0, "rope_type": "default"}',
    "--sources": '[{"train_file": "texts.jsonl", "weight": 2}]', "--config": "finished/run.yaml", "--rows": "chats",
    "--train_file": "texts.jsonl", "--validation_file": "texts.jsonl", "--dataset_name": "toyland", "--data": "page.txt",
    "--dataset_config_name": "text", "--dataset_revision": "main", "--revision": "main", "--text_column": "text",
    "--document_separator": "blank_line", "--tokenizer_name": "finished", "--model_name_or_path": "finished",
    "--hub_model_id": "alice/mine", "--prompt_file": "page.txt", "--mask": "email", "--scripts": "Latin",
    "--language": "en", "--languages": "en", "--license": "apache-2.0", "--also": "tokenizer",
}  # fmt: skip


def flags(name: str) -> dict[str, list[str]]:
    """Each flag in the --help of a command with words it takes: all its choices, else its default or an example."""
    found = {}
    for shown, about in re.findall(r"^  (--\w+ .*|[A-Z]+|--config FILE)\n      (.*)$", say(name, "--help"), re.M):
        flag, _, kinds = shown.partition(" ")
        default = re.search(r"\(default (.*?)\)", about)
        words = []
        for kind in kinds.strip("[]").split("|") if not kinds.startswith("A ") else ["A"]:
            if kind in ("N", "X", "TEXT", "A", "JSON", "FILE"):
                kind = default[1] if default else EXAMPLES.get(flag) or EXAMPLES[kind]
            words.append(kind)
        found[flag] = words if kinds else [EXAMPLES[flag]]
        for alias in re.findall(r"\(also (--\w+)\)", about):
            found[alias] = words
    return found


def names() -> dict[str, list[str]]:
    """The public names, and every import in README, docs, examples, docstrings, the doors and the entry points."""
    import tinygpt_hf

    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").iterdir(), ROOT / "pyproject.toml"]
    texts = [path.read_text() for path in [*pages, *ROOT.glob("*.py")]]
    for path in (ROOT / "tinygpt_hf").rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED)]
        texts += filter(None, map(ast.get_docstring, nodes))
    found = set()
    for text in texts:
        for module, listed in re.findall(r"from (tinygpt_hf[\w.]*) import ([\w, ]+)", text):
            found |= {f"{module}.{name.strip()}" for name in listed.split(",")}
        found |= set(re.findall(r"(?:import|-m) (tinygpt_hf[\w.]*\w)", text))
        found |= {f"{module}.{name}" for module, name in re.findall(r'"(tinygpt_hf[\w.]*):(\w+)"', text)}
    return {"public": sorted(tinygpt_hf.__all__), "taught": sorted(found)}


DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


if __name__ == "__main__":
    main()
