"""Overlapping masks are drawn so that each is seen, and as label maps are where they do not overlap."""

import numpy as np
import pytest

from monai_unetfamily.io import palette
from monai_unetfamily.reporting.overlay import radiological_planes
from tests.reporting.test_overlay import AFFINE, ORIENTATIONS, SHAPE, axcodes, count, patient, picture, stored


def nested():
    """The second class lies in the first and shares its lower half's outline; the third is apart."""
    masks = np.zeros((*SHAPE, 3), np.uint8)
    masks[2:9, 2:8, 1:6, 0] = 1
    masks[2:9, 2:8, 1:3, 1] = 1
    masks[10:, 8:, 6:, 2] = 1
    return masks


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=axcodes)
def test_pictures_of_masks_do_not_depend_on_storage(tmp_path, orientation):
    image, _ = patient()
    expected = picture(tmp_path / "ras.png", image, nested())
    (turned, affine), (masks, _) = (stored(volume, orientation) for volume in (image, nested()))
    np.testing.assert_array_equal(picture(tmp_path / "other.png", turned, masks, affine=affine), expected)


@pytest.mark.slow
def test_masks_that_do_not_overlap_are_drawn_as_a_label_map(tmp_path):
    image, labels = patient()
    masks = np.stack([labels == 1, labels == 2], axis=-1).astype(np.uint8)
    expected = picture(tmp_path / "a.png", image, labels, labels)
    np.testing.assert_array_equal(picture(tmp_path / "b.png", image, masks, masks), expected)


@pytest.mark.slow
def test_every_outline_of_nested_masks_is_seen(tmp_path):
    """Also in the axial plane, where the two outlines run together all the way; whichever class comes first."""
    image, masks = np.zeros(SHAPE), nested()[..., :2]
    masks[..., 3:, 0] = 0
    masks[3, 3, 3:5, 0] = 1
    for pair in (masks, masks[..., ::-1]):
        pixels = picture(tmp_path / "a.png", image, pair)[: -100 - pair.shape[0]]  # without the legend
        assert min(count(pixels, palette(1)), count(pixels, palette(2))) > 300


def test_slices_go_where_masks_overlap():
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[1:11, 1:9, 1:7, 0] = 1
    masks[5, 4, 3, 1] = 1
    for plane in radiological_planes(np.zeros(SHAPE), masks, AFFINE):
        assert plane.labels.any(axis=(0, 1)).all()


@pytest.mark.slow
def test_tints_mix_where_masks_overlap(tmp_path):
    image, masks = np.zeros(SHAPE), np.zeros((*SHAPE, 2), np.uint8)
    masks[1:11, 1:9, 1:7, 0] = 1
    masks[4:8, 3:7, 2:6, 1] = 1
    pixels = picture(tmp_path / "a.png", image, masks)
    one = 0.35 * np.array(palette(1))
    both = 0.65 * one + 0.35 * np.array(palette(2))
    for color in (one, both):
        assert count(pixels, color) > 3000
