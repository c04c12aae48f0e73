"""The family as an algorithm of MONAI's Auto3DSeg."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.apps.auto3dseg import BundleAlgo
from monai.auto3dseg import datafold_read
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor

from monai_unetfamily.bundles import open_bundle
from monai_unetfamily.data import find_studies
from monai_unetfamily.evaluation import read_csv, summarize
from monai_unetfamily.handlers import CHECKPOINT
from monai_unetfamily.io import Image, Study, atomic_file, make_directory, stem
from monai_unetfamily.planning import plan_dataset
from monai_unetfamily.prediction import choose_device, load_case, segment
from monai_unetfamily.training import SCORES, train

# The family as an algorithm of MONAI's Auto3DSeg: the template, and what its scripts run.
#
# Auto3DSeg divides the cases, starts the trainings, ranks and averages; each of its trainings is `unetfamily plan`
# and `unetfamily train` on the cases of one fold.


TEMPLATES = Path(__file__).parent / "templates"  # what BundleGen and AutoRunner take as templates_path_or_url


# What Auto3DSeg's task file and list of cases say, as a data set that the planner and the training read.

Item = Mapping[str, Any]


def read_task(file: Path) -> dict[str, Any]:
    """The task: `datalist`, `dataroot`, `modality` and so on.

    Raises:
        ValueError: it lacks one of these three.
    """
    task: dict[str, Any] = ConfigParser.load_config_file(file)
    if missing := [key for key in ("datalist", "dataroot", "modality") if not task.get(key)]:
        raise ValueError(f"{file}: has no {missing[0]!r}; Auto3DSeg's task file needs it, add it.")
    return task


def write_dataset(task: Mapping[str, Any], statistics: Mapping[str, Any], fold: int, folder: Path) -> Path:
    """Write a data set in MSD's layout whose files stay where they are, and whose one split holds this fold out.

    Args:
        task: from `read_task`.
        statistics: of Auto3DSeg's DataAnalyzer: names the labels where nobody else does.
        fold: whose cases are held out.
        folder: new; gets `dataset.json` and `splits.json`.

    Raises:
        ValueError: a fold without a case, cases of several files, classes that are regions.
    """
    training, validation = datafold_read(task["datalist"], str(Path(task["dataroot"]).absolute()), fold)
    if not (training and validation):
        raise ValueError(f"{task['datalist']}: fold {fold} leaves a section empty; each needs a case, divide anew.")
    listing = {
        "name": str(task.get("name") or Path(task["datalist"]).stem),
        "modality": {"0": str(task["modality"]).upper()},
        "labels": {str(number): name for number, name in _labels(task, statistics).items()},
        "training": [{key: _one_file(item, key) for key in ("image", "label")} for item in (*training, *validation)],
    }
    make_directory(folder)
    (folder / "dataset.json").write_text(json.dumps(listing, indent=1), encoding="utf-8")
    split = {"training": _names(training), "validation": _names(validation)}
    (folder / "splits.json").write_text(json.dumps(split, indent=1), encoding="utf-8")
    return folder


def _labels(task: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[int, str]:
    """The task's `class_names`, or what the list of cases calls them, or numbers."""
    names = task.get("class_names")
    if names and not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names is {names}; a name for each label from 1 up is allowed: regions may overlap.")
    if names:
        return {0: "background"} | dict(enumerate(names, start=1))
    table = ConfigParser.load_config_file(task["datalist"]).get("labels")
    if isinstance(table, dict):
        return {int(number): name for number, name in table.items()}
    found = statistics["stats_summary"]["label_stats"]["labels"]
    return {int(number): f"class {number}" if number else "background" for number in found}


def _one_file(item: Item, key: str) -> str:
    if not isinstance(item.get(key), str):
        raise ValueError(f"got {key} {item.get(key)!r}; one file is allowed: put the channels of a case in one.")
    return str(item[key])


def _names(items: Sequence[Item]) -> list[str]:
    return [stem(Path(item["image"])) for item in items]


# The algorithm that Auto3DSeg's BundleGen makes one of for each fold, and the training that it starts.

_PROGRESS = "progress.yaml"
_ASKED = ("minutes", "device", "seed", "cache_dir", "tracking")  # of `train`; Auto3DSeg's num_epochs are its epochs


