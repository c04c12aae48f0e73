"""How a bundle is run: device, overlap, mirroring, region, depth, presence."""

from typing import TYPE_CHECKING

from napari.components import ViewerModel
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QVBoxLayout, QWidget
from superqt import QCollapsible, QLabeledDoubleSlider, QLabeledSlider

from napari_plugin.plain import plain
from napari_plugin.region import Box
from napari_plugin.region_panel import RegionPanel
from napari_plugin.settings import preferences

if TYPE_CHECKING:
    from monai_unetfamily.inference.choices import Choices
    from monai_unetfamily.inference.settings import Settings

_OWN = -0.05  # one step below no overlap: the bundle's own


class OptionsPanel(QWidget):
    """What may be chosen of the bundle that is open; what it does not allow is hidden.

    `changed` is emitted with every change, `device_changed` with a device's name.
    """

    changed = Signal()
    device_changed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.device = QComboBox(objectName="device", toolTip="Where the network runs; auto takes the best there is")
        self.overlap = _overlap()
        self.mirror = QCheckBox("Average over flips", objectName="mirror", toolTip="Slower, and a little better")
        self.region = RegionPanel(viewer)
        self.level = QLabeledSlider(Qt.Orientation.Horizontal)
        self.level.setObjectName("level")
        self.level.setToolTip("Depth of the UNet++: L1 is fastest, the deepest shows most detail")
        self.gates = QCheckBox("Own presence threshold", objectName="own_presence")
        self.presence = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.presence.setObjectName("presence")
        self.presence.setRange(0, 1)
        self.choices: Choices | None = None
        self.form = QFormLayout()
        self._lay_out()
        self._connect()
        self.offer(None)

    def offer(self, choices: "Choices | None", devices: tuple[str, ...] = ()) -> None:
        """Show what a bundle allows; None: none is open. What was chosen stays, unless something else is offered."""
        self._list_devices(devices)
        if choices is None or choices != self.choices:
            self.choices = choices
            self._offer_overlap(choices.overlap if choices else None)
            self._offer_levels(choices.levels if choices else ())
            self._offer_presence(choices.presence if choices else {})
            self.mirror.setChecked(False)
            self.form.setRowVisible(self.mirror, bool(choices and choices.mirror_axes))

    def _offer_overlap(self, own: float | None) -> None:
        self.overlap.setSpecialValueText("—" if own is None else f"the bundle's ({own:g})")
        self.overlap.setEnabled(own is not None)

    def _offer_levels(self, levels: tuple[int, ...]) -> None:
        self.form.setRowVisible(self.level, bool(levels))
        if levels:
            self.level.setRange(levels[0], levels[-1])
            self.level.setValue(levels[-1])

    def _offer_presence(self, thresholds: dict[str, float]) -> None:
        self.gates.setChecked(False)
        self.form.setRowVisible(self.gates, bool(thresholds))
        own = ", ".join(f"{name} {threshold:.2g}" for name, threshold in thresholds.items())
        self.gates.setToolTip(plain(f"A class less probable than this is taken to be absent. The bundle's: {own}"))
        self.presence.setToolTip(self.gates.toolTip())
        self.presence.setValue(max(thresholds.values(), default=0.5))
        self._show_presence()

    def settings(self, box: Box | None) -> "Settings":
        """What is asked for, in the predictor's words; `box` along the axes of the image's file."""
        from monai_unetfamily.inference.settings import Settings

        own = self.choices is not None and self.choices.overlap is not None  # windows that overlap
        deepest = self.level.value() == self.level.maximum()
        gated = self.choices.presence if self.choices and self.gates.isChecked() else {}
        return Settings(
            overlap=round(self.overlap.value(), 2) if own and self.overlap.value() >= 0 else None,
            mirror=self.mirror.isChecked(),
            level=None if deepest or not (self.choices and self.choices.levels) else self.level.value(),
            presence=dict.fromkeys(gated, round(self.presence.value(), 3)),
            box=box,
        )

    def _list_devices(self, devices: tuple[str, ...]) -> None:
        kept = self.device.currentText() or preferences().device
        self.device.blockSignals(True)
        self.device.clear()
        self.device.addItems(list(dict.fromkeys(["auto", "cpu", *devices, kept])))
        self.device.setCurrentText(kept)
        self.device.blockSignals(False)

    def _lay_out(self) -> None:
        self.form.setContentsMargins(0, 0, 0, 0)
        for name, widget in (
            ("Region", self.region),
            ("Depth", self.level),
            ("Device", self.device),
            ("Overlap", self.overlap),
            ("Mirroring", self.mirror),
            ("Presence", self.gates),
            ("", self.presence),
        ):
            self.form.addRow(name, widget)
        inside = QWidget()
        inside.setLayout(self.form)
        self.fold = QCollapsible("Options")
        self.fold.setObjectName("options")
        self.fold.addWidget(inside)
        self.fold.layout().setContentsMargins(0, 0, 0, 0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fold)

    def _connect(self) -> None:
        self.device.currentTextChanged.connect(self.device_changed)
        self.region.changed.connect(self.changed)
        self.gates.toggled.connect(self._show_presence)

    def _show_presence(self) -> None:
        self.form.setRowVisible(self.presence, self.gates.isChecked())


def _overlap() -> QDoubleSpinBox:
    box = QDoubleSpinBox(objectName="overlap", toolTip="Of neighbouring windows: more is slower and smoother")
    box.setRange(_OWN, 0.9)
    box.setSingleStep(0.05)
    box.setValue(preferences().overlap or _OWN)
    return box
