"""Laws of the door: what cannot be meant, and what is damaged, is one line with the file's name."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.data import check_labels
from monai_unetfamily.io import affine_notes, nifti, open_volume, read_volume, save_image, write_labels

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def saved(path: Path, **changes: object) -> Path:
    """A plain volume whose header fields are overwritten in the file, behind nibabel's back."""
    save_image(nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), AFFINE), path)
    raw = path.read_bytes() if path.suffix == ".nii" else gzip.decompress(path.read_bytes())
    header = np.frombuffer(raw[:348], nib.Nifti1Header.template_dtype).copy()
    for field, value in changes.items():
        header[field] = value
    changed = header.tobytes() + raw[348:]
    return text(path, changed if path.suffix == ".nii" else gzip.compress(changed))


def cut(path: Path, keep: Callable[[int], int]) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: keep(len(data))])
    return path


def text(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def array(path: Path, data: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    return path


def unpaired(path: Path, gone: str) -> Path:
    nib.save(nib.Nifti1Pair(np.zeros((2, 3, 4), np.int16), AFFINE), path.with_suffix(".img"))
    path.with_suffix(gone).unlink()
    return path


def analyze(path: Path) -> Path:
    nib.save(nib.AnalyzeImage(np.zeros((2, 3, 4), np.int16), AFFINE), path)
    return path


def lie(path: Path) -> Path:
    saved(path, dim=[3, 2000, 2000, 400, 1, 1, 1, 1])
    assert path.stat().st_size < 1300
    return path


NAN_ROW = [[np.nan, 0, 0, 0]]
RGB = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_HEADERS = {
    "missing": (lambda d: d / "no.nii", FileNotFoundError, "no such file"),
    "folder": (lambda d: d, IsADirectoryError, "is a folder"),
    "empty": (lambda d: text(d / "a.nii", b""), ValueError, "Empty file"),
    "empty gzip": (lambda d: text(d / "a.nii.gz", gzip.compress(b"")), ValueError, "cannot be read as NIfTI"),
    "text": (lambda d: text(d / "a.nii.gz", b"hello" * 99), ValueError, "cannot be read as NIfTI"),
    "other name": (lambda d: text(d / "a.txt", b"hello"), ValueError, "is not named as NIfTI"),
    "wrong magic": (lambda d: saved(d / "a.nii", magic=b"n+9"), ValueError, "cannot be read as NIfTI"),
    "analyze": (lambda d: analyze(d / "a.img"), ValueError, "is no NIfTI file but a .*Analyze"),
    "hdr without img": (lambda d: unpaired(d / "a.hdr", ".img"), FileNotFoundError, "its a.img is missing"),
    "img without hdr": (lambda d: unpaired(d / "a.img", ".hdr"), FileNotFoundError, "its a.hdr is missing"),
    "lying gzip": (lambda d: lie(d / "a.nii.gz"), ValueError, "claims 3200000352 bytes"),
    "one byte short": (
        lambda d: cut(saved(d / "a.nii"), lambda n: n - 1),
        ValueError,
        "claims 592 bytes.* 591",
    ),
    "too many voxels": (
        lambda d: saved(d / "a.nii", dim=[3, 32767, 32767, 9, 1, 1, 1, 1]),
        ValueError,
        "claims 9663086601 voxels",
    ),
    "4-D": (
        lambda d: array(d / "a.nii", np.zeros((3, 4, 5, 2), "i2")),
        ValueError,
        r"4-D where 3-D is meant: got shape \(3, 4, 5, 2\), one 3-D volume is allowed, split it first",
    ),
    "time on a slice": (lambda d: array(d / "a.nii", np.zeros((3, 4, 1, 2), "i2")), ValueError, "4-D where"),
    "2-D": (lambda d: array(d / "a.nii", np.zeros((3, 4), "i2")), ValueError, "2-D where 3-D is meant"),
    "no voxels": (lambda d: saved(d / "a.nii", dim=[3, 4, 0, 6, 1, 1, 1, 1]), ValueError, "a voxel or more"),
    "RGB": (lambda d: array(d / "a.nii", RGB), ValueError, "voxels of type RGB"),
    "complex": (
        lambda d: array(d / "a.nii", np.zeros((2, 3, 4), "c8")),
        ValueError,
        "voxels of type complex64",
    ),
    "voxels from byte 0": (lambda d: saved(d / "a.nii", vox_offset=0), ValueError, "vox_offset is 0; .* from 352 is"),
    "voxels from byte 351": (lambda d: saved(d / "a.nii.gz", vox_offset=351), ValueError, "vox_offset is 351;"),
    "voxels from a half": (lambda d: saved(d / "a.nii", vox_offset=352.5), ValueError, "vox_offset is 352.5; a whole"),
    "voxels from NaN": (lambda d: saved(d / "a.nii", vox_offset=np.nan), ValueError, "vox_offset is nan;"),
    "pixdim 0 in the qform": (
        lambda d: saved(d / "a.nii", sform_code=0, qform_code=1, pixdim=[1, 2, 2, 0, 1, 1, 1, 1]),
        ValueError,
        "no sform, and pixdim is 2 x 2 x 0; lengths",
    ),
    "pixdim 0 and no form": (
        lambda d: saved(d / "a.nii", sform_code=0, qform_code=0, pixdim=[1, 0, 2, 5, 1, 1, 1, 1]),
        ValueError,
        "no sform, and pixdim is 0 x 2 x 5; lengths",
    ),
    "pixdim below 0": (
        lambda d: saved(d / "a.nii", sform_code=0, qform_code=1, pixdim=[1, 2, -2, 5, 1, 1, 1, 1]),
        ValueError,
        "no sform, and pixdim is 2 x -2 x 5; lengths",
    ),
    "NaN affine": (lambda d: saved(d / "a.nii", srow_x=NAN_ROW), ValueError, "not finite"),
    "flat affine": (lambda d: saved(d / "a.nii", srow_z=[[0, 0, 0, 0]]), ValueError, "singular"),
    "parallel axes": (lambda d: saved(d / "a.nii", srow_y=[[2, 0, 0, 0]]), ValueError, "singular"),
    "infinite intercept": (
        lambda d: saved(d / "a.nii", scl_slope=1, scl_inter=np.inf),
        ValueError,
        "cannot be read as NIfTI",
    ),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
@pytest.mark.parametrize("read", [open_volume, read_volume])
def test_what_cannot_be_meant_is_refused_in_one_line(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    make, kind, message = BAD_HEADERS[name]
    path = make(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_lie_is_found_before_its_voxels_are_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lie(tmp_path / "a.nii.gz")
    monkeypatch.setattr(nifti, "_read_whole", lambda *_: pytest.fail("voxels were read"))
    with pytest.raises(ValueError, match="claims"):
        read_volume(path)


def test_a_highly_compressed_but_honest_file_is_read(tmp_path: Path) -> None:
    save_image(nib.Nifti1Image(np.zeros((256, 256, 64), np.uint8), AFFINE), tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz")[0].shape == (256, 256, 64)


@pytest.mark.parametrize("keep", [lambda n: n - 1, lambda n: n - 9, lambda n: n // 2, lambda n: 400])
def test_a_truncated_gzip_is_refused_by_name(keep: Callable[[int], int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = array(tmp_path / "scan.nii.gz", rng.integers(0, 999, (9, 9, 9)).astype(np.int16))
    cut(path, keep)
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: .*copy (it again|the file)") as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_gzip_is_never_silent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = array(tmp_path / "a.nii.gz", rng.integers(0, 999, (9, 9, 9)).astype(np.int16))
    data = path.read_bytes()
    for at in rng.integers(10, len(data), 60):  # byte 10 on: the gzip header's name and time carry nothing
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"a\.nii\.gz: "):
            read_volume(path)


@pytest.mark.parametrize(("start", "reads"), [(543, False), (0, False), (544, True)])
def test_voxels_of_nifti_2_begin_at_byte_544(start: int, reads: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti2Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE), path)
    header = np.frombuffer(path.read_bytes()[:540], nib.Nifti2Header.template_dtype).copy()
    header["vox_offset"] = start
    text(path, header.tobytes() + path.read_bytes()[540:])
    if reads:
        assert read_volume(path)[0].ravel().tolist() == list(range(24))
    else:
        with pytest.raises(ValueError, match=f"vox_offset is {start}; a whole number from 544 is allowed in a single"):
            open_volume(path)


@pytest.mark.parametrize("start", [0, 16])
def test_voxels_of_a_pair_begin_at_any_byte(start: int, tmp_path: Path) -> None:
    path = tmp_path / "a.hdr"
    nib.save(nib.Nifti1Pair(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE), path)
    header = np.frombuffer(path.read_bytes()[:348], nib.Nifti1Header.template_dtype).copy()
    header["vox_offset"] = start
    text(path, header.tobytes())
    text(tmp_path / "a.img", bytes(start) + (tmp_path / "a.img").read_bytes())
    assert read_volume(path)[0].ravel().tolist() == list(range(24))


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1)], ids=str)
def test_lengths_are_mm_in_the_affine_and_stay_in_the_header(
    unit: str, mm: float, kind: type, codes: tuple[int, int], tmp_path: Path
) -> None:
    """Of an image that is 2 x 2 x 5 mm in any unit, so that 0.002 m gives what 2 mm gives, to the bit."""
    stored = np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ AFFINE
    source = kind(np.arange(24, dtype=np.int16).reshape(2, 3, 4), stored)
    source.set_sform(stored, codes[0])
    source.set_qform(stored, codes[1])
    source.header.set_xyzt_units(unit)
    nib.save(source, tmp_path / "a.nii")
    image = open_volume(tmp_path / "a.nii")
    assert image.affine.tobytes() == AFFINE.tobytes()
    assert [("converted to mm" in note) for note in affine_notes(image)] == [True] * (unit in ("meter", "micron"))
    write_labels(np.ones((2, 3, 4), np.uint8), image, tmp_path / "b.nii")
    before, after = (nib.load(tmp_path / name) for name in ("a.nii", "b.nii"))
    assert after.affine.tobytes() == before.affine.tobytes()
    for field in ("xyzt_units", "srow_x", "qoffset_z", "pixdim", "quatern_b"):
        assert after.header[field].tobytes() == before.header[field].tobytes(), field


def two_ways(path: Path) -> Path:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-2.0, -2.0, 2.0, 1.0]))
    image.set_sform(image.affine, 2)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 2.04
    nib.save(image, path)
    return path


def test_voxel_sizes_that_pixdim_contradicts_are_those_of_the_sform(tmp_path: Path) -> None:
    image = open_volume(two_ways(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(image.affine, np.diag([-2.0, -2.0, 2.0, 1.0]))


@pytest.mark.parametrize("odd", ["image", "label"])
def test_training_refuses_voxel_sizes_that_pixdim_contradicts(odd: str, tmp_path: Path) -> None:
    """MONAI's reader, which training uses, falls back on a qform of code 0."""
    files = {key: two_ways(tmp_path / f"{key}.nii.gz") for key in ("image", "label")}
    even = files["label" if odd == "image" else "image"]
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-2.0, -2.0, 2.0, 1.0])), even)
    with pytest.raises(ValueError, match=rf"{odd}.nii.gz: got voxels of .*readers disagree"):
        check_labels({key: str(file) for key, file in files.items()}, {0: "background"})


