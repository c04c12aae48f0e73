"""Data sets: their cases by section and fold, their label tables, and whether the two fit.

Volumes or pictures, in the layouts of `layouts.py`; `splits.py` says which cases are held out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_unetfamily.data.layouts import Case, CaseFolder, channel_names, list_dataset, open_dataset
from monai_unetfamily.data.splits import Fold, Section, section_names
from monai_unetfamily.io import (
    BACKGROUND,
    GRID_TOLERANCE,
    grid_shift,
    is_image2d,
    may_overlap,
    open_volume,
    read_channels,
    read_label_map,
    require_channel_names,
    require_pixdim,
)

IGNORE = "ignore"  # nnU-Net's name for voxels that nobody labelled
_MR = {"mri", "mr", "flair", "adc", "dwi", "pd", "swi"}  # and what begins with t1 or t2
_OTHERS = {"ct": "CT", "cta": "CT", "pet": "PT", "pt": "PT", "us": "US", "xray": "CR"}


class Facts(NamedTuple):
    """What a `dataset.json` says of the whole set; "" where it says nothing."""

    name: str
    channels: tuple[str, ...]
    modality: str  # as DICOM abbreviates it: CT, MR, PT, US, CR; "+" between those of several channels
    licence: str
    description: str
    reference: str


def load_cases(dataset_dir: Path | str, section: Section = "training", fold: Fold = None) -> list[Case]:
    """List a section's cases, sorted by name, as `{"image": path, "label": path}` with absolute paths.

    Where channels are files of their own, "image" is the list of their paths. `splits.json` decides, or nnU-Net's
    `splits_final.json` (`splits.py`), which may hold a list of splits, the folds. Elsewhere fold k of five watches the
    case k in sorted order and every fifth after it, and is trained on the others.

    Args:
        dataset_dir: of any layout.
        section: "training" or "validation".
        fold: a number from 0 up; None: the only split, or fold 0; "all": training has every case, and validation those
            of None, which are then no measure of what is learned.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders, or an image or label file that is missing.
        ValueError: invalid JSON, no cases, two cases of one name, an image without a label or the reverse, a
            file that cannot be a case's, a split that names unknown cases or one case in both sections, a fold that
            there is not, an empty section.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.data.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=3, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     [Path(case["image"]).name for case in load_cases(Path(folder), "training")]
    ['phantom_001.nii.gz', 'phantom_002.nii.gz']
    """
    dataset = open_dataset(Path(dataset_dir))
    cases, flaws = list_dataset(dataset)
    if flaws:
        more = f" (the first of {len(flaws)} findings)" if len(flaws) > 1 else ""
        raise ValueError(f"{flaws[0].file}: {flaws[0].what}{more}")
    names = section_names(dataset.folder, list(cases), section, fold)
    for name in names:
        for file in (*image_files(cases[name]), Path(cases[name]["label"])):
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file, though it is of case {name!r}; restore or unlist it")
    return [cases[name] for name in names]


def image_files(case: Mapping[str, Any]) -> list[Path]:
    """The files of a case's image: one, or one a channel.

    >>> [file.name for file in image_files({"image": ["a_0000.nii", "a_0001.nii"], "label": "a.nii"})]
    ['a_0000.nii', 'a_0001.nii']
    """
    image = case["image"]
    return [Path(image)] if isinstance(image, str) else [Path(file) for file in image]


def read_label_names(dataset_dir: Path) -> dict[int, str]:
    """Read the label table of a `dataset.json`, id -> name, sorted by id.

    Id 0 is "background", whatever the data set calls it. nnU-Net's table, name -> id, is turned round. Paired folders
    have no table: it is empty.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders.
        ValueError: invalid JSON, no table, ids that are not integers from 0 up, one id twice, 0 for ignored voxels;
            nnU-Net's regions (several ids of one name), and its table without a background.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "dataset.json").write_text('{"labels": {"1": "liver", "0": "bg"}}')
    ...     read_label_names(Path(folder))
    {0: 'background', 1: 'liver'}
    """
    dataset = open_dataset(Path(dataset_dir))
    names = stated_label_names(dataset)
    return names | {0: BACKGROUND} if 0 in names else names


def stated_label_names(dataset: CaseFolder) -> dict[int, str]:
    """The label table as `read_label_names` reads it, with the data set's own name of id 0.

    Raises:
        ValueError: as `read_label_names`.
    """
    if dataset.layout == "paired folders":
        return {}
    table = dataset.listing.get("labels")
    if not isinstance(table, dict) or not table:
        raise ValueError(f'{dataset.file}: has no table "labels"; {{"0": "background", ...}} is needed, add it')
    inverse = any(isinstance(value, int | list) for value in table.values())
    names = _names_by_id(table, dataset.file) if inverse else _names(table, dataset.file)
    if ignore_label(names) == 0:
        raise ValueError(f"{dataset.file}: got label 0 {names[0]!r}; 0 is the background, give it another id")
    return names


def read_facts(dataset_dir: Path) -> Facts:
    """Read what a data set says of itself; paired folders say only their own name.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders.
        ValueError: invalid JSON, channels that are not numbered from 0 up.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     text = '{"name": "Heart", "modality": {"0": "MRI"}, "licence": "CC-BY-SA 4.0"}'
    ...     _ = (Path(folder) / "dataset.json").write_text(text)
    ...     facts = read_facts(Path(folder))
    >>> facts.name, facts.channels, facts.modality, facts.licence
    ('Heart', ('MRI',), 'MR', 'CC-BY-SA 4.0')
    """
    dataset = open_dataset(Path(dataset_dir))
    channels = channel_names(dataset)
    return Facts(
        _said(dataset, "name") or dataset.folder.absolute().name,
        channels,
        "+".join(sorted({kind for kind in map(_modality, channels) if kind})),
        _said(dataset, "licence") or _said(dataset, "license"),
        _said(dataset, "description"),
        _said(dataset, "reference"),
    )


def ignore_label(names: Mapping[int, str]) -> int | None:
    """The id that a table of label names calls "ignore", whatever the case; None where it has none.

    >>> ignore_label({0: "background", 1: "liver", 255: "ignore"})
    255
    """
    return next((label for label, name in names.items() if name.casefold() == IGNORE), None)


def check_labels(case: Mapping[str, Any], labels: Mapping[int, str]) -> None:
    """Refuse a case whose labels do not fit its image or the table of label names.

    Shapes must be equal, and the two grids the same up to `GRID_TOLERANCE`. Label files may store floats, if
    their values are whole. Classes that overlap (`io.may_overlap`) need a 4-D file (X, Y, Z, C) of masks, 0 or 1,
    which no picture is, all others a label map.

    Raises:
        ValueError: an sform that pixdim contradicts, another shape, a label map in place of masks or the reverse,
            another number of masks or other names in their header, another affine, fractional values, ids outside
            the table; and what `read_channels` and `read_label_map` raise.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.data.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=2, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     for case in load_cases(Path(folder)):
    ...         check_labels(case, read_label_names(Path(folder)))
    """
    label = Path(case["label"])
    for file in (*image_files(case), label):
        _require_one_reading(file)
    image, image_affine = read_channels(image_files(case))
    voxels, affine = read_label_map(label)
    shape = image.shape[1:]
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


def _require_one_reading(file: Path) -> None:
    """Training reads with MONAI's own reader, which must find the same affine."""
    if not is_image2d(file):
        require_pixdim(open_volume(file, channels=True), file)


