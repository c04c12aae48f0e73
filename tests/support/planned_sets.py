"""Tiny data sets of any layout, grid and number of classes: blobs in noise, each class brighter than the last."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_unetfamily.cli import main
from monai_unetfamily.data.phantom import write_phantoms
from monai_unetfamily.io import write_masks
from tests.support.builds import built_once
from tests.support.tiny import weigh

LITTLE = ["--features", "4", "8", "8", "--device", "cpu"]


def blobs(shape: Sequence[int], classes: int, absent: int = 0, seed: int = 0) -> tuple[Any, Any]:
    """An image (*shape) and its labels: a ball for each class but `absent`, side by side along the first axis."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    for label in range(1, classes + 1):
        centre = -1 + (2 * label - 1) / classes + rng.uniform(-0.05, 0.05)
        inside = (grid[0] - centre) ** 2 * classes**2 + sum(g**2 for g in grid[1:]) < 0.8
        labels[inside & (label != absent)] = label
    return rng.normal(0, 10, shape) + 100.0 * labels, labels


def write_volumes(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (24, 20, 16),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: Sequence[str] = ("CT",),
    labels: Sequence[str] = ("spleen",),
    n: int = 5,
    layout: str = "MSD",
    absent: int = 0,
) -> Path:
    """A data set in MSD's or nnU-Net's layout; the class `absent` is missing from every other case."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    cases = [f"case_{number:03}" for number in range(n)]
    for number, case in enumerate(cases):
        image, label = blobs(shape, len(labels), absent if number % 2 else 0, seed=number)
        stack = np.stack([image + 50 * channel for channel in range(len(channels))], axis=-1).astype(np.int16)
        _save(label, spacing, folder / "labelsTr" / f"{case}.nii.gz")
        if layout == "MSD":
            _save(stack if len(channels) > 1 else stack[..., 0], spacing, folder / "imagesTr" / f"{case}.nii.gz")
        else:
            for channel in range(len(channels)):
                _save(stack[..., channel], spacing, folder / "imagesTr" / f"{case}_{channel:04}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(_listing(layout, channels, labels, cases)))
    return folder


def write_overlapping(folder: Path) -> Path:
    """The second class inside the first, as 4-D masks."""
    write_volumes(folder, labels=("organ", "tumour"))
    listing = json.loads((folder / "dataset.json").read_text())
    classes = {1: "organ", 2: "tumour"}
    (folder / "dataset.json").write_text(json.dumps(listing | {"labels": classes}))
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        ids = np.asarray(image.dataobj)
        write_masks(np.stack([ids > 0, ids == 2], axis=-1).astype(np.uint8), classes, image, file)
    return folder


def write_pictures(folder: Path, *, shape: tuple[int, int] = (40, 48), labels: int = 2, n: int = 5) -> Path:
    """Paired folders of 8-bit PNG."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(n):
        image, label = blobs(shape, labels, seed=number)
        scaled = np.clip(image / 2 + 20, 0, 255).astype(np.uint8)
        Image.fromarray(scaled).save(folder / "images" / f"case_{number:03}.png")
        Image.fromarray(label).save(folder / "labels" / f"case_{number:03}.png")
    return folder


def _listing(layout: str, channels: Sequence[str], labels: Sequence[str], cases: Sequence[str]) -> dict[str, Any]:
    names = {0: "background"} | dict(enumerate(labels, start=1))
    if layout == "nnU-Net":
        return {
            "channel_names": dict(enumerate(channels)),
            "labels": {name: label for label, name in names.items()},
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
        }
    files = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases]
    return {"name": "blobs", "modality": dict(enumerate(channels)), "labels": names, "training": files}


def _save(voxels: Any, spacing: tuple[float, float, float], file: Path) -> None:
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), file)


def phantoms(folder: Path) -> Path:
    write_phantoms(folder, 5, shape=(32, 26, 16), spacing=(10.0, 10.0, 12.5))
    return folder


MR: dict[str, Any] = {"channels": ("MRI",)}
SETS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "phantom CT": (phantoms, {"spatial_dims": 3, "slice_axis": None}),
    "pictures": (write_pictures, {"spatial_dims": 2, "slice_axis": None, "spacing": None}),
    "few slices": (
        lambda folder: write_volumes(folder, shape=(32, 40, 6), spacing=(1.0, 1.0, 6.0), **MR),
        {"spatial_dims": 2, "slice_axis": 2, "neighbours": 1},
    ),
    "thick slices": (
        lambda folder: write_volumes(folder, shape=(40, 40, 24), spacing=(1.0, 1.0, 4.0), labels=("a", "b"), **MR),
        {"spatial_dims": 3, "spacing": (1.0, 1.0, 4.0)},
    ),
    "channels in one file": (lambda folder: write_volumes(folder, channels=("T2", "ADC")), {"spatial_dims": 3}),
    "channels in files": (
        lambda folder: write_volumes(folder, channels=("T2", "ADC"), layout="nnU-Net"),
        {"spatial_dims": 3},
    ),
    "overlapping classes": (write_overlapping, {"spatial_dims": 3, "balanced": False}),
}


def planned_bundle(name: str, factory: pytest.TempPathFactory) -> Path:
    """Return the bundle that is planned for a set, with random weights; read-only."""
    return built_once(factory, f"planned_{name}", lambda folder: write_planned(name, folder)) / "bundle"


def write_planned(name: str, folder: Path) -> None:
    bundle = folder / "bundle"
    assert main(["plan", str(SETS[name][0](folder / "data")), "-o", str(bundle), *LITTLE]) == 0
    weigh(bundle)
