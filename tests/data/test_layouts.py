"""nnU-Net's layout, folds, and what a data set says of itself."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged

from monai_unetfamily.data import (
    case_study,
    check_labels,
    count_folds,
    image_files,
    load_cases,
    read_facts,
    read_label_names,
)
from monai_unetfamily.io import read_study, stem, write_label_image2d
from monai_unetfamily.transforms import Image2DReader

LABELS = {"background": 0, "tumour": 1, "ignore": 2}
MODALITIES = {"0": "T1w", "1": "FLAIR"}


def nnunet(folder: Path, cases: int = 6, ending: str = ".nii.gz", **changes: object) -> Path:
    """Empty files in nnU-Net's layout: listing cases must not open them."""
    listing = {"channel_names": MODALITIES, "labels": LABELS, "numTraining": cases, "file_ending": ending} | changes
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for case in range(cases):
        for channel in range(len(listing["channel_names"])):  # type: ignore[arg-type]
            (folder / "imagesTr" / f"c{case}_{channel:04}{ending}").touch()
        (folder / "labelsTr" / f"c{case}{ending}").touch()
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def validated(folder: Path, fold: object) -> list[str]:
    return [stem(Path(case["label"])) for case in load_cases(folder, "validation", fold)]  # type: ignore[arg-type]


def test_nnunet_lists_the_files_of_all_channels(tmp_path: Path) -> None:
    nnunet(tmp_path)
    case = load_cases(tmp_path, "validation")[0]
    assert [Path(file).name for file in case["image"]] == ["c0_0000.nii.gz", "c0_0001.nii.gz"]
    assert Path(case["label"]) == tmp_path / "labelsTr" / "c0.nii.gz"
    assert all(file.is_absolute() for file in image_files(case))


def test_one_channel_is_a_path(tmp_path: Path) -> None:
    nnunet(tmp_path, channel_names={"0": "CT"})
    assert load_cases(tmp_path)[0]["image"] == str(tmp_path / "imagesTr" / "c1_0000.nii.gz")


def test_a_picture_may_hold_red_green_and_blue(tmp_path: Path) -> None:
    nnunet(tmp_path, 0, ".png", channel_names={"0": "R", "1": "G", "2": "B"})
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        (tmp_path / f"{name}.png").touch()
    assert Path(load_cases(tmp_path, "validation")[0]["image"]).name == "a_0000.png"


def test_nnunets_label_table_is_turned_round(tmp_path: Path) -> None:
    assert read_label_names(nnunet(tmp_path)) == {0: "background", 1: "tumour", 2: "ignore"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"background": 0, "whole": [1, 2]}, r"got label 'whole': the region \[1, 2\]; one id a class is allowed"),
        ({"background": 0, "a": 1, "b": 1}, "got label 1 twice, 'a' and 'b'; name each id once"),
        ({"a": 1}, "without 0"),
        ({"background": 0, "a": -1}, "got label 'a': -1"),
        ({"background": 0, "a": True}, "got label 'a': True"),
        ({"background": 0, "a": "1"}, "got label 'a': '1'"),
    ],
)
def test_tables_of_nnunet_that_cannot_be_used_are_refused(table: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_label_names(nnunet(tmp_path, labels=table))


def without(folder: Path, file: str) -> Path:
    (folder / file).unlink()
    return folder


def with_file(folder: Path, file: str) -> Path:
    (folder / file).touch()
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "a channel gone": (
        lambda d: without(nnunet(d), "imagesTr/c2_0001.nii.gz"),
        FileNotFoundError,
        r"c2_0001\.nii\.gz: no such file, though it is of case 'c2'",
    ),
    "a label gone": (
        lambda d: without(nnunet(d), "labelsTr/c2.nii.gz"),
        FileNotFoundError,
        r"labelsTr/c2\.nii\.gz: no such",
    ),
    "an image gone": (
        lambda d: with_file(nnunet(d), "labelsTr/c6.nii.gz"),
        FileNotFoundError,
        r"c6_0000\.nii\.gz: no such file",
    ),
    "another channel": (
        lambda d: with_file(nnunet(d), "imagesTr/c1_0002.nii.gz"),
        ValueError,
        "is channel 2; 2 are named",
    ),
    "another case of letters": (
        lambda d: with_file(without(nnunet(d), "imagesTr/c2_0001.nii.gz"), "imagesTr/c2_0001.NII.GZ"),
        FileNotFoundError,
        "c2_0001",
    ),
    "no channel": (lambda d: with_file(nnunet(d), "imagesTr/c1.nii.gz"), ValueError, "is not named as a channel"),
    "another ending": (lambda d: with_file(nnunet(d), "imagesTr/x_0000.nrrd"), ValueError, r"x_0000\.nrrd: ends other"),
    "an ending that is not read": (lambda d: nnunet(d, 0, ".nrrd"), ValueError, r"got \"file_ending\" '.nrrd'"),
    "no channels": (lambda d: nnunet(d, channel_names={}), ValueError, "names no channels"),
    "odd channels": (lambda d: nnunet(d, channel_names={"1": "CT"}), ValueError, r"got \"channel_names\""),
    "no cases": (lambda d: nnunet(d, 0), ValueError, r"holds no case_0000\.nii\.gz"),
    "no folder": (lambda d: moved(nnunet(d)), FileNotFoundError, "labelsTr: no such folder"),
}


