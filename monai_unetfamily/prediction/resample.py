"""Resample class scores to the source grid, and keep the label of the highest score, slab by slab."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import AFFINE_TOL, to_affine_nd
from monai.transforms.utils import map_spatial_axes, scale_affine
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from monai_unetfamily.inferers import Slab
from monai_unetfamily.io import GRID_TOLERANCE, Labels

# MONAI's `Invertd` as one matrix an axis: which voxels of a bundle's grid make each voxel of the source.
#
# Preprocessing made of permutes, flips, scales, shifts, crops and pads is undone axis by axis, and linearly: so the
# whole inverse is a sparse matrix (source voxels, bundle voxels) for each axis of the bundle's grid, the product of
# those of its steps, and a transposition at the end. Positions, borders and tolerances are those of the `inverse` of
# MONAI's own transforms (monai 1.6), whatever the order of the steps. Only rounding differs: where a position is a
# voxel but for 1e-16, MONAI takes 1e-16 of the next one too, and so may label a voxel just outside a crop; here it
# stays background.


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


# From slabs of scores on a bundle's grid to labels on the source's: interpolated class by class, the best kept.
#
# No array of classes times source voxels is made: of a few source planes at a time each class is interpolated, compared
# with the best so far, and forgotten. Linear interpolation is separable, so a class costs one small product of matrices
# an axis, of those blocks of the axis's matrix that are not zero.

Where = tuple[slice, ...]  # a part of the source, one slice per axis
Sink = Callable[[Where, int, NDArray[np.float32]], None]  # takes the scores of a class in a part

_AT_ONCE = 1 << 21  # source voxels that are interpolated together: a class of them stays near the processor
_BLOCK = 64  # rows of a block of an axis's matrix


@dataclass(frozen=True)
class Rule:
    """How scores become labels, as MONAI's `AsDiscrete` has it.

    Attributes:
        threshold: of masks, one a class; None: the label is the best class, of equal ones the first.
        least: a class but the first whose scores are all below this labels no voxel, and is not interpolated.
    """

    threshold: float | None = None
    least: float = -inf


class Restoration:
    """Labels on the source grid, filled as slabs come.

    Args:
        inversion: from the source grid to that of the slabs.
        axis: of the bundle's grid, along which slabs come.
        classes: channels of the scores.
        rule: how scores become labels.
        sink: is given all scores on the source grid, part by part and class by class.
        device: where slabs are.
        box: the part of the source that is labelled, one slice per axis; None: all.

    Attributes:
        labels: (*source) of the smallest unsigned type that holds them, or masks (*source, classes); 0 where no slab
            was, and outside the box.

    >>> from monai.data.meta_tensor import MetaTensor
    >>> from monai_unetfamily.inferers import WindowInferer
    >>> from monai_unetfamily.prediction.resample import unchanged
    >>> image = torch.tensor([[[0.2, 0.7, 0.9]]])
    >>> restoration = Restoration(unchanged(MetaTensor(image)), 1, 2, Rule())
    >>> for slab in WindowInferer((1, 1), background=None).slabs(image[None], lambda x: torch.cat([1 - x, x], 1), 1):
    ...     _ = list(restoration.add(slab))
    >>> restoration.labels
    array([[0, 1, 1]], dtype=uint8)
    """

    def __init__(
        self,
        inversion: Inversion,
        axis: int,
        classes: int,
        rule: Rule,
        sink: Sink | None = None,
        device: torch.device | str = "cpu",
        box: Where | None = None,
    ) -> None:
        self.axis, self.classes, self.rule, self.sink, self.device = axis, classes, rule, sink, device
        self.box = box or tuple(slice(0, size) for size in inversion.shape)
        across = [a for a in range(len(inversion.axes)) if a != axis]
        self.order = [inversion.axes.index(a) for a in (axis, *across)]  # source axes as they are here
        self.matrix = inversion.matrices[axis]
        self.across = [_Banded(inversion.matrices[a], device) for a in across]
        self.first, self.stop = _support(self.matrix)
        self.pending = np.ones(self.matrix.shape[0], bool)
        self.most = max(1, _AT_ONCE // prod(banded.size for banded in self.across))
        self.held: Tensor | None = None  # (classes, *planes) that planes to come still need
        largest = classes - 1 if rule.threshold is None else 1
        maps = () if rule.threshold is None else (classes,)
        filled = np.zeros((*maps, *inversion.shape), np.min_scalar_type(largest))
        self.labels: Labels = np.moveaxis(filled, 0, -1) if maps else filled

    def add(self, slab: Slab) -> Iterator[Where]:
        """Take the next slab of one image (1, classes, *planes), and tell which parts of the labels it completes.

        Raises:
            ValueError: scores that are not finite.
        """
        planes = slab.where[self.axis]
        if planes.start == planes.stop:
            return
        fresh = slab.scores[0]
        parts = [fresh] if self.held is None else [self.held, fresh]
        ready = np.flatnonzero(self.pending & (self.stop <= planes.stop))
        self.pending[ready] = False
        inside = self.box[self.order[0]]
        runs = [rows for rows in _runs(ready, self.most) if rows.start < inside.stop and inside.start < rows.stop]
        wanted = self._wanted(parts) if runs else []
        for rows in runs:
            yield self._restore(rows, parts, planes.stop, wanted)
        keep = planes.stop - int(self.first[self.pending].min(initial=planes.stop))
        self.held = torch.cat(_cut(parts, self.axis + 1, planes.stop, planes.stop - keep, planes.stop), self.axis + 1)

    def _wanted(self, parts: Sequence[Tensor]) -> list[int]:
        """The classes that may label a voxel of these planes, or are wanted all the same."""
        highest = torch.full((self.classes,), -inf, device=self.device)
        for part in parts:
            if part.numel():
                highest = torch.maximum(highest, require_finite(part).float())
        all_of_them = self.sink is not None
        return [c for c, high in enumerate(highest.tolist()) if c == 0 or all_of_them or high >= self.rule.least]

    def _restore(self, rows: slice, parts: Sequence[Tensor], stop: int, wanted: Sequence[int]) -> Where:
        along, *across = [self.box[axis] for axis in self.order]
        along = slice(max(rows.start, along.start), min(rows.stop, along.stop))
        spans = dict(zip(self.order, (along, *across), strict=True))
        where = tuple(spans[axis] for axis in range(len(spans)))
        inside = (slice(along.start - rows.start, along.stop - rows.start), *across)
        all_rows = self._interpolated(rows, parts, stop, wanted)
        scores: Iterator[tuple[int, Tensor]] = ((c, score[inside]) for c, score in all_rows)
        if self.sink is not None:
            scores = self._told(scores, where, self.sink)
        if self.rule.threshold is None:
            self.labels[where] = self._turned(_best(scores, self.classes)).numpy()
        else:
            for c, score in scores:
                mask: tuple[slice | int, ...] = (*where, c)
                self.labels[mask] = self._turned(score >= self.rule.threshold).numpy()
        return where

    def _interpolated(
        self, rows: slice, parts: Sequence[Tensor], stop: int, wanted: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Each class wanted, and its scores (rows, *across) on the source grid.

        Products of matrices are those of a run without a box, so that rounding is.
        """
        first, last = int(self.first[rows].min()), int(self.stop[rows].max())
        if first >= last:  # nothing but what was cropped
            first, last = stop - 1, stop
        weights = _dense(self.matrix[rows, first:last], self.device)
        cut = _cut(parts, self.axis + 1, stop, first, last)
        for c in wanted:
            planes = torch.cat([part[c] for part in cut], dim=self.axis).float()
            sizes = [n for axis, n in enumerate(planes.shape) if axis != self.axis]
            flat = planes.flatten(1) if self.axis == 0 else planes.movedim(self.axis, -1).flatten(0, -2).T
            scores = (weights @ flat).reshape(-1, *sizes)
            for axis, matrix in enumerate(self.across, start=1):
                scores = matrix.along(scores, axis)
            yield c, scores

    def _told(self, scores: Iterator[tuple[int, Tensor]], where: Where, sink: Sink) -> Iterator[tuple[int, Tensor]]:
        for c, score in scores:
            sink(where, c, self._turned(score).numpy())
            yield c, score

    def _turned(self, planes: Tensor) -> Tensor:
        """(rows, *across) with the axes of the source."""
        return planes.permute([self.order.index(axis) for axis in range(planes.ndim)]).cpu()


