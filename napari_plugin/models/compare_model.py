"""What the table of a comparison says of a class: Dice, both volumes, and what changes from A to B."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QFont

from napari_plugin.qt import plain

if TYPE_CHECKING:
    from monai_unetfamily.evaluation import Difference

NUMBER = int(Qt.ItemDataRole.UserRole) + 1  # role of a row's place in the comparison
_SORT = int(Qt.ItemDataRole.UserRole) + 2
_NOTHING = "-"


@dataclass(frozen=True)
class _Column:
    title: str
    meaning: str
    text: "Callable[[Difference], str]"
    key: "Callable[[Difference], Any]"


def _number(value: float | None, digits: str, signed: bool = False) -> str:
    return _NOTHING if value is None else format(value, f"{'+' if signed else ''}{digits}")


def _volume(ml: float | None, signed: bool = False) -> str:
    """Four digits at most: names need the room."""
    size = abs(ml or 0.0)
    return _number(ml, ".0f" if size >= 1000 else ".1f" if size >= 10 else ".2f", signed)


def _last(value: float | None) -> float:
    return float("inf") if value is None else value


_NAME = _Column("Class", "Click a class to go where most of it differs.", lambda row: row.name, lambda row: row.name)
_DICE = _Column(
    "Dice",
    "Overlap of A and B, 1 where they are equal; none for a class that is in neither, or that one alone knows.",
    lambda row: _number(row.dice, ".3f"),
    lambda row: _last(row.dice),
)
_VOLUMES = [
    _Column("A ml", "Volume in A.", lambda row: _volume(row.ml_a), lambda row: _last(row.ml_a)),
    _Column("B ml", "Volume in B.", lambda row: _volume(row.ml_b), lambda row: _last(row.ml_b)),
    _Column(
        "B - A",
        "Volume in B less that in A, in ml.",
        lambda row: _volume(row.difference_ml, signed=True),
        lambda row: _last(row.difference_ml),
    ),
]
_AREAS = [
    _Column("A px", "Pixels in A.", lambda row: _number(row.voxels_a, "d"), lambda row: _last(row.voxels_a)),
    _Column("B px", "Pixels in B.", lambda row: _number(row.voxels_b, "d"), lambda row: _last(row.voxels_b)),
]


def describe(row: "Difference") -> str:
    """All that is known of a class, a line each.

    >>> from monai_unetfamily.evaluation import Difference
    >>> print(describe(Difference("liver", 1, 5, 0.95, 1200.0, 1250.0, 50.0, 6000, 6250, 610)))
    liver (label 1 in A, 5 in B)
    Dice 0.950
    1200.00 ml in A, 1250.00 ml in B
    610 voxels differ, of 6000 in A and 6250 in B
    >>> print(describe(Difference("spleen", None, 2, None, None, 150.0, None, None, 750, None)))
    spleen (label 2 in B)
    A does not know this class: it is left out of the differences
    """
    ids = [f"{label} in {side}" for label, side in ((row.label_a, "A"), (row.label_b, "B")) if label is not None]
    head = f"{row.name} (label {', '.join(ids)})"
    if row.differing is None:
        side = "A" if row.label_a is None else "B"
        return f"{head}\n{side} does not know this class: it is left out of the differences"
    if row.dice is None:
        return f"{head}\nis in neither"
    volumes = "" if row.ml_a is None or row.ml_b is None else f"\n{row.ml_a:.2f} ml in A, {row.ml_b:.2f} ml in B"
    counts = f"{row.differing} voxels differ, of {row.voxels_a} in A and {row.voxels_b} in B"
    return f"{head}\nDice {row.dice:.3f}{volumes}\n{counts}"


class CompareModel(QAbstractTableModel):
    """Rows of differences; one that is not compared, or in neither, is in italics."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Difference] = []
        self._columns: list[_Column] = []

    def set_rows(self, rows: "Sequence[Difference]", pixels: bool = False) -> None:
        """Show these differences."""
        self.beginResetModel()
        self.rows, self._columns = list(rows), [_NAME, _DICE, *(_AREAS if pixels else _VOLUMES)]
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's."""
        return len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's."""
        return len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt's."""
        if orientation != Qt.Orientation.Horizontal or section >= len(self._columns):
            return None
        column, roles = self._columns[section], Qt.ItemDataRole
        said = {roles.DisplayRole: column.title, roles.ToolTipRole: column.meaning}
        return said.get(role, _align(section) if role == roles.TextAlignmentRole else None)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt's."""
        row, column = self.rows[index.row()], self._columns[index.column()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return column.text(row)
            case Qt.ItemDataRole.ToolTipRole:
                return plain(describe(row))
            case Qt.ItemDataRole.AccessibleDescriptionRole:
                return describe(row)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _align(index.column())
            case Qt.ItemDataRole.FontRole if row.dice is None:
                font = QFont()
                font.setItalic(True)
                return font
            case _ if role == _SORT:
                return column.key(row)
            case _ if role == NUMBER:
                return index.row()
        return None


class CompareOrder(QSortFilterProxyModel):
    """The same rows, sorted by a column."""

    def __init__(self, model: CompareModel) -> None:
        super().__init__(model)
        self.setSourceModel(model)
        self.setSortRole(_SORT)


def _align(section: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if section else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
