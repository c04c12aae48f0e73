"""The panel that compares two label layers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from napari.utils.theme import Theme, get_theme
from qtpy.QtCore import QItemSelectionModel, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QComboBox, QFormLayout, QHeaderView, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_plugin.layers import (
    DIFFERENCES,
    KINDS,
    Compared,
    comparer,
    differences_layer,
    fingerprint,
    refusal,
    show_voxel,
    sliding_axes,
    title_of,
)
from napari_plugin.models import NUMBER, CompareModel, CompareOrder
from napari_plugin.qt import ROW, ClassTable, LatestTask, Line, fit, plain
from napari_plugin.saving import TABLE, ask_path
from napari_plugin.session import Failed, unforeseen

# What the panel of comparisons is made of: two lists, a button, the legend, the table and what is to be said of it.


_FEWEST = 5  # rows that there is room for
_MARGIN = 16  # pixels beside a cell's text
_STYLE = """
QTableView::item {{ padding: 0px 4px; }}
QTableView {{ border: 1px solid {primary}; outline: none; }}
"""
_SHORT = {1: "only in A", 2: "only in B", 3: "another class"}


class CompareView(QWidget):
    """The widgets, laid out; `chosen(number)` is the row, of the comparison's, that was clicked or gone to."""

    chosen = Signal(int)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.a, self.b = _list("A"), _list("B")
        self.start = QPushButton("Compare", objectName="compare")
        self.line = Line("compare_line")
        self.legend = QLabel(_legend(), objectName="compare_legend", textFormat=Qt.TextFormat.RichText)
        fit(self.legend)
        self.legend.setToolTip("What the colours of the layer of differences mean")
        self.model = CompareModel()
        self.table = CompareTable(CompareOrder(self.model))
        self.save = QPushButton("Save table…", objectName="compare_save", toolTip="Write the numbers as CSV.")
        self.table.chosen.connect(self.chosen)
        self.model.modelReset.connect(self._show_result)
        self._lay_out()
        self._show_result()

    def _show_result(self) -> None:
        for part in (self.legend, self.table, self.save):
            part.setVisible(bool(self.model.rows))

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("A", self.a)
        form.addRow("B", self.b)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 0)
        column.addLayout(form)
        for part in (self.start, self.line, self.legend):
            column.addWidget(part)
        column.addWidget(self.table, 1)
        column.addWidget(self.save)
        column.addStretch()


class CompareTable(ClassTable):
    """`chosen(number)` tells which row was clicked, or gone to by the keyboard."""

    chosen = Signal(int)

    def __init__(self, rows: CompareOrder) -> None:
        super().__init__(rows, "compare_table", "Classes compared")
        self.setMinimumHeight((_FEWEST + 1) * ROW)
        self.clicked.connect(lambda index: self.chosen.emit(index.data(NUMBER)))
        rows.modelReset.connect(self._set_widths)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Qt's."""
        before, key = self.currentIndex(), event.key()
        super().keyPressEvent(event)
        now = self.currentIndex()
        if now.isValid() and (now.row() != before.row() or key in (Qt.Key.Key_Return, Qt.Key.Key_Enter)):
            flags = QItemSelectionModel.SelectionFlag
            self.selectionModel().setCurrentIndex(now, flags.ClearAndSelect | flags.Rows)
            self.chosen.emit(now.data(NUMBER))

    def set_theme(self, theme: Theme) -> None:
        """Take over the colours of a theme."""
        self.setStyleSheet(_STYLE.format(primary=theme.primary.as_hex()))

    def _set_widths(self) -> None:
        """Give the numbers what they need, the names the rest: Qt would keep room for an arrow in every header."""
        header, rows, metrics = self.horizontalHeader(), self.model(), self.fontMetrics()
        for column in range(rows.columnCount()):
            if not column:
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
                continue
            texts = [rows.index(row, column).data() for row in range(rows.rowCount())]
            texts.append(rows.headerData(column, Qt.Orientation.Horizontal))
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, _MARGIN + max(map(metrics.horizontalAdvance, texts)))


def _list(side: str) -> QComboBox:
    box = QComboBox(objectName=f"compare_{side.lower()}", toolTip="Labels: a result, corrected or not, or a reference")
    box.setAccessibleName(f"Labels {side}")
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return box


def _legend() -> str:
    chips = [(bytes(label.color).hex(), _SHORT[kind].replace(" ", "&nbsp;")) for kind, label in KINDS.items()]
    return "  ".join(f'<span style="color:#{color}">■</span>&nbsp;{text}' for color, text in chips)


# Compare: two layers of labels on one volume, where they differ, and how much.

