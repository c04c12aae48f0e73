"""Results in the viewer: layers and the measures of their classes."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.io import Box, Labels, stem
from monai_unetfamily.reporting import Measure, measure
from napari_plugin.layers.class_layers import ClassLayers, direct_colormap, features_of, own_color
from napari_plugin.layers.geometry import grid_of

# What labels that are shown, and corrected, say in numbers.


def measure_layer(
    labels: Labels,
    image: NDArray[Any],
    grid: Nifti1Pair | None,
    names: Mapping[int, str],
    presence: Mapping[int, float],
    case: str = "",
    box: Box | None = None,
) -> list[Measure]:
    """Measure every class of `names`, then every label that was painted besides, as "label 7".

    The numbers are those of the command's `volumes.csv`.

    Args:
        labels: ids in the file's order, (X, Y, Z) or (rows, columns).
        image: in the same order, with perhaps an axis of channels more, of which the first is measured.
        grid: its affine; None: a picture.
        names: label id -> name.
        presence: label id -> probability.
        case: the name that goes into each row.
        box: that was segmented, along the axes of the file; None: all.

    Raises:
        ValueError: labels and image of different shapes.

    >>> labels = np.zeros((4, 4, 4), np.uint8)
    >>> labels[1:3, 1, 1], labels[3, 3, 3] = 1, 7
    >>> grid = Nifti1Pair(labels, np.diag([10.0, 10.0, 10.0, 1.0]))
    >>> rows = measure_layer(labels, labels, grid, {1: "liver", 2: "spleen"}, {})
    >>> [(row.name, row.voxels, round(row.volume_ml, 6)) for row in rows]
    [('liver', 2, 2.0), ('spleen', 0, 0.0), ('label 7', 1, 1.0)]
    """
    affine = np.eye(3) if grid is None else np.asarray(grid.affine, np.float64)
    one = image[..., 0] if image.ndim == len(affine) else image
    every = {label: name for label, name in names.items() if label} | unnamed(labels, names)
    return measure(labels, np.asarray(one), affine, every, case, presence, box)


def unnamed(labels: Labels, names: Mapping[int, str]) -> dict[int, str]:
    """The labels above 0 that are there and have no name -> one for each.

    >>> unnamed(np.array([[0, 1], [9, 3]]), {1: "liver"})
    {3: 'label 3', 9: 'label 9'}
    """
    highest = max([0, *names])
    known = np.zeros(highest + 2, np.bool_)
    known[[0, *names]] = True
    found: set[int] = set()
    for layer in np.moveaxis(labels, int(np.argmax(np.abs(labels.strides))), 0):
        others = layer[~known[np.clip(layer, 0, highest + 1)]]
        found.update(np.unique(others).tolist())
    return {label: f"label {label}" for label in sorted(found)}


def fingerprint(labels: Labels) -> int:
    """A number that differs, but for one chance in 2^32, where labels differ.

    >>> labels = np.zeros((3, 3), np.uint8)
    >>> before = fingerprint(labels)
    >>> labels[1, 1] = 1
    >>> fingerprint(labels) == before
    False
    """
    value = zlib.crc32(repr(labels.shape).encode())
    for layer in np.moveaxis(labels, int(np.argmax(np.abs(labels.strides))), 0):
        value = zlib.crc32(layer.ravel(order="K"), value)
    return value


# A result in the viewer, and what measures it.


@dataclass(frozen=True)
class Measured:
    """What labels said at some time: each layer's fingerprint, and a row a class, or why they cannot be measured."""

    fingerprints: list[int]
    rows: list[Measure]
    problem: str = ""


class ShownResult(ClassLayers):
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
        return drawn if self.grid is None else self.grid.reorientation.undo(drawn)

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
