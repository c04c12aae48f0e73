"""A dry run says what a run then does, and does nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image as Pictures

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.cohort import plan_lines, predict_cohort
from monai_unetfamily.data import find_studies
from monai_unetfamily.io import Probe, probe_study, read_study
from monai_unetfamily.prediction import Settings, load_case, segment
from tests.support.dicom_files import write_series
from tests.support.runs import predict


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle, torch.device("cpu"))


@pytest.mark.slow
def test_windows_and_what_is_finished_are_those_of_the_run(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no image")
    studies = find_studies([phantoms / "imagesTr", bad]).studies
    list(predict(opened, [studies[0].files[0]], tmp_path / "out"))
    before = sorted((tmp_path / "out").rglob("*"))
    *lines, sums = plan_lines([opened], studies, tmp_path / "out", Settings(previews=False))
    assert sums == "7 cases, 1 finished already, 1 that would fail; nothing was done"
    assert [line.endswith("finished already") for line in lines] == [True] + 6 * [False]
    assert sorted((tmp_path / "out").rglob("*")) == before
    for study, line in zip(studies[:-1], lines, strict=False):
        _, case = load_case(opened, study)
        *_, last = segment(opened, case)
        assert f" {last.total} windows" in line
        assert "x".join(map(str, nib.load(study.files[0]).shape)) in line
    assert "would fail" in lines[-1]


def test_headers_alone_say_how_large_a_study_is(tmp_path: Path) -> None:
    voxels = np.zeros((4, 3, 2), np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([2, 1.5, 5, 1])), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([voxels] * 5, -1), np.diag([2, 1.5, 5, 1])), tmp_path / "b.nii.gz")
    Pictures.new("L", (6, 7)).save(tmp_path / "c.png")
    volume = Probe((4, 3, 2), (2.0, 1.5, 5.0), (0, 1, 2))
    assert probe_study(find_studies([tmp_path / "a.nii.gz"]).studies[0]) == volume
    assert probe_study(find_studies([tmp_path / "b.nii.gz"], channel_dim=3).studies[0]) == volume
    assert probe_study(find_studies([tmp_path / "c.png"]).studies[0]) == Probe((7, 6), (1.0, 1.0), (0, 1))


def test_the_size_of_voxels_is_the_affines(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([2, 1.5, 5, 1]))
    image.header["pixdim"][1:4] = 1
    nib.save(image, tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header.get_zooms() == (1, 1, 1)
    assert probe_study(find_studies([tmp_path / "a.nii"]).studies[0]).spacing == (2.0, 1.5, 5.0)


def four_axes(path: Path) -> Path:
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 2, 5), np.int16), np.eye(4)), path.with_suffix(".nii"))
    return path.with_suffix(".nii")


def nifti(path: Path) -> Path:
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4)), path.with_suffix(".nii"))
    return path.with_suffix(".nii")


def metaimage(path: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), path.with_suffix(".mha"))
    return path.with_suffix(".mha")


def dicom(path: Path) -> Path:
    write_series(path, np.zeros((4, 3, 2), np.int16), np.eye(4))
    return path


def missing(path: Path) -> Path:
    (path.parent / "list.txt").write_text("absent.nii")
    return path.parent / "list.txt"


@pytest.mark.parametrize("make", [four_axes, nifti, metaimage, dicom, missing])
def test_a_dry_run_refuses_a_case_in_the_words_of_the_run(opened: Bundle, tmp_path: Path, make: Callable) -> None:
    (study,) = find_studies([make(tmp_path / "a")]).studies
    with pytest.raises((ValueError, OSError)) as refused:
        read_study(study, max_voxels=23)
    line, sums = plan_lines([opened], [study], tmp_path / "out", Settings(max_voxels=23))
    assert line == f"1/1 {study.name}: would fail: {refused.value}"
    assert sums == "1 cases, 0 finished already, 1 that would fail; nothing was done"


def test_a_dry_run_refuses_what_the_run_refuses(opened: Bundle, tmp_path: Path) -> None:
    studies, settings = find_studies([nifti(tmp_path / "a")]).studies, Settings(previews=False)
    (tmp_path / "a.nii.gz").touch()
    other = replace(opened, names={0: "background", 1: "heart"})
    for bundles, overwrite in (([opened], False), ([opened, other], True)):
        with pytest.raises((ValueError, FileExistsError)) as refused:
            next(predict_cohort(bundles, studies, tmp_path, settings, overwrite=overwrite))
        with pytest.raises(type(refused.value)) as planned:
            next(plan_lines(bundles, studies, tmp_path, settings, overwrite))
        assert str(planned.value) == str(refused.value)


@pytest.mark.slow
def test_what_is_overwritten_is_not_finished(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    studies = find_studies([phantoms / "imagesTr"]).studies[:1]
    list(predict(opened, [studies[0].files[0]], tmp_path))
    for overwrite, finished in ((False, 1), (True, 0)):
        *_, sums = plan_lines([opened], studies, tmp_path, Settings(previews=False), overwrite)
        assert sums == f"1 cases, {finished} finished already, 0 that would fail; nothing was done"
