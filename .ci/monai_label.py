"""MONAI Label's server predicts with our bundles what `unetfamily predict` predicts, on each image's own grid.

`.ci/test_monailabel.py` runs this with pytest, where MONAI Label is installed; elsewhere nothing collects it. The
server is started by MONAI Label's own command with its app `monaibundle`, and asked over HTTP, as its viewers ask it.
Nothing is downloaded: "zoo_source" is not the model zoo.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.bundles import SHIPPED, class_names
from monai_unetfamily.cli import main
from monai_unetfamily.data.phantom import write_phantoms
from tests.support.tiny import PHANTOM_SHAPE, shrink, weigh

LABEL = str(Path(sys.executable).with_name("monailabel"))
LITTLE = ["--features", "4", "8", "8", "--device", "cpu"]
BUNDLES = ("hippocampus_mr", "planned", "phantom_ct")
SCANS = [f"phantom_{number:03}" for number in range(7)]  # flipped, permuted, oblique: each grid of the phantoms
CLOSE = 4.0  # times finer, and as much smaller: for the bundle that resamples to 1 mm


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set; its images are what is predicted."""
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, len(SCANS), shape=PHANTOM_SHAPE, spacing=(10.0, 10.0, 12.5))
    return folder


@pytest.fixture(scope="module")
def close(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as if they were of something small, by other names."""
    folder = tmp_path_factory.mktemp("close")
    for file in (scans / "imagesTr").iterdir():
        image = nib.load(file)
        finer = image.affine @ np.diag([1 / CLOSE, 1 / CLOSE, 1 / CLOSE, 1])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), finer), folder / f"close_{file.name}")
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> Path:
    """The app, as MONAI Label's command copies it, with a bundle as shipped, one planned and trained, and a recipe."""
    folder = tmp_path_factory.mktemp("apps")
    subprocess.run([LABEL, "apps", "--download", "--name", "monaibundle", "--output", folder], check=True)
    with (folder / "monaibundle/main.py").open("a") as main_file:
        main_file.write("\n" + Path(__file__).with_name("monai_label_task.py").read_text("utf-8"))
    models = folder / "monaibundle/model"
    shutil.copytree(SHIPPED / "hippocampus_mr", models / "hippocampus_mr")
    assert main(["plan", str(scans), "-o", str(models / "planned"), *LITTLE]) == 0
    assert main(["train", str(models / "planned"), "--dataset", str(scans), "--epochs", "1", "--device", "cpu"]) == 0
    weigh(shrink(Path(shutil.copytree(SHIPPED / "phantom_ct", models / "phantom_ct"))))
    return folder / "monaibundle"


@pytest.fixture(scope="module")
def server(app: Path, scans: Path, close: Path) -> Iterator[str]:
    """Its address; it runs as long as the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"models": ",".join(BUNDLES), "zoo_source": "none", "sam2": "false"}
    words = [word for name, value in options.items() for word in ("--conf", name, value)]
    studies = shutil.copytree(scans / "imagesTr", app / "studies")  # where it writes, too
    shutil.copytree(close, studies, dirs_exist_ok=True)
    command = [LABEL, "start_server", "--app", app, "--studies", studies, *words]
    with (app / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=app, stdout=log, stderr=log
        )
    try:
        yield answering(f"http://127.0.0.1:{port}", process, app / "server.log")
    finally:
        process.terminate()
        process.wait()


def answering(address: str, process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The address, once there is an answer."""
    while process.poll() is None:
        try:
            urlopen(f"{address}/info/").close()
            return address
        except (URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"the server ended with status {process.returncode}:\n{log.read_text()[-5000:]}")


def asked(server: str, bundle: str, scan: str, **params: Any) -> bytes:
    """The label map, as the server sends it: a NIfTI file."""
    form = urlencode({"params": json.dumps({"device": "cpu", "result_compress": True, **params})}).encode()
    with urlopen(f"{server}/infer/{bundle}?image={scan}&output=image", data=form) as answer:
        return bytes(answer.read())


def test_the_server_offers_each_bundle_with_its_labels(server: str, app: Path) -> None:
    """Name, axes, version and classes, and the overlap to change."""
    with urlopen(f"{server}/info/") as answer:
        models = json.load(answer)["models"]
    assert sorted(models) == sorted(BUNDLES)
    for name, model in models.items():
        names = class_names(app / "model" / name)
        assert model["labels"] == {label.lower(): number for number, label in names.items() if number}
        assert (model["type"], model["dimension"]) == ("segmentation", 3)
        assert 0 <= model["config"]["overlap"] < 1


@pytest.mark.parametrize("bundle", BUNDLES)
def test_its_label_maps_are_those_of_unetfamily(
    bundle: str, server: str, app: Path, scans: Path, close: Path, tmp_path: Path
) -> None:
    """Each class' Dice is 0.999 or more, and 0.1 % of the foreground or fewer differ; the grid is the image's."""
    images, labels = close if bundle == "hippocampus_mr" else scans / "imagesTr", tmp_path / "labels"
    words = ["--device", "cpu", "--no-previews"]
    assert main(["predict", str(app / "model" / bundle), str(images), "-o", str(labels), *words]) == 0
    files = sorted(images.iterdir())
    assert len(files) == len(SCANS)
    for image in files:
        file = tmp_path / image.name
        file.write_bytes(asked(server, bundle, image.name.removesuffix(".nii.gz")))
        served, ours = nib.load(file), nib.load(labels / image.name)
        assert served.shape == nib.load(image).shape
        np.testing.assert_allclose(served.affine, ours.affine, atol=1e-4)  # mm; ITK keeps 32 bits of it
        agree(np.asarray(served.dataobj), np.asarray(ours.dataobj))


def agree(served: Any, ours: Any) -> None:
    """As the design allows two roads of a prediction to differ."""
    foreground = (served > 0) | (ours > 0)
    assert foreground.any()
    assert (served != ours).sum() <= 0.001 * foreground.sum()
    for label in np.unique(ours[ours > 0]):
        one, other = served == label, ours == label
        assert 2 * (one & other).sum() >= 0.999 * (one.sum() + other.sum())


def test_the_overlap_that_its_user_sets_is_the_one_of_unetfamily(
    server: str, app: Path, close: Path, tmp_path: Path
) -> None:
    """And it changes what is predicted, where there is more than a window."""
    scan = close / f"close_{SCANS[0]}.nii.gz"
    words = ["--overlap", "0.75", "--device", "cpu", "--no-previews"]
    assert main(["predict", str(app / "model/hippocampus_mr"), str(scan), "-o", str(tmp_path), *words]) == 0
    maps = {}
    for overlap in (0.25, 0.75):
        (tmp_path / "served.nii.gz").write_bytes(asked(server, "hippocampus_mr", f"close_{SCANS[0]}", overlap=overlap))
        maps[overlap] = np.array(nib.load(tmp_path / "served.nii.gz").dataobj)
    agree(maps[0.75], np.asarray(nib.load(tmp_path / scan.name).dataobj))
    assert (maps[0.25] != maps[0.75]).any()


def test_a_file_that_is_no_weights_is_refused(server: str, app: Path) -> None:
    """MONAI Label offers each *.pt of a bundle, and loads what fits of it: of a checkpoint, nothing."""
    with urlopen(f"{server}/info/") as answer:
        offered = json.load(answer)["models"]["planned"]["config"]["model_filename"]
    assert offered[0] == "model.pt"  # by default
    assert sorted(offered) == ["checkpoint.pt", "model.pt", "model_best.pt"]
    with pytest.raises(HTTPError, match="500"):
        asked(server, "planned", SCANS[0], model_filename="checkpoint.pt")
    urlopen(f"{server}/info/").close()  # by when it has written its log
    assert "these weights do not fit" in (app / "server.log").read_text()
