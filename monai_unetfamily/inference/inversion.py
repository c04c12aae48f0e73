"""MONAI's `Invertd` as one matrix an axis: which voxels of a bundle's grid make each voxel of the source.

Preprocessing made of permutes, flips, scales, shifts, crops and pads is undone axis by axis, and linearly: so the whole
inverse is a sparse matrix (source voxels, bundle voxels) for each axis of the bundle's grid, the product of those of
its steps, and a transposition at the end. Positions, borders and tolerances are those of the `inverse` of MONAI's own
transforms (monai 1.6), whatever the order of the steps. Only rounding differs: where a position is a voxel but for
1e-16, MONAI takes 1e-16 of the next one too, and so may label a voxel just outside a crop; here it stays background.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import AFFINE_TOL, to_affine_nd
from monai.transforms.utils import map_spatial_axes, scale_affine
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from monai_unetfamily.volumes.nifti import GRID_TOLERANCE

Trace = Mapping[str, Any]  # what MONAI noted of an applied transform
Affine = NDArray[np.float64]

_ROUNDING = 1e-6  # voxels: a position this near to a voxel is the voxel


class NotSeparable(ValueError):
    """Preprocessing that is not undone axis by axis; the message says what of it."""


@dataclass(frozen=True)
class Inversion:
    """The inverse of a preprocessing, for scores.

    Attributes:
        matrices: of each axis of the bundle's grid, (source voxels, bundle voxels): a row says of what a voxel is made,
            and is empty where the bundle cropped.
        axes: of each axis of the source, which axis of the bundle's grid it is.
    """

    matrices: tuple[csr_array, ...]
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the source per axis."""
        return tuple(self.matrices[axis].shape[0] for axis in self.axes)

    def touched(self, where: Sequence[slice]) -> tuple[slice, ...]:
        """The part of the bundle's grid that a part of the source is made of; empty where the bundle cropped it.

        >>> import torch
        >>> from monai.transforms import Flip
        >>> inversion(Flip(0)(MetaTensor(torch.zeros(1, 9)))).touched([slice(0, 3)])
        (slice(6, 9, None),)
        """
        rows = dict(zip(self.axes, where, strict=True))
        columns = [matrix[rows[axis]].indices for axis, matrix in enumerate(self.matrices)]
        return tuple(slice(int(c.min()), int(c.max()) + 1) if c.size else slice(0, 0) for c in columns)


def inversion(image: MetaTensor) -> Inversion:
    """The inverse of what was done to `image` (C, *spatial), by its trace.

    Raises:
        NotSeparable: names the step.

    >>> import torch
    >>> from monai.transforms import Compose, Flip, SpatialCrop
    >>> image = Compose([Flip(0), SpatialCrop(roi_start=(1, 0), roi_end=(3, 2))])(MetaTensor(torch.zeros(1, 3, 2)))
    >>> back = inversion(image)
    >>> back.shape, back.matrices[0].toarray().tolist()  # of three voxels the last was cropped, after the flip
    ((3, 2), [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    """
    way = _Way(np.asarray(image.affine, np.float64), [eye_array(n, format="csr") for n in image.shape[1:]])
    for trace in reversed(image.applied_operations):
        way.undo(trace)
    return Inversion(tuple(way.matrices), tuple(way.axes))


def unchanged(image: MetaTensor) -> Inversion:
    """The inverse of a preprocessing that changes no grid.

    >>> import torch
    >>> unchanged(MetaTensor(torch.zeros(1, 3, 2))).shape
    (3, 2)
    """
    return Inversion(tuple(eye_array(n, format="csr") for n in image.shape[1:]), tuple(range(image.ndim - 1)))


