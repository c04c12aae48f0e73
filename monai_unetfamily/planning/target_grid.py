"""The grid that a network sees: 2-D, 3-D or slices with their neighbours, and the spacing of its voxels.

Spacing as in nnU-Net (Isensee et al., Nature Methods 18, 2021, online methods): the median of the cases; along an axis
of thick slices the 10th percentile, so that cases with thin slices lose less. Deviation: images are not resampled
across the slices of a 2-D network, as nnU-Net's 2-D form has it, and slices come with their neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from monai_unetfamily.nets.layers import Axes
from monai_unetfamily.planning.decisions import Decision, by
from monai_unetfamily.planning.fingerprint import Fingerprint

THICK = 3  # times the spacing of the other axes (nnU-Net)
_FEW = 16  # slices that can be halved twice and leave four
_FEWEST = 8  # slices that can be halved once
_NEIGHBOURS = 1  # UNet 3+, section 3.1: three slices


@dataclass(frozen=True)
class Grid:
    """What the network sees of an image.

    Attributes:
        spatial_dims: of the network.
        slice_axis: of a volume (RAS) that a 2-D network sees slice by slice; None otherwise.
        neighbours: slices from either side that come with each.
        spacing: of the resampled image along all its axes, mm; 0 along an axis that is not resampled; None of pictures.
        mm: spacing along the network's axes, as far as rules need it.
        size: voxels of the median image along the network's axes.
        slices: of the median image across them; 1 where there are none.
    """

    spatial_dims: int
    slice_axis: int | None
    neighbours: int
    spacing: tuple[float, ...] | None
    mm: tuple[float, ...]
    size: Axes
    slices: int = 1


def choose_grid(fingerprint: Fingerprint, spatial_dims: int | None = None) -> tuple[Grid, list[Decision]]:
    """The grid of a data set, and the decisions that led to it.

    Raises:
        ValueError: a number of axes that the images do not have.
    """
    if spatial_dims not in (None, 2, fingerprint.spatial_dims):
        raise ValueError(f"spatial_dims is {spatial_dims}; pictures allow 2, volumes 2 and 3: leave it out.")
    if fingerprint.spatial_dims == 2:
        size = fingerprint.size()
        grid = Grid(2, None, 0, None, (1.0, 1.0), size)
        return grid, [Decision("dimensions", "2-D", f"the images are pictures, {by(size)} pixels in the median.")]
    target, spacing_reason = _target_spacing(fingerprint)
    size = fingerprint.size(spacing=target)
    thick = _thickest(target)
    flat, reason = _is_flat(target, size, thick, spatial_dims)
    if not flat:
        spacing = Decision("spacing", f"{by(target)} mm", spacing_reason)
        return Grid(3, None, 0, target, target, size), [Decision("dimensions", "3-D", reason), spacing]
    return _by_slices(fingerprint, target, thick, reason)


def _by_slices(
    fingerprint: Fingerprint, target: tuple[float, ...], thick: int, reason: str
) -> tuple[Grid, list[Decision]]:
    across = [axis for axis in range(3) if axis != thick]
    spacing = tuple(0.0 if axis == thick else mm for axis, mm in enumerate(target))
    slices = fingerprint.size()[thick]
    neighbours = _NEIGHBOURS if slices > 1 else 0
    size = fingerprint.size(spacing=target)
    grid = Grid(2, thick, neighbours, spacing, tuple(target[a] for a in across), tuple(size[a] for a in across), slices)
    value = f"2.5-D: slices across axis {thick}, {2 * neighbours + 1} at once" if neighbours else "2-D, slice by slice"
    mm = by([target[a] for a in across])
    return grid, [
        Decision("dimensions", value, reason),
        Decision("spacing", f"{mm} mm in the slice", "the median in the slice; slices stay where they are."),
    ]


def _target_spacing(fingerprint: Fingerprint) -> tuple[tuple[float, ...], str]:
    median, size = fingerprint.spacing(50), fingerprint.size(50)
    thick = _thickest(median)
    coarsest = max(mm for axis, mm in enumerate(median) if axis != thick)
    fewest = min(n for axis, n in enumerate(size) if axis != thick)
    if median[thick] <= THICK * coarsest or size[thick] * THICK >= fewest:
        return _rounded(median), f"the median of {len(fingerprint.cases)} cases."
    thinner = max(fingerprint.spacing(10)[thick], coarsest)
    target = tuple(thinner if axis == thick else mm for axis, mm in enumerate(median))
    return _rounded(target), (
        f"the median in the slice; slices are {median[thick]:.3g} mm apart in the median, over {THICK} times the "
        f"{coarsest:.3g} mm of the other axes, so the 10th percentile is taken across them, {thinner:.3g} mm."
    )


def _is_flat(target: Sequence[float], size: Axes, thick: int, asked: int | None) -> tuple[bool, str]:
    slices, ratio = size[thick], target[thick] / min(target)
    found = f"the median volume has {slices} slices, {target[thick]:.3g} mm apart, {ratio:.2g} times the finest spacing"
    if asked is not None:
        return asked == 2, f"asked for; {found}."
    if slices < _FEWEST:
        return True, f"{found}; a 3-D network needs {_FEWEST} to halve them once and keep 4."
    if slices < _FEW and ratio >= THICK:
        return True, f"{found}; slices so thick have little in common, and fewer than {_FEW} cannot be halved twice."
    return False, f"{found}."


def _thickest(spacing: Sequence[float]) -> int:
    """The axis of slices: the last of those with the largest spacing, as most scans are axial."""
    return max(range(len(spacing)), key=lambda axis: (round(spacing[axis], 3), axis))


def _rounded(spacing: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{mm:.4g}") for mm in spacing)
