"""Compare networks on one data set under one budget: train, score, time, report."""

import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from math import inf, nan
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

import torch

from monai_unetfamily.bundles import WEIGHTS, network_definition, read_config
from monai_unetfamily.bundles.trust import review_training
from monai_unetfamily.cohort import FAILURES
from monai_unetfamily.comparison.candidates import ALL, Candidate, choose_candidates
from monai_unetfamily.comparison.prediction_cost import PredictionVariant, peak_bytes, time_interleaved
from monai_unetfamily.comparison.study_report import write_report
from monai_unetfamily.comparison.study_results import Comparison, Cost, NetworkResult, Run, write_json
from monai_unetfamily.comparison.study_runs import BUNDLE, Recipe, Repeat, is_done, run_one
from monai_unetfamily.data import count_folds, image_files, load_cases, split_file
from monai_unetfamily.io import hash_files, make_directory, remove_parts, require_free
from monai_unetfamily.planning import plan_dataset
from monai_unetfamily.prediction import choose_device

# What was equal for all networks of a comparison, and the machine: words for its report.


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


# From the trainings of each network to the rows of a comparison.


def gather(
    candidates: Sequence[Candidate], runs: Sequence[Run], costs: Mapping[PredictionVariant, tuple[float, float]]
) -> Iterator[NetworkResult]:
    """Each candidate with its variants, from all its trainings that did not fail; none where all failed.

    Args:
        candidates: in the order of the rows.
        runs: of all of them.
        costs: network and variant -> seconds and peak bytes, as far as they were measured.
    """
    for candidate in candidates:
        done = [run for run in runs if run.network == candidate.name and not run.failure]
        for variant in done[0].scores if done else ():
            seconds, peak = costs.get((candidate.name, variant), (float("nan"),) * 2)
            yield NetworkResult(
                f"{candidate.name} {variant}".strip(),
                "variant" if variant else candidate.kind,
                tuple(score for run in done for score in run.scores[variant]),
                Cost(*done[0].sizes[variant], seconds, peak),
                tuple(run.repeat for run in done),
                () if variant else tuple(run.curve for run in done),
                (min(run.minutes for run in done), max(run.minutes for run in done)),
                (min(run.epochs for run in done), max(run.epochs for run in done)),
                fmean(run.samples_per_second for run in done),
            )


# One command's work: plan a bundle, train every network on it under one budget, score, time, report.
#
# Everything lies in one folder: `plan/` (the bundle that all share), `cache/` (preprocessed cases), a training each in
# `runs/NETWORK/REPEAT/`, `costs.json`, the report. The same call goes on where a killed one stopped.

_LOGGER = logging.getLogger(__name__)
_REQUEST = "request.json"
_COSTS = "costs.json"
_LARGEST = "unet3plus"  # of the family: what it has room for, all have

Log = Callable[[str], None]


