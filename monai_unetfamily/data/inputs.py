"""Find the images of an input: files, patterns, directories, lists, DICOM series, MSD, nnU-Net and BIDS data sets."""

import csv
import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from monai_unetfamily.data.dataset import image_files
from monai_unetfamily.io import IMAGES, NIFTI, Study, is_image, is_image2d, is_itk, open_volume, stem
from monai_unetfamily.io.dicom import contains_dicom, is_dicom, leads_to_dicom

# Where images lie: a file, a pattern, a folder, a folder of DICOM series, a data set of MSD, nnU-Net or BIDS.
#
# Names alone are looked at, and the first bytes of files whose names say nothing: no image is opened here.


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
    series = [folder] if contains_dicom(folder) else [sub for sub in folders if leads_to_dicom(sub)]
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
    named = [Found((scan,), scan.relative_to(root).with_name(stem(scan)).as_posix()) for scan in scans]
    return Listing(tuple(named), tuple(filter(None, notes)))


def _is_mask(file: Path) -> bool:
    return _MASK.fullmatch(stem(file)) is not None


def _list_pattern(pattern: str) -> Listing:
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    matches = [Path(name) for name in names]
    folders, files = [m for m in matches if m.is_dir()], [m for m in matches if not m.is_dir()]
    images = [_as_image(file) for file in files if is_image(file) or is_dicom(file)]
    series = [Found((folder,)) for folder in folders if contains_dicom(folder)]
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


# Lists of images: a text file with a path a line, or a table (CSV) with a case a row.

LISTS = (".txt", ".csv")
_TAKEN = "details"  # folder of what a run writes beside label maps


def read_list(file: Path) -> Listing:
    """Read which images a list names; relative paths are relative to the list.

    A `.txt` has a file, folder or pattern a line, and comments after `#`. A `.csv` has a column `image`, or `image_0`,
    `image_1`, ..., one a channel, and perhaps `name`, which names the outputs; other columns are passed over. A path
    that does not exist is listed all the same: it is its case that fails, not the list.

    Raises:
        ValueError: nothing is listed, no such column, an empty cell, a name that cannot be that of outputs, no UTF-8.
        FileNotFoundError: a pattern, or a folder, without images.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "cohort.csv").write_text("name,image\\nfirst,a/ct.nii.gz\\nsecond,b/ct.nii.gz\\n")
    ...     [image.name for image in read_list(Path(folder) / "cohort.csv").found]
    ['first', 'second']
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 ({error.reason}); save the list so") from error
    if file.suffix.lower() == ".csv":
        listing = Listing(tuple(_read_rows(lines, file)))
    else:
        bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
        listing = join_listings(_read_line(line, file.parent) for line in bare if line)
    if not listing.found:
        raise ValueError(f"{file}: lists no image; one path a line (.txt), or a row for each (.csv), is needed")
    return listing


def _read_line(line: str, folder: Path) -> Listing:
    given = folder / line
    return list_input(given) if given.exists() or is_pattern(line) else Listing((Found((given,)),))


def _read_rows(lines: list[str], file: Path) -> Iterator[Found]:
    table = csv.DictReader(lines, skipinitialspace=True)
    columns = _image_columns(table.fieldnames or (), file)
    try:
        for row in table:
            paths = tuple(file.parent / _cell(row, column, f"{file}, line {table.line_num}") for column in columns)
            yield Found(paths, _name(row, f"{file}, line {table.line_num}"))
    except csv.Error as error:
        raise ValueError(f"{file}, line {table.line_num}: is no CSV ({error}); save the table so") from error


def _image_columns(columns: Sequence[str], file: Path) -> list[str]:
    numbered = [name for name in columns if name.startswith("image_")]
    expected = [f"image_{number}" for number in range(len(numbered))]
    if ("image" in columns) != bool(numbered) and sorted(numbered) == sorted(expected):
        return expected or ["image"]
    needed = "image, or image_0, image_1, ..., one a channel"
    raise ValueError(f"{file}: got columns {list(columns)}; {needed}, is needed in the first line, add it")


def _cell(row: dict[str, str], column: str, where: str) -> str:
    text = (row[column] or "").strip()
    if not text:
        raise ValueError(f"{where}: has no {column}; a path is needed, add it or take the row out")
    return text


def _name(row: dict[str, str], where: str) -> str:
    """A row's name, the same for all ways to write it ("./a//b" is "a/b"); empty where none is given."""
    name = (row.get("name") or "").strip()
    if not name:
        return ""
    if why := _why_no_name(name):
        raise ValueError(f"{where}: got the name {name!r}; {why}")
    return PurePosixPath(name).as_posix()