class _Banded:
    """An axis's matrix as blocks of rows, and of the columns that these need."""

    def __init__(self, matrix: csr_array, device: torch.device | str) -> None:
        self.size, n = matrix.shape
        self.same = n == self.size and (matrix != eye_array(n)).nnz == 0
        self.blocks: list[tuple[slice, slice, Tensor]] = []
        first, stop = _support(matrix)
        for start in range(0, self.size, _BLOCK):
            rows = slice(start, min(start + _BLOCK, self.size))
            columns = slice(min(int(first[rows].min()), int(stop[rows].max())), int(stop[rows].max()))
            self.blocks.append((rows, columns, _dense(matrix[rows, columns], device)))

    def along(self, x: Tensor, axis: int) -> Tensor:
        """Apply it to the last axis of x (rows, *across), or to the last but one."""
        if self.same:
            return x
        out = x.new_empty([*x.shape[:axis], self.size, *x.shape[axis + 1 :]])
        for rows, columns, weights in self.blocks:
            if axis == x.ndim - 1:
                torch.mm(x.flatten(0, -2)[:, columns], weights.T, out=out.view(-1, self.size)[:, rows])
            else:
                out[:, rows] = weights @ x[:, columns]
        return out


def _best(scores: Iterator[tuple[int, Tensor]], classes: int) -> Tensor:
    """The class of the highest score of each voxel, of equal ones the first."""
    _, best = next(scores)
    labels = torch.zeros_like(best, dtype=torch.uint8 if classes <= 256 else torch.int32)
    for c, score in scores:
        higher = score > best  # than every class before, whose numbers are below c
        torch.maximum(labels, higher.to(labels.dtype).mul_(c), out=labels)
        torch.maximum(best, score, out=best)
    return labels


