"""Laws of series that hold several volumes: none is made of two, none is cut, and names of files choose nothing."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_unetfamily.io.dicom import choose_series, list_series, read_series
from monai_unetfamily.io.dicom.series import Series
from tests.support.dicom_files import CT, MR, PET, place, write_series, write_slice

AXIAL = np.diag([-0.8, -0.8, 2.5, 1.0])
FIRST, SECOND = np.random.default_rng(0).integers(1, 999, (2, 5, 4, 6)).astype(np.float32)
DEPTH = FIRST.shape[2]
IS_MR = {"SOPClassUID": MR, "Modality": "MR", "ImageType": ("ORIGINAL", "PRIMARY", "M", "ND")}
ORIGINAL, DERIVED = ("ORIGINAL", "PRIMARY", "AXIAL"), ("DERIVED", "SECONDARY", "AXIAL")
PHASE = ("ORIGINAL", "PRIMARY", "P", "ND")
# attributes in which two volumes of a series differ, and the words for each volume; the first is read by default
DIFFERING: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "M and P": (IS_MR, {"ImageType": PHASE}, "magnitude", "phase"),
    "M_FFE and P_FFE": (
        IS_MR | {"ImageType": ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE")},
        {"ImageType": ("ORIGINAL", "PRIMARY", "P_FFE", "P", "FFE")},
        "magnitude",
        "phase",
    ),
    "component": (
        IS_MR | {"ImageType": ("ORIGINAL", "PRIMARY"), "ComplexImageComponent": "MAGNITUDE"},
        {"ComplexImageComponent": "REAL"},
        "magnitude",
        "real",
    ),
    "water and fat": (
        IS_MR | {"ImageType": ("DERIVED", "PRIMARY", "F")},
        {"ImageType": ("DERIVED", "PRIMARY", "W")},
        r"ImageType DERIVED\PRIMARY\F",
        r"ImageType DERIVED\PRIMARY\W",
    ),
    "derived": (
        {"ImageType": ORIGINAL},
        {"ImageType": DERIVED},
        r"ImageType ORIGINAL\PRIMARY\AXIAL",
        r"ImageType DERIVED\SECONDARY\AXIAL",
    ),
    "echo time": (IS_MR | {"EchoTime": "4.60"}, {"EchoTime": "13.8"}, "EchoTime 4.6", "EchoTime 13.8"),
    "echo number": (IS_MR | {"EchoNumbers": 1}, {"EchoNumbers": 2}, "EchoNumbers 1", "EchoNumbers 2"),
    "b-value": (
        IS_MR | {"DiffusionBValue": 0.0},
        {"DiffusionBValue": 1000.0},
        "DiffusionBValue 0",
        "DiffusionBValue 1000",
    ),
    "time point": (
        {"TemporalPositionIdentifier": 2},
        {"TemporalPositionIdentifier": 10},
        "TemporalPositionIdentifier 2",
        "TemporalPositionIdentifier 10",
    ),
    "voltage": ({"KVP": 80}, {"KVP": "140.0"}, "KVP 80", "KVP 140"),
    "kernel": (
        {"ConvolutionKernel": "B30F"},
        {"ConvolutionKernel": "B70F"},
        "ConvolutionKernel B30F",
        "ConvolutionKernel B70F",
    ),
    "units": ({"RescaleType": "HU"}, {"RescaleType": "US"}, "RescaleType HU", "RescaleType US"),
    "slope": (IS_MR | {"RescaleSlope": 1}, {"RescaleSlope": 4}, "RescaleSlope 1", "RescaleSlope 4"),
}


def write_two(folder: Path, one: dict[str, Any], other: dict[str, Any], interleaved: bool, seed: int = 0) -> None:
    """Volumes at the same positions or half a step apart, in files whose names mix them."""
    between = AXIAL.copy()
    between[2, 3] = AXIAL[2, 2] / 2 if interleaved else 0
    files = write_series(folder / "one", FIRST, AXIAL, **one)
    files += write_series(folder / "two", SECOND * 4, between, **one | other)
    random.Random(seed).shuffle(files)
    for k, file in enumerate(files):
        file.rename(folder / f"IM{k:04}")


def voxels(series: Series) -> np.ndarray:
    return read_series(series.files)[0]


@pytest.mark.parametrize("interleaved", [False, True], ids=["coincide", "interleave"])
@pytest.mark.parametrize(("one", "other", "first", "second"), DIFFERING.values(), ids=DIFFERING)
def test_volumes_are_told_apart_by_what_they_show(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], first: str, second: str, interleaved: bool
) -> None:
    for seed in range(2):
        write_two(tmp_path / str(seed), one, other, interleaved, seed)
        found, notes = list_series(tmp_path / str(seed))
        assert [series.part for series in found] == [first, second]
        np.testing.assert_array_equal(voxels(found[0]), FIRST)
        np.testing.assert_array_equal(voxels(found[1]), SECOND * 4)
        chosen, others = choose_series(found)
        assert (chosen, notes) == (found[0], ())
        assert others == (f"passed over: series {found[1]}",)
        with pytest.raises(ValueError, match=r"got slices of 2 volumes, .*; one is allowed, choose it"):
            read_series([*found[0].files, *found[1].files], gaps="resample")


@pytest.mark.parametrize(
    "keyword", ["AcquisitionNumber", "AcquisitionTime"], ids=["acquisition number", "acquisition time"]
)
def test_times_tell_volumes_apart_at_the_same_positions_alone(tmp_path: Path, keyword: str) -> None:
    write_two(tmp_path / "same", {keyword: "101500"}, {keyword: "101700"}, interleaved=False)
    found, _ = list_series(tmp_path / "same")
    assert [series.part for series in found] == [f"{keyword} 101500", f"{keyword} 101700"]
    np.testing.assert_array_equal(voxels(found[1]), SECOND * 4)
    # odd and even slices of an interleaved acquisition are one volume
    write_two(tmp_path / "between", {keyword: "101500"}, {keyword: "101700"}, interleaved=True)
    [series], _ = list_series(tmp_path / "between")
    np.testing.assert_array_equal(voxels(series)[..., ::2], FIRST)


def test_each_echo_of_magnitude_and_phase_is_a_volume(tmp_path: Path) -> None:
    for name, tags in (("m", IS_MR), ("p", IS_MR | {"ImageType": PHASE})):
        for echo in (2.3, 4.6):
            write_series(tmp_path / f"{name}{echo}", FIRST + echo * 10, AXIAL, EchoTime=echo, **tags)
    found, _ = list_series(tmp_path)
    assert [series.part for series in found] == [
        *("magnitude EchoTime 2.3", "magnitude EchoTime 4.6", "phase EchoTime 2.3", "phase EchoTime 4.6"),
    ]
    np.testing.assert_array_equal(voxels(choose_series(found, "phase EchoTime 4.6")[0]), FIRST + 46)


# what differs between slices of one volume
ONE_VOLUME: dict[str, dict[str, Any]] = {
    "blocks of voltage": {"KVP": [100, 100, 100, 120, 120, 120]},
    "a block amid another": {"KVP": [100, 100, 120, 120, 100, 100]},
    "step and shoot": {"AcquisitionNumber": [1, 1, 2, 2, 3, 3], "AcquisitionTime": [f"10000{k}" for k in range(6)]},
    "interleaved": {"AcquisitionNumber": [1, 2, 1, 2, 1, 2]},
    "echo times that vary": {"EchoTime": [4.61, 4.62, 4.61, 4.63, 4.62, 4.64]},
    "rounded echo times": {"EchoTime": ["4.6", "4.60001"] * 3},
    "slopes of PET": {"SOPClassUID": PET, "Modality": "PT", "RescaleSlope": [1, 0.5, 0.5, 0.25, 1, 0.5]},
    "image types that count": {"ImageType": [(*ORIGINAL, f"SLICE{k}") for k in range(6)]},
    "blocks of image types": {"ImageType": [(*ORIGINAL, "SPI")] * 3 + [(*ORIGINAL, "SEQ")] * 3},
    "one slice derived": {"ImageType": [ORIGINAL] * 3 + [DERIVED] + [ORIGINAL] * 2},
}


@pytest.mark.parametrize("tags", ONE_VOLUME.values(), ids=ONE_VOLUME)
def test_what_varies_along_one_volume_does_not_cut_it(tmp_path: Path, tags: dict[str, Any]) -> None:
    write_series(tmp_path, np.round(FIRST), AXIAL, **tags)
    [series], notes = list_series(tmp_path)
    np.testing.assert_array_equal(voxels(series), FIRST)
    assert (series.part, notes) == ("", ())


def test_a_scout_amid_the_slices_is_no_part_of_the_volume(tmp_path: Path) -> None:
    write_series(tmp_path, FIRST, AXIAL)
    write_slice(tmp_path / "A0", SECOND[0].T, **place(AXIAL, 2), ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    [series], notes = list_series(tmp_path)
    np.testing.assert_array_equal(voxels(series), FIRST)
    assert notes == ("passed over: series 2 'Abdomen 5.0' (1 file): localizer",)


def test_one_phase_slice_is_never_a_slice_of_the_magnitude(tmp_path: Path) -> None:
    files = write_series(tmp_path, FIRST, AXIAL, **IS_MR | {"ImageType": [IS_MR["ImageType"]] * 5 + [PHASE]})
    [series], notes = list_series(tmp_path)
    np.testing.assert_array_equal(voxels(series), FIRST[..., :5])
    assert notes == ("passed over: series 2 'Abdomen 5.0' phase (1 file): one slice, no volume",)
    with pytest.raises(ValueError, match="got slices of 2 volumes, magnitude, phase"):
        read_series(files, gaps="resample")


def test_phase_is_read_only_where_there_is_nothing_else_and_a_note_says_so(tmp_path: Path) -> None:
    write_series(tmp_path / "a", FIRST, AXIAL, **IS_MR | {"ImageType": PHASE, "SeriesNumber": 1})
    second = {"SeriesInstanceUID": "1.2.3.9", "SeriesNumber": 3}
    write_series(tmp_path / "b", FIRST[..., :3], AXIAL, **IS_MR | second)
    found, _ = list_series(tmp_path)
    assert choose_series(found)[0].number == "3"
    _, notes = choose_series(found[:1])
    assert notes == ("the series shows the phase part of the signal, not its magnitude",)


def test_what_differs_between_slices_at_one_position_is_named(tmp_path: Path) -> None:
    for name, start in (("a", 100000), ("b", 100500)):
        write_series(tmp_path / name, FIRST, AXIAL, AcquisitionTime=[str(start + k) for k in range(DEPTH)])
    [series], _ = list_series(tmp_path)
    with pytest.raises(ValueError, match="12 slices at 6 positions, that differ in AcquisitionTime; one a position"):
        read_series(series.files)


def test_ct_says_nothing_of_the_complex_signal(tmp_path: Path) -> None:
    write_series(tmp_path, FIRST, AXIAL, SOPClassUID=CT, ImageType=[("ORIGINAL", "PRIMARY", "P")] + [ORIGINAL] * 5)
    [series], _ = list_series(tmp_path)
    assert series.component == ""
