"""Laws of measures: hand calculations, scipy's as an oracle, and what must not depend on how a volume is stored."""

import csv
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform
from scipy import ndimage

from monai_unetfamily.reporting import Measure, measure, write_csv

NAMES = {0: "background", 1: "liver", 2: "spleen", 5: "aorta", 7: "nowhere"}
AFFINE = np.array([[-0.7, 0.1, 0, 33.3], [0.1, 0.9, 0.3, -57.7], [0, -0.2, 5, 100], [0, 0, 0, 1]])
SHAPE = (9, 8, 7)


def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 0, 1, 2, 5], SHAPE).astype(np.uint8)
    return labels, rng.normal(50, 20, SHAPE).astype(np.float32)


def by_name(rows: list[Measure]) -> dict[str, Measure]:
    return {row.name: row for row in rows}


@pytest.mark.parametrize("kind", ["u1", "<u2", ">i4", "i8"])
@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
def test_scipy_measures_the_same(kind: str, orders: str) -> None:
    labels, image = case()
    rows = measure(np.asarray(labels, kind, order=orders[0]), np.asarray(image, order=orders[1]), AFFINE, NAMES)
    assert [row.label for row in rows] == [1, 2, 5, 7]
    for row in rows[:3]:
        mask = labels == row.label
        assert row.voxels == mask.sum()
        assert row.volume_ml == pytest.approx(mask.sum() * abs(np.linalg.det(AFFINE)) / 1000)
        assert row.mean == pytest.approx(ndimage.mean(image.astype(float), mask), rel=1e-12)
        assert row.sd == pytest.approx(ndimage.standard_deviation(image.astype(float), mask), rel=1e-10)
        center = nib.affines.apply_affine(AFFINE, ndimage.center_of_mass(mask))
        assert (row.centroid_x, row.centroid_y, row.centroid_z) == pytest.approx(tuple(center))
        [box] = ndimage.find_objects(mask.astype(int))
        assert (row.i_min, row.j_min, row.k_min) == tuple(side.start for side in box)
        assert (row.i_max, row.j_max, row.k_max) == tuple(side.stop - 1 for side in box)


def test_voxels_of_the_classes_are_those_of_the_volume() -> None:
    labels, image = case()
    rows = measure(labels, image, AFFINE, NAMES)
    assert sum(row.voxels for row in rows) == np.count_nonzero(labels)
    total = sum(row.voxels * row.mean for row in rows if row.mean is not None)
    assert total == pytest.approx(image[labels > 0].sum(dtype=float))


def test_an_absent_class_is_a_row_of_nothing() -> None:
    labels, image = case()
    absent = by_name(measure(labels, image, AFFINE, NAMES, "a", {7: 0.02}))["nowhere"]
    assert absent == Measure("a", 7, "nowhere", 0.0, 0, *[None] * 5, "mm", *[None] * 6, False, "", 0.02)
    assert all(row.voxels == 0 for row in measure(np.zeros(SHAPE, int), image, AFFINE, NAMES))


@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)), ids=str)
@pytest.mark.parametrize("axes", list(permutations(range(3))), ids=str)
def test_the_patient_does_not_depend_on_storage(axes: tuple[int, ...], flips: tuple[int, ...]) -> None:
    labels, image = np.zeros(SHAPE, np.uint8), case()[1]
    labels[6:, 1:4, :3] = 1  # reaches the left (x falls with i) and the feet
    labels[2, 7, 6] = 2  # the front and the head
    turn = ornt_transform([[0, 1], [1, 1], [2, 1]], np.array(list(zip(axes, flips, strict=True))))
    turned = AFFINE @ inv_ornt_aff(turn, SHAPE)
    found = measure(apply_orientation(labels, turn), apply_orientation(image, turn), turned, {1: "liver", 2: "spleen"})
    for row, wanted in zip(found, measure(labels, image, AFFINE, {1: "liver", 2: "spleen"}), strict=True):
        for field in ("volume_ml", "mean", "sd", "centroid_x", "centroid_y", "centroid_z"):
            assert getattr(row, field) == pytest.approx(getattr(wanted, field)), field
        assert (row.voxels, row.touches_border) == (wanted.voxels, True)
        assert sorted(row.border_faces.split()) == [["inferior", "left"], ["anterior", "superior"]][row.label - 1]


