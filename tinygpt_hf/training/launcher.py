"""Find the launcher of this process (`accelerate launch` or `torchrun`) and the number of processes it was asked for."""

import os
import socket
from pathlib import Path

from tinygpt_hf.errors import RunError

LAUNCHERS = ("torchrun", "torch.distributed.run", "accelerate", "deepspeed")
RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
MASTER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")


def launcher_command() -> list[str]:
    """Return the command line of the parent process if it is a launcher, else []."""
    import psutil

    try:
        words = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []
    programs = [Path(word).name for word in words[:3]]  # python and a script, or python -m and a module
    named = any(program == name or f"{name}." in program for program in programs for name in LAUNCHERS)
    return words if named else []


def requested_processes() -> int | None:
    """Return the number of processes the launcher was asked for, or None if it was given no number or there is no launcher.

    `accelerate launch --cpu --num_processes 2` silently starts only one process. So the number is read from its command
    line or its configuration file.
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


def check_environment() -> str | None:
    """Remove RANK, WORLD_SIZE and LOCAL_RANK from the environment if an earlier shell, notebook or job left them.

    Torch needs all of `RANK_VARIABLES` and `MASTER_VARIABLES` except LOCAL_RANK. With only some of them it would wait for
    processes that do not exist. Returns a note about what was removed or which processes are awaited, or None.
    """
    found = {name: os.environ[name] for name in RANK_VARIABLES if name in os.environ}
    missing = [name for name in ("RANK", "WORLD_SIZE", *MASTER_VARIABLES) if not os.environ.get(name)]
    wrong = [name for name, value in found.items() if not value.isdecimal()]
    if not found:
        return None
    if not missing and not wrong:
        if int(found["WORLD_SIZE"]) == 1 or launcher_command():
            return None
        address = ":".join(os.environ[name] for name in MASTER_VARIABLES)
        return f"note: waiting for the other processes at {address} (RANK={found['RANK']}, WORLD_SIZE={found['WORLD_SIZE']})"
    for name in found:
        del os.environ[name]
    why = f"{missing[0]} is not set" if missing else f"{wrong[0]} is not a number"
    return (
        f"note: {', '.join(f'{name}={value}' for name, value in found.items())} in the environment is ignored, as no launcher "
        f"started this process ({why}): it trains alone"
    )


def check_launcher() -> None:
    """Raise RunError if the torchrun process is gone, since torch would wait for it for hours."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", 0))
    try:
        socket.create_connection(address, timeout=60).close()
    except OSError as error:
        raise RunError(f"the launcher of this process is gone: no answer at {address[0]}:{address[1]}") from error


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
