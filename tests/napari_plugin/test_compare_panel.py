"""Compare, in a real window: what differs is shown, told and gone to, and what is no longer so is not passed off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from monai_unetfamily.evaluation import compare_labels
from monai_unetfamily.io import read_label_tables
from napari_plugin.layers import KINDS, comparer, differences_layer, placement, refusal, reorientation_of
from napari_plugin.layers.class_layers import features_of, label_colormap
from napari_plugin.panels import ComparePanel
from napari_plugin.writer import save_labels
from tests.support.desk import SECONDS

pytestmark = pytest.mark.slow

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.5, 0, -20], [0, 0, 5, -100], [0, 0, 0, 1]])
EDGES = (2.0, 2.5, 5.0)
SHAPE = (30, 24, 16)
NAMES = {0: "background", 1: "liver", 2: "spleen"}
OTHER_NAMES = {0: "background", 4: "spleen", 7: "Liver", 9: "spine"}


def make_pair() -> tuple[Any, Any]:
    a, b = np.zeros((2, *SHAPE), np.uint8)
    a[4:12, 6:14, 8:14], b[4:14, 6:14, 8:14] = 1, 7
    a[20:24, 4:8, 6:9], b[20:24, 4:8, 6:8] = 2, 4
    b[15:17, 18:20, :] = 9
    return a, b


def labels_layer(stored: Any, names: dict[int, str], name: str, affine: Any = AFFINE) -> Labels:
    """As a file is opened, or a result shown."""
    metadata = {"path": None, "affine": affine, "header": None, "notes": (), "kind": "volume", "classes": dict(names)}
    colors = {"colormap": label_colormap(names), "features": features_of(names)} if names else {}
    return Labels(
        reorientation_of(affine).view(stored), name=name, metadata=metadata, **colors, **placement(affine, stored.shape)
    )


class Table:
    """A viewer with two label maps and the panel."""

    def __init__(self, viewer: ViewerModel, qtbot: QtBot) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.stored = make_pair()
        self.a = viewer.add_layer(labels_layer(self.stored[0], NAMES, "first"))
        self.b = viewer.add_layer(labels_layer(self.stored[1], OTHER_NAMES, "second"))
        self.panel = ComparePanel(viewer)
        self.panel.setMinimumWidth(310)  # as in the widget
        viewer.window.add_dock_widget(self.panel, name="Compare", area="right")

    @property
    def line(self) -> str:
        return self.panel.view.line.text()

    @property
    def layer(self) -> Labels:
        assert self.panel.shown is not None
        return self.panel.shown.layer

    def press(self) -> None:
        self.qtbot.mouseClick(self.panel.view.start, Qt.MouseButton.LeftButton)

    def compare(self) -> None:
        self.press()
        self.settle()

    def settle(self) -> None:
        self.qtbot.waitUntil(lambda: not (self.panel.busy or self.panel._latest.pending), timeout=SECONDS)

    def cells(self, row: int) -> list[str]:
        order = self.panel.view.table.model()
        return [order.index(row, column).data() for column in range(order.columnCount())]

    def click(self, row: int) -> None:
        table = self.panel.view.table
        place = table.visualRect(table.model().index(row, 0)).center()
        self.qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)


@pytest.fixture
def table(make_napari_viewer: Callable[..., ViewerModel], qtbot: QtBot) -> Table:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    return Table(viewer, qtbot)


def test_what_differs_is_shown_told_and_gone_to(table: Table) -> None:
    assert table.panel.pair == (table.a, table.b)
    table.compare()
    expected = compare_labels(*table.stored, EDGES, NAMES, OTHER_NAMES)
    assert np.array_equal(reorientation_of(AFFINE).undo(np.asarray(table.layer.data)), expected.kinds)
    assert table.panel.view.model.rows == expected.rows
    liver = expected.rows[0]
    assert table.cells(0) == ["liver", f"{liver.dice:.3f}", "9.60", "12.0", "+2.40"]
    assert table.cells(2) == ["spine", "-", "-", "1.60", "-"]
    assert table.line.startswith(f"{np.count_nonzero(expected.kinds)} voxels (2.8 ml) differ")
    assert "known to B alone: spine" in table.line
    assert (table.a.visible, table.b.visible) == (False, False)
    assert np.allclose(table.layer.extent.world, table.a.extent.world)
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        table.viewer.dims.order = order
        table.click(1)
        middle = table.layer.world_to_data(table.viewer.dims.point)
        assert table.layer.data[tuple(np.rint(middle).astype(int))] == 1  # what the spleen has in A alone
        assert np.allclose(table.viewer.scene.camera.center[1:], np.array(table.viewer.dims.point)[list(order[1:])])
    assert table.panel.view.table.horizontalScrollBar().maximum() == 0


def test_a_comparison_that_is_no_longer_so_says_so(table: Table) -> None:
    table.compare()
    fresh = table.layer.name
    table.b.brush_size = 3
    table.b.paint((3, 3, 3), 4)
    table.qtbot.waitUntil(lambda: "B changed since" in table.line, timeout=SECONDS)
    assert "as of" in table.layer.name
    table.b.visible = True
    table.b.undo()
    table.qtbot.waitUntil(lambda: "changed" not in table.line, timeout=SECONDS)
    assert table.layer.name == fresh
    table.b.paint((3, 3, 3), 4)
    table.qtbot.waitUntil(lambda: "B changed since" in table.line, timeout=SECONDS)
    table.compare()
    assert "changed" not in table.line
    assert table.layer.name == fresh
    assert sum("differences" in layer.name for layer in table.viewer.layers) == 1
    assert table.panel.view.model.rows == compare_labels(*table.stored, EDGES, NAMES, OTHER_NAMES).rows
    differences = table.layer
    table.viewer.layers.remove(table.a)
    assert table.panel.view.model.rows == []
    assert "as of" in differences.name
    assert not table.panel.view.start.isEnabled()
    assert "Two layers" in table.line


def test_cancel_and_a_failure_leave_what_was_there(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.compare()
    shown = table.panel.shown
    table.press()
    assert table.panel.view.start.text() == "Cancel"
    table.press()
    table.settle()
    assert table.panel.shown is shown
    assert table.line == "Cancelled."
    told: list[str] = []
    monkeypatch.setattr("napari_plugin.panels.compare_panel.show_error", told.append)
    table.b.metadata["classes"] = {1: "liver", 2: "Liver"}
    table.compare()
    assert "twice" in told[0]
    assert "twice" in table.line
    assert table.panel.shown is shown


def test_the_table_is_saved(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.compare()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(tmp_path / "mine.csv"), ""))
    table.qtbot.mouseClick(table.panel.view.save, Qt.MouseButton.LeftButton)
    lines = (tmp_path / "mine.csv").read_text().splitlines()
    assert lines[0].startswith("name,label_a,label_b,dice")
    assert [line.split(",")[0] for line in lines[1:]] == ["liver", "spleen", "spine"]


def kinds_of(a: Labels, b: Labels) -> Any:
    """The whole comparison, in this thread."""
    from threading import Event

    steps = comparer(a, b, Event())()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value.comparison.kinds


def test_the_differences_are_saved_on_the_grid_with_names(tmp_path: Path) -> None:
    stored = make_pair()
    a, b = labels_layer(stored[0], NAMES, "first"), labels_layer(stored[1], OTHER_NAMES, "second")
    layer = differences_layer(kinds_of(a, b), a, b)
    save_labels(layer, tmp_path / "differences.nii.gz")
    saved = nib.load(tmp_path / "differences.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), compare_labels(*stored, EDGES, NAMES, OTHER_NAMES).kinds)
    assert (saved.affine == AFFINE).all()
    [written] = read_label_tables(saved)
    assert [label.name for label in written.values()] == [
        "background",
        "only in A: first",
        "only in B: second",
        "another class in A than in B",
    ]
    assert [written[kind].color for kind in KINDS] == [label.color for label in KINDS.values()]


def test_grids_that_differ_are_refused_with_the_reason() -> None:
    stored, _ = make_pair()
    a = labels_layer(stored, NAMES, "first")
    moved, moved_in_napari = AFFINE.copy(), labels_layer(stored, NAMES, "moved")
    moved[0, 3] += 1.0
    moved_in_napari.translate = (5, 0, 0)
    assert refusal(a, labels_layer(stored, NAMES, "same")) == ""
    assert "30 x 24 x 15" in refusal(a, labels_layer(stored[..., 1:], NAMES, "short")).replace(
        "15 x 24 x 30", "30 x 24 x 15"
    )
    assert "0.5 voxels apart" in refusal(a, labels_layer(stored, NAMES, "moved", moved))
    assert "undo the move" in refusal(a, moved_in_napari)
    assert "Two layers" in refusal(a, a)
    assert "4 axes" in refusal(a, Labels(np.zeros((1, 2, 3, 4), int)))
    assert "not finished" in refusal(a, labels_layer(stored, NAMES, "growing …"))


def test_pictures_and_labels_without_names_are_compared() -> None:
    a, b = np.zeros((2, 20, 30), int)
    a[3:6, 20:29], b[3:6, 20:25] = 1, 1
    one, other = Labels(a, name="mine"), Labels(b, name="yours")
    assert refusal(one, other) == ""
    assert np.array_equal(kinds_of(one, other), np.where(a != b, 1, 0))
