"""Hostile settings and names: one line and a status, nothing executed, bounded time and memory, and no secret written."""

import os
import tracemalloc

import pytest

from tinygpt_hf import cli
from tinygpt_hf.commands import COMMANDS, Command
from tinygpt_hf.errors import UsageError, printable, redacted
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.parsing import LARGEST_FILE, load_yaml
from tinygpt_hf.training.log import Console, RunLog, read_log

# Put together here, so that no scanner takes this file for a leak.
HF = "hf" + "_" + "AbCdEfGhIj" * 3 + "Klmn"
OPENAI = "sk" + "-proj-" + "a1B2c3D4e5" * 4
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "gh" + "p_" + "x9Y8z7W6v5" * 4
SLACK = "xox" + "b-123456789012-abcdefABCDEF"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
UNMARKED = "d41d8cd98f00b204"  # a secret only its place tells


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.rstrip("\n").isprintable()
    return err


# Settings.

YAML = {
    "object": ("training: !!python/object/apply:os.system ['touch EXECUTED']\n", "tags"),
    "name": ("!!python/name:os.system\n", "tags"),
    "binary": ("training: !!binary aaaa\n", "tags"),
    "many tags": ("a: " + "!" * 99_999, "tags"),
    "merge": ("training: {<<: {seed: 1}, max_steps: 2}\n", "merge keys"),
    "twice, where": ("training:\n  seed: 1\n  seed: 2\n", "line 3: the key 'seed' is given twice"),
    "a bomb of aliases": ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "line 2: aliases"),
    "a list for a key": ("? [a, b]\n: 1\n", "a key is not a word"),
    "open bracket": ("training: {seed: 1\n", "is not valid YAML"),
    "tab": ("\ttraining: 1\n", "is not valid YAML"),
    "two documents": ("training: {}\n---\ndata: {}\n", "is not valid YAML"),
    "list": ("- training\n", "holds a list"),
    "words": ("just words\n", "holds a str"),
    "utf-16": ("training: {seed: 1}\n".encode("utf-16"), "cannot be read"),
    "bytes": (bytes(range(256)), "cannot be read"),
    "twice in a list": ("data: {sources: [{weight: 1, weight: 2}]}\n", "given twice"),
    "long key twice": ("{" + "k" * 900 + ": 1, " + "k" * 900 + ": 2}\n", "given twice"),
    "huge number": ("training: {seed: " + "9" * 100_000 + "}\n", "is not valid YAML"),
    "huge power": ("training: {seed: 1e999999999}\n", "seed is"),
    "deep flow": ("[" * 10**5, "nested too deeply"),
    "deep keys": ("? " * 10**5, "nested too deeply"),
    "many values": ("a: [" + "1," * 100_000 + "]", "more than 10000 values"),
    "large": ("#" + "x" * LARGEST_FILE, "too large"),
    "NUL": ("training: {seed: \0}\n", "is not valid YAML"),
    "escaped surrogate": ('data: {dataset_name: "\\ud800"}\n', "is not valid YAML"),
    "latin-1": (b"data: {dataset_name: caf\xe9}\n", "cannot be read"),
    "escapes in a key": ('training: {"\\e[2J\\r\\n": 1}\n', r"training.\x1b[2J\r\n is not a setting"),
    "escapes in a section": ('"\\e]0;x\\a": {}\n', r"\x1b]0;x\x07"),
    "escapes in a value": ('training: {seed: "\\e[2J"}\n', r"\x1b[2J"),
    "escapes bare": ("training: {seed: \x1b[2J}\n", "is not valid YAML"),
    "NUL in a name": ('training: {output_dir: "a\\0b"}\n', "a name without NUL"),
    "long value": ("training: {seed: " + "x" * 99_999 + "}\n", "xxx…"),
    "long section": ("data: [" + "'x'," * 9000 + "]\n", "(expected a mapping"),
}


