"""The slices that a label map was made of, as an object that refers to them needs them: headers, held against the grid.

A label's column, row and slice are those of its source: column i, row j of the k-th slice along the normal. That
is held here against what each slice's header says of its own place.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.volumes.dicom_slices import Slice, open_slice, sort_slices
from monai_unetfamily.volumes.dicom_stack import even_step

if TYPE_CHECKING:
    from pydicom import Dataset

_NEAR = 0.25  # of a voxel: reading allows slices to lie 0.1 off the even grid in their planes, about as much across
_SAME = 0.01  # mm, to which positions are written
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# must be there, and may be empty (type 2, PS3.3): what takes names away often takes them whole
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
_SEXES = ("M", "F", "O", "", None)


def read_sources(files: Sequence[Path], grid: Nifti1Pair) -> "list[Dataset]":
    """Read the headers of a series, sorted as `dicom.read_series` sorts its slices; no voxel is read.

    What patient and study must have and may leave empty is there, empty where the file lacks it; a slice without
    thickness is as thick as slices are apart. All have the first one's orientation, to which theirs are equal within
    0.01 mm at every corner.

    Args:
        files: of the slices, in any order.
        grid: of what was made of them, (X, Y, Z) columns, rows and slices.

    Raises:
        ValueError: slices that do not lie where the grid has them (it was resampled), that are turned against each
            other, or whose headers cannot be referred to.
    """
    slices, offsets = sort_slices([open_slice(path) for path in files])
    _require_grid(slices, grid)
    headers = [_header(image.path) for image in slices]
    _require_own_names(headers, slices)
    for header in headers:
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{even_step(offsets):.8g}"
    return headers


def _require_grid(slices: Sequence[Slice], grid: Nifti1Pair) -> None:
    """Refuse a grid that is not the slices' own: its voxels would be drawn over others than they were made of."""
    first = slices[0]
    shape = (*first.size, len(slices))
    if grid.shape[:3] != shape:
        raise ValueError(
            f"{first.path.parent}: got labels of {grid.shape[:3]} voxels for {shape} columns, rows and slices: they "
            "were resampled, and a DICOM Segmentation lies on the slices themselves; leave --dicom-seg out, or --gaps"
        )
    pixels = _corners(first)
    to_index = np.linalg.inv(_TO_LPS @ np.asarray(grid.affine, np.float64))
    for k, image in enumerate(slices):
        own = _places(image, image, pixels)
        index = own @ to_index[:3, :3].T + to_index[:3, 3]
        off = np.abs(index - [(*pixel, k) for pixel in pixels]).max()
        if off > _NEAR:
            raise ValueError(f"{image.path}: lies {off:.3g} voxels off its labels; up to {_NEAR} is allowed, sort them")
        turned = np.abs(own - _places(image, first, pixels)).max()
        if turned > _SAME:
            got = f"its corners lie {turned:.3g} mm off where {first.path.name}'s orientation and spacing put them"
            raise ValueError(f"{image.path}: {got}; {_SAME} mm is allowed, leave --dicom-seg out")


def _corners(image: Slice) -> NDArray[np.float64]:
    """The corner pixels (4, 2): column, row."""
    columns, rows = image.size
    return np.array(list(product((0.0, columns - 1.0), (0.0, rows - 1.0))))


def _places(image: Slice, like: Slice, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where pixels (n, 2) of an image lie (n, 3), mm, LPS+, by its position and another one's axes and spacing."""
    return image.position + pixels * like.spacing @ like.axes[:2]


def _header(path: Path) -> "Dataset":
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)  # GDCM, which read it, needs no mark either
    if missing := [keyword for keyword in _NEEDED if not header.get(keyword)]:
        raise ValueError(
            f"{path}: has no {', '.join(missing)}, by which a DICOM Segmentation refers to it; complete it, or leave "
            "--dicom-seg out"
        )
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in _SEXES:
        raise ValueError(f"{path}: PatientSex is {header.PatientSex!r}; M, F, O or nothing is allowed, correct it")
    return header


def _require_own_names(headers: "Sequence[Dataset]", slices: Sequence[Slice]) -> None:
    folder = slices[0].path.parent
    if len({header.SOPInstanceUID for header in headers}) < len(headers):
        raise ValueError(
            f"{folder}: several slices have one SOPInstanceUID, so that none can be referred to; export them again, or "
            "leave --dicom-seg out"
        )
    for keyword in _SHARED:
        if len(values := sorted({header[keyword].value for header in headers})) > 1:
            raise ValueError(f"{folder}: got slices of {len(values)} {keyword}s, {values}; one is allowed, sort them")
