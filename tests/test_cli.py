"""The command line: exit statuses, one line per error, tracebacks only with --debug."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from tinygpt_hf import __version__, cli
from tinygpt_hf.commands import COMMANDS, Command, tell
from tinygpt_hf.errors import Interrupted, RunError, UsageError, UsageErrors
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.inference import EvaluateArguments, GenerateArguments


@pytest.fixture
def command(monkeypatch):
    """Register a command `fake` whose function the test sets."""

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


def test_an_unknown_command_gets_the_nearest_name(capsys):
    assert cli.main(["trian"]) == 2
    assert one_line(capsys).startswith("error: unknown command 'trian' (expected one of")
    assert cli.main(["\x1b[31mzz"]) == 2
    line = one_line(capsys)
    assert "one of quickstart, prepare-corpus, train-tokenizer," in line and "\x1b" not in line


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("a problem", "something", "do it"), 2, "error: a problem (expected something). Do it."),
        (RunError("the disk broke"), 1, "error: the disk broke"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (MemoryError(), 1, "error: MemoryError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("stopped, saved", 2), 130, "stopped, saved"),
        (Interrupted("stopped, saved", 15), 143, "stopped, saved"),
        (ZeroDivisionError("our\nown"), 1, "error: ZeroDivisionError: our\\nown; this is a bug in tinygpt_hf"),
    ],
)
def test_every_error_has_its_status_and_one_line(command, capsys, error, status, line):
    command(failing(error))
    assert cli.main(["fake"]) == status
    assert one_line(capsys).startswith(line)


def test_several_errors_are_a_line_each(command, capsys):
    command(failing(UsageErrors([UsageError("a\nb", "c", "d"), UsageError("e", "f", "g")])))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "error: a\\nb (expected c). D.\nerror: e (expected f). G.\n"


def test_names_from_files_cannot_drive_the_terminal(command, capsys):
    name = "a\x1b[2J\r\n\x07\u202e\x9b\udcff é四"
    command(failing(UsageError(f"{name} does not exist", "a file", "check it")))
    assert cli.main(["fake"]) == 2
    line = one_line(capsys)
    assert line.isprintable()
    assert line == r"error: a\x1b[2J\r\n\x07\u202e\x9b\udcff é四 does not exist (expected a file). Check it."


@pytest.mark.parametrize(("error", "status"), [(UsageError("a", "b", "c"), 2), (ValueError("a"), 1)])
def test_debug_shows_the_traceback_and_keeps_the_status(command, capsys, error, status):
    command(failing(error))
    for words in (["fake", "--debug"], ["--debug", "fake"]):
        assert cli.main(words) == status
        err = capsys.readouterr().err
        assert err.startswith("Traceback (most recent call last):") and "in failing" not in err.splitlines()[-1]
        assert type(error).__name__ in err and err.splitlines()[-1].startswith("error: ")


def test_settings_reach_the_command_and_its_status_is_passed_on(command):
    command(lambda settings: settings[DataArguments].block_size)
    assert cli.main(["fake", "--block-size", "7"]) == 7


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train", "there is no --output_dir"),
        ("train --output_dir x", "there is no text to read"),
        ("train --lerning_rate 1", "unknown setting --lerning_rate"),
        ("train --config none.yaml", "--config none.yaml does not exist"),
        ("train-tokenizer --train_file none.txt --output_dir x", "none.txt does not exist"),
        ("train-tokenizer --train_file none.txt --output_dir x --vocab_size 3", "--vocab_size is 3"),
        ("evaluate nowhere", "there is no --data"),
        ("evaluate nowhere --data x --output_file no/x.json", "--output_file no/x.json lies in"),
        ("chat a b", "unexpected word 'b'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    assert one_line(capsys).startswith(f"error: {line}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]], ids=["less than a buffer", "more"])
def test_a_closed_pipe_is_no_error(words):
    command = [sys.executable, "-m", "tinygpt_hf.cli", *words]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader.stdout.close()
    assert reader.stderr.read() == b""
    assert reader.wait(250) == 0


def test_a_full_disk_behind_stdout_is_one_line():
    command = [sys.executable, "-m", "tinygpt_hf.cli", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the standard output cannot be written (No space left on device)\n"


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["train", "--config", "é四.yaml"], 2)])
def test_streams_that_are_missing_or_ascii_change_no_status(words, status, tmp_path):
    command = [sys.executable, "-m", "tinygpt_hf.cli", *words]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(shell, cwd=tmp_path).returncode == status
    ascii_only = {"PATH": "", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    assert subprocess.run(command, env=ascii_only, cwd=tmp_path, capture_output=True).returncode == status


@contextlib.contextmanager
def nobody(kind: str, monkeypatch):
    """A standard output that cannot be written."""
    if kind == "full":
        stream = open("/dev/full", "w")
    else:
        reader, writer = os.pipe()
        os.close(reader)
        stream = open(writer, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield
    stream.close()  # raises if the buffer still holds text


@pytest.mark.parametrize("kind", ["reader left", "full"])
def test_unwritable_report_output_does_not_stop_the_command(command, kind, monkeypatch):
    done = []

    def run(settings):
        tell("a line")
        print("another" * 10_000)
        done.append(True)
        return 7

    command(run)
    with nobody(kind, monkeypatch):
        assert cli.main(["fake"]) == 7 and done == [True]


@pytest.mark.parametrize(("kind", "status"), [("reader left", 0), ("full", 1)])
def test_unwritable_product_output_ends_the_command(kind, status, monkeypatch):
    done = []

    def run(settings):
        tell("a line")
        done.append(True)

    fake = Command("prints", (DataArguments,), run, "tinygpt fake", prints_result=True)
    monkeypatch.setitem(COMMANDS, "fake", fake)
    with nobody(kind, monkeypatch):
        assert cli.main(["fake"]) == status and not done


def test_the_standard_output_is_the_product_where_no_file_is_named():
    for name, group in (("generate", GenerateArguments), ("evaluate", EvaluateArguments)):
        assert COMMANDS[name].stdout_is_product({group: group()})
        assert not COMMANDS[name].stdout_is_product({group: group(output_file="x")})


def test_another_broken_pipe_is_a_failure(command, capsys):
    command(failing(BrokenPipeError(32, "Broken pipe")))
    assert cli.main(["fake"]) == 1
    assert one_line(capsys) == "error: a process or a connection ended early ([Errno 32] Broken pipe)"


def test_characters_outside_the_output_encoding_are_replaced(command, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252"))
    command(lambda settings: tell("é四"))
    assert cli.main(["fake"]) == 0
    assert written.getvalue().split() == ["é?".encode("cp1252")]
