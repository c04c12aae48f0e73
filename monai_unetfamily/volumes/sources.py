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


def require_sources_alone(folder: Path) -> None:
    """Refuse a folder with a visible file, other than notes, that `list_sources` would pass over: a case is lost.

    Raises:
        ValueError: names the first.
    """
    others = [file for file in _visible(folder) if not file.name.lower().endswith((*_LISTED, *_NOTES))]
    if others:
        raise ValueError(f"{others[0]}: not PNG, TIFF or NIfTI (.nii, .nii.gz); convert it or take it out")


def read_image(path: Path) -> tuple[NDArray[np.float32], Affine]:
    """Read values (X, Y, Z) or (rows, columns[, 3]) and the affine.

    Raises what `nifti.read_volume` or `pictures.read_picture` raises, and ValueError for pictures of other kinds.
    """
    _require_no_foreign(path)
    return (pictures.read_picture(path), np.eye(3)) if is_picture(path) else nifti.read_volume(path)


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
    return bool(_found(folder))


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; name NIfTI files, pictures or folders of them")
    found = _found(path) if path.is_dir() else [path]
    if not found:
        names = ", ".join(f"*{suffix}" for suffix in _LISTED)
        raise FileNotFoundError(f"{path}: holds no {names}; they are looked for here, not deeper")
    return found


def _require_no_foreign(path: Path) -> None:
    if path.name.lower().endswith(_FOREIGN):
        raise ValueError(
            f"{path}: is a picture of a kind that is not read; PNG and TIFF are, convert it to one of them"
        )


def _found(folder: Path) -> list[Path]:
    return [file for file in _visible(folder) if _is_listed(file)]


def _visible(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def _is_listed(file: Path) -> bool:
    return file.name.lower().endswith(_LISTED)
