"""Measure the levels of a UNet++ and write the bundle of one level."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from textwrap import fill
from time import perf_counter
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch import nn

from monai_unetfamily.bundles import (
    WEIGHTS,
    Bundle,
    copy_bundle,
    image_shape,
    network_definition,
    open_bundle,
    redefine_network,
)
from monai_unetfamily.cohort import predict_cohort
from monai_unetfamily.data import case_study, load_cases
from monai_unetfamily.evaluation import Score, align, evaluate_folders, summarize
from monai_unetfamily.handlers import save_atomically
from monai_unetfamily.io import atomic_directory, atomic_file, make_directory, require_free
from monai_unetfamily.nets import UNetPlusPlus, count_macs
from monai_unetfamily.prediction import Settings, choose_device
from monai_unetfamily.training.training_checks import check_dataset, kept_settings

# What each level of a nested network costs and is worth: parameters, GMAC, time, Dice.


@dataclass(frozen=True)
class Level:
    """A nested network cut at one level.

    Attributes:
        level: nodes X[i, j] with i + j <= level are left.
        parameters: of them and their heads.
        macs: multiply-accumulate operations of one window.
        seconds: that the network takes for the windows of a case, the median of the cases; nan where not measured.
        dice: mean over classes; nan where not measured, and where no case has a class.
        kept: whether it is the one that was chosen.
    """

    level: int
    parameters: int
    macs: int
    seconds: float = nan
    dice: float = nan
    kept: bool = False


def profile_levels(networks: Mapping[int, UNetPlusPlus], window: Sequence[int]) -> list[Level]:
    """Parameters and operations of networks cut at these levels, for a window of so many voxels per axis."""
    return [
        Level(
            level,
            parameters=sum(p.numel() for p in network.parameters()),
            macs=count_macs(deepcopy(network).to("meta"), (1, network.in_channels, *window)),
        )
        for level, network in networks.items()
    ]


def measure_levels(
    bundle: Bundle,
    networks: Mapping[int, UNetPlusPlus],
    levels: Sequence[Level],
    cases: Sequence[Mapping[str, str]],
    names: Mapping[int, str],
    log: Callable[[str], None],
) -> list[Level]:
    """The levels with their time and Dice on cases, each predicted by all levels before the next.

    Raises:
        FileNotFoundError, ValueError: what prediction and evaluation raise.
    """
    seconds: dict[int, list[float]] = {level: [] for level in networks}
    scores: dict[int, list[Score]] = {level: [] for level in networks}
    for number, case in enumerate(cases, start=1):
        for level, network in networks.items():
            with _timed(network) as clock:
                scored = _score(replace(bundle, network=network), case, names)
            seconds[level].append(sum(clock))
            scores[level] += scored
            log(f"{number}/{len(cases)} {scored[0].case}, level {level}: Dice {_mean(scored):.3f}, {sum(clock):.3g} s")
    return [replace(x, seconds=median(seconds[x.level]), dice=_mean(scores[x.level])) for x in levels]


def choose_level(dice: Mapping[int, float], tolerance: float) -> int:
    """The smallest level whose Dice is not below the deepest one's by more than the tolerance.

    Raises:
        ValueError: where the deepest level has none (nan).

    >>> choose_level({1: 0.78, 2: 0.895, 3: 0.9}, tolerance=0.01)
    2
    """
    deepest = dice[max(dice)]
    if isnan(deepest):
        raise ValueError("no validation case has a class: there is no Dice to choose a level by; name one (--level).")
    return min(level for level, value in dice.items() if value >= deepest - tolerance)


def format_levels(levels: Sequence[Level]) -> str:
    """Levels as aligned plain text that is a Markdown table too, with time and Dice where they were measured.

    >>> print(format_levels([Level(1, 100, 2 * 10**9, kept=True), Level(2, 1000, 3 * 10**9)]))
    | level    | parameters | GMAC |
    |----------|-----------:|-----:|
    | 1 (kept) |        100 | 2.00 |
    | 2        |      1,000 | 3.00 |
    """
    measured = not all(isnan(level.seconds) for level in levels)
    header = ["level", "parameters", "GMAC", *(["s a case", "Dice"] if measured else [])]
    return align([header, *(_cells(level, measured) for level in levels)])


def _cells(level: Level, measured: bool) -> list[str]:
    cells = [f"{level.level}{' (kept)' * level.kept}", f"{level.parameters:,}", f"{level.macs / 1e9:.2f}"]
    return [*cells, f"{level.seconds:.3g}", f"{level.dice:.3f}"] if measured else cells


def _score(bundle: Bundle, case: Mapping[str, str], names: Mapping[int, str]) -> list[Score]:
    """Scores of one case, by the steps of the commands predict and evaluate."""
    with TemporaryDirectory() as folder:
        studies = [case_study(case)]
        [case_result] = predict_cohort([bundle], studies, Path(folder), Settings(previews=False))
        if case_result.error is not None:
            raise case_result.error
        [file] = case_result.record.outputs
        return evaluate_folders(Path(folder) / file, Path(case["label"]), names)


def _mean(scores: Sequence[Score]) -> float:
    return summarize(scores)[-1].dice


@contextmanager
def _timed(network: nn.Module) -> Iterator[list[float]]:
    """Yield a list whose sum is the seconds that the network has run."""
    clock: list[float] = []

    def start(*_: object) -> None:
        clock.append(-_now(network))

    def stop(*_: object) -> None:
        clock.append(_now(network))

    hooks = network.register_forward_pre_hook(start), network.register_forward_hook(stop)
    try:
        yield clock
    finally:
        for hook in hooks:
            hook.remove()


def _now(network: nn.Module) -> float:
    """Seconds on the clock once the network's device has done what it was given."""
    device = next(network.parameters()).device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return perf_counter()


