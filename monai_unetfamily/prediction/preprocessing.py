"""A bundle's preprocessing, and what it leaves of an image: refused where the network would see nothing of it.

A spacing that is wrong by a power of ten, a unit that was not meant, a mask given for a scan: the network gets a tiny
or a flat image, and may label all of it. Three things are checked: the number of voxels before they are resampled, the
number after, and the values. What is odd, and may be meant, is noted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, Spacingd
from nibabel.affines import voxel_sizes
from torch import Tensor

from monai_unetfamily.bundles import reason_of
from monai_unetfamily.io import MAX_VOXELS

# Times as many voxels as the source: 16 along each axis. Real scans stay far below: 4 x 4 x 10 mm on a grid of 0.5 mm
# become 1280 times as many. Voxels of 16 mm for a bundle of 1 mm are not below.
_MOST_GROWTH, _NOTED_GROWTH = 4096, 1500
# Voxels after resampling that left an eighth or less of them. A cube of 20 mm has 27 voxels on a grid of 7 mm; it is
# small, but it is there.
_FEWEST, _NOTED_FEW, _SHRUNK = 16, 512, 8
_THICK = 4  # voxels or more along each axis, of which resampling leaves one
# Share of voxels that differ from the commonest value. The lowest that was measured is 8.5 % in hippocampus MR and
# 2.4 % in head and neck CT with a window of -160 to 240 HU. Below the limit are masks of small lesions, an MR above
# the whole window of a bundle for CT, and a CT whose values are no HU.
_LEAST_SHARE, _NOTED_SHARE = 1 / 500, 1 / 100
_ALIKE = 0.01  # of the largest values: what differs by less is one value
_LARGEST = 0.999  # quantile of absolute values: a single hot voxel is not the scale
_SAMPLE = 48  # voxels along an axis, of which the commonest and the largest values are taken


@dataclass(frozen=True)
class Source:
    """An image as it was read.

    Attributes:
        shape: voxels per axis; two axes of a picture, which has no spacing.
        affine: to mm.
        unit: the header's unit of length, for messages; empty: unknown.
    """

    shape: tuple[int, ...]
    affine: Any
    unit: str = ""

    def __str__(self) -> str:
        unit = f" (unit of the header: {self.unit})" if self.unit else ""
        return f"voxels of {_sizes(self.affine)} mm{unit}"


def run_preprocessing(
    preprocess: Callable[..., Any], image: MetaTensor, unit: str = ""
) -> tuple[MetaTensor, tuple[str, ...]]:
    """Run preprocessing after its reader (the first step) on (C, *spatial); return what comes of it, and notes.

    Args:
        preprocess: maps {"image": ...}, as MONAI's Compose.
        image: as read, its affine in mm.
        unit: its header's unit of length, for messages.

    Raises:
        ValueError: resampling would make far too many voxels, or left hardly any; an image that is constant or nearly.
        RuntimeError: what the transforms raise.

    >>> far = MetaTensor(torch.rand(1, 35, 51, 35), affine=torch.diag(torch.tensor([1e3, 1e3, 1e3, 1.0])))
    >>> run_preprocessing(Compose([str, Spacingd("image", (1, 1, 1))]), far, "mm")
    Traceback (most recent call last):
    ValueError: voxels of 1000 x 1000 x 1000 mm (unit of the header: mm): resampling ... makes ...
    """
    source = Source(tuple(image.shape[1:]), image.affine, unit)
    data, done, planned, notes = {"image": image}, 1, "", list[str]()
    try:
        for number, resample in _resampling(preprocess):
            if number > done:
                data = preprocess(data, start=done, end=number)
            planned, growth = _check_growth(resample, data["image"], source)
            notes += [f"{planned}: check the spacing"] if growth >= _NOTED_GROWTH else []
            done = number
        prepared = preprocess(data, start=done)["image"]
    except (RuntimeError, MemoryError) as error:
        if planned and (reason := reason_of(error)).startswith("out of memory"):
            raise ValueError(f"{planned}: {reason}") from None
        raise
    if isinstance(prepared, MetaTensor):
        notes += _check_size(prepared, source)
        return prepared, (*notes, *_check_values(prepared.as_tensor(), source))
    return prepared, (*notes, *_check_values(prepared, source))


def _resampling(preprocess: Callable[..., Any]) -> Iterator[tuple[int, Spacingd]]:
    """The steps that resample to a spacing. Steps that are run lazily are joined, and not looked into."""
    if isinstance(preprocess, Compose) and not preprocess.lazy:
        for number, step in enumerate(preprocess.transforms):
            if number and isinstance(step, Spacingd) and not step.lazy:
                yield number, step


def _check_growth(resample: Spacingd, image: MetaTensor, source: Source) -> tuple[str, float]:
    """What resampling is going to do, in words, and how many times as many voxels as the source's come of it."""
    empty = MetaTensor(torch.zeros(1, dtype=torch.bool).expand(1, *image.shape[1:]), affine=image.affine)
    planned = cast(MetaTensor, resample({"image": empty}, lazy=True)["image"])  # computes the grid alone
    shape = planned.peek_pending_shape()
    growth = prod(shape) / prod(source.shape)
    got = (
        f"{source}: resampling to the bundle's {_sizes(planned.peek_pending_affine())} mm makes {_shape(shape)} voxels "
        f"of {_shape(source.shape)}, {growth:.3g} times as many"
    )
    if growth >= _MOST_GROWTH or prod(shape) > max(MAX_VOXELS, prod(source.shape)):
        allowed = f"less than {_MOST_GROWTH} times and at most {MAX_VOXELS} are allowed"
        raise ValueError(f"{got}; {allowed}, mend the header's spacing or its unit of length")
    return got, growth


