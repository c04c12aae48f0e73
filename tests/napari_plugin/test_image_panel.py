"""What a bundle can take, and the box that is meant: facts of layers, without a window."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Shapes

from monai_unetfamily.bundles import Card, find_bundle, read_card
from napari_plugin.layers import box_in_view, drawn_box, file_box, placement, reorientation_of, slice_axis
from napari_plugin.layers.geometry import Reorientation
from napari_plugin.panels.image_panel import Verdict, check

CT = read_card(find_bundle("phantom_ct"))
MR = read_card(find_bundle("hippocampus_mr"))
PICTURES = read_card(find_bundle("phantom_2d"))
BRAIN = Card(**vars(MR) | {"channels": ("T1", "FLAIR"), "name": "Brain"})
AIR = np.linspace(-1000, 1000, 60, dtype=np.float32).reshape(3, 4, 5)
AFFINE = np.diag([2.0, 3.0, 5.0, 1.0])


def volume(values: Any = AIR, *, affine: Any = AFFINE, name: str = "scan", **keywords: Any) -> Image:
    placed = placement(affine, np.shape(reorientation_of(affine).undo(values)))
    return Image(values, name=name, metadata={"affine": affine, "kind": "volume"}, **placed | keywords)


ELSEWHERE = AFFINE + np.eye(4, k=3) * 7
TAKEN = {
    "CT for a CT bundle": (CT, [volume()]),
    "a layer with a scale and no file": (CT, [Image(AIR, scale=(5, 1, 1))]),
    "a picture": (PICTURES, [Image(np.zeros((4, 5)))]),
    "a layer for each channel": (BRAIN, [volume(abs(AIR)), volume(abs(AIR), name="other")]),
    "a 4-D layer for all channels": (BRAIN, [volume(np.stack([abs(AIR)] * 2)), None]),
}
REFUSED = {
    "nothing": (CT, [None], "No image is chosen: open one"),
    "a picture for a bundle for volumes": (CT, [Image(np.zeros((4, 5)))], "is a 2-D layer, and .* takes volumes"),
    "a volume for a bundle for pictures": (PICTURES, [volume()], "is a volume, and .* takes 2-D pictures"),
    "a stack of colours": (CT, [Image(np.zeros((3, 4, 5, 3), np.uint8), rgb=True)], "stack of colour pictures"),
    "a pyramid": (CT, [Image([np.zeros((8, 8, 8)), np.zeros((4, 4, 4))], multiscale=True)], "pyramid"),
    "too few channels": (BRAIN, [volume(), None], "takes 2 channels .T1, FLAIR.: choose a layer for each"),
    "one layer twice": (BRAIN, [same := volume(), same], "stands for two channels"),
    "too many channels": (
        CT,
        [volume(np.stack([AIR] * 3))],
        "is 4-D, 3 volumes over time or channels, and .* takes a single volume",
    ),
    "colours for grey": (PICTURES, [Image(np.zeros((4, 5, 3), np.uint8), rgb=True)], "has 3 channels"),
    "other shapes": (BRAIN, [volume(), volume(AIR[:2])], r"has \(2, 4, 5\) voxels"),
    "other places": (BRAIN, [volume(), volume(affine=ELSEWHERE, name="b")], "“b” lies elsewhere than “scan”"),
}
DOUBTED = {
    "CT without air": (CT, AIR * 0 + np.arange(5), "run from 0 to 4: CT in Hounsfield units has air"),
    "MR below zero": (MR, AIR, "that looks like CT"),
}


@pytest.mark.parametrize(("card", "layers"), TAKEN.values(), ids=TAKEN)
def test_what_fits_is_taken_without_a_word(card: Card, layers: list[Image | None]) -> None:
    assert check(card, layers) == Verdict()


@pytest.mark.parametrize(("card", "layers", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_named(card: Card, layers: list[Image | None], problem: str) -> None:
    verdict = check(card, layers)
    assert re.search(problem, verdict.problem), verdict
    assert not verdict.asks_spacing


@pytest.mark.parametrize(("card", "values", "warning"), DOUBTED.values(), ids=DOUBTED)
def test_what_looks_like_another_modality_is_doubted_and_taken(card: Card, values: Any, warning: str) -> None:
    verdict = check(card, [volume(values)])
    assert warning in verdict.warning
    assert not verdict.problem


def test_a_voxel_size_is_asked_for_where_nothing_states_one() -> None:
    verdict = check(CT, [Image(AIR, name="tiff")])
    assert verdict.asks_spacing
    assert "“tiff” has no voxel size" in verdict.problem


def test_a_picture_needs_no_voxel_size() -> None:
    assert not check(PICTURES, [Image(np.zeros((4, 5)))]).asks_spacing


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SLA"])
def test_a_box_of_the_shown_axes_is_that_box_of_the_file(orientation: str) -> None:
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff

    shape = (4, 5, 6)
    reorientation = reorientation_of(AFFINE @ inv_ornt_aff(axcodes2ornt(orientation), shape))
    voxels = np.arange(120).reshape(shape)
    shown, box = reorientation.view(voxels), ((1, 3), (0, 2), (2, 4))
    there = shown[tuple(slice(*span) for span in box)]
    here = voxels[tuple(slice(*span) for span in file_box(box, shown.shape, reorientation))]
    assert sorted(there.ravel()) == sorted(here.ravel())


def test_a_rectangle_takes_the_voxels_whose_centres_it_holds() -> None:
    image, shapes = volume(), Shapes(ndim=3, name="box")
    corners = [
        image.data_to_world((1, row, column)) for row, column in ((0.6, 1.4), (0.6, 3.4), (2.4, 3.4), (2.4, 1.4))
    ]
    shapes.add_rectangles(np.array(corners))
    assert drawn_box(image, shapes, 0, (0, 1)) == ((0, 2), (1, 3), (1, 4))


def test_the_selected_rectangle_counts_else_the_last() -> None:
    image, shapes = volume(affine=np.eye(4)), Shapes(ndim=3)
    for low, high in ((0, 1), (2, 3)):
        square = [(0, low, low), (0, low, high), (0, high, high), (0, high, low)]
        shapes.add_rectangles(np.array([image.data_to_world(corner) for corner in square]))
    shapes.selected_data = {0}
    assert drawn_box(image, shapes, 0, (0, 0)) == ((0, 1), (0, 2), (0, 2))
    shapes.selected_data = set()
    assert drawn_box(image, shapes, 0, (0, 0)) == ((0, 1), (2, 4), (2, 4))


@pytest.mark.parametrize("far", [100, -100])
def test_a_rectangle_beside_the_image_is_refused(far: float) -> None:
    shapes = Shapes(ndim=3, name="box")
    shapes.add_rectangles(np.array([(0, far, far), (0, far, far + 9), (0, far + 9, far + 9), (0, far + 9, far)]))
    with pytest.raises(ValueError, match="the rectangle of “box” lies beside “scan”"):
        drawn_box(volume(), shapes, 0, (0, 1))


def test_other_shapes_are_no_rectangle() -> None:
    shapes = Shapes([np.array([(0, 0, 0), (0, 2, 2)])], shape_type="line", name="box")
    with pytest.raises(ValueError, match="“box” has no rectangle"):
        drawn_box(volume(), shapes, 0, (0, 1))


def test_the_view_is_a_box() -> None:
    image = volume()
    image.corner_pixels = np.array([[0, 1, 2], [0, 2, 4]])
    assert box_in_view(image, 0, (1, 2)) == ((1, 3), (1, 3), (2, 5))


def test_slices_are_counted_along_the_axis_that_slides() -> None:
    image, four = volume(), volume(np.stack([AIR] * 2))
    assert slice_axis(image, (0, 1, 2), 2) == 0
    assert slice_axis(image, (2, 0, 1), 2) == 2
    assert slice_axis(four, (0, 1, 2, 3), 2) == 1
    assert slice_axis(image, (0, 1, 2), 3) is None
    assert slice_axis(image, (0, 1), 2) is None  # it has just left the viewer


def test_a_box_and_its_turn_come_back() -> None:
    reorientation = Reorientation((1, 2, 0), (True, False, True))
    assert file_box(((0, 4), (0, 5), (0, 6)), (4, 5, 6), reorientation) == ((0, 6), (0, 4), (0, 5))


def test_cards_of_shipped_bundles_say_who_they_are_for() -> None:
    assert (CT.phantoms_only, PICTURES.phantoms_only, MR.phantoms_only) == (True, True, False)
    assert Path(CT.root).is_dir()
