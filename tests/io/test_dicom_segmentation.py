"""Laws of DICOM Segmentations: a voxel is marked in the slice, and at the place, that it was made of, and nowhere else.

They are read back in two ways: by highdicom, and from the functional groups of each frame by pydicom alone.
"""

import json
import logging
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pydicom.data
import pytest
import torch
from highdicom._standard_utils import check_required_attributes, get_iod_module_map
from pydicom.sr import _concepts_dict as dictionary

from monai_unetfamily.bundles import (
    METADATA,
    class_names,
    find_bundle,
    maker_of,
    open_bundle,
    read_metadata,
    shipped_bundles,
)
from monai_unetfamily.bundles.metadata import class_codes
from monai_unetfamily.cli import main
from monai_unetfamily.cohort.records import read_record, record_file
from monai_unetfamily.io.dicom import (
    Maker,
    check_segmentation,
    choose_series,
    known_codes,
    list_series,
    own_codes,
    read_series,
    segmentation,
    write_segmentation,
)
from monai_unetfamily.io.dicom.codes import _ORGANS, _PAIRED, _SIDES
from monai_unetfamily.io.itk import patient_grid
from tests.io.test_dicom import LPS_AXIAL, ORIENTATIONS, affine_of
from tests.support.dicom_files import write_series
from tests.support.runs import predict

pytestmark = pytest.mark.slow  # highdicom loads the standard's tables when it is first needed

SHAPE = (5, 3, 6)  # 15 pixels a slice: frames begin amid a byte
NAMES = {0: "background", 1: "liver", 2: "nodule", 3: "left kidney", 7: "right kidney"}
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "0815", "PatientBirthDate": "19700101", "PatientSex": "F"}
MAKER = Maker("abdomen", "1.2.0", "0" * 64, {k: known_codes(n) or own_codes("abdomen", n) for k, n in NAMES.items()})
Voxels = set[tuple[int, ...]]


def slices(folder: Path, axes: np.ndarray = LPS_AXIAL, **tags: Any) -> list[Path]:
    """A series whose voxels are all different, of slices that can be told apart."""
    depth = SHAPE[2]
    uids = [f"1.2.3.4.{depth - k}" for k in range(depth)]
    own: dict[str, Any] = {"SOPInstanceUID": uids, "FrameOfReferenceUID": "1.2.9"}
    return write_series(folder, np.arange(np.prod(SHAPE)).reshape(SHAPE), affine_of(axes), **own | tags)


def some_labels(ids: tuple[int, ...] = (0, 1, 3, 7)) -> np.ndarray:
    return np.random.default_rng(0).choice(ids, SHAPE).astype(np.uint8)


def write(folder: Path, labels: np.ndarray, files: list[Path], names: dict[int, str] = NAMES) -> Path:
    write_segmentation(labels, files, read_series(files)[1], names, MAKER, folder / "ct.seg.dcm")
    return folder / "ct.seg.dcm"


def frames(file: Path) -> list[tuple[int, np.ndarray, pydicom.Dataset]]:
    """Segment number, mask (rows, columns) and functional groups of each frame, by pydicom alone."""
    read = pydicom.dcmread(file)
    masks = read.pixel_array.reshape(-1, read.Rows, read.Columns)
    shared = read.SharedFunctionalGroupsSequence[0]
    own = [group.get("SegmentIdentificationSequence") for group in read.PerFrameFunctionalGroupsSequence]
    numbers = [(own or shared.SegmentIdentificationSequence)[0].ReferencedSegmentNumber for own in own]
    return list(zip(numbers, masks, read.PerFrameFunctionalGroupsSequence, strict=True))


def marked_voxels(file: Path, affine: np.ndarray) -> dict[int, Voxels]:
    """Segment number -> the voxels of a RAS+ grid whose centres it marks, by where its frames lie (C.7.6.2.1-1)."""
    shared = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0]
    cosines = np.reshape(np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), (2, 3))
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    marked = defaultdict[int, Voxels](set)
    for number, mask, group in frames(file):
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(mask)
        marked[number] |= voxels_at(
            start + np.outer(columns * across, cosines[0]) + np.outer(rows * down, cosines[1]), affine
        )
    return marked


def voxels_at(points: np.ndarray, affine: np.ndarray) -> Voxels:
    """The voxels of a RAS+ grid at points (n, 3), mm, LPS+, each within a thousandth of a voxel of its centre."""
    to_index = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    np.testing.assert_allclose(index, np.round(index), atol=1e-3)
    return set(map(tuple, np.round(index).astype(int).tolist()))


