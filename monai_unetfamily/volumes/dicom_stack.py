"""Where the parallel slices of a series lie, and how an uneven or tilted stack is put onto an even, straight grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.volumes.headers import MAX_VOXELS

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
        ValueError: more than `headers.MAX_VOXELS` voxels to return.

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
