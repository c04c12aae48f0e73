"""What several commands take, and how they speak."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from monai_unetfamily.bundles import explained

if TYPE_CHECKING:
    from monai_unetfamily.data import Case, Fold, Section

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
SECTIONS = ("training", "validation")


def add_bundle(command: argparse.ArgumentParser) -> None:
    """Add the argument BUNDLE."""
    command.add_argument("bundle", metavar="BUNDLE", help="a MONAI bundle's folder, or the name of a shipped one")


def add_device(command: argparse.ArgumentParser) -> None:
    """Add --device."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def add_trust(command: argparse.ArgumentParser) -> None:
    """Add --trust."""
    command.add_argument(
        "--trust", action="store_true", help="let the bundle run code of its own; what it runs is printed first"
    )


def say_what_runs(bundle: Path, config: str = "inference", parts: Sequence[str] = ()) -> None:
    """Print what a trusted bundle will run for prediction, or for these parts of another of its configs."""
    from monai_unetfamily.bundles.trust import PREDICTION, review

    for finding in review(bundle, config, parts or PREDICTION):
        say(f"{bundle.name} is trusted to run {finding.what} ({finding.where})")


def add_section(command: "argparse.ArgumentParser | argparse._ArgumentGroup", what: str) -> None:
    """Add --section and --fold."""
    command.add_argument("--section", choices=SECTIONS, help=what)
    command.add_argument(
        "--fold", type=fold, metavar="K", help="of the section: a number, or all (default: the only split, or 0)"
    )


def fold(text: str) -> "Fold":
    """Read a fold: a number, or "all".

    >>> fold("2"), fold("all")
    (2, 'all')
    """
    return "all" if text == "all" else int(text)


def section_cases(datasets: Sequence[Path], section: "Section", fold: "Fold") -> "list[Case]":
    """The cases of a section of data sets."""
    from monai_unetfamily.data import load_cases

    return [case for dataset in datasets for case in load_cases(dataset, section, fold)]


def require_section(options: argparse.Namespace) -> None:
    """Refuse a fold without a section."""
    if options.fold is not None and options.section is None:
        raise ValueError(f"got --fold {options.fold} without --section; a data set has folds: add --section validation")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def one_line(error: BaseException) -> str:
    r"""An error as one line, in which what would steer a terminal is written out: names of foreign files are in it.

    >>> one_line(ValueError("\x1b[2J:\n no weights"))
    '\\x1b[2J: no weights'
    """
    line = explained(error)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
