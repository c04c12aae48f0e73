"""The layers of labels that fill up while a run goes on."""

from time import perf_counter
from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from monai_unetfamily.volumes.label_table import mask_table
from napari_plugin.appearance import features_of, label_colormap, table_colormap
from napari_plugin.volume import labels_layer_data

if TYPE_CHECKING:
    from monai_unetfamily.volumes.nifti import Labels as LabelArray

_PERIOD = 0.25  # seconds between two drawings of the growing labels: the window's time is not spent on them

GROWING = " …"  # behind the name of a layer that grows


class PartialLabels:
    """One layer of label ids; where classes may overlap, one layer of a mask for each class.

    Args:
        viewer: which shows them.
        image: that is segmented.
        names: label id -> name.
        title: of the layers; those of masks have the class's name behind it.
    """

    def __init__(self, viewer: ViewerModel, image: Image, names: dict[int, str], title: str) -> None:
        self.viewer, self.image, self.names, self.title = viewer, image, names, title
        self.layers: list[Labels] = []
        self._labels: LabelArray | None = None
        self._drawn = 0.0

    def show(self, labels: "LabelArray") -> None:
        """Show what there is so far; `labels` is one array that grows, another where a run begins anew."""
        if self._labels is not labels:
            self.discard()
            self._labels, self.layers = labels, self._added(labels)
        elif perf_counter() - self._drawn > _PERIOD:
            self._draw()

    def finish(self, labels: "LabelArray") -> list[Labels]:
        """Show the whole, and return the layers that show it; their names still end with `GROWING`."""
        self.show(labels)
        if not all(layer in self.viewer.layers for layer in self.layers):  # somebody removed one meanwhile
            self.discard()
            self.layers = self._added(labels)
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

    def _added(self, labels: "LabelArray") -> list[Labels]:
        if labels.ndim == min(self.image.ndim, 3):
            return [self._add(labels, self.title, self.names, label_colormap(self.names))]
        classes = {label: name for label, name in self.names.items() if label}
        return [
            self._add(labels[..., c], f"{self.title} {name}", {1: name}, table_colormap(mask_table(label, name)))
            for c, (label, name) in enumerate(classes.items())
        ]

    def _add(self, labels: "LabelArray", title: str, names: dict[int, str], colors: DirectLabelColormap) -> Labels:
        shown, lies = labels_layer_data(labels, self.image)
        lies["metadata"] = lies["metadata"] | {"classes": names}
        layer = Labels(shown, name=title + GROWING, colormap=colors, features=features_of(names), opacity=0.5, **lies)
        layer.editable = False  # nobody's strokes are painted over
        return self.viewer.add_layer(layer)
