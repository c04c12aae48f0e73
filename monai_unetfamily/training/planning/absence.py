"""How often a random patch holds nothing of a class: what a classification-guided module could learn from."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from monai_unetfamily.training.planning.axes import stored_axes
from monai_unetfamily.volumes.masks import may_overlap
from monai_unetfamily.volumes.sources import read_label_map

_WINDOWS = 1000  # over all cases: a share of 50 % to within 3 %, at 95 % confidence


def absence_from_patches(
    cases: Sequence[Mapping[str, Any]],
    classes: Mapping[int, str],
    patch: Sequence[int],
    spacing: Sequence[float],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Share of random patches without a class, 0 to 1, of each class; every case gives as many patches.

    Windows of the patch's extent in mm are laid anywhere inside the label maps as they are stored, so that nothing is
    resampled: their borders are right to half a voxel. An image that is shorter gives its whole length.

    Args:
        cases: of `load_cases`; their label maps are read.
        classes: id -> name, as a fingerprint's `labels`.
        patch: voxels along the axes of `CaseFacts` (right, front, up; rows, columns); of a slice 1 along its normal.
        spacing: of the patch, mm along the same axes.
        seed: the same gives the same windows.

    Raises:
        ValueError: a patch of other axes than the images, no case, and what `read_label_map` raises.
        FileNotFoundError: a label map is missing.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.volumes.cases import load_cases, read_label_names
    >>> from monai_unetfamily.volumes.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=2, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     cases, names = load_cases(folder), read_label_names(Path(folder))
    ...     absence_from_patches(cases, names, patch=(16, 16, 16), spacing=(20, 16, 12.5))["liver"]
    0.0
    """
    if not cases:
        raise ValueError("got no cases; one is needed, name a data set's")
    if len(patch) != len(spacing):
        raise ValueError(f"got a patch of {len(patch)} axes and a spacing of {len(spacing)}; they must be as many")
    extent = np.asarray(patch) * np.asarray(spacing)  # mm, RAS
    windows = ceil(_WINDOWS / len(cases))
    bar = tqdm(cases, unit="case", disable=None, leave=False)
    seen = [_seen(Path(case["label"]), classes, extent, windows, [seed, n]) for n, case in enumerate(bar)]
    share = 1 - np.concatenate(seen).mean(axis=0)
    return {name: float(share[label]) for label, name in sorted(classes.items()) if label}


def _seen(
    file: Path, classes: Mapping[int, str], extent: NDArray[np.float64], windows: int, seed: list[int]
) -> NDArray[np.bool_]:
    """Which ids (windows, ids) each window of a label map holds."""
    values, affine = read_label_map(file)
    axes, shape = stored_axes(affine), np.asarray(values.shape[:-1])
    if len(extent) != len(shape):
        raise ValueError(f"{file}: got a patch of {len(extent)} axes; {len(shape)} are needed, as the image has")
    lengths = np.ones(len(shape), np.int64)
    lengths[axes.order] = np.maximum(1, np.round(extent / np.asarray(axes.spacing)[axes.order]))
    lengths = np.minimum(lengths, shape)
    starts = np.random.default_rng(seed).integers(shape - lengths + 1, size=(windows, len(shape)))
    boxes = (tuple(slice(*ends) for ends in zip(start, start + lengths, strict=True)) for start in starts)
    labels = values.astype(np.uint16)
    held = _in_masks if may_overlap(classes) else _in_map
    return np.stack([held(labels[box], max(classes)) for box in boxes])


def _in_map(labels: NDArray[np.uint16], last: int) -> NDArray[np.bool_]:
    seen = np.zeros(max(last, int(labels.max())) + 1, bool)  # an ignored id may be beyond the last
    seen[labels] = True
    return seen[: last + 1]


def _in_masks(masks: NDArray[np.uint16], last: int) -> NDArray[np.bool_]:
    flat = masks.reshape(-1, last)
    return np.concatenate([[False], (flat == 1).any(axis=0)])