@pytest.mark.timeout(120)  # seconds of the machine at its slowest; what hangs would take hours
@pytest.mark.parametrize(("text", "words"), YAML.values(), ids=YAML)
def test_a_hostile_settings_file_is_one_line_at_once_and_runs_nothing(text, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cli.main(["train", "--config", "c.yaml"]) == 2
    line = one_line(capsys)
    assert words in line and len(line) < 1000
    assert os.listdir(tmp_path) == ["c.yaml"]


def test_fifty_megabytes_and_an_endless_device_are_refused_before_they_are_read(tmp_path, capsys):
    with open(tmp_path / "c.yaml", "wb") as file:
        file.truncate(50 * 2**20)
    for path in (str(tmp_path / "c.yaml"), "/dev/zero", "/dev/urandom"):
        tracemalloc.start()
        assert cli.main(["train", "--config", path]) == 2
        assert tracemalloc.get_traced_memory()[1] < 8 * LARGEST_FILE
        tracemalloc.stop()
        assert "is too large for a settings file" in one_line(capsys)


def test_what_is_ours_may_be_large(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data:\n  train_file:\n" + "".join(f"  - {'x' * 60}{k}.txt\n" for k in range(10_001)))
    assert len(load_yaml(str(path), bounded=False)["data"]["train_file"]) == 10_001
    with pytest.raises(UsageError, match="too large"):
        load_yaml(str(path))


# Secrets.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"the token {HF} is", "the token hf_<redacted> is"),
        (f"runs/{HF}/x", "runs/hf_<redacted>/x"),
        (f"{OPENAI},{GITHUB}", "sk-<redacted>,ghp_<redacted>"),
        (f"({AWS})", "(AKIA<redacted>)"),
        (SLACK, "xoxb-<redacted>"),
        (f"a {KEY} b", "a -----BEGIN RSA PRIVATE KEY-----<redacted>-----END RSA PRIVATE KEY----- b"),
        (KEY[:40], "-----BEGIN RSA PRIVATE KEY-----<redacted>"),
        (f"https://me:{UNMARKED}@host/a.txt", "https://<redacted>@host/a.txt"),
        (f"https://me:a@{UNMARKED}@host/a", "https://<redacted>@host/a"),
        (f"https://host/a?x=1&token={UNMARKED}&y=2#z", "https://host/a?x=1&token=<redacted>&y=2#z"),
        (f"s3://b/a?X-Amz-Signature={UNMARKED}", "s3://b/a?X-Amz-Signature=<redacted>"),
        (f"Authorization: Basic {UNMARKED}", "Authorization: Basic <redacted>"),
        (f"{{'authorization': 'Bearer {UNMARKED}'}}", "{'authorization': 'Bearer <redacted>'}"),
        (f"HF_TOKEN={UNMARKED} tinygpt", "HF_TOKEN=<redacted> tinygpt"),
    ],
)
def test_a_secret_is_hidden_and_what_is_around_it_stays(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown
    assert redacted({"k": [text, 1, None, {"n": (text,)}]}) == {"k": [shown, 1, None, {"n": [shown]}]}


@pytest.mark.parametrize(
    "text",
    [
        "runs/tinygpt_hf_benchmarks_results_2024/checkpoint-100",
        "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/a.txt?download=true",
        "a" * 64,
        "sk-learn and the task-oriented-dialogue-corpus-2024.txt; risk-averse",
        "bytes per token on 5 held-out bytes: 1.0  tokens 7  token: 5",
        "http://127.0.0.1:8000/v1 me@host.org author: me; password is wanted",
        "1 x 2 = <|endoftext|>",
        "ssh host: key 5",
    ],
)
def test_ordinary_words_stay(text):
    assert redacted(text) == text


def test_what_the_environment_calls_a_secret_is_one(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", UNMARKED)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "truetrue")
    assert redacted(f"key {UNMARKED} truetrue") == "key <redacted> truetrue"


@pytest.mark.timeout(120)  # a pattern that backtracks takes hours
@pytest.mark.parametrize("part", ["a", "://", "?token", "sk-a-", "A_", "-----BEGIN A"])
def test_redacting_a_long_text_is_quick(part):
    redacted(part * (400_000 // len(part)))


@pytest.fixture
def training(tmp_path, tiny_text, monkeypatch):
    """A run with a secret in every place a user can put one: (words of the command, run folder)."""
    monkeypatch.setenv("HF_TOKEN", UNMARKED)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / HF
    folder.mkdir()
    (folder / f"{OPENAI}.txt").write_text(tiny_text * 8)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"# {GITHUB}\n"
        "model: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}\n"
        f"data: {{train_file: ['{folder / OPENAI}.txt'], block_size: 16}}\n"
        "tokenizer: {tokenizer_type: bpe, vocab_size: 280}\n"
        f"training: {{max_steps: 2, device: cpu, sample_tokens: 2, sample_prompts: ['https://u:{UNMARKED}@h {SLACK} {AWS}']}}\n"
    )
    run = tmp_path / f"run-{GITHUB}"
    return ["train", "--config", str(config), "--output_dir", str(run)], run


SECRETS = (HF, OPENAI, AWS, GITHUB, SLACK, UNMARKED)


def leaks(text: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in text]


def test_no_secret_reaches_a_run_folder_or_the_terminal(training, capsys, monkeypatch):
    words, run = training
    monkeypatch.setattr("sys.argv", ["tinygpt", *words])
    longer = ["--max_steps", "3", "--learning_rate", "1e-3"]
    for more, told in (([], None), (longer, {"learning_rate 0.032 -> 0.001", "max_steps 2 -> 3"}), (longer, None)):
        assert cli.main([*words, *more]) == 0
        out, err = capsys.readouterr()
        assert not leaks((out + err).encode())
        notes = [line for line in err.splitlines() if line.startswith("note: resumed with other settings: ")]
        assert [set(note.split(": ")[2].split(", ")) for note in notes] == ([told] if told else [])
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {"run.yaml", "run.json", "log.jsonl", "report.json"} <= {path.name for path in files}
    for path in files:
        assert not leaks(path.read_bytes()) and not leaks(str(path.relative_to(run)).encode()), path
    assert "hf_<redacted>" in (run / "run.yaml").read_text() and "ghp_<redacted>" in (run / "run.json").read_text()
    assert load_yaml(str(run / "run.yaml"))["training"]["sample_prompts"] == [
        "https://<redacted>@h xoxb-<redacted> AKIA<redacted>"
    ]


def test_no_secret_reaches_the_log(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.write({"step": 1, "loss": float("nan"), "samples": [{"prompt": HF, "text": f"{AWS} {SLACK}"}]})
    (line,) = read_log(tmp_path / "log.jsonl")
    assert line["samples"] == [{"prompt": "hf_<redacted>", "text": "AKIA<redacted> xoxb-<redacted>"}]


def test_no_secret_reaches_an_error_or_its_traceback(training, capsys, monkeypatch):
    words, run = training

    def fail(settings):
        raise ValueError(f"401 for {os.environ['HF_TOKEN']} at https://hub?token={HF}")

    monkeypatch.setitem(COMMANDS, "fake", Command("fails", (DataArguments,), fail, "tinygpt fake"))
    train = ["train", "--max_steps", "1", "--vocab_size", "300", "--output_dir"]
    for command in (
        ["fake"],
        [*train, str(run), "--dataset_name", f"nobody/{HF}"],
        [*train, "x", "--train_file", f"https://u:{UNMARKED}@h/{HF}/a.xyz"],
        ["chat", f"./{HF}"],
        ["evaluate", f"https://u:{UNMARKED}@h", "--data", OPENAI],
        ["train", "--config", f"{AWS}.yaml"],
        ["train", f"--{HF}", "1"],
        [GITHUB],
        ["train", "--seed", OPENAI],
    ):  # fmt: skip
        for debug in ([], ["--debug"]):
            assert cli.main([*command, *debug]) in (1, 2)
            out, err = capsys.readouterr()
            assert "redacted" in err and not leaks((out + err).encode())
            assert debug or err.count("\n") == 1
            assert ("Traceback" in err) == bool(debug)


# Names.


def test_what_a_run_says_cannot_drive_the_terminal(capsys):
    Console().say("note: \x1b[2J\r\x07\x9b\u202e é\nsecond line")
    out, err = capsys.readouterr()
    assert out == "" and err == r"note: \x1b[2J\r\x07\x9b\u202e é" + "\nsecond line\n"
    assert printable("\ud800\x7f") == r"\ud800\x7f"


def test_names_with_escape_sequences_are_shown_as_escapes(tmp_path, tiny_text, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "a\x1b[2J\x07b"
    (tmp_path / f"{name}.txt").write_text(tiny_text * 8)
    (tmp_path / name).mkdir()
    words = ["train-tokenizer", "--train_file", f"{name}.txt", "--tokenizer_type", "byte", "--output_dir", f"o{name}"]
    for command, status in (
        (words, 0),
        (words, 2),
        (["train-tokenizer", "--train_file", name, "--vocab_size", "300", "--output_dir", "x"], 2),
        (["train-tokenizer", "--dataset_name", name, "--vocab_size", "300", "--output_dir", "x"], 2),
        (["chat", name], 2),
        (["chat", f"./{name}/none"], 2),
        (["evaluate", "x", "--data", name], 2),
        (["train", "--config", name], 2),
        (["train", f"--{name}"], 2),
        (["train", "--output_dir", name + "\n", "--train_file", "none.txt", "--vocab_size", "300", "--max_steps", "1"], 2),
        ([name], 2),
    ):  # fmt: skip
        assert cli.main(command) == status, command
        out, err = capsys.readouterr()
        assert (out + err).replace("\n", "").isprintable() and (out + err)
        assert status == 0 or err.count("\n") == 1
