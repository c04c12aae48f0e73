"""How classes look: the colours that they have in files and reports, their names under the cursor, and back."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from monai_unetfamily.volumes.colors import palette
from monai_unetfamily.volumes.label_table import Label, label_table

Color: TypeAlias = tuple[float, ...]  # red, green, blue, alpha, 0 to 1
_UNNAMED = (1.0, 1.0, 1.0, 1.0)  # of a label that has no name yet
_NOTHING = (0.0, 0.0, 0.0, 0.0)


def label_colormap(names: Mapping[int, str], hidden: Collection[int] = ()) -> DirectLabelColormap:
    """The colours of classes (label id -> name) in a Labels layer; what is hidden is transparent.

    >>> colors = label_colormap({0: "background", 1: "liver", 2: "spleen"}, hidden=[2])
    >>> [[round(float(part), 2) for part in colors.map(label)] for label in (0, 1, 2)]
    [[0.0, 0.0, 0.0, 0.0], [0.9, 0.62, 0.0, 1.0], [0.34, 0.71, 0.91, 0.0]]
    """
    return table_colormap(label_table(names), hidden)


def table_colormap(table: Mapping[int, Label], hidden: Collection[int] = ()) -> DirectLabelColormap:
    """The same of a label table, as `label_table.mask_table` makes one, or a file holds one."""
    return direct_colormap({label: _as_color(color) for label, (_, color) in table.items()}, hidden)


def direct_colormap(colors: Mapping[int, Color], hidden: Collection[int] = ()) -> DirectLabelColormap:
    """The same of colours."""
    seen = {label: (*color[:3], 0.0 if label in hidden else 1.0) for label, color in colors.items() if label}
    return DirectLabelColormap(color_dict={None: _UNNAMED, 0: _NOTHING} | seen)


def color_of(colormap: CyclicLabelColormap | DirectLabelColormap, label: int) -> Color:
    """The colour of a label, be others alone shown or not."""
    if isinstance(colormap, DirectLabelColormap):
        return tuple(map(float, colormap.color_dict.get(label, _UNNAMED)))
    every = colormap.model_copy(update={"use_selection": False})
    return tuple(map(float, every.map(label)))


def own_color(label: int) -> Color:
    """The colour that a label has by its number.

    >>> [round(part, 2) for part in own_color(1)]
    [0.9, 0.62, 0.0, 1.0]
    """
    return _as_color(palette(label))


def features_of(names: Mapping[int, str]) -> dict[str, list[Any]]:
    """What makes napari's status bar name the class under the cursor.

    >>> features_of({1: "liver"})
    {'index': [0, 1], 'class': ['background', 'liver']}
    """
    return _features(label_table(names))


def table_layer(table: Mapping[int, Label]) -> dict[str, Any]:
    """The keywords of a Labels layer that show a file's table.

    >>> shown = table_layer({0: Label("background", (0, 0, 0)), 2: Label("spleen", (255, 0, 0))})
    >>> shown["colormap"].map(2).tolist(), shown["features"]
    ([1.0, 0.0, 0.0, 1.0], {'index': [0, 2], 'class': ['background', 'spleen']})
    """
    return {"colormap": table_colormap(table), "features": _features(table)}


def layer_table(layer: Labels, labels: Iterable[int]) -> dict[int, Label]:
    """The table of `labels` as a layer names and colours them; what it does not name is called by its number.

    >>> import numpy as np
    >>> layer = Labels(np.zeros((2, 3), int), metadata={"classes": {1: "liver"}}, colormap={1: "red", None: "white"})
    >>> layer_table(layer, [1, 2])[1], layer_table(layer, [1, 2])[2].name
    (Label(name='liver', color=(255, 0, 0)), 'label 2')
    """
    names = {0: "background"} | dict(layer.metadata.get("classes", {}))
    ids = sorted({0, *labels, *names})
    return {label: Label(names.get(label, f"label {label}"), _rgb(layer, label)) for label in ids}


def _features(table: Mapping[int, Label]) -> dict[str, list[Any]]:
    return {"index": list(table), "class": [label.name for label in table.values()]}


def _rgb(layer: Labels, label: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in color_of(layer.colormap, label)[:3])
    return (red, green, blue) if label else (0, 0, 0)


def _as_color(rgb: tuple[int, int, int]) -> Color:
    return (*(part / 255 for part in rgb), 1.0)
