"""The console decides nothing: every command, with every way in which nobody listens, does its work and ends by how that went.

A covering set of commands and consoles; all of them with TINYGPT_CRASH=full. console_bench.py is the program.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from console_bench import CONSOLES
from hub_server import TOKENS, HubServer

BENCH = Path(__file__).with_name("console_bench.py")
FULL = os.environ.get("TINYGPT_CRASH") == "full"
SHAPE = """--hidden_size 16 --device cpu --num_hidden_layers 1 --num_attention_heads 1
    --eval_steps 2 --sample_tokens 2 --mixed_precision no --per_device_train_batch_size 2"""
TEXT = f"--train_file text.txt --document_separator blank_line --tokenizer_type byte --block_size 32 {SHAPE}"
# the words, and what is written: {} is a new name. The last ones are slow
COMMANDS = {
    "train": (f"train {TEXT} --max_steps 4 --output_dir {{}}", ("model.safetensors", "run.json", "README.md")),
    "tokenize": ("tokenize --train_file text.txt --tokenizer_type byte --block_size 32 --output_dir {}", ("rows",)),
    "train-tokenizer": (
        "train-tokenizer --train_file text.txt --vocab_size 300 --output_dir {}", ("tokenizer.json", "report.json"),
    ),
    "prepare-corpus": ("prepare-corpus --train_file text.txt --preset none --output_dir {}", ("README.md", "corpus.json")),
    "evaluate": ("evaluate model --data text.txt", ()),
    "evaluate to a file": ("evaluate model --data text.txt --output_file {}", ("",)),
    "generate": ("generate model --prompt One --max_new_tokens 8", ()),
    "generate to a file": ("generate model --prompt One --max_new_tokens 8 --output_file {}", ("",)),
    "chat": ("chat model --prompt One --max_new_tokens 8", ()),
    "serve": ("serve model --device cpu --port {port}", ()),
    "push": ("push model --hub_model_id alice/tiny", ()),
    "pull": ("pull alice/tiny --output_dir {}", ("model.safetensors",)),
    "--help": ("--help", ()),
    "a mistake": ("train --config none.yaml", ()),
    "export": ("export model --to qwen3 --output_dir {}", ("config.json",)),
    "quickstart": (
        f"quickstart --max_train_samples 300 --validation_split_percentage 10 {SHAPE} --vocab_size 500 --block_size 64"
        " --max_steps 2 --output_dir {}", ("model.safetensors",),
    ),
}  # fmt: skip
SLOW = ("export", "quickstart")
STATUS = {"serve": 130, "a mistake": 2}
PRODUCTS = ("evaluate", "generate", "chat", "--help")
CELLS = [
    (command, console)
    for c, command in enumerate(COMMANDS)
    for k, console in enumerate(CONSOLES)
    if FULL or command == "train" or (2 * c + k) % (9 if command in SLOW else 5) == 0
]


class Bench:
    """The forking program, the folder it works in, and a Hub."""

    def __init__(self, folder: Path, hub: HubServer):
        self.folder, self.number = folder, 0
        online = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
        online |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "cache"), "HF_TOKEN": TOKENS["alice"]}
        words, pipes = [sys.executable, str(BENCH)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, **pipes, text=True, cwd=folder, env=online)

    def run(self, words: str, console: str, **more) -> tuple[dict, Path]:
        """(what came of it, the path of its output)."""
        self.number += 1
        output = f"out-{self.number}"
        if "{port}" in words:
            with socket.create_server(("127.0.0.1", 0)) as server:
                more["port"] = server.getsockname()[1]
        request = {"words": words.format(output, **more).split(), "console": console, **more}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline()), self.folder / output


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    stories = [f"On day {k} a dog named Pip took ball {k * 7 % 31} to the park and ran after it." for k in range(60)]
    (folder / "text.txt").write_text("\n\n".join(stories))
    with HubServer() as hub:
        made = Bench(folder, hub)
        done, model = made.run(COMMANDS["train"][0], "stdin closed")
        assert done["status"] == 0, done
        model.rename(folder / "model")
        done, _ = made.run(COMMANDS["push"][0], "stdin closed")
        assert done["status"] == 0, done
        yield made
        made.process.stdin.close()
        made.process.wait(60)


@pytest.mark.parametrize(("command", "console"), CELLS, ids=[" - ".join(cell) for cell in CELLS])
def test_who_listens_decides_nothing(bench, command, console):
    words, files = COMMANDS[command]
    done, output = bench.run(words, console)
    lost = command in PRODUCTS and console == "full"
    assert done["status"] == (1 if lost else STATUS.get(command, 0)), done
    missing = [name for name in files if not (output / name if name else output).exists()]
    assert not missing and not any(word in done["said"] for word in ("Traceback", "Exception ignored")), done
    if lost:
        assert done["said"].splitlines()[-1].startswith("error: the standard output cannot be written (No space"), done
    if command == "train":
        assert json.loads((output / "run.json").read_text())["result"]["steps"] == 4


@pytest.mark.parametrize(("hangup", "status"), [("hangup", 129), ("nohup", 0)])
def test_a_terminal_that_closes_ends_a_run_after_its_step_unless_it_is_under_nohup(bench, hangup, status):
    steps = 20_000 if status else 6
    words = f"train {TEXT} --logging_steps 1000 --max_steps {steps} --output_dir {{}}"
    done, folder = bench.run(words, "terminal gone", hangup=hangup, until="validation loss")
    assert done["status"] == status, done
    reached = [int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*")]
    assert max(reached) == 6 if not status else 2 <= max(reached) < steps
    assert json.loads((folder / "run.json").read_text())["finished"] == (not status)


def test_a_conversation_ends_with_its_terminal(bench):
    assert bench.run("chat model", "terminal gone")[0]["status"] == 0
