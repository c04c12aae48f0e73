"""The fingerprint of a data set: spacings, sizes, intensities, volumes of classes and their absence from patches."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, io_orientation
from numpy.typing import NDArray
from tqdm import tqdm

from monai_unetfamily.evaluation import align
from monai_unetfamily.io import Affine, may_overlap, read_label_map

# Classes that come in pairs of left and right: what a mirrored image would exchange.


_SIDES = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right"}
_OTHER = {"left": "right", "right": "left"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+")


def paired_sides(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (left, right) of names that differ in the side alone: left, l or lh, and right, r or rh, as whole words.

    >>> paired_sides(["liver", "left_kidney", "right_kidney", "Lung R", "Lung L", "left atrium"])
    [('left_kidney', 'right_kidney'), ('Lung L', 'Lung R')]
    >>> paired_sides(["KidneyRight", "KidneyLeft", "1", "2"])
    [('KidneyLeft', 'KidneyRight')]
    """
    known = {_words(name): name for name in names}
    lefts = [words for words in known if "left" in words]
    return [(known[left], known[right]) for left in lefts if (right := _mirrored(left)) in known]


def _words(name: str) -> tuple[str, ...]:
    words = (word.casefold() for word in _WORD.findall(name))
    return tuple(_SIDES.get(word, word) for word in words)


def _mirrored(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_OTHER.get(word, word) for word in words)


# What was measured in one case.


@dataclass(frozen=True)
class Intensity:
    """Values of foreground voxels, as stored and scaled by the header: percentiles, mean, standard deviation."""

    p00_5: float
    p01: float
    p50: float
    p99: float
    p99_5: float
    mean: float
    std: float


@dataclass(frozen=True)
class CaseFacts:
    """One case, its axes turned to run right, front and up as far as they do (RAS); a picture's are rows and columns.

    Volumes are in ml; of pictures, whose pixels are 1 by 1, in thousands of pixels. A class that is not in the case
    has 0.
    """

    name: str
    size: tuple[int, ...]  # voxels
    spacing: tuple[float, ...]  # mm, or 1 pixel
    orientation: str  # of the axes as stored: "RAS", "LPS", ...; "" of a picture
    dtype: str  # of the image as stored
    label_dtype: str
    volumes_ml: dict[str, float]  # class -> ml, background left out
    extent_mm: tuple[float, ...]  # the box about all foreground; zeros without any
    ranges: tuple[tuple[float, float], ...]  # least and largest value of each channel, all voxels
    intensity: tuple[Intensity, ...]  # of each channel; empty without foreground


# The axes of a file as the patient's.


class StoredAxes(NamedTuple):
    """Which stored axis runs nearest to right, front and up, and what each stored axis is."""

    order: list[int]  # stored axis of each RAS axis
    spacing: list[float]  # of the stored axes, mm
    orientation: str  # of the stored axes: "LPS", ...; "" of a picture


def stored_axes(affine: Affine) -> StoredAxes:
    """Read an affine (4, 4) to mm; a picture's (3, 3) has rows and columns of 1 pixel, which stay as they are.

    >>> stored_axes(np.array([[0, -1, 0, 9], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]]))
    StoredAxes(order=[1, 2, 0], spacing=[3.0, 1.0, 2.0], orientation='SLA')
    """
    if len(affine) == 3:
        return StoredAxes([0, 1], [1.0, 1.0], "")
    nearest = io_orientation(affine)[:, 0]
    order = [int(np.flatnonzero(nearest == axis)[0]) for axis in range(3)]
    return StoredAxes(order, [float(size) for size in voxel_sizes(affine)], "".join(aff2axcodes(affine)))


# What one case is like: its grid, the volumes of its classes, and the values where they are.

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


# The fingerprint of a data set: what its cases are like, as facts that a plan can be made of.
#
# After nnU-Net's (Isensee et al., Nature Methods 18, 2021, online methods), with the volume of each class and its
# absences besides. It keeps no voxel: as JSON a case takes about a kilobyte.


@dataclass(frozen=True)
class Fingerprint:
    """What a data set holds. Axes and units are those of `CaseFacts`."""

    name: str
    modality: str  # "CT", "MR", ... as the data set says; "" where it does not
    channels: tuple[str, ...]
    labels: dict[int, str]  # id -> name; 0 is the background, and is missing where classes overlap
    ignore: int | None  # id of voxels that nobody labelled
    layout: str  # "MSD", "nnU-Net" or "paired folders"
    overlapping: bool
    cases: tuple[CaseFacts, ...]
    pooled: tuple[Intensity, ...]  # of each channel, over the foreground of all cases; empty without any

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes, by id."""
        return tuple(name for label, name in sorted(self.labels.items()) if label)

    @property
    def spatial_dims(self) -> int:
        """3 of volumes, 2 of pictures."""
        return len(self.cases[0].size)

    def spacing(self, percentile: float = 50) -> tuple[float, ...]:
        """Percentile over the cases of the spacing along each axis, mm."""
        return _percentile([case.spacing for case in self.cases], percentile)

    def size(self, percentile: float = 50, spacing: tuple[float, ...] | None = None) -> tuple[int, ...]:
        """Percentile over the cases of the voxels along each axis, once they are resampled to `spacing` (mm)."""
        sizes = [_resampled(case, spacing or case.spacing) for case in self.cases]
        return tuple(round(size) for size in _percentile(sizes, percentile))

    def intensity(self, channel: int = 0) -> Intensity:
        """Values of a channel over the foreground of all cases.

        Raises:
            ValueError: no case has any foreground.
            IndexError: there is no such channel.
        """
        if not self.pooled:
            raise ValueError(f"{self.name}: no case has foreground; labelled voxels are needed, check the labels")
        return self.pooled[channel]

    @property
    def absent_from_case(self) -> dict[str, float]:
        """Class -> share of the cases without it, 0 to 1."""
        missing = {name: sum(not case.volumes_ml[name] for case in self.cases) for name in self.classes}
        return {name: count / len(self.cases) for name, count in missing.items()}

    @property
    def paired_sides(self) -> list[tuple[str, str]]:
        """Pairs (left, right) of classes whose names differ in the side alone."""
        return paired_sides(self.classes)

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read what `to_json` wrote.

        Raises:
            ValueError: no JSON, or not of a fingerprint; says what is missing or unknown.

        >>> Fingerprint.from_json("{}")
        Traceback (most recent call last):
        ValueError: got no fingerprint (missing 'name'); what Fingerprint.to_json writes is allowed, take it anew
        """
        try:
            return _fingerprint(json.loads(text))
        except KeyError as error:
            raise ValueError(_refusal(f"missing {error}")) from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(_refusal(str(error))) from error