def _require_channels(got: int, labels: Mapping[int, str], file: Path) -> None:
    if may_overlap(labels) and is_image2d(file):
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


def _names(table: Mapping[str, Any], file: Path) -> dict[int, str]:
    for key, name in table.items():
        if not (key.isdecimal() and isinstance(name, str)):
            got = f"got label {key!r}: {name!r}"
            raise ValueError(f'{file}: {got}; "id": "name", or nnU-Net\'s "name": id, is allowed, write so')
    return dict(sorted((int(key), name) for key, name in table.items()))


def _names_by_id(table: Mapping[str, Any], file: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, label in table.items():
        if isinstance(label, list):
            one = "one id a class is allowed, label each region by an id or give masks (docs/overlapping_classes.md)"
            raise ValueError(f"{file}: got label {name!r}: the region {label}; {one}")
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise ValueError(f'{file}: got label {name!r}: {label!r}; "name": id from 0 up is allowed, write so')
        if label in names:
            raise ValueError(f"{file}: got label {label} twice, {names[label]!r} and {name!r}; name each id once")
        names[label] = name
    if 0 not in names:
        raise ValueError(f'{file}: got labels {names} without 0; "background": 0 is needed, add it')
    return dict(sorted(names.items()))


def _said(dataset: CaseFolder, key: str) -> str:
    said = dataset.listing.get(key, "")
    return said if isinstance(said, str) else ""


def _modality(channel: str) -> str:
    word = channel.casefold().replace("-", "").replace(" ", "")
    return "MR" if word in _MR or word.startswith(("t1", "t2")) else _OTHERS.get(word, "")
