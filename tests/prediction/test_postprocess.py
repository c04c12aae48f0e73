"""Laws of what is kept: scipy's components as an oracle, counts that add up, and nothing that grows."""

import numpy as np
import pytest
from scipy import ndimage

from monai_unetfamily.prediction import find_ids, keep_largest, min_volume, select

AFFINE = np.array([[-0.7, 0.1, 0, 33], [0.1, 0.9, 0.3, -57], [0, -0.2, 5, 100], [0, 0, 0, 1]])
VOXEL_ML = abs(np.linalg.det(AFFINE)) / 1000
NAMES = {0: "background", 1: "liver", 2: "spleen", 3: "aorta"}


def blobs(shape: tuple[int, ...] = (20, 18, 16)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 0.8)
    return np.digitize(noise, np.quantile(noise, (0.75, 0.85, 0.95))).astype(np.uint8)


def parts(mask: np.ndarray) -> list[np.ndarray]:
    found, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return [found == number for number in range(1, count + 1)]


@pytest.mark.parametrize("shape", [(20, 18, 16), (60, 70)], ids=["volume", "picture"])
@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2", "i8"])
@pytest.mark.parametrize("order", "CF")
def test_the_largest_part_is_scipys(shape: tuple[int, ...], kind: str, order: str) -> None:
    labels = np.asarray(blobs(shape), kind, order=order)
    before = labels.copy()
    kept, removed = keep_largest(labels, [1, 3], len(shape))
    np.testing.assert_array_equal(labels, before)
    assert kept.dtype == labels.dtype
    np.testing.assert_array_equal(kept == 2, labels == 2)
    for label in (1, 3):
        sizes = sorted(int(part.sum()) for part in parts(labels == label))
        assert len(sizes) > 2
        [part] = parts(kept == label)
        assert part.sum() == sizes[-1]
        assert removed[label] == sum(sizes[:-1])
        assert (labels[part] == label).all()
    assert sum(removed.values()) == np.count_nonzero(kept != labels)
    assert not kept[kept != labels].any()


def test_least_volumes_are_scipys() -> None:
    labels = blobs()
    kept, removed = min_volume(labels, {1: 5 * VOXEL_ML, 2: 0.0, 3: 1e6}, AFFINE)
    expected = labels.copy()
    for part in parts(labels == 1):
        if part.sum() < 5:
            expected[part] = 0
    expected[labels == 3] = 0
    np.testing.assert_array_equal(kept, expected)
    lost = {label: int(((labels == label) & (kept == 0)).sum()) for label in (1, 3)}
    assert removed == lost
    assert lost[1] > 0


def test_a_part_of_exactly_the_least_volume_stays() -> None:
    labels = np.zeros((9, 9, 9), int)
    labels[1:4, 2, 2] = labels[6:8, 5, 5] = 1
    for spacing in (0.1, 0.3, 0.7, 1.1):
        affine = np.diag([spacing, spacing, spacing, 1])
        assert min_volume(labels, {1: 3 * spacing**3 / 1000}, affine)[1] == {1: 2}
    assert min_volume(labels, {1: 3.001 / 1000}, np.eye(4))[1] == {1: 5}


def test_corners_connect() -> None:
    labels = np.zeros((4, 4, 4), int)
    labels[[0, 1, 2], [0, 1, 2], [0, 1, 2]] = 1
    assert keep_largest(labels, [1])[1] == {}
    assert keep_largest(labels[..., 0] + np.eye(4, dtype=int), [1], axes=2)[1] == {}


@pytest.mark.parametrize("order", "CF")
def test_of_equal_parts_one_stays(order: str) -> None:
    labels = np.zeros((5, 5, 5), int, order=order)
    labels[0, 4, 4] = labels[4, 0, 0] = 1
    kept, removed = keep_largest(labels, [1])
    assert (kept[0, 4, 4] + kept[4, 0, 0], removed) == (1, {1: 1})


def test_masks_are_cleaned_as_label_maps_are() -> None:
    labels = blobs()
    masks = np.stack([labels == 1, labels == 2, labels == 3], axis=-1).astype(np.uint8)
    kept, removed = keep_largest(masks, [1, 3])
    expected, counts = keep_largest(labels, [1, 3])
    assert removed == counts
    for label in (1, 2, 3):
        np.testing.assert_array_equal(kept[..., label - 1], expected == label)
    masks[..., 1] = 1  # overlaps all
    np.testing.assert_array_equal(keep_largest(masks, [1])[0][..., 0], expected == 1)


def test_classes_that_are_nowhere_lose_nothing() -> None:
    labels = np.where(blobs() == 2, 2, 0)
    for volume in (labels, np.stack([labels == 1, labels == 2], axis=-1).astype(np.uint8)):
        for kept, removed in (keep_largest(volume, [1]), min_volume(volume, {1: 9.0}, AFFINE)):
            np.testing.assert_array_equal(kept, volume)
            assert removed == {}
    assert keep_largest(labels, [1, 250])[1] == {}
    assert keep_largest(np.zeros((3, 3, 3), int), [1])[1] == {}


def test_selected_classes_keep_their_ids() -> None:
    labels = blobs()
    np.testing.assert_array_equal(select(labels, [1, 3]), np.where(labels == 2, 0, labels))
    assert select(labels, [1]).dtype == labels.dtype
    assert not select(labels, [200]).any()
    masks = np.stack([labels == 1, labels > 0], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(select(masks, [2]), masks * np.array([0, 1], np.uint8))


def test_names_find_ids() -> None:
    assert find_ids(NAMES, ["SPLEEN", "liver"]) == [1, 2]
    assert find_ids(NAMES, []) == []
    message = r"got classes \['Liver2', 'background'\]; \['liver', 'spleen', 'aorta'\] are allowed"
    with pytest.raises(ValueError, match=message):
        find_ids(NAMES, ["background", "spleen", "Liver2"])
