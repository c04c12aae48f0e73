"""One case read once: everything that is wrong with it, and what it is like."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Pair

from monai_unetfamily.training.planning.measuring import (
    LARGEST_LABEL,
    Contents,
    Measured,
    Table,
    count_labels,
    foreground,
    measure,
)
from monai_unetfamily.training.planning.problems import Problem
from monai_unetfamily.volumes.cases import image_files
from monai_unetfamily.volumes.forms import form_notes
from monai_unetfamily.volumes.headers import require_pixdim
from monai_unetfamily.volumes.masks import may_overlap, require_channel_names
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, grid_shift, open_volume, read_voxels
from monai_unetfamily.volumes.sources import is_picture, read_channels, read_label_map

_NAMED = 8  # labels outside the table, at most


class Examined(NamedTuple):
    """What was found in one case, and its measures where no finding is an error."""

    problems: Sequence[Problem]
    measured: Measured | None


def examine(name: str, case: Mapping[str, Any], table: Table) -> Examined:
    """Read a case's files once; nothing is raised for what they hold."""
    problems: list[Problem] = []
    files = image_files(case)
    images = [read for file in files if (read := _read(name, file, problems, label=False))]
    label = _read(name, Path(case["label"]), problems, label=True)
    problems += _of_grids(name, [*images, *([label] if label else [])])
    problems += _of_images(name, images, table, complete=len(images) == len(files))
    problems += _of_labels(name, label, table) if label else ()
    if label is None or any(problem.severity == "error" for problem in problems):
        return Examined(problems, None)
    return Examined(problems, measure(name, images, label, table))


def _read(name: str, file: Path, problems: list[Problem], *, label: bool) -> Contents | None:
    if not file.is_file():
        what = "no such file, though it is a case's; restore it, or take the case out"
        problems.append(Problem("error", name, file, what))
        return None
    try:
        read = _read_picture(file, label) if is_picture(file) else _read_volume(name, file, problems)
    except (ValueError, OSError) as error:
        problems.append(_refused(name, file, error))
        return None
    bad = read.values.size - int(np.count_nonzero(np.isfinite(read.values)))
    if bad:
        what = f"{bad} of {read.values.size} voxels are NaN or infinite; finite values are allowed, replace them"
        problems.append(Problem("error", name, file, what))
    return read


def _refused(name: str, file: Path, error: ValueError | OSError) -> Problem:
    return Problem("error", name, file, str(error).removeprefix(f"{file}: ").replace(str(file), file.name))


def _read_picture(file: Path, label: bool) -> Contents:
    if label:
        values, affine = read_label_map(file)
        return Contents(file, np.moveaxis(values, -1, 0), affine, "")
    return Contents(file, *read_channels([file]), "")


def _read_volume(name: str, file: Path, problems: list[Problem]) -> Contents:
    image = open_volume(file, channels=True)
    problems += _of_header(name, file, image)
    voxels = read_voxels(image, file).reshape((*image.shape[:3], -1), order="F")
    return Contents(file, np.moveaxis(voxels, -1, 0), np.asarray(image.affine), image.get_data_dtype().name)


def _of_header(name: str, file: Path, image: Nifti1Pair) -> Iterator[Problem]:
    try:
        require_pixdim(image, file)
    except ValueError as error:
        yield _refused(name, file, error)
        return
    yield from (Problem("warning", name, file, note) for note in form_notes(image))


def _of_grids(name: str, reads: Sequence[Contents]) -> Iterator[Problem]:
    """Every file against the first, in shape and affine."""
    for read in reads[1:]:
        first = reads[0]
        got, needed = read.values.shape[1:], first.values.shape[1:]
        if got != needed:
            what = f"got shape {got}, {first.file.name} has {needed}; they must be equal, export one of them again"
            yield Problem("error", name, read.file, what)
        elif (shift := grid_shift(read.affine, first.affine)) > GRID_TOLERANCE:
            what = f"lies up to {shift:.3g} voxels off {first.file.name}; {GRID_TOLERANCE} is allowed, bring it there"
            yield Problem("error", name, read.file, what)


def _of_images(name: str, images: Sequence[Contents], table: Table, *, complete: bool) -> Iterator[Problem]:
    channels = sum(len(read.values) for read in images)
    if complete and table.channels and channels != table.channels:
        what = f"got {channels} channels; {table.channels} are named in dataset.json, name each of them"
        yield Problem("error", name, images[0].file, what)
    for read in images:
        for number in (number for number, values in enumerate(read.values) if values.min() == values.max()):
            where = f"channel {number}" if len(read.values) > 1 else "every voxel"
            yield Problem("warning", name, read.file, f"{where} holds the one value {read.values[number].flat[0]:g}")


def _of_labels(name: str, label: Contents, table: Table) -> Iterator[Problem]:
    needed = len(table.classes) if may_overlap(table.classes) else 1
    if len(label.values) != needed:
        meant = f"{needed} masks of {list(table.classes.values())} are" if needed > 1 else "one label map is"
        what = f"got {len(label.values)} maps; {meant} needed, convert it"
        yield Problem("error", name, label.file, what)
        return
    yield from _of_names(name, label, table)
    values = label.values[np.isfinite(label.values)]
    fractional = values[values != np.rint(values)]
    if fractional.size:
        got = f"{fractional.size} voxels hold fractions, {fractional[0]:g} first"
        yield Problem("error", name, label.file, f"{got}; whole numbers are allowed, threshold it")
    elif values.size:
        yield from _of_ids(name, label, count_labels(values), table)
    if not foreground(label.values, table).any():
        yield Problem("warning", name, label.file, "no voxel is of any class")


def _of_names(name: str, label: Contents, table: Table) -> Iterator[Problem]:
    try:
        require_channel_names(label.file, table.classes)
    except ValueError as error:
        yield _refused(name, label.file, error)


def _of_ids(name: str, label: Contents, found: Mapping[int, int], table: Table) -> Iterator[Problem]:
    """Whole numbers: ids outside the table, or outside what can be an id; and how they are stored."""
    known = {0, 1} if may_overlap(table.classes) else {0, *table.classes}
    known |= set() if table.ignore is None else {table.ignore}
    unknown = {
        each: voxels
        for each, voxels in found.items()
        if (each not in known if table.classes else not 0 <= each <= LARGEST_LABEL)
    }
    if unknown:
        allowed = f"{sorted(known)} are in the table" if table.classes else f"0 to {LARGEST_LABEL} are allowed"
        got = f"got labels {_first(sorted(unknown))} in {sum(unknown.values())} voxels"
        yield Problem("error", name, label.file, f"{got}; {allowed}, add or remap them")
    if label.dtype.startswith("float"):
        what = f"the label map is stored as {label.dtype}; its values are whole, and integers are safer"
        yield Problem("warning", name, label.file, what)


def _first(labels: Sequence[int]) -> str:
    beyond = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{list(labels[:_NAMED])}{beyond}"
