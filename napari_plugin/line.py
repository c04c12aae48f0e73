"""Labels that keep to the width there is, whatever they say."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

from napari_plugin.plain import BREAK, breakable


class Line(QLabel):
    """A label of plain text that wraps wherever it must."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent, objectName=name, textFormat=Qt.TextFormat.PlainText)
        fit(self)

    def setText(self, text: str) -> None:
        """Qt's."""
        super().setText(breakable(text))

    def text(self) -> str:
        """Qt's."""
        return str(super().text()).replace(BREAK, "")


def fit(label: QLabel) -> None:
    """Let a label take the width that there is: a long word must not push all panels out of the window."""
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
