"""Laws of phantoms: one seed, one patient; the anatomy does not know the grid; sides are the patient's."""

import json
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.data import check_labels, load_cases, read_label_names
from monai_unetfamily.data.phantom import LABELS, make_phantom, write_phantom_images2d, write_phantoms
from monai_unetfamily.data.phantom.anatomy import ID
from monai_unetfamily.data.phantom.phantom import Phantom
from monai_unetfamily.io import read_image2d, read_label_image2d

SMALL = (56, 44, 32)  # voxels; with WIDE a field of view of 358 x 282 x 208 mm: the whole patient
WIDE = (6.4, 6.4, 6.5)  # mm
ORGANS = [name for name in ID if name != "background"]
RANGES = {  # ml, adults; the spine as far as the field of view shows it
    "liver": (1000, 1900),
    "spleen": (120, 280),
    "left_kidney": (105, 220),
    "right_kidney": (105, 220),
    "spine": (220, 400),
}


def scan(seed: int = 0, **options: object) -> Phantom:
    return make_phantom(np.random.default_rng(seed), **{"shape": SMALL, "spacing": WIDE, **options})


def millilitres(phantom: Phantom) -> dict[str, float]:
    voxel = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    return {name: float((phantom.labels == ID[name]).sum() * voxel) for name in ORGANS}


def centroid(phantom: Phantom, organ: str) -> np.ndarray:
    where = np.argwhere(phantom.labels == ID[organ]).mean(0)
    return (phantom.affine @ [*where, 1])[:3]


@pytest.mark.slow
def test_one_seed_one_phantom() -> None:
    one, same, other = scan(3), scan(3), scan(4)
    assert one.image.tobytes() == same.image.tobytes()
    assert one.labels.tobytes() == same.labels.tobytes()
    assert one.affine.tobytes() == same.affine.tobytes()
    assert (one.labels != other.labels).any()


