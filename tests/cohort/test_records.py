"""A case is finished when bundle, settings, input and every output are what its record says, and never else."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_unetfamily.bundles import hash_bundle
from monai_unetfamily.cohort import Record
from monai_unetfamily.cohort.records import (
    UNFINISHED,
    hash_study,
    is_finished,
    read_record,
    read_records,
    record_file,
    write_record,
)
from monai_unetfamily.io import Study, hash_files
from monai_unetfamily.prediction import Request
from monai_unetfamily.reporting import measure

(MEASURE,) = measure(np.ones((2, 2), int), np.zeros((2, 2)), np.eye(3), {1: "liver"}, "a")
REQUEST = Request([("liver_ct", "ab")], {"overlap": 0.25, "mirror": (0, 1), "roi": None})


@pytest.fixture
def finished(tmp_path: Path) -> Record:
    (tmp_path / "a.nii.gz").write_bytes(b"labels")
    outputs = {"a.nii.gz": hash_files([tmp_path / "a.nii.gz"])}
    record = Record("a", REQUEST, ("scans/a.nii.gz",), "12", outputs, classes=(MEASURE._asdict(),))
    write_record(record, tmp_path)
    return record


def test_a_record_goes_through_its_file(finished: Record, tmp_path: Path) -> None:
    found = read_record(record_file(tmp_path, "a"))
    assert found is not None
    assert is_finished(found, finished, tmp_path)
    assert found == replace(finished, request=found.request)
    assert read_records(tmp_path) == [found]


def test_whatever_differs_is_done_again(finished: Record, tmp_path: Path) -> None:
    again = {
        "failed": (replace(finished, error="no"), finished),
        "another input": (finished, replace(finished, input_hash="13")),
        "an input that cannot be read": (finished, replace(finished, input_hash=None)),
        "another bundle": (finished, replace(finished, request=replace(REQUEST, bundles=[("liver_ct", "ac")]))),
        "another setting": (finished, replace(finished, request=replace(REQUEST, settings={"overlap": 0.5}))),
        "no output": (replace(finished, outputs={}), finished),
        "output gone": (replace(finished, outputs={"b.nii.gz": "0"}), finished),
        "begun alone": (replace(finished, outputs={"a.nii.gz": UNFINISHED}), finished),
    }
    assert is_finished(finished, finished, tmp_path)
    assert [name for name, case in again.items() if is_finished(*case, tmp_path)] == []
    (tmp_path / "a.nii.gz").write_bytes(b"label")  # cut off
    assert not is_finished(finished, finished, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"kind": "monai_unetfamily case"}', '{"labels": {}}'])
def test_another_file_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_record(tmp_path / "a.json") is None
    assert read_records(tmp_path) == []


def test_a_hash_knows_where_one_file_ends(tmp_path: Path) -> None:
    for name, content in {"a": b"xy", "b": b"z", "c": b"x", "d": b"yz"}.items():
        (tmp_path / name).write_bytes(content)
    assert hash_files([tmp_path / "a", tmp_path / "b"]) != hash_files([tmp_path / "c", tmp_path / "d"])
    assert hash_files([tmp_path / "a"]) == hash_files([tmp_path / "a"])


def test_a_bundles_hash_hangs_on_what_decides_its_labels_alone(tmp_path: Path) -> None:
    for name in ("configs/inference.yaml", "configs/metadata.json", "configs/train.yaml", "models/model.pt", "logs/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = hash_bundle(tmp_path)
    for name, changes in {"logs/x": False, "configs/train.yaml": False, "models/model.pt": True}.items():
        (tmp_path / name).write_text("changed")
        assert (hash_bundle(tmp_path) != before) == changes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among files")
def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii.gz")
    assert hash_study(Study("a", (tmp_path / "a.nii.gz",), "nifti")) is None
