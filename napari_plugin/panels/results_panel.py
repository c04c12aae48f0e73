"""The panel of a result: the table of classes, measures, corrections, saving."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from napari.utils.events import Event
from napari.utils.notifications import show_error, show_info
from napari.utils.theme import Theme, get_theme
from qtpy.QtCore import QItemSelectionModel, QSize, Qt, Signal
from qtpy.QtGui import QAction, QColor, QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from monai_unetfamily.reporting import write_csv
from napari_plugin.layers import ClassLayers, Isolation, Measured, ShownResult, go_to
from napari_plugin.models import CLASS, LABEL, SHOWN, ResultsModel, ResultsOrder
from napari_plugin.qt import ROW, ClassTable, LatestTask, Line, plain
from napari_plugin.saving import TABLE, Corrections, Saved, ask_path, labels_saver, suffixes_of, suggest

# The table of classes: mouse, keyboard, and the colours of napari's theme.


_FEWEST, _MOST = 5, 12  # rows that there is room for
_STYLE = """
QTableView::indicator {{ width: 14px; height: 14px; border-radius: 2px; border: 1px solid {secondary};
  background-color: {primary}; }}
QTableView::indicator:checked {{ background-color: {current}; image: url("theme_{id}:/check.svg"); }}
QTableView::item {{ padding: 0px 4px; }}
QTableView {{ border: 1px solid {primary}; outline: none; }}
"""


class ResultsTable(ClassTable):
    """`chosen(label)` tells which class the user clicked, or went to by the keyboard.

    Up and down go from class to class, space shows or hides, enter goes to the class again. The menu of the right
    button shows a class alone (`alone(label)`), what was shown before (`again()`), or all that are listed (`every()`).
    """

    chosen = Signal(int)
    alone = Signal(int)
    again = Signal()
    every = Signal()

    def __init__(self, rows: ResultsOrder, parent: QWidget | None = None) -> None:
        super().__init__(rows, "results_table", "Classes of the result", parent)
        self._rows = rows
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setIconSize(QSize(12, 12))
        self.setMinimumHeight(_FEWEST * ROW)
        self._add_menu()
        self.clicked.connect(lambda index: index.column() != SHOWN and self.chosen.emit(index.data(LABEL)))
        rows.modelReset.connect(self._set_widths)

    def select(self, label: int) -> None:
        """Mark a class's row, or none where it is not listed; nothing is told to have been chosen."""
        if self.selectionModel().hasSelection() and self.currentIndex().data(LABEL) == label:
            return
        labels = self._rows.labels()
        if label not in labels:
            self.clearSelection()
            return
        index = self._rows.index(labels.index(label), CLASS)
        flags = QItemSelectionModel.SelectionFlag
        self.selectionModel().setCurrentIndex(index, flags.ClearAndSelect | flags.Rows)
        self.scrollTo(index)

    def offer_again(self, alone: bool) -> None:
        """Say whether a class is shown alone, so that there is something to go back to."""
        self._again.setEnabled(alone)

    def sizeHint(self) -> QSize:
        """Qt's: room for the rows, for at least five and at most twelve."""
        rows = min(max(self._rows.rowCount(), _FEWEST), _MOST)
        return QSize(super().sizeHint().width(), self.horizontalHeader().sizeHint().height() + rows * ROW + 4)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Qt's."""
        before, key = self.currentIndex(), event.key()
        if key == Qt.Key.Key_Space and before.isValid():
            self._toggle(before.row())
            return
        super().keyPressEvent(event)
        now = self.currentIndex()
        if now.isValid() and (now.row() != before.row() or key in (Qt.Key.Key_Return, Qt.Key.Key_Enter)):
            self.chosen.emit(now.data(LABEL))

    def set_theme(self, theme: Theme) -> None:
        """Take over the colours of a theme."""
        names = ("primary", "secondary", "current")
        self.setStyleSheet(_STYLE.format(id=theme.id, **{name: getattr(theme, name).as_hex() for name in names}))

    def _toggle(self, row: int) -> None:
        index = self._rows.index(row, SHOWN)
        was = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole))
        now = Qt.CheckState.Unchecked if was == Qt.CheckState.Checked else Qt.CheckState.Checked
        self._rows.setData(index, now, Qt.ItemDataRole.CheckStateRole)

    def _add_menu(self) -> None:
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._action("Show this class alone", self._show_alone)
        self._again = self._action("Show the others again", self.again.emit)
        self._action("Show all classes", self.every.emit)
        self.offer_again(False)

    def _action(self, text: str, slot: Callable[[], None]) -> QAction:
        action = QAction(text, self)
        action.triggered.connect(lambda _: slot())
        self.addAction(action)
        return action

    def _show_alone(self) -> None:
        if self.currentIndex().isValid():
            self.alone.emit(self.currentIndex().data(LABEL))

    def _set_widths(self) -> None:
        header = self.horizontalHeader()
        for column in range(self._rows.columnCount()):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        if self._rows.columnCount() > CLASS:
            header.setSectionResizeMode(CLASS, QHeaderView.ResizeMode.Stretch)
        self.updateGeometry()