def moved(folder: Path) -> Path:
    (folder / "labelsTr").rename(folder / "labels")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_nnunet_sets_that_cannot_be_meant_are_refused(name: str, tmp_path: Path) -> None:
    make, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        load_cases(make(tmp_path))
    assert str(caught.value).startswith(str(tmp_path))


def test_folds_part_the_cases(tmp_path: Path) -> None:
    nnunet(tmp_path, 7)
    everyone = {f"c{number}" for number in range(7)}
    held_out = [validated(tmp_path, fold) for fold in range(count_folds(tmp_path, 7))]
    assert sorted(name for names in held_out for name in names) == sorted(everyone)
    assert held_out[0] == validated(tmp_path, None)
    for fold, names in enumerate(held_out):
        assert {stem(Path(case["label"])) for case in load_cases(tmp_path, "training", fold)} == everyone - set(names)


def test_all_trains_on_every_case_and_watches_the_usual(tmp_path: Path) -> None:
    nnunet(tmp_path)
    assert len(load_cases(tmp_path, "training", "all")) == 6
    assert validated(tmp_path, "all") == validated(tmp_path, None)


@pytest.mark.parametrize(
    ("file", "words"), [("splits.json", ("training", "validation")), ("splits_final.json", ("train", "val"))]
)
def test_a_list_of_splits_is_the_folds(file: str, words: tuple[str, str], tmp_path: Path) -> None:
    nnunet(tmp_path)
    splits = [{words[0]: ["c0", "c2"], words[1]: ["c1"]}, {words[0]: ["c5"], words[1]: ["c3", "c4"]}]
    (tmp_path / file).write_text(json.dumps(splits))
    assert count_folds(tmp_path, 6) == 2
    assert validated(tmp_path, None) == validated(tmp_path, 0) == ["c1"]
    assert validated(tmp_path, 1) == ["c3", "c4"]
    assert len(load_cases(tmp_path, "training", "all")) == 6
    with pytest.raises(ValueError, match='lists 2 splits: got fold 2; 0 to 1, or "all", is allowed'):
        load_cases(tmp_path, fold=2)


def test_one_split_has_no_folds(tmp_path: Path) -> None:
    nnunet(tmp_path)
    (tmp_path / "splits.json").write_text('{"training": ["c0"], "validation": ["c1"]}')
    assert count_folds(tmp_path, 6) == 1
    assert validated(tmp_path, "all") == ["c1"]
    with pytest.raises(ValueError, match="got fold 0 of one split; .* make the file a list of splits"):
        load_cases(tmp_path, fold=0)


def test_two_cases_have_two_folds(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    assert count_folds(tmp_path, 2) == 2
    with pytest.raises(ValueError, match="got fold 2; 0 to 1, or"):
        load_cases(tmp_path, "validation", fold=2)


@pytest.mark.parametrize("fold", [5, -1, "1", True, 1.0])
def test_folds_that_there_are_not_are_refused(fold: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"got fold {fold!r}; 0 to 4, or"):
        load_cases(nnunet(tmp_path), fold=fold)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["5", '"all"', '[{"training": ["c0"]}]', "[7]"])
