"""What all tests share: the folder of real volumes, tiny phantoms, tiny bundles, napari, and the skip of GPU tests."""

import json
import os
import random
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyvirtualdisplay import abstractdisplay

from tests.support.system_parts import DISPLAY, PARTS, can_import_qt, must_be_there, require
from tests.support.tiny import PHANTOM_SHAPE, shrink, weigh

if TYPE_CHECKING:
    from typing import Any

    import torch
    from npe2 import DynamicPlugin
    from npe2._pytest_plugin import TestPluginManager
    from pytestqt.qtbot import QtBot

    from tests.support.desk import Desk

# It adds itself to the registry when it is imported (nets/test_adding_a_network.py).
collect_ignore = ["support/linknet.py"]
os.environ["NAPARI_CONFIG"] = ""  # the user's settings are neither read nor written
abstractdisplay._X_START_TIMEOUT = 600  # seconds, for 10, in which a busy machine may not start Xvfb
_USES_QT = re.compile(
    r"^(?:from|import) (?:tests\.support\.desk|magicgui|napari|napari_plugin|pytestqt|qtpy|vispy)\b", re.MULTILINE
)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    beside_the_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNETFAMILY_DATA", beside_the_checkout))
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} is absent; set UNETFAMILY_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from monai_unetfamily.data.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 6, shape=PHANTOM_SHAPE, spacing=(10.0, 10.0, 12.5))
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of 26 rows and 32 columns: two patients for training, one for validation."""
    from monai_unetfamily.data.phantom import write_phantom_images2d

    folder = tmp_path_factory.mktemp("data") / "pictures"
    write_phantom_images2d(folder, 3, shape=PHANTOM_SHAPE, spacing=(10.0, 10.0, 12.5))
    return folder


@pytest.fixture(scope="session")
def overlapping_phantoms(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms under 4-D labels: all organs, and the liver among them."""
    import nibabel as nib
    import numpy as np

    from monai_unetfamily.io import write_masks

    folder = tmp_path_factory.mktemp("overlapping") / "phantoms"
    shutil.copytree(phantoms, folder)
    listing = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(listing | {"labels": {"1": "organs", "2": "liver"}}))
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        ids = np.asarray(image.dataobj)
        masks = np.stack([np.isin(ids, (1, 2, 3, 4)), ids == 1], axis=-1).astype(np.uint8)
        write_masks(masks, {1: "organs", 2: "liver"}, image, file)
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance a training's clock by 0.05 s at each reading: a budget ends after the same epochs on any machine."""
    readings = count()
    monkeypatch.setattr("monai_unetfamily.training.history.monotonic", lambda: 0.05 * next(readings))


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A copy of phantom_ct, small enough to train in seconds."""
    from monai_unetfamily.bundles import copy_bundle, find_bundle

    copy_bundle(find_bundle("phantom_ct"), tmp_path / "bundle")
    return shrink(tmp_path / "bundle")


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """The same for overlapping classes, changed as docs/overlapping_classes.md says."""
    from monai_unetfamily.bundles import copy_bundle, find_bundle

    bundle = tmp_path / "overlapping"
    copy_bundle(find_bundle("phantom_ct"), bundle)
    recipe = (Path(__file__).parents[1] / "docs/overlapping_classes.md").read_text()
    for part in re.split(r"`(?=configs/\w+\.\w+`)", recipe)[1:]:
        file = bundle / part.split("`")[0]
        for hunk in re.findall(r"```diff\n(.*?)```", part, re.DOTALL):
            before, after = (hunk_lines(hunk, mark) for mark in "-+")
            text = file.read_text()
            assert before in text, f"docs/overlapping_classes.md and {file.name} differ: {before}"
            file.write_text(text.replace(before, after))
    return shrink(bundle)


@pytest.fixture
def overlapping_bundle(overlapping: Path) -> Path:
    """The same with random weights."""
    return weigh(overlapping)


def hunk_lines(hunk: str, mark: str) -> str:
    return "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in f" {mark}")


@pytest.fixture
def bundle(untrained: Path) -> Path:
    """The tiny bundle with random weights, ready to predict."""
    return weigh(untrained)


@pytest.fixture
def untrained_2d(tmp_path: Path) -> Path:
    """A copy of phantom_2d, small enough to train in seconds."""
    from monai_unetfamily.bundles import copy_bundle, find_bundle

    copy_bundle(find_bundle("phantom_2d"), tmp_path / "bundle_2d")
    return shrink(tmp_path / "bundle_2d", (24, 32))


@pytest.fixture
def bundle_2d(untrained_2d: Path) -> Path:
    """The same with random weights, ready to predict."""
    return weigh(untrained_2d)


@pytest.fixture(scope="session")
def qapp_args() -> list[str]:
    """pytest-qt's; where there is no display, Qt would end the whole process."""
    require(DISPLAY)
    return ["tests"]


@pytest.fixture
def plugin(npe2pm: "TestPluginManager", plugin_settings: None) -> Iterator["DynamicPlugin"]:
    """napari's own plugin and ours, as this checkout has it, and no other that is installed; settings of their own."""
    builtins, ours = (find_spec(name).submodule_search_locations[0] for name in ("napari_builtins", "napari_plugin"))
    with npe2pm.tmp_plugin(f"{builtins}/builtins.yaml"), npe2pm.tmp_plugin(f"{ours}/napari.yaml") as plugin:
        yield plugin


