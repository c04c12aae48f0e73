"""The context menu of a class in the image."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QMenu, QWidget

from napari_plugin.layers import ClassLayers, Isolation

# Which class is under the mouse, of those that are drawn.


def pick(layers: Iterable[Layer], event: Any) -> tuple[Labels, int] | None:
    """The topmost layer that draws something where the mouse is, and its value there; in 3-D the nearest one of it.

    Args:
        layers: from the bottom to the top.
        event: of napari's mouse: `position` and `view_direction` in the world, `dims_displayed`.
    """
    for layer in reversed(list(layers)):
        if isinstance(layer, Labels) and layer.visible and layer.opacity and (value := _value(layer, event)):
            return layer, value
    return None


def _value(layer: Labels, event: Any) -> int:
    """The first value along the view that is drawn; 0: none."""
    if len(event.dims_displayed) == 3 and layer.ndim > 2:
        return next((value for value in _along_ray(layer, event) if _is_drawn(layer, value)), 0)
    value = layer.get_value(
        event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True
    )
    return int(value) if value and _is_drawn(layer, int(value)) else 0


def _along_ray(layer: Labels, event: Any) -> Iterable[int]:
    """The values that a ray from the eye meets, each once, in their order."""
    first = len(event.position) - layer.ndim
    displayed = [axis - first for axis in event.dims_displayed]
    start, end = layer.get_ray_intersections(event.position, event.view_direction, displayed, world=True)
    if start is None or end is None:
        return ()
    steps = np.linspace(start, end, 2 * ceil(float(np.abs(end - start).max())) + 1)
    voxels = np.clip(np.rint(steps).astype(int), 0, np.array(layer.data.shape) - 1)
    return map(int, dict.fromkeys(np.asarray(layer.data[tuple(voxels.T)]).tolist()))


def _is_drawn(layer: Labels, value: int) -> bool:
    return bool(value and layer.colormap.map(value)[3])


# The menu of the right button in the image: an organ alone, hidden, and all of them again.

_RIGHT = 2  # napari's number of the button
_STILL = 4  # pixels that a hand may move within a click: more is a drag, which zooms


class OrganMenu(QObject):
    """Opens at a right click on a class that is drawn; a drag of the right button zooms as ever.

    Where a tool is chosen that paints or draws, the button is the tool's.

    Args:
        viewer: whose mouse is listened to, until `leave`.
        isolation: remembers what was shown before.
        drawn_of: a layer -> the layers that it belongs to.
        parent: of the menu.
    """

    def __init__(
        self, viewer: ViewerModel, isolation: Isolation, drawn_of: Callable[[Labels], ClassLayers], parent: QWidget
    ) -> None:
        super().__init__(parent)
        self.viewer, self.isolation, self.drawn_of, self.window = viewer, isolation, drawn_of, parent
        self.menu: QMenu | None = None
        viewer.mouse_drag_callbacks.append(self._press)

    def leave(self) -> None:
        """Listen no longer."""
        if self._press in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._press)

    def _press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """napari's protocol: on press to the first yield, then a turn each move, the last one on release."""
        if event.button != _RIGHT or self._tool_is_chosen():
            return
        start, still = tuple(event.pos), True
        yield
        while event.type == "mouse_move":
            still &= max(abs(now - then) for now, then in zip(event.pos, start, strict=True)) <= _STILL
            yield
        if still:
            self._open(event)

    def _tool_is_chosen(self) -> bool:
        active = self.viewer.layers.selection.active
        return str(getattr(active, "mode", "pan_zoom")) not in ("pan_zoom", "pick")

    def _open(self, event: Any) -> None:
        actions = list(self._actions(pick(self.viewer.layers, event)))
        if not actions:
            return
        self.menu = QMenu(self.window)
        self.menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for text, act in actions:
            self.menu.addAction(text.replace("&", "&&")).triggered.connect(lambda _, act=act: act())
        self.menu.popup(QCursor.pos())

    def _actions(self, found: tuple[Labels, int] | None) -> Iterator[tuple[str, Callable[[], None]]]:
        if found is not None:
            yield from self._actions_of(self.drawn_of(found[0]), *found)
        groups = self._groups() if found is None else [self.drawn_of(found[0])]
        if alone := [drawn for drawn in groups if self.isolation.active(drawn)]:
            yield "Show the others again", partial(_each, self.isolation.again, alone)
        if hiding := [drawn for drawn in groups if drawn.hidden()]:
            yield "Show all classes", partial(_each, self.isolation.every, hiding)

    def _actions_of(self, drawn: ClassLayers, layer: Labels, value: int) -> Iterator[tuple[str, Callable[[], None]]]:
        label = drawn.label_of(layer, value)
        name = drawn.names.get(label, f"label {label}")
        yield f"Show {name} alone", lambda: self.isolation.alone(drawn, label)
        if label in drawn.names:
            yield f"Hide {name}", lambda: drawn.hide(drawn.hidden() | {label})

    def _groups(self) -> list[ClassLayers]:
        """What is drawn in the viewer, layers that belong together once."""
        labels = [layer for layer in self.viewer.layers if isinstance(layer, Labels) and layer.visible]
        groups = {drawn.layers[0].unique_id: drawn for drawn in map(self.drawn_of, labels)}
        return list(groups.values())


def _each(act: Callable[[ClassLayers], None], groups: Iterable[ClassLayers]) -> None:
    for drawn in groups:
        act(drawn)
