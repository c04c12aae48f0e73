"""Layouts of data sets: which files make the cases, and what a `dataset.json` says of them.

MSD (Antonelli et al., Nature Communications 13, 2022): `dataset.json` lists image and label of each case, and names
labels by id. nnU-Net raw, version 2 (Isensee et al., Nature Methods 18, 2021): `imagesTr/CASE_0000.nii.gz` and so on,
a file a channel, `labelsTr/CASE.nii.gz`, and a `dataset.json` with ids by name. Paired folders: `images/` and `labels/`
of files of the same names but for the format.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from monai_unetfamily.io import is_image2d, list_all, list_foreign, stem

Layout = Literal["MSD", "nnU-Net", "paired folders"]
Case = dict[str, Any]  # "image": path, or paths where channels are files of their own; "label": path
KEYS = ("image", "label")
_PAIRED = ("images", "labels")  # the folders where there is no dataset.json
_ENDINGS = (".nii.gz", ".nii", ".png", ".tif", ".tiff")
_CHANNEL = re.compile(r"(.+)_(\d{4})")  # case, channel
_RGB = 3


class Flaw(NamedTuple):
    """What keeps a file from being a case's."""

    case: str
    file: Path
    what: str  # got; allowed, what to do


@dataclass(frozen=True)
class CaseFolder:
    """A data set's folder, and its `dataset.json`, which paired folders have not."""

    folder: Path
    layout: Layout
    listing: dict[str, Any]

    @property
    def file(self) -> Path:
        """Its `dataset.json`."""
        return self.folder / "dataset.json"


def open_dataset(folder: Path) -> CaseFolder:
    """Tell the layout of a data set, and read its `dataset.json`.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders.
        ValueError: invalid JSON.
    """
    if not (folder / "dataset.json").exists() and all((folder / name).is_dir() for name in _PAIRED):
        return CaseFolder(folder, "paired folders", {})
    listing = _read_listing(folder / "dataset.json")
    layout: Layout = "nnU-Net" if {"channel_names", "file_ending"} & set(listing) else "MSD"
    return CaseFolder(folder, layout, listing)


def list_dataset(dataset: CaseFolder) -> tuple[dict[str, Case], list[Flaw]]:
    """Cases by name, with absolute paths, which may not exist, and what is wrong with other entries or files.

    Raises:
        ValueError: a `dataset.json` that lists no case, or whose keys cannot be used.
        FileNotFoundError: no folder imagesTr or labelsTr.
    """
    lists = {"MSD": _list_msd, "nnU-Net": _list_nnunet, "paired folders": _list_paired}
    return lists[dataset.layout](dataset)


def channel_names(dataset: CaseFolder) -> tuple[str, ...]:
    """Names of the image's channels by their numbers; empty where none are given.

    Raises:
        ValueError: a table that is not number -> name from 0 up.
    """
    key = "channel_names" if dataset.layout == "nnU-Net" else "modality"
    table = dataset.listing.get(key, {})
    if not isinstance(table, dict) or sorted(table) != sorted(map(str, range(len(table)))):
        raise ValueError(f'{dataset.file}: got "{key}" {table!r}; {{"0": name, "1": name, ...}} is allowed, write so')
    return tuple(str(table[str(number)]) for number in range(len(table)))


def _list_msd(dataset: CaseFolder) -> tuple[dict[str, Case], list[Flaw]]:
    entries = dataset.listing.get("training")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{dataset.file}: lists no cases under "training"; images with labels are needed, add them')
    cases: dict[str, Case] = {}
    flaws: list[Flaw] = []
    for entry in entries:
        if not (isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in KEYS)):
            what = f'got case {entry!r}; {{"image": ..., "label": ...}} is allowed, write so'
            flaws.append(Flaw("", dataset.file, what))
            continue
        case = {key: str((dataset.folder / entry[key]).absolute()) for key in KEYS}
        name = stem(Path(case["image"]))
        if name in cases:
            what = f"lists {name!r} twice; each case needs its own name, rename or drop one"
            flaws.append(Flaw(name, dataset.file, what))
        cases.setdefault(name, case)
    return cases, flaws


