"""What the results panel is made of: a filter, the table, a line and three buttons; or a word that there is nothing."""

from napari.utils.theme import Theme
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.line import Line
from napari_plugin.plain import plain
from napari_plugin.results_model import ResultsModel, ResultsOrder
from napari_plugin.results_table import ResultsTable

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
