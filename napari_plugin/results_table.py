"""The table of classes: mouse, keyboard, and the colours of napari's theme."""

from collections.abc import Callable

from napari.utils.theme import Theme
from qtpy.QtCore import QItemSelectionModel, QSize, Qt, Signal
from qtpy.QtGui import QAction, QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QWidget

from napari_plugin.class_table import ROW, ClassTable
from napari_plugin.results_model import CLASS, LABEL, SHOWN, ResultsOrder

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
