"""A cohort through `unetfamily predict` and through `python -m monai.bundle run` of the same bundle, start-up included.

Both run as processes of their own with the same windows; MONAI's loader has two workers. The volumes are noise of the
hippocampus data's size: what they hold changes no time.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter

import nibabel as nib
import numpy as np

from benchmarks.measure import Spread
from benchmarks.table import Row
from monai_unetfamily.bundles import find_bundle

CASES = {"full": (40, 3), "quick": (4, 1), "toy": (1, 1)}  # volumes, rounds
SHAPE = (36, 50, 36)  # voxels of 1 mm
BUNDLE = "hippocampus_mr"
OURS, WITHOUT = "unetfamily predict", "unetfamily predict --no-previews"
BASE = "monai.bundle run"


def rows(scale: str) -> list[Row]:
    """One row for each command, in times of MONAI's."""
    n, rounds = CASES[scale]
    with TemporaryDirectory() as folder:
        directory = Path(folder).resolve()
        write_volumes(directory / "in", n)
        times = [{name: command(directory) for name, command in COMMANDS.items()} for _ in range(rounds)]
    seconds = {name: [each[name] for each in times] for name in COMMANDS}
    return [
        {
            "command": name,
            "volumes": f"{n} of {'x'.join(map(str, SHAPE))}",
            "time": Spread.of([own / its for own, its in zip(spent, seconds[BASE], strict=True)]),
        }
        for name, spent in seconds.items()
    ]


def write_volumes(folder: Path, n: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(n):
        voxels = random.integers(0, 1000, SHAPE, np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"mr_{number:03}.nii.gz")


def timed(arguments: Callable[[Path], Sequence[str]], directory: Path) -> float:
    """Seconds of a command from start to end; what it wrote must be all."""
    rmtree(directory / "out", ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    start = perf_counter()
    command = [sys.executable, "-m", *arguments(directory)]
    subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)
    spent = perf_counter() - start
    if len(list((directory / "out").glob("*.nii.gz"))) != len(list((directory / "in").iterdir())):
        raise RuntimeError(f"{command[2]}: did not write a label map for each volume.")
    return spent


def ours(directory: Path, *options: str) -> Sequence[str]:
    return ["monai_unetfamily.cli", "predict", BUNDLE, str(directory / "in"), "-o", str(directory / "out"), *options]


def monais(directory: Path) -> Sequence[str]:
    root = find_bundle(BUNDLE).resolve()
    options = {
        "config_file": root / "configs/inference.yaml",
        "meta_file": root / "configs/metadata.json",
        "bundle_root": root,
        "dataset_dir": directory / "in",
        "output_dir": directory / "out",
        "dataloader#num_workers": 2,
    }
    return ["monai.bundle", "run", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


COMMANDS: dict[str, Callable[[Path], float]] = {
    BASE: partial(timed, monais),
    OURS: partial(timed, ours),
    WITHOUT: partial(timed, lambda directory: ours(directory, "--no-previews")),
}
