"""Two processes train every member as one: DistributedDataParallel with no parameter left unused."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from monai_unetfamily.nets import GuidedOutput, list_networks
from tests.support.family import heads_of, small

pytestmark = pytest.mark.slow

PROCESSES = 2
STEPS = 2  # the second one raises where the first left a parameter without a gradient


def supervised(name: str) -> nn.Module:
    return small(name, 2, deep_supervision=True, **({"cgm": True} if name == "unet3plus" else {})).train()


def loss_of(net: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(1)  # of the guide's dropout
    output = net(x)
    loss = torch.stack([(h**2).mean() for h in heads_of(output)]).sum()
    return loss + output.presence.square().mean() if isinstance(output, GuidedOutput) else loss


def batch(rank: int) -> Tensor:
    return torch.randn(1, 2, 16, 24, generator=torch.Generator().manual_seed(rank))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    gradients = {}
    for name in list_networks():
        net = DistributedDataParallel(supervised(name))
        for _ in range(STEPS):
            net.zero_grad()
            loss_of(net, batch(rank)).backward()
        gradients[name] = {key: p.grad for key, p in net.module.named_parameters()}
    torch.save(gradients, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_gradients_of_two_processes_are_the_mean_of_both(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(work, (str(tmp_path),), PROCESSES, start_method="spawn")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    for name in list_networks():
        net = supervised(name)
        torch.stack([loss_of(net, batch(rank)) for rank in range(PROCESSES)]).mean().backward()
        for key, p in net.named_parameters():
            assert torch.equal(ranks[0][name][key], ranks[1][name][key]), (name, key)
            torch.testing.assert_close(ranks[0][name][key], p.grad)
