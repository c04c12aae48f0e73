"""A long cohort in one process takes no more memory and no more open files in its end than in its beginning.

About 30 seconds of one core.
"""

import gc
import os
import resource
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import Survived, assert_whole, labels
from runs import predict

from monai_unetfamily.bundles.bundle import open_bundle

pytestmark = pytest.mark.slow

CASES = 300
SETTLED = 100  # cases after which caches are filled
SHAPE = (40, 36, 32)  # 180 KiB as float32: 36 MB, were each kept
GROWTH = 12 << 20  # bytes that may be the allocator's


def taken() -> tuple[int, int]:
    """Resident memory in bytes, and open files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.skipif(sys.platform != "linux", reason="memory and open files are read from /proc, which Linux has")
def test_three_hundred_cases_take_no_more_than_one_hundred(bundle: Path, tmp_path: Path, survived: Survived) -> None:
    scans, chance = tmp_path / "scans", np.random.default_rng(0)
    scans.mkdir()
    for number in range(CASES):
        voxels = chance.integers(-200, 300, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3.0, 3.0, 1.0])), scans / f"{number:03}.nii")
    opened = open_bundle(bundle, torch.device("cpu"))
    for number, outcome in enumerate(predict(opened, [scans], tmp_path / "out"), start=1):
        assert outcome.error is None
        if number == SETTLED:
            memory, files = taken()
        if number == CASES - 1:  # the last but one: the threads are there still
            more, others = taken()
    assert more - memory < GROWTH
    assert others <= files
    assert len(labels(tmp_path / "out")) == CASES
    assert_whole(tmp_path / "out")
    survived("long run", CASES)