@pytest.mark.slow
def test_images_are_hounsfield_units_and_labels_ids() -> None:
    phantom = scan()
    assert (phantom.image.dtype, phantom.labels.dtype, phantom.affine.dtype) == (
        np.int16,
        np.uint8,
        np.float64,
    )
    assert phantom.image.shape == phantom.labels.shape == SMALL
    assert set(np.unique(phantom.labels)) == set(LABELS)
    assert phantom.image.min() >= -1024
    assert -1010 < np.median(phantom.image[:4]) < -990  # air at the patient's side
    assert phantom.image.max() > 300  # bone


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_organs_have_adult_volumes(seed: int) -> None:
    for name, volume in millilitres(scan(seed)).items():
        least, most = RANGES[name]
        assert least < volume < most, f"{name}: {volume:.0f} ml"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"orientation": "LPS"},
        {"orientation": "PIR"},
        {"tilt": (12.0, -9.0, 15.0)},
        {"shape": (112, 44, 50), "spacing": (3.2, 6.4, 4.2)},
        {"shape": (50, 70, 42), "spacing": (7.2, 4.1, 5.0), "orientation": "SLA", "tilt": (5.0, 5.0, -15.0)},
    ],
    ids=str,
)
def test_volumes_and_places_do_not_depend_on_the_grid(options: dict[str, object]) -> None:
    # a cube about the patient, so that no tilt cuts an organ off
    cube = {"shape": (60, 56, 56), "spacing": (6.2, 5.2, 5.2)}
    plain, other = scan(1, **cube), scan(1, **{**cube, **options})
    for name in set(ORGANS) - {"spine"}:  # the spine leaves every field of view
        assert millilitres(other)[name] == pytest.approx(millilitres(plain)[name], rel=0.06), name
        np.testing.assert_allclose(centroid(other, name), centroid(plain, name), atol=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SAL", "IRP"])
def test_reorientation_moves_no_voxel_in_the_patient(orientation: str) -> None:
    plain, turned = scan(2), scan(2, orientation=orientation)
    assert "".join(nib.aff2axcodes(turned.affine)) == orientation
    for array, expected in ((turned.image, plain.image), (turned.labels, plain.labels)):
        back = nib.as_closest_canonical(nib.Nifti1Image(array, turned.affine))
        np.testing.assert_array_equal(np.asarray(back.dataobj), expected)
        np.testing.assert_allclose(back.affine, plain.affine, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR"])
def test_sides_are_the_patients(orientation: str) -> None:
    """In RAS+ the liver and the right kidney lie at +x, spleen and left kidney at -x, the spine at -y."""
    phantom = scan(5, orientation=orientation, tilt=(4.0, 0.0, 10.0))
    for organ in ("liver", "right_kidney"):
        assert centroid(phantom, organ)[0] > 20
    for organ in ("spleen", "left_kidney"):
        assert centroid(phantom, organ)[0] < -20
    assert abs(centroid(phantom, "spine")[0]) < 15
    assert centroid(phantom, "spine")[1] < centroid(phantom, "liver")[1] - 30
    assert centroid(phantom, "left_kidney")[2] > centroid(phantom, "right_kidney")[2]
    assert centroid(phantom, "liver")[2] > centroid(phantom, "right_kidney")[2] + 20


@pytest.mark.slow
@pytest.mark.parametrize("organ", ["spleen", "left_kidney", "right_kidney"])
def test_an_absent_organ_is_absent_and_the_others_stay(organ: str) -> None:
    whole, without = scan(6), scan(6, absent=[organ])
    assert not (without.labels == ID[organ]).any()
    gone = whole.labels == ID[organ]
    others = ~gone & (without.labels == whole.labels)
    assert others.sum() > 0.999 * (~gone).sum()
    assert np.median(whole.image[gone]) > 0
    assert np.median(without.image[gone]) < 0  # fat, or bowel that took the place


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """One at full size."""
    return make_phantom(np.random.default_rng(0))


def test_no_threshold_finds_an_organ(phantom: Phantom) -> None:
    for name in ("liver", "spleen", "left_kidney"):
        organ = phantom.labels == ID[name]
        low, high = np.percentile(phantom.image[organ], (5, 95))
        inside = (phantom.image >= low) & (phantom.image <= high)
        assert 2 * (inside & organ).sum() / (inside.sum() + organ.sum()) < 0.75, name


def test_noise_is_correlated_and_as_strong_as_in_ct(phantom: Phantom) -> None:
    air = phantom.image[:, :6].astype(float)  # behind the back; its noise is clipped at -1024 HU
    assert 8 < air.std() < 25
    assert np.corrcoef(air[:-1].ravel(), air[1:].ravel())[0, 1] > 0.2


def test_thick_slices_blur_the_edges(phantom: Phantom) -> None:
    """Voxels between air and skin hold both: a mean over the voxel, not the value at its centre."""
    image = phantom.image[:, :, 20].astype(float)
    assert ((image > -850) & (image < -250)).sum() > 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (15, 44, 32)}, r"got shape \(15, 44, 32\); 16 voxels"),
        ({"spacing": (6.4, 0.0, 6.5)}, "got spacing"),
        ({"spacing": (6.4, float("nan"), 6.5)}, "got spacing"),
        ({"absent": ["heart"]}, r"got absent organs \['heart'\]"),
        ({"absent": ["background"]}, "got absent organs"),
        ({"orientation": "RAL"}, "got orientation 'RAL'"),
        ({"orientation": "XYZ"}, "got orientation"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan(**options)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "new" / "set"
    write_phantoms(folder, n=14, seed=7, shape=SMALL, spacing=WIDE)
    return folder


def test_a_written_set_is_a_valid_data_set(written: Path) -> None:
    table = read_label_names(written)
    assert table == LABELS
    cases = load_cases(written, "training") + load_cases(written, "validation")
    assert len(cases) == 14
    for case in cases:
        check_labels(case, table)
    assert json.loads((written / "dataset.json").read_text())["numTraining"] == 14
    files = sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    assert files == ["dataset.json"] + [
        f"{d}/phantom_{i:03d}.nii.gz" for d in ("imagesTr", "labelsTr") for i in range(14)
    ]


def test_the_cases_vary_in_orientation_obliqueness_and_thickness(written: Path) -> None:
    images = [nib.load(path) for path in sorted((written / "imagesTr").iterdir())]
    assert len({nib.aff2axcodes(image.affine) for image in images}) >= 4
    assert 0 < sum(nib.affines.obliquity(image.affine).max() > 0.05 for image in images) < len(images)
    assert len({round(max(image.header.get_zooms()), 2) for image in images}) >= 2
    for image in images:
        sform, qform = image.get_sform(coded=True), image.get_qform(coded=True)
        assert (sform[1], qform[1]) == (1, 1)
        np.testing.assert_allclose(sform[0], qform[0], atol=1e-3)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.get_data_dtype() == np.int16


def test_a_quarter_of_the_patients_lack_one_organ(written: Path) -> None:
    missing = []
    for path in sorted((written / "labelsTr").iterdir()):
        found = set(np.unique(np.asarray(nib.load(path).dataobj)))
        missing.append([LABELS[label] for label in sorted(set(LABELS) - found)])
    assert [i for i, organs in enumerate(missing) if organs] == [3, 7, 11]
    assert [missing[i] for i in (3, 7, 11)] == [["spleen"], ["left_kidney"], ["right_kidney"]]


@pytest.mark.slow
def test_a_case_depends_on_seed_and_number_alone(written: Path, tmp_path: Path) -> None:
    few = write_phantoms(tmp_path / "few", n=4, seed=7, shape=SMALL, spacing=WIDE)
    for path in few:
        for folder in ("imagesTr", "labelsTr"):
            one = tmp_path / "few" / folder / path.name
            assert one.read_bytes() == (written / folder / path.name).read_bytes()
    other = write_phantoms(tmp_path / "other", n=1, seed=8, shape=SMALL, spacing=WIDE)
    assert other[0].read_bytes() != few[0].read_bytes()
    for a, b in pairwise(few):
        assert a.read_bytes() != b.read_bytes()


@pytest.mark.parametrize("n", [0, -1])
def test_no_phantoms_are_refused(n: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"got n = {n} phantoms"):
        write_phantoms(tmp_path, n)


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(FileExistsError, match="is not an empty folder"):
            write_phantoms(out, 1, shape=SMALL, spacing=WIDE)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="16 voxels"):
        write_phantoms(tmp_path / "new", 1, shape=(8, 8, 8))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_pictures_are_radiological_slices_of_the_same_patient(tmp_path: Path) -> None:
    """Rows run from front to back, columns from the patient's right to left; -160 to 240 HU are 0 to 255."""
    images = write_phantom_images2d(tmp_path / "set", 1, seed=7, shape=SMALL, spacing=WIDE)
    phantom = make_phantom(np.random.default_rng([7, 0]), SMALL, WIDE)
    for image in images:
        z = int(image.stem.rpartition("_")[2])
        label = read_label_image2d(tmp_path / "set/labelsTr" / image.name)
        grey = (np.clip(phantom.image[::-1, ::-1, z].T, -160, 240) + 160) / 400 * 255
        np.testing.assert_allclose(read_image2d(image), grey, atol=0.501)
        np.testing.assert_array_equal(label, phantom.labels[::-1, ::-1, z].T)
        assert label.max() > 0
    middle = read_label_image2d(tmp_path / "set/labelsTr" / images[4].name)
    liver, spine = (np.argwhere(middle == ID[name]).mean(0) for name in ("liver", "spine"))
    assert (liver < spine).all()  # before the spine, and on the patient's right, which is the picture's left


