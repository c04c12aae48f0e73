"""Laws of DICOM series: a voxel lies where it lay, whatever files are called; what is not even is not guessed."""

import locale
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from monai_unetfamily.io import open_volume, read_volume, write_labels
from monai_unetfamily.io.dicom import open_slice, read_series, volume
from tests.support.dicom_files import CT, MR, PET, place, write_series, write_slice

SHAPE = (5, 4, 6)
TILT = 12.0  # degrees


def affine_of(axes: np.ndarray, spacing: tuple[float, ...] = (0.7, 0.8, 2.5)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = (-90.5, 60.25, -300.125)
    return affine


def turned(degrees: float, about: tuple[float, float, float]) -> np.ndarray:
    x, y, z = np.array(about) / np.linalg.norm(about)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def right_handed(columns: tuple[int, ...], rows: tuple[int, ...]) -> np.ndarray:
    return np.stack([columns, rows, np.cross(columns, rows)], axis=1)


LPS_AXIAL = np.diag([-1.0, -1.0, 1.0])  # columns to the left, rows to the back, slices up
ORIENTATIONS = {
    "axial": LPS_AXIAL,
    "sagittal": right_handed((0, -1, 0), (0, 0, -1)),  # columns to the back, rows down
    "coronal": right_handed((-1, 0, 0), (0, 0, -1)),  # columns to the left, rows down
    "oblique": turned(33, (1, 2, 3)) @ LPS_AXIAL,
    "feet first": np.diag([1.0, -1.0, -1.0]),
}


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 3000, SHAPE).astype(np.float32)


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_voxels_and_affine_come_back_in_any_orientation_and_order(
    tmp_path: Path, voxels: np.ndarray, axes: np.ndarray
) -> None:
    files = write_series(tmp_path, voxels, affine_of(axes), InstanceNumber=[3, 1, 2, 6, 5, 4])
    random.Random(0).shuffle(files)
    read, grid, notes = read_series(files)
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(grid.affine, affine_of(axes), atol=1e-4)
    assert read.dtype == np.float32
    assert (grid.shape, notes) == (SHAPE, ())


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_geometry_is_that_of_itks_own_series_reader(tmp_path: Path, voxels: np.ndarray, axes: np.ndarray) -> None:
    write_series(tmp_path, voxels, affine_of(axes))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    read, grid, _ = read_series(sorted(tmp_path.iterdir()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, read)
    for index in [(0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 5), (4, 3, 5)]:
        left, back, up = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((grid.affine @ [*index, 1])[:3], (-left, -back, up), atol=1e-4)


def test_an_oblique_slice_lies_where_the_standard_puts_it(tmp_path: Path) -> None:
    """By hand, PS3.3 C.7.6.2.1-1: columns 0.5 mm along (0, 0.6, 0.8), rows 2 mm along x, slices (0, 0.8, -0.6)."""
    for k in range(3):
        tags = {
            "ImageOrientationPatient": (0, 0.6, 0.8, 1, 0, 0),
            "PixelSpacing": (2.0, 0.5),
            "ImagePositionPatient": (10, 20 + 0.8 * 5 * k, 30 - 0.6 * 5 * k),
        }
        write_slice(tmp_path / f"{9 - k}.dcm", np.full((3, 4), k), **tags)
    read, grid, _ = read_series(list(tmp_path.iterdir()))
    by_hand = [[0, -2, 0, -10], [-0.3, 0, -4, -20], [0.4, 0, -3, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(grid.affine, by_hand, atol=1e-6)
    assert read[0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("sop_class", [CT, MR, PET])
def test_each_slice_is_rescaled_by_its_own_header(tmp_path: Path, voxels: np.ndarray, sop_class: str) -> None:
    slopes, intercepts = [1, 0.5, 0.25, 0.125, 2, 1], [-1024, 0, 8, 3, 100, 0]
    voxels = np.round(voxels / 8) * 8 + np.array(intercepts, np.float32)
    files = write_series(
        tmp_path,
        voxels,
        affine_of(LPS_AXIAL),
        SOPClassUID=sop_class,
        RescaleSlope=slopes,
        RescaleIntercept=intercepts,
    )
    np.testing.assert_array_equal(read_series(files)[0], voxels)


def test_labels_on_the_grid_have_its_affine_to_the_last_bit(tmp_path: Path, voxels: np.ndarray) -> None:
    files = write_series(tmp_path / "ct", voxels, affine_of(ORIENTATIONS["oblique"]))
    read, grid, _ = read_series(files)
    write_labels((read > 1000).astype(np.uint8), grid, tmp_path / "labels.nii.gz")
    labels, affine = read_volume(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(affine, grid.affine)
    np.testing.assert_array_equal(labels, read > 1000)
    header = open_volume(tmp_path / "labels.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"]), header.get_xyzt_units()[0]) == (1, 1, "mm")
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-4)
    itk = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))  # which takes another form than nibabel, and says the same
    np.testing.assert_allclose(itk.GetOrigin(), grid.affine[:3, 3] * [-1, -1, 1], atol=1e-4)


