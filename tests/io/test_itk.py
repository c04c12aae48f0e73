"""Laws of MetaImage and NRRD: voxels lie where ITK has them, and no header is believed beyond its file."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from monai_unetfamily.io import read_itk_stored, read_volume, write_labels
from monai_unetfamily.io.itk import patient_grid, read_itk, require_right_angles

OBLIQUE = (0.36, 0.48, -0.8, -0.8, 0.6, 0.0, 0.48, 0.64, 0.6)  # a rotation, by rows
VOXELS = np.random.default_rng(0).integers(-1024, 3000, (5, 4, 3)).astype(np.int16)


def image_of(voxels: np.ndarray = VOXELS) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-90.5, 60.25, -300.125))
    image.SetDirection(OBLIQUE)
    return image


def saved(path: Path, image: sitk.Image | None = None, packed: bool = False) -> Path:
    sitk.WriteImage(image_of() if image is None else image, str(path), packed)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".NRRD"])
def test_voxels_lie_where_itk_has_them(tmp_path: Path, suffix: str, packed: bool) -> None:
    image = image_of()
    path = saved(tmp_path / f"ct{suffix.lower()}", packed=packed).rename(tmp_path / f"ct{suffix}")
    voxels, grid, notes = read_itk(path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert (voxels.dtype, grid.shape, notes) == (np.float32, (5, 4, 3), ())
    for index in [(0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2), (4, 3, 2)]:
        left, back, up = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((grid.affine @ [*index, 1])[:3], (-left, -back, up), atol=1e-4)


def test_labels_on_the_grid_have_its_affine_to_the_last_bit_and_itk_agrees(tmp_path: Path) -> None:
    voxels, grid, _ = read_itk(saved(tmp_path / "ct.mha"))
    write_labels((voxels > 0).astype(np.uint8), grid, tmp_path / "labels.nii.gz")
    labels, affine = read_volume(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(affine, grid.affine)
    np.testing.assert_array_equal(labels, voxels > 0)
    written, source = sitk.ReadImage(str(tmp_path / "labels.nii.gz")), image_of()
    np.testing.assert_allclose(written.GetOrigin(), source.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(written.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(written.GetSpacing(), source.GetSpacing(), atol=1e-6)


@pytest.mark.parametrize("space", ["right-anterior-superior", "left-anterior-superior", "RAS"])
def test_nrrd_spaces_are_turned(tmp_path: Path, space: str) -> None:
    lps = read_itk(saved(tmp_path / "ct.nrrd"))[1].affine
    turned = edited(tmp_path / "ct.nrrd", "left-posterior-superior", space)
    signs = [1 if space[0].lower() == "l" else -1, -1, 1, 1]  # against left, posterior, superior
    np.testing.assert_allclose(read_itk(turned)[1].affine, np.diag(signs) @ lps, atol=1e-4)


def edited(path: Path, old: str, new: str) -> Path:
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode()))
    return path


def cut(path: Path, count: int = 8) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


def flipped(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[-30] ^= 255
    path.write_bytes(content)
    return path


def without(path: Path, companion: str) -> Path:
    (path.parent / companion).unlink()
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def numbers(folder: Path, values: Iterable[object]) -> Path:
    """A MetaImage whose voxels are text."""
    path = edited(saved(folder / "ct.mhd"), "BinaryData = True", "BinaryData = False")
    text(folder / "ct.raw", "".join(f"{value} " for value in values))
    return path


def numbers_nrrd(folder: Path, last: float) -> Path:
    """An NRRD whose voxels are text."""
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nspacings: 1 1 1\nencoding: text\n\n"
    return text(folder / "ct.nrrd", head + " ".join(map(str, [*VOXELS.ravel(order="F")[:-1], last])))


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "name": (lambda f: text(f / "ct.img", ""), "is not named as MetaImage or NRRD; .mha, .mhd, .nrrd, .nhdr are read"),
    "text.mha": (lambda f: text(f / "ct.mha", "hello"), "is no MetaImage, or damaged"),
    "text.nrrd": (lambda f: text(f / "ct.nrrd", "hello"), "cannot be read"),
    "empty.mha": (lambda f: text(f / "ct.mha", ""), "is no MetaImage, or damaged"),
    "empty.nrrd": (lambda f: text(f / "ct.nrrd", ""), "cannot be read"),
    "2-D": (
        lambda f: saved(f / "ct.mha", sitk.Image(5, 4, sitk.sitkInt16)),
        r"got shape \(5, 4\) with 1 value a voxel",
    ),
    "4-D": (
        lambda f: saved(f / "ct.nrrd", sitk.JoinSeries([image_of(), image_of()])),
        r"got shape \(5, 4, 3, 2\) with 1 value a voxel; one 3-D volume",
    ),
    "vectors": (
        lambda f: saved(f / "ct.nrrd", sitk.Compose([image_of(), image_of()])),
        r"got shape \(5, 4, 3\) with 2 values a voxel",
    ),
    "cut.mha": (
        lambda f: cut(saved(f / "ct.mha")),
        r"the header claims 120 bytes for shape \(5, 4, 3\); ct.mha does not",
    ),
    "cut.nrrd": (lambda f: cut(saved(f / "ct.nrrd")), "the header claims 120 bytes"),
    "cut packed mha": (lambda f: cut(saved(f / "ct.mha", packed=True)), "the header claims 120 bytes"),
    "cut packed nrrd": (lambda f: cut(saved(f / "ct.nrrd", packed=True)), "does not hold them"),
    "damaged packed mha": (lambda f: flipped(saved(f / "ct.mha", packed=True)), "the header claims 120 bytes"),
    "damaged packed nrrd": (lambda f: flipped(saved(f / "ct.nrrd", packed=True)), "does not hold them"),
    "cut raw": (
        lambda f: cut(saved(f / "ct.mhd").with_suffix(".raw")).with_suffix(".mhd"),
        "ct.raw does not hold them",
    ),
    "no raw": (lambda f: without(saved(f / "ct.mhd"), "ct.raw"), "its file of voxels, ct.raw, is missing"),
    "no raw of nhdr": (lambda f: without(saved(f / "ct.nhdr"), "ct.raw"), "its file of voxels, ct.raw, is missing"),
    "lie.mha": (lambda f: edited(saved(f / "ct.mha"), "5 4 3", "500 400 300"), "the header claims 120000000 bytes"),
    "lie.nrrd": (lambda f: edited(saved(f / "ct.nrrd"), "5 4 3", "500 400 300"), "the header claims 120000000 bytes"),
    "lie packed": (
        lambda f: edited(saved(f / "ct.nrrd", packed=True), "5 4 3", "500 400 300"),
        "the header claims 120000000 bytes",
    ),
    "too many": (
        lambda f: edited(saved(f / "ct.nrrd"), "5 4 3", "5000 4000 3000"),
        "the header claims 60000000000 voxels; 2147483648 are allowed",
    ),
    "size in words": (
        lambda f: edited(saved(f / "ct.mha", packed=True), "CompressedDataSize = ", "CompressedDataSize = about "),
        "CompressedDataSize is 'about [0-9]+'; a whole number is allowed",
    ),
    "two byte orders": (
        lambda f: edited(saved(f / "ct.mha"), "NDims = 3", "NDims = 3\nElementByteOrderMSB = True"),
        "BinaryDataByteOrderMSB and ElementByteOrderMSB differ",
    ),
    "93 axes": (lambda f: edited(saved(f / "ct.mha"), "NDims = 3", "NDims = 93"), "a size for each of 1 to 10 axes"),
    "no type": (lambda f: edited(saved(f / "ct.mha"), "ElementType", "ElementKind"), "is no MetaImage, or damaged"),
    "unknown type": (lambda f: edited(saved(f / "ct.mha"), "MET_SHORT", "MET_HALF"), "Unknown PixelType"),
    "too few numbers": (lambda f: numbers(f, VOXELS.ravel()[:-1]), "the header claims 120 bytes"),
    "too many numbers": (lambda f: numbers(f, [*VOXELS.ravel(), 0]), "the header claims 120 bytes"),
    "a word among numbers": (lambda f: numbers(f, [*VOXELS.ravel()[:-1], "air"]), "the header claims 120 bytes"),
    "a number beyond the type": (lambda f: numbers(f, [*VOXELS.ravel()[:-1], 40000]), "the header claims 120 bytes"),
    "NRRD, a number beyond the type": (lambda f: numbers_nrrd(f, 70000), "the header claims 120 bytes"),
    "NRRD, a fraction": (lambda f: numbers_nrrd(f, 1.7), "the header claims 120 bytes"),
    "longer mha": (
        lambda f: edited(saved(f / "ct.mha"), "DimSize = 5 4 3", "DimSize = 5 3 3"),
        "the header claims 90 bytes .* ct.mha holds 120, mend the header's size, type or encoding",
    ),
    "longer nrrd": (lambda f: edited(saved(f / "ct.nrrd"), "sizes: 5 4 3", "sizes: 5 4 2"), "ct.nrrd holds 120"),
    "text that is not said to be text": (
        lambda f: edited(numbers(f, VOXELS.ravel()), "BinaryData = False", "Comment = text"),
        "the header claims 120 bytes .* ct.raw holds [0-9]+, mend the header's size, type or encoding",
    ),
    "list": (lambda f: edited(saved(f / "ct.mhd"), "ct.raw", "LIST"), r"its voxels lie in several files \(LIST\)"),
    "pattern": (lambda f: edited(saved(f / "ct.mhd"), "ct.raw", "s%03d.raw 1 3 1"), "its voxels lie in several files"),
    "nan": (lambda f: edited(saved(f / "ct.mha"), "Offset = -90.5", "Offset = nan"), "finite numbers are needed"),
    "spacing 0": (
        lambda f: edited(saved(f / "ct.mha"), "2.5\n", "0\n"),
        "finite axes are needed, mend the header",
    ),
    "shear.mha": (
        lambda f: edited(saved(f / "ct.mha"), "Matrix = 0.3", "Matrix = 0.6"),
        "right angles are allowed, resample it first",
    ),
    "units": (
        lambda f: edited(saved(f / "ct.nrrd"), "endian", 'space units: "cm" "cm" "cm"\nendian'),
        "got lengths in cm; mm are allowed",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_file_is_one_line_with_its_name(
    tmp_path: Path, make: Callable[[Path], Path], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read_itk(path)
    assert "\n" not in str(error.value)
    assert re.match(re.escape(str(path)), str(error.value))
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ct.mha: no such file; name an existing MetaImage or NRRD file"):
        read_itk(tmp_path / "ct.mha")


def test_the_limit_on_voxels_holds_before_a_voxel_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitk, "GetArrayFromImage", None)
    path = tmp_path / "ct.mha"
    sitk.WriteImage(sitk.Image(5, 4, 3, sitk.sitkInt16), str(path))
    with pytest.raises(ValueError, match="the header claims 60 voxels; 59 are allowed"):
        read_itk(path, max_voxels=59)


@pytest.mark.parametrize("name", ["ct.mha", "ct.nrrd"])
def test_a_file_that_does_not_tell_left_from_right_is_read_as_itk_does_and_says_so(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith((b"space", b"TransformMatrix", b"Anat"))))
    voxels, grid, notes = read_itk(path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert np.diag(grid.affine)[:3].astype(bool).all()
    sides, *sizes = notes
    assert (
        sides == "the file does not tell left from right; its axes are taken as they come, as ITK does: left, back, up"
    )
    assert len(sizes) == (name == "ct.nrrd")  # whose space directions are gone with the space


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ElementSpacing = 0.7 0.8 2.5", True),
        ("ElementSize = 0.7 0.8 2.5", True),
        ("Comment = none", False),
        ("spacings: 0.7 0.8 2.5", True),
        ("spacings: 0.7 0.8 nan", False),
        ("thicknesses: 0.7 0.8 2.5", False),
        ("space: LPS\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)", True),
        ("space: LPS\nspace directions: (0.7,0,0) (0,0.8,0) none", False),
        ("space: LPS", False),
    ],
)
def test_a_spacing_that_itk_makes_up_is_noted(line: str, told: bool, tmp_path: Path) -> None:
    meta = f"ObjectType = Image\nNDims = 3\n{line}\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    nrrd = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\n{line}\n\n"
    path, head = (tmp_path / "ct.mha", meta) if "=" in line else (tmp_path / "ct.nrrd", nrrd)
    path.write_bytes(head.encode() + VOXELS.tobytes(order="F"))
    voxels, grid, notes = read_itk(path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert abs(grid.affine[2, 2]) == (2.5 if told else 1)
    assert [note for note in notes if "how large" in note] == [
        "the file does not tell how large its voxels are; 1 mm is taken along such an axis, as ITK does"
    ] * (not told)


SIZES: dict[str, Callable[[int], object]] = {
    "right": lambda n: n,
    "missing": lambda n: None,
    "0": lambda n: 0,
    "negative": lambda n: -n,
    "half": lambda n: n // 2,
    "double": lambda n: 2 * n,
    "one less": lambda n: n - 1,
    "one more": lambda n: n + 1,
    "enormous": lambda n: 10**18,
}


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("size", SIZES)
def test_compressed_voxels_are_right_whatever_their_size_is_said_to_be(
    tmp_path: Path, size: str, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    other = saved(tmp_path / "other.mha", sitk.GetImageFromArray(VOXELS.T + 7), packed=True)
    path = saved(tmp_path / f"ct{suffix}", packed=True)
    [line] = re.findall(rb"CompressedDataSize = \d+\n", path.read_bytes())
    claimed = SIZES[size](int(line.split()[-1]))
    edited(path, line.decode(), "" if claimed is None else f"CompressedDataSize = {claimed}\n")
    np.testing.assert_array_equal(read_itk(other)[0], VOXELS + 7)  # what MetaIO's memory holds then
    np.testing.assert_array_equal(read_itk(path)[0], VOXELS)
    assert capfd.readouterr().err == ""


VARIANTS: dict[
    str, tuple[str, str, Callable[[bytes], bytes]]
] = {  # a line of a raw .mhd, what it becomes, and the data
    "yes as 1": ("CompressedData = False", "CompressedData = 1", zlib.compress),
    "colons": ("CompressedData = False", "CompressedData: True", zlib.compress),
    "gzip": ("CompressedData = False", "CompressedData = True", gzip.compress),
    "big endian": ("OrderMSB = False", "OrderMSB = True", lambda raw: VOXELS.astype(">i2").tobytes("F")),
    "big endian, by the other name": (
        "BinaryDataByteOrderMSB = False",
        "ElementByteOrderMSB = True",
        lambda raw: VOXELS.astype(">i2").tobytes("F"),
    ),
    "big endian, compressed": (
        "BinaryDataByteOrderMSB = False\nCompressedData = False",
        "BinaryDataByteOrderMSB = True\nCompressedData = True",
        lambda raw: zlib.compress(VOXELS.astype(">i2").tobytes("F")),
    ),
    "bytes ahead": ("NDims = 3", "NDims = 3\nHeaderSize = 5", lambda raw: b"ahead" + raw),
    "bytes ahead, uncounted": ("NDims = 3", "NDims = 3\nHeaderSize = -1", lambda raw: b"ahead" + raw),
    "bytes ahead, compressed": (
        "CompressedData = False",
        "CompressedData = True\nHeaderSize = 5",
        lambda raw: b"ahead" + zlib.compress(raw),
    ),
    "text without an end of line": (
        "BinaryData = True",
        "BinaryData = False",
        lambda raw: " ".join(map(str, VOXELS.ravel(order="F"))).encode(),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_to_store_voxels_gives_the_same(tmp_path: Path, name: str) -> None:
    old, new, encode = VARIANTS[name]
    path = edited(saved(tmp_path / "ct.mhd"), old, new)
    raw = path.with_suffix(".raw")
    raw.write_bytes(encode(raw.read_bytes()))
    voxels, _, _ = read_itk_stored(path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert voxels.dtype == VOXELS.dtype
    assert voxels.dtype.isnative


def test_a_raw_file_that_another_tool_gzipped_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nhdr")
    (tmp_path / "other.gz").write_bytes(gzip.compress((tmp_path / "ct.raw").read_bytes()))
    edited(path, "ct.raw", "other.gz")
    edited(path, "encoding: raw", "encoding: gzip")
    np.testing.assert_array_equal(read_itk(path)[0], VOXELS)


def test_voxels_written_as_text_are_read(tmp_path: Path) -> None:
    head = "ObjectType = Image\nNDims = 3\nBinaryData = False\nDimSize = 5 4 3\nElementType = MET_DOUBLE\n"
    numbers = " ".join(map(str, VOXELS.ravel(order="F")))
    path = text(tmp_path / "ct.mha", f"{head}ElementDataFile = LOCAL\n{numbers}\n")
    np.testing.assert_array_equal(read_itk(path)[0], VOXELS)


def test_a_grid_is_one_nifti_can_hold() -> None:
    with pytest.raises(ValueError, match="NIfTI counts to 32767 along an axis"):
        patient_grid((40000, 2, 2), np.eye(4))
    with pytest.raises(ValueError, match="finite axes are needed"):
        require_right_angles(np.diag([1, np.nan, 1, 1]), "ct")
