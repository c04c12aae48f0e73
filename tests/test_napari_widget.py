"""The widget in a real window: from a bundle and an image to labels, and every way in which that can end otherwise."""

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import weigh
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QLabel, QMessageBox, QPushButton, QScrollArea, QWidget
from runs import predict
from zoo_bundle import write_zoo_bundle

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.bundles.metadata import METADATA, shipped_bundles
from monai_unetfamily.bundles.trust import Finding
from monai_unetfamily.nets import UNet3Plus
from monai_unetfamily.nets.blocks import ConvBlock
from napari_plugin.geometry import grid_of
from napari_plugin.opener import ask_trust
from napari_plugin.region_panel import DRAWN, VIEW
from napari_plugin.session import Result
from napari_plugin.settings import preferences, recent_bundles, remember_bundle

SECONDS = 60_000  # the most that a test waits, in ms


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


@pytest.fixture
def image(phantoms: Path) -> Path:
    """An oblique, anisotropic phantom."""
    return phantoms / "imagesTr" / "phantom_003.nii.gz"


@pytest.fixture
def desk(make_napari_viewer: Any, plugin: object, qtbot: QtBot, image: Path) -> Desk:
    return Desk(make_napari_viewer(show=True), qtbot, image)


def in_file_order(layer: Labels) -> Any:
    return grid_of(layer).turn.undo(np.asarray(layer.data))


def by_command(bundle: Path, image: Path, output: Path, **settings: Any) -> Any:
    """What the command line writes."""
    outcomes = list(predict(open_bundle(bundle, torch.device("cpu")), [image], output, **settings))
    assert not outcomes[0].error
    return np.asarray(nib.load(outcomes[0].output).dataobj)


def with_network(bundle: Path, network: str) -> Path:
    """The bundle with another of its networks, and random weights."""
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text()) | {"network": f"@_meta_#networks#{network}"}
    file.write_text(json.dumps(metadata))
    return weigh(bundle)


