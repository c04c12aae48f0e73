"""Overlapping masks are scored class by class; 4-D files, folders of masks and names have to agree."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.evaluation import Score, evaluate_case, evaluate_folders
from monai_unetfamily.io import write_labels, write_masks, write_separate_masks

SPACING = (0.8, 1.0, 5.0)  # mm
AFFINE = np.diag([*SPACING, 1.0])
NAMES = {1: "whole tumour", 2: "core"}
SHAPE = (14, 14, 14)


def masks(shift: int = 0) -> np.ndarray:
    """The core within the whole."""
    found = np.zeros((*SHAPE, 2), np.uint8)
    found[3:9, 3:9, 3:9, 0] = 1
    found[4:7, 4:7, 4:7, 1] = 1
    return np.roll(found, shift, axis=0)


@pytest.fixture
def like(tmp_path: Path) -> Path:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), tmp_path / "image.nii")
    return tmp_path / "image.nii"


def put(side: str, form: str, found: np.ndarray, like: Path, names: dict[int, str] = NAMES, case: str = "a") -> Path:
    """Write a case in one of the forms, and return its side's folder."""
    folder = like.parent / side
    folder.mkdir(exist_ok=True)
    if form == "map":
        write_labels(found, like, folder / f"{case}.nii.gz")
    elif form == "4d":
        write_masks(found, names, like, folder / f"{case}.nii.gz")
    elif form == "unnamed":
        nib.save(nib.Nifti1Image(found, AFFINE), folder / f"{case}.nii.gz")
    else:
        write_separate_masks(found, names, like, folder / case)
    return folder


def numbers(scores: list[Score]) -> list[tuple[float, ...]]:
    return [score[2:] for score in scores]


def expected(shift: int) -> list[Score]:
    return [
        score
        for channel, name in enumerate(NAMES.values())
        for score in evaluate_case(masks(shift)[..., channel], masks()[..., channel], SPACING, {1: name}, case="a")
    ]


@pytest.mark.parametrize("mine", ["4d", "unnamed", "split"])
@pytest.mark.parametrize("theirs", ["4d", "unnamed", "split"])
def test_each_class_is_scored_by_itself_in_every_form(like: Path, mine: str, theirs: str) -> None:
    sides = put("mine", mine, masks(1), like), put("theirs", theirs, masks(), like)
    assert evaluate_folders(*sides, NAMES) == expected(1)
    if (mine, theirs) not in {("split", "unnamed"), ("unnamed", "split")}:
        found = evaluate_folders(*sides)
        named = ["1", "2"] if mine == theirs == "unnamed" else [*NAMES.values()]
        named = ["core", "whole_tumour"] if mine == theirs == "split" else named
        assert [score.label for score in found] == named
        assert sorted(numbers(found)) == sorted(numbers(expected(1)))


def test_a_split_label_map_scores_as_the_map(like: Path) -> None:
    labels, truth = (masks(shift).sum(axis=-1).astype(np.uint8) for shift in (1, 0))
    whole, parts = put("whole", "unnamed", labels, like), put("parts", "split", labels, like)
    reference = put("reference", "unnamed", truth, like)
    named = {0: "background"} | NAMES
    assert evaluate_folders(parts, reference, named) == evaluate_folders(whole, reference, named)


def test_an_absent_class_and_a_missed_one(like: Path) -> None:
    empty = masks()
    empty[..., 1] = 0
    mine, theirs = put("mine", "4d", empty, like), put("theirs", "4d", masks(), like)
    whole, core = evaluate_folders(mine, theirs)
    assert (whole.dice, core.dice, core.hd95) == (1, 0, np.inf)
    _, core = evaluate_folders(mine, mine)
    assert np.isnan(core.dice)


def test_headers_that_disagree_are_refused(like: Path) -> None:
    mine, theirs = (
        put("mine", "4d", masks(), like),
        put("theirs", "4d", masks()[..., ::-1], like, {1: "core", 2: "whole"}),
    )
    with pytest.raises(ValueError, match="names channel 0 '(core|whole tumour)'"):
        evaluate_folders(mine, theirs)
    with pytest.raises(ValueError, match=r"mine.*names channel 0 'whole tumour'; .*'liver'"):
        evaluate_folders(mine, mine, {1: "liver"})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (masks()[..., 0], "got one label map in .* against 4-D masks in"),
        (masks()[..., :1], "got one label map in .* against 4-D masks in"),
        (masks()[..., [0, 1, 1]], r"labels \[3\] in .*; \[1, 2\] are allowed"),
        (2 * masks(), "no label; whole numbers from 0 to 1 are allowed"),
        (0.5 * masks(), "no label"),
        (masks()[:-1], "different grids"),
        (masks()[..., None], "5-D"),
    ],
)
def test_files_that_do_not_fit_are_refused(like: Path, found: np.ndarray, message: str) -> None:
    mine, theirs = put("mine", "unnamed", found, like), put("theirs", "4d", masks(), like)
    with pytest.raises(ValueError, match=message):
        evaluate_folders(mine, theirs, NAMES)


