"""A session with the widget, from the sample to a saved file, and its pictures: python -m tools.draw_napari [FOLDER]

Opens napari on a display of its own (Xvfb), opens the sample, runs, jumps to an organ, saves and reopens, and fails
where the file does not hold what the window shows. The pictures are docs/images/napari_*.png.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pyvirtualdisplay.display import Display

os.environ["NAPARI_CONFIG"] = ""  # no settings of this machine's user
import napari
from napari.layers import Labels
from qtpy.QtWidgets import QApplication

from napari_plugin.models import NUMBER
from napari_plugin.panels.options_panel import DRAWN
from napari_plugin.widget import OrganSegmentation
from napari_plugin.writer import save_labels

IMAGES = Path(__file__).parents[1] / "docs/images"
PLUGIN = "monai-unetfamily"
SIZE = 1280, 800


class Session:
    """A window with the sample and the widget."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*SIZE)
        self.viewer.open_sample(PLUGIN, "phantom_ct")
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, "Organ segmentation")
        self.widget: OrganSegmentation = widget
        self.wait(lambda: self.widget.isVisible())
        self.viewer.reset_view()

    def wait(self, until: Callable[[], object], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                sys.exit(f"waited {seconds:g} s in vain: {self.widget.runs.line.text()}")
            QApplication.processEvents()
            time.sleep(0.005)

    def draw(self, name: str, pause: float = 1) -> None:
        end = time.monotonic() + pause
        self.wait(lambda: time.monotonic() > end)
        self.viewer.window._qt_window.grab().save(str(self.folder / f"napari_{name}.png"))

    def choose(self, name: str) -> None:
        self.widget.bundles.choose(next(folder for folder in self.widget.bundles.folders() if folder.name == name))
        self.wait(lambda: self.widget.opened)

    def run(self, half_way: str = "") -> Labels:
        """Press Run and wait; draw a picture half way."""
        self.widget.runs.start.click()
        if half_way:
            self.wait(lambda: self.widget.runs._done)
            self.draw(half_way, pause=0.3)
        self.wait(lambda: not self.widget.runner.busy)
        self.wait(lambda: not self.widget.results._latest.pending)
        return next(layer for layer in reversed(self.viewer.layers) if isinstance(layer, Labels))


def main(folder: Path) -> None:
    with Display(visible=False, size=SIZE):
        session = Session(folder)
        session.draw("opened")
        session.choose("phantom_ct")
        session.widget.options.overlap.setValue(0.85)  # so slow that one can watch
        session.viewer.window._qt_viewer.window()._activity_dialog.show()
        session.run("running")
        session.viewer.window._qt_viewer.window()._activity_dialog.hide()
        session.widget.options.overlap.setValue(-1)
        labels = session.run()
        session.widget.results._choose(2)  # the spleen
        session.draw("result")
        _draw_comparison(session)
        _save_and_reopen(session, labels)
        _draw_box(session)
        session.viewer.close()


def _save_and_reopen(session: Session, labels: Labels) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.nii.gz"
        save_labels(labels, path)
        [again] = session.viewer.open(path, plugin=PLUGIN)
        if not np.array_equal(again.data, labels.data) or again.metadata["classes"] != labels.metadata["classes"]:
            sys.exit("the file does not hold what the window shows")
        session.viewer.layers.remove(again)


def _draw_comparison(session: Session) -> None:
    """The result against the phantom's own organs: where they differ, at the class that agrees least."""
    panel = session.widget.compare
    session.widget.case_result.setCurrentWidget(panel)
    panel.view.start.click()
    session.wait(lambda: not panel.busy and panel.shown is not None)
    rows = panel.view.model.rows
    panel.view.table.selectRow(min(range(len(rows)), key=lambda number: rows[number].dice or 1.0))
    panel.view.chosen.emit(panel.view.table.currentIndex().data(NUMBER))
    session.wait(lambda: not (panel._latest.pending or session.widget.results._latest.pending))
    session.draw("compare")
    session.viewer.layers.remove(panel.shown.layer)
    session.widget.case_result.setCurrentWidget(session.widget.results)


def _draw_box(session: Session) -> None:
    """The options, with a box around the left kidney that is segmented."""
    region, scan = session.widget.options.region, session.viewer.layers[0]
    session.widget.options.fold.expand(False)
    session.widget.results._choose(3)  # the left kidney
    region.choice.setCurrentText(DRAWN)
    region.start_drawing()
    z, y, x = (round(value) for value in scan.world_to_data(session.viewer.dims.point))
    corners = [(z, y - 22, x - 24), (z, y - 22, x + 24), (z, y + 22, x + 24), (z, y + 22, x - 24)]
    session.viewer.layers["box"].add_rectangles(np.array(corners))
    region.first.setValue(max(0, z - 12))
    region.last.setValue(z + 12)
    session.run()
    session.draw("box")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
