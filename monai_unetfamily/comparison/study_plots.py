"""Draw the plots of a comparison as SVG."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import cos, isfinite, isnan, pi, sin
from typing import TYPE_CHECKING, Any, NamedTuple

from monai_unetfamily.comparison.statistics import Analysis, Interval, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Names beside the points of a scatter plot, each where it covers neither a point nor another name.


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


# The pictures of a comparison, as SVG: wide ones and narrow ones, and on a page in the page's own colours.
#
# Colours are Okabe and Ito's, which the colour-blind tell apart; every kind of network has its own marker too.

WIDE, NARROW = 10.0, 4.6  # inches
_GROUND, _INK, _MUTED, _LINE = "#fffffe", "#1a1c1f", "#565b63", "#cfd4da"
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#008563", "#a2537f"
VARIABLES = {  # what a page replaces by variables of its own
    _GROUND: "ground",
    _INK: "ink",
    _MUTED: "muted",
    _LINE: "line",
    _BLUE: "family",
    _ORANGE: "reference",
    _GREEN: "depth",
    _PURPLE: "variant",
}
_ROW = 0.24  # inches, of a network
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": _GROUND,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


class _Look(NamedTuple):
    color: str
    marker: str
    words: str


_LOOKS = {
    "family": _Look(_BLUE, "o", "the family"),
    "depth": _Look(_GREEN, "D", "U-Nets of fewer levels"),
    "reference": _Look(_ORANGE, "s", "MONAI's networks"),
    "variant": _Look(_PURPLE, "^", "of another's weights"),
}


@dataclass(frozen=True)
class Plot:
    """One picture: its file's name, title and words for those who do not see it; `draw` makes it of a width."""

    name: str
    title: str
    about: str
    draw: "Callable[[float], Figure]"

    def svg(self, width: float) -> str:
        """The picture as text; equal numbers give equal text."""
        from matplotlib import rc_context

        text = StringIO()
        with rc_context({**_STYLE, "svg.hashsalt": f"{self.name}{width}"}):
            self.draw(width).savefig(text, format="svg", metadata={"Date": None})
        return text.getvalue()


def plots(analysis: Analysis) -> Iterator[Plot]:
    """All pictures that a comparison has numbers for."""
    base = analysis.comparison.baseline
    yield Plot(
        "dice",
        "Dice, mean of classes",
        "Mean Dice of each network with its 95 % interval over cases; the table says the same in numbers.",
        lambda width: _intervals(analysis.rows, [("", lambda row: row.overall.dice)], width, "Dice", 1),
    )
    if len(analysis.comparison.classes) > 1:
        yield _by_class(analysis)
    if any(isfinite(row.network_result.cost.seconds) for row in analysis.rows):
        yield Plot(
            "pareto",
            "Dice against time",
            "Mean Dice of each network against seconds for a volume; a line joins those that no other beats in both.",
            lambda width: _pareto(analysis, width),
        )
    if len(depths(analysis)[0]) > 1:
        yield Plot(
            "depth",
            "How deep?",
            "Dice against seconds of UNet++ cut at each level, from one training, beside U-Nets trained at each depth.",
            lambda width: _depth(analysis, width),
        )
    if any(row.false.absent for row in analysis.rows):
        yield Plot(
            "false_positives",
            "Volume found where a class is absent",
            "Mean volume in ml given to classes that a case does not hold, of each network.",
            lambda width: _intervals(
                analysis.rows, [("", lambda row: row.false.volume_ml)], width, "ml, mean over cases", 1
            ),
        )
    if any(not isnan(point.dice) for row in analysis.trained for curve in row.network_result.curves for point in curve):
        yield Plot(
            "learning",
            "Learning curves",
            f"Dice on the cases watched over minutes of training, a panel for each network; {base} in grey.",
            lambda width: _learning(analysis, width),
        )


def depths(analysis: Analysis) -> tuple[list[tuple[int, Row]], list[tuple[int, Row]]]:
    """(level, row) of UNet++ cut at each level and whole, and of U-Nets trained with so many levels."""
    cut, own = (
        [(int(row.name.removeprefix(start)), row) for row in analysis.rows if row.name.startswith(start)]
        for start in ("unetplusplus L", "unet_l")
    )
    whole = max((level for level, _ in [*cut, *own]), default=0) + 1
    ends = analysis.named("unetplusplus"), analysis.named("unet")
    return (
        cut + [(whole, ends[0])] * (ends[0] is not None and bool(cut)),  # type: ignore[list-item]
        own + [(whole, ends[1])] * (ends[1] is not None and bool(own)),  # type: ignore[list-item]
    )


