"""A box of an image's voxels: where alone labels are wanted."""

import re
from typing import TypeAlias

Box: TypeAlias = tuple[tuple[int, int], ...]  # (first, stop) along each axis of the file's array, in voxels

_AXIS = re.compile(r"(\d+):(\d+)")


def parse_box(text: str) -> Box:
    """Read a box as one writes slices of an array.

    Raises:
        ValueError: another text.

    >>> parse_box("10:60,20:80,0:40")
    ((10, 60), (20, 80), (0, 40))
    """
    axes = [_AXIS.fullmatch(axis.strip()) for axis in text.split(",")]
    box = tuple((int(axis[1]), int(axis[2])) for axis in axes if axis)
    if len(box) < len(axes):
        raise ValueError(f"box is {text!r}; first:stop for each axis is allowed, in voxels, as in 10:60,20:80,0:40.")
    return box


def format_box(box: Box) -> str:
    """A box as `parse_box` reads it.

    >>> format_box(((10, 60), (20, 80)))
    '10:60,20:80'
    """
    return ",".join(f"{first}:{stop}" for first, stop in box)


def slices_of(box: Box | None, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box of an image of this shape, one slice per axis; without a box the whole image.

    Raises:
        ValueError: a box that is empty, reaches beyond the image, or has other axes.

    >>> slices_of(((1, 3), (0, 2)), (4, 2)), slices_of(None, (4, 2))
    ((slice(1, 3, None), slice(0, 2, None)), (slice(0, 4, None), slice(0, 2, None)))
    """
    if box is None:
        return tuple(slice(0, size) for size in shape)
    if len(box) != len(shape) or not all(0 <= a < b <= n for (a, b), n in zip(box, shape, strict=True)):
        raise ValueError(
            f"box is {format_box(box)}; the image has {'x'.join(map(str, shape))} voxels, so that first:stop with "
            f"0 <= first < stop is allowed for each of its {len(shape)} axes, at most {format_box(_all_of(shape))}."
        )
    return tuple(slice(first, stop) for first, stop in box)


def _all_of(shape: tuple[int, ...]) -> Box:
    return tuple((0, size) for size in shape)
