"""Laws of the search: every file below a folder is a slice of a series, or named among what was passed over."""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from monai_unetfamily.data import find_studies
from monai_unetfamily.io import read_study
from monai_unetfamily.io.dicom import choose_series, is_dicom, leads_to_dicom, list_series, read_series
from monai_unetfamily.io.dicom.series import Series
from tests.support.dicom_files import CAPTURE, MR, REPORT, place, write_series, write_slice

AXIAL = np.diag([-0.8, -0.8, 2.5, 1.0])
SAGITTAL = np.array([[0, 0, 2.5, 0], [-0.8, 0, 0, 0], [0, -0.8, 0, 0], [0, 0, 0, 1.0]])
VOXELS = np.random.default_rng(0).integers(0, 999, (5, 4, 6)).astype(np.float32)
PORTAL = {"SeriesInstanceUID": "1.2.3.5", "SeriesNumber": 3, "SeriesDescription": "Portal 2.5"}


def names(series: Series) -> list[str]:
    return [path.name for path in series.files]


def test_a_visit_is_sorted_into_its_series_and_everything_else_is_named(tmp_path: Path) -> None:
    plane = place(AXIAL, 0)
    write_series(tmp_path / "Jürgen/ST0/SE1", VOXELS, AXIAL)
    write_series(tmp_path / "Jürgen/ST0/SE2", VOXELS[:, :, :5], SAGITTAL, **PORTAL)
    scout = {"SeriesInstanceUID": "1.2.3.1", "SeriesNumber": 1, "SeriesDescription": "Scout"}
    write_slice(
        tmp_path / "Jürgen/ST0/SE0/IM0", VOXELS[0], **plane, **scout, ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")
    )
    capture = {"SeriesInstanceUID": "1.2.3.99", "SeriesNumber": 99, "SeriesDescription": "Dose"}
    write_slice(tmp_path / "Jürgen/ST0/SE9/IM0", VOXELS[0], **capture, SOPClassUID=CAPTURE)
    derived = {"SeriesInstanceUID": "1.2.3.98", "SeriesNumber": 98, "SeriesDescription": "MIP"}
    write_slice(tmp_path / "Jürgen/ST0/SE9/IM1", VOXELS[0], **derived)
    write_slice(tmp_path / "Jürgen/ST0/SE9/IM2", VOXELS[0], **plane, SeriesInstanceUID="1.2.3.97", SeriesNumber=97)
    empty = dict.fromkeys(("PixelData", "Rows", "Columns"))
    write_slice(tmp_path / "Jürgen/ST0/SE9/SR1", VOXELS[0], SOPClassUID=REPORT, **empty)
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / ".DS_Store").write_text("hidden")

    found, notes = list_series(tmp_path)
    assert [(series.number, series.plane, series.shape) for series in found] == [
        ("2", "axial", (5, 4, 6)),
        ("3", "sagittal", (5, 4, 5)),
    ]
    assert sorted(notes) == [
        "1 file, no DICOM image (report): Jürgen/ST0/SE9/SR1",
        "1 file, no DICOM image: readme.txt",
        "passed over: series 1 'Scout' (1 file): localizer",
        "passed over: series 97 'Abdomen 5.0' (1 file): one slice, no volume",
        "passed over: series 98 'MIP' (1 file): no ImagePositionPatient",
        "passed over: series 99 'Dose' (1 file): secondary capture",
    ]
    np.testing.assert_array_equal(read_series(found[0].files)[0], VOXELS)
    first = found[0]
    assert (first.study, first.uid, first.description, first.modality) == ("1.2.3", "1.2.3.4", "Abdomen 5.0", "CT")


def test_slices_are_sorted_by_position_over_folders_and_whatever_names(tmp_path: Path) -> None:
    for k, path in enumerate(write_series(tmp_path, VOXELS, AXIAL, InstanceNumber=[3, 1, 2, 6, 5, 4])):
        target = tmp_path / ("a" if k % 2 else "b") / f"{9 - k}.dcm"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    ((series,), notes) = list_series(tmp_path)
    assert names(series) == [f"{9 - k}.dcm" for k in range(6)]
    assert notes == ()


