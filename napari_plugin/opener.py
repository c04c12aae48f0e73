"""Opening a bundle: in a worker's thread, since torch takes seconds to load, and never without asking its user."""

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_plugin import partial_labels
from napari_plugin.plain import breakable
from napari_plugin.session import Failed, Opened, Refused, open_chosen, unforeseen

if TYPE_CHECKING:
    from monai_unetfamily.bundles.trust import Finding

_SHOWN, _LETTERS = 5, 160  # findings in the question, and letters of each; the whole is in its details


class Opener(QObject):
    """Opens the bundle that was asked for last.

    `opened` is emitted with an `Opened`, `failed` with a line that says why it could not be.
    """

    opened = Signal(object)
    failed = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.window = parent
        self._asked: tuple[Path, str] | None = None
        self._trusted: dict[Path, tuple[Finding, ...]] = {}  # what a person allowed in this session

    def open(self, root: Path, device: str) -> None:
        """Open a bundle on a device; an earlier one that is still on its way is forgotten."""
        self._asked = root, device
        worker = create_worker(_opened, self._asked, self._trusted.get(root, ()))
        worker.returned.connect(self._come)
        worker.errored.connect(partial(self._break, self._asked))  # napari shows the traceback
        worker.start()

    def forget(self) -> None:
        """Nothing is wanted any more."""
        self._asked = None

    def _break(self, asked: tuple[Path, str], error: BaseException) -> None:
        self._come((asked, unforeseen(error)))

    def _come(self, reply: tuple[tuple[Path, str], Opened | Refused | Failed]) -> None:
        asked, outcome = reply
        if asked is not self._asked:
            return
        if isinstance(outcome, Opened):
            self.opened.emit(outcome)
        elif isinstance(outcome, Failed):
            self.failed.emit(outcome.reason)
        elif ask_trust(self.window, asked[0].name, outcome.findings):
            self._trusted[asked[0]] = outcome.findings
            self.open(*asked)
        else:
            self.failed.emit(f"{asked[0].name} was not opened: nobody vouches for the code that it would run.")


def ask_trust(window: QWidget, name: str, findings: "tuple[Finding, ...]") -> bool:
    """Ask whether a bundle may run what it would run, all of it named."""
    box = QMessageBox(window)
    box.setObjectName("trust")
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Does this bundle come from someone you trust?")
    box.setTextFormat(Qt.TextFormat.RichText)
    lines = [f"<li><code>{_short(finding.what)}</code><br>in {_short(finding.where)}</li>" for finding in findings]
    more = f"<p>… and {len(lines) - _SHOWN} more.</p>" if len(lines) > _SHOWN else ""
    what = f"<p><b>{_short(name)}</b> would run code on this machine that is not known to be harmless:</p>"
    box.setText(f"{what}<ul>{''.join(lines[:_SHOWN])}</ul>{more}<p>Nothing of it has run yet.</p>")
    box.setDetailedText("\n\n".join(f"{finding.where}:\n{finding.what}" for finding in findings))
    trust = box.addButton("Trust and open", QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(box.addButton("Do not open", QMessageBox.ButtonRole.RejectRole))
    box.exec()
    return box.clickedButton() is trust


def _short(text: str) -> str:
    """The beginning of a text: the question must fit on the screen, its buttons in reach."""
    return escape(breakable(text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"))


def _opened(asked: tuple[Path, str], trusted: "tuple[Finding, ...]") -> tuple[object, Opened | Refused | Failed]:
    partial_labels.load()
    return asked, open_chosen(*asked, trusted)
