"""Trains on two gloo processes: torch is imported once, and each run forks a process for either rank.

    python pair.py      reads {"words": [...], "sharded": bool, "output": path} a line, answers the two statuses

`sharded`: the model is spread by FSDP2's `fully_shard`. Accelerate on CPUs answers a wish for FSDP with DDP, so the accelerator
is wrapped: what it does for FSDP2 on GPUs (shard, hand the sharded parameters to the optimizer, clip them) is done here in the
same few calls. `torchrun` itself starts runs in tests/crash and tests/rows/test_stream.py.
"""

import contextlib
import importlib
import json
import os
import socket
import sys
import traceback
from types import SimpleNamespace

import torch
from crash.child import PRELOADED
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tinygpt_hf import cli
from tinygpt_hf.training import precision


class Sharding:
    """An accelerator that shards."""

    distributed_type = SimpleNamespace(value="FSDP")

    def __init__(self, accelerator):
        self._accelerator = accelerator

    def __getattr__(self, name):
        return getattr(self._accelerator, name)

    def prepare(self, net, optimizer):
        for layer in net.model.layers:
            fully_shard(layer)
        fully_shard(net)
        sharded = dict(net.named_parameters())
        assert all(isinstance(parameter, DTensor) for parameter in sharded.values())
        for group in optimizer.param_groups:
            group["params"] = [sharded[name] for name in group["names"]]
        return net, self._accelerator.prepare_optimizer(optimizer)

    @contextlib.contextmanager
    def no_sync(self, net):
        net.set_requires_gradient_sync(False)
        yield
        net.set_requires_gradient_sync(True)

    def clip_grad_norm_(self, parameters, limit):
        return torch.nn.utils.clip_grad_norm_(parameters, limit)


def rank(number: int, port: int, words: list[str], sharded: bool, output: str) -> int:
    """Be one of the two."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if sharded:
        whole = precision.make_accelerator
        precision.make_accelerator = lambda training: Sharding(whole(training))
    torch.set_num_threads(1)
    return cli.main(words)


def start(number: int, **request) -> int:
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        status = rank(number, **request)
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    for name in (*PRELOADED, "peft"):
        importlib.import_module(name)
    for line in sys.stdin:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        processes = [start(number, port=port, **json.loads(line)) for number in (0, 1)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]), flush=True)
