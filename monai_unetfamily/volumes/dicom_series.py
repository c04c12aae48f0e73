"""The DICOM series below a folder: which of its files are the slices of which volume, and which are passed over.

Scanners and archives nest folders and name files as they like, so every file is opened; what it is, its header
says.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_unetfamily.volumes.dicom_slices import (
    Slice,
    is_damaged_slice,
    open_slice,
    sort_slices,
    why_no_slice,
    why_unusable,
)
from monai_unetfamily.volumes.dicom_stack import count_positions

_PLANES = ("sagittal", "coronal", "axial")  # that the normal's largest component, x, y, z, tells of
# what tells several volumes within one series apart, if it gives every position to each
_PARTS = (
    *("EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber"),
    *("TriggerTime", "DiffusionBValue", "ImageType"),
)
_LEAST_BYTES = 132  # of a DICOM file: its preamble
_NAMED = 5  # files that a note names


@dataclass(frozen=True)
class Series:
    """The slices of one volume, and what their headers say of it."""

    files: tuple[Path, ...]  # sorted by position along the normal; cut off ones, which refuse to be read, last
    study: str  # StudyInstanceUID: volumes of one visit share it
    uid: str  # SeriesInstanceUID
    number: str
    description: str
    part: str  # what tells it apart within its series, as "EchoTime 2.3"; mostly empty
    modality: str
    plane: str  # "axial", "coronal" or "sagittal", the nearest one
    shape: tuple[int, int, int]  # columns, rows, slices

    def __str__(self) -> str:
        """Return a line whose every word `choose_series` understands."""
        name = " ".join(filter(None, (self.number, repr(self.description), self.part)))
        return f"{name} ({self.modality} {self.plane} {' x '.join(map(str, self.shape))}, {self.uid})"


def list_series(folder: Path) -> tuple[list[Series], tuple[str, ...]]:
    """Find the series below a folder that are volumes, by series number; notes name what was passed over.

    Passed over are localizers, secondary captures, colour, several frames in one file, images that do not say
    where they lie, single slices (`dicom_slices.why_no_slice`), and files that are no DICOM images. A series
    with several slices at each position is taken apart by echo time, phase, acquisition, trigger time, b-value
    or image type, where that gives whole volumes.

    Nothing is read without a slice that is there: one whose place or units cannot be told stays in its series,
    one that is cut off or cannot be parsed, though marked as DICOM, in every series of its folder, since nothing
    tells to which it belongs, and `dicom.read_series` refuses it by name.

    Raises:
        NotADirectoryError: no folder.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "notes.txt").write_text("of the visit")
    ...     list_series(Path(folder))
    ([], ('1 file, no DICOM image: notes.txt',))
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is no folder; name the one of the DICOM files")
    images, others = _open_all(folder)
    damaged, foreign = _split_damaged(others, images)
    found, notes = [], []
    for slices in _grouped(images, [image.tags.get("SeriesInstanceUID", "") for image in images]).values():
        volumes, passed = _volumes(slices, damaged)
        found += volumes
        notes += passed
    notes += _named("cannot be read, though a DICOM image", damaged, folder)
    notes += _named("no DICOM image", foreign, folder)
    return sorted(found, key=_order), tuple(notes)


def choose_series(found: Sequence[Series], wanted: str | None = None) -> tuple[Series, tuple[str, ...]]:
    """Choose one series; notes name the others.

    Args:
        found: what `list_series` lists.
        wanted: its UID, number or description, or any piece of its line (`str`), such as a piece of the UID,
            that no other has; None: the axial one of most voxels (of all, where none is axial), the first of
            equals.

    Raises:
        ValueError: none or several fit; with None, series of several studies, each of which is a case of its
            own. What there is is listed.

    >>> files = (Path("IM1"), Path("IM2"))
    >>> thick = Series(files, "1.2", "1.2.3", "2", "Abdomen 5.0", "", "CT", "axial", (512, 512, 60))
    >>> thin = Series(files, "1.2", "1.2.4", "3", "Abdomen 1.0", "", "CT", "axial", (512, 512, 300))
    >>> choose_series([thick, thin])[0].number, choose_series([thick, thin], "5.0")[0].number
    ('3', '2')
    >>> choose_series([thick, thin])[1]
    ("passed over: series 2 'Abdomen 5.0' (CT axial 512 x 512 x 60, 1.2.3)",)
    """
    chosen = _largest(found) if wanted is None else _matching(found, wanted)
    notes = [f"passed over: series {series}" for series in found if series is not chosen]
    if wanted is None and chosen.plane != "axial":
        notes.insert(0, f"no axial series: the largest one is read, series {chosen}")
    return chosen, tuple(notes)


