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
from typing import TypeVar

import numpy as np

from monai_unetfamily.io.dicom.slices import (
    Slice,
    compression,
    is_damaged_slice,
    open_slice,
    sort_slices,
    why_no_image,
    why_no_slice,
    why_unusable,
)
from monai_unetfamily.io.dicom.stacks import component, split_volumes

_PLANES = ("sagittal", "coronal", "axial")  # that the normal's largest component, x, y, z, tells of
_LEAST_BYTES = 132  # of a DICOM file: its preamble
_NAMED = 5  # files or series that a note names, and notes that an error does
_ALONE = "one slice, no volume"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Series:
    """The slices of one volume, and what their headers say of it."""

    files: tuple[Path, ...]  # sorted by position along the normal; cut off ones, which refuse to be read, last
    study: str  # StudyInstanceUID: volumes of one visit share it
    uid: str  # SeriesInstanceUID
    number: str
    description: str
    part: str  # what tells it apart within its series, as "phase EchoTime 2.3"; mostly empty
    modality: str
    plane: str  # "axial", "coronal" or "sagittal", the nearest one
    shape: tuple[int, int, int]  # columns, rows, slices
    component: str = ""  # of MR: "magnitude", "phase", "real" or "imaginary"

    def __str__(self) -> str:
        """Return a line whose every word `choose_series` understands."""
        name = " ".join(filter(None, (self.number, repr(self.description), self.part)))
        return f"{name} ({self.modality} {self.plane} {' x '.join(map(str, self.shape))}, {self.uid})"


