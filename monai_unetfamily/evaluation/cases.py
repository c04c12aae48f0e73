"""One label map against its reference."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, nan, prod
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from monai_unetfamily.volumes.nifti import Labels

_Box = tuple[slice, ...]


class Score(NamedTuple):
    """One class in one case; the package's text defines each number."""

    case: str
    label: str
    dice: float
    hd95_mm: float
    surface_dice: float
    volume_ml: float
    reference_ml: float
    volume_error_ml: float  # predicted minus reference


def evaluate_case(
    prediction: Labels,
    reference: Labels,
    spacing: Sequence[float],
    classes: Mapping[int, str],
    tolerance_mm: float = 1.0,
    case: str = "",
) -> list[Score]:
    """Score every class of one label map (x, y, z) against its reference, in the order of `classes`.

    Args:
        prediction: integer labels (x, y, z).
        reference: integer labels on the same grid.
        spacing: three voxel edge lengths in mm; the axes are taken as orthogonal.
        classes: label id -> name. Ids that are not in it are not scored.
        tolerance_mm: deviation in mm that the surface dice forgives.
        case: the name that goes into each row.

    Raises:
        ValueError: shapes differ or are not 3-D, labels are not integers, a spacing is not positive, the
            tolerance is negative or not finite, or `classes` is empty, holds an id below 1 or a name twice.

    Two boxes of 4 x 4 x 4 voxels, one voxel (2 mm) apart along x:

    >>> reference = np.zeros((8, 8, 8), np.uint8)
    >>> reference[2:6, 2:6, 2:6] = 1
    >>> [score] = evaluate_case(np.roll(reference, 1, axis=0), reference, (2.0, 1.0, 1.0), {1: "liver"})
    >>> score.dice, score.hd95_mm, score.volume_ml, score.volume_error_ml
    (0.75, 2.0, 0.128, 0.0)
    """
    _check_volumes(prediction, reference, spacing)
    _check_classes(classes)
    if not 0 <= tolerance_mm < inf:
        raise ValueError(f"got a tolerance of {tolerance_mm} mm; 0 or more is allowed: give a distance in mm")
    mm = [float(edge) for edge in spacing]
    boxes = [bounding_boxes(labels) for labels in (prediction, reference)]
    scores = []
    for label, name in classes.items():
        box = _joint_box([found[label] for found in boxes if label in found])
        mine, theirs = prediction[box] == label, reference[box] == label
        ml, reference_ml = (int(mask.sum()) * prod(mm) / 1000 for mask in (mine, theirs))
        agreement = _compare(mine, theirs, mm, tolerance_mm)
        scores.append(Score(case, name, *agreement, ml, reference_ml, ml - reference_ml))
    return scores


def bounding_boxes(labels: Labels) -> dict[int, _Box]:
    """Label id -> bounding box (x, y, z) of each label above 0 that occurs.

    >>> bounding_boxes(np.array([[[0, 7, 7]]]))
    {7: (slice(0, 1, None), slice(0, 1, None), slice(1, 3, None))}
    """
    boxes = enumerate(find_objects(labels), start=1)
    return {label: box for label, box in boxes if box is not None}


def _joint_box(boxes: list[_Box]) -> _Box:
    """The box around all, one voxel wider: a class touches the crop only where it touches the volume."""
    if not boxes:
        return (slice(0, 0),) * 3
    edges = [(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True)]
    return tuple(slice(max(start - 1, 0), stop + 1) for start, stop in edges)


def _compare(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: list[float], tolerance_mm: float
) -> tuple[float, float, float]:
    """Dice, HD95 in mm and surface dice of two masks (x, y, z)."""
    present = bool(prediction.any()), bool(reference.any())
    if not all(present):
        return (0.0, inf, 0.0) if any(present) else (nan, nan, nan)
    p, r = (torch.from_numpy(mask)[None, None] for mask in (prediction, reference))  # (1, 1, x, y, z)
    dice = compute_dice(p, r)
    hd95 = compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=spacing)
    surface_dice = compute_surface_dice(
        p, r, [tolerance_mm], include_background=True, spacing=spacing, use_subvoxels=True
    )
    return dice.item(), hd95.item(), surface_dice.item()


def _check_volumes(prediction: Labels, reference: Labels, spacing: Sequence[float]) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(
            f"got labels of shapes {prediction.shape} and {reference.shape}; one shape (x, y, z) for both is"
            " allowed: bring the prediction onto the reference's grid"
        )
    if {prediction.dtype.kind, reference.dtype.kind} - set("iu"):
        raise ValueError(
            f"got labels of types {prediction.dtype} and {reference.dtype}; integers are allowed: convert them"
        )
    if len(spacing) != 3 or not all(isfinite(edge) and edge > 0 for edge in spacing):
        raise ValueError(f"got spacing {tuple(spacing)}; three positive lengths in mm are allowed: correct it")


def _check_classes(classes: Mapping[int, str]) -> None:
    if not classes or min(classes) < 1 or len(set(classes.values())) < len(classes):
        raise ValueError(
            f"got classes {dict(classes)}; label ids from 1 with a name each, no name twice, are allowed:"
            " leave the background out and rename doubles"
        )
