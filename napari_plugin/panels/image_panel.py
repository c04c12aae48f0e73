"""The panel in which image layers are chosen, and what is wrong with them for a bundle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from monai_unetfamily.bundles import Card
from napari_plugin.layers import ORIENTATIONS, orientation_of, source_metadata, time_point
from napari_plugin.qt import Line, plain

# Whether a bundle can take the layers that are chosen for it: what is wrong, and what only looks wrong.


_AIR = -200  # HU: every CT of a body has air around or in it, near -1000
_NEVER_MR = -100  # magnitudes are not negative; a little is left to filters and resampling
_SLICES = (0.25, 0.5, 0.75)  # of a volume's first axis: where values are looked at
_FINE = 128  # values along each axis of a slice that are looked at, about


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a choice of layers.

    Attributes:
        problem: why the bundle cannot take them; empty where it can.
        warning: what looks wrong, and may be right.
        asks_spacing: whether the voxels' size has to be asked for.
        asks_time: whether one time point of a 4-D layer has to be taken.
    """

    problem: str = ""
    warning: str = ""
    asks_spacing: bool = False
    asks_time: bool = False


def check(card: Card, layers: Sequence[Image | None]) -> Verdict:
    """Hold the layers, one a channel or a 4-D one for all, against what a bundle takes."""
    chosen = [layer for layer in layers if layer is not None]
    if not chosen:
        return Verdict("No image is chosen: open one (File > Open, or drop a file on the window).")
    if problem := _kind_problem(card, chosen):
        return Verdict(problem)
    if len(card.channels) == 1 and channels_of(chosen[0]) > 1 and chosen[0].ndim == 4:
        got = f"“{chosen[0].name}” is 4-D, {channels_of(chosen[0])} volumes over time or channels"
        fix = "use the button below to take the current one"
        return Verdict(f"{got}, and {card.name} takes a single volume: {fix}.", asks_time=True)
    if problem := _channel_problem(card, layers) or _grid_problem(chosen):
        return Verdict(problem)
    if card.pictures:
        return Verdict()
    if any(map(has_no_spacing, chosen)):
        return Verdict(f"“{chosen[0].name}” has no voxel size: state it below, in mm.", asks_spacing=True)
    return Verdict(warning=doubt(card.modality, sample(chosen[0])))


def channels_of(layer: Image) -> int:
    """How many channels a layer holds: those of a colour picture, or of the first axis beyond the spatial ones.

    >>> channels_of(Image(np.zeros((4, 5, 3)), rgb=True)), channels_of(Image(np.zeros((2, 4, 5, 3))))
    (3, 2)
    """
    if layer.rgb:
        return int(layer.data.shape[-1])
    return int(layer.data.shape[0]) if layer.ndim == 4 else 1


def has_no_spacing(layer: Image) -> bool:
    """Whether nothing says how large the voxels are: no header, no unit of length, and a scale of one.

    >>> has_no_spacing(Image(np.zeros((4, 5, 3)))), has_no_spacing(Image(np.zeros((4, 5, 3)), scale=(5, 1, 1)))
    (True, False)
    """
    lengths = any(unit.is_compatible_with("mm") for unit in layer.units[-3:])
    return "affine" not in layer.metadata and not lengths and bool(np.allclose(layer.scale, 1))


def sample(layer: Image) -> NDArray[np.float64]:
    """Some values of a layer, of a few slices: cheap, whatever its size."""
    data = layer.data[0] if layer.ndim == 4 else layer.data
    if layer.ndim == 2:
        return np.asarray(data, np.float64)
    fine = tuple(slice(None, None, max(1, size // _FINE)) for size in data.shape[1:])
    return np.stack([np.asarray(data[int(part * (len(data) - 1))][fine], np.float64) for part in _SLICES])


def doubt(modality: str, values: NDArray[np.float64]) -> str:
    """What speaks against an image being of a modality; empty where nothing does.

    >>> doubt("CT", np.array([0.0, 255.0]))[:60]
    'Values run from 0 to 255: CT in Hounsfield units has air nea'
    >>> doubt("MR", np.array([0.0, 255.0]))
    ''
    """
    low, high = float(np.nanmin(values, initial=math.inf)), float(np.nanmax(values, initial=-math.inf))
    if low > high:
        return "None of the values that were looked at is a number."
    got = f"Values run from {low:g} to {high:g}:"
    if modality == "CT" and low > _AIR:
        return f"{got} CT in Hounsfield units has air near -1000. Is this CT, with its rescale slope applied?"
    if modality == "MR" and low < _NEVER_MR:
        return f"{got} that looks like CT, and the bundle was trained on MR."
    return ""


def _kind_problem(card: Card, layers: Sequence[Image]) -> str:
    layer = layers[0]
    flat = layer.ndim == 2
    if layer.multiscale:
        return f"“{layer.name}” is a pyramid of several resolutions: open the full one."
    if flat and card.axes == 3:
        return f"“{layer.name}” is a 2-D layer, and {card.name} takes volumes: open the whole volume."
    if not flat and card.axes == 2:
        return f"“{layer.name}” is a volume, and {card.name} takes 2-D pictures: choose a bundle for volumes."
    if layer.ndim > 4:
        return f"“{layer.name}” has {layer.ndim} axes: 3, and a fourth of channels, are allowed; take a part of it."
    if layer.rgb and not flat:
        return f"“{layer.name}” is a stack of colour pictures, and {card.name} takes volumes of numbers."
    return ""


def _channel_problem(card: Card, layers: Sequence[Image | None]) -> str:
    wanted, names = len(card.channels), ", ".join(card.channels)
    first = layers[0]
    if first is not None and channels_of(first) == wanted:
        return ""
    chosen = [layer for layer in layers if layer is not None]
    several = next((layer for layer in chosen if channels_of(layer) > 1), None)
    if several is not None:
        got = f"“{several.name}” has {channels_of(several)} channels"
        return (
            f"{got}, and {card.name} takes {wanted} ({names}): choose one that has, or split it (Layer > Split Stack)."
        )
    if len(chosen) < wanted:
        return f"{card.name} takes {wanted} channels ({names}): choose a layer for each."
    if len(set(map(id, chosen))) < len(chosen):
        return f"One layer stands for two channels: {card.name} takes {wanted} different ones ({names})."
    return ""


def _grid_problem(layers: Sequence[Image]) -> str:
    first = layers[0]
    for other in layers[1:]:
        if other.data.shape != first.data.shape:
            got = f"“{other.name}” has {other.data.shape} voxels, “{first.name}” {first.data.shape}"
            return f"{got}: the channels of one image need one grid; resample them to it first."
        where, there = _affine(other), _affine(first)
        if where.shape != there.shape or not np.allclose(where, there, atol=1e-3):
            return f"“{other.name}” lies elsewhere than “{first.name}”: the channels of one image need one grid."
    return ""


def _affine(layer: Image) -> NDArray[np.float64]:
    """Where a layer's voxels lie: by the affine of its file, or by scale and translation."""
    return np.asarray(layer.metadata.get("affine", [layer.scale, layer.translate]), np.float64)


# The chooser of the layers that are segmented: one a channel, held against the bundle at every change.

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
        for layer in filter(has_no_spacing, self.layers):
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
