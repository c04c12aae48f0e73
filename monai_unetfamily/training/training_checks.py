"""Verify a request to train, and record the split and seed that a resumed training needs."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_unetfamily.bundles import (
    INSTALLED,
    check_network,
    check_source,
    config_file,
    find_weights,
    label_names,
    read_config,
    read_object,
    require_inside,
    weights_file,
)
from monai_unetfamily.bundles.trust import UntrustedBundleError, review_training
from monai_unetfamily.data import IGNORE, Fold, Section, check_labels, image_files, load_cases, read_label_names
from monai_unetfamily.handlers import CHECKPOINT
from monai_unetfamily.io import atomic_file, make_directory, require_free, stem

# Which cases a training learned from, and by which seed: `logs/split.json`, which a resumed run goes by.


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
    make_directory(logs)
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


# Validate a request to train before any time is spent on it.


def check_request(
    bundle: Path,
    output: Path | None,
    network: str | None,
    minutes: float | None,
    epochs: int | None,
    fold: Fold,
    seed: int | None,
    resume: bool,
    init_from: Path | None,
    *,
    trust: bool,
) -> None:
    """Refuse a request that would lose something, or that lacks something.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: names the file or the option, and what to do.
    """
    weights, checkpoint = weights_file(bundle), bundle / "models" / CHECKPOINT
    if minutes is not None and not 0 < minutes < inf:
        raise ValueError(f"minutes is {minutes}; more than 0 is needed.")
    if epochs is not None and (epochs < 1 or minutes is not None):
        raise ValueError(f"epochs is {epochs}; 1 or more is needed, and no minutes beside it.")
    if resume and (output or network or init_from or fold is not None or seed is not None):
        raise ValueError(
            "a resumed run keeps its folder, network, weights, fold and seed: resume the trained bundle itself."
        )
    if resume and not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: nothing to resume from; train without resuming.")
    if not (resume or output) and weights.exists():
        raise FileExistsError(
            f"{weights}: training would replace these weights; resume it (--resume), or train a copy (-o)."
        )
    if not output and bundle.is_relative_to(INSTALLED):
        raise ValueError(f"{bundle.name}: ships with the installed package, which stays as it is; train a copy (-o).")
    if network:
        check_network(bundle, network, trust=trust)
    if init_from:
        find_weights(init_from)
    if output:
        require_free(output)


def check_settings(bundle: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle's train config, which must have a key for each setting that is given: another would change nothing.

    Raises:
        FileNotFoundError: no train config.
        ValueError: names the key.
    """
    file, config = config_file(bundle, "train"), read_config(bundle, "train")
    missing = [key for key in settings if key not in config]
    if missing:
        raise ValueError(
            f"{file}: has no key {missing[0]!r}, so that it cannot be set; write the config as the shipped bundles do, "
            "or train without it."
        )
    return config


def check_trust(bundle: Path, settings: Mapping[str, Any], log: Callable[[str], None], *, trust: bool) -> None:
    """Refuse a bundle whose training would run or touch what is not on the list, or log what, if it is trusted.

    Raises:
        UntrustedBundleError: names all of it; nothing was run.
        ValueError: a link in the bundle leads out of it.
    """
    require_inside(bundle)
    found = review_training(bundle, settings)
    if found and not trust:
        raise UntrustedBundleError(bundle, found)
    for finding in found:
        log(f"{bundle.name} is trusted to run {finding.what} ({finding.where})")


def names_in(bundle: Path, dataset: Path) -> dict[int, str]:
    """Label id -> name in a data set's label maps: the bundle's classes, and "ignore" where the data set has it."""
    table = read_label_names(dataset)
    return {label: name for label, name in label_names(bundle).items() if label in table or name != IGNORE}


def check_dataset(
    bundle: Path,
    dataset: Path,
    log: Callable[[str], None],
    sections: Sequence[Section] = ("training", "validation"),
    fold: Fold = None,
) -> dict[int, str]:
    """Refuse labels that do not fit their images or the bundle's classes, before any time is spent.

    Returns the names of the labels, id -> name, as the data set and the bundle have them.

    Raises:
        FileNotFoundError, ValueError: names the file, and what to do.
    """
    names = label_names(bundle)
    table = read_label_names(dataset)
    known = {0: "background"} | names
    other = {label: name for label, name in table.items() if known.get(label, "").casefold() != name.casefold()}
    if other:
        raise ValueError(
            f"{dataset}: has labels {other} where this bundle has {names}; choose another bundle, or rename."
        )
    cases = {section: load_cases(dataset, section, fold) for section in sections}
    listed = names_in(bundle, dataset)
    if not table:
        log(f"{dataset} names no labels; they are taken for the bundle's: {listed}")
    log(f"checking {' and '.join(f'{len(c)} {section}' for section, c in cases.items())} cases of {dataset}")
    for case in chain.from_iterable(cases.values()):
        check_source(bundle, image_files(case))
        check_labels(case, listed)
    return listed
