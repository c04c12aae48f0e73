"""A whole volume's scores through the bundle's own postprocessing: what is done where slabs cannot be."""

from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import AsDiscreted

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.postprocessing import steps_of
from monai_unetfamily.inference.restore import Sink, Where, require_finite
from monai_unetfamily.volumes.masks import may_overlap
from monai_unetfamily.volumes.nifti import Labels


def labels_of(
    bundle: Bundle, image: MetaTensor, scores: torch.Tensor, shape: tuple[int, ...], box: Where, sink: Sink | None
) -> Labels:
    """Labels (*shape), or masks (*shape, classes), of scores (classes, *spatial) on the grid of a preprocessed image.

    Outside the box labels are 0, and the sink is told no scores.

    Raises:
        ValueError: scores that are not finite, or a postprocessing that does not end with labels on the source grid.
    """
    require_finite(scores)
    case: dict[str, Any] = {"image": image, "pred": MetaTensor(scores)}  # Invertd passes plain tensors over
    for step in steps_of(bundle.postprocess):
        if sink is not None and isinstance(step, AsDiscreted):
            _tell(case["pred"], shape, bundle, box, sink)
        case = step(case)
    labels = _checked(case["pred"], shape, bundle)
    inside = np.zeros_like(labels)
    inside[box] = labels[box]
    return inside


def _tell(scores: torch.Tensor, shape: tuple[int, ...], bundle: Bundle, box: Where, sink: Sink) -> None:
    """Give the scores on the source grid to the sink, class by class."""
    if scores.shape != (len(bundle.names), *shape):
        raise ValueError(f"{bundle.root}: its scores before AsDiscreted are not on the source grid; save labels alone.")
    for c, score in enumerate(scores):
        sink(box, c, np.asarray(score[box]))


def _checked(labels: torch.Tensor, shape: tuple[int, ...], bundle: Bundle) -> Labels:
    """(1, *spatial) as label ids (*spatial), or (classes, *spatial) as masks (*spatial, classes)."""
    overlap = may_overlap(bundle.names)
    if overlap and labels.shape[0] != len(bundle.names):
        raise ValueError(
            f"{bundle.root}: gives {labels.shape[0]} maps for the {len(bundle.names)} classes that channel_def names; "
            "its postprocessing must keep one map for each (AsDiscreted with a threshold)."
        )
    if not overlap and labels.shape[0] != 1:
        raise ValueError(
            f"{bundle.root}: gives {labels.shape[0]} overlapping maps, which one label map cannot hold; use a bundle "
            "whose postprocessing takes the best class (AsDiscreted with argmax), or whose channel_def names no "
            "background."
        )
    require_shape(tuple(labels.shape[1:]), shape)
    largest = 1 if overlap else max(bundle.names)
    _require_ids(labels, largest, bundle)
    voxels = labels.numpy().astype(np.min_scalar_type(largest))
    return np.moveaxis(voxels, 0, -1) if overlap else voxels[0]


def require_shape(got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse labels of another shape than the image's.

    >>> require_shape((3, 2), (3, 2))
    """
    if got != shape:
        raise ValueError(
            f"labels have {got} voxels, the image {shape}: the bundle's postprocessing must end on the source grid "
            "(Invertd)."
        )


def _require_ids(labels: torch.Tensor, largest: int, bundle: Bundle) -> None:
    if labels.min() < 0 or labels.max() > largest or not torch.equal(labels, labels.round()):
        raise ValueError(
            f"{bundle.root}: postprocessing gives values between {float(labels.min()):g} and {float(labels.max()):g}; "
            f"whole numbers from 0 to {largest} are labels here: end it with AsDiscreted, after Invertd."
        )
