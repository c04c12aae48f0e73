"""The widget Layers > Segment > Organ segmentation: choose a bundle and an image, run, correct, measure, compare."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.events import Event
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from monai_unetfamily.bundles import Card, shipped_bundles
from monai_unetfamily.io import format_box
from napari_plugin.command import predict_command
from napari_plugin.layers import GROWING, Box, PartialLabels, file_box, grid_of, to_image
from napari_plugin.panels import (
    BundlePanel,
    ComparePanel,
    ImagePanel,
    Opener,
    OptionsPanel,
    OrganMenu,
    ResultsPanel,
    RunPanel,
    duration,
)
from napari_plugin.qt import keep_programs, plain
from napari_plugin.session import Ask, Opened, Result, Runner
from napari_plugin.settings import remember_bundle

if TYPE_CHECKING:
    from monai_unetfamily.prediction import Settings

# The three planes that a radiologist looks at.


_PLANES = {  # the axis of (S-I, A-P, R-L) that slides, then those of rows and columns
    "Axial": ((0, 1, 2), "From below: the patient's right is on the left"),
    "Coronal": ((1, 0, 2), "From the front: the patient's right is on the left"),
    "Sagittal": ((2, 0, 1), "From the patient's left: anterior is on the left"),
}


class PlanesPanel(QWidget):
    """A button for each plane; napari's own rolling of axes would show coronal slices lying on their side."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for name, (order, meaning) in _PLANES.items():
            button = QPushButton(name, objectName=f"plane_{name.lower()}", toolTip=meaning)
            button.clicked.connect(lambda _, order=order: self.show_plane(order))
            row.addWidget(button)

    def show_plane(self, order: tuple[int, ...]) -> None:
        """Let the last three axes have this order, in 2-D, and fit the view."""
        dims = self.viewer.dims
        extra = dims.ndim - 3
        if extra >= 0:
            dims.ndisplay = 2
            dims.order = (*range(extra), *(axis + extra for axis in order))
            self.viewer.reset_view()


# Layers > Segment > Organ segmentation: a bundle, an image, Run; organs appear, are corrected, measured, compared.

_WIDTH = 336  # pixels: all panels, and a scroll bar beside them


@dataclass(frozen=True)
class _Asked:
    """What a run was asked for, as far as its result needs it."""

    images: list[Image]
    made_by: str  # the bundle, and the depth and the box that were asked for
    command: str | None
    shown: PartialLabels


