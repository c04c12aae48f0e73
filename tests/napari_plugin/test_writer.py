"""Saved labels and images: the source's grid to the bit, every voxel, names and colours; never an image's own file."""

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from PIL import Image as Pillow

from monai_unetfamily.data.phantom import make_phantom
from monai_unetfamily.io import read_label_tables
from napari_plugin.layers.layer_image import labels_layer_data
from napari_plugin.reader import read
from napari_plugin.writer import save_labels, save_values
from tests.support.tiers import sampled

ODD = ["anatomical.nii", "resampled_anat_moved.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz"]
ODD += ["someones_anatomy.nii.gz"]
CODES = ["".join(code) for axes in permutations(("LR", "PA", "IS")) for code in product(*axes)]
noise = np.random.default_rng(0)


def opened(path: Path) -> Layer:
    (layer,) = (Layer.create(*data) for data in read(str(path)))
    return layer


def save(voxels: np.ndarray[Any, Any], path: Path, affine: np.ndarray[Any, Any]) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def painted(like: Layer) -> tuple[Labels, np.ndarray[Any, Any]]:
    """Labels beside an image, and what they are in the file's order."""
    shape = nib.load(like.metadata["path"]).shape[:3]
    labels = noise.integers(0, 4, shape).astype(np.uint8)
    data, shown = labels_layer_data(labels, like)
    return Labels(data, **shown), labels


def require_grid(path: Path, source: Path) -> None:
    saved, image = nib.load(path), nib.load(source)
    assert (saved.affine == image.affine).all()
    assert type(saved) is type(image)
    for key in ("qform_code", "sform_code", "quatern_b", "quatern_c", "qoffset_x", "xyzt_units", "descrip"):
        assert saved.header[key] == image.header[key], key


@pytest.mark.parametrize("name", ODD)
def test_labels_on_odd_files(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "nifti_odd" / name
    layer, labels = painted(opened(source))
    assert save_labels(layer, tmp_path / "seg.nii.gz") == ()
    require_grid(tmp_path / "seg.nii.gz", source)
    saved = nib.load(tmp_path / "seg.nii.gz")
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(saved.dataobj).reshape(labels.shape, order="F"), labels)


@pytest.mark.parametrize("name", ODD)
def test_images_of_odd_files(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "nifti_odd" / name
    layer = opened(source)
    assert save_values(layer, tmp_path / "copy.nii.gz") == ()
    require_grid(tmp_path / "copy.nii.gz", source)
    saved = nib.load(tmp_path / "copy.nii.gz")
    assert saved.shape == nib.load(source).shape
    assert saved.get_data_dtype().newbyteorder("=") == layer.data.dtype.newbyteorder("=")
    expected = np.asarray(nib.load(source).dataobj, layer.data.dtype)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), expected)


def test_a_real_ct_and_its_labels(data_dir: Path, tmp_path: Path) -> None:
    for name in ("ct.nii.gz", "label.nii.gz"):
        source = data_dir / "spleen_ct_crop" / name
        save_values(opened(source), tmp_path / name)
        require_grid(tmp_path / name, source)
        np.testing.assert_array_equal(nib.load(tmp_path / name).dataobj, nib.load(source).dataobj)


def test_a_scan_in_microns_lies_in_mm_and_is_saved_in_microns(tmp_path: Path) -> None:
    source = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2000.0, 2000.0, 5000.0, 1.0]))
    source.header.set_xyzt_units("micron")
    nib.save(source, tmp_path / "ct.nii")
    layer = opened(tmp_path / "ct.nii")
    assert layer.scale.tolist() == [5, 2, 2]
    data, shown = labels_layer_data(np.ones((2, 3, 4), np.uint8), layer)
    save_values(layer, tmp_path / "copy.nii")
    save_labels(Labels(data, **shown), tmp_path / "seg.nii")
    for name in ("copy.nii", "seg.nii"):
        require_grid(tmp_path / name, tmp_path / "ct.nii")
        assert nib.load(tmp_path / name).header.get_xyzt_units()[0] == "micron"


