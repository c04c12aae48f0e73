"""What may be chosen in the widget, in a real window: image, region, options; and what it says of a choice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import nibabel as nib
import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QScrollArea, QWidget

from monai_unetfamily.bundles import METADATA
from monai_unetfamily.io import format_box
from napari_plugin.layers import ORIENTATIONS, grid_of
from napari_plugin.panels.options_panel import DRAWN, VIEW
from tests.support.desk import Desk, by_command, in_file_order, with_network
from tests.support.tiers import sampled
from tests.support.tiny import weigh

pytestmark = pytest.mark.slow

QTS = ("qt_", "Scroll")  # what Qt calls parts of its own, such as the buttons of a bar with too many tabs


def test_a_box_has_the_labels_of_the_whole_run(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    desk.choose(bundle)
    region = desk.widget.options.region
    region.choice.setCurrentText(DRAWN)
    assert "No rectangle is drawn" in desk.widget.runs.start.toolTip()
    desk.press("draw_box")
    shapes, scan = desk.viewer.layers["box"], desk.viewer.layers[0]
    assert shapes.mode == "add_rectangle"
    z, y, x = (n // 2 for n in scan.data.shape)
    corners = [(z, y - 4, x - 5), (z, y - 4, x + 5), (z, y + 4, x + 5), (z, y + 4, x - 5)]
    shapes.add_rectangles(np.array(corners))
    region.last.setValue(z + 3)
    region.first.setValue(z - 2)
    layer = desk.run()
    labels = np.asarray(layer.data)
    whole = grid_of(scan).reorientation.view(by_command(bundle, image, tmp_path / "labels"))
    inside = (slice(z - 2, z + 4), slice(y - 4, y + 5), slice(x - 5, x + 6))
    expected = np.zeros_like(whole)
    expected[inside] = whole[inside]
    assert np.array_equal(labels, expected)
    model = desk.widget.results.view.model
    cut = {row.name: row.border_faces for row in model.rows if row.voxels}
    assert all(cut.values())  # the box lies in the middle of the body, and the organs there continue outside
    rows = [[model.index(n, k).data() for k in (1, 2)] for n in range(model.rowCount())]
    assert [text for name, text in rows if name not in cut] == ["-"] * (len(rows) - len(cut))
    assert "in the box" in desk.widget.results.view.line.text()


def test_the_result_of_a_box_is_a_layer_beside_that_of_the_whole(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    whole = desk.run()
    before = np.asarray(whole.data).copy()
    region = desk.widget.options.region
    region.choice.setCurrentText(VIEW)
    region.last.setValue(3)
    part = desk.run()
    assert desk.labels == [whole, part]
    assert np.array_equal(whole.data, before)
    assert part.name == f"{whole.name} box {format_box(part.metadata['box'])}"


def test_a_click_is_no_box(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.widget.options.region.choice.setCurrentText(DRAWN)
    desk.press("draw_box")
    shapes = desk.viewer.layers["box"]
    shapes.add_rectangles(np.array([(4, 8, 9), (4, 8, 9.2), (4, 8.2, 9.2), (4, 8.2, 9)]))
    desk.wait(lambda: "covers one voxel" in desk.line)
    assert not desk.widget.runs.start.isEnabled()


def test_the_view_is_a_box_too(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.viewer.scene.camera.zoom *= 3
    region = desk.widget.options.region
    region.choice.setCurrentText(VIEW)
    sizes = desk.viewer.layers[0].data.shape[1:]
    desk.wait(lambda: all(stop - first < n for (first, stop), n in zip(region.box()[1:], sizes, strict=True)))
    (_, _), *spans = region.box()
    labels = np.asarray(desk.run().data)
    (top, bottom), (left, right) = spans
    labels[:, top:bottom, left:right] = 0
    assert not labels.any()


def test_the_depth_is_a_level_of_the_command(desk: Desk, untrained: Path, image: Path, tmp_path: Path) -> None:
    bundle = with_network(untrained, "unetplusplus")
    desk.choose(bundle)
    slider = desk.widget.options.level
    assert (slider.minimum(), slider.maximum(), slider.value()) == (1, 2, 2)
    slider.setValue(1)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels", level=1))
    slider.setValue(2)
    desk.run()
    assert [layer.name.removeprefix(desk.viewer.layers[0].name) for layer in desk.labels] == [" bundle L1", " bundle"]
    assert desk.widget.compare.pair == tuple(desk.labels)


def test_a_threshold_of_presence_empties_classes(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    options = desk.widget.options
    options.gates.setChecked(True)
    options.presence.setValue(1.0)
    assert not np.asarray(desk.run().data).any()


def test_options_that_a_bundle_lacks_are_hidden(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    form, options = desk.widget.options.form, desk.widget.options
    assert not form.isRowVisible(options.level)
    assert not form.isRowVisible(options.mirror)
    assert form.isRowVisible(options.gates)


def test_mirroring_is_that_of_the_command(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    file = bundle / "configs" / METADATA
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mirror_axes": [1]}))
    desk.choose(bundle)
    desk.widget.options.mirror.setChecked(True)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels", mirror=True))


def test_overlap_is_that_of_the_command(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    desk.choose(bundle)
    desk.widget.options.overlap.setValue(0.6)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels", overlap=0.6))


def test_the_reason_why_run_is_disabled(desk: Desk, bundle: Path) -> None:
    run = desk.widget.runs.start
    assert (run.isEnabled(), run.toolTip(), desk.line) == (False, "Choose a bundle.", "Choose a bundle.")
    desk.choose(bundle)
    assert run.isEnabled()
    desk.viewer.layers.clear()
    assert not run.isEnabled()
    assert "No image is chosen" in run.toolTip()


def test_a_voxel_size_that_is_missing_is_asked_for(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, bundle: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    desk.viewer.add_image(np.random.default_rng(0).normal(-300, 500, (16, 26, 32)).astype(np.float32), name="tiff")
    desk.choose(bundle)
    assert not desk.widget.runs.start.isEnabled()
    for box, size in zip(desk.widget.images.spacing.sizes, (8, 9, 12.5), strict=True):
        box.setValue(size)
    desk.press("set_spacing")
    layer = desk.viewer.layers["tiff"]
    assert layer.scale.tolist() == [12.5, 9, 8]
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    desk.run()


@pytest.mark.parametrize(
    ("plane", "right", "down"),
    [("axial", "left", "posterior"), ("coronal", "left", "inferior"), ("sagittal", "posterior", "inferior")],
)
def test_planes_are_shown_as_radiologists_look_at_them(desk: Desk, plane: str, right: str, down: str) -> None:
    desk.press(f"plane_{plane}")
    world = {0: "inferior", 1: "posterior", 2: "left"}  # what grows along each axis
    rows, columns = desk.viewer.dims.displayed
    assert (world[columns], world[rows]) == (right, down)


def test_nothing_is_cut_off_in_a_narrow_window(desk: Desk, bundle: Path) -> None:
    desk.viewer.window.resize(1280, 800)
    desk.choose(bundle)
    desk.widget.options.fold.expand(False)
    desk.widget.options.region.choice.setCurrentText(DRAWN)
    desk.widget.options.gates.setChecked(True)
    scroll = desk.widget.findChild(QScrollArea)
    desk.wait(lambda: scroll.widget().width() <= scroll.viewport().width())


def test_every_control_has_a_name_and_a_tooltip(desk: Desk, bundle: Path) -> None:
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox

    desk.choose(bundle)
    kinds = QAbstractButton, QAbstractSpinBox, QComboBox
    own: list[QWidget] = [w for kind in kinds for w in desk.widget.findChildren(kind) if w.objectName()]
    names = {widget.objectName() for widget in own}
    assert {"bundles", "run", "cancel", "device", "overlap", "region", "draw_box"} <= names
    missing = [w.objectName() for w in own if not w.toolTip() and not w.objectName().startswith(QTS)]
    assert not missing


def test_an_overlap_of_other_bundles_is_not_asked_for(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    options = desk.widget.options
    options.overlap.setValue(0.5)
    options.offer(replace(options.choices, overlap=None))
    assert options.settings(None).overlap is None


def test_rectangles_drawn_before_the_widget_was_opened_are_heard(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, image: Path, bundle: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    shapes = viewer.add_shapes(ndim=3)
    desk = Desk(viewer, qtbot, image)
    shapes.scale, shapes.translate = viewer.layers[1].scale, viewer.layers[1].translate
    desk.choose(bundle)
    desk.widget.options.region.choice.setCurrentText(DRAWN)
    assert "has no rectangle" in desk.line
    shapes.add_rectangles(np.array([(3, 4, 4), (3, 4, 9), (3, 9, 9), (3, 9, 4)]))
    assert desk.widget.runs.start.isEnabled()


def test_what_is_in_view_of_a_picture_is_a_box(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, pictures: Path, bundle_2d: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    desk.viewer.open(sorted((pictures / "imagesTr").glob("*.png"))[8], plugin="napari")
    desk.choose(bundle_2d)
    desk.viewer.scene.camera.zoom *= 3
    region = desk.widget.options.region
    region.choice.setCurrentText(VIEW)
    sizes = desk.viewer.layers[0].data.shape[:2]
    desk.wait(lambda: all(stop - first < n for (first, stop), n in zip(region.box(), sizes, strict=True)))
    (top, bottom), (left, right) = region.box()
    labels = np.array(desk.run().data)
    assert labels[top:bottom, left:right].any()
    labels[top:bottom, left:right] = 0
    assert not labels.any()
    assert not region.range.isVisible()


def test_an_image_that_is_out_of_view_is_no_box(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.widget.options.region.choice.setCurrentText(VIEW)
    run = desk.widget.runs.start
    desk.viewer.scene.camera.center = 0, 1e5, 1e5
    desk.wait(lambda: not run.isEnabled())
    assert "out of view" in desk.line
    desk.viewer.reset_view()
    desk.wait(run.isEnabled)


def test_an_image_whose_voxels_are_replaced_is_looked_at_again(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    layer = desk.viewer.layers[0]
    layer.data = layer.data[0]
    assert "2-D layer" in desk.line


def test_words_of_strangers_are_no_html(desk: Desk, bundle: Path) -> None:
    desk.viewer.layers[0].name = name = "<h1>phantom</h1>"
    desk.choose(bundle)
    desk.run().metadata["classes"][1] = name
    desk.widget.results.view.model.set_rows([row._replace(name=name) for row in desk.widget.results.view.model.rows])
    index = desk.widget.results.view.model.index(0, 1)
    tip = index.data(Qt.ItemDataRole.ToolTipRole)
    desk.widget._fail(name)
    plain = [label for label in desk.widget.findChildren(QLabel) if label.textFormat() == Qt.TextFormat.PlainText]
    assert {"status", "image_message", "results_line", "compare_line"} == {label.objectName() for label in plain}
    assert "&lt;h1&gt;" in tip
    assert "&lt;h1&gt;" in notification_manager.records[-1].message
    assert desk.line == f"✖ {name}"


def test_a_long_name_does_not_push_the_panels_out(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.widget._fail("/data/" + 30 * "phantom" + "/" + 9 * "a_b_c_d_")
    desk.widget.bundles.choose(bundle.parent / (30 * "phantom"))
    scroll = desk.widget.findChild(QScrollArea)
    desk.qtbot.wait(100)
    assert scroll.widget().width() <= scroll.viewport().width()


def test_each_channel_is_guessed_by_its_name_whatever_was_chosen_before(
    desk: Desk, bundle: Path, image: Path, tmp_path: Path
) -> None:
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["inputs"]["image"] |= {"num_channels": 2, "channel_def": {"0": "T1", "1": "T2"}}
    for network in metadata["networks"].values():
        network["in_channels"] = 2
    file.write_text(json.dumps(metadata))
    [second] = desk.viewer.open(image, plugin="monai-unetfamily")
    desk.viewer.layers[0].name, second.name = "case T1", "case T2"
    desk.widget.images.lists[0].setCurrentText("case T2")
    desk.choose(weigh(bundle))
    assert [layer.name for layer in desk.widget.images.layers] == ["case T1", "case T2"]
    desk.run()


def test_the_keyboard_goes_from_the_bundle_to_the_image(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    found, widget = [], desk.widget.bundles.list
    while widget is not desk.widget.runs.start:
        found.append(widget.objectName())
        widget = widget.nextInFocusChain()
    assert found.index("bundles") < found.index("image_Image") < found.index("plane_axial")


def lazy(data: Any) -> Any:
    return da.from_array(data, chunks=(4, 16, 16))


def zarr_array(data: Any) -> Any:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    return zarr.array(data)


KINDS = {"dask": lazy, "zarr": zarr_array, "big-endian": lambda data: data.astype(">f4")}


@pytest.mark.parametrize("kind", sampled(KINDS, "dask"))
def test_arrays_of_other_kinds_are_segmented_and_measured(
    kind: str, desk: Desk, bundle: Path, image: Path, tmp_path: Path
) -> None:
    scan = desk.viewer.layers[0]
    data = np.ascontiguousarray(scan.data)
    place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units, "metadata": scan.metadata}
    desk.viewer.layers.clear()
    desk.viewer.add_image(KINDS[kind](data), **place)
    desk.choose(bundle)
    layer = desk.run()
    assert np.array_equal(in_file_order(layer), by_command(bundle, image, tmp_path / "labels"))
    rows = desk.widget.results.view.model.rows
    assert [row.mean is not None for row in rows] == [row.voxels > 0 for row in rows]


@pytest.mark.parametrize("orientation", sampled(ORIENTATIONS, "RAS"))
def test_the_orientation_of_an_image_without_a_file_is_shown_before_the_run_and_obeyed(
    orientation: str, desk: Desk, bundle: Path, image: Path, tmp_path: Path
) -> None:
    scan = nib.load(image)
    turned = nib.as_closest_canonical(scan)
    ornt = nib.orientations.axcodes2ornt(tuple(orientation[::-1]))
    turned = turned.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(turned.affine), ornt))
    expected = tmp_path / "turned.nii.gz"
    nib.save(turned, expected)
    array = np.asarray(turned.dataobj).transpose()  # axes as napari counts them
    desk.viewer.layers.clear()
    spacing = turned.header.get_zooms()[::-1]
    desk.viewer.add_image(array, scale=spacing, units=("mm",) * 3)
    desk.choose(bundle)
    chosen = desk.widget.images.orientation
    assert chosen.isVisibleTo(desk.widget)
    assert chosen.currentData() == "IPL"
    chosen.setCurrentIndex(chosen.findData(orientation))
    chosen.activated.emit(chosen.currentIndex())
    layer = desk.run()
    assert np.array_equal(np.asarray(layer.data).transpose(), by_command(bundle, expected, tmp_path / "labels"))


def test_one_time_point_of_a_4_d_image_is_taken(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    scan = desk.viewer.layers[0]
    data = np.asarray(scan.data)
    series = np.stack([np.full_like(data, -1000), data, data // 2])
    desk.viewer.layers.clear()
    place = {"scale": (1, *scan.scale), "translate": (0, *scan.translate), "units": ("second", *scan.units)}
    desk.viewer.add_image(series, name="cine", metadata=scan.metadata, **place)
    desk.choose(bundle)
    assert "“cine” is 4-D, 3 volumes over time or channels" in desk.widget.images.message.text()
    desk.viewer.dims.set_point(0, 1)
    desk.press("take_time")
    assert [layer.name for layer in desk.widget.images.layers] == ["cine t1"]
    layer = desk.run()
    assert np.array_equal(in_file_order(layer), by_command(bundle, image, tmp_path / "labels"))
    assert not desk.widget.results.view.copy_command.isEnabled()  # the command cannot read one time point
