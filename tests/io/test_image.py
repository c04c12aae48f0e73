"""Laws of reading: voxels as stored, on the grid of their file, with a note where a header leaves a choice."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_unetfamily.data import find_studies
from monai_unetfamily.data.phantom import write_phantom_images2d, write_phantoms
from monai_unetfamily.io import Study, read_study, write_labels
from tests.support.dicom_files import write_series

AFFINE = np.diag([-2.0, 2.0, 5.0, 1.0])
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6, 3)).astype(np.int16)
SCALED = np.moveaxis(VOXELS, -1, 0) * 0.5 + 3  # (C, X, Y, Z), as the header of `scan` says


def scan(path: Path, voxels: np.ndarray = VOXELS[..., 0], kind: type[nib.Nifti1Pair] = nib.Nifti1Image) -> Path:
    image = kind(voxels, AFFINE)
    image.set_sform(AFFINE, 2)
    image.header.set_slope_inter(0.5, 3)
    image.header["descrip"] = b"a scan"
    nib.save(image, path)
    return path


def study(*files: Path, **how: int) -> Study:
    return Study("a", files, "nifti", **how)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 1)])
def test_a_volume_is_read_as_stored(kind: type[nib.Nifti1Pair], shape: tuple[int, ...], tmp_path: Path) -> None:
    path = scan(
        tmp_path / ("a.hdr" if kind is nib.Nifti1Pair else "a.nii.gz"),
        VOXELS.flat[: np.prod(shape)].reshape(shape),
        kind,
    )
    image = read_study(study(path), channels=1)
    stored = nib.load(path)
    np.testing.assert_allclose(image.voxels, stored.get_fdata().reshape(1, *shape[:3]), rtol=1e-6)
    assert image.voxels.dtype == np.float32
    assert image.grid is not None
    assert image.grid.affine.tobytes() == stored.affine.tobytes()
    assert image.notes == ()


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_channels_of_a_4d_file_come_first(axis: int, tmp_path: Path) -> None:
    path = scan(tmp_path / "a.nii.gz", np.moveaxis(VOXELS, -1, axis))
    image = read_study(study(path, channel_dim=axis), channels=3)
    np.testing.assert_array_equal(image.voxels, SCALED)
    assert image.grid is not None
    assert image.grid.shape == (4, 5, 6)
    assert len(image.notes) == (axis not in (3, -1))


def test_labels_are_written_on_the_grid_of_a_4d_file(tmp_path: Path) -> None:
    image = read_study(study(scan(tmp_path / "a.nii.gz", VOXELS), channel_dim=3))
    assert image.grid is not None
    write_labels(np.ones((4, 5, 6), np.uint8), image.grid, tmp_path / "labels.nii.gz")
    labels, stored = nib.load(tmp_path / "labels.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    assert labels.shape == (4, 5, 6)
    assert labels.affine.tobytes() == stored.affine.tobytes()
    for field in ("sform_code", "qform_code", "descrip", "xyzt_units", "srow_x", "quatern_b"):
        assert labels.header[field].tobytes() == stored.header[field].tobytes()


def test_channels_of_several_files_are_one_image(tmp_path: Path) -> None:
    for channel in range(3):
        scan(tmp_path / f"a_000{channel}.nii.gz", VOXELS[..., channel])
    (found,) = find_studies([tmp_path], channels=3).studies
    image = read_study(found, channels=3)
    np.testing.assert_array_equal(image.voxels, SCALED)


def test_headers_of_all_channels_are_checked_before_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = scan(tmp_path / "a.nii"), scan(tmp_path / "b.nii", VOXELS[:2, ..., 0])
    monkeypatch.setattr("monai_unetfamily.io.image.read_voxels", lambda *_: pytest.fail("voxels were read"))
    with pytest.raises(ValueError, match="b.nii: got shape"):
        read_study(study(*files))
    with pytest.raises(ValueError, match="120 voxels; 119 are allowed"):
        read_study(study(files[0]), max_voxels=119)


def test_nan_becomes_zero_and_nothing_else_changes(tmp_path: Path) -> None:
    voxels = VOXELS[..., 0].astype(np.float32)
    voxels[1, 2, 3], voxels[3, 2, 1] = np.nan, -np.inf
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "a.nii")
    image = read_study(study(tmp_path / "a.nii"), nan="zero")
    voxels[1, 2, 3] = voxels[3, 2, 1] = 0
    np.testing.assert_array_equal(image.voxels[0], voxels)
    assert image.notes == ("2 of 120 voxels are NaN or infinite: they are set to 0",)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pictures_are_channels_rows_columns(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_study(Study("a", (tmp_path / "a.png",), "picture"))
    np.testing.assert_array_equal(image.voxels, values[None] if len(shape) == 2 else np.moveaxis(values, -1, 0))
    assert image.grid is None


def test_pictures_of_one_case_need_one_size(tmp_path: Path) -> None:
    for name, size in (("a_0000.png", 4), ("a_0001.png", 5)):
        Image.fromarray(np.arange(4 * size, dtype=np.uint8).reshape(4, size)).save(tmp_path / name)
    (found,) = find_studies([tmp_path], channels=2).studies
    with pytest.raises(ValueError, match=r"a_0001.png: got \(4, 5\) pixels"):
        read_study(found)


def test_a_real_oblique_4d_file_keeps_its_grid(data_dir: Path) -> None:
    path = data_dir / "nifti_odd" / "example4d.nii.gz"
    image = read_study(study(path, channel_dim=3))
    stored = nib.load(path)
    assert image.voxels.shape == (2, 128, 96, 24)
    assert image.grid is not None
    assert image.grid.affine.tobytes() == stored.affine.tobytes()


def test_a_dicom_series_and_an_itk_file_are_read_on_their_own_grids(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])  # as ITK has it without a direction: left, back, up
    write_series(tmp_path / "ct", VOXELS[..., 0], affine)
    volume = sitk.GetImageFromArray(VOXELS[..., 0].T)
    volume.SetSpacing((2.0, 2.0, 5.0))
    sitk.WriteImage(volume, str(tmp_path / "mr.nrrd"))
    studies = find_studies([tmp_path]).studies
    assert [found.kind for found in studies] == ["itk", "dicom"]
    for found in studies:
        image = read_study(found)
        assert image.grid is not None
        np.testing.assert_allclose(image.grid.affine, affine, atol=1e-6)
        np.testing.assert_array_equal(image.voxels[0], VOXELS[..., 0])
        with pytest.raises(ValueError, match="119 are allowed"):
            read_study(found, max_voxels=119)


def test_itk_files_are_the_channels_of_one_image(tmp_path: Path) -> None:
    for channel in range(2):
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS[..., channel].T), str(tmp_path / f"a_000{channel}.mha"))
    (found,) = find_studies([tmp_path], channels=2).studies
    np.testing.assert_array_equal(read_study(found).voxels, np.moveaxis(VOXELS, -1, 0)[:2])


def ball(center: int, radius: int) -> np.ndarray:
    return sum((axis - center) ** 2 for axis in np.ogrid[:24, :24, :24]) <= radius**2


ORGANS = ball(8, 6) + 2 * ball(17, 4)
NOISE = np.random.default_rng(0).normal(100, 12, (24, 24, 24))
LABEL_MAPS = {
    "organs": ORGANS,
    "one organ": ball(12, 8),
    "a mask of 255": ball(12, 8) * 255,
    "background 7": 7 - ORGANS,
}
SCANS = {
    "8 bits": np.rint(NOISE).clip(0, 255),
    "8 bits in air": np.rint(NOISE).clip(0, 255) * ball(12, 8),
    "8 bits, saturated": np.rint(NOISE).clip(0, 100) * ball(12, 9),
    "HU": np.where(ORGANS > 0, 40, -1000),
    "probabilities": ORGANS / 4,
    "empty but for noise": (np.random.default_rng(0).random((24, 24, 24)) < 0.05).astype(float),
}


def noted_as_labels(file: Path) -> bool:
    [found] = find_studies([file]).studies
    return any("looks like a label map" in note for note in read_study(found).notes)


@pytest.mark.parametrize("name", [*LABEL_MAPS, *SCANS])
def test_a_label_map_that_is_given_as_a_scan_is_noted(tmp_path: Path, name: str) -> None:
    voxels, expected = (LABEL_MAPS | SCANS)[name], name in LABEL_MAPS
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), AFFINE), tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(voxels.astype(np.float32)), tmp_path / "b.nrrd")
    assert [noted_as_labels(tmp_path / file) for file in ("a.nii.gz", "b.nrrd")] == [expected] * 2
    if voxels.min() >= 0:
        Image.fromarray(voxels[8].astype(np.uint8)).save(tmp_path / "c.png")
        assert noted_as_labels(tmp_path / "c.png") == (expected and len(np.unique(voxels[8])) > 1)


def test_the_channel_that_looks_like_a_label_map_is_named(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.stack([NOISE, ORGANS], -1).astype(np.float32), AFFINE), tmp_path / "a.nii")
    [note] = read_study(study(tmp_path / "a.nii", channel_dim=3)).notes
    assert note.startswith("channel 1 looks like a label map (whole numbers from 0 to 2, ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["headneck_ct", "hippocampus"])
def test_real_scans_are_no_label_maps_and_their_labels_are(data_dir: Path, name: str) -> None:
    for kind, expected in (("imagesTr", False), ("labelsTr", True)):
        assert {noted_as_labels(file) for file in sorted((data_dir / name / kind).iterdir())[:12]} == {expected}


@pytest.mark.slow
def test_phantoms_are_no_label_maps_and_their_labels_are(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "ct", 2, shape=(64, 48, 16))
    write_phantom_images2d(tmp_path / "png", 2, shape=(64, 48, 16))
    for kind, expected in (("imagesTr", False), ("labelsTr", True)):
        files = [*(tmp_path / "ct" / kind).iterdir(), *(tmp_path / "png" / kind).iterdir()]
        assert {noted_as_labels(file) for file in files if not file.name.startswith(".")} == {expected}
