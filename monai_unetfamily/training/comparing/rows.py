"""The tables of a comparison as rows of words, the header first: the same in Markdown and on the page."""

from math import isnan

from monai_unetfamily.training.comparing.advice import shown, signed
from monai_unetfamily.training.comparing.analysis import Analysis, Measures, Row
from monai_unetfamily.training.comparing.results import Comparison
from monai_unetfamily.training.comparing.statistics import Interval

Rows = list[list[str]]
DEFINITIONS = (
    "The case is the unit: its scores of several trainings are averaged first.",
    "In brackets are 95 % intervals by bootstrap over the cases, from six cases on: of means, bias-corrected and"
    " accelerated (Dice, surface Dice, volumes), or of medians, percentile (HD95). They hold the choice of cases, not"
    " the luck of a training.",
    "The mean of classes is the mean of each class's own. A class found where there is none, or missed where there is"
    " one, counts as Dice 0 and HD95 infinite; a class absent from both counts nowhere.",
    "Differences are paired, of each case's mean over its classes. p is of Wilcoxon's signed-rank test, two-sided,"
    " corrected after Holm for the number of networks tested.",
    "Variants share the weights of the network they name, are compared with it, and are not tested: UNet++ cut at a"
    " level (L1, L2, ...), a guided network without its gate (ungated).",
    "A guide's thresholds are set on the cases watched while training, which are among those scored.",
    "Time is of windows, blending and the way back to the volume's own grid: the median of the volumes timed, each by"
    " all networks in turn. Reading and writing cost the same for all and are left out.",
    "Memory is the most that the prediction of one volume adds to a process. GMAC: billions of multiply-accumulate"
    " operations of one window.",
)


def score_rows(analysis: Analysis) -> Rows:
    """One row an entrant: scores, and the difference to the baseline."""
    unit = next((score.unit for row in analysis.rows for score in row.entrant.scores), "mm")
    header = ["network", "Dice", f"HD95 {unit}", "surface Dice", f"Dice less {analysis.comparison.baseline}'s"]
    header += ["p (Holm)", "missed, invented", "false ml where absent"]
    return [header, *(_scores(row, analysis) for row in analysis.rows)]


def cost_rows(analysis: Analysis) -> Rows:
    """One row an entrant: what it costs, and how its training went."""
    header = ["network", "parameters", "GMAC", "peak MiB", "s a volume", "trainings", "minutes", "epochs", "samples/s"]
    return [header, *map(_costs, analysis.rows)]


def class_rows(analysis: Analysis, label: str) -> Rows:
    """One row an entrant: the scores of one class."""
    header = ["network", "Dice", "HD95", "surface Dice"]
    return [header, *([row.name, *_measures(row.by_class[label])] for row in analysis.rows)]


def difference_rows(comparison: Comparison) -> Rows:
    """One row a network that departs from the common recipe."""
    return [["network", "how it differs"], *([name, words] for name, words in comparison.differences.items())]


def failure_rows(comparison: Comparison) -> Rows:
    """One row a training that failed."""
    return [["network", "training", "reason"], *map(list, comparison.failures)]


def _scores(row: Row, analysis: Analysis) -> list[str]:
    tests = {**analysis.against_baseline, **analysis.against_own}
    test = tests.get(row.name)
    p = "-" if test is None else _number(test.corrected, ".2g")
    difference = "-" if test is None else signed(test.difference)
    false = shown(row.false.volume_ml, "ml").removesuffix(" ml") if row.false.absent else "-"
    return [row.name, *_measures(row.overall), difference, p, str(row.one_sided), false]


def _costs(row: Row) -> list[str]:
    cost, entrant = row.entrant.cost, row.entrant
    return [
        row.name,
        f"{cost.parameters:,}",
        f"{cost.macs / 1e9:.3g}",
        _number(cost.peak_bytes / 2**20, ".0f"),
        _number(cost.seconds, ".3g"),
        str(len(entrant.repeats)),
        _range(*(f"{minutes:.1f}" for minutes in entrant.minutes)),
        _range(*map(str, entrant.epochs)),
        _number(entrant.samples_per_second, ".3g"),
    ]


def _measures(measures: Measures) -> list[str]:
    return [shown(measures.dice), _distance(measures.hd95), shown(measures.surface_dice)]


def _distance(interval: Interval) -> str:
    """A distance with its interval, which may be infinite.

    >>> _distance(Interval(1.234, 1.0, float("inf"))), _distance(Interval(float("nan")))
    ('1.23 [1.00, inf]', '-')
    """
    ends = "" if isnan(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return "-" if isnan(interval.value) else f"{interval.value:.2f}{ends}"


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _number(value: float, form: str) -> str:
    return "-" if isnan(value) else format(value, form)
