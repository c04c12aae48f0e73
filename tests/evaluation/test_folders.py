from dataclasses import dataclass
from math import nan
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_unetfamily.evaluation import evaluate_case, evaluate_folders
from monai_unetfamily.io import write_label_image2d

SPACING = (0.8, 1.0, 5.0)  # mm


def box(start=(3, 3, 3), size=(4, 4, 4), shape=(14, 14, 14), label=1):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return labels


@dataclass
class Folders:
    """Two folders with cases a and b, where the prediction of b misses its organ."""

    predictions: Path
    references: Path

    def put(self, side, name, labels, affine=None):
        affine = np.diag([*SPACING, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(labels, affine), getattr(self, side) / name)

    def evaluate(self, **options):
        return evaluate_folders(self.predictions, self.references, **options)


@pytest.fixture
def folders(tmp_path):
    folders = Folders(tmp_path / "predictions", tmp_path / "references")
    folders.predictions.mkdir()
    folders.references.mkdir()
    folders.put("predictions", "a.nii.gz", box())
    folders.put("predictions", "b.nii.gz", box(label=0))
    folders.put("references", "a.nii", np.roll(box(), 1, axis=0))
    folders.put("references", "b.nii.gz", box(label=2))
    return folders


def test_folders_equal_their_cases(folders):
    lines = []
    names = {1: "liver", 2: "spleen"}
    found = folders.evaluate(classes=names, progress=lines.append)
    a = evaluate_case(box(), np.roll(box(), 1, axis=0), SPACING, names, case="a")
    b = evaluate_case(box(label=0), box(label=2), SPACING, names, case="b")
    np.testing.assert_equal([score[2:] for score in found], [score[2:] for score in a + b])
    assert [score[:2] for score in found] == [score[:2] for score in a + b]
    assert lines == ["1/2 a", "2/2 b"]


def test_classes_default_to_every_label_found(folders):
    assert [score.label for score in folders.evaluate()] == ["1", "2", "1", "2"]


def test_labels_stored_as_floats_or_4d_are_labels(folders):
    expected = folders.evaluate()
    folders.put("predictions", "a.nii.gz", box().astype(np.float32)[..., None])
    np.testing.assert_equal(folders.evaluate(), expected)


def test_part_of_a_folder_and_single_files(folders):
    prediction, reference = folders.predictions / "a.nii.gz", folders.references / "a.nii"
    expected = folders.evaluate(classes={1: "liver"})[:1]
    assert evaluate_folders(prediction, [reference], {1: "liver"}) == expected
    assert evaluate_folders(prediction, reference, {1: "liver"}) == expected
    renamed = reference.rename(reference.with_name("truth.nii"))
    assert evaluate_folders(prediction, renamed, {1: "liver"}) == expected
    with pytest.raises(ValueError, match=r"1 of 1 files without a reference, the first is .*a\.nii\.gz"):
        evaluate_folders(prediction, [renamed])


def test_hidden_files_are_no_cases(folders):
    (folders.predictions / "._a.nii.gz").write_bytes(b"resource fork")
    assert len(folders.evaluate(classes={1: "liver", 2: "spleen"})) == 4


def test_nothing_is_left_out_silently(folders):
    folders.put("predictions", "c.nii.gz", box())
    with pytest.raises(ValueError, match=r"1 of 3 files without a reference, the first is .*c\.nii\.gz"):
        folders.evaluate()
    for name in ("c.nii.gz", "d.nii.gz", "e.nii.gz"):
        folders.put("references", name, box())
    with pytest.raises(ValueError, match=r"2 of 5 files without a prediction, the first is .*d\.nii\.gz"):
        folders.evaluate()


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.nhdr", "a.hdr"])
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_every_format_of_volumes_scores_alike(folders, side, name):
    """Nothing is left out: without the case there would be two scores, and a wrong grid would be refused."""
    expected = folders.evaluate()
    [file] = getattr(folders, side).glob("a.*")
    sitk.WriteImage(sitk.ReadImage(str(file)), str(file.with_name(name)), useCompression=True)
    file.unlink()
    np.testing.assert_equal(folders.evaluate(), expected)


def test_a_case_in_another_format_on_one_side_alone_is_named(folders):
    sitk.WriteImage(sitk.Image([14, 14, 14], sitk.sitkUInt8), str(folders.references / "c.nrrd"))
    with pytest.raises(ValueError, match=r"1 of 3 files without a prediction, the first is .*c\.nrrd"):
        folders.evaluate()


def test_an_image_that_cannot_be_read_is_named(folders):
    (folders.references / "c.mgz").touch()
    with pytest.raises(ValueError, match=r"c\.mgz: is of a kind that is not read"):
        folders.evaluate()


def test_what_predict_writes_beside_label_maps_is_no_case(folders):
    expected = folders.evaluate()
    for name in ("a.json", "run.json", "volumes.csv", "dseg.tsv", "report.html", "a.seg.dcm", "a.png"):
        (folders.predictions / name).touch()
    previews = folders.predictions / "details" / "previews"
    previews.mkdir(parents=True)
    write_label_image2d(box()[:, :, 5], previews / "a.png")
    np.testing.assert_equal(folders.evaluate(), expected)


def test_one_case_twice_is_refused(folders):
    folders.put("predictions", "a.nii", box())
    with pytest.raises(ValueError, match="has the stem of"):
        folders.evaluate()


SHEARED = np.diag([1.0, 1.0, 1.0, 1.0])
SHEARED[0, 2] = 0.1


@pytest.mark.parametrize(
    ("labels", "affine", "message"),
    [
        (box(shape=(14, 14, 13)), None, r"different grids in .*predictions.a\.nii.*references.a\.nii"),
        (box(), np.diag([0.8, 1.0, 5.01, 1.0]), "different grids"),
        (box() * 0.5, None, r"64 voxels in .*a\.nii\.gz that are no label"),
        (box().astype(np.float32) * nan, None, "NaN"),
        (-box().astype(np.int16), None, "no label"),
        (np.stack([box(), box()], axis=-1), None, "got 4-D masks in .* against one label map in"),
        (box(label=7), None, r"labels \[7\] in .*a\.nii\.gz; \[1, 2\] are allowed"),
    ],
)
def test_bad_files_are_refused_by_name(folders, labels, affine, message):
    folders.put("predictions", "a.nii.gz", labels, affine)
    with pytest.raises(ValueError, match=message):
        folders.evaluate(classes={1: "liver", 2: "spleen"})


def test_sheared_axes_are_refused(folders):
    for side, name in (("predictions", "a.nii.gz"), ("references", "a.nii")):
        folders.put(side, name, box(), SHEARED)
    with pytest.raises(ValueError, match="cosine"):
        folders.evaluate()


def test_affines_may_differ_by_rounding(folders):
    folders.put("predictions", "a.nii.gz", box(), np.diag([0.8, 1.0, 5.0005, 1.0]))
    assert len(folders.evaluate()) == 4


def test_missing_or_empty_folders(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_folders(tmp_path / "nowhere", folders.references)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: holds no"):
        evaluate_folders(tmp_path / "empty", folders.references)
    for name in ("a.nii.gz", "b.nii.gz"):
        folders.put("predictions", name, box(label=0))
    with pytest.raises(ValueError, match="only label 0 in 4 files"):
        evaluate_folders(folders.predictions, [folders.predictions / name for name in ("a.nii.gz", "b.nii.gz")])


def test_pictures_are_scored_in_pixels(tmp_path):
    """A greyscale PNG against a TIFF in palette colours: ids are ids."""
    labels, truth = box()[:, :, 5], box(start=(4, 3, 3))[:, :, 5]
    for side in ("predictions", "references"):
        (tmp_path / side).mkdir()
    write_label_image2d(labels, tmp_path / "predictions/a.png")
    reference = Image.fromarray(truth, "L").copy()
    reference.putpalette([0, 0, 0, 255, 0, 0])
    reference.save(tmp_path / "references/a.tif")
    [score] = evaluate_folders(tmp_path / "predictions", tmp_path / "references")
    [expected] = evaluate_case(labels, truth, None, {1: "1"}, case="a")
    np.testing.assert_equal(tuple(score), tuple(expected))
    assert (score.hd95, score.unit) == (1, "px")


@pytest.mark.parametrize(
    ("reference", "message"),
    [(box()[:, :13, 5], "different grids"), (box()[..., :3], "got RGB of 8 bits")],
)
def test_bad_pictures_are_refused_by_name(tmp_path, reference, message):
    write_label_image2d(box()[:, :, 5], tmp_path / "a.png")
    Image.fromarray(np.ascontiguousarray(reference)).save(tmp_path / "truth.png")
    with pytest.raises(ValueError, match=message):
        evaluate_folders(tmp_path / "a.png", tmp_path / "truth.png")


def test_pictures_and_volumes_are_not_averaged(folders):
    for side in (folders.predictions, folders.references):
        write_label_image2d(box()[:, :, 5], side / "c.png")
    with pytest.raises(ValueError, match=r"got 2 pictures among 6 files, the first is .*c\.png"):
        folders.evaluate()


def test_real_references_agree_with_themselves(data_dir):
    files = sorted((data_dir / "hippocampus" / "labelsTr").glob("*.nii.gz"))[:2]
    files.append(data_dir / "hippocampus" / "labelsTr" / "hippocampus_243.nii.gz")  # stored as float32
    scores = [score for file in files for score in evaluate_folders(file, file, {1: "anterior", 2: "posterior"})]
    assert [score[2:5] for score in scores] == [(1, 0, 1)] * 6
    # an adult's half hippocampus measures between half a millilitre and five
    assert all(0.5 < score.volume_ml < 5 for score in scores)
