"""Laws of NIfTI in and out: voxels are read as stored, geometry returns bit for bit; writes are whole."""

import os
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from monai_unetfamily.io import atomic_file, read_volume, save_image, write_labels
from monai_unetfamily.io.nifti import require_finite

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
ORIENTATIONS = [
    np.diag(signs)[:, list(order)] for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
]
TILT = Rotation.from_euler("xyz", (7.0, -11.0, 13.0), degrees=True).as_matrix()
# every header field that places, measures or describes the volume
KEPT = ("dim", "pixdim", "sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x")
KEPT += ("qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units", "descrip", "dim_info")


def volume() -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"a scan"
    return image


def array(path: Path, data: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    return path


@pytest.mark.parametrize(("bad", "count"), [([np.nan], 1), ([np.nan, np.inf, -np.inf], 3)])
def test_voxels_that_are_not_finite_are_counted(bad: list[float], count: int, tmp_path: Path) -> None:
    data = np.zeros((4, 5, 6), np.float32)
    data.flat[: len(bad)] = bad
    with pytest.raises(ValueError, match=f"{count} of 120 voxels are NaN or infinite.*replace them first"):
        read_volume(array(tmp_path / "a.nii.gz", data))
    with pytest.raises(ValueError, match=rf"x\.nii: {count} of 120"):
        require_finite(data, Path("x.nii"))


def test_float64_beyond_float32_is_refused_as_infinite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 of 24"):
        read_volume(array(tmp_path / "a.nii", np.eye(24)[0].reshape(2, 3, 4) * 1e300))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4", ">f4", "f8"])
def test_voxels_are_what_nibabel_reads(suffix: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    header.set_slope_inter(0.5, -1024)
    nib.save(nib.Nifti1Image(volume().get_fdata(), AFFINE, header), path)
    voxels, affine = read_volume(path)
    assert voxels.dtype == np.float32
    assert voxels.flags.writeable
    np.testing.assert_allclose(voxels, nib.load(path).get_fdata(), rtol=1e-6, atol=1e-4)  # float32
    np.testing.assert_array_equal(affine, AFFINE)
    assert affine.dtype == np.float64


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 1), (1, 1, 1)])
def test_trailing_singletons_are_read_as_3d_and_written_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    source = array(tmp_path / "a.nii.gz", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    voxels, _ = read_volume(source)
    assert voxels.shape == shape[:3]
    np.testing.assert_array_equal(voxels, nib.load(source).get_fdata().reshape(shape[:3]))
    for labels in (np.ones(shape, np.uint8), np.ones(shape[:3], np.uint8)):
        write_labels(labels, source, tmp_path / "b.nii.gz")
        assert nib.load(tmp_path / "b.nii.gz").shape == shape


def geometry(image: nib.Nifti1Image) -> dict[str, bytes]:
    return {field: image.header[field].tobytes() for field in KEPT}


@pytest.mark.slow
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (4, 2), (3, 3)], ids=str)
@pytest.mark.parametrize("turn", [np.eye(3), TILT], ids=["straight", "oblique"])
def test_label_maps_lie_on_the_source_grid_bit_for_bit(
    codes: tuple[int, int], turn: np.ndarray, tmp_path: Path
) -> None:
    labels = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
    for orientation in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = turn @ orientation * (0.7, 1.1, 5.0)
        affine[:3, 3] = (-101.3, 57.7, 1e3 / 3)
        source = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), affine)
        source.set_sform(affine, codes[0])
        source.set_qform(affine, codes[1])
        source.header.set_xyzt_units("micron", "msec")
        source.header["descrip"] = b"what the scanner said"
        save_image(source, tmp_path / "source.nii")
        write_labels(labels, tmp_path / "source.nii", tmp_path / "labels.nii")
        before, after = nib.load(tmp_path / "source.nii"), nib.load(tmp_path / "labels.nii")
        assert geometry(after) == geometry(before)
        assert after.affine.tobytes() == before.affine.tobytes()
        np.testing.assert_array_equal(np.asarray(after.dataobj), labels)


