"""A check of a data set: each kind of finding on a set that was broken so on purpose; facts with known answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_unetfamily.io import write_masks
from monai_unetfamily.planning import dataset_checks, plan_dataset
from monai_unetfamily.planning.dataset_checks import Problem, check_integrity, format_problems
from monai_unetfamily.planning.fingerprint import CaseFacts, Fingerprint, format_fingerprint
from monai_unetfamily.training.training_checks import check_dataset
from tests.support.tiers import sampled

SHAPE = (6, 5, 4)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
TABLE = {"0": "background", "1": "liver", "2": "spleen", "3": "ignore"}


def write(file: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    file.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), file)


def image(case: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(case).integers(-100, 100, shape).astype(np.int16)


def labels() -> np.ndarray:
    """Liver: 8 voxels; spleen: 3; ignored: 1."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[1:3, 1:3, 1:3] = 1
    ids[4, 1:4, 0] = 2
    ids[5, 4, 3] = 3
    return ids


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Five cases of MSD's layout without any finding."""
    entries = []
    for case in range(5):
        entries.append({"image": f"imagesTr/c{case}.nii.gz", "label": f"labelsTr/c{case}.nii.gz"})
        write(tmp_path / entries[-1]["image"], image(case))
        write(tmp_path / entries[-1]["label"], labels())
    listing = {"name": "Set", "modality": {"0": "CT"}, "labels": TABLE, "numTraining": 5, "training": entries}
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    return tmp_path


def test_a_sound_set_has_no_finding(sound: Path) -> None:
    problems, fingerprint = check_integrity(sound)
    assert problems == []
    assert fingerprint is not None
    assert [case.name for case in fingerprint.cases] == [f"c{case}" for case in range(5)]


I2, L2 = "imagesTr/c2.nii.gz", "labelsTr/c2.nii.gz"


def relist(folder: Path, **changes: object) -> None:
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def entries(folder: Path) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads((folder / "dataset.json").read_text())["training"]
    return listed


def with_value(value: float, where: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    changed = labels().astype(np.int16 if value in range(-9, 10) else np.float32)
    changed[where] = value
    return changed


def nan_image() -> np.ndarray:
    voxels = image(2).astype(np.float32)
    voxels[0, 0, :2] = np.nan, np.inf
    return voxels


def contradict(folder: Path) -> None:
    """Pixdim against the sform."""
    nifti = nib.load(folder / I2)
    nifti.header["pixdim"][1:4] = 7
    nifti.header["sform_code"], nifti.header["qform_code"] = 1, 0
    nifti.header.set_data_offset(352)
    data = bytearray(nifti.header.binaryblock) + b"\0" * 4 + np.asarray(nifti.dataobj).tobytes(order="F")
    (folder / I2).unlink()
    (folder / "imagesTr/c2.nii").write_bytes(bytes(data))
    listed = entries(folder)
    listed[2]["image"] = "imagesTr/c2.nii"
    relist(folder, training=listed)


def in_metres(file: Path) -> None:
    nifti = nib.load(file)
    nifti = nib.Nifti1Image(np.asarray(nifti.dataobj), np.diag([1e-3, 1e-3, 1e-3, 1]) @ nifti.affine, nifti.header)
    nifti.header.set_xyzt_units("meter")
    nib.save(nifti, file)


def two_forms(folder: Path) -> None:
    nifti = nib.Nifti1Image(image(2), AFFINE)
    nifti.set_qform(shifted(), 1)
    nifti.set_sform(AFFINE, 1)
    nib.save(nifti, folder / I2)


def shifted() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] = 0.5
    return affine


def cut(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])


