"""Two label maps held against each other: numbers by definition, kinds voxel by voxel, classes by name."""

from itertools import pairwise
from math import isnan

import numpy as np
import pytest

from monai_unetfamily.evaluation import compare_labels, compare_steps, evaluate_case
from monai_unetfamily.evaluation.label_differences import AGREE, ONLY_A, ONLY_B, OTHER, Match, match_classes

SPACING = (0.8, 1.0, 5.0)  # mm
NAMES = {0: "background", 1: "liver", 2: "spleen", 3: "left_kidney", 4: "gall bladder"}


def random_labels(seed, shape=(20, 18, 12), dtype=np.uint8):
    """Blocks of labels 0 to 3; label 4 is nowhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, [-(-n // 4) for n in shape])
    return np.kron(coarse, np.ones([4] * len(shape), int))[tuple(slice(n) for n in shape)].astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_dice_and_volumes_are_those_of_evaluate(dtype):
    a, b = random_labels(1), random_labels(2, dtype=dtype)
    rows = compare_labels(a, b, SPACING, NAMES, NAMES).rows
    classes = {label: name for label, name in NAMES.items() if label}
    for row, score in zip(rows, evaluate_case(b, a, SPACING, classes), strict=True):
        assert row.name == score.label
        assert (row.ml_b, row.ml_a) == pytest.approx((score.volume_ml, score.reference_ml))
        assert row.difference_ml == pytest.approx(score.volume_error_ml)
        assert isnan(score.dice) if row.dice is None else row.dice == pytest.approx(score.dice, rel=1e-6)
    assert [row.dice is None for row in rows] == [False, False, False, True]


def test_what_counts_as_which_difference():
    a, b = random_labels(1), random_labels(2)
    found = compare_labels(a, b, SPACING, NAMES, NAMES)
    expected = np.select([a == b, b == 0, a == 0], [AGREE, ONLY_A, ONLY_B], OTHER)
    assert found.kinds.dtype == np.uint8
    assert np.array_equal(found.kinds, expected)
    for row in found.rows:
        assert row.differing == np.count_nonzero((a == row.label_a) ^ (b == row.label_b))


def test_equal_maps_differ_nowhere():
    a = random_labels(3)
    found = compare_labels(a, a.copy(), SPACING, NAMES, NAMES)
    assert not found.kinds.any()
    assert {row.dice for row in found.rows[:3]} == {1.0}
    assert set(found.places) == {()}


def test_the_other_way_round_only_the_sides_change():
    a, b = random_labels(4), random_labels(5)
    there, back = compare_labels(a, b, SPACING, NAMES, NAMES), compare_labels(b, a, SPACING, NAMES, NAMES)
    assert np.array_equal(np.array([AGREE, ONLY_B, ONLY_A, OTHER])[there.kinds], back.kinds)
    assert there.places == back.places
    for one, other in zip(there.rows, back.rows, strict=True):
        assert (one.dice, one.differing) == (other.dice, other.differing)
        assert (one.ml_a, one.ml_b, one.difference_ml) == (other.ml_b, other.ml_a, -other.difference_ml)


def test_classes_are_the_same_by_name_whatever_their_ids():
    a, b = random_labels(6), random_labels(7)
    table = np.array([0, 30, 10, 20, 40])
    renamed = {30: "Liver", 10: "spleen", 20: "left kidney", 40: "gall_bladder"}
    plain, permuted = compare_labels(a, b, SPACING, NAMES, NAMES), compare_labels(a, table[b], SPACING, NAMES, renamed)
    assert np.array_equal(plain.kinds, permuted.kinds)
    assert [row._replace(label_b=None) for row in plain.rows] == [row._replace(label_b=None) for row in permuted.rows]
    assert [row.label_b for row in permuted.rows] == [30, 10, 20, 40]


def test_a_class_that_one_map_alone_knows_is_named_and_left_out():
    a, b = random_labels(8), random_labels(9)
    without = {label: name for label, name in NAMES.items() if label != 2}
    found = compare_labels(a, np.where(b == 2, 0, b), SPACING, NAMES, without)
    spleen = found.rows[1]
    assert (spleen.name, spleen.label_b, spleen.dice, spleen.ml_b, spleen.differing) == (
        "spleen",
        None,
        None,
        None,
        None,
    )
    assert spleen.voxels_a == np.count_nonzero(a == 2)
    assert not found.kinds[(a == 2) & (b == 0)].any()
    assert (found.kinds[(a == 2) & (b == 1)] == ONLY_B).all()  # as a Dice of the liver counts it
    assert found.places[1] == ()


def test_what_a_map_ignores_is_counted_nowhere():
    a, b = random_labels(10), random_labels(11)
    blind = np.zeros(a.shape, bool)
    blind[5:9] = True
    found = compare_labels(a, np.where(blind, 9, b), SPACING, NAMES, NAMES | {9: "ignore"})
    clear = compare_labels(np.where(blind, 0, a), np.where(blind, 0, b), SPACING, NAMES, NAMES)
    assert found.rows == clear.rows
    assert np.array_equal(found.kinds, clear.kinds)
    assert found.places == clear.places


def test_a_place_shows_most_of_what_differs():
    a = np.zeros((12, 14, 16), np.uint8)
    b = a.copy()
    a[1, 1:4, 1:4], b[6, 3:9, 2:12], b[7, 3:5, 2:5], b[6, 12, 14] = 1, 1, 1, 1
    [places] = compare_labels(a, b, SPACING, {}, {}).places
    assert places[0] == (6, 5, 6)  # of the piece of 6 x 10, not of the one voxel apart
    differing = a != b
    for axis, place in enumerate(places):
        assert differing[place]
        counts = np.moveaxis(differing, axis, 0).sum(axis=(1, 2))
        assert counts[place[axis]] == counts.max()


def test_how_the_maps_lie_in_memory_changes_nothing():
    a, b = random_labels(12), random_labels(13)
    plain = compare_labels(a, b, SPACING, NAMES, NAMES)
    turned = compare_labels(a[::-1].T, np.asfortranarray(b[::-1].T), SPACING[::-1], NAMES, NAMES)
    assert plain.rows == turned.rows
    assert np.array_equal(plain.kinds, turned.kinds.T[::-1])


def test_a_picture_has_no_volumes():
    a, b = random_labels(14, (20, 30)), random_labels(15, (20, 30))
    found = compare_labels(a, b, None, NAMES, NAMES)
    scores = evaluate_case(b, a, None, {1: "liver"})
    assert found.rows[0].dice == pytest.approx(scores[0].dice, rel=1e-6)
    assert found.rows[0].ml_a is found.rows[0].difference_ml is None
    [place] = found.places[0]
    assert (a[place] == 1) != (b[place] == 1)


def test_steps_are_counted_to_the_end():
    steps = list(compare_steps(random_labels(16), random_labels(17), SPACING, NAMES, NAMES))
    assert all(later[0] == sooner[0] + 1 for sooner, later in pairwise(steps))
    assert {total for _, total in steps} == {len(steps)}


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (np.zeros((20, 18, 11), np.uint8), "one shape"),
        (np.full((20, 18, 12), 70_000), "got label 70000"),
        (np.full((20, 18, 12), -1), "got label -1"),
        (np.zeros((20, 18, 12)), "integers are allowed"),
    ],
)
def test_maps_that_cannot_be_compared(b, reason):
    with pytest.raises(ValueError, match=reason):
        compare_labels(random_labels(0), b, SPACING, NAMES, NAMES)


def test_without_names_ids_count_and_names_come_from_the_other():
    assert match_classes({}, {}, {3}, {5}) == [Match("label 3", 3, 3), Match("label 5", 5, 5)]
    assert match_classes({0: "background"}, {1: "liver"}, {1, 9}, set()) == [
        Match("liver", 1, 1),
        Match("label 9", 9, None),
    ]


def test_a_label_without_a_name_has_its_number():
    assert match_classes({1: "liver"}, {4: "liver"}, {1, 9}, {4, 9}) == [Match("liver", 1, 4), Match("label 9", 9, 9)]


def test_one_name_for_two_ids_is_refused():
    with pytest.raises(ValueError, match=r"'Rib' twice"):
        match_classes({1: "Rib", 2: "rib"}, {1: "rib"}, set(), set())
