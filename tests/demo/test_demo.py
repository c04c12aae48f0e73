"""The demo as it is, on one phantom in place of eight: its laws are anatomy's, not those of particular weights."""

import csv
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import GM_MNI152_FILE_PATH, MNI152_FILE_PATH

from monai_unetfamily.demo.demo_run import run_demo
from monai_unetfamily.io import read_volume

pytestmark = pytest.mark.slow

SIDES = ["left", "right"]
OF_PHANTOMS = ["phantoms", "phantom_labels", "scores.csv", "phantom.png"]


class Demo(NamedTuple):
    output: Path
    said: list[str]

    @property
    def steps(self) -> list[str]:
        return [line[:3] for line in self.said if line[1:3] == "/4"]

    def rows(self, side: str) -> list[dict[str, str]]:
        """Anterior and posterior, as measured."""
        with (self.output / "mni152_labels/volumes.csv").open() as stream:
            return [row for row in csv.DictReader(stream) if row["case"] == side]

    def labels(self, side: str) -> np.ndarray:
        return read_volume(self.output / "mni152_labels" / f"{side}.nii.gz")[0]


@pytest.fixture(scope="module")
def one_phantom() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_unetfamily.demo.demo_run.CASES", 1)
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the demo asks for the network", pytrace=False))
        yield


@pytest.fixture(scope="module")
def demo(one_phantom: None, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    demo = Demo(tmp_path_factory.mktemp("demo") / "output", [])
    run_demo(demo.output, device="cpu", log=demo.said.append)
    return demo


def test_every_step_is_told_and_what_it_names_is_there(demo: Demo) -> None:
    assert demo.steps == ["1/4", "2/4", "3/4", "4/4"]
    visible = {file.name for file in demo.output.iterdir() if not file.name.startswith(".")}
    assert visible == {*OF_PHANTOMS, "mni152", "mni152_labels"}
    named = {word for line in demo.said for word in line.split() if word.startswith(str(demo.output))}
    assert all(Path(name).exists() for name in named)


def test_it_ends_with_the_files_to_look_at(demo: Demo) -> None:
    heading, *lines = demo.said[-1].splitlines()
    assert heading == "The demo made these files:"
    files = [Path(line.partition(" - ")[0].strip()) for line in lines]
    assert [file.name for file in files] == [
        *("phantom.png", "report.html", "scores.csv", "left.png", "right.png", "report.html")
    ]
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in files if file.suffix == ".png")
    assert all(file.is_file() and line.partition(" - ")[2] for file, line in zip(files, lines, strict=True))


def test_a_phantom_that_no_training_has_seen_is_segmented(demo: Demo) -> None:
    with (demo.output / "scores.csv").open() as stream:
        scores = {row["label"]: float(row["dice"]) for row in csv.DictReader(stream)}
    assert scores.keys() == {"liver", "spleen", "left_kidney", "right_kidney", "spine"}
    assert min(scores.values()) > 0.8


@pytest.mark.parametrize("side", SIDES)
def test_a_crop_is_the_template_voxel_by_voxel_at_the_same_coordinates(demo: Demo, side: str) -> None:
    crop, template = nib.load(demo.output / "mni152" / f"{side}.nii.gz"), nib.load(MNI152_FILE_PATH)
    places = nib.affines.apply_affine(crop.affine, np.stack(np.indices(crop.shape), -1))
    there = nib.affines.apply_affine(np.linalg.inv(template.affine), places)
    assert np.array_equal(there, there.round())
    assert np.array_equal(np.asarray(crop.dataobj), np.asarray(template.dataobj)[tuple(there.astype(int).T)].T)
    assert crop.get_data_dtype() == template.get_data_dtype()


@pytest.mark.parametrize(("side", "sign"), [("left", -1), ("right", 1)])
def test_each_hippocampus_lies_where_anatomy_has_it(demo: Demo, side: str, sign: int) -> None:
    anterior, posterior = demo.rows(side)
    assert 1 < float(anterior["volume_ml"]) + float(posterior["volume_ml"]) < 6
    for row in (anterior, posterior):  # around (-26, -14, -20) and (-29, -30, -9) mm on the left
        x, y, z = (float(row[f"centroid_{axis}"]) for axis in "xyz")
        assert 15 < sign * x < 40
        assert -45 < y < -5
        assert -30 < z < 0
    assert float(anterior["centroid_y"]) > float(posterior["centroid_y"])


@pytest.mark.parametrize("side", SIDES)
def test_what_is_labelled_is_grey_matter(demo: Demo, side: str) -> None:
    """By the template's own map of it, in which a little more than half of a crop is grey."""
    label_map = nib.load(demo.output / "mni152_labels" / f"{side}.nii.gz")
    grey, affine = read_volume(GM_MNI152_FILE_PATH)
    places = nib.affines.apply_affine(np.linalg.inv(affine) @ label_map.affine, np.argwhere(label_map.get_fdata() > 0))
    assert grey[tuple(places.round().astype(int).T)].mean() > 0.8 * grey.max()


def test_mirrored_halves_of_the_template_get_mirrored_labels(demo: Demo) -> None:
    left, right = demo.labels("left"), demo.labels("right")[::-1]
    for label in (1, 2):
        both = np.count_nonzero(left == label) + np.count_nonzero(right == label)
        assert 2 * np.count_nonzero((left == label) & (right == label)) > 0.8 * both


def test_it_may_be_run_again_and_tells_what_it_leaves_out_without_nilearn(
    one_phantom: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / ".unetfamily-demo").touch()
    (output / "phantom_ct").mkdir()
    monkeypatch.setitem(sys.modules, "nilearn", None)
    again = Demo(output, [])
    run_demo(output, device="cpu", log=again.said.append)
    assert again.steps == ["1/4", "2/4"]
    assert "nilearn" in again.said[-1]
    assert "hippocampus" not in again.said[-2]
    assert "pip install nilearn" in again.said[-1]
    assert {file.name for file in output.iterdir() if not file.name.startswith(".")} == set(OF_PHANTOMS)
