"""Texts from files and users, shown as plain text that fits its width."""

import re
from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

# Words of strangers (names of files, layers, classes, bundles): shown as they stand, never as HTML.


BREAK = "\u200b"  # has no width, and a line may end there


def plain(text: str) -> str:
    """Text for a tooltip, a message box, a notification or any label that guesses what it is given.

    >>> plain("liver"), plain("<b>liver</b>")
    ('liver', '<qt>&lt;b&gt;liver&lt;/b&gt;</qt>')
    """
    guessed = "<" in text or "&" in text
    return f"<qt>{'<br>'.join(escape(text).splitlines())}</qt>" if guessed else text


def breakable(text: str) -> str:
    """The same text, of which lines may end within paths and long names, too.

    >>> breakable("/data/case_1 is no bundle").split(BREAK)
    ['/', 'data/', 'case_', '1 is no bundle']
    """
    return re.sub(r"[^\s/_]{0,20}[/_](?=\S)|[^\s/_]{20}(?=\S)", lambda part: part[0] + BREAK, text)


# Labels that keep to the width there is, whatever they say.


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
