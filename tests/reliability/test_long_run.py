"""A long cohort in one process takes no more memory and no more open files in its end than in its beginning.

About 30 seconds of one core.
"""

import gc
import json
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from monai_unetfamily.bundles import open_bundle
from tests.reliability.cohorts import Survived, assert_whole, labels
from tests.support.processes import Child
from tests.support.runs import predict

pytestmark = pytest.mark.slow

CASES = 300
SETTLED = 100  # cases after which caches are filled
SHAPE = (40, 36, 32)  # 180 KiB as float32: 36 MB, were each kept
GROWTH = 4 << 20  # bytes: of the cases that are read and written at the moment
FILES = 20  # likewise


def taken() -> tuple[int, int]:
    """Bytes that Python, NumPy and live tensors hold, whatever their allocators keep; and open files."""
    gc.collect()
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in live_tensors()}
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return tracemalloc.get_traced_memory()[0] + sum(storages.values()), files


def live_tensors() -> Iterator[torch.Tensor]:
    return (thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter, MetaTensor))


def measure_growth(bundle: Path, scans: Path, out: Path) -> None:
    """Predict all scans, and print by how many bytes and open files the later cases grew."""
    tracemalloc.start()
    opened = open_bundle(bundle, torch.device("cpu"))
    for number, case_result in enumerate(predict(opened, [scans], out), start=1):
        assert case_result.error is None
        if number == SETTLED:
            memory, files = taken()
        if number == CASES - 1:  # the last but one: the threads are there still
            more, others = taken()
    sys.stdout.write(f"{json.dumps([more - memory, others - files])}\n")


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="open files are read from /proc, which Linux has")
def test_three_hundred_cases_take_no_more_than_one_hundred(bundle: Path, tmp_path: Path, survived: Survived) -> None:
    """In a new process: what other tests left in this one may be freed or grow meanwhile."""
    scans, out, chance = tmp_path / "scans", tmp_path / "out", np.random.default_rng(0)
    scans.mkdir()
    for number in range(CASES):
        voxels = chance.integers(-200, 300, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3.0, 3.0, 1.0])), scans / f"{number:03}.nii")
    child = Child(measure_growth, bundle, scans, out)
    said = child.said.read()
    assert child.wait() == 0, said[-3000:]
    memory, files = json.loads(said.splitlines()[-1])
    assert memory < GROWTH
    assert files < FILES
    assert len(labels(out)) == CASES
    assert_whole(out)
    survived("long run", CASES)
