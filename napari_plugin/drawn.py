"""Classes in the viewer: one layer of label ids, or where classes may overlap, one layer of a mask for each class."""

from collections.abc import Collection, Sequence

from napari.layers import Labels

from napari_plugin.appearance import Color, color_of, direct_colormap


class Drawn:
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