def voxels_of(labels: np.ndarray, ids: Iterable[int]) -> dict[int, Voxels]:
    """Segment number -> the voxels of each label id that is there."""
    found = {n: set(map(tuple, np.argwhere(labels == k).tolist())) for n, k in enumerate(ids, start=1)}
    return {number: there for number, there in found.items() if there}


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_voxel_lies_where_its_label_does(tmp_path: Path, axes: np.ndarray) -> None:
    files = slices(tmp_path / "ct", axes)
    random.Random(0).shuffle(files)
    labels, (voxels, grid, _) = some_labels(), read_series(files)
    file = write(tmp_path, labels, files)
    assert marked_voxels(file, grid.affine) == voxels_of(labels, (1, 2, 3, 7))
    sources = {source.SOPInstanceUID: source for source in map(pydicom.dcmread, files)}
    seen = defaultdict[int, list[float]](list)
    for number, mask, group in frames(file):  # and it is the voxel of the slice that the frame names
        [named] = group.DerivationImageSequence[0].SourceImageSequence
        source = sources[named.ReferencedSOPInstanceUID]
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        seen[number] += source.pixel_array[mask > 0].tolist()
    assert {n: set(found) for n, found in seen.items()} == {
        n: set(voxels[labels == k]) for n, k in enumerate((1, 2, 3, 7), start=1) if k in labels
    }


@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_highdicom_reads_the_labels_on_the_grid_of_the_slices(tmp_path: Path, axes: np.ndarray) -> None:
    files = slices(tmp_path / "ct", axes)
    labels, (_, grid, _) = some_labels(), read_series(files)
    read = hd.seg.segread(write(tmp_path, labels, files[::-1]))
    numbers = np.searchsorted([0, 1, 2, 3, 7], labels)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    np.testing.assert_array_equal(read.get_pixels_by_source_instance(uids, combine_segments=True), numbers.T)
    volume = read.get_volume(combine_segments=True)
    for number in (1, 3, 4):
        points = np.argwhere(volume.array == number) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        assert voxels_at(points, grid.affine) == voxels_of(numbers, [number])[1]


def test_classes_that_overlap_are_segments_that_overlap(tmp_path: Path) -> None:
    files = slices(tmp_path / "ct")
    masks = np.random.default_rng(1).integers(0, 2, (*SHAPE, 3)).astype(np.uint8)
    read = hd.seg.segread(write(tmp_path, masks, files, {1: "whole", 3: "core"}))
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    assert (read.SegmentsOverlap, [s.SegmentLabel for s in read.SegmentSequence]) == ("YES", ["whole", "core"])
    found = read.get_pixels_by_source_instance(uids)
    np.testing.assert_array_equal(found, masks[..., [0, 2]].transpose(2, 1, 0, 3))


def test_a_class_that_is_nowhere_is_described_and_has_no_frame(tmp_path: Path) -> None:
    read = hd.seg.segread(write(tmp_path, some_labels((0, 3)), slices(tmp_path / "ct")))
    assert [s.SegmentLabel for s in read.SegmentSequence] == ["liver", "nodule", "left kidney", "right kidney"]
    assert {number for number, _, _ in frames(tmp_path / "ct.seg.dcm")} == {3}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of whoever logs: what highdicom tells beneath that is kept where another test has set the level so."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)])
@pytest.mark.parametrize("names", [{1: "liver"}, {1: "liver", 3: "left kidney"}])
def test_where_nothing_is_found_the_object_says_so(
    tmp_path: Path, shape: tuple[int, ...], names: dict[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    files = slices(tmp_path / "ct")
    read = hd.seg.segread(write(tmp_path, np.zeros(shape, np.uint8), files, names))
    assert [s.SegmentLabel for s in read.SegmentSequence] == list(names.values())
    assert [(number, mask.any()) for number, mask, _ in frames(tmp_path / "ct.seg.dcm")] == [
        (number, False) for number in range(1, len(names) + 1)
    ]
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    assert not read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True).any()
    assert not warnings_in(caplog)


def test_labels_that_no_class_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="segments that lack descriptions"):
        write(tmp_path, some_labels((0, 1, 5)), slices(tmp_path / "ct"))
    assert not list(tmp_path.glob("*.dcm"))


