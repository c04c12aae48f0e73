"""UNet 3+ against the paper's form of the same network with the same weights, and both against U-Net.

The paper's form interpolates every branch to full size and convolves it there (tests/support/paper_form.py).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.measure import Candidate, Result, compare
from benchmarks.steps import CLASSES, network_step
from benchmarks.table import Row
from monai_unetfamily.nets import PlainUNet, create_network
from tests.support.paper_form import paper_form


class Case(NamedTuple):
    """A network, what it does, and the norm it does it with: the library's default, or the paper's preset."""

    features: tuple[int, ...]
    skip_channels: int
    size: tuple[int, ...]
    which: str = "eval"
    preset: str | None = None

    @property
    def title(self) -> str:
        size, widths = "x".join(map(str, self.size)), f"{self.features[0]}..{self.features[-1]}"
        name = f"{len(self.size)}-D {widths}, skip {self.skip_channels}, {size}, {self.which}"
        return name if self.preset is None else f"{name}, batch norm"


def widths(first: int) -> tuple[int, ...]:
    """Five stages, each twice as wide as the one before."""
    return tuple(first << i for i in range(5))


CASES: dict[str, list[Case]] = {
    "full": [
        Case(widths(64), 64, (320, 320)),
        Case(widths(64), 64, (320, 320), preset="paper"),
        Case(widths(32), 32, (64, 64, 64)),
        Case(widths(16), 16, (96, 96, 96)),
        Case(widths(16), 16, (64, 64, 64), "training step"),
    ],
    "quick": [
        Case(widths(32), 32, (256, 256)),
        Case(widths(16), 16, (48, 48, 48)),
        Case(widths(16), 16, (32, 32, 32), "training step"),
    ],
    "toy": [Case((2, 4, 8), 2, (12, 16)), Case((2, 4), 2, (8, 8, 8), "training step", "paper")],
}
ROUNDS = {"full": 5, "quick": 3, "toy": 2}
CPU, GPU = ("cpu", "float32"), [("cuda", "float32"), ("cuda", "tf32"), ("cuda", "bfloat16")]


def rows(scale: str) -> list[Row]:
    """Speed and memory of every case, on the processor and, where there is one, on the GPU."""
    places = [CPU, *(GPU if torch.cuda.is_available() else [])]
    return [_row(case, *place, ROUNDS[scale]) for place in places for case in CASES[scale]]


def _row(case: Case, device: str, precision: str, rounds: int) -> Row:
    results = compare(candidates(case, device, precision), rounds=rounds, device=device)
    fast, paper, unet = results["UNet 3+"], results["paper's form"], results["U-Net"]
    return {
        "network": case.title,
        "device": f"{device} {precision}",
        "speed": paper.time_over(fast),
        "memory": fast.memory_over(paper),
        "peak MiB": fast.peak_bytes and fast.peak_bytes >> 20,
        "price before": paper.time_over(unet),
        "price now": fast.time_over(unet),
        **failures(results),
    }


def candidates(case: Case, device: str = "cpu", precision: str = "float32") -> dict[str, Candidate]:
    """The network as it is, in the paper's form with the same weights, and U-Net of the same widths."""
    builds = {"UNet 3+": unet3plus, "paper's form": in_papers_form, "U-Net": unet}
    return {
        name: partial(network_step, partial(build, case), case.size, case.which, device, precision)
        for name, build in builds.items()
    }


def unet3plus(case: Case) -> nn.Module:
    return create_network(
        "unet3plus",
        spatial_dims=len(case.size),
        in_channels=1,
        out_channels=CLASSES,
        features=case.features,
        skip_channels=case.skip_channels,
        preset=case.preset,
    )


def in_papers_form(case: Case) -> nn.Module:
    return paper_form(unet3plus(case))


def unet(case: Case) -> nn.Module:
    layers: dict[str, Any] = {"act": "relu", "norm": "batch"} if case.preset == "paper" else {}
    return PlainUNet(len(case.size), 1, CLASSES, features=case.features, **layers)


def failures(results: Mapping[str, Result]) -> dict[str, str]:
    """A further cell of a row in which some candidate failed."""
    said = [f"{name}: {result.failure}" for name, result in results.items() if result.failure]
    return {"failed": "; ".join(said)} if said else {}
