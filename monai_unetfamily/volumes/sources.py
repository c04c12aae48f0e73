"""What is segmented and scored: a volume (NIfTI) or a picture (PNG, TIFF), told apart by name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.volumes import nifti, pictures

_STEMS = (".nii.gz", ".nii", ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr", *pictures.SUFFIXES)
_LISTED = (".nii.gz", ".nii", *pictures.SUFFIXES)
_FOREIGN = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")  # pictures that are not read
_NOTES = (".txt", ".md", ".csv", ".tsv", ".json")  # may lie beside the cases
Affine = NDArray[np.float64]  # (4, 4) to mm, RAS+; of a picture the identity (3, 3): a pixel is 1 by 1


def is_picture(path: Path) -> bool:
    """Whether a file is named as a picture.

    >>> is_picture(Path("slide.TIF")), is_picture(Path("ct.nii.gz"))
    (True, False)
    """
    return path.name.lower().endswith(pictures.SUFFIXES)


def stem(path: Path) -> str:
    """Return the file's name without what says its format.

    >>> stem(Path("scans/case.01.nii.gz")), stem(Path("slide.png"))
    ('case.01', 'slide')
    """
    for suffix in _STEMS:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def list_sources(inputs: Sequence[Path]) -> list[Path]:
    """List what `inputs` name: files as given, folders as their sorted NIfTI files and pictures.

    Folders are not searched deeper, and hidden files are passed over.

    Raises:
        FileNotFoundError: an input that does not exist, or a folder without any.
        ValueError: two sources of one `stem`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("b.nii.gz", "a.png", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     [path.name for path in list_sources([Path(folder)])]
    ['a.png', 'b.nii.gz']
    """
    sources = [source for path in inputs for source in _expand(path)]
    seen: dict[str, Path] = {}
    for source in sources:
        if stem(source) in seen:
            got = f"has the stem of {seen[stem(source)]}"
            raise ValueError(f"{source}: {got}; outputs are named by it, rename one or name it once")
        seen[stem(source)] = source
    return sources


def list_all(folder: Path) -> list[Path]:
    """List a folder's NIfTI files and pictures, sorted, be there several of one `stem` or none at all."""
    return [file for file in _visible(folder) if _is_listed(file)]


def list_foreign(folder: Path, suffixes: tuple[str, ...] = _LISTED) -> list[Path]:
    """List a folder's visible files, other than notes, that end otherwise: cases that would be lost."""
    return [file for file in _visible(folder) if not file.name.lower().endswith((*suffixes, *_NOTES))]


def read_channels(paths: Sequence[Path]) -> tuple[NDArray[np.float32], Affine]:
    """Read the values (C, *spatial) of an image whose channels are in one file or in several, and the affine.

    A volume's fourth axis counts channels, and so does a picture's third.

    Raises what `nifti.read_volume` or `pictures.read_picture` raises, and ValueError for pictures of other kinds, and
    for files of different grids.
    """
    parts, affines = zip(*(_read_channels(path) for path in paths), strict=True)
    for path, part, affine in zip(paths, parts, affines, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            got = f"got shape {part.shape[1:]}, {paths[0]} has {parts[0].shape[1:]}"
            raise ValueError(f"{path}: {got}; the channels of one image need one grid, resample them to it first")
        if (shift := nifti.grid_shift(affine, affines[0])) > nifti.GRID_TOLERANCE:
            got = f"lies {shift:.3g} voxels off {paths[0]}"
            raise ValueError(f"{path}: {got}; the channels of one image need one grid, resample them to it first")
    return parts[0] if len(parts) == 1 else np.concatenate(parts), affines[0]


def read_label_map(path: Path) -> tuple[NDArray[np.float32], Affine]:
    """Read the values of a label map (*spatial, 1), or of a volume's masks (X, Y, Z, C), and the affine.

    Raises what `nifti.read_volume` or `pictures.read_label_picture` raises, and ValueError for pictures of other kinds.
    """
    _require_no_foreign(path)
    if is_picture(path):
        return pictures.read_label_picture(path)[..., None], np.eye(3)
    return nifti.read_volume(path, channels=True)


def holds_sources(folder: Path) -> bool:
    """Whether a folder itself, not one in it, holds a source."""
    return bool(list_all(folder))


def _read_channels(path: Path) -> tuple[NDArray[np.float32], Affine]:
    _require_no_foreign(path)
    if is_picture(path):
        return np.moveaxis(np.atleast_3d(pictures.read_picture(path)), -1, 0), np.eye(3)
    values, affine = nifti.read_volume(path, channels=True)
    return np.moveaxis(values, -1, 0), affine


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; name NIfTI files, pictures or folders of them")
    found = list_all(path) if path.is_dir() else [path]
    if not found:
        names = ", ".join(f"*{suffix}" for suffix in _LISTED)
        raise FileNotFoundError(f"{path}: holds no {names}; they are looked for here, not deeper")
    return found


def _require_no_foreign(path: Path) -> None:
    if path.name.lower().endswith(_FOREIGN):
        raise ValueError(
            f"{path}: is a picture of a kind that is not read; PNG and TIFF are, convert it to one of them"
        )


def _visible(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def _is_listed(file: Path) -> bool:
    return file.name.lower().endswith(_LISTED)