def test_a_segment_says_what_it_is_and_who_made_it(tmp_path: Path) -> None:
    write(tmp_path, some_labels(), slices(tmp_path / "ct", SeriesNumber=2))
    read = pydicom.dcmread(tmp_path / "ct.seg.dcm")
    liver, nodule, left, right = read.SegmentSequence

    def code(item: pydicom.Dataset) -> tuple[str, str, str]:
        return item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning

    assert code(liver.SegmentedPropertyTypeCodeSequence[0]) == ("10200004", "SCT", "Liver")
    assert code(liver.SegmentedPropertyCategoryCodeSequence[0]) == ("91723000", "SCT", "Anatomical Structure")
    own = nodule.SegmentedPropertyTypeCodeSequence[0]
    assert (own.CodingSchemeDesignator, own.CodeMeaning) == ("99UNETFAMILY", "nodule")
    assert read.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99UNETFAMILY"
    for kidney, side in ((left, "Left"), (right, "Right")):
        kind = kidney.SegmentedPropertyTypeCodeSequence[0]
        assert (code(kind)[2], code(kind.SegmentedPropertyTypeModifierCodeSequence[0])[2]) == ("Kidney", side)
    [made] = liver.SegmentationAlgorithmIdentificationSequence
    assert (made.AlgorithmName, made.AlgorithmVersion, liver.SegmentAlgorithmType) == ("abdomen", "1.2.0", "AUTOMATIC")
    assert (read.SegmentationType, read.SeriesNumber, read.DeviceSerialNumber) == ("BINARY", 1002, "0" * 64)
    assert (read.SeriesDescription, "not diagnosis" in read.ContentDescription) == ("abdomen segmentation", True)
    assert read.SeriesInstanceUID not in {"1.2.3.4", read.SOPInstanceUID}


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "Wang^XiaoDong=王^小東"), (None, "Doe"), ("ISO_IR 144", "Люк^Иван")],
)
def test_the_patient_is_the_sources_whatever_its_letters(tmp_path: Path, charset: str | None, name: str) -> None:
    codec = {"ISO_IR 100": "latin-1", "ISO_IR 144": "iso8859-5"}.get(charset or "", "utf-8")
    tags = PATIENT | {"SpecificCharacterSet": charset, "PatientName": name.encode(codec)}
    write(tmp_path, some_labels((0, 2)), slices(tmp_path / "ct", **tags), {2: "Knötchen 結節"})
    read = pydicom.dcmread(tmp_path / "ct.seg.dcm")
    assert {keyword: str(read[keyword].value) for keyword in PATIENT} == PATIENT | {"PatientName": name}
    assert read.SegmentSequence[0].SegmentLabel == "Knötchen 結節"
    assert (read.StudyInstanceUID, read.FrameOfReferenceUID) == ("1.2.3", "1.2.9")


def test_what_anonymised_slices_lack_is_there_and_empty(tmp_path: Path) -> None:
    write(tmp_path, some_labels(), slices(tmp_path / "ct"))
    read = pydicom.dcmread(tmp_path / "ct.seg.dcm")
    assert [str(read[keyword].value or "") for keyword in (*PATIENT, "StudyDate", "AccessionNumber")] == [""] * 6


def grid_of(files: list[Path]) -> Any:
    return read_series(files)[1]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"FrameOfReferenceUID": None}, "has no FrameOfReferenceUID"),
        ({"FrameOfReferenceUID": [f"1.2.{k}" for k in range(6)]}, "slices of 6 FrameOfReferenceUIDs"),
        ({"SOPInstanceUID": "1.2.3.4.5"}, "have one SOPInstanceUID"),
        ({"PatientSex": "X"}, "PatientSex is 'X'"),
        ({"PatientBirthDate": "1.1.1970"}, "no DICOM Segmentation can refer to these slices"),
    ],
)
def test_slices_that_cannot_be_referred_to_are_refused_before_and_after(
    tmp_path: Path, tags: dict[str, Any], why: str
) -> None:
    files = slices(tmp_path / "ct", **tags)
    with pytest.raises(ValueError, match=why):
        check_segmentation(files, grid_of(files), NAMES, MAKER)
    with pytest.raises(ValueError, match=why):
        write(tmp_path, some_labels(), files)
    assert not list(tmp_path.glob("*.dcm"))


