"""The Qt model of the results table, with its columns."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor, QFont, QIcon, QPainter, QPixmap

from monai_unetfamily.reporting import Measure
from napari_plugin.layers import Color
from napari_plugin.qt import plain

# What the table of a result says of a class, column by column and in full.


_OUTSIDE = "it may continue outside; the volume is of the part inside"


@dataclass(frozen=True)
class Column:
    """One column: its title and what that means, and a row's text and sorting key."""

    title: str
    meaning: str
    text: Callable[[Measure], str]
    key: Callable[[Measure], Any]


def _natural(measure: Measure) -> str:
    """So that rib 2 comes before rib 10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), measure.name.casefold())


def _volume(measure: Measure) -> str:
    ml = measure.volume_ml or 0.0
    if not ml:
        return "0"
    return f"{ml:.1f}" if ml >= 100 else f"{ml:.2f}" if ml >= 0.01 else "<0.01"


def _volume_in_box(measure: Measure) -> str:
    return _volume(measure) if measure.voxels else "-"


def _presence(measure: Measure) -> str:
    return "" if measure.presence is None else f"{100 * measure.presence:.0f}"


_SHOWN = Column("", "Which classes are drawn.", lambda row: "", lambda row: row.label)
_NAME = Column("Class", "Click a class to go there and to paint it.", lambda row: row.name, _natural)
_VOLUME = Column("ml", "Volume in millilitres.", _volume, lambda row: row.volume_ml)
_VOLUME_IN_BOX = Column(
    "ml", "Volume in millilitres, within the box; -: none in the box.", _volume_in_box, lambda row: row.volume_ml
)
_AREA = Column("px", "Area in pixels.", lambda row: str(row.voxels), lambda row: row.voxels)
_PRESENCE = Column(
    "%",
    "How sure the network is that the class is there.",
    _presence,
    lambda row: -1.0 if row.presence is None else row.presence,
)
_EDGE = Column(
    "Edge",
    f"Faces of the field of view, or of the box, that a class touches: {_OUTSIDE}.",
    lambda row: " ".join(face[0].upper() for face in row.border_faces.split()),
    lambda row: row.border_faces,
)


def columns_of(rows: Sequence[Measure], in_box: bool = False) -> list[Column]:
    """The columns that rows of measures need; `in_box`: only a box was segmented."""
    size = _AREA if rows and rows[0].unit == "px" else _VOLUME_IN_BOX if in_box else _VOLUME
    presence = [_PRESENCE] if any(row.presence is not None for row in rows) else []
    return [_SHOWN, _NAME, size, *presence, _EDGE]


def describe(measure: Measure, in_box: bool = False) -> str:
    """All that is known of a class, a line each; `in_box`: only a box was segmented.

    >>> place = *[None] * 3, "mm", *[None] * 6
    >>> row = Measure("ct", 1, "liver", 1.5, 12, 101.26, 20.0, *place, True, "superior left", 0.98)
    >>> print(describe(row))
    liver (label 1)
    1.50 ml in 12 voxels
    intensity 101.3 ± 20.0
    98 % sure that it is there
    touches the field of view's superior and left face: it may continue outside; the volume is of the part inside
    """
    ml, unit = ("", "pixels") if measure.volume_ml is None else (f"{_volume(measure)} ml in ", "voxels")
    size = f"{ml}{measure.voxels} {unit}"
    lines = [
        f"{measure.name} (label {measure.label})",
        size if measure.voxels else "none in the box" if in_box else "is nowhere",
    ]
    if measure.mean is not None:
        lines.append(f"intensity {measure.mean:.1f} ± {measure.sd:.1f}")
    if measure.presence is not None:
        lines.append(f"{_presence(measure)} % sure that it is there")
    if measure.touches_border:
        faces = " and ".join(measure.border_faces.split())
        lines.append(f"touches the {'box' if in_box else 'field of view'}'s {faces} face: {_OUTSIDE}")
    return "\n".join(lines)


# The classes of a result as a table of Qt's: what each cell says, and how it sorts.

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
