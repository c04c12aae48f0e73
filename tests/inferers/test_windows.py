"""Where windows lie: the laws of even spreading, against MONAI's rule."""

from itertools import pairwise

import pytest
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from monai_unetfamily.inferers.windows import Windows, window_starts

AXES = [
    (size, roi, overlap)
    for size in (1, 2, 7, 16, 31, 64, 100, 321)
    for roi in (1, 2, 3, 8, 16, 96)
    for overlap in (0.0, 0.1, 0.25, 0.5, 0.7, 0.9)
]


def monai_starts(size: int, roi: int, overlap: float) -> list[int]:
    size = max(size, roi)
    interval = _get_scan_interval((size,), (roi,), 1, (overlap,))
    return [window[0].start for window in dense_patch_slices((size,), (roi,), interval)]


@pytest.mark.parametrize(("size", "roi", "overlap"), AXES)
def test_windows_cover_the_axis_evenly_and_are_no_more_than_monais(size: int, roi: int, overlap: float) -> None:
    starts = window_starts(size, roi, overlap)
    steps = [b - a for a, b in pairwise(starts)]
    assert len(starts) <= len(monai_starts(size, roi, overlap))
    if size <= roi:
        assert starts == [-((roi - size) // 2)]  # MONAI pads the lesser half before
        return
    assert starts[0] == 0
    assert starts[-1] == size - roi
    assert max(steps) <= min(roi, max(1, roi * (1 - overlap)) + 1)  # no gap, and no more than a voxel over the step
    assert max(steps) - min(steps) <= 1
    assert min(steps) >= 1


@pytest.mark.parametrize(
    ("size", "roi", "overlap", "same"),
    [(64, 16, 0.5, True), (240, 96, 0.25, True), (5, 5, 0.5, True), (65, 16, 0.5, False), (320, 96, 0.25, False)],
)
def test_where_the_step_divides_the_room_the_windows_are_monais(
    size: int, roi: int, overlap: float, same: bool
) -> None:
    assert (window_starts(size, roi, overlap) == monai_starts(size, roi, overlap)) is same


def test_a_window_s_valid_voxels_are_those_inside() -> None:
    windows = Windows((5, 9), (8, 4), (window_starts(5, 8, 0), window_starts(9, 4, 0)))
    image = torch.arange(45.0).reshape(1, 1, 5, 9)
    padded = windows.pad(image, "constant", -1)
    assert padded.shape == (1, 1, 8, 9)
    for start in windows.along(1):
        crop = windows.crop(padded, start, 0, ())[0, 0]
        assert torch.equal(crop[*windows.valid(start)], image[0, 0][*windows.inside(start)])
        assert (crop == -1).sum() == 3 * 4
