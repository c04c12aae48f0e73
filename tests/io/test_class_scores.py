"""Saved scores: a byte a score, on the volume's own grid, whole or not at all."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Pair
from nibabel.nifti2 import Nifti2Image

from monai_unetfamily.io import open_volume, read_channel_names, score_file

NAMES = {0: "background", 1: "liver", 2: "left kidney"}
SHAPE = (5, 6, 7)
EVERYWHERE = tuple(slice(0, n) for n in SHAPE)


def ct(kind: type = nib.Nifti1Image) -> Nifti1Pair:
    image = kind(np.zeros(SHAPE, np.int16), np.diag([-0.8, 0.9, 2.5, 1.0]))
    image.set_sform(image.affine, 2)
    image.set_qform(None, 0)
    image.header["descrip"] = b"abdomen"
    return image


@pytest.mark.parametrize("kind", [nib.Nifti1Image, Nifti2Image])
def test_parts_become_one_file_on_the_same_grid(kind: type, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((*SHAPE, 3))
    with score_file(tmp_path / "a.nii", ct(kind), NAMES) as write:
        for channel in range(3):
            for z in (slice(3, 7), slice(0, 3)):
                write((*EVERYWHERE[:2], z), channel, scores[..., z, channel])
        assert not (tmp_path / "a.nii").exists()
    saved = open_volume(tmp_path / "a.nii", channels=True)
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_allclose(saved.get_fdata(), scores, atol=0.5 / 255 + 1e-6)
    assert saved.affine.tobytes() == ct(kind).affine.tobytes()
    for field in ("sform_code", "qform_code", "descrip"):
        assert saved.header[field] == ct().header[field]
    assert read_channel_names(saved) == NAMES
    assert isinstance(saved, kind)
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii"]


def test_scores_outside_0_to_1_are_clipped(tmp_path: Path) -> None:
    with score_file(tmp_path / "a.nii", ct(), NAMES) as write:
        write(EVERYWHERE, 0, np.full(SHAPE, 1.2))
        write(EVERYWHERE, 1, np.full(SHAPE, -0.2))
    saved = nib.load(tmp_path / "a.nii").get_fdata()
    assert saved.max(axis=(0, 1, 2)).tolist() == pytest.approx([1, 0, 0])


def test_what_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("before")
    with pytest.raises(KeyError), score_file(tmp_path / "a.nii", ct(), NAMES):
        raise KeyError
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.nii", "before")]


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"No space left.*a\.nii"), score_file(tmp_path / "a.nii", ct(), NAMES):
        pytest.fail("the block began")
    assert not list(tmp_path.iterdir())


def test_a_compressed_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uncompressed"), score_file(tmp_path / "a.nii.gz", ct(), NAMES):
        pass
