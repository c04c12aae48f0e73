"""Which class is under the mouse, of those that are drawn."""

from collections.abc import Iterable
from math import ceil
from typing import Any

import numpy as np
from napari.layers import Labels, Layer


def pick(layers: Iterable[Layer], event: Any) -> tuple[Labels, int] | None:
    """The topmost layer that draws something where the mouse is, and its value there; in 3-D the nearest one of it.

    Args:
        layers: from the bottom to the top.
        event: of napari's mouse: `position` and `view_direction` in the world, `dims_displayed`.
    """
    for layer in reversed(list(layers)):
        if isinstance(layer, Labels) and layer.visible and layer.opacity and (value := _value(layer, event)):
            return layer, value
    return None


def _value(layer: Labels, event: Any) -> int:
    """The first value along the view that is drawn; 0: none."""
    if len(event.dims_displayed) == 3 and layer.ndim > 2:
        return next((value for value in _along_ray(layer, event) if _is_drawn(layer, value)), 0)
    value = layer.get_value(
        event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True
    )
    return int(value) if value and _is_drawn(layer, int(value)) else 0


def _along_ray(layer: Labels, event: Any) -> Iterable[int]:
    """The values that a ray from the eye meets, each once, in their order."""
    first = len(event.position) - layer.ndim
    displayed = [axis - first for axis in event.dims_displayed]
    start, end = layer.get_ray_intersections(event.position, event.view_direction, displayed, world=True)
    if start is None or end is None:
        return ()
    steps = np.linspace(start, end, 2 * ceil(float(np.abs(end - start).max())) + 1)
    voxels = np.clip(np.rint(steps).astype(int), 0, np.array(layer.data.shape) - 1)
    return map(int, dict.fromkeys(np.asarray(layer.data[tuple(voxels.T)]).tolist()))


def _is_drawn(layer: Labels, value: int) -> bool:
    return bool(value and layer.colormap.map(value)[3])
