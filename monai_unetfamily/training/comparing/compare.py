"""One command's work: plan a bundle, train every network on it under one budget, score, time, report.

Everything lies in one folder: `plan/` (the bundle that all share), `cache/` (preprocessed cases), a training each in
`runs/NETWORK/REPEAT/`, `costs.json`, the report. The same call goes on where a killed one stopped.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from math import inf, nan
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from monai_unetfamily.bundles.metadata import WEIGHTS
from monai_unetfamily.bundles.networks import network_definition
from monai_unetfamily.bundles.training_trust import review_training
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.inference.outcomes import FAILURES
from monai_unetfamily.inference.records import hash_files
from monai_unetfamily.training.comparing.costs import peak_bytes, time_in_turns
from monai_unetfamily.training.comparing.entrants import gather
from monai_unetfamily.training.comparing.facts import facts_of
from monai_unetfamily.training.comparing.members import ALL, Candidate, choose_candidates
from monai_unetfamily.training.comparing.report import write_report
from monai_unetfamily.training.comparing.results import Comparison, Run, write_json
from monai_unetfamily.training.comparing.runs import BUNDLE, Recipe, Repeat, is_done, run_one
from monai_unetfamily.training.comparing.variants import Way
from monai_unetfamily.training.planning.planner import plan_dataset
from monai_unetfamily.volumes.cases import image_files, load_cases
from monai_unetfamily.volumes.files import make_folder, remove_parts, require_free
from monai_unetfamily.volumes.splits import count_folds, split_file

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
        networks: of `members.list_candidates`; "all".
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
    make_folder(output)
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
) -> dict[Way, tuple[float, float]]:
    """Seconds and peak bytes of each network and variant, all measured in one go; kept while weights are the same."""
    rooms: dict[str, Path] = {}
    for run in runs:
        if not run.failure:
            rooms.setdefault(run.network, output / "runs" / run.network / run.repeat.replace(" ", "_") / BUNDLE)
    made_of = {name: hash_files([room / "models" / WEIGHTS]) for name, room in rooms.items()} | {"": recipe.device}
    file = output / _COSTS
    if file.is_file() and (kept := json.loads(file.read_text("utf-8")))["made_of"] == made_of:
        return {(name, variant): (float(s), float(peak)) for name, variant, s, peak in kept["costs"]}
    cases, device = load_cases(recipe.dataset, "validation", repeats[0].fold), choose_device(recipe.device)
    log("timing all networks in turn")
    seconds = time_in_turns(rooms, cases, device, log) if rooms else {}
    costs = {way: (spent, _peak(rooms[way[0]], way[1], cases[0], device, log)) for way, spent in seconds.items()}
    write_json({"made_of": made_of, "costs": [[*way, *cost] for way, cost in costs.items()]}, file)
    return costs


def _peak(room: Path, variant: str, case: Mapping[str, Any], device: torch.device, log: Log) -> float:
    try:
        return peak_bytes(room, variant, case, str(device))
    except FAILURES as error:  # of the measuring process, which may have been killed
        log(f"{room}: memory could not be measured: {error}")
        return nan
