"""What a reader wants to see: three slices of a labelled volume, turned the radiological way, or a picture as it is."""

from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from monai_unetfamily.volumes.nifti import Labels

Image = NDArray[np.floating[Any]]
_PLANES = ("axial", "RLAP", "IS", 2), ("coronal", "RLSI", "PA", 1), ("sagittal", "APSI", "LR", 0)


class Plane(NamedTuple):
    """One slice as it is shown: rows run down, columns run right."""

    name: str
    letters: str  # patient directions at the left, right, top and bottom edge; a picture tells none
    position: str  # patient letter and mm from the origin, of the slice's point in the other planes
    spacing: tuple[float, float]  # between rows, between columns, mm (pixels)
    image: Image
    labels: Labels
    reference: Labels | None


def radiological_planes(
    image: Image, labels: Labels, affine: NDArray[np.floating[Any]], reference: Labels | None = None
) -> list[Plane]:
    """Cut an axial, a coronal and a sagittal plane where most is labelled.

    Per plane it is the slice with the largest labelled area: of `labels`, or of `reference` where `labels` is
    empty, or the middle where both are. Patient right is on the left, anterior and superior are up, in the
    sagittal plane anterior is on the left. Axes are permuted and flipped to the nearest patient
    axes (nibabel's `as_closest_canonical`), never resampled.

    Args:
        image: intensities (x, y, z).
        labels: label ids (x, y, z) on the image's grid.
        affine: (4, 4), voxel to patient RAS+ in mm.
        reference: label ids (x, y, z) on the same grid.

    Raises:
        ValueError: shapes differ or are not 3-D, or the affine is not invertible.

    >>> labels = np.zeros((6, 7, 8), int)
    >>> labels[1:3, 3:5, 6] = 1
    >>> axial, *_ = radiological_planes(labels.astype(float), labels, np.diag([-1, 1, 2, 1]))
    >>> axial.name, axial.position, axial.spacing, axial.labels.shape
    ('axial', 'S 12 mm', (1.0, 1.0), (7, 6))
    """
    _check(image, labels, reference, affine)
    orientation = io_orientation(affine)
    ras: list[Any] = [None if v is None else apply_orientation(v, orientation) for v in (image, labels, reference)]
    ras_affine = affine @ inv_ornt_aff(orientation, image.shape)
    center = _busiest_voxel(ras[1] if labels.any() or ras[2] is None else ras[2])
    spacing, world = nib.affines.voxel_sizes(ras_affine), nib.affines.apply_affine(ras_affine, center)
    planes = []
    for name, letters, ends, axis in _PLANES:
        column, row = (other for other in range(3) if other != axis)
        # RAS axes grow to the patient's right, front and top; rows and columns of the picture against them
        cut: list[Any] = [None if v is None else v.take(center[axis], axis).T[::-1, ::-1] for v in ras]
        steps = float(spacing[row]), float(spacing[column])
        planes.append(Plane(name, letters, _position(world[axis], ends), steps, cut[0], cut[1], cut[2]))
    return planes


def picture_plane(image: Image, labels: Labels, reference: Labels | None = None) -> Plane:
    """Show a picture as it is: row 0 at the top, column 0 on the left.

    Args:
        image: intensities (rows, columns).
        labels: label ids (rows, columns).
        reference: label ids (rows, columns).

    Raises:
        ValueError: shapes differ or are not 2-D.

    >>> picture_plane(np.zeros((4, 6)), np.zeros((4, 6), int)).position
    '4 rows, 6 columns'
    """
    _check_shapes(image, labels, reference, axes=2)
    rows, columns = image.shape
    return Plane("picture", "    ", f"{rows} rows, {columns} columns", (1.0, 1.0), image, labels, reference)


def _busiest_voxel(marked: Labels) -> list[int]:
    """Per axis the slice with most labelled voxels; the middle where nothing is labelled."""
    if not marked.any():
        return [size // 2 for size in marked.shape]
    return [int(np.count_nonzero(marked, axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1))]


def _position(mm: float, ends: str) -> str:
    rounded = round(mm)
    return f"{ends[rounded >= 0]} {abs(rounded)} mm"


def _check(image: Image, labels: Labels, reference: Labels | None, affine: NDArray[np.floating[Any]]) -> None:
    _check_shapes(image, labels, reference, axes=3)
    if affine.shape != (4, 4) or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ValueError(f"got affine {affine.tolist()}; an invertible (4, 4) is allowed: repair the header")


def _check_shapes(image: Image, labels: Labels, reference: Labels | None, axes: int) -> None:
    shapes = [array.shape for array in (image, labels, reference) if array is not None]
    if len(set(shapes)) > 1 or image.ndim != axes:
        allowed = "one shape (x, y, z)" if axes == 3 else "one shape (rows, columns)"
        raise ValueError(f"got arrays of shapes {shapes}; {allowed} is allowed: bring all onto one grid")
