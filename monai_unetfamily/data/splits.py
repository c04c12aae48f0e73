"""Which cases are trained on, and which are held out: by a file, or every fifth.

`splits.json` is one split, `{"training": [names], "validation": [names]}`, or a list of them, the folds. nnU-Net's
`splits_final.json` is such a list, with the keys "train" and "val".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from monai_unetfamily.data.layouts import read_json

Section = Literal["training", "validation"]
SECTIONS: tuple[Section, ...] = get_args(Section)
Fold = int | Literal["all"] | None
FOLDS = 5  # where no file says otherwise
_FILES = ("splits.json", "splits_final.json")
_SHORT = {"train": "training", "val": "validation"}  # nnU-Net's words for ours


def section_names(folder: Path, names: Sequence[str], section: Section, fold: Fold = None) -> list[str]:
    """Names of a section's cases, out of all `names` of the data set in `folder`, sorted.

    Args:
        folder: where a file with splits may lie.
        names: of all cases.
        section: "training" or "validation".
        fold: a number from 0 up; None: the only split, or the first; "all": every case is trained on, and those of
            None are watched, although they are trained on.

    Raises:
        ValueError: a section or fold that there is not, or without a case; two files; a split that names unknown
            cases, one case in both sections, or no list.

    >>> names = [f"c{number}" for number in range(7)]
    >>> section_names(Path("absent"), names, "validation"), section_names(Path("absent"), names, "validation", fold=1)
    (['c0', 'c5'], ['c1', 'c6'])
    >>> len(section_names(Path("absent"), names, "training", fold="all"))
    7
    """
    if section not in SECTIONS:
        raise ValueError(f"got section {section!r}; 'training' or 'validation' is allowed, name one of them")
    if fold == "all":
        return sorted(names) if section == "training" else section_names(folder, names, section)
    file = split_file(folder)
    chosen = _read_split(file, names, fold)[section] if file else _every_fifth(names, section, fold, folder)
    if not chosen:
        raise ValueError(f"{file or folder}: section {section!r} is empty; one case is needed, add cases to it")
    return sorted(chosen)


def split_file(folder: Path) -> Path | None:
    """The file with the splits of a data set, where it has one.

    Raises:
        ValueError: it has two.
    """
    found = [folder / name for name in _FILES if (folder / name).exists()]
    if len(found) > 1:
        raise ValueError(f"{found[0]}: {found[1].name} lies beside it; one of the two is allowed, take one out")
    return found[0] if found else None


def count_folds(folder: Path, cases: int) -> int:
    """How many folds a data set of so many cases has; 1 where its file holds one split.

    Raises:
        ValueError: the file is no JSON.

    >>> count_folds(Path("absent"), 7), count_folds(Path("absent"), 2)
    (5, 2)
    """
    file = split_file(folder)
    content = read_json(file) if file else [None] * min(FOLDS, cases)
    return len(content) if isinstance(content, list) else 1


def _every_fifth(names: Sequence[str], section: Section, fold: int | None, folder: Path) -> list[str]:
    reason = f"{folder}: has no {' or '.join(_FILES)}, so that every fifth case is a fold's"
    number = _number(fold, max(1, min(FOLDS, len(names))), reason)
    held_out = sorted(names)[number::FOLDS]
    return held_out if section == "validation" else [name for name in names if name not in set(held_out)]


def _read_split(file: Path, names: Sequence[str], fold: int | None) -> dict[str, list[str]]:
    content = read_json(file)
    if isinstance(content, list):
        chosen = content[_number(fold, len(content), f"{file}: lists {len(content)} splits")]
    elif fold is not None:
        raise ValueError(
            f'{file}: got fold {fold!r} of one split; None or "all" is allowed, make the file a list of splits'
        )
    else:
        chosen = content
    return _checked(chosen, set(names), file)


def _number(fold: int | None, folds: int, where: str) -> int:
    number = 0 if fold is None else fold
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < folds:
        raise ValueError(f'{where}: got fold {fold!r}; 0 to {folds - 1}, or "all", is allowed, choose one')
    return number


def _checked(split: object, names: set[str], file: Path) -> dict[str, list[str]]:
    sections = {_SHORT.get(key, key): value for key, value in split.items()} if isinstance(split, dict) else {}
    training, validation = (_known(sections.get(key), names, key, file) for key in ("training", "validation"))
    if both := sorted(set(training) & set(validation)):
        raise ValueError(f"{file}: {both[0]!r} is in both sections; each case belongs to one, drop it from one")
    return {"training": training, "validation": validation}


def _known(listed: Any, names: set[str], section: str, file: Path) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f'{file}: has no list "{section}"; a list of case names is needed, add it')
    unknown = [name for name in listed if name not in names]
    if unknown:
        raise ValueError(
            f"{file}: {section} names {len(unknown)} unknown cases ({unknown[0]!r} first);"
            " the data set's cases are allowed, correct the names"
        )
    return listed
