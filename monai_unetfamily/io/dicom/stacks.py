"""Which slices of a DICOM series make one volume, and how an uneven or tilted stack becomes a regular grid."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.io.dicom.slices import Slice, sort_slices
from monai_unetfamily.io.header_checks import MAX_VOXELS

# Where the parallel slices of a series lie, and how an uneven or tilted stack is put onto an even, straight grid.


Offsets = NDArray[np.float64]  # (slices, 3) from the first slice, mm: along columns, rows and the normal

_ROUNDING = 0.01  # mm: positions are often written with two digits
_UNEVEN = 0.01  # of a gap
_SLIDE = 0.1  # of a pixel
_ON_GRID = 1e-3  # of a voxel


@dataclass(frozen=True)
class Flaws:
    """What keeps slices off an even, straight grid; a line each, empty where nothing does."""

    gaps: str
    tilt: str
    jumps: str  # neither tilt nor table: nothing tells where such slices belong


def even_step(offsets: Offsets) -> float:
    """Mean distance between slices along the normal, mm.

    >>> even_step(np.array([[0, 0, 0], [0, 0, 2.5], [0, 0, 5.0]]))
    2.5
    """
    return float(offsets[-1, 2] / (len(offsets) - 1))


def number_positions(offsets: Offsets) -> NDArray[np.intp]:
    """Number the positions along the normal at which sorted slices lie, from 0; slices at one position share a number.

    >>> number_positions(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 2.5]])).tolist()
    [0, 0, 1]
    """
    return np.concatenate([[0], np.cumsum(np.diff(offsets[:, 2]) > _ROUNDING)])


def find_flaws(offsets: Offsets, spacing: NDArray[np.float64]) -> Flaws:
    """Hold sorted slices against the even, straight grid from the first one to the last.

    Even is what lies within 0.01 mm and 1 % of a gap of that grid; straight, within a tenth of a pixel of the
    normal through the first slice.

    >>> offsets = np.array([[0, 0, 0], [0, 1.0, 2.0], [0, 2.0, 4.0], [0, 4.0, 8.0]])
    >>> find_flaws(offsets, np.array([0.8, 0.8])).gaps
    'gaps of 2 to 4 mm between slices, 1 of 3 wider than the least'
    >>> find_flaws(offsets, np.array([0.8, 0.8])).tilt
    'a gantry tilt of 26.57 degrees: slices slide by up to 4 mm'
    """
    return Flaws(_uneven(offsets), *_sliding(offsets, spacing))


def straighten(
    voxels: NDArray[np.float32], offsets: Offsets, spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Slide slices (X, Y, Z) in their planes onto one straight grid, by linear interpolation.

    Returns the voxels, as many more along X and Y as the slices slide, with the volume's lowest value where
    there was nothing; and the in-plane offset (2,) of the grid from the first slice, in pixels, whole numbers.

    Raises:
        ValueError: more than `io.MAX_VOXELS` voxels to return.

    >>> tilted = np.array([[[1.0, 5.0]], [[2.0, 6.0]]], np.float32)  # the second slice starts one pixel further
    >>> straight, start = straighten(tilted, np.array([[0, 0, 0], [0.8, 0, 3.0]]), np.array([0.8, 0.8]))
    >>> straight[:, 0].T.tolist(), start.tolist()
    ([[1.0, 2.0, 1.0], [1.0, 5.0, 6.0]], [0.0, 0.0])
    """
    slides = offsets[:, :2] / spacing
    near = np.abs(slides - np.rint(slides)) < _ON_GRID
    slides = np.where(near, np.rint(slides), slides)
    start = np.floor(slides.min(axis=0))
    slides = slides - start
    columns, rows = np.array(voxels.shape[:2]) + np.ceil(slides.max(axis=0)).astype(int)
    if columns * rows * voxels.shape[2] > MAX_VOXELS:
        raise ValueError(f"got {columns} x {rows} x {voxels.shape[2]} voxels; {MAX_VOXELS} are allowed, crop it first")
    lowest = voxels.min()
    straight = np.empty((columns, rows, voxels.shape[2]), np.float32, order="F")
    for k, (along_columns, along_rows) in enumerate(slides):
        moved = _slid(voxels[:, :, k], along_columns, columns, lowest)
        straight[:, :, k] = _slid(moved.T, along_rows, rows, lowest).T
    return straight, start


