"""Bundles in the widget, in a real window: listed, opened, asked about, refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox

from monai_unetfamily.bundles import shipped_bundles
from monai_unetfamily.bundles.trust.config_review import Finding
from napari_plugin.panels.bundle_panel import ask_trust
from napari_plugin.session import Failed, open_chosen
from napari_plugin.settings import preferences, recent_bundles, remember_bundle
from tests.support.desk import Desk, by_command, in_file_order
from tests.support.zoo_bundle import write_zoo_bundle

pytestmark = pytest.mark.slow


def test_a_bundle_in_the_style_of_the_model_zoo_runs_too(desk: Desk, image: Path, tmp_path: Path) -> None:
    bundle = write_zoo_bundle(tmp_path / "zoo")
    desk.choose(bundle)
    assert not desk.widget.options.overlap.isEnabled()
    assert np.array_equal(in_file_order(desk.run()), by_command(bundle, image, tmp_path / "labels"))


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


def test_an_error_that_nobody_foresaw_ends_the_opening(
    desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_unetfamily.prediction.choices", lambda opened: {}["levels"])
    with desk.qtbot.capture_exceptions():
        desk.choose(bundle)
    assert desk.line.startswith("✖ KeyError: 'levels'")


def test_a_shipped_bundle_that_was_used_is_listed_once(make_napari_viewer: Any, plugin: object, qtbot: QtBot) -> None:
    remember_bundle(shipped_bundles()[0])
    folders = Desk(make_napari_viewer(show=True), qtbot).widget.bundles.folders()
    assert len(set(folders)) == len(folders)


def test_a_folder_that_is_no_bundle_is_not_remembered(desk: Desk, tmp_path: Path) -> None:
    desk.widget.bundles.choose(tmp_path)
    assert not recent_bundles()
    assert desk.widget.bundles.list.currentIndex() == 0


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


def test_torch_that_cannot_be_loaded_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("monai_unetfamily.bundles.open_bundle")
    monkeypatch.setitem(sys.modules, "monai_unetfamily.bundles.bundle", None)
    case_result = open_chosen(bundle, "cpu", ())
    assert isinstance(case_result, Failed)
    assert "bundles.bundle" in case_result.reason
