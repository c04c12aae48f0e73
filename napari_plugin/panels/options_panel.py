"""The panel of options: device, overlap, mirroring, level, presence thresholds, region."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.layers import Image, Layer, Shapes
from napari.utils.events import Event
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider, QLabeledSlider

from napari_plugin.layers import Box, box_in_view, drawn_box, slice_axis
from napari_plugin.qt import plain
from napari_plugin.settings import preferences

if TYPE_CHECKING:
    from monai_unetfamily.prediction import BundleOptions, Settings

# Which part of the image is segmented: all of it, a box, or what is in view.


WHOLE, DRAWN, VIEW = "Whole volume", "Box: rectangle and slices", "Current view and slices"
_PAUSE = 100  # ms after which the view is taken to stand still, and to have been drawn
_BOX = "box"  # name of the layer that rectangles are drawn in


class RegionPanel(QWidget):
    """A choice of three, a range of slices, and a button that begins a rectangle.

    `changed` is emitted whenever another part is chosen.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.image: Image | None = None
        self.choice = QComboBox(objectName="region", toolTip="The part of the image that is segmented")
        self.choice.addItems([WHOLE, DRAWN, VIEW])
        self.first, self.last = _slice("first"), _slice("last")
        self.draw = QPushButton(
            "Draw rectangle", objectName="draw_box", toolTip="Draw a rectangle on the slice that is shown"
        )
        self.range = QWidget()
        row = QHBoxLayout(self.range)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (self.first, QLabel("to"), self.last):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice)
        layout.addWidget(self.range)
        layout.addWidget(self.draw)
        self.choice.currentTextChanged.connect(self._chosen)
        self.draw.clicked.connect(self.start_drawing)
        self.first.valueChanged.connect(self.last.setMinimum)
        self.last.valueChanged.connect(self.first.setMaximum)
        viewer.dims.events.order.connect(self._reset)
        viewer.dims.events.ndisplay.connect(self._change)
        self._moved = QTimer(self, interval=_PAUSE, singleShot=True)
        self._moved.timeout.connect(self._change)
        viewer.scene.camera.events.connect(self._move)
        viewer.layers.events.inserted.connect(self._listen)
        self._hear(viewer.layers)
        self._chosen(WHOLE)

    def set_image(self, image: Image | None) -> None:
        """Offer the slices of another image."""
        if image is not self.image:
            self.image = image
            self._show_range()
            self._reset()

    def box(self) -> Box | None:
        """The box that is chosen, in voxels along the axes as they are shown; None: the whole image.

        Raises:
            ValueError: nothing is drawn, or what is lies beside the image.
        """
        if self.choice.currentText() == WHOLE or self.image is None:
            return None
        axis, slices = self._axis(), (self.first.value(), self.last.value())
        if axis is None and self.image.ndim > 2:
            raise ValueError(
                "A box lies on slices: show the volume in 2-D (the button with the cube, below the layers)."
            )
        if self.choice.currentText() == VIEW:
            return box_in_view(self.image, axis, slices)
        return drawn_box(self.image, self._shapes(), axis, slices)

    def start_drawing(self) -> None:
        """Add a layer for rectangles, or take the one that is there, and make the next drag draw one."""
        if self.image is None:
            return
        shapes = self._drawn() or self._add_shapes(self.image)
        self.viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    def _change(self) -> None:
        self.changed.emit()

    def _move(self) -> None:
        if self.choice.currentText() == VIEW:
            self._moved.start()

    def _listen(self, event: Event) -> None:
        """Hear of rectangles."""
        self._hear([event.value])
        self._change()

    def _hear(self, layers: Iterable[Layer]) -> None:
        for layer in layers:
            if isinstance(layer, Shapes):
                layer.events.set_data.connect(self._change)

    def _add_shapes(self, image: Image) -> Shapes:
        return self.viewer.add_shapes(
            ndim=image.ndim,
            name=_BOX,
            face_color="transparent",
            edge_color="yellow",
            scale=image.scale,  # on the image's own voxels: else the viewer's slices would be 1 mm apart
            translate=image.translate,
            units=image.units,
        )

    def _shapes(self) -> Shapes:
        shapes = self._drawn()
        if shapes is None:
            raise ValueError("No rectangle is drawn: press Draw rectangle, and drag one around the organ.")
        return shapes

    def _drawn(self) -> Shapes | None:
        """The layer of shapes that is selected, or the topmost."""
        layers = [layer for layer in reversed(self.viewer.layers) if isinstance(layer, Shapes)]
        active = self.viewer.layers.selection.active
        return active if isinstance(active, Shapes) else next(iter(layers), None)

    def _chosen(self, choice: str) -> None:
        self._show_range()
        self.draw.setVisible(choice == DRAWN)
        self.changed.emit()

    def _show_range(self) -> None:
        picture = self.image is not None and self.image.ndim == 2
        self.range.setVisible(self.choice.currentText() != WHOLE and not picture)

    def _axis(self) -> int | None:
        dims = self.viewer.dims
        return None if self.image is None else slice_axis(self.image, dims.order, dims.ndisplay)

    def _reset(self) -> None:
        """All slices of the axis that slides."""
        axis = self._axis()
        if self.image is None or axis is None:
            return
        most = int(self.image.data.shape[axis]) - 1
        for box, value in ((self.first, 0), (self.last, most)):
            box.setRange(0, most)
            box.setValue(value)


def _slice(which: str) -> QSpinBox:
    box = QSpinBox(objectName=f"{which}_slice", toolTip=f"The {which} slice of the box, as counted below the picture")
    box.setAccessibleName(f"{which} slice")
    box.setMinimumWidth(40)
    return box


# How a bundle is run: device, overlap, mirroring, region, depth, presence.

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
        self.choices: BundleOptions | None = None
        self.form = QFormLayout()
        self._lay_out()
        self._connect()
        self.offer(None)

    def offer(self, choices: "BundleOptions | None", devices: tuple[str, ...] = ()) -> None:
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
        from monai_unetfamily.prediction import Settings

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
