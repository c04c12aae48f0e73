"""Data sets: the layout of the Medical Segmentation Decathlon (MSD), or paired folders `images/` and `labels/`.

Volumes or pictures. In MSD (Antonelli et al., Nature Communications 13, 2022) `dataset.json` lists the cases and names
the labels. Paired folders hold files of the same names but for the format, and name no labels.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_unetfamily.volumes.headers import require_pixdim
from monai_unetfamily.volumes.masks import may_overlap, require_channel_names
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, grid_shift, open_volume
from monai_unetfamily.volumes.sources import (
    is_picture,
    list_sources,
    read_image,
    read_label_map,
    require_sources_alone,
    stem,
)

Section = Literal["training", "validation"]
IGNORE = "ignore"  # nnU-Net's name for voxels that nobody labelled
_KEYS = ("image", "label")
_PAIRED = ("images", "labels")  # the folders where there is no dataset.json


def load_cases(dataset_dir: Path | str, section: Section = "training") -> list[dict[str, str]]:
    """List a section's cases, sorted by name, as `{"image": path, "label": path}` with absolute paths.

    Where the folder has a `splits.json` (`{"training": [stems], "validation": [stems]}`), it decides.
    Elsewhere the first case in sorted order and every fifth after it are validation, the others training.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders, or an image or label file that is missing.
        ValueError: invalid JSON, no cases, two cases of one name, an image without a label or the reverse, a
            file in paired folders that is neither picture nor NIfTI file, a split that names unknown cases or one
            case in both sections, an empty section.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.volumes.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=3, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     [Path(case["image"]).name for case in load_cases(Path(folder), "training")]
    ['phantom_001.nii.gz', 'phantom_002.nii.gz']
    """
    if section not in ("training", "validation"):
        raise ValueError(f"got section {section!r}; 'training' or 'validation' is allowed, name one of them")
    dataset_dir = Path(dataset_dir)
    cases = _paired_cases(dataset_dir) if _is_paired(dataset_dir) else _all_cases(dataset_dir)
    names = _section_names(dataset_dir, sorted(cases), section)
    if not names:
        raise ValueError(f"{dataset_dir}: section {section!r} is empty; one case is needed, add cases to it")
    chosen = [cases[name] for name in sorted(names)]
    for file in (file for case in chosen for file in case.values()):
        if not Path(file).is_file():
            listing = dataset_dir / "dataset.json"
            raise FileNotFoundError(f"{file}: no such file, though {listing} lists it; restore or unlist it")
    return chosen


def read_label_names(dataset_dir: Path) -> dict[int, str]:
    """Read the label table of a `dataset.json`, id -> name, sorted by id; MSD has 0 for the background.

    Paired folders have no table: it is empty.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders.
        ValueError: invalid JSON, no table, ids that are not integers from 0 up (nnU-Net's table is inverse).

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "dataset.json").write_text('{"labels": {"1": "liver", "0": "background"}}')
    ...     read_label_names(Path(folder))
    {0: 'background', 1: 'liver'}
    """
    if _is_paired(dataset_dir):
        return {}
    file = dataset_dir / "dataset.json"
    table = _read_json(file).get("labels")
    if not isinstance(table, dict) or not table:
        raise ValueError(f'{file}: has no table "labels"; {{"0": "background", ...}} is needed, add it')
    for key, name in table.items():
        if not (key.isdecimal() and isinstance(name, str)):
            got = f"got label {key!r}: {name!r}"
            raise ValueError(f'{file}: {got}; "id": "name" is allowed (nnU-Net has the inverse), turn it round')
    return dict(sorted((int(key), name) for key, name in table.items()))


def ignore_label(names: Mapping[int, str]) -> int | None:
    """The id that a table of label names calls "ignore", whatever the case; None where it has none.

    >>> ignore_label({0: "background", 1: "liver", 255: "ignore"})
    255
    """
    return next((label for label, name in names.items() if name.casefold() == IGNORE), None)


def check_labels(case: Mapping[str, str], labels: Mapping[int, str]) -> None:
    """Refuse a case whose labels do not fit its image or the table of label names.

    Shapes must be equal, and the two grids the same up to `GRID_TOLERANCE`. Label files may store floats, if
    their values are whole. Classes that overlap (`masks.may_overlap`) need a 4-D file (X, Y, Z, C) of masks, 0 or 1,
    which no picture is, all others a label map.

    Raises:
        ValueError: an sform that pixdim contradicts, another shape, a label map in place of masks or the reverse,
            another number of masks or other names in their header, another affine, fractional values, ids outside
            the table; and what `read_image` and `read_label_map` raise.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.volumes.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=2, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     for case in load_cases(Path(folder)):
    ...         check_labels(case, read_label_names(Path(folder)))
    """
    _require_one_reading(case)
    image, image_affine = read_image(Path(case["image"]))
    label = Path(case["label"])
    voxels, affine = read_label_map(label)
    shape = image.shape[: len(image_affine) - 1]  # without the channels of a picture
    if voxels.shape[:-1] != shape:
        got = f"got shape {voxels.shape[:-1]}, its image {shape}"
        raise ValueError(f"{label}: {got}; they must be equal, export the label map again")
    ignored = ignore_label(labels)
    classes = {number: name for number, name in labels.items() if number != ignored}
    _require_channels(voxels.shape[-1], classes, label)
    require_channel_names(label, classes)
    shift = grid_shift(affine, image_affine)
    if shift > GRID_TOLERANCE:
        got = f"got an affine {shift:.3g} voxels off its image's"
        raise ValueError(f"{label}: {got}; {GRID_TOLERANCE} is allowed, bring it to the image's grid first")
    unlabelled = set() if ignored is None else {ignored}
    _require_ids(np.unique(voxels), ({0, 1} if may_overlap(classes) else {0, *classes}) | unlabelled, label)


def _require_one_reading(case: Mapping[str, str]) -> None:
    """Training reads with MONAI's own reader, which must find the same affine."""
    for file in (Path(case[key]) for key in _KEYS):
        if not is_picture(file):
            require_pixdim(open_volume(file, channels=True), file)


