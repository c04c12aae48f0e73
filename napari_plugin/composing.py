"""Where a layer lies that no file tells of: by what napari was told of its scale, place, turn and units."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Layer


def compose_affine(layer: "Layer") -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Compose the affine (4, 4), RAS+, of a layer's last three axes, counted backwards (X is the last), and say so.

    A layer of two axes is one slice of 1 mm.

    Raises:
        ValueError: more than 4 axes.

    >>> from napari.layers import Labels
    >>> affine, notes = compose_affine(Labels(np.zeros((3, 4, 6), int), scale=(5, 2, 2), units=("mm",) * 3))
    >>> affine.diagonal().tolist(), len(notes)
    ([-2.0, -2.0, -5.0, 1.0], 1)
    """
    if not 2 <= layer.ndim <= 4:
        raise ValueError(f"{layer.name}: got {layer.ndim} axes and no file; 2 to 4 are allowed, take a part of it")
    axes = min(layer.ndim, 3)
    lengths, unknown = _millimetres(layer, axes)
    points = world_points(layer)[:, -axes:] * lengths
    world = np.eye(4)  # shown voxels to (inferior, posterior, left) mm
    world[3 - axes : 3, 3 - axes : 3] = (points[-axes:] - points[0]).T
    world[3 - axes : 3, 3] = points[0]
    where = f"{layer.name}: no file tells where it lies: that is composed from its scale and place in napari"
    return _reversed(world), (where, *unknown)


def world_points(layer: "Layer") -> NDArray[np.float64]:
    """Where (axes + 1, axes) the first voxel lies, and one step from it along each axis, in napari's world."""
    steps = np.eye(layer.ndim + 1, layer.ndim, k=-1)
    return np.array([layer.data_to_world(step) for step in steps])


def _reversed(world: NDArray[np.float64]) -> NDArray[np.float64]:
    """From (inferior, posterior, left) of shown voxels to RAS+ of voxels in the opposite order."""
    affine = np.eye(4)
    affine[:3, :3] = -world[2::-1, 2::-1]
    affine[:3, 3] = -world[2::-1, 3]
    return affine


def _millimetres(layer: "Layer", axes: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """How long (axes,) the units of the last axes are, and a note where they are no lengths."""
    units = layer.units[-axes:]
    lengths = [(1 * unit).to("mm").magnitude if unit.is_compatible_with("mm") else math.nan for unit in units]
    note = f"{layer.name}: its units are {' x '.join(map(str, units))}: one is taken for 1 mm"
    return np.nan_to_num(lengths, nan=1.0), (note,) if np.isnan(lengths).any() else ()
