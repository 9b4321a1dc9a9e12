"""What started this process: `accelerate launch` or `torchrun`, and how many processes it was asked for."""

import os
import socket
from pathlib import Path

from tinygpt_hf.errors import RunError

LAUNCHERS = ("torchrun", "torch.distributed.run", "accelerate", "deepspeed")
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # which of the processes this one is
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where they find each other


def launcher_command() -> list[str]:
    """The words of the launcher that is this process's parent, or [] for a process somebody started himself."""
    import psutil

    try:
        words = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []
    programs = [Path(word).name for word in words[:3]]  # python, the program, or -m and the module
    named = any(program == name or f"{name}." in program for program in programs for name in LAUNCHERS)
    return words if named else []


def processes_asked() -> int | None:
    """How many processes the launcher was told to start; None where it was not told, or there is none.

    `accelerate launch --cpu --num_processes 2` starts one without a word; so the number is read from its command, or from
    the file it was configured with.
    """
    words = launcher_command()
    for flag in ("--num_processes", "--num-processes", "--nproc_per_node", "--nproc-per-node"):
        value = _value(words, flag)
        if value is not None:
            machines = _value(words, "--nnodes") if "nproc" in flag else None
            return int(value) * int(machines or 1) if (value + (machines or "1")).isdigit() else None
    if "accelerate" in " ".join(words[:3]):
        return _configured(_value(words, "--config_file") or _value(words, "--config-file"))
    return None


def forget_leftovers() -> str | None:
    """Take a place among processes out of the environment where none can be: a shell, a notebook or a job of earlier left it.

    Torch needs all of these variables but LOCAL_RANK; with some of them it would wait for processes that nobody has started.
    Returns a line about it.
    """
    found = {name: os.environ[name] for name in PLACE if name in os.environ}
    missing = [name for name in (*PLACE[:2], *MEETING) if not os.environ.get(name)]
    wrong = [name for name, value in found.items() if not value.isdecimal()]
    if not found or not (missing or wrong):
        return None
    for name in found:
        del os.environ[name]
    why = f"{missing[0]} is not set" if missing else f"{wrong[0]} is no number"
    return (
        f"note: {', '.join(f'{name}={value}' for name, value in found.items())} in the environment is left out, as no launcher "
        f"started this process ({why}): it trains alone"
    )


def check_launcher() -> None:
    """Raise RunError where torchrun has died meanwhile: it answers before it starts a worker, and torch would wait for hours."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", 0))
    try:
        socket.create_connection(address, timeout=60).close()
    except OSError as error:
        raise RunError(f"the launcher of this process is gone: nobody answers at {address[0]}:{address[1]}") from error


def _value(words: list[str], flag: str) -> str | None:
    for k, word in enumerate(words):
        if word == flag and k + 1 < len(words):
            return words[k + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _configured(file: str | None) -> int | None:
    import yaml
    from accelerate.commands.config.config_args import default_config_file

    path = Path(file or default_config_file)
    if not path.is_file():
        return None
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return int(found["num_processes"])
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        return None
