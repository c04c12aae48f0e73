"""Disks that are full, folders that may only be read, too little memory, workers that die: told, and nothing is lost.

About 50 seconds of one core.
"""

import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import Survived, assert_whole, digests, failures, labels
from runs import predict
from test_resume import assert_equal, state_of
from test_training import set_config
from victims import Ended, die_at, fill_disk, fill_now, lose_workers, run, with_files_of, with_memory

from monai_unetfamily.bundles.bundle import open_bundle

pytestmark = pytest.mark.slow

ENOUGH_TO_BEGIN = 96  # MB; where too little is left for a thread to begin, Python itself may wait for it for ever
MOST_OF_A_CASE = 4096  # bytes: a record, and no label map


@pytest.fixture
def undisturbed(bundle: Path, phantoms: Path, tmp_path: Path) -> dict[str, bytes]:
    opened = open_bundle(bundle, torch.device("cpu"))
    list(predict(opened, [phantoms / "imagesTr"], tmp_path / "undisturbed"))
    return labels(tmp_path / "undisturbed")


def assert_one_line(ended: Ended, *words: str) -> None:
    """It failed, not by a signal; one line says why, and there is no traceback."""
    assert ended.status in (1, 2), ended
    assert "Traceback" not in ended.said, ended.said
    errors = [line for line in ended.said.splitlines() if line.startswith("unetfamily: ")]
    assert any(all(word in line for word in words) for line in errors), ended.said


def command(bundle: Path, inputs: Path, out: Path, *options: str) -> list[str | Path]:
    return ["predict", bundle, inputs, "-o", out, "--device", "cpu", "--no-previews", *options]


@pytest.mark.parametrize("left", [0, MOST_OF_A_CASE, 4 * MOST_OF_A_CASE])
def test_a_full_disk_ends_a_prediction_which_goes_on_when_there_is_room(
    left: int,
    disk: Path,
    bundle: Path,
    phantoms: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    survived: Survived,
) -> None:
    out = disk / "out"
    out.mkdir()
    fill_now(disk, left)
    ended = run(tmp_path / "log", command(bundle, phantoms / "imagesTr", out))
    assert_one_line(ended, "No space left on device", str(out))
    done = labels(out)
    assert done.items() <= undisturbed.items()
    (disk / "ballast").unlink()
    again = run(tmp_path / "log", command(bundle, phantoms / "imagesTr", out))
    assert again.status == 0, again.said
    assert labels(out) == undisturbed
    assert_whole(out)
    survived("processes", 1)


def test_files_that_may_not_grow_are_told_of(
    bundle: Path, phantoms: Path, tmp_path: Path, undisturbed: dict[str, bytes], survived: Survived
) -> None:
    """What a full disk says to a write, where no small one can be mounted."""
    out = tmp_path / "out"
    ended = run(tmp_path / "log", command(bundle, phantoms / "imagesTr", out), with_files_of, 1)
    assert_one_line(ended, "File too large", str(out))
    assert labels(out) == {}
    again = run(tmp_path / "log", command(bundle, phantoms / "imagesTr", out))
    assert again.status == 0, again.said
    assert labels(out) == undisturbed
    survived("processes", 1)