def _open_all(folder: Path) -> tuple[list[Slice], list[Path]]:
    """Open every visible file below a folder; what is no image is listed apart."""
    images, others = [], []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in sorted(names) if not name.startswith(".")):
            try:
                images.append(open_slice(path))
            except ValueError:
                others.append(path)
    return images, others


def _split_damaged(others: Iterable[Path], images: Sequence[Slice]) -> tuple[list[Path], list[Path]]:
    """Part files that cannot be opened into slices that are cut off, perhaps to nothing, and other things."""
    neighbours = {(image.path.parent, image.path.suffix) for image in images}
    damaged = [
        path
        for path in others
        if is_damaged_slice(path) or (path.stat().st_size < _LEAST_BYTES and (path.parent, path.suffix) in neighbours)
    ]
    return damaged, [path for path in others if path not in damaged]


def _volumes(slices: Sequence[Slice], damaged: Iterable[Path]) -> tuple[list[Series], list[str]]:
    """The volumes within one SeriesInstanceUID, and a note on each sort of image that is none."""
    sorts = _grouped(slices, [why_no_slice(image) for image in slices])
    stack = sorts.pop("", [])
    usable = [image for image in stack if not why_unusable(image)]
    folders = {image.path.parent for image in usable}
    broken = [image.path for image in stack if why_unusable(image)]
    broken += [path for path in damaged if path.parent in folders]
    if stack and (not usable or len(usable) + len(broken) < 2):
        sorts[why_unusable(stack[0]) or "one slice, no volume"] = stack
        usable = []
    notes = [f"passed over: {_title(alike)}: {why}" for why, alike in sorts.items()]
    return [_series(part, group, broken) for part, group in _parts(usable).items() if group], notes


def _parts(slices: list[Slice]) -> dict[str, list[Slice]]:
    """Slices by what sets apart the volumes of one series; "" is the key of those that nothing sets apart."""
    positions = count_positions(sort_slices(slices)[1]) if slices else 0
    for keyword in _PARTS if 1 < positions < len(slices) else ():
        groups = _grouped(slices, [image.tags.get(keyword, "") for image in slices])
        counts = {(len(group), count_positions(sort_slices(group)[1])) for group in groups.values()}
        if counts == {(positions, positions)}:
            return {f"{keyword} {value}": group for value, group in groups.items()}
    return {"": slices}


def _series(part: str, slices: Sequence[Slice], broken: Sequence[Path]) -> Series:
    ordered, _ = sort_slices(slices)
    first = ordered[0]
    study, uid, number, description, modality = (
        first.tags.get(keyword, "")
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality")
    )
    return Series(
        files=(*(image.path for image in ordered), *broken),
        study=study,
        uid=uid,
        number=number,
        description=description,
        part=part,
        modality=modality,
        plane=_PLANES[np.abs(first.axes[2]).argmax()],
        shape=(*first.size, len(slices)),
    )


def _grouped(slices: Iterable[Slice], keys: Iterable[str]) -> dict[str, list[Slice]]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for image, key in zip(slices, keys, strict=True):
        groups[key].append(image)
    return dict(groups)


def _title(slices: Sequence[Slice]) -> str:
    tags = slices[0].tags
    name = f"series {tags.get('SeriesNumber', '')} {tags.get('SeriesDescription', '')!r}"
    return f"{name} ({len(slices)} file{'s' * (len(slices) > 1)})"


def _named(what: str, files: Sequence[Path], folder: Path) -> list[str]:
    if not files:
        return []
    names = ", ".join(str(path.relative_to(folder)) for path in files[:_NAMED])
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return [f"{len(files)} file{'s' * (len(files) > 1)}, {what}: {names}{more}"]


def _order(series: Series) -> tuple[float, str]:
    return (float(series.number) if series.number.isdecimal() else math.inf, series.uid)


def _listed(found: Iterable[Series]) -> str:
    return ", ".join(map(str, found)) or "none"


def _largest(found: Sequence[Series]) -> Series:
    studies = {series.study for series in found}
    if len(studies) > 1:
        raise ValueError(f"got series of {len(studies)} studies, {_listed(found)}; one is a case, choose a series")
    if not found:
        raise ValueError("got no DICOM series that is a volume; slices that say where they lie are needed")
    axial = [series for series in found if series.plane == "axial"]
    return max(axial or found, key=lambda series: math.prod(series.shape))


def _matching(found: Sequence[Series], wanted: str) -> Series:
    """The one series that a text names: first by UID, number or description, then by any piece of its line."""
    exact = [series for series in found if wanted in {series.uid, series.number, series.description} - {""}]
    fits = exact or [series for series in found if wanted.casefold() in str(series).casefold()]
    if len(fits) != 1:
        got = f"{len(fits)} series fit {wanted!r}"
        raise ValueError(f"{got}; there are {_listed(found)}; one is allowed, choose it by a piece of its line")
    return fits[0]
