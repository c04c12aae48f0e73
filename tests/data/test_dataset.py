"""Laws of data sets: what is listed exists, sections part the cases, labels fit their image and table."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.data import Case, check_labels, load_cases, read_label_names
from monai_unetfamily.io import stem, write_label_image2d, write_masks

NAMES = {0: "background", 1: "organ"}
AFFINE = np.diag([0.8, 0.8, 5.0, 1.0])
AFFINE[:3, 3] = (-406.2, -406.2, 12.0)


def dataset(folder: Path, n: int = 7, **changes: object) -> Path:
    """An MSD folder of `n` empty files: listing cases must not open them."""
    entries = [{"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"} for i in range(n)]
    for entry in entries:
        for file in entry.values():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
    content = {"labels": {"1": "organ", "0": "background"}, "training": entries[::-1], **changes}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def split(folder: Path, **sections: object) -> Path:
    (folder / "splits.json").write_text(json.dumps(sections))
    return folder


def names(cases: list[Case]) -> list[str]:
    return [stem(Path(case["image"])) for case in cases]


def test_every_fifth_case_is_validation_and_the_sections_part_the_cases(tmp_path: Path) -> None:
    dataset(tmp_path)
    assert names(load_cases(tmp_path, "validation")) == ["c0", "c5"]
    assert names(load_cases(tmp_path, "training")) == ["c1", "c2", "c3", "c4", "c6"]


def test_a_split_file_decides(tmp_path: Path) -> None:
    split(dataset(tmp_path), training=["c6", "c0"], validation=["c3"])
    assert names(load_cases(tmp_path, "training")) == ["c0", "c6"]
    assert names(load_cases(tmp_path, "validation")) == ["c3"]


def test_paths_are_absolute_and_image_and_label_belong_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path)
    monkeypatch.chdir(tmp_path)
    for case in load_cases(Path()):
        assert set(case) == {"image", "label"}
        assert Path(case["image"]).is_absolute()
        assert Path(case["image"]).parent == tmp_path / "imagesTr"
        assert Path(case["label"]) == tmp_path / "labelsTr" / Path(case["image"]).name


def invalid(folder: Path) -> Path:
    (folder / "dataset.json").write_text('{"training": [')
    return folder


def without(folder: Path, file: str) -> Path:
    (folder / file).unlink()
    return folder


TWICE = [{"image": "imagesTr/c1.nii.gz", "label": "labelsTr/c1.nii.gz"}] * 2
BAD_SETS: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "no listing": (lambda d: d, FileNotFoundError, r"dataset\.json: no such file, nor images/ and labels/"),
    "invalid JSON": (invalid, ValueError, r"dataset\.json: is not valid JSON"),
    "a list": (lambda d: without_table(d), ValueError, "holds a list"),
    "no key": (lambda d: dataset(d, training=None), ValueError, "lists no cases"),
    "no cases": (lambda d: dataset(d, 0), ValueError, "lists no cases"),
    "odd entry": (lambda d: dataset(d, training=["a.nii"]), ValueError, "got case 'a.nii'"),
    "no label": (lambda d: dataset(d, training=[{"image": "a.nii"}]), ValueError, "got case"),
    "twice": (lambda d: dataset(d, training=TWICE), ValueError, "lists 'c1' twice"),
    "one case": (lambda d: dataset(d, 1), ValueError, "'training' is empty"),
    "image gone": (
        lambda d: without(dataset(d), "imagesTr/c2.nii.gz"),
        FileNotFoundError,
        r"imagesTr/c2\.nii\.gz: no such file",
    ),
    "label gone": (
        lambda d: without(dataset(d), "labelsTr/c2.nii.gz"),
        FileNotFoundError,
        r"labelsTr/c2\.nii\.gz: no such file",
    ),
    "unknown case": (
        lambda d: split(dataset(d), training=["c1", "x"], validation=["c2"]),
        ValueError,
        r"splits\.json: training names 1 unknown cases \('x' first\)",
    ),
    "unknown elsewhere": (
        lambda d: split(dataset(d), training=["c1"], validation=["y"]),
        ValueError,
        "validation names 1 unknown",
    ),
    "in both": (lambda d: split(dataset(d), training=["c1"], validation=["c1"]), ValueError, "both sections"),
    "no section": (lambda d: split(dataset(d), training=["c1"]), ValueError, 'no list "validation"'),
    "empty section": (lambda d: split(dataset(d), training=[], validation=["c1"]), ValueError, "is empty"),
}


def without_table(folder: Path) -> Path:
    (folder / "dataset.json").write_text("[1, 2]")
    return folder


@pytest.mark.parametrize("name", BAD_SETS)
def test_data_sets_that_cannot_be_meant_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, kind, message = BAD_SETS[name]
    folder = make(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        load_cases(folder)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def paired(folder: Path, images: str, labels: str) -> Path:
    """Paired folders of empty files: listing cases must not open them."""
    for side, names in (("images", images), ("labels", labels)):
        (folder / side).mkdir()
        for name in names.split():
            (folder / side / name).touch()
    return folder


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("a.png b.png c.png", "a.png b.png c.png"),
        ("a.tif b.png c.tiff .hidden.png notes.txt", "a.png b.tif c.png"),
        ("a.nii.gz b.nii.gz c.nii", "a.nii b.nii.gz c.nii.gz"),
    ],
)
def test_paired_folders_are_a_data_set_without_names(images: str, labels: str, tmp_path: Path) -> None:
    paired(tmp_path, images, labels)
    assert read_label_names(tmp_path) == {}
    assert names(load_cases(tmp_path, "validation")) == ["a"]
    training = load_cases(tmp_path, "training")
    assert names(training) == ["b", "c"]
    for case in training:
        assert Path(case["image"]).parent == tmp_path / "images"
        assert Path(case["label"]).parent == tmp_path / "labels"
        assert stem(Path(case["image"])) == stem(Path(case["label"]))
    split(tmp_path, training=["a"], validation=["c"])
    assert names(load_cases(tmp_path, "validation")) == ["c"]


@pytest.mark.parametrize(
    ("images", "labels", "kind", "message"),
    [
        (
            "a.png b.png c.png",
            "a.png",
            ValueError,
            r"images.b\.png: has no label .* \(the first of 2 findings\)",
        ),
        (
            "a.png",
            "a.png b.png",
            ValueError,
            r"labels.b\.png: has no image .*this file away$",
        ),
        ("a.png a.tif", "a.png", ValueError, "has the stem of"),
        ("a.jpg", "a.png", ValueError, r"images.a\.jpg: not PNG, TIFF or NIfTI.*; convert it or take it out"),
        ("a.png b.png", "a.png b.svs", ValueError, r"labels.b\.svs: not PNG, TIFF or NIfTI"),
        ("a.png b.jpg", "a.png b.jpg", ValueError, r"images.b\.jpg: not PNG, TIFF or NIfTI"),
    ],
)
def test_pairs_that_are_none_are_refused(
    images: str, labels: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    paired(tmp_path, images, labels)
    with pytest.raises(kind, match=message) as caught:
        load_cases(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_listing_goes_before_paired_folders(tmp_path: Path) -> None:
    dataset(paired(tmp_path, "x.png y.png", "x.png y.png"))
    assert names(load_cases(tmp_path, "validation")) == ["c0", "c5"]


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got section 'test'"):
        load_cases(dataset(tmp_path), "test")  # type: ignore[arg-type]


def test_label_names_are_sorted_by_id(tmp_path: Path) -> None:
    table = {"10": "ten", "2": "two", "0": "background"}
    assert list(read_label_names(dataset(tmp_path, labels=table)).items()) == [
        (0, "background"),
        (2, "two"),
        (10, "ten"),
    ]


@pytest.mark.parametrize("table", [None, {}, ["background"], {"organ": 1}, {"-1": "x"}, {"1": None}])
def test_tables_that_are_not_id_to_name_are_refused(table: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.json: (has no table|got label)"):
        read_label_names(dataset(tmp_path, labels=table))


def case(
    folder: Path,
    labels: np.ndarray,
    affine: np.ndarray = AFFINE,
    shape: tuple[int, ...] = (4, 5, 6),
) -> dict[str, str]:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), AFFINE), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "label.nii.gz")
    return {"image": str(folder / "image.nii.gz"), "label": str(folder / "label.nii.gz")}


def moved(change: Callable[[np.ndarray], None]) -> np.ndarray:
    affine = AFFINE.copy()
    change(affine)
    return affine


WHOLE = np.eye(4, 5)[..., None].repeat(6, axis=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_whole_labels_on_the_images_grid_pass(dtype: type, tmp_path: Path) -> None:
    check_labels(case(tmp_path, WHOLE.astype(dtype)), NAMES)
    check_labels(case(tmp_path, WHOLE.astype(dtype), shape=(4, 5, 6, 1)), NAMES)


def test_rounding_of_an_affine_passes(tmp_path: Path) -> None:
    check_labels(case(tmp_path, WHOLE.astype(np.uint8), AFFINE * (1 + 1e-7)), NAMES)
    check_labels(case(tmp_path, WHOLE.astype(np.uint8), AFFINE.round(4)), NAMES)


@pytest.mark.parametrize(
    ("labels", "affine", "message"),
    [
        (WHOLE[:, :, :5], AFFINE, r"got shape \(4, 5, 5\), its image \(4, 5, 6\)"),
        (WHOLE, moved(lambda a: a.__setitem__((0, 3), -406.6)), "got an affine 0.5 voxels off"),
        (WHOLE, moved(lambda a: a.__setitem__((2, 2), 5.05)), "got an affine 0.01 voxels off"),
        (WHOLE, np.diag([-1, 1, 1, 1]) @ AFFINE, "voxels off"),
        (WHOLE[:, ::-1], AFFINE @ np.diag([1, -1, 1, 1]), "got an affine 2 voxels off"),
        (WHOLE * 2, AFFINE, r"got labels \[2\]; \[0, 1\] are in the table"),
        (WHOLE * -1, AFFINE, r"got labels \[-1\]"),
        (WHOLE * 0.5, AFFINE, "got label 0.5; whole numbers"),
        (WHOLE * np.nan, AFFINE, "NaN or infinite"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: np.ndarray, affine: np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_labels(case(tmp_path, labels.astype(np.float32), affine), NAMES)
    assert str(caught.value).startswith(str(tmp_path / "label.nii.gz"))


OVERLAPPING = {1: "whole", 2: "core"}
MASKS = np.stack([WHOLE, WHOLE * (np.arange(6) > 2)], axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_of_overlapping_classes_pass(dtype: type, tmp_path: Path) -> None:
    check_labels(case(tmp_path, MASKS.astype(dtype)), OVERLAPPING)
    check_labels(case(tmp_path, WHOLE.astype(dtype)), {1: "nodule"})
    check_labels(case(tmp_path, WHOLE[..., None].astype(dtype)), {1: "nodule"})


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (WHOLE, OVERLAPPING, r"got 1 map; \['whole', 'core'\] may overlap: 2 masks \(X, Y, Z, 2\) are needed"),
        (MASKS, NAMES, r"got 2 maps; \['organ'\] lie apart: one label map is needed"),
        (MASKS, {1: "nodule"}, "got 2 maps"),
        (MASKS[..., [0, 1, 1]], OVERLAPPING, "got 3 maps"),
        (MASKS[:, :, :5], OVERLAPPING, r"got shape \(4, 5, 5\), its image \(4, 5, 6\)"),
        (MASKS * 2, OVERLAPPING, r"got labels \[2\]; \[0, 1\]"),
        (MASKS * 0.5, OVERLAPPING, "got label 0.5"),
        (MASKS * np.nan, OVERLAPPING, "NaN"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    labels: np.ndarray, names: dict[int, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_labels(case(tmp_path, labels.astype(np.float32)), names)
    assert str(caught.value).startswith(str(tmp_path / "label.nii.gz"))


def test_overlapping_classes_are_not_trained_on_pictures(tmp_path: Path) -> None:
    files = {key: tmp_path / f"{key}.png" for key in ("image", "label")}
    for file in files.values():
        write_label_image2d(np.eye(4, dtype=np.uint8), file)
    pair = {key: str(file) for key, file in files.items()}
    check_labels(pair, {1: "whole"})
    with pytest.raises(
        ValueError, match=r"label\.png: .*\['whole', 'core'\] may overlap; .* on volumes alone"
    ) as caught:
        check_labels(pair, OVERLAPPING)
    assert "X, Y, Z" not in str(caught.value)


def test_masks_in_another_order_than_their_header_says_are_refused(tmp_path: Path) -> None:
    files = case(tmp_path, WHOLE.astype(np.uint8))
    write_masks(MASKS.astype(np.uint8), OVERLAPPING, Path(files["image"]), Path(files["label"]))
    check_labels(files, OVERLAPPING)
    with pytest.raises(ValueError, match="names channel 0 'whole'"):
        check_labels(files, {1: "core", 2: "whole"})


def test_the_real_data_set_is_read_by_its_split(data_dir: Path) -> None:
    folder = data_dir / "hippocampus"
    table = read_label_names(folder)
    assert table == {0: "background", 1: "Anterior", 2: "Posterior"}
    training, validation = (names(load_cases(folder, section)) for section in ("training", "validation"))
    assert (len(training), len(validation)) == (156, 52)
    assert not set(training) & set(validation)


@pytest.mark.parametrize("name", ["hippocampus_003", "hippocampus_243", "hippocampus_001"])  # two are float32
def test_real_labels_fit(name: str, data_dir: Path) -> None:
    folder = data_dir / "hippocampus"
    pair = {key: str(folder / f"{key}sTr" / f"{name}.nii.gz") for key in ("image", "label")}
    check_labels(pair, read_label_names(folder))
