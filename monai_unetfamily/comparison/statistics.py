"""Statistics of a comparison: intervals over cases, paired tests, Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon

from monai_unetfamily.comparison.study_results import Comparison, NetworkResult
from monai_unetfamily.evaluation import Score

# How sure a comparison is: intervals over cases, paired tests, and who is beaten in both time and Dice.
#
# The case is the unit. The scores of a case under several seeds are averaged first, so that more trainings do not
# pass for more cases. What an interval covers is the choice of cases; the luck of a training is in it only as far as
# several seeds or folds average it out.


Array = NDArray[np.float64]
Measure = Literal["dice", "hd95", "surface_dice", "volume_ml", "reference_ml"]
CONFIDENCE = 0.95
FEWEST = 6  # cases: with fewer no test can tell two networks apart, and a bootstrap says too little
_RESAMPLES = 9999
_SEED = 0


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval, nan where there are fewer than six cases."""

    value: float
    low: float = nan
    high: float = nan


class Table(NamedTuple):
    """One measure of all cases: `values` is (cases, classes), nan where a case has no score of a class."""

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    values: Array

    @property
    def means(self) -> Array:
        """Of each case the mean over its classes (cases,), nan where it has none."""
        return _mean(self.values, axis=-1)


def tabulate(scores: Sequence[Score], measure: Measure, classes: Sequence[str]) -> Table:
    """A measure by case, in order of name, and class; the mean of several trainings' scores of a case.

    >>> rows = [Score("b", "liver", 0.8, 1, 1, 1, 1, 0), Score("b", "liver", 0.6, 1, 1, 1, 1, 0)]
    >>> tabulate(rows, "dice", ["liver"]).values
    array([[0.7]])
    """
    cases = sorted({score.case for score in scores})
    found: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        found.setdefault((score.case, score.label), []).append(getattr(score, measure))
    cells = [[found.get((case, label), [nan]) for label in classes] for case in cases]
    values = [[float(_mean(np.array(cell), axis=0)) for cell in row] for row in cells]
    return Table(tuple(cases), tuple(classes), np.array(values, dtype=float).reshape(len(cases), len(classes)))


def mean_interval(values: Array) -> Interval:
    """The mean over classes of each class's mean over cases, from (cases, classes) or (cases,); nan does not count.

    The interval is the bias-corrected and accelerated bootstrap over cases (Efron, JASA 82, 1987), by scipy; the
    percentile bootstrap where that has no solution.

    >>> mean_interval(np.array([0.9] * 6))
    Interval(value=0.9, low=0.9, high=0.9)
    """
    return _interval(_by_case(values), _mean_of_means, "BCa")


def mean_value(values: Array) -> float:
    """The value of `mean_interval` alone.

    >>> mean_value(np.array([[0.9, np.nan], [0.7, 0.5]]))
    0.65
    """
    return float(_mean_of_means(_by_case(values)))


def _mean_of_means(table: Array) -> Array:
    """Over classes, of the mean over cases (..., cases, classes)."""
    return _mean(_mean(table, axis=-2), axis=-1)


def median_interval(values: Array) -> Interval:
    """The mean over classes of each class's median over cases, of which some may be infinite; nan does not count.

    The interval is the percentile bootstrap over cases, whose ends are values that occurred: one may be infinite.

    >>> median_interval(np.array([1.0, 2.0, np.inf])).value
    2.0
    """
    return _interval(_by_case(values), lambda resampled: _mean(_median(resampled), axis=-1), "percentile")


def _by_case(values: Array) -> Array:
    """(cases, classes) without cases that have no score at all."""
    table = values.reshape(len(values), -1)
    return table[~np.isnan(table).all(axis=1)]


def _interval(table: Array, statistic: Callable[[Array], Array], method: Literal["BCa", "percentile"]) -> Interval:
    if not len(table):
        return Interval(nan)
    value = float(statistic(table))
    if len(table) < FEWEST:
        return Interval(value)

    def of_rows(rows: NDArray[np.int64], axis: int) -> Array:
        return statistic(table[rows])  # (resamples, cases, classes)

    drawn = _bootstrap(len(table), of_rows, method="percentile")
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(drawn.bootstrap_distribution, ends, method="inverted_cdf")
    if method == "BCa" and low < high:
        better = _bootstrap(len(table), of_rows, method="BCa", n_resamples=0, bootstrap_result=drawn)
        if not isnan(better.confidence_interval.low + better.confidence_interval.high):
            low, high = better.confidence_interval
    return Interval(value, float(low), float(high))


def _bootstrap(cases: int, statistic: Callable[..., Array], n_resamples: int = _RESAMPLES, **options: Any) -> Any:
    """Every call draws the same resamples of so many cases, so that entrants differ by their scores alone."""
    rng = np.random.default_rng(_SEED)
    options |= {"n_resamples": n_resamples, "confidence_level": CONFIDENCE, "random_state": rng}
    with np.errstate(invalid="ignore", divide="ignore"):
        return bootstrap((np.arange(cases),), statistic, vectorized=True, batch=1000, **options)