# What the results panel is made of: a filter, the table, a line and three buttons; or a word that there is nothing.

_NO_FILE = "The image has no file that the command could read: save it first."


class ResultsView(QWidget):
    """The widgets, laid out; `all_toggled(shown)` is the check box above the table, for the rows that are listed."""

    all_toggled = Signal(bool)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.model = ResultsModel(self)
        self.order = ResultsOrder(self.model)
        self.table = ResultsTable(self.order, self)
        self.all_shown = QCheckBox("All", self, objectName="results_all", toolTip="Show or hide all classes listed.")
        self.filter = QLineEdit(self, objectName="results_filter", placeholderText="Find a class")
        self.filter.setToolTip("List the classes alone whose name holds this text.")
        self.filter.setClearButtonEnabled(True)
        self.line = Line("results_line", self)
        self.save_labels = _button("Save labels…", "results_save_labels", "Write the labels on the image's own grid.")
        self.save_table = _button("Save table…", "results_save_table", "Write the measures of all classes as CSV.")
        self.copy_command = _button("Copy command", "results_copy_command", _NO_FILE)
        self.filter.textChanged.connect(self.order.setFilterFixedString)
        self.all_shown.clicked.connect(lambda _: self.all_toggled.emit(self._listed_state() != Qt.CheckState.Checked))
        for signal in (
            self.model.dataChanged,
            self.order.modelReset,
            self.order.layoutChanged,
            self.filter.textChanged,
        ):
            signal.connect(self._tick_all)
        self._lay_out()

    def show_empty(self) -> None:
        """Say that there is no result."""
        self._stack.setCurrentIndex(0)
        self.model.set_rows([])
        self.filter.clear()

    def show_table(self) -> None:
        """Show the table and what belongs to it."""
        self._stack.setCurrentIndex(1)

    def offer_command(self, command: str | None) -> None:
        """Enable the button that copies it, or say why there is none."""
        self.copy_command.setEnabled(command is not None)
        self.copy_command.setToolTip(_NO_FILE if command is None else plain(f"Copy to the clipboard:\n{command}"))

    def set_theme(self, theme: Theme) -> None:
        """Take over the colours of a theme."""
        self.table.set_theme(theme)
        text, ground = QColor(theme.text.as_hex()), QColor(theme.foreground.as_hex())
        self.model.set_look(text, ground, self.devicePixelRatioF())

    def _listed_state(self) -> Qt.CheckState:
        hidden, listed = self.model.hidden, self.order.labels()
        if not hidden.intersection(listed):
            return Qt.CheckState.Checked
        return Qt.CheckState.Unchecked if hidden.issuperset(listed) else Qt.CheckState.PartiallyChecked

    def _tick_all(self) -> None:
        self.all_shown.setCheckState(self._listed_state())

    def _lay_out(self) -> None:
        head, buttons = QHBoxLayout(), QHBoxLayout()
        head.addWidget(self.all_shown)
        head.addWidget(self.filter, 1)
        for button in (self.save_labels, self.save_table, self.copy_command):
            buttons.addWidget(button)
        full, empty = QWidget(self), QLabel("No result yet", self, objectName="results_empty")
        empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column = QVBoxLayout(full)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (head, self.table, self.line, buttons):
            column.addLayout(part) if isinstance(part, QHBoxLayout) else column.addWidget(part)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(empty)
        self._stack.addWidget(full)


def _button(text: str, name: str, meaning: str) -> QPushButton:
    button = QPushButton(text, objectName=name, toolTip=meaning)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button


# The classes of a result: shown or hidden, measured, gone to, corrected, saved.

_PAUSE = 300  # ms without a stroke before the labels are measured
_STROKES = ("paint", "labels_update", "data")
_LOOKS = ("colormap", "visible")
_DRAWINGS = ("set_data",)  # undo, redo, code that refreshes; and every other slice, whose labels are the same


