"""Files as layers: the very voxels in a view, placed in mm, in a window; label maps with names and colours."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image, Labels, Layer

from monai_unetfamily.io import label_table, write_labels, write_masks
from napari_plugin.layers import reorientation_of
from napari_plugin.reader import ABDOMEN, get_reader, read, sample
from tests.support.dicom_files import write_series

AFFINE = np.array([[0, 0, 4, -31], [-1.5, 0, 0, 7], [0, 2, 0, 100], [0, 0, 0, 1.0]])  # PSR
SCANNER = np.array([[-0.8, 0, 0, 30], [0, -0.9, 0, -20], [0, 0, 5, 70], [0, 0, 0, 1]])  # as CT scanners have it
CT = np.random.default_rng(0).integers(-1024, 1500, (5, 6, 7)).astype(np.int16)


@pytest.fixture(autouse=True)
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What napari would show."""
    shown: list[str] = []
    monkeypatch.setattr("napari_plugin.reader.show_warning", shown.append)
    return shown


def save(voxels: np.ndarray[Any, Any], path: Path, affine: np.ndarray[Any, Any] = AFFINE, slope: float = 1) -> Path:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


def opened(path: Path) -> Layer:
    (layer,) = (Layer.create(*data) for data in read(str(path)))
    return layer


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_the_voxels_of_a_file_in_a_view(name: str, tmp_path: Path) -> None:
    layer = opened(save(CT, tmp_path / name))
    assert layer.data.dtype == np.int16
    np.testing.assert_array_equal(reorientation_of(AFFINE).undo(layer.data), CT)
    assert layer.name == "ct"
    assert layer.metadata["path"] == str(tmp_path / name)
    assert (layer.metadata["affine"] == nib.load(tmp_path / name).affine).all()
    assert layer.metadata["kind"] == "volume"
    assert [f"{unit:~}" for unit in layer.units] == ["mm"] * 3
    np.testing.assert_allclose(layer.scale, [2, 1.5, 4])


def test_a_plain_file_is_mapped_and_hardly_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.nii"
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), AFFINE).header
    header.set_data_shape((1024, 1024, 1000))
    header.set_data_offset(352)
    path.write_bytes(header.binaryblock + b"\0" * 4)
    os.truncate(path, 352 + 2 * 1024 * 1024 * 1000)  # two gigabytes, of which the disk holds a page
    tracemalloc.start()
    layer = opened(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert layer.data.shape == (1024, 1024, 1000)
    assert peak < 50e6
    assert sample(reorientation_of(AFFINE).undo(layer.data)).size <= 64 * 64 * 8


def test_scaled_voxels_are_those_of_the_command_line(tmp_path: Path) -> None:
    layer = opened(save(CT, tmp_path / "pet.nii", slope=0.1))
    assert layer.data.dtype == np.float32


@pytest.mark.parametrize(("values", "window"), [(CT, ABDOMEN), (np.abs(CT) % 100, None)], ids=["CT", "MR"])
def test_only_ct_gets_the_abdomen_window(values: np.ndarray[Any, Any], window: Any, tmp_path: Path) -> None:
    limits = opened(save(values, tmp_path / "a.nii.gz")).contrast_limits
    assert tuple(limits) == (window or tuple(np.percentile(values, (1, 99))))


def test_nan_and_one_value_can_be_looked_at(tmp_path: Path) -> None:
    voxels = np.full((3, 4, 5), 7, np.float32)
    voxels[0, 0, 0] = np.nan
    layer = opened(save(voxels, tmp_path / "a.nii.gz"))
    assert layer.contrast_limits == [7, 8]
    np.testing.assert_array_equal(reorientation_of(AFFINE).undo(layer.data), voxels)


def test_a_fourth_axis_is_shown_first(tmp_path: Path) -> None:
    voxels = np.arange(240, dtype=np.uint8).reshape(3, 4, 5, 4)  # four: no colours
    layer = opened(save(voxels, tmp_path / "a.nii.gz"))
    assert layer.axis_labels == ("t", "S-I", "A-P", "R-L")
    np.testing.assert_array_equal(reorientation_of(AFFINE).undo(layer.data), voxels)
    assert not layer.rgb


def test_a_fourth_axis_of_one_is_none(tmp_path: Path) -> None:
    assert opened(save(CT[..., None], tmp_path / "a.nii.gz")).ndim == 3


def test_a_picture_in_a_nifti(tmp_path: Path) -> None:
    layer = opened(save(CT[:, :, 0], tmp_path / "a.nii.gz", np.diag([-2.0, -3.0, 1.0, 1.0])))
    assert layer.metadata["kind"] == "picture"
    assert layer.axis_labels == ("A-P", "R-L")
    np.testing.assert_array_equal(layer.scale, [3, 2])
    np.testing.assert_array_equal(layer.data, CT[:, :, 0].T)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (3, 5, 6, 7)], ids=["2-D", "3-D", "4-D"])
