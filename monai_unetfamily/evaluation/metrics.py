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

from monai_unetfamily.io import Labels

_Box = tuple[slice, ...]


class Score(NamedTuple):
    """One class in one case; the package's text defines each number."""

    case: str
    label: str
    dice: float
    hd95: float
    surface_dice: float
    volume_ml: float  # nan for a picture, as the next two
    reference_ml: float
    volume_error_ml: float  # predicted minus reference
    unit: str = "mm"  # of hd95; "px" for a picture


def evaluate_case(
    prediction: Labels,
    reference: Labels,
    spacing: Sequence[float] | None,
    classes: Mapping[int, str],
    tolerance: float = 1.0,
    case: str = "",
) -> list[Score]:
    """Score every class of one label map against its reference, in the order of `classes`.

    Args:
        prediction: integer labels (x, y, z), or (rows, columns) of a picture.
        reference: integer labels on the same grid.
        spacing: three voxel edge lengths in mm, the axes taken as orthogonal; None for a picture, whose distances
            are in pixels.
        classes: label id -> name. Ids that are not in it are not scored.
        tolerance: deviation in mm (pixels) that the surface dice forgives.
        case: the name that goes into each row.

    Raises:
        ValueError: shapes differ or do not fit the spacing, labels are not integers, a spacing is not positive, the
            tolerance is negative or not finite, or `classes` is empty, holds an id below 1 or a name twice.

    Two boxes of 4 x 4 x 4 voxels, one voxel (2 mm) apart along x:

    >>> reference = np.zeros((8, 8, 8), np.uint8)
    >>> reference[2:6, 2:6, 2:6] = 1
    >>> [score] = evaluate_case(np.roll(reference, 1, axis=0), reference, (2.0, 1.0, 1.0), {1: "liver"})
    >>> score.dice, score.hd95, score.volume_ml, score.volume_error_ml
    (0.75, 2.0, 0.128, 0.0)
    """
    edges = checked_edges(prediction, reference, spacing)
    _check_classes(classes)
    if not 0 <= tolerance < inf:
        raise ValueError(f"got a tolerance of {tolerance}; 0 or more is allowed: give a distance in mm (pixels)")
    ml, unit = (nan, "px") if spacing is None else (prod(edges) / 1000, "mm")
    boxes = [bounding_boxes(labels) for labels in (prediction, reference)]
    scores = []
    for label, name in classes.items():
        box = _joint_box([found[label] for found in boxes if label in found], prediction.ndim)
        mine, theirs = prediction[box] == label, reference[box] == label
        volumes = int(mine.sum()) * ml, int(theirs.sum()) * ml
        agreement = _compare(mine, theirs, edges, tolerance)
        scores.append(Score(case, name, *agreement, *volumes, volumes[0] - volumes[1], unit))
    return scores


def bounding_boxes(labels: Labels) -> dict[int, _Box]:
    """Label id -> bounding box of each label above 0 that occurs.

    >>> bounding_boxes(np.array([[[0, 7, 7]]]))
    {7: (slice(0, 1, None), slice(0, 1, None), slice(1, 3, None))}
    """
    boxes = enumerate(find_objects(labels), start=1)
    return {label: box for label, box in boxes if box is not None}


def _joint_box(boxes: list[_Box], axes: int) -> _Box:
    """The box around all, one voxel wider: a class touches the crop only where it touches the volume."""
    if not boxes:
        return (slice(0, 0),) * axes
    edges = [(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True)]
    return tuple(slice(max(start - 1, 0), stop + 1) for start, stop in edges)


def _compare(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: list[float], tolerance: float
) -> tuple[float, float, float]:
    """Dice, HD95 and surface dice of two masks of two or three axes."""
    present = bool(prediction.any()), bool(reference.any())
    if not all(present):
        return (0.0, inf, 0.0) if any(present) else (nan, nan, nan)
    p, r = (torch.from_numpy(mask)[None, None] for mask in (prediction, reference))  # (1, 1, *spatial)
    dice = compute_dice(p, r)
    hd95 = compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=spacing)
    surface_dice = compute_surface_dice(p, r, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True)
    return dice.item(), hd95.item(), surface_dice.item()


def checked_edges(prediction: Labels, reference: Labels, spacing: Sequence[float] | None) -> list[float]:
    """Edge lengths of a voxel in mm, or of a pixel in pixels."""
    axes = 2 if spacing is None else 3
    if prediction.shape != reference.shape or prediction.ndim != axes:
        raise ValueError(
            f"got labels of shapes {prediction.shape} and {reference.shape}; one shape"
            f" {'(rows, columns)' if spacing is None else '(x, y, z)'} for both is allowed: bring the prediction onto"
            " the reference's grid"
        )
    if {prediction.dtype.kind, reference.dtype.kind} - set("iu"):
        raise ValueError(
            f"got labels of types {prediction.dtype} and {reference.dtype}; integers are allowed: convert them"
        )
    edges = [1.0, 1.0] if spacing is None else [float(edge) for edge in spacing]
    if len(edges) != axes or not all(isfinite(edge) and edge > 0 for edge in edges):
        raise ValueError(f"got spacing {tuple(edges)}; three positive lengths in mm are allowed: correct it")
    return edges


def _check_classes(classes: Mapping[int, str]) -> None:
    if not classes or min(classes) < 1 or len(set(classes.values())) < len(classes):
        raise ValueError(
            f"got classes {dict(classes)}; label ids from 1 with a name each, no name twice, are allowed:"
            " leave the background out and rename doubles"
        )
