"""What a bundle gets of layers is what the command line reads of their files; its labels lie beside them."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from PIL import Image as Pillow

from monai_unetfamily.data import find_studies
from monai_unetfamily.io import read_study
from napari_plugin.layers import grid_of, reorientation_of, to_image
from napari_plugin.layers.layer_image import labels_layer_data
from napari_plugin.reader import read
from tests.support.dicom_files import write_series

OBLIQUE = np.array([[-1.4, 0.1, 0.6, 40], [0.2, -1.5, 0.9, -20], [0.2, 0.3, 4.8, 70], [0, 0, 0, 1]])
ODD = ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz", "someones_anatomy.nii.gz"]
noise = np.random.default_rng(0)


def opened(*paths: Path) -> list[Layer]:
    return [Layer.create(*data) for path in paths for data in read(str(path))]


def save(voxels: np.ndarray[Any, Any], path: Path, affine: np.ndarray[Any, Any] = OBLIQUE, slope: float = 1) -> Path:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


def require_same(layers: list[Layer], *inputs: Path, **options: Any) -> None:
    (study,) = find_studies(inputs, **options).studies
    image, expected = to_image(layers), read_study(study)
    assert image.voxels.dtype == np.float32
    np.testing.assert_array_equal(image.voxels, expected.voxels)
    assert (image.grid is None) == (expected.grid is None)
    if image.grid and expected.grid:
        assert image.grid.shape == expected.grid.shape
        assert (image.grid.affine == expected.grid.affine).all()
        for key in ("qform_code", "sform_code", "quatern_b", "xyzt_units", "descrip"):
            assert image.grid.header[key] == expected.grid.header[key]


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_as_by_the_command_line(name: str, data_dir: Path) -> None:
    path = data_dir / "nifti_odd" / name
    channel_dim = 3 if np.prod(nib.load(path).shape[3:]) > 1 else None
    require_same(opened(path), path, channel_dim=channel_dim)


def test_a_real_ct(data_dir: Path) -> None:
    path = data_dir / "spleen_ct_crop" / "ct.nii.gz"
    require_same(opened(path), path)


@pytest.mark.parametrize("dtype", ["u1", ">i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("slope", [1, 0.3])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_type_and_scale(dtype: str, slope: float, suffix: str, tmp_path: Path) -> None:
    voxels = (noise.random((5, 6, 7)) * 100).astype(dtype)
    path = save(voxels, tmp_path / f"a{suffix}", slope=slope)
    require_same(opened(path), path)


def test_dicom(tmp_path: Path) -> None:
    scanner = np.diag([-0.8, -0.9, 5.0, 1.0])
    write_series(tmp_path, noise.integers(-1000, 1000, (5, 6, 7)), scanner, RescaleIntercept=-3, RescaleSlope=1)
    require_same(opened(tmp_path), tmp_path)


def test_layers_are_channels(tmp_path: Path) -> None:
    paths = [save(noise.random((5, 6, 7), np.float32), tmp_path / f"mr_000{number}.nii.gz") for number in (0, 1)]
    require_same(opened(*paths), *paths, channels=2)


def test_channels_need_one_grid(tmp_path: Path) -> None:
    shifted = OBLIQUE.copy()
    shifted[0, 3] += 1
    first, second = (
        save(noise.random((5, 6, 7)), tmp_path / name, a) for name, a in (("a.nii", OBLIQUE), ("b.nii", shifted))
    )
    with pytest.raises(ValueError, match="b: lies .* voxels off a; the channels of one image need one grid"):
        to_image(opened(first, second))


@pytest.mark.slow
@pytest.mark.parametrize("colours", [False, True])
def test_pictures_as_napari_opens_them(colours: bool, tmp_path: Path, make_napari_viewer: Any, plugin: Any) -> None:
    pixels = noise.integers(0, 256, (40, 50, 3) if colours else (40, 50)).astype(np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    viewer = make_napari_viewer()
    viewer.open(tmp_path / "a.png")
    require_same(list(viewer.layers), tmp_path / "a.png")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "no image layer"),
        ([Image(np.eye(4)), Image(np.zeros((2, 3, 4)))], "volumes or pictures"),
        ([Image(np.zeros((20, 30, 4)), rgb=True)], "colours with alpha"),
        ([Image(np.zeros((5, 20, 30, 3)), rgb=True)], "3 axes of colours"),
        ([Image(np.zeros((2, 2, 2, 2, 2)))], "5 axes"),
        ([Image([np.zeros((4, 8, 8)), np.zeros((2, 4, 4))], multiscale=True)], "several resolutions"),
        ([Image(np.eye(4)), Image(np.eye(5))], "one picture need one size"),
        ([Image(np.zeros((3, 4, 5)))], "every voxel holds the value 0"),
        ([Image(np.full((3, 4, 5), np.nan), contrast_limits=(0, 1))], "60 of 60 voxels are NaN"),
    ],
)
def test_what_cannot_be_segmented_is_refused(layers: list[Image], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_image(layers)


def test_nan_is_replaced_where_it_is_asked_for() -> None:
    voxels = noise.random((3, 4, 5))
    voxels[0, 0, 0] = np.nan
    image = to_image([Image(voxels)], nan="zero")
    assert image.voxels[0, 4, 3, 2] != 0
    assert np.count_nonzero(image.voxels == 0) == 1


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 2)], ids=["one volume", "channels"])
def test_labels_lie_on_their_image(shape: tuple[int, ...], tmp_path: Path) -> None:
    (like,) = opened(save(noise.random(shape), tmp_path / "a.nii.gz"))
    labels = np.zeros((5, 6, 7), np.uint8)
    data, shown = labels_layer_data(labels, like)
    layer = Labels(data, **shown)
    labels[1, 2, 3] = 4  # written later, as slabs are
    place = np.argwhere(layer.data)[0]
    assert np.argwhere(reorientation_of(OBLIQUE).view(labels)).tolist() == [place.tolist()]
    np.testing.assert_allclose(layer.data_to_world(place), like.data_to_world([0, *place])[-3:])
    assert layer.units == like.units[-3:]
    assert layer.axis_labels == ("S-I", "A-P", "R-L")
    assert (grid_of(layer).image.affine == grid_of(like).image.affine).all()
    assert layer.metadata["path"] is None
    assert layer.metadata["image"] == str(tmp_path / "a.nii.gz")


def test_labels_on_an_image_that_no_file_tells_of() -> None:
    like = Image(noise.random((3, 4, 5)), scale=(5, 2, 2), translate=(1, 2, 3), units="mm")
    data, shown = labels_layer_data(np.zeros((5, 4, 3), np.uint8), like)
    layer = Labels(data, **shown)
    assert layer.data.shape == (3, 4, 5)
    np.testing.assert_allclose(grid_of(layer).image.affine, grid_of(like).image.affine)
    assert len(grid_of(layer).notes) == 1


def test_labels_of_a_picture_are_shown_as_they_are() -> None:
    labels = np.zeros((4, 5), np.uint8)
    data, shown = labels_layer_data(labels, Image(noise.random((4, 5)), scale=(2, 3)))
    assert data is labels
    assert Labels(data, **shown).metadata["kind"] == "picture"