def test_a_disk_that_becomes_full_ends_a_training_which_goes_on_when_there_is_room(
    disk: Path, untrained: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    set_config(untrained, max_epochs=4, val_interval=2, epoch_batches=4, num_workers=0)
    shutil.copytree(untrained, disk / "bundle")
    how = ["--dataset", phantoms, "--device", "cpu"]
    assert run(tmp_path / "log", ["train", untrained, *how]).status == 0
    first = disk / "bundle/models/model.pt"
    ended = run(tmp_path / "log", ["train", disk / "bundle", *how], fill_disk, disk, first)
    assert_one_line(ended, "No space left on device")
    assert state_of(disk / "bundle")["trainer"]["epoch_length"] == 4  # the last good checkpoint is whole
    (disk / "ballast").unlink()
    ended = run(tmp_path / "log", ["train", disk / "bundle", *how, "--resume"])
    assert ended.status == 0, ended.said
    assert_equal(state_of(disk / "bundle"), state_of(untrained))
    survived("processes", 1)


@pytest.fixture
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that may only be read: root, whom permissions do not bind, mounts it so."""
    if os.geteuid():
        folder = tmp_path / "read_only"
        folder.mkdir(mode=0o555)
        return folder
    folder = request.getfixturevalue("disk")
    shutil.copytree(request.getfixturevalue("phantoms") / "imagesTr", folder / "scans")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    return Path(folder)


def test_an_output_folder_that_may_only_be_read_is_refused_at_once(
    read_only: Path, bundle: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    for out in (read_only, read_only / "new"):
        ended = run(tmp_path / "log", command(bundle, phantoms / "imagesTr", out))
        assert_one_line(ended, str(out), "name a folder that may be made and written")
        assert ended.status == 2
    survived("processes", 1)


def test_inputs_that_may_only_be_read_are_enough(
    read_only: Path, bundle: Path, phantoms: Path, tmp_path: Path, undisturbed: dict[str, bytes], survived: Survived
) -> None:
    scans = read_only / "scans" if (read_only / "scans").exists() else phantoms / "imagesTr"
    assert run(tmp_path / "log", command(bundle, scans, tmp_path / "out")).status == 0
    assert labels(tmp_path / "out") == undisturbed
    survived("processes", 1)


def test_a_case_that_takes_more_memory_than_there_is_costs_its_own_line(
    bundle: Path, phantoms: Path, tmp_path: Path, undisturbed: dict[str, bytes], survived: Survived
) -> None:
    scans, voxels = tmp_path / "scans", np.zeros((600, 600, 500), np.int16)
    shutil.copytree(phantoms / "imagesTr", scans)
    voxels[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), scans / "phantom_002_large.nii.gz")  # 720 MB as float32
    before = digests(scans)
    ended = run(tmp_path / "log", command(bundle, scans, tmp_path / "out"), with_memory, 600)
    assert_one_line(ended, "phantom_002_large")
    assert ended.status == 1
    assert failures(tmp_path / "out").keys() == {"phantom_002_large"}
    assert labels(tmp_path / "out") == undisturbed
    assert_whole(tmp_path / "out")
    assert digests(scans) == before
    survived("processes", 1)


def test_too_little_memory_ends_a_training_which_goes_on_with_more(
    untrained: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    set_config(untrained, max_epochs=1, val_interval=1, epoch_batches=2, num_workers=0)
    command = ["train", untrained, "--dataset", phantoms, "--device", "cpu"]
    ended = run(tmp_path / "log", command, with_memory, ENOUGH_TO_BEGIN)
    assert_one_line(ended)
    assert "training on cpu" in ended.said
    ended = run(tmp_path / "log", command)
    assert ended.status == 0, ended.said
    survived("processes", 1)


def test_a_loader_that_dies_ends_a_training_which_is_resumed(
    untrained: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    set_config(untrained, max_epochs=3, val_interval=3, epoch_batches=8, num_workers=1)
    killed = tmp_path / "killed"
    shutil.copytree(untrained, killed)
    how = ["--dataset", phantoms, "--device", "cpu"]
    assert run(tmp_path / "log", ["train", untrained, *how]).status == 0
    ended = run(tmp_path / "log", ["train", killed, *how], lose_workers, killed / "models/model.pt")
    assert_one_line(ended, "DataLoader worker", "killed")
    ended = run(tmp_path / "log", ["train", killed, *how, "--resume"])
    assert ended.status == 0, ended.said
    assert_equal(state_of(killed), state_of(untrained))
    survived("processes", 1)


def test_a_shard_that_dies_leaves_the_others_theirs(
    bundle: Path, phantoms: Path, tmp_path: Path, undisturbed: dict[str, bytes], survived: Survived
) -> None:
    out, images = tmp_path / "out", phantoms / "imagesTr"
    dies = "rename phantom_002.nii.gz"  # of cases 0 and 2
    assert run(tmp_path / "log", command(bundle, images, out, "--shard", "1/2"), die_at, out, dies).status == -9
    assert run(tmp_path / "log", command(bundle, images, out, "--shard", "2/2")).status == 0
    assert failures(out) == {"phantom_002": "was not finished; run the same command again"}
    assert run(tmp_path / "log", command(bundle, images, out, "--shard", "1/2")).status == 0
    assert labels(out) == undisturbed
    assert_whole(out)
    survived("processes", 1)
