"""What labels that are shown, and corrected, say in numbers."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.inference.box import Box
from monai_unetfamily.inference.measures import Measure, measure
from monai_unetfamily.volumes.nifti import Labels


def measure_layer(
    labels: Labels,
    image: NDArray[Any],
    grid: Nifti1Pair | None,
    names: Mapping[int, str],
    presence: Mapping[int, float],
    case: str = "",
    box: Box | None = None,
) -> list[Measure]:
    """Measure every class of `names`, then every label that was painted besides, as "label 7".

    The numbers are those of the command's `volumes.csv`.

    Args:
        labels: ids in the file's order, (X, Y, Z) or (rows, columns).
        image: in the same order, with perhaps an axis of channels more, of which the first is measured.
        grid: its affine; None: a picture.
        names: label id -> name.
        presence: label id -> probability.
        case: the name that goes into each row.
        box: that was segmented, along the axes of the file; None: all.

    Raises:
        ValueError: labels and image of different shapes.

    >>> labels = np.zeros((4, 4, 4), np.uint8)
    >>> labels[1:3, 1, 1], labels[3, 3, 3] = 1, 7
    >>> grid = Nifti1Pair(labels, np.diag([10.0, 10.0, 10.0, 1.0]))
    >>> rows = measure_layer(labels, labels, grid, {1: "liver", 2: "spleen"}, {})
    >>> [(row.name, row.voxels, round(row.volume_ml, 6)) for row in rows]
    [('liver', 2, 2.0), ('spleen', 0, 0.0), ('label 7', 1, 1.0)]
    """
    affine = np.eye(3) if grid is None else np.asarray(grid.affine, np.float64)
    one = image[..., 0] if image.ndim == len(affine) else image
    every = {label: name for label, name in names.items() if label} | unnamed(labels, names)
    return measure(labels, np.asarray(one), affine, every, case, presence, box)


def unnamed(labels: Labels, names: Mapping[int, str]) -> dict[int, str]:
    """The labels above 0 that are there and have no name -> one for each.

    >>> unnamed(np.array([[0, 1], [9, 3]]), {1: "liver"})
    {3: 'label 3', 9: 'label 9'}
    """
    highest = max([0, *names])
    known = np.zeros(highest + 2, np.bool_)
    known[[0, *names]] = True
    found: set[int] = set()
    for layer in np.moveaxis(labels, int(np.argmax(np.abs(labels.strides))), 0):
        others = layer[~known[np.clip(layer, 0, highest + 1)]]
        found.update(np.unique(others).tolist())
    return {label: f"label {label}" for label in sorted(found)}


def fingerprint(labels: Labels) -> int:
    """A number that differs, but for one chance in 2^32, where labels differ.

    >>> labels = np.zeros((3, 3), np.uint8)
    >>> before = fingerprint(labels)
    >>> labels[1, 1] = 1
    >>> fingerprint(labels) == before
    False
    """
    value = zlib.crc32(repr(labels.shape).encode())
    for layer in np.moveaxis(labels, int(np.argmax(np.abs(labels.strides))), 0):
        value = zlib.crc32(layer.ravel(order="K"), value)
    return value
