"""The front door: exit statuses, one line per error, tracebacks only for those who ask."""

import io
import subprocess
import sys

import pytest

from tinygpt_hf import __version__, cli
from tinygpt_hf.commands import COMMANDS, Command, tell
from tinygpt_hf.errors import Interrupted, RunError, UsageError, UsageErrors
from tinygpt_hf.settings.arguments import DataArguments


@pytest.fixture
def command(monkeypatch):
    """A command `fake` that does what the test says."""

    def install(function):
        monkeypatch.setitem(COMMANDS, "fake", Command("fails", (DataArguments,), function, "tinygpt fake"))

    return install


def failing(error):
    def run(settings):
        raise error

    return run


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("\n") and err.count("\n") == 1
    return err.rstrip("\n")


def test_help_and_version(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        out, err = capsys.readouterr()
        assert err == "" and all(f"  {name} " in out for name in COMMANDS)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tinygpt_hf {__version__}\n"


def test_the_words_of_the_shell_are_the_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tinygpt", "--version"])
    assert cli.main() == 0 and __version__ in capsys.readouterr().out


def test_an_unknown_command_gets_the_nearest_name(capsys):
    assert cli.main(["trian"]) == 2
    assert one_line(capsys) == "error: unknown command 'trian'; did you mean train?; see tinygpt --help"
    assert cli.main(["\x1b[31mzz"]) == 2
    line = one_line(capsys)
    assert "one of quickstart, prepare-corpus, train-tokenizer," in line and "\x1b" not in line


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("seen", "wanted", "do"), 2, "error: seen; wanted; do"),
        (RunError("the disk broke"), 1, "error: the disk broke"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (MemoryError(), 1, "error: MemoryError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("stopped, saved", 2), 130, "stopped, saved"),
        (Interrupted("stopped, saved", 15), 143, "stopped, saved"),
        (ZeroDivisionError("our\nown"), 1, "error: ZeroDivisionError: our\\nown; this is a fault of tinygpt_hf"),
    ],
)
def test_every_end_has_its_status_and_one_line(command, capsys, error, status, line):
    command(failing(error))
    assert cli.main(["fake"]) == status
    assert one_line(capsys).startswith(line)


def test_several_mistakes_are_a_line_each(command, capsys):
    command(failing(UsageErrors([UsageError("a\nb", "c", "d"), UsageError("e", "f", "g")])))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "error: a\\nb; c; d\nerror: e; f; g\n"


def test_names_from_files_cannot_drive_the_terminal(command, capsys):
    name = "a\x1b[2J\r\n\x07\u202e\x9b\udcff é四"
    command(failing(UsageError(f"{name} does not exist", "a file", "check it")))
    assert cli.main(["fake"]) == 2
    line = one_line(capsys)
    assert line.isprintable()
    assert line == r"error: a\x1b[2J\r\n\x07\u202e\x9b\udcff é四 does not exist; a file; check it"


def test_a_status_of_a_command_is_passed_on(command):
    command(lambda settings: 3)
    assert cli.main(["fake"]) == 3
    command(lambda settings: None)
    assert cli.main(["fake"]) == 0


@pytest.mark.parametrize(
    ("error", "status"), [(UsageError("a", "b", "c"), 2), (RunError("a"), 1), (ValueError("a"), 1)]
)
def test_debug_shows_the_traceback_and_keeps_the_status(command, capsys, error, status):
    command(failing(error))
    for words in (["fake", "--debug"], ["--debug", "fake"]):
        assert cli.main(words) == status
        err = capsys.readouterr().err
        assert err.startswith("Traceback (most recent call last):") and "in failing" not in err.splitlines()[-1]
        assert type(error).__name__ in err and err.splitlines()[-1].startswith("error: ")


def test_settings_reach_the_command(command):
    seen = []
    command(lambda settings: seen.append(settings[DataArguments].block_size))
    assert cli.main(["fake", "--block-size", "7"]) == 0 and seen == [7]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train"], "error: there is no --output_dir"),
        (["train", "--output_dir", "x", "--max_steps", "1", "--vocab_size", "300"], "error: there is no text to read"),
        (["train", "--output_dir", "x"], "error: there is no text to read"),
        (["train", "--lerning_rate", "1"], "error: unknown setting --lerning_rate; did you mean --learning_rate?"),
        (["train", "--config", "none.yaml"], "error: --config none.yaml does not exist"),
        (["train-tokenizer", "--train_file", "none.txt", "--output_dir", "x"], "error: none.txt does not exist"),
        (
            ["train-tokenizer", "--train_file", "none.txt", "--output_dir", "x", "--vocab_size", "3"],
            "error: --vocab_size is 3",
        ),
        (["evaluate", "nowhere"], "error: there is no --data"),
        (
            ["evaluate", "nowhere", "--data", "x", "--output_file", "no/x.json"],
            "error: --output_file no/x.json lies in",
        ),
        (["chat", "a", "b"], "error: unexpected word 'b'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert one_line(capsys).startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]], ids=["less than a buffer", "more"])
def test_a_reader_that_leaves_is_no_error(words):
    reader = subprocess.Popen(
        [sys.executable, "-m", "tinygpt_hf.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    reader.stdout.close()
    assert reader.stderr.read() == b""
    assert reader.wait(250) == 0


def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tinygpt_hf.cli", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=250,
        )
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_what_the_encoding_of_the_output_lacks_is_a_sign(command, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252"))
    command(lambda settings: tell("é四"))
    assert cli.main(["fake"]) == 0
    assert written.getvalue().split() == ["é?".encode("cp1252")]


def test_a_terminal_without_unicode_is_no_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tinygpt_hf.cli", "train", "--config", "é四.yaml"],
        env={"PATH": "", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        cwd=tmp_path,
        timeout=250,
    )
    assert done.returncode == 2 and done.stderr.startswith(b"error: --config ") and done.stderr.count(b"\n") == 1