def _cut(parts: Sequence[Tensor], axis: int, stop: int, first: int, last: int) -> list[Tensor]:
    """Planes first to last - 1 of parts that follow each other and end before plane `stop`."""
    cut, start = [], stop - sum(part.shape[axis] for part in parts)
    for part in parts:
        end = start + part.shape[axis]
        low, high = max(first, start), min(last, end)
        cut.append(part.narrow(axis, min(low - start, part.shape[axis]), max(0, high - low)))
        start = end
    return cut


def _runs(rows: NDArray[np.intp], most: int) -> Iterator[slice]:
    """Sorted numbers as slices of neighbours, each of `most` at most."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        for first in range(0, len(run), most):
            part = run[first : first + most]
            yield slice(int(part[0]), int(part[-1]) + 1)


def _support(matrix: csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row its first column that is not zero, and the one after the last; of an empty row n and 0."""
    coo = matrix.tocoo()
    first, stop = np.full(matrix.shape[0], matrix.shape[1]), np.zeros(matrix.shape[0], np.int64)
    np.minimum.at(first, coo.row, coo.col)
    np.maximum.at(stop, coo.row, coo.col + 1)
    return first, stop


def _dense(matrix: csr_array, device: torch.device | str) -> Tensor:
    return torch.from_numpy(matrix.toarray().astype(np.float32)).to(device)


def require_finite(scores: Tensor) -> Tensor:
    """The highest score of each class, of (classes, *spatial).

    Raises:
        ValueError: scores that are NaN or infinite, and how many.

    >>> require_finite(torch.tensor([[0.2, 0.7], [0.8, 0.3]])).tolist()
    [0.699999988079071, 0.800000011920929]
    """
    low, high = scores.flatten(1).amin(1), scores.flatten(1).amax(1)  # `aminmax` takes ten times as long
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        bad = scores.numel() - int(torch.isfinite(scores).sum())
        raise ValueError(
            f"the network gave {bad} scores that are not finite: its weights are damaged; train them anew."
        )
    return high
