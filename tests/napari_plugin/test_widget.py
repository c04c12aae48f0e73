"""A run of the widget in a real window: from an image to labels, and every way in which that can end otherwise."""

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from napari.layers import Labels
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from monai_unetfamily.bundles import open_bundle
from monai_unetfamily.nets import UNet3Plus
from monai_unetfamily.nets.layers import ConvBlock
from napari_plugin.session import Result
from tests.support.desk import Desk, by_command, in_file_order
from tests.support.runs import predict

pytestmark = pytest.mark.slow


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


def test_a_picture_is_segmented_as_the_command_does(
    make_napari_viewer: Any, plugin: object, qtbot: QtBot, pictures: Path, bundle_2d: Path, tmp_path: Path
) -> None:
    desk = Desk(make_napari_viewer(show=True), qtbot)
    file = sorted((pictures / "imagesTr").glob("*.png"))[8]
    desk.viewer.open(file, plugin="napari")
    desk.choose(bundle_2d)
    labels = np.asarray(desk.run().data)
    [case_result] = predict(open_bundle(bundle_2d, torch.device("cpu")), [file], tmp_path / "labels")
    from PIL import Image

    assert np.array_equal(labels, np.asarray(Image.open(case_result.output)))
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


def test_labels_appear_while_it_runs(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    assert not desk.labels
    seen = set[int]()
    while desk.widget.runner.busy:
        done = desk.line.partition(" of ")[0]
        gate.release()
        desk.wait(lambda done=done: desk.line.partition(" of ")[0] != done or not desk.widget.runner.busy)
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
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.line.startswith("Cancelled")
    assert desk.labels == [first]
    assert np.array_equal(first.data, before)
    assert list(desk.widget.results.view.model.rows) == rows
    left = sum(1 for _ in iter(lambda: gate.acquire(blocking=False), False))
    assert left >= 999  # at most the window that was running is finished
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


def test_a_layer_that_is_removed_while_it_grows_does_not_come_back(
    desk: Desk, bundle: Path, gate: threading.Semaphore
) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    desk.wait_for_labels(gate)
    desk.viewer.layers.remove(desk.labels[0])
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    assert not desk.labels
    assert "removed meanwhile are not shown" in desk.line
    desk.run()  # and the next run is a whole one
    assert desk.widget.results.view.model.rowCount() == 5


def test_a_run_is_cancelled_when_its_image_is_removed(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    gate.release(1)
    desk.wait(lambda: "1 of" in desk.line)
    desk.viewer.layers.remove(desk.viewer.layers[0])
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    assert not desk.labels
    assert desk.line.startswith("Cancelled")


def test_a_closed_widget_stops_its_run_and_hears_nothing_more(
    desk: Desk, bundle: Path, gate: threading.Semaphore
) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    gate.release(1)
    desk.wait(lambda: "1 of" in desk.line)
    assert desk.labels
    desk.viewer.window.remove_dock_widget(desk.widget)
    gate.release()
    desk.wait(lambda: not desk.labels)  # the window is computed, and the run's layer is removed
    desk.viewer.add_image(np.zeros((4, 4, 4)))
    assert not desk.labels


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


def test_a_cancelled_run_gives_nothing_though_it_was_done(
    desk: Desk, bundle: Path, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.release(1000)
    desk.choose(bundle)
    monkeypatch.setattr(desk.widget.runner, "_step", lambda step: desk.widget.runner.cancel())
    end = desk.widget.runner._end
    monkeypatch.setattr(
        desk.widget.runner, "_end", lambda case_result=None: end(case_result or Result(np.zeros((2, 2, 2))))
    )
    desk.press("run")
    desk.wait(lambda: not desk.widget.runner.busy)
    assert desk.line.startswith("Cancelled")
    assert not desk.labels


def test_a_layer_that_is_renamed_while_it_grows_stays(desk: Desk, bundle: Path, gate: threading.Semaphore) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    desk.wait_for_labels(gate)
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


def test_a_layer_that_is_given_other_data_while_it_grows_comes_back_whole(
    desk: Desk, bundle: Path, gate: threading.Semaphore, image: Path, tmp_path: Path
) -> None:
    desk.choose_slow(bundle)
    desk.press("run")
    desk.wait_for_labels(gate)
    [growing] = desk.labels
    desk.viewer.dims.ndisplay = 3
    desk.viewer.dims.ndisplay = 2
    assert not growing.editable
    growing.data = np.zeros_like(growing.data)
    gate.release(1000)
    desk.wait(lambda: not desk.widget.runner.busy)
    voxels = by_command(bundle, image, tmp_path / "labels")
    assert np.array_equal(in_file_order(desk.labels[-1]), voxels)
