"""A class shown alone, and then again what was shown before, exactly; no voxel changes."""

from collections.abc import Sequence
from typing import NamedTuple

from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from napari_plugin.drawn import Drawn


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
    >>> drawn, isolation = Drawn([layer]), Isolation()
    >>> isolation.alone(drawn, 1)
    >>> drawn.hidden(), isolation.active(drawn)
    ({2}, True)
    >>> isolation.again(drawn)
    >>> drawn.hidden(), isolation.active(drawn)
    (set(), False)
    """

    def __init__(self) -> None:
        self._before: dict[object, _Look] = {}

    def active(self, drawn: Drawn) -> bool:
        """Whether there is something to go back to."""
        return _key(drawn) in self._before

    def alone(self, drawn: Drawn, label: int) -> None:
        """Draw one label id alone; of layers that do not name it, by napari's own "show selected"."""
        self._before.setdefault(_key(drawn), _look(drawn.layers, drawn))
        if label in drawn.names:
            drawn.hide(drawn.names.keys() - {label})
            return
        layer, value = drawn.find(label)
        layer.selected_label = value
        layer.show_selected_label = True

    def again(self, drawn: Drawn) -> None:
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

    def every(self, drawn: Drawn) -> None:
        """Draw all classes, whatever was drawn before."""
        self.again(drawn)
        if drawn.hidden():
            drawn.hide(())


def _key(drawn: Drawn) -> object:
    return drawn.layers[0].unique_id


def _look(layers: Sequence[Labels], drawn: Drawn) -> _Look:
    return _Look(
        drawn.names,
        drawn.hidden(),
        [layer.colormap for layer in layers],
        [layer.visible for layer in layers],
        [(layer.selected_label, layer.show_selected_label) for layer in layers],
    )