BREAK: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "an image gone": (lambda d: (d / I2).unlink(), "error", I2, "no such file"),
    "a label map gone": (lambda d: (d / L2).unlink(), "error", L2, "no such file"),
    "cut off": (lambda d: cut(d, I2), "error", I2, "cannot be read"),
    "no NIfTI": (lambda d: (d / L2).write_text("hello"), "error", L2, "cannot be read as NIfTI"),
    "another shape": (
        lambda d: write(d / L2, labels()[:, :, :3]),
        "error",
        L2,
        "got shape (6, 5, 3), c2.nii.gz has (6, 5, 4)",
    ),
    "another affine": (lambda d: write(d / L2, labels(), shifted()), "error", L2, "lies up to 0.5 voxels off"),
    "in metres": (
        lambda d: in_metres(d / I2),
        "error",
        I2,
        "lengths in the unit metre; mm are allowed for training",
    ),
    "pixdim against sform": (contradict, "error", "imagesTr/c2.nii", "readers disagree"),
    "qform against sform": (two_forms, "warning", I2, "sform and qform disagree"),
    "an unknown label": (
        lambda d: write(d / L2, with_value(7)),
        "error",
        L2,
        "got labels [7] in 1 voxels; [0, 1, 2, 3] are",
    ),
    "many unknown labels": (
        lambda d: write(d / L2, np.arange(120, dtype=np.uint8).reshape(SHAPE)),
        "error",
        L2,
        "got labels [4, 5, 6, 7, 8, 9, 10, 11] and 108 more in 116 voxels",
    ),
    "a negative label": (lambda d: write(d / L2, with_value(-1)), "error", L2, "got labels [-1]"),
    "a fraction": (lambda d: write(d / L2, with_value(0.5)), "error", L2, "1 voxels hold fractions, 0.5 first"),
    "a label that is NaN": (
        lambda d: write(d / L2, with_value(np.nan)),
        "error",
        L2,
        "1 of 120 voxels are NaN or infinite",
    ),
    "NaN and infinity": (lambda d: write(d / I2, nan_image()), "error", I2, "2 of 120 voxels are NaN or infinite"),
    "masks": (
        lambda d: write(d / L2, np.stack([labels()] * 2, -1)),
        "error",
        L2,
        "got 2 maps; one label map is needed",
    ),
    "two channels": (
        lambda d: write(d / I2, np.stack([image(2), image(8)], -1)),
        "error",
        I2,
        "got 2 channels; 1 are named",
    ),
    "a copy": (lambda d: shutil.copy(d / "imagesTr/c0.nii.gz", d / I2), "error", I2, "holds the voxels of 'c0'"),
    "floats": (lambda d: write(d / L2, labels().astype(np.float32)), "warning", L2, "stored as float32"),
    "no foreground": (lambda d: write(d / L2, labels() // 3 * 3), "warning", L2, "no voxel is of any class"),
    "one value": (
        lambda d: write(d / I2, np.full(SHAPE, 7, np.int16)),
        "warning",
        I2,
        "every voxel holds the one value 7",
    ),
    "another spacing": (
        lambda d: [write(d / f, v, np.diag([1.0, 2, 10, 1])) for f, v in ((I2, image(2)), (L2, labels()))],
        "warning",
        I2,
        "got a spacing of 1 x 2 x 10 mm, the median is 1 x 2 x 3",
    ),
    "another size": (
        lambda d: [
            write(d / f, v) for f, v in ((I2, image(2, (6, 5, 13))), (L2, np.repeat(labels(), (4, 3, 3, 3), axis=2)))
        ],
        "warning",
        I2,
        "got a size of 6 x 5 x 13 voxels, the median is 6 x 5 x 4",
    ),
    "another type": (lambda d: write(d / I2, image(2).astype(np.float32)), "warning", "", "float32 (1), int16 (4)"),
    "another scale": (lambda d: write(d / I2, image(2) * np.int16(300)), "warning", "", "normalise each image"),
    "a class unseen": (
        lambda d: relist(d, labels=TABLE | {"3": "kidney", "4": "aorta"}),
        "warning",
        "dataset.json",
        "no sound case has label 4, 'aorta'",
    ),
    "a gap": (
        lambda d: relist(d, labels={"0": "background", "1": "liver", "2": "spleen", "5": "x", "3": "ignore"}),
        "error",
        "dataset.json",
        "got ids [0, 1, 2, 5]; [0, 1, 2, 3] are allowed",
    ),
    "a name twice": (
        lambda d: relist(d, labels=TABLE | {"2": "Liver"}),
        "error",
        "dataset.json",
        "names 'liver' twice",
    ),
    "a name that is code": (
        lambda d: relist(d, labels=TABLE | {"2": "%spleen"}),
        "error",
        "dataset.json",
        "got the name '%spleen'; MONAI's configs resolve",
    ),
    "a name that steers a terminal": (
        lambda d: relist(d, labels=TABLE | {"2": "spleen\x1b[2J"}),
        "error",
        "dataset.json",
        "got the name 'spleen\\x1b[2J'",
    ),
    "a background of another name": (
        lambda d: relist(d, labels=TABLE | {"0": "bg"}),
        "warning",
        "dataset.json",
        "names label 0 'bg': it is read as the background",
    ),
    "0 for ignored voxels": (
        lambda d: relist(d, labels={"0": "Ignore", "1": "liver", "2": "spleen", "3": "kidney"}),
        "error",
        "dataset.json",
        "got label 0 'Ignore'; 0 is the background",
    ),
    "one case": (
        lambda d: relist(d, training=entries(d)[:1], numTraining=1),
        "error",
        "",
        "section 'training' is empty",
    ),
    "a split without validation": (
        lambda d: (d / "splits.json").write_text('{"training": ["c0", "c1"], "validation": []}'),
        "error",
        "splits.json",
        "section 'validation' is empty",
    ),
    "no table": (lambda d: relist(d, labels={}), "error", "dataset.json", 'has no table "labels"'),
    "another number": (lambda d: relist(d, numTraining=9), "warning", "dataset.json", 'states "numTraining" 9, and 5'),
    "a case twice": (
        lambda d: relist(d, training=[*entries(d), entries(d)[0]]),
        "error",
        "dataset.json",
        "lists 'c0' twice",
    ),
    "an odd entry": (lambda d: relist(d, training=[*entries(d), "c9"]), "error", "dataset.json", "got case 'c9'"),
    "one label map for two": (
        lambda d: relist(d, training=[*entries(d)[:-1], entries(d)[-1] | {"label": L2}]),
        "error",
        L2,
        "is listed for 'c2' too",
    ),
    "a split of unknown cases": (
        lambda d: (d / "splits.json").write_text('[{"training": ["x"], "validation": []}]'),
        "error",
        "splits.json",
        "training names 1 unknown",
    ),
    "two files of splits": (
        lambda d: [(d / f"splits{end}.json").write_text("[]") for end in ("", "_final")],
        "error",
        "",
        "one of the two is allowed",
    ),
}


BESIDES = {"a gap": 1, "a label that is NaN": 1}  # what else follows from it


@pytest.mark.parametrize("kind", BREAK)
def test_each_kind_of_break_is_found(kind: str, sound: Path) -> None:
    break_it, severity, file, what = BREAK[kind]
    break_it(sound)
    problems, _ = check_integrity(sound)
    found = [problem for problem in problems if what in problem.what]
    assert [(each.severity, each.file) for each in found] == [(severity, sound / file)]
    assert len(problems) == 1 + BESIDES.get(kind, 0), format_problems(problems)
    assert not any(str(sound) in problem.what for problem in problems if problem.file != sound)


WARNED = [kind for kind, (_, severity, *_) in BREAK.items() if severity == "warning"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sampled(WARNED, "a background of another name", "a class unseen"))
def test_what_plan_lets_pass_training_lets_pass(kind: str, sound: Path, tmp_path: Path) -> None:
    BREAK[kind][0](sound)
    plan_dataset(sound, tmp_path / "bundle", network="unet", features=(4, 8), device="cpu", log=lambda line: None)
    check_dataset(tmp_path / "bundle", sound, lambda line: None)


def test_overlapping_classes_of_which_the_first_is_called_background_are_refused(sound: Path) -> None:
    for case in range(5):
        file = sound / f"labelsTr/c{case}.nii.gz"
        classes = {1: "background", 2: "core"}
        write_masks(np.stack([labels() == 1, labels() == 2], -1).astype(np.uint8), classes, nib.load(file), file)
    relist(sound, labels={"1": "background", "2": "core"})
    [problem, *_], _ = check_integrity(sound)
    assert (problem.severity, problem.what.split(",")[0]) == ("error", "names label 1 'background'")


def volumes_found(volumes: list[float]) -> list[Problem]:
    """Findings in cases c0, c1, ... with these volumes of a spleen."""
    facts = [
        CaseFacts(f"c{number}", SHAPE, (1, 1, 1), "RAS", "int16", "uint8", {"spleen": volume}, (0, 0, 0), (), ())
        for number, volume in enumerate(volumes)
    ]
    cases = {case.name: {"image": f"{case.name}.nii", "label": f"{case.name}_label.nii"} for case in facts}
    return list(dataset_checks.volumes({0: "background", 1: "spleen"}, facts, cases))


def test_volumes_far_from_the_median_are_told_on_either_side_and_absent_classes_are_not() -> None:
    usual = [200.0 * 1.1**number for number in range(-6, 7)]
    assert volumes_found([*usual, 0.0, 0.0]) == []
    high, low = volumes_found([*usual, 0.0, 20.0 * 200, 200 / 20.0])
    assert [(each.severity, each.case, each.file.name) for each in (high, low)] == [
        ("warning", "c14", "c14_label.nii"),
        ("warning", "c15", "c15_label.nii"),
    ]
    assert high.what.startswith("'spleen' has 4000 ml, the median of the 15 cases with it is 200 ml: another structure")
    assert low.what.startswith("'spleen' has 10 ml, the median of the 15 cases with it is 200 ml: it may be cut")


def test_volumes_that_vary_much_or_are_few_have_no_outlier() -> None:
    assert volumes_found([2.0**number for number in range(15)]) == []  # as of tumours
    assert volumes_found([*[200.0] * 8, 4000.0]) == []
    assert len(volumes_found([*[200.0] * 9, 4000.0])) == 1
    assert volumes_found([*[200.0] * 9, 500.0]) == []  # equal volumes do not make small differences outliers


@pytest.mark.exhaustive
def test_a_spinal_cord_of_542_ml_is_among_few_findings_in_clinical_contours(data_dir: Path) -> None:
    problems, _ = check_integrity(data_dir / "headneck_ct")
    found = {each.case: each.what for each in problems if "the median of the" in each.what}
    assert found["headneck_216"].startswith(
        "'spinal_cord' has 542.7 ml, the median of the 96 cases with it is 26.47 ml"
    )
    assert len(found) == 4


def test_all_findings_are_in_one_table_and_the_sound_cases_are_measured(sound: Path) -> None:
    (sound / "imagesTr/c0.nii.gz").unlink()
    write(sound / "labelsTr/c1.nii.gz", with_value(9))
    write(sound / "labelsTr/c3.nii.gz", labels().astype(np.float32))
    problems, fingerprint = check_integrity(sound)
    table = format_problems(problems).splitlines()
    assert [row.split("|")[1].strip() for row in table[2:-1]] == ["error", "error", "warning"]
    assert [row.split("|")[3].strip() for row in table[2:-1]] == [
        "imagesTr/c0.nii.gz",
        "labelsTr/c1.nii.gz",
        "labelsTr/c3.nii.gz",
    ]
    assert table[-1] == "2 errors, 1 warning"
    assert fingerprint is not None
    assert [case.name for case in fingerprint.cases] == ["c2", "c3", "c4"]


def test_one_finding_of_a_case_does_not_hide_another(sound: Path) -> None:
    (sound / "imagesTr/c0.nii.gz").unlink()
    write(sound / "labelsTr/c0.nii.gz", with_value(9))
    write(sound / I2, nan_image())
    write(sound / L2, with_value(0.5), shifted())
    problems, _ = check_integrity(sound)
    assert [(each.file.parent.name, each.file.name, each.what.split(";")[0]) for each in problems] == [
        ("imagesTr", "c0.nii.gz", "no such file, though it is a case's"),
        ("labelsTr", "c0.nii.gz", "got labels [9] in 1 voxels"),
        ("imagesTr", "c2.nii.gz", "2 of 120 voxels are NaN or infinite"),
        ("labelsTr", "c2.nii.gz", "lies up to 0.5 voxels off c2.nii.gz"),
        ("labelsTr", "c2.nii.gz", "1 voxels hold fractions, 0.5 first"),
    ]


def test_where_no_case_is_sound_there_is_no_fingerprint(sound: Path) -> None:
    shutil.rmtree(sound / "imagesTr")
    problems, fingerprint = check_integrity(sound)
    assert len(problems) == 5
    assert fingerprint is None


def measured(folder: Path) -> Fingerprint:
    problems, fingerprint = check_integrity(folder)
    assert not [problem for problem in problems if problem.severity == "error"], format_problems(problems)
    assert fingerprint is not None
    return fingerprint


def test_known_volumes_extents_and_intensities(sound: Path) -> None:
    ids = labels()
    values = np.arange(120, dtype=np.int16).reshape(SHAPE)
    for case in range(5):
        write(sound / f"imagesTr/c{case}.nii.gz", values + case)
    write(sound / "labelsTr/c4.nii.gz", np.where(ids == 2, 0, ids).astype(np.uint8))
    fingerprint = measured(sound)
    first, last = fingerprint.cases[0], fingerprint.cases[4]
    assert first.volumes_ml == {"liver": pytest.approx(8 * 6 / 1000), "spleen": pytest.approx(3 * 6 / 1000)}
    assert last.volumes_ml["spleen"] == 0
    assert fingerprint.absent_from_case == {"liver": 0, "spleen": 0.2}
    assert first.extent_mm == (4 * 1, 3 * 2, 3 * 3)
    assert last.extent_mm == (2 * 1, 2 * 2, 2 * 3)
    assert (first.orientation, first.dtype, first.label_dtype) == ("RAS", "int16", "uint8")
    assert first.ranges == ((0, 119),)
    inside = [(values + case)[(ids == 1) | ((ids == 2) & (case < 4))] for case in range(5)]
    assert first.intensity[0].p50 == np.median(inside[0])
    everyone = np.concatenate(inside).astype(np.float64)
    pooled = fingerprint.intensity()
    assert pooled.mean == pytest.approx(everyone.mean())
    assert pooled.std == pytest.approx(everyone.std())
    assert [pooled.p00_5, pooled.p01, pooled.p99, pooled.p99_5] == pytest.approx(
        list(np.percentile(everyone, (0.5, 1, 99, 99.5)))
    )
    assert (fingerprint.ignore, fingerprint.labels) == (3, {0: "background", 1: "liver", 2: "spleen"})
    assert Fingerprint.from_json(fingerprint.to_json()) == fingerprint


def test_axes_are_turned_to_the_patients(sound: Path) -> None:
    """Stored as (up, left, front): voxels of 3, 1 and 2 mm."""
    turned = np.array([[0, -1, 0, 9], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    before = measured(sound)
    for case in range(5):
        for name in ("imagesTr", "labelsTr"):
            file = sound / name / f"c{case}.nii.gz"
            voxels = np.asarray(nib.load(file).dataobj)
            write(file, np.ascontiguousarray(voxels.transpose(2, 0, 1)[:, ::-1]), turned)
    after = measured(sound)
    assert {case.orientation for case in after.cases} == {"SLA"}
    for one, other in zip(before.cases, after.cases, strict=True):
        assert (one.size, one.spacing, one.extent_mm) == (other.size, other.spacing, other.extent_mm)
        assert one.volumes_ml == pytest.approx(other.volumes_ml)
        assert one.intensity[0].p50 == other.intensity[0].p50


def test_a_large_case_weighs_no_more_than_its_sample(sound: Path) -> None:
    """40,000 voxels of 5 give no more than 10,000 to the pool."""
    for case in range(5):
        many = case == 0
        shape = (40, 40, 40) if many else (40, 40, 5)
        voxels = np.full(shape, 5 if many else 1, np.int16) + image(case, shape) // 100  # a little noise
        write(sound / f"imagesTr/c{case}.nii.gz", voxels)
        write(sound / f"labelsTr/c{case}.nii.gz", np.ones(shape, np.uint8))
    relist(sound, labels={"0": "background", "1": "body"})
    fingerprint = measured(sound)
    share = 10_000 / (10_000 + 4 * 8000)
    assert fingerprint.intensity().mean == pytest.approx(5 * share + 1 * (1 - share) - 0.5, abs=0.02)


def test_overlapping_masks_are_measured_each(sound: Path) -> None:
    names = {1: "whole", 2: "core"}
    relist(sound, labels={str(label): name for label, name in names.items()})
    masks = np.stack([labels() > 0, labels() == 1], axis=-1).astype(np.uint8)
    for case in range(5):
        write_masks(masks, names, sound / f"imagesTr/c{case}.nii.gz", sound / f"labelsTr/c{case}.nii.gz")
    fingerprint = measured(sound)
    assert fingerprint.overlapping
    assert fingerprint.cases[0].volumes_ml == {"whole": pytest.approx(12 * 0.006), "core": pytest.approx(8 * 0.006)}
    write_masks(masks, {1: "core", 2: "whole"}, sound / I2, sound / L2)
    problems, _ = check_integrity(sound)
    assert [(each.case, "names channel 0 'core'" in each.what) for each in problems] == [("c2", True)]


def test_nnunets_channels_are_measured_each(tmp_path: Path) -> None:
    listing = {"channel_names": {"0": "T1w", "1": "FLAIR"}, "labels": {"background": 0, "liver": 1, "spleen": 2}}
    listing |= {"file_ending": ".nii.gz", "numTraining": 2}
    ids = labels() % 3
    for case in range(2):
        for channel in range(2):
            write(tmp_path / f"imagesTr/c{case}_000{channel}.nii.gz", image(10 * case + channel) + np.int16(channel))
        write(tmp_path / f"labelsTr/c{case}.nii.gz", ids)
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    fingerprint = measured(tmp_path)
    assert (fingerprint.layout, fingerprint.channels, fingerprint.modality) == ("nnU-Net", ("T1w", "FLAIR"), "MR")
    assert fingerprint.cases[1].ranges == ((-100, 99), (-99, 100)) or len(fingerprint.cases[1].ranges) == 2
    assert fingerprint.intensity(1).p50 == np.median(
        np.concatenate([image(10 * case + 1)[ids > 0] + 1 for case in range(2)])
    )
    write(tmp_path / "imagesTr/c1_0001.nii.gz", image(5), shifted())
    (tmp_path / "imagesTr/c0_0001.nii.gz").unlink()
    problems, fingerprint_of_none = check_integrity(tmp_path)
    assert [(each.file.name, each.severity) for each in problems] == [
        ("c0_0001.nii.gz", "error"),
        ("c1_0001.nii.gz", "error"),
    ]
    assert fingerprint_of_none is None


def pair(folder: Path, name: str, pixels: np.ndarray, ids: np.ndarray) -> None:
    for side, values in (("images", pixels), ("labels", ids)):
        (folder / side).mkdir(exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(folder / side / f"{name}.png")


def test_pictures_are_measured_in_pixels(tmp_path: Path) -> None:
    ids = np.zeros((20, 30))
    ids[:10, :5] = 1
    for number in range(3):
        pair(tmp_path, f"p{number}", np.random.default_rng(number).integers(0, 255, (20, 30, 3)), ids)
    fingerprint = measured(tmp_path)
    assert (fingerprint.spatial_dims, fingerprint.channels) == (2, ("red", "green", "blue"))
    assert (fingerprint.size(), fingerprint.spacing()) == ((20, 30), (1.0, 1.0))
    assert fingerprint.labels == {0: "background", 1: "1"}
    assert fingerprint.cases[0].volumes_ml == {"1": pytest.approx(0.05)}
    assert "3 pictures (paired folders)" in format_fingerprint(fingerprint)


def test_findings_of_paired_folders(tmp_path: Path) -> None:
    ids = np.zeros((20, 30))
    ids[0, 0] = 255
    for number in range(3):
        pair(tmp_path, f"p{number}", np.random.default_rng(number).integers(0, 255, (20, 30, 3)), ids)
    pair(tmp_path, "grey", np.random.default_rng(9).integers(0, 255, (20, 30)), ids)
    (tmp_path / "labels/p1.png").unlink()
    (tmp_path / "images/x.jpg").touch()
    shutil.copy(tmp_path / "images/p2.png", tmp_path / "images/p2.tif")
    problems, _ = check_integrity(tmp_path)
    assert {(each.file.name, each.what.split(";")[0]) for each in problems} == {
        ("p1.png", "has no label of its name"),
        ("x.jpg", "not PNG, TIFF or NIfTI (.nii, .nii.gz)"),
        ("p2.tif", f"has the stem of {tmp_path / 'images/p2.png'}"),
        ("grey.png", "got 2 axes and 1 channels"),
        ("labels", "got ids [0, 255]"),
    }


@pytest.mark.slow
def test_the_real_data_set_passes_with_what_its_readme_tells(data_dir: Path) -> None:
    problems, fingerprint = check_integrity(data_dir / "hippocampus")
    assert fingerprint is not None
    assert {problem.severity for problem in problems} == {"warning"}
    told = [problem for problem in problems if problem.case]
    assert [(problem.case, "float32" in problem.what) for problem in told] == [
        ("hippocampus_003", True),
        ("hippocampus_243", True),
    ]
    (scales, types) = [problem.what for problem in problems if not problem.case]
    assert "runs from 112 to 1561665" in scales
    assert "float32 (163), uint8 (45)" in types
    assert len(fingerprint.cases) == 208
    assert fingerprint.spacing(0) == fingerprint.spacing(100) == (1, 1, 1)
    assert (fingerprint.size(0), fingerprint.size(100)) == ((31, 40, 24), (42, 58, 45))
    assert fingerprint.absent_from_case == {"Anterior": 0, "Posterior": 0}
    assert fingerprint.paired_sides == []
    assert {case.orientation for case in fingerprint.cases} == {"RAS"}
    assert (fingerprint.modality, fingerprint.channels) == ("MR", ("MRI",))


def test_a_problem_is_shown_with_its_folder() -> None:
    table = format_problems([Problem("error", "a", Path("/data/set/imagesTr/a.nii.gz"), "is gone")])
    assert "| imagesTr/a.nii.gz |" in table