def test_files_that_hold_no_split_are_refused(content: str, tmp_path: Path) -> None:
    (nnunet(tmp_path) / "splits.json").write_text(content)
    assert count_folds(tmp_path, 6) == 1
    with pytest.raises(ValueError, match=r"splits\.json: has no list"):
        load_cases(tmp_path)


def test_two_files_of_splits_are_refused(tmp_path: Path) -> None:
    for name in ("splits.json", "splits_final.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(ValueError, match="lies beside it; one of the two"):
        load_cases(nnunet(tmp_path))


def volumes(folder: Path, shift: float = 0.0) -> Path:
    """Two channels and a label map, 4 x 5 x 6 voxels; the second channel `shift` mm aside."""
    nnunet(folder, 1)
    for number in range(2):
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[0, 3] = number * shift
        voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6) * (number + 1)
        nib.save(nib.Nifti1Image(voxels, affine), folder / "imagesTr" / f"c0_000{number}.nii.gz")
    label = nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    nib.save(label, folder / "labelsTr" / "c0.nii.gz")
    return folder


def test_channels_are_checked_and_read_alike_by_every_door(tmp_path: Path) -> None:
    [case] = load_cases(volumes(tmp_path), "validation")
    check_labels(case, read_label_names(tmp_path))
    ours = read_study(case_study(case), channels=2).voxels
    monai = LoadImaged(keys="image", ensure_channel_first=True)(case)["image"]
    assert ours.shape == (2, 4, 5, 6)
    assert np.array_equal(ours, monai.numpy())
    assert case_study(case).name == "c0"


def test_a_file_that_cannot_be_read_fails_its_own_case_alone(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.mha"):
        (tmp_path / name).write_text("no image")
        study = case_study({"image": str(tmp_path / name), "label": "b.nii.gz"})
        assert (study.name, study.channel_dim) == ("b", None)
        with pytest.raises(ValueError, match="cannot be read|is no MetaImage"):
            read_study(study)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    [case] = load_cases(volumes(tmp_path, shift=1.0), "validation")
    with pytest.raises(ValueError, match=r"c0_0001\.nii\.gz: lies 0\.5 voxels off"):
        check_labels(case, read_label_names(tmp_path))


def test_channels_in_one_file_are_checked_and_read_alike(tmp_path: Path) -> None:
    image, label = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), image)
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), label)
    case = {"image": str(image), "label": str(label)}
    check_labels(case, {0: "background", 1: "tumour"})
    study = case_study(case)
    assert (study.name, study.channel_dim) == ("b", 3)
    monai = LoadImaged(keys="image", ensure_channel_first=True)(case)["image"]
    assert np.array_equal(read_study(study).voxels, monai.numpy())


def test_pictures_of_several_channels_are_read_alike(tmp_path: Path) -> None:
    files = [tmp_path / f"a_000{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        write_label_image2d(np.arange(12).reshape(3, 4) + number, file)
    case = {"image": [str(file) for file in files], "label": str(files[0])}
    check_labels(case, dict(enumerate("abcdefghijkl")))
    monai = LoadImaged(keys="image", reader=Image2DReader, ensure_channel_first=True)(case)["image"]
    assert np.array_equal(read_study(case_study(case)).voxels, monai.numpy())
    write_label_image2d(np.zeros((3, 5), int), files[1])
    with pytest.raises(ValueError, match=r"a_0001\.png: got shape \(3, 5\)"):
        check_labels(case, {0: "background"})


@pytest.mark.parametrize(
    ("names", "modality"),
    [(["CT"], "CT"), (["T1w", "T2-FLAIR", "mri", "ADC"], "MR"), (["CT", "PET"], "CT+PT"), (["noNorm"], ""), ([], "")],
)
def test_the_modality_follows_from_the_channels(names: list[str], modality: str, tmp_path: Path) -> None:
    channels = {str(number): name for number, name in enumerate(names)}
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": channels, "license": "CC0", "name": "Set"}))
    facts = read_facts(tmp_path)
    assert facts.modality == modality
    assert facts.channels == tuple(names)
    assert (facts.name, facts.licence, facts.reference) == ("Set", "CC0", "")


def test_paired_folders_say_their_name_alone(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    assert read_facts(tmp_path) == (tmp_path.name, (), "", "", "", "")
