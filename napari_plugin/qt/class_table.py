"""What tables of classes have in common: rows of one height, chosen whole, sorted by their headers."""

from qtpy.QtCore import QAbstractItemModel, Qt
from qtpy.QtWidgets import QAbstractItemView, QTableView, QWidget

ROW = 24  # pixels


class ClassTable(QTableView):
    """A table with a row for each class.

    Args:
        rows: that can be sorted; in their own order until a header is clicked.
        name: of the widget.
        described: what a screen reader calls it.
        parent: as Qt takes it.
    """

    def __init__(self, rows: QAbstractItemModel, name: str, described: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(rows)
        self.setObjectName(name)
        self.setAccessibleName(described)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names often differ at both ends
        self._set_headers()

    def _set_headers(self) -> None:
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSortIndicatorClearable(True)
        header.setMinimumSectionSize(24)
        self.setSortingEnabled(True)
        self.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