def _check_size(prepared: MetaTensor, source: Source) -> list[str]:
    after, before = prepared.shape[1:], source.shape
    coarser = prod(voxel_sizes(np.asarray(prepared.affine))) > prod(voxel_sizes(np.asarray(source.affine))) * 1.001
    if not coarser or len(before) < 3:
        return []
    left = (
        f"{source}: resampling to the bundle's {_sizes(prepared.affine)} mm leaves {_shape(after)} voxels of "
        f"{_shape(before)}"
    )
    shrunk = prod(after) * _SHRUNK <= prod(before)
    if (min(after) == 1 and min(before) >= _THICK) or (shrunk and prod(after) < _FEWEST):
        allowed = f"{_FEWEST} or more, and more than one along an axis, are needed"
        raise ValueError(f"{left}; {allowed}, mend the header's spacing or its unit of length")
    return [f"{left}: check the spacing"] if shrunk and prod(after) < _NOTED_FEW else []


def _check_values(prepared: Tensor, source: Source) -> list[str]:
    """Of the channel whose values differ most."""
    share, value = max(_share_that_differs(channel) for channel in prepared)
    if share >= _NOTED_SHARE:
        return []
    got = f"{share:.2%} of the voxels differ from the value {value:.3g} after the bundle's preprocessing"
    if share >= _LEAST_SHARE or len(source.shape) < 3:  # a slice may be empty
        return [f"{got}: check that this is an image of the bundle's kind, not a mask"]
    mend = "give an image of the bundle's kind and in its units, not a mask, or crop it to what is to be segmented"
    raise ValueError(f"{source}: {got}, so that there is nothing to segment; {_LEAST_SHARE:.1%} are needed, {mend}")


def _share_that_differs(channel: Tensor) -> tuple[float, float]:
    """The share of voxels that differ from the median, and the median: the commonest value, if there is one.

    Plane by plane. Where nearly all voxels are alike the median of a sample is one of them; elsewhere any will do.
    """
    steps = (slice(None, None, -(-size // _SAMPLE)) for size in channel.shape)
    sample = channel[tuple(steps)].float()
    value = sample.median()
    within = _ALIKE * sample.abs().quantile(_LARGEST)
    same = sum(int(((plane.float() - value).abs() <= within).sum()) for plane in channel)
    return 1 - same / channel.numel(), float(value)


def _sizes(affine: Any) -> str:
    return " x ".join(f"{size:.4g}" for size in voxel_sizes(np.asarray(affine)))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
