"""The classes of a result as a table of Qt's: what each cell says, and how it sorts."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor, QFont, QIcon, QPainter, QPixmap

from monai_unetfamily.inference.measures import Measure
from napari_plugin.appearance import Color
from napari_plugin.plain import plain
from napari_plugin.results_columns import Column, columns_of, describe

SHOWN, CLASS = 0, 1  # the columns of the check box, and of colour and name
LABEL = int(Qt.ItemDataRole.UserRole) + 1  # role of a row's label id
SORT = int(Qt.ItemDataRole.UserRole) + 2  # role of what a column is sorted by
_LEFT, _RIGHT = (
    side | Qt.AlignmentFlag.AlignVCenter for side in (Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight)
)
_SWATCH = 12  # pixels


class ResultsModel(QAbstractTableModel):
    """Rows of measures; `toggled(label, shown)` tells of check boxes that the user changed."""

    toggled = Signal(int, bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: list[Measure] = []
        self._columns: list[Column] = []
        self._in_box = False
        self.hidden: set[int] = set()
        self._colors: dict[int, Color] = {}
        self._edge, self._muted, self._ratio = QColor(), QColor(), 1.0

    def set_rows(self, rows: Sequence[Measure], in_box: bool = False) -> None:
        """Show these measures, of a box or of all; with the same classes, selection and scrolling stay."""
        before = [row.label for row in self.rows], self._columns
        columns, self._in_box = columns_of(rows, in_box), in_box
        if before == ([row.label for row in rows], columns):
            self.rows = list(rows)
            self._changed()
            return
        self.beginResetModel()
        self.rows, self._columns = list(rows), columns
        self.endResetModel()

    def set_look(self, text: QColor, ground: QColor, ratio: float) -> None:
        """Take over the colours of a theme, on a screen with `ratio` pixels to one of Qt's."""
        self._edge, self._muted, self._ratio = text, _between(text, ground), ratio
        self._changed()

    def set_drawn(self, colors: Mapping[int, Color], hidden: Collection[int]) -> None:
        """Tick all labels but those that are hidden, and show the colours they are drawn in."""
        self._colors, self.hidden = dict(colors), set(hidden)
        self._changed()

    def row_of(self, label: int) -> Measure:
        """A label's measures.

        Raises:
            StopIteration: it has none.
        """
        return next(row for row in self.rows if row.label == label)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's."""
        return len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's."""
        return len(self._columns)

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Qt's."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == SHOWN else flags

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt's."""
        if orientation != Qt.Orientation.Horizontal or section >= len(self._columns):
            return None
        column = self._columns[section]
        align = _LEFT if section <= CLASS else _RIGHT
        roles = Qt.ItemDataRole
        said = {roles.DisplayRole: column.title, roles.ToolTipRole: column.meaning, roles.TextAlignmentRole: align}
        return said.get(role)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt's."""
        row, column = self.rows[index.row()], self._columns[index.column()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return column.text(row)
            case Qt.ItemDataRole.ToolTipRole:
                return plain(describe(row, self._in_box))
            case Qt.ItemDataRole.AccessibleDescriptionRole:
                return describe(row, self._in_box)
            case Qt.ItemDataRole.TextAlignmentRole if index.column() > CLASS:
                return _RIGHT
            case Qt.ItemDataRole.ForegroundRole if not row.voxels:
                return self._muted
            case Qt.ItemDataRole.FontRole if not row.voxels:
                font = QFont()
                font.setItalic(True)
                return font
            case _ if role == SORT:
                return column.key(row)
            case _ if role == LABEL:
                return row.label
            case Qt.ItemDataRole.CheckStateRole if index.column() == SHOWN:
                return Qt.CheckState.Unchecked if row.label in self.hidden else Qt.CheckState.Checked
            case Qt.ItemDataRole.DecorationRole if index.column() == CLASS and row.label in self._colors:
                return swatch(self._colors[row.label], self._edge, self._ratio)
            case Qt.ItemDataRole.AccessibleTextRole if index.column() == SHOWN:
                return f"show {row.name}"
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Qt's."""
        if role != Qt.ItemDataRole.CheckStateRole or index.column() != SHOWN:
            return False
        self.toggled.emit(self.rows[index.row()].label, Qt.CheckState(value) == Qt.CheckState.Checked)
        return True

    def _changed(self) -> None:
        if self.rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, len(self._columns) - 1))


class ResultsOrder(QSortFilterProxyModel):
    """The same rows, sorted by a column, and those alone whose class holds a text."""

    def __init__(self, model: ResultsModel) -> None:
        super().__init__(model)
        self.setSourceModel(model)
        self.setSortRole(SORT)
        self.setFilterKeyColumn(CLASS)
        self.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

    def labels(self) -> list[int]:
        """The label ids of the rows that are listed, in their order."""
        return [self.index(row, CLASS).data(LABEL) for row in range(self.rowCount())]


def swatch(color: Color, edge: QColor, ratio: float) -> QIcon:
    """A colour with an edge, that it is seen on any ground, and the same in a row that is selected."""
    pixmap = QPixmap(round(_SWATCH * ratio), round(_SWATCH * ratio))
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(QColor.fromRgbF(*color[:3]))
    painter = QPainter(pixmap)
    painter.setPen(edge)
    painter.drawRect(0, 0, _SWATCH - 1, _SWATCH - 1)
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def _between(one: QColor, other: QColor) -> QColor:
    """Three parts of one colour and two of the other: grey, and still to be read."""
    parts = zip(one.getRgb()[:3], other.getRgb()[:3], strict=True)
    return QColor(*(round(0.6 * a + 0.4 * b) for a, b in parts))
