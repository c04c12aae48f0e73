"""The same patient stored in each of 48 ways, straight or oblique, gets the same labels voxel for voxel.

About 20 seconds of one core.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_unetfamily.bundles import open_bundle
from tests.io.test_nifti import ORIENTATIONS, TILT, geometry
from tests.reliability.cohorts import Survived, assert_whole
from tests.reliability.forms_table import AFFINE, FORMS, SHAPE
from tests.support.runs import predict
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SPACINGS = {"the bundle's spacing": (12.0, 12.0, 12.0), "anisotropic": (9.0, 10.0, 15.0)}
TURNS = {"straight": np.eye(3), "oblique": TILT}


def patient(spacing: tuple[float, ...], turn: np.ndarray) -> nib.Nifti1Image:
    """Smooth noise of 14 x 12 x 10 voxels, in Hounsfield units."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(40, 150, (1, 1, 5, 4, 4)))
    voxels = torch.nn.functional.interpolate(noise, (14, 12, 10), mode="trilinear")[0, 0].numpy()
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (-71.3, 57.7, 1e3 / 3)
    return nib.Nifti1Image(voxels.astype(np.float32), affine)


def turned(image: nib.Nifti1Image, orientation: np.ndarray) -> nib.Nifti1Image:
    """The same voxels in the same places, stored in another order."""
    along = np.abs(orientation).argmax(axis=0)
    return image.as_reoriented(np.stack([np.argsort(along), orientation.sum(axis=1)], axis=1))


@pytest.mark.parametrize("turn", sampled(TURNS, "oblique"))
@pytest.mark.parametrize("spacing", sampled(SPACINGS, "anisotropic"))
def test_labels_do_not_hang_on_how_a_volume_is_stored(
    spacing: str, turn: str, bundle: Path, tmp_path: Path, survived: Survived
) -> None:
    image = patient(SPACINGS[spacing], TURNS[turn])
    (tmp_path / "in").mkdir()
    for number, orientation in enumerate([np.eye(3), *ORIENTATIONS]):
        nib.save(turned(image, orientation), tmp_path / "in" / f"{number:02}.nii")
    reference, *case_results = predict(open_bundle(bundle, CPU), [tmp_path / "in"], tmp_path / "out")
    assert reference.output
    expected = nib.load(reference.output)
    assert len(np.unique(expected.dataobj)) > 1
    for case_result, orientation in zip(case_results, ORIENTATIONS, strict=True):
        assert case_result.output
        got, source = nib.load(case_result.output), nib.load(case_result.study.files[0])
        np.testing.assert_array_equal(got.dataobj, turned(expected, orientation).dataobj)
        assert geometry(got) == geometry(source)
        assert got.affine.tobytes() == source.affine.tobytes()
    assert len({nib.aff2axcodes(nib.load(case_result.study.files[0]).affine) for case_result in case_results}) == 48
    assert_whole(tmp_path / "out")
    survived("geometry", len(case_results))


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_disagree_are_told_and_both_kept(
    name: str, bundle: Path, tmp_path: Path, survived: Survived
) -> None:
    form = FORMS[name]
    image = nib.Nifti1Image(np.random.default_rng(0).integers(-200, 300, SHAPE).astype(np.int16), AFFINE)
    image.set_sform(form.sform, form.codes[0])
    image.set_qform(form.qform, form.codes[1])
    nib.save(image, tmp_path / "a.nii")
    (case_result,) = predict(open_bundle(bundle, CPU), [tmp_path / "a.nii"], tmp_path / "out")
    assert case_result.output
    assert [note for note in case_result.record.notes if form.note and form.note in note] or not form.note
    assert bool(case_result.record.notes) == bool(form.note)
    got, source = nib.load(case_result.output), nib.load(tmp_path / "a.nii")
    assert geometry(got) == geometry(source)
    assert got.affine.tobytes() == source.affine.tobytes()
    if form.used is not None:
        np.testing.assert_allclose(got.affine, form.used, atol=1e-4)
    survived("geometry", 1)
