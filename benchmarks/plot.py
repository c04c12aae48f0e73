"""The picture of a run: what UNet 3+ costs in U-Nets, before and now, and the family beside MONAI's networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import Spread
from benchmarks.table import Row, from_json

DRAWN = {"unet3plus", "members"}  # the benchmarks that the picture shows
OURS, THEIRS, BEFORE = "#0b6e99", "#c8641b", "#9aa3a8"
ARROW = {"arrowstyle": "->", "color": BEFORE, "lw": 2}


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw the records "unet3plus" and "members" of a run's JSON, if both are there."""
    unet3plus, members = (_rows(results, name) for name in ("unet3plus", "members"))
    if not (unet3plus and members):
        return
    sizes = list(dict.fromkeys(str(row["image, widths"]) for row in members))
    figure = Figure(figsize=(10, 1.6 + 0.45 * len(unet3plus) + 0.27 * len(members) / len(sizes)), layout="constrained")
    heights = (1.2 + 0.5 * len(unet3plus), 0.8 + 0.3 * len(members) / len(sizes))
    (above,), (below,) = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)
    _dumbbells(above.subplots(), unet3plus)
    below.suptitle("Time in U-Nets", fontsize=10, fontweight="bold", x=0.01, ha="left")
    panels = below.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        _dots(axes, size, [row for row in members if row["image, widths"] == size])
    _legend(panels[-1])
    with rc_context({"svg.hashsalt": "benchmark"}):  # equal figures give equal files
        figure.savefig(file, metadata={"Date": None})


def _rows(results: Mapping[str, Any], name: str) -> list[Row]:
    return [row for row in from_json(results[name]["rows"]) if "failed" not in row] if name in results else []


def _dumbbells(axes: Axes, rows: Sequence[Row]) -> None:
    """Per network: the paper's form, an arrow, and what is computed now."""
    for y, row in enumerate(rows):
        before, now = cast(Spread, row["price before"]), cast(Spread, row["price now"])
        axes.annotate("", (now.median, y), (before.median, y), arrowprops=ARROW)
        _point(axes, before, y, BEFORE, "o", "the paper's form" if y == 0 else None)
        _point(axes, now, y, OURS, "o", "here" if y == 0 else None)
        speed, memory = cast(Spread, row["speed"]), cast(float, row["memory"])
        words = f"{speed.median:.2f}x the speed, {memory:.2f}x the memory"
        axes.annotate(words, (before.high, y), (8, 0), textcoords="offset points", va="center", fontsize=8)
    names = [f"{row['network']}{'' if row['device'] == 'cpu float32' else ', ' + str(row['device'])}" for row in rows]
    _finish(axes, names, "UNet 3+: time in U-Nets of the same widths")
    axes.set_xlim(0, 1.45 * max(cast(Spread, row["price before"]).high for row in rows))
    _legend(axes)


def _dots(axes: Axes, size: str, rows: Sequence[Row]) -> None:
    """Per network: evaluation filled, a training step hollow; bars from quartile to quartile."""
    for y, row in enumerate(rows):
        colour = THEIRS if str(row["network"]).startswith("MONAI") else OURS
        for which, marker in (("eval", "o"), ("training step", "s")):
            spread = row[f"{which}, time"]
            if isinstance(spread, Spread):  # and no reason of a failure
                _point(axes, spread, y, colour, marker, which if y == 0 else None)
    axes.axvline(1, color=BEFORE, lw=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    _finish(axes, [str(row["network"]) for row in rows], f"Image {size}")


def _point(axes: Axes, spread: Spread, y: int, colour: str, marker: str, label: str | None) -> None:
    errors = [[spread.median - spread.low], [spread.high - spread.median]]
    fill = colour if marker == "o" else "white"
    axes.errorbar(
        spread.median, y, xerr=errors, fmt=marker, color=colour, mfc=fill, ms=6, capsize=2, lw=1.2, label=label
    )


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False, borderaxespad=0.2)


def _finish(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#e4e7e9", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
