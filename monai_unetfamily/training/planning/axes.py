"""The axes of a file as the patient's."""

from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, io_orientation

from monai_unetfamily.volumes.sources import Affine


class StoredAxes(NamedTuple):
    """Which stored axis runs nearest to right, front and up, and what each stored axis is."""

    order: list[int]  # stored axis of each RAS axis
    spacing: list[float]  # of the stored axes, mm
    orientation: str  # of the stored axes: "LPS", ...; "" of a picture


def stored_axes(affine: Affine) -> StoredAxes:
    """Read an affine (4, 4) to mm; a picture's (3, 3) has rows and columns of 1 pixel, which stay as they are.

    >>> stored_axes(np.array([[0, -1, 0, 9], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]]))
    StoredAxes(order=[1, 2, 0], spacing=[3.0, 1.0, 2.0], orientation='SLA')
    """
    if len(affine) == 3:
        return StoredAxes([0, 1], [1.0, 1.0], "")
    nearest = io_orientation(affine)[:, 0]
    order = [int(np.flatnonzero(nearest == axis)[0]) for axis in range(3)]
    return StoredAxes(order, [float(size) for size in voxel_sizes(affine)], "".join(aff2axcodes(affine)))
