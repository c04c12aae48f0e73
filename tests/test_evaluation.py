import csv
from dataclasses import dataclass
from math import hypot, inf, isnan, nan, sqrt
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.surface_dice import compute_surface_dice
from scipy.spatial.distance import cdist

from monai_unetfamily.evaluation import (
    Score,
    evaluate_case,
    evaluate_folders,
    format_table,
    summarize,
    write_csv,
)

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
    assert score.hd95_mm == pytest.approx(shift * SPACING[axis])
    assert score.volume_ml == score.reference_ml == pytest.approx(64 * 0.8 * 1 * 5 / 1000)
    assert score.volume_error_ml == 0


def test_hd95_is_the_larger_direction():
    """A box inside a longer one: every voxel of the small box is near, the far end of the long one is not."""
    small, long = box(size=(2, 2, 2)), box(size=(10, 2, 2))
    # the long surface is 40 voxels; their distances along x are 0, 0, then 1..8 voxels, four voxels each
    steps = np.repeat([0, 0, *range(1, 9)], 4)
    expected = np.percentile(steps, 95) * SPACING[0]
    assert one(small, long).hd95_mm == pytest.approx(expected) == one(long, small).hd95_mm


@pytest.mark.parametrize("seed", range(4))
def test_hd95_equals_its_plain_definition(seed):
    def surface(mask):  # voxels with one of six neighbours outside, in mm
        solid = np.pad(mask, 1)
        inner = np.all([np.roll(solid, step, axis) for step in (-1, 1) for axis in range(3)], axis=0)
        return np.argwhere((solid & ~inner)[1:-1, 1:-1, 1:-1]) * SPACING

    prediction, reference = (blobs(seed + offset, classes=1) for offset in (0, 100))
    distances = cdist(surface(prediction == 1), surface(reference == 1))
    expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
    assert one(prediction, reference).hd95_mm == pytest.approx(expected, rel=1e-6)


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
    score = one(np.roll(box(), 1, axis=0), box(), tolerance_mm=0.5)
    assert score.surface_dice == pytest.approx(shared / area, rel=1e-5)


@pytest.mark.parametrize(("tolerance", "expected"), [(4.99, False), (5.0, True)])
def test_tolerance_is_in_mm_and_inclusive(tolerance, expected):
    score = one(np.roll(box(), 1, axis=2), box(), tolerance_mm=tolerance)
    assert (score.surface_dice == 1) is expected


@pytest.mark.parametrize("seed", range(5))
def test_cropping_changes_nothing(seed):
    """MONAI on the whole volume is the oracle; classes touch edges and each other."""
    prediction, reference = blobs(seed), blobs(seed + 50)
    names = {1: "a", 2: "b", 3: "c"}
    for label, score in zip(names, evaluate_case(prediction, reference, SPACING, names), strict=True):
        p, r = (torch.from_numpy(labels == label)[None, None] for labels in (prediction, reference))
        whole = {"include_background": True, "spacing": SPACING}
        assert score.dice == compute_dice(p, r).item()
        assert score.hd95_mm == compute_hausdorff_distance(p, r, percentile=95, **whole).item()
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
    assert one(empty, empty)[5:] == (0, 0, 0)
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
        ({"tolerance_mm": -1.0}, "0 or more"),
        ({"tolerance_mm": nan}, "0 or more"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"prediction": box(), "reference": box(), "spacing": SPACING, "classes": {1: "organ"}}
    with pytest.raises(ValueError, match=message):
        evaluate_case(**(arguments | change))


# --- folders


