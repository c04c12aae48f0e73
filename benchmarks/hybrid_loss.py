"""HybridLoss beside DiceCELoss, forward and backward: the price of MS-SSIM, focal loss and IoU in the usual loss's."""

from collections.abc import Callable
from functools import partial

import torch
from monai.losses import DiceCELoss
from torch import nn

from benchmarks.measure import Step, compare
from benchmarks.table import Row
from monai_unetfamily.losses import HybridLoss

CLASSES = 3
CASES: dict[str, list[tuple[int, ...]]] = {
    "full": [(256, 256), (64, 64, 64), (96, 96, 96)],
    "quick": [(32, 32, 32)],
    "toy": [(16, 16)],
}
ROUNDS = {"full": 9, "quick": 3, "toy": 1}


def rows(scale: str) -> list[Row]:
    """One row for each size of patch."""
    return [_row(size, ROUNDS[scale]) for size in CASES[scale]]


def _row(size: tuple[int, ...], rounds: int) -> Row:
    results = compare({loss: partial(loss_step, loss, size) for loss in LOSSES}, rounds=rounds)
    hybrid, usual = results["HybridLoss"], results["DiceCELoss"]
    return {
        "patch": f"{'x'.join(map(str, size))}, {CLASSES} classes",
        "HybridLoss, time in DiceCELoss's": hybrid.time_over(usual) or hybrid.failure or usual.failure,
        "memory": hybrid.memory_over(usual),
    }


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "HybridLoss": HybridLoss,
    "DiceCELoss": partial(DiceCELoss, to_onehot_y=True, softmax=True),
}


def loss_step(name: str, size: tuple[int, ...]) -> Step:
    torch.manual_seed(0)
    loss = LOSSES[name]()
    logits = torch.randn(1, CLASSES, *size, requires_grad=True)
    label = torch.randint(0, CLASSES, (1, 1, *size))
    return lambda: loss(logits, label).backward()
