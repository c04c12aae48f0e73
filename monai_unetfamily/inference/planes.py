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
    labels: Labels  # ids (row, column), or masks (row, column, C)
    reference: Labels | None


def radiological_planes(
    image: Image, labels: Labels, affine: NDArray[np.floating[Any]], reference: Labels | None = None
) -> list[Plane]:
    """Cut an axial, a coronal and a sagittal plane where most is labelled.

    Per plane it is the slice with the largest labelled area: of `labels`, or of `reference` where `labels` is
    empty, or the middle where both are; where masks overlap, each counts. Patient right is on the left, anterior
    and superior are up, in the sagittal plane anterior is on the left. Axes are permuted and flipped to the nearest
    patient axes (nibabel's `as_closest_canonical`), never resampled.

    Args:
        image: intensities (x, y, z).
        labels: label ids (x, y, z) on the image's grid, or masks (x, y, z, C).
        affine: (4, 4), voxel to patient RAS+ in mm.
        reference: of the same shape as the labels, on the same grid.

    Raises:
        ValueError: shapes differ, the image's is not 3-D, or the affine is not invertible.

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
        cut: list[Any] = [None if v is None else v.take(center[axis], axis).swapaxes(0, 1)[::-1, ::-1] for v in ras]
        steps = float(spacing[row]), float(spacing[column])
        planes.append(Plane(name, letters, _position(world[axis], ends), steps, cut[0], cut[1], cut[2]))
    return planes


def picture_plane(image: Image, labels: Labels, reference: Labels | None = None) -> Plane:
    """Show a picture as it is: row 0 at the top, column 0 on the left.

    Args:
        image: intensities (rows, columns).
        labels: label ids (rows, columns), or masks (rows, columns, C).
        reference: of the same shape as the labels.

    Raises:
        ValueError: shapes differ, or the image's is not 2-D.

    >>> picture_plane(np.zeros((4, 6)), np.zeros((4, 6), int)).position
    '4 rows, 6 columns'
    """
    _check_shapes(image, labels, reference, axes=2)
    rows, columns = image.shape
    return Plane("picture", "    ", f"{rows} rows, {columns} columns", (1.0, 1.0), image, labels, reference)


def _busiest_voxel(marked: Labels) -> list[int]:
    """Per axis the slice with most labelled voxels, one for each mask; the middle where nothing is labelled."""
    if not marked.any():
        return [size // 2 for size in marked.shape[:3]]
    masks = tuple(range(3, marked.ndim))
    return [int(np.count_nonzero(marked, axis=(*others, *masks)).argmax()) for others in ((1, 2), (0, 2), (0, 1))]


def _position(mm: float, ends: str) -> str:
    rounded = round(mm)
    return f"{ends[rounded >= 0]} {abs(rounded)} mm"


def _check(image: Image, labels: Labels, reference: Labels | None, affine: NDArray[np.floating[Any]]) -> None:
    _check_shapes(image, labels, reference, axes=3)
    if affine.shape != (4, 4) or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ValueError(f"got affine {affine.tolist()}; an invertible (4, 4) is allowed: repair the header")


def _check_shapes(image: Image, labels: Labels, reference: Labels | None, axes: int) -> None:
    shapes = [array.shape for array in (image, labels, reference) if array is not None]
    unlike = labels.shape[:axes] != image.shape or labels.ndim > axes + 1 or len(set(shapes[1:])) > 1
    if image.ndim != axes or unlike:
        names = "x, y, z" if axes == 3 else "rows, columns"
        raise ValueError(
            f"got arrays of shapes {shapes}; one shape ({names}), of masks ({names}, C), is allowed: bring all onto"
            " one grid"
        )
