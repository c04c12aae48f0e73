"""Comparisons made up from a seed: scores of networks that are as good, fast and guided as is asked for."""

from collections.abc import Mapping, Sequence
from math import inf, nan
from typing import Any

import numpy as np

from monai_unetfamily.comparison.candidates import list_candidates
from monai_unetfamily.comparison.study_results import Comparison, Cost, Kind, NetworkResult, Point
from monai_unetfamily.evaluation import Score

BASE = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [8, 16, 32, 64, 128]}
FAMILY = {candidate.name: candidate.kind for candidate in list_candidates(BASE)}
LOST = {"fcn32s": 0.12, "fcn16s": 0.06, "fcn8s": 0.03, "unet_l1": 0.09, "unet_l2": 0.02, "SegResNet": 0.004}
SECONDS = {"unet": 0.40, "unet_l1": 0.21, "unet_l2": 0.31, "unetplusplus": 0.95, "unet3plus": 1.2, "SegResNet": 0.5}
FALSE = {"unet3plus_cgm": 0.1, "unet3plus_cgm ungated": 9.0}  # ml, where a class is absent


def scores(
    classes: Sequence[str], cases: int, lost: float = 0.0, *, seed: int = 0, absent: float = 0.0, false: float = 4.0
) -> tuple[Score, ...]:
    """A network that loses so much Dice on cases as hard for every other one; classes are absent from a share."""
    hard = np.random.default_rng(0)
    own = np.random.default_rng(seed)
    rows = []
    for number in range(cases):
        difficulty = hard.beta(2, 8) / 4
        for label in classes:
            gone = hard.random() < absent
            dice = float(np.clip(0.95 - difficulty - lost + own.normal(0, 0.012), 0, 1))
            found = float(max(0.0, own.normal(false, 3.0))) if gone else 100.0 * dice
            missed = (0.0, inf, 0.0) if found else (nan, nan, nan)
            measures = missed if gone else (dice, 10 * (1 - dice) + 0.5, dice)
            rows.append(Score(f"case_{number:02}", label, *measures, found, 0.0 if gone else 100.0, 0.0))
    return tuple(rows)


def network_result(
    name: str, kind: Kind = "family", *, lost: float = 0.0, seconds: float = 1.0, **made: Any
) -> NetworkResult:
    """One with seed 0, one class and ten cases, unless more is said."""
    made = {"classes": ["liver"], "cases": 10} | made
    seed = sum(map(ord, name))
    curve = tuple(Point(m, 1.2 / (m + 1), (0.93 - lost) * (1 - np.exp(-m / 2)) if m % 2 else nan) for m in range(20))
    cost = Cost(round(1.4e6 * seconds), round(2e10 * seconds), seconds, 2e8 * seconds)
    rows = scores(lost=lost, seed=seed, **made)
    return NetworkResult(name, kind, rows, cost, ("seed 0",), (curve,), (4.8, 4.9), (20, 20), 12 / seconds)


def family(classes: Sequence[str] = ("anterior", "posterior"), cases: int = 52, absent: float = 0.0) -> Comparison:
    """All that are compared, with the variants that share weights, and one that failed."""
    made: dict[str, Any] = {"classes": classes, "cases": cases, "absent": absent}
    network_results = [
        network_result(name, kind, lost=LOST.get(name, 0.008), seconds=SECONDS.get(name, _seconds(name)), **made)
        for name, kind in FAMILY.items()
    ]
    cuts = zip((1, 2, 3), (0.05, 0.015, 0.009), (0.25, 0.45, 0.7), strict=True)
    network_results += [
        network_result(f"unetplusplus L{d}", "variant", lost=lost, seconds=s, **made) for d, lost, s in cuts
    ]
    guided = {name: network_result(name, lost=0.006, seconds=1.1, false=false, **made) for name, false in FALSE.items()}
    network_results = [guided.get(each.name, each) for each in network_results]
    network_results.append(
        network_result("unet3plus_cgm ungated", "variant", lost=0.006, seconds=1.2, false=9.0, **made)
    )
    return Comparison(
        "hippocampus",
        5.0,
        "seeds",
        tuple(network_results),
        failures=(("VNet", "seed 0", "the loss is nan: the last whole epoch stands; try a smaller learning_rate."),),
        differences={"SegResNet": "widths double from the first; residual blocks", "unet_l2": "2 levels alone"},
        facts={"data set": "hippocampus", "training": "20 minutes each", "machine": "2 cores"},
    )


def of(network_results: Mapping[str, float], **made: Any) -> Comparison:
    """Networks that lose so much Dice, each slower than the one before."""
    made_up = [
        network_result(name, lost=lost, seconds=float(number), **made)
        for number, (name, lost) in enumerate(network_results.items(), 1)
    ]
    return Comparison("phantoms", 5.0, "seeds", tuple(made_up))


def _seconds(name: str) -> float:
    return 0.3 + (sum(map(ord, name)) % 17) / 20
