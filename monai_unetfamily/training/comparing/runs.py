"""One training of one network in a folder of its own, resumable at any moment, and what is scored of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

from monai_unetfamily.bundles.bundle import Bundle, copy_bundle, label_names, open_bundle
from monai_unetfamily.bundles.checkpoint import CHECKPOINT
from monai_unetfamily.bundles.networks import define_network
from monai_unetfamily.bundles.references import read_config
from monai_unetfamily.evaluation import Score, evaluate_folders, read_csv
from monai_unetfamily.inference.batch import FAILURES, predict_cohort
from monai_unetfamily.inference.choices import choices
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.inference.settings import Settings
from monai_unetfamily.training.budget import is_over
from monai_unetfamily.training.calibration import calibrate_on
from monai_unetfamily.training.comparing.costs import size_of
from monai_unetfamily.training.comparing.members import Candidate
from monai_unetfamily.training.comparing.results import Point, Run, read_run, write_json, write_run
from monai_unetfamily.training.comparing.variants import variants
from monai_unetfamily.training.history import read_history
from monai_unetfamily.training.run import train
from monai_unetfamily.volumes.cases import IGNORE, load_cases, read_label_names
from monai_unetfamily.volumes.studies import case_study

BUNDLE = "bundle"
_TRAINED = "trained.json"  # written once training is whole

Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What all trainings share: a bundle without weights, the data set, minutes, the cache of its cases, the device."""

    bundle: Path
    dataset: Path
    minutes: float
    cache: Path
    device: str


class Repeat(NamedTuple):
    """One of a network's trainings: its name, the fold that is held out, and the seed."""

    name: str
    fold: int | None
    seed: int


def is_done(folder: Path) -> bool:
    """Whether a training is scored and did not fail."""
    run = read_run(folder)
    return run is not None and not run.failure


def run_one(candidate: Candidate, repeat: Repeat, recipe: Recipe, folder: Path, log: Log) -> Run:
    """Train, predict and score one network, or read what was done before; a failure is a result too, and tried again.

    Args:
        candidate: the network.
        repeat: which of its trainings.
        recipe: what all share.
        folder: of this training; holds its bundle, predictions and `result.json`.
        log: is given a line for each step.

    Raises:
        ValueError: a `result.json` that is none.
        OSError: the folder cannot be written.
    """
    before = read_run(folder)
    if before is not None and not before.failure:
        return before
    try:
        run = _score(candidate, repeat, recipe, _trained(candidate, repeat, recipe, folder, log), folder, log)
    except FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log(f"{candidate.name}, {repeat.name} failed: {reason}")
        run = Run(candidate.name, repeat.name, failure=reason)
    write_run(run, folder)
    return run


def _trained(candidate: Candidate, repeat: Repeat, recipe: Recipe, folder: Path, log: Log) -> Path:
    """The trained bundle; what a killed process left is gone on with, from its last whole epoch."""
    room = folder / BUNDLE
    if (folder / _TRAINED).is_file():
        return room
    resume = (room / "models" / CHECKPOINT).is_file()
    if resume and _is_over(room, recipe.minutes):
        _set_thresholds(room, repeat, recipe, log)
    else:
        if not resume:
            _make_room(candidate, recipe, folder)
        train(
            room,
            recipe.dataset,
            minutes=recipe.minutes,
            fold=None if resume else repeat.fold,  # a resumed one keeps both
            seed=None if resume else repeat.seed,
            resume=resume,
            cache_dir=recipe.cache,
            device=recipe.device,
            log=log,
        )
    write_json({"minutes": recipe.minutes}, folder / _TRAINED)
    return room


def _make_room(candidate: Candidate, recipe: Recipe, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    copy_bundle(recipe.bundle, folder / BUNDLE)
    define_network(folder / BUNDLE, candidate.name, candidate.definition)


def _is_over(room: Path, minutes: float) -> bool:
    """Whether a training that was killed had come to the end of its time, and lacks only what comes after."""
    epochs = read_history(room / "logs" / "history.csv")
    return bool(epochs) and is_over(epochs, epochs[-1].seconds, 60 * minutes)


def _set_thresholds(room: Path, repeat: Repeat, recipe: Recipe, log: Log) -> None:
    """Those of a guided network, on the cases that training watched, as training does it in the end."""
    if choices(open_bundle(room, choose_device(recipe.device))).presence:
        watched = load_cases(recipe.dataset, "validation", repeat.fold)[: read_config(room, "train")["val_cases"]]
        calibrate_on(room, watched, choose_device(recipe.device), trust=True, log=log)


def _score(candidate: Candidate, repeat: Repeat, recipe: Recipe, room: Path, folder: Path, log: Log) -> Run:
    opened = open_bundle(room, choose_device(recipe.device))
    ways, told = variants(opened), room / "eval" / "scores.csv"  # training ends with the first
    scores = {
        variant: tuple(read_csv(told))
        if told.is_file() and not variant
        else _predicted(opened, settings, repeat, recipe.dataset, folder / "predictions" / (variant or "whole"), log)
        for variant, settings in ways.items()
    }
    epochs = read_history(room / "logs" / "history.csv")
    return Run(
        candidate.name,
        repeat.name,
        minutes=epochs[-1].seconds / 60,
        epochs=len(epochs),
        samples_per_second=median(epoch.rate for epoch in epochs),
        curve=tuple(Point(e.seconds / 60, e.loss, nan if e.dice is None else e.dice) for e in epochs),
        scores=scores,
        sizes={variant: size_of(opened, settings) for variant, settings in ways.items()},
    )


def _predicted(
    bundle: Bundle, settings: Settings, repeat: Repeat, dataset: Path, folder: Path, log: Log
) -> tuple[Score, ...]:
    """Scores of the cases that were held out, by the steps of the commands predict and evaluate."""
    cases = load_cases(dataset, "validation", repeat.fold)
    names, table = label_names(bundle.root), read_label_names(dataset)
    listed = {label: name for label, name in names.items() if label in table or name != IGNORE}
    scores: list[Score] = []
    outcomes = predict_cohort([bundle], [case_study(case) for case in cases], folder, settings)
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.error is not None:
            raise outcome.error
        [file] = outcome.record.outputs
        scores += evaluate_folders(folder / file, Path(case["label"]), listed)
    log(f"{folder.name}: {len(cases)} cases predicted and scored")
    return tuple(scores)