def test_forms_that_disagree_are_both_kept(tmp_path: Path) -> None:
    source = volume()
    source.set_sform(AFFINE, 2)
    source.set_qform(np.diag([-2.0, 2.0, 5.0, 1.0]), 1)  # another side of the patient
    save_image(source, tmp_path / "a.nii.gz")
    write_labels(np.ones((4, 5, 6), np.uint8), tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    assert geometry(nib.load(tmp_path / "b.nii.gz")) == geometry(nib.load(tmp_path / "a.nii.gz"))


@pytest.mark.parametrize(
    "kind",
    [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.nifti2.Nifti2Pair],
    ids=lambda k: k.__name__,
)
def test_the_nifti_version_stays_and_pairs_become_single_files(kind: type[nib.Nifti1Pair], tmp_path: Path) -> None:
    source = kind(np.zeros((2, 3, 4), np.int16), AFFINE)
    source.set_sform(AFFINE, 4)
    source.set_qform(AFFINE, 2)
    path = tmp_path / ("a.hdr" if kind.__name__.endswith("Pair") else "a.nii")
    nib.save(source, path)
    write_labels(np.ones((2, 3, 4), np.uint8), path, tmp_path / "b.nii.gz")
    after = nib.load(tmp_path / "b.nii.gz")
    assert int(after.header["sizeof_hdr"]) == int(source.header["sizeof_hdr"])
    assert type(after).__name__ == kind.__name__.replace("Pair", "Image")
    assert geometry(after) == geometry(nib.load(path))


def test_label_maps_shed_what_tells_of_the_sources_voxels(tmp_path: Path) -> None:
    source = volume()
    source.header.set_slope_inter(2.0, -1024)
    source.header["cal_min"], source.header["cal_max"] = -160, 240
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient's name"))
    nib.save(source, tmp_path / "a.nii")
    for like in (tmp_path / "a.nii", nib.load(tmp_path / "a.nii"), source):
        write_labels(np.full((4, 5, 6), 3), like, tmp_path / "b.nii")
        raw = (tmp_path / "b.nii").read_bytes()
        header = np.frombuffer(raw[:348], nib.Nifti1Header.template_dtype)[0]
        assert (header["scl_slope"], header["scl_inter"]) == (1, 0)
        assert (header["cal_min"], header["cal_max"]) == (0, 0)
        assert b"patient" not in raw
        assert len(raw) == 352 + 120
    assert source.header["cal_max"] == 240  # the source is not changed


@pytest.mark.parametrize(
    ("top", "dtype"), [(0, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4"), (2**32, "u8")]
)
def test_the_smallest_unsigned_type_that_holds_the_labels(top: int, dtype: str, tmp_path: Path) -> None:
    labels = np.zeros((4, 5, 6), np.int64)
    labels[1, 2, 3] = top
    write_labels(labels, volume(), tmp_path / "a.nii.gz")
    after = nib.load(tmp_path / "a.nii.gz")
    assert after.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(after.dataobj), labels)


BAD_LABELS = {
    "shape": (np.ones((4, 5, 7), np.uint8), "a.nii.gz", r"labels of shape \(4, 5, 7\); \(4, 5, 6\)"),
    "transposed": (np.ones((6, 5, 4), np.uint8), "a.nii.gz", "labels of shape"),
    "channel": (np.ones((1, 4, 5, 6), np.uint8), "a.nii.gz", "labels of shape"),
    "float": (np.ones((4, 5, 6)), "a.nii.gz", "labels of type float64"),
    "bool": (np.ones((4, 5, 6), bool), "a.nii.gz", "labels of type bool"),
    "negative": (np.full((4, 5, 6), -1), "a.nii.gz", "got label -1"),
    "name": (np.ones((4, 5, 6), np.uint8), "a.mha", "cannot name an output"),
    "pair": (np.ones((4, 5, 6), np.uint8), "a.hdr", "cannot name an output"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_do_not_fit_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    labels, file, message = BAD_LABELS[name]
    with pytest.raises(ValueError, match=message):
        write_labels(labels, volume(), tmp_path / file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"before")
    owner, name = {
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
        "write": (nib.Nifti1Image, "to_stream"),
    }[step]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match=r"No space left.*name a folder.*a\.nii\.gz") as caught:
        write_labels(np.ones((4, 5, 6), np.uint8), volume(), path)
    assert caught.value.errno == 28
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert path.read_bytes() == b"before"


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_file(tmp_path / "a.txt") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.nii.gz").mkdir()
    for path, kind in (
        (tmp_path / "absent" / "a.nii.gz", FileNotFoundError),
        (tmp_path / "file" / "a.nii.gz", NotADirectoryError),
        (tmp_path / "folder.nii.gz", IsADirectoryError),
    ):
        with pytest.raises(kind, match=r"cannot write.*name a folder") as caught:
            write_labels(np.ones((4, 5, 6), np.uint8), volume(), path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.nii.gz"]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_image(volume(), tmp_path / "a.nii.gz")
    assert (tmp_path / "a.nii.gz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        save_image(volume(), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "someones_anatomy.nii.gz"])
def test_real_volumes_keep_their_grid(name: str, data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "nifti_odd" / name
    voxels, affine = read_volume(path)
    source = nib.load(path)
    np.testing.assert_allclose(voxels, source.get_fdata(), rtol=1e-6)
    write_labels((voxels > 100).astype(np.uint8), path, tmp_path / "a.nii.gz")
    after = nib.load(tmp_path / "a.nii.gz")
    assert geometry(after) == geometry(source)
    assert after.affine.tobytes() == affine.tobytes()
