"""Laws of sources: what a folder holds is listed whole and in order, and each goes through its own door."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_unetfamily.io import contains_images, list_images, read_channels, read_label_map, stem


def test_folders_expand_to_their_visible_sources_in_order(tmp_path: Path) -> None:
    images = (
        "C.NII.GZ",
        "E.TIF",
        "a.nii",
        "b.nii.gz",
        "d.png",
        "f.tiff",
        "g.hdr",
        "h.mha",
        "i.mhd",
        "j.nrrd",
        "k.nhdr",
    )
    others = (".hidden.nii", "c.txt", "._a.png", "g.img", "i.zraw", "k.raw", "run.json", "volumes.csv", "report.html")
    beside = ("a.png", "a.jpg", "h.npz", "b.seg.dcm")  # previews, probabilities, and what predict writes for DICOM
    for name in (*images, *others, *beside):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.nii").touch()
    assert list_images([tmp_path]) == [tmp_path / name for name in images]
    single = tmp_path / "a.nii"
    assert list_images([single]) == [single]


def test_inputs_that_are_missing_or_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        list_images([tmp_path / "absent"])
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.nii\.gz, .*\*\.png"):
        list_images([tmp_path])


def read_one(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_channels([path])


@pytest.mark.parametrize("read", [read_one, read_label_map])
def test_pictures_of_other_kinds_are_not_called_volumes(read: Callable[[Path], object], tmp_path: Path) -> None:
    for name in ("photo.jpg", "PHOTO.JPEG", "scan.bmp"):
        with pytest.raises(ValueError, match=f"{name}: is a picture .* convert it") as caught:
            read(tmp_path / name)
        assert "NIfTI" not in str(caught.value)


@pytest.mark.parametrize("names", [("a.nii", "a.nii.gz"), ("a.nrrd", "a.mha"), ("a.tif", "a.PNG")])
def test_two_sources_of_one_name_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    for inputs in ([tmp_path], [tmp_path / names[0]] * 2, [tmp_path / name for name in names]):
        with pytest.raises(ValueError, match="has the stem of"):
            list_images(inputs)


@pytest.mark.parametrize("name", ["b.jpg", "b.MGZ", "b.npz", "b.dcm", "b.nii.bz2", "b"])
def test_a_folder_with_an_image_that_is_not_read_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ValueError, match=f"{name}: is of a kind that is not read; convert it, or move it"):
        list_images([tmp_path])


STEMS = {"a.nii": "a", "x/a.1.nii.gz": "a.1", "a.hdr": "a", "a.img": "a", "A.NII.GZ": "A", "dicom": "dicom"}
STEMS |= {"a.png": "a", "a.1.tif": "a.1", "A.TIFF": "A"}


@pytest.mark.parametrize(("name", "expected"), STEMS.items())
def test_a_stem_is_the_name_without_its_format(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


def test_a_folder_of_folders_holds_no_source(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    assert not contains_images(tmp_path / "deeper")
    (tmp_path / "deeper" / "a.mgz").touch()  # is not read, and not left out for that
    assert not contains_images(tmp_path)
    assert contains_images(tmp_path / "deeper")


def test_each_source_goes_through_its_own_door(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    volume, picture = np.arange(120, dtype=np.uint8).reshape(4, 5, 6), np.arange(20, dtype=np.uint8).reshape(4, 5)
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "ct.nii")
    Image.fromarray(picture).save(tmp_path / "photo.png")
    for name, expected, grid in (("ct.nii", volume, affine), ("photo.png", picture, np.eye(3))):
        for read in (read_one, read_label_map):
            values, found = read(tmp_path / name)
            np.testing.assert_array_equal(values.reshape(expected.shape), expected)
            np.testing.assert_array_equal(found, grid)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "ct.nii")), str(tmp_path / "ct.nrrd"))
    values, found = read_label_map(tmp_path / "ct.nrrd")
    np.testing.assert_array_equal(values[..., 0], volume)
    np.testing.assert_array_equal(found, affine)
