"""What is to be segmented: which files make one image, and what its outputs are called."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.volumes.cases import image_files
from monai_unetfamily.volumes.channels import join_channels
from monai_unetfamily.volumes.layouts import Found, Listing, join_listings, list_input
from monai_unetfamily.volumes.listings import LISTS, read_list
from monai_unetfamily.volumes.nifti import open_volume
from monai_unetfamily.volumes.sources import NIFTI, is_itk, is_picture, stem


@dataclass(frozen=True)
class Study:
    """One image to segment: what its outputs are called, and the files that hold it."""

    name: str  # of its outputs, no suffix; may hold "/" (BIDS: sub-01/anat/sub-01_T1w)
    files: tuple[Path, ...]  # one a channel; of a DICOM series its slices, sorted by position (the folder: none fits)
    kind: str  # "nifti", "itk" (.mha .mhd .nrrd), "dicom", "picture"
    channel_dim: int | None = None  # axis of a 4-D file that counts channels
    notes: tuple[str, ...] = ()  # one line each: what was chosen or passed over; goes into the report


@dataclass(frozen=True)
class Image:
    """What a study holds."""

    voxels: NDArray[np.float32]  # (C, X, Y, Z), or (C, rows, columns) of a picture
    grid: Nifti1Pair | None  # its header and affine are those of the label map; no voxels needed; None: picture
    notes: tuple[str, ...] = ()  # e.g. "sform and qform disagree: the sform is used"


@dataclass(frozen=True)
class Studies:
    """All that inputs hold."""

    studies: tuple[Study, ...]  # in the order of the inputs
    notes: tuple[str, ...] = ()  # one line each: what was passed over


def find_studies(
    inputs: Sequence[str | Path],
    *,
    channels: int = 1,
    channel_dim: int | None = None,
    series: str | None = None,
) -> Studies:
    """Find the images that `inputs` name: files, folders, patterns (`layouts.list_input`) and lists (`read_list`).

    With several channels, files `<case>_0000`, `<case>_0001`, ... of one folder are the channels of one image, as
    nnU-Net names them, and one that is missing is listed all the same: its case fails when it is read. Names end
    without `_0000` where all names of a folder end so. A DICOM folder gives one of the series below it; where none can
    be chosen, its case fails when it is read, too.

    Args:
        inputs: at least one.
        channels: of the images that are wanted.
        channel_dim: axis of 4-D files that counts channels; files are not joined then.
        series: which series of a DICOM folder, as `dicom_series.choose_series` takes it; None: the largest axial one.

    Raises:
        FileNotFoundError: an input that does not exist, a folder or pattern without images.
        ValueError: two images of one name, a hidden file, two files of one channel, and what `read_list` raises.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("mr_0000.nii.gz", "mr_0001.nii.gz", "photo.jpg"):
    ...         (Path(folder) / name).touch()
    ...     found = find_studies([folder], channels=2)
    >>> [(study.name, len(study.files)) for study in found.studies], len(found.notes)
    ([('mr', 2)], 1)
    """
    listing = join_listings(_list(given) for given in inputs)
    joined = join_channels(list(_once(listing.found)), channels if channel_dim is None else 1)
    studies = tuple(_study(found, channel_dim, series) for found in joined)
    require_own_names(studies)
    return Studies(studies, listing.notes)


def case_study(case: Mapping[str, Any], channel_dim: int | None = None) -> Study:
    """The image of a data set's case, as `cases.load_cases` lists it; its outputs are called as the case's label map.

    Args:
        case: {"image": path or paths, "label": path}.
        channel_dim: axis of a 4-D file that counts channels; None: the last.

    >>> case_study({"image": ["a_0000.nii", "a_0001.nii"], "label": "a.nii"}).name
    'a'
    """
    files = tuple(image_files(case))
    if channel_dim is None and _is_4d(files[0]):
        channel_dim = 3
    return _study(Found(files, stem(Path(case["label"]))), channel_dim, None)


def _is_4d(file: Path) -> bool:
    try:
        return file.name.lower().endswith(NIFTI) and len(open_volume(file, channels=True).shape) == 4
    except (ValueError, OSError):  # it is its case that fails, when it is read
        return False


def _list(given: str | Path) -> Listing:
    path = Path(given)
    return read_list(path) if path.is_file() and path.name.lower().endswith(LISTS) else list_input(given)


def _once(images: Iterable[Found]) -> Iterator[Found]:
    """Without repeated DICOM folders: each slice that is named stands for its folder."""
    seen: set[Found] = set()
    for image in images:
        if not (image in seen and image.files[0].is_dir()):
            yield image
        seen.add(image)


def _study(found: Found, channel_dim: int | None, series: str | None) -> Study:
    first = found.files[0]
    if first.is_dir():
        return _series_study(first, found.name or first.resolve().name, series)
    kind = "picture" if is_picture(first) else "itk" if is_itk(first) else "nifti"
    name = found.name or (stem(first) if len(found.files) == 1 else stem(first).removesuffix("_0000"))
    return Study(name, found.files, kind, None if kind == "picture" else channel_dim)


def _series_study(folder: Path, name: str, series: str | None) -> Study:
    from monai_unetfamily.volumes.dicom_series import choose_series, list_series

    listed, passed = list_series(folder)
    try:
        chosen, others = choose_series(listed, series, passed)
    except ValueError as error:  # of this case alone
        return Study(name, (folder,), "dicom", notes=(f"{folder}: {error}", *passed))
    return Study(name, chosen.files, "dicom", notes=(f"series {chosen} is read", *others, *passed))


def require_own_names(studies: Iterable[Study]) -> None:
    """Refuse a study whose outputs would be hidden, or called as another's: a ValueError that names the files."""
    seen: dict[str, Path] = {}
    for study in studies:
        if not study.name or study.name.split("/")[-1].startswith("."):
            got = f"its outputs would be called {study.name!r}, which is hidden"
            raise ValueError(f"{study.files[0]}: {got}; rename it, or list it in a CSV with a column name")
        if study.name in seen:
            got = f"and {seen[study.name]} would both write {study.name!r}"
            raise ValueError(f"{study.files[0]} {got}; rename one, or list them in a CSV with a column name")
        seen[study.name] = study.files[0]