def list_series(folder: Path) -> tuple[list[Series], tuple[str, ...]]:
    """Find the series below a folder that are volumes, by series number; notes name what was passed over.

    Passed over are localizers, secondary captures, segmentations, colour, several frames in one file, images that
    do not say where they lie, single slices (`slices.why_no_slice`), and files that are no DICOM images. A
    series that holds several volumes is taken apart (`stacks.split_volumes`). Nothing depends on how files are
    called.

    Nothing is read without a slice that is there: one whose place or units cannot be told stays in its series,
    one that is cut off or cannot be parsed, though marked as DICOM, in every series of its folder, since nothing
    tells to which it belongs, and `io.dicom.read_series` refuses it by name.

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
    found: list[Series] = []
    passed: dict[str, list[str]] = defaultdict(list)
    series = _grouped(images, [image.tags.get("SeriesInstanceUID", "") for image in images])
    for slices in sorted(series.values(), key=_number):
        volumes, reasons = _volumes(slices, damaged)
        found += volumes
        for why, title in reasons:
            passed[why].append(title)
    notes = [_passed_over(*item) for item in passed.items()]
    unread = _grouped(damaged, [f"cannot be read, though a DICOM image{compression(path)}" for path in damaged])
    unread |= _grouped(foreign, list(map(why_no_image, foreign)))
    notes += [_named(what, files, folder) for what, files in unread.items()]
    return found, tuple(notes)


def choose_series(
    found: Sequence[Series], wanted: str | None = None, passed: Sequence[str] = ()
) -> tuple[Series, tuple[str, ...]]:
    """Choose one series; notes name the others.

    Args:
        found: what `list_series` lists.
        wanted: its UID, number or description, or any piece of its line (`str`), such as a piece of the UID,
            that no other has; None: the axial one of most voxels (of all, where none is axial), the first of
            equals; the phase, real or imaginary part of MR only where there is nothing else.
        passed: the notes of `list_series`, which say why there is no series where there is none.

    Raises:
        ValueError: none or several fit; with None, series of several studies, each of which is a case of its
            own. What there is is listed; where there is none, what was passed over.

    >>> files = (Path("IM1"), Path("IM2"))
    >>> thick = Series(files, "1.2", "1.2.3", "2", "Abdomen 5.0", "", "CT", "axial", (512, 512, 60))
    >>> thin = Series(files, "1.2", "1.2.4", "3", "Abdomen 1.0", "", "CT", "axial", (512, 512, 300))
    >>> choose_series([thick, thin])[0].number, choose_series([thick, thin], "5.0")[0].number
    ('3', '2')
    >>> choose_series([thick, thin])[1]
    ("passed over: series 2 'Abdomen 5.0' (CT axial 512 x 512 x 60, 1.2.3)",)
    """
    if not found:
        raise ValueError(_why_none(passed))
    chosen = _largest(found) if wanted is None else _matching(found, wanted)
    notes = [f"passed over: series {series}" for series in found if series is not chosen]
    if wanted is None and chosen.plane != "axial":
        notes.insert(0, f"no axial series: the largest one is read, series {chosen}")
    if not _shows_magnitude(chosen):
        notes.insert(0, f"the series shows the {chosen.component} part of the signal, not its magnitude")
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


def _volumes(slices: Sequence[Slice], damaged: Iterable[Path]) -> tuple[list[Series], list[tuple[str, str]]]:
    """The volumes within one SeriesInstanceUID; and for each sort of image that is none, why, and its title."""
    sorts = _grouped(slices, [why_no_slice(image) for image in slices])
    stack = sorts.pop("", [])
    usable = [image for image in stack if not why_unusable(image)]
    folders = {image.path.parent for image in usable}
    broken = [image.path for image in stack if why_unusable(image)]
    broken += [path for path in damaged if path.parent in folders]
    if stack and not usable:
        sorts[why_unusable(stack[0])] = stack
    passed = [(why, _title(alike)) for why, alike in sorts.items()]
    volumes = []
    # in an order that files' names do not change: the first slice's directions sort the others
    for part, group in split_volumes(sorted(usable, key=lambda image: (*image.axes.flat, *image.position))):
        if len(group) + len(broken) > 1:
            volumes.append(_series(part, group, broken))
        else:
            passed.append((_ALONE, _title(group, part)))
    return volumes, passed


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
        component=component(first),
    )


def _grouped(items: Iterable[_Item], keys: Iterable[str]) -> dict[str, list[_Item]]:
    groups: dict[str, list[_Item]] = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        groups[key].append(item)
    return dict(groups)


def _title(slices: Sequence[Slice], part: str = "") -> str:
    tags = slices[0].tags
    name = " ".join(filter(None, (tags.get("SeriesNumber", ""), repr(tags.get("SeriesDescription", "")), part)))
    return f"series {name} ({len(slices)} file{'s' * (len(slices) > 1)})"


def _passed_over(why: str, titles: Sequence[str]) -> str:
    """A line for all series that are passed over for one reason."""
    if why == _ALONE and len(titles) > 1:
        why = f"{_ALONE}, in each of {len(titles)} series: files of one volume share a SeriesInstanceUID"
    return f"passed over: {_first(titles)}: {why}"


def _named(what: str, files: Sequence[Path], folder: Path) -> str:
    names = _first([str(path.relative_to(folder)) for path in files])
    return f"{len(files)} file{'s' * (len(files) > 1)}, {what}: {names}"


def _first(names: Sequence[str], mark: str = ", ") -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{mark.join(names[:_NAMED])}{more}"


def _number(slices: Sequence[Slice]) -> tuple[float, str]:
    number, uid = (min(image.tags.get(word, "") for image in slices) for word in ("SeriesNumber", "SeriesInstanceUID"))
    return (float(number) if number.isdecimal() else math.inf, uid)


def _listed(found: Iterable[Series]) -> str:
    return ", ".join(map(str, found)) or "none"


def _why_none(passed: Sequence[str]) -> str:
    got = f" ({_first([note.removeprefix('passed over: ') for note in passed], '; ')})" if passed else ""
    return (
        f"got no DICOM series that is a volume{got}; files of one slice each, which say where it lies, are needed: "
        "export them so, or convert them to NIfTI"
    )


def _shows_magnitude(series: Series) -> bool:
    return series.component in ("", "magnitude")


def _largest(found: Sequence[Series]) -> Series:
    studies = {series.study for series in found}
    if len(studies) > 1:
        raise ValueError(f"got series of {len(studies)} studies, {_listed(found)}; one is a case, choose a series")
    axial = [series for series in found if series.plane == "axial"]
    return max(axial or found, key=lambda series: (_shows_magnitude(series), math.prod(series.shape)))


def _matching(found: Sequence[Series], wanted: str) -> Series:
    """The one series that a text names: first by UID, number or description, then by any piece of its line."""
    exact = [series for series in found if wanted in {series.uid, series.number, series.description} - {""}]
    fits = exact or [series for series in found if wanted.casefold() in str(series).casefold()]
    if len(fits) != 1:
        got = f"{len(fits)} series fit {wanted!r}"
        raise ValueError(f"{got}; there are {_listed(found)}; one is allowed, choose it by a piece of its line")
    return fits[0]