# A smaller bundle of a nested network: UNet++ and its relatives cut at a level, which is given or chosen by Dice.
#
# Zhou et al., IEEE TMI 2020 (arXiv 1912.05074), section III-D: under deep supervision each level d of the grid is a
# whole network, the nodes X[i, j] with i + j <= d and head d; what lies beyond may be cut away.

_LOGGER = logging.getLogger(__name__)
_NAMES = {"all": "UNet++", "neighbours": "UNet+", "none": "UNet^e"}

_CARD = """# {name}

The bundle `{source}` with its {network} of {levels} levels cut at level {level}: the nodes X[i, j] with i + j <=
{level} and head {level}, whose scores are bit for bit those of the whole network's head {level}.

{table}

{notes}

What the weights learned from is in the card of `{source}`. Research use, not diagnosis.
"""
_COUNTED = "GMAC: billions of multiply-accumulate operations in one window of {window} voxels."
_MEASURED = (
    "Dice: the mean over classes on the {cases} validation cases of `{dataset}`. Time: of the network alone on the "
    "windows of a case, the median of the cases, each predicted at all levels before the next, on {device}; reading, "
    "resampling and blending cost the same at all levels and are not counted."
)
_CHOSEN = "Kept is the smallest level whose Dice is at most {tolerance:g} below that of level {deepest}."


