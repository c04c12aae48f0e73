"""How to add a network: one file, one row of the registry's table, and every test and every door is its own."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import pytest

from monai_unetfamily.bundles import METADATA
from monai_unetfamily.cli import main
from monai_unetfamily.nets import MEMBERS
from tests.support import add_linknet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WALKS = [  # of the registry
    *(f"tests/nets/test_{kind}.py" for kind in ("networks", "network_export", "autocast", "profiling")),
    "tests/reporting/test_diagram.py",
]

BY_HAND = {"test_number_of_nodes"}  # a table of figures: its author writes the new member's


@pytest.fixture
def linknet() -> Iterator[str]:
    add_linknet.load()
    yield "linknet"
    del MEMBERS["linknet"], sys.modules[add_linknet.NAME]


def test_it_takes_no_more_than_sixty_lines() -> None:
    assert len((ROOT / "tests/support/linknet.py").read_text().splitlines()) <= 60


def pytest_says(*arguments: str) -> str:
    plugins = ["-p", "no:cacheprovider", "-p", "tests.support.add_linknet"]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", *plugins, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


@pytest.mark.exhaustive
def test_it_gets_every_test_that_all_members_have_and_passes_them() -> None:
    said = pytest_says(*WALKS, "-k", "linknet")
    tests = [line.partition("[") for line in said.splitlines() if line.startswith("collected ") and line.endswith("]")]
    of = {
        name: {test for test, _, case in tests if name in re.split(r"[-\]]", case)} for name in MEMBERS | {"linknet": 0}
    }
    of_all = set.intersection(*(of[name] for name in MEMBERS))
    assert len(of_all) > 15
    assert {test.rpartition("::")[2] for test in of_all - of["linknet"]} <= BY_HAND
    assert " passed" in said


def test_it_comes_through_every_door(linknet: str, untrained: Path, phantoms: Path, tmp_path: Path) -> None:
    trained, labels = tmp_path / "trained", tmp_path / "labels"
    images = phantoms / "imagesTr"
    arguments = ["--network", linknet, "--minutes", "0.001", "--device", "cpu"]
    assert main(["train", str(untrained), "--dataset", str(phantoms), "-o", str(trained), *arguments]) == 0
    metadata = json.loads((trained / "configs" / METADATA).read_text())
    assert metadata["networks"]["linknet"]["features"] == [4, 8, 8]  # as the network it replaces
    assert main(["predict", str(trained), str(images), "-o", str(labels), "--device", "cpu"]) == 0
    for image in images.iterdir():
        assert nib.load(labels / image.name).shape == nib.load(image).shape
    assert main(["networks", linknet, "--size", "32", "32"]) == 0
    assert main(["networks", "--diagram", linknet, "-o", str(tmp_path / "linknet.svg")]) == 0
    assert 'id="En_0-skip-De_0"' in (tmp_path / "linknet.svg").read_text()
