"""Where images lie: a file, a pattern, a folder, a folder of DICOM series, a data set of MSD, nnU-Net or BIDS.

Names alone are looked at, and the first bytes of files whose names say nothing: no image is opened here.
"""

import glob
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from monai_unetfamily.volumes import sources
from monai_unetfamily.volumes.dicom_folders import holds_dicom, is_dicom, leads_to_dicom
from monai_unetfamily.volumes.sources import IMAGES, is_image

_BESIDE = (".txt", ".md", ".csv", ".tsv", ".json", ".raw", ".zraw")  # notes, and the voxels of an .mhd
_BIDS = ("sub-*/anat", "sub-*/ct", "sub-*/ses-*/anat", "sub-*/ses-*/ct")
_MASK = re.compile(r".*_(dseg|probseg|\w*mask)")  # BIDS: what is no scan
_MOST_NAMED = 20


class Found(NamedTuple):
    """One image: its files, one a channel, or the folder of its DICOM slices."""

    files: tuple[Path, ...]
    name: str = ""  # of its outputs, where its place says more than its file's name


class Listing(NamedTuple):
    """What was found, and one line for each thing that was passed over or chosen."""

    found: tuple[Found, ...]
    notes: tuple[str, ...] = ()


def list_input(given: str | Path) -> Listing:
    """List the images of a file, a folder or a pattern (`*`, `?`, `[...]`, `**` for any depth), each in sorted order.

    - A folder gives its NIfTI files, `.mha`, `.mhd`, `.nrrd`, PNG and TIFF, and its DICOM: one image where the files
      lie in the folder itself, else one for each folder in it, at whatever depth the files lie there.
    - A BIDS data set gives the scans in `anat/` and `ct/`, named by where they lie; a data set of MSD or nnU-Net the
      images of `imagesTs`, or where there are none, of `imagesTr`.
    - A pattern gives the images and DICOM folders that it names; where it names none, what the folders give that it
      names. A DICOM file stands for its folder.

    Raises:
        FileNotFoundError: a path that does not exist, a pattern or a folder without images.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("b.nii.gz", "a.mha", "photo.jpg"):
    ...         (Path(folder) / name).touch()
    ...     found, notes = list_input(folder)
    >>> [image.files[0].name for image in found], notes[0].split(": ")[-1]
    (['a.mha', 'b.nii.gz'], 'photo.jpg')
    """
    path = Path(given)
    if path.is_dir():
        return _list_folder(path)
    if path.exists():
        return Listing((_as_image(path),))
    if is_pattern(str(given)):
        return _list_pattern(str(given))
    gone = "is a link to nothing" if path.is_symlink() else "no such file or folder"
    raise FileNotFoundError(f"{given}: {gone}; name images, folders of them, a list of them or a quoted pattern")


def is_pattern(text: str) -> bool:
    """Whether a path has a wildcard.

    >>> is_pattern("cohort/**/ct.nii.gz"), is_pattern("cohort/ct.nii.gz")
    (True, False)
    """
    return re.search(r"[*?[]", text) is not None


def join_listings(listings: Iterable[Listing]) -> Listing:
    """One listing of several, in their order.

    >>> join_listings([Listing((), ("a: is empty",)), Listing((), ("b: is empty",))]).notes
    ('a: is empty', 'b: is empty')
    """
    parts = list(listings)
    return Listing(tuple(f for part in parts for f in part.found), tuple(n for part in parts for n in part.notes))


def _list_folder(folder: Path) -> Listing:
    if (folder / "dataset_description.json").is_file():
        return _list_bids(folder)
    if (folder / "dataset.json").is_file() and (sections := _sections(folder)):
        return _list_section(folder, sections)
    return _list_plain(folder)


def _list_plain(folder: Path) -> Listing:
    files, folders = _visible(folder)
    images = [Found((file,)) for file in files if is_image(file)]
    series = [folder] if holds_dicom(folder) else [sub for sub in folders if leads_to_dicom(sub)]
    if not (images or series):
        wanted = ", ".join(f"*{suffix}" for suffix in IMAGES)
        got = f"holds no {wanted} and no DICOM"
        raise FileNotFoundError(f"{folder}: {got}; DICOM alone is looked for deeper, name the folder of the images")
    others = [] if folder in series else [file for file in files if not _is_expected(file)]
    bare = [sub for sub in folders if not (sub in series or folder in series)]
    notes = [_passed_over(folder, others, "are not read"), _passed_over(folder, bare, "are folders without DICOM")]
    return Listing((*images, *(Found((sub,)) for sub in series)), tuple(filter(None, notes)))


