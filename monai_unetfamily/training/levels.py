"""What each level of a nested network costs and is worth: parameters, GMAC, time, Dice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import nn

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.evaluation import Score, evaluate_folders, summarize
from monai_unetfamily.evaluation.tables import align
from monai_unetfamily.inference.batch import predict_cohort
from monai_unetfamily.inference.settings import Settings
from monai_unetfamily.nets import UNetPlusPlus
from monai_unetfamily.nets.profiling import count_macs
from monai_unetfamily.volumes.studies import case_study


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
        [outcome] = predict_cohort([bundle], studies, Path(folder), Settings(previews=False))
        if outcome.error is not None:
            raise outcome.error
        [file] = outcome.record.outputs
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
