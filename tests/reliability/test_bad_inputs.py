"""Bad and odd inputs at the door: each is one clear line, an error or a note, and never more than its own case."""

import re
from pathlib import Path

import numpy as np
import pytest

from monai_unetfamily.data import find_studies
from monai_unetfamily.io import Study, read_study
from tests.reliability.bad_inputs import ROWS, VOXELS, Row, content, link, scan

pytestmark = pytest.mark.slow


def read_all(row: Row, given: Path | str) -> list[str]:
    """What both calls say of a row, in the end."""
    found = find_studies([given], **row.finding)
    return [*found.notes, *(note for study in found.studies for note in read_study(study, **row.reading).notes)]


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_input_is_one_clear_line(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    given = row.make(tmp_path)
    if row.error:
        with pytest.raises((ValueError, OSError), match=row.error) as caught:
            read_all(row, given)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value) or "got nan" in str(caught.value)
    else:
        notes = read_all(row, given)
        assert len(notes) == bool(row.note), notes
        assert all(re.search(row.note, note) and "\n" not in note for note in notes), notes


@pytest.mark.parametrize(
    ("name", "error"),
    [("nifti1.hdr", "its nifti1.img is missing"), ("resampled_anat_moved.nii", "of 1071 voxels are NaN")],
)
def test_real_bad_files_are_one_clear_line(name: str, error: str, data_dir: Path) -> None:
    with pytest.raises((ValueError, OSError), match=error):
        read_all(Row(Path), data_dir / "nifti_odd" / name)


def test_a_bad_file_is_but_one_case_of_its_folder(tmp_path: Path) -> None:
    for bad in ("b.nii.gz", "d.nii"):
        content(tmp_path / bad, b"")
    link(tmp_path / "a.nii.gz")
    for good in ("c.nii.gz", "e.nii"):
        scan(tmp_path / good)
    studies = find_studies([tmp_path]).studies
    assert [study.name for study in studies] == list("abcde")
    for study in studies:
        if study.name in "ce":
            np.testing.assert_array_equal(read_study(study).voxels[0], VOXELS)
        else:
            with pytest.raises((ValueError, OSError), match=f"{study.name}.nii"):
                read_study(study)


def test_a_damaged_header_is_read_or_refused_but_never_crashes(tmp_path: Path) -> None:
    raw = np.frombuffer(scan(tmp_path / "a.nii").read_bytes(), np.uint8)
    rng, lines = np.random.default_rng(0), []
    for _ in range(300):
        damaged = raw.copy()
        damaged[rng.integers(40, 352, 4)] = rng.integers(0, 256, 4)
        study = Study("b", (content(tmp_path / "b.nii", damaged.tobytes()),), "nifti")
        try:
            lines += read_study(study).notes
        except ValueError as error:  # anything else fails the test
            lines.append(str(error))
    assert len(lines) > 30
    assert not any("\n" in line for line in lines)