_PAUSE = 300  # ms without a change before it is looked whether labels are still those that were compared
_CHANGES = ("paint", "labels_update", "data", "set_data", "visible")  # set_data: undo, redo, code that refreshes
_NAMED = 5  # classes that are named in the line; the table lists all


@dataclass
class _Shown:
    """A comparison on view: its layers, their names then, and the layer of differences."""

    a: Labels
    b: Labels
    found: Compared
    layer: Labels
    title: str
    time: str
    changed: str = ""  # which of the two is no longer what it was

    @property
    def sides(self) -> dict[str, Labels]:
        return {"A": self.a, "B": self.b}


class ComparePanel(QWidget):
    """Two lists of label layers, a button, and what came of it: a layer of differences and a table.

    Args:
        viewer: that holds the layers.
    """

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.view = CompareView(self)
        self.shown: _Shown | None = None
        self._stop: Event | None = None  # of the comparison that is on its way
        self._chosen = False  # by the user: from then on no guess
        self._latest: LatestTask[list[int]] = LatestTask(self._prepare, self._take_marks, self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self._connect()
        self._follow_theme()
        self.update_layers()

    @property
    def busy(self) -> bool:
        """Whether a comparison is on its way."""
        return self._stop is not None

    @property
    def pair(self) -> tuple[Labels | None, Labels | None]:
        """The layers chosen."""
        return self.view.a.currentData(), self.view.b.currentData()

    def update_layers(self) -> None:
        """Follow the viewer's layers, the choice kept; without one the two topmost are compared, the upper one as B."""
        labels = [layer for layer in reversed(self.viewer.layers) if isinstance(layer, Labels)]
        labels = [layer for layer in labels if DIFFERENCES not in layer.metadata]
        guess = [*labels[1:2], *labels[:1]] if len(labels) > 1 else [None, *labels[:1], None][:2]
        for box, likely in zip((self.view.a, self.view.b), guess, strict=True):
            self._fill(box, labels, likely)
        self._look()

    def cancel(self) -> None:
        """Stop what is on its way; what was there before stays."""
        if self._stop is not None:
            self._stop.set()

    def _fill(self, box: QComboBox, labels: list[Labels], likely: Labels | None) -> None:
        kept = box.currentData() if self._chosen else None
        box.blockSignals(True)
        box.clear()
        for layer in labels:
            box.addItem(layer.name, layer)
            layer.events.name.connect(self.update_layers)
        box.setCurrentIndex(box.findData(kept if kept in labels else likely))
        box.blockSignals(False)

    def _connect(self) -> None:
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self.update_layers)
        self.viewer.events.theme.connect(self._follow_theme)
        for box in (self.view.a, self.view.b):
            box.activated.connect(self._choose)
        self.view.start.clicked.connect(self._press)
        self.view.chosen.connect(self._go)
        self.view.save.clicked.connect(self._save)

    def _choose(self) -> None:
        self._chosen = True
        self._look()

    def _look(self) -> None:
        """Say whether the two that are chosen can be compared; a comparison of two others is no longer shown."""
        if self.busy:
            return
        if self.shown is not None and self.pair != (self.shown.a, self.shown.b):
            self._clear()
        reason = refusal(*self.pair)
        self.view.start.setEnabled(not reason)
        self.view.start.setToolTip(plain(reason) or "Show where A and B differ; both are hidden below it.")
        if self.shown is None:
            self._say(reason)

    def _press(self) -> None:
        a, b = self.pair
        if self.busy:
            self.cancel()
            return
        self._look()
        if a is None or b is None or refusal(a, b):  # one may have been moved since it was looked at
            return
        self._stop, self._chosen = Event(), True
        self.view.start.setText("Cancel")
        self._say("Comparing…")
        worker = create_worker(comparer(a, b, self._stop))
        worker.yielded.connect(self._step)
        worker.returned.connect(lambda found: self._end(a, b, found))
        worker.errored.connect(lambda error: self._end(a, b, unforeseen(error)))  # napari shows the traceback
        worker.aborted.connect(lambda: self._end(a, b, None))  # by napari, which stops its workers as it closes
        worker.start()

    def _step(self, step: tuple[int, int]) -> None:
        if self.busy:
            done, total = step
            self._say(f"Comparing: {100 * done // max(total, 1)} %")

    def _end(self, a: Labels, b: Labels, found: Compared | Failed | None) -> None:
        stopped, self._stop = self._stop is None or self._stop.is_set(), None
        self.view.start.setText("Compare")
        if isinstance(found, Compared) and not stopped and {a, b} <= set(self.viewer.layers):
            self._clear()
            self._show(a, b, found)
        self._look()
        if isinstance(found, Failed):
            self._say(f"✖ {found.reason}")
            show_error(plain(found.reason))
        elif self.shown is None or self.shown.found is not found:
            self._say("Cancelled.")

    def _show(self, a: Labels, b: Labels, found: Compared) -> None:
        layer = differences_layer(found.comparison.kinds, a, b)
        for other in [other for other in self.viewer.layers if other.name.startswith(layer.name)]:
            if DIFFERENCES in other.metadata:  # the same two, compared before
                self.viewer.layers.remove(other)
        self.viewer.add_layer(layer)
        a.visible = b.visible = False
        self.shown = _Shown(a, b, found, layer, title_of(a, b), f"{datetime.now():%H:%M}")
        self._listen(True)
        self.view.model.set_rows(found.comparison.rows, pixels=found.voxel_ml is None)
        self._tell()
        self._latest.ask(0)  # strokes may have come in between

    def _clear(self) -> None:
        """Show no table; the layer of differences stays, as of its time."""
        if self.shown is not None:
            self._listen(False)
            self._latest.cancel()
            self._rename(f"{self.shown.title} (as of {self.shown.time})")
        self.shown = None
        self.view.model.set_rows([])

    def _rename(self, name: str) -> None:
        shown = self.shown
        if shown is not None and shown.layer.name.startswith(shown.title):  # else somebody gave it a name
            shown.layer.name = name

    def _listen(self, on: bool) -> None:
        for layer in self.shown.sides.values() if self.shown is not None else ():
            for name in _CHANGES:
                event = getattr(layer.events, name)
                event.connect(self._on_change) if on else event.disconnect(self._on_change)

    def _on_change(self) -> None:
        self._latest.ask(_PAUSE)

    def _prepare(self) -> Callable[[], list[int]]:
        sides = self.shown.sides.values() if self.shown is not None else ()
        drawn = [np.asarray(layer.data) for layer in sides]
        return lambda: list(map(fingerprint, drawn))

    def _take_marks(self, marks: list[int]) -> None:
        if self.shown is None:
            return
        pairs = zip(self.shown.sides, self.shown.found.fingerprints, marks, strict=True)
        changed = [side for side, then, now in pairs if then != now]
        self._outdate(" and ".join(changed))

    def _outdate(self, changed: str) -> None:
        """Say that the comparison is no longer that of its layers; empty: it is again, a stroke having been undone."""
        if self.shown is not None and self.shown.changed != changed:
            self.shown.changed = changed
            self._rename(f"{self.shown.title} (as of {self.shown.time})" if changed else self.shown.title)
            self._tell()

    def _tell(self) -> None:
        shown = self.shown
        if shown is None:
            return
        found, rows = shown.found, shown.found.comparison.rows
        size = "pixels" if found.voxel_ml is None else f"voxels ({found.differing * found.voxel_ml:.1f} ml)"
        dice = [row.dice for row in rows if row.dice is not None]
        mean = f", mean Dice {np.mean(dice):.3f}" if dice else ""
        parts = [f"{found.differing} {size} differ{mean}, as of {shown.time}."]
        if shown.changed:
            parts.insert(0, f"⚠ {shown.changed} changed since: compare again.")
        for side, other in (("A", "label_b"), ("B", "label_a")):
            if alone := [row.name for row in rows if getattr(row, other) is None]:
                parts.append(f"Left out, known to {side} alone: {_few(alone)}.")
        self._say(" ".join(parts))

    def _say(self, text: str) -> None:
        self.view.line.setText(text)
        self.view.line.setVisible(bool(text))

    def _go(self, number: int) -> None:
        """Bring the largest place where a class differs into the middle of the view."""
        if self.shown is None or not (places := self.shown.found.comparison.places[number]):
            return
        self._latest.ask(_PAUSE)  # a layer that is hidden tells of no change
        axes = sliding_axes(self.viewer, self.shown.layer)
        show_voxel(self.viewer, self.shown.layer, places[axes[0] if axes and len(places) > 1 else 0])

    def _save(self) -> None:
        if self.shown is None:
            return
        from monai_unetfamily.evaluation import write_differences

        rows, name = self.shown.found.comparison.rows, self.shown.title.replace("/", "_").replace(": ", " ")
        path = ask_path(self, "Save table", Path.home() / f"{name}{TABLE[0]}", TABLE, self.viewer.layers)
        if path is None:
            return
        try:
            write_differences(rows, path)
        except OSError as error:
            show_error(plain(f"{path} is not saved: {error}"))
            return
        show_info(plain(f"Table saved: {path}"))

    def _follow_theme(self) -> None:
        self.view.table.set_theme(get_theme(self.viewer.theme))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
