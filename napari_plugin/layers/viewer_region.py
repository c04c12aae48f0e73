"""Which part of an image is to be segmented: a box of voxels, drawn or in view."""

from collections.abc import Sequence

import numpy as np
from napari.layers import Image, Shapes
from numpy.typing import NDArray

from napari_plugin.layers.geometry import Reorientation

Box = tuple[tuple[int, int], ...]  # first and last + 1 voxel of each axis


def drawn_box(image: Image, shapes: Shapes, axis: int | None, slices: tuple[int, int]) -> Box:
    """The box under a rectangle, the selected one or the last, over a range of slices.

    Args:
        image: the layer that the box is of; its axes as they are shown.
        shapes: where the rectangle is.
        axis: across which slices are counted; None of a picture.
        slices: first and last, both within.

    Raises:
        ValueError: there is no rectangle, it lies outside the image, or it covers a single voxel of a slice.
    """
    rectangles = [n for n, kind in enumerate(shapes.shape_type) if kind == "rectangle"]
    chosen = [n for n in rectangles if n in shapes.selected_data] or rectangles
    if not chosen:
        raise ValueError(f"“{shapes.name}” has no rectangle: draw one around the organ.")
    corners = np.asarray(shapes.data[chosen[-1]], np.float64)
    world = np.stack([shapes.data_to_world(corner) for corner in corners])[:, -image.ndim :]
    voxels = np.stack([image.world_to_data(corner) for corner in world])
    return _box(image, voxels, axis, slices, f"the rectangle of “{shapes.name}”")


def box_in_view(image: Image, axis: int | None, slices: tuple[int, int]) -> Box:
    """The box that the window shows of an image, over a range of slices.

    Raises:
        ValueError: the image is out of view.
    """
    corners = np.asarray(image.corner_pixels)
    shown = [k for k in range(image.ndim)[-3:] if k != axis and image.data.shape[k] > 1]
    if (corners[0] == corners[1])[shown].any():  # napari clips them to the image
        raise ValueError(f"“{image.name}” is out of view: bring it back (the house below the layers).")
    return _box(image, corners.astype(np.float64), axis, slices, "the present view")


def slice_axis(image: Image, order: Sequence[int], ndisplay: int) -> int | None:
    """The axis of a volume's layer that slides; None where the viewer shows three, or another axis slides.

    >>> slice_axis(Image(np.zeros((4, 5, 6))), order=(1, 0, 2), ndisplay=2)
    1
    """
    axes = [axis - (len(order) - image.ndim) for axis in order[:-ndisplay]]
    sliding = [axis for axis in axes if axis >= max(0, image.ndim - 3)]
    return sliding[-1] if ndisplay == 2 and sliding else None


def file_box(box: Box, shape: Sequence[int], reorientation: Reorientation) -> Box:
    """A box along the shown axes of a volume of `shape` (as shown), along the axes of its file.

    >>> file_box(((0, 2), (3, 4), (5, 9)), (10, 10, 10), Reorientation(axes=(2, 1, 0), flips=(True, False, False)))
    ((5, 9), (3, 4), (8, 10))
    """
    spans = [
        (n - stop, n - first) if flip else (first, stop)
        for (first, stop), n, flip in zip(box, shape, reorientation.flips, strict=True)
    ]
    return tuple(spans[reorientation.axes.index(axis)] for axis in range(len(spans)))


def _box(image: Image, corners: NDArray[np.float64], axis: int | None, slices: tuple[int, int], what: str) -> Box:
    """Voxels between corners (n, axes); a voxel reaches half a voxel from its centre."""
    shape = image.data.shape[: image.ndim]
    first = np.clip(np.rint(corners.min(0)), 0, shape).astype(int)
    stop = np.clip(np.rint(corners.max(0)) + 1, 0, shape).astype(int)
    if axis is not None:
        first[axis], stop[axis] = slices[0], slices[1] + 1
    if (first >= stop).any():
        raise ValueError(f"{what} lies beside “{image.name}”: move it onto the image.")
    sides = [stop[k] - first[k] for k in range(image.ndim)[-3:] if k != axis and shape[k] > 1]
    if sides and max(sides) == 1:  # a click, not a drag
        raise ValueError(f"{what} covers one voxel of a slice: draw a larger one.")
    return tuple(zip(first.tolist(), stop.tolist(), strict=True))[-3:]