def compare(
    dataset: Path,
    output: Path,
    *,
    networks: Sequence[str] = (ALL,),
    minutes_each: float,
    folds: int | None = None,
    seeds: int = 1,
    spatial_dims: int | None = None,
    memory_gb: float | None = None,
    features: Sequence[int] | None = None,
    bundle: Path | None = None,
    device: str = "auto",
    log: Callable[[str], None] = _LOGGER.info,
) -> Comparison:
    """Compare networks on a data set under one recipe and one budget; the paragraph of advice is logged last.

    A finished training is not repeated, a half-done one is gone on with, one that failed is recorded and tried again by
    the next call. Networks, seeds and folds may be added by later calls; nothing else may change, nor the
    data set's cases and split.

    Args:
        dataset: folder that `load_cases` reads.
        output: folder for everything; a new or empty one, or that of the same comparison.
        networks: of `candidates.list_candidates`; "all".
        minutes_each: of training, for each.
        folds: train each on the first so many folds.
        seeds: where there are no folds: train each so many times.
        spatial_dims, memory_gb, features: as the planner takes them.
        bundle: compare by this one's recipe, in place of a planned one.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        log: is given a line for each step.

    Raises:
        FileExistsError: the folder holds something else.
        FileNotFoundError, ValueError: a data set, a bundle or a request that cannot be used; nothing was trained.
        OSError: the folder cannot be written.
    """
    repeats = _repeats(dataset, minutes_each, folds, seeds)
    planning: dict[str, Any] = {
        "spatial_dims": spatial_dims,
        "memory_gb": memory_gb,
        "features": features and list(features),
    }
    if bundle is not None and any(planning.values()):
        raise ValueError(f"{bundle}: is planned already; leave out spatial_dims, memory and features, or the bundle.")
    choose_device(device)  # or say that there is none, before anything is written
    request: dict[str, Any] = {
        "dataset": str(dataset.absolute()),
        "minutes_each": minutes_each,
        **planning,
        "bundle": str(bundle.absolute()) if bundle else None,
        "by": "folds" if folds else "seeds",
    }
    make_directory(output)
    if not _is_known(request, output / _REQUEST):
        remove_parts(output / "plan")
        require_free(output)
    plan = bundle or output / "plan"
    _require_known(plan, dataset)
    if bundle is None and not plan.is_dir():
        plan_dataset(dataset, plan, network=_LARGEST, minutes=minutes_each, device=device, log=log, **planning)
    base = network_definition(plan)
    request |= {"cases": _cases(dataset)}
    _is_known(request, output / _REQUEST)
    if bundle is None:
        write_json(request, output / _REQUEST)  # it says that the plan is this comparison's, whatever comes
    candidates = choose_candidates(base, networks)
    write_json(request, output / _REQUEST)
    recipe = Recipe(plan, dataset, minutes_each, output / "cache", device)
    comparison = _compared(candidates, repeats, recipe, output, log)
    advice = write_report(comparison, output)
    log(f"report in {output / 'compare.html'}\n{advice}")
    return comparison


def _compared(
    candidates: Sequence[Candidate], repeats: Sequence[Repeat], recipe: Recipe, output: Path, log: Log
) -> Comparison:
    """Train, score and time all of them."""
    runs = _run_all(candidates, repeats, recipe, output / "runs", log)
    costs = _costs(runs, repeats, recipe, output, log)
    return Comparison(
        recipe.dataset.absolute().name,
        recipe.minutes,
        "seeds" if repeats[0].fold is None else "folds",
        tuple(gather(candidates, runs, costs)),
        tuple((run.network, run.repeat, run.failure) for run in runs if run.failure),
        {candidate.name: candidate.difference for candidate in candidates if candidate.difference},
        facts_of(recipe, [repeat.name for repeat in repeats], repeats[0].fold, choose_device(recipe.device)),
    )


def _repeats(dataset: Path, minutes: float, folds: int | None, seeds: int) -> list[Repeat]:
    """Each network's trainings.

    Raises:
        ValueError: minutes, folds or seeds that cannot be.
    """
    if not 0 < minutes < inf:
        raise ValueError(f"minutes_each is {minutes:g}; more than 0 is needed.")
    if folds is not None and seeds != 1:
        raise ValueError(f"got {folds} folds and {seeds} seeds; one of the two is allowed, leave the other out.")
    there = count_folds(dataset, len(load_cases(dataset, fold="all")))
    if folds is not None and not 1 <= folds <= there:
        raise ValueError(f"folds is {folds}; {dataset} allows 1 to {there}.")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; 1 or more is allowed.")
    if folds is not None:
        return [Repeat(f"fold {fold}", fold, 0) for fold in range(folds)]
    return [Repeat(f"seed {seed}", None, seed) for seed in range(seeds)]


def _cases(dataset: Path) -> str:
    """How many cases, and a hash of their files' names and sizes, and of the split."""
    cases = load_cases(dataset, fold="all")
    files = [file for case in cases for file in (*image_files(case), Path(case["label"]))]
    split = split_file(dataset)
    stated = [[(file.name, file.stat().st_size) for file in files], split.read_text("utf-8") if split else ""]
    return f"{len(cases)} ({sha256(json.dumps(stated).encode()).hexdigest()[:8]})"