def test_labels_on_another_grid_are_refused(tmp_path: Path) -> None:
    files = slices(tmp_path / "ct")
    check_segmentation(files, grid_of(files), NAMES, MAKER)
    _, resampled, _ = read_series([*files[:2], *files[3:]], gaps="resample")
    with pytest.raises(ValueError, match=r"labels of \(5, 3, 6\) voxels for \(5, 3, 5\).* they were resampled"):
        check_segmentation([*files[:2], *files[3:]], resampled, NAMES, MAKER)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    for axis in range(3):
        flipped = np.eye(4)
        flipped[axis, axis], flipped[axis, 3] = -1, SHAPE[axis] - 1
        with pytest.raises(ValueError, match=r"lies .* voxels off its labels"):
            check_segmentation(files, patient_grid(SHAPE, to_lps @ affine_of(LPS_AXIAL) @ flipped), NAMES, MAKER)


def test_slices_as_rounded_as_scanners_write_them_keep_their_own_places(tmp_path: Path) -> None:
    affine = affine_of(LPS_AXIAL)
    places = [np.round((np.diag([-1, -1, 1, 1]) @ affine @ [0, 0, k, 1])[:3] + 0.004 * (k % 2), 2) for k in range(6)]
    turned = [[1, 0, 0, 0, 1, 1e-6 * k] for k in range(6)]
    files = slices(tmp_path / "ct", ImagePositionPatient=places, ImageOrientationPatient=turned)
    write(tmp_path, np.ones(SHAPE, np.uint8), files)
    found = [group.PlanePositionSequence[0].ImagePositionPatient for _, _, group in frames(tmp_path / "ct.seg.dcm")]
    np.testing.assert_array_equal(sorted(found, key=lambda place: place[2]), places)


def test_slices_that_are_turned_against_each_other_are_refused(tmp_path: Path) -> None:
    tilts = [9e-4 * (k == 3) for k in range(6)]
    turned = [[1, 0, 0, 0, float(np.sqrt(1 - t**2)), t] for t in tilts]
    wide = {"PixelSpacing": (20.0, 20.0), "ImageOrientationPatient": turned}
    files = slices(tmp_path / "ct", **wide)
    with pytest.raises(ValueError, match=r"IM0003: its corners lie 0\.036 mm off"):
        check_segmentation(files, grid_of(files), NAMES, MAKER)


def test_the_same_labels_have_the_same_uids_and_any_others_others(tmp_path: Path) -> None:
    files, labels = slices(tmp_path / "ct"), some_labels()
    others = slices(tmp_path / "other", SOPInstanceUID=[f"1.2.5.{k}" for k in range(6)])
    renamed = Maker("other", MAKER.version, MAKER.hashed, MAKER.codes)

    def uids(labels: np.ndarray, files: list[Path], names: dict[int, str], maker: Maker) -> tuple[str, str]:
        file = tmp_path / "ct.seg.dcm"
        write_segmentation(labels, files, grid_of(files), names, maker, file)
        read = pydicom.dcmread(file)
        assert pydicom.uid.UID(read.SOPInstanceUID).is_valid
        return read.SOPInstanceUID, read.SeriesInstanceUID

    first = uids(labels, files, NAMES, MAKER)
    assert uids(labels, files[::-1], NAMES, MAKER) == first
    changed = [
        uids(np.where(labels == 3, 0, labels), files, NAMES, MAKER),
        uids(labels, others, NAMES, MAKER),
        uids(labels, files, NAMES | {1: "Leber"}, MAKER),
        uids(labels, files, NAMES, renamed),
    ]
    assert len({uid for pair in (first, *changed) for uid in pair}) == 10


def test_a_scanners_own_headers_make_a_whole_object(tmp_path: Path) -> None:
    """A cardiac CT that pydicom ships, small; nothing that the standard asks for is missing."""
    found, _ = list_series(Path(pydicom.data.__file__).parent / "test_files/dicomdirtests")
    series, _ = choose_series(found, "SmartScore")
    grid = grid_of([*series.files])
    labels = np.random.default_rng(0).choice([0, 1, 7], grid.shape).astype(np.uint8)
    read = pydicom.dcmread(write(tmp_path, labels, [*series.files]))
    assert marked_voxels(tmp_path / "ct.seg.dcm", grid.affine) == voxels_of(labels, (1, 2, 3, 7))
    assert (read.PatientName, read.StudyDate) == ("Doe^Peter", pydicom.dcmread(series.files[0]).StudyDate)
    for module in get_iod_module_map()["segmentation"]:
        if module["usage"] == "M" and module["key"] != "segmentation-multi-frame-functional-groups":
            check_required_attributes(read, module["key"])
    assert read.ContentCreatorName == ""  # type 2, which highdicom leaves out and its table of modules does not know


