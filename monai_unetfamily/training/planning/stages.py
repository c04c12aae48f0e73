"""Stages of a network for a patch: how often each axis is halved, and the kernels.

As in nnU-Net (Isensee et al., Nature Methods 18, 2021, online methods): an axis is halved while its spacing is within a
factor of 2 of the finest one that can still be halved, and while it keeps 4 voxels or more; across slices the kernel is
1 until the spacings are that close. Deviation: no more stages than the papers of this family have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from monai_unetfamily.nets.blocks import Axes

LEAST = 4  # voxels of the deepest grid along a halved axis
_CLOSE = 2  # ratio of spacings under which axes are alike


@dataclass(frozen=True)
class Stages:
    """Strides between the stages and kernels of each, finest stage first."""

    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]

    @property
    def total(self) -> Axes:
        """Voxels of the image to one of the deepest grid, per axis."""
        return tuple(prod(stride[axis] for stride in self.strides) for axis in range(len(self.kernels[0])))


def plan_stages(patch: Sequence[int], spacing: Sequence[float], most: int) -> Stages:
    """The stages for a patch (voxels) of a spacing (mm), `most` at most.

    >>> stages = plan_stages((64, 64, 16), (0.8, 0.8, 3.0), most=5)
    >>> stages.strides, stages.kernels[:3]
    (((2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1)), ((3, 3, 1), (3, 3, 3), (3, 3, 3)))
    """
    size, mm, close = list(patch), list(spacing), [False] * len(patch)
    strides: list[Axes] = []
    kernels: list[Axes] = []
    while True:
        close = [was or n < _CLOSE * min(mm) for was, n in zip(close, mm, strict=True)]
        kernels.append(tuple(3 if each else 1 for each in close))
        stride = _stride(size, mm)
        if len(kernels) == most or max(stride) == 1:
            return Stages(tuple(strides), tuple(kernels))
        strides.append(stride)
        size = [n // s for n, s in zip(size, stride, strict=True)]
        mm = [n * s for n, s in zip(mm, stride, strict=True)]


def _stride(size: Sequence[int], mm: Sequence[float]) -> Axes:
    room = [axis for axis, n in enumerate(size) if n >= 2 * LEAST]
    finest = min((mm[axis] for axis in room), default=0.0)
    return tuple(2 if axis in room and mm[axis] < _CLOSE * finest else 1 for axis in range(len(size)))
