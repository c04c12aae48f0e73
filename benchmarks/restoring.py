"""From a volume to its labels on its own grid: the most memory that the process takes.

The network is one 1x1x1 convolution with random weights, so that no class can be left out anywhere and nearly all of
the cost is that of windows, blending and restoring. Beside it stands what all scores on the source grid would take.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import AsDiscreted, Compose, EnsureTyped, Invertd, Orientationd, ScaleIntensityRanged, Spacingd
from torch import nn

from benchmarks.measure import FAILURES, in_fresh_process, reason, resident
from benchmarks.table import Row
from monai_unetfamily.bundles import Bundle
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.prediction.prediction import predict_image

GB = 1e9


class Case(NamedTuple):
    """Voxels of the source and their mm, the bundle's mm, classes, and voxels of the window along each axis."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    pixdim: float
    classes: int
    window: int

    @property
    def scores(self) -> float:
        """Bytes of all scores on the source grid."""
        return 4.0 * self.classes * self.size[0] * self.size[1] * self.size[2]


CT = Case((512, 512, 200), (0.8, 0.8, 2.5), 1.5, 105, 96)
SMALL = Case((128, 128, 60), (1.6, 1.6, 2.5), 3.0, 40, 24)
CASES: dict[str, list[Case]] = {
    "full": [CT, CT._replace(size=(512, 512, 400))],
    "quick": [SMALL, SMALL._replace(size=(128, 128, 120))],
    "toy": [Case((20, 20, 10), (0.8, 0.8, 2.5), 1.5, 3, 8)],
}


def rows(scale: str) -> list[Row]:
    """One row for each volume."""
    return [_row(case) for case in CASES[scale]]


def _row(case: Case) -> Row:
    voxels = "x".join(map(str, case.size))
    row: Row = {"volume": f"{voxels}, {case.classes} classes, {case.pixdim} mm, window {case.window}^3"}
    try:
        peak = in_fresh_process(measure, case, torch.get_num_threads())
    except FAILURES as error:
        return row | {"peak GB": reason(error)}
    share = round(peak / case.scores, 2)
    return row | {"peak GB": peak / GB, "all scores GB": case.scores / GB, "of them": share}


def measure(case: Case, threads: int) -> int:
    """The most bytes that the process holds in a run, packages and the image included."""
    torch.set_num_threads(threads)
    bundle, image = opened(case), volume(case)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    predict_image(bundle, image)
    return resident("VmHWM")


def opened(case: Case) -> Bundle:
    torch.manual_seed(0)
    key = "image"
    preprocess = Compose(
        [
            EnsureTyped(key),  # in the place of the reader
            Orientationd(key, "RAS", labels=None),
            Spacingd(key, (case.pixdim,) * 3, mode="bilinear"),
            ScaleIntensityRanged(key, -1000, 1000, 0, 1, clip=True),
        ]
    )
    back = Invertd("pred", preprocess, key, nearest_interp=False)
    return Bundle(
        root=Path("benchmark"),
        names={0: "background"} | {c: f"class {c}" for c in range(1, case.classes)},
        device=torch.device("cpu"),
        network=nn.Conv3d(1, case.classes, 1).eval(),
        preprocess=preprocess,
        inferer=WindowInferer((case.window,) * 3, overlap=0.25),
        postprocess=Compose([back, AsDiscreted("pred", argmax=True)]),
    )


def volume(case: Case) -> MetaTensor:
    """Noise like a CT's, as the reader gives it."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, case.size, np.int16)
    return MetaTensor(torch.from_numpy(voxels.astype(np.float32))[None], affine=np.diag([*case.spacing, 1.0]))
