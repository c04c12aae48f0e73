"""The algorithm that Auto3DSeg's BundleGen makes one of for each fold, and the training that it starts."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.apps.auto3dseg import BundleAlgo
from monai.bundle import ConfigParser

from monai_unetfamily.bundles.checkpoint import CHECKPOINT
from monai_unetfamily.evaluation import read_csv, summarize
from monai_unetfamily.training.auto3dseg.task import read_task, write_dataset
from monai_unetfamily.training.planning.planner import plan_dataset
from monai_unetfamily.training.run import train
from monai_unetfamily.training.validation import SCORES
from monai_unetfamily.volumes.files import atomic_file

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
    root, settings = folder_of(config_file), ConfigParser.load_config_files(config_file) | override
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


def folder_of(config_file: str | Sequence[str]) -> Path:
    """The folder of an algorithm, by the files of its `configs/`."""
    first = config_file if isinstance(config_file, str) else config_file[0]
    return Path(first).absolute().parents[1]
