"""Which cases a training learned from, and by which seed: `logs/split.json`, which a resumed run goes by."""

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_unetfamily.bundles.reading import read_object
from monai_unetfamily.volumes.cases import load_cases
from monai_unetfamily.volumes.files import atomic_file, make_folder
from monai_unetfamily.volumes.sources import stem

SPLIT = "split.json"
_KEPT = ("fold", "seed")  # keys of the train config


def record_split(logs: Path, config: ConfigParser, *, resume: bool) -> None:
    """Write fold, seed, and the names of the cases of a parsed train config.

    Raises:
        ValueError: a resumed run whose data set has other training cases now.
    """
    kept, dataset = {key: config.get(key) for key in _KEPT}, config.get("dataset_dir")
    names = {
        section: [stem(Path(case["label"])) for case in load_cases(dataset, section, kept["fold"])]
        for section in ("training", "validation")
    }
    before = read_split(logs)
    if resume and before and before["training"] != names["training"]:
        changed = set(before["training"]) ^ set(names["training"])
        raise ValueError(
            f"{logs / SPLIT}: this training learned from other cases than {dataset} has now ({min(changed)!r} first); "
            "bring the data set back, or start a new training from its weights."
        )
    make_folder(logs)
    with atomic_file(logs / SPLIT) as stream:
        stream.write(f"{json.dumps(kept | names, indent=1)}\n".encode())


def kept_settings(logs: Path) -> dict[str, Any]:
    """Fold and seed of the training that left these logs.

    Raises:
        ValueError: something else stands there for one of them: as a setting, a text could be an expression.
    """
    kept = {key: value for key, value in read_split(logs).items() if key in _KEPT}
    if wrong := [value for value in kept.values() if not (value is None or value == "all" or type(value) is int)]:
        raise ValueError(f"{logs / SPLIT}: holds {wrong[0]!r} for fold or seed; numbers are allowed: train anew.")
    return kept


def read_split(logs: Path) -> dict[str, Any]:
    """What `record_split` wrote; empty where nothing is."""
    file = logs / SPLIT
    return read_object(logs.parent, file) if file.is_file() else {}
