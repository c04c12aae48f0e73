"""The results panel in a real window: what is shown is what the layer holds, whatever is done to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.theme import get_theme
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QMessageBox, QPushButton, QWidget

from monai_unetfamily.io import palette, read_channel_names, read_label_image2d, read_label_tables
from monai_unetfamily.reporting import Measure, measure, write_csv
from napari_plugin.layers import placement, reorientation_of
from napari_plugin.layers.class_layers import features_of, label_colormap
from napari_plugin.layers.layer_image import labels_layer_data
from napari_plugin.layers.result_layers import measure_layer
from napari_plugin.models import CLASS, LABEL, SHOWN
from napari_plugin.panels import ResultsPanel
from tests.support.desk import SECONDS

pytestmark = pytest.mark.slow

NAMES = {0: "background", 1: "liver", 2: "spleen", 3: "left kidney", 4: "adrenal gland"}
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.5, 0, -20], [0, 0, 5, -100], [0, 0, 0, 1]])
SHAPE = (30, 24, 16)


def make_labels() -> Any:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:12, 6:14, 8:16] = 1
    labels[20:24, 4:8, 6:9] = 2
    labels[14:18, 14:18, [2, 12]] = 3  # two parts, with nothing at their centroid
    return labels


class Scene:
    """A viewer with an image, labels and the panel."""

    def __init__(self, viewer: ViewerModel, qtbot: QtBot, path: Path | None = None, names: dict[int, str] = NAMES):
        self.viewer, self.qtbot = viewer, qtbot
        self.voxels = np.random.default_rng(0).normal(40, 10, SHAPE).astype(np.float32)
        self.labels = make_labels()
        reorientation, placed = reorientation_of(AFFINE), placement(AFFINE, SHAPE)
        metadata = {
            "path": str(path) if path else None,
            "affine": AFFINE,
            "header": None,
            "notes": (),
            "kind": "volume",
        }
        self.image = viewer.add_image(reorientation.view(self.voxels), name="ct", metadata=metadata, **placed)
        self.layer = viewer.add_labels(
            reorientation.view(self.labels),
            name="organs",
            metadata=metadata | {"classes": dict(names)},
            colormap=label_colormap(names),
            features=features_of(names),
            **placed,
        )
        self.panel = ResultsPanel(viewer)
        viewer.window.add_dock_widget(self.panel, name="Results", area="right")

    def show(self, **options: Any) -> None:
        with self.measured():
            self.panel.show_result(self.layer, self.image, **options)

    def measured(self) -> Any:
        return self.qtbot.waitSignal(self.panel.measured, timeout=SECONDS)

    def cell(self, row: int, column: int) -> str:
        return self.panel.view.order.index(row, column).data()

    def column(self, column: int) -> list[str]:
        return [self.cell(row, column) for row in range(self.panel.view.order.rowCount())]

    def click(self, row: int, column: int) -> None:
        table = self.panel.view.table
        place = table.visualRect(self.panel.view.order.index(row, column)).center()
        self.qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)

    def truth(self) -> list[Measure]:
        return measure(self.labels, self.voxels, AFFINE, NAMES, "ct")


@pytest.fixture
def scene(make_napari_viewer: Callable[..., ViewerModel], qtbot: QtBot) -> Scene:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    return Scene(viewer, qtbot)


def test_the_table_says_what_the_command_measures(scene: Scene) -> None:
    scene.show()
    assert scene.panel.view.model.rows == scene.truth()
    assert scene.column(CLASS) == ["liver", "spleen", "left kidney", "adrenal gland"]
    assert scene.column(3) == ["S", "", "", ""]
    assert "superior" in scene.panel.view.order.index(0, 3).data(Qt.ItemDataRole.ToolTipRole)
    controls = [child for child in scene.panel.findChildren(QWidget) if child.objectName().startswith("results_")]
    assert len(controls) == 8
    for control in controls:
        texts = [control.toolTip(), control.accessibleName(), control.text() if isinstance(control, QLabel) else ""]
        assert any(texts), control.objectName()


def test_without_a_result_the_panel_says_so(scene: Scene) -> None:
    view = scene.panel.view
    assert view.findChild(QLabel, "results_empty").isVisible()
    assert not view.table.isVisible()
    assert not view.save_labels.isVisible()


def test_a_check_box_hides_a_class_and_no_voxel(scene: Scene) -> None:
    scene.show()
    before = scene.labels.copy()
    scene.click(1, SHOWN)
    assert scene.layer.colormap.map(2)[3] == 0
    assert [scene.layer.colormap.map(label)[3] for label in (1, 3)] == [1, 1]
    assert scene.panel.view.all_shown.checkState() == Qt.CheckState.PartiallyChecked
    scene.click(1, SHOWN)
    assert scene.layer.colormap.map(2)[3] == 1
    assert scene.panel.view.all_shown.checkState() == Qt.CheckState.Checked
    assert (scene.labels == before).all()
    assert not scene.panel.edited(scene.layer)


def test_colours_that_are_shuffled_in_napari_are_those_of_the_table(scene: Scene) -> None:
    scene.show()
    scene.layer.new_colormap(3)
    drawn = scene.layer.colormap.map(1)
    scene.click(1, SHOWN)
    assert np.allclose(scene.layer.colormap.map(1), drawn)
    assert scene.layer.colormap.map(2)[3] == 0
    swatch = scene.panel.view.order.index(0, CLASS).data(Qt.ItemDataRole.DecorationRole).pixmap(12, 12).toImage()
    assert np.allclose(swatch.pixelColor(6, 6).getRgbF(), drawn, atol=0.01)


def test_the_menu_shows_one_class_alone_or_all(scene: Scene) -> None:
    scene.show()
    alone, again, every = scene.panel.view.table.actions()
    scene.click(2, SHOWN)
    assert not again.isEnabled()
    scene.click(1, CLASS)
    alone.trigger()
    assert scene.panel.view.model.hidden == {1, 3, 4}
    again.trigger()
    assert scene.panel.view.model.hidden == {3}
    assert not again.isEnabled()
    every.trigger()
    assert scene.panel.view.model.hidden == set()


def test_a_panel_that_is_closed_minds_nothing(scene: Scene) -> None:
    scene.show()
    scene.viewer.window.remove_dock_widget(scene.panel)
    stroke(scene, 2, (3, 3, 3))
    scene.viewer.theme = "light"
    scene.viewer.layers.remove(scene.layer)
    scene.qtbot.wait(500)


def test_all_hides_and_shows_the_classes_that_are_listed(scene: Scene) -> None:
    scene.show()
    view = scene.panel.view
    scene.qtbot.keyClicks(view.filter, "S")
    assert scene.column(CLASS) == ["spleen"]
    scene.qtbot.mouseClick(view.all_shown, Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    view.filter.clear()
    assert view.model.hidden == {2}
    scene.qtbot.mouseClick(view.all_shown, Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    assert view.model.hidden == set()
    scene.qtbot.mouseClick(view.all_shown, Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    assert view.model.hidden == {1, 2, 3, 4}


def test_a_click_goes_to_the_centroid_and_readies_the_brush(scene: Scene) -> None:
    scene.show()
    scene.viewer.layers.selection.active = scene.image
    scene.click(1, CLASS)
    [spleen] = [row for row in scene.truth() if row.label == 2]
    world = [-spleen.centroid_z, -spleen.centroid_y, -spleen.centroid_x]  # inferior, posterior, left
    assert np.allclose(scene.viewer.dims.point[0], world[0], atol=2.5)  # the middle of the nearest slice
    assert np.allclose(scene.viewer.scene.camera.center[1:], world[1:])
    assert scene.layer.selected_label == 2
    assert scene.viewer.layers.selection.active is scene.layer
    assert np.any(scene.layer.data[scene.viewer.dims.current_step[0]] == 2)


def test_a_click_goes_to_a_slice_that_shows_the_class(scene: Scene) -> None:
    scene.show()
    kidney = scene.truth()[2]
    world = np.array([-kidney.centroid_z, -kidney.centroid_y, -kidney.centroid_x])
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        scene.viewer.dims.order = order
        scene.click(2, CLASS)
        axis = order[0]
        assert np.any(np.moveaxis(scene.layer.data, axis, 0)[scene.viewer.dims.current_step[axis]] == 3)
        assert np.allclose(np.asarray(scene.viewer.scene.camera.center)[-2:], world[list(order[1:])])
    scene.viewer.dims.order = (0, 1, 2)
    scene.viewer.dims.ndisplay = 3
    scene.click(2, CLASS)
    assert np.allclose(scene.viewer.scene.camera.center, world)


def test_a_class_that_is_nowhere_can_be_painted_but_not_gone_to(scene: Scene) -> None:
    scene.show()
    before = scene.viewer.dims.current_step, scene.viewer.scene.camera.center
    scene.click(3, CLASS)
    assert (scene.viewer.dims.current_step, scene.viewer.scene.camera.center) == before
    assert scene.layer.selected_label == 4
    index = scene.panel.view.order.index(3, CLASS)
    assert index.data(Qt.ItemDataRole.ForegroundRole) != scene.panel.view.order.index(0, CLASS).data(
        Qt.ItemDataRole.ForegroundRole
    )


def test_the_keyboard_goes_from_class_to_class_and_hides(scene: Scene) -> None:
    scene.show()
    table = scene.panel.view.table
    scene.click(0, CLASS)
    scene.qtbot.keyClick(table, Qt.Key.Key_Down)
    assert scene.layer.selected_label == 2
    scene.qtbot.keyClick(table, Qt.Key.Key_Space)
    assert scene.panel.view.model.hidden == {2}
    scene.viewer.dims.set_current_step(0, 0)
    scene.qtbot.keyClick(table, Qt.Key.Key_Return)
    assert np.any(scene.layer.data[scene.viewer.dims.current_step[0]] == 2)


def test_a_label_picked_in_the_image_marks_its_row_and_moves_nothing(scene: Scene) -> None:
    scene.show()
    before = scene.viewer.dims.current_step
    scene.layer.selected_label = 3
    assert scene.panel.view.table.currentIndex().data(LABEL) == 3
    assert scene.viewer.dims.current_step == before


def test_columns_sort_by_what_they_mean(scene: Scene) -> None:
    scene.layer.metadata["classes"] = {1: "rib 10", 2: "Rib 9", 3: "aorta", 4: "adrenal gland"}
    scene.show(presence={1: 0.99, 3: 0.1, 4: 0.2, 2: 0.09})
    header = scene.panel.view.table.horizontalHeader()
    titles = [header.model().headerData(k, Qt.Orientation.Horizontal) for k in range(header.count())]
    for column, expected in (
        ("Class", ["adrenal gland", "aorta", "Rib 9", "rib 10"]),
        ("ml", ["adrenal gland", "aorta", "Rib 9", "rib 10"]),
        ("%", ["Rib 9", "aorta", "adrenal gland", "rib 10"]),
    ):
        place = QPoint(header.sectionViewportPosition(titles.index(column)) + 6, 10)
        scene.qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
        assert scene.column(CLASS) == expected
        scene.qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
        assert scene.column(CLASS) == expected[::-1]
    scene.qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert scene.column(CLASS) == ["rib 10", "Rib 9", "aorta", "adrenal gland"]  # by label again


def test_presence_is_told_only_where_there_is_any(scene: Scene) -> None:
    scene.show()
    assert scene.panel.view.model.columnCount() == 4
    scene.show(presence={1: 0.987})
    assert scene.panel.view.model.columnCount() == 5
    assert scene.column(3) == ["99", "", "", ""]


def stroke(scene: Scene, label: int, place: tuple[int, int, int], size: int = 3) -> None:
    scene.layer.selected_label = label
    scene.layer.brush_size = size
    scene.layer.paint(place, label)


def test_strokes_fills_erasing_undo_and_redo_update_the_table(scene: Scene) -> None:
    scene.show()
    layer = scene.layer
    for change in (
        lambda: stroke(scene, 2, (3, 3, 3)),
        lambda: layer.fill((7, 5, 6), 4),
        lambda: stroke(scene, 0, (4, 12, 8)),
        layer.undo,
        layer.undo,
        layer.redo,
    ):
        before = scene.truth()
        with scene.measured():
            change()
        assert scene.truth() != before
        assert scene.panel.view.model.rows == scene.truth()
    assert scene.panel.edited(layer)
    assert "corrected" in scene.panel.view.line.text()


def test_a_correction_that_is_undone_is_none(scene: Scene) -> None:
    scene.show()
    assert not scene.panel.edited(scene.layer)
    stroke(scene, 2, (3, 3, 3))
    assert scene.panel.edited(scene.layer)
    with scene.measured():
        scene.layer.undo()
    assert not scene.panel.edited(scene.layer)
    assert "corrected" not in scene.panel.view.line.text()


def test_corrections_by_code_update_the_table(scene: Scene) -> None:
    scene.show()
    with scene.measured():
        scene.layer.data_setitem((np.array([1, 1]), np.array([2, 3]), np.array([4, 4])), 4)
    assert scene.column(CLASS + 1)[3] == "0.05"
    with scene.measured():
        scene.layer.data = np.where(scene.layer.data == 1, 2, scene.layer.data)
    assert scene.column(CLASS + 1)[0] == "0"
    assert scene.panel.edited(scene.layer)


def test_many_strokes_are_measured_once(scene: Scene) -> None:
    scene.show()
    times: list[int] = []
    scene.panel.measured.connect(lambda: times.append(1))
    with scene.measured():
        for column in range(4, 20):
            stroke(scene, 3, (5, 5, column))
    scene.qtbot.wait(600)
    assert times == [1]
    assert scene.panel.view.model.rows == scene.truth()


def test_measuring_is_done_in_another_thread(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Any] = []

    def watched(*arguments: Any) -> list[Measure]:
        threads.append(current_thread())
        return measure_layer(*arguments)

    monkeypatch.setattr("napari_plugin.layers.result_layers.measure_layer", watched)
    scene.show()
    assert threads
    assert main_thread() not in threads


def test_a_label_without_a_name_gets_one_and_a_colour(scene: Scene) -> None:
    scene.show()
    with scene.measured():
        stroke(scene, 9, (3, 3, 3))
    assert scene.column(CLASS)[-1] == "label 9"
    assert scene.panel.view.table.currentIndex().data(LABEL) == 9
    assert scene.layer.metadata["classes"][9] == "label 9"
    assert np.allclose(scene.layer.colormap.map(9)[:3], np.array(palette(9)) / 255)


def test_the_layer_removed_there_is_no_result(scene: Scene) -> None:
    scene.show()
    scene.viewer.layers.remove(scene.layer)
    assert scene.panel.view.findChild(QLabel, "results_empty").isVisible()
    assert scene.panel.view.model.rows == []


def test_removed_while_it_is_measured(scene: Scene) -> None:
    scene.panel.show_result(scene.layer, scene.image)
    scene.qtbot.wait(1)
    scene.viewer.layers.remove(scene.layer)
    scene.qtbot.wait(500)
    assert scene.panel.view.model.rows == []


def test_corrections_of_an_earlier_result_are_known(scene: Scene) -> None:
    scene.show()
    stroke(scene, 2, (3, 3, 3))
    other = scene.viewer.add_labels(np.zeros((16, 24, 30), np.uint8), metadata={"classes": {1: "liver"}})
    assert not scene.panel.edited(other)
    with scene.measured():
        scene.panel.show_result(other, scene.image)
    assert scene.panel.edited(scene.layer)
    assert not scene.panel.edited(other)


def test_labels_are_saved_on_the_grid_of_the_image(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.show()
    with scene.measured():
        stroke(scene, 2, (3, 3, 3))
    answer_dialog(monkeypatch, tmp_path / "mine")  # without a suffix
    click_and_wait(scene, "results_save_labels", lambda: not scene.panel.edited(scene.layer))
    saved = nib.load(tmp_path / "mine.nii.gz")
    assert (np.asarray(saved.dataobj) == scene.labels).all()
    assert (saved.affine == AFFINE).all()
    assert read_label_tables(saved)[0][3].name == "left kidney"
    assert "corrected" not in scene.panel.view.line.text()


def answer_dialog(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> list[str]:
    suggested: list[str] = []

    def answer(parent: Any, title: str, suggestion: str, *_: Any, **__: Any) -> tuple[str, str]:
        suggested.append(suggestion)
        return str(path or ""), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    return suggested


def click_and_wait(scene: Scene, name: str, done: Callable[[], bool]) -> None:
    button = scene.panel.findChild(QPushButton, name)
    scene.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    scene.qtbot.waitUntil(lambda: done() and button.isEnabled(), timeout=SECONDS)


def test_a_file_is_replaced_only_if_the_user_says_so(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.show()
    file = tmp_path / "there.nii.gz"
    file.write_bytes(b"precious")
    answer_dialog(monkeypatch, file)
    asked: list[str] = []
    for answer in (QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes):
        assert file.read_bytes() == b"precious"
        monkeypatch.setattr(QMessageBox, "question", lambda *texts, answer=answer: asked.append(texts[2]) or answer)
        click_and_wait(scene, "results_save_labels", lambda: bool(asked))
    scene.qtbot.waitUntil(lambda: file.read_bytes() != b"precious", timeout=SECONDS)
    assert [str(file) in text for text in asked] == [True, True]


def test_the_image_itself_is_never_replaced(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ct.nii.gz"
    file.write_bytes(b"the image")
    scene.image.metadata["path"] = str(file)
    scene.show()
    told: list[str] = []
    suggested = answer_dialog(monkeypatch, file)
    monkeypatch.setattr(QMessageBox, "warning", lambda parent, title, text: told.append(text))
    click_and_wait(scene, "results_save_labels", lambda: bool(told))
    assert suggested == [str(tmp_path / "ct_seg.nii.gz")]
    assert file.read_bytes() == b"the image"


def test_a_folder_that_cannot_be_written_is_told(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.show()
    told: list[str] = []
    monkeypatch.setattr("napari_plugin.panels.results_panel.show_error", told.append)
    answer_dialog(monkeypatch, tmp_path / "absent" / "mine.nii.gz")
    click_and_wait(scene, "results_save_labels", lambda: bool(told))
    assert "is not saved" in told[0]
    answer_dialog(monkeypatch, tmp_path / "absent" / "mine.csv")
    click_and_wait(scene, "results_save_table", lambda: len(told) == 2)


def test_the_table_is_saved_as_the_labels_are_now(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.show()
    suggested = answer_dialog(monkeypatch, tmp_path / "mine.csv")
    stroke(scene, 2, (3, 3, 3))  # not measured yet
    click_and_wait(scene, "results_save_table", (tmp_path / "mine.csv").exists)
    write_csv(scene.truth(), tmp_path / "expected.csv")
    assert (tmp_path / "mine.csv").read_text() == (tmp_path / "expected.csv").read_text()
    assert suggested == [str(Path.home() / "ct_seg.csv")]


def test_a_dialog_that_is_left_saves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.show()
    for button in ("results_save_labels", "results_save_table"):
        suggested = answer_dialog(monkeypatch, None)
        click_and_wait(scene, button, lambda suggested=suggested: bool(suggested))


def test_the_command_is_copied(scene: Scene) -> None:
    scene.show(command="unetfamily predict phantom_ct ct.nii.gz -o labels")
    click_and_wait(scene, "results_copy_command", lambda: QApplication.clipboard().text().startswith("unetfamily"))
    scene.show()
    assert not scene.panel.view.copy_command.isEnabled()
    assert "no file" in scene.panel.view.copy_command.toolTip()


def test_the_panel_follows_the_theme(scene: Scene) -> None:
    scene.show(presence={1: 0.9})
    scene.viewer.theme = "light"
    assert get_theme("light").current.as_hex() in scene.panel.view.table.styleSheet()


def add_result(scene: Scene, image: Any, arrays: Sequence[Any], names: dict[int, str]) -> list[Any]:
    """Layers as the widget adds them: of ids, or a mask for each class."""
    classes = [names] if len(arrays) == 1 else [{1: name} for name in names.values()]
    layers = []
    for array, named in zip(arrays, classes, strict=True):
        shown, placed = labels_layer_data(array, image)
        placed["metadata"] = placed["metadata"] | {"classes": named}
        layers.append(scene.viewer.add_labels(shown, colormap=label_colormap(named), **placed))
    return layers


def test_classes_that_overlap_have_a_layer_each(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {1: "whole tumour", 2: "core"}
    masks = np.stack([scene.labels > 0, scene.labels == 2], axis=-1).astype(np.uint8)
    layers = add_result(scene, scene.image, [masks[..., 0], masks[..., 1]], names)

    def truth() -> list[Measure]:
        return measure(masks, scene.voxels, AFFINE, names, "ct", {2: 0.75})

    with scene.measured():
        scene.panel.show_result(layers, scene.image, {2: 0.75})
    assert scene.panel.view.model.rows == truth()
    scene.click(1, SHOWN)
    assert [layer.visible for layer in layers] == [True, False]
    layers[1].visible = True
    assert scene.panel.view.model.hidden == set()
    scene.click(1, CLASS)
    assert scene.viewer.layers.selection.active is layers[1]
    assert layers[1].selected_label == 1
    with scene.measured():
        layers[1].paint((3, 3, 3), 1)
    assert scene.panel.view.model.rows == truth()
    assert [scene.panel.edited(layer) for layer in layers] == [False, True]
    with scene.measured():
        layers[1].paint((9, 9, 9), 5)  # whatever is not 0 is the class
    assert scene.panel.view.model.rows == truth()
    answer_dialog(monkeypatch, tmp_path / "both.nii.gz")
    click_and_wait(scene, "results_save_labels", lambda: not scene.panel.edited(layers[1]))
    saved = nib.load(tmp_path / "both.nii.gz")
    assert (np.asarray(saved.dataobj) == (masks > 0)).all()
    assert read_channel_names(saved) == names
    scene.viewer.layers.remove(layers[0])
    assert scene.panel.view.model.rows == []


@pytest.mark.parametrize("colours", [False, True])
def test_a_picture_is_measured_in_pixels_and_saved_as_png(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: bool
) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    image = scene.viewer.add_image(picture if colours else picture[..., 0], rgb=colours, name="slide")
    labels = np.zeros((20, 30), np.uint8)
    labels[3:6, 20:29] = 1
    [layer] = add_result(scene, image, [labels], {0: "background", 1: "nucleus"})
    with scene.measured():
        scene.panel.show_result(layer, image)
    assert scene.panel.view.model.rows == measure(labels, picture[..., 0], np.eye(3), {1: "nucleus"}, "slide")
    assert [scene.cell(0, column) for column in (1, 2)] == ["nucleus", "27"]
    scene.click(0, CLASS)
    assert np.allclose(scene.viewer.scene.camera.center[-2:], [4, 24])
    suggested = answer_dialog(monkeypatch, tmp_path / "slide_seg")
    click_and_wait(scene, "results_save_labels", (tmp_path / "slide_seg.png").exists)
    assert suggested[0].endswith("slide_seg.png")
    assert (read_label_image2d(tmp_path / "slide_seg.png") == labels).all()


def test_an_oblique_volume_of_two_channels(
    plugin: object, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    affine = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.2, -0.1, 0.15) @ np.diag([2.0, -2.5, 5.0])[:, [1, 2, 0]], [10, -20, 30]
    )
    channels = np.random.default_rng(1).normal(size=(*SHAPE, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(channels, affine), tmp_path / "mr.nii.gz")
    [image] = scene.viewer.open(tmp_path / "mr.nii.gz", plugin="monai-unetfamily")
    [layer] = add_result(scene, image, [scene.labels], NAMES)
    with scene.measured():
        scene.panel.show_result(layer, image)
    expected = measure(scene.labels, channels[..., 0], nib.load(tmp_path / "mr.nii.gz").affine, NAMES, "mr")
    assert scene.panel.view.model.rows == expected
    scene.click(1, CLASS)
    inside = layer.world_to_data((0.0, *scene.viewer.scene.camera.center))[-3:]
    step = scene.viewer.dims.current_step[-3]
    assert layer.data[step, round(inside[1]), round(inside[2])] == 2
    suggested = answer_dialog(monkeypatch, tmp_path / "mr_seg.nii")
    click_and_wait(scene, "results_save_labels", (tmp_path / "mr_seg.nii").exists)
    assert suggested == [str(tmp_path / "mr_seg.nii.gz")]
    saved = nib.load(tmp_path / "mr_seg.nii")
    assert (np.asarray(saved.dataobj) == scene.labels).all()
    assert (saved.affine == nib.load(tmp_path / "mr.nii.gz").affine).all()


def test_a_hundred_classes_with_long_names_fit(scene: Scene) -> None:
    names = {0: "background"} | {k: f"left upper lobe of the lung, segment {k}" for k in range(1, 106)}
    scene.labels[:] = np.arange(scene.labels.size).reshape(SHAPE) % 106
    scene.layer.metadata["classes"] = names
    scene.layer.colormap = label_colormap(names)
    scene.show(presence=dict.fromkeys(range(1, 106), 0.5))
    panel = scene.panel
    assert panel.minimumSizeHint().width() <= 310
    table = panel.view.table
    assert table.horizontalScrollBar().maximum() == 0
    assert table.verticalScrollBar().maximum() > 0
    assert table.columnWidth(CLASS) >= 90
    scene.layer.selected_label = 90
    assert table.viewport().rect().contains(table.visualRect(table.currentIndex()))
    assert names[90] in table.currentIndex().data(Qt.ItemDataRole.ToolTipRole)
    scene.qtbot.keyClicks(panel.view.filter, "segment 10")
    assert scene.column(CLASS) == [names[k] for k in (10, *range(100, 106))]


def test_data_of_another_shape_are_told(scene: Scene) -> None:
    scene.show()
    with scene.measured():
        scene.layer.data = np.zeros((4, 5, 6), np.uint8)
    assert "one grid" in scene.panel.view.line.text()
