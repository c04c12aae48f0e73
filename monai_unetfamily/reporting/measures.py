"""What a label map says in numbers: one row a case and class."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.io import Affine, Box, Labels, atomic_file, slices_of

_Counts = NDArray[np.int64]
_Extent = tuple[int | None, int | None, int | None, int | None, int | None, int | None]
_FACES = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
_PICTURE_FACES = [("top", "bottom"), ("left", "right")]  # of rows, of columns


class Measure(NamedTuple):
    """One class in one case; None where there is nothing to measure."""

    case: str
    label: int
    name: str
    volume_ml: float | None  # None of a picture, which has no third dimension
    voxels: int
    mean: float | None  # of the intensities, in the image's units: HU in CT
    sd: float | None  # of all its voxels, not of a sample
    centroid_x: float | None  # mm to the patient's right (RAS+); of a picture the column
    centroid_y: float | None  # mm to the front; of a picture the row
    centroid_z: float | None  # mm to the head; None of a picture
    unit: str  # of the centroid: "mm", or "px" of a picture
    i_min: int | None  # bounding box, first and last voxel along the array's axes; of a picture i are rows, j columns
    i_max: int | None
    j_min: int | None
    j_max: int | None
    k_min: int | None
    k_max: int | None
    touches_border: bool  # has voxels in an outermost layer of what was segmented: it may continue outside
    border_faces: str  # which: "superior left"
    presence: float | None  # probability that the class is there, where the network says so


@dataclass
class _Sums:
    """What one pass over the voxels adds up, for n classes."""

    profiles: list[_Counts]  # for each axis (n, size): voxels in each layer
    pivots: NDArray[np.float64]  # (n,) a value near the class's, so that squares stay small
    first: NDArray[np.float64]  # (n,) sum of value - pivot
    second: NDArray[np.float64]  # (n,) sum of its squares


def measure(
    labels: Labels,
    image: NDArray[np.floating[Any]],
    affine: Affine,
    names: Mapping[int, str],
    case: str = "",
    presence: Mapping[int, float] | None = None,
    box: Box | None = None,
) -> list[Measure]:
    """Measure every class of `names` but the background, in their order; a class that is nowhere has 0 voxels.

    The labels are passed over once, layer by layer: memory is that of a few layers.

    Args:
        labels: ids (X, Y, Z), or (rows, columns) of a picture; or masks with a last axis more, channel c of id c + 1.
            Ids that `names` lacks are not measured.
        image: intensities on the same grid, (X, Y, Z) or (rows, columns); one channel of several.
        affine: (4, 4) to mm, RAS+; of a picture (3, 3).
        names: label id -> name.
        case: the name that goes into each row.
        presence: label id -> probability, for the last column.
        box: the voxels that were segmented, (first, stop) along each axis; None: all. A class touches the border
            where it touches a face of the box.

    Raises:
        ValueError: shapes that differ or do not fit the affine; a box that reaches beyond the image.

    >>> labels = np.zeros((4, 4, 4), int)
    >>> labels[1:3, 1, 2:] = 1
    >>> [liver] = measure(labels, 40.0 + labels, np.diag([2.0, 2.0, 5.0, 1.0]), {0: "background", 1: "liver"})
    >>> liver.voxels, round(liver.volume_ml, 6), liver.mean, liver.sd
    (4, 0.08, 41.0, 0.0)
    >>> (liver.centroid_x, liver.centroid_y, liver.centroid_z), liver.border_faces
    ((3.0, 2.0, 12.5), 'superior')
    """
    axes = len(affine) - 1
    if image.shape != labels.shape[:axes] or not axes <= labels.ndim <= axes + 1:
        raise ValueError(
            f"got labels of shape {labels.shape} and an image of shape {image.shape}; one grid of {axes} axes is"
            " allowed, of masks with an axis of classes more: bring them together"
        )
    wanted = {label: name for label, name in names.items() if label}
    sums, segmented = _add_up(labels, image, list(wanted)), slices_of(box, image.shape)
    return [
        _row(sums, number, affine, case, label, name, (presence or {}).get(label), segmented)
        for number, (label, name) in enumerate(wanted.items())
    ]


def write_csv(measures: Sequence[Measure], path: Path) -> None:
    """Write one row per case and class under a header of `Measure`'s fields; the file appears whole or not.

    What is None is an empty cell, which pandas and R read as missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "volumes.csv"
    ...     write_csv(measure(np.zeros((2, 2), int), np.zeros((2, 2)), np.eye(3), {1: "cell"}, "a"), path)
    ...     path.read_text().splitlines()[1]
    'a,1,cell,,0,,,,,,px,,,,,,,False,,'
    """
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([Measure._fields, *measures])
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode())


def _add_up(labels: Labels, image: NDArray[np.floating[Any]], ids: list[int]) -> _Sums:
    slow = int(np.argmax(np.abs(labels.strides[: image.ndim])))  # layers lie whole in memory
    sums = _Sums([np.zeros((len(ids), size), np.int64) for size in image.shape], *np.zeros((3, len(ids))))
    layers = zip(np.moveaxis(labels, slow, 0), np.moveaxis(image, slow, 0), strict=True)
    fast = [axis for axis in range(image.ndim) if axis != slow]
    for layer, (marked, values) in enumerate(layers):
        numbers, places = _find(marked, ids, len(fast))
        for axis, positions in zip(fast, places, strict=True):
            profile = sums.profiles[axis]
            joint = np.bincount(numbers * profile.shape[1] + positions, minlength=profile.size)
            profile += joint.reshape(profile.shape)
        before = sums.profiles[slow].sum(axis=1)
        sums.profiles[slow][:, layer] = np.bincount(numbers, minlength=len(ids))
        _add_values(sums, numbers, values[places].astype(np.float64), before == 0)
    return sums


def _find(marked: Labels, ids: list[int], axes: int) -> tuple[_Counts, tuple[_Counts, ...]]:
    """The number (place in `ids`) and the position along each axis of every voxel of a layer that is measured."""
    number_of = np.full(max([*ids, 0]) + 1, -1)
    number_of[ids] = np.arange(len(ids))
    places = np.nonzero(marked)
    found = marked[places] if marked.ndim == axes else places[-1] + 1
    found = np.where(found < len(number_of), found, 0)
    numbers = number_of[found]
    known = numbers >= 0
    return numbers[known], tuple(place[known] for place in places[:axes])


def _add_values(sums: _Sums, numbers: _Counts, values: NDArray[np.float64], new: NDArray[np.bool_]) -> None:
    count = len(sums.pivots)
    sums.pivots[numbers[new[numbers]]] = values[new[numbers]]
    away = values - sums.pivots[numbers]
    sums.first += np.bincount(numbers, away, count)
    sums.second += np.bincount(numbers, away * away, count)


def _row(
    sums: _Sums,
    number: int,
    affine: Affine,
    case: str,
    label: int,
    name: str,
    presence: float | None,
    segmented: Sequence[slice],
) -> Measure:
    profiles = [profile[number] for profile in sums.profiles]
    voxels = int(profiles[0].sum())
    volume = voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000 if len(affine) == 4 else None
    mean, sd = _moments(sums, number, voxels) if voxels else (None, None)
    x, y, z = _center(profiles, affine) if voxels else (None,) * 3
    unit = "mm" if len(affine) == 4 else "px"
    faces = " ".join(_faces(profiles, affine, segmented))
    measured = (volume, voxels, mean, sd, x, y, z, unit, *_extent(profiles), bool(faces), faces, presence)
    return Measure(case, label, name, *measured)


def _moments(sums: _Sums, number: int, voxels: int) -> tuple[float, float]:
    away = sums.first[number] / voxels
    variance = max(sums.second[number] / voxels - away**2, 0.0)
    return float(sums.pivots[number] + away), float(np.sqrt(variance))


def _center(profiles: list[_Counts], affine: Affine) -> tuple[float, float, float | None]:
    index = [float(profile @ np.arange(profile.size) / profile.sum()) for profile in profiles]
    if len(affine) == 3:
        row, column = index
        return column, row, None
    x, y, z = nib.affines.apply_affine(affine, index).tolist()
    return x, y, z


def _extent(profiles: list[_Counts]) -> _Extent:
    ends = [np.flatnonzero(profile)[[0, -1]].tolist() if profile.any() else [None] * 2 for profile in profiles]
    first, second, third = [*ends, [None] * 2][:3]
    return first[0], first[1], second[0], second[1], third[0], third[1]


def _faces(profiles: list[_Counts], affine: Affine, segmented: Sequence[slice]) -> Iterator[str]:
    """Names of the outermost segmented layers that hold voxels; an axis is named by the nearest patient axis."""
    codes = nib.aff2axcodes(affine) if len(affine) == 4 else ()
    ends = [(_FACES[_OPPOSITE[code]], _FACES[code]) for code in codes] or _PICTURE_FACES
    for profile, (low, high), part in zip(profiles, ends, segmented, strict=True):
        yield from (face for face, layer in ((low, profile[part.start]), (high, profile[part.stop - 1])) if layer)
