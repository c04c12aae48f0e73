"""The chooser of bundles, and what a bundle says of itself."""

from html import escape
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QVBoxLayout, QWidget

from monai_unetfamily.bundles.card import Card, read_card
from monai_unetfamily.bundles.metadata import METADATA, shipped_bundles
from monai_unetfamily.volumes.colors import hex_color
from napari_plugin.line import fit
from napari_plugin.plain import breakable, plain
from napari_plugin.settings import preferences, recent_bundles, remember_bundle

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
