"""From slabs of scores on a bundle's grid to labels on the source's: interpolated class by class, the best kept.

No array of classes times source voxels is made: of a few source planes at a time each class is interpolated, compared
with the best so far, and forgotten. Linear interpolation is separable, so a class costs one small product of matrices
an axis, of those blocks of the axis's matrix that are not zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from monai_unetfamily.inference.inversion import Inversion
from monai_unetfamily.inference.slabs import Slab
from monai_unetfamily.volumes.nifti import Labels

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
    >>> from monai_unetfamily.inference.inferer import WindowInferer
    >>> from monai_unetfamily.inference.inversion import unchanged
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