@dataclass
class _Way:
    """How far the way back has come: `axes` of the present grid are those of the bundle's, `affine` is the grid's."""

    affine: Affine
    matrices: list[csr_array]
    axes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.axes = list(range(len(self.matrices)))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.matrices[axis].shape[0] for axis in self.axes)

    def undo(self, trace: Trace) -> None:
        name = trace["class"]
        lazy = trace.get("lazy")  # then its interpolation was joined with others'
        if name not in _STEPS or lazy:
            raise NotSeparable(f"its {name}{', run lazily,' if lazy else ''} is not undone axis by axis")
        _STEPS[name](self, trace)

    def along(self, matrices: list[csr_array], back: Affine) -> None:
        """Apply a matrix to each axis; `back` maps the new grid's voxels to those of the present one."""
        for axis, matrix in zip(self.axes, matrices, strict=True):
            self.matrices[axis] = csr_array(matrix @ self.matrices[axis])
        self.affine = self.affine @ to_affine_nd(len(self.affine) - 1, back)


def _orientation(way: _Way, trace: Trace) -> None:
    axes = len(way.shape)
    before, now = (io_orientation(to_affine_nd(axes, a)) for a in (trace["extra_info"]["original_affine"], way.affine))
    turn = ornt_transform(now, before)  # of each present axis: which it becomes, and its direction
    _flipped(way, [axis for axis in range(axes) if turn[axis, 1] < 0])
    order = [int(axis) for axis in np.argsort(turn[:, 0])]
    way.affine = way.affine @ to_affine_nd(
        len(way.affine) - 1, inv_ornt_aff(np.column_stack([turn[:, 0], np.ones(axes)]), way.shape)
    )
    way.axes = [way.axes[axis] for axis in order]


def _flip(way: _Way, trace: Trace) -> None:
    axes = map_spatial_axes(len(way.shape) + 1, trace["extra_info"]["axes"])
    _flipped(way, [axis - 1 for axis in axes])


def _flipped(way: _Way, axes: list[int]) -> None:
    identity = [eye_array(n, format="csr") for n in way.shape]
    back = np.eye(len(identity) + 1)
    for axis in axes:
        back[axis, axis], back[axis, -1] = -1, way.shape[axis] - 1
    way.along([m[::-1] if axis in axes else m for axis, m in enumerate(identity)], back)


def _pad(way: _Way, trace: Trace) -> None:
    channels, *padded = trace["extra_info"]["padded"]
    if any(channels):
        raise NotSeparable(f"its {trace['class']} pads channels")
    padded += [(0, 0)] * (len(way.shape) - len(padded))
    _shifted(way, [(before, n - before - after) for (before, after), n in zip(padded, way.shape, strict=True)])


def _crop(way: _Way, trace: Trace) -> None:
    cropped = np.reshape(trace["extra_info"]["cropped"], (-1, 2)).tolist()
    _shifted(way, [(-before, before + n + after) for (before, after), n in zip(cropped, way.shape, strict=True)])


def _shifted(way: _Way, spans: list[tuple[int, int]]) -> None:
    """Per axis the first voxel and how many: those that the present grid does not have are empty."""
    back = np.eye(len(spans) + 1)
    back[:-1, -1] = [first for first, _ in spans]
    shifts = [eye_array(size, n, k=first, format="csr") for (first, size), n in zip(spans, way.shape, strict=True)]
    way.along(shifts, back)


def _crop_and_pad(way: _Way, trace: Trace) -> None:
    info = trace["extra_info"]
    _pad(way, info["pad_info"])
    _crop(way, info.get("crop_info", trace))


def _resample(way: _Way, trace: Trace) -> None:
    info, axes = trace["extra_info"], len(way.shape)
    size = tuple(int(n) for n in trace["orig_size"])
    present, target = (to_affine_nd(axes, np.asarray(a, np.float64)) for a in (way.affine, info["src_affine"]))
    back: Affine = np.linalg.solve(present, target).astype(np.float64)
    same = np.allclose(present, target, atol=AFFINE_TOL) or np.allclose(back, np.eye(axes + 1), atol=AFFINE_TOL)
    if same and size == way.shape:
        return
    _require_linear(trace, way.shape, size)
    across = np.abs(back[:-1, :-1] * (1 - np.eye(axes))) @ np.subtract(size, 1)  # voxels
    if across.max() > GRID_TOLERANCE:
        raise NotSeparable("its resampling turns or shears the grid")
    positions = [back[a, a] * np.arange(n) + back[a, -1] for a, n in enumerate(size)]
    zeros = str(info["padding_mode"]) == "zeros"
    way.along([_linear(p, n, zeros) for p, n in zip(positions, way.shape, strict=True)], back)


