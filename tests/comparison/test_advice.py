"""Laws of the advice: it names no winner that the numbers do not show, and says how far they go."""

from dataclasses import replace

import pytest

from monai_unetfamily.comparison.statistics import MARGIN, Interval, PairedTest, analyse
from monai_unetfamily.comparison.study_report import advise
from monai_unetfamily.comparison.study_results import Comparison, Point
from tests.support.comparisons import family, network_result, of


def advice(comparison: Comparison) -> str:
    return advise(analyse(comparison))


def test_it_says_budget_cases_classes_and_trainings() -> None:
    text = advice(of({"unet": 0.0, "unet_e": 0.02}, cases=12))
    assert text.startswith(
        "2 networks had 5 minutes of training (one training each) and 12 validation cases of phantoms, with 1 class."
    )
    several = of({"unet": 0.0, "unet_e": 0.02}, cases=12)
    twice = tuple(replace(each, repeats=("fold 0", "fold 1")) for each in several.network_results)
    text = advice(replace(several, repeats="folds", network_results=twice))
    assert "up to 2 trainings each, of different folds" in text
    assert "luck of a training" not in text


@pytest.mark.slow
@pytest.mark.parametrize("names", ["abc", "defg", "hijkl", "mnopqr", "stuvwxyz"])
def test_equals_have_no_winner(names: str) -> None:
    text = advice(of(dict.fromkeys(names, 0.01), cases=30))
    assert "but no network wins" in text
    assert "it is the winner" not in text


def test_one_that_is_better_in_every_case_wins() -> None:
    text = advice(of({"unet": 0.05, "unet_e": 0.06, "unetplusplus": 0.0}, cases=30))
    assert "unetplusplus has the highest mean Dice" in text
    assert "it is the winner under this budget" in text
    assert "Against unet, unetplusplus (+0.05" in text


def test_who_had_more_time_does_not_win() -> None:
    made = of({"unet": 0.05, "unetplusplus": 0.0}, cases=30)
    longer = replace(made.network_results[1], minutes=(8.0, 8.0))
    text = advice(replace(made, network_results=(made.network_results[0], longer)))
    assert "can be told apart from it, but no network wins, as their times were not equal." in text
    assert "Trainings took 4.8 to 8.0 minutes, as each ends with a whole epoch" in text
    assert "it is the winner" not in text


def test_one_equal_is_enough_for_no_winner() -> None:
    text = advice(of({"unet": 0.05, "unet_e": 0.001, "unetplusplus": 0.0}, cases=30))
    assert "but no network wins: unet_e cannot be told apart" in text or "but no network wins: unetplusplus" in text


def test_few_cases_can_tell_nothing() -> None:
    text = advice(of({"unet": 0.5, "unetplusplus": 0.0}, cases=5))
    assert "but no network wins: unet cannot be told apart" in text
    assert "With 5 cases no test can tell so many networks apart, whatever they score." in text
    assert "not worse" not in text


@pytest.mark.slow
def test_the_correction_is_for_all_that_are_tested() -> None:
    """Six cases may tell two networks apart, and never seven: 6 x 2 / 2^6 is above 0.05."""
    assert "it is the winner" in advice(of({"unet": 0.5, "a": 0.0}, cases=6))
    assert "no network wins" in advice(of({"unet": 0.5, "a": 0.0} | dict.fromkeys("bcdef", 0.5), cases=6))


@pytest.mark.parametrize(
    ("corrected", "low", "high", "tells"),
    [(0.01, 0.001, 0.02, True), (0.06, 0.001, 0.02, False), (0.01, -0.001, 0.02, False), (0.01, -0.02, -0.001, True)],
)
def test_two_are_told_apart_by_test_and_interval_both(corrected: float, low: float, high: float, tells: bool) -> None:
    assert PairedTest("unet", Interval((low + high) / 2, low, high), 0.001, corrected).tells == tells


def test_not_worse_is_known_of_the_whole_interval() -> None:
    assert PairedTest("unet", Interval(0.0, -0.9 * MARGIN, 0.01)).not_worse
    assert not PairedTest("unet", Interval(0.0, -1.1 * MARGIN, 0.01)).not_worse
    assert not PairedTest("unet", Interval(0.0)).not_worse  # too few cases for an interval


def test_what_is_faster_and_not_worse_is_recommended() -> None:
    text = advice(of({"unet_l1": 0.1, "unet_l2": 0.003, "unet": 0.0}, cases=50))
    assert (
        "Faster than unet (3 s a volume, 4.2 M parameters) and not worse by more than 0.01 Dice: unet_l2 (2 s" in text
    )
    assert "take it where time counts" in text


@pytest.mark.slow
def test_where_nothing_cheap_is_good_enough_it_says_so() -> None:
    text = advice(of({"unet_l1": 0.1, "unet": 0.0}, cases=50))
    assert "No faster network is known to be within 0.01 Dice of unet" in text
    assert "None is faster than unet (1 s" in advice(of({"unet": 0.0, "unet_l1": 0.1}, cases=50))


@pytest.mark.slow
def test_the_guide_is_judged_by_volumes_where_a_class_is_absent() -> None:
    text = advice(family(("liver", "spleen"), 24, absent=0.4))
    assert "Where a class is absent UNet 3+ finds" in text
    assert "the intervals overlap" not in text
    assert "Where a class is absent" not in advice(family(cases=12))


@pytest.mark.slow
def test_the_cut_that_is_good_enough_is_named() -> None:
    assert "unetplusplus L2 (0.45 s a volume" in advice(family(cases=52))


def test_a_training_cut_short_is_told() -> None:
    curve = tuple(Point(minutes, 1.0, 0.1 * minutes) for minutes in range(1, 9))
    rising = replace(network_result("unet_e", cases=12), curves=(curve,), epochs=(3, 8))
    text = advice(replace(of({"unet": 0.0}, cases=12), network_results=(network_result("unet", cases=12), rising)))
    assert "When time was up unet_e still gained, and epochs were 3 to 20: more minutes may change the order." in text


@pytest.mark.slow
def test_failures_are_named() -> None:
    assert advice(family(cases=8)).endswith("Trainings of VNet failed.")
    nobody = Comparison("phantoms", 5.0, "seeds", (), failures=(("unet", "seed 0", "no room"),))
    with pytest.raises(ValueError, match="no network could be trained and scored.*unet, seed 0: no room"):
        analyse(nobody)


def test_without_unet_the_first_is_the_baseline() -> None:
    assert of({"unet_e": 0.0, "unet": 0.1}).baseline == "unet"
    assert of({"unet_e": 0.0, "DynUNet": 0.1}).baseline == "unet_e"
