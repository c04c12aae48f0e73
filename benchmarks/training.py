"""Samples a second of a bundle's training beside a plain MONAI recipe with the same network, patch, batch and workers.

The plain recipe is the bundle's own config with MONAI's CacheDataset in memory, SimpleInferer, no handler. Validation
is left out on both sides. "here, float32" has cases mapped from files, seeds, checkpoints and logs; "here" has bfloat16
beside, on CPUs made for it. The three take turns, an epoch each, in one process.
"""

from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from benchmarks.measure import in_fresh_process, now
from benchmarks.table import Row
from monai_unetfamily.bundles import config_file, copy_bundle, find_bundle
from monai_unetfamily.data.phantom import write_phantoms

CASES = {"full": 20, "quick": 8, "toy": 2}
SHAPES = {"full": (160, 128, 40), "quick": (160, 128, 40), "toy": (32, 28, 40)}  # voxels of 2 x 2 x 5 mm
ROUNDS = {"full": 3, "quick": 2, "toy": 1}
WORKERS = {"full": (0, 1), "quick": (0,), "toy": (0,)}
FLOAT32 = {"train#inferer": {"_target_": "SimpleInferer"}}
PLAIN: dict[str, Any] = FLOAT32 | {
    "train#preprocessing#transforms": "$@train#deterministic_transforms + @train#random_transforms",
    "train#dataset": {
        "_target_": "CacheDataset",
        "data": "@train#cases",
        "transform": "@train#preprocessing",
        "progress": False,
    },
    "train#cases": {"_target_": "monai_unetfamily.data.load_cases", "dataset_dir": "@dataset_dir"},
    "train#handlers": [],
}
RECIPES: dict[str, dict[str, Any]] = {"plain MONAI": PLAIN, "here, float32": FLOAT32, "here": {}}


def rows(scale: str) -> list[Row]:
    """One row for each number of workers."""
    measure = partial(in_fresh_process, interleave, CASES[scale], SHAPES[scale], ROUNDS[scale], torch.get_num_threads())
    return [_row(workers, measure(workers)) for workers in WORKERS[scale]]


def _row(workers: int, rates: dict[str, float]) -> Row:
    plain = rates["plain MONAI"]
    ratios = {f"{name}, x": rate / plain for name, rate in rates.items() if name != "plain MONAI"}
    return {"network": "UNet 3+ of phantom_ct", "workers": workers, "plain MONAI, samples/s": plain, **ratios}


def interleave(cases: int, shape: tuple[int, int, int], rounds: int, threads: int, workers: int) -> dict[str, float]:
    """Samples a second by recipe: medians over rounds, in which the recipes take turns."""
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        write_phantoms(Path(folder, "data"), cases, shape=shape)
        trainers = {
            name: trainer_of(Path(folder), name, changes, workers, cases // 2) for name, changes in RECIPES.items()
        }
        times = [{name: rate(trainer) for name, trainer in trainers.items()} for _ in range(1 + rounds)][1:]
    return {name: median(each[name] for each in times) for name in trainers}


def trainer_of(folder: Path, name: str, changes: dict[str, Any], workers: int, batches: int) -> Any:
    """The trainer of phantom_ct with changes to its config, on the phantoms in `folder`/data; it never validates."""
    directory = folder / name.replace(", ", "_").replace(" ", "_")
    copy_bundle(find_bundle("phantom_ct"), directory)
    workflow = ConfigWorkflow(
        config_file=str(config_file(directory, "train")),
        logging_file=False,
        bundle_root=str(directory),
        dataset_dir=str(folder / "data"),
        num_workers=workers,
        val_interval=1_000_000,
        epoch_batches=batches,
        **changes,
    )
    workflow.initialize()
    return workflow.trainer


def rate(trainer: Any, device: str = "cpu") -> float:
    """Samples a second of one more epoch."""
    trainer.state.max_epochs = trainer.state.epoch + 1
    start = now(device)
    trainer.run()
    return len(trainer.data_loader.sampler) / (now(device) - start)
