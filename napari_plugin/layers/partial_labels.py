"""The layers of labels that fill up while a run goes on."""

from collections.abc import Iterator
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.colormaps import label_colormap as cyclic_colormap
from vispy.visuals.line.dash_atlas import DashAtlas

from monai_unetfamily.io import Box, mask_table, may_overlap
from napari_plugin.layers.class_layers import features_of, label_colormap, table_colormap
from napari_plugin.layers.geometry import grid_of, layer_shape
from napari_plugin.layers.layer_image import labels_layer_data

if TYPE_CHECKING:
    from monai_unetfamily.io import Labels as LabelArray

_PERIOD = 0.25  # seconds between two drawings of the growing labels: the window's time is not spent on them
GROWING = " …"  # behind the name of a layer that grows


def load_partial_labels() -> None:
    """Load what napari loads with its first Labels layer, half a second of it: in any thread, before a run."""
    import_module("pandas")
    cyclic_colormap(2)  # by skimage
    DashAtlas()  # of its brush's outline; vispy keeps what it computes


class PartialLabels:
    """One layer of label ids; where classes may overlap, one layer of a mask for each class.

    Args:
        viewer: which shows them.
        image: that is segmented.
        names: label id -> name.
        title: of the layers; those of masks have the class's name behind it.
        box: that is segmented, along the axes of the image's file; None: all.
    """

    def __init__(
        self, viewer: ViewerModel, image: Image, names: dict[int, str], title: str, box: Box | None = None
    ) -> None:
        self.viewer, self.image, self.names, self.title, self.box = viewer, image, names, title, box
        self.layers: list[Labels] = []
        self._laid = 0  # how many layers there have been: a person may remove some
        self._labels: LabelArray | None = None
        self._drawn = 0.0

    def lay(self) -> Iterator[None]:
        """Add the layers, still empty: step by step, since napari takes nearly a tenth of a second to take one in."""
        self.viewer.layers.selection.clear()
        for layer in self._made(self._nothing()):
            yield
            self.layers.append(self.viewer.add_layer(layer))
            self._laid += 1
            yield

    def show(self, labels: "LabelArray") -> None:
        """Show what there is so far; `labels` is one array that grows, another where a run begins anew."""
        if self._labels is not labels:
            self._labels = labels
            self._give(labels)
        elif perf_counter() - self._drawn > _PERIOD:
            self._draw()

    def finish(self, labels: "LabelArray") -> list[Labels]:
        """Show the whole, and return the layers that show it; their names still end with `GROWING`."""
        self.show(labels)
        self.layers = [layer for layer in self.layers if layer in self.viewer.layers]
        if not all(np.may_share_memory(layer.data, labels) for layer in self.layers):
            self._add(labels)  # somebody gave one other data
        for layer in self.layers:
            layer.editable = True
            layer.refresh()
        return self.layers

    def discard(self) -> None:
        """Take the layers away."""
        for layer in self.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self.layers = []

    def _draw(self) -> None:
        for layer in self.layers:
            layer.refresh(thumbnail=False, highlight=False, extent=False)
        self._drawn = perf_counter()

    def _give(self, labels: "LabelArray") -> None:
        parts = [labels] if self._are_ids(labels) else list(np.moveaxis(labels, -1, 0))
        if len(parts) != self._laid:  # ids where masks were expected
            self._add(labels)
            return
        for layer, part in zip(self.layers, parts, strict=True):
            if layer not in self.viewer.layers:
                continue
            layer.data, _ = labels_layer_data(part, self.image)
            layer.editable = False  # which new data made it

    @property
    def incomplete(self) -> bool:
        """Whether a person removed one of the layers."""
        return len(self.layers) < self._laid or not all(layer in self.viewer.layers for layer in self.layers)

    def _add(self, labels: "LabelArray") -> None:
        self.discard()
        self.layers = [self.viewer.add_layer(layer) for layer in self._made(labels)]
        self._laid = len(self.layers)

    def _are_ids(self, labels: "LabelArray") -> bool:
        return labels.ndim == min(self.image.ndim, 3)

    def _nothing(self) -> "LabelArray":
        """Labels, or masks, that are 0 everywhere, and take no memory."""
        shown = np.broadcast_to(np.min_scalar_type(max(self.names)).type(0), layer_shape(self.image)[-3:])
        labels = shown if shown.ndim == 2 else grid_of(self.image).reorientation.undo(shown)
        masks = len(self.names) if may_overlap(self.names) else 0
        return np.broadcast_to(labels[..., None], (*labels.shape, masks)) if masks else labels

    def _made(self, labels: "LabelArray") -> Iterator[Labels]:
        if self._are_ids(labels):
            yield self._layer(labels, self.title, self.names, label_colormap(self.names))
            return
        classes = {label: name for label, name in self.names.items() if label}
        for c, (label, name) in enumerate(classes.items()):
            colors = table_colormap(mask_table(label, name))
            yield self._layer(labels[..., c], f"{self.title} {name}", {1: name}, colors)

    def _layer(self, labels: "LabelArray", title: str, names: dict[int, str], colors: DirectLabelColormap) -> Labels:
        shown, lies = labels_layer_data(labels, self.image)
        lies["metadata"] = lies["metadata"] | {"classes": names, "box": self.box}
        layer = Labels(shown, name=title + GROWING, colormap=colors, features=features_of(names), opacity=0.5, **lies)
        layer.editable = False  # nobody's strokes are painted over
        return layer
