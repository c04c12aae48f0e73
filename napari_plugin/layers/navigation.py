"""To an organ: the slice, and the middle of the view."""

from typing import Any

import nibabel as nib
import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from numpy.typing import ArrayLike, NDArray

from monai_unetfamily.reporting import Measure
from napari_plugin.layers.geometry import Grid


def go_to(viewer: ViewerModel, layer: Labels, grid: Grid | None, measure: Measure, value: int) -> None:
    """Bring a class's centroid into the middle of the view.

    A centroid may lie outside its organ, as that of both kidneys does: the nearest slice with a voxel of it is shown.

    Args:
        viewer: is moved; its zoom stays.
        layer: whose voxels of `value` are the class.
        grid: of the layer; None: a picture.
        measure: of the class, which has voxels.
        value: in the layer.
    """
    place = centroid_index(grid, measure, layer.data.shape)
    for axis in sliding_axes(viewer, layer):
        place[axis] = nearest_slice(layer.data, value, axis, place[axis])
    show_voxel(viewer, layer, place)


def sliding_axes(viewer: ViewerModel, layer: Layer) -> list[int]:
    """A layer's axes that are not displayed: those that sliders go along."""
    first = viewer.dims.ndim - layer.ndim
    return [axis - first for axis in viewer.dims.not_displayed if axis >= first]


def show_voxel(viewer: ViewerModel, layer: Layer, place: ArrayLike) -> None:
    """Bring a voxel of a layer (its index along each axis) into the middle of the view; the zoom stays."""
    first = viewer.dims.ndim - layer.ndim
    world = np.asarray(layer.data_to_world(place))
    viewer.dims.set_point(range(first, viewer.dims.ndim), world.tolist())
    shown = [world[axis - first] for axis in viewer.dims.displayed if axis >= first]
    viewer.scene.camera.center = (0.0,) * (3 - len(shown)) + tuple(shown)


def centroid_index(grid: Grid | None, measure: Measure, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Where a class's centroid lies in what is shown, in voxels along its axes."""
    if grid is None:
        return np.array([measure.centroid_y, measure.centroid_x])
    millimetres = [measure.centroid_x, measure.centroid_y, measure.centroid_z]
    index = nib.affines.apply_affine(np.linalg.inv(grid.image.affine), millimetres)
    shown = [
        (axis, flip)
        for axis, flip in zip(grid.reorientation.axes, grid.reorientation.flips, strict=True)
        if axis < len(shape)
    ]
    return np.array(
        [n - 1 - index[axis] if flip else index[axis] for n, (axis, flip) in zip(shape, shown, strict=True)]
    )


def nearest_slice(labels: NDArray[Any], value: int, axis: int, wanted: float) -> int:
    """The slice along an axis nearest to the one wanted that holds the value; where none does, the one wanted.

    >>> labels = np.zeros((9, 2, 2), np.uint8)
    >>> labels[[1, 6]] = 3
    >>> nearest_slice(labels, 3, axis=0, wanted=3.4)
    1
    """
    slices = np.moveaxis(labels, axis, 0)
    near = sorted(range(len(slices)), key=lambda index: abs(index - wanted))
    return next((index for index in near if np.any(slices[index] == value)), round(wanted))
