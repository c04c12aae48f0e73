"""A session in a real napari window, in a process of its own, which `napari_window` starts: it prints figures as JSON.

`opening` opens the widget alone. `predicting BUNDLE IMAGE` opens an image, segments it, rests for as long,
segments it again, and then cancels runs. Nothing here loads torch: that is the widget's to do.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from napari import Viewer
from npe2 import PluginManager, PluginManifest
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QPushButton

PLUGIN, WIDGET = "monai-unetfamily", "Organ segmentation"
SIZE = (1280, 800)
CALM = 2.0  # seconds in which a window comes to rest
MINUTES = 60_000  # ms in one
LIMIT = 9 * MINUTES
WINDOWS = (1, 2)  # done when a run is cancelled


class CaseLocks:
    """When the event loop turned, by a timer that asks for it every millisecond."""

    def __init__(self) -> None:
        self.at = list[float]()
        self.timer = QTimer(timerType=Qt.TimerType.PreciseTimer, interval=1)
        self.timer.timeout.connect(lambda: self.at.append(perf_counter()))
        self.timer.start()

    def between(self, start: float, end: float) -> dict[str, float]:
        """The longest of the milliseconds between two turns in a span, and their 99th percentile."""
        at = [start, *(time for time in self.at if start < time < end), end]
        gaps = [1000 * (after - before) for before, after in pairwise(at)]
        return {"longest": max(gaps), "99 %": quantiles(gaps, n=100)[-1]}


def wait(until: Callable[[], object]) -> None:
    """Let the event loop run until something is true.

    Raises:
        TimeoutError: it does not come true.
    """
    loop, look, limit = QEventLoop(), QTimer(interval=10), QTimer(singleShot=True, interval=LIMIT)
    look.timeout.connect(lambda: loop.quit() if until() else None)
    limit.timeout.connect(lambda: loop.exit(1))
    look.start()
    limit.start()
    if loop.exec():
        raise TimeoutError(f"nothing came in {LIMIT // MINUTES} minutes")


def rest(seconds: float) -> None:
    end = perf_counter() + seconds
    wait(lambda: perf_counter() > end)


def open_window() -> Viewer:
    """napari with this checkout's plugin, installed or not."""
    manager = PluginManager.instance()
    manager.discover()
    if PLUGIN not in manager:
        [folder] = find_spec("napari_plugin").submodule_search_locations
        manager.register(PluginManifest.from_file(Path(folder, "napari.yaml")))
    viewer = Viewer()
    viewer.window.resize(*SIZE)
    rest(CALM)
    return viewer


def open_widget(viewer: Viewer) -> Any:
    """The widget, docked and drawn."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    widget.grab()
    return widget


def opening() -> dict[str, Any]:
    """Seconds until the widget is drawn, the first in its process, and whether torch was there by then."""
    viewer = open_window()
    start = perf_counter()
    open_widget(viewer)
    return {"seconds": perf_counter() - start, "torch": "torch" in sys.modules}


def predicting(bundle: str, image: str) -> dict[str, Any]:
    """Milliseconds between turns in a run, a rest as long, and a run again; from Cancel to rest, in windows' times."""
    viewer = open_window()
    widget, turns = open_widget(viewer), CaseLocks()
    viewer.open(image, plugin=PLUGIN)
    widget.bundles.choose(Path(bundle))
    wait(lambda: widget.opened or widget.waiting.startswith("✖"))
    rest(CALM)
    windows = watch(widget)
    first = run(widget)
    rest(first[1] - first[0])
    still = first[1], perf_counter()
    again = run(widget)
    window = median(after - before for before, after in pairwise(windows[: len(windows) // 2]))
    return {
        "running": turns.between(*first),
        "resting": turns.between(*still),
        "again": turns.between(*again),
        "cancelling": [cancelling(widget, after) / window for after in WINDOWS],
    }


def run(widget: Any) -> tuple[float, float]:
    """When Run was pressed, and when the table of its result was measured."""
    start = perf_counter()
    press(widget, "run")
    wait(lambda: not (widget.runner.busy or widget.results._latest.pending))
    if not widget.runs.line.text().startswith("Done"):
        raise RuntimeError(widget.runs.line.text())
    return start, perf_counter()


def cancelling(widget: Any, after: int) -> float:
    """Seconds from Cancel, pressed when some windows are done, to a widget that could run again."""
    windows = watch(widget)
    press(widget, "run")
    wait(lambda: len(windows) >= after)
    start = perf_counter()
    press(widget, "cancel")
    wait(lambda: not widget.runner.busy)
    if not widget.runs.line.text().startswith("Cancelled"):
        raise RuntimeError(widget.runs.line.text())
    return perf_counter() - start


def watch(widget: Any) -> list[float]:
    """When each window is done, from now on."""
    at, last = list[float](), [0]

    def note(done: int, total: int) -> None:
        if done != last[0]:
            at.append(perf_counter())
        last[0] = done

    widget.runner.stepped.connect(note)
    return at


def press(widget: Any, name: str) -> None:
    button = widget.findChild(QPushButton, name)
    if not button.isEnabled():
        raise RuntimeError(f"{name}: {button.toolTip()}")
    button.click()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print(json.dumps({"opening": opening, "predicting": predicting}[command](*arguments)), flush=True)
    os._exit(0)  # a window takes seconds to close
