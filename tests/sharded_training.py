"""Run by test_sharding.py on two gloo processes: the real recipe, its model spread by FSDP2's `fully_shard`.

Accelerate on CPUs answers a wish for FSDP with DDP, so the accelerator is wrapped: what it does for FSDP2 on GPUs (shard, hand
the sharded parameters to the optimizer, clip them) is done here in the same few calls.
"""

import contextlib
import sys
from types import SimpleNamespace

import torch
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


if __name__ == "__main__":
    whole = precision.make_accelerator
    precision.make_accelerator = lambda training: Sharding(whole(training))
    torch.set_num_threads(1)
    sys.exit(cli.main(["train", *sys.argv[1:]]))