def even_out(voxels: NDArray[np.float32], offsets: Offsets) -> tuple[NDArray[np.float32], float]:
    """Interpolate slices (X, Y, Z) linearly along the normal onto an even grid of the least gap.

    Where every gap is a multiple of it (slices are missing), the slices that are there stay as they are.
    Returns the voxels and the step, mm.

    >>> gap = np.array([[[0.0, 2.0, 6.0]]], np.float32)
    >>> even, step = even_out(gap, np.array([[0, 0, 0], [0, 0, 2.5], [0, 0, 7.5]]))
    >>> even[0, 0].tolist(), step
    ([0.0, 2.0, 4.0, 6.0], 2.5)
    """
    places, step = _even_places(offsets)  # of the slices, in steps
    even = np.empty((*voxels.shape[:2], count_even(offsets)), np.float32, order="F")
    for k in range(even.shape[2]):
        below = min(int(np.searchsorted(places, k, side="right")) - 1, len(places) - 2)
        weight = np.float32((k - places[below]) / (places[below + 1] - places[below]))
        even[:, :, k] = (1 - weight) * voxels[:, :, below] + weight * voxels[:, :, below + 1]
    return even, step


def count_even(offsets: Offsets) -> int:
    """How many slices `even_out` returns.

    >>> count_even(np.array([[0, 0, 0], [0, 0, 2.5], [0, 0, 7.5]]))
    4
    """
    return int(_even_places(offsets)[0][-1] + _ON_GRID) + 1


def _uneven(offsets: Offsets) -> str:
    step, gaps = even_step(offsets), np.diff(offsets[:, 2])
    off_grid = np.abs(offsets[:, 2] - step * np.arange(len(offsets))).max()
    if off_grid <= _ROUNDING + _UNEVEN * step:
        return ""
    least = gaps.min()
    wider = np.count_nonzero(gaps > least + _ROUNDING + _UNEVEN * least)
    got = f"gaps of {least:.4g} to {gaps.max():.4g} mm between slices"
    return f"{got}, {wider} of {len(gaps)} wider than the least"


def _sliding(offsets: Offsets, spacing: NDArray[np.float64]) -> tuple[str, str]:
    slides = offsets[:, :2]
    if (np.abs(slides) <= _SLIDE * spacing).all():
        return "", ""
    tilt = slides[-1] / offsets[-1, 2]  # mm in plane per mm along the normal
    far = np.linalg.norm(slides, axis=1).max()
    if (np.abs(slides - offsets[:, 2:] * tilt) > _SLIDE * spacing).any():
        return "", f"slices that jump by up to {far:.4g} mm in their planes, not along a line"
    degrees = np.degrees(np.arctan(np.linalg.norm(tilt)))
    return f"a gantry tilt of {degrees:.2f} degrees: slices slide by up to {far:.4g} mm", ""


def _slid(plane: NDArray[np.float32], slide: float, size: int, fill: np.float32) -> NDArray[np.float32]:
    """Move a plane (n, m) by `slide` pixels, 0 or more, along its first axis into (size, m)."""
    whole = int(slide)
    part = np.float32(slide - whole)
    wide = np.full((size + 1, plane.shape[1]), fill, np.float32)
    wide[whole + 1 : whole + 1 + len(plane)] = plane
    return (1 - part) * wide[1:] + part * wide[:-1]


def _even_places(offsets: Offsets) -> tuple[NDArray[np.float64], float]:
    """Where slices lie on the grid of the least gap, in steps, and the step in mm."""
    normal = offsets[:, 2]
    least = np.diff(normal).min()
    places = np.concatenate([[0.0], np.cumsum(np.rint(np.diff(normal) / least))])
    step = float(normal[-1] / places[-1])
    if np.abs(normal - step * places).max() <= _ROUNDING + _UNEVEN * step:
        return places, step
    return normal / least, float(least)


# The volumes within one DICOM series: slices told apart by what they show, and when it was.
#
# A series may hold magnitude and phase, echoes, b-values or time points of one region, at the same positions or at
# positions that interleave. Headers tell which slices belong together; names and order of files tell nothing.

