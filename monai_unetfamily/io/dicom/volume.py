"""DICOM series as volumes: slices sorted by where they lie, each rescaled by its own header, on a NIfTI grid."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.io.dicom.slices import Slice, open_slice, read_slice, sort_slices, why_no_slice, why_unusable
from monai_unetfamily.io.dicom.stacks import (
    Flaws,
    Offsets,
    count_even,
    differing,
    even_out,
    even_step,
    find_flaws,
    number_positions,
    split_volumes,
    straighten,
)
from monai_unetfamily.io.header_checks import MAX_VOXELS
from monai_unetfamily.io.itk import Volume, patient_grid

Gaps = Literal["refuse", "resample"]

_SAME = 1e-3  # mm of pixel spacing and cosines of directions: slices that differ less are alike


def read_series(files: Sequence[Path], *, gaps: Gaps = "refuse", max_voxels: int = MAX_VOXELS) -> Volume:
    """Read the slices of one series: voxels (X, Y, Z), HU of CT and the modality's units of others; grid; notes.

    X counts columns, Y rows, Z slices along the normal rows x columns make, by ImagePositionPatient; names and
    instance numbers tell nothing. The grid is that of `itk.patient_grid`.

    Args:
        files: one image each, in any order, as `io.dicom.list_series` finds them.
        gaps: what is done with uneven gaps (a slice is missing) and with a tilted gantry: "refuse", or
            "resample" linearly onto an even grid of the least gap and a straight one, padded with the lowest
            value of the volume; a note says so.
        max_voxels: the most that the volume may have.

    Raises:
        ValueError: a file that is cut off, or no slice of a volume (`slices.why_no_slice`, `why_unusable`);
            slices of several series, sizes or directions, of several volumes (`stacks.split_volumes`), or
            several at one position; uneven gaps and tilt, with the numbers; more than `max_voxels` voxels.

    >>> read_series([Path("absent.dcm"), Path("lost.dcm")])
    Traceback (most recent call last):
    ValueError: absent.dcm: cannot be read as a DICOM image; whole image files are read, copy it again
    """
    if gaps not in ("refuse", "resample"):
        raise ValueError(f"got gaps={gaps!r}; 'refuse' and 'resample' are allowed, choose one")
    slices = [open_slice(path) for path in files]
    folder = _require_alike(slices)
    slices, offsets = sort_slices(slices)
    _require_one_volume(slices, offsets, folder)
    flaws = find_flaws(offsets, slices[0].spacing)
    _require_no_flaws(flaws, gaps, folder)
    depth = count_even(offsets) if flaws.gaps else len(slices)
    require_size((*slices[0].size, depth), folder, max_voxels)
    voxels, start, step, notes = _onto_grid(_read_all(slices), offsets, slices[0].spacing, flaws)
    return voxels, patient_grid(voxels.shape, _affine(slices[0], start, step)), notes


def _require_alike(slices: Sequence[Slice]) -> Path:
    """Refuse what is no stack of slices of one series; return the folder of the first."""
    if len(slices) < 2:
        names = ", ".join(str(image.path) for image in slices) or "none"
        raise ValueError(f"{names}: got {len(slices)} DICOM slices; a volume has two or more, name a whole series")
    for image in slices:
        if why := why_no_slice(image) or why_unusable(image) or _difference(image, slices[0]):
            raise ValueError(f"{image.path}: got {why}; slices of one volume are allowed, leave it out")
    return slices[0].path.parent


def _difference(image: Slice, first: Slice) -> str:
    """What a slice does not share with the first one, or nothing."""
    for keyword, same in (
        ("SeriesInstanceUID", image.tags.get("SeriesInstanceUID") == first.tags.get("SeriesInstanceUID")),
        ("PixelSpacing", np.abs(image.spacing - first.spacing).max() <= _SAME),
        ("ImageOrientationPatient", np.abs(image.axes - first.axes).max() <= _SAME),
    ):
        if not same:
            return f"{keyword} {image.tags.get(keyword)} where {first.path.name} has {first.tags.get(keyword)}"
    if image.size != first.size:
        return f"{image.size} columns and rows where {first.path.name} has {first.size}"
    return ""


def _require_one_volume(slices: Sequence[Slice], offsets: Offsets, folder: Path) -> None:
    volumes = [words for words, _ in split_volumes(slices)]
    if len(volumes) > 1:
        got = f"slices of {len(volumes)} volumes, {', '.join(volumes)}"
        raise ValueError(f"{folder}: got {got}; one is allowed, choose it (--series) or keep its files")
    positions = int(number_positions(offsets)[-1]) + 1
    if positions < len(offsets):
        got = f"{len(offsets)} slices at {positions} positions, {differing(slices)}"
        raise ValueError(f"{folder}: got {got}; one a position is allowed, keep one phase, echo or copy")


def _require_no_flaws(flaws: Flaws, gaps: Gaps, folder: Path) -> None:
    if flaws.jumps:
        raise ValueError(f"{folder}: got {flaws.jumps}; a straight stack is allowed, sort the files")
    got = " and ".join(filter(None, (flaws.gaps, flaws.tilt)))
    if got and gaps == "refuse":
        raise ValueError(f"{folder}: got {got}; an even, straight stack is allowed, restore it or let gaps 'resample'")


def require_size(shape: tuple[int, ...], folder: Path, most: int) -> None:
    """Refuse a series of more than `most` voxels.

    >>> require_size((4, 3, 2), Path("ct"), 23)
    Traceback (most recent call last):
    ValueError: ct: got (4, 3, 2) voxels; 23 are allowed, crop it or raise the limit
    """
    if math.prod(shape) > most:
        raise ValueError(f"{folder}: got {shape} voxels; {most} are allowed, crop it or raise the limit")


def _read_all(slices: Sequence[Slice]) -> NDArray[np.float32]:
    voxels = np.empty((*slices[0].size, len(slices)), np.float32, order="F")
    for k, image in enumerate(slices):
        voxels[:, :, k] = read_slice(image)
    return voxels


def _onto_grid(
    voxels: NDArray[np.float32], offsets: Offsets, spacing: NDArray[np.float64], flaws: Flaws
) -> tuple[NDArray[np.float32], NDArray[np.float64], float, tuple[str, ...]]:
    """Return the voxels, where they start in the first slice's plane (2,) in pixels, the step in mm, and notes."""
    start, step, notes = np.zeros(2), even_step(offsets), []
    if flaws.tilt:
        lowest = voxels.min()
        voxels, start = straighten(voxels, offsets, spacing)
        notes.append(f"{flaws.tilt}; resampled onto a straight grid, padded with {lowest:g}")
    if flaws.gaps:
        voxels, step = even_out(voxels, offsets)
        notes.append(f"{flaws.gaps}; resampled to {voxels.shape[2]} slices {step:.4g} mm apart")
    return voxels, start, step, tuple(notes)


def _affine(first: Slice, start: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """From voxel indices to mm, LPS+ (PS3.3, equation C.7.6.2.1-1, with the normal as its third column)."""
    affine = np.eye(4)
    affine[:3, :3] = first.axes.T * [*first.spacing, step]
    affine[:3, 3] = first.position + affine[:3, :2] @ start
    return affine
