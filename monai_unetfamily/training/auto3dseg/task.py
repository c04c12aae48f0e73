"""What Auto3DSeg's task file and list of cases say, as a data set that the planner and the training read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.auto3dseg import datafold_read
from monai.bundle import ConfigParser

from monai_unetfamily.volumes.files import make_folder
from monai_unetfamily.volumes.sources import stem

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
    make_folder(folder)
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
