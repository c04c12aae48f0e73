import csv
from math import inf, isnan, nan, sqrt

import numpy as np
import pytest

from monai_unetfamily.evaluation import Score, format_table, summarize, write_csv


def row(case, label, dice, hd95, surface, error=0.0):
    return Score(case, label, dice, hd95, surface, 10 + error, 10.0, error)


SCORES = [
    row("a", "liver", 0.9, 2.0, 0.8, 3.0),
    row("a", "spleen", 0.5, 4.0, 0.6, 1.0),
    row("b", "liver", 0.7, 6.0, 0.6, -1.0),
    row("b", "spleen", nan, nan, nan),
    row("c", "liver", 0.0, inf, 0.0, -8.0),
    row("c", "spleen", nan, nan, nan),
]


def test_summary_equals_arithmetic():
    liver, spleen, mean = summarize(SCORES)
    dice = 1.6 / 3
    sd = sqrt(((0.9 - dice) ** 2 + (0.7 - dice) ** 2 + dice**2) / 2)
    assert liver[0] == "liver"
    assert liver[1:-1] == pytest.approx((3, 1, dice, sd, 4.0, 1.4 / 3, 4.0))
    assert spleen[1:-1] == pytest.approx((1, 0, 0.5, nan, 4.0, 0.6, 1.0), nan_ok=True)
    assert mean[0] == "mean"
    assert mean[1:-1] == pytest.approx((4, 1, (dice + 0.5) / 2, sd, 4.0, (1.4 / 3 + 0.6) / 2, 2.5))


def test_a_class_that_no_case_has_leaves_the_mean_alone():
    with_ghost = summarize([*SCORES, row("a", "ghost", nan, nan, nan)])
    assert with_ghost[-1] == summarize(SCORES)[-1]
    assert with_ghost[-2][1:3] == (0, 0)
    assert all(isnan(value) for value in with_ghost[-2][3:-1])


def test_no_scores_no_summary():
    with pytest.raises(ValueError, match="at least one"):
        summarize([])


def test_table_is_aligned_markdown():
    lines = format_table(summarize([*SCORES, row("a", "ghost", nan, nan, nan)])).splitlines()
    assert len({len(line) for line in lines}) == 1
    bars = {tuple(i for i, letter in enumerate(line) if letter == "|") for line in lines}
    assert len(bars) == 1
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["ghost", "0", "0", "-", "-", "-", "-"]
    assert "0.533 ± 0.473" in lines[2]


def test_the_unit_of_distances_is_told():
    pixels = [score._replace(unit="px") for score in SCORES]
    assert {summary.unit for summary in summarize(pixels)} == {"px"}
    assert "| HD95 px |" in format_table(summarize(pixels)).splitlines()[0]
    assert "| HD95 mm |" in format_table(summarize(SCORES)).splitlines()[0]


def test_csv_round_trip(tmp_path):
    write_csv(SCORES, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    back = [Score(r["case"], r["label"], *map(float, list(r.values())[2:-1]), r["unit"]) for r in rows]
    np.testing.assert_equal(back, SCORES)
    assert rows[3]["dice"] == "nan"
    assert rows[4]["hd95"] == "inf"


def test_csv_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.csv"
    write_csv(SCORES[:1], path)
    before = path.read_bytes()
    with pytest.raises(csv.Error):
        write_csv([*SCORES, 3], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]
