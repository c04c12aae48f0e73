"""The panel in which a bundle is chosen and opened."""

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QMessageBox, QVBoxLayout, QWidget

from monai_unetfamily.bundles import METADATA, Card, read_card, shipped_bundles
from monai_unetfamily.io import hex_color
from napari_plugin.layers import load_partial_labels
from napari_plugin.qt import breakable, fit, plain
from napari_plugin.session import Failed, Opened, Refused, open_chosen, unforeseen
from napari_plugin.settings import preferences, recent_bundles, remember_bundle

if TYPE_CHECKING:
    from monai_unetfamily.bundles.trust import Finding

# Opening a bundle: in a worker's thread, since torch takes seconds to load, and never without asking its user.


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
        asked, case_result = reply
        if asked is not self._asked:
            return
        if isinstance(case_result, Opened):
            self.opened.emit(case_result)
        elif isinstance(case_result, Failed):
            self.failed.emit(case_result.reason)
        elif ask_trust(self.window, asked[0].name, case_result.findings):
            self._trusted[asked[0]] = case_result.findings
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
    load_partial_labels()
    return asked, open_chosen(*asked, trusted)


# The chooser of bundles, and what a bundle says of itself.

_SHORT = 32  # letters that are kept on one line
_NOTHING, _BROWSE = "Choose a bundle…", "Browse…"
_PHANTOMS = "⚠ It knows phantoms only: never use it on patients."
_NO_WEIGHTS = "✖ It holds no weights: train it first (unetfamily train), or choose another."


class BundlePanel(QWidget):
    """A list of bundles: shipped, those of the folder in the settings, recent ones, and any that is browsed for.

    `chosen` is emitted with a `Card`, or None where there is none or it cannot be read.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.list = QComboBox(objectName="bundles", toolTip="The trained network and all that belongs to it")
        self.list.setAccessibleName("Bundle")
        self.list.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.text = QLabel(objectName="card", textFormat=Qt.TextFormat.RichText)
        fit(self.text)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addWidget(self.text)
        self.card: Card | None = None
        self.fill()
        self.list.activated.connect(self._activated)

    def fill(self) -> None:
        """List what there is."""
        self.list.clear()
        self.list.addItem(_NOTHING)
        shipped = shipped_bundles()
        own = _bundles_in(preferences().bundles)
        recent = [folder for folder in recent_bundles() if folder not in [*shipped, *own]]
        for group in (shipped, own, recent):
            self.list.insertSeparator(self.list.count())
            for folder in group:
                self.list.addItem(folder.name, folder)
                self.list.setItemData(self.list.count() - 1, plain(str(folder)), Qt.ItemDataRole.ToolTipRole)
        self.list.insertSeparator(self.list.count())
        self.list.addItem(_BROWSE)

    def folders(self) -> list[Path]:
        """The bundles that are listed."""
        data = (self.list.itemData(n) for n in range(self.list.count()))
        return [folder for folder in data if folder is not None]

    def choose(self, folder: Path | None) -> None:
        """Show a bundle and tell of it; None: no bundle."""
        self.card, text = _read(folder)
        if self.card and self._place(self.card.root) < 0:
            remember_bundle(self.card.root)
            self.fill()
        self.list.setCurrentIndex(max(0, self._place(folder)))
        self.text.setText(text)
        self.chosen.emit(self.card)

    def _activated(self, index: int) -> None:
        if self.list.itemText(index) != _BROWSE:
            self.choose(self.list.itemData(index))
            return
        start = preferences().bundles or str(Path.home())
        folder = QFileDialog.getExistingDirectory(self, "Choose a bundle's folder", start)
        before = self.card.root if self.card else None
        self.choose(Path(folder) if folder else before)

    def _place(self, folder: Path | None) -> int:
        return next((n for n in range(self.list.count()) if self.list.itemData(n) == folder), -1)


def _bundles_in(name: str) -> list[Path]:
    """The bundles in the folder of the preferences: none where there is no such folder, or none is named."""
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # of a user whom this machine does not know
        return []
    return [] if not name else sorted(file.parents[1] for file in folder.glob(f"*/configs/{METADATA}"))


def _read(folder: Path | None) -> tuple[Card | None, str]:
    """A bundle's card and its text; no card where it cannot be used."""
    if folder is None:
        return None, ""
    try:
        card = read_card(folder)
    except (ValueError, OSError) as error:
        return None, f"✖ {escape(breakable(str(error)))}"
    return (card, card_text(card)) if card.weights else (None, f"{card_text(card)}<br>{_NO_WEIGHTS}")


def card_text(card: Card) -> str:
    """What a bundle is, in rich text: a line for its task, classes with their colours, modality, network, licence."""
    lines = [escape(breakable(card.task or card.name)), _classes(card), escape(_kind(card))]
    return "<br>".join([*lines, _PHANTOMS] if card.phantoms_only else lines)


def _classes(card: Card) -> str:
    """Each class after a square of its colour."""
    chips = [
        f'<span style="color:{hex_color(label)}">■</span> {_together(name)}'
        for label, name in card.classes.items()
        if label
    ]
    return "  ".join(chips)


def _together(name: str) -> str:
    """A name on one line, where it can be."""
    return escape(name).replace(" ", "&nbsp;") if len(name) < _SHORT else escape(breakable(name))


def _kind(card: Card) -> str:
    what = "pictures" if card.pictures else f"{card.axes}-D"
    channels = f" ({', '.join(card.channels)})" if len(card.channels) > 1 else ""
    parts = [f"{card.modality or 'any modality'}{channels}", what, card.network, card.license or "no licence stated"]
    return " · ".join(parts)
