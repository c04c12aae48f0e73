"""What was equal for all networks of a comparison, and the machine: words for its report."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from monai_unetfamily.bundles.networks import network_definition
from monai_unetfamily.bundles.references import read_config
from monai_unetfamily.training.comparing.runs import Recipe
from monai_unetfamily.volumes.cases import load_cases

_CPU = Path("/proc/cpuinfo")  # of Linux


def facts_of(recipe: Recipe, repeats: Sequence[str], fold: int | None, device: torch.device) -> dict[str, str]:
    """Name -> words: the data, the budget, the recipe that all share, the machine, versions.

    Args:
        recipe: of the comparison.
        repeats: names of a network's trainings.
        fold: of the first of them, whose cases are counted.
        device: that trained and predicted.
    """
    config = read_config(recipe.bundle, "train")
    network, metadata = network_definition(recipe.bundle), config["_meta_"]
    trained, held_out = (len(load_cases(recipe.dataset, part, fold)) for part in ("training", "validation"))
    folds = " (of the first fold)" if fold is not None else ""
    patch = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    step = config.get("batch_size", 1) * config.get("accumulation_steps", 1)
    return {
        "data set": f"{recipe.dataset.absolute().name}: {trained} training cases, {held_out} validation cases{folds}",
        "budget": f"{recipe.minutes:g} minutes of training and validation each; {', '.join(repeats)}",
        "dimensions": f"{network['spatial_dims']}-D",
        "widths": ", ".join(map(str, network["features"])),
        "patch": f"{' x '.join(map(str, patch))} voxels, {step} a step",
        "spacing": _spacing(config.get("spacing")),
        "learning rate": f"{config.get('learning_rate')}, falling with time",
        "weights": "of the last epoch",
        "machine": machine(device),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "monai", "monai_unetfamily")),
    }


def machine(device: torch.device) -> str:
    """The GPU, or the processor and its threads.

    >>> "thread" in machine(torch.device("cpu"))
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = _CPU.read_text("utf-8").splitlines() if _CPU.is_file() else []
    named = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    threads = torch.get_num_threads()
    return f"{named}, {threads} thread{'s' * (threads != 1)}{', ' + device.type if device.type != 'cpu' else ''}"


def _spacing(spacing: Any) -> str:
    """In words; where it is 0, the image's own stays.

    >>> _spacing([1.0, 1.0, 0.0]), _spacing(None)
    ('1 x 1 mm, across slices as it is', 'as it is')
    """
    if not spacing:
        return "as it is"
    edges = " x ".join(f"{edge:g}" for edge in spacing if edge)
    return f"{edges} mm{'' if all(spacing) else ', across slices as it is'}"