class OrganSegmentation(QWidget):
    """The widget: panels from top to bottom, and what passes between them.

    Args:
        viewer: which the widget is docked in.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        keep_programs()
        self.viewer = viewer
        self.bundles, self.images, self.options = BundlePanel(), ImagePanel(viewer), OptionsPanel(viewer)
        self.runs, self.results, self.compare = RunPanel(), ResultsPanel(viewer), ComparePanel(viewer)
        self.menu = OrganMenu(viewer, self.results.isolation, self.results.drawn_of, self)
        self.opener, self.runner = Opener(self), Runner(self)
        self.opened: Opened | None = None
        self.waiting = ""  # why the bundle is not open
        self._asked: _Asked | None = None  # of the run that is on its way
        self._made: dict[
            tuple[Image, str], list[tuple[Labels, str]]
        ] = {}  # the last result of an image, a bundle, a depth and a box
        self._lay_out()
        self._connect()
        self._look()

    @property
    def reason(self) -> str:
        """Why no run can begin; empty where one can."""
        if self.bundles.card is None:
            return "Choose a bundle."
        if self.images.verdict.problem or self.opened is None:
            return self.images.verdict.problem or self.waiting
        try:
            self.options.region.box()
        except ValueError as error:
            return str(error)
        return ""

    def event(self, event: QEvent) -> bool:
        """Stop what runs when napari takes the widget away; a hidden one goes on."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.runner.cancel()
            self.compare.cancel()
            self.menu.leave()
        return bool(super().event(event))

    def _lay_out(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(4, 4, 4, 4)
        for panel in (self.bundles, self.images, PlanesPanel(self.viewer), self.options, self.runs):
            column.addWidget(panel)
        self.case_result = QTabWidget(objectName="outcome")
        self.case_result.addTab(self.results, "Result")
        self.case_result.addTab(self.compare, "Compare")
        column.addWidget(self.case_result, stretch=1)
        scroll = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        scroll.setMinimumWidth(_WIDTH)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)

    def _connect(self) -> None:
        self.bundles.chosen.connect(self._choose)
        self.images.changed.connect(self._look)
        self.options.changed.connect(self._look)
        self.options.device_changed.connect(self._open)
        self.opener.opened.connect(self._use)
        self.opener.failed.connect(self._wait)
        self.runs.run.connect(self._run)
        self.runs.cancel.connect(self._cancel)
        self.runner.stepped.connect(self.runs.tell)
        self.runner.finished.connect(self._finish)
        self.runner.failed.connect(self._fail)
        self.runner.cancelled.connect(self._cancelled)
        self.viewer.layers.events.removed.connect(self._on_removed)

    def _choose(self, card: Card | None) -> None:
        self.images.set_card(card)
        for before, box in pairwise([self.bundles.text, *self.images.lists]):
            QWidget.setTabOrder(before, box)
        self.options.offer(None)
        self._open()

    def _open(self) -> None:
        """Open the chosen bundle on the chosen device."""
        self.opened, card = None, self.bundles.card
        self.opener.forget()
        if card is not None:
            self.opener.open(card.root, self.options.device.currentText())
            self.waiting = f"Opening {card.root.name}…"
        self._look()

    def _use(self, opened: Opened) -> None:
        self.opened = opened
        self.options.offer(opened.choices, opened.devices)
        remember_bundle(opened.bundle.root)
        self._look()

    def _wait(self, reason: str) -> None:
        self.waiting = f"✖ {reason}"
        self._look()

    def _look(self) -> None:
        """Say whether a run can begin."""
        self.options.region.set_image(next(iter(self.images.layers), None))
        if not self.runner.busy:
            self.runs.idle(self.reason)

    def _run(self) -> None:
        if self.opened is None or self.reason or self.runner.busy:
            self._look()  # the view may have moved since it was looked at last
            return
        layers, bundle = self.images.layers, self.opened.bundle
        box = self._box(layers[0])
        settings = self.options.settings(box)
        depth = "" if settings.level is None else f" L{settings.level}"  # results of several depths stay side by side
        region = "" if box is None else f" box {format_box(box)}"  # as those of several regions
        title = f"{layers[0].name} {bundle.root.name}{depth}{region}"
        ask = Ask(bundle, partial(to_image, layers), layers[0].name, settings)
        shown = PartialLabels(self.viewer, layers[0], bundle.names, title, box)
        self._asked = _Asked(layers, f"{bundle.root}{depth}{region}", self._command(layers, settings), shown)
        self.runs.running(title)
        self.runner.start(ask, shown)

    def _command(self, layers: list[Image], settings: "Settings") -> str | None:
        """The command that does the same; None where a layer has no file."""
        paths = [path for path in map(_file_of, layers) if path]
        if self.opened is None or len(paths) < len(layers):
            return None
        root = self.opened.bundle.root
        return predict_command(
            root.name if root in shipped_bundles() else root,
            paths,
            "labels",
            settings,
            self.options.device.currentText(),
            channel_dim=3 if layers[0].ndim == 4 else None,
            series=layers[0].metadata.get("series", ""),
            trust=self.opened.trusted,
        )

    def _box(self, image: Image) -> Box | None:
        """The chosen box along the axes of the image's file."""
        box = self.options.region.box()
        return (
            box
            if box is None or image.ndim == 2
            else file_box(box, image.data.shape[-3:], grid_of(image).reorientation)
        )

    def _on_removed(self, event: Event) -> None:
        """Stop a run whose image was removed."""
        if self._asked is not None and self.runner.busy and event.value in self._asked.images:
            self._cancel()

    def _cancel(self) -> None:
        self.runner.cancel()
        self.runs.cancelling()

    def _finish(self, result: Result, layers: list[Labels]) -> None:
        asked, self._asked = self._asked, None
        if asked is None:
            return
        self._replace((asked.images[0], asked.made_by), layers)
        if not asked.shown.incomplete:
            self.results.show_result(layers, asked.images[0], result.presence, asked.command)
        for note in result.notes:
            show_info(plain(note))
        self._look()
        removed = " Layers that were removed meanwhile are not shown." if asked.shown.incomplete else ""
        self.runs.say(f"Done in {duration(result.seconds)}.{removed}")

    def _replace(self, key: tuple[Image, str], layers: list[Labels]) -> None:
        """Put layers in place of the earlier result, which stays where it was corrected or renamed: it is work."""
        kept = False
        for layer, name in self._made.get(key, []):
            if layer in self.viewer.layers and layer.name == name and not self.results.edited(layer):
                self.viewer.layers.remove(layer)
            kept |= layer in self.viewer.layers
        grown = [layer for layer in layers if layer.name.endswith(GROWING)]  # others were renamed meanwhile
        for layer in grown:
            layer.name = layer.name.removesuffix(GROWING)
        self._made[key] = [(layer, layer.name) for layer in grown]
        self._made = {made: of for made, of in self._made.items() if made[0] in self.viewer.layers}
        if kept:
            show_info("The earlier result was corrected or renamed, so it stays beside the new one.")

    def _fail(self, reason: str) -> None:
        self._asked = None
        self._look()
        self.runs.say(f"✖ {reason}")
        show_error(plain(reason))

    def _cancelled(self) -> None:
        self._asked = None
        self._look()
        self.runs.say("Cancelled. What was there before is unchanged.")


def _file_of(image: Image) -> str | None:
    """The file of a layer; of a picture, which napari's own reader opens, what napari says."""
    path = image.metadata.get("path") or (image.source.path if image.ndim == 2 else None)
    return str(path) if path else None