@pytest.mark.slow
@pytest.mark.parametrize("code", sampled(CODES, *CODES[::6]))
def test_every_orientation_of_an_oblique_grid(code: str, tmp_path: Path) -> None:
    phantom = make_phantom(noise, (18, 16, 17), (20.0, 16.0, 12.5), orientation=code, tilt=(12, -8, 15))
    source = save(phantom.image, tmp_path / "ct.nii.gz", phantom.affine)
    data, shown = labels_layer_data(phantom.labels, opened(source))
    save_labels(Labels(data, **shown), tmp_path / "seg.nii")
    require_grid(tmp_path / "seg.nii", source)
    np.testing.assert_array_equal(nib.load(tmp_path / "seg.nii").dataobj, phantom.labels)


def test_orientations_differ() -> None:
    grids = {tuple(inv_ornt_aff(axcodes2ornt(code), (2, 3, 4)).ravel()) for code in CODES}
    assert len(grids) == 48


def test_a_picture_in_a_nifti(tmp_path: Path) -> None:
    source = save(noise.random((5, 6)), tmp_path / "a.nii.gz", np.diag([-2.0, -3.0, 1.0, 1.0]))
    like = opened(source)
    data, shown = labels_layer_data(noise.integers(0, 3, (6, 5)), like)
    save_labels(Labels(data, **shown), tmp_path / "seg.nii.gz")
    require_grid(tmp_path / "seg.nii.gz", source)
    np.testing.assert_array_equal(nib.load(tmp_path / "seg.nii.gz").dataobj, data.T)
    save_values(like, tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "copy.nii.gz").dataobj, nib.load(source).dataobj)


def test_labels_of_a_picture_as_png(tmp_path: Path) -> None:
    labels = noise.integers(0, 300, (5, 6))
    save_labels(Labels(labels), tmp_path / "seg.png")
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "seg.png")), labels)


def test_labels_of_several_times(tmp_path: Path) -> None:
    like = opened(save(noise.random((4, 5, 6, 3)), tmp_path / "a.nii.gz", np.eye(4)))
    layer = Labels(
        np.zeros(like.data.shape, np.uint8), metadata=like.metadata, scale=like.scale, translate=like.translate
    )
    layer.data[2, 0, 0, 0] = 7
    save_labels(layer, tmp_path / "seg.nii.gz")
    saved = nib.load(tmp_path / "seg.nii.gz")
    assert saved.shape == (4, 5, 6, 3)
    assert np.argwhere(np.asarray(saved.dataobj) == 7).tolist() == [[3, 4, 5, 2]]


def test_names_and_colours_go_into_the_file(tmp_path: Path) -> None:
    like = opened(save(noise.random((4, 5, 6)), tmp_path / "a.nii.gz", np.eye(4)))
    layer, _ = painted(like)
    layer.metadata["classes"] = {0: "background", 1: "liver", 2: "spleen"}
    layer.colormap = {None: "white", 1: "red", 2: (0, 0, 1, 0), 3: "lime"}  # 2 is hidden
    layer.show_selected_label = True
    save_labels(layer, tmp_path / "seg.nii.gz")
    (table,) = read_label_tables(nib.load(tmp_path / "seg.nii.gz"))
    assert {label: name for label, (name, _) in table.items()} == {
        0: "background",
        1: "liver",
        2: "spleen",
        3: "label 3",
    }
    assert [table[label].color for label in (1, 2, 3)] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    again = opened(tmp_path / "seg.nii.gz")
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, layer.data)
    assert again.metadata["classes"][2] == "spleen"


def test_without_a_file_the_grid_is_composed_and_that_is_said(tmp_path: Path) -> None:
    layer = Labels(noise.integers(0, 4, (3, 4, 5)), scale=(5, 2, 1.5), translate=(-10, 20, 30), units="mm", name="mine")
    (note,) = save_labels(layer, tmp_path / "seg.nii.gz")
    assert note.startswith("mine: no file tells where it lies")
    saved = nib.load(tmp_path / "seg.nii.gz")
    np.testing.assert_array_equal(saved.dataobj, layer.data.transpose())
    np.testing.assert_allclose(saved.affine[:3], [[-1.5, 0, 0, -30], [0, -2, 0, -20], [0, 0, -5, 10]])
    np.testing.assert_array_equal(opened(tmp_path / "seg.nii.gz").data, layer.data)  # shown as it was
    np.testing.assert_allclose(opened(tmp_path / "seg.nii.gz").translate, layer.translate)