@pytest.mark.parametrize(
    "keep", [-10, 400, 190, 136, 0], ids=["in the pixels", "in the header", "in its class", "in its meta", "empty"]
)
@pytest.mark.parametrize("last", [2, 5], ids=["inside", "at the end"])
def test_a_slice_that_is_cut_off_is_never_left_out(tmp_path: Path, keep: int, last: int) -> None:
    files = write_series(tmp_path, VOXELS, AXIAL)
    files[last].write_bytes(files[last].read_bytes()[:keep])
    ((series,), notes) = list_series(tmp_path)
    assert notes == (f"1 file, cannot be read, though a DICOM image: IM000{last}",)
    with pytest.raises(ValueError, match=f"IM000{last}: cannot be read as a DICOM image"):
        read_series(series.files, gaps="resample")


@pytest.mark.parametrize("damage", [b"\xff" * 400, b"\0" * 400], ids=["ones", "zeros"])
def test_what_is_marked_as_dicom_and_cannot_be_parsed_is_never_left_out(tmp_path: Path, damage: bytes) -> None:
    files = write_series(tmp_path, VOXELS, AXIAL)
    files[5].write_bytes(files[5].read_bytes()[:132] + damage)
    ((series,), notes) = list_series(tmp_path)
    assert notes == ("1 file, cannot be read, though a DICOM image: IM0005",)
    with pytest.raises(ValueError, match="IM0005: cannot be read as a DICOM image"):
        read_series(series.files)


@pytest.mark.parametrize(
    ("name", "kind", "what"), [("SR1", REPORT, " (report)"), ("DICOMDIR", "1.2.840.10008.1.3.10", "")]
)
def test_a_report_or_an_index_beside_the_slices_is_passed_over_and_named(
    tmp_path: Path, name: str, kind: str, what: str
) -> None:
    files = write_series(tmp_path, VOXELS, AXIAL)
    write_slice(tmp_path / name, VOXELS[0], SOPClassUID=kind, **dict.fromkeys(("PixelData", "Rows", "Columns")))
    ((series,), notes) = list_series(tmp_path)
    assert series.files == tuple(files)
    assert notes == (f"1 file, no DICOM image{what}: {name}",)


def test_a_slice_that_does_not_say_where_it_lies_is_never_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOXELS, AXIAL)
    write_slice(files[5], VOXELS[0], **{**place(AXIAL, 5), "ImagePositionPatient": None})
    ((series,), _) = list_series(tmp_path)
    with pytest.raises(ValueError, match="IM0005: got no ImagePositionPatient"):
        read_series(series.files)


def test_echoes_of_one_series_are_volumes_of_their_own(tmp_path: Path) -> None:
    mr = {"SOPClassUID": MR, "Modality": "MR"}
    write_series(tmp_path / "a", VOXELS, AXIAL, EchoTime=4.6, **mr)
    write_series(tmp_path / "b", VOXELS + 1, AXIAL, EchoTime=2.3, **mr)
    found, _ = list_series(tmp_path)
    assert {series.part for series in found} == {"EchoTime 2.3", "EchoTime 4.6"}
    short, notes = choose_series(found, "time 2.3")
    np.testing.assert_array_equal(read_series(short.files)[0], VOXELS + 1)
    assert notes == ("passed over: series 2 'Abdomen 5.0' EchoTime 4.6 (MR axial 5 x 4 x 6, 1.2.3.4)",)


def test_what_nothing_tells_apart_stays_one_series_and_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "a", VOXELS, AXIAL)
    write_series(tmp_path / "b", VOXELS, AXIAL)
    ((series,), _) = list_series(tmp_path)
    with pytest.raises(ValueError, match="12 slices at 6 positions"):
        read_series(series.files)