def paired_differences(mine: Table, theirs: Table) -> Array:
    """Mine minus theirs, of the mean over classes, in the cases that both have a score of.

    Raises:
        ValueError: they share no case.
    """
    others = dict(zip(theirs.cases, theirs.means, strict=True))
    pairs = [(value, others[case]) for case, value in zip(mine.cases, mine.means, strict=True) if case in others]
    differences = np.array([a - b for a, b in pairs if not isnan(a - b)])
    if not len(differences):
        raise ValueError("got two networks without a case that both were scored on; evaluate them on the same cases.")
    return differences


def wilcoxon_p(differences: Array) -> float:
    """Two-sided p of the signed-rank test that differences lie evenly about 0 (Wilcoxon, Biometrics 1, 1945).

    Differences of 0 do not count; where there is no other, p is 1.

    >>> wilcoxon_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))  # five cases all alike: no smaller p is possible
    0.0625
    """
    told = differences[differences != 0]
    return float(wilcoxon(told).pvalue) if len(told) else 1.0


def least_p(cases: int) -> float:
    """The smallest p that `wilcoxon_p` can give on so many cases."""
    return min(1.0, 2.0 ** (1 - cases))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number, so that the chance of any false finding stays below the level.

    Holm, Scandinavian Journal of Statistics 6, 1979: the k-th smallest of m is multiplied by m - k + 1, and none is
    smaller than one before it.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of points (seconds, Dice) that no other beats: as fast and as good, and one of the two better; by time.

    >>> pareto_front({"a": (1.0, 0.8), "b": (2.0, 0.9), "c": (3.0, 0.85)})
    ['a', 'b']
    """
    known = {name: point for name, point in points.items() if not isnan(sum(point))}

    def beaten(seconds: float, dice: float) -> bool:
        return any(s <= seconds and d >= dice and (s, d) != (seconds, dice) for s, d in known.values())

    return sorted((name for name, point in known.items() if not beaten(*point)), key=lambda name: known[name][0])


class FalsePositives(NamedTuple):
    """What was found where it is not: classes that a case's reference does not hold.

    Attributes:
        absent: pairs of a case and a class that it does not hold.
        hit: the share of them in which some voxel was given the class.
        volume_ml: the mean volume of it, zeros included, with its interval over cases.
    """

    absent: int
    hit: float
    volume_ml: Interval


def false_positives(scores: Sequence[Score], classes: Sequence[str]) -> FalsePositives:
    """Volumes given to classes where the reference has none of them; several trainings' are averaged.

    >>> rows = [Score("a", "spleen", 0, np.inf, 0, 6.0, 0.0, 6.0), Score("b", "spleen", nan, nan, nan, 0.0, 0.0, 0.0)]
    >>> found = false_positives(rows, ["spleen"])
    >>> found.absent, found.hit, found.volume_ml.value
    (2, 0.5, 3.0)
    """
    volumes = absent_volumes(scores, classes)
    known = volumes[~np.isnan(volumes)]
    hit = float((known > 0).mean()) if len(known) else nan
    return FalsePositives(len(known), hit, mean_interval(_mean(volumes, axis=-1)) if len(known) else Interval(nan))


def absent_volumes(scores: Sequence[Score], classes: Sequence[str]) -> Array:
    """(cases, classes): ml predicted where the reference holds none of the class; nan where it holds some."""
    predicted, held = (tabulate(scores, measure, classes).values for measure in ("volume_ml", "reference_ml"))
    return np.where(held == 0, predicted, nan)


def _mean(values: Array, axis: int) -> Array:
    """Of what is not nan; nan where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis))


