"""Where the windows of a volume lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

from torch import Tensor
from torch.nn import functional as F

Start = tuple[int, ...]


def window_starts(size: int, roi: int, overlap: float) -> list[int]:
    """First voxels of the windows of `roi` voxels along an axis of `size`.

    As few as neighbours allow that share `overlap` of their voxels on average, evenly spread, each start rounded: the
    rule of nnU-Net. MONAI steps by the whole voxels of roi * (1 - overlap) and pushes the last window back, so that the
    last two share most; its windows are as many or more. An axis shorter than the window has one, which begins outside.

    >>> window_starts(320, 96, 0.25), window_starts(100, 96, 0.25), window_starts(9, 16, 0.25)
    ([0, 56, 112, 168, 224], [0, 4], [-3])
    """
    span = size - roi
    if span <= 0:
        return [-(-span // 2)]
    steps = ceil(span / max(1.0, roi * (1 - overlap)) - 1e-6)  # a rounding error makes no window
    return [round(i * span / steps) for i in range(steps + 1)]


@dataclass(frozen=True)
class Windows:
    """The windows of a volume: its voxels and theirs per axis, and where they begin, which may be outside.

    A 2-D network sees slices along `slice_axis`, `neighbours` more from either side of each.
    """

    size: tuple[int, ...]
    roi: tuple[int, ...]
    starts: tuple[list[int], ...]
    slice_axis: int | None = None
    neighbours: int = 0

    def thinnest(self) -> int:
        """The axis along which a window takes the smallest part of the volume."""
        return min(range(len(self.size)), key=lambda axis: self.roi[axis] / max(1, self.size[axis]))

    def along(self, axis: int) -> list[Start]:
        """All windows, layer by layer along an axis."""
        return sorted(product(*self.starts), key=lambda start: start[axis])

    def inside(self, start: Start) -> list[slice]:
        """The voxels of the volume that a window holds: without its padding."""
        spans = zip(start, self.roi, self.size, strict=True)
        return [slice(max(first, 0), min(first + roi, size)) for first, roi, size in spans]

    def valid(self, start: Start) -> list[slice]:
        """The same voxels, counted from the window's first."""
        return [slice(i.start - s, i.stop - s) for i, s in zip(self.inside(start), start, strict=True)]

    def touching(self, part: Sequence[slice]) -> tuple[list[int], ...]:
        """Of each axis the starts of the windows that hold a voxel of a part of the volume."""
        axes = zip(self.starts, self.roi, part, strict=True)
        return tuple([s for s in starts if max(s, p.start) < min(s + roi, p.stop)] for starts, roi, p in axes)

    def pad(self, image: Tensor, mode: str, value: float) -> Tensor:
        """(N, C, *spatial) with what the windows need beyond its edges, on both sides, as MONAI does it."""
        before = [-starts[0] for starts in self.starts]
        after = [max(0, roi - size - b) for roi, size, b in zip(self.roi, self.size, before, strict=True)]
        amounts = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
        return F.pad(image, amounts, mode=mode, value=value) if any(amounts) else image

    def crop(self, padded: Tensor, start: Start, item: int, flips: Sequence[int]) -> Tensor:
        """A window (1, C, *roi) of an item of the padded batch, flipped; with the neighbours of its slice."""
        first = [s - starts[0] for s, starts in zip(start, self.starts, strict=True)]
        index: list[slice | list[int]] = [slice(f, f + roi) for f, roi in zip(first, self.roi, strict=True)]
        if self.slice_axis is not None and self.neighbours:
            z, last = first[self.slice_axis], self.size[self.slice_axis] - 1
            shifts = range(-self.neighbours, self.neighbours + 1)
            index[self.slice_axis] = [min(max(z + shift, 0), last) for shift in shifts]
        window = padded[item : item + 1, :, *index]
        return window.flip([axis + 2 for axis in flips]) if flips else window

    def stack(self, crop: Tensor) -> Tensor:
        """What the network takes: of slices (1, C, *roi), their neighbours as channels (1, (2n+1) C, *roi)."""
        return crop if self.slice_axis is None else crop.movedim(self.slice_axis + 2, 1).flatten(1, 2)

    def unstack(self, logits: Tensor) -> Tensor:
        """Give the network's maps the axis of slices again."""
        return logits if self.slice_axis is None else logits.unsqueeze(self.slice_axis + 2)
