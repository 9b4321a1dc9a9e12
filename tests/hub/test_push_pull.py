"""Test push and pull against a small local server that can imitate failures of the Hub."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKENS

from tinygpt_hf.cards.render import write_card

pytest_plugins = ("hub_client",)

WITHOUT_US = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tinygpt_hf":
            raise ImportError("not on this machine")
sys.meta_path.insert(0, Blocked())
from transformers import pipeline
speak = pipeline("text-generation", model="alice/tiny", trust_remote_code=True, device="cpu")
said = speak("One day", max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
print(json.dumps([said, type(speak.model).__module__.split(".")[0]]))
"""


def linked(name: str):
    def link(model: Path) -> None:
        (model / name).rename(model / "elsewhere")
        (model / name).symlink_to(model / "elsewhere")

    return link


def with_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def without_config(model: Path) -> None:
    (model / "config.json").unlink()


def with_secret(model: Path) -> None:
    (model / "README.md").write_text("# x\nhf_" + "Zq" * 17)


PUSH = ["push", "{model}", "--hub_model_id"]
BAD = [
    ([*PUSH, "a/b/c"], None, "--hub_model_id is 'a/b/c'"),
    ([*PUSH, "me/my model"], None, "--hub_model_id is 'me/my model'"),
    ([*PUSH, "alice/tiny", "--revision", "a..b"], None, "(expected a branch"),
    ([*PUSH, "alice/tiny", "--also", "weights"], None, "(expected some of report, dataset, tokenizer, exports"),
    ([*PUSH, "alice/tiny"], linked("README.md"), "README.md is a link"),
    ([*PUSH, "alice/tiny"], linked("model.safetensors"), "model.safetensors is a link"),
    ([*PUSH, "alice/tiny"], with_pickle, "such files can run code"),
    ([*PUSH, "alice/tiny"], without_config, "holds no config.json"),
    ([*PUSH, "alice/tiny"], with_secret, "README.md holds a secret (line 2, after 'hf_')"),
    ([*PUSH, "alice/tiny"], "no token", "hf auth login` or set HF_TOKEN"),
    (["push", "no/such/folder", "--hub_model_id", "alice/tiny"], None, "no/such/folder does not exist"),
    (["push", "--hub_model_id", "alice/tiny"], None, "no MODEL is given"),
    (["push", "{model}"], None, "there is no --hub_model_id"),
    (["pull", "a/b/c"], None, "MODEL is 'a/b/c'"),
    (["pull"], None, "there is no MODEL"),
    (["pull", "alice/tiny", "--revision", "a..b"], None, "(expected a branch, tag or commit"),
    (["pull", "alice/tiny", "--output_dir", "."], None, "is the current folder"),
]


@pytest.mark.parametrize("words, damage, line", BAD, ids=lambda value: getattr(value, "__name__", str(value))[:40])
def test_invalid_requests_are_refused_before_anything_is_sent(client, hub, model, words, damage, line):
    if callable(damage):
        damage(model)
    token = None if damage == "no token" else TOKENS["alice"]
    answer = client.run(*(word.format(model=model) for word in words), token=token)
    assert line in answer.failed(2) and "Zq" not in answer.err and answer.out == ""
    assert hub.requests == [] and not (model / "hub.json").exists()


# There and back


def test_a_dry_run_says_what_a_push_sends_and_sends_nothing(client, hub, model):
    answer = client.push(model, "--dry_run", token=None)
    assert answer.status == 0 and hub.requests == []
    listed = dict(re.findall(r"^  (\S+)  +(\d\S* (?:bytes|KiB))$", answer.out, re.M))
    assert set(listed) == client.SENT
    assert listed["run.yaml"] == f"{(model / 'run.yaml').stat().st_size} bytes"
    assert "stays here: checkpoint-4, log.jsonl, run.json" in answer.out
    assert answer.out.endswith("nothing was sent (--dry_run)\n")


