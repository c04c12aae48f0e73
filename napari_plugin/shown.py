"""A result in the viewer, and what measures it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray

from monai_unetfamily.inference.box import Box
from monai_unetfamily.inference.measures import Measure
from monai_unetfamily.volumes.sources import stem
from napari_plugin.appearance import direct_colormap, features_of, own_color
from napari_plugin.drawn import Drawn
from napari_plugin.geometry import grid_of
from napari_plugin.measuring import fingerprint, measure_layer


@dataclass(frozen=True)
class Measured:
    """What labels said at some time: each layer's fingerprint, and a row a class, or why they cannot be measured."""

    fingerprints: list[int]
    rows: list[Measure]
    problem: str = ""


class Shown(Drawn):
    """The layers of a result, and the image that it is of.

    Args:
        layers: as they are in the viewer; `metadata["classes"]` of each names its values.
        image: that was segmented.
        presence: label id -> probability, where the network says so.
    """

    def __init__(self, layers: Sequence[LabelsLayer], image: Image, presence: Mapping[int, float]) -> None:
        super().__init__(layers)
        self.image, self.presence = image, dict(presence)
        self.case = case_name(image)
        self.grid = None if layers[0].ndim == 2 else grid_of(layers[0])
        self.box: Box | None = layers[0].metadata.get("box")

    def name(self, labels: Mapping[int, str]) -> None:
        """Give names to labels that had none, so that they have a colour, and a name in the file."""
        hidden, colors = self.hidden(), self.colors()
        [layer] = self.layers
        layer.metadata["classes"] = dict(layer.metadata["classes"]) | dict(labels)
        layer.features = features_of(layer.metadata["classes"])
        layer.colormap = direct_colormap(colors | {label: own_color(label) for label in labels})
        self.hide(hidden)

    def work(self, before: list[int] | None) -> Callable[[], Measured | None]:
        """What measures the layers as they are; it gives None where their fingerprints are still `before`.

        To be called in the main thread; what it returns runs in any.
        """
        drawn, names = [np.asarray(layer.data) for layer in self.layers], self.names
        image = self.image.data

        def measure() -> Measured | None:
            now = list(map(fingerprint, drawn))
            if now == before:
                return None
            try:
                scan = self.in_file_order(np.asarray(image))  # here, since a lazy array may take its time
                return Measured(now, self._rows(list(map(self.in_file_order, drawn)), scan, names))
            except ValueError as error:  # code that gave the layer data of another shape
                return Measured(now, [], str(error))

        return measure

    def in_file_order(self, drawn: NDArray[Any]) -> NDArray[Any]:
        """A layer's voxels along the axes of the image's file; a view of them."""
        return drawn if self.grid is None else self.grid.turn.undo(drawn)

    def _rows(self, arrays: list[NDArray[Any]], image: Any, names: Mapping[int, str]) -> list[Measure]:
        grid = None if self.grid is None else self.grid.image
        if len(arrays) == 1:
            return measure_layer(arrays[0], image, grid, names, self.presence, self.case, self.box)
        rows = (
            measure_layer((array > 0).view(np.uint8), image, grid, {1: name}, {}, self.case, self.box)[0]
            for array, name in zip(arrays, names.values(), strict=True)
        )
        return [
            row._replace(label=label, presence=self.presence.get(label)) for label, row in zip(names, rows, strict=True)
        ]


def case_name(image: Image) -> str:
    """What an image is called in tables and files: its file without what says the format, else its layer."""
    path = image.metadata.get("path")
    return stem(Path(path)) if path else image.name