def test_a_real_volume_survives_the_way_through_dicom(tmp_path: Path, data_dir: Path) -> None:
    source = nib.load(data_dir / "spleen_ct_crop/ct.nii.gz")
    source = source.slicer[:64, :80, :]
    axes = nib.orientations.axcodes2ornt(("L", "P", "S"))
    source = source.as_reoriented(nib.orientations.ornt_transform(nib.orientations.io_orientation(source.affine), axes))
    voxels = np.asarray(source.dataobj, np.float32)
    read, grid, notes = read_series(write_series(tmp_path, voxels, source.affine, RescaleIntercept=-1024))
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(grid.affine, source.affine, atol=1e-3)
    assert notes == ()


def lose(files: list[Path], *gone: int) -> list[Path]:
    return [path for k, path in enumerate(files) if k not in gone]


def test_a_missing_slice_is_refused_with_the_numbers_or_interpolated(tmp_path: Path, voxels: np.ndarray) -> None:
    files = lose(write_series(tmp_path, voxels, affine_of(LPS_AXIAL)), 2, 3)
    with pytest.raises(ValueError, match=r"gaps of 2\.5 to 7\.5 mm between slices, 1 of 3 wider.*'resample'"):
        read_series(files)
    read, grid, notes = read_series(files, gaps="resample")
    np.testing.assert_array_equal(read[:, :, [0, 1, 4, 5]], voxels[:, :, [0, 1, 4, 5]])  # what was there stays
    np.testing.assert_allclose(read[:, :, 2], (2 * voxels[:, :, 1] + voxels[:, :, 4]) / 3, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(grid.affine, affine_of(LPS_AXIAL), atol=1e-4)
    assert len(notes) == 1
    assert "resampled to 6 slices 2.5 mm apart" in notes[0]


def test_gaps_of_no_common_measure_keep_a_linear_scene(tmp_path: Path) -> None:
    heights = [0.0, 2.0, 5.0, 9.3, 11.3]
    for k, height in enumerate(heights):
        tags = place(affine_of(LPS_AXIAL), 0) | {"ImagePositionPatient": (0, 0, height)}
        write_slice(tmp_path / f"IM{k}", np.full((3, 4), round(100 * height)), **tags)
    read, grid, _ = read_series(list(tmp_path.iterdir()), gaps="resample")
    assert read.shape == (4, 3, 6)
    np.testing.assert_allclose(read[0, 0], 100 * (grid.affine[2, 2] * np.arange(6)), atol=1e-2)
    assert grid.affine[2, 2] == 2.0


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_positions_are_even(tmp_path: Path, voxels: np.ndarray, digits: int) -> None:
    affine = affine_of(LPS_AXIAL, (0.7, 0.8, 0.625))
    heights = [(90.5, -60.25, round(-300.125 + 0.625 * k, digits)) for k in range(6)]
    read, grid, notes = read_series(write_series(tmp_path, voxels, affine, ImagePositionPatient=heights))
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(grid.affine, affine, atol=0.01)
    assert notes == ()


def tilted(folder: Path, stored: Callable[[int, float], np.ndarray], degrees: float = TILT) -> list[Path]:
    """Six slices 5 mm apart whose rows slide by the tilt; `stored` of the slice and its slide in mm."""
    files = []
    for k in range(6):
        slide = 5 * k * np.tan(np.radians(degrees))
        tags = place(affine_of(LPS_AXIAL), 0) | {"ImagePositionPatient": (-10.0, 20 + slide, 5 * k)}
        files.append(write_slice(folder / f"IM{k}", stored(k, slide), **tags))
    return files


def test_a_tilted_gantry_is_refused_with_the_numbers(tmp_path: Path) -> None:
    files = tilted(tmp_path, lambda k, slide: np.zeros((20, 4)))
    with pytest.raises(ValueError, match=r"a gantry tilt of 12\.00 degrees: slices slide by up to 5\.31\d mm; "):
        read_series(files)


@pytest.mark.parametrize("degrees", [TILT, -TILT])
def test_a_straightened_stack_shows_the_scene_where_it_is(tmp_path: Path, degrees: float) -> None:
    """The scene is linear in y and z (mm, LPS+), so that linear interpolation keeps it."""
    scene: list[np.ndarray] = []

    def stored(k: int, slide: float) -> np.ndarray:
        back = 20 + slide + 0.8 * np.arange(20)
        scene.append(np.round(200 * back + 20 * 5 * k)[:, None].repeat(4, axis=1))
        return scene[-1]

    read, grid, notes = read_series(tilted(tmp_path, stored, degrees), gaps="resample")
    assert read.shape == (4, 20 + 7, 6)  # 5.3 mm are 6.6 rows
    _, rows, slices = np.meshgrid(*map(np.arange, read.shape), indexing="ij")
    back, up = -(grid.affine[1, 1] * rows + grid.affine[1, 3]), grid.affine[2, 2] * slices + grid.affine[2, 3]
    row = (back - 20 - up * np.tan(np.radians(degrees))) / 0.8  # of the slice at that height
    inside, outside = (row >= 0) & (row <= 19), (row < -1.01) | (row > 20.01)
    np.testing.assert_allclose(read[inside], (200 * back + 20 * up)[inside], atol=1.0)
    assert set(read[outside]) == {np.min(scene)}
    assert inside.sum() == pytest.approx(4 * 20 * 6, abs=4 * 6)
    assert notes[0].startswith("a gantry tilt of 12.00 degrees")


def test_tilt_and_a_missing_slice_are_mended_together(tmp_path: Path) -> None:
    files = tilted(tmp_path, lambda k, slide: np.full((20, 4), 100 * k))
    read, grid, notes = read_series(lose(files, 2), gaps="resample")
    assert read[0, 10].tolist() == [0, 100, 200, 300, 400, 500]
    assert grid.affine[2, 2] == 5
    assert len(notes) == 2


def shift_one(files: list[Path], voxels: np.ndarray) -> None:
    tags = place(affine_of(LPS_AXIAL), 3)
    tags["ImagePositionPatient"] = tags["ImagePositionPatient"] + [4.0, 0, 0]
    write_slice(files[3], voxels[:, :, 3].T, **tags)


def rewrite(**tags: Any) -> Callable[[list[Path], np.ndarray], None]:
    def rewritten(files: list[Path], voxels: np.ndarray) -> None:
        write_slice(files[3], voxels[:, :, 3].T, **place(affine_of(LPS_AXIAL), 3) | tags)

    return rewritten


def truncate(count: int) -> Callable[[list[Path], np.ndarray], None]:
    def truncated(files: list[Path], voxels: np.ndarray) -> None:
        files[3].write_bytes(files[3].read_bytes()[:count])

    return truncated


BAD: dict[str, tuple[Callable[[list[Path], np.ndarray], None], str]] = {
    "jump": (shift_one, "slices that jump by up to 4 mm in their planes"),
    "mixed sizes": (
        lambda files, voxels: rewrite(PixelData=bytes(60), Rows=5, Columns=6)(files, voxels),
        r"IM0003: got \(6, 5\) columns and rows where IM0000 has \(5, 4\)",
    ),
    "mixed spacing": (rewrite(PixelSpacing=(0.8, 0.9)), r"got PixelSpacing 0\.8\\0\.9 where IM0000 has 0\.8\\0\.7"),
    "mixed directions": (
        rewrite(ImageOrientationPatient=(1, 0, 0, 0, 0, -1)),
        r"got ImageOrientationPatient 1\\0\\0\\0\\0\\-1 where IM0000 has 1\\",
    ),
    "two series": (
        rewrite(SeriesInstanceUID="9.9"),
        r"got SeriesInstanceUID 9\.9 where IM0000 has 1\.2\.3\.4; slices of one volume",
    ),
    "localizer": (rewrite(ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")), "IM0003: got localizer"),
    "colour": (
        rewrite(
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelRepresentation=0,
            PixelData=bytes(60),
        ),
        r"IM0003: got colour or inverted greys \(RGB\)",
    ),
    "inverted": (rewrite(PhotometricInterpretation="MONOCHROME1"), r"inverted greys \(MONOCHROME1\)"),
    "frames": (rewrite(NumberOfFrames=2, PixelData=bytes(80)), "IM0003: got 2 frames in one file"),
    "no position": (rewrite(ImagePositionPatient=None), "IM0003: got no ImagePositionPatient"),
    "NaN position": (
        rewrite(ImagePositionPatient=("nan", 0, 0)),
        r"got ImagePositionPatient nan\\0\\0, not 3 decimal numbers",
    ),
    "decimal comma": (rewrite(PixelSpacing=("0,8", "0,7")), r"got PixelSpacing 0,8\\0,7, not 2 decimal numbers"),
    "no spacing": (rewrite(PixelSpacing=None), "no PixelSpacing"),
    "spacing 0": (rewrite(PixelSpacing=(0, 0)), r"a pixel spacing of 0\\0"),
    "skew": (rewrite(ImageOrientationPatient=(1, 0, 0, 0.1, 1, 0)), "no unit vectors at right angles"),
    "slope": (rewrite(RescaleSlope="1,5"), "a RescaleSlope of 1,5"),
    "slope 0": (rewrite(RescaleSlope=0), "a RescaleSlope of 0"),
    "cut off": (truncate(-10), "IM0003: cannot be read as a DICOM image; whole image files are read, copy it again"),
    "cut in the header": (truncate(300), "IM0003: cannot be read as a DICOM image"),
    "empty": (truncate(0), "IM0003: cannot be read as a DICOM image"),
    "short pixel data": (rewrite(PixelData=bytes(30)), "IM0003: holds fewer than the 40 bytes"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("gaps", ["refuse", "resample"])
def test_bad_slice_is_one_line_whatever_gaps_say(
    tmp_path: Path,
    voxels: np.ndarray,
    spoil: Callable[[list[Path], np.ndarray], None],
    message: str,
    gaps: volume.Gaps,
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = write_series(tmp_path, voxels, affine_of(LPS_AXIAL))
    spoil(files, voxels)
    with pytest.raises(ValueError, match=message) as error:
        read_series(files, gaps=gaps)
    assert "\n" not in str(error.value)
    assert re.match(re.escape(str(tmp_path)), str(error.value))
    assert capfd.readouterr().err == ""


def test_several_slices_at_one_position_are_counted(tmp_path: Path, voxels: np.ndarray) -> None:
    files = write_series(tmp_path / "a", voxels, affine_of(LPS_AXIAL))
    files += write_series(tmp_path / "b", voxels, affine_of(LPS_AXIAL))[:2]
    with pytest.raises(ValueError, match="got 8 slices at 6 positions, that nothing in their headers tells apart; one"):
        read_series(files, gaps="resample")


def test_one_file_and_a_wrong_option_are_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    files = write_series(tmp_path, voxels, affine_of(LPS_AXIAL))
    with pytest.raises(ValueError, match="got 1 DICOM slices; a volume has two or more"):
        read_series(files[:1])
    with pytest.raises(ValueError, match="got gaps='guess'; 'refuse' and 'resample' are allowed"):
        read_series(files, gaps="guess")  # type: ignore[arg-type]


def test_headers_beyond_the_limit_are_refused_before_a_voxel_is_read(
    tmp_path: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_series(tmp_path, voxels, affine_of(LPS_AXIAL))
    monkeypatch.setattr(volume, "read_slice", None)
    with pytest.raises(ValueError, match=r"got \(5, 4, 6\) voxels; 119 are allowed"):
        read_series(files, max_voxels=119)


def test_a_header_that_claims_gigabytes_is_held_against_its_file(tmp_path: Path, voxels: np.ndarray) -> None:
    files = write_series(tmp_path, voxels, affine_of(LPS_AXIAL), Rows=30000, Columns=30000)
    with pytest.raises(ValueError, match="IM0000: holds fewer than the 1800000000 bytes"):
        read_series(files[:2])


@pytest.fixture
def own_locale() -> Iterator[None]:
    """GDCM's writer leaves the process in the locale C, where text is ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.usefixtures("own_locale")
@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_compressed_slices_read_as_plain_ones(tmp_path: Path, compressor: str) -> None:
    stored = np.random.default_rng(0).integers(0, 2000, (3, 32, 48)).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    for k in range(3):
        image = sitk.GetImageFromArray(stored[k : k + 1])
        tags = {"0008|0016": CT, "0020|000e": "1.2", "0020|0032": f"0\\0\\{3 * k}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(image)
    read, grid, _ = read_series(list(tmp_path.iterdir()))
    np.testing.assert_array_equal(read, stored.T)
    assert grid.affine[2, 2] == 3


def test_text_of_other_character_sets_does_not_stop_a_slice(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "IM1", np.zeros((3, 4)), SeriesDescription="Schädel".encode("latin-1"))
    assert open_slice(path).tags["SeriesDescription"] == "Sch\N{REPLACEMENT CHARACTER}del"