def _require_channels(got: int, labels: Mapping[int, str], file: Path) -> None:
    if may_overlap(labels) and is_picture(file):
        both = f"a picture holds one label map, and {list(labels.values())} may overlap"
        raise ValueError(f"{file}: {both}; overlapping classes are trained on volumes alone, choose another bundle")
    needed = len(labels) if may_overlap(labels) else 1
    if got != needed:
        kind = f"may overlap: {needed} masks (X, Y, Z, {needed}) are" if needed > 1 else "lie apart: one label map is"
        classes = [name for label, name in labels.items() if label]
        maps = f"got {got} map{'s' * (got > 1)}"
        raise ValueError(f"{file}: {maps}; {classes} {kind} needed, convert it or choose another bundle")


def _require_ids(values: np.ndarray[Any, np.dtype[np.float32]], allowed: set[int], label: Path) -> None:
    fractional = values[values != np.round(values)]
    if fractional.size:
        raise ValueError(f"{label}: got label {fractional[0]}; whole numbers are allowed, threshold it first")
    unknown = sorted({int(value) for value in values} - allowed)
    if unknown:
        raise ValueError(f"{label}: got labels {unknown}; {sorted(allowed)} are in the table, add or remap them")


def _is_paired(dataset_dir: Path) -> bool:
    return not (dataset_dir / "dataset.json").exists() and all((dataset_dir / name).is_dir() for name in _PAIRED)


def _paired_cases(dataset_dir: Path) -> dict[str, dict[str, str]]:
    for name in _PAIRED:
        require_sources_alone(dataset_dir / name)
    images, labels = (
        {stem(file): str(file.absolute()) for file in list_sources([dataset_dir / name])} for name in _PAIRED
    )
    for files, others, missing in ((images, labels, "label"), (labels, images, "image")):
        alone = sorted(files.keys() - others.keys())
        if alone:
            got = f"{len(alone)} of {len(files)} files have no {missing} of their name"
            raise ValueError(f"{files[alone[0]]}: {got}, this is the first; add what is missing, or take these away")
    return {name: {"image": images[name], "label": labels[name]} for name in images}


def _all_cases(dataset_dir: Path) -> dict[str, dict[str, str]]:
    file = dataset_dir / "dataset.json"
    entries = _read_json(file).get("training")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{file}: lists no cases under "training"; images with labels are needed, add them')
    cases: dict[str, dict[str, str]] = {}
    for entry in entries:
        if not (isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in _KEYS)):
            raise ValueError(f'{file}: got case {entry!r}; {{"image": ..., "label": ...}} is allowed, write so')
        case = {key: str((dataset_dir / entry[key]).absolute()) for key in _KEYS}
        name = stem(Path(case["image"]))
        if name in cases:
            raise ValueError(f"{file}: lists {name!r} twice; each case needs its own name, rename or drop one")
        cases[name] = case
    return cases


def _section_names(dataset_dir: Path, names: list[str], section: Section) -> list[str]:
    file = dataset_dir / "splits.json"
    if not file.exists():
        validation = names[::5]
        return validation if section == "validation" else [name for name in names if name not in validation]
    splits = _read_json(file)
    for key in ("training", "validation"):
        _require_known(splits.get(key), set(names), key, file)
    both = set(splits["training"]) & set(splits["validation"])
    if both:
        raise ValueError(f"{file}: {sorted(both)[0]!r} is in both sections; each case belongs to one, drop it from one")
    return list(splits[section])


def _require_known(listed: object, names: set[str], section: str, file: Path) -> None:
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f'{file}: has no list "{section}"; a list of case names is needed, add it')
    unknown = [name for name in listed if name not in names]
    if unknown:
        raise ValueError(
            f"{file}: {section} names {len(unknown)} unknown cases ({unknown[0]!r} first);"
            " the data set's cases are allowed, correct the names"
        )


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file, nor images/ and labels/ beside it; name a folder in the layout of the Decathlon"
            " (MSD), or one of paired folders"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise ValueError(f"{file}: is not valid JSON ({error}); mend that place") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}; a JSON object is needed, see the MSD layout")
    return content