# what a slice shows: slices of one volume share it
_SHOWN = (
    *("EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "KVP", "ConvolutionKernel"),
    *("RescaleType", "Units", "ImageType", "RescaleSlope"),
)
# what may differ from slice to slice of one volume (interleaved and gated acquisition, PET), and counts only where it
# gives every position to each volume
_VARYING = (
    *("AcquisitionNumber", "TriggerTime", "InversionTime", "FlipAngle", "DiffusionGradientOrientation"),
    *("AcquisitionTime", "ContentTime"),
)
_COMPONENTS = {name[0].upper(): name for name in ("magnitude", "phase", "real", "imaginary")}  # in this order
_Groups = list[tuple[str, list[int]]]  # a value, and the numbers of the slices that have it


def split_volumes(slices: Sequence[Slice], told: str = "") -> list[tuple[str, list[Slice]]]:
    """Take the parallel slices of one series apart into volumes, each with the words that tell it from the others.

    - Magnitude, phase, real and imaginary parts of MR are never one volume.
    - Another attribute of what is shown (echo time, b-value, time point, voltage, kernel, units, image type)
      separates slices if each of its values has two positions or more, and those of two values coincide or
      interleave. Where they follow each other as blocks along the normal, or differ from slice to slice, they do not.
      The slope, which often is a slice's own, does so only where each of its values has evenly spaced positions.
    - Acquisition number and times separate slices if each of their values has every position once.

    What nothing separates stays together: several slices at one position are then for the caller to refuse.

    Args:
        slices: of one series, in any order; `slices.why_unusable` has nothing against any of them.
        told: words ahead of those that are found.

    Returns:
        a list of words and slices by position; one item with the words `told` where nothing separates the slices. The
        order is magnitude ahead of phase, original ahead of derived, and numbers rising.
    """
    if not slices:
        return []
    slices, offsets = sort_slices(slices)
    places = number_positions(offsets)
    groups = _grouped([component(image) for image in slices])
    if len(groups) > 1:
        return _split(slices, groups, told, "")
    for keyword in _SHOWN:
        groups = _grouped([_value(image, keyword) for image in slices])
        taken = [np.unique(places[group]) for _, group in groups]
        if _share_space(taken) and (keyword != "RescaleSlope" or all(map(_is_even, taken))):
            return _split(slices, groups, told, keyword)
    for keyword in _VARYING if places[-1] + 1 < len(slices) else ():
        groups = _grouped([image.tags.get(keyword, "") for image in slices])
        if len(groups) > 1 and all(np.array_equal(places[group], np.arange(places[-1] + 1)) for _, group in groups):
            return _split(slices, groups, told, keyword)
    return [(told, slices)]


def component(image: Slice) -> str:
    """What of the complex signal an MR image shows: "magnitude" where it does not say; "" of other modalities.

    >>> from pathlib import Path
    >>> component(Slice(Path("IM1"), {"Modality": "MR", "ImageType": "ORIGINAL\\\\PRIMARY\\\\P_FFE"}, (4, 3)))
    'phase'
    """
    if image.tags.get("Modality") != "MR":
        return ""
    said = [image.tags.get("ComplexImageComponent", ""), *image.tags.get("ImageType", "").split("\\")[2:]]
    for word in (text.strip().upper().replace("_", " ").partition(" ")[0] for text in said):
        for letter, name in _COMPONENTS.items():
            if word in (letter, name.upper()):
                return name
    return "magnitude"


def differing(slices: Sequence[Slice]) -> str:
    """Which attributes differ between slices at one position, as words for a message."""
    slices, offsets = sort_slices(slices)
    places = number_positions(offsets)
    twice = [slices[k] for k in np.flatnonzero(np.bincount(places)[places] > 1)]
    found = [word for word in (*_SHOWN, *_VARYING) if len({image.tags.get(word, "") for image in twice}) > 1]
    return f"that differ in {', '.join(found)}" if found else "that nothing in their headers tells apart"


def _split(slices: Sequence[Slice], groups: _Groups, told: str, keyword: str) -> list[tuple[str, list[Slice]]]:
    """Each group, taken apart further."""
    return [
        volume
        for value, group in groups
        for volume in split_volumes([slices[k] for k in group], " ".join(filter(None, (told, keyword, value))))
    ]


def _value(image: Slice, keyword: str) -> str:
    """Text of a tag, the same for all ways to write its numbers; rounding of the fifth digit tells nothing."""
    text = image.tags.get(keyword, "").upper()
    number = image.numbers(keyword)
    return text if number is None else f"{number[0]:.4g}"


def _grouped(values: Sequence[str]) -> _Groups:
    groups: dict[str, list[int]] = defaultdict(list)
    for k, value in enumerate(values):
        groups[value].append(k)
    return sorted(groups.items(), key=lambda item: _rank(item[0]))


def _rank(value: str) -> tuple[float, bool, str]:
    names = list(_COMPONENTS.values())
    try:
        number = float(names.index(value) if value in names else value)
    except ValueError:
        return np.inf, not value.startswith("ORIGINAL"), value
    return number, False, value


def _share_space(groups: Sequence[NDArray[np.intp]]) -> bool:
    """Whether groups of positions, each more than one, coincide or interleave, two of them at least."""
    return min(map(len, groups)) > 1 and any(_interleave(*pair) for pair in combinations(groups, 2))


def _interleave(one: NDArray[np.intp], other: NDArray[np.intp]) -> bool:
    """Whether positions along the normal change from one group to the other more often than those of blocks do."""
    owner = np.repeat([0, 1], [len(one), len(other)])
    owner = owner[np.lexsort((owner, np.concatenate([one, other])))]
    return bool(np.count_nonzero(np.diff(owner)) > min(len(one), len(other)))


def _is_even(positions: NDArray[np.intp]) -> bool:
    return bool(np.ptp(np.diff(positions)) == 0)