def _why_no_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "outputs stay in their folder, give a name without .. and without / ahead"
    if name.endswith("/") or not path.name or path.name.startswith("."):
        return "its outputs would have no name or be hidden, give one whose last part begins without a dot"
    return f"{_TAKEN}/ is for what else a run writes, give another name" if path.parts[0].casefold() == _TAKEN else ""


# Channels in files of their own, named as nnU-Net names them: `<case>_0000`, `<case>_0001`, ...

_CHANNEL = re.compile(r"(.+)_(\d{4})")  # case, channel


def join_channels(images: Sequence[Found], channels: int) -> list[Found]:
    """Join files of one folder and case as the channels of one image; one that is missing is named all the same.

    With one channel nothing is joined, and where all files of a folder end in `_0000` their names end without.

    Raises:
        ValueError: two files of one channel.

    >>> files = [Found((Path(name),)) for name in ("a_0000.nii", "a_0001.nii", "b.nii")]
    >>> [(image.name, len(image.files)) for image in join_channels(files, channels=2)]
    [('a', 2), ('', 1)]
    >>> [image.name for image in join_channels(files, channels=1)], join_channels(files[:1], channels=1)[0].name
    (['', '', ''], 'a')
    """
    return _joined(images, channels) if channels > 1 else _shortened(images)


def _joined(images: Sequence[Found], channels: int) -> list[Found]:
    cases: dict[Path | int, list[Path]] = {}
    for number, image in enumerate(images):
        case, _ = _parts(image)
        cases.setdefault(image.files[0].with_name(case) if case else number, []).append(image.files[0])
    return [_case(case, files, channels) if isinstance(case, Path) else images[case] for case, files in cases.items()]


def _case(case: Path, files: Sequence[Path], channels: int) -> Found:
    named: dict[int, Path] = {}
    for file in files:
        number = int(stem(file)[-4:])
        if number in named:
            both = f"{file}: is channel {number} of {case.name}, and {named[number]} is, too"
            raise ValueError(f"{both}; one file a channel is allowed, take one out or name it once")
        named[number] = file
    suffix = files[0].name[len(stem(files[0])) :]
    numbers = sorted({*range(channels), *named})
    return Found(tuple(named.get(n, case.with_name(f"{case.name}_{n:04}{suffix}")) for n in numbers), case.name)


def _shortened(images: Sequence[Found]) -> list[Found]:
    endings: dict[Path, set[str]] = {}
    for image in images:
        endings.setdefault(image.files[0].parent, set()).add(_parts(image)[1])
    return [
        Found(image.files, _parts(image)[0]) if endings[image.files[0].parent] == {"0000"} else image
        for image in images
    ]


def _parts(image: Found) -> tuple[str, str]:
    """Case and channel of a name; both empty where it has none, is given, or is a folder's."""
    alone = len(image.files) == 1 and not image.name and not image.files[0].is_dir()
    match = _CHANNEL.fullmatch(stem(image.files[0])) if alone else None
    return (match[1], match[2]) if match else ("", "")


# What is to be segmented: which files make one image, and what its outputs are called.


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
        series: which series of a DICOM folder, as `io.dicom.choose_series` takes it; None: the largest axial one.

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
    """The image of a data set's case, as `data.load_cases` lists it; its outputs are called as the case's label map.

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
    kind = "picture" if is_image2d(first) else "itk" if is_itk(first) else "nifti"
    name = found.name or (stem(first) if len(found.files) == 1 else stem(first).removesuffix("_0000"))
    return Study(name, found.files, kind, None if kind == "picture" else channel_dim)


def _series_study(folder: Path, name: str, series: str | None) -> Study:
    from monai_unetfamily.io.dicom import choose_series, list_series

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
