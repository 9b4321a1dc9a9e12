"""The files of docs/distributed.md: launcher configurations, and the Slurm script with simulated Slurm commands."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tinygpt_hf.cli import main
from tinygpt_hf.training.log import read_log

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "--dataset_name toyland --max_train_samples 60 --block_size 32 --hidden_size 16 --num_hidden_layers 1 --device cpu "
    "--num_attention_heads 2 --tokenizer_type byte --sample_tokens 0 --mixed_precision no --logging_steps 1 "
    "--eval_steps 0 --save_steps 0"
).split()

SRUN = """#!{python}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--kill-on-bad-exit")]
tasks = []
for rank in range(2):
    task = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1"}}
    tasks.append(subprocess.Popen(words, env={{**os.environ, **task}}))
signal.signal(signal.SIGUSR1, lambda number, frame: [task.send_signal(number) for task in tasks])
open(os.environ["SRUN_PID"], "w").write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/sh
[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> "$SCONTROL_LOG"
"""


@pytest.mark.parametrize("name", ["ddp.yaml", "fsdp2.yaml"])
def test_accelerate_accepts_the_configurations(name):
    from accelerate.commands.config.config_args import load_config_from_file

    from tinygpt_hf import TinyGPTForCausalLM

    config = load_config_from_file(str(ROOT / "examples" / name))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    if name == "fsdp2.yaml":
        sharding = yaml.safe_load((ROOT / "examples" / name).read_text())["fsdp_config"]
        assert config.fsdp_config == sharding and sharding["fsdp_version"] == 2
        assert [sharding["fsdp_transformer_layer_cls_to_wrap"]] == TinyGPTForCausalLM._no_split_modules


def free_port() -> int:
    """Return a free port that the script can derive from a job number."""
    for port in random.Random().sample(range(20000, 40000), 200):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


@pytest.fixture
def slurm(tmp_path):
    """Write commands to a folder that simulate Slurm with two tasks on this machine."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    os.symlink(sys.executable, commands / "python")
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "SRUN_PID": str(tmp_path / "pid"),
        "SCONTROL_LOG": str(tmp_path / "scontrol.log"),
        "SLURM_JOB_ID": str(port - 20000),
        "SLURM_JOB_NODELIST": "here",
    }
    jobs = []

    def job(*words) -> subprocess.Popen:
        jobs.append(
            subprocess.Popen(
                [str(ROOT / "examples/slurm.sh"), *SETTINGS, "--output_dir", str(tmp_path / "run"), *words],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return jobs[-1]

    yield job
    for each in jobs:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(each.pid, signal.SIGKILL)


def test_a_job_near_its_time_limit_saves_and_is_requeued(slurm, tmp_path):
    log = tmp_path / "run" / "log.jsonl"
    job = slurm("--max_steps", "100000", "--per_device_train_batch_size", "2")
    while not (log.is_file() and read_log(log)):
        assert job.poll() is None, job.stdout.read()
        time.sleep(0.1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
    said = job.communicate()[0]
    assert job.returncode == 143, said
    assert "stopped by SIGUSR1 after step" in said
    assert (tmp_path / "scontrol.log").read_text().split()[0] == "requeue"
    (saved,) = (tmp_path / "run").glob("checkpoint-*")
    step = json.loads((saved / "state.json").read_text())["step"]

    # it resumes, here as one process with the same effective batch; a job that finishes is not requeued
    words = [*SETTINGS, "--per_device_train_batch_size", "4", "--max_steps", str(step + 2)]
    assert main(["train", *words, "--output_dir", str(tmp_path / "run")]) == 0
    done = slurm("--help")
    assert done.communicate() and done.returncode == 0
    assert [line["step"] for line in read_log(log) if "loss" in line] == list(range(1, step + 3))
    assert len((tmp_path / "scontrol.log").read_text().splitlines()) == 1