def _median(values: Array) -> Array:
    """Over cases (..., cases, classes), of what is not nan; nan where nothing is. Half way to infinity is infinite."""
    ordered = np.sort(values, axis=-2)  # nan last
    known = (~np.isnan(values)).sum(axis=-2, keepdims=True)
    middle = [np.take_along_axis(ordered, np.maximum(known - 1 + up, 0) // 2, axis=-2) for up in (0, 1)]
    return np.where(known[..., 0, :] > 0, (middle[0] + middle[1])[..., 0, :] / 2, nan)


# What follows from a comparison's numbers: each entrant's scores with intervals, and its tests against two others.

LEVEL = 0.05  # of significance, after Holm's correction
MARGIN = 0.01  # of Dice: what "not worse" may cost


class Measures(NamedTuple):
    """Of one class, or the mean over classes: Dice and surface Dice are means over cases, HD95 is their median."""

    dice: Interval
    hd95: Interval
    surface_dice: Interval


class PairedTest(NamedTuple):
    """One entrant's Dice against another's, case by case.

    Attributes:
        other: its name.
        difference: mean over cases of this one's minus the other's.
        p: of Wilcoxon's signed-rank test; nan where none was asked for.
        corrected: the same by Holm, for all that were tested against the other.
    """

    other: str
    difference: Interval
    p: float = nan
    corrected: float = nan

    @property
    def tells(self) -> bool:
        """Whether the two can be told apart: by the corrected p, and by an interval of the difference without 0."""
        return self.corrected < LEVEL and self.difference.low * self.difference.high > 0

    @property
    def not_worse(self) -> bool:
        """Whether the whole interval lies above a loss of `MARGIN`."""
        return self.difference.low > -MARGIN


@dataclass(frozen=True)
class Row:
    """An entrant with what its numbers say.

    Attributes:
        entrant: itself.
        overall: mean over classes.
        by_class: label -> the same of one class.
        one_sided: scores where the class is in only one of prediction and reference.
        false: volumes found where there is nothing.
        on_front: no other is as fast and as good.
    """

    network_result: NetworkResult
    overall: Measures
    by_class: Mapping[str, Measures]
    one_sided: int
    false: FalsePositives
    on_front: bool

    @property
    def name(self) -> str:
        """The entrant's."""
        return self.network_result.name


@dataclass(frozen=True)
class Analysis:
    """The rows of a comparison in its own order, and its tests.

    Attributes:
        comparison: itself.
        rows: one an entrant.
        best: name of the one of highest mean Dice, among those trained for themselves.
        against_baseline, against_best: name -> test, of all others that were trained for themselves.
        against_own: name of a variant -> its difference to the network whose weights it has; not tested.
    """

    comparison: Comparison
    rows: tuple[Row, ...]
    best: str
    against_baseline: Mapping[str, PairedTest]
    against_best: Mapping[str, PairedTest]
    against_own: Mapping[str, PairedTest]

    @property
    def trained(self) -> list[Row]:
        """Of those that were trained for themselves."""
        return [row for row in self.rows if row.network_result.kind != "variant"]

    @property
    def cases(self) -> int:
        """That were scored."""
        return len({score.case for row in self.rows for score in row.network_result.scores})

    def named(self, name: str) -> Row | None:
        """The row of a name; None where it is not among them."""
        return next((row for row in self.rows if row.name == name), None)


def analyse(comparison: Comparison) -> Analysis:
    """Reckon all intervals and tests.

    Raises:
        ValueError: nobody was trained, or scored.
    """
    if not comparison.trained or not comparison.classes:
        reasons = "; ".join(f"{name}, {repeat}: {reason}" for name, repeat, reason in comparison.failures)
        raise ValueError(f"no network could be trained and scored; mend the reasons and compare again: {reasons}")
    tables = {e.name: tabulate(e.scores, "dice", comparison.classes) for e in comparison.network_results}
    dice = {e.name: mean_value(tables[e.name].values) for e in comparison.network_results}
    names = [e.name for e in comparison.trained]
    best = max(names, key=lambda name: dice[name])
    front = pareto_front({e.name: (e.cost.seconds, dice[e.name]) for e in comparison.network_results})
    return Analysis(
        comparison,
        tuple(
            _row(network_result, comparison.classes, network_result.name in front)
            for network_result in comparison.network_results
        ),
        best,
        _tests(tables, names, comparison.baseline),
        _tests(tables, names, best),
        {
            e.name: _difference(tables[e.name], tables[e.own], e.own)
            for e in comparison.network_results
            if e.own in tables
        },
    )


def _row(network_result: NetworkResult, classes: Sequence[str], on_front: bool) -> Row:
    return Row(
        network_result,
        _measures(network_result, classes),
        {label: _measures(network_result, [label]) for label in classes},
        sum(score.hd95 == inf for score in network_result.scores),
        false_positives(network_result.scores, classes),
        on_front,
    )


def _measures(network_result: NetworkResult, classes: Sequence[str]) -> Measures:
    return Measures(
        mean_interval(tabulate(network_result.scores, "dice", classes).values),
        median_interval(tabulate(network_result.scores, "hd95", classes).values),
        mean_interval(tabulate(network_result.scores, "surface_dice", classes).values),
    )


def _tests(tables: Mapping[str, Table], names: Sequence[str], other: str) -> dict[str, PairedTest]:
    """Every name but the other's own, tested against it and corrected for their number."""
    differences = {n: paired_differences(tables[n], tables[other]) for n in names if n != other}
    p_values = {name: wilcoxon_p(values) for name, values in differences.items()}
    corrected = holm(p_values)
    return {n: PairedTest(other, mean_interval(v), p_values[n], corrected[n]) for n, v in differences.items()}


def _difference(mine: Table, theirs: Table, other: str) -> PairedTest:
    return PairedTest(other, mean_interval(paired_differences(mine, theirs)))