def test_itk_files_lie_where_their_nifti_does(suffix: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)  # (T, Z, Y, X)
    image = sitk.GetImageFromArray(voxels, isVector=False)
    image.SetSpacing((0.8, 0.9, 5.0, 1.0)[: len(shape)])
    image.SetOrigin((-30.0, 20.0, 70.0, 0.0)[: len(shape)])
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    layer = opened(tmp_path / f"a{suffix}")
    assert layer.data.dtype == np.int16
    shown = reorientation_of(layer.metadata["affine"])
    np.testing.assert_array_equal(shown.undo(layer.data), voxels.T)
    affine = np.diag([-0.8, -0.9, 5.0 if len(shape) > 2 else 1.0, 1])
    affine[:3, 3] = 30, -20, 70 if len(shape) > 2 else 0
    np.testing.assert_allclose(layer.metadata["affine"], affine, atol=1e-5)


def test_a_dicom_folder_opens_its_largest_axial_series(tmp_path: Path, notes: list[str]) -> None:
    write_series(tmp_path / "thick", CT[:, :, :3], SCANNER, SeriesInstanceUID="1.2.3.5", SeriesNumber=1)
    write_series(tmp_path / "thin", CT, SCANNER, SeriesInstanceUID="1.2.3.6", SeriesNumber=2)
    layer = opened(tmp_path)
    np.testing.assert_array_equal(reorientation_of(layer.metadata["affine"]).undo(layer.data), CT)
    np.testing.assert_allclose(layer.metadata["affine"], SCANNER)
    assert tuple(layer.contrast_limits) == ABDOMEN
    assert "1.2.3.5" in notes[0]
    assert layer.metadata["series"] == "1.2.3.6"


def test_a_slice_opens_its_series(tmp_path: Path, notes: list[str]) -> None:
    files = write_series(tmp_path, CT, SCANNER)
    assert opened(files[1]).data.shape[0] == CT.shape[2]
    assert len(read([str(file) for file in files])) == 1
    assert not notes


def test_folders_without_dicom_are_left_to_others(tmp_path: Path) -> None:
    assert get_reader(str(tmp_path)) is None
    (tmp_path / "notes.txt").touch()
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(save(CT, tmp_path / "a.nii"))) is read


def test_labels_open_with_names_and_colours(tmp_path: Path) -> None:
    ids = (CT % 3).astype(np.uint8)
    write_labels(ids, nib.Nifti1Image(CT, AFFINE), tmp_path / "a.nii", label_table({1: "liver", 2: "spleen"}))
    layer = opened(tmp_path / "a.nii")
    assert isinstance(layer, Labels)
    assert layer.metadata["classes"] == {0: "background", 1: "liver", 2: "spleen"}
    np.testing.assert_allclose(layer.colormap.map(1), np.array([230, 159, 0, 255]) / 255)
    layer.data[0, 0, 0] = 2  # can be painted on: the file is not touched
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").dataobj, ids)


def test_masks_open_as_a_layer_a_class(tmp_path: Path) -> None:
    masks = np.stack([CT > 0, CT > 500], -1).astype(np.uint8)
    write_masks(masks, {1: "organs", 2: "liver"}, nib.Nifti1Image(CT, AFFINE), tmp_path / "a.nii.gz")
    layers = [Layer.create(*data) for data in read(str(tmp_path / "a.nii.gz"))]
    assert [layer.name for layer in layers] == ["a organs", "a liver"]
    np.testing.assert_array_equal(reorientation_of(AFFINE).undo(layers[1].data), masks[..., 1])


def test_what_a_header_leaves_open_is_said(tmp_path: Path, notes: list[str]) -> None:
    image = nib.Nifti1Image(CT, None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii.gz")
    layer = opened(tmp_path / "a.nii.gz")
    assert "check left and right" in notes[0]
    assert layer.metadata["notes"]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = save(CT, tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.nii\.gz: .*cannot be read"):
        read(str(path))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("anatomical.nii", (25, 41, 33)),
        ("resampled_anat_moved.nii", None),
        ("example4d.nii.gz", (2, 24, 96, 128)),
        ("example_nifti2.nii.gz", None),
        ("standard.nii.gz", (7, 5, 4)),
        ("someones_anatomy.nii.gz", None),
    ],
)
def test_odd_files_open(name: str, shape: tuple[int, ...] | None, data_dir: Path) -> None:
    path = data_dir / "nifti_odd" / name
    layer = opened(path)
    image = nib.load(path)
    stored = np.asarray(image.dataobj, np.float32)
    np.testing.assert_array_equal(reorientation_of(image.affine).undo(np.asarray(layer.data, np.float32)), stored)
    assert shape is None or layer.data.shape == shape


@pytest.mark.slow
def test_napari_opens_files_with_this_reader(make_napari_viewer: Any, plugin: Any, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    viewer.open(save(CT, tmp_path / "ct.1.nii.gz"), plugin=plugin.name)
    (layer,) = viewer.layers
    assert isinstance(layer, Image)
    assert layer.source.reader_plugin == plugin.name
    assert viewer.dims.axis_labels == ("S-I", "A-P", "R-L")
    assert tuple(layer.contrast_limits) == ABDOMEN
    assert layer.contrast_limits_range == [CT.min(), CT.max()]
