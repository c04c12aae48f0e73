"""How often random patches lack a class: shares that geometry gives."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.planning.fingerprint import absence_from_patches

CLASSES = {0: "background", 1: "half", 2: "corner", 3: "nowhere"}


def case(folder: Path, affine: np.ndarray, turn: tuple[int, ...] = (0, 1, 2)) -> dict[str, str]:
    """20 x 10 x 8 voxels along right, front, up: the right half, and a corner of one voxel; 9 is ignored."""
    ids = np.zeros((20, 10, 8), np.uint8)
    ids[10:] = 1
    ids[0, 0, 0] = 2
    ids[0, 9, 7] = 9
    file = folder / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(ids.transpose(turn)), affine), file)
    return {"image": "absent", "label": str(file)}


def test_shares_are_those_of_the_places_a_window_can_take(tmp_path: Path) -> None:
    """Of 16 places along the first axis, 0 to 5 miss the right half; 1 of 16 x 1 x 1 holds the corner."""
    cases = [case(tmp_path, np.diag([2.0, 2.0, 3.0, 1.0]))]
    shares = absence_from_patches(cases, CLASSES, patch=(5, 10, 8), spacing=(2, 2, 3))
    assert shares["half"] == pytest.approx(6 / 16, abs=0.06)
    assert shares["corner"] == pytest.approx(15 / 16, abs=0.04)
    assert shares["nowhere"] == 1


def test_a_window_is_as_long_as_the_patch_in_mm(tmp_path: Path) -> None:
    cases = [case(tmp_path, np.diag([2.0, 2.0, 3.0, 1.0]))]
    same = absence_from_patches(cases, CLASSES, patch=(5, 10, 8), spacing=(2, 2, 3))
    assert absence_from_patches(cases, CLASSES, patch=(10, 5, 6), spacing=(1, 4, 4)) == same
    assert absence_from_patches(cases, CLASSES, patch=(5, 99, 99), spacing=(2, 2, 3)) == same


def test_axes_are_the_patients(tmp_path: Path) -> None:
    """Stored as (up, right, front)."""
    turned = np.array([[0, 2, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    cases = [case(tmp_path, turned, (2, 0, 1))]
    shares = absence_from_patches(cases, CLASSES, patch=(5, 10, 8), spacing=(2, 2, 3))
    assert shares["half"] == pytest.approx(6 / 16, abs=0.06)


def test_the_whole_image_lacks_what_is_nowhere_alone(tmp_path: Path) -> None:
    cases = [case(tmp_path, np.eye(4))] * 3
    assert absence_from_patches(cases, CLASSES, patch=(20, 10, 8), spacing=(1, 1, 1)) == {
        "half": 0,
        "corner": 0,
        "nowhere": 1,
    }


def test_masks_that_overlap_are_each_looked_at(tmp_path: Path) -> None:
    masks = np.zeros((4, 4, 4, 2), np.uint8)
    masks[:2, ..., 0] = 1
    nib.save(nib.Nifti1Image(masks, np.eye(4)), tmp_path / "masks.nii.gz")
    cases = [{"image": "absent", "label": str(tmp_path / "masks.nii.gz")}]
    shares = absence_from_patches(cases, {1: "whole", 2: "core"}, patch=(1, 1, 1), spacing=(1, 1, 1))
    assert shares == {"whole": pytest.approx(0.5, abs=0.06), "core": 1}


def test_the_seed_decides(tmp_path: Path) -> None:
    cases = [case(tmp_path, np.eye(4))]
    one, again, other = (absence_from_patches(cases, CLASSES, (3, 3, 3), (1, 1, 1), seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_a_patch_of_other_axes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.nii\.gz: got a patch of 2 axes; 3 are needed"):
        absence_from_patches([case(tmp_path, np.eye(4))], CLASSES, (3, 3), (1, 1))
    with pytest.raises(ValueError, match="got a patch of 2 axes and a spacing of 3; they must be as many"):
        absence_from_patches([case(tmp_path, np.eye(4))], CLASSES, (3, 3), (1, 1, 1))
    with pytest.raises(ValueError, match="got no cases"):
        absence_from_patches([], CLASSES, (3, 3), (1, 1))
