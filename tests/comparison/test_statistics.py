"""Laws of a comparison's statistics: by hand, by scipy, and by what an interval may never do."""

from itertools import product
from math import inf, isnan, nan

import numpy as np
import pytest
from scipy.stats import bootstrap, wilcoxon

from monai_unetfamily.comparison.statistics import (
    FEWEST,
    Table,
    false_positives,
    holm,
    least_p,
    mean_interval,
    mean_value,
    median_interval,
    paired_differences,
    pareto_front,
    tabulate,
    wilcoxon_p,
)
from monai_unetfamily.evaluation import Score, summarize
from tests.support.comparisons import scores

RNG = np.random.default_rng(3)


def score(case: str, label: str, dice: float, predicted: float = 1.0, held: float = 1.0) -> Score:
    return Score(case, label, dice, 1.0, dice, predicted, held, predicted - held)


@pytest.mark.parametrize("cases", [6, 10, 52])
def test_the_interval_of_a_mean_is_scipys(cases: int) -> None:
    values = RNG.beta(8, 2, cases)
    theirs = bootstrap((values,), np.mean, n_resamples=9999, random_state=np.random.default_rng(0)).confidence_interval
    assert mean_interval(values) == pytest.approx((values.mean(), theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_a_median_is_scipys_percentile() -> None:
    values = RNG.beta(8, 2, 25)
    options = {"n_resamples": 9999, "method": "percentile", "random_state": np.random.default_rng(0)}
    theirs = bootstrap((values,), np.median, **options).confidence_interval
    assert median_interval(values) == pytest.approx((np.median(values), theirs.low, theirs.high), abs=2e-3)


def test_the_mean_of_classes_is_that_of_evaluate() -> None:
    """Each class's own mean first, so that a class that few cases have counts as much."""
    rows = list(scores(["liver", "spleen"], 12, absent=0.4, false=0.0))
    table = tabulate(rows, "dice", ["liver", "spleen"])
    assert mean_value(table.values) == pytest.approx(summarize(rows)[-1].dice)
    assert mean_interval(table.values).value == mean_value(table.values)


def test_an_infinite_distance_stays_in_the_median() -> None:
    """A mean over the finite would reward the network that misses most."""
    found = median_interval(np.array([1.0, 2.0, 3.0, 4.0, inf, inf, inf]))
    assert (found.value, found.high) == (4.0, inf)
    assert found.low < 4
    assert median_interval(np.array([1.0, 2.0, inf, inf])).value == inf


def test_scores_that_are_none_count_nowhere() -> None:
    table = np.array([[0.9, nan], [nan, nan], [0.7, 0.5]])
    assert mean_interval(table).value == pytest.approx(0.65)
    assert median_interval(table).value == pytest.approx(0.65)
    assert isnan(mean_interval(np.full((3, 2), nan)).value)


def test_few_cases_have_no_interval() -> None:
    assert isnan(mean_interval(np.linspace(0.8, 0.9, FEWEST - 1)).low)
    assert not isnan(mean_interval(np.linspace(0.8, 0.9, FEWEST)).low)
    assert least_p(FEWEST - 1) > 0.05 > least_p(FEWEST)


def test_more_trainings_of_the_same_cases_do_not_narrow_the_interval() -> None:
    once = scores(["liver"], 20)
    tables = [tabulate(rows, "dice", ["liver"]) for rows in (once, once * 3)]
    assert mean_interval(tables[0].values) == pytest.approx(mean_interval(tables[1].values))


def test_seeds_are_averaged_and_folds_lie_side_by_side() -> None:
    seeds = [score("a", "liver", 0.8), score("a", "liver", 0.6)]
    folds = [score("a", "liver", 0.8), score("b", "liver", 0.6)]
    assert tabulate(seeds, "dice", ["liver"]).means.tolist() == pytest.approx([0.7])
    assert tabulate(folds, "dice", ["liver"]).means.tolist() == [0.8, 0.6]


def test_pairs_are_made_by_the_cases_names() -> None:
    mine = Table(("a", "b", "c"), ("liver",), np.array([[0.9], [0.8], [nan]]))
    theirs = Table(("b", "c", "d"), ("liver",), np.array([[0.5], [0.5], [0.5]]))
    assert paired_differences(mine, theirs).tolist() == pytest.approx([0.3])
    with pytest.raises(ValueError, match="without a case that both were scored on"):
        paired_differences(mine, theirs._replace(cases=("x", "y", "z")))


def test_wilcoxon_is_scipys_without_the_zeros() -> None:
    differences = RNG.normal(0.01, 0.02, 30)
    assert wilcoxon_p(differences) == pytest.approx(wilcoxon(differences).pvalue)
    assert wilcoxon_p(np.append(differences, [0, 0])) == pytest.approx(wilcoxon(differences).pvalue)
    assert wilcoxon_p(np.zeros(9)) == 1.0


@pytest.mark.parametrize("cases", range(1, 12))
def test_no_p_is_smaller_than_the_least(cases: int) -> None:
    assert wilcoxon_p(np.arange(1.0, cases + 1)) == pytest.approx(least_p(cases))


def test_holms_correction_is_its_definition() -> None:
    """A hypothesis is rejected at a level if all smaller p were, each at level / (number left)."""
    p_values = dict(zip("abcdefgh", RNG.random(8) ** 3, strict=True))
    corrected = holm(p_values)
    assert list(corrected) == list(p_values)
    for level in (0.01, 0.05, 0.2, 0.5):
        rejected = set()
        for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
            if p_values[name] > level / (8 - rank):
                break
            rejected.add(name)
        assert {name for name, p in corrected.items() if p <= level} == rejected


def test_the_front_holds_all_that_nobody_beats() -> None:
    points = {str(number): tuple(point) for number, point in enumerate(RNG.integers(0, 6, (30, 2)).astype(float))}
    front = pareto_front(points)  # type: ignore[arg-type]
    better = {
        (a, b)
        for a, b in product(points, points)
        if points[a][0] <= points[b][0] and points[a][1] >= points[b][1] and points[a] != points[b]
    }
    assert set(front) == {b for b in points if not any((a, b) in better for a in points)}
    assert [points[name][0] for name in front] == sorted(points[name][0] for name in front)
    assert pareto_front({"timed": (1.0, 0.5), "not": (nan, 0.9)}) == ["timed"]


def test_false_positives_are_what_is_found_where_nothing_is() -> None:
    rows = [score("a", "spleen", 0.0, 6.0, 0.0), score("b", "spleen", nan, 0.0, 0.0), score("c", "spleen", 0.9, 5, 5)]
    found = false_positives(rows, ["spleen"])
    assert (found.absent, found.hit, found.volume_ml.value) == (2, 0.5, 3.0)
    assert false_positives(rows[2:], ["spleen"]).absent == 0


def test_pictures_have_no_volume_that_could_be_false() -> None:
    assert false_positives([score("a", "cell", 0.9, nan, nan)], ["cell"]).absent == 0


def test_equal_scores_have_an_interval_of_no_width() -> None:
    assert mean_interval(np.full((8, 2), 0.8)) == pytest.approx((0.8, 0.8, 0.8))
