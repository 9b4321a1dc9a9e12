"""The other side of the small Hub: a process that runs our commands and the stock client, and the fixtures of both.

huggingface_hub reads its environment when it is imported, so what talks to the server is a process beside the tests, which
waits for nothing: it notes for how long it would have slept. A test module takes the fixtures by pytest_plugins.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_server import TOKENS, HubServer

CLIENT = """
import contextlib, io, json, os, sys, time, traceback, types
import huggingface_hub.file_download, huggingface_hub.utils._http
from tinygpt_hf.cli import main
from tinygpt_hf.hub import retry
slept, answers = [], sys.stdout
retry.sleep = slept.append
quick = types.SimpleNamespace(**{**vars(time), "sleep": slept.append})
huggingface_hub.utils._http.time = huggingface_hub.file_download.time = quick
for line in sys.stdin:
    step = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    if step["token"]:
        os.environ["HF_TOKEN"] = step["token"]
    slept.clear()
    out, err, names = io.StringIO(), io.StringIO(), {}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(step["words"]) if "words" in step else exec(step["code"], names)
        except Exception:
            traceback.print_exc()
            status = -1
    answer = {"status": status, "out": out.getvalue(), "err": err.getvalue(), "slept": list(slept)}
    print(json.dumps(answer | {"result": names.get("result")}), file=answers, flush=True)
"""


@dataclass
class Answer:
    status: int | None
    out: str
    err: str
    slept: list[float]
    result: object

    def failed(self, status: int) -> str:
        """The one line of an error."""
        assert self.status == status, (self.status, self.out, self.err)
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self.err
        return self.err


class Client:
    """A process that runs commands and code against the server, one after another. SENT: what a push of the model sends."""

    SENT = {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "configuration_tinygpt.py", "modeling_tinygpt.py", "README.md", "run.yaml",
    }  # fmt: skip

    def __init__(self, hub: HubServer, home: Path):
        self.hub, self.home, self.log = hub, home, home / "client.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_OFFLINE")},
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.work = home / "work"
        self.work.mkdir()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": open(self.log, "w")}
        words = [sys.executable, "-c", CLIENT]
        self.process = subprocess.Popen(words, **pipes, text=True, env=self.environment, cwd=self.work)

    def ask(self, token: str | None, **step) -> Answer:
        print(json.dumps({**step, "token": token}), file=self.process.stdin, flush=True)
        answer = Answer(**json.loads(self.process.stdout.readline()))
        for secret in TOKENS.values():
            assert secret not in answer.out + answer.err + self.log.read_text()
        return answer

    def run(self, *words, token: str | None = TOKENS["alice"]) -> Answer:
        return self.ask(token, words=list(map(str, words)))

    def push(self, model: Path, *words, name: str = "alice/tiny", **how) -> Answer:
        return self.run("push", model, "--hub_model_id", name, *words, **how)

    def code(self, code: str, token: str | None = TOKENS["alice"]):
        answer = self.ask(token, code=code)
        assert answer.status is None, answer.err
        return answer.result

    def forget_cache(self) -> None:
        shutil.rmtree(self.home / "cache" / "hub", ignore_errors=True)


@pytest.fixture(scope="module")
def server():
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="module")
def machine(server, tmp_path_factory):
    client = Client(server, tmp_path_factory.mktemp("hub"))
    yield client
    client.process.stdin.close()
    client.process.wait(timeout=60)


@pytest.fixture
def hub(server):
    server.calm()
    server.repositories.clear()
    server.objects.clear()
    return server


@pytest.fixture
def client(machine, hub):
    machine.forget_cache()
    for path in machine.work.iterdir():
        shutil.rmtree(path)
    return machine


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tiny_folder) -> Path:
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("model") / "tiny"))
    (folder / "README.md").write_text("---\ntags: [tiny]\n---\n# Tiny\n")
    (folder / "run.yaml").write_text("training:\n  max_steps: 4\n")
    (folder / "log.jsonl").write_text('{"step": 1, "samples": ["private text"]}\n')
    (folder / "run.json").write_text("{}\n")
    (folder / "checkpoint-4").mkdir()
    (folder / "checkpoint-4" / "optimizer.safetensors").write_bytes(b"x")
    return folder


@pytest.fixture
def model(model_folder, tmp_path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "tiny"))