def format_fingerprint(fingerprint: Fingerprint) -> str:
    """A fingerprint as tables that people read, in plain text that is Markdown too."""
    return "\n\n".join([_summary(fingerprint), _grids(fingerprint), _classes(fingerprint), _intensities(fingerprint)])


def _summary(fingerprint: Fingerprint) -> str:
    cases = len(fingerprint.cases)
    channels = ", ".join(fingerprint.channels)
    kind = f"{'picture' if fingerprint.spatial_dims == 2 else 'volume'}{'s' * (cases != 1)}"
    modality = f" of {fingerprint.modality}" if fingerprint.modality else ""
    return f"{fingerprint.name}: {cases} {kind}{modality} ({fingerprint.layout}), channels: {channels}"


def _grids(fingerprint: Fingerprint) -> str:
    unit = "mm" if fingerprint.spatial_dims == 3 else "pixels"
    rows = [
        [f"spacing, {unit}", *(_by("{:.4g}", fingerprint.spacing(p)) for p in (0, 10, 50, 90, 100))],
        ["size, voxels", *(_by("{}", fingerprint.size(p)) for p in (0, 10, 50, 90, 100))],
    ]
    return align([["over the cases", "least", "10 %", "median", "90 %", "largest"], *rows])


def _classes(fingerprint: Fingerprint) -> str:
    absent = fingerprint.absent_from_case
    unit = "ml" if fingerprint.spatial_dims == 3 else "1000 pixels"
    rows = []
    for name in fingerprint.classes:
        volumes = [case.volumes_ml[name] for case in fingerprint.cases if case.volumes_ml[name]]
        spread = np.percentile(volumes, (0, 50, 100)) if volumes else ()
        rows.append([name, *(f"{value:.4g}" for value in spread), *("-" for _ in range(3 - len(spread)))])
        rows[-1].append(f"{absent[name]:.1%}")
    return align([["class", f"least {unit}", "median", "largest", "absent from cases"], *rows])


def _intensities(fingerprint: Fingerprint) -> str:
    header = ["channel", "0.5 %", "1 %", "median", "99 %", "99.5 %", "mean", "sd"]
    rows = [
        [name, *(f"{value:.4g}" for value in asdict(intensity).values())]
        for name, intensity in zip(fingerprint.channels, fingerprint.pooled, strict=False)
    ]
    return align([header, *rows]) if rows else "intensities of the foreground are not known"


def _by(form: str, values: tuple[float, ...]) -> str:
    return " x ".join(form.format(value) for value in values)


def _percentile(rows: list[tuple[float, ...]] | list[tuple[int, ...]], percentile: float) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(np.asarray(rows, np.float64), percentile, axis=0))


def _resampled(case: CaseFacts, spacing: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(n * own / new for n, own, new in zip(case.size, case.spacing, spacing, strict=True))


def _refusal(reason: str) -> str:
    return f"got no fingerprint ({reason}); what Fingerprint.to_json writes is allowed, take it anew"


def _fingerprint(content: Mapping[str, Any]) -> Fingerprint:
    return Fingerprint(
        name=content["name"],
        modality=content["modality"],
        channels=tuple(content["channels"]),
        labels={int(label): name for label, name in content["labels"].items()},
        ignore=content["ignore"],
        layout=content["layout"],
        overlapping=content["overlapping"],
        cases=tuple(_case(case) for case in content["cases"]),
        pooled=tuple(Intensity(**each) for each in content["pooled"]),
    )


def _case(content: Mapping[str, Any]) -> CaseFacts:
    turned = {key: tuple(content[key]) for key in ("size", "spacing", "extent_mm")}
    ranges = tuple((low, high) for low, high in content["ranges"])
    intensity = tuple(Intensity(**each) for each in content["intensity"])
    return CaseFacts(**{**content, **turned, "ranges": ranges, "intensity": intensity})


# How often a random patch holds nothing of a class: what a classification-guided module could learn from.

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
    >>> from monai_unetfamily.data import load_cases, read_label_names
    >>> from monai_unetfamily.data.phantom import write_phantoms
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
