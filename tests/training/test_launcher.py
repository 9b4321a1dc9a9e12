"""Launchers: the number of processes requested, dead launchers, stale environment variables, and signals."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from test_recipe import DATA, MODEL, TOKENIZER, TRAINING

from tinygpt_hf.errors import Interrupted, RunError
from tinygpt_hf.training import launcher, recipe, signals
from tinygpt_hf.training.signals import Interruption

ALONE = SimpleNamespace(num_processes=1, device="cpu")


@pytest.fixture
def parent(monkeypatch):
    def command(*words):
        monkeypatch.setattr("psutil.Process.cmdline", lambda self: list(words))

    return command


@pytest.mark.parametrize(
    "words,asked",
    [
        ("python /usr/bin/accelerate launch --cpu --num_processes 2 run_clm.py", 2),
        ("python /usr/bin/accelerate launch --num_processes=8 --num_machines 2 run_clm.py", 8),
        ("python -m accelerate.commands.launch --num_processes 3 x.py", 3),
        ("/venv/bin/python /venv/bin/torchrun --nproc_per_node 4 x.py", 4),
        ("torchrun --nnodes 2 --nproc-per-node=4 x.py", 8),
        ("torchrun --nnodes 1:4 --nproc_per_node 4 x.py", None),
        ("python -m torch.distributed.run --nproc_per_node gpu x.py", None),
        ("torchrun x.py", None),
        ("python train_all.py --num_processes 2", None),
        ("", None),
    ],
)
def test_the_number_of_processes_is_read_from_the_launcher_command(parent, words, asked, monkeypatch, tmp_path):
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "none.yaml"))
    parent(*words.split())
    assert launcher.requested_processes() == asked
    parent("bash", "-c", words)  # a shell that started a launcher is not a launcher
    assert launcher.requested_processes() is None


@pytest.mark.parametrize(
    "text,asked", [("num_processes: 4", 4), ("use_cpu: true", None), ("- x", None), ("a: [", None)]
)
def test_the_number_of_processes_is_read_from_the_launcher_configuration(parent, tmp_path, text, asked):
    (tmp_path / "c.yaml").write_text(text)
    parent("python", "/bin/accelerate", "launch", "--config_file", str(tmp_path / "c.yaml"), "run_clm.py")
    assert launcher.requested_processes() == asked


def test_a_run_with_fewer_processes_than_requested_prints_a_note(parent, tmp_path, capsys):
    (tmp_path / "ask.py").write_text(
        "import os\nfrom tinygpt_hf.training.launcher import requested_processes\n"
        "print(requested_processes(), os.environ.get('WORLD_SIZE', '1'))"
    )
    words = "accelerate launch --cpu --num_processes 2".split()
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words[1:], str(tmp_path / "ask.py")]
    assert subprocess.run(launch, capture_output=True, text=True).stdout == "2 1\n"
    parent("python", *words, "run_clm.py")
    training = dataclasses.replace(TRAINING, output_dir=str(tmp_path / "r"), max_steps=1)
    recipe.train(MODEL, DATA, TOKENIZER, training)
    note = "note: 2 processes were asked for, 1 started: on CPUs use `ACCELERATE_USE_CPU=true torchrun"
    assert capsys.readouterr().err.count(note) == 1


def test_a_dead_launcher_counts_as_sigterm(parent, monkeypatch):
    parent("torchrun", "x.py")
    with Interruption(ALONE) as interruption:
        interruption.defer()
        assert interruption.requested() == 0
        monkeypatch.setattr(os, "getppid", lambda: -1)  # the process that waits for orphans has number 1
        assert interruption.requested() == signal.SIGTERM


def test_a_dead_shell_does_not_count_as_a_signal(parent, monkeypatch):
    parent("bash")
    with Interruption(ALONE) as interruption:
        monkeypatch.setattr(os, "getppid", lambda: -1)  # the process that waits for orphans has number 1
        assert interruption.requested() == 0


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_the_first_signal_is_deferred_and_the_second_raises(parent, number):
    parent("bash")
    before = signal.getsignal(number)
    with Interruption(ALONE) as interruption:
        interruption.defer()
        os.kill(os.getpid(), number)
        assert interruption.requested() == number
        with pytest.raises(Interrupted) as left:
            os.kill(os.getpid(), number)
        assert left.value.exit_status == {signal.SIGINT: 130, signal.SIGHUP: 129}.get(number, 143)
    assert signal.getsignal(number) == before


def test_a_signal_repeated_by_the_launcher_counts_once(parent, monkeypatch):
    parent("torchrun", "x.py")
    monkeypatch.setattr(signals, "DUPLICATE_SECONDS", 600.0)  # on a slow machine the next line comes late
    with Interruption(ALONE) as interruption:
        interruption.defer()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # as the launcher would do
        assert interruption.requested() == signal.SIGINT
        monkeypatch.setattr(signals, "DUPLICATE_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_before_training_raises_at_once(parent):
    parent("bash")
    with Interruption(ALONE), pytest.raises(Interrupted, match="stopped by SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)


LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "1"}, "RANK=1 in the environment is ignored"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 in the environment is ignored"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "x"}, "RANK=0, WORLD_SIZE=2 in the environment is ignored"),
        ({**LAUNCHED, "WORLD_SIZE": "two"}, "WORLD_SIZE is not a number"),
        ({**LAUNCHED, "MASTER_PORT": ""}, "MASTER_PORT is not set"),
        (LAUNCHED, "waiting for the other processes at 127.0.0.1:29500 (RANK=1, WORLD_SIZE=2)"),
        ({**LAUNCHED, "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"MASTER_ADDR": "127.0.0.1"}, None),
    ],
    ids=str,
)
def test_stale_distributed_variables_are_removed(monkeypatch, environment, said):
    for name in (*launcher.RANK_VARIABLES, *launcher.MASTER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    note = launcher.check_environment()
    assert (note is None) if said is None else said in note
    left = (
        {}
        if note and "ignored" in note
        else {name: value for name, value in environment.items() if name in launcher.RANK_VARIABLES}
    )
    assert {name: os.environ[name] for name in launcher.RANK_VARIABLES if name in os.environ} == left
    monkeypatch.setattr(launcher, "launcher_command", lambda: ["torchrun"])
    assert launcher.check_environment() is None


def test_a_dead_launcher_is_an_error_before_torch_waits_for_it(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as store:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(store.getsockname()[1]))
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        launcher.check_launcher()
    with pytest.raises(RunError, match="the launcher of this process is gone"):
        launcher.check_launcher()
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    launcher.check_launcher()