def test_push_push_again_and_pull(client, hub, model):
    answer = client.push(model)
    assert answer.status == 0 and answer.err == "", answer.err
    files = hub.files("alice/tiny")
    assert set(files) == client.SENT | {".gitattributes"}
    assert all(files[name] == (model / name).read_bytes() for name in client.SENT)
    commit = hub.commits("alice/tiny")[-1]["id"]
    assert f"{hub.endpoint}/alice/tiny: pushed as commit {commit}, the checksums of 10 files agree" in answer.out
    record = json.loads((model / "hub.json").read_text())
    assert record["pushed"]["alice/tiny@main"]["commit"] == commit
    assert not list(model.glob("tmp-*")) and not hub.repositories["models", "alice/tiny"].private

    uploads = hub.seen("PUT", "/upload/")
    assert client.push(model).status == 0
    assert len(hub.commits("alice/tiny")) == 2 and hub.seen("PUT", "/upload/") == uploads == 1

    pulled = client.run("pull", "alice/tiny", token=None)  # public: nobody needs to log in
    assert pulled.status == 0 and pulled.err == "", pulled.err
    folder = client.work / "tiny"
    assert {path.name for path in folder.iterdir()} == client.SENT | {"hub.json"}
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in client.SENT)
    assert json.loads((folder / "hub.json").read_text())["pulled"]["alice/tiny@main"]["commit"] == commit
    again = client.run("pull", "alice/tiny")
    assert "tiny exists already (expected a new or empty folder" in again.failed(2)


def test_a_push_deletes_the_files_of_an_older_model(client, hub, model):
    files = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}", "vocab.json": b"{}"}
    hub.put("alice/tiny", files | {"notes.txt": b"mine", "LICENSE": b"mine too"})
    assert client.push(model).status == 0
    assert set(hub.files("alice/tiny")) == client.SENT | {"notes.txt", "LICENSE"}


def test_a_branch_is_made_and_main_stays(client, hub, model):
    assert client.push(model).status == 0
    main = hub.files("alice/tiny")
    (model / "README.md").write_text("# Another\n")
    answer = client.push(model, "--revision", "trial/one")
    assert answer.status == 0 and "/alice/tiny/tree/trial/one: pushed as commit" in answer.out
    assert hub.files("alice/tiny") == main
    assert hub.files("alice/tiny", "trial/one")["README.md"] == b"# Another\n"
    commit = hub.repositories["models", "alice/tiny"].branches["trial/one"]
    for revision in ("trial/one", commit):
        target = client.work / revision.replace("/", "-")
        assert client.run("pull", "alice/tiny", "--revision", revision, "--output_dir", target).status == 0
        assert (target / "README.md").read_text() == "# Another\n"
    assert "no such revision" in client.run("pull", "alice/tiny", "--revision", "nowhere").failed(1)


def test_extras_have_their_own_repositories(client, hub, model):
    import pyarrow
    import pyarrow.parquet

    shutil.copytree(model, model / "exports" / "qwen3", ignore=lambda *_: ["exports", "checkpoint-4", "run.yaml"])
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (model / "exports" / "gguf").mkdir()
    (model / "exports" / "gguf" / "model.gguf").write_bytes(b"GGUF")
    (model / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, model / "tokenizer" / name)
    (model / "corpus" / "data").mkdir(parents=True)
    (model / "corpus" / "corpus.json").write_text(json.dumps(config))
    table = pyarrow.table({"text": ["One day", "a dog"]})
    pyarrow.parquet.write_table(table, model / "corpus" / "data" / "train-00000.parquet")
    answer = client.push(model, "--also", "dataset,tokenizer", "exports", "--private")
    assert answer.status == 0, answer.err
    names = {("models", f"alice/tiny{what}") for what in ("", "-tokenizer", "-qwen3", "-gguf")}
    assert set(hub.repositories) == names | {("datasets", "alice/tiny-data")}
    assert all(repository.private for repository in hub.repositories.values())
    assert set(hub.files("alice/tiny-data", kind="datasets")) == {
        ".gitattributes", "corpus.json", "data/train-00000.parquet",
    }  # fmt: skip
    assert set(hub.files("alice/tiny-gguf")) == {".gitattributes", "model.gguf"}
    assert "log.jsonl" not in hub.files("alice/tiny-qwen3") and "config.json" in hub.files("alice/tiny-qwen3")
    assert len(json.loads((model / "hub.json").read_text())["pushed"]) == 5