@pytest.mark.slow
def test_a_set_of_pictures_is_a_valid_data_set_and_parts_patients(tmp_path: Path) -> None:
    images = write_phantom_images2d(tmp_path, 6, seed=7, shape=(24, 20, 16), spacing=(14.0, 14.0, 12.5))
    sections = {section: load_cases(tmp_path, section) for section in ("training", "validation")}  # type: ignore[arg-type]
    patients = {section: {Path(c["image"]).name[:11] for c in cases} for section, cases in sections.items()}
    assert patients["validation"] == {"phantom_000", "phantom_005"}
    assert not patients["training"] & patients["validation"]
    assert sum(len(cases) for cases in sections.values()) == len(images) == 6 * 8
    assert read_label_names(tmp_path) == LABELS
    for case in sections["training"]:
        check_labels(case, LABELS)
        if "phantom_003" in case["label"]:
            assert not (read_label_image2d(Path(case["label"])) == ID["spleen"]).any()
    again = write_phantom_images2d(tmp_path / "again", 1, seed=7, shape=(24, 20, 16), spacing=(14.0, 14.0, 12.5))
    assert [image.read_bytes() for image in again] == [image.read_bytes() for image in images[:8]]


def test_a_scan_too_small_for_an_organ_is_sliced_all_the_same(tmp_path: Path) -> None:
    assert len(write_phantom_images2d(tmp_path, 1, shape=(16, 16, 16), spacing=(1.0, 1.0, 1.0))) == 8
