"""A window with the widget, and a hand for it, as the tests of the widget want it."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Semaphore
from typing import Any

import nibabel as nib
import numpy as np
import torch
from napari.components import ViewerModel
from napari.layers import Labels
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QPushButton

from monai_unetfamily.bundles import METADATA, open_bundle
from napari_plugin.layers import grid_of
from tests.support.runs import predict
from tests.support.tiny import weigh

SECONDS = 240_000  # milliseconds, of a machine that others keep busy


class Desk:
    """A window with the widget and one image, and a hand for it."""

    def __init__(self, viewer: ViewerModel, qtbot: QtBot, image: Path | None = None) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        if image is not None:
            viewer.open(image, plugin="monai-unetfamily")
        _, self.widget = viewer.window.add_plugin_dock_widget("monai-unetfamily", "Organ segmentation")

    @property
    def line(self) -> str:
        return str(self.widget.runs.line.text())

    @property
    def labels(self) -> list[Labels]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels)]

    def wait(self, until: Callable[[], object]) -> None:
        self.qtbot.waitUntil(lambda: bool(until()), timeout=SECONDS)

    def choose(self, bundle: Path) -> None:
        """Choose a bundle, and wait until it is open or refused."""
        self.widget.bundles.choose(bundle)
        self.wait(lambda: self.widget.opened or self.widget.waiting.startswith("✖"))

    def choose_slow(self, bundle: Path) -> None:
        """The same, with so many windows that one can watch."""
        file = bundle / "configs" / "inference.yaml"
        file.write_text(file.read_text().replace("roi_size: [24, 24, 16]", "roi_size: [12, 12, 8]"))
        self.choose(bundle)

    def wait_for_labels(self, gate: Semaphore) -> None:
        """Let window after window go through the gate until a layer is there."""
        while not self.labels:
            gate.release()
            self.qtbot.wait(20)

    def press(self, name: str) -> None:
        button = self.widget.findChild(QPushButton, name)
        assert button.isEnabled(), button.toolTip()
        button.click()

    def run(self) -> Labels:
        """Press Run, and wait for the whole result."""
        self.press("run")
        self.wait(lambda: not self.widget.runner.busy)
        self.wait(lambda: not self.widget.results._latest.pending)
        assert self.line.startswith("Done in"), self.line
        return self.labels[-1]


def in_file_order(layer: Labels) -> Any:
    return grid_of(layer).reorientation.undo(np.asarray(layer.data))


def by_command(bundle: Path, image: Path, output: Path, **settings: Any) -> Any:
    """What the command line writes."""
    case_results = list(predict(open_bundle(bundle, torch.device("cpu")), [image], output, **settings))
    assert not case_results[0].error
    return np.asarray(nib.load(case_results[0].output).dataobj)


def with_network(bundle: Path, network: str) -> Path:
    """The bundle with another of its networks, and random weights."""
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text()) | {"network": f"@_meta_#networks#{network}"}
    file.write_text(json.dumps(metadata))
    return weigh(bundle)
