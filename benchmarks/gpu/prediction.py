"""Predict a CT-sized volume with the shipped bundle phantom_ct, scores summed on the GPU and on the CPU.

The volume is a phantom of a fourth of the voxels along each axis, each repeated four times, with noise, written as
NIfTI. At a CT's spacing the bundle's grid of 5 mm has few windows, and most of the work is interpolating scores to the
source grid; at 2.5 mm there are many windows. "file to labels" is `predict_volume`, once, in a process that predicted a
small volume before; memory is that of this process. "image to labels" is `segment` after reading and preprocessing,
in turns in one process.
"""

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from benchmarks.gpu.networks import Part
from benchmarks.measure import FAILURES, Spread, in_fresh_process, now, reason
from benchmarks.table import Row
from monai_unetfamily.bundles import Bundle, find_bundle, open_bundle
from monai_unetfamily.data import find_studies
from monai_unetfamily.data.phantom import make_phantom
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.prediction import load_case, predict_volume, segment

BUNDLE = "phantom_ct"
REPEATS = 4  # of each voxel of the phantom along each axis


class Volume(NamedTuple):
    """Voxels and their mm along each axis."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def title(self) -> str:
        return f"{'x'.join(map(str, self.size))}, {'x'.join(f'{mm:g}' for mm in self.spacing)} mm"


CT = (512, 512, 300)
CASES: dict[str, list[Volume]] = {
    "full": [Volume(CT, (0.8, 0.8, 1.25)), Volume(CT, (2.5, 2.5, 2.5))],
    "quick": [Volume((256, 256, 148), (2.5, 2.5, 2.5))],
    "toy": [Volume((64, 64, 64), (5.0, 5.0, 6.0))],
}
SMALL = Volume((64, 64, 64), (5.0, 5.0, 5.0))
ROUNDS = {"full": 2, "quick": 2, "toy": 1}


@dataclass(frozen=True)
class Whole:
    """Of a run from the file to its labels: seconds, and the most bytes of the device and of the process."""

    seconds: float
    device_bytes: int | None
    host_bytes: int


def parts(scale: str, device: str) -> Iterator[Part]:
    """One part for each volume, with a row for each place where scores are summed."""
    with TemporaryDirectory(prefix="unetfamily-bench-") as folder:
        first = write_volume(Path(folder, "small.nii"), SMALL)
        for number, volume in enumerate(CASES[scale]):
            file = write_volume(Path(folder, f"volume_{number}.nii"), volume)
            yield partial(rows_of, volume, [first, file], device, ROUNDS[scale])


def rows_of(volume: Volume, files: Sequence[Path], device: str, rounds: int) -> Iterator[Row]:
    places = {"GPU": device, "CPU": "cpu"}
    threads = torch.get_num_threads()
    wholes: dict[str, Whole | str] = {}
    for name, place in places.items():
        try:
            wholes[name] = in_fresh_process(whole_run, files, device, place, threads)
        except FAILURES as error:
            wholes[name] = reason(error)
    alive = {name: place for name, place in places.items() if isinstance(wholes[name], Whole)}
    try:
        seconds = in_fresh_process(take_turns, files[-1], device, alive, rounds, threads) if alive else {}
        failure = None
    except FAILURES as error:
        seconds, failure = {}, reason(error)
    for name in places:
        yield {"volume": volume.title, "scores summed on": name, **_cells(name, wholes[name], seconds, failure)}


def _cells(name: str, whole: Whole | str, seconds: dict[str, list[float]], failure: str | None) -> Row:
    if isinstance(whole, str):
        return {"failed": whole}
    own, gpu = seconds.get(name), seconds.get("GPU")
    return {
        "file to labels, s": whole.seconds,
        "image to labels, s": median(own) if own else None,
        "times the GPU's": Spread.of([a / b for a, b in zip(own, gpu, strict=True)]) if own and gpu else None,
        "device MiB": None if whole.device_bytes is None else whole.device_bytes >> 20,
        "host MiB": whole.host_bytes >> 20,
        **({"failed": failure} if failure else {}),
    }


def write_volume(file: Path, volume: Volume) -> Path:
    """Write the volume as int16; uncompressed, since unpacking would be most of the reading."""
    rng = np.random.default_rng(0)
    x, y, z = (n // REPEATS for n in volume.size)
    voxels = make_phantom(rng, (x, y, z), (400 / x, 320 / y, 360 / z)).image
    for axis in range(3):
        voxels = voxels.repeat(REPEATS, axis)
    voxels = voxels + rng.integers(-20, 20, voxels.shape, np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([*volume.spacing, 1.0])), file)
    return file


def opened(device: str, place: str) -> Bundle:
    """The bundle with its network on the device, and its scores summed in a place: the device itself, or the CPU."""
    bundle = open_bundle(find_bundle(BUNDLE), torch.device(device))
    if place != device:
        if not isinstance(bundle.inferer, WindowInferer):
            raise TypeError(f"the inferer of {BUNDLE} is {type(bundle.inferer).__name__}; a WindowInferer is needed.")
        bundle.inferer.device, bundle.inferer.sw_device = place, device
    return bundle


def whole_run(files: Sequence[Path], device: str, place: str, threads: int) -> Whole:
    """Predict the files, the last of which is measured: the first loads packages and starts CUDA."""
    torch.set_num_threads(threads)
    bundle = opened(device, place)
    for file in files:
        start = now(device)
        predict_volume(bundle, file)
        seconds = now(device) - start
    on_device = torch.cuda.max_memory_allocated() if device == "cuda" else None
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # available without /proc
    return Whole(seconds, on_device, host)


def take_turns(file: Path, device: str, places: dict[str, str], rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds from the preprocessed image to all labels, by place and round; the first round warms up."""
    torch.set_num_threads(threads)
    bundles = {name: opened(device, place) for name, place in places.items()}
    [study] = find_studies([file]).studies
    _, case = load_case(next(iter(bundles.values())), study)
    times: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(1 + rounds):
        for name, bundle in bundles.items():
            start = now(device)
            with torch.inference_mode():
                for _step in segment(bundle, case):
                    pass
            times[name].append(now(device) - start)
    return {name: each[1:] for name, each in times.items()}
