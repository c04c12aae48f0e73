"""Every member of the family and MONAI's peers, at equal widths: time as a multiple of U-Net's, and what it costs.

Depth, widths, input and classes are the same for all; the rest is each network's own default. SegResNet has the blocks
of MONAI's Auto3DSeg, (1, 2, 2, 4, 4) down and one up.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus, DynUNet, SegResNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Result, compare
from benchmarks.steps import CLASSES, PASSES, network_step
from benchmarks.table import Row
from monai_unetfamily.nets import create_network, list_networks

Widths = tuple[int, ...]
Size = tuple[int, ...]

BASE = "unet"
CASES: dict[str, list[tuple[Size, int]]] = {  # voxels, and the first of five widths that double
    "full": [((256, 256), 32), ((64, 64, 64), 16)],
    "quick": [((128, 128), 16), ((32, 32, 32), 8)],
    "toy": [((32, 32), 8)],
}
ROUNDS = {"full": 5, "quick": 3, "toy": 1}


def rows(scale: str) -> list[Row]:
    """One row for each network and size."""
    return [row for size, first in CASES[scale] for row in _rows_of(size, _five(first), ROUNDS[scale])]


def _rows_of(size: Size, widths: Widths, rounds: int) -> list[Row]:
    builds = networks(len(size), widths)
    evaluated, trained = (
        compare({name: partial(network_step, build, size, which) for name, build in builds.items()}, rounds=rounds)
        for which in PASSES
    )
    title = f"{'x'.join(map(str, size))}, {widths[0]}..{widths[-1]}"
    return [
        {
            "image, widths": title,
            "network": name,
            "parameters": parameters(build),
            "GMAC": gmac(build, size),
            **_cells(PASSES[0], evaluated, name),
            **_cells(PASSES[1], trained, name),
        }
        for name, build in builds.items()
    ]


def _cells(which: str, results: dict[str, Result], name: str) -> Row:
    own = results[name]
    return {
        f"{which}, time": own.time_over(results[BASE]) or own.failure,
        f"{which}, MiB": own.peak_bytes and own.peak_bytes >> 20,
    }


def networks(dims: int, widths: Widths) -> dict[str, Callable[[], nn.Module]]:
    """The family first, then MONAI's."""
    family: dict[str, Callable[[], nn.Module]] = {name: partial(member, name, dims, widths) for name in list_networks()}
    return family | {name: partial(peer, dims, widths) for name, peer in PEERS.items()}


def member(name: str, dims: int, widths: Widths) -> nn.Module:
    extra: dict[str, Any] = {"skip_channels": widths[0]} if name == "unet3plus" else {}
    return create_network(name, spatial_dims=dims, in_channels=1, out_channels=CLASSES, features=widths, **extra)


def basic(dims: int, widths: Widths) -> nn.Module:
    return BasicUNet(dims, 1, CLASSES, features=(*widths, widths[0]))


def basic_plusplus(dims: int, widths: Widths) -> nn.Module:
    return BasicUNetPlusPlus(dims, 1, CLASSES, features=(*widths, widths[0]))


def dyn(dims: int, widths: Widths) -> nn.Module:
    steps = len(widths) - 1
    return DynUNet(dims, 1, CLASSES, [3] * (steps + 1), [1] + [2] * steps, [2] * steps, filters=widths)


def segres(dims: int, widths: Widths) -> nn.Module:
    return SegResNet(dims, widths[0], 1, CLASSES, blocks_down=(1, 2, 2, 4, 4), blocks_up=(1, 1, 1, 1))


PEERS: dict[str, Callable[[int, Widths], nn.Module]] = {
    "MONAI BasicUNet": basic,
    "MONAI BasicUNetPlusPlus": basic_plusplus,
    "MONAI DynUNet": dyn,
    "MONAI SegResNet": segres,
}


def parameters(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters())


def gmac(build: Callable[[], nn.Module], size: Size) -> float:
    """Multiply-accumulate operations of convolutions and matrix products in one forward pass, in billions."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build().eval()(torch.zeros(1, 1, *size))
    return counter.get_total_flops() / 2e9


def _five(first: int) -> Widths:
    return tuple(first << i for i in range(5))
