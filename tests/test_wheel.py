"""What `pip install .` puts on a machine: the wheel, installed in an environment of its own, far from the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "configs", "monai_unetfamily", "napari_plugin"]
LEFTOVERS = shutil.ignore_patterns(*(Path(line).name for line in (ROOT / ".gitignore").read_text().split()))


class Installed(NamedTuple):
    """An environment with the package: its interpreter, and a folder to work in."""

    python: Path
    wheel: Path
    work: Path

    def run(self, *command: str | Path) -> str:
        return run(*command, cwd=self.work)


def run(*command: str | Path, cwd: Path) -> str:
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # may be the checkout
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Dependencies come from the tests' environment, by their folder: what is installed there editably is not seen."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build(folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    work = folder / "work"
    work.mkdir()
    return Installed(python, wheel, work)


def build(folder: Path) -> Path:
    """The wheel, built without a network from a copy: a build leaves its traces beside the sources."""
    checkout = folder / "checkout"
    checkout.mkdir()
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, checkout / source.name, ignore=LEFTOVERS)
        else:
            shutil.copy(source, checkout)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder, checkout, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_it_carries_every_file_of_the_package_and_of_the_bundles(installed: Installed) -> None:
    checkout = installed.wheel.parent / "checkout"
    sources = [path for name in SOURCES for path in (checkout / name).rglob("*") if path.is_file()]
    expected = {path.relative_to(checkout).as_posix() for path in sources}
    expected = {f"monai_unetfamily/{name}" if name.startswith("configs/") else name for name in expected}
    with ZipFile(installed.wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert carried == expected


def test_a_shipped_bundle_predicts_by_its_name(installed: Installed) -> None:
    where = "import monai_unetfamily.bundles.metadata as m; print(m.find_bundle('hippocampus_mr'))"
    assert installed.run(installed.python, "-c", where).startswith(str(installed.work.parent / "venv"))
    brain = nib.Nifti1Image(np.random.default_rng(0).normal(100, 20, (24, 32, 20)), np.diag([1.0, 1.5, 2.0, 1.0]))
    nib.save(brain, installed.work / "brain.nii.gz")
    command = installed.python.with_name("unetfamily")
    said = installed.run(command, "predict", "hippocampus_mr", "brain.nii.gz", "-o", "out", "--device", "cpu")
    assert "1 done" in said
    labels = nib.load(installed.work / "out" / "brain.nii.gz")
    assert labels.shape == brain.shape
    assert np.array_equal(labels.affine, brain.affine)
