"""Classes in the viewer: colours and names, their layers, one class shown alone."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from monai_unetfamily.io import Label, label_table, palette

# How classes look: the colours that they have in files and reports, their names under the cursor, and back.


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


# Classes in the viewer: one layer of label ids, or where classes may overlap, one layer of a mask for each class.


class ClassLayers:
    """Layers that belong together, and which of their classes are drawn.

    Where there are several, that of label id 1 comes first, and whatever is not 0 is the class.

    Args:
        layers: `metadata["classes"]` of each names its values.
    """

    def __init__(self, layers: Sequence[Labels]) -> None:
        self.layers = tuple(layers)

    @property
    def names(self) -> dict[int, str]:
        """Label id -> name, without the background."""
        if len(self.layers) == 1:
            return {label: name for label, name in self.layers[0].metadata.get("classes", {}).items() if label}
        return {number: layer.metadata["classes"][1] for number, layer in enumerate(self.layers, start=1)}

    def find(self, label: int) -> tuple[Labels, int]:
        """The layer of a label id, and its value there."""
        return (self.layers[0], label) if len(self.layers) == 1 else (self.layers[label - 1], 1)

    def brush(self) -> int | None:
        """The label id that the brush paints; None where it hangs on the layer that is painted."""
        return int(self.layers[0].selected_label) if len(self.layers) == 1 else None

    def colors(self) -> dict[int, Color]:
        """Label id -> the colour that it is drawn in, hidden or not."""
        found = {label: self.find(label) for label in self.names}
        return {label: color_of(layer.colormap, value) for label, (layer, value) in found.items()}

    def hidden(self) -> set[int]:
        """The label ids that are not drawn."""
        if len(self.layers) > 1:
            return {number for number, layer in enumerate(self.layers, start=1) if not layer.visible}
        return {label for label, color in self.colors().items() if not color[3]}

    def hide(self, labels: Collection[int]) -> None:
        """Draw all but these label ids; no voxel changes, and no colour."""
        if len(self.layers) > 1:
            for number, layer in enumerate(self.layers, start=1):
                layer.visible = number not in labels
            return
        [layer] = self.layers
        colors = direct_colormap(self.colors(), labels)
        colors.use_selection, colors.selection = layer.show_selected_label, layer.selected_label
        layer.colormap = colors

    def label_of(self, layer: Labels, value: int) -> int:
        """The label id of a value of one of the layers, the inverse of `find`."""
        return value if len(self.layers) == 1 else self.layers.index(layer) + 1


# A class shown alone, and then again what was shown before, exactly; no voxel changes.


class _Look(NamedTuple):
    """How layers were drawn."""

    names: dict[int, str]
    hidden: set[int]
    colormaps: list[CyclicLabelColormap | DirectLabelColormap]
    visible: list[bool]
    selected: list[tuple[int, bool]]  # label, and whether it alone was shown


class Isolation:
    """Which classes are shown alone, and how their layers were drawn before.

    >>> import numpy as np
    >>> layer = Labels(np.eye(3, dtype=int), metadata={"classes": {1: "liver", 2: "spleen"}})
    >>> drawn, isolation = ClassLayers([layer]), Isolation()
    >>> isolation.alone(drawn, 1)
    >>> drawn.hidden(), isolation.active(drawn)
    ({2}, True)
    >>> isolation.again(drawn)
    >>> drawn.hidden(), isolation.active(drawn)
    (set(), False)
    """

    def __init__(self) -> None:
        self._before: dict[object, _Look] = {}

    def active(self, drawn: ClassLayers) -> bool:
        """Whether there is something to go back to."""
        return _key(drawn) in self._before

    def alone(self, drawn: ClassLayers, label: int) -> None:
        """Draw one label id alone; of layers that do not name it, by napari's own "show selected"."""
        self._before.setdefault(_key(drawn), _look(drawn.layers, drawn))
        if label in drawn.names:
            drawn.hide(drawn.names.keys() - {label})
            return
        layer, value = drawn.find(label)
        layer.selected_label = value
        layer.show_selected_label = True

    def again(self, drawn: ClassLayers) -> None:
        """Draw what was drawn before a class was shown alone; where none was, nothing changes."""
        look = self._before.pop(_key(drawn), None)
        if look is None:
            return
        for layer, (label, alone) in zip(drawn.layers, look.selected, strict=True):
            if layer.show_selected_label != alone:
                layer.selected_label, layer.show_selected_label = label, alone
        if look.names != drawn.names:  # a class was painted since: it has a colour of its own now
            drawn.hide(look.hidden)
            return
        for layer, colormap, visible in zip(drawn.layers, look.colormaps, look.visible, strict=True):
            layer.colormap, layer.visible = colormap, visible

    def every(self, drawn: ClassLayers) -> None:
        """Draw all classes, whatever was drawn before."""
        self.again(drawn)
        if drawn.hidden():
            drawn.hide(())


def _key(drawn: ClassLayers) -> object:
    return drawn.layers[0].unique_id


def _look(layers: Sequence[Labels], drawn: ClassLayers) -> _Look:
    return _Look(
        drawn.names,
        drawn.hidden(),
        [layer.colormap for layer in layers],
        [layer.visible for layer in layers],
        [(layer.selected_label, layer.show_selected_label) for layer in layers],
    )
