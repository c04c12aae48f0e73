"""What one case is like: its grid, the volumes of its classes, and the values where they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.training.planning.axes import stored_axes
from monai_unetfamily.training.planning.facts import CaseFacts, Intensity
from monai_unetfamily.volumes.masks import may_overlap
from monai_unetfamily.volumes.sources import Affine

LARGEST_LABEL = 65535
_SAMPLE = 10_000  # foreground voxels of a case, at most, that the whole set's intensities are taken from

Values = NDArray[np.float32]  # (C, *spatial)


@dataclass(frozen=True)
class Table:
    """The classes of a data set: id -> name without the ignored one, which has an id of its own; empty: unknown."""

    classes: Mapping[int, str]
    ignore: int | None
    channels: int  # of the image; 0: unknown


class Contents(NamedTuple):
    """What a file holds."""

    file: Path
    values: Values
    affine: Affine
    dtype: str  # as stored; "" of a picture


class Measured(NamedTuple):
    """What a case is like; the facts lack the volumes, whose names may be known only when all cases are."""

    facts: CaseFacts
    volumes: Mapping[int, float]  # label id -> ml
    samples: Sequence[Values]  # foreground values (n,) of each channel
    digest: bytes  # of the image's values; empty of an image of one value, which is no other's copy


def measure(name: str, images: Sequence[Contents], label: Contents, table: Table) -> Measured:
    """Measure a case whose files are on one grid, and whose labels are whole and in the table."""
    axes = stored_axes(label.affine)
    inside = foreground(label.values, table)
    channels = [values for image in images for values in image.values]
    values = [channel[inside] for channel in channels]
    facts = CaseFacts(
        name=name,
        size=tuple(inside.shape[axis] for axis in axes.order),
        spacing=tuple(axes.spacing[axis] for axis in axes.order),
        orientation=axes.orientation,
        dtype=images[0].dtype,
        label_dtype=label.dtype,
        volumes_ml={},
        extent_mm=tuple(_extent(inside, axis) * axes.spacing[axis] for axis in axes.order),
        ranges=tuple((float(channel.min()), float(channel.max())) for channel in channels),
        intensity=tuple(map(summarize, values)) if inside.any() else (),
    )
    voxel = float(abs(np.linalg.det(label.affine[:-1, :-1]))) / 1000  # ml
    volumes = {number: voxels * voxel for number, voxels in _voxels(label.values, table).items()}
    return Measured(facts, volumes, [_sample(each) for each in values], _digest(channels))


def summarize(values: Values) -> Intensity:
    """Percentiles, mean and standard deviation of values (n,), one or more.

    >>> summarize(np.arange(201, dtype=np.float32)).p99_5
    199.0
    """
    p00_5, p01, p50, p99, p99_5 = (float(value) for value in np.percentile(values, (0.5, 1, 50, 99, 99.5)))
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return Intensity(p00_5, p01, p50, p99, p99_5, mean, std)


def count_labels(labels: Values) -> dict[int, int]:
    """Label id -> voxels, of whole numbers; fast where they are small.

    >>> count_labels(np.array([[0, 2, 2]], np.float32)), count_labels(np.array([[-1, 0]], np.float32))
    ({0: 1, 2: 2}, {-1: 1, 0: 1})
    """
    if labels.min() < 0 or labels.max() > LARGEST_LABEL:
        ids, counts = np.unique(labels, return_counts=True)
        return {int(label): int(number) for label, number in zip(ids, counts, strict=True)}
    counts = np.bincount(labels.astype(np.uint16).ravel(order="K"))
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def foreground(labels: Values, table: Table) -> NDArray[np.bool_]:
    """Where any class is (*spatial)."""
    marked = labels != 0
    if table.ignore is not None:
        marked &= labels != table.ignore
    return np.asarray(marked.any(axis=0))


def _voxels(labels: Values, table: Table) -> dict[int, int]:
    """Label id -> voxels of each class."""
    if may_overlap(table.classes):
        return {number: int((mask == 1).sum()) for number, mask in enumerate(labels, start=1)}
    return {number: voxels for number, voxels in count_labels(labels).items() if number not in (0, table.ignore)}


def _extent(inside: NDArray[np.bool_], axis: int) -> int:
    others = tuple(other for other in range(inside.ndim) if other != axis)
    where = np.flatnonzero(inside.any(axis=others))
    return int(where[-1] - where[0] + 1) if where.size else 0


def _sample(values: Values) -> Values:
    """At most `_SAMPLE` of the values, evenly spaced."""
    chosen = np.linspace(0, len(values) - 1, min(len(values), _SAMPLE)).round().astype(np.int64)
    return np.asarray(values[chosen])


def _digest(channels: Sequence[Values]) -> bytes:
    if all(values.min() == values.max() for values in channels):
        return b""
    digest = blake2b(str([values.shape for values in channels]).encode(), digest_size=16)
    for values in channels:
        digest.update(values.tobytes(order="A"))
    return digest.digest()