@dataclass
class Folders:
    """Two folders with cases a and b, where the prediction of b misses its organ."""

    predictions: Path
    references: Path

    def put(self, side, name, labels, affine=None):
        affine = np.diag([*SPACING, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(labels, affine), getattr(self, side) / name)

    def evaluate(self, **options):
        return evaluate_folders(self.predictions, self.references, **options)


@pytest.fixture
def folders(tmp_path):
    folders = Folders(tmp_path / "predictions", tmp_path / "references")
    folders.predictions.mkdir()
    folders.references.mkdir()
    folders.put("predictions", "a.nii.gz", box())
    folders.put("predictions", "b.nii.gz", box(label=0))
    folders.put("references", "a.nii", np.roll(box(), 1, axis=0))
    folders.put("references", "b.nii.gz", box(label=2))
    return folders


def test_folders_equal_their_cases(folders):
    lines = []
    names = {1: "liver", 2: "spleen"}
    found = folders.evaluate(classes=names, progress=lines.append)
    a = evaluate_case(box(), np.roll(box(), 1, axis=0), SPACING, names, case="a")
    b = evaluate_case(box(label=0), box(label=2), SPACING, names, case="b")
    np.testing.assert_equal([score[2:] for score in found], [score[2:] for score in a + b])
    assert [score[:2] for score in found] == [score[:2] for score in a + b]
    assert lines == ["1/2 a", "2/2 b"]


def test_classes_default_to_every_label_found(folders):
    assert [score.label for score in folders.evaluate()] == ["1", "2", "1", "2"]


def test_labels_stored_as_floats_or_4d_are_labels(folders):
    expected = folders.evaluate()
    folders.put("predictions", "a.nii.gz", box().astype(np.float32)[..., None])
    np.testing.assert_equal(folders.evaluate(), expected)


def test_part_of_a_folder_and_single_files(folders):
    prediction, reference = folders.predictions / "a.nii.gz", folders.references / "a.nii"
    expected = folders.evaluate(classes={1: "liver"})[:1]
    assert evaluate_folders(prediction, [reference], {1: "liver"}) == expected
    assert evaluate_folders(prediction, reference, {1: "liver"}) == expected
    renamed = reference.rename(reference.with_name("truth.nii"))
    assert evaluate_folders(prediction, renamed, {1: "liver"}) == expected
    with pytest.raises(ValueError, match=r"1 of 1 files without a reference, the first is .*a\.nii\.gz"):
        evaluate_folders(prediction, [renamed])


def test_hidden_files_are_no_cases(folders):
    (folders.predictions / "._a.nii.gz").write_bytes(b"resource fork")
    assert len(folders.evaluate(classes={1: "liver", 2: "spleen"})) == 4


def test_nothing_is_left_out_silently(folders):
    folders.put("predictions", "c.nii.gz", box())
    with pytest.raises(ValueError, match=r"1 of 3 files without a reference, the first is .*c\.nii\.gz"):
        folders.evaluate()
    for name in ("c.nii.gz", "d.nii.gz", "e.nii.gz"):
        folders.put("references", name, box())
    with pytest.raises(ValueError, match=r"2 of 5 files without a prediction, the first is .*d\.nii\.gz"):
        folders.evaluate()


def test_one_case_twice_is_refused(folders):
    folders.put("predictions", "a.nii", box())
    with pytest.raises(ValueError, match="for one case"):
        folders.evaluate()


SHEARED = np.diag([1.0, 1.0, 1.0, 1.0])
SHEARED[0, 2] = 0.1


@pytest.mark.parametrize(
    ("labels", "affine", "message"),
    [
        (box(shape=(14, 14, 13)), None, r"different grids in .*predictions.a\.nii.*references.a\.nii"),
        (box(), np.diag([0.8, 1.0, 5.01, 1.0]), "different grids"),
        (box() * 0.5, None, r"64 voxels in .*a\.nii\.gz that are no label"),
        (box().astype(np.float32) * nan, None, "no label"),
        (-box().astype(np.int16), None, "no label"),
        (np.stack([box(), box()], axis=-1), None, r"one label map per file"),
        (box(label=7), None, r"labels \[7\] in .*a\.nii\.gz; \[1, 2\] are allowed"),
    ],
)
def test_bad_files_are_refused_by_name(folders, labels, affine, message):
    folders.put("predictions", "a.nii.gz", labels, affine)
    with pytest.raises(ValueError, match=message):
        folders.evaluate(classes={1: "liver", 2: "spleen"})


def test_sheared_axes_are_refused(folders):
    for side, name in (("predictions", "a.nii.gz"), ("references", "a.nii")):
        folders.put(side, name, box(), SHEARED)
    with pytest.raises(ValueError, match="cosine"):
        folders.evaluate()


def test_affines_may_differ_by_rounding(folders):
    folders.put("predictions", "a.nii.gz", box(), np.diag([0.8, 1.0, 5.0005, 1.0]))
    assert len(folders.evaluate()) == 4


def test_missing_or_empty_folders(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_folders(tmp_path / "nowhere", folders.references)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty without"):
        evaluate_folders(tmp_path / "empty", folders.references)
    for name in ("a.nii.gz", "b.nii.gz"):
        folders.put("predictions", name, box(label=0))
    with pytest.raises(ValueError, match="only label 0 in 4 files"):
        evaluate_folders(
            folders.predictions, [folders.predictions / name for name in ("a.nii.gz", "b.nii.gz")]
        )


def test_real_references_agree_with_themselves(data_dir):
    files = sorted((data_dir / "hippocampus" / "labelsTr").glob("*.nii.gz"))[:2]
    files.append(data_dir / "hippocampus" / "labelsTr" / "hippocampus_243.nii.gz")  # stored as float32
    scores = [
        score for file in files for score in evaluate_folders(file, file, {1: "anterior", 2: "posterior"})
    ]
    assert [score[2:5] for score in scores] == [(1, 0, 1)] * 6
    # an adult's half hippocampus measures between half a millilitre and five
    assert all(0.5 < score.volume_ml < 5 for score in scores)


# --- tables


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
    assert liver[1:] == pytest.approx((3, 1, dice, sd, 4.0, 1.4 / 3, 4.0))
    assert spleen[1:] == pytest.approx((1, 0, 0.5, nan, 4.0, 0.6, 1.0), nan_ok=True)
    assert mean[0] == "mean"
    assert mean[1:] == pytest.approx((4, 1, (dice + 0.5) / 2, sd, 4.0, (1.4 / 3 + 0.6) / 2, 2.5))


def test_a_class_that_no_case_has_leaves_the_mean_alone():
    with_ghost = summarize([*SCORES, row("a", "ghost", nan, nan, nan)])
    assert with_ghost[-1] == summarize(SCORES)[-1]
    assert with_ghost[-2][1:3] == (0, 0)
    assert all(isnan(value) for value in with_ghost[-2][3:])


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


def test_csv_round_trip(tmp_path):
    write_csv(SCORES, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    back = [Score(r["case"], r["label"], *map(float, list(r.values())[2:])) for r in rows]
    np.testing.assert_equal(back, SCORES)
    assert rows[3]["dice"] == "nan"
    assert rows[4]["hd95_mm"] == "inf"


def test_csv_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.csv"
    write_csv(SCORES[:1], path)
    before = path.read_bytes()
    with pytest.raises(csv.Error):
        write_csv([*SCORES, 3], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]
