from math import hypot, inf, isnan, nan, sqrt

import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.surface_dice import compute_surface_dice
from scipy.spatial.distance import cdist

from monai_unetfamily.evaluation import Score, evaluate_case

SPACING = (0.8, 1.0, 5.0)  # mm


def box(start=(3, 3, 3), size=(4, 4, 4), shape=(14, 14, 14), label=1):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return labels


def blobs(seed, shape=(20, 18, 12), classes=3):
    """Compact random regions, some of them on the volume's edge."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int16)
    for label in range(1, classes + 1):
        start = rng.integers(-2, np.array(shape) - 4)
        size = rng.integers(3, 8, 3)
        labels[tuple(slice(max(a, 0), a + n) for a, n in zip(start, size, strict=True))] = label
    return labels


def one(prediction, reference, spacing=SPACING, **options) -> Score:
    [score] = evaluate_case(prediction, reference, spacing, {1: "organ"}, **options)
    return score


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_shifted_boxes_agree_with_arithmetic(axis, shift):
    reference = box()
    score = one(np.roll(reference, shift, axis), reference)
    assert score.dice == pytest.approx((4 - shift) / 4)
    # 16 of 56 surface voxels (over 5 %) lie on the leading face, `shift` voxels away from the other box
    assert score.hd95 == pytest.approx(shift * SPACING[axis])
    assert score.volume_ml == score.reference_ml == pytest.approx(64 * 0.8 * 1 * 5 / 1000)
    assert score.volume_error_ml == 0


def test_hd95_is_the_larger_direction():
    """A box inside a longer one: every voxel of the small box is near, the far end of the long one is not."""
    small, long = box(size=(2, 2, 2)), box(size=(10, 2, 2))
    # the long surface is 40 voxels; their distances along x are 0, 0, then 1..8 voxels, four voxels each
    steps = np.repeat([0, 0, *range(1, 9)], 4)
    expected = np.percentile(steps, 95) * SPACING[0]
    assert one(small, long).hd95 == pytest.approx(expected) == one(long, small).hd95


@pytest.mark.parametrize("seed", range(4))
def test_hd95_equals_its_plain_definition(seed):
    def surface(mask):  # voxels with one of six neighbours outside, in mm
        solid = np.pad(mask, 1)
        inner = np.all([np.roll(solid, step, axis) for step in (-1, 1) for axis in range(3)], axis=0)
        return np.argwhere((solid & ~inner)[1:-1, 1:-1, 1:-1]) * SPACING

    prediction, reference = (blobs(seed + offset, classes=1) for offset in (0, 100))
    distances = cdist(surface(prediction == 1), surface(reference == 1))
    expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
    assert one(prediction, reference).hd95 == pytest.approx(expected, rel=1e-6)


def test_surface_dice_weighs_area_in_mm2():
    """Box of n^3 voxels, shifted by one along x, tolerance below it: only coinciding pieces of surface count.

    Surfaces run through voxel corners. A piece on a face has the face's area, on an edge the bevel between
    the midpoints of two voxel edges, on a corner the triangle between three.
    """
    (a, b, c), m = SPACING, 3  # n - 1
    triangle = sqrt((a * b) ** 2 + (b * c) ** 2 + (a * c) ** 2) / 8
    edge_x, edge_y, edge_z = m * hypot(b, c) / 2 * a, m * hypot(a, c) / 2 * b, m * hypot(a, b) / 2 * c
    area = 8 * triangle + 4 * (edge_x + edge_y + edge_z) + 2 * m**2 * (a * b + b * c + a * c)
    shared = 4 * triangle + 4 * edge_x + 2 * (edge_y + edge_z) + 2 * m**2 * (a * b + a * c)
    score = one(np.roll(box(), 1, axis=0), box(), tolerance=0.5)
    assert score.surface_dice == pytest.approx(shared / area, rel=1e-5)


@pytest.mark.parametrize(("tolerance", "expected"), [(4.99, False), (5.0, True)])
def test_tolerance_is_in_mm_and_inclusive(tolerance, expected):
    score = one(np.roll(box(), 1, axis=2), box(), tolerance=tolerance)
    assert (score.surface_dice == 1) is expected


@pytest.mark.parametrize("seed", range(5))
def test_cropping_changes_nothing(seed):
    """MONAI on the whole volume, or picture, is the oracle; classes touch edges and each other."""
    names = {1: "a", 2: "b", 3: "c"}
    volumes = blobs(seed), blobs(seed + 50)
    pictures = volumes[0].max(axis=2), volumes[1].max(axis=2)
    for (prediction, reference), spacing in ((volumes, SPACING), (pictures, None)):
        whole = {"include_background": True, "spacing": spacing or (1.0, 1.0)}
        for label, score in zip(names, evaluate_case(prediction, reference, spacing, names), strict=True):
            p, r = (torch.from_numpy(labels == label)[None, None] for labels in (prediction, reference))
            assert score.dice == compute_dice(p, r).item()
            assert score.hd95 == compute_hausdorff_distance(p, r, percentile=95, **whole).item()
            surface = compute_surface_dice(p, r, [1.0], use_subvoxels=True, **whole).item()
            assert score.surface_dice == pytest.approx(surface, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_symmetry_and_identity(seed):
    p, r = blobs(seed, classes=1), blobs(seed + 50, classes=1)
    there, back, same = one(p, r), one(r, p), one(p, p)
    assert there[2:5] == pytest.approx(back[2:5])
    assert there.volume_error_ml == -back.volume_error_ml == there.volume_ml - back.volume_ml
    assert same[2:5] == (1, 0, 1)
    assert same.volume_error_ml == 0


def test_scores_do_not_depend_on_storage():
    """Flipped views, Fortran order, big-endian and 64-bit labels: same voxels, same scores."""
    p, r = blobs(1, classes=1), blobs(51, classes=1)
    expected = one(p, r)
    assert one(np.asfortranarray(p), r.astype(">i4")) == expected
    assert one(p[::-1, :, ::-1].astype(np.int64), r[::-1, :, ::-1]) == expected


def test_absent_classes_are_never_dropped():
    empty, full = box(label=0), box()
    assert one(empty, full)[2:5] == (0, inf, 0)
    assert one(full, empty)[2:5] == (0, inf, 0)
    assert all(isnan(value) for value in one(empty, empty)[2:5])
    assert one(empty, empty)[5:8] == (0, 0, 0)
    assert one(empty, full).volume_error_ml == pytest.approx(-0.256)


def test_rows_follow_the_table_of_classes():
    labels = box(label=2) + box(start=(9, 9, 9), label=9)
    scores = evaluate_case(labels, labels, SPACING, {9: "spleen", 2: "liver"}, case="p01")
    assert [(score.case, score.label) for score in scores] == [("p01", "spleen"), ("p01", "liver")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": box(shape=(14, 14, 15))}, r"\(14, 14, 15\).*one shape"),
        ({"prediction": box()[0], "reference": box()[0]}, r"\(x, y, z\)"),
        ({"prediction": box().astype(float)}, "integers are allowed"),
        ({"spacing": (1.0, 1.0)}, "three positive lengths"),
        ({"spacing": (1.0, 0.0, 1.0)}, "three positive lengths"),
        ({"classes": {}}, "label ids from 1"),
        ({"classes": {0: "background", 1: "organ"}}, "leave the background out"),
        ({"classes": {1: "kidney", 2: "kidney"}}, "rename doubles"),
        ({"tolerance": -1.0}, "0 or more"),
        ({"tolerance": nan}, "0 or more"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"prediction": box(), "reference": box(), "spacing": SPACING, "classes": {1: "organ"}}
    with pytest.raises(ValueError, match=message):
        evaluate_case(**(arguments | change))


def square(start, size=(6, 8), shape=(20, 30)):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = 1
    return labels


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_pictures_are_scored_in_pixels(axis, shift):
    reference = square((5, 9))
    [score] = evaluate_case(np.roll(reference, shift, axis), reference, None, {1: "cell"}, tolerance=0.5)
    assert score.dice == pytest.approx(((6, 8)[axis] - shift) / (6, 8)[axis])
    assert score.hd95 == shift
    assert score.unit == "px"
    assert isnan(score.volume_ml)
    if shift == 1:
        # an outline through pixel corners has a bevel, half a diagonal, at each corner; of the two sides along the
        # shift, all straight pieces and one bevel of each square lie on the other's
        shared, outline = 2 * ((5, 7)[axis] + sqrt(0.5)), 2 * (5 + 7) + 4 * sqrt(0.5)
        assert score.surface_dice == pytest.approx(shared / outline, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [((4, 5, 6), None, r"\(rows, columns\)"), ((4, 5), SPACING, r"\(x, y, z\)"), ((4, 5), (1.0, 1.0), "x, y, z")],
)
def test_a_volume_is_no_picture(shape, spacing, message):
    labels = np.ones(shape, np.uint8)
    with pytest.raises(ValueError, match=message):
        evaluate_case(labels, labels, spacing, {1: "organ"})