class UnetfamilyAlgo(BundleAlgo):
    """The family: for each fold, the bundle that the planner's rules make of the data.

    The task file may have a section `unetfamily` with options of `plan_dataset`: network, minutes, memory_gb,
    spatial_dims, features, hu.
    """

    def fill_template_config(self, data_stats_filename: str, algo_path: str, **kwargs: Any) -> dict[str, Any]:
        """Plan a fold's bundle, and write the settings of its training.

        Args:
            data_stats_filename: of the DataAnalyzer.
            algo_path: the algorithm's new folder: gets `dataset/`, `bundle/`, `configs/hyper_parameters.yaml`.
            kwargs: `fold`; Auto3DSeg's others are about its own templates.

        Raises:
            ValueError: a data set with errors, or what cannot be planned.
        """
        root, fold = Path(algo_path).absolute(), int(kwargs.get("fold", 0))
        task, statistics = read_task(Path(self.data_list_file)), ConfigParser.load_config_file(data_stats_filename)
        dataset = write_dataset(task, statistics, fold, root / "dataset")
        plan_dataset(dataset, root / "bundle", **task.get("unetfamily", {}))
        file = root / "configs/hyper_parameters.yaml"
        settings = ConfigParser.load_config_file(file) | {"fold": fold}
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        return {file.name: settings}


def run(config_file: str | Sequence[str], *, log: Callable[[str], None] = print, **override: Any) -> None:
    """Train a fold's bundle, and write its score where Auto3DSeg looks for it, `progress.yaml`.

    A training that was killed goes on from its last whole epoch.

    Args:
        config_file: `configs/hyper_parameters.yaml`.
        log: is given a line for each step.
        override: in place of its settings. `num_epochs`, `minutes`, `device`, `seed`, `cache_dir` and `tracking` are
            known here; Auto3DSeg's others, which are about its own templates, are named and left out.

    Raises:
        ValueError, OSError: what `train` raises.
    """
    if int(os.environ.get("RANK", "0")):  # torchrun, on several GPUs: this training takes one
        return
    for name in sorted(override.keys() - {"num_epochs", *_ASKED}):
        log(f"{name} is nothing that unetfamily's training knows: left out")
    root, settings = directory_of(config_file), ConfigParser.load_config_files(config_file) | override
    how = {key: settings[key] for key in _ASKED if settings.get(key) is not None}
    if resume := _was_killed(root):
        how.pop("seed", None)  # it keeps its own
    train(root / "bundle", root / "dataset", epochs=settings.get("num_epochs"), resume=resume, log=log, **how)
    write_score(root)


def _was_killed(root: Path) -> bool:
    return (root / "bundle/models" / CHECKPOINT).is_file() and not (root / _PROGRESS).is_file()


def write_score(root: Path) -> None:
    """The mean Dice of the classes over the held-out cases, as `BundleAlgo.get_score` reads it."""
    dice = summarize(read_csv(root / "bundle" / SCORES))[-1].dice
    with atomic_file(root / _PROGRESS) as stream:
        stream.write(yaml.safe_dump([{"best_avg_dice_score": float(dice)}]).encode())


def directory_of(config_file: str | Sequence[str]) -> Path:
    """The folder of an algorithm, by the files of its `configs/`."""
    first = config_file if isinstance(config_file, str) else config_file[0]
    return Path(first).absolute().parents[1]


# What Auto3DSeg's ensembles ask of an algorithm: the class probabilities of an image.


class InferClass:
    """A trained fold, as `BundleAlgo.predict` opens it.

    Args:
        config_file: `configs/hyper_parameters.yaml` of the algorithm.
        override: `device`; the ensemble's own parameters change nothing here.
    """

    def __init__(self, config_file: str | Sequence[str], **override: Any) -> None:
        device = override.get("device") or "auto"
        self.bundle = open_bundle(directory_of(config_file) / "bundle", choose_device(device))

    @torch.inference_mode()
    def infer(self, image_file: str | Mapping[str, str]) -> MetaTensor:
        """Probabilities (C, X, Y, Z), background first, on the image's own grid, whose affine goes with them.

        The best class of each voxel is the label that `predict` writes.

        Raises:
            FileNotFoundError, ValueError: the file cannot be segmented; the message names it and says why.
        """
        path = Path(image_file["image"] if isinstance(image_file, Mapping) else image_file)
        studies = find_studies([path]).studies
        if len(studies) != 1:
            raise ValueError(f"{path}: holds {len(studies)} images; one is meant here, name it.")
        image, scores = self._scores(studies[0])
        affine = np.eye(4) if image.grid is None else np.asarray(image.grid.affine, np.float64)
        meta = {"filename_or_obj": str(path)}
        return MetaTensor(torch.from_numpy(scores), affine=torch.from_numpy(affine), meta=meta)

    def _scores(self, study: Study) -> tuple[Image, np.ndarray[Any, np.dtype[np.float32]]]:
        image, case = load_case(self.bundle, study)
        scores = np.zeros((len(self.bundle.names), *case.shape), np.float32)

        def take(where: tuple[slice, ...], channel: int, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
            scores[channel][where] = values

        for _ in segment(self.bundle, case, sink=take):
            pass
        return image, scores
