"""Lists of images: a text file with a path a line, or a table (CSV) with a case a row."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from monai_unetfamily.volumes.layouts import Found, Listing, is_pattern, join_listings, list_input

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