@pytest.mark.parametrize(
    ("layer", "path", "message"),
    [
        (Image(np.zeros((20, 30, 3), np.uint8), rgb=True), "a.nii.gz", "colours"),
        (Image([np.zeros((4, 8, 8)), np.zeros((2, 4, 4))], multiscale=True), "a.nii.gz", "several resolutions"),
        (Image(np.zeros((3, 4, 5))), "a.tif", r"\.nii\.gz and \.nii are allowed"),
        (Labels(np.full((3, 4, 5), -1)), "a.nii.gz", "got label -1"),
        (Labels(np.zeros((3, 4, 5), int)), "a.png", "integers in rows and columns"),
    ],
)
def test_what_cannot_be_saved_is_refused(layer: Layer, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        (save_labels if isinstance(layer, Labels) else save_values)(layer, tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_odd_types_keep_their_values(tmp_path: Path) -> None:
    for number, dtype in enumerate((bool, np.float16, np.uint64, np.float64)):
        values = (noise.random((3, 4, 5)) * 2).astype(dtype)
        save_values(Image(values), tmp_path / f"{number}.nii.gz")
        np.testing.assert_array_equal(nib.load(tmp_path / f"{number}.nii.gz").dataobj, values.T)


def test_the_file_of_an_image_is_never_replaced(tmp_path: Path) -> None:
    source = save(noise.random((4, 5, 6)), tmp_path / "a.nii.gz", np.eye(4))
    before = source.read_bytes()
    like = opened(source)
    layer, _ = painted(like)
    (tmp_path / "link.nii.gz").symlink_to(source)
    for path in (source, tmp_path / "link.nii.gz"):
        with pytest.raises(ValueError, match="never replaced, choose another name"):
            save_labels(layer, path)
        with pytest.raises(ValueError, match="never replaced"):
            save_values(like, path)
    assert source.read_bytes() == before


def test_labels_are_saved_over_their_own_file(tmp_path: Path) -> None:
    layer, _ = painted(opened(save(noise.random((4, 5, 6)), tmp_path / "a.nii.gz", np.eye(4))))
    save_labels(layer, tmp_path / "seg.nii.gz")
    again = opened(tmp_path / "seg.nii.gz")
    again.data[0, 0, 0] = 9
    save_labels(again, tmp_path / "seg.nii.gz")
    np.testing.assert_array_equal(opened(tmp_path / "seg.nii.gz").data, again.data)


@pytest.mark.slow
def test_napari_saves_labels_made_by_hand(make_napari_viewer: Any, plugin: Any, tmp_path: Path) -> None:
    tilted = make_phantom(noise, (18, 16, 17), (20.0, 16.0, 12.5), orientation="PIR", tilt=(12, -8, 15))
    source = save(tilted.image, tmp_path / "ct.nii", tilted.affine)
    viewer = make_napari_viewer()
    (like,) = viewer.open(source, plugin=plugin.name)
    viewer.layers.selection.active = like
    viewer._new_labels()
    layer = viewer.layers[-1]
    layer.mode = "paint"
    layer.paint((5, 6, 7), 3)
    assert viewer.layers.save(str(tmp_path / "seg.nii.gz"), selected=True, plugin=plugin.name)
    require_grid(tmp_path / "seg.nii.gz", source)
    (again,) = viewer.open(tmp_path / "seg.nii.gz", plugin=plugin.name)
    np.testing.assert_array_equal(again.data, layer.data)
    np.testing.assert_allclose(again.translate, layer.translate)
    with pytest.raises(RuntimeError, match="never replaced"):
        layer.save(str(source), plugin=plugin.name)
    assert like.save(str(tmp_path / "copy.nii.gz"), plugin=plugin.name)
    require_grid(tmp_path / "copy.nii.gz", source)


def test_napari_is_told_what_was_composed(plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_warning", shown.append)
    assert Labels(np.eye(4, dtype=int)).save(str(tmp_path / "a.nii.gz")) == [str(tmp_path / "a.nii.gz")]
    assert "1 mm" in shown[0]
    assert nib.load(tmp_path / "a.nii.gz").shape == (4, 4, 1)
