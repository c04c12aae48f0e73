"""A cohort: every case has an outcome, what is finished stays, and a run that dies goes on to the same results."""

import csv
import json
import signal
from pathlib import Path
from shutil import rmtree
from traceback import walk_tb

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.cohort import predict_cohort
from monai_unetfamily.cohort.records import holds, read_record, record_file
from monai_unetfamily.data import find_studies
from monai_unetfamily.io import open_volume, read_label_tables
from monai_unetfamily.prediction import Settings
from tests.support.faults import Ended, die_at, run
from tests.support.runs import predict

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle, CPU)


def images(phantoms: Path, n: int) -> list[Path]:
    return sorted((phantoms / "imagesTr").glob("*.nii.gz"))[:n]


def labels(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.nii.gz")}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_cohort_leaves_labels_records_and_tables(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(images(phantoms, 1)[0].read_bytes()[:-400])
    out = tmp_path / "out"
    studies = find_studies([bad, *images(phantoms, 2)]).studies
    failed, *done = predict_cohort([opened], studies, out)
    assert "bad.nii.gz" in str(failed.error)
    assert [case_result.output for case_result in done] == [out / file.name for file in images(phantoms, 2)]
    assert [row["case"] for row in rows(out / "failures.csv")] == ["bad"]
    classes = [name for label, name in opened.names.items() if label]
    assert [(row["case"], row["name"]) for row in rows(out / "volumes.csv")] == [
        (case_result.study.name, name) for case_result in done for name in classes
    ]
    for row in rows(out / "volumes.csv"):
        image = nib.load(out / f"{row['case']}.nii.gz")
        voxels = int((np.asarray(image.dataobj) == int(row["label"])).sum())
        assert int(row["voxels"]) == voxels
        assert float(row["volume_ml"]) == pytest.approx(voxels * abs(np.linalg.det(image.affine[:3, :3])) / 1000)
    (table,) = read_label_tables(open_volume(out / "phantom_000.nii.gz"))
    assert {label: entry.name for label, entry in table.items()} == opened.names
    run = json.loads((out / "run.json").read_text())
    assert set(run["cases"]) == {"bad", "phantom_000", "phantom_001"}
    assert "phantom_001" in (out / "report.html").read_text()
    assert (out / "details/previews/phantom_000.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "bad.nii.gz").exists()


def test_what_is_finished_is_not_done_again(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    list(predict(opened, images(phantoms, 3), tmp_path))
    before, times = labels(tmp_path), {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.nii.gz")}
    (tmp_path / "phantom_001.nii.gz").write_bytes(before["phantom_001.nii.gz"][:100])  # cut off
    again = list(predict(opened, images(phantoms, 3), tmp_path))
    assert [case_result.skipped for case_result in again] == [True, False, True]
    assert labels(tmp_path) == before
    assert [file.name for file, time in times.items() if file.stat().st_mtime_ns != time] == ["phantom_001.nii.gz"]
    assert (tmp_path / "details/changed/phantom_001.nii.gz").stat().st_size == 100  # it might be somebody's work
    assert not any(
        case_result.skipped for case_result in predict(opened, images(phantoms, 3), tmp_path, overwrite=True)
    )
    assert labels(tmp_path) == before


def test_another_image_of_the_same_name_is_done(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "ct.nii.gz"
    source.parent.mkdir()
    for image, skipped in ((0, False), (0, True), (1, False), (1, True)):
        source.write_bytes(images(phantoms, 2)[image].read_bytes())
        (case_result,) = predict(opened, [source], tmp_path / "out")
        assert case_result.skipped == skipped


def test_other_settings_do_not_replace_what_is_there(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    list(predict(opened, images(phantoms, 1), tmp_path))
    before = labels(tmp_path)
    with pytest.raises(FileExistsError, match="not with this bundle and these settings"):
        list(predict(opened, images(phantoms, 1), tmp_path, overlap=0.5))
    assert labels(tmp_path) == before
    (case_result,) = predict(opened, images(phantoms, 1), tmp_path, overlap=0.5, overwrite=True)
    assert not case_result.skipped


@pytest.mark.parametrize("name", ["run", "Details"])
def test_a_case_that_is_called_as_the_runs_own_files_is_refused(
    opened: Bundle, phantoms: Path, tmp_path: Path, name: str
) -> None:
    source = tmp_path / f"{name}.nii.gz"
    source.write_bytes(images(phantoms, 1)[0].read_bytes())
    with pytest.raises(ValueError, match="rename it"):
        list(predict(opened, [source], tmp_path / "out"))


def test_a_case_that_failed_is_tried_again(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "ct.nii.gz"
    source.parent.mkdir()
    source.write_bytes(b"no image")
    (failed,) = predict(opened, [source], tmp_path / "out")
    assert failed.error is not None
    source.write_bytes(images(phantoms, 1)[0].read_bytes())
    (done,) = predict(opened, [source], tmp_path / "out")
    assert done.error is None
    assert rows(tmp_path / "out/failures.csv") == []


def test_work_by_hand_outlives_a_run_that_could_not_read(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    source, whole = tmp_path / "in" / "ct.nii.gz", images(phantoms, 1)[0].read_bytes()
    source.parent.mkdir()
    for content in (whole, whole[:99], whole):
        source.write_bytes(content)
        list(predict(opened, [source], tmp_path / "out"))
        if not (tmp_path / "out/details/changed").exists():
            (tmp_path / "out/ct.nii.gz").write_text("by hand")
    assert (tmp_path / "out/details/changed/ct.nii.gz").read_text() == "by hand"


@pytest.mark.parametrize("name", ["phantom_000.json", "volumes.csv"])
def test_files_of_others_are_not_replaced(opened: Bundle, phantoms: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    with pytest.raises(FileExistsError, match=name):
        list(predict(opened, images(phantoms, 1), out))
    assert [file.name for file in out.iterdir()] == [name]


def test_outputs_do_not_come_among_the_inputs(opened: Bundle, phantoms: Path) -> None:
    with pytest.raises(ValueError, match="holds inputs"):
        list(predict(opened, images(phantoms, 1), phantoms / "imagesTr", split=True))


def test_a_case_that_cannot_be_measured_costs_its_own_line(
    opened: Bundle, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    case_results = predict(opened, images(phantoms, 3), tmp_path)
    monkeypatch.setattr("monai_unetfamily.cohort.outputs.measure", fail)
    first = next(case_results)
    monkeypatch.undo()
    others = list(case_results)
    assert str(first.error) == "no room"
    assert [case_result.error for case_result in others][-1] is None
    assert all(case_result.error is None for case_result in predict(opened, images(phantoms, 3), tmp_path))


def test_an_error_holds_no_voxels(opened: Bundle, tmp_path: Path) -> None:
    voxels = np.full((20, 20, 20), np.nan, np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "nan.nii.gz")
    (case_result,) = predict(opened, [tmp_path / "nan.nii.gz"], tmp_path / "out")
    assert case_result.error is not None
    held = [value for frame, _ in walk_tb(case_result.error.__traceback__) for value in frame.f_locals.values()]
    assert not any(isinstance(value, np.ndarray) for value in held)


def test_classes_that_are_not_asked_for_are_not_written(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    (whole,) = predict(opened, images(phantoms, 1), tmp_path / "all")
    (part,) = predict(opened, images(phantoms, 1), tmp_path / "roi", roi=("liver",))
    (split,) = predict(opened, images(phantoms, 1), tmp_path / "split", roi=("liver",), split=True)
    assert whole.output
    assert part.output
    assert split.output
    liver = next(label for label, name in opened.names.items() if name == "liver")
    expected, got = (np.asarray(nib.load(file).dataobj) for file in (whole.output, part.output))
    np.testing.assert_array_equal(got, np.where(expected == liver, liver, 0))
    assert [file.name for file in split.output.iterdir()] == ["liver.nii.gz"]
    assert [row["name"] for row in rows(tmp_path / "roi/volumes.csv")] == ["liver"]


def test_shards_share_a_folder_and_the_last_tells_of_all(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    studies = find_studies(images(phantoms, 4)).studies
    for part in (studies[::2], studies[1::2]):
        list(predict_cohort([opened], part, tmp_path, Settings(previews=False)))
    assert len({row["case"] for row in rows(tmp_path / "volumes.csv")}) == 4
    assert len(labels(tmp_path)) == 4


def test_an_output_that_cannot_be_written_ends_the_run(
    opened: Bundle, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("monai_unetfamily.cohort.outputs.write_labels", full)
    with pytest.raises(OSError, match="No space left"):
        list(predict(opened, images(phantoms, 3), tmp_path))
    assert labels(tmp_path) == {}
    monkeypatch.undo()
    assert all(case_result.output for case_result in predict(opened, images(phantoms, 3), tmp_path))


def test_an_output_folder_that_vanishes_ends_the_run(opened: Bundle, phantoms: Path, tmp_path: Path) -> None:
    case_results = predict(opened, images(phantoms, 5), tmp_path / "out")
    next(case_results)
    rmtree(tmp_path / "out")
    with pytest.raises(OSError, match="out"):
        list(case_results)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_the_run_and_leaves_nothing_half_done(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["predict", bundle, phantoms / "imagesTr", "-o", out, "--device", "cpu"]
    ended = run(tmp_path / "log", words, die_at, out, "rename phantom_002.nii.gz", 1, signal.SIGINT)
    assert ended == Ended(130, ended.said)
    assert ended.said.endswith("unetfamily: interrupted\n")
    assert labels(out).keys() >= {"phantom_000.nii.gz"}
    assert not list(out.rglob(".*.part"))
    for file in out.glob("*.nii.gz"):
        record = read_record(record_file(out, file.name[:-7]))
        assert record is not None
        assert holds(file, record.outputs[file.name])