@pytest.fixture
def two(tmp_path: Path) -> list[Series]:
    write_series(tmp_path / "thick", VOXELS[:, :, ::2], AXIAL)
    write_series(tmp_path / "thin", VOXELS[:, :, :5], AXIAL, **PORTAL)
    write_series(tmp_path / "side", VOXELS, SAGITTAL, SeriesInstanceUID="1.2.3.6", SeriesNumber=4, SeriesDescription="")
    return list_series(tmp_path)[0]


def test_the_largest_axial_series_is_the_default_and_the_others_are_named(two: list[Series]) -> None:
    chosen, notes = choose_series(two)
    assert chosen.number == "3"
    assert notes == (
        "passed over: series 2 'Abdomen 5.0' (CT axial 5 x 4 x 3, 1.2.3.4)",
        "passed over: series 4 '' (CT sagittal 5 x 4 x 6, 1.2.3.6)",
    )


def test_without_an_axial_one_the_largest_is_read_and_a_note_says_so(two: list[Series]) -> None:
    chosen, notes = choose_series(two[2:])
    assert chosen.number == "4"
    assert notes == ("no axial series: the largest one is read, series 4 '' (CT sagittal 5 x 4 x 6, 1.2.3.6)",)


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("1.2.3.4", "2"), ("3.5", "3"), ("3", "3"), ("Portal 2.5", "3"), ("portal", "3"), ("sagittal", "4")],
)
def test_a_series_is_chosen_by_any_piece_that_no_other_has(two: list[Series], wanted: str, number: str) -> None:
    assert choose_series(two, wanted)[0].number == number


@pytest.mark.parametrize(("wanted", "count"), [("1.2.3", 3), ("Arterial", 0), ("", 3)])
def test_a_wrong_choice_lists_what_there_is(two: list[Series], wanted: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} series fit '{wanted}'; there are 2 'Abdomen 5.0'.*Portal.*sagittal"):
        choose_series(two, wanted)


def test_series_of_several_studies_are_not_one_case(tmp_path: Path) -> None:
    write_series(tmp_path / "monday", VOXELS, AXIAL)
    write_series(tmp_path / "friday", VOXELS, AXIAL, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1")
    found, _ = list_series(tmp_path)
    with pytest.raises(ValueError, match="got series of 2 studies"):
        choose_series(found)
    assert choose_series(found, "1.2.9.1")[0].study == "1.2.9"


def test_no_folder_and_no_series_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="absent: is no folder; name the one of the DICOM files"):
        list_series(tmp_path / "absent")
    assert list_series(tmp_path) == ([], ())
    with pytest.raises(ValueError, match="got no DICOM series that is a volume"):
        choose_series([])


def without_preamble(data: bytes) -> bytes:
    """The meta information first."""
    return data[132:]


def without_meta(data: bytes) -> bytes:
    """The data set first, as some archives store it."""
    (length,) = struct.unpack_from("<I", data, 140)  # of the elements after the first one, which takes 12 bytes
    return data[132 + 12 + length :]


def implicit(data: bytes) -> bytes:
    """The data set without value representations."""
    stream = BytesIO()
    pydicom.dcmwrite(stream, pydicom.Dataset(pydicom.dcmread(BytesIO(data))), implicit_vr=True, little_endian=True)
    return stream.getvalue()


BARE = [without_preamble, without_meta, implicit]


@pytest.mark.parametrize("strip", BARE, ids=lambda strip: strip.__name__)
def test_files_without_preamble_and_suffix_are_found_wherever_folders_are_searched(
    tmp_path: Path, strip: Callable[[bytes], bytes]
) -> None:
    for path in write_series(tmp_path / "scans/visit/ct", VOXELS, AXIAL):
        path.write_bytes(strip(path.read_bytes()))
    assert leads_to_dicom(tmp_path)
    for given in ("scans", "scans/visit/ct", "scans/visit/ct/IM0000"):
        [study] = find_studies([tmp_path / given]).studies
        np.testing.assert_array_equal(read_study(study).voxels[0], VOXELS)


