"""Where voxels are shown: exact inverses, radiological orientation, one world for all volumes of a patient."""

from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from scipy.spatial.transform import Rotation

from napari_plugin.layers import grid_of, placement, reorientation_of
from napari_plugin.layers.geometry import Affine

CODES = ["".join(code) for axes in permutations(("LR", "PA", "IS")) for code in product(*axes)]
SHAPE = (3, 4, 5)


def affine_of(code: str, degrees: tuple[float, ...] = (0, 0, 0)) -> Affine:
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    turned[:3, 3] = -31, 7, 100
    return turned @ np.diag([1.5, 2.0, 5.0, 1.0]) @ inv_ornt_aff(axcodes2ornt(code), SHAPE)


def numbered(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape)


def layer_of(affine: Affine, shape: tuple[int, ...] = SHAPE, **metadata: Any) -> Labels:
    shown = reorientation_of(affine).view(np.zeros(shape, np.uint8))
    return Labels(
        shown, **placement(affine, shape), metadata={"affine": affine, "kind": "volume", **metadata}, name="a"
    )


def header_of(affine: Affine, shape: tuple[int, ...]) -> nib.Nifti1Header:
    return nib.Nifti1Image(np.zeros(shape, np.int16), affine).header


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -20, 9)], ids=["straight", "oblique"])
def test_shown_axes_run_down_back_and_left(code: str, degrees: tuple[float, ...]) -> None:
    affine = affine_of(code, degrees)
    for shown, toward in enumerate((2, 1, 0)):  # S, A, R of RAS+
        mm = reorientation_of(affine).view(apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))[..., toward])
        assert (np.diff(mm, axis=shown) < 0).all()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 5, 2)])
def test_a_view_of_the_same_memory_that_is_undone(code: str, shape: tuple[int, ...]) -> None:
    voxels, reorientation = numbered(*shape), reorientation_of(affine_of(code))
    shown = reorientation.view(voxels)
    assert np.shares_memory(shown, voxels)
    assert np.shares_memory(reorientation.undo(shown), voxels)
    np.testing.assert_array_equal(reorientation.undo(shown), voxels)
    np.testing.assert_array_equal(reorientation.view(reorientation.undo(shown)), shown)


@pytest.mark.parametrize("code", CODES)
def test_one_world_for_every_order_of_axes(code: str) -> None:
    affine = affine_of(code)
    placed = placement(affine, SHAPE)
    mm = apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    for shown, toward in enumerate((2, 1, 0)):
        expected = reorientation_of(affine).view(-mm[..., toward])
        steps = np.arange(expected.shape[shown]) * placed["scale"][shown] + placed["translate"][shown]
        np.testing.assert_allclose(
            np.moveaxis(expected, shown, -1), np.broadcast_to(steps, np.moveaxis(expected, shown, -1).shape)
        )


def test_an_oblique_volume_is_shown_about_its_centre() -> None:
    affine = affine_of("LPS", (12, -20, 9))
    placed = placement(affine, SHAPE)
    shown = np.array(reorientation_of(affine).view(np.zeros(SHAPE)).shape)
    centre = placed["translate"] + placed["scale"] * (shown - 1) / 2
    np.testing.assert_allclose(centre, -apply_affine(affine, (np.array(SHAPE) - 1) / 2)[::-1])


def test_more_axes_come_first_and_fewer_are_left_out() -> None:
    affine = affine_of("LPS")
    assert placement(affine, (3, 4, 5, 2))["axis_labels"] == ("t", "S-I", "A-P", "R-L")
    assert placement(affine, (3, 4, 5, 2))["units"] == ("pixel", "mm", "mm", "mm")
    assert placement(affine, (3, 4))["axis_labels"] == ("A-P", "R-L")
    np.testing.assert_array_equal(placement(affine, (3, 4))["scale"], [2.0, 1.5])


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4)])
def test_the_grid_of_a_file_is_its_header_to_the_bit(shape: tuple[int, ...]) -> None:
    affine = affine_of("PIR", (3, 4, 5))
    header = header_of(affine, shape)
    header.set_qform(affine, 3)
    header["descrip"] = b"a scanner"
    image = grid_of(layer_of(header.get_best_affine(), shape[:3], header=header)).image
    assert image.shape == shape
    assert (image.affine == header.get_best_affine()).all()
    assert image.header["qform_code"] == 3
    assert image.header["descrip"] == header["descrip"]