def test_the_border_is_the_outermost_layer() -> None:
    labels = np.zeros((5, 5, 5), int)
    labels[1:4, 1:4, 1:4] = 1
    assert not measure(labels, labels * 1.0, np.eye(4), {1: "a"})[0].touches_border
    words = [("left", "right"), ("posterior", "anterior"), ("inferior", "superior")]
    for axis, end in product(range(3), range(2)):
        place = [2, 2, 2]
        place[axis] = 4 * end
        at_border = labels.copy()
        at_border[tuple(place)] = 1
        [row] = measure(at_border, labels * 1.0, np.eye(4), {1: "a"})
        assert (row.touches_border, row.border_faces) == (True, words[axis][end])


def test_the_border_of_a_box_is_its_faces() -> None:
    labels, box = np.zeros((9, 9, 9), np.uint8), ((2, 7), (3, 8), (1, 6))
    labels[2, 5, 3] = labels[4, 4, 5] = 1  # the box's left and superior layers
    labels[4, 5, 3] = 2
    first, second = measure(labels, labels, np.eye(4), {1: "cut", 2: "inside"}, box=box)
    assert (first.border_faces, first.i_min, first.centroid_x) == ("left superior", 2, 3.0)
    assert not second.touches_border


def test_masks_that_overlap_are_each_measured() -> None:
    labels, image = case()
    masks = np.stack([labels > 0, labels == 2, labels == 99], axis=-1).astype(np.uint8)
    rows = measure(masks, image, AFFINE, {1: "any", 2: "spleen", 3: "none"})
    assert rows[1]._replace(label=0) == measure(labels, image, AFFINE, {2: "spleen"})[0]._replace(label=0)
    assert rows[0]._replace(label=0, name="") == measure((labels > 0) * 1, image, AFFINE, {1: ""})[0]._replace(label=0)
    assert rows[2].voxels == 0
    [fortran] = measure(np.asfortranarray(masks), image, AFFINE, {2: "spleen"})
    assert fortran == rows[1]._replace(mean=pytest.approx(rows[1].mean), sd=pytest.approx(rows[1].sd))


def test_pictures_have_pixels_and_no_volume() -> None:
    labels = np.zeros((6, 10), np.uint8)
    labels[0:3, 4:6] = 3
    [row] = measure(labels, np.ones((6, 10)), np.eye(3), {3: "cell"}, "a")
    expected = Measure(
        "a", 3, "cell", None, 6, 1.0, 0.0, 4.5, 1.0, None, "px", 0, 2, 4, 5, None, None, True, "top", None
    )
    assert row == expected
    assert measure(labels.T, np.ones((10, 6)), np.eye(3), {3: "cell"})[0].border_faces == "left"


def test_a_constant_organ_has_no_spread_however_bright() -> None:
    labels = np.ones((40, 40, 40), np.uint8)
    [row] = measure(labels, np.full(labels.shape, 1e6 + 0.25, np.float32), AFFINE, {1: "a"})
    assert (row.mean, row.sd) == (1e6 + 0.25, 0)


def test_ids_without_a_name_are_not_measured() -> None:
    labels, image = case()
    labels[0, 0, 0] = 250
    assert measure(labels, image, AFFINE, {2: "spleen"}) == [by_name(measure(labels, image, AFFINE, NAMES))["spleen"]]


def test_a_table_is_read_back(tmp_path: Path) -> None:
    rows = measure(*case(), AFFINE, NAMES, 'a, "b"')
    write_csv(rows, tmp_path / "volumes.csv")
    with (tmp_path / "volumes.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == list(Measure._fields)
    assert [row["case"] for row in read] == ['a, "b"'] * 4
    assert [float(row["volume_ml"]) for row in read] == [row.volume_ml for row in rows]
    assert (read[3]["voxels"], read[3]["mean"], read[3]["i_min"]) == ("0", "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["volumes.csv"]


@pytest.mark.parametrize(
    ("labels", "image", "affine"),
    [
        ((4, 5, 6), (4, 5, 7), np.eye(4)),
        ((4, 5, 6), (4, 5), np.eye(4)),
        ((4, 5), (4, 5), np.eye(4)),
        ((4, 5, 6), (4, 5, 6), np.eye(3)),
        ((4, 5, 6, 2, 1), (4, 5, 6), np.eye(4)),
    ],
)
def test_shapes_that_differ_are_refused(labels: tuple[int, ...], image: tuple[int, ...], affine: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one grid of . axes"):
        measure(np.ones(labels, int), np.ones(image), affine, {1: "a"})