@pytest.mark.parametrize("strip", BARE, ids=lambda strip: strip.__name__)
def test_a_file_without_preamble_that_is_cut_off_is_never_left_out(
    tmp_path: Path, strip: Callable[[bytes], bytes]
) -> None:
    files = write_series(tmp_path, VOXELS, AXIAL)
    files[5].write_bytes(strip(files[5].read_bytes())[:-10])
    _, notes = list_series(tmp_path)
    assert notes == ("1 file, cannot be read, though a DICOM image: IM0005",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0",
        b"\x08\0" * 200,
        b"\x02\0\0\0UL\x04\0" + bytes(99),
        b"\x08\0\x16\0UI\x04\0text" + bytes(99),
        b"\x08\0\x05\0\xff\xff\xff\xff" + bytes(99),
    ],
    ids=["empty", "two bytes", "one tag over and over", "no class", "text for a class", "no end"],
)
def test_other_files_are_not_taken_for_dicom_without_a_preamble(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").write_bytes(content)
    assert not is_dicom(tmp_path / "data")


def in_one_file(folder: Path) -> None:
    write_slice(folder / "a", VOXELS[0], **place(AXIAL, 0), NumberOfFrames=2, PixelData=bytes(2 * VOXELS[0].nbytes))


def unlike(**tags: Any) -> Callable[[Path], None]:
    return lambda folder: write_series(folder, VOXELS, AXIAL, **tags) and None


def structures(folder: Path) -> None:
    empty = dict.fromkeys(("PixelData", "Rows", "Columns"))
    write_slice(folder / "rs.dcm", VOXELS[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", **empty)


def compressed(folder: Path) -> None:
    """As JPEG XL, which GDCM does not read."""
    for path in write_series(folder, VOXELS, AXIAL, TransferSyntaxUID="1.2.840.10008.1.2.4.110"):
        assert path.exists()


REASONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "frames": (in_one_file, "series 2 'Abdomen 5.0' (1 file): 2 frames in one file"),
    "a UID each": (
        unlike(SeriesInstanceUID=[f"1.2.3.{k}" for k in range(6)]),
        "one slice, no volume, in each of 6 series: files of one volume share a SeriesInstanceUID",
    ),
    "no position": (unlike(ImagePositionPatient=None), "(6 files): no ImagePositionPatient"),
    "no spacing": (unlike(PixelSpacing=None), "(6 files): no PixelSpacing"),
    "commas": (unlike(PixelSpacing=("0,8", "0,8")), r"PixelSpacing 0,8\0,8, not 2 decimal numbers"),
    "inverted": (unlike(PhotometricInterpretation="MONOCHROME1"), "inverted greys (MONOCHROME1)"),
    "segmentation": (unlike(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "segmentation, which is labels"),
    "structures": (structures, "1 file, no DICOM image (RT structure set): rs.dcm"),
    "unknown compression": (compressed, "though a DICOM image (transfer syntax 1.2.840.10008.1.2.4.110): IM0000"),
}


@pytest.mark.parametrize(("write", "reason"), REASONS.values(), ids=REASONS)
def test_why_a_folder_holds_no_volume_is_the_error_of_its_case(
    tmp_path: Path, write: Callable[[Path], None], reason: str
) -> None:
    """Which is the printed line and the row of failures.csv."""
    write(tmp_path / "ct")
    [study] = find_studies([tmp_path]).studies
    with pytest.raises(ValueError, match="ct: got no DICOM series that is a volume") as error:
        read_study(study)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_segmentation_that_a_run_wrote_is_no_scan(tmp_path: Path) -> None:
    (tmp_path / "ct.seg.dcm").touch()
    [study] = find_studies([tmp_path / "ct.seg.dcm"]).studies
    with pytest.raises(ValueError, match="ct.seg.dcm: is a DICOM Segmentation, which is labels; name the scan"):
        read_study(study)