def test_a_corpus_is_pushed_in_any_format_and_its_old_shards_are_deleted(client, hub, model):
    (model / "corpus" / "data").mkdir(parents=True)
    (model / "corpus" / "corpus.json").write_text("{}")
    shards = [f"data/{name}.jsonl" for name in ("text-00000", "text-00001", "messages-00000", "turns-00000")]
    for shard in shards:
        (model / "corpus" / shard).write_text('{"text": "One day"}\n')
    assert client.push(model, "--also", "dataset").status == 0
    kept = {".gitattributes", "corpus.json", shards[0]}
    assert set(hub.files("alice/tiny-data", kind="datasets")) == kept | {*shards}
    for shard in shards[1:]:
        (model / "corpus" / shard).unlink()
    assert client.push(model, "--also", "dataset").status == 0
    assert set(hub.files("alice/tiny-data", kind="datasets")) == kept


def test_missing_extras_and_a_damaged_record_are_notes(client, hub, model):
    answer = client.push(model, "--also", "dataset,tokenizer,exports", "--dry_run")
    assert answer.status == 0 and len(re.findall("^note: ", answer.out, re.M)) == 3
    (model / "hub.json").write_text('{"pushed": []}')
    answer = client.push(model)
    assert answer.status == 0 and "hub.json could not be written" in answer.out, answer.err


def test_a_token_in_a_corpus_is_found_under_its_compression(client, hub, model):
    import pyarrow
    import pyarrow.parquet

    (model / "corpus" / "data").mkdir(parents=True)
    (model / "corpus" / "corpus.json").write_text("{}")
    table = pyarrow.table({"text": ["One day " * 100, f"a dog {TOKENS['alice']}"]})
    pyarrow.parquet.write_table(table, model / "corpus" / "data" / "train.parquet")
    answer = client.push(model, "--also", "dataset")
    assert "train.parquet holds a secret (it is a token or password that this process knows)" in answer.failed(2)
    assert hub.requests == []


# Who may


def test_who_may_read_and_write_a_private_model(client, hub, model):
    assert client.push(model, "--private").status == 0
    before = hub.commits("alice/tiny")[-1]["id"]
    assert hub.repositories["models", "alice/tiny"].private
    assert client.run("pull", "alice/tiny").status == 0
    shutil.rmtree(client.work / "tiny")
    client.forget_cache()
    for token, said in (
        (None, "or you have no access to it (401): check the name, or log in with `hf auth login` or set HF_TOKEN"),
        (TOKENS["bob"], "or you have no access to it (404)"),
        ("hf_" + "W" * 34, "does not accept your token (401): log in with `hf auth login` or set HF_TOKEN"),
    ):
        line = client.run("pull", "alice/tiny", token=token).failed(1)
        assert said in line and "run `tinygpt pull alice/tiny` again" in line and "WWW" not in line
    assert list(client.work.iterdir()) == []
    for token, said in (
        (TOKENS["bob"], "your token may not do this (403"),
        (TOKENS["reader"], "your token may not do this (403"),
        ("hf_" + "W" * 34, "does not accept your token (401)"),
    ):
        line = client.push(model, token=token).failed(1)
        assert said in line and f"the model is safe in {model}; run `tinygpt push {model}" in line
    assert hub.commits("alice/tiny")[-1]["id"] == before
    assert "(403" in client.push(model, name="carol/tiny").failed(1)


