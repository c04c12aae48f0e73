"""Laws of overlapping masks: every voxel survives in both forms, on the source's grid, under names that are found."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.io import (
    file_names,
    mask_of,
    mask_table,
    number_classes,
    open_volume,
    read_channel_names,
    read_volume,
    require_channel_names,
    write_labels,
    write_masks,
    write_separate_masks,
)

NAMES = {1: "whole tumour", 2: "core"}
GRID = ("sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
GRID += ("srow_x", "srow_y", "srow_z", "descrip", "dim_info", "intent_code", "intent_name")


def masks(shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    """The core lies inside the whole."""
    found = np.zeros((*shape, 2), np.uint8)
    found[1:4, 1:4, :, 0] = 1
    found[2, 2, :, 1] = 1
    return found


def source(kind: type[nib.Nifti1Image], shape: tuple[int, ...], codes: tuple[int, int]) -> nib.Nifti1Image:
    affine = np.array([[-0.7, 0.1, 0, 100 / 3], [0.1, 0.7, 0.3, -57.7], [0, -0.2, 5, 1e3], [0, 0, 0, 1]])
    image = kind(np.zeros(shape, np.int16), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    image.header["pixdim"][4] = 2.5  # seconds: a volume cut out of a series
    image.header["toffset"] = 7
    image.header.set_xyzt_units("micron", "msec")
    image.header["descrip"], image.header["intent_name"] = b"what the scanner said", b"as it was"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient's name"))
    return image


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1)], ids=str)
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1)], ids=str)
def test_masks_lie_on_the_source_grid(
    kind: type, shape: tuple[int, ...], codes: tuple[int, int], tmp_path: Path
) -> None:
    nib.save(source(kind, shape, codes), tmp_path / "a.nii")
    write_masks(masks(), NAMES, tmp_path / "a.nii", tmp_path / "b.nii.gz")
    before, after = nib.load(tmp_path / "a.nii"), nib.load(tmp_path / "b.nii.gz")
    assert type(after) is kind
    assert after.affine.tobytes() == before.affine.tobytes()
    for field in GRID:
        assert after.header[field].tobytes() == before.header[field].tobytes(), field
    assert after.header["pixdim"][:4].tobytes() == before.header["pixdim"][:4].tobytes()
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), masks())


def test_the_fourth_axis_counts_classes_not_seconds(tmp_path: Path) -> None:
    write_masks(masks(), NAMES, source(nib.Nifti1Image, (4, 5, 6), (1, 1)), tmp_path / "a.nii.gz")
    header = nib.load(tmp_path / "a.nii.gz").header
    assert header.get_xyzt_units() == ("micron", "unknown")
    assert (header["dim"].tolist()[:5], header["pixdim"][4], header["toffset"]) == ([4, 4, 5, 6, 2], 1, 0)


def test_names_are_in_the_header_and_the_patient_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    write_masks(masks(), {1: "Läsion", 2: "core"}, source(nib.Nifti1Image, (4, 5, 6), (1, 1)), path)
    assert read_channel_names(open_volume(path, channels=True)) == {1: "Läsion", 2: "core"}
    assert b"patient" not in path.read_bytes()
    require_channel_names(path, {1: "läsion", 2: "Core", 3: "more"})
    with pytest.raises(ValueError, match=r"a\.nii: its header names channel 0 'Läsion'"):
        require_channel_names(path, {1: "core", 2: "Läsion"})


@pytest.mark.parametrize(
    "text", [b"a comment", b'{"channel_def": 3}', b'{"channel_def": {"1": "a"}}', b"\xff[]", b"[1]"]
)
def test_other_comments_are_no_names(text: bytes) -> None:
    image = nib.Nifti1Image(masks(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text))
    assert read_channel_names(image) == {}


def test_a_voxel_in_two_classes_is_in_both_forms(tmp_path: Path) -> None:
    like = source(nib.Nifti1Image, (4, 5, 6), (2, 1))
    write_masks(masks(), NAMES, like, tmp_path / "a.nii.gz")
    write_separate_masks(masks(), NAMES, like, tmp_path / "a")
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["core.nii.gz", "whole_tumour.nii.gz"]
    whole, _ = read_volume(tmp_path / "a.nii.gz", channels=True)
    affine = nib.load(tmp_path / "a.nii.gz").affine  # in microns, as the source's
    assert whole[2, 2, 0].tolist() == [1, 1]
    for channel, name in enumerate(("whole_tumour", "core")):
        mask = nib.load(tmp_path / f"a/{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), whole[..., channel])
        assert mask.affine.tobytes() == affine.tobytes()


def test_the_masks_of_a_label_map_part_it(tmp_path: Path) -> None:
    labels = np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 4
    names = {0: "background", 1: "a", 2: "b", 3: "c", 9: "nowhere"}
    like = source(nib.Nifti1Image, (4, 5, 6), (1, 1))
    write_separate_masks(labels, names, like, tmp_path / "case")
    write_labels((labels == 2).astype(np.uint8), like, tmp_path / "b.nii.gz", mask_table(2, "b"))
    read = {file.name[:-7]: np.asarray(nib.load(file).dataobj) for file in (tmp_path / "case").iterdir()}
    assert sorted(read) == ["a", "b", "c", "nowhere"]
    np.testing.assert_array_equal(sum(label * read[name] for label, name in names.items() if label), labels)
    assert (tmp_path / "case/b.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    np.testing.assert_array_equal(mask_of(labels, 3), read["c"])


NAMINGS = {
    "plain": (["liver", "left_kidney"], ["liver", "left_kidney"]),
    "dangerous": (["../a", "b/c", "d:e?"], ["a", "b_c", "d_e"]),
    "other alphabets": (["Läsion", "肝臓"], ["Läsion", "肝臓"]),
    "one after mending": (["a b", "a/b"], ["1_a_b", "2_a_b"]),
    "one but for case": (["T1", "t1"], ["1_T1", "2_t1"]),
    "one but for coding": (["Läsion", "La\u0308sion"], ["1_Läsion", "2_Läsion"]),
    "a number in a name": (["a b", "a_b", "1_a_b"], ["1_a_b", "2_a_b", "3_1_a_b"]),
    "nothing left": (["...", "core"], ["1_", "2_core"]),
    "long": (["x" * 300, "core"], ["x" * 100, "core"]),
    "long and alike": (["x" * 300, "x" * 301], ["1_" + "x" * 100, "2_" + "x" * 100]),
}


@pytest.mark.parametrize("case", NAMINGS)
def test_file_names_are_safe_and_differ(case: str) -> None:
    names, expected = NAMINGS[case]
    assert list(file_names({0: "background"} | dict(enumerate(names, start=1))).values()) == expected


def test_channels_are_numbered_by_one_rule() -> None:
    assert number_classes({0: "Background", 1: "liver"}) == {0: "Background", 1: "liver"}
    assert number_classes({1: "core", 0: "whole"}) == {1: "whole", 2: "core"}
    for channels in ({}, {0: "background"}, {1: "liver"}, {0: "a", 2: "b"}):
        with pytest.raises(ValueError, match="got channels"):
            number_classes(channels)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (masks()[..., :1], r"masks of shape \(4, 5, 6, 1\); \(4, 5, 6, 2\)"),
        (masks((4, 5, 7)), "masks of shape"),
        (2 * masks(), "integers 0 and 1"),
        (0.5 * masks(), "integers 0 and 1"),
        (-masks().astype(np.int8), "integers 0 and 1"),
    ],
)
def test_what_is_no_mask_is_refused_and_nothing_is_written(found: np.ndarray, message: str, tmp_path: Path) -> None:
    like = source(nib.Nifti1Image, (4, 5, 6), (1, 1))
    with pytest.raises(ValueError, match=message):
        write_masks(found, NAMES, like, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_masks_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like = source(nib.Nifti1Image, (4, 5, 6), (1, 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_separate_masks(masks(), NAMES, like, tmp_path / "full")
    saved: list[Path] = []

    def second_fails(labels: np.ndarray, like: object, path: Path, table: object) -> None:
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(path)

    monkeypatch.setattr("monai_unetfamily.io.class_masks.write_labels", second_fails)
    with pytest.raises(OSError, match="No space left"):
        write_separate_masks(masks(), NAMES, like, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    write_separate_masks(masks(), NAMES, source(nib.Nifti1Image, (4, 5, 6), (1, 1)), tmp_path / "case")
    assert len(list((tmp_path / "case").iterdir())) == 2


def test_channels_are_read_only_when_asked_for(tmp_path: Path) -> None:
    write_masks(masks(), NAMES, source(nib.Nifti1Image, (4, 5, 6), (1, 1)), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="4-D where 3-D is meant"):
        read_volume(tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(masks()[..., None], np.eye(4)), tmp_path / "5d.nii.gz")
    with pytest.raises(ValueError, match="5-D where 3-D is meant"):
        read_volume(tmp_path / "5d.nii.gz", channels=True)
    nib.save(nib.Nifti1Image(masks()[..., 0], np.eye(4)), tmp_path / "3d.nii.gz")
    assert read_volume(tmp_path / "3d.nii.gz", channels=True)[0].shape == (4, 5, 6, 1)