def _require_linear(trace: Trace, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    info = trace["extra_info"]
    mode, padding, corners = str(info["mode"]), str(info["padding_mode"]), info["align_corners"] is True
    if mode != "bilinear" or padding not in ("border", "zeros"):
        raise NotSeparable(f"its resampling has mode {mode}, padding_mode {padding}")
    if corners and 1 in (*old, *new):  # where MONAI's corners are no voxels
        raise NotSeparable("its resampling aligns the corners of an axis of one voxel")


def _resize(way: _Way, trace: Trace) -> None:
    info, size = trace["extra_info"], tuple(int(n) for n in trace["orig_size"])
    mode, corners = str(info["mode"]), info["align_corners"] is True
    if info.get("new_dim") or not (mode == "area" or mode.endswith("linear")):
        raise NotSeparable(f"its {trace['class']} has mode {mode}{', new axes' * bool(info.get('new_dim'))}")
    pairs = list(zip(way.shape, size, strict=True))
    matrices = [_area(n, m) if mode == "area" else _linear(_places(n, m, corners), n, zeros=False) for n, m in pairs]
    way.along(matrices, np.asarray(scale_affine(way.shape, size, align_corners=corners), np.float64))


def _zoom(way: _Way, trace: Trace) -> None:
    if trace["extra_info"]["do_padcrop"]:
        _crop_and_pad(way, trace["extra_info"]["padcrop"])
    _resize(way, trace)


def _places(n: int, m: int, corners: bool) -> NDArray[np.float64]:
    """Where m voxels lie among n, as `torch.nn.functional.interpolate` has it."""
    voxels = np.arange(m, dtype=np.float64)
    return voxels * ((n - 1) / max(1, m - 1)) if corners else (voxels + 0.5) * (n / m) - 0.5


def _linear(positions: NDArray[np.float64], n: int, zeros: bool) -> csr_array:
    """Linear interpolation among n voxels (m, n); beyond them is zero, or the outermost voxel."""
    whole = np.rint(positions)
    places = np.where(np.abs(positions - whole) < _ROUNDING, whole, positions)
    places = places if zeros else places.clip(0, n - 1)
    first = np.floor(places).astype(np.int64)
    rows, columns = np.tile(np.arange(len(places)), 2), np.concatenate([first, first + 1])
    weights = np.concatenate([first + 1 - places, places - first])
    inside = (columns >= 0) & (columns < n) & (weights > 0)
    return csr_array((weights[inside], (rows[inside], columns[inside])), shape=(len(places), n))


def _area(n: int, m: int) -> csr_array:
    """The mean of the voxels that each of m touches among n (m, n), as adaptive average pooling has it."""
    first, last = np.arange(m) * n // m, -(-np.arange(1, m + 1) * n // m)
    counts = last - first
    columns = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    return csr_array(((1 / counts).repeat(counts), (np.arange(m).repeat(counts), columns)), shape=(m, n))


_STEPS: dict[str, Callable[[_Way, Trace], None]] = {
    "Orientation": _orientation,
    "Flip": _flip,
    "SpatialResample": _resample,
    "Resize": _resize,
    "Zoom": _zoom,
    **dict.fromkeys(("Pad", "SpatialPad", "BorderPad", "DivisiblePad"), _pad),
    **dict.fromkeys(("Crop", "SpatialCrop", "CenterSpatialCrop", "CenterScaleCrop"), _crop),
    **dict.fromkeys(("CropForeground", "ResizeWithPadOrCrop"), _crop_and_pad),
}