def _require_known(plan: Path, dataset: Path) -> None:
    """Refuse a bundle whose trainings would run code of its own, before any of them is begun.

    Raises:
        ValueError: names it all.
    """
    if plan.is_dir() and (found := review_training(plan, {"dataset_dir": str(dataset.absolute())})):
        raise ValueError(
            f"{plan}: compare takes no bundle that would run what is no known part of MONAI or of this package: "
            f"{'; '.join(map(str, found))}. Leave it out, or train it by itself (unetfamily train --trust)."
        )


def _is_known(request: Mapping[str, Any], file: Path) -> bool:
    """Whether an earlier call was asked for the same.

    Raises:
        ValueError: it was asked for something else.
    """
    if not file.is_file():
        return False
    before = json.loads(file.read_text("utf-8"))
    if changed := [key for key in request if key in before and before[key] != request[key]]:
        key = changed[0]
        raise ValueError(
            f"{file.parent}: holds a comparison with {key} {before[key]}, not {request[key]}; give what it was "
            "made with, or another output folder."
        )
    return True


def _run_all(
    candidates: Sequence[Candidate], repeats: Sequence[Repeat], recipe: Recipe, folder: Path, log: Log
) -> list[Run]:
    """All networks' first trainings, then the second ones: a comparison cut short is one of equals."""
    places = {
        (repeat, candidate.name): folder / candidate.name / repeat.name.replace(" ", "_")
        for repeat in repeats
        for candidate in candidates
    }
    waiting = [key for key, place in places.items() if not is_done(place)]
    log(f"{len(places)} trainings of {recipe.minutes:g} minutes, of which {len(places) - len(waiting)} are done")
    named, runs, start = {candidate.name: candidate for candidate in candidates}, [], monotonic()
    for (repeat, name), place in places.items():
        if (repeat, name) in waiting:
            done, spent = waiting.index((repeat, name)), monotonic() - start
            log(_progress(done, len(waiting), spent, recipe.minutes, f"{name}, {repeat.name}"))
        runs.append(run_one(named[name], repeat, recipe, place, log))
    return runs


def _progress(done: int, total: int, seconds: float, minutes: float, name: str) -> str:
    """A line with the time left, as long as those that are done took; the budget, before one is.

    >>> _progress(1, 4, 1500.0, 20.0, "unet, seed 0")
    '2 of 4: unet, seed 0; about 1 h 15 min left'
    """
    each = seconds / done if done else 60 * minutes
    hours, left = divmod(round(each * (total - done) / 60), 60)
    return f"{done + 1} of {total}: {name}; about {f'{hours} h ' * (hours > 0)}{left} min left"


def _costs(
    runs: Sequence[Run], repeats: Sequence[Repeat], recipe: Recipe, output: Path, log: Log
) -> dict[PredictionVariant, tuple[float, float]]:
    """Seconds and peak bytes of each network and variant, all measured in one go; kept while weights are the same."""
    directories: dict[str, Path] = {}
    for run in runs:
        if not run.failure:
            directories.setdefault(run.network, output / "runs" / run.network / run.repeat.replace(" ", "_") / BUNDLE)
    made_of = {name: hash_files([directory / "models" / WEIGHTS]) for name, directory in directories.items()} | {
        "": recipe.device
    }
    file = output / _COSTS
    if file.is_file() and (kept := json.loads(file.read_text("utf-8")))["made_of"] == made_of:
        return {(name, variant): (float(s), float(peak)) for name, variant, s, peak in kept["costs"]}
    cases, device = load_cases(recipe.dataset, "validation", repeats[0].fold), choose_device(recipe.device)
    log("timing all networks in turn")
    seconds = time_interleaved(directories, cases, device, log) if directories else {}
    costs = {way: (spent, _peak(directories[way[0]], way[1], cases[0], device, log)) for way, spent in seconds.items()}
    write_json({"made_of": made_of, "costs": [[*way, *cost] for way, cost in costs.items()]}, file)
    return costs


def _peak(directory: Path, variant: str, case: Mapping[str, Any], device: torch.device, log: Log) -> float:
    try:
        return peak_bytes(directory, variant, case, str(device))
    except FAILURES as error:  # of the measuring process, which may have been killed
        log(f"{directory}: memory could not be measured: {error}")
        return nan
