"""UNetPlusPlus beside MONAI's BasicUNetPlusPlus, with equal widths, norm, activation and upsampling.

MONAI's upsampling keeps the channels of stage 1 on its way to stage 0 and halves them elsewhere, ours always takes
those of the target: with MONAI's own default widths (32, 32, ...) the two are the same network node by node; with
widths that double, MONAI's has more in row 0. Both have heads on every X[0, j]: in evaluation ours computes the last
alone, MONAI's all of them; in training both compute and train all.
"""

from functools import partial
from typing import Any

from monai.networks.nets import BasicUNetPlusPlus
from torch import nn

from benchmarks.measure import compare
from benchmarks.steps import CLASSES, PASSES, network_step
from benchmarks.table import Row
from monai_unetfamily.nets import UNetPlusPlus

Widths = tuple[int, ...]

EQUAL, DOUBLING = (32, 32, 64, 128, 256), (16, 32, 64, 128, 256)
CASES: dict[str, list[tuple[tuple[int, ...], Widths]]] = {
    "full": [((256, 256), EQUAL), ((256, 256), DOUBLING), ((64, 64, 64), EQUAL), ((64, 64, 64), DOUBLING)],
    "quick": [((128, 128), EQUAL), ((32, 32, 32), DOUBLING)],
    "toy": [((32, 32), (4, 4, 8, 8, 8))],
}
ROUNDS = {"full": 15, "quick": 3, "toy": 1}
LAYERS: dict[str, Any] = {
    "act": ("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
    "norm": ("instance", {"affine": True}),
    "deep_supervision": True,
}


def rows(scale: str) -> list[Row]:
    """One row for each size, widths and pass."""
    return [_row(size, widths, which, ROUNDS[scale]) for size, widths in CASES[scale] for which in PASSES]


def _row(size: tuple[int, ...], widths: Widths, which: str, rounds: int) -> Row:
    builds = {"ours": partial(ours, len(size), widths), "MONAI": partial(theirs, len(size), widths)}
    steps = {name: partial(network_step, build, size, which) for name, build in builds.items()}
    results = compare(steps, rounds=rounds)
    own, peer = results["ours"], results["MONAI"]
    return {
        "image": "x".join(map(str, size)),
        "widths": ", ".join(map(str, widths)),
        "pass": which,
        "time in BasicUNetPlusPlus's": own.time_over(peer) or own.failure or peer.failure,
        "memory": own.memory_over(peer),
    }


def ours(dims: int, widths: Widths) -> nn.Module:
    return UNetPlusPlus(dims, 1, CLASSES, features=widths, upsample="transposed", **LAYERS)


def theirs(dims: int, widths: Widths) -> nn.Module:
    return BasicUNetPlusPlus(dims, 1, CLASSES, features=(*widths, widths[0]), upsample="deconv", **LAYERS)
