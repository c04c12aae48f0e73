"""Laws of studies: every image that inputs name is found once, in order, under a name of its own."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from monai_unetfamily.data import find_studies
from monai_unetfamily.io import Study, read_study
from tests.support.dicom_files import write_series


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(*inputs: str | Path, **how: object) -> list[str]:
    return [study.name for study in find_studies(inputs, **how).studies]  # type: ignore[arg-type]


def test_a_folder_gives_its_images_in_order_and_names_the_others(tmp_path: Path) -> None:
    read = ("B.NII.GZ", "a.nii", "c.mha", "d.mhd", "d.raw", "e.nrrd", "f.nhdr", "g.png", "h.TIF", "i.hdr", "i.img")
    files(tmp_path, *read, "notes.txt", "x.jpg", "y.svs", ".hidden.nii", "deeper/z.nii")
    found = find_studies([tmp_path])
    assert [(study.name, study.kind) for study in found.studies] == [
        ("B", "nifti"),
        ("a", "nifti"),
        *((name, "itk") for name in "cdef"),
        *((name, "picture") for name in "gh"),
        ("i", "nifti"),
    ]
    assert found.studies[-1].files == (tmp_path / "i.hdr",)
    assert found.notes == (
        f"{tmp_path}: passed over, since they are not read: x.jpg, y.svs",
        f"{tmp_path}: passed over, since they are folders without DICOM: deeper",
    )


def test_many_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    files(tmp_path, "a.nii", *(f"{number:02}.jpg" for number in range(25)))
    (note,) = find_studies([tmp_path]).notes
    assert note.endswith("18.jpg, 19.jpg and 5 more")


def test_inputs_keep_their_order(tmp_path: Path) -> None:
    files(tmp_path, "z.nii", "folder/b.nii", "folder/a.nii", "y.nii")
    assert names(tmp_path / "z.nii", tmp_path / "folder", str(tmp_path / "y.nii")) == ["z", "a", "b", "y"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/ct.nii", ["ct"]),
        ("**/*.nii.gz", ["a", "b"]),
        ("p?/[ab].nii.gz", ["a", "b"]),
        ("p*", ["a", "b", "ct"]),  # folders, as they would be taken by themselves
        ("**", ["a", "b", "ct"]),
        ("*.nii", ["odd[1]"]),
    ],
)
def test_patterns_that_no_shell_has_expanded(pattern: str, expected: list[str], tmp_path: Path) -> None:
    files(tmp_path, "p1/a.nii.gz", "p2/b.nii.gz", "p2/ct.nii", "p2/notes.md", "p3/notes.md")
    if "odd[1]" in expected:
        files(tmp_path, "odd[1].nii")
    assert sorted(names(str(tmp_path / pattern))) == expected


def test_a_file_that_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    files(tmp_path, "odd[1].nii", "odd1.nii")
    assert names(tmp_path / "odd[1].nii") == ["odd[1]"]


def test_a_pattern_names_what_it_passes_over(tmp_path: Path) -> None:
    files(tmp_path, "1/a.nii", "1/photo.jpg")
    (note,) = find_studies([str(tmp_path / "*" / "*")]).notes
    assert note.endswith("not read: photo.jpg")


CASES = ("b_0000.nii.gz", "b_0001.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz")


def test_channels_of_a_case_are_joined_in_their_order(tmp_path: Path) -> None:
    files(tmp_path, *CASES)
    found = find_studies([tmp_path], channels=2).studies
    assert [(study.name, [file.name for file in study.files]) for study in found] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]
    shell = find_studies([tmp_path / name for name in CASES], channels=2).studies
    assert [study.files for study in shell] == [study.files for study in reversed(found)]


def test_a_channel_that_is_missing_is_named_in_its_place(tmp_path: Path) -> None:
    files(tmp_path, "a_0001.nii.gz")
    (study,) = find_studies([tmp_path], channels=3).studies
    assert [file.name for file in study.files] == [f"a_000{number}.nii.gz" for number in range(3)]


def test_cases_of_one_name_in_two_folders_are_not_joined(tmp_path: Path) -> None:
    files(tmp_path, "1/a_0000.nii", "2/a_0001.nii")
    with pytest.raises(ValueError, match="would both write 'a'"):
        names(tmp_path / "1", tmp_path / "2", channels=2)


@pytest.mark.parametrize("how", [{}, {"channels": 2, "channel_dim": 3}], ids=str)
def test_one_file_a_case_is_never_joined(how: dict[str, int], tmp_path: Path) -> None:
    files(tmp_path / "all", "a_0000.nii", "b_0000.nii")
    files(tmp_path / "some", "a_0000.nii", "a_0001.nii")
    assert names(tmp_path / "all", **how) == ["a", "b"]
    assert names(tmp_path / "some", **how) == ["a_0000", "a_0001"]
    assert {study.channel_dim for study in find_studies([tmp_path / "all"], **how).studies} == {how.get("channel_dim")}


@pytest.mark.parametrize(("sections", "expected"), [(("Ts", "Tr"), "Ts"), (("Tr",), "Tr")])
def test_a_data_set_gives_its_test_images_or_says_so(sections: Sequence[str], expected: str, tmp_path: Path) -> None:
    for section in ("Ts", "Tr"):
        (tmp_path / f"images{section}").mkdir()
    for section in sections:
        files(tmp_path, f"images{section}/{section}_0000.nii.gz", f"images{section}/._{section}_0000.nii.gz")
    files(tmp_path, "labelsTr/Tr.nii.gz", "dataset.json", "plans.json")
    found = find_studies([tmp_path])
    assert [study.name for study in found.studies] == [expected]
    assert len(found.notes) == (expected == "Tr")


def test_a_folder_of_predictions_with_its_listing_is_a_plain_one(tmp_path: Path) -> None:
    assert names(files(tmp_path, "a.nii.gz", "dataset.json", "plans.json")) == ["a"]


def test_bids_scans_are_named_by_where_they_lie(tmp_path: Path) -> None:
    scans = ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-1/ct/sub-02_ses-1_ct.nii")
    others = ("sub-01/func/sub-01_bold.nii.gz", "derivatives/seg/sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/x.json")
    files(tmp_path, *scans, *others)
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    found = find_studies([tmp_path])
    assert [study.name for study in found.studies] == ["sub-01/anat/sub-01_T1w", "sub-02/ses-1/ct/sub-02_ses-1_ct"]
    assert [study.files for study in found.studies] == [(tmp_path / scan,) for scan in scans]
    assert found.notes == (f"{tmp_path}: passed over, since they are no scans: derivatives",)


def test_a_list_is_read_beside_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "in/a.nii", "in/b#1.nii", "more/c.nii", "more/d.nii", "sub/e.nii")
    lines = ("# the cohort", "", "in/a.nii  # the first", "in/b#1.nii", "more", "*/e.nii", str(tmp_path / "in/x.nii"))
    (tmp_path / "cohort.TXT").write_text("\r\n".join(lines))
    monkeypatch.chdir(tmp_path / "in")
    assert names("../cohort.TXT") == ["a", "b#1", "c", "d", "e", "x"]


def test_a_table_names_cases_and_channels(tmp_path: Path) -> None:
    rows = ("\ufeffpatient,image_1,name,image_0", '7,"a, b/t2.nii",first,t1.nii', "8,q_0001.nii,,q_0000.nii")
    (tmp_path / "cohort.csv").write_text("\n".join(rows), encoding="utf-8")
    found = find_studies([tmp_path / "cohort.csv"], channels=2).studies
    assert [(study.name, study.files) for study in found] == [
        ("first", (tmp_path / "t1.nii", tmp_path / "a, b/t2.nii")),
        ("q", (tmp_path / "q_0000.nii", tmp_path / "q_0001.nii")),
    ]


@pytest.mark.parametrize(("one", "other"), [("a", "./a"), ("a//b", "a/b"), ("a/./b", "a/b")])
def test_a_name_in_a_table_is_the_same_however_it_is_written(one: str, other: str, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(f"name,image\n{one},x.nii\n")
    assert names(table) == [other.removeprefix("./")]
    table.write_text(f"name,image\n{one},x.nii\n{other},y.nii\n")
    with pytest.raises(ValueError, match="would both write"):
        find_studies([table])


def visit(folder: Path, **tags: object) -> list[Path]:
    return write_series(folder, np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([1.0, 1.0, 2.0, 1.0]), **tags)


def test_a_dicom_folder_is_one_case_and_so_is_each_of_its_slices(tmp_path: Path) -> None:
    ct = tmp_path / "ct"
    slices = tuple(file.rename(file.with_suffix(".dcm")) for file in visit(ct))
    files(ct, "DICOMDIR", "report.txt")
    for inputs in ([ct], slices, [str(ct / "*.dcm")], [tmp_path], [str(tmp_path / "**")]):
        (study,) = find_studies(inputs).studies
        assert (study.name, study.kind, study.files) == ("ct", "dicom", slices)
        assert study.notes[0].startswith("series 2 'Abdomen 5.0'")
        assert "report.txt" in study.notes[-1]


def test_a_folder_of_dicom_folders_is_a_case_each(tmp_path: Path) -> None:
    visit(tmp_path / "a" / "st1" / "se1", SeriesNumber=1)
    visit(tmp_path / "a" / "st1" / "se2", SeriesNumber=2, SeriesInstanceUID="1.9", ImageType="ORIGINAL")
    visit(tmp_path / "b")
    visit(tmp_path / ".c")
    files(tmp_path, "d.nii", "e/notes.txt", "e/README")
    found = find_studies([tmp_path])
    assert [(study.name, len(study.files)) for study in found.studies] == [("d", 1), ("a", 3), ("b", 3)]
    assert found.studies[1].notes[1].startswith("passed over: series 2")
    assert found.notes == (f"{tmp_path}: passed over, since they are folders without DICOM: e",)
    assert {file.parent.name for file in find_studies([tmp_path / "a"], series="2").studies[0].files} == {"se2"}


def test_a_series_that_cannot_be_chosen_fails_alone(tmp_path: Path) -> None:
    visit(tmp_path / "bad", SeriesNumber=8)
    visit(tmp_path / "good", SeriesNumber=7)
    bad, good = find_studies([tmp_path], series="7").studies
    assert bad == Study("bad", (tmp_path / "bad",), "dicom", notes=bad.notes)
    with pytest.raises(ValueError, match=f"{tmp_path / 'bad'}: 0 series fit '7'"):
        read_study(bad)
    assert read_study(good).voxels.shape == (1, 5, 4, 3)