@pytest.fixture
def image(phantoms: Path) -> Path:
    """An oblique, anisotropic phantom."""
    return phantoms / "imagesTr" / "phantom_003.nii.gz"


@pytest.fixture
def desk(make_napari_viewer: "Any", plugin: object, qtbot: "QtBot", image: Path) -> "Desk":
    """A window with the widget and that image."""
    from tests.support.desk import Desk

    return Desk(make_napari_viewer(show=True), qtbot, image)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Lets the network go on window by window."""
    from monai_unetfamily.nets import UNet3Plus
    from tests.support.desk import SECONDS

    gate = threading.Semaphore(0)
    forward = UNet3Plus.forward

    def waits(network: "UNet3Plus", x: "torch.Tensor") -> "Any":
        gate.acquire(timeout=SECONDS / 1000)
        return forward(network, x)

    monkeypatch.setattr(UNet3Plus, "forward", waits)
    yield gate
    gate.release(10_000)


@pytest.fixture(autouse=True)
def _clean_themes() -> None:
    """napari's own would load napari for every test."""


@pytest.fixture(autouse=True)
def _disable_qt_warnings() -> None:
    """Likewise."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed what is loaded before each test: no test may fail by chance. Shared fixtures seed themselves."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


SLOW = 0.25  # seconds of a processor: more, and a test should bear the mark

SPENT = "processor seconds"


def _processor_seconds() -> float:
    """Of this process and of its children that have ended: the same on a machine that is busy with other work."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@contextmanager
def _counted(item: pytest.Item) -> Iterator[None]:
    start = _processor_seconds()
    yield
    item.user_properties.append((SPENT, _processor_seconds() - start))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: "pytest.FixtureDef[Any]", request: pytest.FixtureRequest) -> "Iterator[Any]":
    """A fixture of the test's own counts; what tests share does not."""
    if fixturedef.scope != "function":
        return (yield)
    with _counted(request.node):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> "Iterator[Any]":
    with _counted(item):
        return (yield)


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Leave pytest-qt out where it could not import Qt, and would end the whole run."""
    if not can_import_qt() and not must_be_there():
        pluginmanager.set_blocked("pytest-qt")


class _FilesWithoutQt:
    """Leave out files that could not import Qt: a hook of this file itself would see those of tests/ alone."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if collection_path.suffix == ".py" and _needs_missing_qt(collection_path) else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_FilesWithoutQt())


def _needs_missing_qt(file: Path) -> bool:
    return not can_import_qt() and not must_be_there() and bool(_USES_QT.search(file.read_text("utf-8")))


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    _report_missing_parts(terminalreporter)
    _tell_what_survived(terminalreporter)
    _tell_what_is_slow(terminalreporter)


def _report_missing_parts(terminalreporter: "pytest.TerminalReporter") -> None:
    """Report the tests that did not run because a system package is missing, and what to install."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    counts = {part: sum(part.advice in reason for reason in skipped) for part in PARTS.values()}
    root = Path(__file__).parents[1]
    sources = [*(root / "tests").rglob("test_*.py"), *(root / "napari_plugin").rglob("*.py")]
    files = [file for file in sources if _needs_missing_qt(file)]
    if not any(counts.values()) and not files:
        return
    terminalreporter.section("skipped because a system package is missing")
    for part, tests in counts.items():
        more = f" and {len(files)} files" if part is DISPLAY and files else ""
        if tests or more:
            terminalreporter.write_line(f"{tests} tests{more}: {part.advice}")


def _tell_what_is_slow(terminalreporter: "pytest.TerminalReporter") -> None:
    """Which tests want a mark: no failure, since another machine takes another time."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    calls = [report for report in reports if getattr(report, "when", "") == "call" and "slow" not in report.keywords]
    seconds = {report.nodeid: sum(s for name, s in report.user_properties if name == SPENT) for report in calls}
    if unmarked := {name: spent for name, spent in seconds.items() if spent > SLOW}:
        terminalreporter.section(f"more than {SLOW:g} s of a processor without pytest.mark.slow")
        for name, spent in sorted(unmarked.items(), key=lambda pair: -pair[1]):
            terminalreporter.write_line(f"{spent:6.1f} s  {name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not _has_cuda():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here: see make test-gpu"))


def _tell_what_survived(terminalreporter: "pytest.TerminalReporter") -> None:
    """How many cases of tests/reliability came through, by kind."""
    passed = terminalreporter.stats.get("passed", [])
    told = [value for report in passed for name, value in report.user_properties if name == "survived"]
    counts = {kind: sum(cases for other, cases in told if other == kind) for kind, _ in told}
    if counts:
        kinds = ", ".join(f"{kind} {cases}" for kind, cases in counts.items())
        terminalreporter.write_line(f"reliability: {sum(counts.values())} cases came through: {kinds}")


def _has_cuda() -> bool:
    import torch  # seconds: only when a test asks for a device

    return torch.cuda.is_available()