def test_a_private_push_refuses_a_public_repository(client, hub, model):
    hub.put("alice/tiny", {"README.md": b"# x"})
    assert "alice/tiny is already public on the Hub" in client.push(model, "--private").failed(1)
    assert len(hub.commits("alice/tiny")) == 1


def test_the_command_to_try_again_is_the_one_that_failed(client, hub, model):
    hub.fault("POST", "/repos/create", status=402)
    words = ["--private", "--revision", "trial", "--also", "tokenizer"]
    again = f"run `tinygpt push {model} --hub_model_id alice/tiny {' '.join(words)}` again"
    assert again in client.push(model, *words).failed(1)  # without --private it would be public
    line = client.run("pull", "alice/none", "--output_dir", "a b").failed(1)
    assert "run `tinygpt pull alice/none --output_dir 'a b'` again" in line


# A Hub that fails


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PASSES = [
    ("POST", "/repos/create", {"status": 503, "times": 2}, [1, 2]),
    ("POST", "/commit/", {"status": 503}, [1]),
    ("POST", "/commit/", {"harm": "cut"}, [1]),
    ("POST", "/commit/", {"status": 429, "headers": {"Retry-After": "7"}}, [7]),
    ("POST", "/preupload/", {"status": 500, "times": 3}, None),
    ("PUT", "/upload/", {"harm": "cut"}, None),
    ("PUT", "/upload/", {"status": 500, "times": 2}, None),
    ("GET", "/tree/", {"status": 502}, None),
]