@dataclass
class _Result:
    """What is shown, and how far its measures are."""

    shown: ShownResult
    command: str | None
    now: list[int] | None = None  # fingerprints of its layers, as they were measured last
    stale: bool = False  # painted since they were measured
    table: Path | None = None  # to be written when they have been


class ResultsPanel(QWidget):
    """A table of the classes of the last result, which follows its Labels layers, and buttons that save it.

    `measured` is emitted whenever the table has come to show the labels as they are.

    Args:
        viewer: that shows the layers.
    """

    measured = Signal()

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.view = ResultsView(self)
        self.isolation = Isolation()
        self._latest: LatestTask[Measured | None] = LatestTask(self._prepare, self._take, self)
        self._result: _Result | None = None
        self._corrections = Corrections()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self._connect()
        self._follow_theme()
        self.clear()

    def show_result(
        self,
        layers: Labels | Sequence[Labels],
        image_layer: Image,
        presence: Mapping[int, float] | None = None,
        command: str | None = None,
    ) -> None:
        """Show what a run gave, instead of what was shown before.

        Args:
            layers: of label ids, with `metadata["classes"]`; or where classes may overlap one a class, in their order.
            image_layer: that was segmented.
            presence: label id -> probability, where the network says so.
            command: what does the same in a shell; None where the image has no file.
        """
        self.clear()
        several = [layers] if isinstance(layers, Labels) else layers
        self._result = _Result(ShownResult(several, image_layer, presence or {}), command)
        self._listen(self._result.shown, True)
        self.view.offer_command(command)
        self.view.show_table()
        self._latest.ask(0)
        self._tell()

    def clear(self) -> None:
        """Show that there is no result."""
        if self._result is not None:
            self._listen(self._result.shown, False)
            self._corrections.begun(self._result.shown.layers)
        self._result = None
        self._latest.cancel()
        self.view.show_empty()

    def edited(self, layer: Labels) -> bool:
        """Whether a layer of this or of an earlier result holds corrections that are not saved.

        It differs from what its run made, or was corrected before that was known.
        """
        result, now = self._result, None
        if result is not None and result.now is not None and layer in result.shown.layers and not self._latest.pending:
            now = result.now[result.shown.layers.index(layer)]
        return self._corrections.any_in(layer, now)

    def drawn_of(self, layer: Labels) -> ClassLayers:
        """The layers that one belongs to: those of the result that is shown, or it alone."""
        shown = self._result.shown if self._result is not None else None
        return shown if shown is not None and layer in shown.layers else ClassLayers([layer])

    def _connect(self) -> None:
        self.viewer.layers.events.removed.connect(self._on_removed)
        self.viewer.events.theme.connect(self._follow_theme)
        self.view.model.toggled.connect(lambda label, shown: self._show_classes([label], shown))
        self.view.all_toggled.connect(lambda shown: self._show_classes(self.view.order.labels(), shown))
        self.view.table.alone.connect(self._show_alone)
        self.view.table.again.connect(self._show_again)
        self.view.table.every.connect(lambda: self._show_classes(self.view.order.labels(), True))
        self.view.table.chosen.connect(self._choose)
        self.view.save_labels.clicked.connect(self._save_labels)
        self.view.save_table.clicked.connect(self._save_table)
        self.view.copy_command.clicked.connect(self._copy_command)

    def _listen(self, shown: ShownResult, on: bool) -> None:
        """Follow the layers, or no longer."""
        heard: dict[str, Callable[..., None]] = dict.fromkeys(_STROKES, self._on_stroke)
        heard |= dict.fromkeys(_LOOKS, self._on_look) | {"selected_label": self._on_selected}
        heard |= dict.fromkeys(_DRAWINGS, self._on_drawing)
        for layer in shown.layers:
            for name, slot in heard.items():
                event = getattr(layer.events, name)
                event.connect(slot) if on else event.disconnect(slot)

    def _on_removed(self, event: Event) -> None:
        if self._result is not None and event.value in self._result.shown.layers:
            self.clear()

    def _on_stroke(self) -> None:
        if self._result is not None:
            self._result.stale = True
            self._corrections.begun(self._result.shown.layers)
        self._on_drawing()
        self._tell()

    def _on_drawing(self) -> None:
        self._latest.ask(_PAUSE)

    def _on_look(self) -> None:
        if self._result is not None:
            self.view.model.set_drawn(self._result.shown.colors(), self._result.shown.hidden())
            self.view.table.offer_again(self.isolation.active(self._result.shown))

    def _on_selected(self) -> None:
        """Mark the label that was picked in the image, or whose number was typed."""
        if self._result is not None and (label := self._result.shown.brush()) is not None:
            self.view.table.select(label)

    def _follow_theme(self) -> None:
        self.view.set_theme(get_theme(self.viewer.theme))

    def _prepare(self) -> Callable[[], Measured | None]:
        result = self._result
        return (lambda: None) if result is None else result.shown.work(result.now)

    def _take(self, measured: Measured | None) -> None:
        result = self._result
        if result is None:
            return
        result.stale = False
        if measured is not None:
            result.now = measured.fingerprints
            self._corrections.made(result.shown.layers, measured.fingerprints)
            self._show_rows(result.shown, measured)
        if result.table is not None:
            self._write_table(result.table)
            result.table = None
        self._tell(measured.problem if measured else "")
        self.measured.emit()

    def _show_rows(self, shown: ShownResult, measured: Measured) -> None:
        names = shown.names
        if painted := {row.label: row.name for row in measured.rows if row.label not in names}:
            shown.name(painted)
        self.view.model.set_rows(measured.rows, shown.box is not None)
        self._on_selected()
        self._on_look()

    def _tell(self, problem: str = "") -> None:
        """Say how many classes there are, and whether the numbers are still to come."""
        result, rows = self._result, self.view.model.rows
        if result is None:
            return
        where = " in the box" if result.shown.box is not None else ""
        parts = [f"{sum(row.voxels > 0 for row in rows)} of {len(rows)} classes found{where}"] if rows else []
        if result.stale or result.now is None:
            parts.append("measuring…")
        elif any(map(self._corrections.any_in, result.shown.layers, result.now)):
            parts.append("corrected, not saved")
        self.view.line.setText(problem or ", ".join(parts))

    def _show_classes(self, labels: Sequence[int], shown: bool) -> None:
        if self._result is not None:
            hidden = self._result.shown.hidden()
            self._result.shown.hide(hidden.difference(labels) if shown else hidden.union(labels))

    def _show_alone(self, label: int) -> None:
        if self._result is not None:
            self.isolation.alone(self._result.shown, label)

    def _show_again(self) -> None:
        if self._result is not None:
            self.isolation.again(self._result.shown)

    def _choose(self, label: int) -> None:
        """Let the brush paint a class, and go to it where it is somewhere."""
        if self._result is None:
            return
        shown, row = self._result.shown, self.view.model.row_of(label)
        layer, value = shown.find(label)
        self.viewer.layers.selection.active = layer
        layer.selected_label = value
        if row.voxels:
            go_to(self.viewer, layer, shown.grid, row, value)

    def _save_labels(self) -> None:
        if self._result is None:
            return
        shown, suffixes = self._result.shown, suffixes_of(self._result.shown)
        path = ask_path(self, "Save labels", suggest(shown, suffixes[0]), suffixes, self.viewer.layers)
        if path is not None:
            self.view.save_labels.setEnabled(False)
            worker = create_worker(labels_saver(shown, path))
            worker.returned.connect(self._saved)
            worker.finished.connect(lambda: self.view.save_labels.setEnabled(True))
            worker.start()

    def _saved(self, saved: Saved) -> None:
        if saved.problem:
            show_error(plain(saved.problem))
            return
        show_info(plain(f"Labels saved: {saved.path}{'. ' * bool(saved.notes)}{saved.notes}"))
        self._corrections.saved(saved.shown.layers, saved.fingerprints)
        self._tell()

    def _save_table(self) -> None:
        result = self._result
        if result is None:
            return
        path = ask_path(self, "Save table", suggest(result.shown, TABLE[0]), TABLE, self.viewer.layers)
        if path is None or self._result is not result:  # removed meanwhile
            return
        if self._latest.pending:
            result.table = path
        else:
            self._write_table(path)

    def _write_table(self, path: Path) -> None:
        try:
            write_csv(self.view.model.rows, path)
        except OSError as error:
            show_error(plain(f"{path} is not saved: {error}"))
            return
        show_info(plain(f"Table saved: {path}"))

    def _copy_command(self) -> None:
        if self._result is not None and self._result.command is not None:
            QApplication.clipboard().setText(self._result.command)
            show_info("Command copied to the clipboard")