def test_the_grid_of_four_axes_has_three() -> None:
    affine = affine_of("LPS")
    layer = Image(
        reorientation_of(affine).view(numbered(3, 4, 5, 2)),
        metadata={"affine": affine, "header": header_of(affine, (3, 4, 5, 2)), "kind": "volume"},
    )
    assert grid_of(layer).image.shape == SHAPE


def test_a_grid_without_a_header_gets_both_forms() -> None:
    affine = affine_of("LPS")
    grid = grid_of(layer_of(affine, header=None))
    np.testing.assert_allclose(grid.image.affine, affine)
    assert [int(grid.image.header[f"{form}_code"]) for form in ("sform", "qform")] == [1, 1]
    assert not grid.notes


def test_a_layer_that_was_moved_stays_where_its_file_has_it() -> None:
    affine = affine_of("LPS")
    layer = layer_of(affine, header=None)
    layer.translate = layer.translate + 1
    grid = grid_of(layer)
    np.testing.assert_allclose(grid.image.affine, affine)
    assert grid.notes == ("a: was moved in napari; it stays where its file has it",)


def test_metadata_that_do_not_fit_the_shape_are_not_used() -> None:
    affine = affine_of("LPS")
    layer = layer_of(affine, header=header_of(affine, SHAPE))
    cropped = Labels(
        layer.data[1:],
        scale=layer.scale,
        translate=layer.translate + np.array([5, 0, 0]),
        metadata=layer.metadata,
        units=layer.units,
    )
    grid = grid_of(cropped)
    assert len(grid.notes) == 1
    assert grid.image.shape == grid.reorientation.undo(cropped.data).shape
    last = np.array(grid.image.shape) - 1
    np.testing.assert_allclose(
        apply_affine(grid.image.affine, last),
        -(np.array(cropped.data_to_world([0, 0, 0])) + (np.array(cropped.data.shape) - 1) * cropped.scale)[::-1],
    )


def test_an_affine_of_another_plugin_is_not_ours() -> None:
    layer = Labels(np.zeros(SHAPE, int), metadata={"affine": np.eye(3)})
    assert len(grid_of(layer).notes) == 2


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (2, 3, 4, 5)])
def test_a_composed_grid_tells_what_napari_was_told(shape: tuple[int, ...]) -> None:
    n = len(shape)
    layer = Image(np.zeros(shape), scale=(1, 5, 2, 1.5)[-n:], translate=(0, -7, 3, 11)[-n:], units=("um",) * n)
    grid = grid_of(layer)
    for index in ((0, 0, 0), (1, 2, 0)):
        shown = np.array([0, *index[::-1]])[-n:]
        expected = np.pad(np.array(layer.data_to_world(shown)) / 1000, (4 - n, 0))[1:]
        np.testing.assert_allclose(apply_affine(grid.image.affine, index)[: min(n, 3)], -expected[::-1][: min(n, 3)])
    assert reorientation_of(grid.image.affine) == grid.reorientation
    assert len(grid.notes) == 1


def test_pixels_are_taken_for_millimetres_and_noted() -> None:
    grid = grid_of(Labels(np.zeros(SHAPE, int)))
    assert grid.image.header.get_zooms() == (1, 1, 1)
    assert any("1 mm" in note for note in grid.notes)


def test_a_layer_turned_by_hand_is_refused() -> None:
    with pytest.raises(ValueError, match="turned or mirrored"):
        grid_of(Labels(np.zeros(SHAPE, int), rotate=(90, 0, 0)))
    with pytest.raises(ValueError, match="5 axes"):
        grid_of(Image(np.zeros((2, 2, 2, 2, 2))))


@pytest.mark.slow
def test_labels_made_by_hand_lie_where_the_image_does(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    affine = affine_of("PIR", (3, 4, 5))
    header = header_of(affine, SHAPE)
    viewer.add_layer(layer_of(header.get_best_affine(), header=header))
    viewer._new_labels()
    grid = grid_of(viewer.layers[-1])
    assert (grid.image.affine == header.get_best_affine()).all()
    assert not grid.notes
