"""One training of one network in a folder of its own, resumable at any moment, and what is scored of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

from monai_unetfamily.bundles import Bundle, copy_bundle, define_network, open_bundle
from monai_unetfamily.cohort import FAILURES
from monai_unetfamily.comparison.candidates import Candidate
from monai_unetfamily.comparison.prediction_cost import size_of, variants
from monai_unetfamily.comparison.study_results import Point, Run, read_run, write_run
from monai_unetfamily.data import load_cases
from monai_unetfamily.evaluation import Score, read_csv
from monai_unetfamily.handlers import CHECKPOINT
from monai_unetfamily.prediction import Settings, choose_device
from monai_unetfamily.training import SCORES, names_in, read_history, score_cases, train

BUNDLE = "bundle"

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
    directory = folder / BUNDLE
    if (directory / SCORES).is_file():
        return directory
    resume = (directory / "models" / CHECKPOINT).is_file()
    if not resume:
        _make_room(candidate, recipe, folder)
    train(
        directory,
        recipe.dataset,
        minutes=recipe.minutes,
        fold=None if resume else repeat.fold,  # a resumed one keeps both
        seed=None if resume else repeat.seed,
        resume=resume,
        cache_dir=recipe.cache,
        device=recipe.device,
        log=log,
    )
    return directory


def _make_room(candidate: Candidate, recipe: Recipe, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    copy_bundle(recipe.bundle, folder / BUNDLE)
    define_network(folder / BUNDLE, candidate.name, candidate.definition)


def _score(candidate: Candidate, repeat: Repeat, recipe: Recipe, directory: Path, folder: Path, log: Log) -> Run:
    opened, epochs = (
        open_bundle(directory, choose_device(recipe.device)),
        read_history(directory / "logs" / "history.csv"),
    )
    ways = variants(opened)
    return Run(
        candidate.name,
        repeat.name,
        minutes=epochs[-1].seconds / 60,
        epochs=len(epochs),
        samples_per_second=median(epoch.rate for epoch in epochs),
        curve=tuple(Point(e.seconds / 60, e.loss, nan if e.dice is None else e.dice) for e in epochs),
        scores={
            variant: _variant_scores(opened, settings, repeat, recipe, folder / "predictions" / variant, log)
            if variant
            else tuple(read_csv(directory / SCORES))
            for variant, settings in ways.items()
        },
        sizes={variant: size_of(opened, settings) for variant, settings in ways.items()},
    )


def _variant_scores(
    bundle: Bundle, settings: Settings, repeat: Repeat, recipe: Recipe, folder: Path, log: Log
) -> tuple[Score, ...]:
    cases = load_cases(recipe.dataset, "validation", repeat.fold)
    log(f"{folder.name}: predicting and evaluating the {len(cases)} validation cases")
    return tuple(score_cases(bundle, cases, names_in(bundle.root, recipe.dataset), folder, settings))
