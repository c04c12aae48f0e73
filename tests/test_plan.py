"""A dry run says what a run then does, and does nothing."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from runs import predict

from monai_unetfamily.bundles.bundle import Bundle, open_bundle
from monai_unetfamily.inference.plan import plan_lines
from monai_unetfamily.inference.predictor import load_case
from monai_unetfamily.inference.segment import segment
from monai_unetfamily.inference.settings import Settings
from monai_unetfamily.volumes.probing import Probe, probe_study
from monai_unetfamily.volumes.studies import find_studies


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle, torch.device("cpu"))


def test_windows_and_what_is_finished_are_those_of_the_run(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no image")
    studies = find_studies([phantoms / "imagesTr", bad]).studies
    list(predict(opened, [studies[0].files[0]], tmp_path / "out"))
    before = sorted((tmp_path / "out").rglob("*"))
    *lines, sums = plan_lines([opened], studies, tmp_path / "out", Settings(previews=False))
    assert sums == "7 cases, 1 finished already, 1 that cannot be read; nothing was done"
    assert [line.endswith("finished already") for line in lines] == [True] + 6 * [False]
    assert sorted((tmp_path / "out").rglob("*")) == before
    for study, line in zip(studies[:-1], lines, strict=False):
        _, case = load_case(opened, study)
        *_, last = segment(opened, case)
        assert f" {last.total} windows" in line
        assert "x".join(map(str, nib.load(study.files[0]).shape)) in line
    assert "cannot be read" in lines[-1]


def test_headers_alone_say_how_large_a_study_is(tmp_path: Path) -> None:
    voxels = np.zeros((4, 3, 2), np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([2, 1.5, 5, 1])), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([voxels] * 5, -1), np.diag([2, 1.5, 5, 1])), tmp_path / "b.nii.gz")
    Pictures.new("L", (6, 7)).save(tmp_path / "c.png")
    volume = Probe((4, 3, 2), (2.0, 1.5, 5.0), (0, 1, 2))
    assert probe_study(find_studies([tmp_path / "a.nii.gz"]).studies[0]) == volume
    assert probe_study(find_studies([tmp_path / "b.nii.gz"], channel_dim=3).studies[0]) == volume
    assert probe_study(find_studies([tmp_path / "c.png"]).studies[0]) == Probe((7, 6), (1.0, 1.0), (0, 1))