def test_too_few_masks_are_refused(like: Path) -> None:
    side = put("mine", "unnamed", masks(), like)
    with pytest.raises(ValueError, match="got 2 masks in .*; one for each of .*'edema'"):
        evaluate_folders(side, side, NAMES | {3: "edema"})


def test_folders_of_other_masks_are_refused(like: Path) -> None:
    mine, theirs = put("mine", "split", masks(), like), put("theirs", "4d", masks(), like)
    (mine / "a/core.nii.gz").rename(mine / "a/edema.nii.gz")
    with pytest.raises(ValueError, match=r"add or take out \['core', 'edema'\]"):
        evaluate_folders(mine, theirs)
    with pytest.raises(ValueError, match="label ids without names"):
        evaluate_folders(mine, put("unnamed", "unnamed", masks(), like))


def test_masks_of_a_folder_share_a_grid(like: Path) -> None:
    mine = put("mine", "split", masks(), like)
    nib.save(nib.Nifti1Image(masks()[..., 1], np.diag([0.8, 1.0, 5.1, 1.0])), mine / "a/core.nii.gz")
    with pytest.raises(ValueError, match="one grid .* in the whole folder"):
        evaluate_folders(mine, mine, NAMES)
    nib.save(nib.Nifti1Image(2 * masks()[..., 1], AFFINE), mine / "a/core.nii.gz")
    with pytest.raises(ValueError, match="values up to 2"):
        evaluate_folders(mine, mine, NAMES)


def test_every_case_of_one_side_is_on_the_other(like: Path) -> None:
    mine, theirs = put("mine", "split", masks(), like), put("theirs", "4d", masks(), like)
    put("mine", "split", masks(), like, case="b")
    with pytest.raises(ValueError, match="1 of 2 files without a reference"):
        evaluate_folders(mine, theirs)


@pytest.mark.parametrize("form", ["map", "split"])
def test_unlabelled_voxels_of_a_map_are_left_out_in_every_form(like: Path, form: str) -> None:
    names = {0: "background", 1: "whole tumour", 2: "core", 255: "ignore"}
    truth = masks().sum(axis=-1, dtype=np.uint8)
    found = np.roll(truth, 2, axis=0)
    truth[9:] = 255  # the error at the far end is where nobody labelled
    cut = np.where(truth == 255, 0, found)
    expected = evaluate_case(cut, np.where(truth == 255, 0, truth), SPACING, NAMES, case="a")
    scores = evaluate_folders(put("mine", form, found, like), put("theirs", "map", truth, like), names)
    assert numbers(scores) == numbers(expected)


@pytest.mark.parametrize("form", ["4d", "split"])
def test_unlabelled_voxels_of_one_mask_are_left_out_of_that_class_alone(like: Path, form: str) -> None:
    truth, found = masks(), masks(2)
    outside = np.zeros((*SHAPE, 2), bool)
    outside[9:, ..., 0] = True
    reference = np.where(outside, 255, truth).astype(np.uint8)
    (like.parent / "theirs").mkdir()
    nib.save(nib.Nifti1Image(reference, AFFINE), like.parent / "theirs" / "a.nii.gz")
    names = NAMES | {255: "ignore"}
    scores = evaluate_folders(put("mine", form, found, like), like.parent / "theirs", names)
    truth[outside] = found[outside] = 0
    expected = [
        score
        for channel, name in enumerate(NAMES.values())
        for score in evaluate_case(found[..., channel], truth[..., channel], SPACING, {1: name}, case="a")
    ]
    assert numbers(scores) == numbers(expected)


def test_files_and_folders_of_masks_side_by_side_are_refused(like: Path) -> None:
    put("mine", "4d", masks(), like)
    with pytest.raises(ValueError, match="holds label maps, and folders of them"):
        evaluate_folders(put("mine", "split", masks(), like, case="b"), like.parent / "mine")


def test_a_mask_of_0_and_255_is_told_from_another_grid(like: Path) -> None:
    theirs, mine = put("theirs", "split", masks(), like), put("mine", "split", masks(), like)
    file = mine / "a" / "core.nii.gz"
    write_labels(nib.load(file).get_fdata().astype(np.uint8) * 255, like, file)
    with pytest.raises(ValueError, match="values up to 255 .* a mask of 0 and 1"):
        evaluate_folders(mine, theirs)