def _list_paired(dataset: CaseFolder) -> tuple[dict[str, Case], list[Flaw]]:
    sides: list[dict[str, Path]] = []
    flaws: list[Flaw] = []
    for folder in (dataset.folder / name for name in _PAIRED):
        flaws += [
            Flaw(stem(file), file, "not PNG, TIFF or NIfTI (.nii, .nii.gz); convert it or take it out")
            for file in list_foreign(folder)
        ]
        files, twice = _by_stem(list_all(folder))
        sides.append(files)
        flaws += twice
    for own, others, missing in ((sides[0], sides[1], "label"), (sides[1], sides[0], "image")):
        flaws += [
            Flaw(name, own[name], f"has no {missing} of its name; add it, or take this file away")
            for name in sorted(own.keys() - others.keys())
        ]
    both = sorted(sides[0].keys() & sides[1].keys())
    cases = {name: {key: str(side[name].absolute()) for key, side in zip(KEYS, sides, strict=True)} for name in both}
    if not (cases or flaws):
        raise FileNotFoundError(f"{dataset.folder / 'images'}: holds no image; add images and their label maps")
    return cases, flaws


def _by_stem(files: Sequence[Path]) -> tuple[dict[str, Path], list[Flaw]]:
    named: dict[str, Path] = {}
    flaws = []
    for file in files:
        if stem(file) in named:
            what = f"has the stem of {named[stem(file)]}; a case is named by it, rename one or take it out"
            flaws.append(Flaw(stem(file), file, what))
        named.setdefault(stem(file), file)
    return named, flaws


def _list_nnunet(dataset: CaseFolder) -> tuple[dict[str, Case], list[Flaw]]:
    ending, channels = _ending(dataset), len(channel_names(dataset))
    images, labels = (_folder(dataset, name) for name in ("imagesTr", "labelsTr"))
    found, flaws = _channel_files(images, ending, channels)
    maps = _ending_so(labels, ending)
    flaws += [_otherwise(file, ending) for file in list_foreign(labels, (ending,))]
    names = sorted({*found, *(file.name[: -len(ending)] for file in maps)})
    if not names:
        raise ValueError(f"{images}: holds no case_0000{ending}; images are needed, or another file_ending")
    cases = {
        name: {
            "image": _image(found.get(name, {}), images / f"{name}_0000{ending}", channels),
            "label": str((labels / f"{name}{ending}").absolute()),
        }
        for name in names
    }
    return cases, flaws


def _channel_files(folder: Path, ending: str, channels: int) -> tuple[dict[str, dict[int, Path]], list[Flaw]]:
    found: dict[str, dict[int, Path]] = {}
    flaws = [_otherwise(file, ending) for file in list_foreign(folder, (ending,))]
    for file in _ending_so(folder, ending):
        match = _CHANNEL.fullmatch(file.name[: -len(ending)])
        if match is None:
            what = f"is not named as a channel; CASE_0000{ending} and so on is allowed, rename it"
            flaws.append(Flaw(stem(file), file, what))
        elif int(match[2]) >= channels:
            what = f"is channel {int(match[2])}; {channels} are named in dataset.json, name it or take the file out"
            flaws.append(Flaw(match[1], file, what))
        else:
            found.setdefault(match[1], {})[int(match[2])] = file
    return found, flaws


def _image(files: dict[int, Path], first: Path, channels: int) -> str | list[str]:
    """The path of one channel, or of a picture that holds all three; else the path of each, missing ones too."""
    if channels == 1 or (channels == _RGB and set(files) == {0} and is_image2d(files[0])):
        return str(files.get(0, first).absolute())
    head, tail = str(first.absolute()).rsplit("_0000", 1)
    return [f"{head}_{number:04}{tail}" for number in range(channels)]


def _ending(dataset: CaseFolder) -> str:
    ending = dataset.listing.get("file_ending")
    if ending not in _ENDINGS:
        raise ValueError(f'{dataset.file}: got "file_ending" {ending!r}; {", ".join(_ENDINGS)} are read, convert them')
    if not channel_names(dataset):
        raise ValueError(f'{dataset.file}: names no channels; "channel_names": {{"0": "CT"}} is needed, add it')
    return str(ending)


def _folder(dataset: CaseFolder, name: str) -> Path:
    folder = dataset.folder / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; nnU-Net's layout has imagesTr and labelsTr, add them")
    return folder


def _otherwise(file: Path, ending: str) -> Flaw:
    return Flaw(
        stem(file), file, f"ends otherwise than {ending}, dataset.json's file_ending; convert it or take it out"
    )


def _ending_so(folder: Path, ending: str) -> list[Path]:
    return [file for file in list_all(folder) if file.name.lower().endswith(ending)]


def _read_listing(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file, nor images/ and labels/ beside it; name a folder in the layout of the Decathlon"
            " (MSD), of nnU-Net, or one of paired folders"
        )
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}; a JSON object is needed, see the MSD layout")
    return content


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is not valid.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise ValueError(f"{file}: is not valid JSON ({error}); mend that place") from error
