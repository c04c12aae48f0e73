"""The widget in processes of their own: what opening loads, and that nothing ends them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ALONE = """
import sys

import napari
import numpy as np
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QApplication

PLUGIN, plugins = "monai-unetfamily", PluginManager.instance()
plugins.discover()
if PLUGIN not in plugins:
    plugins.register(PluginManifest.from_file({manifest!r}))
viewer = napari.Viewer()
viewer.window.add_plugin_dock_widget(PLUGIN, "Organ segmentation")


def draw():
    for _ in range(20):
        QApplication.processEvents()


draw()
"""


def alone(code: str) -> int:
    """How a process of its own ends that opens the widget and runs the code."""
    manifest = Path(__file__).parents[2] / "napari_plugin" / "napari.yaml"
    script = ALONE.format(manifest=str(manifest)) + code
    return subprocess.run([sys.executable, "-c", script], check=False).returncode


@pytest.mark.usefixtures("qapp_args")
def test_opening_the_widget_loads_no_torch() -> None:
    assert alone("sys.exit(bool({'torch', 'monai'} & set(sys.modules)))") == 0


@pytest.mark.usefixtures("qapp_args")
def test_removed_layers_do_not_end_the_process() -> None:
    code = """
for _ in range(3):
    image = viewer.add_image(np.random.rand(16, 26, 32))
    labels = viewer.add_labels(np.zeros((16, 26, 32), np.uint8))
    draw()
    viewer.layers.remove(image)
    for _ in range(5):
        labels.refresh()
        draw()
    viewer.layers.clear()
    draw()
"""
    assert alone(code) == 0


@pytest.mark.exhaustive
@pytest.mark.usefixtures("qapp_args")
def test_the_session_of_the_documentation_goes_through(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "tools.draw_napari", tmp_path], cwd=root, check=True)
    drawn = ("opened", "running", "result", "compare", "box")
    assert {file.stem for file in tmp_path.iterdir()} == {f"napari_{name}" for name in drawn}