def _sections(folder: Path) -> list[Path]:
    """The folders of a data set's images that hold any, the test images before those for training."""
    sections = [folder / name for name in ("imagesTs", "imagesTr")]
    return [section for section in sections if section.is_dir() and any(map(is_image, _visible(section)[0]))]


def _list_section(folder: Path, sections: list[Path]) -> Listing:
    found, notes = _list_plain(sections[0])
    if sections[0].name == "imagesTr":
        notes = (f"{folder}: has no image in imagesTs: those of imagesTr are taken", *notes)
    return Listing(found, notes)


def _list_bids(root: Path) -> Listing:
    """Scans are named by where they lie, as their outputs are (BIDS 1.10, derivatives)."""
    folders = sorted(folder for place in _BIDS for folder in root.glob(place) if folder.is_dir())
    files = [file for folder in folders for file in _visible(folder)[0] if file.name.endswith((".nii", ".nii.gz"))]
    masks = [file for file in files if _is_mask(file)]
    scans = [file for file in files if not _is_mask(file)]
    if not scans:
        got = "is BIDS without an image in sub-*/[ses-*/]anat/ or ct/"
        raise FileNotFoundError(f"{root}: {got}; these alone are taken, name other images themselves")
    subjects = {scan.relative_to(root).parts[0] for scan in scans}
    without = [sub for sub in sorted(root.glob("sub-*")) if sub.is_dir() and sub.name not in subjects]
    derived = [root / "derivatives"] if (root / "derivatives").is_dir() else []
    notes = [
        _passed_over(root, masks, "are masks"),
        _passed_over(root, without, "have no scan in anat/ or ct/"),
        _passed_over(root, derived, "are no scans"),
    ]
    named = [Found((scan,), scan.relative_to(root).with_name(sources.stem(scan)).as_posix()) for scan in scans]
    return Listing(tuple(named), tuple(filter(None, notes)))


def _is_mask(file: Path) -> bool:
    return _MASK.fullmatch(sources.stem(file)) is not None


def _list_pattern(pattern: str) -> Listing:
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    matches = [Path(name) for name in names]
    folders, files = [m for m in matches if m.is_dir()], [m for m in matches if not m.is_dir()]
    images = [_as_image(file) for file in files if is_image(file) or is_dicom(file)]
    series = [Found((folder,)) for folder in folders if holds_dicom(folder)]
    found = tuple(dict.fromkeys((*images, *series)))  # a folder may be named by many slices
    others = [file for file in files if not (_is_expected(file) or is_dicom(file))]
    notes = tuple(filter(None, [_passed_over(pattern, others, "are not read")]))
    listing = Listing(found, notes) if found else join_listings(map(_list_if_any, folders))
    if not listing.found:
        raise FileNotFoundError(f"{pattern}: names no image; name images, folders of DICOM, or folders of images")
    return listing


def _list_if_any(folder: Path) -> Listing:
    try:
        return _list_folder(folder)
    except FileNotFoundError as error:
        return Listing((), (str(error),))


def _as_image(file: Path) -> Found:
    return Found((file.parent if is_dicom(file) else file,))


def _is_expected(file: Path) -> bool:
    return file.name.lower().endswith((*IMAGES, *_BESIDE)) or file.name.lower() == "dicomdir"


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files, with links to nothing and all else that is no folder; and folders."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    return [entry for entry in entries if not entry.is_dir()], [entry for entry in entries if entry.is_dir()]


def _passed_over(where: str | Path, paths: list[Path], why: str) -> str:
    """A line that names them; empty where there is nothing to name."""
    named = ", ".join(path.name for path in paths[:_MOST_NAMED])
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return f"{where}: passed over, since they {why}: {named}{more}" if paths else ""
