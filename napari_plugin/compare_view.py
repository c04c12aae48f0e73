"""What the panel of comparisons is made of: two lists, a button, the legend, the table and what is to be said of it."""

from napari.utils.theme import Theme
from qtpy.QtCore import QItemSelectionModel, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.class_table import ROW, ClassTable
from napari_plugin.compare_model import NUMBER, CompareModel, CompareOrder
from napari_plugin.comparing import KINDS
from napari_plugin.line import Line, fit

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
