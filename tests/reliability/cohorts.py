"""What holds of a cohort after any fault: sources as they were, outputs whole, failures told, and no remains."""

import csv
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from monai_unetfamily.cohort import CaseResult
from monai_unetfamily.cohort.records import holds, read_record, record_file

Survived = Callable[[str, int], None]  # as the fixture `survived`: kind, cases


def digests(folder: Path) -> dict[str, str]:
    """Each file of a folder, and those below, by its bytes."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def labels(folder: Path) -> dict[str, bytes]:
    """The label maps of an output folder."""
    return {file.name: file.read_bytes() for end in ("*.nii.gz", "*.png") for file in folder.glob(end)}


def failures(folder: Path) -> dict[str, str]:
    """Case -> reason, as the table has them."""
    with (folder / "failures.csv").open(newline="", encoding="utf-8") as stream:
        return {row["case"]: row["reason"] for row in csv.DictReader(stream)}


def assert_whole(folder: Path) -> None:
    """Every file under a final name is as a record says, and nothing half done is left."""
    assert not [file for file in folder.rglob(".*") if file.name.endswith((".part", ".case.lock"))]
    for name in labels(folder):
        record = read_record(record_file(folder, name.removesuffix(".nii.gz").removesuffix(".png")))
        assert record is not None, name
        assert not record.failure, name
        assert holds(folder / name, record.outputs[name]), name


def assert_told(case_results: Iterable[CaseResult], folder: Path) -> None:
    """Each failed case is one line in its record and in the table, and has no label map."""
    failed = {case_result.study.name: case_result for case_result in case_results if case_result.error is not None}
    assert failures(folder).keys() == failed.keys()
    for name, case_result in failed.items():
        assert case_result.record.error
        assert "\n" not in case_result.record.error
        assert not (folder / f"{name}.nii.gz").exists()
        assert not (folder / f"{name}.png").exists()
