"""A volume's scores, summed window by window and given out slab by slab."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from monai_unetfamily.inferers.windows import Start, Windows

_THINNER = 16  # slabs are thinner than windows by this, so that they cost little beside the ring of a window's planes


class Slab(NamedTuple):
    """A part of a volume that no later window changes.

    Attributes:
        where: what part it is, one slice per spatial axis.
        scores: (N, classes, *spatial) of that part; where it is empty, the slab only tells how far the run is.
        done, total: windows run or skipped so far, and in all.
        axis: along which slabs come.
    """

    where: tuple[slice, ...]
    scores: Tensor
    done: int
    total: int
    axis: int


class ScoreAccumulator:
    """Weighted sums of scores on the planes that windows still change: a ring of `planes` along `axis`.

    With as many planes as the volume has, the ring is the volume, and holds all its scores in the end.

    Args:
        windows: of the volume.
        items: volumes of the batch.
        weight: (*roi), of a window's voxels.
        passes: times that each window is added; its weight is divided among them.
        axis: along which windows come, layer by layer.
        planes: those of a window at least.
        dtype: in which scores are summed and given out.
        part: of the volume, one slice per axis, in whose planes alone scores are wanted; in others they are 0.
    """

    sums: Tensor  # (items, classes, *spatial with the ring along `axis`), there from the first scores on

    def __init__(
        self,
        windows: Windows,
        items: int,
        weight: Tensor,
        passes: int,
        axis: int,
        planes: int,
        dtype: torch.dtype,
        part: Sequence[slice],
    ) -> None:
        self.windows, self.items, self.axis, self.dtype, self.part = windows, items, axis, dtype, part
        self.planes = min(planes, windows.size[axis])
        self.whole = self.planes == windows.size[axis]  # no plane of the ring is used twice
        self.weight = (weight / passes).to(dtype)
        self.layer = self._layer(passes)
        self.closed = self.reached = 0  # planes given out, and those that windows were added to
        self.done = self.total = 0  # windows added, and in all, which the caller says

    @property
    def classes(self) -> int:
        """Channels of the scores, 0 before the first came."""
        return self.sums.shape[1] if hasattr(self, "sums") else 0

    def add(self, item: int, start: Start, scores: Tensor) -> Iterator[Slab]:
        """Give out the planes before a window, then add its scores (classes, *roi); windows come layer by layer."""
        if not self.classes:
            shape = (self.items, len(scores), *self._sized(self.planes))
            self.sums = torch.zeros(shape, dtype=self.dtype, device=self.weight.device)
        scores = scores.to(self.sums)
        yield from self.close(start[self.axis])
        target, source = self.windows.inside(start), self.windows.valid(start)
        self.reached = target[self.axis].stop
        for planes, ring in self._runs(target[self.axis]):
            target[self.axis] = ring
            source[self.axis] = slice(planes.start - start[self.axis], planes.stop - start[self.axis])
            self.sums[item][:, *target].addcmul_(scores[:, *source], self.weight[*source])
        self.done += 1

    def close(self, until: int) -> Iterator[Slab]:
        """Give out the planes before `until`, in order.

        No slab goes beyond the start of a layer of windows, also of one without any: slabs are the same, whichever
        windows are left out.
        """
        thickness = self.planes if self.whole else max(1, self.planes // _THINNER)
        while self.closed < until:
            layer = next((start for start in self.windows.starts[self.axis] if start > self.closed), until)
            for planes, ring in self._runs(slice(self.closed, min(until, layer, self.closed + thickness))):
                self.closed = planes.stop
                yield self._slab(planes, self._scores(planes, ring))

    def report(self) -> Slab:
        """An empty slab."""
        return self._slab(slice(self.closed, self.closed), self.sums.narrow(self.axis + 2, 0, 0).clone())

    def _slab(self, planes: slice, scores: Tensor) -> Slab:
        where = tuple(planes if a == self.axis else slice(0, size) for a, size in enumerate(self.windows.size))
        return Slab(where, scores, self.done, self.total, self.axis)

    def _scores(self, planes: slice, ring: slice) -> Tensor:
        sums, part = self.sums.narrow(self.axis + 2, ring.start, ring.stop - ring.start), self.part[self.axis]
        if planes.stop <= part.start or part.stop <= planes.start:
            if planes.start < min(self.reached, part.start):  # else they are zero, or no plane of the part comes after
                sums.zero_()
            return sums.new_zeros(()).expand(sums.shape)
        if self.whole:
            return sums.div_(self._weights(planes))
        scores = (sums / self._weights(planes)).to(self.dtype)
        sums.zero_()
        return scores

    def _runs(self, planes: slice) -> Iterator[tuple[slice, slice]]:
        """Planes of the volume and their places in the ring, cut where the ring begins anew."""
        first = planes.start
        while first < planes.stop:
            place = first % self.planes
            last = min(planes.stop, first + self.planes - place)
            yield slice(first, last), slice(place, place + last - first)
            first = last

    def _layer(self, passes: int) -> Tensor:
        """The sum of the weights of one layer of windows, which all layers share."""
        layer = torch.zeros(self._sized(self.windows.roi[self.axis]), device=self.weight.device)
        weight = self.weight.float() * passes
        for start in product(*(s[:1] if a == self.axis else s for a, s in enumerate(self.windows.starts))):
            target, source = self.windows.inside(start), self.windows.valid(start)
            target[self.axis] = source[self.axis] = slice(None)
            layer[*target] += weight[*source]
        return layer

    def _weights(self, planes: slice) -> Tensor:
        """The sum of the weights of all windows on these planes."""
        weights = torch.zeros(self._sized(planes.stop - planes.start), device=self.weight.device)
        for start in self.windows.starts[self.axis]:
            first, last = max(start, planes.start), min(start + self.windows.roi[self.axis], planes.stop)
            if first < last:
                part = weights.narrow(self.axis, first - planes.start, last - first)
                part += self.layer.narrow(self.axis, first - start, last - first)
        return weights

    def _sized(self, planes: int) -> list[int]:
        """Voxels per axis of so many planes."""
        return [planes if a == self.axis else size for a, size in enumerate(self.windows.size)]
