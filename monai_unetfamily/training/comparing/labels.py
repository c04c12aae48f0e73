"""Names beside the points of a scatter plot, each where it covers neither a point nor another name."""

from collections.abc import Iterator, Mapping, Sequence
from math import cos, pi, sin
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox


_Place = tuple[int, float, float]  # how far from the point, right, up
_AWAY = (7, 12, 18, 26, 36, 48, 62, 78, 96)  # points of typography, from a point to its name
_SIDES = 16
_LEADER = 15  # from here on a line leads from the name to its point
_POINT = 5  # half the width that a marker takes


def place_labels(axes: "Axes", points: Mapping[str, tuple[float, float]], *, color: str, leader: str) -> None:
    """Write each name as near to its point as there is room; where there is none, where it covers least.

    Args:
        axes: whose limits and figure are final.
        points: name -> where, in the units of the axes.
        color: of names.
        leader: of the lines from names that lie apart.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(axes.figure)  # type: ignore[arg-type]
    canvas.draw()  # the layout
    spots = {name: axes.transData.transform(point) for name, point in points.items()}
    taken = [Bbox.from_extents(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in spots.values()]
    for name in sorted(points, key=lambda name: tuple(spots[name])):
        label = axes.annotate(
            name, points[name], (0, 0), textcoords="offset points", color=color, fontsize=8.5, zorder=4
        )
        away, dx, dy = min(_places(), key=lambda place: _covered(label, place, taken, canvas))  # of equals the first
        taken.append(_box(label, (away, dx, dy), canvas))
        if away >= _LEADER:
            line = {"arrowstyle": "-", "color": leader, "lw": 0.6, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", points[name], (0.9 * dx, 0.9 * dy), textcoords="offset points", arrowprops=line)


def _covered(label: "Annotation", place: _Place, taken: "Sequence[Bbox]", canvas: "FigureCanvasAgg") -> float:
    """Pixels of names and points that a label would cover there, and of itself beyond the axes."""
    from matplotlib.transforms import Bbox

    box = _box(label, place, canvas)
    inside = Bbox.intersection(box, label.axes.bbox)  # type: ignore[union-attr]
    outside = box.width * box.height - (inside.width * inside.height if inside else 0)
    shared = [both for other in taken if (both := Bbox.intersection(box, other))]
    return round(outside + sum(both.width * both.height for both in shared), 3)


def _box(label: "Annotation", place: _Place, canvas: "FigureCanvasAgg") -> "Bbox":
    _, dx, dy = place
    label.xyann = (dx, dy)
    label.set_horizontalalignment("left" if dx > 2 else "right" if dx < -2 else "center")
    label.set_verticalalignment("bottom" if dy > 4 else "top" if dy < -4 else "center")
    return label.get_window_extent(canvas.get_renderer()).padded(1)


def _places() -> Iterator[_Place]:
    """How far away, and where: first right, then all around."""
    for away in _AWAY:
        for side in range(_SIDES):
            angle = 2 * pi * ((side + 1) // 2 * (-1) ** side) / _SIDES
            yield away, away * cos(angle), away * sin(angle)
