"""The chooser of the layers that are segmented: one a channel, held against the bundle at every change."""

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from monai_unetfamily.bundles.card import Card
from napari_plugin.checks import Verdict, channels_of, check, lacks_spacing
from napari_plugin.geometry import ORIENTATIONS, orientation_of, source_metadata
from napari_plugin.line import Line
from napari_plugin.plain import plain
from napari_plugin.volume import time_point

_AXES = "x", "y", "z"


class ImagePanel(QWidget):
    """A list of layers for each channel of a bundle, what is wrong with the choice, and the question for a voxel size.

    `changed` is emitted whenever the choice, or what is to be said of it, changes.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.card: Card | None = None
        self.verdict = Verdict()
        self.lists: list[QComboBox] = []
        self.form = QFormLayout()
        self.message = Line("image_message")
        self.spacing = _Spacing()
        self.spacing.given.connect(self._space)
        self.take = QPushButton(
            "Take the current time point", objectName="take_time", toolTip="Add the current volume as a 3-D layer"
        )
        self.take.clicked.connect(self._take_time)
        self.orientation = QComboBox(
            objectName="orientation",
            toolTip="The image has no file that states its orientation, so it is assumed: the direction of each array "
            "axis, first axis first (S superior, I inferior, A anterior, P posterior, R the patient's right, L left). "
            "A wrong choice swaps left and right.",
        )
        self.orientation.setAccessibleName("Orientation of the axes")
        self.orientation.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for code, text in ORIENTATIONS.items():
            self.orientation.addItem(f"Axes {text}", code)
        self.orientation.activated.connect(self._orient)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.form)
        layout.addWidget(self.message)
        layout.addWidget(self.spacing)
        layout.addWidget(self.take)
        layout.addWidget(self.orientation)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self.update_layers)
        self.set_card(None)

    @property
    def layers(self) -> list[Image]:
        """The layers chosen: one a channel, or one for all."""
        found = [box.currentData() for box in self.lists if box.isEnabled()]
        return [layer for layer in found if layer is not None]

    @property
    def _channels(self) -> list[str]:
        """The names of a bundle's channels, where it takes several."""
        channels = self.card.channels if self.card and len(self.card.channels) > 1 else ()
        return [name or f"channel {number}" for number, name in enumerate(channels)]

    def set_card(self, card: Card | None) -> None:
        """Ask for what a bundle takes."""
        before = {box.accessibleName(): box.currentData() for box in self.lists}
        while self.form.rowCount():
            self.form.removeRow(0)
        self.card = card
        self.lists = [self._list(name) for name in self._channels or ["Image"]]
        self.update_layers()
        for box in self.lists:
            if (layer := before.get(box.accessibleName())) is not None:
                box.setCurrentIndex(box.findData(layer))
        self.look()

    def update_layers(self) -> None:
        """Follow the viewer's layers, the choice kept."""
        images = [layer for layer in reversed(self.viewer.layers) if isinstance(layer, Image)]
        for number, box in enumerate(self.lists):
            kept = box.currentData()
            box.blockSignals(True)
            box.clear()
            for layer in images:
                box.addItem(layer.name, layer)
                layer.events.name.connect(self.update_layers)
                layer.events.scale.connect(self.look)
                layer.events.data.connect(self.look)
            guess = self._guess(number, images)
            box.setCurrentIndex(box.findData(kept if kept in images else guess))
            box.blockSignals(False)
        self.look()

    def look(self) -> None:
        """Hold the choice against the bundle, and say what is wrong."""
        first = self.lists[0].currentData() if self.lists else None
        alone = first is not None and self.card is not None and channels_of(first) == len(self.card.channels)
        for box in self.lists[1:]:
            box.setEnabled(not alone)
        self.verdict = check(self.card, [box.currentData() for box in self.lists]) if self.card else Verdict()
        mark = "✖ " if self.verdict.problem else "⚠ "
        text = self.verdict.problem or self.verdict.warning
        self.message.setText(mark + text if text else "")
        self.message.setVisible(bool(text))
        self.spacing.setVisible(self.verdict.asks_spacing)
        self.take.setVisible(self.verdict.asks_time)
        self._show_orientation(first)
        self.changed.emit()

    def _list(self, name: str) -> QComboBox:
        box = QComboBox(objectName=f"image_{name}", toolTip=plain(f"The layer that is segmented ({name})"))
        box.setAccessibleName(name)
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.currentIndexChanged.connect(self.look)
        self.form.addRow(plain(name), box)
        return box

    def _guess(self, number: int, images: list[Image]) -> Image | None:
        """The layer whose name holds the channel's, the one that is selected, or the next one from the top."""
        channels = self._channels
        named = [layer for layer in images if channels and channels[number].lower() in layer.name.lower()]
        active = [layer for layer in images if layer is self.viewer.layers.selection.active and not channels]
        return next(iter([*named, *active, *images[number:]]), None)

    def _show_orientation(self, layer: Image | None) -> None:
        """Show how the axes of a volume without a file are taken to run."""
        volumes = self.card is not None and not self.card.pictures
        if layer is None or not volumes or layer.ndim < 3 or layer.rgb or source_metadata(layer) is not None:
            self.orientation.hide()
        else:
            self.orientation.show()
            self.orientation.setCurrentIndex(self.orientation.findData(orientation_of(layer)))

    def _orient(self) -> None:
        """Keep the orientation that was chosen with the layers."""
        for layer in self.layers:
            layer.metadata["orientation"] = self.orientation.currentData()
        self.look()

    def _take_time(self) -> None:
        """Add the volume of the time point that the viewer shows, and choose it."""
        layer = self.layers[0]
        shown = layer.world_to_data(self.viewer.dims.point[-layer.ndim :])[0]
        data, keywords = time_point(layer, int(np.clip(round(shown), 0, len(layer.data) - 1)))
        self.viewer.add_image(data, **keywords)
        self.lists[0].setCurrentIndex(0)  # the topmost layer

    def _space(self, size: tuple[float, float, float]) -> None:
        """Give the layers a voxel size, x y z in mm."""
        for layer in filter(lacks_spacing, self.layers):
            layer.scale = (*layer.scale[:-3], *reversed(size))
            layer.units = (*layer.units[:-3], "mm", "mm", "mm")
        self.look()


class _Spacing(QWidget):
    """Three lengths and a button."""

    given = Signal(tuple)  # x, y, z in mm

    def __init__(self) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.sizes = [_millimetres(name) for name in _AXES]
        for box in self.sizes:
            row.addWidget(box)
        button = QPushButton("Set", objectName="set_spacing", toolTip="Give the layer this voxel size")
        button.clicked.connect(lambda: self.given.emit(tuple(box.value() for box in self.sizes)))
        row.addWidget(button)


def _millimetres(axis: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox(objectName=f"spacing_{axis}", toolTip=f"Voxel size {axis}, in mm", suffix=" mm")
    box.setAccessibleName(f"Voxel size {axis}")
    box.setRange(0.01, 100)
    box.setValue(1)
    return box
