"""The sliding window: from a volume to its label map, with the same cheap network and the same windows.

The network is one 1x1x1 convolution, so that nearly all of the time and memory is the inferer's own. nnU-Net's
predictor joins in where it is installed; it blends logits in half precision, the others probabilities in float32.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import NamedTuple

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from benchmarks.measure import Result, Step, compare
from benchmarks.table import Row
from monai_unetfamily.inferers import WindowInferer

BASE = "MONAI SlidingWindowInferer"
OVERLAP = 0.25


class Case(NamedTuple):
    """Classes, voxels of the volume and of the window, and rounds of timing (0: memory alone)."""

    classes: int
    size: tuple[int, int, int]
    window: int
    rounds: int

    @property
    def title(self) -> str:
        return f"{self.classes} classes, {'x'.join(map(str, self.size))}, window {self.window}^3"


CASES: dict[str, list[Case]] = {  # windows fit without a remainder, except in the largest
    "full": [Case(3, (240, 240, 240), 96, 7), Case(105, (168, 168, 168), 96, 3), Case(105, (256, 256, 320), 96, 0)],
    "quick": [Case(3, (168, 168, 168), 96, 2), Case(105, (84, 84, 84), 48, 2)],
    "toy": [Case(3, (14, 14, 14), 8, 1)],
}


def rows(scale: str) -> list[Row]:
    """One row for each case and inferer."""
    return [row for case in CASES[scale] for row in _rows_of(case)]


def _rows_of(case: Case) -> list[Row]:
    results = compare({name: partial(inferer_step, name, case) for name in inferers()}, rounds=case.rounds)
    return [_row(case, name, own, results[BASE]) for name, own in results.items()]


def _row(case: Case, name: str, own: Result, base: Result) -> Row:
    return {
        "volume": case.title,
        "inferer": name,
        "time": own.time_over(base) or own.failure,
        "memory": own.memory_over(base),
        "peak MiB": own.peak_bytes and own.peak_bytes >> 20,
    }


def inferers() -> dict[str, Callable[[Case, nn.Module], Callable[[Tensor], Tensor]]]:
    """By name: what makes of a case and a network the function from a volume (1, 1, *size) to labels (*size)."""
    nnunet = {"nnU-Net's predictor": nnunet_labels} if find_spec("nnunetv2") else {}
    return {BASE: monai_labels, "WindowInferer": own_labels, "WindowInferer, in slabs": slab_labels, **nnunet}


def inferer_step(name: str, case: Case) -> Step:
    torch.manual_seed(0)
    network = nn.Conv3d(1, case.classes, 1).eval()
    volume = torch.randn(1, 1, *case.size)
    labels = inferers()[name](case, network)
    return partial(_without_gradients, labels, volume)


def _without_gradients(labels: Callable[[Tensor], Tensor], volume: Tensor) -> Tensor:
    with torch.no_grad():
        return labels(volume)


def monai_labels(case: Case, network: nn.Module) -> Callable[[Tensor], Tensor]:
    inferer = SlidingWindowInferer((case.window,) * 3, overlap=OVERLAP, mode="gaussian")
    return lambda volume: inferer(volume, lambda window: network(window).softmax(1))[0].argmax(0)


def own_labels(case: Case, network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda volume: own_inferer(case)(volume, network)[0].argmax(0)


def slab_labels(case: Case, network: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(volume: Tensor) -> Tensor:
        labels = torch.empty(case.size, dtype=torch.long)
        for slab in own_inferer(case).slabs(volume, network):
            labels[slab.where] = slab.scores[0].argmax(0)
        return labels

    return run


def own_inferer(case: Case) -> WindowInferer:
    return WindowInferer((case.window,) * 3, overlap=OVERLAP, mode="gaussian")


def nnunet_labels(case: Case, network: nn.Module) -> Callable[[Tensor], Tensor]:
    predictor = import_module("nnunetv2.inference.predict_from_raw_data").nnUNetPredictor(
        tile_step_size=1 - OVERLAP, use_gaussian=True, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=(case.window,) * 3)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=case.classes)
    return lambda volume: predictor.predict_sliding_window_return_logits(volume[0]).argmax(0)