def prune(
    bundle: Path,
    output: Path,
    *,
    level: int | None = None,
    dataset: Path | None = None,
    tolerance: float = 0.01,
    device: str = "auto",
    trust: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
) -> list[Level]:
    """Write a smaller bundle, whose network is this one's UNet++, UNet+ or UNet^e cut at a level; return all levels.

    Only the network's definition, the weights and the card differ. Heads below the level stay, so that the new bundle
    can be trained on (a copy of it, started from its weights) and cut again.

    Args:
        bundle: the trained bundle's folder.
        output: new folder for the smaller bundle.
        level: from 1 to the network's last. Without it `choose_level` chooses by the Dice on the data set.
        dataset: every level is timed and evaluated on its validation cases, by the steps of `predict` and `evaluate`;
            those that the bundle's training held out, where its logs say which.
        tolerance: mean Dice that may be lost to the last level, from 0 to 1.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        trust: whether the bundle may run code of its own.
        log: is given a line for each case and level.

    Raises:
        FileNotFoundError, FileExistsError: no weights or data set; an output that holds something.
        ValueError: a network that is not nested, or without deep supervision; a level that it lacks; neither level nor
            data set; a data set that does not fit the bundle; a bundle with code of its own that is not trusted.
    """
    _check_request(output, level, dataset, tolerance)
    opened = open_bundle(bundle, choose_device(device), trust=trust)
    networks, definition = _cut(opened, level), network_definition(bundle)
    window = _window(opened, axes=len(networks[1].strides[0]))
    levels, notes = profile_levels(networks, window), [_COUNTED.format(window=" x ".join(map(str, window)))]
    with atomic_directory(output) as directory:
        if dataset:
            fold = kept_settings(bundle / "logs").get("fold")
            names = check_dataset(bundle, dataset, log, ["validation"], fold)
            cases = load_cases(dataset, "validation", fold)
            levels = measure_levels(opened, networks, levels, cases, names, log)
            notes.append(_MEASURED.format(cases=len(cases), dataset=dataset.absolute().name, device=opened.device))
        if level is None:
            level = choose_level({each.level: each.dice for each in levels}, tolerance)
            notes.append(_CHOSEN.format(tolerance=tolerance, deepest=len(levels)))
        levels = [replace(each, kept=each.level == level) for each in levels]
        _write_bundle(directory, bundle, networks[level], definition, trust=trust)
        _write_card(directory, output.name, bundle.absolute().name, networks[level], levels, notes)
    return levels


def _check_request(output: Path, level: int | None, dataset: Path | None, tolerance: float) -> None:
    if level is None and dataset is None:
        raise ValueError("a level is chosen on the validation cases of a data set: name one (--dataset), or the level.")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is {tolerance}; a difference of Dice, from 0 to 1, is allowed.")
    require_free(output)


def _cut(bundle: Bundle, level: int | None) -> dict[int, UNetPlusPlus]:
    """The bundle's network at each of its levels, all on its device."""
    network = bundle.network
    if not isinstance(network, UNetPlusPlus):
        raise ValueError(
            f"{bundle.root}: its network is {type(network).__name__}; only the nested ones have levels to cut at: "
            f"{', '.join(_NAMES.values())}."
        )
    if not network.deep_supervision:
        raise ValueError(
            f"{bundle.root}: its network was trained without deep supervision, so that it has no heads at the levels "
            "below its last; train it with deep_supervision: true in metadata.json."
        )
    if level is not None and not 1 <= level <= network.levels:
        raise ValueError(f"level is {level}; {bundle.root} has levels 1 to {network.levels}: choose one of them.")
    return {d: network.pruned(d, inner_heads=True) for d in range(1, network.levels + 1)}


def _window(bundle: Bundle, axes: int) -> tuple[int, ...]:
    """Voxels of the window that slides, or of the image that the metadata states where none does."""
    window = ensure_tuple_rep(getattr(bundle.inferer, "roi_size", 0), axes)
    return window if min(window) > 0 else image_shape(bundle.root)


def _write_bundle(
    directory: Path, source: Path, network: UNetPlusPlus, definition: Mapping[str, Any], *, trust: bool
) -> None:
    """The source with this network in place of its own; strides or kernels that all stages share stay as they are."""
    copy_bundle(source, directory)
    stages = {"strides": network.strides, "kernel_size": network.kernel_size}
    changed = {key: value for key, value in stages.items() if not isinstance(definition.get(key, 0), int)}
    redefine_network(directory, {"features": network.features, **changed, "mode": "fast"}, trust=trust)
    make_directory(directory / "models")
    save_atomically(network.state_dict(), directory / "models" / WEIGHTS)


def _write_card(
    directory: Path, name: str, source: str, network: UNetPlusPlus, levels: Sequence[Level], notes: Sequence[str]
) -> None:
    card = _CARD.format(
        name=name,
        source=source,
        network=_NAMES[network.joined],
        level=network.levels,
        levels=len(levels),
        table=format_levels(levels),
        notes=fill(" ".join(notes), width=120),
    )
    with atomic_file(directory / "docs" / "README.md") as stream:
        stream.write(card.encode())
