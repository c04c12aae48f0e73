"""Training samples a second, in float32 and in mixed precision.

"phantom_ct" is the shipped bundle's training on phantoms: loading, augmentation, network, loss, optimizer; the recipes
take turns, an epoch each, in one process. "training step" is a network alone on random input. On a GPU the bundle's
"mixed" is MONAI's `amp` (float16 with scaled gradients), and a step's is bfloat16; TF32 is off in "float32".
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.networks import PRECISIONS, Case, Part, failed
from benchmarks.measure import FAILURES, Result, Spread, compare, in_fresh_process, reason
from benchmarks.members import member
from benchmarks.steps import network_step, rounding
from benchmarks.table import Row
from benchmarks.training import FLOAT32, rate, trainer_of
from monai_unetfamily.data import worker_processes
from monai_unetfamily.data.phantom import write_phantoms

NETWORKS = ("unet", "unet3plus")
STEPS: dict[str, list[Case]] = {
    "full": [Case((320, 320), 8, 64), Case((96, 96, 96), 2, 32)],
    "quick": [Case((64, 64, 64), 1, 16)],
    "toy": [Case((8, 8, 8), 2, 2, 3)],
}
PHANTOMS = {"full": 8, "quick": 4, "toy": 2}
SHAPES = {"full": (160, 128, 40), "quick": (160, 128, 40), "toy": (32, 28, 40)}  # voxels of 2 x 2 x 5 mm
BATCHES = {"full": 24, "quick": 12, "toy": 1}  # of an epoch
ROUNDS = {"full": 2, "quick": 2, "toy": 1}


def parts(scale: str, device: str) -> Iterator[Part]:
    """One part for each number of workers of the bundle, then for each input and network; a row for each precision."""
    for workers in sorted({0, worker_processes()}) if scale == "full" else [0]:
        yield partial(bundle_rows, scale, device, workers)
    for case in STEPS[scale]:
        for name in NETWORKS:
            yield partial(step_rows, case, name, device, ROUNDS[scale])


def bundle_rows(scale: str, device: str, workers: int) -> Iterator[Row]:
    what = f"phantom_ct, {workers} workers"
    try:
        rates, peaks = in_fresh_process(take_turns, scale, device, workers, torch.get_num_threads())
    except FAILURES as error:
        yield {"what": what, "precision": "all", "failed": reason(error)}
        return
    for name, own in rates.items():
        yield {
            "what": what,
            "precision": name,
            "samples a second": median(own),
            "speed": Spread.of([a / b for a, b in zip(own, rates["float32"], strict=True)]),
            "peak MiB": None if peaks[name] is None else peaks[name] >> 20,
        }


def recipes(device: str) -> dict[str, dict[str, Any]]:
    """Changes to the bundle's train config: float32, and mixed precision as the bundle has it."""
    there = {"device": torch.device(device)}
    return {
        "float32": there | FLOAT32 | {"train#trainer#amp": False},
        "mixed": there | {"train#trainer#amp": device == "cuda"},
    }


def take_turns(
    scale: str, device: str, workers: int, threads: int
) -> tuple[dict[str, list[float]], dict[str, int | None]]:
    """Samples a second by recipe and round, the first of which warms up, and the most bytes of the device."""
    torch.set_num_threads(threads)
    with TemporaryDirectory(prefix="unetfamily-bench-") as folder, rounding(torch.empty(0, device=device), "float32"):
        write_phantoms(Path(folder, "data"), PHANTOMS[scale], shape=SHAPES[scale])
        trainers = {
            name: trainer_of(Path(folder), name, changes, workers, BATCHES[scale])
            for name, changes in recipes(device).items()
        }
        peaks: dict[str, int | None] = dict.fromkeys(trainers)
        rounds = [_round(trainers, device, peaks) for _ in range(1 + ROUNDS[scale])][1:]
    return {name: [each[name] for each in rounds] for name in trainers}, peaks


def _round(trainers: Mapping[str, Any], device: str, peaks: dict[str, int | None]) -> dict[str, float]:
    rates = {}
    for name, trainer in trainers.items():
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        rates[name] = rate(trainer, device)
        if device == "cuda":
            peaks[name] = torch.cuda.max_memory_allocated()
    return rates


def step_rows(case: Case, name: str, device: str, rounds: int) -> Iterator[Row]:
    build = partial(member, name, len(case.size), case.widths)
    candidates = {
        precision: partial(network_step, build, case.size, "training step", device, precision, case.batch)
        for precision in PRECISIONS
    }
    results = compare(candidates, rounds=rounds, device=device)
    for precision, own in results.items():
        yield {"what": f"{name}, training step, {case.title}", "precision": precision, **_cells(case, own, results)}


def _cells(case: Case, own: Result, results: Mapping[str, Result]) -> Row:
    seconds = median(own.seconds) if own.seconds else None
    return {
        "samples a second": case.batch / seconds if seconds else None,
        "speed": results["float32"].time_over(own),
        "peak MiB": own.peak_bytes and own.peak_bytes >> 20,
        **failed(own),
    }
