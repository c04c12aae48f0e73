"""What follows from a comparison's numbers: each entrant's scores with intervals, and its tests against two others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import NamedTuple

from monai_unetfamily.training.comparing.results import Comparison, Entrant
from monai_unetfamily.training.comparing.statistics import (
    FalsePositives,
    Interval,
    Table,
    false_positives,
    holm,
    mean_interval,
    mean_value,
    median_interval,
    paired_differences,
    pareto_front,
    tabulate,
    wilcoxon_p,
)

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

    entrant: Entrant
    overall: Measures
    by_class: Mapping[str, Measures]
    one_sided: int
    false: FalsePositives
    on_front: bool

    @property
    def name(self) -> str:
        """The entrant's."""
        return self.entrant.name


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
        return [row for row in self.rows if row.entrant.kind != "variant"]

    @property
    def cases(self) -> int:
        """That were scored."""
        return len({score.case for row in self.rows for score in row.entrant.scores})

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
    tables = {e.name: tabulate(e.scores, "dice", comparison.classes) for e in comparison.entrants}
    dice = {e.name: mean_value(tables[e.name].values) for e in comparison.entrants}
    names = [e.name for e in comparison.trained]
    best = max(names, key=lambda name: dice[name])
    front = pareto_front({e.name: (e.cost.seconds, dice[e.name]) for e in comparison.entrants})
    return Analysis(
        comparison,
        tuple(_row(entrant, comparison.classes, entrant.name in front) for entrant in comparison.entrants),
        best,
        _tests(tables, names, comparison.baseline),
        _tests(tables, names, best),
        {e.name: _difference(tables[e.name], tables[e.own], e.own) for e in comparison.entrants if e.own in tables},
    )


def _row(entrant: Entrant, classes: Sequence[str], on_front: bool) -> Row:
    return Row(
        entrant,
        _measures(entrant, classes),
        {label: _measures(entrant, [label]) for label in classes},
        sum(score.hd95 == inf for score in entrant.scores),
        false_positives(entrant.scores, classes),
        on_front,
    )


def _measures(entrant: Entrant, classes: Sequence[str]) -> Measures:
    return Measures(
        mean_interval(tabulate(entrant.scores, "dice", classes).values),
        median_interval(tabulate(entrant.scores, "hd95", classes).values),
        mean_interval(tabulate(entrant.scores, "surface_dice", classes).values),
    )


def _tests(tables: Mapping[str, Table], names: Sequence[str], other: str) -> dict[str, PairedTest]:
    """Every name but the other's own, tested against it and corrected for their number."""
    differences = {n: paired_differences(tables[n], tables[other]) for n in names if n != other}
    p_values = {name: wilcoxon_p(values) for name, values in differences.items()}
    corrected = holm(p_values)
    return {n: PairedTest(other, mean_interval(v), p_values[n], corrected[n]) for n, v in differences.items()}


def _difference(mine: Table, theirs: Table, other: str) -> PairedTest:
    return PairedTest(other, mean_interval(paired_differences(mine, theirs)))
