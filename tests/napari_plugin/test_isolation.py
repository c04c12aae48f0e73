"""A right click on an organ: it alone, hidden, and exactly what was there before again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QWidget

from napari_plugin.layers import ClassLayers, Isolation
from napari_plugin.layers.class_layers import label_colormap
from napari_plugin.panels import OrganMenu

NAMES = {0: "background", 1: "liver", 2: "spleen & more", 3: "spine"}


def organs() -> Any:
    labels = np.zeros((20, 40, 40), np.uint8)
    labels[2:18, 5:15, 5:15], labels[2:18, 25:35, 25:35], labels[15:18, 5:15, 25:35] = 1, 2, 3
    return labels


def look(layer: Labels) -> Any:
    colors = [layer.colormap.map(label).tolist() for label in (0, 1, 2, 3, 9)]
    return colors, layer.colormap, layer.visible, layer.opacity, layer.selected_label, layer.show_selected_label


@pytest.mark.parametrize("hidden", [set(), {3}])
def test_what_was_shown_before_comes_back_exactly(hidden: set[int]) -> None:
    data = organs()
    layer = Labels(data.copy(), metadata={"classes": NAMES}, colormap=label_colormap(NAMES, hidden))
    drawn, isolation, before = ClassLayers([layer]), Isolation(), look(layer)
    isolation.alone(drawn, 1)
    assert drawn.hidden() == {2, 3}
    isolation.alone(drawn, 2)
    assert drawn.hidden() == {1, 3}
    isolation.again(drawn)
    assert look(layer) == before
    assert np.array_equal(layer.data, data)
    isolation.alone(drawn, 1)
    isolation.every(drawn)
    assert drawn.hidden() == set()
    assert not isolation.active(drawn)


def test_labels_without_names_are_isolated_by_napari_itself() -> None:
    layer = Labels(organs())
    layer.selected_label = 3
    drawn, isolation, before = ClassLayers([layer]), Isolation(), look(layer)
    isolation.alone(drawn, 2)
    assert [bool(layer.colormap.map(label)[3]) for label in (1, 2, 3)] == [False, True, False]
    isolation.again(drawn)
    assert look(layer) == before


def test_a_class_named_meanwhile_keeps_its_colour() -> None:
    layer = Labels(organs(), metadata={"classes": dict(NAMES)}, colormap=label_colormap(NAMES))
    drawn, isolation = ClassLayers([layer]), Isolation()
    isolation.alone(drawn, 1)
    layer.metadata["classes"][9] = "label 9"
    layer.colormap = label_colormap(drawn.names, {2, 3})
    color = layer.colormap.map(9).tolist()
    isolation.again(drawn)
    assert layer.colormap.map(9).tolist() == color
    assert drawn.hidden() == set()


def test_of_masks_the_other_layers_are_hidden() -> None:
    layers = [Labels(organs() == k, metadata={"classes": {1: NAMES[k]}}) for k in (1, 2, 3)]
    layers[2].visible = False
    drawn, isolation = ClassLayers(layers), Isolation()
    isolation.alone(drawn, drawn.label_of(layers[1], 5))
    assert [layer.visible for layer in layers] == [False, True, False]
    isolation.again(drawn)
    assert [layer.visible for layer in layers] == [True, True, False]


class Canvas:
    """A viewer with labels, and a right hand."""

    def __init__(self, viewer: ViewerModel, qtbot: QtBot) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.layer = viewer.add_labels(organs(), metadata={"classes": NAMES}, colormap=label_colormap(NAMES))
        viewer.dims.set_current_step(0, 10)
        parent = QWidget()
        viewer.window.add_dock_widget(parent)
        self.menu = OrganMenu(viewer, Isolation(), lambda layer: ClassLayers([layer]), parent)

    @property
    def canvas(self) -> QWidget:
        return self.viewer.window._qt_viewer.canvas.native

    def place(self, row: float, column: float) -> QPoint:
        """Where a point of a slice is on the canvas; the camera looks along axis 0."""
        center, zoom = self.viewer.scene.camera.center, self.viewer.scene.camera.zoom
        middle = self.canvas.rect().center()
        return middle + QPoint(round((column - center[2]) * zoom), round((row - center[1]) * zoom))

    def click(self, row: float, column: float) -> list[str]:
        self.menu.menu = None
        self.qtbot.mouseClick(self.canvas, Qt.MouseButton.RightButton, pos=self.place(row, column))
        self.qtbot.wait(20)
        return [] if self.menu.menu is None else [action.text() for action in self.menu.menu.actions()]

    def choose(self, text: str) -> None:
        assert self.menu.menu is not None
        [action] = [action for action in self.menu.menu.actions() if action.text() == text]
        action.trigger()
        self.menu.menu.close()
        self.qtbot.wait(20)

    def hidden(self) -> set[int]:
        return ClassLayers([self.layer]).hidden()


@pytest.fixture
def canvas(make_napari_viewer: Callable[..., ViewerModel], qtbot: QtBot) -> Canvas:
    return Canvas(make_napari_viewer(show=True), qtbot)


@pytest.mark.slow
def test_a_right_click_isolates_hides_and_brings_back(canvas: Canvas) -> None:
    data, zoom = canvas.layer.data.copy(), canvas.viewer.scene.camera.zoom
    assert canvas.click(10, 10) == ["Show liver alone", "Hide liver"]
    canvas.choose("Show liver alone")
    assert canvas.hidden() == {2, 3}
    assert canvas.click(30, 30) == ["Show the others again", "Show all classes"]  # the spleen is not drawn
    canvas.choose("Show the others again")
    assert canvas.hidden() == set()
    assert canvas.click(20, 20) == []  # nothing is there, and nothing hidden
    assert canvas.click(30, 30)[1] == "Hide spleen && more"
    canvas.choose("Hide spleen && more")
    assert canvas.hidden() == {2}
    canvas.click(10, 10)
    canvas.choose("Show all classes")
    assert canvas.hidden() == set()
    assert np.array_equal(canvas.layer.data, data)
    assert canvas.viewer.scene.camera.zoom == zoom
    canvas.viewer.dims.ndisplay = 3
    assert canvas.click(10, 30)[:1] == ["Show spine alone"]
    canvas.choose("Show spine alone")
    assert canvas.hidden() == {1, 2}
    assert "Show spine alone" not in canvas.click(10, 10)


@pytest.mark.slow
def test_drags_tools_and_closed_widgets_open_no_menu(canvas: Canvas) -> None:
    before, mouse = canvas.viewer.scene.camera.zoom, canvas.qtbot
    start, end = canvas.place(10, 10), canvas.place(10, 10) + QPoint(0, 60)
    mouse.mousePress(canvas.canvas, Qt.MouseButton.RightButton, pos=start)
    mouse.mouseMove(canvas.canvas, end)
    mouse.mouseRelease(canvas.canvas, Qt.MouseButton.RightButton, pos=end)
    assert canvas.menu.menu is None
    canvas.viewer.scene.camera.zoom = before
    canvas.layer.mode = "paint"
    assert canvas.click(10, 10) == []
    canvas.layer.mode = "pan_zoom"
    canvas.menu.leave()
    assert canvas.click(10, 10) == []
    assert canvas.hidden() == set()