def _by_class(analysis: Analysis) -> Plot:
    def of(label: str) -> Callable[[Row], Interval]:
        return lambda row: row.by_class[label].dice

    panels = [(label, of(label)) for label in analysis.comparison.classes]
    return Plot(
        "dice_by_class",
        "Dice of each class",
        "Mean Dice of each class and network with its 95 % interval over cases; the tables say the same in numbers.",
        lambda width: _intervals(analysis.rows, panels, width, "Dice", 3 if width == WIDE else 1),
    )


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _intervals(
    rows: Sequence[Row], panels: Sequence[tuple[str, Callable[[Row], Interval]]], width: float, unit: str, columns: int
) -> "Figure":
    """A panel for each measure, a line for each network: its value and its interval."""
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(width, lines * (0.75 + _ROW * len(rows)) + 0.3)
    grid = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes, (title, measure) in zip(grid, panels, strict=False):
        for y, row in enumerate(rows):
            _interval(axes, row, measure(row), y)
        axes.set(title=title, xlabel=unit, ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.tick_params(axis="y", length=0)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    _legend(figure, rows)
    return figure


def _interval(axes: "Axes", row: Row, interval: Interval, y: int) -> None:
    look = _LOOKS[row.network_result.kind]
    if isfinite(interval.low + interval.high):
        axes.plot([interval.low, interval.high], [y, y], color=look.color, lw=1.6, solid_capstyle="butt")
    if isfinite(interval.value):
        axes.plot(interval.value, y, look.marker, color=look.color, ms=5.5)


def _legend(figure: "Figure", rows: Sequence[Row]) -> None:
    kinds = dict.fromkeys(row.network_result.kind for row in rows)
    marks: list[Any] = []
    for kind in kinds:
        look = _LOOKS[kind]
        marks += figure.axes[0].plot([], [], look.marker, color=look.color, ms=5.5, label=look.words)
    columns = len(marks) if figure.get_figwidth() == WIDE else 2
    figure.legend(handles=marks, loc="outside upper left", ncols=columns, columnspacing=1.2, handletextpad=0.1)


def _pareto(analysis: Analysis, width: float) -> "Figure":
    figure = _figure(width, 5.2 if width == WIDE else 5.6)
    axes = figure.subplots()
    rows = [
        row for row in analysis.rows if isfinite(row.network_result.cost.seconds) and isfinite(row.overall.dice.value)
    ]
    front = sorted((row.network_result.cost.seconds, row.overall.dice.value) for row in rows if row.on_front)
    axes.plot(*zip(*front, strict=True), color=_MUTED, lw=1, ls="--", zorder=1)
    for row in rows:
        look = _LOOKS[row.network_result.kind]
        fill = look.color if row.on_front else _GROUND
        axes.plot(
            row.network_result.cost.seconds,
            row.overall.dice.value,
            look.marker,
            color=look.color,
            mfc=fill,
            ms=6.5,
            zorder=3,
        )
    axes.set(xlabel="seconds for a volume (logarithmic)", ylabel="Dice, mean of classes")
    axes.margins(y=0.09)
    _logarithmic(axes, [row.network_result.cost.seconds for row in rows])
    _legend(figure, rows)
    points = {row.name: (row.network_result.cost.seconds, row.overall.dice.value) for row in rows}
    place_labels(axes, points, color=_INK, leader=_MUTED)
    return figure


def _logarithmic(axes: "Axes", seconds: Sequence[float]) -> None:
    """An axis with room for names, and numbers that are read at once: 0.2, 0.5, 1, 2, 5."""
    low, high = min(seconds) / 1.3, max(seconds) * 1.5
    steps = [m * 10.0**power for power in range(-4, 6) for m in (1, 2, 5)]
    axes.set(xscale="log", xlim=(low, high))
    axes.set_xticks([step for step in steps if low <= step <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")


def _depth(analysis: Analysis, width: float) -> "Figure":
    figure = _figure(width, 4.2)
    axes = figure.subplots()
    nested, plain = depths(analysis)
    lines = (
        (nested, "UNet++ cut at level L, one training", _BLUE, "o"),
        (plain, "U-Net of L levels, a training each", _GREEN, "D"),
    )
    for levels, words, color, marker in lines:
        known = [(level, row) for level, row in levels if isfinite(row.network_result.cost.seconds)]
        if not known:
            continue
        x = [row.network_result.cost.seconds for _, row in known]
        dice = [row.overall.dice for _, row in known]
        axes.vlines(x, [each.low for each in dice], [each.high for each in dice], color=color, lw=1.2)
        axes.plot(x, [each.value for each in dice], marker, ls="-", color=color, lw=1.2, ms=6, label=words)
        above = marker == "o"
        for (level, _), seconds, each in zip(known, x, dice, strict=True):
            end = each.value if isnan(each.low) else each.high if above else each.low
            side: dict[str, Any] = {"xytext": (0, 5 if above else -5), "va": "bottom" if above else "top"}
            axes.annotate(f"L{level}", (seconds, end), textcoords="offset points", ha="center", color=color, **side)
    axes.set(xlabel="seconds for a volume", ylabel="Dice, mean of classes", xlim=(0, None))
    axes.margins(y=0.12)
    figure.legend(loc="outside upper left", ncols=2 if width == WIDE else 1)
    return figure


def _learning(analysis: Analysis, width: float) -> "Figure":
    rows = [row for row in analysis.trained if row.network_result.curves]
    columns = 4 if width == WIDE else 2
    lines = -(-len(rows) // columns)
    figure = _figure(width, 1.6 * lines + 0.3)
    grid = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    base = analysis.named(analysis.comparison.baseline)
    for axes, row in zip(grid, rows, strict=False):
        for before, color in ((base, _MUTED), (row, _LOOKS[row.network_result.kind].color)):
            for curve in before.network_result.curves if before else ():
                axes.plot(*_validated(curve), color=color, marker=".", ms=4, lw=1 if before is base else 1.7)
        axes.set(title=row.name)
    for axes in grid[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("minutes of training", fontsize=9)
    figure.supylabel("Dice", fontsize=9)
    return figure


def _validated(curve: Sequence[Any]) -> tuple[list[float], list[float]]:
    known = [point for point in curve if not isnan(point.dice)]
    return [point.minutes for point in known], [point.dice for point in known]