def test_codes_are_those_of_the_dictionary() -> None:
    known = {
        (value, meaning) for meanings in dictionary.concepts["SCT"].values() for value, (meaning, _) in meanings.items()
    }
    sides = {(code.value, code.meaning) for code in _SIDES.values()}
    assert {*_ORGANS.values(), *_PAIRED.values(), *sides} - known == set()


@pytest.mark.parametrize("root", shipped_bundles(), ids=lambda root: root.name)
def test_shipped_bundles_classes_have_codes_of_snomed(root: Path) -> None:
    """By their names, or where these do not say it by the metadata."""
    names, metadata = class_names(root), class_codes(root)
    assert set(metadata) == set(names) - {0}
    private = {names[label] for label, code in metadata.items() if code.type.scheme != "SCT"}
    assert private <= {"portal and splenic veins"}
    said = read_metadata(root)["network_data_format"]["outputs"]["pred"].get("class_codes", {})
    assert set(said) == {
        name for label, name in names.items() if label and name not in private and not known_codes(name)
    }


@pytest.mark.parametrize(
    "row",
    [
        {"type": ["1", "SCT", "Liver"]},
        {"category": ["1", "SCT"], "type": ["1", "SCT", "Liver"]},
        {"category": ["1", "SCT", "A"], "type": ["1", "SCT", "B" * 65]},
        {"category": ["1", "SCT", "A"], "type": ["1", "SCT", "B"], "side": "left"},
        "10200004",
    ],
)
def test_codes_of_another_form_are_refused(row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_unetfamily.bundles import metadata

    changed = read_metadata(find_bundle("phantom_ct"))
    changed["network_data_format"]["outputs"]["pred"]["class_codes"] = {"liver": row}
    monkeypatch.setattr(metadata, "read_metadata", lambda root: changed)
    with pytest.raises(ValueError, match=r"metadata\.json: class_codes: .*; of a class a category, a type"):
        class_codes(find_bundle("phantom_ct"))


def test_an_ensemble_is_named_by_all_and_coded_by_the_first() -> None:
    roots = [find_bundle("hippocampus_mr"), find_bundle("phantom_ct")]
    maker = maker_of(roots, ["0" * 64, "1" * 64])
    assert (maker.name, maker.version) == ("hippocampus_mr + phantom_ct", "0.2.0 + 0.1.0")
    assert maker.codes[1].type.meaning == "Hippocampus"
    assert len(maker.hashed) == 64
    assert maker.hashed not in {"0" * 64, "1" * 64}


PHANTOM = "phantom_000"


@pytest.fixture
def scans(phantoms: Path, tmp_path: Path) -> Path:
    """A phantom as a DICOM series, in a folder of its own among the scans."""
    image = nib.load(phantoms / f"imagesTr/{PHANTOM}.nii.gz")
    image = image.as_reoriented([(0, -1), (1, -1), (2, 1)])  # columns to the left, rows to the back
    uids = [f"1.2.3.4.{k}" for k in range(image.shape[2])]
    own = {"SOPInstanceUID": uids, "FrameOfReferenceUID": "1.2.9", **PATIENT}
    write_series(tmp_path / "scans/visit", np.asarray(image.dataobj, np.float32), image.affine, **own)
    return tmp_path / "scans"


def held_by_both(folder: Path, names: dict[int, str]) -> set[str]:
    """The classes that label map and DICOM Segmentation mark, in the same voxels."""
    image = nib.load(folder / "visit.nii.gz")
    file = folder / "visit.seg.dcm"
    described = [segment.SegmentLabel for segment in pydicom.dcmread(file).SegmentSequence]
    ids = {name: label for label, name in names.items()}
    voxels = voxels_of(np.asarray(image.dataobj), [ids[name] for name in described])
    assert marked_voxels(file, image.affine) == voxels
    return {described[number - 1] for number in voxels}


def test_a_cohort_of_series_has_both_and_resumes(
    bundle: Path, scans: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The output folder lies among the scans, and is none of them."""
    out = scans / "out"
    words = ["predict", str(bundle), str(scans), "-o", str(out), "--dicom-seg", "--no-previews", "--device", "cpu"]
    assert main(words) == 0
    assert held_by_both(out, class_names(bundle))
    record = read_record(record_file(out, "visit"))
    assert record is not None
    assert set(record.outputs) == {"visit.nii.gz", "visit.seg.dcm"}
    file, first = out / "visit.seg.dcm", (out / "visit.seg.dcm").read_bytes()
    assert main(words) == 0
    assert "1 finished before" in capsys.readouterr().out.splitlines()[-1]
    assert file.read_bytes() == first
    file.write_bytes(first[:-100])
    assert main(words) == 0
    assert "1 done" in capsys.readouterr().out.splitlines()[-1]
    assert (out / "details/changed/visit.seg.dcm").stat().st_size == len(first) - 100
    assert pydicom.dcmread(file).SOPInstanceUID == pydicom.dcmread(BytesIO(first)).SOPInstanceUID
    words.remove("--dicom-seg")  # other settings, by which files would be replaced
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert not warnings_in(caplog)


def test_the_object_holds_what_the_label_map_holds(bundle: Path, scans: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle, torch.device("cpu"))
    all_of_it = {"dicom_seg": True}
    [whole] = predict(opened, [scans], tmp_path / "whole", **all_of_it)
    assert whole.error is None
    found = sorted(held_by_both(tmp_path / "whole", opened.names))
    assert len(found) > 1
    asked: dict[str, Any] = {"roi": tuple(found[1:]), "keep_largest": tuple(found), "min_volume": {found[1]: 1.5}}
    [part] = predict(opened, [scans], tmp_path / "part", **all_of_it, **asked)
    assert part.error is None
    assert held_by_both(tmp_path / "part", opened.names) <= set(found[1:])
    [split] = predict(opened, [scans], tmp_path / "split", **all_of_it, split=True)
    assert split.error is None
    uids = [pydicom.dcmread(tmp_path / f"{name}/visit.seg.dcm").SOPInstanceUID for name in ("whole", "split", "part")]
    assert uids[0] != uids[2]
    assert marked_voxels(tmp_path / "split/visit.seg.dcm", whole_affine(tmp_path)) == marked_voxels(
        tmp_path / "whole/visit.seg.dcm", whole_affine(tmp_path)
    )


def whole_affine(folder: Path) -> np.ndarray:
    return np.asarray(nib.load(folder / "whole/visit.nii.gz").affine)


def test_overlapping_classes_of_a_bundle_are_segments(overlapping_bundle: Path, scans: Path, tmp_path: Path) -> None:
    opened = open_bundle(overlapping_bundle, torch.device("cpu"))
    [case_result] = predict(opened, [scans], tmp_path / "out", dicom_seg=True)
    assert case_result.error is None
    image = nib.load(tmp_path / "out/visit.nii.gz")
    masks = np.asarray(image.dataobj)
    expected = {n: voxels_of(masks[..., n - 1], [1]).get(1) for n in (1, 2)}
    assert marked_voxels(tmp_path / "out/visit.seg.dcm", image.affine) == {n: v for n, v in expected.items() if v}


def test_a_series_that_was_resampled_fails_alone_and_before_the_network(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    gapped = shutil.copytree(scans / "visit", scans / "gapped")
    (gapped / "IM0003").unlink()
    opened = open_bundle(bundle, torch.device("cpu"))
    failed, done = predict(opened, [scans], tmp_path / "out", dicom_seg=True, gaps="resample")
    assert "they were resampled" in str(failed.error)
    assert "network" not in failed.record.seconds
    assert done.error is None
    assert sorted(file.name for file in (tmp_path / "out").glob("[gv]*.*")) == [
        *("gapped.json", "visit.json", "visit.nii.gz", "visit.seg.dcm", "volumes.csv"),
    ]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_case_that_is_no_series_is_named_before_anything_is_done(
    options: list[str], bundle: Path, scans: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = phantoms / f"imagesTr/{PHANTOM}.nii.gz"
    words = ["predict", str(bundle), str(scans), str(other), "-o", str(tmp_path / "out"), "--dicom-seg", *options]
    assert main(words) == 2
    assert f"{other}: is no DICOM series" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_codes_that_cannot_be_used_are_refused_before_anything_is_done(
    options: list[str], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["outputs"]["pred"]["class_codes"] = {"liver": ["10200004", "SCT", "Liver"]}
    file.write_text(json.dumps(metadata))
    assert main(["predict", str(bundle), str(scans), "-o", str(tmp_path / "out"), "--dicom-seg", *options]) == 2
    assert "class_codes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_says_what_to_install(
    bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "find_spec", lambda name: None)
    assert main(["predict", str(bundle), str(scans), "-o", str(tmp_path / "out"), "--dicom-seg"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install 'monai-unetfamily[dicom]'" in said
    assert not (tmp_path / "out").exists()
