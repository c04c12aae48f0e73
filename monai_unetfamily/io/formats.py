"""What is segmented and scored: a volume (NIfTI, MetaImage, NRRD) or a picture (PNG, TIFF), told apart by name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.io.dicom import is_dicom
from monai_unetfamily.io.header_checks import GRID_TOLERANCE, grid_shift
from monai_unetfamily.io.image2d import SUFFIXES as IMAGE2D_SUFFIXES
from monai_unetfamily.io.image2d import read_image2d, read_label_image2d
from monai_unetfamily.io.nifti import read_volume, require_finite

NIFTI = (".nii.gz", ".nii", ".hdr", ".img")
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")
IMAGES = (*NIFTI, *ITK, *IMAGE2D_SUFFIXES)
_LISTED = (".nii.gz", ".nii", *IMAGE2D_SUFFIXES)
_FOREIGN = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")  # pictures that are not read
_UNREAD = (  # images and label maps that are not read
    *_FOREIGN,
    *(".jp2", ".mgz", ".mgh", ".mnc", ".gipl", ".gipl.gz", ".vti", ".vtk", ".nia", ".h5", ".npy", ".npz"),
    *(
        f"{suffix}{packed}"
        for suffix in (".nii", ".img", ".mha", ".nrrd")
        for packed in (".bz2", ".xz", ".zst", ".zip")
    ),
    *(".img.gz", ".mha.gz", ".nrrd.gz"),
)
_NOTES = (".txt", ".md", ".csv", ".tsv", ".json")  # may lie beside the cases
Affine = NDArray[np.float64]  # (4, 4) to mm, RAS+; of a picture the identity (3, 3): a pixel is 1 by 1


def is_image2d(path: Path) -> bool:
    """Whether a file is named as a picture.

    >>> is_image2d(Path("slide.TIF")), is_image2d(Path("ct.nii.gz"))
    (True, False)
    """
    return path.name.lower().endswith(IMAGE2D_SUFFIXES)


def is_itk(path: Path) -> bool:
    """Whether a file is named as MetaImage or NRRD.

    >>> is_itk(Path("ct.seg.NRRD")), is_itk(Path("ct.nii.gz"))
    (True, False)
    """
    return path.name.lower().endswith(ITK)


def is_image(file: Path) -> bool:
    """Whether a file is an image by its name; the `.img` beside a `.hdr` is half of one.

    >>> is_image(Path("ct.NII.GZ")), is_image(Path("ct.jpg"))
    (True, False)
    """
    name = file.name.lower()
    return name.endswith(IMAGES) and not (name.endswith(".img") and file.with_suffix(".hdr").exists())


def stem(path: Path) -> str:
    """Return the file's name without what says its format.

    >>> stem(Path("scans/case.01.nii.gz")), stem(Path("slide.png"))
    ('case.01', 'slide')
    """
    return _cut(path, IMAGES)


def list_images(inputs: Sequence[Path]) -> list[Path]:
    """List what `inputs` name: files as given, folders as their sorted volumes and pictures.

    Folders are not searched deeper. Hidden files and whatever is no image by its name are left out, and so is a
    picture that has the `stem` of a volume beside it: it shows that.

    Raises:
        FileNotFoundError: an input that does not exist, or a folder without any.
        ValueError: two sources of one `stem`; an image of a kind that is not read (DICOM, .jpg, .mgz, .npz, ...) in a
            folder, but for one with the stem of a source beside it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("b.nii.gz", "a.png", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     [path.name for path in list_images([Path(folder)])]
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
    """List a folder's .nii.gz, .nii and pictures, sorted, be there several of one `stem` or none at all."""
    return [file for file in _visible(folder) if _is_listed(file)]


def list_foreign(folder: Path, suffixes: tuple[str, ...] = _LISTED) -> list[Path]:
    """List a folder's visible files, other than notes, that end otherwise: cases that would be lost."""
    return [file for file in _visible(folder) if not file.name.lower().endswith((*suffixes, *_NOTES))]


def read_channels(paths: Sequence[Path]) -> tuple[NDArray[np.float32], Affine]:
    """Read the values (C, *spatial) of an image whose channels are in one file or in several, and the affine.

    A volume's fourth axis counts channels, and so does a picture's third.

    Raises what `nifti.read_volume` or `io.read_image2d` raises, and ValueError for pictures of other kinds, and
    for files of different grids.
    """
    parts, affines = zip(*(_read_channels(path) for path in paths), strict=True)
    for path, part, affine in zip(paths, parts, affines, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            got = f"got shape {part.shape[1:]}, {paths[0]} has {parts[0].shape[1:]}"
            raise ValueError(f"{path}: {got}; the channels of one image need one grid, resample them to it first")
        if (shift := grid_shift(affine, affines[0])) > GRID_TOLERANCE:
            got = f"lies {shift:.3g} voxels off {paths[0]}"
            raise ValueError(f"{path}: {got}; the channels of one image need one grid, resample them to it first")
    return parts[0] if len(parts) == 1 else np.concatenate(parts), affines[0]


def read_label_map(path: Path) -> tuple[NDArray[np.float32], Affine]:
    """Read the values of a label map (*spatial, 1), or of a volume's masks (X, Y, Z, C), and the affine.

    Raises what `nifti.read_volume`, `itk.read_itk` or `io.read_label_image2d` raises, and ValueError for pictures
    of other kinds.
    """
    _require_no_foreign(path)
    if is_image2d(path):
        return read_label_image2d(path)[..., None], np.eye(3)
    if is_itk(path):
        from monai_unetfamily.io.itk import read_itk

        values, grid, _ = read_itk(path)
        require_finite(values, path)
        return values[..., None], np.asarray(grid.affine, np.float64)
    return read_volume(path, channels=True)


def contains_images(folder: Path) -> bool:
    """Whether a folder itself, not one in it, holds a source, or an image of a kind that is not read."""
    return any(is_image(file) or _is_unread(file) for file in _visible(folder))


def _read_channels(path: Path) -> tuple[NDArray[np.float32], Affine]:
    _require_no_foreign(path)
    if is_image2d(path):
        return np.moveaxis(np.atleast_3d(read_image2d(path)), -1, 0), np.eye(3)
    values, affine = read_volume(path, channels=True)
    return np.moveaxis(values, -1, 0), affine


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; name volumes, pictures or folders of them")
    return _list_images(path) if path.is_dir() else [path]


def _list_images(folder: Path) -> list[Path]:
    files = _visible(folder)
    images = [file for file in files if is_image(file)]
    if not images:
        names = ", ".join(f"*{suffix}" for suffix in IMAGES)
        raise FileNotFoundError(f"{folder}: holds no {names}; they are looked for here, not deeper")
    volumes = {stem(file) for file in images if not is_image2d(file)}
    sources = [file for file in images if not (is_image2d(file) and stem(file) in volumes)]
    stems = {stem(file) for file in sources}
    unread = [file for file in files if _is_unread(file) and _cut(file, (*_UNREAD, file.suffix.lower())) not in stems]
    if unread:
        more = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
        raise ValueError(f"{unread[0]}{more}: is of a kind that is not read; convert it, or move it out of the folder")
    return sources


def _is_unread(file: Path) -> bool:
    return file.name.lower().endswith(_UNREAD) or is_dicom(file)


def _cut(path: Path, suffixes: Sequence[str]) -> str:
    """The file's name without the first of these suffixes that it ends in."""
    return next((path.name[: -len(end)] for end in suffixes if end and path.name.lower().endswith(end)), path.name)


def _require_no_foreign(path: Path) -> None:
    if path.name.lower().endswith(_FOREIGN):
        raise ValueError(
            f"{path}: is a picture of a kind that is not read; PNG and TIFF are, convert it to one of them"
        )


def _visible(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def _is_listed(file: Path) -> bool:
    return file.name.lower().endswith(_LISTED)