@pytest.mark.slow
def test_a_damaged_header_is_read_or_refused_but_never_crashes(tmp_path: Path) -> None:
    raw = np.frombuffer(saved(tmp_path / "a.nii").read_bytes(), np.uint8)
    rng, refused = np.random.default_rng(0), []
    for _ in range(400):
        damaged = raw.copy()
        damaged[rng.integers(0, 352, 3)] = rng.integers(0, 256, 3)
        path = text(tmp_path / "b.nii", damaged.tobytes())
        try:
            read_volume(path)
        except ValueError as error:  # anything else fails the test
            refused.append(str(error))
    assert 50 < len(refused) < 400
    assert all(re.fullmatch(rf"{re.escape(str(path))}: [^\n]+", message) for message in refused)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("resampled_anat_moved.nii", ValueError, r"\d+ of 1071 voxels are NaN"),
        ("example4d.nii.gz", ValueError, r"got shape \(128, 96, 24, 2\)"),
        ("example_nifti2.nii.gz", ValueError, r"got shape \(32, 20, 12, 2\)"),
        ("nifti1.hdr", FileNotFoundError, r"its nifti1\.img is missing"),
    ],
)
def test_real_odd_files_are_refused(name: str, kind: type[Exception], message: str, data_dir: Path) -> None:
    with pytest.raises(kind, match=message):
        read_volume(data_dir / "nifti_odd" / name)
