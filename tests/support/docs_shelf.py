"""What the commands of the documentation name: data sets, scans, bundles of those names, all of them tiny."""

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_unetfamily.bundles import METADATA, choose_network, metadata
from monai_unetfamily.data.phantom import write_phantom_images2d, write_phantoms
from tests.support.dicom_files import write_series
from tests.support.tiny import PHANTOM_SHAPE, weigh
from tests.support.zoo_bundle import write_zoo_bundle

SIZE: dict[str, Any] = {"shape": PHANTOM_SHAPE, "spacing": (10.0, 10.0, 12.5)}
TASKS = {"Task04_Hippocampus": ("anterior", "posterior"), "Task09_Spleen": ("spleen",)}
COARSER = {
    r"spacing: \[.*\]": "spacing: [12.0, 12.0, 12.0]",
    r"roi_size: \[\d+, \d+\]": "roi_size: [32, 24]",
    r"roi_size: \[\d+, \d+, \d+\]": "roi_size: [24, 24, 16]",
    r"epoch_batches: \d+": "epoch_batches: 2",
    r"num_workers: .*": "num_workers: 0",
}


def coarsen(bundle: Path) -> Path:
    """A bundle of the same parts that trains in seconds on phantoms."""
    for config in (bundle / "configs").glob("*.yaml"):
        text = config.read_text()
        for pattern, small in COARSER.items():
            text = re.sub(pattern, small, text)
        config.write_text(text)
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    for network in metadata["networks"].values():
        network["features"] = [4, *[8] * (len(network["features"]) - 1)]
    image = metadata["network_data_format"]["inputs"]["image"]
    image["spatial_shape"] = [24, 24, 16][: len(image["spatial_shape"])]
    file.write_text(json.dumps(metadata))
    return bundle


def phantoms(folder: Path) -> None:
    write_phantoms(folder, 5, **SIZE)


def task(folder: Path) -> None:
    """The phantoms with the classes of a task of the Decathlon."""
    phantoms(folder)
    names = TASKS[folder.name]
    listing = json.loads((folder / "dataset.json").read_text())
    classes = {str(number): name for number, name in enumerate(("background", *names))}
    (folder / "dataset.json").write_text(json.dumps(listing | {"labels": classes}))
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        ids = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(ids <= len(names), ids, 0).astype(np.uint8), None, image.header), file)


def slices(folder: Path) -> None:
    write_phantom_images2d(folder, 3, **SIZE)


def pairs(folder: Path) -> None:
    """Pictures in two plain folders, whose files pair by name."""
    slices(folder)
    (folder / "dataset.json").unlink()
    for old, new in (("imagesTr", "images"), ("labelsTr", "labels")):
        (folder / old).rename(folder / new)


def series(folder: Path) -> None:
    """A phantom as DICOM slices, that can be referred to."""
    phantoms(folder.with_name("whole"))
    image = nib.load(folder.with_name("whole") / "imagesTr/phantom_000.nii.gz")
    uids = [f"1.2.3.4.{k}" for k in range(image.shape[2])]
    axial = image.as_reoriented([(0, -1), (1, -1), (2, 1)])  # columns to the left, rows to the back
    voxels = np.asarray(axial.dataobj, np.float32)
    write_series(folder / "visit", voxels, axial.affine, SOPInstanceUID=uids, FrameOfReferenceUID="1.2.9")
    shutil.rmtree(folder.with_name("whole"))


def part(name: str) -> Callable[[Path], None]:
    """One folder of a data set."""

    def make(folder: Path) -> None:
        phantoms(folder.with_name("whole"))
        (folder.with_name("whole") / name).rename(folder)
        shutil.rmtree(folder.with_name("whole"))

    return make


def bundle_of(name: str, network: str, *, weights: bool = True) -> Callable[[Path], None]:
    """A copy of a shipped bundle, with random weights or none."""

    def make(folder: Path) -> None:
        shutil.copytree(metadata.SHIPPED / name, folder)
        choose_network(folder, network)
        weigh(folder)
        if not weights:
            shutil.rmtree(folder / "models")

    return make


def zoo(folder: Path) -> None:
    """Of MONAI's model zoo, with a step that no list holds."""
    write_zoo_bundle(folder)
    file = folder / "configs/inference.json"
    config = json.loads(file.read_text())
    halves = {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: image / 2"}
    config["preprocessing"]["transforms"].append(halves)
    file.write_text(json.dumps(config))


SHELF: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys(("my_data", "phantoms"), phantoms),
    **dict.fromkeys(TASKS, task),
    "slices": slices,
    "my_pictures": pairs,
    "scans": part("imagesTr"),
    "series": series,
    "labels": part("labelsTr"),
    "references": part("labelsTr"),
    "my_bundle": bundle_of("phantom_ct", "unetplusplus"),
    "my_bundle, untrained": bundle_of("phantom_ct", "unetplusplus", weights=False),
    "my_bundle, to export": bundle_of("phantom_ct", "unet"),
    "my_bundle, of Task04_Hippocampus": bundle_of("hippocampus_mr", "unet"),
    "small": bundle_of("phantom_ct", "unetplusplus"),
    "spleen": zoo,
    "configs": lambda folder: shutil.copytree(metadata.SHIPPED, folder),
}


def kind(name: str, words: list[str]) -> str:
    """What stands on the shelf for the name in that command."""
    if name == "my_bundle" and words[1] == "train" and "-o" not in words:
        return "my_bundle, untrained"
    if name == "my_bundle" and words[1] == "export":
        return "my_bundle, to export"  # of a larger network the exporters take half a minute
    if name == "my_bundle" and "Task04_Hippocampus" in words:
        return "my_bundle, of Task04_Hippocampus"
    return name


def take(words: list[str], made: set[str]) -> None:
    """Lay out what a command names and neither makes itself nor finds made."""
    for before, word in pairwise(words):
        parts = Path(word).parts
        up = parts.count("..")
        name = parts[up] if len(parts) > up else ""
        if before == "-o" or words[:2] == ["unetfamily", "phantom"]:
            made.add(name)
        elif name in SHELF and name not in made and not (place := Path(*parts[: up + 1])).exists():
            SHELF[kind(name, words)](place.resolve())


def ship(folder: Path) -> Path:
    """The shipped bundles with random weights, small enough to train."""
    shutil.copytree(metadata.SHIPPED, folder)
    for root in sorted(folder.iterdir()):
        weigh(coarsen(root))
    return folder