@pytest.mark.parametrize(
    "method, path, fault, slept", PASSES, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_a_temporary_failure_is_retried(client, hub, model, method, path, fault, slept):
    hub.fault(method, path, **fault)
    answer = client.push(model)
    assert answer.status == 0 and hub.faults == [], answer.err
    assert slept is None or answer.slept == slept and answer.out.count("note: ") == len(slept)
    assert set(hub.files("alice/tiny")) == client.SENT | {".gitattributes"} and len(hub.commits("alice/tiny")) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(client, hub, model):
    hub.fault("POST", "/commit/", harm="html")  # it is made, and the answer makes no sense
    first = client.push(model)
    assert "unexpected response from the Hub" in first.failed(1)
    assert client.push(model).status == 0 and len(hub.commits("alice/tiny")) == 2


PAY = {"status": 402, "headers": {"X-Error-Message": "pay first"}}
LASTS = [
    ("POST", "/commit/", {"status": 503}, "the Hub answers 503"),
    ("POST", "/commit/", {"status": 429, "headers": {"Retry-After": "3600"}}, "the Hub answers 429"),
    ("PUT", "/upload/", {"harm": "cut"}, "the connection to http://127.0.0.1"),
    ("PUT", "/upload/", {"status": 500}, "the Hub answers 500"),
    ("POST", "/repos/create", PAY, "refuses it (402, pay first"),
]


@pytest.mark.parametrize(
    "method, path, fault, said", LASTS, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_a_permanent_failure_is_one_line_and_the_same_command_works_later(
    client, hub, model, method, path, fault, said
):
    hub.fault(method, path, times=10**6, **fault)
    (model / "README.md").unlink()  # so that push makes a card
    (model / "run.json").write_text('{"chat": false}')
    write_card(model)
    before = contents(model)
    client.push(model, "--dry_run")
    line = client.push(model).failed(1)
    assert said in line and f"safe in {model}; run `tinygpt push {model} --hub_model_id alice/tiny` again" in line
    assert "secretsignature" not in line + client.log.read_text()
    assert len(hub.repositories) == 0 or len(hub.commits("alice/tiny")) == 1  # nothing, or what create made
    assert contents(model) == before
    hub.calm()
    assert client.push(model).status == 0 and len(hub.commits("alice/tiny")) == 2
    assert 'model="alice/tiny"' in (model / "README.md").read_text()
    assert hub.files("alice/tiny")["README.md"] == (model / "README.md").read_bytes()
    assert contents(model).keys() - before.keys() == {"hub.json"}


def test_a_card_the_hub_does_not_take_is_named(client, hub, model):
    (model / "README.md").write_text("---\nlicense: [x]\n---\n")
    said = 'refuses the card: Invalid metadata in README.md. - "license" must be a string'
    assert said in client.push(model).failed(1)


def test_a_hub_that_stored_other_bytes_is_found_out(client, hub, model):
    weights = (model / "model.safetensors").read_bytes()
    hub.objects[hashlib.sha256(weights).hexdigest()] = weights[:-1] + bytes([weights[-1] ^ 1])
    assert "model.safetensors on the Hub differs from the file that was sent" in client.push(model).failed(1)


PULL_PASSES = [
    ("GET", "/revision/", {"status": 503}),
    ("GET", "/tree/", {"status": 500}),
    ("HEAD", "/resolve/", {"harm": "cut"}),
    ("HEAD", "/resolve/", {"status": 503}),
    ("GET", "/resolve/", {"status": 503}),
    ("GET", "/cdn/", {"status": 503}),
    ("GET", "/cdn/", {"harm": "cut"}),
    ("GET", "/cdn/", {"harm": "shorten"}),
    ("GET", "/cdn/", {"harm": "html"}),
    ("GET", "/cdn/", {"harm": "flip"}),
    ("GET", "/resolve/.*/tokenizer.json", {"harm": "flip"}),
    ("GET", "/revision/", {"status": 429, "headers": {"Retry-After": "9"}}),
]


@pytest.mark.parametrize(
    "method, path, fault", PULL_PASSES, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_a_pull_ends_with_the_bytes_of_the_hub(client, hub, model_folder, method, path, fault):
    hub.put("alice/tiny", {name: (model_folder / name).read_bytes() for name in client.SENT})
    hub.fault(method, path, **fault)
    answer = client.run("pull", "alice/tiny")
    assert answer.status == 0 and hub.faults == [], answer.err
    assert all((client.work / "tiny" / name).read_bytes() == (model_folder / name).read_bytes() for name in client.SENT)
    assert ("fetching once more" in answer.out) == (fault.get("harm") == "flip")
    assert fault.get("status") != 429 or answer.slept == [9]


def test_a_download_damaged_twice_writes_nothing(client, hub, model_folder):
    hub.put("alice/tiny", {name: (model_folder / name).read_bytes() for name in client.SENT})
    hub.fault("GET", "/cdn/", harm="flip", times=10**6)
    line = client.run("pull", "alice/tiny").failed(1)
    assert "model.safetensors had a wrong checksum twice; nothing was written" in line
    assert list(client.work.iterdir()) == []


def test_a_flipped_byte_in_the_cache_is_repaired(client, hub, model_folder):
    hub.put("alice/tiny", {name: (model_folder / name).read_bytes() for name in client.SENT})
    hub.fault("GET", "/cdn/", harm="flip")
    fetch = "from huggingface_hub import snapshot_download; result = snapshot_download('alice/tiny')"
    damaged, good = Path(client.code(fetch)) / "model.safetensors", (model_folder / "model.safetensors").read_bytes()
    assert damaged.read_bytes() != good  # it does not notice
    assert "fetching once more" in client.run("pull", "alice/tiny").out
    assert damaged.read_bytes() == (client.work / "tiny" / "model.safetensors").read_bytes() == good


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:evil", "a//b", "x\ny"])
def test_file_names_outside_the_folder_are_refused(client, hub, name):
    hub.put("alice/tiny", {"config.json": b"{}"})
    hub.lies.append({"type": "file", "path": name, "size": 2, "oid": "0" * 40})
    line = client.run("pull", "alice/tiny").failed(1)
    assert "do not trust it; nothing was written" in line
    assert list(client.work.iterdir()) == [] and hub.seen("GET", "/resolve/") == 0
    assert not [path for path in client.home.rglob("evil*")]


def test_files_that_can_run_code_when_they_are_read_stay_there(client, hub):
    files = {
        "config.json": b"{}",
        "pytorch_model.bin": b"P",
        "deep/training_args.BIN": b"P",
        "x.pkl": b"P",
        ".hidden": b"h",
    }
    hub.put("alice/tiny", files | {"deep/notes.txt": b"n", "hub.json": b"{}"})
    answer = client.run("pull", "alice/tiny")
    assert (
        "not fetched, because such files can run code: pytorch_model.bin, deep/training_args.BIN, x.pkl" in answer.out
    )
    assert "hub.json" not in answer.out
    folder = client.work / "tiny"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "config.json", "deep/notes.txt", "hub.json",
    }  # fmt: skip


def test_an_unreachable_hub_is_one_line(client, hub):
    code = """
import contextlib, io
from huggingface_hub import constants
import huggingface_hub.hf_api as api
from tinygpt_hf.cli import main
known, api.constants.ENDPOINT = api.constants.ENDPOINT, "http://127.0.0.1:9"
err = io.StringIO()
with contextlib.redirect_stderr(err):
    status = main(["pull", "alice/tiny"])
api.constants.ENDPOINT = known
result = [status, err.getvalue()]
"""
    status, line = client.code(code)
    assert status == 1 and line.count("\n") == 1
    assert "the connection to http://127.0.0.1:9 fails (ConnectError" in line and "nothing was written" in line


# Other people


def test_the_stock_client_verifies_what_was_pushed(client, hub, model):
    assert client.push(model).status == 0
    code = """
from huggingface_hub import HfApi, snapshot_download
snapshot_download("alice/tiny")
verified = HfApi().verify_repo_checksums("alice/tiny")
result = [verified.checked_count, len(verified.mismatches), len(verified.missing_paths), HfApi().list_repo_files("alice/tiny")]
"""
    *counts, files = client.code(code)
    assert counts == [11, 0, 0] and set(files) == client.SENT | {".gitattributes"}


GREEDY = """
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained({0!r}), AutoTokenizer.from_pretrained({0!r})
ids = tokenizer("One day", return_tensors="pt")
made = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1]:]
result = [tokenizer.decode(made), type(model).__module__]
"""


def test_it_says_the_same_with_our_package_and_without_and_offline(client, hub, model):
    assert client.push(model, "--private").status == 0
    here, _ = client.code(GREEDY.format(str(model)))
    there, module = client.code(GREEDY.format("alice/tiny"))
    assert there == here and module.startswith("tinygpt_hf.")

    environment = client.environment | {"HF_TOKEN": TOKENS["alice"], "HF_HOME": str(client.home / "another")}
    words = [sys.executable, "-c", WITHOUT_US]
    done = subprocess.run(words, env=environment, cwd=client.work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [here, "transformers_modules"]

    environment = client.environment | {"HF_HUB_OFFLINE": "1"}
    generate = ["generate", "alice/tiny", "--prompt", "One day", "--temperature", "0", "--max_new_tokens", "12"]
    commands = [generate, ["pull", "alice/tiny"], ["push", str(model), "--hub_model_id", "alice/tiny"]]
    code = (
        "import json, sys; from tinygpt_hf.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"
    )
    words, before = [sys.executable, "-c", code, json.dumps(commands)], len(hub.requests)
    done = subprocess.run(words, env=environment, cwd=client.work, capture_output=True, text=True, check=True)
    assert here.split("<|")[0].strip() in done.stdout and done.stdout.endswith("[0, 1, 2]\n")
    pulled, pushed = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all("offline mode is on (HF_HUB_OFFLINE)" in line for line in (pulled, pushed))
    assert len(hub.requests) == before