def test_its_voxels_are_those_of_the_command_line(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    desk.choose(bundle)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels"))
    assert len(np.unique(voxels)) > 2


def test_the_result_lies_on_the_image_with_names_and_units(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    labels, scan = desk.run(), desk.viewer.layers[0]
    assert np.allclose(labels.extent.world, scan.extent.world)
    assert labels.units == scan.units
    assert labels.metadata["classes"][1] == "liver"
    assert list(labels.features["class"])[:2] == ["background", "liver"]
    assert labels.name == f"{scan.name} bundle"
    assert desk.widget.results.view.model.rowCount() == 5


def test_the_sample_is_segmented_by_its_shipped_bundle(make_napari_viewer: Any, plugin: object, qtbot: QtBot) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    desk.viewer.open_sample("monai-unetfamily", "phantom_ct")
    desk.choose(next(f for f in desk.widget.bundles.folders() if f.name == "phantom_ct"))
    assert "phantoms only" in desk.widget.bundles.text.text()
    labels = np.asarray(desk.run().data)
    truth = np.asarray(desk.viewer.layers["organs of the phantom"].data)
    dice = 2 * np.sum((labels == truth) & (truth > 0)) / (np.sum(labels > 0) + np.sum(truth > 0))
    assert dice > 0.9


def test_a_bundle_in_the_style_of_the_model_zoo_runs_too(desk: Desk, image: Path, tmp_path: Path) -> None:
    bundle = write_zoo_bundle(tmp_path / "zoo")
    desk.choose(bundle)
    assert not desk.widget.options.overlap.isEnabled()
    assert np.array_equal(in_file_order(desk.run()), by_command(bundle, image, tmp_path / "labels"))


def test_a_picture_is_segmented_as_the_command_does(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, pictures: Path, bundle_2d: Path, tmp_path: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    file = sorted((pictures / "imagesTr").glob("*.png"))[8]
    desk.viewer.open(file, plugin="napari")
    desk.choose(bundle_2d)
    labels = np.asarray(desk.run().data)
    [outcome] = predict(open_bundle(bundle_2d, torch.device("cpu")), [file], tmp_path / "labels")
    from PIL import Image

    assert np.array_equal(labels, np.asarray(Image.open(outcome.output)))
    desk.press("results_copy_command")
    assert QApplication.clipboard().text() == f"unetfamily predict {bundle_2d} {file} -o labels"


def test_classes_that_overlap_have_a_layer_each(
    desk: Desk, overlapping_bundle: Path, image: Path, tmp_path: Path
) -> None:
    desk.choose(overlapping_bundle)
    desk.run()
    masks = by_command(overlapping_bundle, image, tmp_path / "labels")
    assert len(desk.labels) == masks.shape[-1] == 2
    for c, layer in enumerate(desk.labels):
        assert np.array_equal(in_file_order(layer), masks[..., c])


def test_no_network_runs_on_the_main_thread(desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[threading.Thread]()
    forward = UNet3Plus.forward

    def noted(network: UNet3Plus, x: torch.Tensor) -> Any:
        threads.add(threading.current_thread())
        return forward(network, x)

    monkeypatch.setattr(UNet3Plus, "forward", noted)
    desk.choose(bundle)
    desk.run()
    assert threads
    assert threading.main_thread() not in threads


def test_layers_are_touched_by_the_main_thread_alone(desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[threading.Thread]()
    refresh = Labels.refresh

    def noted(layer: Labels, *arguments: Any, **options: Any) -> None:
        threads.add(threading.current_thread())
        refresh(layer, *arguments, **options)

    monkeypatch.setattr(Labels, "refresh", noted)
    desk.choose(bundle)
    desk.run()
    assert threads == {threading.main_thread()}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Lets the network go on window by window."""
    gate = threading.Semaphore(0)
    forward = UNet3Plus.forward

    def waits(network: UNet3Plus, x: torch.Tensor) -> Any:
        gate.acquire(timeout=SECONDS / 1000)
        return forward(network, x)

    monkeypatch.setattr(UNet3Plus, "forward", waits)
    yield gate
    gate.release(10_000)


def test_labels_appear_while_it_runs(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    assert not desk.labels
    seen = set[int]()
    while desk.widget.runner.busy:
        gate.release()
        desk.qtbot.wait(30)
        seen |= {int(np.count_nonzero(layer.data)) for layer in desk.labels}
    assert len(seen) > 2, seen  # it grew


def test_cancel_leaves_what_was_there(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    gate.release(1000)
    first = desk.run()
    before, rows = np.array(first.data), list(desk.widget.results.view.model.rows)
    while gate.acquire(blocking=False):
        pass
    desk.press("run")
    gate.release(2)
    desk.wait(lambda: "2 of" in desk.line)
    assert first in desk.labels
    desk.press("cancel")
    assert desk.line.startswith("Cancelling")
    gate.release()  # the window that is on its way
    desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.line.startswith("Cancelled")
    assert desk.labels == [first]
    assert np.array_equal(first.data, before)
    assert list(desk.widget.results.view.model.rows) == rows
    assert not gate.acquire(blocking=False)  # no further window was begun
    assert desk.widget.runs.start.isEnabled()


def test_a_failure_says_why_and_leaves_nothing(desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(block: ConvBlock, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the weights are damaged; train them anew")

    desk.choose(bundle)
    monkeypatch.setattr(UNet3Plus, "forward", fails)
    desk.press("run")
    desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.line == "✖ the weights are damaged; train them anew"
    assert not desk.labels
    assert desk.widget.runs.start.isEnabled()
    monkeypatch.undo()
    desk.run()


def test_an_image_that_is_turned_in_napari_is_refused(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, bundle: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    desk.viewer.add_image(np.zeros((16, 26, 32)), scale=(12, 10, 10), rotate=(0, 0, 90), units="mm", name="turned")
    desk.choose(bundle)
    desk.press("run")
    desk.wait(lambda: not desk.widget.runner.busy)
    assert "is turned or mirrored" in desk.line
    assert not desk.labels


def test_a_run_leaves_the_window_and_the_garbage_collector_as_they_were(desk: Desk, bundle: Path) -> None:
    desk.choose_slow(bundle)
    for end in ("run", "cancel"):
        desk.press("run")
        if end == "cancel":
            desk.press("cancel")
        desk.wait(lambda: not desk.widget.runner.busy)
        assert desk.widget.window().updatesEnabled()
        assert gc.get_freeze_count() == 0


def test_voxels_that_are_not_finite_are_refused(desk: Desk, bundle: Path) -> None:
    scan = desk.viewer.layers[0]
    holes = np.array(scan.data, np.float32)
    holes[3, 4, 5] = np.nan
    scan.data = holes
    desk.choose(bundle)
    desk.press("run")
    desk.wait(lambda: not desk.widget.runner.busy)
    assert "1 of" in desk.line
    assert "NaN" in desk.line
    assert not desk.labels


def test_a_result_is_replaced_by_the_next(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    first = desk.run()
    second = desk.run()
    assert desk.labels == [second]
    assert first is not second
    assert first.name == second.name


def test_a_result_that_was_corrected_stays(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    first = desk.run()
    first.paint((3, 4, 5), 3)
    corrected = np.array(first.data)
    second = desk.run()
    assert desk.labels == [first, second]
    assert np.array_equal(first.data, corrected)


def test_a_result_that_was_renamed_stays(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    first = desk.run()
    first.name = "with the bundle's overlap"
    second = desk.run()
    assert desk.labels == [first, second]


def test_a_box_has_the_labels_of_the_whole_run(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    desk.choose(bundle)
    region = desk.widget.options.region
    region.choice.setCurrentText(DRAWN)
    assert "No rectangle is drawn" in desk.widget.runs.start.toolTip()
    desk.press("draw_box")
    shapes, scan = desk.viewer.layers["box"], desk.viewer.layers[0]
    assert shapes.mode == "add_rectangle"
    z, y, x = (n // 2 for n in scan.data.shape)
    corners = [(z, y - 4, x - 5), (z, y - 4, x + 5), (z, y + 4, x + 5), (z, y + 4, x - 5)]
    shapes.add_rectangles(np.array(corners))
    region.last.setValue(z + 3)
    region.first.setValue(z - 2)
    labels = np.asarray(desk.run().data)
    whole = grid_of(scan).turn.view(by_command(bundle, image, tmp_path / "labels"))
    inside = (slice(z - 2, z + 4), slice(y - 4, y + 5), slice(x - 5, x + 6))
    expected = np.zeros_like(whole)
    expected[inside] = whole[inside]
    assert np.array_equal(labels, expected)


def test_the_view_is_a_box_too(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.viewer.camera.zoom *= 3
    desk.qtbot.wait(200)
    region = desk.widget.options.region
    region.choice.setCurrentText(VIEW)
    (_, _), *spans = region.box()
    assert all(stop - first < n for (first, stop), n in zip(spans, desk.viewer.layers[0].data.shape[1:], strict=True))
    labels = np.asarray(desk.run().data)
    (top, bottom), (left, right) = spans
    labels[:, top:bottom, left:right] = 0
    assert not labels.any()


def test_the_depth_is_a_level_of_the_command(desk: Desk, untrained: Path, image: Path, tmp_path: Path) -> None:
    bundle = with_network(untrained, "unetplusplus")
    desk.choose(bundle)
    slider = desk.widget.options.level
    assert (slider.minimum(), slider.maximum(), slider.value()) == (1, 2, 2)
    slider.setValue(1)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels", level=1))


def test_a_threshold_of_presence_empties_classes(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    options = desk.widget.options
    options.gates.setChecked(True)
    options.presence.setValue(1.0)
    assert not np.asarray(desk.run().data).any()


def test_options_that_a_bundle_lacks_are_hidden(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    form, options = desk.widget.options.form, desk.widget.options
    assert not form.isRowVisible(options.level)
    assert not form.isRowVisible(options.mirror)
    assert form.isRowVisible(options.gates)


def test_mirroring_is_that_of_the_command(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    file = bundle / "configs" / METADATA
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mirror_axes": [1]}))
    desk.choose(bundle)
    desk.widget.options.mirror.setChecked(True)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels", mirror=True))


def test_overlap_is_that_of_the_command(desk: Desk, bundle: Path, image: Path, tmp_path: Path) -> None:
    desk.choose(bundle)
    desk.widget.options.overlap.setValue(0.6)
    voxels = in_file_order(desk.run())
    assert np.array_equal(voxels, by_command(bundle, image, tmp_path / "labels", overlap=0.6))


def test_the_reason_why_run_is_disabled(desk: Desk, bundle: Path) -> None:
    run = desk.widget.runs.start
    assert (run.isEnabled(), run.toolTip(), desk.line) == (False, "Choose a bundle.", "Choose a bundle.")
    desk.choose(bundle)
    assert run.isEnabled()
    desk.viewer.layers.clear()
    assert not run.isEnabled()
    assert "No image is chosen" in run.toolTip()


def test_a_voxel_size_that_is_missing_is_asked_for(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, bundle: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    desk.viewer.add_image(np.random.default_rng(0).normal(-300, 500, (16, 26, 32)).astype(np.float32), name="tiff")
    desk.choose(bundle)
    assert not desk.widget.runs.start.isEnabled()
    for box, size in zip(desk.widget.images.spacing.sizes, (8, 9, 12.5), strict=True):
        box.setValue(size)
    desk.press("set_spacing")
    layer = desk.viewer.layers["tiff"]
    assert layer.scale.tolist() == [12.5, 9, 8]
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    desk.run()


def test_a_bundle_that_nobody_trusts_asks_before_it_runs(
    desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    canary, file = tmp_path / "canary", bundle / "configs" / "inference.yaml"
    file.write_text(file.read_text().replace("spacing: [", f"touch: $open({str(canary)!r}, 'w')\nspacing: [", 1))
    text = file.read_text()
    file.write_text(
        text.replace("preprocessing:\n  _target_: Compose", "preprocessing:\n  x: '@touch'\n  _target_: Compose")
    )
    asked, answers = [], [False, True]

    def answer() -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        asked.append(box.text())
        assert not canary.exists()
        role = QMessageBox.ButtonRole.AcceptRole if answers.pop(0) else QMessageBox.ButtonRole.RejectRole
        next(button for button in box.buttons() if box.buttonRole(button) == role).click()

    exec_box = QMessageBox.exec

    def exec_answered(box: QMessageBox) -> Any:
        QTimer.singleShot(0, answer)
        return exec_box(box)

    monkeypatch.setattr(QMessageBox, "exec", exec_answered)
    desk.choose(bundle)
    assert "nobody vouches" in desk.line
    assert not desk.widget.opened
    desk.choose(bundle)
    assert len(asked) == 2
    assert "open(" in asked[0]
    assert canary.exists()


def test_a_bundle_that_cannot_be_opened_says_why(desk: Desk, bundle: Path) -> None:
    (bundle / "models" / "model.pt").write_bytes(b"no weights")
    desk.choose(bundle)
    assert desk.line.startswith("✖ ")
    assert "model.pt" in desk.line


def test_a_folder_that_is_no_bundle_says_why(desk: Desk, tmp_path: Path) -> None:
    desk.widget.bundles.choose(tmp_path)
    assert desk.widget.bundles.text.text().startswith("✖ ")
    assert desk.widget.bundles.card is None


def test_a_bundle_without_weights_is_not_run(desk: Desk, untrained: Path) -> None:
    desk.widget.bundles.choose(untrained)
    assert "holds no weights" in desk.widget.bundles.text.text()
    assert not desk.widget.runs.start.isEnabled()


def test_bundles_are_remembered(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    assert recent_bundles() == [bundle]
    assert bundle in desk.widget.bundles.folders()


def test_the_settings_are_where_a_widget_begins(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, bundle: Path
) -> None:
    preferences().overlap, preferences().device, preferences().bundles = 0.5, "cpu", str(bundle.parent)
    desk = Desk(make_napari_viewer(show=True), qtbot)
    assert desk.widget.options.overlap.value() == 0.5
    assert desk.widget.options.device.currentText() == "cpu"
    assert bundle in desk.widget.bundles.folders()


def test_the_copied_command_is_the_one(desk: Desk, bundle: Path, image: Path) -> None:
    desk.choose(bundle)
    desk.widget.options.overlap.setValue(0.5)
    desk.run()
    desk.press("results_copy_command")
    line = QApplication.clipboard().text()
    assert line == f"unetfamily predict {bundle} {image} -o labels --overlap 0.5"


def test_progress_stands_in_the_activity_dock(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    from napari.utils import progress

    desk.choose_slow(bundle)
    desk.press("run")
    gate.release(3)
    desk.wait(lambda: "3 of" in desk.line)
    [bar] = progress._all_instances
    assert (bar.n, bar.total > 3, "bundle" in bar.desc) == (3, True, True)
    assert "left" in desk.line
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    assert not progress._all_instances


def test_a_layer_that_is_removed_while_it_grows_comes_back_whole(
    desk: Desk, bundle: Path, gate: threading.Semaphore, image: Path, tmp_path: Path
) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    while not desk.labels:
        gate.release()
        desk.qtbot.wait(20)
    desk.viewer.layers.remove(desk.labels[0])
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    voxels = by_command(bundle, image, tmp_path / "labels")
    assert np.array_equal(in_file_order(desk.labels[0]), voxels)


def test_the_image_may_be_removed_while_it_runs(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    gate.release(1)
    desk.wait(lambda: "1 of" in desk.line)
    desk.viewer.layers.remove(desk.viewer.layers[0])
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.labels


def test_a_closed_widget_stops_its_run_and_hears_nothing_more(
    desk: Desk, bundle: Path, gate: threading.Semaphore
) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    gate.release(1)
    desk.wait(lambda: "1 of" in desk.line)
    desk.viewer.window.remove_dock_widget(desk.widget)
    gate.release()
    desk.qtbot.wait(300)
    assert not gate.acquire(blocking=False)
    desk.viewer.add_image(np.zeros((4, 4, 4)))
    assert not desk.labels


@pytest.mark.parametrize(
    ("plane", "right", "down"),
    [("axial", "left", "posterior"), ("coronal", "left", "inferior"), ("sagittal", "posterior", "inferior")],
)
def test_planes_are_shown_as_radiologists_look_at_them(desk: Desk, plane: str, right: str, down: str) -> None:
    desk.press(f"plane_{plane}")
    world = {0: "inferior", 1: "posterior", 2: "left"}  # what grows along each axis
    rows, columns = desk.viewer.dims.displayed
    assert (world[columns], world[rows]) == (right, down)


def test_nothing_is_cut_off_in_a_narrow_window(desk: Desk, bundle: Path) -> None:
    desk.viewer.window.resize(1280, 800)
    desk.choose(bundle)
    desk.widget.options.fold.expand(False)
    desk.widget.options.region.choice.setCurrentText(DRAWN)
    desk.widget.options.gates.setChecked(True)
    scroll = desk.widget.findChild(QScrollArea)
    desk.wait(lambda: scroll.widget().width() <= scroll.viewport().width())


def test_every_control_has_a_name_and_a_tooltip(desk: Desk, bundle: Path) -> None:
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox

    desk.choose(bundle)
    kinds = QAbstractButton, QAbstractSpinBox, QComboBox
    own: list[QWidget] = [w for kind in kinds for w in desk.widget.findChildren(kind) if w.objectName()]
    names = {widget.objectName() for widget in own}
    assert {"bundles", "run", "cancel", "device", "overlap", "region", "draw_box"} <= names
    missing = [w.objectName() for w in own if not w.toolTip() and not w.objectName().startswith("qt_")]
    assert not missing


def test_an_error_that_nobody_foresaw_ends_the_run(desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: UNet3Plus, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("label")

    desk.choose(bundle)
    monkeypatch.setattr(UNet3Plus, "forward", fails)
    with desk.qtbot.capture_exceptions() as shown:
        desk.press("run")
        desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.line.startswith("✖ KeyError: 'label'")
    assert desk.widget.runs.start.isEnabled()
    assert len(shown) == 1  # with its traceback


def test_an_error_that_nobody_foresaw_ends_the_opening(
    desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_unetfamily.inference.choices.choices", lambda opened: {}["levels"])
    with desk.qtbot.capture_exceptions():
        desk.choose(bundle)
    assert desk.line.startswith("✖ KeyError: 'levels'")


def test_a_cancelled_run_gives_nothing_though_it_was_done(
    desk: Desk, bundle: Path, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.release(1000)
    desk.choose(bundle)
    monkeypatch.setattr(desk.widget.runner, "_step", lambda step: desk.widget.runner.cancel())
    end = desk.widget.runner._end
    monkeypatch.setattr(desk.widget.runner, "_end", lambda outcome=None: end(outcome or Result(np.zeros((2, 2, 2)))))
    desk.press("run")
    desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.line.startswith("Cancelled")
    assert not desk.labels


def test_an_overlap_of_other_bundles_is_not_asked_for(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    options = desk.widget.options
    options.overlap.setValue(0.5)
    options.offer(replace(options.choices, overlap=None))
    assert options.settings(None).overlap is None


def test_a_shipped_bundle_that_was_used_is_listed_once(make_napari_viewer: Any, plugin: object, qtbot: QtBot) -> None:
    remember_bundle(shipped_bundles()[0])
    folders = Desk(make_napari_viewer(show=True), qtbot).widget.bundles.folders()
    assert len(set(folders)) == len(folders)


def test_a_folder_that_is_no_bundle_is_not_remembered(desk: Desk, tmp_path: Path) -> None:
    desk.widget.bundles.choose(tmp_path)
    assert not recent_bundles()
    assert desk.widget.bundles.list.currentIndex() == 0


def test_rectangles_drawn_before_the_widget_was_opened_are_heard(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, image: Path, bundle: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    shapes = viewer.add_shapes(ndim=3)
    desk = Desk(viewer, qtbot, image)
    shapes.scale, shapes.translate = viewer.layers[1].scale, viewer.layers[1].translate
    desk.choose(bundle)
    desk.widget.options.region.choice.setCurrentText(DRAWN)
    assert "has no rectangle" in desk.line
    shapes.add_rectangles(np.array([(3, 4, 4), (3, 4, 9), (3, 9, 9), (3, 9, 4)]))
    assert desk.widget.runs.start.isEnabled()


def test_what_is_in_view_of_a_picture_is_a_box(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, pictures: Path, bundle_2d: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    desk.viewer.open(sorted((pictures / "imagesTr").glob("*.png"))[8], plugin="napari")
    desk.choose(bundle_2d)
    desk.viewer.camera.zoom *= 3
    desk.qtbot.wait(200)
    region = desk.widget.options.region
    region.choice.setCurrentText(VIEW)
    (top, bottom), (left, right) = region.box()
    labels = np.array(desk.run().data)
    assert labels[top:bottom, left:right].any()
    labels[top:bottom, left:right] = 0
    assert not labels.any()
    assert not region.range.isVisible()


def test_an_image_that_is_out_of_view_is_no_box(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.widget.options.region.choice.setCurrentText(VIEW)
    run = desk.widget.runs.start
    desk.viewer.camera.center = 0, 1e5, 1e5
    desk.wait(lambda: not run.isEnabled())
    assert "out of view" in desk.line
    desk.viewer.reset_view()
    desk.wait(run.isEnabled)


def test_an_image_whose_voxels_are_replaced_is_looked_at_again(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    layer = desk.viewer.layers[0]
    layer.data = layer.data[0]
    assert "2-D layer" in desk.line


def test_words_of_strangers_are_no_html(desk: Desk, bundle: Path) -> None:
    desk.viewer.layers[0].name = name = "<h1>phantom</h1>"
    desk.choose(bundle)
    desk.run().metadata["classes"][1] = name
    desk.widget.results.view.model.set_rows([row._replace(name=name) for row in desk.widget.results.view.model.rows])
    index = desk.widget.results.view.model.index(0, 1)
    tip = index.data(Qt.ItemDataRole.ToolTipRole)
    desk.widget._fail(name)
    plain = [label for label in desk.widget.findChildren(QLabel) if label.textFormat() == Qt.TextFormat.PlainText]
    assert {"status", "image_message", "results_line"} == {label.objectName() for label in plain}
    assert "&lt;h1&gt;" in tip
    assert "&lt;h1&gt;" in notification_manager.records[-1].message
    assert desk.line == f"✖ {name}"


def test_a_long_name_does_not_push_the_panels_out(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    desk.widget._fail("/data/" + 30 * "phantom" + "/" + 9 * "a_b_c_d_")
    desk.widget.bundles.choose(bundle.parent / (30 * "phantom"))
    scroll = desk.widget.findChild(QScrollArea)
    desk.qtbot.wait(100)
    assert scroll.widget().width() <= scroll.viewport().width()


def test_each_channel_is_guessed_by_its_name_whatever_was_chosen_before(
    desk: Desk, bundle: Path, image: Path, tmp_path: Path
) -> None:
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["inputs"]["image"] |= {"num_channels": 2, "channel_def": {"0": "T1", "1": "T2"}}
    for network in metadata["networks"].values():
        network["in_channels"] = 2
    file.write_text(json.dumps(metadata))
    [second] = desk.viewer.open(image, plugin="monai-unetfamily")
    desk.viewer.layers[0].name, second.name = "case T1", "case T2"
    desk.widget.images.lists[0].setCurrentText("case T2")
    desk.choose(weigh(bundle))
    assert [layer.name for layer in desk.widget.images.layers] == ["case T1", "case T2"]
    desk.run()


def test_a_layer_that_is_renamed_while_it_grows_stays(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    while not desk.labels:
        gate.release()
        desk.qtbot.wait(20)
    desk.labels[0].name = "with the bundle's overlap"
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    first = desk.labels[0]
    second = desk.run()
    assert desk.labels == [first, second]


def test_results_of_images_that_are_gone_are_let_go(desk: Desk, bundle: Path, image: Path) -> None:
    desk.choose(bundle)
    desk.run()
    desk.viewer.layers.clear()
    desk.viewer.open(image, plugin="monai-unetfamily")
    desk.run()
    assert [image for image, _ in desk.widget._made] == [desk.viewer.layers[0]]


def test_the_question_for_trust_fits_on_the_screen_and_names_all(desk: Desk) -> None:
    findings = tuple(Finding(f"step {n}", f"$end_{n}({'1 + ' * 900}1)") for n in range(30))
    seen: list[tuple[int, str]] = []

    def look() -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        seen.append((box.height(), box.detailedText()))
        box.reject()

    QTimer.singleShot(200, look)
    assert not ask_trust(desk.widget, "<b>" + 300 * "long", findings)
    [(height, details)] = seen
    assert height < 800
    assert all(finding.what in details for finding in findings)


def test_a_folder_of_nobody_lists_no_bundles(make_napari_viewer: Any, plugin: object, qtbot: QtBot) -> None:
    preferences().bundles = "~nobody_of_this_name/bundles"
    folders = Desk(make_napari_viewer(show=True), qtbot).widget.bundles.folders()
    assert folders == shipped_bundles()


def test_the_keyboard_goes_from_the_bundle_to_the_image(desk: Desk, bundle: Path) -> None:
    desk.choose(bundle)
    found, widget = [], desk.widget.bundles.list
    while widget is not desk.widget.runs.start:
        found.append(widget.objectName())
        widget = widget.nextInFocusChain()
    assert found.index("bundles") < found.index("image_Image") < found.index("plane_axial")


def test_a_layer_that_is_given_other_data_while_it_grows_comes_back_whole(
    desk: Desk, bundle: Path, gate: threading.Semaphore, image: Path, tmp_path: Path
) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    while not desk.labels:
        gate.release()
        desk.qtbot.wait(20)
    [growing] = desk.labels
    desk.viewer.dims.ndisplay = 3
    desk.viewer.dims.ndisplay = 2
    assert not growing.editable
    growing.data = np.zeros_like(growing.data)
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    voxels = by_command(bundle, image, tmp_path / "labels")
    assert np.array_equal(in_file_order(desk.labels[-1]), voxels)


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
    manifest = Path(__file__).parents[1] / "napari_plugin" / "napari.yaml"
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


@pytest.mark.usefixtures("qapp_args")
def test_the_session_of_the_documentation_goes_through(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "docs" / "draw_napari.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    assert {file.stem for file in tmp_path.iterdir()} == {f"napari_{n}" for n in ("opened", "running", "result", "box")}
