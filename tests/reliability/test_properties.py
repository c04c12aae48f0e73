"""Properties that hold of any volume, any windows and any upsampling, looked for by hypothesis in a few examples.

The examples are the same in every run (derandomized), so that a run that fails is a change that fails. About 10 seconds
of one core.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.inferers.windows import window_starts
from monai_unetfamily.io import read_volume, save_image, write_labels
from monai_unetfamily.nets.layers import UpsampleConv
from monai_unetfamily.nets.layers.upsampling import Upsampled, coarse_convolution
from tests.io.test_nifti import geometry
from tests.nets.test_upsampling import error, plain
from tests.reliability.cohorts import Survived

pytestmark = pytest.mark.slow

few = settings(
    max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)  # no example depends on chance, none on time
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
CODES = st.integers(0, 4)
STORED = st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32])
IDS = st.sampled_from([np.uint8, np.int16, np.uint16, np.int64])
FRACTIONS = st.floats(0, 0.9)


@pytest.fixture(autouse=True)
def _counted(survived: Survived) -> None:
    survived("properties", few.max_examples)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Invertible: turned in any way, sheared a little, of voxels from 0.1 to 20 mm, anywhere."""
    turn, _ = np.linalg.qr(draw(arrays.arrays(np.float64, (3, 3), elements=st.floats(-1, 1))) + 3 * np.eye(3))
    shear = np.eye(3)
    shear[0, 2] = draw(st.floats(-0.2, 0.2))
    affine = np.eye(4)
    affine[:3, :3] = turn @ shear * draw(st.tuples(*[st.floats(0.1, 20)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@given(affines(), SHAPES, CODES, CODES, STORED, IDS, st.integers(0, 2**32 - 1), st.sampled_from([".nii", ".nii.gz"]))
@few
def test_a_volume_is_read_as_stored_and_its_labels_lie_on_its_grid(
    affine: np.ndarray,
    shape: tuple[int, int, int],
    sform: int,
    qform: int,
    stored: type,
    ids: type,
    seed: int,
    end: str,
) -> None:
    chance = np.random.default_rng(seed)
    image = nib.Nifti1Image(chance.integers(0, 200, shape).astype(stored), affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    labels = chance.integers(0, 120, shape).astype(ids)
    with TemporaryDirectory() as name:
        source, target = Path(name) / f"source{end}", Path(name) / f"labels{end}"
        save_image(image, source)
        voxels, read = read_volume(source)
        write_labels(labels, source, target)
        before, after = nib.load(source), nib.load(target)
        np.testing.assert_array_equal(voxels, before.get_fdata())
        np.testing.assert_array_equal(after.dataobj, labels)
        assert geometry(after) == geometry(before)
        assert after.affine.tobytes() == before.affine.tobytes() == read.tobytes()


@given(st.integers(1, 2000), st.integers(1, 300), FRACTIONS)
@few
def test_windows_cover_every_voxel_and_begin_at_different_ones(size: int, roi: int, overlap: float) -> None:
    starts = window_starts(size, roi, overlap)
    assert all(0 < after - before <= roi for before, after in pairwise(starts))
    assert starts[0] <= 0
    assert starts[-1] + roi >= size
    if size > roi:
        assert (starts[0], starts[-1]) == (0, size - roi)


@given(st.data(), st.integers(2, 3), FRACTIONS, st.integers(1, 5), st.sampled_from(["gaussian", "constant"]))
@few
def test_windows_of_a_network_that_changes_nothing_change_nothing(
    data: st.DataObject, axes: int, overlap: float, batch: int, mode: str
) -> None:
    size, roi = (data.draw(st.tuples(*[st.integers(low, 12)] * axes)) for low in (1, 2))
    mirrored = data.draw(st.sets(st.integers(0, axes - 1)))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 2, *size))).float()
    how: dict[str, Any] = {
        "background": None,
        "overlap": overlap,
        "sw_batch_size": batch,
        "mode": mode,
        "mirror_axes": tuple(mirrored),
    }
    torch.testing.assert_close(WindowInferer(roi, **how)(x, lambda window: window), x, rtol=1e-5, atol=1e-5)


def sizes(axes: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(1, most)] * axes)


def on_both_ways(x: torch.Tensor, kernel: torch.Tensor, size: Sequence[int]) -> float:
    return error(coarse_convolution(Upsampled(x, size), kernel), plain(x, kernel, tuple(size)))


@given(st.data(), st.integers(2, 3), st.integers(1, 5), st.integers(1, 5))
@few
def test_the_coarse_grid_gives_the_papers_values_at_any_size(
    data: st.DataObject, axes: int, channels: int, outputs: int
) -> None:
    coarse, fine = data.draw(sizes(axes, 6)), data.draw(sizes(axes, 14))
    kernel = data.draw(st.tuples(*[st.sampled_from([1, 3, 5])] * axes))
    torch.manual_seed(0)
    x, weights = torch.randn(2, channels, *coarse).double(), torch.randn(outputs, channels, *kernel).double()
    assert on_both_ways(x, weights, fine) < 1e-12


@given(st.data(), st.integers(2, 3))
@few
def test_upsampleconv_has_the_targets_size_and_trains_every_weight(data: st.DataObject, axes: int) -> None:
    coarse, fine = data.draw(sizes(axes, 5)), data.draw(sizes(axes, 11))
    torch.manual_seed(0)
    block = UpsampleConv(axes, 3, 2, norm=None)
    y = block(torch.randn(2, 3, *coarse), fine)
    assert y.shape == (2, 2, *fine)
    y.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in block.parameters())
