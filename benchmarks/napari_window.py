"""The widget in a napari window: how long it takes to open, how long the window is deaf in a run, how soon a run ends.

Each figure is of processes of its own, each with a window of 1280 x 800 on a display of Xvfb, which draws on the
processor, too. The image is a phantom of a CT's size, the bundle the shipped `phantom_ct`, the network on the CPU.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from pyvirtualdisplay import Display

from benchmarks.measure import FAILURES, reason
from benchmarks.table import Row
from monai_unetfamily.bundles import find_bundle
from monai_unetfamily.data.phantom import make_phantom

BUNDLE = "phantom_ct"
DISPLAY = (1280, 800)
MINUTES = 10


class Case(NamedTuple):
    """Voxels of the image and their mm; processes of each kind."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    rounds: int


CASES = {
    "full": Case((512, 512, 100), (0.8, 0.8, 5.0), 5),
    "quick": Case((256, 256, 50), (1.6, 1.6, 10.0), 2),
    "toy": Case((32, 28, 60), (10.0, 10.0, 10.0), 1),
}


def rows(scale: str) -> list[Row]:
    """One row for each figure: the median of the processes, the largest, and what is aimed at."""
    if which("Xvfb") is None:
        return [{"what": "a napari window", "failed": "no Xvfb on this machine (make system, as root)"}]
    case, root = CASES[scale], find_bundle(BUNDLE).resolve()
    with TemporaryDirectory() as folder, display() as environment:
        image = write_image(case, Path(folder, "ct.nii"))
        return [
            *_rows(_opening, [["opening"]] * case.rounds, environment),
            *_rows(_predicting, [["predicting", str(root), str(image)]] * case.rounds, environment),
        ]


def _rows(table: Any, commands: list[list[str]], environment: dict[str, str]) -> list[Row]:
    try:
        return list(table([session(command, environment) for command in commands]))
    except FAILURES as error:
        return [{"what": commands[0][0], "failed": reason(error)}]


def _opening(sessions: list[dict[str, Any]]) -> Iterator[Row]:
    loaded = any(each["torch"] for each in sessions)
    yield _row("opening the widget, s", [each["seconds"] for each in sessions], "0.5")
    yield {"what": "torch loaded by then", "median": "yes" if loaded else "no", "at most": "", "aim": "no"}


def _predicting(sessions: list[dict[str, Any]]) -> Iterator[Row]:
    for span, what, aim in (("running", "in a run", "100"), ("resting", "at rest", "")):
        yield _row(f"between turns {what}, longest, ms", [each[span]["longest"] for each in sessions], aim)
        yield _row(f"between turns {what}, 99 %, ms", [each[span]["99 %"] for each in sessions])
    again = [each["again"]["longest"] for each in sessions]
    yield _row("between turns in a run that replaces a result, longest, ms", again)
    yield _row("from Cancel to rest, windows' times", [time for each in sessions for time in each["cancelling"]], "1")


def _row(what: str, values: list[float], aim: str = "") -> Row:
    return {"what": what, "median": median(values), "at most": max(values), "aim": aim}


def write_image(case: Case, path: Path) -> Path:
    phantom = make_phantom(np.random.default_rng(0), case.shape, case.spacing, orientation="LPS")
    image = nib.Nifti1Image(phantom.image, phantom.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@contextmanager
def display() -> Iterator[dict[str, str]]:
    """The environment of processes that draw on a display of their own, with nobody's settings."""
    with Display(visible=False, size=DISPLAY, manage_global_env=False) as screen:
        paths = os.pathsep.join(path for path in sys.path if path)
        yield screen.env() | {"PYTHONPATH": paths, "NAPARI_CONFIG": "", "QT_QPA_PLATFORM": "xcb"}


def session(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """What `napari_session` measures in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.napari_session", *command]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60 * MINUTES, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
