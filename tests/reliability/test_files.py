"""Damaged, lying and oddly named files: one clear line each, the others are done, nothing is lost or replaced.

About 20 seconds of one core.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_unetfamily.bundles import open_bundle
from monai_unetfamily.cohort import predict_cohort
from monai_unetfamily.data import find_studies
from monai_unetfamily.io import Study, read_study
from monai_unetfamily.prediction import Settings
from tests.reliability.bad_inputs import ROWS, VOXELS, Row, scan
from tests.reliability.cohorts import Survived, assert_told, assert_whole, digests, failures, labels
from tests.reliability.damage import BOMBS, CHECKED, CUTS, FLIPS, FOLDERS, FORMATS, NAMES, REFUSED_NAMES, cut, flip
from tests.support.runs import predict
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
QUIET = Settings(previews=False)


def studies_of(row: Row, folder: Path, name: str) -> list[Study]:
    """What is found of a row of the table under names of our own; nothing where it is refused when it is listed."""
    folder.mkdir()
    given = row.make(folder)
    try:
        found = find_studies([given], **row.finding).studies
    except (ValueError, OSError):  # test_bad_inputs.py has its words
        return []
    return [replace(study, name=f"{name} {number}") for number, study in enumerate(found)]


@pytest.mark.parametrize("name", sampled(FORMATS, "NIfTI, gzip", "MetaImage, packed", "DICOM", "PNG"))
def test_a_file_cut_anywhere_costs_its_own_line(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, survived: Survived
) -> None:
    kind = FORMATS[name]
    bundle = open_bundle(request.getfixturevalue("bundle_2d" if kind.flat else "bundle"), CPU)
    (tmp_path / "whole").mkdir()
    sources = {"whole": kind.make(tmp_path / "whole")}
    for number, keep in enumerate(CUTS.values()):
        directory = tmp_path / f"cut{number}"
        shutil.copytree(tmp_path / "whole", directory)
        sources[directory.name] = directory / sources["whole"].relative_to(tmp_path / "whole")
        cut(directory / kind.damaged, keep)
    before = digests(tmp_path)
    studies = [replace(s, name=case) for case, source in sources.items() for s in find_studies([source]).studies]
    assert len(studies) == 1 + len(CUTS)
    case_results = list(predict_cohort([bundle], studies, tmp_path / "out", QUIET))
    done = labels(tmp_path / "out")
    assert case_results[0].error is None
    for file, content in done.items():  # what is not refused is as the whole one: nothing that counts was cut
        assert content == done[next(iter(done)).replace(file.split(".")[0], "whole")] or file.startswith("whole")
    assert len(failures(tmp_path / "out")) >= len(CUTS) - 2
    assert_told(case_results, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert before.items() <= digests(tmp_path).items()
    survived("files", len(CUTS))


def read(given: Path) -> tuple[np.ndarray | None, str]:
    """The voxels, or why there are none; any other error fails the test."""
    try:
        (voxels,) = [read_study(study).voxels for study in find_studies([given]).studies]
    except (ValueError, OSError) as error:
        return None, str(error)
    return voxels, ""


@pytest.mark.parametrize("name", sampled(FORMATS, "NIfTI, gzip"))
def test_flipped_bytes_are_refused_or_read_but_never_crash(name: str, tmp_path: Path, survived: Survived) -> None:
    kind = FORMATS[name]
    source = kind.make(tmp_path)
    whole = (tmp_path / kind.damaged).read_bytes()
    expected = read_study(find_studies([source]).studies[0]).voxels
    for seed in FLIPS:
        (tmp_path / kind.damaged).write_bytes(whole)
        flip(tmp_path / kind.damaged, seed)
        voxels, refusal = read(source)
        assert "\n" not in refusal
        assert voxels is not None or str(tmp_path) in refusal
        assert voxels is None or np.isfinite(voxels).all()
        assert voxels is None or name not in CHECKED or np.array_equal(voxels, expected)
    survived("files", len(FLIPS))


def test_all_bad_inputs_together_cost_their_own_lines(bundle: Path, tmp_path: Path, survived: Survived) -> None:
    directories = tmp_path / "rooms"
    directories.mkdir()
    rows = {key: row for key, row in ROWS.items() if key != "permission denied"}  # which root may read
    bad = [study for n, row in enumerate(rows.values()) for study in studies_of(row, directories / str(n), f"row {n}")]
    good = [replace(s, name="good") for s in find_studies([scan(directories / "good.nii.gz")]).studies]
    before = digests(directories)
    case_results = list(
        predict_cohort([open_bundle(bundle, CPU)], [*bad[::2], *good, *bad[1::2]], tmp_path / "out", QUIET)
    )
    assert [case_result.error for case_result in case_results if case_result.study.name == "good"] == [None]
    assert_told(case_results, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert digests(directories) == before
    survived("files", len(ROWS))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(name: str, tmp_path: Path, survived: Survived) -> None:
    make, message = BOMBS[name]
    given = make(tmp_path)
    voxels, refusal = read(given)
    assert voxels is None
    assert re.search(message, refusal)
    assert str(given) in refusal
    assert "\n" not in refusal
    survived("files", 1)


def test_any_name_is_kept_as_it_is(bundle: Path, tmp_path: Path, survived: Survived) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in NAMES:
        scan(source / f"{name}.nii.gz")
    for name in FOLDERS:
        (source / name).mkdir()
    before, opened = digests(source), open_bundle(bundle, CPU)
    assert not [case_result.error for case_result in predict(opened, [source], out) if case_result.error]
    assert labels(out).keys() == {f"{name}.nii.gz" for name in NAMES}
    assert failures(out) == {}
    page = (out / "report.html").read_text("utf-8")
    assert "<b>bold" not in page
    assert "<script>alert" not in page
    assert_whole(out)
    assert digests(source) == before
    assert all(case_result.skipped for case_result in predict(opened, [source], out))
    survived("files", len(NAMES) + len(FOLDERS))


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=ascii)
def test_a_name_that_no_output_can_have_is_refused_before_anything_is_done(
    name: str, bundle: Path, tmp_path: Path, survived: Survived
) -> None:
    scan(tmp_path / "in" / "good.nii.gz", VOXELS)
    bad = scan(tmp_path / "in" / f"{name}.nii.gz", VOXELS)
    with pytest.raises(ValueError, match=REFUSED_NAMES[name]) as caught:
        list(predict(open_bundle(bundle, CPU), [tmp_path / "in"], tmp_path / "out"))
    assert ascii(bad.name)[1:-1].split(".")[0] in ascii(str(caught.value)).replace("\\\\", "\\")
    assert not (tmp_path / "out").exists()
    survived("files", 1)
