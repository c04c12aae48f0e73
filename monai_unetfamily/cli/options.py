"""What several commands take, and how they speak."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from monai_unetfamily.volumes.cases import Section

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
SECTIONS = ("training", "validation")


def add_bundle(command: argparse.ArgumentParser) -> None:
    """Add the argument BUNDLE."""
    command.add_argument("bundle", metavar="BUNDLE", help="a MONAI bundle's folder, or the name of a shipped one")


def add_device(command: argparse.ArgumentParser) -> None:
    """Add --device."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def section_files(datasets: Sequence[Path], section: "Section", key: str) -> list[Path]:
    """The images or labels (`key`) of a section of data sets."""
    from monai_unetfamily.volumes.cases import load_cases

    return [Path(case[key]) for dataset in datasets for case in load_cases(dataset, section)]


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def one_line(error: BaseException) -> str:
    """An error as one line."""
    return " ".join(str(error).split()) or type(error).__name__
